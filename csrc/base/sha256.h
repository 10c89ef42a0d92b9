// SHA-256 of bytes (FIPS 180-4): what int8.json names weights by, as Python's hashlib gives it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace refimpl {

class Sha256 {
 public:
  void add(const void* bytes, std::size_t count);
  std::string text() const;  // 64 hexadecimal digits

 private:
  static constexpr std::size_t kBlock = 64;
  void block(const unsigned char* p);
  std::uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  unsigned char rest_[kBlock];
  std::uint64_t total_ = 0;
};

}  // namespace refimpl
