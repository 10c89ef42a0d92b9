#include "kernels/activations.h"

namespace refimpl {
namespace {

constexpr struct {
  Activation activation;
  const char* names[2];  // null where there is one only
} kActivations[] = {
#define REFIMPL_NAMED(name, ...) {Activation::name, {__VA_ARGS__}},
    REFIMPL_ACTIVATIONS(REFIMPL_NAMED)
#undef REFIMPL_NAMED
};

}  // namespace

bool named_activation(const std::string& name, Activation& found) {
  for (const auto& known : kActivations)
    for (const char* its : known.names)
      if (its && name == its) {
        found = known.activation;
        return true;
      }
  return false;
}

const char* activation_name(Activation activation) {
  for (const auto& known : kActivations)
    if (known.activation == activation) return known.names[0];
  return "linear";
}

std::string activation_names() {
  std::string out;
  for (const auto& known : kActivations)
    for (const char* its : known.names)
      if (its) out += (out.empty() ? "" : ", ") + std::string(its);
  return out;
}

}  // namespace refimpl
