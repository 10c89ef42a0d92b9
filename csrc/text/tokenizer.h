// Text to ids, for the tokenizer.json files that ModernBERT models have.
//
//     text ─► added tokens, as written ─► normal form ─► added tokens, normalized ─► words ─► byte pairs ─► template
//
// Ids, offsets, words and the rest are those of the `tokenizers` package, whose steps these are; a file that
// asks for another step is refused by the step's name (read_tokenizer.cpp). Not here: truncation, padding, and
// what the files beside tokenizer.json say, which the caller adds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"

namespace refimpl {

// One text or pair as a model takes it: per token.
struct Tokenized {
  std::vector<std::int32_t> ids, types;
  std::vector<std::int64_t> starts, ends;  // in characters of its own text; 0, 0 where the template added it
  std::vector<std::int32_t> words;         // number of its word in its text, -1 where the template added it
  std::vector<std::int32_t> sequences;     // 0, or 1 for the pair's second; -1 where the template added it
};

enum class Normalizer { kNone, kNfc, kBlanks };  // kBlanks: each space becomes U+2581

// One element of a template: tokens, or a text of the input.
struct Element {
  int sequence;  // 0, 1; -1: ids
  std::int32_t type;
  std::vector<std::int32_t> ids;
};

// Throws std::invalid_argument that names the text and the byte.
void check_utf8(std::string_view text, const char* name);

class Tokenizer {
 public:
  using Words = std::variant<std::monostate, ByteWords, CharacterWords>;

  // What a file says. Throws FormatError: broken, or not of a kind that is known here.
  static std::unique_ptr<Tokenizer> read(const std::string& file);
  // The same of its content; `file` is its name in messages.
  static std::unique_ptr<Tokenizer> parse(std::string_view content, const std::string& file);
  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;

  // Tokens to search texts for, as tokenizers' add_tokens has them: where a content is known the new flags count,
  // else it gets the next id. Not while others encode. Throws std::invalid_argument for flags that are not
  // known here, and changes nothing then.
  void add(const std::vector<AddedToken>& tokens);
  void set_split_special(bool split) { split_special_ = split; }

  // text, pair: UTF-8, below 2 GiB. Throws std::invalid_argument.
  void encode(std::string_view text, std::optional<std::string_view> pair, bool special, Tokenized& out) const;
  std::size_t template_tokens(bool pair) const;

  std::int32_t id_of(const std::string& token) const;  // -1: none
  const std::string* token_of(std::int32_t id) const;  // null: none
  const std::vector<AddedToken>& added() const { return added_; }
  std::size_t ids() const { return tokens_.size(); }  // one more than the largest
  const std::string& decoder() const { return decoder_; }  // "ByteLevel", "ByteFallback" or "" for none
  const char* normalizer() const;                          // "NFC", "blanks" or "" for none
  const std::string& truncation_side() const { return truncation_side_; }  // "" where the file has none

 private:
  friend class TokenizerReader;
  void encode_one(std::string_view text, int sequence, Tokenized& out) const;
  std::string normal_content(const AddedToken& token) const;
  std::unique_ptr<Search> search_of(const std::vector<AddedToken>& tokens, bool normalized) const;

  std::unordered_map<std::string, std::int32_t> vocabulary_;
  std::vector<std::string> tokens_;  // by id, added ones too
  std::vector<bool> has_;            // whether an id has a token
  std::vector<AddedToken> added_;
  std::unordered_map<std::string, std::int32_t> added_ids_;
  std::unique_ptr<Search> as_written_, normalized_;
  Normalizer normalizer_ = Normalizer::kNone;
  Words words_;
  std::vector<Element> single_, pair_;
  std::string decoder_, truncation_side_;
  bool split_special_ = false;
};

}  // namespace refimpl
