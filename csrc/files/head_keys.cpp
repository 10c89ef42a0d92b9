#include "files/head_keys.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "files/format_error.h"
#include "kernels/activations.h"

namespace refimpl {
namespace {

// Beyond any model; a lie here would cost memory before any tensor is looked at.
constexpr std::uint64_t kMaxLabels = 10'000'000;
constexpr std::size_t kMostDigits = 18;  // of an index in quotes

constexpr const char* kIntegers[] = {"sparse_pred_ignore_index"};
constexpr const char* kIds[] = {"bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"};
constexpr const char* kFlags[] = {"decoder_bias", "classifier_bias", "sparse_prediction"};
constexpr const char* kShares[] = {"classifier_dropout", "attention_dropout", "embedding_dropout", "mlp_dropout"};
constexpr const char* kPositive[] = {"initializer_range", "initializer_cutoff_factor"};
constexpr const char* kPoolings[] = {"cls", "mean"};
constexpr const char* kProblems[] = {"regression", "single_label_classification", "multi_label_classification"};
constexpr const char* kArchitectures[] = {
    "ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification",
    "ModernBertForTokenClassification", "ModernBertForQuestionAnswering", "ModernBertForMultipleChoice"};

template <std::size_t N>
std::string listed(const char* const (&names)[N]) {
  std::string out;
  for (const char* name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

template <std::size_t N>
bool is_one_of(const Json& value, const char* const (&names)[N]) {
  const std::string* text = value.get<std::string>();
  return text && std::any_of(std::begin(names), std::end(names), [&](const char* name) { return *text == name; });
}

std::optional<double> number(const Json& value) {
  if (const double* x = value.get<double>()) return *x;
  if (const JsonInteger* n = value.get<JsonInteger>()) return (n->negative ? -1.0 : 1.0) * static_cast<double>(n->magnitude);
  return std::nullopt;
}

// The index of a label: an integer, also in quotes.
std::optional<std::int64_t> index_of(const Json& value) {
  if (const JsonInteger* n = value.get<JsonInteger>(); n && n->magnitude < std::uint64_t{1} << 62)
    return (n->negative ? -1 : 1) * static_cast<std::int64_t>(n->magnitude);
  const std::string* text = value.get<std::string>();
  if (!text) return std::nullopt;
  const std::size_t sign = !text->empty() && (*text)[0] == '-';
  const bool digits = std::all_of(text->begin() + static_cast<std::ptrdiff_t>(sign), text->end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || text->size() == sign || text->size() - sign > kMostDigits) return std::nullopt;
  return std::stoll(*text);
}

class Checker {
 public:
  Checker(const Json& values, const std::string& file) : values_(values), file_(file) {}

  void check(bool named) const {
    labels();
    const Json* architectures = given("architectures");
    if (architectures && !architectures->get<Json::List>()) refuse("architectures", *architectures, "it must be a list");
    for (const char* name : kIntegers)
      if (const Json* value = values_.find(name); value && !value->get<JsonInteger>()) refuse(name, *value, "it must be an integer");
    if (const Json* pad = given("pad_token_id"); pad && !pad->get<JsonInteger>())
      refuse("pad_token_id", *pad, "it must be an integer or null");
    for (const char* name : kIds) ids(name);
    for (const char* name : kFlags) flag(name, values_.find(name));
    flag("tie_word_embeddings", given("tie_word_embeddings"));
    for (const char* name : kPositive) in_range(name, "it must be positive and finite", [](double x) { return std::isfinite(x) && x > 0; });
    for (const char* name : kShares) in_range(name, "it must be in [0, 1)", [](double x) { return x >= 0 && x < 1; });
    Activation found;
    if (const Json* value = values_.find("classifier_activation")) {
      const std::string* name = value->get<std::string>();
      if (!name || !named_activation(*name, found)) refuse("classifier_activation", *value, "supported: " + activation_names());
    }
    if (const Json* value = given("classifier_pooling"); value && !is_one_of(*value, kPoolings))
      refuse("classifier_pooling", *value, "supported: " + listed(kPoolings));
    if (const Json* value = given("problem_type"); value && !is_one_of(*value, kProblems))
      refuse("problem_type", *value, "supported: " + listed(kProblems) + ", null");
    if (named && architectures)
      for (const Json& item : *architectures->get<Json::List>())
        if (!is_one_of(item, kArchitectures))
          throw FormatError(file_, "architectures", kNoOffset, item.shown() + " is unknown; known: " + listed(kArchitectures));
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const { throw FormatError(file_, message); }
  [[noreturn]] void refuse(const std::string& name, const Json& value, const std::string& right) const {
    refuse(name + " is " + value.shown() + "; " + right);
  }
  // The value of a key; null when it is absent, or null in the file.
  const Json* given(const char* name) const {
    const Json* value = values_.find(name);
    return value && !value->is_null() ? value : nullptr;
  }

  void flag(const char* name, const Json* value) const {
    if (value && !value->get<bool>()) refuse(name, *value, "it must be true or false");
  }

  void ids(const char* name) const {
    const Json* value = given(name);
    if (!value || value->get<JsonInteger>()) return;
    const Json::List* list = value->get<Json::List>();
    const auto is_integer = [](const Json& item) { return item.get<JsonInteger>() != nullptr; };
    if (!list || !std::all_of(list->begin(), list->end(), is_integer))
      refuse(name, *value, "it must be an integer, a list of integers, or null");
  }

  template <class F>
  void in_range(const char* name, const char* right, F is_right) const {
    const Json* value = values_.find(name);
    if (!value) return;
    const std::optional<double> x = number(*value);
    if (!x) refuse(name, *value, "it must be a number");
    if (!is_right(*x)) refuse(name, Json{*x}, right);
  }

  // num_labels, id2label or else label2id: indices from 0 on, as many as num_labels.
  void labels() const {
    const Json* count = given("num_labels");
    if (count) {
      const JsonInteger* n = count->get<JsonInteger>();
      if (!n) refuse("num_labels", *count, "it must be an integer");
      if (n->negative || n->magnitude < 1) refuse("num_labels", *count, "it must be at least 1");
      if (n->magnitude > kMaxLabels)
        throw FormatError(file_, "num_labels", kNoOffset, "is " + count->shown() + "; at most " + std::to_string(kMaxLabels));
    }
    const bool by_label = !given("id2label");
    const char* name = by_label ? "label2id" : "id2label";
    const Json* value = given(name);
    if (!value) return;
    const Json::Object* pairs = value->get<Json::Object>();
    const char* right = by_label ? "it maps labels to integers" : "it maps integers to labels";
    if (!pairs) refuse(name, *value, right);
    std::map<std::int64_t, bool> found;
    for (const JsonMember& pair : *pairs) {
      const std::optional<std::int64_t> i = index_of(by_label ? pair.value : Json{pair.key});
      if (!i) refuse(name, *value, right);
      found[*i] = true;
    }
    Json::List indices;
    bool in_order = !found.empty();
    for (const auto& [i, there] : found) {
      in_order = in_order && i == static_cast<std::int64_t>(indices.size());
      indices.emplace_back().value = JsonInteger{i < 0, static_cast<std::uint64_t>(i < 0 ? -i : i)};
    }
    if (!in_order) refuse(std::string(name) + " has the indices " + Json{indices}.shown() + "; they must be 0 .. n-1");
    if (count && count->get<JsonInteger>()->magnitude != indices.size())
      refuse("num_labels is " + count->shown() + " but " + name + " holds " + std::to_string(indices.size()) + " labels");
  }

  const Json& values_;
  const std::string& file_;
};

}  // namespace

void check_head_keys(const Json& values, const std::string& file, bool named) { Checker(values, file).check(named); }

}  // namespace refimpl
