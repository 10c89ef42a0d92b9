// sentence-transformers folders: the modules behind the Transformer that modules.json names.
//
// Refuses what refimpl/files/sentence_files.py refuses, at the same file and key: a module, an activation
// or a key that changes numbers and is not known is never ignored. Settings of texts (prompts, lengths)
// are checked and, but for truncate_dim, not kept: texts are not this library's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "files/folder_files.h"
#include "kernels/kernels.h"
#include "kernels/pooling.h"

namespace refimpl {

struct SentenceModule {
  enum class Kind { pooling, dense, layer_norm, normalize };
  Kind kind;
  std::string name, folder;        // "2_Dense", and where its files are
  std::vector<Pooling> modes{};    // of a pooling
  bool include_prompt = true;      // of a pooling
  std::int64_t width_in = 0;       // of all but normalize, which takes any
  std::int64_t width_out = 0;      // of a dense
  bool has_bias = false;           // of a dense
  Activation activation = Activation::linear;  // of a dense
  bool scores = false;             // a dense that ends a reranker
  std::vector<float> weight{}, bias{};         // by read_module_weights
};

struct SentenceFolder {
  std::string root{};                     // the Transformer's, where config.json and weights are
  std::string file{};                     // modules.json; "" where there is none
  std::vector<SentenceModule> modules{};  // none: the Transformer stands alone
  std::uint64_t truncate_dim = 0;       // values kept of a vector; 0: all
  bool own_head = false;                // no modules, but a head that config.json describes
};

// All but weights, after the check of config.json. Throws FormatError.
SentenceFolder read_sentence(FolderFiles& files, const std::string& folder);

// The modules' tensors, once it is known that their widths fit an encoder of `hidden`. Throws FormatError.
void read_module_weights(FolderFiles& files, SentenceFolder& sentence, std::uint64_t hidden);

}  // namespace refimpl
