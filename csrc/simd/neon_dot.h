// The sum of four products in one instruction, for the dot products of Armv8.2. Included inside a region
// with that target, after simd/neon.h.
namespace refimpl::neon {

struct AtOnce {
  static constexpr int rows = 12;  // of a register tile: 24 accumulators, 2 of w, 6 left for rows of a
  static REFIMPL_INLINE i32 dot(i32 sum, Four a, Fours w) { return vdotq_s32(sum, a, w); }
};

}  // namespace refimpl::neon
