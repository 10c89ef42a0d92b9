// What stands behind the handle of the C interface.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "abi/choice.h"
#include "abi/given.h"
#include "abi/input.h"
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
  // Of a pass whose result is made of them.
  mutable refimpl::Kept<refimpl::Room, (std::size_t{8} << 20)> hidden;
};

namespace refimpl {

// -- open.cpp --

// `given`, where 0 stands for `otherwise`; at most kMaxThreads.
int threads_of(int given, int otherwise);

// -- forward.cpp --

modernbert_run run_of(const modernbert_model& model, const modernbert_run* run);  // with its threads filled in
// Throws Interrupted.
void forward(const modernbert_model& model, const Batch& batch, const modernbert_run& how, float* out);

// -- embed.cpp: what stands behind the encoder --

Modules modules_in(const SentenceFolder& sentence);
// Gives an engine's model its head. kept: values of a vector; 0: all.
void attach(modernbert_model& model, const Modules& modules, std::size_t kept, bool scores);

void attach_classifier(modernbert_model& model, const Modules& modules);

// Vectors of a batch that is right, [sequences, width], of which `width` values are kept.
void embed(const modernbert_model& model, const Batch& batch, const modernbert_run& how, std::size_t width,
           bool normalize, std::size_t prompt_tokens, float* out);
// [sequences, labels]
void logits(const modernbert_model& model, const Batch& batch, const modernbert_run& how, float* out);
// Throws std::invalid_argument where the model gives no vectors, or no logits.
void check_embeds(const modernbert_model& model);

}  // namespace refimpl
