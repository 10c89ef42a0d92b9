// A model that a caller describes: config, tensors and modules, each checked and named where it is wrong.
//
// No engine is made here: the CPU's and the device's take the same. Throws std::invalid_argument,
// Unreadable for a file that is no longer there.
#pragma once

#include <map>
#include <string>

#include "abi/status.h"
#include "base/row_source.h"
#include "engine/engine.h"
#include "engine/sentence.h"
#include "files/config.h"

namespace refimpl {

// Beyond any memory; products of sizes below it stay far from overflow.
constexpr std::size_t kMaxElements = std::size_t{1} << 44;

using Tensors = std::map<std::string, Tensor>;
using Modules = std::vector<ModulePlan>;

Config config_given(const modernbert_config& given);
Plan plan_of(const Config& config);

// Tensors of a checkpoint, all but the embedding, where the engine looks for them; a bias may be missing.
Weights weights_of(const Config& config, const RowSource& embedding, const Tensors& tensors);

// A sequence classifier's layers; labels, shapes and tensors as `classifier_shapes` has them, biases may be missing.
Modules classifier_modules(bool mean, Activation activation, float eps, std::size_t hidden, std::size_t labels,
                           const Tensors& tensors);

// What modernbert_create is given. The tensors' memory is the caller's.
struct Given {
  Config config;
  Modules modules, classifier;  // empty: there is none
  Tensors tensors;
  RowSource embedding;
};
Given model_given(const modernbert_config& config, const modernbert_tensor* tensors, std::size_t count);

}  // namespace refimpl
