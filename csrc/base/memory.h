// Uninitialised memory on cache lines, freed with its owner.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace refimpl {

class Memory {
 public:
  Memory() = default;
  // Throws std::bad_alloc. Vectors may be read a little past the end of what was asked for.
  explicit Memory(std::size_t bytes) : bytes_(bytes) {
    if (bytes > SIZE_MAX - 2 * kLine) throw std::bad_alloc();
    memory_.reset(std::aligned_alloc(kLine, (bytes + 2 * kLine - 1) / kLine * kLine));
    if (!memory_) throw std::bad_alloc();
  }

  std::byte* data() { return static_cast<std::byte*>(memory_.get()); }
  const std::byte* data() const { return static_cast<const std::byte*>(memory_.get()); }
  float* floats() { return static_cast<float*>(memory_.get()); }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kLine = 64;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace refimpl
