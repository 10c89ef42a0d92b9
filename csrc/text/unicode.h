// What characters are - letters, numbers, spaces, word characters - and NFC, the composed normal form.
//
// Tables are those that the `tokenizers` package has (unicode.inc); ids of a vocabulary depend on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace refimpl {

enum Kind : unsigned char { kLetter = 1, kNumber = 2, kSpace = 4, kWord = 8, kStirs = 16 };  // kStirs: NFC may change it or what stands before it

// The sum of the kinds that a character is of.
class Kinds {
 public:
  static const Kinds& table();
  unsigned char operator()(std::uint32_t point) const { return pages_[page_[point >> 8]].at[point & 0xff]; }
  const unsigned char* ascii() const { return pages_[page_[0]].at; }  // the same for points below 128

 private:
  Kinds();
  struct Page {
    unsigned char at[256];
  };
  std::vector<std::uint16_t> page_;
  std::vector<Page> pages_;  // equal ones once
};

// A part of a text as a vocabulary sees it, and where each of its bytes came from.
struct Normal {
  std::string text;
  std::vector<std::uint32_t> from, to;  // per byte, [from, to) in bytes of the part; all empty: the part is as it was
};

// The composed normal form of UTF-8. A character that was composed points at the first of its parts, one
// that a decomposition added at the character before it, as the package has it.
Normal nfc(std::string_view part);

}  // namespace refimpl
