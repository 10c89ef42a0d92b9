// What a fuzzer's bytes are taken for, and what every call of the C interface owes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

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

}  // namespace fuzz
