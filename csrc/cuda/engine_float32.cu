// The device engine in float32: as accurate as float32 arithmetic.
#include "cuda/engine_of.h"

namespace refimpl::cuda {

std::unique_ptr<DeviceEngine> make_float32(int device, const Plan& plan, const Weights& weights, const OfLayer& reading, const OfLayer& packed) {
  return std::make_unique<EngineOf<float, 3>>(device, plan, weights, reading, packed);
}

}  // namespace refimpl::cuda
