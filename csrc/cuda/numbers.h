// Numbers as memory holds them, and as kernels compute: float32.
#pragma once

#include "cuda/device.h"

namespace refimpl::cuda {

// A float16 as a checkpoint stores it.
struct f16 {
  std::uint16_t bits;
};

REFIMPL_DEVICE float as_float(float x) { return x; }
REFIMPL_DEVICE float as_float(bf16 x) { return widened(x); }
REFIMPL_DEVICE float as_float(f16 x) { return widened_half(x.bits); }

// A float32 as T: itself, or the nearest bfloat16, ties to even.
template <class T>
REFIMPL_DEVICE T as(float x);
template <>
REFIMPL_DEVICE float as<float>(float x) {
  return x;
}
template <>
REFIMPL_DEVICE bf16 as<bf16>(float x) {
  return round_bf16(x);
}

// The sum over a warp's lanes, the same bits on each: additions of a tree, whatever the lane.
REFIMPL_DEVICE float warp_sum(float x) {
  REFIMPL_UNROLL
  for (unsigned bit = kWarp / 2; bit; bit /= 2) x += shuffle_xor(x, bit);
  return x;
}

}  // namespace refimpl::cuda
