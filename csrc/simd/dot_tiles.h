// The tile verbs of simd/amx.h without tiles: by VDPBF16PS, which adds two products of bfloat16 numbers to each
// float32 of a vector. Included inside the tier's target region, after simd/bf16.h.
//
// A tile of rows or columns is where it stands in memory, and must stay as it is until its last product. 8 rows of
// both tiles of sums are in registers at a time, and each pair of a row, read as a broadcast, serves both: 384 loads
// for 512 instructions. Subnormal numbers, in and out, are zero, as in tiles.
namespace refimpl::avx512bf16 {

using namespace refimpl::bf16_vectors;

// Sums are zero at first.
class Tiles {
 public:
  REFIMPL_INLINE Tiles() { __builtin_memset(sums_, 0, sizeof sums_); }
  Tiles(const Tiles&) = delete;

  template <int I, int J>
  REFIMPL_INLINE void zero_sums() {
    __builtin_memset(sums_[I][J], 0, kTileBytes);
  }
  template <int I, int J>
  REFIMPL_INLINE void store_sums(float* p, std::size_t row_bytes) {
    for (std::size_t r = 0; r < kTile; ++r) store(p + r * row_bytes / sizeof(float), load(sums_[I][J] + r * kTile));
  }
  template <int I, int J>
  REFIMPL_INLINE void load_sums(const float* p, std::size_t row_bytes) {
    for (std::size_t r = 0; r < kTile; ++r) store(sums_[I][J] + r * kTile, load(p + r * row_bytes / sizeof(float)));
  }
  template <int I>
  REFIMPL_INLINE void load_rows(const void* p, std::size_t row_bytes) {
    rows_[I] = static_cast<const char*>(p), row_bytes_[I] = row_bytes;
  }
  template <int J>
  REFIMPL_INLINE void load_columns(const void* p) {
    columns_[J] = static_cast<const char*>(p);
  }
  template <int J>
  REFIMPL_INLINE void stream_columns(const void* p) {
    load_columns<J>(p);
  }

  // sums (I, 0) and (I, 1) += rows I x columns: each element one chain over its 16 pairs.
  template <int I>
  REFIMPL_INLINE void dot() {
    for (std::size_t row = 0; row < kTile; row += kAtOnce)
      multiply(rows_[I] + row * row_bytes_[I], row_bytes_[I], sums_[I][0] + row * kTile, sums_[I][1] + row * kTile);
  }

 private:
  static constexpr std::size_t kAtOnce = 8;

  REFIMPL_INLINE void multiply(const char* rows, std::size_t row_bytes, float* sums0, float* sums1) const {
    const char *columns0 = columns_[0], *columns1 = columns_[1];
    __m512 sum0[kAtOnce], sum1[kAtOnce];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kAtOnce; ++r) sum0[r] = load(sums0 + r * kTile).v, sum1[r] = load(sums1 + r * kTile).v;
#pragma GCC unroll 1
    for (std::size_t pair = 0; pair < kTile; ++pair) {
      const __m512bh column0 = (__m512bh)_mm512_loadu_si512(columns0 + pair * kTileLine);
      const __m512bh column1 = (__m512bh)_mm512_loadu_si512(columns1 + pair * kTileLine);
#pragma GCC unroll 8
      for (std::size_t r = 0; r < kAtOnce; ++r) {
        int two;
        __builtin_memcpy(&two, rows + r * row_bytes + pair * 4, 4);
        const __m512bh row = (__m512bh)_mm512_set1_epi32(two);
        sum0[r] = _mm512_dpbf16_ps(sum0[r], row, column0), sum1[r] = _mm512_dpbf16_ps(sum1[r], row, column1);
      }
    }
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kAtOnce; ++r) store(sums0 + r * kTile, {sum0[r]}), store(sums1 + r * kTile, {sum1[r]});
  }

  alignas(64) float sums_[2][2][kTile * kTile];
  const char *rows_[2], *columns_[2];
  std::size_t row_bytes_[2];
};

}  // namespace refimpl::avx512bf16
