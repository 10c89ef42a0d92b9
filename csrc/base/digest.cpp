#include "base/digest.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace refimpl {
namespace {

constexpr std::uint64_t kPrimes[] = {0x9e3779b185ebca87, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, 0x85ebca77c2b2ae63,
                                     0x27d4eb2f165667c5};

std::uint64_t turned(std::uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

// Little-endian, on any machine.
std::uint64_t number(const unsigned char* p, int bytes) {
  std::uint64_t x = 0;
  for (int i = bytes - 1; i >= 0; --i) x = x << 8 | p[i];
  return x;
}

std::uint64_t round_of(std::uint64_t lane, std::uint64_t input) {
  return turned(lane + input * kPrimes[1], 31) * kPrimes[0];
}

void stripe(std::uint64_t (&lanes)[4], const unsigned char* p) {
  for (int i = 0; i < 4; ++i) lanes[i] = round_of(lanes[i], number(p + 8 * i, 8));
}

}  // namespace

void Digest::add(const void* bytes, std::size_t count) {
  const unsigned char* p = static_cast<const unsigned char*>(bytes);
  total_ += count;
  if (held_) {
    const std::size_t more = std::min(count, kStripe - held_);
    std::memcpy(rest_ + held_, p, more);
    held_ += more, p += more, count -= more;
    if (held_ < kStripe) return;
    stripe(lanes_, rest_), held_ = 0;
  }
  for (; count >= kStripe; p += kStripe, count -= kStripe) stripe(lanes_, p);
  if (count) std::memcpy(rest_, p, count);
  held_ = count;
}

std::uint64_t Digest::value() const {
  std::uint64_t h = lanes_[2] + kPrimes[4];
  if (total_ >= kStripe) {
    h = turned(lanes_[0], 1) + turned(lanes_[1], 7) + turned(lanes_[2], 12) + turned(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) h = (h ^ round_of(0, lane)) * kPrimes[0] + kPrimes[3];
  }
  h += total_;
  const unsigned char* p = rest_;
  std::size_t left = held_;
  for (; left >= 8; p += 8, left -= 8) h = turned(h ^ round_of(0, number(p, 8)), 27) * kPrimes[0] + kPrimes[3];
  for (; left >= 4; p += 4, left -= 4) h = turned(h ^ number(p, 4) * kPrimes[0], 23) * kPrimes[1] + kPrimes[2];
  for (; left; ++p, --left) h = turned(h ^ *p * kPrimes[4], 11) * kPrimes[0];
  h = (h ^ h >> 33) * kPrimes[1];
  h = (h ^ h >> 29) * kPrimes[2];
  return h ^ h >> 32;
}

std::string Digest::text() const {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value()));
  return digits;
}

}  // namespace refimpl
