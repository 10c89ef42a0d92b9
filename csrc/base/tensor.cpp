#include "base/tensor.h"

namespace refimpl {
namespace {

float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t{h} >> 15 << 31, exponent = h >> 10 & 31u, fraction = h & 1023u;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exact in float32
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
  const std::uint32_t bits = sign | wide << 23 | fraction << 13;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

}  // namespace

void widen(const Tensor& x, std::size_t first, std::size_t count, float* out) {
  switch (x.storage) {
    case Storage::float32: std::memcpy(out, static_cast<const float*>(x.data) + first, count * sizeof(float)); return;
    case Storage::bfloat16: {
      const bf16* from = static_cast<const bf16*>(x.data) + first;
      for (std::size_t i = 0; i < count; ++i) out[i] = to_float(from[i]);
      return;
    }
    case Storage::float16: {
      const std::uint16_t* from = static_cast<const std::uint16_t*>(x.data) + first;
      for (std::size_t i = 0; i < count; ++i) out[i] = half_to_float(from[i]);
      return;
    }
  }
}

}  // namespace refimpl
