// A file that is not what it claims to be.
//
// The text reads `file: key (byte offset): message`, as that of refimpl/errors.py; key and offset
// only where the fault has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace refimpl {

constexpr std::uint64_t kNoOffset = UINT64_MAX;

// How many bytes of a text to show where `most` fit: no character of UTF-8 is cut.
inline std::size_t shown_bytes(const char* text, std::size_t size, std::size_t most) {
  if (size <= most) return size;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xc0) == 0x80) --most;
  return most;
}

class FormatError : public std::runtime_error {
 public:
  FormatError(const std::string& file, const std::string& key, std::uint64_t offset, const std::string& message)
      : std::runtime_error(file + (key.empty() ? "" : ": " + shown(key)) +
                           (offset == kNoOffset ? "" : " (byte " + std::to_string(offset) + ")") + ": " + message) {}
  FormatError(const std::string& file, const std::string& message) : FormatError(file, "", kNoOffset, message) {}

  // Text of a file as a message may show it: cut to a line's length, control characters replaced.
  static std::string shown(const std::string& text) {
    constexpr std::size_t kLongest = 200;
    std::string out = text.substr(0, shown_bytes(text.data(), text.size(), kLongest));
    for (char& c : out)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return text.size() > kLongest ? out + "..." : out;
  }
};

}  // namespace refimpl
