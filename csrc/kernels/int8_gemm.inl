// y = x W^T of integers (int8_rows.inl): register tiles of up to Dots::rows x 2 vectors, over the whole of k.
// Included once for each way to sum products, `Dots`, in a namespace of its own, with project.inl after it.
//
// Sums of integers are exact: at most 133,000 numbers of k stay within 32 bits. The float steps after
// them are those of each tier: every tier has the same bits.

template <int R>
inline void int8_tile(std::size_t k, const std::uint8_t* x, std::size_t ldx, const Integers& w, const char* next,
                      std::size_t pace, float* y) {
  const std::size_t groups = depth_of(k) / kGroup;
  i32 acc[R][2];
#pragma GCC unroll 16  // for a compiler that else keeps acc in memory
  for (int r = 0; r < R; ++r) acc[r][0] = load(w.starts), acc[r][1] = load(w.starts + kLanes);
#pragma GCC unroll 1
  for (std::size_t p = 0; p < groups; ++p) {
    __builtin_prefetch(next + p * pace, 0, 2);
    const std::int8_t* columns = w.weights + p * kPanel * kGroup;
    const Fours w0 = load_fours(columns), w1 = load_fours(columns + kLanes * kGroup);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Four a = load_four(x + r * ldx + p * kGroup);
      acc[r][0] = Dots::dot(acc[r][0], a, w0);
      acc[r][1] = Dots::dot(acc[r][1], a, w1);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const f32 scale = set1(scale_of(x + r * ldx, k));
    store(y + r * kPanel, mul(to_float(acc[r][0]), mul(scale, load(w.scales))));
    store(y + r * kPanel + kLanes, mul(to_float(acc[r][1]), mul(scale, load(w.scales + kLanes))));
  }
}

// The tile with that many rows.
template <int R>
inline void int8_tile_of(int rows, std::size_t k, const std::uint8_t* x, std::size_t ldx, const Integers& w,
                         const char* next, std::size_t pace, float* y) {
  if (rows == R) return int8_tile<R>(k, x, ldx, w, next, pace, y);
  if constexpr (R > 1) int8_tile_of<R - 1>(rows, k, x, ldx, w, next, pace, y);
}

// `finish`: project.inl.
template <class, class Finish>
inline void gemm(const Gemm& g, const Range& range, void*, Finish finish) {
  constexpr std::size_t kMost = Dots::rows;
  alignas(64) float sums[kMost * kPanel];
  const std::size_t k = g.packing.k, panel_bytes = panel_bytes_int8(k), steps = depth_of(k) / kGroup;
  const std::size_t tiles = ceil_div(range.row1 - range.row0, kMost);
  if (tiles == 0) return;
  const std::size_t pace = ceil_div(panel_bytes, tiles * steps);
  for (std::size_t panel = range.panel0; panel < range.panel1; ++panel) {
    const Integers w = panel_int8(const_cast<void*>(g.packed), k, panel);
    const char* next = reinterpret_cast<const char*>(w.scales) + (panel + 1 < range.panel1 ? panel_bytes : 0);
    const PanelColumns c = columns_of(g.packing, panel, kLanes);
    finish.panel(c);
    const f32 bias0 = g.bias ? load_first(g.bias + c.first, c.n_first) : set1(0.0f);
    const f32 bias1 = g.bias ? load_first(g.bias + c.second, c.n_second) : set1(0.0f);
    for (std::size_t row = range.row0, rows; row < range.row1; row += rows, next += pace * steps) {
      const std::size_t left = range.row1 - row;  // a last tile of few rows has too few chains (tile_rows)
      rows = left <= kMost ? left : left < kMost + 4 ? (left + 1) / 2 : kMost;
      int8_tile_of<Dots::rows>(static_cast<int>(rows), k, static_cast<const std::uint8_t*>(g.x) + row * g.ldx, g.ldx, w,
                               next, pace, sums);
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
