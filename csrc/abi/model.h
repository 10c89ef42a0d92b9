// What stands behind the handle of the C interface.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "abi/choice.h"
#include "abi/status.h"
#include "engine/engine.h"
#include "engine/sentence.h"
#include "files/classifier.h"
#include "files/config.h"
#include "files/int8.h"
#include "files/safetensors.h"
#include "files/sentence.h"
#include "text/settings.h"

// What a folder says of texts, of a model that was opened with them.
struct TextSide {
  refimpl::FolderTokenizer tokenizer;
  refimpl::TextSettings settings;
  refimpl::Activation score = refimpl::Activation::linear;  // from a reranker's logits to scores
  bool score_named = false;                                 // by the folder
  std::string score_fault;                                  // why there is none; "" where there is one
};

struct modernbert_model {
  std::vector<float> embedding;  // [vocab, hidden] where neither the caller's memory nor the file serves
  refimpl::Choice choice;
  int threads;
  std::unique_ptr<refimpl::Engine> engine;
  std::unique_ptr<refimpl::SentenceHead> head;  // null: there is a head that this library does not know
  std::size_t modules = 0, width = 0;           // of the head; values kept of a vector
  bool scores = false;
  std::unique_ptr<refimpl::SentenceHead> classifier;  // null: there is none
  std::size_t labels = 0;                             // of modernbert_logits
  std::vector<std::string> label_names;
  std::string problem_type;
  refimpl::Certificate certificate = refimpl::Certificate::none;  // of int8
  std::string folder, head_words = "no head, only an encoder";  // for messages
  std::unique_ptr<TextSide> text;  // null: it was opened without
};

namespace refimpl {

// Beyond any memory; products of sizes below it stay far from overflow.
constexpr std::size_t kMaxElements = std::size_t{1} << 44;

// -- open.cpp: what a model is, checked --

Plan plan_of(const Config& config);
Config config_given(const modernbert_config& given);

// `given`, where 0 stands for `otherwise`; at most kMaxThreads.
int threads_of(int given, int otherwise);

// -- forward.cpp: what a pass is asked for, checked --

// Tokens; no array but cu_seqlens is looked at.
std::size_t total_of(const Plan& plan, const modernbert_input& in);
Batch batch_of(const Plan& plan, const modernbert_input& in);
// That out has room for rows of `columns` floats.
void check_out(const float* out, std::size_t out_count, const char* rows_name, std::size_t rows, std::size_t columns);
modernbert_run run_of(const modernbert_model& model, const modernbert_run* run);  // with its threads filled in
// Throws Interrupted.
void forward(const modernbert_model& model, const Batch& batch, const modernbert_run& how, float* out);

// -- embed.cpp: what stands behind the encoder --

using Modules = std::vector<ModulePlan>;
Modules modules_in(const SentenceFolder& sentence);
// The caller's modules, and the shapes of their tensors by name, as modernbert_module has them.
Modules modules_given(const modernbert_config& config, std::map<std::string, Shape>& shapes);
// Of the caller's tensors, which are right; a bias may be missing.
void find_tensors(Modules& modules, const std::map<std::string, Tensor>& tensors);
// Gives an engine's model its head. kept: values of a vector; 0: all.
void attach(modernbert_model& model, const Modules& modules, std::size_t kept, bool scores);

// A sequence classifier's layers; labels, shapes and tensors as `classifier_shapes` has them, biases may be missing.
Modules classifier_modules(bool mean, Activation activation, float eps, std::size_t hidden, std::size_t labels,
                           const std::map<std::string, Tensor>& tensors);
void attach_classifier(modernbert_model& model, const Modules& modules);

// Vectors of a batch that is right, [sequences, width], of which `width` values are kept.
void embed(const modernbert_model& model, const Batch& batch, const modernbert_run& how, std::size_t width,
           bool normalize, std::size_t prompt_tokens, float* out);
// [sequences, labels]
void logits(const modernbert_model& model, const Batch& batch, const modernbert_run& how, float* out);
// Throws std::invalid_argument where the model gives no vectors, or no logits.
void check_embeds(const modernbert_model& model);

}  // namespace refimpl
