#include "files/json.h"

#include <locale.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iomanip>
#include <locale>
#include <sstream>
#include <utility>

#include "base/utf8.h"
#include "files/format_error.h"
#include "files/fetched_file.h"

namespace refimpl {
namespace {

// The program's locale may have a comma where JSON has a point.
double to_double(const std::string& digits) {
  static const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
  return plain ? strtod_l(digits.c_str(), nullptr, plain) : strtod(digits.c_str(), nullptr);
}

bool digit(unsigned char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  Parser(const unsigned char* text, std::size_t size, const std::string& file, std::uint64_t offset)
      : begin_(text), end_(text + size), p_(text), file_(file), offset_(offset) {}

  Json whole() {
    for (const unsigned char* p = begin_; p < end_;) {
      const std::size_t n = utf8_length(p, end_);
      if (!n) refuse("the text is not UTF-8", p);
      p += n;
    }
    Json value = any(0);
    space();
    if (p_ != end_) refuse("something follows the value", p_);
    return value;
  }

 private:
  [[noreturn]] void refuse(const std::string& reason, const unsigned char* at, const std::string& key = "") const {
    throw FormatError(file_, key, offset_ + static_cast<std::uint64_t>(at - begin_), "wrong json: " + reason);
  }

  void space() {
    while (p_ < end_ && (*p_ == ' ' || *p_ == '\t' || *p_ == '\n' || *p_ == '\r')) ++p_;
  }

  bool take(char c) {
    space();
    if (p_ == end_ || *p_ != static_cast<unsigned char>(c)) return false;
    ++p_;
    return true;
  }

  bool word(const char* text) {
    const std::size_t n = std::strlen(text);
    if (static_cast<std::size_t>(end_ - p_) < n || std::memcmp(p_, text, n) != 0) return false;
    p_ += n;
    return true;
  }

  Json any(int depth) {
    space();
    if (depth > kMaxJsonDepth) refuse("it is nested too deeply", p_);
    if (++values_ > kMaxJsonValues) refuse("it holds too many values", p_);
    if (p_ == end_) refuse("a value is missing", p_);
    const unsigned char* const at = p_;
    if (*p_ == '{') return {object(depth)};
    if (*p_ == '[') return {list(depth)};
    if (*p_ == '"') return {text()};
    if (word("null")) return {nullptr};
    if (word("true")) return {true};
    if (word("false")) return {false};
    for (const char* name : {"NaN", "Infinity", "-Infinity"})
      if (word(name)) refuse(std::string(name) + " is not a json number", at);
    return number();
  }

  Json::Object object(int depth) {
    Json::Object out;
    ++p_;
    if (take('}')) return out;
    do {
      space();
      const unsigned char* const at = p_;
      if (p_ == end_ || *p_ != '"') refuse("a key in quotes is missing", p_);
      std::string key = text();
      if (!take(':')) refuse("a colon is missing", p_);
      out.push_back({std::move(key), offset_ + static_cast<std::uint64_t>(at - begin_), any(depth + 1)});
    } while (take(','));
    if (!take('}')) refuse("a comma or a brace is missing", p_);
    once(out);
    return out;
  }

  // Every key of an object stands there once.
  void once(const Json::Object& object) const {
    std::vector<const JsonMember*> sorted;
    for (const JsonMember& member : object) sorted.push_back(&member);
    std::sort(sorted.begin(), sorted.end(), [](const JsonMember* a, const JsonMember* b) {
      return a->key != b->key ? a->key < b->key : a->offset < b->offset;
    });
    for (std::size_t i = 1; i < sorted.size(); ++i)
      if (sorted[i]->key == sorted[i - 1]->key)
        refuse("this key is given twice", begin_ + (sorted[i]->offset - offset_), sorted[i]->key);
  }

  Json::List list(int depth) {
    Json::List out;
    ++p_;
    if (take(']')) return out;
    do out.push_back(any(depth + 1));
    while (take(','));
    if (!take(']')) refuse("a comma or a bracket is missing", p_);
    return out;
  }

  std::string text() {
    std::string out;
    for (++p_; p_ < end_ && *p_ != '"';) {
      if (*p_ < 0x20) refuse("a control character stands in a string", p_);
      if (*p_ == '\\')
        escape(out);
      else
        out += static_cast<char>(*p_++);
    }
    if (p_ == end_) refuse("a string does not end", p_);
    ++p_;
    return out;
  }

  void escape(std::string& out) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const unsigned char* const at = p_++;
    if (p_ == end_) refuse("a string does not end", p_);
    if (const char* name = *p_ ? std::strchr(names, *p_) : nullptr) {
      out += values[name - names];
      ++p_;
    } else if (*p_ == 'u') {
      std::uint32_t point = unit(at);
      if (point >= 0xd800 && point <= 0xdfff) {
        const bool high = point <= 0xdbff && word("\\");
        const std::uint32_t low = high && p_ < end_ && *p_ == 'u' ? unit(at) : 0;
        if (low < 0xdc00 || low > 0xdfff) refuse("an escape is half a surrogate pair", at);
        point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
      }
      append_utf8(out, point);
    } else {
      refuse("an escape is unknown", at);
    }
  }

  // The four digits behind a u.
  std::uint32_t unit(const unsigned char* at) {
    ++p_;
    std::uint32_t out = 0;
    for (int i = 0; i < 4; ++i, ++p_) {
      static const char digits[] = "0123456789abcdef";
      const char c = p_ < end_ && *p_ < 0x80 ? static_cast<char>(*p_ >= 'A' && *p_ <= 'F' ? *p_ + 32 : *p_) : '\0';
      const char* found = c ? std::strchr(digits, c) : nullptr;
      if (!found) refuse("an escape is cut", at);
      out = out << 4 | static_cast<std::uint32_t>(found - digits);
    }
    return out;
  }

  Json number() {
    const unsigned char* const first = p_;
    const bool negative = *p_ == '-';
    const unsigned char* q = p_ + negative;
    if (q == end_ || !digit(*q)) refuse("a value is missing", first);
    const unsigned char* const digits = q;
    if (*q == '0') ++q;
    else
      while (q < end_ && digit(*q)) ++q;
    const unsigned char* const whole_end = q;
    if (q + 1 < end_ && *q == '.' && digit(q[1]))
      for (++q; q < end_ && digit(*q); ++q) {
      }
    if (q < end_ && (*q == 'e' || *q == 'E')) {
      const unsigned char* e = q + 1;
      if (e < end_ && (*e == '+' || *e == '-')) ++e;
      if (e < end_ && digit(*e)) {
        while (e < end_ && digit(*e)) ++e;
        q = e;
      }
    }
    p_ = q;
    const std::string text(first, q);
    const bool long_one = static_cast<std::size_t>(q - digits) > kMaxJsonDigits;
    if (q != whole_end || text == "-0" || long_one) {
      const double value = to_double(text);
      if (!std::isfinite(value)) refuse(text.substr(0, 40) + " is beyond float64", first);
      return {value};
    }
    std::uint64_t magnitude = 0;
    for (const unsigned char* d = digits; d < q; ++d) magnitude = magnitude * 10 + (*d - '0');
    return {JsonInteger{negative, magnitude}};
  }

  const unsigned char *begin_, *end_, *p_;
  const std::string& file_;
  std::uint64_t offset_;
  std::size_t values_ = 0;
};

}  // namespace

const Json* Json::find(const std::string& key) const {
  if (const Object* object = get<Object>())
    for (const JsonMember& member : *object)
      if (member.key == key) return &member.value;
  return nullptr;
}

const char* Json::kind() const {
  static const char* const kinds[] = {"null", "a boolean", "a number", "a number", "a string", "a list", "an object"};
  return kinds[value.index()];
}

namespace {

// The fewest digits that give the number back, as Python spells it: 0.1, 1e-05, 1e+16.
std::string spelled(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  std::string digits;
  for (int more = 0; more < 17; ++more) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << std::scientific << std::setprecision(more) << x;
    if (to_double(digits = text.str()) == x) break;
  }
  const std::string sign = digits[0] == '-' ? "-" : "";
  const std::size_t e = digits.find('e');
  const int exponent = std::atoi(digits.c_str() + e + 1);
  digits = digits.substr(sign.size(), e - sign.size());
  digits.erase(std::remove(digits.begin(), digits.end(), '.'), digits.end());
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    const std::string size = std::to_string(std::abs(exponent));
    return sign + digits[0] + (count > 1 ? "." + digits.substr(1) : "") + (exponent < 0 ? "e-" : "e+") +
           (size.size() < 2 ? "0" : "") + size;
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent) digits.append(static_cast<std::size_t>(exponent + 1 - count), '0');
  const std::string rest = digits.substr(static_cast<std::size_t>(exponent) + 1);
  return sign + digits.substr(0, static_cast<std::size_t>(exponent) + 1) + "." + (rest.empty() ? "0" : rest);
}

// A text in quotes, in ASCII; of valid UTF-8, as a parsed text is.
std::string spelled(const std::string& text) {
  const bool twice = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = twice ? '"' : '\'';
  std::string out(1, quote);
  for (const unsigned char *p = reinterpret_cast<const unsigned char*>(text.data()), *end = p + text.size();
       p < end && out.size() <= Json::kLongestShown;) {
    const std::size_t bytes = std::max<std::size_t>(utf8_length(p, end), 1);
    std::uint32_t point = bytes == 1 ? *p : *p & (0xffu >> (bytes + 1));
    for (std::size_t i = 1; i < bytes; ++i) point = point << 6 | (p[i] & 0x3f);
    p += bytes;
    char escape[11];
    if (point == static_cast<unsigned char>(quote) || point == '\\')
      out += '\\', out += static_cast<char>(point);
    else if (point == '\n' || point == '\r' || point == '\t')
      out += point == '\n' ? "\\n" : point == '\r' ? "\\r" : "\\t";
    else if (point >= 0x20 && point < 0x7f)
      out += static_cast<char>(point);
    else
      std::snprintf(escape, sizeof escape, point < 0x100 ? "\\x%02x" : point < 0x10000 ? "\\u%04x" : "\\U%08x", point),
          out += escape;
  }
  return out + quote;
}

}  // namespace

std::string Json::spelled_out() const {
  if (const bool* flag = get<bool>()) return *flag ? "True" : "False";
  if (const JsonInteger* n = get<JsonInteger>()) return (n->negative ? "-" : "") + std::to_string(n->magnitude);
  if (const double* x = get<double>()) return spelled(*x);
  if (const std::string* text = get<std::string>()) return spelled(*text);
  std::string out;
  const auto next = [&] {
    if (out.size() > 1) out += ", ";
    return out.size() <= kLongestShown;  // no more than that is shown
  };
  if (const List* list = get<List>()) {
    out = "[";
    for (const Json& item : *list) {
      if (!next()) break;
      out += item.spelled_out();
    }
    return out + "]";
  }
  if (const Object* object = get<Object>()) {
    out = "{";
    for (const JsonMember& member : *object) {
      if (!next()) break;
      out += spelled(member.key) + ": " + member.value.spelled_out();
    }
    return out + "}";
  }
  return "None";
}

std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned char>(c));
    const bool plain = static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\';
    out += plain ? std::string(1, c) : escaped;
  }
  return out + "\"";
}

std::string Json::shown() const { return spelled_out().substr(0, kLongestShown); }

Json parse_json(const unsigned char* text, std::size_t size, const std::string& file, std::uint64_t offset) {
  return Parser(text, size, file, offset).whole();
}

Json read_json(const FetchedFile& file) {
  if (file.size() > kMaxJsonBytes)
    throw FormatError(file.path(), std::to_string(file.size()) + " bytes of json; at most " + std::to_string(kMaxJsonBytes));
  file.fetch(0, file.size());
  return parse_json(file.data(), file.size(), file.path());
}

}  // namespace refimpl
