#include "text/unicode.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/utf8.h"

namespace refimpl {
namespace {

// A code point has 21 bits.
struct Run {
  std::uint32_t first : 24, value : 8;
};
class Split {
 public:
  constexpr Split(std::uint64_t point, std::uint64_t a, std::uint64_t b, std::uint64_t c, std::uint64_t d)
      : low_(point | a << 21 | b << 42), high_(c | d << 21) {}
  std::uint32_t point() const { return number(low_); }
  std::uint32_t part(int i) const { return number(i < 2 ? low_ >> (21 + 21 * i) : high_ >> 21 * (i - 2)); }

 private:
  static std::uint32_t number(std::uint64_t bits) { return static_cast<std::uint32_t>(bits & 0x1fffff); }
  std::uint64_t low_, high_;
};
struct Join {
  std::uint32_t first, second, whole;
};

#include "text/unicode.inc"

constexpr std::uint32_t kPoints = 0x110000;
// Hangul syllables are arithmetic: 19 leading x 21 vowels x 28 trailing parts, the first of which is none.
constexpr std::uint32_t kSyllables = 0xac00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11a7;
constexpr std::uint32_t kLeadings = 19, kVowelCount = 21, kTrailings = 28;

bool syllable(std::uint32_t point) { return point - kSyllables < kLeadings * kVowelCount * kTrailings; }

int mark(std::uint32_t point) {
  const Run* after = std::upper_bound(std::begin(kMarks), std::end(kMarks), point,
                                      [](std::uint32_t p, const Run& run) { return p < run.first; });
  return (after - 1)->value;
}

// 0: they do not compose.
std::uint32_t joined(std::uint32_t a, std::uint32_t b) {
  if (a - kLeading < kLeadings && b - kVowels < kVowelCount)
    return kSyllables + ((a - kLeading) * kVowelCount + (b - kVowels)) * kTrailings;
  if (syllable(a) && (a - kSyllables) % kTrailings == 0 && b - kTrailing - 1 < kTrailings - 1)
    return a + (b - kTrailing);
  const auto key = std::make_pair(a, b);
  const Join* found = std::lower_bound(std::begin(kJoins), std::end(kJoins), key, [](const Join& join, const auto& k) {
    return std::make_pair(join.first, join.second) < k;
  });
  return found != std::end(kJoins) && found->first == a && found->second == b ? found->whole : 0;
}

// A character on its way; change: characters that it adds to the text as given (1), or takes away (< 0).
struct Part {
  std::uint32_t point;
  int change;
  int mark;
};

void decompose(std::uint32_t point, std::vector<Part>& out) {
  const auto add = [&](std::uint32_t part, int change) { out.push_back({part, change, mark(part)}); };
  if (syllable(point)) {
    const std::uint32_t i = point - kSyllables;
    add(kLeading + i / kTrailings / kVowelCount, 0);
    add(kVowels + i / kTrailings % kVowelCount, 1);
    if (i % kTrailings) add(kTrailing + i % kTrailings, 1);
    return;
  }
  const Split* found = std::lower_bound(std::begin(kSplits), std::end(kSplits), point,
                                        [](const Split& split, std::uint32_t p) { return split.point() < p; });
  if (found == std::end(kSplits) || found->point() != point) return add(point, 0);
  for (int i = 0; i < kLongest && found->part(i); ++i) add(found->part(i), i > 0);
}

// Marks between characters that are none, in the order of their classes.
void sort_marks(std::vector<Part>& parts) {
  for (auto p = parts.begin(); p != parts.end();) {
    const auto marks = std::find_if(p, parts.end(), [](const Part& part) { return part.mark; });
    p = std::find_if(marks, parts.end(), [](const Part& part) { return !part.mark; });
    std::stable_sort(marks, p, [](const Part& a, const Part& b) { return a.mark < b.mark; });
  }
}

// Each character with what follows it and is not kept from it by a mark of the same class or a higher one.
void compose(std::vector<Part>& parts) {
  std::size_t kept = 0, base = parts.size();  // of the last character that is no mark; none yet
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part part = parts[i];
    if (base < kept) {
      const bool beside = kept == base + 1;
      const bool blocked = !beside && (!part.mark || parts[kept - 1].mark >= part.mark);
      if (const std::uint32_t whole = blocked ? 0 : joined(parts[base].point, part.point)) {
        parts[base].point = whole;
        parts[base].change += part.change - 1;
        continue;
      }
    }
    if (!part.mark) base = kept;
    parts[kept++] = part;
  }
  parts.resize(kept);
}

// Every text of characters without kStirs is its own normal form: no mark, nothing that decomposes for good,
// nothing that joins what stands before it.
std::vector<unsigned char> kinds() {
  std::vector<unsigned char> out(kPoints);
  for (const Run* run = std::begin(kKinds); run != std::end(kKinds); ++run)
    std::fill(out.begin() + run->first, run + 1 == std::end(kKinds) ? out.end() : out.begin() + run[1].first, run->value);
  for (const Run* run = std::begin(kMarks); run != std::end(kMarks); ++run)
    if (run->value)
      for (std::uint32_t p = run->first; p < run[1].first; ++p) out[p] |= kStirs;
  for (const Split& split : kSplits) out[split.point()] |= kStirs;
  for (const Join& join : kJoins) out[join.whole] &= static_cast<unsigned char>(~kStirs);
  for (const Join& join : kJoins) out[join.second] |= kStirs;
  for (std::uint32_t p = kVowels; p < kTrailing + kTrailings; ++p) out[p] |= kStirs;
  return out;
}

bool plain(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const unsigned char* const end = p + text.size();
  const Kinds& kind = Kinds::table();
  while (p < end) {
    if (*p < 0xcc) {  // below U+0300 nothing stirs
      ++p;
    } else if (kind(utf8_next(p)) & kStirs) {
      return false;
    }
  }
  return true;
}

}  // namespace

Kinds::Kinds() : page_(kPoints >> 8) {
  const std::vector<unsigned char> all = kinds();
  for (std::size_t page = 0; page < page_.size(); ++page) {
    Page made;
    std::memcpy(made.at, all.data() + (page << 8), sizeof made.at);
    const auto same = std::find_if(pages_.rbegin(), pages_.rend(),
                                   [&](const Page& other) { return !std::memcmp(other.at, made.at, sizeof made.at); });
    page_[page] = static_cast<std::uint16_t>(same == pages_.rend() ? pages_.size() : pages_.rend() - same - 1);
    if (same == pages_.rend()) pages_.push_back(made);
  }
}

const Kinds& Kinds::table() {
  static const Kinds made;
  return made;
}

Normal nfc(std::string_view text) {
  Normal out;
  if (plain(text)) return out;
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const unsigned char *const begin = p, *const end = p + text.size();
  std::vector<Part> parts;
  std::vector<std::uint32_t> starts;  // of the given characters, and the end
  while (p < end) {
    starts.push_back(static_cast<std::uint32_t>(p - begin));
    decompose(utf8_next(p), parts);
  }
  starts.push_back(static_cast<std::uint32_t>(text.size()));
  sort_marks(parts);
  compose(parts);
  std::size_t next = 0;  // given character
  for (const Part& part : parts) {
    const std::size_t at = part.change > 0 && next > 0 ? next - 1 : next;
    append_utf8(out.text, part.point);
    out.from.resize(out.text.size(), starts[at]);
    out.to.resize(out.text.size(), starts[at + 1]);
    if (part.change <= 0) next += 1 + static_cast<std::size_t>(-part.change);
  }
  return out;
}

}  // namespace refimpl
