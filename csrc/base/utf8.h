// UTF-8, one character at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace refimpl {

// Bytes of the character at p, 0 when it is none (overlong, a surrogate, cut, beyond 10FFFF).
inline std::size_t utf8_length(const unsigned char* p, const unsigned char* end) {
  const auto tail = [&](int i, unsigned low = 0x80, unsigned high = 0xbf) {
    return end - p > i && p[i] >= low && p[i] <= high;
  };
  if (p[0] < 0x80) return 1;
  if (p[0] >= 0xc2 && p[0] <= 0xdf) return tail(1) ? 2 : 0;
  if (p[0] >= 0xe0 && p[0] <= 0xef)
    return tail(1, p[0] == 0xe0 ? 0xa0 : 0x80, p[0] == 0xed ? 0x9f : 0xbf) && tail(2) ? 3 : 0;
  if (p[0] >= 0xf0 && p[0] <= 0xf4)
    return tail(1, p[0] == 0xf0 ? 0x90 : 0x80, p[0] == 0xf4 ? 0x8f : 0xbf) && tail(2) && tail(3) ? 4 : 0;
  return 0;
}

// The character at p, of a text that is UTF-8; p moves behind it.
inline std::uint32_t utf8_next(const unsigned char*& p) {
  const unsigned char first = *p++;
  if (first < 0x80) return first;
  const int tails = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
  std::uint32_t point = first & (0x3fu >> tails);
  for (int i = 0; i < tails; ++i) point = point << 6 | (*p++ & 0x3fu);
  return point;
}

inline void append_utf8(std::string& out, std::uint32_t point) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (point >> shift & 0x3f)); };
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xc0 | point >> 6), tail(0);
  } else if (point < 0x10000) {
    out += static_cast<char>(0xe0 | point >> 12), tail(6), tail(0);
  } else {
    out += static_cast<char>(0xf0 | point >> 18), tail(12), tail(6), tail(0);
  }
}

}  // namespace refimpl
