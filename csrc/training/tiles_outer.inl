// dW = dY^T X in tiles of bfloat16: 32 x 32 numbers of dW at a time, 32 rows a step. Included inside the tier's
// namespace and target region, after its tile verbs.
//
// A step of the right side is two tiles of 16 columns, pairs of rows one under the other; one of the left side is two
// tiles whose rows are 16 columns: the same, turned. Both are rounded when they are gathered. dW goes through the
// tiles of sums in float32: each step of a block's rows is a sum from zero, added to what was there. So bits depend
// on the sequences and not on which calls bring them.

constexpr std::size_t kLanes = f32::lanes;
constexpr std::size_t kPanel = 2 * kTile;
constexpr std::size_t kStepBytes = 2 * kTileBytes;

// each(step's first row of x, its rows, where the panel's tiles of the step stand)
template <class Each>
REFIMPL_INLINE void for_steps(const RowBlock* blocks, std::size_t count, void* panel, Each each) {
  char* to = static_cast<char*>(panel);
  for (std::size_t b = 0; b < count; ++b)
    for (std::size_t r = 0; r < blocks[b].count; r += kTileDepth, to += kStepBytes)
      each(blocks[b].first + r, blocks[b].count - r < kTileDepth ? blocks[b].count - r : kTileDepth, to);
}

// Columns [column, column + n) of 32 rows as lines of pairs, n <= 16; rows after the first `rows` are zeros.
REFIMPL_INLINE void pair_rows(const float* x, std::size_t ld, std::size_t rows, int n, __m512i (&lines)[kTile]) {
  const auto row = [&](std::size_t r) {
    if (r >= rows) return _mm256_setzero_si256();
    __builtin_prefetch(x + (r + kTileDepth) * ld);  // for the next step
    return narrow(load_first(x + r * ld, n));
  };
  for (std::size_t p = 0; p < kTile; ++p) lines[p] = pairs(row(2 * p), row(2 * p + 1));
}

REFIMPL_INLINE int lanes_at(std::size_t column, std::size_t columns) {
  return static_cast<int>(column >= columns ? 0 : columns - column < kLanes ? columns - column : kLanes);
}

template <bool left>
inline void gather(const RowBlock* blocks, std::size_t count, const float* x, std::size_t columns, std::size_t panel,
                   void* to) {
  for_steps(blocks, count, to, [&](std::size_t first, std::size_t rows, char* step) {
    for (std::size_t half = 0; half < 2; ++half, step += kTileBytes) {
      const std::size_t column = panel * kPanel + half * kTile;
      const int n = lanes_at(column, columns);
      __m512i lines[kTile] = {}, turned[kTile];
      if (n) pair_rows(x + first * columns + column, columns, rows, n, lines);
      if (left) transpose(lines, turned);
      for (std::size_t i = 0; i < kTile; ++i) _mm512_storeu_si512(step + i * kTileLine, left ? turned[i] : lines[i]);
    }
  });
}

REFIMPL_INLINE void load_block(Tiles& tiles, const float* c, std::size_t ld) {
  const std::size_t bytes = ld * sizeof(float);
  tiles.load_sums<0, 0>(c, bytes), tiles.load_sums<0, 1>(c + kTile, bytes);
  tiles.load_sums<1, 0>(c + kTile * ld, bytes), tiles.load_sums<1, 1>(c + kTile * ld + kTile, bytes);
}
REFIMPL_INLINE void zero_block(Tiles& tiles) {
  tiles.zero_sums<0, 0>(), tiles.zero_sums<0, 1>(), tiles.zero_sums<1, 0>(), tiles.zero_sums<1, 1>();
}
REFIMPL_INLINE void store_block(Tiles& tiles, float* c, std::size_t ld) {
  const std::size_t bytes = ld * sizeof(float);
  tiles.store_sums<0, 0>(c, bytes), tiles.store_sums<0, 1>(c + kTile, bytes);
  tiles.store_sums<1, 0>(c + kTile * ld, bytes), tiles.store_sums<1, 1>(c + kTile * ld + kTile, bytes);
}

// A panel of the left side stays in L1, the panels of the right side pass it from L2, and dW is met row by row.
inline void outer(const RowBlock*, std::size_t, std::size_t rows, const void* left, std::size_t left0, std::size_t left1,
                  std::size_t m, const void* right, std::size_t right0, std::size_t right1, std::size_t n, float* c) {
  alignas(64) float edge[kPanel * kPanel];
  const std::size_t steps = rows / kTileDepth;
  const char* panels = static_cast<const char*>(left) + left0 * steps * kStepBytes;
  Tiles tiles;
  for (std::size_t panel = left0; panel < left1; ++panel, panels += steps * kStepBytes) {
    const std::size_t row = panel * kPanel, height = m - row < kPanel ? m - row : kPanel;
    const char* b = static_cast<const char*>(right) + right0 * steps * kStepBytes;
    for (std::size_t other = right0; other < right1; ++other) {
      const std::size_t column = other * kPanel, width = n - column < kPanel ? n - column : kPanel;
      float* const there = c + row * n + column;
      const bool whole = height == kPanel && width == kPanel;
      if (!whole) {
        __builtin_memset(edge, 0, sizeof edge);
        for (std::size_t r = 0; r < height; ++r) __builtin_memcpy(edge + r * kPanel, there + r * n, width * sizeof(float));
      }
      float* const sums = whole ? there : edge;
      const std::size_t ld = whole ? n : kPanel;
      load_block(tiles, sums, ld);
      const char* a = panels;
      for (std::size_t step = 0; step < steps; ++step, a += kStepBytes, b += kStepBytes) {
        tiles.load_rows<0>(a, kTileLine), tiles.load_rows<1>(a + kTileBytes, kTileLine);
        tiles.stream_columns<0>(b), tiles.stream_columns<1>(b + kTileBytes);
        tiles.dot<0>(), tiles.dot<1>();
      }
      store_block(tiles, sums, ld);
      if (!whole)
        for (std::size_t r = 0; r < height; ++r) __builtin_memcpy(there + r * n, edge + r * kPanel, width * sizeof(float));
    }
  }
}
