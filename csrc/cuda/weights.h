// Weights on a device: one piece of memory, into which tensors are brought as they are stored and packed there.
#pragma once

#include <vector>

#include "cuda/gemm.h"
#include "cuda/runtime.h"
#include "engine/engine.h"

namespace refimpl::cuda {

template <class T>
struct DeviceLinear {
  Packing packing{};
  T* packed = nullptr;
  float* bias = nullptr;  // null: there is none
};
struct DeviceNorm {
  float *weight = nullptr, *bias = nullptr;  // null: there is none
};

// Takes room for tensors, first in nothing, to learn how much it is, then in memory.
class Room {
 public:
  explicit Room(std::byte* memory = nullptr) : memory_(memory) {}
  template <class N>
  N* take(std::size_t n) {
    const std::size_t at = std::exchange(bytes_, round_up(bytes_ + n * sizeof(N), 256));
    return memory_ ? reinterpret_cast<N*>(memory_ + at) : nullptr;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  std::size_t bytes_ = 0;
};

template <class T>
DeviceLinear<T> room_for(Room& room, const Packing& packing, bool bias) {
  DeviceLinear<T> l{packing, room.take<T>(packed_numbers(packing)), nullptr};
  if (bias) l.bias = room.take<float>(packing.n);
  return l;
}
inline DeviceNorm room_for(Room& room, std::size_t n, const Tensor& weight, const Tensor& bias) {
  DeviceNorm norm;
  if (weight.data) norm.weight = room.take<float>(n);
  if (bias.data) norm.bias = room.take<float>(n);
  return norm;
}

// Brings tensors to their room.
class Bringer {
 public:
  explicit Bringer(int device) : device_(device), stream_(device) {}

  void floats(float* to, std::size_t n, const Tensor& from) {
    if (!to) return;
    std::vector<float> wide(n);
    widen(from, 0, n, wide.data());
    Stream s = stream_.get();
    to_device(s, to, wide.data(), n * sizeof(float));
    finish(s);
  }
  void norm(const DeviceNorm& to, std::size_t n, const Tensor& weight, const Tensor& bias) {
    floats(to.weight, n, weight), floats(to.bias, n, bias);
  }
  template <class T>
  void linear(const DeviceLinear<T>& to, const Tensor& weight, const Tensor& bias) {
    switch (weight.storage) {
      case Storage::float32: packed<float>(to, weight); break;
      case Storage::bfloat16: packed<bf16>(to, weight); break;
      case Storage::float16: packed<f16>(to, weight); break;
    }
    floats(to.bias, to.packing.n, bias);
  }

 private:
  template <class Stored, class T>
  void packed(const DeviceLinear<T>& to, const Tensor& weight) {
    const std::size_t bytes = to.packing.n * to.packing.k * sizeof(Stored);
    if (raw_.bytes() < bytes) raw_ = {}, raw_ = DeviceMemory(device_, bytes);
    Stream s = stream_.get();
    to_device(s, raw_.data(), weight.data, bytes);
    const Packing& p = to.packing;
    started(pack<Stored, T>(turn(s), {static_cast<unsigned>(p.n), static_cast<unsigned>(p.k), static_cast<unsigned>(p.group), 0,
                                      static_cast<unsigned>(panels_of(p, kLanes)), reinterpret_cast<const Stored*>(raw_.data()),
                                      to.packed, k_padded(p.k)}));
    finish(s);
  }
  const int device_;
  OwnStream stream_;
  DeviceMemory raw_;
};

// x W^T, with whatever it ends as.
template <unsigned kTerms, class T, class Epilogue>
void multiply_rows(Stream& stream, const DeviceLinear<T>& l, std::size_t rows, const T* x, std::size_t ldx, const Epilogue& epilogue) {
  started(product<kTerms>(turn(stream), Product<T, Epilogue>{
      static_cast<unsigned>(rows), static_cast<unsigned>(l.packing.n), static_cast<unsigned>(l.packing.k),
      static_cast<unsigned>(l.packing.group), 0, static_cast<unsigned>(panels_of(l.packing, kLanes)), x, ldx, l.packed,
      k_padded(l.packing.k), epilogue}));
}

}  // namespace refimpl::cuda
