// bfloat16 numbers in AVX-512 vectors (AVX512_BF16), and the sizes of tiles of them. Included inside a tier's target
// region, after simd/avx512.h.
namespace refimpl::bf16_vectors {

using namespace refimpl::avx512;

constexpr std::size_t kTile = 16;         // rows of a tile, and its columns of 4 bytes
constexpr std::size_t kTileDepth = 32;    // bfloat16 numbers in a row of a tile
constexpr std::size_t kTileBytes = 1024;
constexpr std::size_t kTileLine = 64;     // bytes of a row

// To the nearest, ties to even; subnormal numbers become zero, NaN stays NaN.
REFIMPL_INLINE __m256i narrow(f32 a) { return (__m256i)_mm512_cvtneps_pbh(a.v); }
REFIMPL_INLINE f32 widened(__m256i a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16))};
}
REFIMPL_INLINE void store_bits(bf16* p, __m256i a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }
REFIMPL_INLINE f32 load_first(const bf16* p, int n) { return widened(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
REFIMPL_INLINE void store_first(bf16* p, f32 a, int n) {
  if (n == f32::lanes) return store_bits(p, narrow(a));  // under a mask a store is slower
  _mm256_mask_storeu_epi16(p, first_lanes(n), narrow(a));
}
using avx512::load_first;
using avx512::store_first;

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

// Two rows of 16 numbers as a line of pairs, the first row's below.
REFIMPL_INLINE __m512i pairs(__m256i a, __m256i b) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}

// y = x turned: 16 x 16 numbers of 4 bytes.
REFIMPL_INLINE void transpose(const __m512i (&x)[16], __m512i (&y)[16]) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2)
    a[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]), a[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {  // b[i + c]: column 4 q + c of rows i .. i + 3
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]), b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]), b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 16
  for (int c = 0; c < 4; ++c) {
    const __m512i even0 = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88), odd0 = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xdd);
    const __m512i even1 = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88), odd1 = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xdd);
    y[c] = _mm512_shuffle_i32x4(even0, even1, 0x88), y[8 + c] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
    y[4 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0x88), y[12 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
  }
}

}  // namespace refimpl::bf16_vectors
