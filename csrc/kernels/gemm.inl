// y = x W^T on packed panels: register tiles of kRows x 2 vectors, k in blocks of kDepth.
// Included inside a tier's namespace and target region, after its simd verbs and constants.
//
// Each element is one chain of fma over k in order, whatever the tile it is computed in: results do
// not depend on rows, split or thread. kChunk rows of x stay in the L2 cache while the panels pass,
// a block of a panel in L1 while those rows pass. The sums of a chunk and a panel are complete before
// an epilogue (project.inl) sees them.

constexpr std::size_t kDepth = 256;
constexpr std::size_t kChunk = 84 / kRows * kRows;  // whole tiles

// -- weights --------------------------------------------------------------------------------------

template <class W>
inline std::size_t packed_bytes(const Packing& p) {
  return panels_of(p, kLanes) * p.k * kPanel * sizeof(W);
}

inline void narrow(float x, float* y) { *y = x; }
inline void narrow(float x, bf16* y) { *y = to_bf16(x); }

template <class W>
inline void pack(const Packing& p, const Tensor& w, std::size_t panel0, std::size_t panel1, void* packed) {
  constexpr std::size_t kStep = 64;
  float row[kStep];
  for (std::size_t panel = panel0; panel < panel1; ++panel) {
    const PanelColumns c = columns_of(p, panel, kLanes);
    W* to = static_cast<W*>(packed) + panel * p.k * kPanel;
    for (std::size_t k0 = 0; k0 < p.k; k0 += kStep) {
      const std::size_t depth = p.k - k0 < kStep ? p.k - k0 : kStep;
      for (std::size_t lane = 0; lane < kPanel; ++lane) {
        const std::size_t i = lane % kLanes, column = (lane < kLanes ? c.first : c.second) + i;
        const bool exists = static_cast<int>(i) < (lane < kLanes ? c.n_first : c.n_second);
        if (exists) widen(w, column * p.k + k0, depth, row);
        for (std::size_t j = 0; j < depth; ++j) narrow(exists ? row[j] : 0.0f, to + (k0 + j) * kPanel + lane);
      }
    }
  }
}

// -- products -------------------------------------------------------------------------------------

// acc[r] += sum_p x[r, p] b[p, 0:kPanel], b with row stride ldb.
template <int R, class W>
REFIMPL_INLINE void multiply(std::size_t depth, const float* x, std::size_t ldx, const W* b, std::size_t ldb,
                             f32 (&acc)[R][2]) {
  for (std::size_t p = 0; p < depth; ++p) {
    const f32 b0 = load(b + p * ldb), b1 = load(b + p * ldb + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const f32 a = set1(x[r * ldx + p]);
      acc[r][0] = fma(a, b0, acc[r][0]);
      acc[r][1] = fma(a, b1, acc[r][1]);
    }
  }
}

// y[0:R, 0:kPanel] += x b, or = x b when it is the first block of k.
template <int R, class W>
inline void gemm_tile(bool first, std::size_t depth, const float* x, std::size_t ldx, const W* b, float* y) {
  f32 acc[R][2];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c) acc[r][c] = first ? set1(0.0f) : load(y + r * kPanel + c * kLanes);
  multiply<R>(depth, x, ldx, b, kPanel, acc);
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c) store(y + r * kPanel + c * kLanes, acc[r][c]);
}

// The tile with as many rows as are left.
template <int R, class W>
inline void gemm_rows(int rows, bool first, std::size_t depth, const float* x, std::size_t ldx, const W* b, float* y) {
  if (rows == R) return gemm_tile<R>(first, depth, x, ldx, b, y);
  if constexpr (R > 1) gemm_rows<R - 1>(rows, first, depth, x, ldx, b, y);
}

// finish(row, columns, v0, v1) gets both vectors of each row of each panel, bias added.
template <class W, class Finish>
inline void gemm(const Gemm& g, const Range& range, void*, Finish finish) {
  alignas(64) float sums[kChunk * kPanel];
  const std::size_t k = g.packing.k, ldx = g.ldx / sizeof(float);
  for (std::size_t row0 = range.row0; row0 < range.row1; row0 += kChunk) {
    const std::size_t rows = range.row1 - row0 < kChunk ? range.row1 - row0 : kChunk;
    for (std::size_t panel = range.panel0; panel < range.panel1; ++panel) {
      const W* packed = static_cast<const W*>(g.packed) + panel * k * kPanel;
      for (std::size_t k0 = 0; k0 < k; k0 += kDepth) {
        const std::size_t depth = k - k0 < kDepth ? k - k0 : kDepth;
        for (std::size_t r = 0; r < rows; r += kRows) {
          const int n = rows - r < kRows ? static_cast<int>(rows - r) : static_cast<int>(kRows);
          gemm_rows<kRows>(n, k0 == 0, depth, operand(g.x, g.ldx, row0 + r) + k0, ldx, packed + k0 * kPanel,
                           sums + r * kPanel);
        }
      }
      const PanelColumns c = columns_of(g.packing, panel, kLanes);
      const f32 bias0 = g.bias ? load_first(g.bias + c.first, c.n_first) : set1(0.0f);
      const f32 bias1 = g.bias ? load_first(g.bias + c.second, c.n_second) : set1(0.0f);
      for (std::size_t r = 0; r < rows; ++r) {
        const f32 v0 = load(sums + r * kPanel), v1 = load(sums + r * kPanel + kLanes);
        if (g.bias)
          finish(row0 + r, c, add(v0, bias0), add(v1, bias1));
        else
          finish(row0 + r, c, v0, v1);
      }
    }
  }
}
