#include "text/tokenizer.h"

#include <algorithm>
#include <stdexcept>

#include "base/utf8.h"
#include "text/words.h"

namespace refimpl {
namespace {

constexpr std::size_t kMaxText = std::size_t{1} << 31;

const unsigned char* bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

// From bytes of a text to its characters.
class Characters {
 public:
  explicit Characters(std::string_view text) {
    const unsigned char* const begin = bytes(text);
    if (std::none_of(begin, begin + text.size(), [](unsigned char c) { return c >= 0x80; })) return;
    number_.reserve(text.size());
    std::uint32_t n = 0;
    for (const unsigned char *p = begin, *const end = begin + text.size(); p < end; ++n) {
      const std::size_t size = utf8_length(p, end);
      number_.insert(number_.end(), size, n);
      p += size;
    }
  }
  // The character that a byte is of.
  std::int64_t operator[](std::size_t byte) const {
    return number_.empty() ? static_cast<std::int64_t>(byte) : number_[byte];
  }

 private:
  std::vector<std::uint32_t> number_;  // empty: each byte is one
};

// Spaces as U+2581, three bytes for one.
Normal blanked(std::string_view part) {
  Normal out;
  for (std::size_t i = 0; i < part.size();) {
    const unsigned char* p = bytes(part) + i;
    utf8_next(p);
    const auto next = static_cast<std::size_t>(p - bytes(part));
    out.text += part[i] == ' ' ? "\u2581" : part.substr(i, next - i);
    out.from.resize(out.text.size(), static_cast<std::uint32_t>(i));
    out.to.resize(out.text.size(), static_cast<std::uint32_t>(next));
    i = next;
  }
  return out;
}

// What is known of a text while it is encoded.
struct Pass {
  const Characters& characters;
  int sequence;
  std::int32_t word = 0;
  Tokenized& out;

  // A token of [begin, end) in bytes of `part`, which begins at `base` of the text.
  void put(std::int32_t id, std::size_t base, const Normal& part, std::size_t begin, std::size_t end) {
    const std::size_t from = base + (part.from.empty() ? begin : part.from[begin]);
    const std::size_t to = base + (part.to.empty() ? end : part.to[end - 1]);
    out.ids.push_back(id);
    out.starts.push_back(characters[from]);
    out.ends.push_back(characters[to - 1] + 1);
    out.words.push_back(word);
    out.sequences.push_back(sequence);
  }
};

}  // namespace

void check_utf8(std::string_view text, const char* name) {
  const unsigned char* const begin = bytes(text);
  for (const unsigned char *p = begin, *const end = begin + text.size(); p < end;) {
    const std::size_t size = utf8_length(p, end);
    if (!size) throw std::invalid_argument(std::string(name) + " is not UTF-8 at byte " + std::to_string(p - begin));
    p += size;
  }
}

std::string Tokenizer::normal_content(const AddedToken& token) const {
  if (!token.normalized || normalizer_ == Normalizer::kNone) return token.content;
  const Normal normal = normalizer_ == Normalizer::kNfc ? nfc(token.content) : blanked(token.content);
  return normal.from.empty() ? token.content : normal.text;
}

std::unique_ptr<Search> Tokenizer::search_of(const std::vector<AddedToken>& tokens, bool normalized) const {
  std::vector<AddedToken> its;
  std::vector<std::string> contents;
  std::unordered_map<std::string, const AddedToken*> known;
  const AddedToken *rstrip = nullptr, *spaced = nullptr;
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized) continue;
    const std::string content = normal_content(token);
    const auto [other, is_new] = known.emplace(content, &token);
    if (!is_new)
      throw std::invalid_argument("the added tokens '" + other->second->content + "' and '" + token.content +
                                  "' are one in normal form");
    const unsigned char* p = bytes(content);
    if (token.rstrip) rstrip = &token;
    if (Kinds::table()(utf8_next(p)) & kSpace) spaced = &token;
    its.push_back(token);
    contents.push_back(content);
  }
  if (rstrip && spaced)  // which of them has the spaces between them is not known here
    throw std::invalid_argument("the added token '" + rstrip->content + "' takes the spaces behind it (rstrip), and '" +
                                spaced->content + "' begins with one");
  return its.empty() ? nullptr : std::make_unique<Search>(its, contents);
}

void Tokenizer::add(const std::vector<AddedToken>& tokens) {
  std::vector<AddedToken> all = added_;
  std::unordered_map<std::string, std::int32_t> ids = added_ids_;
  std::unordered_map<std::int32_t, std::size_t> place;
  auto next = static_cast<std::int32_t>(vocabulary_.size());
  for (std::size_t i = 0; i < all.size(); ++i) place[all[i].id] = i, next = std::max(next, all[i].id + 1);
  for (AddedToken token : tokens) {
    if (token.content.empty()) continue;  // as the package has it
    const std::int32_t known = ids.count(token.content) ? ids[token.content] : id_of(token.content);
    token.id = known < 0 ? next : known;
    next = std::max(next, token.id + 1);
    ids[token.content] = token.id;
    const auto [at, is_new] = place.emplace(token.id, all.size());
    if (is_new) {
      all.push_back(token);
    } else {
      token.special |= all[at->second].special;
      all[at->second] = token;
    }
  }
  auto as_written = search_of(all, false), normalized = search_of(all, true);
  if (static_cast<std::size_t>(next) > tokens_.size()) tokens_.resize(static_cast<std::size_t>(next)), has_.resize(tokens_.size());
  for (const AddedToken& token : all) {
    tokens_[static_cast<std::size_t>(token.id)] = token.content;
    has_[static_cast<std::size_t>(token.id)] = true;
  }
  added_ = std::move(all);
  added_ids_ = std::move(ids);
  as_written_ = std::move(as_written);
  normalized_ = std::move(normalized);
}

std::int32_t Tokenizer::id_of(const std::string& token) const {
  for (const auto* ids : {&added_ids_, &vocabulary_})
    if (const auto found = ids->find(token); found != ids->end()) return found->second;
  return -1;
}

const std::string* Tokenizer::token_of(std::int32_t id) const {
  const auto i = static_cast<std::size_t>(id);
  return id >= 0 && i < tokens_.size() && has_[i] ? &tokens_[i] : nullptr;
}

const char* Tokenizer::normalizer() const {
  return normalizer_ == Normalizer::kNfc ? "NFC" : normalizer_ == Normalizer::kBlanks ? "blanks" : "";
}

std::size_t Tokenizer::template_tokens(bool pair) const {
  std::size_t n = 0;
  for (const Element& element : pair ? pair_ : single_) n += element.ids.size();
  return n;
}

void Tokenizer::encode_one(std::string_view text, int sequence, Tokenized& out) const {
  if (text.size() >= kMaxText) throw std::invalid_argument("a text has 2 GiB or more");
  check_utf8(text, sequence ? "the pair's text" : "the text");
  const Characters characters(text);
  const Kinds& kinds = Kinds::table();
  const std::size_t likely = out.ids.size() + text.size() / 3;
  out.ids.reserve(likely), out.types.reserve(likely), out.starts.reserve(likely), out.ends.reserve(likely);
  out.words.reserve(likely), out.sequences.reserve(likely);
  Pass pass{characters, sequence, 0, out};
  std::vector<Piece> pieces;
  const auto cut = [&](const std::unique_ptr<Search>& search, std::string_view part) {
    std::vector<Found> found;
    if (search) {
      search->cut(part, split_special_, found);
    } else if (!part.empty()) {
      found.push_back({0, part.size(), -1});
    }
    return found;
  };
  const auto word = [&](std::size_t base, const Normal& part, std::string_view whole, std::size_t begin, std::size_t end) {
    pieces.clear();
    const std::string_view its = whole.substr(begin, end - begin);
    if (const auto* by_bytes = std::get_if<ByteWords>(&words_)) {
      by_bytes->encode(its, pieces);
    } else {
      std::get<CharacterWords>(words_).encode(its, pieces);
    }
    for (const Piece& piece : pieces) {
      pass.put(piece.id, base, part, begin, begin + piece.bytes);
      begin += piece.bytes;
    }
    ++pass.word;
  };
  for (const Found& outer : cut(as_written_, text)) {
    const std::string_view given = text.substr(outer.begin, outer.end - outer.begin);
    Normal normal;  // stays empty where the normal form is the part itself
    if (outer.id >= 0) {
      pass.put(outer.id, outer.begin, normal, 0, given.size());
      ++pass.word;
      continue;
    }
    if (normalizer_ == Normalizer::kNfc) normal = nfc(given);
    if (normalizer_ == Normalizer::kBlanks) normal = blanked(given);
    const std::string_view part = normal.from.empty() ? given : std::string_view(normal.text);
    for (const Found& inner : cut(normalized_, part)) {
      if (inner.id >= 0) {
        pass.put(inner.id, outer.begin, normal, inner.begin, inner.end);
        ++pass.word;
      } else if (std::holds_alternative<CharacterWords>(words_)) {
        word(outer.begin, normal, part, inner.begin, inner.end);
      } else {
        const unsigned char *at = bytes(part) + inner.begin, *const end = bytes(part) + inner.end;
        while (at < end) {
          const unsigned char* const next = word_end(kinds, at, end);
          word(outer.begin, normal, part, static_cast<std::size_t>(at - bytes(part)),
               static_cast<std::size_t>(next - bytes(part)));
          at = next;
        }
      }
    }
  }
}

void Tokenizer::encode(std::string_view text, std::optional<std::string_view> pair, bool special, Tokenized& out) const {
  out = {};
  for (const Element& element : pair ? pair_ : single_) {
    if (element.sequence >= 0) {
      encode_one(element.sequence ? *pair : text, element.sequence, out);
    } else if (special) {
      out.ids.insert(out.ids.end(), element.ids.begin(), element.ids.end());
      out.starts.resize(out.ids.size());
      out.ends.resize(out.ids.size());
      out.words.resize(out.ids.size(), -1);
      out.sequences.resize(out.ids.size(), -1);
    }
    out.types.resize(out.ids.size(), element.type);
  }
}

}  // namespace refimpl
