#include "files/fetched_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>

#include "files/format_error.h"

namespace refimpl {
namespace {

[[noreturn]] void refuse(const std::string& path, int error) {
  throw FormatError(path, "cannot be read: " + std::generic_category().message(error));
}

}  // namespace

FetchedFile::FetchedFile(const std::string& path) : path_(path), file_(std::make_shared<OpenFile>()) {
  // A pipe would wait for its writer.
  struct stat facts;
  if (const int error = file_->take(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK), facts)) refuse(path, error);
  if (!S_ISREG(facts.st_mode)) refuse(path, S_ISDIR(facts.st_mode) ? EISDIR : EINVAL);
  if (facts.st_size == 0) return;
#ifdef SEEK_HOLE  // waits, where the file system locks files, for a write that is under way
  lseek(file_->descriptor(), 0, SEEK_HOLE);
#endif
  const std::size_t size = static_cast<std::size_t>(facts.st_size);
  void* map = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<unsigned char*>(map), size_ = size;
}

FetchedFile::~FetchedFile() {
  if (data_) munmap(data_, size_);
}

void FetchedFile::fetch(std::size_t first, std::size_t count) const {
  errno = 0;
  if (file_->read(first, count, data_ + first)) return;
  if (const int error = errno) refuse(path_, error);
  throw FormatError(path_, "was cut short while it was read");
}

void FetchedFile::check_unchanged() const {
  if (!file_->unchanged()) throw FormatError(path_, "was changed while it was read");
}

void FetchedFile::release(std::size_t first, std::size_t count) const {
  if (!data_ || first >= size_) return;
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t begin = (first + page - 1) / page * page;
  const std::size_t end = (first + std::min(count, size_ - first)) / page * page;
  if (begin < end) madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

bool is_file(const std::string& path) {
  struct stat facts;
  return stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode);
}

bool is_folder(const std::string& path) {
  struct stat facts;
  return stat(path.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode);
}

}  // namespace refimpl
