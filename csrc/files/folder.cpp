// Folder -> config and tensors: where the files are, what their keys mean, and that all is there.
#include "files/folder.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "base/tensor.h"
#include "files/finite.h"

namespace refimpl {
namespace {

constexpr const char *kWeights = "model.safetensors", *kIndex = "model.safetensors.index.json";
constexpr const char* kDecoder = "decoder.weight";
using Named = std::vector<std::pair<std::string, FileTensor>>;  // in the order of the files

bool starts(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

// -- weight files ---------------------------------------------------------------------------------

std::vector<FileTensor> read_shards(FolderFiles& texts, const std::string& root,
                                    std::vector<std::unique_ptr<Safetensors>>& files) {
  const std::string index = join(root, kIndex);
  if (!is_file(index)) throw FormatError(join(root, kWeights), no_weights(root));
  const Json& content = texts.json(index, true);
  const Json* found = content.find("weight_map");
  const Json::Object* map = found ? found->get<Json::Object>() : nullptr;
  if (!map) throw FormatError(index, "weight_map", kNoOffset, "must map tensors to files");
  std::map<std::string, std::string> places;
  std::set<std::string> shards, seen;
  for (const JsonMember& member : *map) {
    const std::string* shard = member.value.get<std::string>();
    if (!shard || shard->empty() || *shard == "." || *shard == ".." || shard->find('/') != std::string::npos ||
        shard->find('\0') != std::string::npos)
      throw FormatError(index, member.key, kNoOffset, member.value.shown() + " is no file of this folder");
    places[member.key] = *shard, shards.insert(*shard);
  }
  std::vector<FileTensor> out;
  for (const std::string& shard : shards) {
    files.push_back(std::make_unique<Safetensors>(join(root, shard)));
    texts.seen(files.back()->file());
    for (const FileTensor& tensor : files.back()->tensors()) {
      const auto place = places.find(tensor.name);
      if (place == places.end() || place->second != shard)
        throw tensor.error("the index puts this tensor " + (place == places.end() ? "nowhere" : "in " + place->second) +
                           ", but it is here");
      out.push_back(tensor), seen.insert(tensor.name);
    }
  }
  for (const JsonMember& member : *map)
    if (!seen.count(member.key))
      throw FormatError(join(root, places[member.key]), member.key, kNoOffset,
                        "the index names it, the file has it not");
  return out;
}

std::vector<FileTensor> read_weights(FolderFiles& texts, const std::string& root,
                                     std::vector<std::unique_ptr<Safetensors>>& files) {
  const std::string single = join(root, kWeights);
  if (!is_file(single)) return read_shards(texts, root, files);
  files.push_back(std::make_unique<Safetensors>(single));
  texts.seen(files.back()->file());
  return files.back()->tensors();
}

// -- names ----------------------------------------------------------------------------------------

// A wrapper's `model.`, then `bert.`, then `encoder.layers.` of the original training code; before and
// after the first, what torch.compile and data-parallel wrappers add.
std::string plain_name(const std::string& key) {
  std::string name = key;
  const auto strip = [&](const std::string& prefix) {
    const bool there = starts(name, prefix);
    if (there) name.erase(0, prefix.size());
    return there;
  };
  const auto unwrap = [&] {
    while (strip("_orig_mod.") || strip("module.")) {
    }
  };
  unwrap();
  strip("model.");
  unwrap();
  strip("bert.");
  return starts(name, "encoder.layers.") ? name.substr(std::strlen("encoder.")) : name;
}

Named plain_names(const std::vector<FileTensor>& tensors) {
  Named out;
  std::map<std::string, const FileTensor*> seen;
  for (const FileTensor& tensor : tensors) {
    std::string name = plain_name(tensor.name);
    const auto [other, fresh] = seen.emplace(name, &tensor);
    if (!fresh)
      throw tensor.error("this is the tensor " + Json{other->second->name}.shown() + " in another spelling");
    out.emplace_back(std::move(name), tensor);
  }
  return out;
}

// Buffers of older files that are computed, not learned.
bool harmless(std::string name) {
  if (name == "embeddings.position_ids") return true;
  if (starts(name, "layers.")) {
    std::size_t end = std::strlen("layers.");
    const std::size_t digits = end;
    while (end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
    if (end == digits || name.compare(end, 6, ".attn.") != 0) return false;
    name.erase(0, end + 6);
  }
  const std::string first = "rotary_emb.", last = "inv_freq";
  if (!starts(name, first) || name.size() < first.size() + last.size()) return false;
  const std::string middle = name.substr(first.size(), name.size() - first.size() - last.size());
  const bool word = std::all_of(middle.begin(), middle.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  });
  return name.compare(name.size() - last.size(), last.size(), last) == 0 && word &&
         (middle.empty() || (middle.size() > 1 && middle.back() == '_'));
}

// Tensors of a head: those of Hugging Face's, and those of a head that config.json has `described`.
bool of_a_head(const std::string& name, bool described) {
  static const std::set<std::string> known = {"head.dense.weight", "head.dense.bias",   "head.norm.weight",
                                              "head.norm.bias",    "decoder.weight",    "decoder.bias",
                                              "classifier.weight", "classifier.bias"};
  return known.count(name) || (described && starts(name, "nlp_head."));
}

// -- tensors --------------------------------------------------------------------------------------

// As the engine reads it: checked, and copied only where the file's own bytes cannot serve. The token
// embedding's serve at any offset, as its rows are read one by one.
Param param_of(const std::string& name, const FileTensor& tensor, bool vouched) {
  const bool wide = tensor.dtype == "F64";
  if (!wide && tensor.dtype != "F32" && tensor.dtype != "F16" && tensor.dtype != "BF16")
    throw tensor.error("dtype " + tensor.dtype + " holds no floats");
  Param param{tensor, {}};
  if (vouched && (is_packed(name) || (name == kEmbedding && !wide))) return param;
  tensor.fetch();
  const std::size_t count = tensor.count(), width = count ? tensor.bytes / count : 1;
  check_finite(tensor);
  if (wide || (name != kEmbedding && reinterpret_cast<std::uintptr_t>(tensor.data()) % width)) {
    param.copy.resize(count);
    for (std::size_t i = 0; i < count; ++i) param.copy[i] = float_at(tensor.data(), tensor.dtype, i);
  }
  tensor.release();
  return param;
}

}  // namespace

bool is_packed(const std::string& name) {
  const auto ends = [&](const std::string& last) {
    return name.size() >= last.size() && name.compare(name.size() - last.size(), last.size(), last) == 0;
  };
  return starts(name, "layers.") &&
         (ends(".attn.Wqkv.weight") || ends(".attn.Wo.weight") || ends(".mlp.Wi.weight") || ends(".mlp.Wo.weight"));
}

ModelFolder read_folder(FolderFiles& texts, const std::string& root, bool named_there, const Vouched& vouched) {
  const std::string config_file = join(root, "config.json");
  const Json& config = texts.json(config_file, true);
  ModelFolder folder{config_of(config, config_file), {}, {}, named_there ? classifier_of(config) : std::nullopt};
  Named tensors = plain_names(read_weights(texts, root, folder.files));

  const auto named = [&](const char* name) {
    return std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.first == name; });
  };
  // A decoder alone fills the embedding.
  if (named(kEmbedding) == tensors.end() && named(kDecoder) != tensors.end()) named(kDecoder)->first = kEmbedding;

  auto needed = encoder_shapes(folder.config);
  if (folder.classifier)
    for (auto& its : classifier_shapes(folder.config, *folder.classifier)) needed.push_back(std::move(its));
  std::map<std::string, const FileTensor*> found;
  for (const auto& [name, tensor] : tensors) found[name] = &tensor;
  std::vector<FileTensor> there;
  std::vector<std::string> missing;
  for (const auto& n : needed)
    if (!found.count(n.first)) missing.push_back(n.first);
  for (const auto& named_tensor : tensors) there.push_back(named_tensor.second);
  if (!missing.empty()) throw are_missing(join(root, is_file(join(root, kWeights)) ? kWeights : kIndex), missing, there);

  const std::map<std::string, Shape> shapes(needed.begin(), needed.end());
  const bool described = config.find("refimpl_head") != nullptr;
  for (const auto& [name, tensor] : tensors) {
    const auto shape = shapes.find(name);
    if (shape == shapes.end()) {
      if (!harmless(name) && (folder.classifier || !of_a_head(name, described)))
        throw tensor.error(kNoPart);
    } else if (tensor.shape != shape->second) {
      throw tensor.error("its shape is " + shape_text(tensor.shape) + ", not " + shape_text(shape->second));
    }
  }
  const bool known = vouched && vouched(folder.config, folder.files);
  for (const auto& entry : needed)
    folder.params.emplace(entry.first, param_of(entry.first, *found[entry.first], known));
  return folder;
}

}  // namespace refimpl
