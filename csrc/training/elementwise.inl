// The adjoints of rows: activations with GLU, LayerNorm. Included after kernels/rowwise.inl, like it.

// 1 in the first n lanes, else 0.
REFIMPL_INLINE f32 ones(int n) {
  float one[f32::lanes];
  store(one, set1(1.0f));
  return n == f32::lanes ? set1(1.0f) : load_first(one, n);
}

// phi(x), the normal density, by exp's range x <= 0.
REFIMPL_INLINE f32 density(f32 x) { return mul(exp(mul(mul(set1(-0.5f), x), x)), set1(0.398942280f)); }

// act'(x); that of relu at 0 is 0.
template <Activation A>
REFIMPL_INLINE f32 slope(f32 x) {
  const f32 one = set1(1.0f), half = set1(0.5f);
  if constexpr (A == Activation::gelu)
    return fma(x, density(x), fma(half, erf(mul(x, set1(0.70710678f))), half));
  if constexpr (A == Activation::gelu_tanh) {
    const f32 square = mul(x, x);
    const f32 t = tanh(mul(set1(0.79788456f), fma(set1(0.044715f), mul(square, x), x)));
    const f32 inner = mul(set1(0.79788456f), fma(set1(0.134145f), square, one));
    const f32 rest = mul(mul(half, x), mul(sub(one, mul(t, t)), inner));
    return add(fma(half, t, half), rest);
  }
  if constexpr (A == Activation::quick_gelu || A == Activation::silu) {
    const f32 c = set1(A == Activation::silu ? 1.0f : 1.702f), s = sigmoid(mul(c, x));
    return fma(mul(mul(c, x), s), sigmoid(sub(set1(0.0f), mul(c, x))), s);
  }
  if constexpr (A == Activation::relu) return where_less(set1(0.0f), x, one, set1(0.0f));
  if constexpr (A == Activation::tanh) {
    const f32 t = tanh(x);
    return sub(one, mul(t, t));
  }
  if constexpr (A == Activation::sigmoid) return mul(sigmoid(x), sigmoid(sub(set1(0.0f), x)));
  return one;
}

// MODEL.md (21'): [dy up act'(gate), dy act(gate)]
inline void glu_adjoint(std::size_t rows, std::size_t inter, Activation activation, const float* dy, const float* u,
                        float* du) {
  with_activation(activation, [&](auto a) {
    constexpr Activation A = decltype(a)::value;
    for (std::size_t r = 0; r < rows; ++r, dy += inter, u += 2 * inter, du += 2 * inter)
      for_lanes(inter, [&](std::size_t i, int lanes) {
        const f32 gate = load_first(u + i, lanes), up = load_first(u + inter + i, lanes), d = load_first(dy + i, lanes);
        store_first(du + i, mul(mul(d, up), slope<A>(gate)), lanes);
        store_first(du + inter + i, mul(d, activate<A>(gate)), lanes);
      });
  });
}

// MODEL.md (19'): with n = (x - mean) / s and g = dy w, dx = (g - mean(g) - n mean(g n)) / s.
inline void layer_norm_adjoint(std::size_t rows, std::size_t n, const float* dy, const float* x, const float* weight,
                               float eps, const float* residual, float* dx, float* dw, float* db) {
  for (std::size_t i = 0; i < n; ++i) dw[i] = 0.0f;
  if (db)
    for (std::size_t i = 0; i < n; ++i) db[i] = 0.0f;
  const float size = static_cast<float>(n);
  for (std::size_t r = 0; r < rows; ++r, dy += n, x += n, dx += n) {
    f32 total = set1(0.0f);
    for_lanes(n, [&](std::size_t i, int lanes) { total = add(total, load_first(x + i, lanes)); });
    const f32 mean = set1(sum(total) / size);
    f32 squares = set1(0.0f);
    for_lanes(n, [&](std::size_t i, int lanes) {
      // Lanes that are not there would count as -mean.
      const f32 centred = mul(sub(load_first(x + i, lanes), mean), ones(lanes));
      squares = fma(centred, centred, squares);
    });
    const f32 scale = set1(1.0f / __builtin_sqrtf(sum(squares) / size + eps));
    f32 gs = set1(0.0f), gns = set1(0.0f);
    for_lanes(n, [&](std::size_t i, int lanes) {
      const f32 d = load_first(dy + i, lanes), g = mul(d, load_first(weight + i, lanes));
      const f32 normed = mul(sub(load_first(x + i, lanes), mean), scale);
      gs = add(gs, g), gns = fma(g, normed, gns);
      store_first(dw + i, fma(d, normed, load_first(dw + i, lanes)), lanes);
      if (db) store_first(db + i, add(load_first(db + i, lanes), d), lanes);
    });
    const f32 mean_g = set1(sum(gs) / size), along = set1(sum(gns) / size);
    for_lanes(n, [&](std::size_t i, int lanes) {
      const f32 g = mul(load_first(dy + i, lanes), load_first(weight + i, lanes));
      const f32 normed = mul(sub(load_first(x + i, lanes), mean), scale);
      f32 y = mul(sub(sub(g, mean_g), mul(normed, along)), scale);
      if (residual) y = add(load_first(residual + i, lanes), y);
      store_first(dx + i, y, lanes);
    });
    if (residual) residual += n;
  }
}
