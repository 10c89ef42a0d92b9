// What config.json says of a sequence classifier: its labels, its layers, how its logits are shown.
//
//   hidden -> pooling -> head.dense, activation -> head.norm -> classifier -> logits [labels]
//
// As refimpl/reference/heads.py has it. Its keys are right by now (head_keys.h).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "files/config.h"

namespace refimpl {

struct Classifier {
  std::vector<std::string> labels;
  std::string problem_type;  // "" where there is none
  bool mean;                 // pooling: over all visible tokens, else the first token
  bool bias;                 // of head.dense
  Activation activation;
};

constexpr const char* kClassifier = "ModernBertForSequenceClassification";

// None where architectures names another head first, or none.
std::optional<Classifier> classifier_of(const Json& values);

// The head that a folder without modules names, in words: "a masked_lm head (ModernBertForMaskedLM)".
std::string head_in_words(const Json& values);

// Name -> shape of every tensor of the classifier.
std::vector<std::pair<std::string, Shape>> classifier_shapes(const Config& config, const Classifier& classifier);

}  // namespace refimpl
