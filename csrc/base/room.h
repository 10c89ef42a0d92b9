// Memory that is kept and grows, for one thing after the other.
#pragma once

#include <cstddef>

#include "base/memory.h"

namespace refimpl {

class Room {
 public:
  // At least n bytes, with whatever was left in them. Throws std::bad_alloc, and holds nothing then.
  std::byte* bytes(std::size_t n) {
    if (memory_.bytes() < n) memory_ = Memory(), memory_ = Memory(n, Memory::Pages::huge);
    return memory_.data();
  }
  float* floats(std::size_t n) { return reinterpret_cast<float*>(bytes(n * sizeof(float))); }

  std::byte* data() { return memory_.data(); }
  std::size_t held() const { return memory_.bytes(); }

 private:
  Memory memory_;
};

}  // namespace refimpl
