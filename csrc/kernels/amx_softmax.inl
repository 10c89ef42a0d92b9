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

// Of one block of queries: maximum and sum so far, and what the output of the panels before is to be
// multiplied by, now that this one has been softened.
struct Softmax {
  float top[kRows], total[kRows], by[kRows];

  void reset() {
    for (std::size_t r = 0; r < kRows; ++r) top[r] = -__builtin_inff(), total[r] = 0.0f, by[r] = 1.0f;
  }
};

// Turns row r's scores of a panel into weights.
inline void soften(const float* s, bf16* p, Softmax& soft, std::size_t r, std::size_t keys) {
  f32 best = set1(soft.top[r]);
  for (std::size_t c = 0; c < keys; c += kLanes) best = max(best, load(s + c));
  const float before = soft.top[r], top = max(best), nothing = -__builtin_inff();
  soft.by[r] = 1.0f;
  if (top == nothing) {
    for (std::size_t c = 0; c < keys; c += kLanes) store_bits(p + c, _mm256_setzero_si256());
    return;
  }
  const f32 peak = set1(top), log2e = set1(1.44269504f);
  f32 sums = set1(0.0f);
  for (std::size_t c = 0; c < keys; c += kLanes) {
    const f32 weight = exp2_for_bf16(mul(sub(load(s + c), peak), log2e));
    sums = add(sums, weight);
    store_bits(p + c, narrow(weight));
  }
  if (before < top) {
    soft.by[r] = before == nothing ? 0.0f : _mm512_cvtss_f32(exp(set1(before - top)).v);
    soft.top[r] = top;
  }
  soft.total[r] = soft.total[r] * soft.by[r] + sum(sums);
}
