// The verbs on 8 float lanes, for AVX2 with FMA. Included inside the tier's target region.
namespace refimpl::avx2 {

struct f32 {
  static constexpr int lanes = 8;
  __m256 v;
};

REFIMPL_INLINE f32 set1(float x) { return {_mm256_set1_ps(x)}; }
REFIMPL_INLINE f32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
// Both vectors of a row of a panel: floats one after the other, bfloat16 lane by lane in pairs.
REFIMPL_INLINE void load2(const float* p, f32 (&v)[2]) { v[0] = load(p), v[1] = load(p + f32::lanes); }
REFIMPL_INLINE void load2(const bf16* p, f32 (&v)[2]) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  v[0].v = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
  v[1].v = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(-65536)));
}
REFIMPL_INLINE void store(float* p, f32 a) { _mm256_storeu_ps(p, a.v); }
REFIMPL_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// The first n lanes (0 <= n <= lanes); the others read as 0, and are not written. Masked stores are
// slow on some processors, hence the short way for all lanes.
REFIMPL_INLINE f32 load_first(const float* p, int n) {
  return n == f32::lanes ? load(p) : f32{_mm256_maskload_ps(p, first_lanes(n))};
}
REFIMPL_INLINE void store_first(float* p, f32 a, int n) {
  if (n == f32::lanes) return store(p, a);
  _mm256_maskstore_ps(p, first_lanes(n), a.v);
}
REFIMPL_INLINE f32 add(f32 a, f32 b) { return {_mm256_add_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 sub(f32 a, f32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 mul(f32 a, f32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 div(f32 a, f32 b) { return {_mm256_div_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 sqrt(f32 a) { return {_mm256_sqrt_ps(a.v)}; }
// a b + c, rounded once.
REFIMPL_INLINE f32 fma(f32 a, f32 b, f32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
// a > b ? a : b and a < b ? a : b: the second operand when either is NaN.
REFIMPL_INLINE f32 max(f32 a, f32 b) { return {_mm256_max_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 min(f32 a, f32 b) { return {_mm256_min_ps(a.v, b.v)}; }
REFIMPL_INLINE f32 abs(f32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
// |a| with the sign of s.
REFIMPL_INLINE f32 copysign(f32 a, f32 s) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(sign, a.v), _mm256_and_ps(sign, s.v))};
}
// Nearest integer, ties to even.
REFIMPL_INLINE f32 round(f32 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// 2^n for integral n in [-127, 127]; -127 gives 0.
REFIMPL_INLINE f32 exp2_int(f32 n) {
  const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(e, 23))};
}
// b where x < y, else a.
REFIMPL_INLINE f32 where_less(f32 x, f32 y, f32 b, f32 a) {
  return {_mm256_blendv_ps(a.v, b.v, _mm256_cmp_ps(x.v, y.v, _CMP_LT_OQ))};
}
// Sums and maxima over lanes; halves first, an order that never changes.
REFIMPL_INLINE float sum(f32 a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
REFIMPL_INLINE float max(f32 a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

// -- int8: products of four numbers summed into a lane --------------------------------------------

using i32 = __m256i;
using Four = __m256i;   // of a row, in every lane
using Fours = __m256i;  // of as many columns as there are lanes

// What stands for 0 in a row of int8 numbers: they are unsigned, weights are signed.
constexpr std::uint8_t kZero = 128;

REFIMPL_INLINE i32 load(const std::int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
REFIMPL_INLINE f32 to_float(i32 a) { return {_mm256_cvtepi32_ps(a)}; }
// Integral lanes in [-127, 127], kZero added.
REFIMPL_INLINE void store_bytes(std::uint8_t* p, f32 a) {
  const __m256i whole = _mm256_cvttps_epi32(a.v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  const __m128i bytes = _mm_xor_si128(_mm_packs_epi16(words, words), _mm_set1_epi8(-128));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), bytes);
}
REFIMPL_INLINE Four load_four(const std::uint8_t* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm256_set1_epi32(bits);
}
REFIMPL_INLINE Fours load_fours(const std::int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Pairs in 16 bits, which vpmaddubsw would cut at 32767: two products of 255 and 63 are 32130. Then pairs of these.
struct InSteps {
  static constexpr int rows = 4;  // of a register tile: 8 accumulators, 2 of w, 1 of a, ones, what is between
  static REFIMPL_INLINE i32 dot(i32 sum, Four a, Fours w) {
    const __m256i pairs = _mm256_maddubs_epi16(a, w);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

}  // namespace refimpl::avx2
