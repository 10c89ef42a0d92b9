// From a tier to its adjoints.
#include "training/adjoints.h"

namespace refimpl {

const Adjoints& adjoints_of(Tier tier, Dtype dtype) {
  switch (tier) {
#define REFIMPL_TIER(name) \
  case Tier::name: return adjoints_##name(dtype);
#include "base/tiers.inc"
  }
  return adjoints_scalar(dtype);
}

}  // namespace refimpl
