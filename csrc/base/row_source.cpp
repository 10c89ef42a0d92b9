#include "base/row_source.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace refimpl {
namespace {

// The clock that stamps files goes in steps of up to 10 ms: what is written within one step leaves one time.
// A file is looked at when that step is over.
constexpr std::int64_t kSettled = 20'000'000;  // nanoseconds

std::int64_t nanoseconds(const timespec& time) { return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

// How long ago the file was changed; negative where clocks differ.
std::int64_t age_of(const struct stat& facts) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return nanoseconds(now) - nanoseconds(facts.st_mtim);
}

}  // namespace

OpenFile::~OpenFile() {
  if (still_open()) close(descriptor_);
}

int OpenFile::take(int descriptor, struct stat& facts) {
  if (descriptor < 0) return errno;
  const auto look = [&] { return fstat(descriptor, &facts) == 0; };
  bool seen = look();
  if (const std::int64_t age = seen ? age_of(facts) : kSettled; 0 <= age && age < kSettled) {
    const timespec rest{0, static_cast<long>(kSettled - age)};
    nanosleep(&rest, nullptr);
    seen = look();
  }
  if (!seen) {
    const int error = errno;
    close(descriptor);
    return error;
  }
  descriptor_ = descriptor, taken_ = facts;
  return 0;
}

bool OpenFile::is_same(const struct stat& now) const {
  return now.st_dev == taken_.st_dev && now.st_ino == taken_.st_ino;
}

bool OpenFile::still_open() const {
  struct stat now;
  return descriptor_ >= 0 && fstat(descriptor_, &now) == 0 && is_same(now);
}

bool OpenFile::is_as_taken(const struct stat& now) const {
  return is_same(now) && now.st_size == taken_.st_size && nanoseconds(now.st_mtim) == nanoseconds(taken_.st_mtim);
}

bool OpenFile::unchanged() const {
  struct stat now;
  return descriptor_ >= 0 && fstat(descriptor_, &now) == 0 && is_as_taken(now);
}

std::int64_t OpenFile::changed() const { return nanoseconds(taken_.st_mtim); }

bool OpenFile::stands_at(const char* path) const {
  struct stat now;
  return stat(path, &now) == 0 && is_as_taken(now);
}

bool OpenFile::read(std::uint64_t offset, std::size_t bytes, unsigned char* out) const {
  while (bytes > 0) {
    const ssize_t n = pread(descriptor_, out, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    offset += static_cast<std::uint64_t>(n), out += n, bytes -= static_cast<std::size_t>(n);
  }
  return true;
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
    if (!file_->read(offset_ + (i * columns_ + first) * size, count * size, part)) return false;
    widen({part, memory_.storage}, 0, count, out + first);
  }
  return true;
}

bool RowSource::read_stored(std::size_t first, std::size_t rows, unsigned char* out) const {
  const std::size_t row = columns_ * size_of(memory_.storage);
  if (file_) return file_->read(offset_ + first * row, rows * row, out);
  std::memcpy(out, static_cast<const unsigned char*>(memory_.data) + first * row, rows * row);
  return true;
}

}  // namespace refimpl
