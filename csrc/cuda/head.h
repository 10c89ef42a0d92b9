// What stands behind an encoder, on a device: as engine/sentence.h, in float32 whatever the encoder computes in.
//
//   hidden -> Pooling -> (Dense | LayerNorm | Normalize)* -> [sequences, width]
//
// Sums over tokens and lengths of vectors in double, products in three terms. A sequence's vector has the
// same bits whatever stands beside it.
#pragma once

#include <vector>

#include "cuda/weights.h"
#include "engine/sentence.h"

namespace refimpl::cuda {

class DeviceHead {
 public:
  // The first module is the only pooling. Throws DeviceFull.
  DeviceHead(int device, std::size_t hidden, const std::vector<ModulePlan>& plan);

  std::size_t width() const { return width_; }
  std::size_t widest() const { return widest_; }
  std::size_t bytes() const { return memory_.bytes(); }

  // Vectors of hidden [total, hidden] in one of two buffers, rows of ld floats; cu_seqlens [sequences + 1] and
  // visible [total], or null, are of the device.
  struct Vectors {
    float *is_in, *is_free;
    std::size_t ld;
  };
  Vectors run(Stream& stream, std::size_t sequences, const float* hidden, const std::uint32_t* cu_seqlens,
              const unsigned char* visible, std::size_t prompt_tokens, Vectors buffers) const;

 private:
  struct Module {
    ModulePlan plan;
    DeviceLinear<float> dense;
    DeviceNorm norm;
  };
  // Room for all modules' weights.
  void place(Room& room);

  std::size_t hidden_, width_, widest_;
  std::vector<Module> modules_;
  DeviceMemory memory_;
};

}  // namespace refimpl::cuda
