// The softmax of attention on AMX: a row of scores becomes a row of weights. Included like amx_gemm.inl,
// before amx_attention.inl.
//
//   P = exp(S - max) as 2^(log2 e (S - max)), rounded to bfloat16; the sum is of P before its rounding
//
// Where a row's keys come in several panels, maximum and sum run on.

// 2^x to 1e-4, a twentieth of bfloat16's rounding: 2^floor(x) times a cubic in the rest, the least
// maximal error with the value 1 at 0. 2^-Inf is 0; NaN stays NaN.
REFIMPL_INLINE f32 exp2_for_bf16(f32 x) {
  const f32 rest{_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
  f32 y = set1(0.07706717f);
  y = fma(y, rest, set1(0.22764485f));
  y = fma(y, rest, set1(0.69511682f));
  y = fma(y, rest, set1(1.0f));
  return {_mm512_scalef_ps(y.v, x.v)};
}

// s[from, to) = -Inf, or where `visible` is zero.
inline void hide(float* s, std::size_t from, std::size_t to, const unsigned char* visible = nullptr) {
  const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
  for (; from < to; from += kLanes) {
    __mmask16 lanes = first_lanes(static_cast<int>(to - from < kLanes ? to - from : kLanes));
    if (visible) lanes &= ~_mm_test_epi8_mask(_mm_maskz_loadu_epi8(lanes, visible + from), _mm_set1_epi8(-1));
    _mm512_mask_storeu_ps(s + from, lanes, nothing);
  }
}

// Of one block of queries: maximum (of log2 e times the scores) and sum so far, and what the output so
// far is to be multiplied by before the next panel is added.
struct Softmax {
  float top[kRows], total[kRows], by[kRows];

  void reset() {
    for (std::size_t r = 0; r < kRows; ++r) top[r] = -__builtin_inff(), total[r] = 0.0f, by[r] = 1.0f;
  }
};

// Turns row r's scores of a panel into weights. Keys [low, high) are in its window; `visible` belongs to
// the panel's first key, or is null.
inline void soften(float* s, bf16* p, Softmax& soft, std::size_t r, std::size_t keys, std::size_t low, std::size_t high,
                   const unsigned char* visible) {
  constexpr float kNothing = -__builtin_inff(), kMost = 3.40282347e38f;
  hide(s, 0, low < keys ? low : keys);
  hide(s, high, keys);
  if (visible) hide(s, low, high, visible);
  f32 best = set1(kNothing);
  for (std::size_t c = 0; c < keys; c += kLanes) best = max(best, load(s + c));
  const f32 log2e = set1(1.44269504f);
  float top = max(best) * _mm512_cvtss_f32(log2e.v);
  top = top < kMost ? top : kMost;  // an infinite one would hide finite scores
  top = top < soft.top[r] ? soft.top[r] : top;
  soft.by[r] = 1.0f;
  if (top == kNothing) {
    for (std::size_t c = 0; c < keys; c += kLanes) store_bits(p + c, _mm256_setzero_si256());
    return;
  }
  const f32 shift = set1(-top);
  f32 sums = set1(0.0f);
  for (std::size_t c = 0; c < keys; c += kLanes) {
    const f32 weight = exp2_for_bf16(fma(load(s + c), log2e, shift));
    sums = add(sums, weight);
    store_bits(p + c, narrow(weight));
  }
  if (soft.top[r] < top)
    soft.by[r] = _mm512_cvtss_f32(exp(set1((soft.top[r] - top) * 0.69314718f)).v), soft.top[r] = top;
  soft.total[r] = soft.total[r] * soft.by[r] + sum(sums);
}
