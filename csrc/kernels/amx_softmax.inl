// The softmax of attention on AMX: rows of scores become rows of weights. Included like amx_gemm.inl,
// before amx_attention.inl.
//
//   P = exp(S - max) as 2^(log2 e (S - max)), rounded to bfloat16; the sum is of P before its rounding
//
// Where a row's keys come in several panels, maximum and sum run on. 16 rows share the steps that join lanes.

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

// Lane i of the result: all lanes of x[i] joined, those of each vector in the same order.
template <class Join>
REFIMPL_INLINE f32 across(f32 (&x)[16], Join join) {
#pragma GCC unroll 16
  for (int i = 0; i < 8; ++i)
    x[i] = join(f32{_mm512_unpacklo_ps(x[i].v, x[i + 8].v)}, f32{_mm512_unpackhi_ps(x[i].v, x[i + 8].v)});
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i)
    x[i] = join(f32{_mm512_unpacklo_ps(x[i].v, x[i + 4].v)}, f32{_mm512_unpackhi_ps(x[i].v, x[i + 4].v)});
#pragma GCC unroll 16
  for (int i = 0; i < 2; ++i)
    x[i] = join(f32{_mm512_shuffle_f32x4(x[i].v, x[i + 2].v, 0x88)}, f32{_mm512_shuffle_f32x4(x[i].v, x[i + 2].v, 0xdd)});
  const f32 all = join(f32{_mm512_shuffle_f32x4(x[0].v, x[1].v, 0x88)}, f32{_mm512_shuffle_f32x4(x[0].v, x[1].v, 0xdd)});
  const __m512i order = _mm512_setr_epi32(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15);
  return {_mm512_permutexvar_ps(order, all.v)};
}

// p = 2^exponent(s), rounded; returns its sums. A multiple of 32 keys.
template <class Exponent>
REFIMPL_INLINE f32 weigh(const float* s, bf16* p, std::size_t keys, Exponent exponent) {
  f32 sums[2] = {set1(0.0f), set1(0.0f)};
  for (std::size_t c = 0; c < keys; c += kPanel)
    for (int i = 0; i < 2; ++i) {
      const f32 weight = exp2_for_bf16(exponent(load(s + c + i * kLanes)));
      sums[i] = add(sums[i], weight);
      store_bits(p + c + i * kLanes, narrow(weight));
    }
  return add(sums[0], sums[1]);
}

// Turns 16 rows of a panel's scores into weights: those from row `first` of the block of queries on.
inline void soften(const float* s, std::size_t lds, bf16* p, std::size_t ldp, Softmax& soft, std::size_t first,
                   std::size_t keys) {
  const f32 nothing = set1(-__builtin_inff()), log2e = set1(1.44269504f);
  f32 each[kTile];
  for (std::size_t r = 0; r < kTile; ++r) {
    f32 best[2] = {nothing, nothing};
    for (std::size_t c = 0; c < keys; c += kPanel)
      for (int i = 0; i < 2; ++i) best[i] = max(best[i], load(s + r * lds + c + i * kLanes));
    each[r] = max(best[0], best[1]);
  }
  const f32 before = load(soft.top + first);
  const f32 top = max(before, across(each, [](f32 a, f32 b) { return max(a, b); }));
  // Where a row has seen no key yet, every score is -Inf, and so is its distance from 0: weights of zero.
  const f32 peak{_mm512_mask_mov_ps(top.v, _mm512_cmp_ps_mask(top.v, nothing.v, _CMP_EQ_OQ), _mm512_setzero_ps())};
  float peaks[kTile];
  store(peaks, peak);
  for (std::size_t r = 0; r < kTile; ++r) {
    const f32 highest = set1(peaks[r]), shift = mul(highest, set1(-1.44269504f));
    // In one step where the rounding of `shift`, which all weights share, is below that of exp2_for_bf16.
    each[r] = __builtin_fabsf(peaks[r]) < 256.0f
                  ? weigh(s + r * lds, p + r * ldp, keys, [&](f32 x) { return fma(x, log2e, shift); })
                  : weigh(s + r * lds, p + r * ldp, keys, [&](f32 x) { return mul(sub(x, highest), log2e); });
  }
  const f32 by = exp(sub(before, peak)), added = across(each, [](f32 a, f32 b) { return add(a, b); });
  store(soft.top + first, top), store(soft.by + first, by);
  store(soft.total + first, fma(load(soft.total + first), by, added));
}
