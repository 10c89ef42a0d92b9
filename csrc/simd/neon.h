// The verbs on 4 float lanes, for AArch64 with Advanced SIMD, which every AArch64 Linux has.
namespace refimpl::neon {

struct f32 {
  static constexpr int lanes = 4;
  float32x4_t v;
};

REFIMPL_INLINE f32 set1(float x) { return {vdupq_n_f32(x)}; }
REFIMPL_INLINE f32 load(const float* p) { return {vld1q_f32(p)}; }
// Both vectors of a row of a panel: floats one after the other, bfloat16 lane by lane in pairs.
REFIMPL_INLINE void load2(const float* p, f32 (&v)[2]) { v[0] = load(p), v[1] = load(p + f32::lanes); }
REFIMPL_INLINE void load2(const bf16* p, f32 (&v)[2]) {
  const uint32x4_t x = vreinterpretq_u32_u16(vld1q_u16(&p->bits));
  v[0].v = vreinterpretq_f32_u32(vshlq_n_u32(x, 16));
  v[1].v = vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff0000u)));
}
REFIMPL_INLINE void store(float* p, f32 a) { vst1q_f32(p, a.v); }
// The first n lanes (0 <= n <= lanes); the others read as 0, and are not written.
REFIMPL_INLINE f32 load_first(const float* p, int n) {
  if (n == f32::lanes) return load(p);
  float32x4_t v = vdupq_n_f32(0.0f);
  if (n > 0) v = vld1q_lane_f32(p, v, 0);
  if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
  if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
  return {v};
}
REFIMPL_INLINE void store_first(float* p, f32 a, int n) {
  if (n == f32::lanes) return store(p, a);
  if (n > 0) vst1q_lane_f32(p, a.v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, a.v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, a.v, 2);
}
REFIMPL_INLINE f32 add(f32 a, f32 b) { return {vaddq_f32(a.v, b.v)}; }
REFIMPL_INLINE f32 sub(f32 a, f32 b) { return {vsubq_f32(a.v, b.v)}; }
REFIMPL_INLINE f32 mul(f32 a, f32 b) { return {vmulq_f32(a.v, b.v)}; }
REFIMPL_INLINE f32 div(f32 a, f32 b) { return {vdivq_f32(a.v, b.v)}; }
REFIMPL_INLINE f32 sqrt(f32 a) { return {vsqrtq_f32(a.v)}; }
// a b + c, rounded once.
REFIMPL_INLINE f32 fma(f32 a, f32 b, f32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
// a > b ? a : b and a < b ? a : b: the second operand when either is NaN, where vmaxq gives NaN.
REFIMPL_INLINE f32 max(f32 a, f32 b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
REFIMPL_INLINE f32 min(f32 a, f32 b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
REFIMPL_INLINE f32 abs(f32 a) { return {vabsq_f32(a.v)}; }
// |a| with the sign of s.
REFIMPL_INLINE f32 copysign(f32 a, f32 s) { return {vbslq_f32(vdupq_n_u32(0x80000000u), s.v, a.v)}; }
// Nearest integer, ties to even.
REFIMPL_INLINE f32 round(f32 a) { return {vrndnq_f32(a.v)}; }
// 2^n for integral n in [-127, 127]; -127 gives 0.
REFIMPL_INLINE f32 exp2_int(f32 n) {
  const int32x4_t e = vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127));
  return {vreinterpretq_f32_s32(vshlq_n_s32(e, 23))};
}
// b where x < y, else a.
REFIMPL_INLINE f32 where_less(f32 x, f32 y, f32 b, f32 a) { return {vbslq_f32(vcltq_f32(x.v, y.v), b.v, a.v)}; }
// Sums and maxima over lanes; halves first, an order that never changes.
REFIMPL_INLINE float sum(f32 a) {
  const float32x2_t x = vadd_f32(vget_low_f32(a.v), vget_high_f32(a.v));
  return vget_lane_f32(x, 0) + vget_lane_f32(x, 1);
}
REFIMPL_INLINE float max(f32 a) {
  const float32x2_t low = vget_low_f32(a.v), high = vget_high_f32(a.v);
  const float32x2_t x = vbsl_f32(vcgt_f32(low, high), low, high);
  const float x0 = vget_lane_f32(x, 0), x1 = vget_lane_f32(x, 1);
  return x0 > x1 ? x0 : x1;
}

// -- int8: products of four numbers summed into a lane --------------------------------------------

using i32 = int32x4_t;
using Four = int8x16_t;   // of a row, in every lane
using Fours = int8x16_t;  // of as many columns as there are lanes

// What stands for 0 in a row of int8 numbers.
constexpr std::uint8_t kZero = 0;

REFIMPL_INLINE i32 load(const std::int32_t* p) { return vld1q_s32(p); }
REFIMPL_INLINE f32 to_float(i32 a) { return {vcvtq_f32_s32(a)}; }
// Integral lanes in [-127, 127], kZero added.
REFIMPL_INLINE void store_bytes(std::uint8_t* p, f32 a) {
  const int16x4_t words = vmovn_s32(vcvtq_s32_f32(a.v));
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  const std::uint32_t bits = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
  std::memcpy(p, &bits, sizeof bits);
}
REFIMPL_INLINE Four load_four(const std::uint8_t* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return vreinterpretq_s8_s32(vdupq_n_s32(bits));
}
REFIMPL_INLINE Fours load_fours(const std::int8_t* p) { return vld1q_s8(p); }

// Products in 16 bits, at most 127 x 63, then their pairs, then pairs of these.
struct InSteps {
  static constexpr int rows = 8;  // of a register tile
  static REFIMPL_INLINE i32 dot(i32 sum, Four a, Fours w) {
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(w)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(a, w));
    return vaddq_s32(sum, vpaddq_s32(low, high));
  }
};

}  // namespace refimpl::neon
