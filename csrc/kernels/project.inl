// What a product ends as: y, glu's gated rows, or q k v where attention reads them. Included after the
// file that has `gemm<W>`, W being how its weights are packed, operands, and keys and values.
//
// An epilogue gets sums that are complete, bias added: panel() before the rows of a panel, row() with both
// vectors of each, end() after the last one of a block of rows.

struct Added {
  const float* residual;
  std::size_t ldr;
  float* y;
  std::size_t ldy;
  PanelColumns c = {};

  void panel(const PanelColumns& columns) { c = columns; }
  REFIMPL_INLINE void row(std::size_t row, f32 v0, f32 v1) {
    float* const to = y + row * ldy;
    __builtin_prefetch(to + c.first + kPanel, 1), __builtin_prefetch(to + c.second + kPanel, 1);  // of the next panel
    if (residual) {
      const float* from = residual + row * ldr;
      if (residual != y) __builtin_prefetch(from + c.first + kPanel), __builtin_prefetch(from + c.second + kPanel);
      v0 = add(v0, load_first(from + c.first, c.n_first));
      v1 = add(v1, load_first(from + c.second, c.n_second));
    }
    store_first(to + c.first, v0, c.n_first);
    store_first(to + c.second, v1, c.n_second);
  }
  void end() {}
};

template <class W>
inline void project(const Gemm& g, const float* residual, std::size_t ldr, float* y, std::size_t ldy,
                    const Range& range, void* scratch) {
  gemm<W>(g, range, scratch, Added{residual, ldr, y, ldy});
}

template <Activation A>
struct Gated {
  void* y;
  std::size_t ldy, inter;
  PanelColumns c = {};

  void panel(const PanelColumns& columns) { c = columns; }
  REFIMPL_INLINE void row(std::size_t row, f32 gate, f32 up) {
    store_operand(y, ldy, row, inter, c.first, mul(activate<A>(gate), up), c.n_first);
  }
  void end() {}
};

template <class W>
inline void project_glu(const Gemm& g, Activation activation, void* y, std::size_t ldy, const Range& range,
                        void* scratch) {
  with_activation(activation, [&](auto a) {
    gemm<W>(g, range, scratch, Gated<decltype(a)::value>{y, ldy, g.packing.n / 2});
  });
}

// Components i .. i + n and head_dim / 2 further of a token's query.
REFIMPL_INLINE void place_query(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1,
                                int n) {
  const std::size_t hidden = h.heads * h.head_dim, at = head * h.head_dim + i;
  store_operand(h.q, h.ldq, token, hidden, at, v0, n);
  store_operand(h.q, h.ldq, token, hidden, at + h.head_dim / 2, v1, n);
}

struct Placed {
  const Heads& h;
  const Rotation& t;
  enum { query, key, value } what = query;
  std::size_t head = 0, i = 0;
  int n = 0;
  KeyRows keys = {};
  ValueRows values = {};

  void panel(const PanelColumns& c) {
    const std::size_t hidden = h.heads * h.head_dim, at = c.first % hidden;
    what = c.first < hidden ? query : c.first < 2 * hidden ? key : value;
    head = at / h.head_dim, i = at % h.head_dim, n = c.n_first;
  }
  REFIMPL_INLINE void row(std::size_t row, f32 v0, f32 v1) {
    if (what == value) return values.place(h, row, head, i, v0, v1, n);
    const std::size_t half = h.head_dim / 2;
    const f32 cos = load_first(t.cos + t.row[row] * half + i, n), sin = load_first(t.sin + t.row[row] * half + i, n);
    const f32 scale = set1(what == query ? t.scale : 1.0f);
    const f32 turned0 = rotate_first(v0, v1, cos, sin, scale), turned1 = rotate_second(v0, v1, cos, sin, scale);
    if (what == key) return keys.place(h, row, head, i, turned0, turned1, n);
    place_query(h, row, head, i, turned0, turned1, n);
  }
  void end() { keys.end(h, head, i), values.end(h, head, i); }
};

template <class W>
inline void project_qkv(const Gemm& g, const Heads& h, const Rotation& t, const Range& range,
                        void* scratch) {
  gemm<W>(g, range, scratch, Placed{h, t});
}

inline void place_qkv(const Heads& h, std::size_t token, const float* q, const float* k, const float* v) {
  const std::size_t half = h.head_dim / 2;
  KeyRows keys;
  ValueRows values;
  for (std::size_t head = 0; head < h.heads; ++head, q += h.head_dim, k += h.head_dim, v += h.head_dim)
    for_lanes(half, [&](std::size_t i, int n) {
      place_query(h, token, head, i, load_first(q + i, n), load_first(q + half + i, n), n);
      keys.place(h, token, head, i, load_first(k + i, n), load_first(k + half + i, n), n);
      values.place(h, token, head, i, load_first(v + i, n), load_first(v + half + i, n), n);
      keys.end(h, head, i), values.end(h, head, i);
    });
}
