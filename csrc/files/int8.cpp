#include "files/int8.h"

#include <iterator>

#include "files/fetched_file.h"
#include "files/format_error.h"

namespace refimpl {
namespace {

constexpr const char* kMatrices[] = {"attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"};  // as engine.h's Matrix

// False where the model has no such matrix.
bool keep(const std::string& name, Config& config) {
  for (std::size_t i = 0; i < config.layers.size(); ++i)
    for (std::size_t m = 0; m < std::size(kMatrices); ++m)
      if (name == "layers." + std::to_string(i) + "." + kMatrices[m]) {
        config.layers[i].kept |= 1u << m;
        return true;
      }
  return false;
}

}  // namespace

void read_kept(FolderFiles& files, const std::string& root, Config& config) {
  const std::string file = join(root, "int8.json");
  if (!is_file(file)) return;
  const Json* kept = files.json(file, true).find("kept");
  const Json::List* names = kept ? kept->get<Json::List>() : nullptr;
  if (!names) throw FormatError(file, "kept", kNoOffset, "must list matrices");
  for (const Json& name : *names) {
    const std::string* text = name.get<std::string>();
    if (!text || !keep(*text, config))
      throw FormatError(file, "kept", kNoOffset, name.shown() + " is no matrix of this model");
  }
}

}  // namespace refimpl
