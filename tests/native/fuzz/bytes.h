// What a fuzzer's bytes are taken for, and what every call of the C interface owes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "modernbert.h"

namespace fuzz {

class Bytes {
 public:
  Bytes(const unsigned char* data, std::size_t size) : p_(data), end_(data + size) {}

  template <class T>
  T take() {
    T value{};
    const std::size_t n = std::min(sizeof value, static_cast<std::size_t>(end_ - p_));
    std::memcpy(&value, p_, n);
    p_ += n;
    return value;
  }
  // Mostly small, now and then anything.
  std::int64_t number(std::int64_t below) {
    const auto kind = take<std::uint8_t>();
    return kind < 8 ? take<std::int64_t>() : kind % below;
  }
  bool once_in(unsigned n) { return take<std::uint8_t>() % n == 0; }

 private:
  const unsigned char *p_, *end_;
};

inline void check(int status) {
  if (status < MODERNBERT_OK || status >= MODERNBERT_INTERNAL) std::abort();
  if (status != MODERNBERT_OK && !*modernbert_last_error()) std::abort();
}

inline std::size_t maybe_wrong(Bytes& bytes, std::size_t size) { return bytes.once_in(32) ? bytes.take<std::size_t>() : size; }

// An input of whatever the bytes say, over arrays of `room` entries. Its ids and embeddings are the caller's to give.
struct Drawn {
  std::vector<std::int64_t> cu, ids, positions;
  std::vector<unsigned char> visible;
  modernbert_input input{};
  std::int64_t total;  // below 0 where there is none

  Drawn(Bytes& bytes, std::size_t room) : cu(room, 0), ids(room), positions(room), visible(room) {
    input.struct_size = maybe_wrong(bytes, sizeof input);
    input.sequences = bytes.once_in(32) ? -bytes.take<std::uint8_t>() : bytes.take<std::uint8_t>() % 6;
    for (std::size_t s = 1; s < 7; ++s)
      if (bytes.once_in(32) || __builtin_add_overflow(cu[s - 1], bytes.number(9), &cu[s])) cu[s] = bytes.take<std::int64_t>();
    for (auto& id : ids) id = bytes.once_in(64) ? bytes.take<std::int64_t>() : bytes.take<std::uint8_t>() % 3;
    for (auto& p : positions) p = bytes.number(100);
    for (auto& v : visible) v = bytes.take<std::uint8_t>() % 2;
    total = input.sequences < 0 ? -1 : cu[static_cast<std::size_t>(input.sequences)];
    input.cu_seqlens = bytes.once_in(64) ? nullptr : cu.data();
    if (bytes.once_in(2)) input.positions = positions.data();
    if (bytes.once_in(2)) input.visible = visible.data();
    if (bytes.once_in(16)) input.token_types = ids.data();
  }
  Drawn(const Drawn&) = delete;
  bool fits() const { return total >= 0 && total <= static_cast<std::int64_t>(ids.size()); }
};

}  // namespace fuzz
