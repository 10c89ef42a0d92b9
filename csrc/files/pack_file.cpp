#include "files/pack_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>

#include "base/digest.h"
#include "files/fetched_file.h"
#include "files/format_error.h"
#include "files/json.h"

namespace refimpl {
namespace {

constexpr const char* kFormat = "1";
constexpr std::size_t kPage = 4096;    // where data begin, in the file
constexpr std::size_t kSample = 4096;  // bytes at each end of a tensor
constexpr std::size_t kBuffer = std::size_t{1} << 20;
constexpr const char* kEnd = "end";  // bytes behind the last matrix, which vectors may read
constexpr std::size_t kEndBytes = 256;

// -- what a pack was made of ------------------------------------------------------------------------

// Adds bytes of a file as it is on disk. Throws FormatError.
void add(Digest& digest, const FetchedFile& file, std::uint64_t offset, std::uint64_t bytes) {
  std::vector<unsigned char> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(bytes, kBuffer)));
  while (bytes) {
    const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, buffer.size()));
    if (!file.file()->read(offset, n, buffer.data())) throw FormatError(file.path(), "cannot be read");
    digest.add(buffer.data(), n);
    offset += n, bytes -= n;
  }
}

// Of the header and of the bytes at both ends of every tensor.
std::string samples_of(const Safetensors& source) {
  Digest digest;
  const FetchedFile& file = source.file();
  std::uint64_t first = file.size();
  for (const FileTensor& t : source.tensors()) first = std::min(first, t.offset);
  add(digest, file, 0, first);
  for (const FileTensor& t : source.tensors()) {
    const std::uint64_t n = std::min<std::uint64_t>(t.bytes, kSample);
    add(digest, file, t.offset, n), add(digest, file, t.offset + t.bytes - n, n);
  }
  return digest.text();
}

std::string all_of(const Safetensors& source) {
  Digest digest;
  add(digest, source.file(), 0, source.file().size());
  return digest.text();
}

std::string name_of(const Safetensors& source) {
  const std::string& path = source.file().path();
  return path.substr(path.rfind('/') + 1);
}

// One of the model's files: what is cheap to ask, and all its bytes.
struct Source {
  std::string facts, time, content;
};

std::string facts_of(const Safetensors& source) {
  return name_of(source) + " " + std::to_string(source.file().size()) + " " + samples_of(source);
}

std::string key_of(std::size_t file, const char* what) { return "source." + std::to_string(file) + "." + what; }

using Metadata = std::vector<std::pair<std::string, std::string>>;

// Throws FormatError for a file that cannot be read, or was changed.
Metadata metadata_of(const PackKey& key, const SourceFiles& sources) {
  Metadata out = {{"modernbert_pack", kFormat}, {"layout", key.layout}, {"tier", key.tier}, {"dtype", key.dtype},
                  {"model", key.model},         {"sources", std::to_string(sources.size())}};
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const Safetensors& source = *sources[i];
    out.push_back({key_of(i, "facts"), facts_of(source)});
    out.push_back({key_of(i, "time"), std::to_string(source.file().file()->changed())});
    out.push_back({key_of(i, "content"), all_of(source)});
    source.check_unchanged();
  }
  return out;
}

// Why the pack with these metadata is not fresh; "" where it is. Throws FormatError for a source that cannot be read.
std::string stale(const Json& metadata, const PackKey& key, const SourceFiles& sources) {
  const auto has = [&](const std::string& name) {
    const Json* value = metadata.find(name);
    const std::string* text = value ? value->get<std::string>() : nullptr;
    return text ? *text : std::string();
  };
  if (has("modernbert_pack") != kFormat) return "it is no pack of this format";
  const std::pair<const char*, std::string> same[] = {
      {"layout", key.layout}, {"tier", key.tier}, {"dtype", key.dtype}, {"model", key.model}};
  for (const auto& [name, wanted] : same)
    if (has(name) != wanted) return std::string("its ") + name + " is " + Json{has(name)}.shown() + ", not " + Json{wanted}.shown();
  if (has("sources") != std::to_string(sources.size())) return "it was made of another number of files";
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const Safetensors& source = *sources[i];
    const std::string other = "it was made of another " + name_of(source);
    if (has(key_of(i, "facts")) != facts_of(source)) return other;
    if (has(key_of(i, "time")) == std::to_string(source.file().file()->changed())) continue;
    if (has(key_of(i, "content")) != all_of(source)) return other;
  }
  return "";
}

// -- the file ---------------------------------------------------------------------------------------

// The header, as long as a whole number of pages with its length before it.
std::string header_of(const Metadata& metadata, const std::vector<PackedTensor>& tensors) {
  std::string text = "{\"__metadata__\":{";
  for (const auto& [name, value] : metadata)
    text += (text.back() == '{' ? "" : ",") + json_text(name) + ":" + json_text(value);
  text += "}";
  std::size_t at = 0;
  const auto entry = [&](const std::string& name, std::size_t bytes) {
    text += "," + json_text(name) + ":{\"dtype\":\"U8\",\"shape\":[" + std::to_string(bytes) + "],\"data_offsets\":[" +
            std::to_string(at) + "," + std::to_string(at + bytes) + "]}";
    at += bytes;
  };
  for (const PackedTensor& tensor : tensors) entry(tensor.name, tensor.bytes);
  entry(kEnd, kEndBytes);
  text += "}";
  const std::size_t whole = (text.size() + 8 + kPage - 1) / kPage * kPage;
  text.append(whole - 8 - text.size(), ' ');
  unsigned char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(text.size() >> 8 * i);
  return std::string(reinterpret_cast<const char*>(length), 8) + text;
}

[[noreturn]] void refuse(const std::string& path, const char* what) {
  throw FormatError(path, std::string("cannot be ") + what + ": " + std::generic_category().message(errno));
}

struct Descriptor {
  explicit Descriptor(int number) : number(number) {}
  Descriptor(Descriptor&& other) noexcept : number(std::exchange(other.number, -1)) {}
  ~Descriptor() {
    if (number >= 0) close(number);
  }
  int number;
};

void write_all(int descriptor, const void* data, std::size_t bytes, const std::string& path) {
  const char* p = static_cast<const char*>(data);
  while (bytes) {
    const ssize_t n = write(descriptor, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse(path, "written");
    p += n, bytes -= static_cast<std::size_t>(n);
  }
}

// A folder, locked while a pack is written in it: whoever comes second waits, and finds the pack. A writer that dies
// lets go of the lock. `locked` is false where folders cannot be locked.
Descriptor alone_in(const std::string& folder, bool& locked) {
  Descriptor place(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int failed = -1;
  while (place.number >= 0 && (failed = flock(place.number, LOCK_EX)) < 0 && errno == EINTR) {
  }
  locked = failed == 0;
  return place;
}

// What one writer writes to. Alone it takes over what one that died has left; else each has a name of its own.
std::string part_of(const std::string& folder, const std::string& path, bool alone) {
  static std::atomic<unsigned> number{0};
  const std::string own = alone ? "" : "." + std::to_string(getpid()) + "-" + std::to_string(number++);
  return folder + "/." + path.substr(path.rfind('/') + 1) + own + ".part";
}

// Whether a failed fsync says that the file system has none.
bool no_such_operation() { return errno == EINVAL || errno == EROFS || errno == ENOSYS || errno == EOPNOTSUPP; }

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash ? path.substr(0, slash) : "/";
}

}  // namespace

std::shared_ptr<const PackFile> PackFile::open(const std::string& path, const PackKey& key, const SourceFiles& sources,
                                               const std::vector<PackedTensor>& tensors, std::string& why_not) try {
  if (!is_file(path)) return why_not = "there is none", nullptr;
  const Safetensors file(path);
  if (why_not = stale(file.metadata(), key, sources); !why_not.empty()) return nullptr;
  std::shared_ptr<PackFile> out(new PackFile());
  out->path_ = path, out->file_ = file.file().file(), out->bytes_ = file.file().size();
  std::vector<std::uint64_t> offsets;
  for (std::size_t i = 0; i <= tensors.size(); ++i) {
    const bool last = i == tensors.size();
    const std::string& name = last ? kEnd : tensors[i].name;
    const std::size_t bytes = last ? kEndBytes : tensors[i].bytes;
    // In the order in which they were written, as a rule.
    const auto& all = file.tensors();
    const auto is_it = [&](const FileTensor& t) { return t.name == name; };
    const auto found = i < all.size() && is_it(all[i]) ? all.begin() + static_cast<std::ptrdiff_t>(i)
                                                       : std::find_if(all.begin(), all.end(), is_it);
    if (found == all.end()) return why_not = "it has no " + Json{name}.shown(), nullptr;
    if (found->bytes != bytes)
      return why_not = Json{name}.shown() + " has " + std::to_string(found->bytes) + " bytes, not " + std::to_string(bytes), nullptr;
    if (!last && found->offset % 64) return why_not = Json{name}.shown() + " does not begin at a multiple of 64", nullptr;
    if (last && found->offset + bytes != out->bytes_) return why_not = "its end is not its end", nullptr;
    if (!last) offsets.push_back(found->offset);
  }
  out->map_ = mmap(nullptr, out->bytes_, PROT_READ, MAP_SHARED, out->file_->descriptor(), 0);
  if (out->map_ == MAP_FAILED) return out->map_ = nullptr, why_not = "it cannot be mapped", nullptr;
  madvise(out->map_, out->bytes_, MADV_WILLNEED);
  for (const std::uint64_t offset : offsets) out->places_.push_back(static_cast<const std::byte*>(out->map_) + offset);
  if (!out->unchanged()) return why_not = "it is being written to", nullptr;
  return out;
} catch (const FormatError& error) {
  why_not = error.what();
  return nullptr;
}

PackFile::~PackFile() {
  if (map_) munmap(map_, bytes_);
}

void write_pack(const std::string& path, const PackKey& key, const SourceFiles& sources,
                const std::vector<PackedTensor>& tensors, const std::function<bool()>& is_there) {
  const std::string folder = folder_of(path);
  bool alone;
  const Descriptor place = alone_in(folder, alone);
  if (is_there()) return;
  const std::string header = header_of(metadata_of(key, sources), tensors), part = part_of(folder, path, alone);
  const Descriptor file(open(part.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (alone ? O_TRUNC : O_EXCL), 0644));
  if (file.number < 0) refuse(part, "written");
  try {
    write_all(file.number, header.data(), header.size(), part);
    for (const PackedTensor& tensor : tensors) write_all(file.number, tensor.data, tensor.bytes, part);
    const std::vector<char> end(kEndBytes);
    write_all(file.number, end.data(), end.size(), part);
    if (fsync(file.number) < 0 && !no_such_operation()) refuse(part, "written");
    if (rename(part.c_str(), path.c_str()) < 0) refuse(path, "written");
  } catch (...) {
    unlink(part.c_str());
    throw;
  }
  if (place.number >= 0) fsync(place.number);
}

}  // namespace refimpl
