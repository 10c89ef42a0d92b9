// One vector a sequence: the modules behind an encoder, from a folder or from memory, and their pass.
#include <algorithm>
#include <cstdint>

#include "abi/model.h"
#include "engine/scores.h"
#include "kernels/activations.h"

namespace refimpl {
namespace {

Tensor tensor_of(const std::vector<float>& values) { return {values.empty() ? nullptr : values.data(), Storage::float32}; }

// A head's result of the encoder's hidden states, whose room is kept.
Floats behind(const modernbert_model& model, const SentenceHead& head, const Batch& batch, const modernbert_run& how,
              std::size_t prompt_tokens) {
  const decltype(model.hidden)::Use room(model.hidden);
  float* const hidden = room->floats(batch.cu_seqlens.back() * model.engine->plan.hidden);
  forward(model, batch, how, hidden);
  return head.run(batch, hidden, prompt_tokens, how.threads);
}

}  // namespace

Modules modules_in(const SentenceFolder& sentence) {
  Modules out;
  for (const SentenceModule& m : sentence.modules)
    out.push_back({static_cast<ModulePlan::Kind>(m.kind), m.modes, m.include_prompt, static_cast<std::size_t>(m.width_out),
                   m.activation, tensor_of(m.weight), tensor_of(m.bias)});
  return out;
}

void attach(modernbert_model& model, const Modules& modules, std::size_t kept, bool scores) {
  static const Modules mean = {{ModulePlan::Kind::pooling, {Pooling::mean}}};
  model.head = std::make_unique<SentenceHead>(kernels_named(model.choice.tier, "float32"), model.engine->plan.hidden,
                                              modules.empty() ? mean : modules, model.threads);
  model.modules = modules.size(), model.scores = scores;
  model.width = kept ? std::min(kept, model.head->width()) : model.head->width();
  if (!modules.empty() && modules.back().kind == ModulePlan::Kind::dense) model.labels = model.head->width();
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
  const Floats vectors = behind(model, head, batch, how, prompt_tokens);
  const std::size_t sequences = batch.cu_seqlens.size() - 1;
  for (std::size_t s = 0; s < sequences; ++s) std::copy_n(vectors.data() + s * head.width(), width, out + s * width);
  if (normalize) SentenceHead::normalize(sequences, width, out);
}

void logits(const modernbert_model& model, const Batch& batch, const modernbert_run& how, float* out) {
  const Floats found = behind(model, model.classifier ? *model.classifier : *model.head, batch, how, 0);
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
