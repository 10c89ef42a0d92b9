#include "text/bpe.h"

#include <cstring>
#include <queue>
#include <utility>

#include "base/utf8.h"

namespace refimpl {
namespace {

constexpr std::size_t kFew = 48;  // pieces of which the best pair is found by looking at all

std::uint64_t mixed(std::uint64_t x) {
  x *= 0x9e3779b97f4a7c15u;
  return x ^ x >> 32;
}

std::uint32_t hashed(std::string_view word) {
  std::uint64_t hash = word.size(), block = 0;
  std::size_t i = 0;
  for (; i + 8 <= word.size(); i += 8) {
    std::memcpy(&block, word.data() + i, 8);
    hash = mixed(hash ^ block);
  }
  block = 0;
  for (int shift = 0; i < word.size(); ++i, shift += 8)
    block |= static_cast<std::uint64_t>(static_cast<unsigned char>(word[i])) << shift;
  return static_cast<std::uint32_t>(mixed(mixed(hash) ^ block));
}

std::size_t power_of_two(std::size_t at_least) {
  std::size_t n = 1;
  while (n < at_least) n *= 2;
  return n;
}

void join_few(const Merges& merges, std::vector<Piece>& pieces) {
  Merges::Merge next[kFew];  // of piece i and the one after it
  std::size_t n = pieces.size();
  for (std::size_t i = 0; i + 1 < n; ++i) next[i] = merges.get(pieces[i].id, pieces[i + 1].id);
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i)
      if (next[i].rank < next[best].rank) best = i;
    if (next[best].rank == Merges::kNoRank) break;
    pieces[best] = {next[best].id, pieces[best].bytes + pieces[best + 1].bytes};
    --n;
    for (std::size_t i = best + 1; i < n; ++i) pieces[i] = pieces[i + 1];
    for (std::size_t i = best + 1; i + 1 < n; ++i) next[i] = next[i + 1];
    if (best + 1 < n) next[best] = merges.get(pieces[best].id, pieces[best + 1].id);
    if (best > 0) next[best - 1] = merges.get(pieces[best - 1].id, pieces[best].id);
  }
  pieces.resize(n);
}

void join_many(const Merges& merges, std::vector<Piece>& pieces) {
  struct Pair {
    std::uint32_t rank, left;
    std::int32_t id;
    bool operator>(const Pair& other) const { return std::make_pair(rank, left) > std::make_pair(other.rank, other.left); }
  };
  constexpr std::uint32_t kEnd = UINT32_MAX;
  const auto n = static_cast<std::uint32_t>(pieces.size());
  std::vector<std::uint32_t> after(n), before(n);  // neighbours that are left
  std::priority_queue<Pair, std::vector<Pair>, std::greater<Pair>> pairs;
  const auto consider = [&](std::uint32_t left) {
    if (after[left] == kEnd) return;
    const Merges::Merge merge = merges.get(pieces[left].id, pieces[after[left]].id);
    if (merge.rank != Merges::kNoRank) pairs.push({merge.rank, left, merge.id});
  };
  for (std::uint32_t i = 0; i < n; ++i) after[i] = i + 1 < n ? i + 1 : kEnd, before[i] = i ? i - 1 : kEnd;
  for (std::uint32_t i = 0; i < n; ++i) consider(i);
  while (!pairs.empty()) {
    const Pair pair = pairs.top();
    pairs.pop();
    Piece& left = pieces[pair.left];
    if (!left.bytes || after[pair.left] == kEnd) continue;
    const std::uint32_t right = after[pair.left];
    const Merges::Merge merge = merges.get(left.id, pieces[right].id);
    if (merge.rank != pair.rank || merge.id != pair.id) continue;  // of pieces that are joined by now
    left = {pair.id, left.bytes + pieces[right].bytes};
    pieces[right].bytes = 0;
    after[pair.left] = after[right];
    if (after[right] != kEnd) before[after[right]] = pair.left;
    consider(pair.left);
    if (before[pair.left] != kEnd) consider(before[pair.left]);
  }
  std::size_t kept = 0;
  for (std::uint32_t i = 0; i < n; ++i)
    if (pieces[i].bytes) pieces[kept++] = pieces[i];
  pieces.resize(kept);
}

}  // namespace

void Merges::reserve(std::size_t pairs) { entries_.assign(power_of_two(2 * pairs + 1), Entry{}); }

std::size_t Merges::place(std::uint64_t pair) const {
  const std::size_t mask = entries_.size() - 1;
  std::size_t i = mixed(pair) & mask;
  while (entries_[i].pair != pair && entries_[i].pair != UINT64_MAX) i = (i + 1) & mask;
  return i;
}

void Merges::put(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t pair = static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
                             static_cast<std::uint32_t>(right);
  entries_[place(pair)] = {pair, merge};
}

Merges::Merge Merges::get(std::int32_t left, std::int32_t right) const {
  return entries_[place(static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
                        static_cast<std::uint32_t>(right))]
      .merge;
}

void join_pieces(const Merges& merges, std::vector<Piece>& pieces) {
  if (pieces.size() <= kFew) {
    join_few(merges, pieces);
  } else {
    join_many(merges, pieces);
  }
}

ByteWords::ByteWords(const std::int32_t (&ids)[256], const std::vector<std::pair<std::string, std::int32_t>>& tokens,
                     Merges merges, bool whole)
    : merges_(std::move(merges)), whole_(whole), entries_(power_of_two(2 * tokens.size() + 1)) {
  std::memcpy(ids_, ids, sizeof ids_);
  alone_ = std::make_unique<std::atomic<unsigned char>[]>(entries_.size());
  for (const auto& [token, id] : tokens) {
    const std::uint32_t hash = hashed(token);
    std::size_t i = hash & (entries_.size() - 1);
    while (entries_[i].size) i = (i + 1) & (entries_.size() - 1);
    entries_[i] = {hash, static_cast<std::uint32_t>(pool_.size()), static_cast<std::uint32_t>(token.size()), id};
    pool_ += token;
  }
}

const ByteWords::Entry* ByteWords::find(std::string_view word) const {
  const std::uint32_t hash = hashed(word);
  for (std::size_t i = hash & (entries_.size() - 1); entries_[i].size; i = (i + 1) & (entries_.size() - 1)) {
    const Entry& entry = entries_[i];
    if (entry.hash == hash && entry.size == word.size() && !std::memcmp(pool_.data() + entry.at, word.data(), entry.size))
      return &entry;
  }
  return nullptr;
}

void ByteWords::joined(std::string_view word, std::vector<Piece>& out) const {
  thread_local std::vector<Piece> pieces;
  pieces.clear();
  for (const char c : word) pieces.push_back({ids_[static_cast<unsigned char>(c)], 1});
  join_pieces(merges_, pieces);
  out.insert(out.end(), pieces.begin(), pieces.end());
}

void ByteWords::encode(std::string_view word, std::vector<Piece>& out) const {
  const Entry* const entry = find(word);
  if (!entry) return joined(word, out);
  auto& alone = alone_[static_cast<std::size_t>(entry - entries_.data())];
  const unsigned char known = whole_ ? static_cast<unsigned char>(kYes) : alone.load(std::memory_order_relaxed);
  if (known == kYes) return out.push_back({entry->id, entry->size});
  const std::size_t first = out.size();
  joined(word, out);
  if (known == kUnknown)
    alone.store(out.size() == first + 1 && out[first].id == entry->id ? kYes : kNo, std::memory_order_relaxed);
}

CharacterWords::CharacterWords(const std::unordered_map<std::string, std::int32_t>& tokens,
                               const std::int32_t (&byte_ids)[256], Merges merges)
    : merges_(std::move(merges)) {
  std::memcpy(byte_ids_, byte_ids, sizeof byte_ids_);
  for (const auto& [token, id] : tokens) {
    const auto* p = reinterpret_cast<const unsigned char*>(token.data());
    const unsigned char* const end = p + token.size();
    std::uint32_t last = p < end ? utf8_next(p) : 0;
    if (p == end && !token.empty()) ids_[last] = id;
    while (p < end) {
      const std::uint32_t point = utf8_next(p);
      if (point == kBlank) before_blank_[last] = true;
      last = point;
    }
  }
}

void CharacterWords::encode(std::string_view word, std::vector<Piece>& out) const {
  thread_local std::vector<Piece> pieces;
  pieces.clear();
  const auto done = [&] {
    join_pieces(merges_, pieces);
    out.insert(out.end(), pieces.begin(), pieces.end());
    pieces.clear();
  };
  const auto* p = reinterpret_cast<const unsigned char*>(word.data());
  const unsigned char* const end = p + word.size();
  bool apart = false;  // the character before is one that no token has before kBlank
  while (p < end) {
    const unsigned char* const begin = p;
    const std::uint32_t point = utf8_next(p);
    if (point == kBlank && apart) done();
    const auto known = ids_.find(point);
    apart = known != ids_.end() && !before_blank_.count(point);
    if (known != ids_.end()) {
      pieces.push_back({known->second, static_cast<std::uint32_t>(p - begin)});
    } else {
      for (const unsigned char* byte = begin; byte < p; ++byte) pieces.push_back({byte_ids_[*byte], 1});
    }
  }
  done();
}

}  // namespace refimpl
