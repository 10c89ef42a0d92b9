// config.json: what an encoder is made of, in both spellings (MODEL.md section 12).
//
// The keys that concern the encoder, read and refused as refimpl/reference/config.py does; keys of
// heads, labels and dropout are not looked at. A value that would change numbers and is not
// supported is refused by name.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "files/json.h"
#include "files/safetensors.h"
#include "kernels/kernels.h"

namespace refimpl {

constexpr std::int64_t kAllVisible = -1;

struct LayerConfig {
  std::int64_t window;  // visible iff |i - j| <= window; kAllVisible: all
  double theta;
  unsigned kept = 0;  // int8: as engine.h's LayerPlan has it
};

struct Config {
  std::uint64_t vocab, hidden, inter, heads, types;
  double norm_eps;
  Activation activation;
  bool norm_bias, attention_bias, mlp_bias;
  std::vector<LayerConfig> layers;
};

// Norms are computed in float32: whether one of its normal numbers is nearest to `value`, and what to say where not.
bool fits_float(double value);
constexpr const char* kFloatRange = "norms are computed in float32, whose normal numbers go from 1.18e-38 to 3.4e+38";

// The content of a config.json; `file` is for errors. Throws FormatError.
Config config_of(const Json& values, const std::string& file);

// Name -> shape of every tensor of the encoder, in the order of the forward pass.
std::vector<std::pair<std::string, Shape>> encoder_shapes(const Config& config);

}  // namespace refimpl
