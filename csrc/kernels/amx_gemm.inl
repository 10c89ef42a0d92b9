// y = x W^T on AMX: blocks of 32 rows x a panel of 32 columns in 2 x 2 tiles, k in steps of 32.
// Included inside the tier's namespace and target region, after amx_weights.inl.
//
// A number is the sum of T bfloat16 terms. T = 1: operands and weights are rounded to bfloat16. T = 2,
// 3: both are split, and a product of two numbers is the 3 or 6 products of terms i, j with i + j < T.
// Each element is one chain of tile products over k in order, whatever the block, split or thread.
//
// A group of panels stays in the L2 cache. Each block of rows meets all of them before the next one comes.
// Meanwhile the next group is fetched. A block's sums leave their tiles during the first step of the next
// product, and its epilogue, two rows a step, runs beside those products.

constexpr std::size_t kRows = 2 * kTile;
// Rows of x that are split at a time: 3 x 128 x 2.4 KB at k = 1152 stay in L2.
constexpr std::size_t kSplitRows = 128;

// -- activations ----------------------------------------------------------------------------------

// Bytes of k numbers as rows of tiles: whole tiles, an odd number of cache lines, so that the 16 rows
// of a tile fall into different sets of the L1 cache.
inline std::size_t row_bytes_of(std::size_t k) { return (steps_of(k) | 1) * kTileLine; }

// Rows of x as rows of tiles; one term is bytes away from the next.
struct SplitRows {
  const char* data;
  std::size_t row_bytes, term_bytes;
};

// 32 numbers of a row as pairs of T terms. Inf, NaN, and what bfloat16 rounds to Inf stand as in the
// other splits.
template <int T>
REFIMPL_INLINE void split_row(f32 a, f32 b, char* to, std::size_t term_bytes) {
  const f32 infinite = set1(3.39617752e38f);  // the least number that bfloat16 rounds to Inf
  const __mmask16 odd_a = _mm512_cmp_ps_mask(abs(a).v, infinite.v, _CMP_NLT_UQ);
  const __mmask16 odd_b = _mm512_cmp_ps_mask(abs(b).v, infinite.v, _CMP_NLT_UQ);
  if (!__builtin_expect(odd_a | odd_b, 0)) return split_finite<T>(a, b, to, term_bytes);
  float numbers[2 * kTile];
  store(numbers, a), store(numbers + kTile, b);
  for (std::size_t j = 0; j < 2 * kTile; ++j) {
    bf16 terms[T];
    split(numbers[j], terms);
    for (int t = 0; t < T; ++t)
      reinterpret_cast<bf16*>(to + t * term_bytes)[pair_of<Terms<T>>(j) * 2 + side_of<Terms<T>>(j)] = terms[t];
  }
}

// `there`: they were split before, and nothing else since.
template <int T>
inline SplitRows split_rows(const Gemm& g, std::size_t row0, std::size_t rows, bool there, void* scratch) {
  const char* x = static_cast<const char*>(g.x) + row0 * g.ldx;
  if constexpr (T == 1) return {x, g.ldx, 0};  // operands are that already
  const std::size_t k = g.packing.k, row_bytes = row_bytes_of(k), term_bytes = kSplitRows * row_bytes;
  const SplitRows split{static_cast<const char*>(scratch), row_bytes, term_bytes};
  if (there) return split;
  for (std::size_t r = 0; r < rows; ++r) {
    const float* from = reinterpret_cast<const float*>(x + r * g.ldx);
    char* to = static_cast<char*>(scratch) + r * row_bytes;
    for (std::size_t i = 0; i < k; i += kTileDepth, to += kTileLine) {
      const std::size_t left = k - i;
      const int n = static_cast<int>(left < kTile ? left : kTile);
      const int more = static_cast<int>(left < kTile ? 0 : left - kTile < kTile ? left - kTile : kTile);
      split_row<T>(load_first(from + i, n), load_first(from + i + (more ? kTile : 0), more), to, term_bytes);
    }
  }
  return split;
}

template <class W>
inline std::size_t split_bytes(std::size_t k) {
  return W::count == 1 ? 0 : W::count * kSplitRows * row_bytes_of(k);
}

// Scratch of a product: rows, then panels that are split.
template <class W>
inline std::size_t product_bytes(std::size_t k) {
  return round_up(split_bytes<W>(k), kTileLine) + Coming<W>::scratch_bytes(k);
}

// -- products -------------------------------------------------------------------------------------

// The last block's sum to memory, and its tile ready for the next.
template <int I, int J>
REFIMPL_INLINE void put_away(Tiles& tiles, float* sums) {
  tiles.store_sums<I, J>(sums + I * kTile * kPanel + J * kTile, kPanel * sizeof(float));
  tiles.zero_sums<I, J>();
}

// One tile product per sum; R tiles of rows. The first of a block puts the last block's sums away,
// its stores beside the products.
template <int R>
REFIMPL_INLINE void dots(Tiles& tiles, bool first, float* sums) {
  if (first) put_away<0, 0>(tiles, sums), put_away<0, 1>(tiles, sums);
  tiles.dot<0>();
  if (first) put_away<1, 0>(tiles, sums), put_away<1, 1>(tiles, sums);
  if constexpr (R == 2) tiles.dot<1>();
}

// R tiles of a term of the rows; both tiles of a term of the panel, which is read once (T = 1) or several times.
template <int R>
REFIMPL_INLINE void load_term(Tiles& tiles, const SplitRows& x, std::size_t step, int term) {
  const char* rows = x.data + term * x.term_bytes + step * kTileLine;
  tiles.load_rows<0>(rows, x.row_bytes);
  if constexpr (R == 2) tiles.load_rows<1>(rows + kTile * x.row_bytes, x.row_bytes);
}
template <int T>
REFIMPL_INLINE void load_panel(Tiles& tiles, const char* columns) {
  if constexpr (T == 1)
    tiles.stream_columns<0>(columns), tiles.stream_columns<1>(columns + kTileBytes);
  else
    tiles.load_columns<0>(columns), tiles.load_columns<1>(columns + kTileBytes);
}

// The products of a step: this term of the rows times that of the weights. From one to the next the tiles of one
// of both stay, as a load of a tile takes as long as a product: 8 loads for 12 products, 14 for 24.
struct TermProduct {
  int row, column;
};
template <int T>
constexpr TermProduct kProducts[] = {{0, 0}};
template <>
constexpr TermProduct kProducts<2>[] = {{1, 0}, {0, 0}, {0, 1}};
template <>
constexpr TermProduct kProducts<3>[] = {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}};

// R tiles of rows times a panel; each(step) is called after every step.
template <int R, int T, class Each>
inline void multiply(Tiles& tiles, std::size_t steps, const SplitRows& x, Coming<Terms<T>>& weights, std::size_t panel,
                     float* sums, Each each) {
  for (std::size_t step = 0; step < steps; ++step) {
    const char* columns = weights.tiles(panel, step);
    TermProduct last{-1, -1};
    std::size_t product = 0;
#pragma GCC unroll 6
    for (const TermProduct p : kProducts<T>) {
      if (p.row != last.row) load_term<R>(tiles, x, step, p.row);
      if (p.column != last.column) load_panel<T>(tiles, columns + p.column * 2 * kTileBytes);
      dots<R>(tiles, step == 0 && last.row < 0, sums);
      weights.beside(step, product++);
      last = p;
    }
    each(step);
  }
}

// A block whose sums wait for their epilogue.
struct Block {
  std::size_t row = 0, rows = 0, done = 0;
  f32 bias0, bias1;
};

// `finish`: project.inl.
template <class W, class Finish>
inline void gemm(const Gemm& g, const Range& range, void* scratch, Finish finish) {
  constexpr int T = W::count;
  alignas(64) float sums[kRows * kPanel];
  Block block;
  const auto finish_rows = [&](std::size_t count) {
    if (block.done == block.rows) return;
    for (; count && block.done < block.rows; --count, ++block.done) {
      const float* v = sums + block.done * kPanel;
      f32 v0 = load(v), v1 = load(v + kLanes);
      if (g.bias) v0 = add(v0, block.bias0), v1 = add(v1, block.bias1);
      finish.row(block.row + block.done, v0, v1);
    }
    if (block.done == block.rows) finish.end();
  };
  const std::size_t steps = steps_of(g.packing.k);
  const std::size_t chunk = T == 1 ? range.row1 - range.row0 : kSplitRows;
  const bool there = range.again && range.row1 - range.row0 <= chunk;
  Coming<W> weights(g, range, static_cast<char*>(scratch) + round_up(split_bytes<W>(g.packing.k), kTileLine));
  Tiles tiles;
  for (std::size_t row0 = range.row0; row0 < range.row1; row0 += chunk) {
    const std::size_t rows = range.row1 - row0 < chunk ? range.row1 - row0 : chunk;
    const SplitRows x = split_rows<T>(g, row0, rows, there, scratch);
    for (std::size_t panel0 = range.panel0, panel1; panel0 < range.panel1; panel0 = panel1) {
      panel1 = panel0 + weights.group < range.panel1 ? panel0 + weights.group : range.panel1;
      const bool more = panel1 < range.panel1, again = row0 + rows < range.row1;
      const std::size_t next = more ? panel1 : again ? range.panel0 : range.next;
      weights.begin(panel0, panel1, next, more || again, ceil_div(rows, kRows));
      const auto beside = [&](std::size_t step) {
        if (step) finish_rows(2);
      };
      for (std::size_t r = 0; r < rows; r += kRows)
        for (std::size_t panel = panel0; panel < panel1; ++panel) {
          const SplitRows at{x.data + r * x.row_bytes, x.row_bytes, x.term_bytes};
          const std::size_t left = rows - r;
          if (left > kTile)
            multiply<2, T>(tiles, steps, at, weights, panel, sums, beside);
          else
            multiply<1, T>(tiles, steps, at, weights, panel, sums, beside);
          finish_rows(kRows);
          block.row = row0 + r, block.rows = left < kRows ? left : kRows, block.done = 0;
          const PanelColumns c = columns_of(g.packing, panel, kLanes);
          finish.panel(c);
          if (g.bias) block.bias0 = load_first(g.bias + c.first, c.n_first), block.bias1 = load_first(g.bias + c.second, c.n_second);
        }
    }
  }
  put_away<0, 0>(tiles, sums), put_away<0, 1>(tiles, sums), put_away<1, 0>(tiles, sums), put_away<1, 1>(tiles, sums);
  finish_rows(kRows);
}
