// What a product ends as: y, glu's gated rows, or q k v where attention reads them. Included after the
// file that has `gemm<W>`, W being how its weights are packed, operands, and keys and values.
//
// Each epilogue works on sums that are complete, one row of a panel at a time.

template <class W>
inline void project(const Gemm& g, const float* residual, std::size_t ldr, float* y, std::size_t ldy,
                    const Range& range, void* scratch) {
  gemm<W>(g, range, scratch, [=](std::size_t row, const PanelColumns& c, f32 v0, f32 v1) {
    if (residual) {
      const float* from = residual + row * ldr;
      __builtin_prefetch(from + c.first + kPanel), __builtin_prefetch(from + c.second + kPanel);  // of the next panel
      v0 = add(v0, load_first(from + c.first, c.n_first));
      v1 = add(v1, load_first(from + c.second, c.n_second));
    }
    store_first(y + row * ldy + c.first, v0, c.n_first);
    store_first(y + row * ldy + c.second, v1, c.n_second);
  });
}

template <class W, Activation A>
inline void project_glu_by(const Gemm& g, void* y, std::size_t ldy, const Range& range, void* scratch) {
  const std::size_t inter = g.packing.n / 2;
  gemm<W>(g, range, scratch, [=](std::size_t row, const PanelColumns& c, f32 gate, f32 up) {
    store_operand(y, ldy, row, inter, c.first, mul(activate<A>(gate), up), c.n_first);
  });
}

template <class W>
inline void project_glu(const Gemm& g, Activation activation, void* y, std::size_t ldy, const Range& range,
                        void* scratch) {
  with_activation(activation, [&](auto a) { project_glu_by<W, decltype(a)::value>(g, y, ldy, range, scratch); });
}

// Components i .. i + n and head_dim / 2 further of a token's query.
REFIMPL_INLINE void place_query(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1,
                                int n) {
  const std::size_t hidden = h.heads * h.head_dim, at = head * h.head_dim + i;
  store_operand(h.q, h.ldq, token, hidden, at, v0, n);
  store_operand(h.q, h.ldq, token, hidden, at + h.head_dim / 2, v1, n);
}

template <class W>
inline void project_qkv(const Gemm& g, const Heads& h, const Rotation& t, const Range& range,
                        void* scratch) {
  const std::size_t hidden = h.heads * h.head_dim, half = h.head_dim / 2;
  gemm<W>(g, range, scratch, [=](std::size_t row, const PanelColumns& c, f32 v0, f32 v1) {
    const std::size_t at = c.first % hidden, head = at / h.head_dim, i = at % h.head_dim;
    if (c.first >= 2 * hidden) return place_value(h, row, head, i, v0, v1, c.n_first);
    const f32 cos = load_first(t.cos + t.row[row] * half + i, c.n_first);
    const f32 sin = load_first(t.sin + t.row[row] * half + i, c.n_first);
    const f32 scale = set1(c.first < hidden ? t.scale : 1.0f);
    const f32 turned0 = rotate_first(v0, v1, cos, sin, scale), turned1 = rotate_second(v0, v1, cos, sin, scale);
    if (c.first >= hidden) return place_key(h, row, head, i, turned0, turned1, c.n_first);
    place_query(h, row, head, i, turned0, turned1, c.n_first);
  });
}

inline void place_qkv(const Heads& h, std::size_t token, const float* q, const float* k, const float* v) {
  const std::size_t half = h.head_dim / 2;
  for (std::size_t head = 0; head < h.heads; ++head, q += h.head_dim, k += h.head_dim, v += h.head_dim)
    for_lanes(half, [&](std::size_t i, int n) {
      place_query(h, token, head, i, load_first(q + i, n), load_first(q + half + i, n), n);
      place_key(h, token, head, i, load_first(k + i, n), load_first(k + half + i, n), n);
      place_value(h, token, head, i, load_first(v + i, n), load_first(v + half + i, n), n);
    });
}
