// Rows of a matrix of a checkpoint, read one by one from where they stand.
//
// In memory, or in an open file. A file's rows are read, not mapped: Linux may map megabytes for one
// row, which then stay with the process, and a file that was cut short is an error, not a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>

#include "base/tensor.h"

namespace refimpl {

// Made before its file is opened, so that none stays open when memory runs out.
struct OpenFile {
  int descriptor = -1;

  OpenFile() = default;
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
};

// A row that was there is not to be had any more.
struct Unreadable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class RowSource {
 public:
  RowSource() = default;
  // The memory must outlive this.
  RowSource(const Tensor& memory, std::size_t columns) : memory_(memory), columns_(columns) {}
  // From byte `offset` of the file on, which holds all rows.
  RowSource(std::shared_ptr<const OpenFile> file, std::uint64_t offset, Storage storage, std::size_t columns)
      : memory_{nullptr, storage}, file_(std::move(file)), offset_(offset), columns_(columns) {}

  // out [columns] = the float32 values of row i. False when the file cannot be read there.
  bool read(std::size_t i, float* out) const;

 private:
  Tensor memory_;
  std::shared_ptr<const OpenFile> file_;  // null: in memory
  std::uint64_t offset_ = 0;
  std::size_t columns_ = 0;
};

}  // namespace refimpl
