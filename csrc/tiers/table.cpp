// From a tier to its kernels.
#include "kernels/kernels.h"

namespace refimpl {

const Kernels* kernels_of(Tier tier, Dtype dtype, std::size_t alternative) {
  switch (tier) {
#define REFIMPL_TIER(name) \
  case Tier::name: return kernels_##name(dtype, alternative);
#include "base/tiers.inc"
  }
  return nullptr;
}

}  // namespace refimpl
