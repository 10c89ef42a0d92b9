// A file whose bytes are read into memory piece by piece, each where it stands in the file.
//
// Not a mapping: a file that is cut short while it is read is a FormatError, where a mapping would end
// the process (SIGBUS), and what was fetched does not change with the file. `check_unchanged` tells
// whether all that was fetched is of one state of the file.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/row_source.h"

namespace refimpl {

class FetchedFile {
 public:
  // Throws FormatError for what is no file, or cannot be read; std::bad_alloc.
  explicit FetchedFile(const std::string& path);
  ~FetchedFile();
  FetchedFile(const FetchedFile&) = delete;
  FetchedFile& operator=(const FetchedFile&) = delete;

  const unsigned char* data() const { return data_; }  // null when the file is empty
  std::size_t size() const { return size_; }
  const std::string& path() const { return path_; }
  const std::shared_ptr<OpenFile>& file() const { return file_; }

  // Reads bytes [first, first + count), which the file has, to where they stand in `data`. Throws FormatError.
  void fetch(std::size_t first, std::size_t count) const;
  // Gives back the memory of the whole pages within [first, first + count); they are to be fetched anew.
  void release(std::size_t first, std::size_t count) const;
  // Throws FormatError when the file was written to or cut since it was opened.
  void check_unchanged() const;

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
