// Memory that shows who wrote where, and does not let anyone read beyond it.
//
// A Buffer starts as NaN in every format (all bits set) and ends where a page begins that nobody may
// touch; another such page stands before it. What a kernel reads without having been given it spoils
// its result or ends the program; what it writes without having been asked to is seen by `untouched`.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace driver {

constexpr unsigned char kPoison = 0xff;

// Reproducible on every machine, unlike the distributions of the standard library.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(bits() % n); }
  std::size_t between(std::size_t low, std::size_t high) { return low + below(high - low + 1); }
  bool once_in(std::size_t n) { return below(n) == 0; }
  // Evenly in [-1, 1).
  float unit() { return static_cast<float>(static_cast<double>(bits() >> 40) * 0x1p-23 - 1.0); }

 private:
  std::uint64_t state_;
};

class Buffer {
 public:
  explicit Buffer(std::size_t bytes, std::size_t alignment = alignof(float)) : bytes_(bytes) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t used = (bytes + alignment - 1) / alignment * alignment;
    body_ = (used + page - 1) / page * page;
    map_ = body_ + 2 * page;
    void* map = mmap(nullptr, map_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    start_ = static_cast<unsigned char*>(map);
    if (body_ && mprotect(start_ + page, body_, PROT_READ | PROT_WRITE)) throw std::bad_alloc();
    std::memset(start_ + page, kPoison, body_);
    body_at_ = start_ + page;
    data_ = body_at_ + body_ - used;
  }
  Buffer(Buffer&& other) noexcept
      : bytes_(other.bytes_), body_(other.body_), map_(other.map_), start_(other.start_), body_at_(other.body_at_),
        data_(other.data_) {
    other.start_ = nullptr;
  }
  ~Buffer() {
    if (start_) munmap(start_, map_);
  }
  Buffer& operator=(const Buffer&) = delete;

  unsigned char* data() { return data_; }
  const unsigned char* data() const { return data_; }
  float* floats() { return reinterpret_cast<float*>(data_); }
  std::size_t bytes() const { return bytes_; }

  // Bytes [from, to) are as they were at the start.
  bool untouched(std::size_t from, std::size_t to) const { return poisoned(data_ + from, data_ + to); }
  // What lies between the two forbidden pages and outside the buffer is.
  bool surroundings_untouched() const {
    return poisoned(body_at_, data_) && poisoned(data_ + bytes_, body_at_ + body_);
  }
  bool same_bytes(const Buffer& other) const {
    return bytes_ == other.bytes_ && std::memcmp(data_, other.data_, bytes_) == 0;
  }

 private:
  static bool poisoned(const unsigned char* from, const unsigned char* to) {
    for (; from < to; ++from)
      if (*from != kPoison) return false;
    return true;
  }

  std::size_t bytes_, body_, map_;
  unsigned char *start_, *body_at_, *data_;
};

// [rows, columns] floats, `ld` apart; what fills up a row stays NaN.
class Matrix {
 public:
  Matrix(std::size_t rows, std::size_t columns, std::size_t extra = 0)
      : rows(rows), columns(columns), ld(columns + extra),
        buffer(rows ? ((rows - 1) * ld + columns) * sizeof(float) : 0) {}

  float* row(std::size_t r) { return buffer.floats() + r * ld; }
  float* data() { return buffer.floats(); }
  float at(std::size_t r, std::size_t c) { return row(r)[c]; }

  Matrix& fill(Random& random, float scale = 1.0f) {
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < columns; ++c) row(r)[c] = scale * random.unit();
    return *this;
  }
  void copy(Matrix& other) {
    for (std::size_t r = 0; r < rows; ++r) std::memcpy(row(r), other.row(r), columns * sizeof(float));
  }
  bool same_bits(Matrix& other) {
    for (std::size_t r = 0; r < rows; ++r)
      if (std::memcmp(row(r), other.row(r), columns * sizeof(float))) return false;
    return true;
  }
  // Nothing was written but entries of the matrix.
  bool only_entries_written() const {
    for (std::size_t r = 0; r + 1 < rows; ++r)
      if (!buffer.untouched((r * ld + columns) * sizeof(float), (r + 1) * ld * sizeof(float))) return false;
    return buffer.surroundings_untouched();
  }

  std::size_t rows, columns, ld;
  Buffer buffer;
};

}  // namespace driver
