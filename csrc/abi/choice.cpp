#include "abi/choice.h"

#include <algorithm>

#include "abi/status.h"

namespace refimpl {
namespace {

struct Named {
  const char* name;
  Dtype dtype;
};
constexpr Named kDtypes[] = {{"float32", Dtype::float32}, {"bf16x3", Dtype::bf16x3}, {"bfloat16", Dtype::bfloat16},
                             {"int8", Dtype::int8}};

const Named& dtype_named(const char* name) {
  const std::string wanted = name ? name : kDtypes[0].name;
  std::string known;
  for (const Named& dtype : kDtypes) {
    if (wanted == dtype.name) return dtype;
    known += (known.empty() ? "" : ", ") + std::string(dtype.name);
  }
  refuse("dtype '" + wanted + "' is unknown; known: " + known);
}

// The best tier from `top` downwards that runs here and offers the dtype; null kernels where none does.
Choice offered(Tier top, const Named& wanted) {
  const auto& tiers = built_tiers();
  for (auto tier = std::find(tiers.begin(), tiers.end(), top); tier != tiers.end(); ++tier)
    if (why_unavailable(*tier).empty())
      if (const Kernels* kernels = kernels_of(*tier, wanted.dtype)) return {tier_name(*tier), wanted.name, kernels};
  return {nullptr, wanted.name, nullptr};
}

}  // namespace

Dtype named_dtype(const char* name) { return dtype_named(name).dtype; }

Choice best_choice(const char* cap, const char* dtype) {
  const Named& wanted = dtype_named(dtype);
  const Tier top = best_tier(cap ? cap : "");
  const Choice found = offered(top, wanted);
  if (found.kernels) return found;
  std::string others;
  for (const Named& other : kDtypes)
    if (offered(top, other).kernels) others += (others.empty() ? "" : ", ") + std::string(other.name);
  refuse(std::string("dtype '") + wanted.name + "' is not available on tier '" + tier_name(top) + "' or below: " +
         others);
}

const Kernels& kernels_named(const char* tier, const char* dtype) {
  const Named& wanted = dtype_named(dtype);
  const std::string name = &not_null(tier, "tier");
  if (const Kernels* kernels = kernels_of(named_tier(name), wanted.dtype)) return *kernels;
  refuse(std::string("dtype '") + wanted.name + "' is not available on tier '" + name + "'");
}

}  // namespace refimpl

using namespace refimpl;

extern "C" int modernbert_best_tier(const char* cap, const char* dtype, const char** tier) {
  return guarded([&] { not_null(tier, "tier") = best_choice(cap, dtype).tier; });
}
