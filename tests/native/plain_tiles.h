// AMX's tiles in plain C++, in the place of the intrinsics: the amx tier on a processor that has
// AVX512_BF16 and no tiles.
//
//   c++ -include tests/native/plain_tiles.h ...    of csrc/tiers/amx.cpp and of the driver kernels.cpp
//
// The numbers are the instructions' own: two chains of fma over a row's pairs, added to one another and
// then to the sum; subnormal numbers in and out are zero; of bytes, integers. A tile that is used while none are configured
// ends the program, as the instruction would. Not shown: speed, and what an operating system does to tiles.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define REFIMPL_PLAIN_TILES

namespace plain_tiles {

inline thread_local unsigned char tiles[8][16][64];
inline thread_local bool configured = false;

inline void configure(bool on) {
  configured = on;
  std::memset(tiles, 0, sizeof tiles);
}
inline void used() {
  if (!configured) std::abort();
}
inline void load(int tile, const void* p, std::size_t row_bytes) {
  used();
  for (std::size_t r = 0; r < 16; ++r) std::memcpy(tiles[tile][r], static_cast<const char*>(p) + r * row_bytes, 64);
}
inline void store(int tile, void* p, std::size_t row_bytes) {
  used();
  for (std::size_t r = 0; r < 16; ++r) std::memcpy(static_cast<char*>(p) + r * row_bytes, tiles[tile][r], 64);
}
inline void zero(int tile) {
  used();
  std::memset(tiles[tile], 0, sizeof tiles[tile]);
}

inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
inline float number(const unsigned char* line, std::size_t i) {
  std::uint16_t half;
  std::memcpy(&half, line + 2 * i, 2);
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return flushed(x);
}
inline void dot(int sums, int rows, int columns) {
  used();
  for (std::size_t m = 0; m < 16; ++m)
    for (std::size_t n = 0; n < 16; ++n) {
      float even = 0.0f, odd = 0.0f, sum;
      for (std::size_t k = 0; k < 16; ++k) {
        even = flushed(std::fma(number(tiles[rows][m], 2 * k), number(tiles[columns][k], 2 * n), even));
        odd = flushed(std::fma(number(tiles[rows][m], 2 * k + 1), number(tiles[columns][k], 2 * n + 1), odd));
      }
      std::memcpy(&sum, tiles[sums][m] + 4 * n, 4);
      sum = flushed(flushed(sum) + flushed(even + odd));
      std::memcpy(tiles[sums][m] + 4 * n, &sum, 4);
    }
}

inline void dot_bytes(int sums, int rows, int columns) {
  used();
  for (std::size_t m = 0; m < 16; ++m)
    for (std::size_t n = 0; n < 16; ++n) {
      std::int32_t sum;
      std::memcpy(&sum, tiles[sums][m] + 4 * n, 4);
      for (std::size_t k = 0; k < 64; ++k)
        sum += tiles[rows][m][k] * static_cast<signed char>(tiles[columns][k / 4][4 * n + k % 4]);
      std::memcpy(tiles[sums][m] + 4 * n, &sum, 4);
    }
}

}  // namespace plain_tiles

namespace refimpl {
inline bool plain_tiles_have_int8() { return true; }
}  // namespace refimpl

#define has_amx_int8 plain_tiles_have_int8
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#define _tile_loadconfig(config) plain_tiles::configure((config) != nullptr)
#define _tile_release() plain_tiles::configure(false)
#define _tile_zero(tile) plain_tiles::zero(tile)
#define _tile_loadd(tile, p, row_bytes) plain_tiles::load(tile, p, row_bytes)
#define _tile_stream_loadd(tile, p, row_bytes) plain_tiles::load(tile, p, row_bytes)
#define _tile_stored(tile, p, row_bytes) plain_tiles::store(tile, p, row_bytes)
#define _tile_dpbf16ps(sums, rows, columns) plain_tiles::dot(sums, rows, columns)
#define _tile_dpbusd(sums, rows, columns) plain_tiles::dot_bytes(sums, rows, columns)
