// Names of activations, as `hidden_activation` of config.json spells them.
#pragma once

#include <string>

#include "kernels/kernels.h"

namespace refimpl {

// Sets `found`; false when the name is unknown.
bool named_activation(const std::string& name, Activation& found);

// Its first name.
const char* activation_name(Activation activation);

// "gelu, gelu_new, ..": for messages.
std::string activation_names();

}  // namespace refimpl
