#include "kernels/pooling.h"

namespace refimpl {
namespace {

constexpr const char* kNames[] = {"cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"};

}  // namespace

bool named_pooling(const std::string& name, Pooling& found) {
  int i = 0;
  for (const char* known : kNames) {
    if (name == known) {
      found = static_cast<Pooling>(i);
      return true;
    }
    ++i;
  }
  return false;
}

std::string pooling_names() {
  std::string out;
  for (const char* known : kNames) out += (out.empty() ? "" : ", ") + std::string(known);
  return out;
}

}  // namespace refimpl
