// The tile verbs of simd/amx.h without tiles: by VDPBF16PS, which adds two products of bfloat16 numbers to each
// float32 of a vector. Included inside the tier's target region, after simd/bf16.h.
//
// A tile of rows or columns is where it stands in memory, and must stay as it is until its last product; the
// sums are in memory that belongs to Tiles. A product keeps 16 rows of sums in registers and reads each pair of a row
// as a broadcast: 288 loads for 256 instructions. Subnormal numbers, in and out, are zero, as in tiles.
namespace refimpl::avx512bf16 {

using namespace refimpl::bf16_vectors;

struct TileState {
  alignas(64) float sums[4][kTile * kTile];
  const char *rows[2], *columns[2];
  std::size_t row_bytes[2];
};
// A pointer in the memory that each thread has from its start: reading it is one instruction.
static thread_local TileState* tile_state __attribute__((tls_model("initial-exec"))) = nullptr;

// Sums are zero at first. One at a time in a thread.
struct Tiles {
  REFIMPL_INLINE Tiles() {
    __builtin_memset(state.sums, 0, sizeof state.sums);
    tile_state = &state;
  }
  REFIMPL_INLINE ~Tiles() { tile_state = nullptr; }
  Tiles(const Tiles&) = delete;
  TileState state;
};

template <int I, int J>
REFIMPL_INLINE void zero_sums() {
  __builtin_memset(tile_state->sums[2 * I + J], 0, kTileBytes);
}
template <int I, int J>
REFIMPL_INLINE void store_sums(float* p, std::size_t row_bytes) {
  for (std::size_t r = 0; r < kTile; ++r)
    store(p + r * row_bytes / sizeof(float), load(tile_state->sums[2 * I + J] + r * kTile));
}
template <int I, int J>
REFIMPL_INLINE void load_sums(const float* p, std::size_t row_bytes) {
  for (std::size_t r = 0; r < kTile; ++r)
    store(tile_state->sums[2 * I + J] + r * kTile, load(p + r * row_bytes / sizeof(float)));
}
template <int I>
REFIMPL_INLINE void load_rows(const void* p, std::size_t row_bytes) {
  tile_state->rows[I] = static_cast<const char*>(p), tile_state->row_bytes[I] = row_bytes;
}
template <int J>
REFIMPL_INLINE void load_columns(const void* p) {
  tile_state->columns[J] = static_cast<const char*>(p);
}
template <int J>
REFIMPL_INLINE void stream_columns(const void* p) {
  load_columns<J>(p);
}

// sums += rows x columns: each element one chain over its 16 pairs.
template <int I, int J>
REFIMPL_INLINE void dot() {
  float* sums = tile_state->sums[2 * I + J];
  const char *rows = tile_state->rows[I], *columns = tile_state->columns[J];
  const std::size_t row_bytes = tile_state->row_bytes[I];
  __m512 sum[kTile];
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kTile; ++r) sum[r] = load(sums + r * kTile).v;
#pragma GCC unroll 1
  for (std::size_t pair = 0; pair < kTile; ++pair) {
    const __m512bh column = (__m512bh)_mm512_loadu_si512(columns + pair * kTileLine);
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kTile; ++r) {
      int two;
      __builtin_memcpy(&two, rows + r * row_bytes + pair * 4, 4);
      sum[r] = _mm512_dpbf16_ps(sum[r], (__m512bh)_mm512_set1_epi32(two), column);
    }
  }
#pragma GCC unroll 16
  for (std::size_t r = 0; r < kTile; ++r) store(sums + r * kTile, {sum[r]});
}

}  // namespace refimpl::avx512bf16
