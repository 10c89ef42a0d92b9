// The sum of four products in one instruction, for AVX-VNNI. Included inside a region with that target,
// after simd/avx2.h.
namespace refimpl::avx2 {

struct AtOnce {
  static constexpr int rows = 6;  // of a register tile: 12 accumulators, 2 of w, 1 of a
  // As in avx512_vnni.h.
  static REFIMPL_INLINE i32 dot(i32 sum, Four a, Fours w) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w));
    return sum;
  }
};

}  // namespace refimpl::avx2
