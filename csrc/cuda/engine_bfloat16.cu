// The device engine in bfloat16: numbers are bfloat16.
#include "cuda/engine_of.h"

namespace refimpl::cuda {

std::unique_ptr<DeviceEngine> make_bfloat16(int device, const Plan& plan, const Weights& weights, const OfLayer& reading, const OfLayer& packed) {
  return std::make_unique<EngineOf<bf16, 1>>(device, plan, weights, reading, packed);
}

}  // namespace refimpl::cuda
