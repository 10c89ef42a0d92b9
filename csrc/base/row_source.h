// Rows of a matrix of a checkpoint, read one by one from where they stand.
//
// In memory, or in an open file. A file's rows are read, not mapped: Linux may map megabytes for one
// row, which then stay with the process, and a file that was cut short is an error, not a signal. A file
// that was written over in place is told by its size and its time of change (mtime).
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>

#include "base/tensor.h"

namespace refimpl {

// A descriptor that knows its file: whoever closes all descriptors of a process, as daemons do, closes
// this one too, and its number may then be another file's. Made before the file is opened, so that
// none stays open when memory runs out.
class OpenFile {
 public:
  OpenFile() = default;
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  // Takes a descriptor over and tells about its file, once that has settled; 0, or what errno says.
  int take(int descriptor, struct stat& facts);
  int descriptor() const { return descriptor_; }
  // Whether the descriptor is open, on the same file.
  bool still_open() const;
  // Whether the file, besides, has the size and the time of change that it had when it was taken.
  bool unchanged() const;
  // Its time of change when it was taken, in nanoseconds.
  std::int64_t changed() const;
  // Whether the file that stands at a path is this one, as it was when it was taken.
  bool stands_at(const char* path) const;
  // out [bytes] = what stands from byte `offset` on. False when it cannot be read, with errno, or ends
  // before, without.
  bool read(std::uint64_t offset, std::size_t bytes, unsigned char* out) const;

 private:
  bool is_same(const struct stat& now) const;
  bool is_as_taken(const struct stat& now) const;
  int descriptor_ = -1;
  struct stat taken_{};
};

// A row that was there is not to be had any more, or its file cannot be opened.
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

  // Whether rows can be had, of the model that was opened: asked before a pass reads rows, and after.
  bool is_there() const { return !file_ || file_->unchanged(); }
  // out [columns] = the float32 values of row i. False when the file cannot be read there.
  bool read(std::size_t i, float* out) const;
  // The same of rows first .. first + rows, as they are stored.
  bool read_stored(std::size_t first, std::size_t rows, unsigned char* out) const;
  Storage storage() const { return memory_.storage; }

 private:
  Tensor memory_;
  std::shared_ptr<const OpenFile> file_;  // null: in memory
  std::uint64_t offset_ = 0;
  std::size_t columns_ = 0;
};

}  // namespace refimpl
