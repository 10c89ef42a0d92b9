// What a caller describes a model by: sizes, tensors and modules, each checked and named where it is wrong.
#include "abi/given.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <sstream>
#include <system_error>
#include <utility>

#include "files/folder.h"
#include "kernels/activations.h"

namespace refimpl {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 31;
constexpr std::int64_t kMaxLayers = 1000;
// As good as no window, and far from overflow.
constexpr std::int64_t kMaxWindow = std::int64_t{1} << 40;
using ModuleKind = ModulePlan::Kind;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 31;
constexpr std::size_t kMaxModules = 1000;
constexpr const char* kNames[] = {"Pooling", "Dense", "LayerNorm", "Normalize"};  // as ModuleKind
static_assert(static_cast<int>(ModuleKind::dense) == MODERNBERT_DENSE && static_cast<int>(ModuleKind::normalize) == MODERNBERT_NORMALIZE);

// The prefix of a module's tensors; "" where it has none. place: from 1.
std::string prefix_of(const ModulePlan& module, std::size_t place) {
  const std::string name = std::to_string(place) + "_" + kNames[static_cast<int>(module.kind)];
  return module.kind == ModuleKind::dense ? name + ".linear." : module.kind == ModuleKind::layer_norm ? name + ".norm." : "";
}

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

std::uint64_t size_of(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least || value > most)
    refuse(std::string("config->") + name + " is " + std::to_string(value) + "; it must be in " +
           std::to_string(least) + " .. " + std::to_string(most));
  return static_cast<std::uint64_t>(value);
}

double positive(const std::string& name, double value) {
  if (std::isfinite(value) && value > 0.0) return value;
  refuse("config->" + name + " is " + shown(value) + "; it must be positive and finite");
}

unsigned kept_of(const modernbert_config& given, std::size_t layer) {
  const unsigned kept = given.kept ? given.kept[layer] : 0;
  const std::string it = "config->kept[" + std::to_string(layer) + "] is " + std::to_string(kept);
  if (kept > 255) refuse(it + "; it must be in 0 .. 255");
  if (kept & kept >> 4) refuse(it + ": a matrix is kept in bfloat16 or in float32, not in both");
  return kept;
}

struct GivenClassifier {
  std::size_t labels;  // 0: there is none
  bool mean;
  Activation activation;
};

// The caller's classifier, and the shapes of its tensors.
GivenClassifier classifier_given(const modernbert_config& given, std::map<std::string, Shape>& shapes) {
  constexpr std::int64_t kMaxLabels = 10'000'000;
  GivenClassifier out{size_of("labels", given.labels, 0, kMaxLabels), false, Activation::gelu};
  if (!out.labels) return out;
  const std::string pooling = given.classifier_pooling ? given.classifier_pooling : "cls";
  if (pooling != "cls" && pooling != "mean")
    refuse("config->classifier_pooling is '" + pooling + "'; supported: cls, mean");
  out.mean = pooling == "mean";
  if (given.classifier_activation && !named_activation(given.classifier_activation, out.activation))
    refuse(std::string("config->classifier_activation is '") + given.classifier_activation + "'; supported: " +
           activation_names());
  const auto hidden = static_cast<std::uint64_t>(given.hidden);
  shapes["head.dense.weight"] = {hidden, hidden}, shapes["classifier.weight"] = {out.labels, hidden};
  shapes["head.dense.bias"] = shapes["head.norm.weight"] = shapes["head.norm.bias"] = {hidden};
  shapes["classifier.bias"] = {out.labels};
  return out;
}

// What a tensor has instead of `wanted`; its shape is read where it has as many axes.
std::string given_shape(const modernbert_tensor& t, const Shape& wanted) {
  if (t.rank < 0 || static_cast<std::size_t>(t.rank) != wanted.size()) return "its rank is " + std::to_string(t.rank);
  if (!t.shape) return "its shape is NULL";
  std::string text;
  for (int i = 0; i < t.rank; ++i) text += (i ? ", " : "") + std::to_string(t.shape[i]);
  return "[" + text + "]";
}

// Rows of a tensor in the caller's file, whose descriptor may be closed then. Unreadable: the system's
// fault, or the file's.
RowSource rows_in(const modernbert_file& given, const std::string& shown, const Shape& shape, Storage storage) {
  const std::string place = shown + " is to stand in descriptor " + std::to_string(given.descriptor) + " from byte " +
                            std::to_string(given.offset) + " on: ";
  if (given.offset < 0) refuse(place + "that must be at least 0");
  auto file = std::make_shared<OpenFile>();
  struct stat facts;
  if (const int error = file->take(fcntl(given.descriptor, F_DUPFD_CLOEXEC, 0), facts)) {
    if (error == EBADF) refuse(place + "that is not open");
    throw Unreadable(place + std::generic_category().message(error));
  }
  char byte;
  if (!S_ISREG(facts.st_mode) || pread(file->descriptor(), &byte, 1, 0) < 0)
    refuse(place + "that is no file, or not open for reading");
  const std::uint64_t bytes = shape[0] * shape[1] * size_of(storage);
  if (given.offset > facts.st_size || static_cast<std::uint64_t>(facts.st_size - given.offset) < bytes)
    throw Unreadable(place + "its " + std::to_string(bytes) + " bytes do not fit into the file's " +
                     std::to_string(facts.st_size));
  return {std::move(file), static_cast<std::uint64_t>(given.offset), storage, shape[1]};
}

// The caller's tensors by name: each of the model's, of its shape, once; the embedding apart.
Tensors tensors_of(const Config& config, const std::map<std::string, Shape>& shapes, const modernbert_tensor* given,
                   std::size_t count, RowSource& embedding) {
  Tensors out;
  if (count) not_null(given, "tensors");
  for (std::size_t i = 0; i < count; ++i) {
    const modernbert_tensor& t = given[i];
    const std::string name = &not_null(t.name, "a tensor's name"), shown = "tensor '" + FormatError::shown(name) + "'";
    const auto shape = shapes.find(name);
    if (shape == shapes.end()) refuse(shown + " belongs to no part of the model");
    if (t.rank < 0 || static_cast<std::size_t>(t.rank) != shape->second.size() || !t.shape ||
        !std::equal(shape->second.begin(), shape->second.end(), t.shape,
                    [](std::uint64_t n, std::int64_t m) { return m >= 0 && n == static_cast<std::uint64_t>(m); }))
      refuse(shown + " has another shape than " + shape_text(shape->second) + ": " + given_shape(t, shape->second));
    const bool half = t.storage == MODERNBERT_BFLOAT16 || t.storage == MODERNBERT_FLOAT16;
    if (!half && t.storage != MODERNBERT_FLOAT32)
      refuse(shown + " has the storage " + std::to_string(static_cast<int>(t.storage)) +
             "; it must be a modernbert_storage");
    if (!t.data == !t.file) refuse(shown + (t.data ? " has both data and a file" : " has no data"));
    if (t.file && name != kEmbedding) refuse(shown + " has a file; the token embedding alone is read from one");
    if (reinterpret_cast<std::uintptr_t>(t.data) % (half ? 2 : 4)) refuse(shown + " is not aligned as its elements");
    const Storage storage = t.storage == MODERNBERT_BFLOAT16  ? Storage::bfloat16
                            : t.storage == MODERNBERT_FLOAT16 ? Storage::float16
                                                              : Storage::float32;
    if (!out.emplace(name, Tensor{t.data, storage}).second) refuse(shown + " is given twice");
    if (name == kEmbedding)
      embedding = t.file ? rows_in(*t.file, shown, shape->second, storage) : RowSource({t.data, storage}, config.hidden);
  }
  for (const auto& [name, shape] : shapes)
    if (name.compare(name.size() - 5, 5, ".bias") != 0 && !out.count(name)) refuse("tensor '" + name + "' is missing");
  return out;
}

// The caller's modules, and the shapes of their tensors by name, as modernbert_module has them.
Modules modules_given(const modernbert_config& config, std::map<std::string, Shape>& shapes) {
  Modules out;
  if (config.module_count) not_null(config.modules, "config->modules");
  if (config.module_count > kMaxModules) refuse("config->module_count is " + std::to_string(config.module_count));
  std::uint64_t width = static_cast<std::uint64_t>(config.hidden);
  for (std::size_t i = 0; i < config.module_count; ++i) {
    const modernbert_module& given = config.modules[i];
    const std::string shown = "config->modules[" + std::to_string(i) + "]";
    if (given.kind < MODERNBERT_POOLING || given.kind > MODERNBERT_NORMALIZE)
      refuse(shown + ".kind is " + std::to_string(given.kind) + "; it must be a modernbert_module_kind");
    if ((i == 0) != (given.kind == MODERNBERT_POOLING)) refuse(shown + ": the first, and no other, must be a Pooling");
    ModulePlan module{static_cast<ModuleKind>(given.kind)};
    if (module.kind == ModuleKind::pooling) {
      std::istringstream names(&not_null(given.modes, (shown + ".modes").c_str()));
      for (std::string name; names >> name;) {
        module.modes.emplace_back();
        if (!named_pooling(name, module.modes.back()))
          refuse(shown + ".modes has '" + name + "'; supported: " + pooling_names());
      }
      if (module.modes.empty() || module.modes.size() > kMaxModules)
        refuse(shown + ".modes names " + std::to_string(module.modes.size()) + " poolings");
      module.include_prompt = !given.prompt_left_out;
      width *= module.modes.size();
    }
    const std::string prefix = prefix_of(module, i + 1);
    if (module.kind == ModuleKind::dense) {
      if (given.width < 1 || given.width > kMaxWidth || static_cast<std::uint64_t>(given.width) > kMaxElements / width)
        refuse(shown + ".width is " + std::to_string(given.width) + "; it must be at least 1, and fit into memory");
      const std::string activation = given.activation ? given.activation : "linear";
      if (!named_activation(activation, module.activation))
        refuse(shown + ".activation is '" + activation + "'; supported: " + activation_names());
      module.width = static_cast<std::size_t>(given.width);
      shapes[prefix + "weight"] = {module.width, width}, shapes[prefix + "bias"] = {module.width};
      width = module.width;
    } else if (module.kind == ModuleKind::layer_norm) {
      shapes[prefix + "weight"] = shapes[prefix + "bias"] = {width};
    }
    out.push_back(std::move(module));
  }
  return out;
}

// Of the caller's tensors, which are right; a bias may be missing.
void find_tensors(Modules& modules, const std::map<std::string, Tensor>& tensors) {
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const std::string prefix = prefix_of(modules[i], i + 1);
    if (prefix.empty()) continue;
    modules[i].weight = tensors.at(prefix + "weight");
    if (const auto bias = tensors.find(prefix + "bias"); bias != tensors.end()) modules[i].bias = bias->second;
  }
}

}  // namespace

Weights weights_of(const Config& config, const RowSource& embedding, const Tensors& tensors) {
  const auto get = [&](const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? Tensor{} : found->second;
  };
  Weights w{embedding,
            get("embeddings.norm.weight"),
            get("embeddings.norm.bias"),
            get("embeddings.token_type_embeddings.weight"),
            get("final_norm.weight"),
            get("final_norm.bias"),
            {}};
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    w.layers.push_back({get(at + "attn_norm.weight"), get(at + "attn_norm.bias"), get(at + "attn.Wqkv.weight"),
                        get(at + "attn.Wqkv.bias"), get(at + "attn.Wo.weight"), get(at + "attn.Wo.bias"),
                        get(at + "mlp_norm.weight"), get(at + "mlp_norm.bias"), get(at + "mlp.Wi.weight"),
                        get(at + "mlp.Wi.bias"), get(at + "mlp.Wo.weight"), get(at + "mlp.Wo.bias")});
  }
  return w;
}

Plan plan_of(const Config& c) {
  Plan plan{c.vocab, c.hidden, c.inter, c.heads, static_cast<float>(c.norm_eps), c.activation, {}};
  for (const LayerConfig& layer : c.layers)
    plan.layers.push_back({static_cast<std::ptrdiff_t>(layer.window), layer.theta, layer.kept});
  plan.types = c.types;
  return plan;
}

Config config_given(const modernbert_config& given) {
  Config c{};
  c.vocab = size_of("vocab", given.vocab, 1, kMaxSize), c.hidden = size_of("hidden", given.hidden, 1, kMaxSize);
  c.inter = size_of("inter", given.inter, 1, kMaxSize), c.heads = size_of("heads", given.heads, 1, kMaxSize);
  c.types = size_of("types", given.types, 0, kMaxSize);
  const std::size_t layers = size_of("layers", given.layers, 0, kMaxLayers);
  c.norm_eps = positive("norm_eps", given.norm_eps);
  if (!fits_float(c.norm_eps)) refuse("config->norm_eps is " + shown(c.norm_eps) + "; " + kFloatRange);
  c.norm_bias = c.attention_bias = c.mlp_bias = true;  // where they are given
  if (given.activation && !named_activation(given.activation, c.activation))
    refuse(std::string("config->activation is '") + given.activation + "'; supported: " + activation_names());
  if (c.hidden % c.heads || c.hidden / c.heads % 2)
    refuse("config->hidden is " + std::to_string(c.hidden) + " with " + std::to_string(c.heads) +
           " heads; it must be a multiple of them with an even head size");
  if (std::max({c.vocab, 3 * c.hidden, 2 * c.inter, c.types}) > kMaxElements / c.hidden)
    refuse("config describes matrices that are larger than any memory");
  if (layers) not_null(given.windows, "config->windows"), not_null(given.thetas, "config->thetas");
  for (std::size_t i = 0; i < layers; ++i)
    c.layers.push_back({given.windows[i] < 0 ? kAllVisible : std::min(given.windows[i], kMaxWindow),
                        positive("thetas[" + std::to_string(i) + "]", given.thetas[i]), kept_of(given, i)});
  return c;
}

Modules classifier_modules(bool mean, Activation activation, float eps, std::size_t hidden, std::size_t labels,
                           const std::map<std::string, Tensor>& tensors) {
  const auto tensor = [&](const char* name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? Tensor{} : found->second;
  };
  ModulePlan pooling{ModuleKind::pooling}, dense{ModuleKind::dense}, norm{ModuleKind::layer_norm}, last{ModuleKind::dense};
  pooling.modes = {mean ? Pooling::mean : Pooling::first};
  dense.width = hidden, dense.activation = activation;
  dense.weight = tensor("head.dense.weight"), dense.bias = tensor("head.dense.bias");
  norm.eps = eps, norm.weight = tensor("head.norm.weight"), norm.bias = tensor("head.norm.bias");
  last.width = labels, last.weight = tensor("classifier.weight"), last.bias = tensor("classifier.bias");
  return {pooling, dense, norm, last};
}

Given model_given(const modernbert_config& config, const modernbert_tensor* tensors, std::size_t count) {
  Given out{config_given(config), {}, {}, {}, {}};
  const auto encoder = encoder_shapes(out.config);
  std::map<std::string, Shape> shapes(encoder.begin(), encoder.end());
  out.modules = modules_given(config, shapes);
  const GivenClassifier classifier = classifier_given(config, shapes);
  out.tensors = tensors_of(out.config, shapes, tensors, count, out.embedding);
  find_tensors(out.modules, out.tensors);
  if (classifier.labels)
    out.classifier = classifier_modules(classifier.mean, classifier.activation, static_cast<float>(out.config.norm_eps),
                                        out.config.hidden, classifier.labels, out.tensors);
  return out;
}

}  // namespace refimpl
