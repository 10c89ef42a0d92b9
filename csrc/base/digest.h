// XXH64 of bytes, as its specification has it (seed 0): fast, and no proof against those who want it to collide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace refimpl {

class Digest {
 public:
  void add(const void* bytes, std::size_t count);
  std::uint64_t value() const;
  std::string text() const;  // 16 hexadecimal digits

 private:
  static constexpr std::size_t kStripe = 32;
  std::uint64_t lanes_[4] = {0x60ea27eeadc0b5d6, 0xc2b2ae3d27d4eb4f, 0, 0x61c8864e7a143579};
  unsigned char rest_[kStripe];
  std::size_t held_ = 0;
  std::uint64_t total_ = 0;
};

}  // namespace refimpl
