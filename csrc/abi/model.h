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
#include "files/safetensors.h"
#include "files/sentence.h"

struct modernbert_model {
  std::vector<float> embedding;  // [vocab, hidden] where neither the caller's memory nor the file serves
  refimpl::Choice choice;
  int threads;
  std::unique_ptr<refimpl::Engine> engine;
  std::unique_ptr<refimpl::SentenceHead> head;  // null: there is a head that this library does not know
  std::size_t modules = 0, width = 0;           // of the head; values kept of a vector
  bool scores = false;
};

namespace refimpl {

// Beyond any memory; products of sizes below it stay far from overflow.
constexpr std::size_t kMaxElements = std::size_t{1} << 44;

// `given`, where 0 stands for `otherwise`; at most kMaxThreads.
int threads_of(int given, int otherwise);

// -- forward.cpp: what a pass is asked for, checked --

// Tokens; no array but cu_seqlens is looked at.
std::size_t total_of(const modernbert_model& model, const modernbert_input& in);
Batch batch_of(const modernbert_model& model, const modernbert_input& in);
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

}  // namespace refimpl
