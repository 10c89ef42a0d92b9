// libFuzzer: bytes as a model folder. The first byte says what they are: config.json, the header of
// model.safetensors, the whole file, its index, a json text by itself, modules.json, or the config.json or
// weights of a Dense. Beside them stands a right
// folder of one small layer, so that what is read right goes on to be packed.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "files/format_error.h"
#include "files/json.h"
#include "fuzz/small_model.h"
#include "modernbert.h"

namespace {

const std::string& place() {
  static const std::string path = [] {
    // In memory where there is such a place: a disk would take most of the time.
    std::string name = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    name += "/modernbert-fuzz-XXXXXX";
    if (!mkdtemp(name.data())) std::abort();
    return name;
  }();
  return path;
}

void write(const std::string& name, const std::string& content) {
  std::FILE* file = std::fopen((place() + "/" + name).c_str(), "wb");
  if (!file || std::fwrite(content.data(), 1, content.size(), file) != content.size()) std::abort();
  std::fclose(file);
}

void open_folder() {
  modernbert_options options{};
  options.struct_size = sizeof options, options.threads = 1, options.tier_cap = "scalar";
  modernbert_model* model = nullptr;
  const int status = modernbert_open(place().c_str(), &options, &model);
  if (status == MODERNBERT_INTERNAL || (status == MODERNBERT_OK) != (model != nullptr)) std::abort();
  if (status != MODERNBERT_OK) {
    if (!*modernbert_last_error()) std::abort();
    return;
  }
  modernbert_facts facts{};
  facts.struct_size = sizeof facts;
  if (modernbert_model_facts(model, &facts) != MODERNBERT_OK || facts.hidden < 2) std::abort();
  modernbert_close(model);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (!size) return 0;
  const std::string content(data + 1, data + size);
  const std::string index = place() + "/model.safetensors.index.json";
  unlink(index.c_str()), unlink((place() + "/modules.json").c_str());
  write("config.json", small::kConfig);
  write("model.safetensors", small::weights());
  constexpr unsigned kModules = 5, kDense = 6, kDenseWeights = 7;
  const unsigned kind = data[0] % 8u;
  if (kind >= kModules) {
    mkdir((place() + "/1").c_str(), 0700), mkdir((place() + "/2").c_str(), 0700);
    write("1/config.json", R"({"embedding_dimension": 2})");
    write("2/config.json", kind == kDense ? content : R"({"in_features": 2, "out_features": 1, "bias": false})");
    const std::string header = R"({"linear.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
    write("2/model.safetensors", kind == kDenseWeights ? content : small::file(header, std::string(8, '\0')));
    write("modules.json", kind == kModules ? content
                                           : R"([{"type":"sentence_transformers.models.Transformer","path":""},)"
                                             R"({"type":"sentence_transformers.models.Pooling","path":"1"},)"
                                             R"({"type":"sentence_transformers.models.Dense","path":"2"},)"
                                             R"({"type":"sentence_transformers.models.Normalize","path":"3"}])");
    open_folder();
    return 0;
  }
  switch (kind) {
    case 0: write("config.json", content); break;
    case 1: write("model.safetensors", small::file(content, small::data())); break;
    case 2: write("model.safetensors", content); break;
    case 3:
      rename((place() + "/model.safetensors").c_str(), (place() + "/a.safetensors").c_str());
      write("model.safetensors.index.json", content);
      break;
    default:
      try {
        refimpl::parse_json(data + 1, size - 1, "text");
      } catch (const refimpl::FormatError&) {
      }
      return 0;
  }
  open_folder();
  return 0;
}
