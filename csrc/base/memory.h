// Uninitialised memory on cache lines, freed with its owner.
//
// Large pieces are mapped by themselves and given back at once: through malloc, whose thresholds rise
// with what was freed before, a process would keep more and more.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace refimpl {

class Memory {
 public:
  Memory() = default;
  // Throws std::bad_alloc. Vectors may be read a little past the end of what was asked for.
  explicit Memory(std::size_t bytes) : bytes_(bytes) {
    if (bytes > SIZE_MAX - 2 * kLine) throw std::bad_alloc();
    if (mapped()) {
      void* p = mmap(nullptr, room(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      memory_ = p == MAP_FAILED ? nullptr : p;
    } else {
      memory_ = std::aligned_alloc(kLine, room());
    }
    if (!memory_) throw std::bad_alloc();
  }
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory() {
    if (!memory_) return;
    if (mapped())
      munmap(memory_, room());
    else
      std::free(memory_);
  }

  std::byte* data() { return static_cast<std::byte*>(memory_); }
  const std::byte* data() const { return static_cast<const std::byte*>(memory_); }
  float* floats() { return static_cast<float*>(memory_); }
  const float* floats() const { return static_cast<const float*>(memory_); }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kMapped = 64 * 1024;

  bool mapped() const { return bytes_ >= kMapped; }
  std::size_t room() const { return (bytes_ + 2 * kLine - 1) / kLine * kLine; }
  void swap(Memory& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
  }

  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace refimpl
