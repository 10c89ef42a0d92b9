#include "files/classifier.h"

#include <map>

#include "kernels/activations.h"

namespace refimpl {
namespace {

// Architecture -> the name of its head.
constexpr const char* kHeads[][2] = {{"ModernBertForMaskedLM", "masked_lm"},
                                     {kClassifier, "sequence_classification"},
                                     {"ModernBertForTokenClassification", "token_classification"},
                                     {"ModernBertForQuestionAnswering", "question_answering"},
                                     {"ModernBertForMultipleChoice", "multiple_choice"}};
constexpr std::size_t kDefaultLabels = 2;

// The value of a key; null when it is absent, or null in the file.
const Json* given(const Json& values, const char* key) {
  const Json* value = values.find(key);
  return value && !value->is_null() ? value : nullptr;
}

template <class T>
T otherwise(const Json& values, const char* key, const T& other) {
  const Json* value = given(values, key);
  return value && value->get<T>() ? *value->get<T>() : other;
}

std::string architecture_of(const Json& values) {
  const Json* listed = given(values, "architectures");
  const Json::List* names = listed ? listed->get<Json::List>() : nullptr;
  const std::string* first = names && !names->empty() ? (*names)[0].get<std::string>() : nullptr;
  return first ? *first : "";
}

std::int64_t index_of(const Json& value) {
  if (const JsonInteger* n = value.get<JsonInteger>()) return static_cast<std::int64_t>(n->magnitude);
  return std::stoll(*value.get<std::string>());
}

std::vector<std::string> labels_of(const Json& values) {
  std::map<std::int64_t, std::string> found;
  if (const Json* by_index = given(values, "id2label")) {
    for (const JsonMember& pair : *by_index->get<Json::Object>()) {
      const std::string* label = pair.value.get<std::string>();
      found[index_of(Json{pair.key})] = label ? *label : pair.value.shown();
    }
  } else if (const Json* by_label = given(values, "label2id")) {
    for (const JsonMember& pair : *by_label->get<Json::Object>()) found[index_of(pair.value)] = pair.key;
  } else {
    const JsonInteger count = otherwise(values, "num_labels", JsonInteger{false, kDefaultLabels});
    for (std::uint64_t i = 0; i < count.magnitude; ++i) found[static_cast<std::int64_t>(i)] = "LABEL_" + std::to_string(i);
  }
  std::vector<std::string> labels;
  for (auto& [i, label] : found) labels.push_back(std::move(label));
  return labels;
}

}  // namespace

std::optional<Classifier> classifier_of(const Json& values) {
  if (given(values, "refimpl_head") || architecture_of(values) != kClassifier) return std::nullopt;
  Classifier out{labels_of(values),
                 otherwise<std::string>(values, "problem_type", ""),
                 otherwise<std::string>(values, "classifier_pooling", "cls") == "mean",
                 otherwise(values, "classifier_bias", false),
                 Activation::gelu};
  named_activation(otherwise<std::string>(values, "classifier_activation", "gelu"), out.activation);
  return out;
}

std::string head_in_words(const Json& values) {
  if (given(values, "refimpl_head")) return "a configurable head (refimpl_head)";
  const std::string architecture = architecture_of(values);
  for (const auto& [name, head] : kHeads)
    if (architecture == name) return std::string("a ") + head + " head (" + name + ")";
  return "no head, only an encoder";
}

std::vector<std::pair<std::string, Shape>> classifier_shapes(const Config& config, const Classifier& classifier) {
  const std::uint64_t labels = classifier.labels.size();
  std::vector<std::pair<std::string, Shape>> out = {{"head.dense.weight", {config.hidden, config.hidden}}};
  if (classifier.bias) out.push_back({"head.dense.bias", {config.hidden}});
  out.push_back({"head.norm.weight", {config.hidden}});
  if (config.norm_bias) out.push_back({"head.norm.bias", {config.hidden}});
  out.push_back({"classifier.weight", {labels, config.hidden}});
  out.push_back({"classifier.bias", {labels}});
  return out;
}

}  // namespace refimpl
