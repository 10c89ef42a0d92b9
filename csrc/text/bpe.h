// Byte-pair encoding: the pieces of a word, joined pair by pair, the pair of the lowest rank first and of
// equal ranks the leftmost, until no pair has a rank.
//
// Time grows as n log n with the bytes of a word. A vocabulary is read-only once it is built, but for what
// it remembers of itself (`alone_`), so that several threads may use it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace refimpl {

// A token, and its bytes in the word as it was given.
struct Piece {
  std::int32_t id;
  std::uint32_t bytes;
};

// (left id, right id) -> rank and the id of both together.
class Merges {
 public:
  struct Merge {
    std::uint32_t rank;
    std::int32_t id;
  };
  static constexpr std::uint32_t kNoRank = UINT32_MAX;

  void reserve(std::size_t pairs);
  void put(std::int32_t left, std::int32_t right, Merge merge);  // the last of a pair counts
  Merge get(std::int32_t left, std::int32_t right) const;        // rank kNoRank: none

 private:
  struct Entry {
    std::uint64_t pair = UINT64_MAX;
    Merge merge{kNoRank, -1};
  };
  std::size_t place(std::uint64_t pair) const;
  std::vector<Entry> entries_{Entry{}};  // a power of two of them, at most half of them used
};

// `pieces`: a word's smallest ones; on return the joined ones.
void join_pieces(const Merges& merges, std::vector<Piece>& pieces);

// Words of bytes: each byte is a token, and a word that is a token in one piece is known by its bytes.
class ByteWords {
 public:
  // ids: by byte; tokens: bytes and id of those that are made of bytes. whole: a word that is a token is that
  // token, whatever the ranks say (`ignore_merges`).
  ByteWords(const std::int32_t (&ids)[256], const std::vector<std::pair<std::string, std::int32_t>>& tokens,
            Merges merges, bool whole);
  void encode(std::string_view word, std::vector<Piece>& out) const;  // appends

 private:
  struct Entry {
    std::uint32_t hash = 0, at = 0, size = 0;  // of its bytes in pool_; size 0: free
    std::int32_t id = -1;
  };
  enum Alone : unsigned char { kUnknown, kYes, kNo };
  void joined(std::string_view word, std::vector<Piece>& out) const;
  const Entry* find(std::string_view word) const;

  std::int32_t ids_[256];
  Merges merges_;
  bool whole_;
  std::string pool_;
  std::vector<Entry> entries_;
  std::unique_ptr<std::atomic<unsigned char>[]> alone_;  // by entry: whether the ranks join the word in one piece
};

// Words of characters; one that is no token is its bytes, <0x00> to <0xFF>.
class CharacterWords {
 public:
  // tokens: text -> id; byte_ids: of <0x00> to <0xFF>.
  CharacterWords(const std::unordered_map<std::string, std::int32_t>& tokens, const std::int32_t (&byte_ids)[256],
                 Merges merges);
  void encode(std::string_view word, std::vector<Piece>& out) const;  // appends

 private:
  // U+2581 begins a word; where no token has it behind a character, nothing is ever joined across the two,
  // and what stands between such places can be encoded alone.
  static constexpr std::uint32_t kBlank = 0x2581;

  std::int32_t byte_ids_[256];
  Merges merges_;
  std::unordered_map<std::uint32_t, std::int32_t> ids_;        // of single characters
  std::unordered_map<std::uint32_t, bool> before_blank_;  // characters that a token has before kBlank
};

}  // namespace refimpl
