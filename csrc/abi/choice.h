// Which kernels a caller of the C interface gets: dtype and tier by name.
#pragma once

#include <string>

#include "kernels/kernels.h"

namespace refimpl {

struct Choice {
  const char* tier;
  const char* dtype;
  const Kernels* kernels;
};

// A dtype by its name (null: float32). Throws std::invalid_argument.
Dtype named_dtype(const char* name);

// The best tier that runs here, offers the dtype (null: float32) and is not above `cap` (null or "":
// no cap). Throws std::invalid_argument.
Choice best_choice(const char* cap, const char* dtype);

// The kernels of one tier that runs here. Throws std::invalid_argument.
const Kernels& kernels_named(const char* tier, const char* dtype);

}  // namespace refimpl
