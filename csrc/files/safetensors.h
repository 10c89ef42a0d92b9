// safetensors files: their whole header checked before anything else is read.
//
//   file = header length (8 bytes, little-endian) | json header | data without gaps
//
// Data that overlap, leave a hole, end elsewhere than the file, or have another size than shape and
// dtype say are a FormatError with file, tensor and byte offset. What the tensors mean: folder.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "files/format_error.h"
#include "files/fetched_file.h"
#include "files/json.h"

namespace refimpl {

// Sizes of axes, outermost first.
using Shape = std::vector<std::uint64_t>;

// "[2, 3]"
std::string shape_text(const Shape& shape);

struct FileTensor {
  std::string name;   // as the file spells it
  std::string dtype;  // "F32", "BF16", "F16", "F64", or a type that holds no floats
  Shape shape;
  const FetchedFile* file = nullptr;
  std::uint64_t offset = 0, bytes = 0;  // of its data in the file

  // Its bytes, once they were fetched.
  const unsigned char* data() const { return file->data() + offset; }
  void fetch() const { file->fetch(offset, bytes); }
  void release() const { file->release(offset, bytes); }
  std::uint64_t count() const;  // of elements
  // That names this tensor and where its data begin.
  FormatError error(const std::string& message) const;
};

// Of a tensor that is in the file and not in the model.
constexpr const char* kNoPart = "this tensor belongs to no part of the model that config.json names";
// Of tensors that `file` should lead to, the first of which is named; `there` are those that are in its place.
FormatError are_missing(const std::string& file, const std::vector<std::string>& names,
                        const std::vector<FileTensor>& there);

class Safetensors {
 public:
  // Throws FormatError, also for a missing file.
  explicit Safetensors(const std::string& path);

  const std::vector<FileTensor>& tensors() const { return tensors_; }  // in the order of the header
  // Throws FormatError when the file was changed since it was opened.
  void check_unchanged() const { file_.check_unchanged(); }
  const FetchedFile& file() const { return file_; }
  const Json& metadata() const { return metadata_; }  // an object of texts

 private:
  FetchedFile file_;
  std::vector<FileTensor> tensors_;
  Json metadata_{Json::Object{}};
};

}  // namespace refimpl
