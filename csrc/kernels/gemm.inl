// y = x W^T on packed panels: register tiles of up to kRows x 2 vectors, over the whole of k.
// Included inside a tier's namespace and target region, after its simd verbs and constants.
//
// Each element is one chain of fma over k in order, whatever the tile it is computed in: results do
// not depend on rows, split or thread. While the rows pass over a panel, the next one is fetched. An
// epilogue (project.inl) sees finished sums.

// Rows of x that stay in the L2 cache while the panels pass.
constexpr std::size_t kChunk = 144;

// -- weights --------------------------------------------------------------------------------------

template <class W>
inline std::size_t packed_bytes(const Packing& p) {
  return panels_of(p, kLanes) * p.k * kPanel * sizeof(W);
}

// Where a row of a panel holds a lane, 0 .. kPanel: as load2 reads it.
inline void put(float x, std::size_t lane, float* row) { row[lane] = x; }
inline void put(float x, std::size_t lane, bf16* row) { row[lane % kLanes * 2 + lane / kLanes] = to_bf16(x); }

template <class W>
inline void pack(const Packing& p, const Tensor& w, std::size_t panel0, std::size_t panel1, void* packed) {
  constexpr std::size_t kStep = 64;
  float values[kStep];
  for (std::size_t panel = panel0; panel < panel1; ++panel) {
    const PanelColumns c = columns_of(p, panel, kLanes);
    W* to = static_cast<W*>(packed) + panel * p.k * kPanel;
    for (std::size_t k0 = 0; k0 < p.k; k0 += kStep) {
      const std::size_t depth = p.k - k0 < kStep ? p.k - k0 : kStep;
      for (std::size_t lane = 0; lane < kPanel; ++lane) {
        const std::size_t i = lane % kLanes, column = (lane < kLanes ? c.first : c.second) + i;
        const bool exists = static_cast<int>(i) < (lane < kLanes ? c.n_first : c.n_second);
        if (exists) widen(w, column * p.k + k0, depth, values);
        for (std::size_t j = 0; j < depth; ++j) put(exists ? values[j] : 0.0f, lane, to + (k0 + j) * kPanel);
      }
    }
  }
}

template <class W>
inline void pack_turned(const Packing& p, const float* w, std::size_t panel0, std::size_t panel1, void* packed) {
  for (std::size_t panel = panel0; panel < panel1; ++panel) {
    const std::size_t first = panel * kPanel, there = p.n - first < kPanel ? p.n - first : kPanel;
    W* to = static_cast<W*>(packed) + panel * p.k * kPanel;
    const float* row = w + first;
    for (std::size_t j = 0; j < p.k; ++j, row += p.n, to += kPanel) {
      for (std::size_t lane = 0; lane < there; ++lane) put(row[lane], lane, to);
      for (std::size_t lane = there; lane < kPanel; ++lane) put(0.0f, lane, to);
    }
  }
}

// -- products -------------------------------------------------------------------------------------

// acc[r] += sum_p x[r, p] b[p, 0:kPanel], from <= p < to; b has row stride ldb. Unrolled by several
// steps of p this is slower.
template <int R, class W>
REFIMPL_INLINE void multiply(std::size_t from, std::size_t to, const float* x, std::size_t ldx, const W* b,
                             std::size_t ldb, f32 (&acc)[R][2]) {
#pragma GCC unroll 1
  for (std::size_t p = from; p < to; ++p) {
    f32 v[2];
    load2(b + p * ldb, v);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const f32 a = set1(x[r * ldx + p]);
      acc[r][0] = fma(a, v[0], acc[r][0]);
      acc[r][1] = fma(a, v[1], acc[r][1]);
    }
  }
}

// y [R, kPanel] = x b, rows of y ldy apart; each step of k fetches what stands `pace` bytes further on
// from `next`: evenly, as a burst would wait for memory.
template <int R, class W>
inline void gemm_tile(std::size_t k, const float* x, std::size_t ldx, const W* b, const char* next, std::size_t pace,
                      float* y, std::size_t ldy) {
  f32 acc[R][2];
#pragma GCC unroll 16  // for a compiler that else keeps acc in memory
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = set1(0.0f);
#pragma GCC unroll 1
  for (std::size_t p = 0; p < k; ++p) {
    __builtin_prefetch(next + p * pace, 0, 2);
    multiply<R>(p, p + 1, x, ldx, b, kPanel, acc);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c) store(y + r * ldy + c * kLanes, acc[r][c]);
}

// The tile with that many rows.
template <int R, class W>
inline void gemm_rows(int rows, std::size_t k, const float* x, std::size_t ldx, const W* b, const char* next,
                      std::size_t pace, float* y, std::size_t ldy) {
  if (rows == R) return gemm_tile<R>(k, x, ldx, b, next, pace, y, ldy);
  if constexpr (R > 1) gemm_rows<R - 1>(rows, k, x, ldx, b, next, pace, y, ldy);
}

// Rows of the next tile: a last one of under four rows has too few chains to fill the units, so what
// is left is halved before it comes to that.
REFIMPL_INLINE std::size_t tile_rows(std::size_t left) {
  return left <= kRows ? left : left < kRows + 4 ? (left + 1) / 2 : kRows;
}

// `finish`: project.inl.
template <class W, class Finish>
inline void gemm(const Gemm& g, const Range& range, void*, Finish finish) {
  alignas(64) float sums[kRows * kPanel];
  const std::size_t k = g.packing.k, panel_bytes = k * kPanel * sizeof(W);
  const std::size_t tiles = ceil_div(range.row1 - range.row0, kRows);
  if (tiles == 0) return;
  const std::size_t pace = ceil_div(panel_bytes, tiles * k);
  for (std::size_t panel = range.panel0; panel < range.panel1; ++panel) {
    const char* packed = static_cast<const char*>(g.packed) + panel * panel_bytes;
    const char* next = packed + (panel + 1 < range.panel1 ? panel_bytes : 0);
    const PanelColumns c = columns_of(g.packing, panel, kLanes);
    finish.panel(c);
    const f32 bias0 = g.bias ? load_first(g.bias + c.first, c.n_first) : set1(0.0f);
    const f32 bias1 = g.bias ? load_first(g.bias + c.second, c.n_second) : set1(0.0f);
    for (std::size_t row = range.row0, rows; row < range.row1; row += rows, next += pace * k) {
      rows = tile_rows(range.row1 - row);
      gemm_rows<kRows>(static_cast<int>(rows), k, operand(g.x, g.ldx, row), g.ldx / sizeof(float),
                       reinterpret_cast<const W*>(packed), next, pace, sums, kPanel);
      for (std::size_t r = 0; r < rows; ++r) {
        const f32 v0 = load(sums + r * kPanel), v1 = load(sums + r * kPanel + kLanes);
        if (g.bias)
          finish.row(row + r, add(v0, bias0), add(v1, bias1));
        else
          finish.row(row + r, v0, v1);
      }
    }
    finish.end();
  }
}
