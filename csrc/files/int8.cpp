#include "files/int8.h"

#include <iterator>
#include <vector>

#include "base/sha256.h"
#include "files/fetched_file.h"
#include "files/finite.h"
#include "files/format_error.h"

namespace refimpl {
namespace {

constexpr const char* kMatrices[] = {"attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"};  // as engine.h's Matrix
constexpr const char* kKeptIn[] = {"bfloat16", "float32"};                         // as LayerPlan::kept

std::string name_of(std::size_t layer, std::size_t matrix) { return "layers." + std::to_string(layer) + "." + kMatrices[matrix]; }

std::string file_of(const std::string& root) { return join(root, "int8.json"); }

// False where the model has no such matrix.
bool keep(const std::string& name, std::size_t dtype, Config& config) {
  for (std::size_t i = 0; i < config.layers.size(); ++i)
    for (std::size_t m = 0; m < std::size(kMatrices); ++m)
      if (name == name_of(i, m)) {
        config.layers[i].kept |= 1u << (m + dtype * std::size(kMatrices));
        return true;
      }
  return false;
}

// Row i of a matrix in its file, as float32.
std::vector<float> row_of(const FileTensor& tensor, std::uint64_t i) {
  const std::uint64_t bytes = tensor.bytes / tensor.shape[0];
  std::vector<unsigned char> raw(bytes);
  if (!tensor.file->file()->read(tensor.offset + i * bytes, bytes, raw.data())) throw tensor.error("cannot be read");
  std::vector<float> row(tensor.shape[1]);
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = float_at(raw.data(), tensor.dtype, j);
  return row;
}

std::string digest_of(const ModelFolder& model) {
  Sha256 digest;
  for (std::size_t i = 0; i < model.config.layers.size(); ++i)
    for (std::size_t m = 0; m < std::size(kMatrices); ++m) {
      const FileTensor& tensor = model.params.at(name_of(i, m) + ".weight").tensor;
      const std::uint64_t rows = tensor.shape[0];
      const std::string head = name_of(i, m) + " (" + std::to_string(rows) + ", " + std::to_string(tensor.shape[1]) + ")";
      digest.add(head.data(), head.size());
      for (const std::uint64_t at : {std::uint64_t{0}, rows / 2, rows - 1}) {
        const std::vector<float> row = row_of(tensor, at);
        digest.add(row.data(), row.size() * sizeof(float));
      }
    }
  return digest.text();
}

}  // namespace

void read_kept(FolderFiles& files, const std::string& root, Config& config) {
  const std::string file = file_of(root);
  if (!is_file(file)) return;
  const auto refuse = [&](const std::string& what) { return FormatError(file, "kept", kNoOffset, what); };
  const Json* found = files.json(file, true).find("kept");
  const Json::Object* kept = found ? found->get<Json::Object>() : nullptr;
  if (!kept) throw refuse("must map matrices to bfloat16 or float32");
  for (const auto& [name, offset, value] : *kept) {
    const std::string* in = value.get<std::string>();
    const std::size_t dtype = in && *in == kKeptIn[0] ? 0 : in && *in == kKeptIn[1] ? 1 : std::size(kKeptIn);
    if (dtype == std::size(kKeptIn))
      throw refuse(Json{name}.shown() + " is kept in " + value.shown() + ", not in bfloat16 or float32");
    if (!keep(name, dtype, config)) throw refuse(Json{name}.shown() + " is no matrix of this model");
  }
}

Certificate certificate_of(FolderFiles& files, const std::string& root, const ModelFolder& model) {
  const std::string file = file_of(root);
  if (!is_file(file)) return Certificate::none;
  const Json& values = files.json(file, true);
  // The value of a key, which is right where `fits` says so.
  const auto value = [&](const char* key, const char* wanted, auto fits) {
    const Json* found = values.find(key);
    if (!found) throw FormatError(file, key, kNoOffset, "this key is missing");
    if (!fits(*found)) throw FormatError(file, key, kNoOffset, "is " + found->shown() + "; it must be " + wanted);
    return found;
  };
  value("format", "an integer", [](const Json& x) { return x.get<JsonInteger>() != nullptr; });
  value("format", "1", [](const Json& x) { return !x.get<JsonInteger>()->negative && x.get<JsonInteger>()->magnitude == 1; });
  const Json* weights = value("weights", "a string", [](const Json& x) { return x.get<std::string>() != nullptr; });
  return *weights->get<std::string>() == digest_of(model) ? Certificate::of_these_weights : Certificate::of_other_weights;
}

}  // namespace refimpl
