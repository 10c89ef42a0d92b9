// Numbers as a checkpoint stores them, and as products take them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace refimpl {

// What the products of an engine compute in; statistics and the residual stream are float32 always.
//   float32   as accurate as fp32 arithmetic
//   bf16x3    numbers as sums of two bfloat16, three products: about 4e-6
//   bfloat16  weights rounded to bfloat16; where the processor multiplies bfloat16, activations too
//   int8      weights as integers of 7 bits with a scale per row of W, activations of 8 with one per token
enum class Dtype { float32, bf16x3, bfloat16, int8 };

enum class Storage { float32, bfloat16, float16 };

// Bytes of an element.
constexpr std::size_t size_of(Storage storage) { return storage == Storage::float32 ? 4 : 2; }

// A tensor of a checkpoint, row-major, aligned as its elements; null data: it is not there.
struct Tensor {
  const void* data = nullptr;
  Storage storage = Storage::float32;
};

struct bf16 {
  std::uint16_t bits;
};

inline float to_float(bf16 x) {
  const std::uint32_t bits = std::uint32_t{x.bits} << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

// To the nearest, ties to even; NaN stays NaN.
inline bf16 to_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// out[i] = the float32 value of element first + i of x, for i < count. Every value is exact.
void widen(const Tensor& x, std::size_t first, std::size_t count, float* out);

}  // namespace refimpl
