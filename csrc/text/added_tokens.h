// Tokens that a text is searched for before it is cut into words, such as [MASK].
//
// Where several begin at one place the longest is taken, and the search goes on behind it. Flags and their
// meaning are those of tokenizers.AddedToken.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/unicode.h"

namespace refimpl {

struct AddedToken {
  std::string content;
  std::int32_t id;
  bool special, lstrip, rstrip, single_word, normalized;
};

// [begin, end) in bytes of a text: a token, or text between tokens.
struct Found {
  std::size_t begin, end;
  std::int32_t id;  // -1: text
};

// A set of texts, asked for the longest that a text begins with: a tree of bytes.
class Longest {
 public:
  void add(std::string_view text, std::uint32_t value);
  // The value of the longest one at `at`, and its bytes; bytes 0: none begins there.
  std::pair<std::uint32_t, std::size_t> at(std::string_view text, std::size_t at) const;

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  struct Node {
    std::uint32_t value = kNone, child = kNone, sibling = kNone;
    unsigned char byte = 0;
  };
  std::uint32_t next(std::uint32_t node, unsigned char byte) const;
  std::vector<Node> nodes_{Node{}};
  std::bitset<65536> begins_;  // by the first two bytes of a text; one of a single byte has all 256
};

class Search {
 public:
  // Finds the tokens whose contents are `contents`, none of which is empty.
  Search(std::vector<AddedToken> tokens, const std::vector<std::string>& contents);
  // The text cut into tokens and what is between them; nothing of it is empty. split_special: special tokens
  // are text.
  void cut(std::string_view text, bool split_special, std::vector<Found>& out) const;

 private:
  std::vector<AddedToken> tokens_;
  Longest longest_;
};

}  // namespace refimpl
