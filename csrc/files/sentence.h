// sentence-transformers folders: the modules behind the Transformer that modules.json names.
//
// Refuses what refimpl/files/sentence_files.py refuses, at the same file and key: a module, an activation
// or a key that changes numbers and is not known is never ignored.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
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

// What a folder says about texts and scores. Lengths in tokens; 0: it does not say.
struct TextSettings {
  std::map<std::string, std::string> prompts{};
  std::optional<std::string> default_prompt_name{};
  std::uint64_t max_seq_length = 0, query_length = 0, document_length = 0;
  bool do_lower_case = false;
  std::optional<std::string> activation_fn{};  // a class of torch, a reranker's
  std::uint64_t truncate_dim = 0;              // values kept of a vector; 0: all
};

struct SentenceFolder {
  std::string root{};                     // the Transformer's, where config.json and weights are
  std::string file{};                     // modules.json; "" where there is none
  std::vector<SentenceModule> modules{};  // none: the Transformer stands alone
  TextSettings settings{};
  bool own_head = false;                // no modules, but a head that config.json describes
};

// All but weights, after the check of config.json; settings where there are modules. Throws FormatError.
SentenceFolder read_sentence(FolderFiles& files, const std::string& folder);

// Settings of a folder with modules.json, whose Transformer is in `root`. Throws FormatError.
TextSettings read_settings(FolderFiles& files, const std::string& folder, const std::string& root);

// A class of torch, where it is or as torch.nn has it; false for any other path.
bool torch_activation(const std::string& path, Activation& found);
std::string torch_activations();  // for messages

// The modules' tensors, once it is known that their widths fit an encoder of `hidden`. Throws FormatError.
void read_module_weights(FolderFiles& files, SentenceFolder& sentence, std::uint64_t hidden);

}  // namespace refimpl
