#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"

namespace refimpl {
namespace {

const unsigned char* bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

// The start of the character that ends before `end`.
std::size_t before(std::string_view text, std::size_t end) {
  do --end;
  while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
  return end;
}

unsigned char kind_at(std::string_view text, std::size_t i) {
  const unsigned char* p = bytes(text) + i;
  return Kinds::table()(utf8_next(p));
}

bool word_before(std::string_view text, std::size_t i) { return i > 0 && kind_at(text, before(text, i)) & kWord; }
bool word_at(std::string_view text, std::size_t i) { return i < text.size() && kind_at(text, i) & kWord; }

std::size_t spaces_before(std::string_view text, std::size_t i, std::size_t first) {
  while (i > first && kind_at(text, before(text, i)) & kSpace) i = before(text, i);
  return std::max(i, first);
}

std::size_t spaces_after(std::string_view text, std::size_t i) {
  while (i < text.size() && kind_at(text, i) & kSpace) {
    const unsigned char* p = bytes(text) + i;
    utf8_next(p);
    i = static_cast<std::size_t>(p - bytes(text));
  }
  return i;
}

}  // namespace

std::uint32_t Longest::next(std::uint32_t node, unsigned char byte) const {
  std::uint32_t child = nodes_[node].child;
  while (child != kNone && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

void Longest::add(std::string_view text, std::uint32_t value) {
  const unsigned char* const p = bytes(text);
  if (text.size() == 1) {
    for (unsigned second = 0; second < 256; ++second) begins_.set(p[0] << 8 | second);
  } else {
    begins_.set(static_cast<std::size_t>(p[0] << 8 | p[1]));
  }
  std::uint32_t node = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::uint32_t child = next(node, p[i]);
    if (child == kNone) {
      child = static_cast<std::uint32_t>(nodes_.size());
      Node made;
      made.sibling = nodes_[node].child;
      made.byte = p[i];
      nodes_.push_back(made);
      nodes_[node].child = child;
    }
    node = child;
  }
  nodes_[node].value = value;
}

std::pair<std::uint32_t, std::size_t> Longest::at(std::string_view text, std::size_t at) const {
  const unsigned char* const p = bytes(text);
  std::pair<std::uint32_t, std::size_t> best{0, 0};
  const unsigned second = at + 1 < text.size() ? p[at + 1] : 0;
  if (!begins_[static_cast<std::size_t>(p[at] << 8) | second]) return best;
  std::uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    node = next(node, p[i]);
    if (node == kNone) break;
    if (nodes_[node].value != kNone) best = {nodes_[node].value, i + 1 - at};
  }
  return best;
}

Search::Search(std::vector<AddedToken> tokens, const std::vector<std::string>& contents) : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < contents.size(); ++i) longest_.add(contents[i], static_cast<std::uint32_t>(i));
}

void Search::cut(std::string_view text, bool split_special, std::vector<Found>& out) const {
  std::size_t taken = 0;
  for (std::size_t i = 0; i < text.size();) {
    const auto [number, size] = longest_.at(text, i);
    if (!size) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[number];
    std::size_t begin = i, end = i + size;
    i = end;
    if (split_special && token.special) continue;
    if (token.single_word && (word_before(text, begin) || word_at(text, end))) continue;
    if (token.lstrip) begin = spaces_before(text, begin, taken);
    if (token.rstrip) end = spaces_after(text, end);
    if (begin > taken) out.push_back({taken, begin, -1});
    out.push_back({begin, end, token.id});
    taken = end;
    i = std::max(i, taken);
  }
  if (taken < text.size()) out.push_back({taken, text.size(), -1});
}

}  // namespace refimpl
