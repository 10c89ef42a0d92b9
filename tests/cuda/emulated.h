// The kernels of csrc/cuda on this processor, behind the contracts of kernels.h: so that the cases of
// tests/native ask of them what they ask of every tier.
//
// A launch has an order of threads of its own, drawn from a counter: what is asked to have the same
// bits has them in any order.
#pragma once

#include <vector>

#include "../native/cases.h"
#include "cuda/rowwise.h"

namespace driver {

inline cuda::Stream next_order() {
  static cuda::Stream order = 0;
  return ++order;
}

// Numbers in memory that ends where a page begins that nobody may touch.
template <class T>
class Device {
 public:
  explicit Device(std::size_t n) : n(n), buffer(n * sizeof(T), sizeof(T)) {}
  T* data() { return reinterpret_cast<T*>(buffer.data()); }
  T& operator[](std::size_t i) { return data()[i]; }
  const std::size_t n;
  Buffer buffer;
};

inline float number(float x) { return x; }
inline float number(bf16 x) { return to_float(x); }

namespace emulated_kernels {

inline void layer_norm(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight, const float* bias,
                       float eps, float* y, std::size_t ldy) {
  cuda::residual_norm<float>(next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(n), const_cast<float*>(x), ldx, nullptr, 0,
                                            {weight, bias, eps}, y, ldy});
}
inline void glu(std::size_t rows, std::size_t inter, Activation activation, const float* u, std::size_t ldu, float* y, std::size_t ldy) {
  cuda::glu<float>(next_order(), activation, {static_cast<unsigned>(rows), static_cast<unsigned>(inter), u, ldu, y, ldy});
}
inline void rope(std::size_t head_dim, const float* x, const float* cos, const float* sin, float scale, float* y) {
  Device<std::uint32_t> row(1);
  row[0] = 0;
  cuda::rope(next_order(), {1, 1, static_cast<unsigned>(head_dim), x, head_dim, cos, sin, row.data(), scale, y, head_dim});
}

}  // namespace emulated_kernels

inline Kernels kernels_here() {
  Kernels k{};
  k.lanes = cuda::kWarp, k.row_block = cuda::kRowsPerBlock, k.slot_block = 8, k.query_block = 64, k.query_parts = 1;
  k.layer_norm = emulated_kernels::layer_norm, k.glu = emulated_kernels::glu, k.rope = emulated_kernels::rope;
  return k;
}

}  // namespace driver
