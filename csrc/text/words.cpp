#include "text/words.h"

#include <algorithm>
#include <cstring>

#include "base/utf8.h"

namespace refimpl {
namespace {

constexpr unsigned char kOfPattern = kLetter | kNumber | kSpace;  // none of them: anything else

unsigned char kind_at(const Kinds& kinds, const unsigned char* p) { return kinds(utf8_next(p)) & kOfPattern; }

// Behind the characters of one kind that begin at p.
const unsigned char* run_end(const Kinds& kinds, const unsigned char* p, const unsigned char* end, unsigned char kind) {
  const unsigned char* const ascii = kinds.ascii();
  while (p < end) {
    const unsigned char* next = p + 1;
    if (((*p < 0x80 ? ascii[*p] : kinds(utf8_next(next = p))) & kOfPattern) != kind) break;
    p = next;
  }
  return p;
}

// Bytes of a contraction at p, 0 where there is none.
std::size_t contraction(const unsigned char* p, const unsigned char* end) {
  for (const char* text : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    const std::size_t n = std::strlen(text);
    if (static_cast<std::size_t>(end - p) >= n && !std::memcmp(p, text, n)) return n;
  }
  return 0;
}

}  // namespace

const unsigned char* word_end(const Kinds& kinds, const unsigned char* p, const unsigned char* end) {
  if (*p == '\'')
    if (const std::size_t n = contraction(p, end)) return p + n;
  const unsigned char* const body = p + (*p == ' ' && end - p > 1);  // what the one space stands before
  const unsigned char kind = kind_at(kinds, body);
  if (kind != kSpace) return run_end(kinds, body, end, kind);
  const unsigned char* const spaces = run_end(kinds, p, end, kSpace);
  if (spaces == end) return end;
  // The last space before something goes with that, or stands alone.
  const unsigned char* last = spaces - 1;
  while ((*last & 0xc0) == 0x80) --last;
  return last > p ? last : spaces;
}

}  // namespace refimpl
