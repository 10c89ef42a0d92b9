// A file in memory, read-only, without a copy.
//
// Whoever changes the file while it is mapped changes what is read; a file that is cut short then
// ends the process (SIGBUS), as with every mapping.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/row_source.h"

namespace refimpl {

class MappedFile {
 public:
  // Throws FormatError for what is no file, or cannot be read.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const unsigned char* data() const { return data_; }  // null when the file is empty
  std::size_t size() const { return size_; }
  const std::string& path() const { return path_; }
  const std::shared_ptr<OpenFile>& file() const { return file_; }

  // Gives back the memory of the whole pages within [first, first + count): they are read from the
  // file again when they are needed again.
  void release(std::size_t first, std::size_t count) const;

 private:
  std::string path_;
  std::shared_ptr<OpenFile> file_;
  unsigned char* data_ = nullptr;
  std::size_t size_ = 0;
};

// Whether there is a file, no folder, of that path.
bool is_file(const std::string& path);
bool is_folder(const std::string& path);

}  // namespace refimpl
