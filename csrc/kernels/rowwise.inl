// LayerNorm, activations with GLU, RoPE: one row at a time. Included before gemm.inl, like it.

// -- elementary functions -------------------------------------------------------------------------

// exp(x) for x <= 0: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 6 in r (relative error
// 6e-9, then fp32 rounding), times 2^n. Below kExpLow, whose exponential is the smallest normal
// number, the result is 0. NaN gives NaN.
constexpr float kExpLow = -87.3f;
REFIMPL_INLINE f32 exp(f32 x) {
  const f32 clipped = max(set1(kExpLow), x);
  const f32 n = round(mul(clipped, set1(1.44269504f)));
  f32 r = fma(n, set1(-0.693359375f), clipped);   // ln 2 in two pieces, the first exact times n
  r = fma(n, set1(2.12194440e-4f), r);
  f32 y = set1(0.0013811662f);  // minimax
  y = fma(y, r, set1(0.008370135f));
  y = fma(y, r, set1(0.041668527f));
  y = fma(y, r, set1(0.16666509f));
  y = fma(y, r, set1(0.49999994f));
  y = fma(y, r, set1(1.0f));
  y = fma(y, r, set1(1.0f));
  return where_less(x, set1(kExpLow), set1(0.0f), mul(y, exp2_int(n)));
}

// erf(x) = x P(x^2) / Q(x^2) up to |x| = 3.9, a least-squares rational (relative error 6e-8), then +-1.
REFIMPL_INLINE f32 erf(f32 x) {
  const f32 z = mul(x, x);
  f32 p = set1(6.639098501182161e-06f);
  p = fma(p, z, set1(0.00040710088796913624f));
  p = fma(p, z, set1(0.004198081791400909f));
  p = fma(p, z, set1(0.05561022460460663f));
  p = fma(p, z, set1(0.19244590401649475f));
  p = fma(p, z, set1(1.128379225730896f));
  f32 q = set1(2.5169356376864016e-07f);
  q = fma(q, z, set1(7.148514850996435e-05f));
  q = fma(q, z, set1(0.0014100547414273024f));
  q = fma(q, z, set1(0.01622447371482849f));
  q = fma(q, z, set1(0.11724404990673065f));
  q = fma(q, z, set1(0.5038841962814331f));
  q = fma(q, z, set1(1.0f));
  const f32 inside = div(mul(x, p), q);
  return where_less(abs(x), set1(3.9f), inside, copysign(set1(1.0f), x));
}

REFIMPL_INLINE f32 sigmoid(f32 x) {
  const f32 e = exp(sub(set1(0.0f), abs(x)));
  const f32 denominator = add(set1(1.0f), e);
  return div(where_less(x, set1(0.0f), e, set1(1.0f)), denominator);
}

// Small |x|: x + x^3 R(x^2), the odd Taylor series to x^11 (relative error 6e-8 at 0.4); else by exp.
REFIMPL_INLINE f32 tanh(f32 x) {
  const f32 z = mul(x, x);
  f32 p = set1(-0.00886323552990220f);
  p = fma(p, z, set1(0.02186948853615520f));
  p = fma(p, z, set1(-0.05396825396825397f));
  p = fma(p, z, set1(0.13333333333333333f));
  p = fma(p, z, set1(-0.33333333333333333f));
  const f32 small = fma(mul(x, z), p, x);
  const f32 e = exp(mul(set1(-2.0f), abs(x)));
  const f32 large = div(sub(set1(1.0f), e), add(set1(1.0f), e));
  return where_less(abs(x), set1(0.4f), small, copysign(large, x));
}

template <Activation A>
REFIMPL_INLINE f32 activate(f32 x) {
  const f32 half = mul(set1(0.5f), x);
  if constexpr (A == Activation::gelu) return fma(half, erf(mul(x, set1(0.70710678f))), half);
  if constexpr (A == Activation::gelu_tanh) {
    const f32 cube = mul(mul(x, x), x);
    return fma(half, tanh(mul(set1(0.79788456f), fma(set1(0.044715f), cube, x))), half);
  }
  if constexpr (A == Activation::quick_gelu) return mul(x, sigmoid(mul(set1(1.702f), x)));
  if constexpr (A == Activation::silu) return mul(x, sigmoid(x));
  if constexpr (A == Activation::relu) return max(set1(0.0f), x);
  if constexpr (A == Activation::tanh) return tanh(x);
  if constexpr (A == Activation::sigmoid) return sigmoid(x);
  return x;
}

// -- rows -----------------------------------------------------------------------------------------

template <Activation A>
inline void glu_rows(std::size_t rows, std::size_t inter, const float* u, std::size_t ldu, float* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r, u += ldu, y += ldy) {
    std::size_t i = 0;
    for (; i + f32::lanes <= inter; i += f32::lanes) store(y + i, mul(activate<A>(load(u + i)), load(u + inter + i)));
    const int left = static_cast<int>(inter - i);
    if (left) store_first(y + i, mul(activate<A>(load_first(u + i, left)), load_first(u + inter + i, left)), left);
  }
}

template <Activation A>
struct activation_constant {
  static constexpr Activation value = A;
};

// f(activation_constant<A>) for the A that is asked for: chosen once, outside the loops.
template <class F>
inline void with_activation(Activation activation, F f) {
  switch (activation) {
#define REFIMPL_CHOICE(name, ...) \
  case Activation::name: return f(activation_constant<Activation::name>{});
    REFIMPL_ACTIVATIONS(REFIMPL_CHOICE)
#undef REFIMPL_CHOICE
  }
}

inline void glu(std::size_t rows, std::size_t inter, Activation activation, const float* u, std::size_t ldu, float* y,
                std::size_t ldy) {
  with_activation(activation, [&](auto a) { glu_rows<decltype(a)::value>(rows, inter, u, ldu, y, ldy); });
}

// Full vectors, then one partial one: f(i, lanes).
template <class F>
REFIMPL_INLINE void for_lanes(std::size_t n, F f) {
  std::size_t i = 0;
  for (; i + f32::lanes <= n; i += f32::lanes) f(i, f32::lanes);
  if (i < n) f(i, static_cast<int>(n - i));
}

inline void layer_norm(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight,
                       const float* bias, float eps, float* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r, x += ldx, y += ldy) {
    f32 total = set1(0.0f);
    for_lanes(n, [&](std::size_t i, int lanes) { total = add(total, load_first(x + i, lanes)); });
    const f32 mean = set1(sum(total) / static_cast<float>(n));
    // Centre first: the one-pass variance loses every digit when the mean is large.
    f32 squares = set1(0.0f);
    for_lanes(n, [&](std::size_t i, int lanes) {
      store_first(y + i, sub(load_first(x + i, lanes), mean), lanes);
      const f32 centred = load_first(y + i, lanes);
      squares = fma(centred, centred, squares);
    });
    const float variance = sum(squares) / static_cast<float>(n);
    const f32 scale = set1(1.0f / __builtin_sqrtf(variance + eps));
    for_lanes(n, [&](std::size_t i, int lanes) {
      f32 v = mul(mul(load_first(y + i, lanes), scale), load_first(weight + i, lanes));
      if (bias) v = add(v, load_first(bias + i, lanes));
      store_first(y + i, v, lanes);
    });
  }
}

// The two halves of a rotated pair (x1, x2), times scale.
REFIMPL_INLINE f32 rotate_first(f32 x1, f32 x2, f32 cos, f32 sin, f32 scale) {
  return mul(sub(mul(x1, cos), mul(x2, sin)), scale);
}
REFIMPL_INLINE f32 rotate_second(f32 x1, f32 x2, f32 cos, f32 sin, f32 scale) {
  return mul(add(mul(x2, cos), mul(x1, sin)), scale);
}

inline void rope(std::size_t head_dim, const float* x, const float* cos, const float* sin, float scale, float* y) {
  const std::size_t half = head_dim / 2;
  for_lanes(half, [&](std::size_t i, int lanes) {
    const f32 x1 = load_first(x + i, lanes), x2 = load_first(x + half + i, lanes);
    const f32 c = load_first(cos + i, lanes), d = load_first(sin + i, lanes);
    store_first(y + i, rotate_first(x1, x2, c, d, set1(scale)), lanes);
    store_first(y + half + i, rotate_second(x1, x2, c, d, set1(scale)), lanes);
  });
}
