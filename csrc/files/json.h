// Strict JSON: what a model folder may hold in its json files and safetensors headers.
//
// A key given twice, NaN or Infinity, a number that no double or 64-bit integer holds, broken UTF-8,
// half a surrogate pair and deep nesting are a FormatError with file and byte offset; so are texts of
// more than kMaxJsonBytes or kMaxJsonValues. The same language as refimpl/files/strictjson.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace refimpl {

class FetchedFile;

constexpr std::size_t kMaxJsonBytes = 100'000'000;  // the cap of a safetensors header
constexpr std::size_t kMaxJsonValues = std::size_t{1} << 22;
constexpr int kMaxJsonDepth = 128;
constexpr std::size_t kMaxJsonDigits = 19;  // of 2**63; such a number fits in 64 bits, a longer one is a double

struct JsonInteger {
  bool negative;
  std::uint64_t magnitude;
};

struct JsonMember;

class Json {
 public:
  using List = std::vector<Json>;
  using Object = std::vector<JsonMember>;  // in the order of the text

  std::variant<std::nullptr_t, bool, JsonInteger, double, std::string, List, Object> value = nullptr;

  template <class T>
  const T* get() const {
    return std::get_if<T>(&value);
  }
  bool is_null() const { return get<std::nullptr_t>(); }
  // The member of that name of an object; null when there is none, or no object.
  const Json* find(const std::string& key) const;
  // "an object", "a number", ..: for messages.
  const char* kind() const;
  // As a message shows it: as Python spells it, in ASCII, a line at most. refimpl/errors.py does the same.
  static constexpr std::size_t kLongestShown = 80;
  std::string shown() const;

 private:
  std::string spelled_out() const;
};

struct JsonMember {
  std::string key;
  std::uint64_t offset;  // of the key's opening quote in the file
  Json value;
};

// The value of a text that starts at byte `offset` of `file`.
Json parse_json(const unsigned char* text, std::size_t size, const std::string& file, std::uint64_t offset = 0);

// A text as json spells it, in quotes. UTF-8, as it is.
std::string json_text(const std::string& text);

// The content of a json file.
Json read_json(const FetchedFile& file);

}  // namespace refimpl
