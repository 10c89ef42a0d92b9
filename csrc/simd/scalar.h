// The verbs on 4 float lanes in plain C++: the ABI floor, and every machine without a tier of its own.
// fma() is a product and a sum, two roundings: portable hardware has no fused one.
namespace refimpl::scalar {

struct f32 {
  static constexpr int lanes = 4;
  float v[4];
};

#define REFIMPL_EACH(expression)                          \
  f32 r;                                                  \
  for (int i = 0; i < f32::lanes; ++i) r.v[i] = expression; \
  return r

REFIMPL_INLINE f32 set1(float x) { REFIMPL_EACH(x); }
REFIMPL_INLINE f32 load(const float* p) { REFIMPL_EACH(p[i]); }
// Both vectors of a row of a panel: floats one after the other, bfloat16 lane by lane in pairs.
REFIMPL_INLINE void load2(const float* p, f32 (&v)[2]) { v[0] = load(p), v[1] = load(p + f32::lanes); }
REFIMPL_INLINE void load2(const bf16* p, f32 (&v)[2]) {
  for (int i = 0; i < f32::lanes; ++i) v[0].v[i] = to_float(p[2 * i]), v[1].v[i] = to_float(p[2 * i + 1]);
}
REFIMPL_INLINE void store(float* p, f32 a) {
  for (int i = 0; i < f32::lanes; ++i) p[i] = a.v[i];
}
// The first n lanes (0 <= n <= lanes); the others read as 0, and are not written.
REFIMPL_INLINE f32 load_first(const float* p, int n) { REFIMPL_EACH(i < n ? p[i] : 0.0f); }
REFIMPL_INLINE void store_first(float* p, f32 a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
REFIMPL_INLINE f32 add(f32 a, f32 b) { REFIMPL_EACH(a.v[i] + b.v[i]); }
REFIMPL_INLINE f32 sub(f32 a, f32 b) { REFIMPL_EACH(a.v[i] - b.v[i]); }
REFIMPL_INLINE f32 mul(f32 a, f32 b) { REFIMPL_EACH(a.v[i] * b.v[i]); }
REFIMPL_INLINE f32 div(f32 a, f32 b) { REFIMPL_EACH(a.v[i] / b.v[i]); }
REFIMPL_INLINE f32 sqrt(f32 a) { REFIMPL_EACH(__builtin_sqrtf(a.v[i])); }
REFIMPL_INLINE f32 fma(f32 a, f32 b, f32 c) { REFIMPL_EACH(a.v[i] * b.v[i] + c.v[i]); }
// The second operand when either is NaN.
REFIMPL_INLINE f32 max(f32 a, f32 b) { REFIMPL_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
REFIMPL_INLINE f32 min(f32 a, f32 b) { REFIMPL_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
REFIMPL_INLINE f32 abs(f32 a) { REFIMPL_EACH(__builtin_fabsf(a.v[i])); }
// |a| with the sign of s.
REFIMPL_INLINE f32 copysign(f32 a, f32 s) { REFIMPL_EACH(__builtin_copysignf(a.v[i], s.v[i])); }
// Nearest integer, ties to even, for |a| < 2^22: adding and taking away 1.5 * 2^23 leaves no fraction.
REFIMPL_INLINE f32 round(f32 a) { REFIMPL_EACH((a.v[i] + 12582912.0f) - 12582912.0f); }
// 2^n for integral n in [-127, 127]; -127 gives 0.
REFIMPL_INLINE f32 exp2_int(f32 n) {
  f32 r;
  for (int i = 0; i < f32::lanes; ++i) {
    // 2^23 + e has e in its low bits.
    const float shifted = n.v[i] + (8388608.0f + 127.0f);
    std::uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits <<= 23;
    std::memcpy(&r.v[i], &bits, sizeof bits);
  }
  return r;
}
// b where x < y, else a.
REFIMPL_INLINE f32 where_less(f32 x, f32 y, f32 b, f32 a) { REFIMPL_EACH(x.v[i] < y.v[i] ? b.v[i] : a.v[i]); }
// Sums and maxima over lanes; halves first, an order that never changes.
REFIMPL_INLINE float sum(f32 a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
REFIMPL_INLINE float max(f32 a) {
  const float x = a.v[0] > a.v[2] ? a.v[0] : a.v[2], y = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
  return x > y ? x : y;
}

#undef REFIMPL_EACH

// -- int8: products of four numbers summed into a lane --------------------------------------------

// What stands for 0 in a row of int8 numbers.
constexpr std::uint8_t kZero = 0;

// Integral lanes in [-127, 127], kZero added.
REFIMPL_INLINE void store_bytes(std::uint8_t* p, f32 a) {
  for (int i = 0; i < f32::lanes; ++i) p[i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(a.v[i]));
}

#if defined(__SSE2__)
// x86-64's floor multiplies no 32 bits, but sums two products of 16.

struct i32 {
  __m128i v[2];  // two numbers for each lane, whose sum it is
};
using Four = __m128i;  // of a row, in 16 bits, twice
struct Fours {         // of as many columns as there are lanes
  __m128i low, high;
};

REFIMPL_INLINE __m128i signed_low(__m128i bytes) { return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8); }
REFIMPL_INLINE __m128i signed_high(__m128i bytes) { return _mm_srai_epi16(_mm_unpackhi_epi8(bytes, bytes), 8); }

REFIMPL_INLINE i32 load(const std::int32_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), zero = _mm_setzero_si128();
  return {{_mm_unpacklo_epi32(x, zero), _mm_unpackhi_epi32(x, zero)}};
}
REFIMPL_INLINE f32 to_float(i32 a) {
  const __m128 low = _mm_castsi128_ps(a.v[0]), high = _mm_castsi128_ps(a.v[1]);
  const __m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, 0x88));
  const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(low, high, 0xdd));
  f32 r;
  _mm_storeu_ps(r.v, _mm_cvtepi32_ps(_mm_add_epi32(even, odd)));
  return r;
}
REFIMPL_INLINE Four load_four(const std::uint8_t* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  const __m128i x = signed_low(_mm_cvtsi32_si128(bits));
  return _mm_unpacklo_epi64(x, x);
}
REFIMPL_INLINE Fours load_fours(const std::int8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {signed_low(x), signed_high(x)};
}

struct Plain {
  static constexpr int rows = 3;  // of a register tile
  static REFIMPL_INLINE i32 dot(i32 sum, Four a, const Fours& w) {
    return {{_mm_add_epi32(sum.v[0], _mm_madd_epi16(a, w.low)), _mm_add_epi32(sum.v[1], _mm_madd_epi16(a, w.high))}};
  }
};
#else
struct i32 {
  std::int32_t v[f32::lanes];
};
struct Four {  // of a row
  std::int8_t v[4];
};
struct Fours {  // of as many columns as there are lanes
  std::int8_t v[4 * f32::lanes];
};

REFIMPL_INLINE i32 load(const std::int32_t* p) {
  i32 r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
REFIMPL_INLINE f32 to_float(i32 a) {
  f32 r;
  for (int i = 0; i < f32::lanes; ++i) r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
REFIMPL_INLINE Four load_four(const std::uint8_t* p) {
  Four r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
REFIMPL_INLINE Fours load_fours(const std::int8_t* p) {
  Fours r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}

struct Plain {
  static constexpr int rows = 4;  // of a register tile
  static REFIMPL_INLINE i32 dot(i32 sum, const Four& a, const Fours& w) {
    for (int i = 0; i < f32::lanes; ++i)
      for (int j = 0; j < 4; ++j) sum.v[i] += a.v[j] * w.v[4 * i + j];
    return sum;
  }
};
#endif

}  // namespace refimpl::scalar
