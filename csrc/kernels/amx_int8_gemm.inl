// y = x W^T of integers in tiles (AMX-INT8): blocks of 2 x 2 tiles of sums over the whole of k, on the rows and
// panels of int8_rows.inl. Included in a namespace of its own, with project.inl after it.
//
// A tile of weights is 16 groups of a panel's first or second vector, 64 numbers of k. Sums are those of
// int8_gemm.inl, which are exact, and so are the float steps after them.

constexpr std::size_t kRows = 2 * kTile;
struct Bytes {};  // what project.inl asks for

// R tiles of rows times a panel.
template <int R>
inline void int8_block(Tiles& tiles, std::size_t k, const std::uint8_t* x, std::size_t ldx, const Integers& w, const char* next,
                       std::size_t pace, std::int32_t* sums) {
  constexpr std::size_t kWeightLine = kPanel * kGroup;
  tiles.zero_sums<0, 0>(), tiles.zero_sums<0, 1>(), tiles.zero_sums<1, 0>(), tiles.zero_sums<1, 1>();
  for (std::size_t i = 0; i < depth_of(k); i += kDepth, next += pace) {
    const std::int8_t* columns = w.weights + i * kPanel;
    tiles.load_rows<0>(x + i, ldx);
    if constexpr (R == 2) tiles.load_rows<1>(x + kTile * ldx + i, ldx);
    tiles.load_columns<0>(columns, kWeightLine), tiles.load_columns<1>(columns + kTile * kGroup, kWeightLine);
    for (std::size_t line = 0; line < pace; line += kTileLine) __builtin_prefetch(next + line, 0, 2);
    tiles.dot_bytes<0>();
    if constexpr (R == 2) tiles.dot_bytes<1>();
  }
  constexpr std::size_t kLine = kPanel * sizeof(std::int32_t);
  tiles.store_sums<0, 0>(sums, kLine), tiles.store_sums<0, 1>(sums + kTile, kLine);
  if constexpr (R == 2)
    tiles.store_sums<1, 0>(sums + kTile * kPanel, kLine), tiles.store_sums<1, 1>(sums + kTile * kPanel + kTile, kLine);
  __asm__ volatile("" ::: "memory");  // what the tiles stored is read next
}

// `finish`: project.inl.
template <class, class Finish>
inline void gemm(const Gemm& g, const Range& range, void*, Finish finish) {
  alignas(64) std::int32_t sums[kRows * kPanel];
  const std::size_t k = g.packing.k, panel_bytes = panel_bytes_int8(k), steps = depth_of(k) / kDepth;
  const std::size_t blocks = ceil_div(range.row1 - range.row0, kRows);
  if (blocks == 0) return;
  const std::size_t pace = round_up(ceil_div(panel_bytes, blocks * steps), kTileLine);
  Tiles tiles;
  for (std::size_t panel = range.panel0; panel < range.panel1; ++panel) {
    const Integers w = panel_int8(const_cast<void*>(g.packed), k, panel);
    const char* next = reinterpret_cast<const char*>(w.scales) + (panel + 1 < range.panel1 ? panel_bytes : 0);
    const PanelColumns c = columns_of(g.packing, panel, kLanes);
    finish.panel(c);
    const f32 bias0 = g.bias ? load_first(g.bias + c.first, c.n_first) : set1(0.0f);
    const f32 bias1 = g.bias ? load_first(g.bias + c.second, c.n_second) : set1(0.0f);
    const f32 scale0 = load(w.scales), scale1 = load(w.scales + kLanes);
    const i32 start0 = load(w.starts), start1 = load(w.starts + kLanes);
    for (std::size_t row = range.row0; row < range.row1; row += kRows, next += pace * steps) {
      const std::uint8_t* x = static_cast<const std::uint8_t*>(g.x) + row * g.ldx;
      const std::size_t left = range.row1 - row, rows = left < kRows ? left : kRows;
      if (rows > kTile)
        int8_block<2>(tiles, k, x, g.ldx, w, next, pace, sums);
      else
        int8_block<1>(tiles, k, x, g.ldx, w, next, pace, sums);
      for (std::size_t r = 0; r < rows; ++r) {
        const f32 scale = set1(scale_of(x + r * g.ldx, k));
        const i32 s0 = add(load(sums + r * kPanel), start0), s1 = add(load(sums + r * kPanel + kLanes), start1);
        f32 v0 = mul(to_float(s0), mul(scale, scale0)), v1 = mul(to_float(s1), mul(scale, scale1));
        if (g.bias) v0 = add(v0, bias0), v1 = add(v1, bias1);
        finish.row(row + r, v0, v1);
      }
      finish.end();
    }
  }
}
