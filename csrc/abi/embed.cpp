// One vector a sequence: the modules behind an encoder, from a folder or from memory, and their pass.
#include <algorithm>
#include <cstdint>
#include <sstream>

#include "abi/model.h"
#include "engine/scores.h"
#include "kernels/activations.h"

namespace refimpl {
namespace {

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

Tensor tensor_of(const std::vector<float>& values) { return {values.empty() ? nullptr : values.data(), Storage::float32}; }

}  // namespace

Modules modules_in(const SentenceFolder& sentence) {
  Modules out;
  for (const SentenceModule& m : sentence.modules)
    out.push_back({static_cast<ModuleKind>(m.kind), m.modes, m.include_prompt, static_cast<std::size_t>(m.width_out),
                   m.activation, tensor_of(m.weight), tensor_of(m.bias)});
  return out;
}

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

void find_tensors(Modules& modules, const std::map<std::string, Tensor>& tensors) {
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const std::string prefix = prefix_of(modules[i], i + 1);
    if (prefix.empty()) continue;
    modules[i].weight = tensors.at(prefix + "weight");
    if (const auto bias = tensors.find(prefix + "bias"); bias != tensors.end()) modules[i].bias = bias->second;
  }
}

void attach(modernbert_model& model, const Modules& modules, std::size_t kept, bool scores) {
  static const Modules mean = {{ModuleKind::pooling, {Pooling::mean}}};
  model.head = std::make_unique<SentenceHead>(kernels_named(model.choice.tier, "float32"), model.engine->plan.hidden,
                                              modules.empty() ? mean : modules, model.threads);
  model.modules = modules.size(), model.scores = scores;
  model.width = kept ? std::min(kept, model.head->width()) : model.head->width();
  if (!modules.empty() && modules.back().kind == ModuleKind::dense) model.labels = model.head->width();
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

void attach_classifier(modernbert_model& model, const Modules& modules) {
  model.classifier = std::make_unique<SentenceHead>(kernels_named(model.choice.tier, "float32"),
                                                    model.engine->plan.hidden, modules, model.threads);
  model.labels = model.classifier->width();
}

void check_embeds(const modernbert_model& model) {
  if (!model.head)
    refuse("the folder's config.json has a refimpl_head, which is not read here; its vectors are no mean of hidden "
           "states");
}

void embed(const modernbert_model& model, const Batch& batch, const modernbert_run& how, std::size_t width,
           bool normalize, std::size_t prompt_tokens, float* out) {
  const SentenceHead& head = *model.head;
  Memory hidden(batch.cu_seqlens.back() * model.engine->plan.hidden * sizeof(float));
  forward(model, batch, how, hidden.floats());
  const Floats vectors = head.run(batch, hidden.floats(), prompt_tokens, how.threads);
  const std::size_t sequences = batch.cu_seqlens.size() - 1;
  for (std::size_t s = 0; s < sequences; ++s) std::copy_n(vectors.data() + s * head.width(), width, out + s * width);
  if (normalize) SentenceHead::normalize(sequences, width, out);
}

void logits(const modernbert_model& model, const Batch& batch, const modernbert_run& how, float* out) {
  const SentenceHead& head = model.classifier ? *model.classifier : *model.head;
  Memory hidden(batch.cu_seqlens.back() * model.engine->plan.hidden * sizeof(float));
  forward(model, batch, how, hidden.floats());
  const Floats found = head.run(batch, hidden.floats(), 0, how.threads);
  std::copy(found.begin(), found.end(), out);
}

}  // namespace refimpl

using namespace refimpl;

extern "C" int modernbert_embed(const modernbert_model* model, const modernbert_input* input,
                                const modernbert_embedding* embedding, const modernbert_run* run, float* out,
                                size_t out_count) {
  return guarded([&] {
    const modernbert_run how = run_of(not_null(model, "model"), run);
    check_embeds(*model);
    modernbert_embedding wanted{};
    if (embedding) wanted = sized(embedding, "embedding");
    const SentenceHead& head = *model->head;
    if (wanted.width < 0 || static_cast<std::uint64_t>(wanted.width) > head.width())
      refuse("embedding->width is " + std::to_string(wanted.width) + "; it must be in 1 .. " +
             std::to_string(head.width()) + ", or 0 for the default");
    if (wanted.prompt_tokens < 0)
      refuse("embedding->prompt_tokens is " + std::to_string(wanted.prompt_tokens) + "; it must be at least 0");
    const std::size_t width = wanted.width ? static_cast<std::size_t>(wanted.width) : model->width;
    total_of(model->engine->plan, sized(input, "input"));
    const std::size_t sequences = static_cast<std::size_t>(input->sequences);
    if (sequences > kMaxElements / head.width()) refuse("vectors of so many sequences are larger than any memory");
    check_out(out, out_count, "sequences", sequences, width);

    embed(*model, batch_of(model->engine->plan, *input), how, width, wanted.normalize != 0,
          static_cast<std::size_t>(wanted.prompt_tokens), out);
  });
}

extern "C" int modernbert_logits(const modernbert_model* model, const modernbert_input* input,
                                 const modernbert_run* run, float* out, size_t out_count) {
  return guarded([&] {
    const modernbert_run how = run_of(not_null(model, "model"), run);
    if (!model->labels) refuse("the model has " + model->head_words + ", and gives no logits of sequences");
    total_of(model->engine->plan, sized(input, "input"));
    const std::size_t sequences = static_cast<std::size_t>(input->sequences);
    if (sequences > kMaxElements / model->labels) refuse("logits of so many sequences are larger than any memory");
    check_out(out, out_count, "sequences", sequences, model->labels);
    logits(*model, batch_of(model->engine->plan, *input), how, out);
  });
}

extern "C" int modernbert_scores(const char* function, size_t rows, size_t columns, const float* logits, float* out) {
  return guarded([&] {
    const std::string name = &not_null(function, "function");
    Activation found = Activation::linear;
    if (name != "none" && name != "softmax" && !named_activation(name, found))
      refuse("function is '" + name + "'; supported: none, softmax, " + activation_names());
    if (!rows || !columns) return;
    if (rows > kMaxElements / columns) refuse("so many scores are larger than any memory");
    not_null(logits, "logits"), not_null(out, "out");
    if (name == "softmax")
      softmax(rows, columns, logits, out);
    else
      activate(found, rows * columns, logits, out);
  });
}
