// tokenizer.json -> Tokenizer, or why not.
//
// Known: BPE over bytes (ByteLevel) or over characters with bytes to fall back on (as Gemma has it), no
// normalizer, NFC, or spaces as U+2581; a template behind. A key that changes ids and is not known is refused
// with its name, so that the caller can ask another library.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/utf8.h"
#include "files/format_error.h"
#include "files/fetched_file.h"
#include "files/json.h"
#include "text/tokenizer.h"

namespace refimpl {
namespace {

using Strings = std::vector<std::string>;

// The characters that stand for bytes in byte-level tokens: printable ones for themselves, then U+0100 on.
struct ByteAlphabet {
  std::string of[256];
  std::unordered_map<std::uint32_t, unsigned char> byte;

  ByteAlphabet() {
    std::uint32_t other = 0x100;
    for (std::uint32_t b = 0; b < 256; ++b) {
      const bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      const std::uint32_t point = itself ? b : other++;
      append_utf8(of[b], point);
      byte[point] = static_cast<unsigned char>(b);
    }
  }

  // The bytes of a token; false where a character stands for none.
  bool bytes(const std::string& token, std::string& out) const {
    const auto* p = reinterpret_cast<const unsigned char*>(token.data());
    for (const unsigned char* const end = p + token.size(); p < end;) {
      const auto found = byte.find(utf8_next(p));
      if (found == byte.end()) return false;
      out += static_cast<char>(found->second);
    }
    return true;
  }
};

}  // namespace

class TokenizerReader {
 public:
  TokenizerReader(const std::string& file, Json json) : file_(file), json_(std::move(json)) {}

  std::unique_ptr<Tokenizer> read() {
    auto out = std::make_unique<Tokenizer>();
    if (!json_.get<Json::Object>()) refuse("", std::string("holds ") + json_.kind() + "; it must hold an object");
    out->normalizer_ = normalizer();
    vocabulary(*out);
    words(*out);
    decoder(*out);
    const Json* cut = json_.find("truncation");
    if (cut && !cut->is_null()) out->truncation_side_ = lower(text(*cut, "direction", "truncation.direction", "Right"));
    if (const Json* added = json_.find("added_tokens"); added && !added->is_null()) add(*out, *added);
    templates(*out);
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& key, const std::string& message) const {
    throw FormatError(file_, key, kNoOffset, message);
  }
  [[noreturn]] void unknown(const std::string& key, const Json& value, const std::string& known) const {
    refuse(key, "is " + value.shown() + "; the tokenizer of this library has " + known);
  }

  static std::string lower(std::string text) {
    for (char& c : text)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return text;
  }

  const Json& member(const Json& object, const std::string& name, const std::string& key) const {
    const Json* found = object.find(name);
    if (!found) refuse(key, "is missing");
    return *found;
  }
  std::string text(const Json& object, const std::string& name, const std::string& key) const {
    const Json& found = member(object, name, key);
    const std::string* value = found.get<std::string>();
    if (!value) refuse(key, std::string("is ") + found.kind() + "; it must be a string");
    return *value;
  }
  std::string text(const Json& object, const std::string& name, const std::string& key, const char* otherwise) const {
    return object.find(name) ? text(object, name, key) : otherwise;
  }
  bool flag(const Json& object, const std::string& name, const std::string& key, bool otherwise) const {
    const Json* found = object.find(name);
    if (!found || found->is_null()) return otherwise;
    if (!found->get<bool>()) refuse(key, std::string("is ") + found->kind() + "; it must be true or false");
    return *found->get<bool>();
  }
  std::int32_t id(const Json& value, const std::string& key) const {
    const JsonInteger* number = value.get<JsonInteger>();
    if (!number || number->negative || number->magnitude > kMaxId) refuse(key, "is " + value.shown() + "; no id of a token");
    return static_cast<std::int32_t>(number->magnitude);
  }
  const Json::List& list(const Json& value, const std::string& key) const {
    const Json::List* found = value.get<Json::List>();
    if (!found) refuse(key, std::string("is ") + value.kind() + "; it must be a list");
    return *found;
  }
  // A step that may stand alone in a sequence.
  const Json* step(const std::string& name, const char* inner) const {
    const Json* found = json_.find(name);
    if (!found || found->is_null()) return nullptr;
    if (text(*found, "type", name + ".type") != "Sequence") return found;
    const Json::List& steps = list(member(*found, inner, name + "." + inner), name + "." + inner);
    if (steps.size() != 1) refuse(name, "has " + std::to_string(steps.size()) + " steps; this library's tokenizer has one");
    return &steps[0];
  }

  Normalizer normalizer() const {
    const std::string key = "normalizer";
    const Json* found = step(key, "normalizers");
    if (!found) return Normalizer::kNone;
    const std::string type = text(*found, "type", key + ".type");
    if (type == "NFC") return Normalizer::kNfc;
    if (type == "Replace" && text(member(*found, "pattern", key + ".pattern"), "String", key + ".pattern.String") == " " &&
        text(*found, "content", key + ".content") == "\u2581")
      return Normalizer::kBlanks;
    unknown(key + ".type", *found->find("type"), "NFC, and Replace of ' ' by U+2581");
  }

  void vocabulary(Tokenizer& out) {
    model_ = &member(json_, "model", "model");
    if (text(*model_, "type", "model.type", "BPE") != "BPE") unknown("model.type", *model_->find("type"), "BPE");
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* found = model_->find(affix);
      if (found && !found->is_null() && !(found->get<std::string>() && found->get<std::string>()->empty()))
        unknown(std::string("model.") + affix, *found, "none");
    }
    const Json& given = member(*model_, "vocab", "model.vocab");
    if (!given.get<Json::Object>()) refuse("model.vocab", std::string("is ") + given.kind() + "; it must be an object");
    const Json::Object& members = *given.get<Json::Object>();
    const std::size_t room = 2 * members.size() + 1024;
    for (const JsonMember& token : members) {
      const std::string key = "model.vocab." + token.key;
      const auto i = static_cast<std::size_t>(id(token.value, key));
      if (i >= room) refuse(key, "is " + token.value.shown() + ", far beyond the " + std::to_string(members.size()) + " tokens of the vocabulary");
      if (i >= out.tokens_.size()) out.tokens_.resize(i + 1), out.has_.resize(i + 1);
      if (out.has_[i]) refuse(key, "is " + token.value.shown() + ", which is the id of '" + out.tokens_[i] + "' too");
      out.tokens_[i] = token.key;
      out.has_[i] = true;
      out.vocabulary_.emplace(token.key, static_cast<std::int32_t>(i));
    }
  }

  std::int32_t known(const Tokenizer& out, const std::string& token, const std::string& key) const {
    const auto found = out.vocabulary_.find(token);
    if (found == out.vocabulary_.end()) refuse(key, "'" + token + "' is not in model.vocab");
    return found->second;
  }

  Merges merges(const Tokenizer& out) const {
    const Json::List& given = list(member(*model_, "merges", "model.merges"), "model.merges");
    Merges merges;
    merges.reserve(given.size());
    for (std::size_t rank = 0; rank < given.size(); ++rank) {
      const std::string key = "model.merges[" + std::to_string(rank) + "]";
      const auto [left, right] = pair_of(given[rank], key);
      merges.put(known(out, left, key), known(out, right, key),
                 {static_cast<std::uint32_t>(rank), known(out, left + right, key)});
    }
    return merges;
  }

  // ["a", "b"], or "a b" as older files have it.
  std::pair<std::string, std::string> pair_of(const Json& value, const std::string& key) const {
    if (const std::string* both = value.get<std::string>()) {
      const std::size_t space = both->find(' ');
      if (space != std::string::npos && both->find(' ', space + 1) == std::string::npos)
        return {both->substr(0, space), both->substr(space + 1)};
    } else if (const Json::List* two = value.get<Json::List>()) {
      if (two->size() == 2 && (*two)[0].get<std::string>() && (*two)[1].get<std::string>())
        return {*(*two)[0].get<std::string>(), *(*two)[1].get<std::string>()};
    }
    refuse(key, "is " + value.shown() + "; it must be a pair of tokens");
  }

  void words(Tokenizer& out) const {
    const std::string key = "pre_tokenizer";
    const Json* found = step(key, "pretokenizers");
    const std::string type = found ? text(*found, "type", key + ".type") : "";
    const bool whole = flag(*model_, "ignore_merges", "model.ignore_merges", false);
    const bool fallback = flag(*model_, "byte_fallback", "model.byte_fallback", false);
    std::int32_t ids[256];
    if (type == "ByteLevel") {
      if (fallback) refuse("model.byte_fallback", "is true beside the pre_tokenizer ByteLevel, which leaves nothing to fall back on");
      if (flag(*found, "add_prefix_space", key + ".add_prefix_space", true)) refuse(key + ".add_prefix_space", "is true; this library's tokenizer puts no space before a text");
      if (!flag(*found, "use_regex", key + ".use_regex", true)) refuse(key + ".use_regex", "is false; this library's tokenizer cuts words");
      if (out.normalizer_ == Normalizer::kBlanks) refuse("normalizer", "replaces spaces before the pre_tokenizer ByteLevel");
      const ByteAlphabet alphabet;
      for (int b = 0; b < 256; ++b) ids[b] = known(out, alphabet.of[b], "model.vocab");
      std::vector<std::pair<std::string, std::int32_t>> tokens;
      for (const auto& [token, id] : out.vocabulary_)
        if (std::string bytes; !token.empty() && alphabet.bytes(token, bytes)) tokens.emplace_back(std::move(bytes), id);
      out.words_.emplace<ByteWords>(ids, tokens, merges(out), whole);
      return;
    }
    if (found) {
      const Json& pattern = member(*found, "pattern", key + ".pattern");
      if (type != "Split" || text(pattern, "String", key + ".pattern.String") != " " ||
          text(*found, "behavior", key + ".behavior") != "MergedWithPrevious" || flag(*found, "invert", key + ".invert", false))
        unknown(key + ".type", *found->find("type"), "ByteLevel, and Split behind each ' '");
    }
    if (out.normalizer_ != Normalizer::kBlanks) refuse(key, "is none for bytes, and the normalizer does not replace spaces");
    if (!fallback) refuse("model.byte_fallback", "is false; this library's tokenizer has bytes for what is no token");
    if (whole) refuse("model.ignore_merges", "is true, which this library's tokenizer has for bytes only");
    for (int b = 0; b < 256; ++b) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
      ids[b] = known(out, name, "model.vocab");
    }
    out.words_.emplace<CharacterWords>(out.vocabulary_, ids, merges(out));
  }

  void decoder(Tokenizer& out) const {
    const std::string key = "decoder";
    const Json* found = json_.find(key);
    if (!found || found->is_null()) return;
    const std::string type = text(*found, "type", key + ".type");
    if (type == "ByteLevel") {
      out.decoder_ = type;
      return;
    }
    // Replace U+2581 by ' ', ByteFallback, Fuse.
    if (type != "Sequence") unknown(key + ".type", *found->find("type"), "ByteLevel, and the sequence of Replace, ByteFallback and Fuse");
    const Json::List& steps = list(member(*found, "decoders", key + ".decoders"), key + ".decoders");
    const Strings wanted = {"Replace", "ByteFallback", "Fuse"};
    Strings types;
    for (const Json& one : steps) types.push_back(text(one, "type", key + ".decoders.type"));
    const std::string replaced = key + ".decoders[0]";
    if (types != wanted || text(member(steps[0], "pattern", replaced), "String", replaced) != "\u2581" ||
        text(steps[0], "content", replaced) != " ")
      refuse(key, "is none of those that this library's tokenizer has: ByteLevel; Replace of U+2581 by ' ', ByteFallback, Fuse");
    out.decoder_ = "ByteFallback";
  }

  void add(Tokenizer& out, const Json& given) const {
    std::vector<AddedToken> tokens;
    std::vector<std::int32_t> ids;
    for (const Json& one : list(given, "added_tokens")) {
      const std::string key = "added_tokens[" + std::to_string(tokens.size()) + "]";
      AddedToken token{};
      token.content = text(one, "content", key + ".content");
      if (token.content.empty()) refuse(key + ".content", "is empty");
      token.special = flag(one, "special", key + ".special", false);
      token.lstrip = flag(one, "lstrip", key + ".lstrip", false);
      token.rstrip = flag(one, "rstrip", key + ".rstrip", false);
      token.single_word = flag(one, "single_word", key + ".single_word", false);
      token.normalized = flag(one, "normalized", key + ".normalized", !token.special);
      ids.push_back(id(member(one, "id", key + ".id"), key + ".id"));
      tokens.push_back(std::move(token));
    }
    try {
      out.add(tokens);
    } catch (const std::invalid_argument& error) {
      refuse("added_tokens", error.what());
    }
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (const std::int32_t got = out.id_of(tokens[i].content); got != ids[i])
        refuse("added_tokens[" + std::to_string(i) + "].id", "is " + std::to_string(ids[i]) + " for '" + tokens[i].content +
                                                                 "', which gets " + std::to_string(got) + " by its place");
  }

  void templates(Tokenizer& out) const {
    const std::string key = "post_processor";
    out.single_ = {{0, 0, {}}};
    out.pair_ = {{0, 0, {}}, {1, 1, {}}};
    const Json* found = step(key, "processors");
    if (!found) return;
    if (text(*found, "type", key + ".type") != "TemplateProcessing") unknown(key + ".type", *found->find("type"), "TemplateProcessing");
    const Json& special = member(*found, "special_tokens", key + ".special_tokens");
    out.single_ = elements(member(*found, "single", key + ".single"), special, key + ".single", 1);
    out.pair_ = elements(member(*found, "pair", key + ".pair"), special, key + ".pair", 2);
  }

  std::vector<Element> elements(const Json& given, const Json& special, const std::string& key, int sequences) const {
    std::vector<Element> out;
    int seen[2] = {0, 0};
    for (const Json& one : list(given, key)) {
      const Json::Object* object = one.get<Json::Object>();
      if (!object || object->size() != 1) refuse(key, "holds " + one.shown() + "; each element must be one of a template");
      const auto& [kind, offset, value] = (*object)[0];
      static_cast<void>(offset);
      const std::string name = text(value, "id", key + ".id");
      const std::int32_t type = id(member(value, "type_id", key + ".type_id"), key + ".type_id");
      if (kind == "Sequence" && (name == "A" || name == "B")) {
        out.push_back({name == "B", type, {}});
        ++seen[name == "B"];
      } else if (kind == "SpecialToken") {
        const std::string its = "post_processor.special_tokens." + name;
        Element element{-1, type, {}};
        for (const Json& number : list(member(member(special, name, its), "ids", its + ".ids"), its + ".ids"))
          element.ids.push_back(id(number, its + ".ids"));
        out.push_back(std::move(element));
      } else {
        refuse(key, "holds an element " + kind + " " + name + "; known are SpecialToken, and Sequence A and B");
      }
    }
    if (seen[0] != 1 || seen[1] != sequences - 1) refuse(key, "must name each text once");
    return out;
  }

  static constexpr std::uint64_t kMaxId = 1u << 30;
  std::string file_;
  Json json_;
  const Json* model_ = nullptr;
};

std::unique_ptr<Tokenizer> Tokenizer::read(const std::string& file) {
  return TokenizerReader(file, read_json(FetchedFile(file))).read();
}

std::unique_ptr<Tokenizer> Tokenizer::parse(std::string_view content, const std::string& file) {
  return TokenizerReader(file, parse_json(reinterpret_cast<const unsigned char*>(content.data()), content.size(), file)).read();
}

}  // namespace refimpl
