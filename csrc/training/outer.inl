// dW = dY^T X: a sum of outer products over rows, in register tiles of kRows x 2 vectors. Included after
// kernels/gemm.inl.
//
// Each element is, for each block of rows, one chain of fma over its rows in order, from zero; the blocks'
// sums are added to c in their order. A tile of c is read and written once for all blocks of a call.

template <std::size_t width>
inline void gather(const RowBlock* blocks, std::size_t count, const float* x, std::size_t columns, std::size_t panel,
                   void* panels) {
  const std::size_t first = panel * width, there = columns - first < width ? columns - first : width;
  float* to = static_cast<float*>(panels);
  for (std::size_t b = 0; b < count; ++b) {
    const float* row = x + blocks[b].first * columns + first;
    for (std::size_t r = 0; r < blocks[b].count; ++r, row += columns, to += width) {
      if (width == kPanel && there == width) {
        store(to, load(row)), store(to + kLanes, load(row + kLanes));
        continue;
      }
      for (std::size_t i = 0; i < there; ++i) to[i] = row[i];
      for (std::size_t i = there; i < width; ++i) to[i] = 0.0f;
    }
  }
}

// acc[r] += sum_p left[p, r] right[p, 0:kPanel]
template <int R>
REFIMPL_INLINE void accumulate(std::size_t rows, const float* left, std::size_t ldl, const float* right,
                               f32 (&acc)[R][2]) {
#pragma GCC unroll 1
  for (std::size_t p = 0; p < rows; ++p) {
    f32 v[2];
    load2(right + p * kPanel, v);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const f32 a = set1(left[p * ldl + r]);
      acc[r][0] = fma(a, v[0], acc[r][0]);
      acc[r][1] = fma(a, v[1], acc[r][1]);
    }
  }
}

// y [R, kPanel] += the sum over these rows, rows of y kPanel apart.
template <int R>
inline void outer_tile(std::size_t rows, const float* left, std::size_t ldl, const float* right, float* y) {
  f32 acc[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = set1(0.0f);
  accumulate<R>(rows, left, ldl, right, acc);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c) store(y + r * kPanel + c * kLanes, add(load(y + r * kPanel + c * kLanes), acc[r][c]));
}

// The tile with that many rows of y.
template <int R>
inline void outer_rows(std::size_t of_y, std::size_t rows, const float* left, std::size_t ldl, const float* right,
                       float* y) {
  if (of_y == R) return outer_tile<R>(rows, left, ldl, right, y);
  if constexpr (R > 1) outer_rows<R - 1>(of_y, rows, left, ldl, right, y);
}

inline void outer(const RowBlock* blocks, std::size_t count, std::size_t rows, const void* left, std::size_t left0,
                  std::size_t left1, std::size_t m, const void* right, std::size_t right0, std::size_t right1,
                  std::size_t n, float* c) {
  alignas(64) float tile[kRows * kPanel];
  for (std::size_t other = right0; other < right1; ++other) {
    const std::size_t column = other * kPanel;
    const auto lanes_at = [&](int half) {
      const std::size_t at = column + static_cast<std::size_t>(half) * kLanes;
      return static_cast<int>(at >= n ? 0 : n - at < kLanes ? n - at : kLanes);
    };
    const int lanes[2] = {lanes_at(0), lanes_at(1)};
    for (std::size_t panel = left0; panel < left1; ++panel) {
      const std::size_t row = panel * kRows, there = m - row < kRows ? m - row : kRows;
      for (std::size_t r = 0; r < kRows; ++r)
        for (int h = 0; h < 2; ++h) {
          const float* from = c + (row + r) * n + column + static_cast<std::size_t>(h) * kLanes;
          store(tile + r * kPanel + static_cast<std::size_t>(h) * kLanes, r < there && lanes[h] ? load_first(from, lanes[h]) : set1(0.0f));
        }
      if (panel + 1 < left1)  // of c: what the next tile reads
        for (std::size_t r = 0; r < kRows && row + kRows + r < m; ++r) __builtin_prefetch(c + (row + kRows + r) * n + column, 1);
      const float *a = static_cast<const float*>(left) + panel * rows * kRows;
      const float* b = static_cast<const float*>(right) + other * rows * kPanel;
      for (std::size_t i = 0; i < count; ++i) {
        outer_tile<kRows>(blocks[i].count, a, kRows, b, tile);
        a += blocks[i].count * kRows, b += blocks[i].count * kPanel;
      }
      for (std::size_t r = 0; r < there; ++r)
        for (int h = 0; h < 2; ++h)
          if (lanes[h])
            store_first(c + (row + r) * n + column + static_cast<std::size_t>(h) * kLanes,
                        load(tile + r * kPanel + static_cast<std::size_t>(h) * kLanes), lanes[h]);
    }
  }
}
