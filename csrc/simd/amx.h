// Tile verbs for AMX with bfloat16. Included inside the tier's target region, after simd/bf16.h.
//
// Eight tiles of 16 rows of 64 bytes, in fixed roles: a block of sums is 2 x 2 tiles of 16 x 16 float32
// (I, J); their rows come from two tiles of 16 x 32 bfloat16 (I), their columns from two tiles of 16
// pairs x 16 columns (J). The intrinsics want tile numbers as literals.
namespace refimpl::amx {

using namespace refimpl::bf16_vectors;

struct alignas(64) TileConfig {
  unsigned char palette = 1, start_row = 0, reserved[14] = {};
  unsigned short row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// Static: gcc 12 thinks that only 8 bytes of it are read, and drops the stores that fill a local one.
static const TileConfig tile_config;

// Tiles are configured while this lives, and zero at first. Without it a tile instruction is an
// illegal one; if they stayed configured, each context switch would save 8 KiB more.
struct Tiles {
  REFIMPL_INLINE Tiles() {
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(&tile_config);
  }
  REFIMPL_INLINE ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;

  template <int I, int J>
  REFIMPL_INLINE void zero_sums() {
    if constexpr (I == 0 && J == 0) _tile_zero(0);
    if constexpr (I == 0 && J == 1) _tile_zero(1);
    if constexpr (I == 1 && J == 0) _tile_zero(2);
    if constexpr (I == 1 && J == 1) _tile_zero(3);
  }

  template <int I, int J>
  REFIMPL_INLINE void store_sums(float* p, std::size_t row_bytes) {
    if constexpr (I == 0 && J == 0) _tile_stored(0, p, row_bytes);
    if constexpr (I == 0 && J == 1) _tile_stored(1, p, row_bytes);
    if constexpr (I == 1 && J == 0) _tile_stored(2, p, row_bytes);
    if constexpr (I == 1 && J == 1) _tile_stored(3, p, row_bytes);
  }

  // The compiler does not know that tile loads read memory: what was written before them has to be there.
  template <int I, int J>
  REFIMPL_INLINE void load_sums(const float* p, std::size_t row_bytes) {
    __asm__ volatile("" ::: "memory");
    if constexpr (I == 0 && J == 0) _tile_loadd(0, p, row_bytes);
    if constexpr (I == 0 && J == 1) _tile_loadd(1, p, row_bytes);
    if constexpr (I == 1 && J == 0) _tile_loadd(2, p, row_bytes);
    if constexpr (I == 1 && J == 1) _tile_loadd(3, p, row_bytes);
  }

  template <int I>
  REFIMPL_INLINE void load_rows(const void* p, std::size_t row_bytes) {
    __asm__ volatile("" ::: "memory");
    if constexpr (I == 0) _tile_loadd(4, p, row_bytes);
    if constexpr (I == 1) _tile_loadd(5, p, row_bytes);
  }

  template <int J>
  REFIMPL_INLINE void load_columns(const void* p) {
    __asm__ volatile("" ::: "memory");
    if constexpr (J == 0) _tile_loadd(6, p, kTileLine);
    if constexpr (J == 1) _tile_loadd(7, p, kTileLine);
  }

  // The same, with the hint that they come from the L2 cache and are not worth a place in L1.
  template <int J>
  REFIMPL_INLINE void stream_columns(const void* p) {
    __asm__ volatile("" ::: "memory");
    if constexpr (J == 0) _tile_stream_loadd(6, p, kTileLine);
    if constexpr (J == 1) _tile_stream_loadd(7, p, kTileLine);
  }

  // Rows of columns that are so many bytes apart.
  template <int J>
  REFIMPL_INLINE void load_columns(const void* p, std::size_t row_bytes) {
    __asm__ volatile("" ::: "memory");
    if constexpr (J == 0) _tile_loadd(6, p, row_bytes);
    if constexpr (J == 1) _tile_loadd(7, p, row_bytes);
  }

  // sums (I, 0) and (I, 1) += rows I x columns of integers: unsigned bytes times signed ones, exact.
  template <int I>
  REFIMPL_INLINE void dot_bytes() {
    if constexpr (I == 0) {
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
    } else {
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
    }
  }
  template <int I, int J>
  REFIMPL_INLINE void store_sums(std::int32_t* p, std::size_t row_bytes) {
    store_sums<I, J>(reinterpret_cast<float*>(p), row_bytes);
  }

  // sums (I, 0) and (I, 1) += rows I x columns. Each pair of a tile's row is two chains of fma over its 16
  // pairs from zero, which are added to one another, then to the sum. Subnormal numbers, in and out, are zero.
  template <int I>
  REFIMPL_INLINE void dot() {
    if constexpr (I == 0) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    } else {
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
};

}  // namespace refimpl::amx
