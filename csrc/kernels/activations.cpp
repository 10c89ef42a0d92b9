#include "kernels/activations.h"

namespace refimpl {
namespace {

constexpr struct {
  const char* name;
  Activation activation;
} kNames[] = {{"gelu", Activation::gelu},
              {"gelu_new", Activation::gelu_tanh},
              {"gelu_pytorch_tanh", Activation::gelu_tanh},
              {"quick_gelu", Activation::quick_gelu},
              {"silu", Activation::silu},
              {"swish", Activation::silu},
              {"relu", Activation::relu},
              {"tanh", Activation::tanh},
              {"sigmoid", Activation::sigmoid},
              {"linear", Activation::linear}};

}  // namespace

bool named_activation(const std::string& name, Activation& found) {
  for (const auto& known : kNames)
    if (name == known.name) {
      found = known.activation;
      return true;
    }
  return false;
}

std::string activation_names() {
  std::string out;
  for (const auto& known : kNames) out += (out.empty() ? "" : ", ") + std::string(known.name);
  return out;
}

}  // namespace refimpl
