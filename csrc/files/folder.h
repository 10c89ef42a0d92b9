// A model folder in the Hugging Face layout: config.json and the encoder's tensors.
//
// model.safetensors, or shards and their index; names with or without `model.`, and the original
// training code's; root: the Transformer's, in a sentence-transformers folder. A tensor that is
// missing, extra, misshapen or not finite is a FormatError with file and key; a sequence classifier's
// are read too, tensors of other heads may lie beside the encoder's and are not. Refuses what
// refimpl/files/checkpoint.py refuses.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "files/classifier.h"
#include "files/config.h"
#include "files/folder_files.h"
#include "files/safetensors.h"

namespace refimpl {

// A tensor of the encoder: in its file, to be fetched anew, or in memory where the file's is float64 or (but for the token
// embedding) misaligned: widened.
struct Param {
  FileTensor tensor;
  std::vector<float> copy;  // empty when the file's own bytes serve; else float32

  const void* data() const { return copy.empty() ? static_cast<const void*>(tensor.data()) : copy.data(); }
};

struct ModelFolder {
  Config config;
  std::vector<std::unique_ptr<Safetensors>> files;  // which the tensors stand in
  std::map<std::string, Param> params;              // by the names of encoder_shapes and classifier_shapes
  std::optional<Classifier> classifier;
};

constexpr const char* kEmbedding = "embeddings.tok_embeddings.weight";

// Whether the values of these files were checked before, and the matrices of the layers will not be read.
using Vouched = std::function<bool(const Config& config, const std::vector<std::unique_ptr<Safetensors>>& files)>;

// Reads and checks everything, values unless they are vouched for; what the check looked at is given back, and has
// to be fetched to be packed. named: whether config.json names the head, not modules.json.
ModelFolder read_folder(FolderFiles& files, const std::string& root, bool named, const Vouched& vouched);

// Whether it is a matrix of a layer, by its name: what a pack holds.
bool is_packed(const std::string& name);

}  // namespace refimpl
