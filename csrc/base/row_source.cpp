#include "base/row_source.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace refimpl {
namespace {

bool read_all(int file, std::uint64_t offset, std::size_t bytes, unsigned char* out) {
  while (bytes > 0) {
    const ssize_t n = pread(file, out, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    offset += static_cast<std::uint64_t>(n), out += n, bytes -= static_cast<std::size_t>(n);
  }
  return true;
}

}  // namespace

OpenFile::~OpenFile() {
  if (still_open()) close(descriptor_);
}

int OpenFile::take(int descriptor, struct stat& facts) {
  if (descriptor < 0) return errno;
  if (fstat(descriptor, &facts)) {
    const int error = errno;
    close(descriptor);
    return error;
  }
  descriptor_ = descriptor, device_ = facts.st_dev, inode_ = facts.st_ino;
  return 0;
}

bool OpenFile::still_open() const {
  struct stat now;
  return descriptor_ >= 0 && fstat(descriptor_, &now) == 0 && now.st_dev == device_ && now.st_ino == inode_;
}

bool RowSource::read(std::size_t i, float* out) const {
  if (!file_) {
    widen(memory_, i * columns_, columns_, out);
    return true;
  }
  const std::size_t size = size_of(memory_.storage);
  alignas(float) unsigned char part[4096];
  for (std::size_t first = 0; first < columns_; first += sizeof part / size) {
    const std::size_t count = std::min(columns_ - first, sizeof part / size);
    if (!read_all(file_->descriptor(), offset_ + (i * columns_ + first) * size, count * size, part)) return false;
    widen({part, memory_.storage}, 0, count, out + first);
  }
  return true;
}

}  // namespace refimpl
