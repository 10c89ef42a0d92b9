// Tile verbs for AMX with bfloat16, and bfloat16 numbers in AVX-512 vectors (AVX512_BF16). Included
// inside the tier's target region, after simd/avx512.h.
//
// Eight tiles of 16 rows of 64 bytes, in fixed roles: a block of sums is 2 x 2 tiles of 16 x 16 float32
// (I, J); their rows come from two tiles of 16 x 32 bfloat16 (I), their columns from two tiles of 16
// pairs x 16 columns (J). The intrinsics want tile numbers as literals.
namespace refimpl::amx {

using namespace refimpl::avx512;

constexpr std::size_t kTile = 16;         // rows of a tile, and its columns of 4 bytes
constexpr std::size_t kTileDepth = 32;    // bfloat16 numbers in a row of a tile
constexpr std::size_t kTileBytes = 1024;
constexpr std::size_t kTileLine = 64;     // bytes of a row

struct alignas(64) TileConfig {
  unsigned char palette = 1, start_row = 0, reserved[14] = {};
  unsigned short row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// Static: gcc 12 thinks that only 8 bytes of it are read, and drops the stores that fill a local one.
static const TileConfig tile_config;

// Tiles are configured while this lives, and zero at first. Without it a tile instruction is an
// illegal one; if they stayed configured, each context switch would save 8 KiB more.
struct Tiles {
  REFIMPL_INLINE Tiles() {
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(&tile_config);
  }
  REFIMPL_INLINE ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
};

template <int I, int J>
REFIMPL_INLINE void zero_sums() {
  if constexpr (I == 0 && J == 0) _tile_zero(0);
  if constexpr (I == 0 && J == 1) _tile_zero(1);
  if constexpr (I == 1 && J == 0) _tile_zero(2);
  if constexpr (I == 1 && J == 1) _tile_zero(3);
}

template <int I, int J>
REFIMPL_INLINE void store_sums(float* p, std::size_t row_bytes) {
  if constexpr (I == 0 && J == 0) _tile_stored(0, p, row_bytes);
  if constexpr (I == 0 && J == 1) _tile_stored(1, p, row_bytes);
  if constexpr (I == 1 && J == 0) _tile_stored(2, p, row_bytes);
  if constexpr (I == 1 && J == 1) _tile_stored(3, p, row_bytes);
}

// The compiler does not know that tile loads read memory: what was written before them has to be there.
template <int I, int J>
REFIMPL_INLINE void load_sums(const float* p, std::size_t row_bytes) {
  __asm__ volatile("" ::: "memory");
  if constexpr (I == 0 && J == 0) _tile_loadd(0, p, row_bytes);
  if constexpr (I == 0 && J == 1) _tile_loadd(1, p, row_bytes);
  if constexpr (I == 1 && J == 0) _tile_loadd(2, p, row_bytes);
  if constexpr (I == 1 && J == 1) _tile_loadd(3, p, row_bytes);
}

template <int I>
REFIMPL_INLINE void load_rows(const void* p, std::size_t row_bytes) {
  __asm__ volatile("" ::: "memory");
  if constexpr (I == 0) _tile_loadd(4, p, row_bytes);
  if constexpr (I == 1) _tile_loadd(5, p, row_bytes);
}

template <int J>
REFIMPL_INLINE void load_columns(const void* p) {
  __asm__ volatile("" ::: "memory");
  if constexpr (J == 0) _tile_loadd(6, p, kTileLine);
  if constexpr (J == 1) _tile_loadd(7, p, kTileLine);
}

// The same, with the hint that they come from the L2 cache and are not worth a place in L1.
template <int J>
REFIMPL_INLINE void stream_columns(const void* p) {
  __asm__ volatile("" ::: "memory");
  if constexpr (J == 0) _tile_stream_loadd(6, p, kTileLine);
  if constexpr (J == 1) _tile_stream_loadd(7, p, kTileLine);
}

// sums += rows x columns. Each pair of a tile's row is two chains of fma over its 16 pairs from zero,
// which are added to one another, then to the sum. Subnormal numbers, in and out, are zero.
template <int I, int J>
REFIMPL_INLINE void dot() {
  if constexpr (I == 0 && J == 0) _tile_dpbf16ps(0, 4, 6);
  if constexpr (I == 0 && J == 1) _tile_dpbf16ps(1, 4, 7);
  if constexpr (I == 1 && J == 0) _tile_dpbf16ps(2, 5, 6);
  if constexpr (I == 1 && J == 1) _tile_dpbf16ps(3, 5, 7);
}

// -- bfloat16 numbers in vectors ------------------------------------------------------------------

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

}  // namespace refimpl::amx
