// The verbs on 16 float lanes, for AVX-512 F, DQ, BW, VL. Included inside the tier's target region.
namespace refimpl::avx512 {

struct f32 {
  static constexpr int lanes = 16;
  __m512 v;
};

REFIMPL_INLINE f32 set1(float x) { return {_mm512_set1_ps(x)}; }
REFIMPL_INLINE f32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
// Both vectors of a row of a panel: floats one after the other, bfloat16 lane by lane in pairs.
REFIMPL_INLINE void load2(const float* p, f32 (&v)[2]) { v[0] = load(p), v[1] = load(p + f32::lanes); }
REFIMPL_INLINE void load2(const bf16* p, f32 (&v)[2]) {
  const __m512i x = _mm512_loadu_si512(p);
  v[0].v = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
  v[1].v = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(-65536)));
}
REFIMPL_INLINE void store(float* p, f32 a) { _mm512_storeu_ps(p, a.v); }
REFIMPL_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
// The first n lanes (0 <= n <= lanes); the others read as 0, and are not written. Masked stores are
// slow on some processors, hence the short way for all lanes.
REFIMPL_INLINE f32 load_first(const float* p, int n) {
  return n == f32::lanes ? load(p) : f32{_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
REFIMPL_INLINE void store_first(float* p, f32 a, int n) {
  if (n == f32::lanes) return store(p, a);
  _mm512_mask_storeu_ps(p, first_lanes(n), a.v);
}
REFIMPL_INLINE f32 add(f32 a, f32 b) { return {_mm512_add_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 sub(f32 a, f32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 mul(f32 a, f32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 div(f32 a, f32 b) { return {_mm512_div_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 sqrt(f32 a) { return {_mm512_sqrt_ps(a.v)}; }
// a b + c, rounded once.
REFIMPL_INLINE f32 fma(f32 a, f32 b, f32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// a > b ? a : b and a < b ? a : b: the second operand when either is NaN.
REFIMPL_INLINE f32 max(f32 a, f32 b) { return {_mm512_max_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 min(f32 a, f32 b) { return {_mm512_min_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 abs(f32 a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
// |a| with the sign of s.
REFIMPL_INLINE f32 copysign(f32 a, f32 s) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(sign, a.v), _mm512_and_ps(sign, s.v))};
}
// Nearest integer, ties to even.
REFIMPL_INLINE f32 round(f32 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// 2^n for integral n in [-127, 127]; -127 gives 0.
REFIMPL_INLINE f32 exp2_int(f32 n) {
  const __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(e, 23))};
}
// b where x < y, else a.
REFIMPL_INLINE f32 where_less(f32 x, f32 y, f32 b, f32 a) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_LT_OQ), a.v, b.v)};
}
// Sums and maxima over lanes; halves first, an order that never changes.
REFIMPL_INLINE float sum(f32 a) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
REFIMPL_INLINE float max(f32 a) {
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

// -- int8: products of four numbers summed into a lane --------------------------------------------

using i32 = __m512i;
using Four = __m512i;   // of a row, in every lane
using Fours = __m512i;  // of as many columns as there are lanes

// What stands for 0 in a row of int8 numbers: they are unsigned, weights are signed.
constexpr std::uint8_t kZero = 128;

REFIMPL_INLINE i32 load(const std::int32_t* p) { return _mm512_loadu_si512(p); }
REFIMPL_INLINE i32 add(i32 a, i32 b) { return _mm512_add_epi32(a, b); }
REFIMPL_INLINE f32 to_float(i32 a) { return {_mm512_cvtepi32_ps(a)}; }
// Integral lanes in [-127, 127], kZero added.
REFIMPL_INLINE void store_bytes(std::uint8_t* p, f32 a) {
  const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(a.v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
}
REFIMPL_INLINE Four load_four(const std::uint8_t* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm512_set1_epi32(bits);
}
REFIMPL_INLINE Fours load_fours(const std::int8_t* p) { return _mm512_loadu_si512(p); }

// Pairs in 16 bits, which vpmaddubsw would cut at 32767: two products of 255 and 63 are 32130. Then pairs of these.
struct InSteps {
  static constexpr int rows = 12;  // of a register tile: 24 accumulators, 2 of w, 1 of a, ones, what is between
  static REFIMPL_INLINE i32 dot(i32 sum, Four a, Fours w) {
    const __m512i pairs = _mm512_maddubs_epi16(a, w);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};

}  // namespace refimpl::avx512
