// From a tier to its kernels.
#include "kernels/kernels.h"

namespace refimpl {

const Kernels& kernels_of(Tier tier) {
  switch (tier) {
#define REFIMPL_TIER(name) \
  case Tier::name: return kernels_##name;
#include "base/tiers.inc"
  }
  return kernels_scalar;
}

}  // namespace refimpl
