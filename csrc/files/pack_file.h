// Packed weights in a file, which is mapped: processes that use one share its pages.
//
// A safetensors file: each matrix as bytes (U8) under the name of its tensor, and metadata that say for which
// layout, tier, dtype and model it was made, and of which files. Other dtypes add tensors of their own names. Its
// header is checked as any file's, no size is taken from it, and its bytes are numbers only: whatever they are, a
// pass stays in memory. It is written beside its place and moved there. What is fresh:
//
//     names and sizes of the model's files, and bytes out of each of their tensors, are those that it was made of;
//     and so are their times of change, or else all their bytes
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "files/safetensors.h"

namespace refimpl {

// What a pack must be for.
struct PackKey {
  std::string layout;  // of the kernels, by a number
  std::string tier, dtype;
  std::string model;   // the sizes that decide how a matrix is packed
};

struct PackedTensor {
  std::string name;
  std::size_t bytes;      // a multiple of 64
  const std::byte* data;  // of a pack that is written; else null
};

using SourceFiles = std::vector<std::unique_ptr<Safetensors>>;

class PackFile {
 public:
  // The pack of that path if it is one, for this key, of these files and with these tensors; null otherwise, and
  // why. Throws std::bad_alloc.
  static std::shared_ptr<const PackFile> open(const std::string& path, const PackKey& key, const SourceFiles& sources,
                                              const std::vector<PackedTensor>& tensors, std::string& why_not);
  ~PackFile();
  PackFile(const PackFile&) = delete;

  // Where tensor i of those that were asked for stands; behind the last one there are readable bytes.
  const std::byte* data(std::size_t i) const { return places_[i]; }
  // Whether the file is as it was when it was opened.
  bool unchanged() const { return file_->unchanged(); }
  const std::string& path() const { return path_; }

 private:
  PackFile() = default;
  std::string path_;
  std::shared_ptr<OpenFile> file_;
  void* map_ = nullptr;
  std::size_t bytes_ = 0;
  std::vector<const std::byte*> places_;
};

// Writes a pack unless is_there, asked once nobody else writes it, says that it came to be meanwhile. Throws
// FormatError for what cannot be written, std::bad_alloc.
void write_pack(const std::string& path, const PackKey& key, const SourceFiles& sources,
                const std::vector<PackedTensor>& tensors, const std::function<bool()>& is_there);

}  // namespace refimpl
