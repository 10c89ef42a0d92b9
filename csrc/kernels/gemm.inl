// y = x W^T on packed panels: register tiles of kRows x 2 vectors, k in blocks of kDepth.
// Included inside a tier's namespace and target region, after its simd verbs and constants.
//
// Each element is one chain of fma over k in order, whatever the tile it is computed in: results do
// not depend on rows, split or thread. A k block of a panel stays in L1 while the rows pass.

constexpr std::size_t kPanel = 2 * f32::lanes;
constexpr std::size_t kDepth = 256;

inline std::size_t packed_floats(std::size_t n, std::size_t k) { return padded_width(n, kPanel) * k; }

inline void pack(std::size_t n, std::size_t k, const float* w, float* packed) {
  for (std::size_t first = 0; first < n; first += kPanel) {
    const std::size_t columns = n - first < kPanel ? n - first : kPanel;
    for (std::size_t p = 0; p < k; ++p, packed += kPanel) {
      for (std::size_t c = 0; c < columns; ++c) packed[c] = w[(first + c) * k + p];
      for (std::size_t c = columns; c < kPanel; ++c) packed[c] = 0.0f;
    }
  }
}

// acc[r] += sum_p x[r, p] b[p, 0:kPanel], b with row stride ldb.
template <int R>
REFIMPL_INLINE void multiply(std::size_t depth, const float* x, std::size_t ldx, const float* b, std::size_t ldb,
                             f32 (&acc)[R][2]) {
  for (std::size_t p = 0; p < depth; ++p) {
    const f32 b0 = load(b + p * ldb), b1 = load(b + p * ldb + f32::lanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const f32 a = set1(x[r * ldx + p]);
      acc[r][0] = fma(a, b0, acc[r][0]);
      acc[r][1] = fma(a, b1, acc[r][1]);
    }
  }
}

// Lanes of column `c` that exist when `columns` of the panel do.
REFIMPL_INLINE int lanes_left(std::size_t columns, int c) {
  const int left = static_cast<int>(columns) - c * f32::lanes;
  return left < 0 ? 0 : left > f32::lanes ? f32::lanes : left;
}

template <int R>
inline void gemm_tile(const Gemm& g, std::size_t row, std::size_t column, std::size_t k0, std::size_t depth,
                      const float* b) {
  const std::size_t columns = g.n - column < kPanel ? g.n - column : kPanel;
  float* y = g.y + row * g.ldy + column;
  f32 acc[R][2];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c)
      acc[r][c] = k0 == 0 ? set1(0.0f) : load_first(y + r * g.ldy + c * f32::lanes, lanes_left(columns, c));
  multiply<R>(depth, g.x + row * g.ldx + k0, g.ldx, b, kPanel, acc);
  const bool last = k0 + depth == g.k;
  for (int c = 0; c < 2; ++c) {
    const int n = lanes_left(columns, c);
    const f32 bias = last && g.bias ? load_first(g.bias + column + c * f32::lanes, n) : set1(0.0f);
    for (int r = 0; r < R; ++r) {
      f32 v = acc[r][c];
      if (last && g.bias) v = add(v, bias);
      if (last && g.residual) v = add(v, load_first(g.residual + (row + r) * g.ldr + column + c * f32::lanes, n));
      store_first(y + r * g.ldy + c * f32::lanes, v, n);
    }
  }
}

// The tile with as many rows as are left.
template <int R>
inline void gemm_rows(int rows, const Gemm& g, std::size_t row, std::size_t column, std::size_t k0, std::size_t depth,
                      const float* b) {
  if (rows == R) return gemm_tile<R>(g, row, column, k0, depth, b);
  if constexpr (R > 1) gemm_rows<R - 1>(rows, g, row, column, k0, depth, b);
}

inline void gemm(const Gemm& g, std::size_t row0, std::size_t row1, std::size_t panel0, std::size_t panel1) {
  for (std::size_t k0 = 0; k0 < g.k; k0 += kDepth) {
    const std::size_t depth = g.k - k0 < kDepth ? g.k - k0 : kDepth;
    for (std::size_t panel = panel0; panel < panel1; ++panel) {
      const float* b = g.packed + (panel * g.k + k0) * kPanel;
      for (std::size_t row = row0; row < row1; row += kRows) {
        const int rows = row1 - row < kRows ? static_cast<int>(row1 - row) : kRows;
        gemm_rows<kRows>(rows, g, row, panel * kPanel, k0, depth, b);
      }
    }
  }
}
