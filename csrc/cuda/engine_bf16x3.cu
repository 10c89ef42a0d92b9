// The device engine in bf16x3: numbers as sums of two bfloat16, three products.
#include "cuda/engine_of.h"

namespace refimpl::cuda {

std::unique_ptr<DeviceEngine> make_bf16x3(int device, const Plan& plan, const Weights& weights, const OfLayer& reading, const OfLayer& packed) {
  return std::make_unique<EngineOf<float, 2>>(device, plan, weights, reading, packed);
}

}  // namespace refimpl::cuda
