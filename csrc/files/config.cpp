#include "files/config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "kernels/activations.h"

namespace refimpl {
namespace {

constexpr const char *kFull = "full_attention", *kSliding = "sliding_attention";
// Beyond any model; a lie here would cost memory before any tensor is looked at.
constexpr std::uint64_t kMaxLayers = 1000;
constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 31;
// As good as no window, and far from overflow.
constexpr std::uint64_t kMaxWindow = std::uint64_t{1} << 40;

// Keys that are supported only where they do nothing: null, or the value of that kind that is empty or
// false. As NEUTRAL of refimpl/reference/config_keys.py.
enum class Neutral { only_null, no, empty_object };
constexpr struct {
  const char* key;
  Neutral value;
  const char* why;
} kNeutral[] = {{"quantization_config", Neutral::empty_object, "quantised weights are not supported"},
                {"pruned_heads", Neutral::empty_object, "heads that are left out are not supported"},
                {"is_decoder", Neutral::no, "a causal mask is not supported"},
                {"is_encoder_decoder", Neutral::no, "a decoder is not supported"},
                {"add_cross_attention", Neutral::no, "cross-attention is not supported"},
                {"cross_attention_hidden_size", Neutral::only_null, "cross-attention is not supported"},
                {"tie_encoder_decoder", Neutral::no, "a decoder is not supported"},
                {"causal_mask", Neutral::no, "a causal mask is not supported"}};

// Python's idea of nothing: null, false, 0, "", [], {}.
bool falsy(const Json& value) {
  if (const bool* flag = value.get<bool>()) return !*flag;
  if (const JsonInteger* n = value.get<JsonInteger>()) return n->magnitude == 0;
  if (const double* x = value.get<double>()) return *x == 0.0;
  if (const std::string* text = value.get<std::string>()) return text->empty();
  if (const Json::List* list = value.get<Json::List>()) return list->empty();
  if (const Json::Object* object = value.get<Json::Object>()) return object->empty();
  return true;
}

class Reader {
 public:
  Reader(const Json& values, const std::string& file) : values_(values), file_(file) {}

  Config read() const {
    if (!values_.get<Json::Object>())
      throw FormatError(file_, std::string("holds ") + values_.kind() + "; it must hold an object");
    if (const JsonInteger* n = integer_at("num_hidden_layers"); n && !n->negative && n->magnitude > kMaxLayers)
      too_large("num_hidden_layers", kMaxLayers);
    for (const char* name : {"vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "type_vocab_size"})
      if (const JsonInteger* n = integer_at(name); n && !n->negative && n->magnitude > kMaxSize) too_large(name, kMaxSize);
    if (const Json* type = values_.find("model_type"))
      if (const std::string* name = type->get<std::string>(); !name || *name != "modernbert")
        refuse("model_type", *type, "this reads 'modernbert'");

    for (const auto& key : kNeutral) {
      const Json* value = given(key.key);
      if (!value) continue;
      const bool* flag = value->get<bool>();
      const Json::Object* object = value->get<Json::Object>();
      if (!(key.value == Neutral::no && flag && !*flag) && !(key.value == Neutral::empty_object && object && object->empty()))
        refuse(key.key, *value, key.why);
    }
    if (const Json* extra = values_.find("extra"); extra && !extra->get<Json::Object>())
      refuse("extra", *extra, "it maps keys of the file to values");

    Config c{};
    const std::vector<bool> full = full_layers();
    const double full_theta = theta(kFull), sliding_theta = theta(kSliding);
    const std::uint64_t window = half_window();
    c.vocab = size("vocab_size", 50368);
    c.hidden = size("hidden_size", 768);
    c.inter = size("intermediate_size", 1152);
    c.heads = size("num_attention_heads", 12);
    size("max_position_embeddings", 8192);  // no size of anything here
    c.types = size("type_vocab_size", 0, 0);
    c.norm_eps = positive("norm_eps", values_.find("norm_eps"), 1e-5);
    if (!fits_float(c.norm_eps)) refuse("norm_eps", Json{c.norm_eps}, kFloatRange);
    c.norm_bias = flag("norm_bias"), c.attention_bias = flag("attention_bias"), c.mlp_bias = flag("mlp_bias");
    c.activation = activation();
    if (c.hidden % c.heads || c.hidden / c.heads % 2)
      refuse("hidden_size is " + std::to_string(c.hidden) + " with num_attention_heads " + std::to_string(c.heads) +
             "; hidden_size must be a multiple of it with an even head size");
    check_head_dim(c.hidden / c.heads);
    for (const bool all : full)
      c.layers.push_back({all ? kAllVisible : static_cast<std::int64_t>(window), all ? full_theta : sliding_theta});
    return c;
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const { throw FormatError(file_, message); }
  [[noreturn]] void refuse(const std::string& name, const Json& value, const std::string& right) const {
    refuse(name + " is " + value.shown() + "; " + right);
  }

  [[noreturn]] void too_large(const char* name, std::uint64_t most) const {
    throw FormatError(file_, name, kNoOffset, "is " + values_.find(name)->shown() + "; at most " + std::to_string(most));
  }

  const JsonInteger* integer_at(const char* name) const {
    const Json* value = values_.find(name);
    return value ? value->get<JsonInteger>() : nullptr;
  }
  // The value of a key; null when it is absent, or null in the file.
  const Json* given(const char* name) const {
    const Json* value = values_.find(name);
    return value && !value->is_null() ? value : nullptr;
  }

  std::uint64_t size(const char* name, std::uint64_t otherwise, std::uint64_t least = 1) const {
    const Json* value = values_.find(name);
    if (!value) return otherwise;
    const JsonInteger* n = value->get<JsonInteger>();
    if (!n) refuse(name, *value, "it must be an integer");
    if ((n->negative && n->magnitude) || n->magnitude < least)
      refuse(name, *value, "it must be at least " + std::to_string(least));
    return n->magnitude;
  }

  double positive(const std::string& name, const Json* value, double otherwise) const {
    if (!value) return otherwise;
    const JsonInteger* n = value->get<JsonInteger>();
    const double* x = value->get<double>();
    if (!n && !x) refuse(name, *value, "it must be a number");
    const double number = x ? *x : (n->negative ? -1.0 : 1.0) * static_cast<double>(n->magnitude);
    if (!(std::isfinite(number) && number > 0.0)) refuse(name, Json{number}, "it must be positive and finite");
    return number;
  }

  bool flag(const char* name) const {
    const Json* value = values_.find(name);
    if (!value) return false;
    const bool* on = value->get<bool>();
    if (!on) refuse(name, *value, "it must be true or false");
    return *on;
  }

  Activation activation() const {
    const Json* value = values_.find("hidden_activation");
    Activation found = Activation::gelu;
    if (!value) return found;
    const std::string* name = value->get<std::string>();
    if (!name || !named_activation(*name, found))
      refuse("hidden_activation", *value, "supported: " + activation_names());
    return found;
  }

  // Whether layer i sees everything: layer_types, else every n-th layer.
  std::vector<bool> full_layers() const {
    const std::uint64_t layers = size("num_hidden_layers", 22);
    std::vector<bool> full;
    if (const Json* types = given("layer_types")) {
      const Json::List* list = types->get<Json::List>();
      if (!list) refuse("layer_types", *types, "it must be a list");
      if (list->empty()) refuse("layer_types is empty; leave it out for the default schedule");
      for (const Json& item : *list) {
        const std::string* name = item.get<std::string>();
        if (!name || (*name != kFull && *name != kSliding))
          refuse("layer_types holds " + item.shown() + "; supported: " + kFull + ", " + kSliding);
        full.push_back(*name == kFull);
      }
      if (full.size() != layers)
        refuse("layer_types has " + std::to_string(full.size()) + " entries for num_hidden_layers " +
               std::to_string(layers));
      return full;
    }
    constexpr const char* kEvery = "global_attn_every_n_layers";
    const std::uint64_t every = given(kEvery) ? size(kEvery, 3) : 3;
    for (std::uint64_t i = 0; i < layers; ++i) full.push_back(i % every == 0);
    return full;
  }

  // rope_parameters, over rope_scaling for both, over the keys of v4.
  double theta(const std::string& type) const {
    static const Json nothing;
    const auto or_nothing = [](const Json* value) -> const Json& { return value && !falsy(*value) ? *value : nothing; };
    const Json& rope = or_nothing(values_.find("rope_parameters"));
    const Json& scaling = or_nothing(values_.find("rope_scaling"));
    const Json::Object* types = rope.get<Json::Object>();
    const bool known = types && std::all_of(types->begin(), types->end(), [](const JsonMember& member) {
      return member.key == kFull || member.key == kSliding;
    });
    if (!rope.is_null() && !known)
      refuse("rope_parameters", rope, std::string("it maps '") + kFull + "' and '" + kSliding + "' to objects");
    const Json& of_type = or_nothing(rope.find(type));
    if (!scaling.is_null() && !scaling.get<Json::Object>()) refuse("rope_scaling", scaling, "it must be an object");
    if (!of_type.is_null() && !of_type.get<Json::Object>())
      refuse("rope_parameters of " + type + " hold " + of_type.shown() + "; it must be an object");
    Json::Object own;  // of the type, over what holds for both
    for (const Json* part : {&scaling, &of_type}) {
      if (part->is_null()) continue;
      for (const JsonMember& member : *part->get<Json::Object>()) {
        const auto same = std::find_if(own.begin(), own.end(), [&](const JsonMember& m) { return m.key == member.key; });
        if (same == own.end()) own.push_back(member);
        else same->value = member.value;
      }
    }
    const auto taken = [&](const char* key) {
      const auto found = std::find_if(own.begin(), own.end(), [&](const JsonMember& m) { return m.key == key; });
      std::optional<Json> value;
      if (found != own.end()) value = std::move(found->value), own.erase(found);
      return value;
    };
    const std::optional<Json> older = taken("type"), newer = taken("rope_type"), base = taken("rope_theta");
    const std::optional<Json>& kind = newer ? newer : older;
    const std::string* name = kind ? kind->get<std::string>() : nullptr;
    if ((kind && (!name || *name != "default")) || !own.empty())
      refuse("rope_parameters of " + type + " hold rope_type " + (kind ? kind->shown() : "'default'") +
             (own.empty() ? "" : " and " + Json{own}.shown()) + "; only rope_type 'default' with rope_theta is supported");
    if (base && !base->is_null()) return positive(type == kFull ? "global_rope_theta" : "local_rope_theta", &*base, 0.0);
    const double global = positive("global_rope_theta", given("global_rope_theta"), 160000.0);
    const Json* local = values_.find("local_rope_theta");
    if (type == kFull || (local && local->is_null())) return global;  // v4: null means the global theta
    return positive("local_rope_theta", local, 10000.0);
  }

  // From the total, local_attention; sliding_window is the half.
  std::uint64_t half_window() const {
    const bool has_total = values_.find("local_attention");
    const std::uint64_t total = size("local_attention", 128, 0);
    if (const Json* value = given("sliding_window")) {
      const std::uint64_t half = size("sliding_window", 0, 0);
      if (has_total && total / 2 != half)
        refuse("sliding_window is " + value->shown() + " (half) but local_attention is " + std::to_string(total) +
               " (total)");
      return std::min(half, kMaxWindow);
    }
    return std::min(total / 2, kMaxWindow);
  }

  void check_head_dim(std::uint64_t right) const {
    const Json* value = given("head_dim");
    if (!value) return;
    const JsonInteger* n = value->get<JsonInteger>();
    const double* x = value->get<double>();
    const bool equal = n ? !n->negative && n->magnitude == right : x && *x == static_cast<double>(right);
    if (!equal)
      refuse("head_dim", *value, "it must be hidden_size / num_attention_heads");
  }

  const Json& values_;
  const std::string& file_;
};

}  // namespace

Config config_of(const Json& values, const std::string& file) { return Reader(values, file).read(); }

bool fits_float(double value) { return std::isnormal(static_cast<float>(value)); }

std::vector<std::pair<std::string, Shape>> encoder_shapes(const Config& c) {
  std::vector<std::pair<std::string, Shape>> out;
  const auto linear = [&](const std::string& name, std::uint64_t n, std::uint64_t k, bool bias) {
    out.push_back({name + ".weight", {n, k}});
    if (bias) out.push_back({name + ".bias", {n}});
  };
  const auto norm = [&](const std::string& name) {
    out.push_back({name + ".weight", {c.hidden}});
    if (c.norm_bias) out.push_back({name + ".bias", {c.hidden}});
  };
  linear("embeddings.tok_embeddings", c.vocab, c.hidden, false);
  if (c.types) linear("embeddings.token_type_embeddings", c.types, c.hidden, false);
  norm("embeddings.norm");
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    if (i) norm(at + "attn_norm");
    linear(at + "attn.Wqkv", 3 * c.hidden, c.hidden, c.attention_bias);
    linear(at + "attn.Wo", c.hidden, c.hidden, c.attention_bias);
    norm(at + "mlp_norm");
    linear(at + "mlp.Wi", 2 * c.inter, c.hidden, c.mlp_bias);
    linear(at + "mlp.Wo", c.hidden, c.inter, c.mlp_bias);
  }
  norm("final_norm");
  return out;
}

}  // namespace refimpl
