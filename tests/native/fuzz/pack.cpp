// libFuzzer: a right pack with changes, or any bytes, as the pack of a small model. The first byte says which; changes
// are a place, a count that goes there and bytes that come. What opens must have every byte of every matrix.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "files/pack_file.h"

using namespace refimpl;

namespace {

std::string place() {
  std::string name = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
  name += "/modernbert-fuzz-XXXXXX";
  if (!mkdtemp(name.data())) std::abort();
  return name;
}

void write_file(const std::string& path, const std::string& content) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file || std::fwrite(content.data(), 1, content.size(), file) != content.size()) std::abort();
  std::fclose(file);
  const timespec old[2] = {{1, 0}, {1, 0}};  // a file that was just written is waited for
  if (utimensat(AT_FDCWD, path.c_str(), old, 0)) std::abort();
}

std::string read_file(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) std::abort();
  std::string out;
  for (int c; (c = std::getc(file)) != EOF;) out += static_cast<char>(c);
  std::fclose(file);
  return out;
}

struct Small {
  Small() {
    const std::string header = R"({"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
    std::string source(8, '\0');
    source[0] = static_cast<char>(header.size());
    write_file(folder + "/model.safetensors", source + header + std::string(16, 'x'));
    sources.push_back(std::make_unique<Safetensors>(folder + "/model.safetensors"));
    std::vector<PackedTensor> given = tensors;
    const std::string data(192, 'y');
    for (PackedTensor& t : given) t.data = reinterpret_cast<const std::byte*>(data.data());
    write_pack(path, key, sources, given, [] { return false; });
    right = read_file(path);
    std::string why_not;
    if (!PackFile::open(path, key, sources, tensors, why_not)) std::abort();
  }
  std::string folder = place(), path = folder + "/pack", right;
  SourceFiles sources;
  const PackKey key{"1", "scalar", "float32", "8 6 2 1"};
  const std::vector<PackedTensor> tensors = {{"layers.0.attn.Wqkv.weight", 128, nullptr},
                                             {"layers.0.attn.Wo.weight", 64, nullptr},
                                             {"layers.0.mlp.Wi.weight", 192, nullptr}};
};

// The right pack with changes: [2 bytes of place, how many bytes go, how many come, those], again and again.
std::string changed(std::string pack, const unsigned char* at, const unsigned char* end) {
  while (end - at >= 4) {
    const std::size_t place = static_cast<std::size_t>(at[0] << 8 | at[1]) % (pack.size() + 1), goes = at[2], comes = at[3];
    at += 4;
    const std::size_t there = std::min<std::size_t>(comes, static_cast<std::size_t>(end - at));
    pack.replace(place, std::min(goes, pack.size() - place), reinterpret_cast<const char*>(at), there);
    at += there;
  }
  return pack;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static Small& small = *new Small;
  if (size < 1) return 0;
  write_file(small.path, data[0] & 1 ? std::string(data + 1, data + size) : changed(small.right, data + 1, data + size));
  std::string why_not;
  const auto pack = PackFile::open(small.path, small.key, small.sources, small.tensors, why_not);
  if (!pack != !why_not.empty()) std::abort();
  unsigned sum = 0;
  for (std::size_t i = 0; pack && i < small.tensors.size(); ++i)
    for (std::size_t j = 0; j < small.tensors[i].bytes + 128; ++j)  // vectors may read so far behind
      sum += static_cast<unsigned>(pack->data(i)[j]);
  asm volatile("" : : "r"(sum));  // every byte is read
  return 0;
}
