// The sum of four products in one instruction, for AVX512_VNNI. Included inside a region with that target,
// after simd/avx512.h.
namespace refimpl::avx512 {

struct AtOnce {
  static constexpr int rows = 14;  // of a register tile: 28 accumulators, 2 of w, 1 of a
  // gcc 12 writes the sums of _mm512_dpbusd_epi32 to memory each time, and is half as fast.
  static REFIMPL_INLINE i32 dot(i32 sum, Four a, Fours w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w));
    return sum;
  }
};

}  // namespace refimpl::avx512
