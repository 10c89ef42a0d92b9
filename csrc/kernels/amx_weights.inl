// Weights on AMX: how they are stored, and how the next ones come near while products run. Included inside
// the tier's namespace and target region, after simd/amx.h and rowwise.inl; amx_gemm.inl has the products.
//
// As products take it, a panel is two tiles per step of k and term: its first 16 columns, then the
// others. One and two terms are stored like that. Three would be 6 bytes a weight, and with few rows a
// product is as fast as memory: they are stored as one float32, and split beside the products, a step
// ahead of them: products read these terms from the L1 cache.

template <int T>
struct Terms {
  static constexpr int count = T;
  static constexpr bool stored = T < 3;
};

constexpr std::size_t kLanes = f32::lanes;
constexpr std::size_t kPanel = 2 * kLanes;
constexpr std::size_t kPairs = 2 * kTileDepth / 2;  // of a step: rows of both tiles
constexpr std::size_t kPairBytes = 2 * kTileLine;   // of two rows of 16 float32

inline std::size_t steps_of(std::size_t k) { return ceil_div(k, kTileDepth); }

// -- stored ---------------------------------------------------------------------------------------

template <class W>
constexpr std::size_t kStepBytes = W::stored ? W::count * 2 * kTileBytes : kPairs * kPairBytes;

template <class W>
inline std::size_t packed_bytes(const Packing& p) {
  return panels_of(p, kLanes) * steps_of(p.k) * kStepBytes<W>;
}

inline bool is_finite(float x) { return x - x == 0.0f; }

// x as T terms, the largest first. Where the first one is Inf or NaN, it stands in the last place, which
// meets nothing but first terms, and the others are 0: elsewhere it would meet zeros and low parts of
// any sign, and Inf would become NaN.
template <int T>
inline void split(float x, bf16 (&terms)[T]) {
  const bool finite = is_finite(to_float(to_bf16(x)));
  for (int t = 0; t + 1 < T; ++t) {
    terms[t] = finite ? to_bf16(x) : bf16{0};
    x -= to_float(terms[t]);
  }
  terms[T - 1] = to_bf16(x);
}

// Where number j of a step's 32 stands: in which pair, and on which side of it. One that is split stands beside
// that which is 16 further on: two vectors make a row of pairs without a shuffle.
template <class W>
constexpr std::size_t pair_of(std::size_t j) { return W::count == 1 ? j / 2 : j % kTile; }
template <class W>
constexpr std::size_t side_of(std::size_t j) { return W::count == 1 ? j % 2 : j / kTile; }

// As float32 that is split later: what bfloat16 rounds to Inf is Inf.
REFIMPL_INLINE f32 as_stored(f32 x) {
  const __mmask16 infinite = _mm512_cmp_ps_mask(abs(x).v, _mm512_set1_ps(3.39617752e38f), _CMP_GE_OQ);
  return {_mm512_mask_mov_ps(x.v, infinite, copysign(set1(__builtin_inff()), x).v)};
}

// A column's 32 weights of a step, as lane i of one half. Those that are split later stand as float32, row by row
// of pairs; what bfloat16 rounds to Inf is Inf there.
template <class W>
inline void put(const float (&column)[kTileDepth], std::size_t half, std::size_t i, char* step) {
  for (std::size_t j = 0; j < kTileDepth; ++j) {
    const std::size_t pair = pair_of<W>(j), side = side_of<W>(j);
    if constexpr (W::stored) {
      bf16 terms[W::count];
      split(column[j], terms);
      bf16* tile = reinterpret_cast<bf16*>(step + half * kTileBytes) + pair * 2 * kTile + i * 2 + side;
      for (int t = 0; t < W::count; ++t) tile[t * kTileBytes] = terms[t];  // 2 tiles further, of 2 bytes each
    } else {
      const float rounded = to_float(to_bf16(column[j]));
      reinterpret_cast<float*>(step)[half * kTileDepth * kTile + pair * 2 * kTile + side * kTile + i] =
          is_finite(rounded) ? column[j] : rounded;
    }
  }
}

// 16 columns' 32 weights of a step, `ld` apart, as one half: the same, whole vectors at a time. False where it cannot.
template <class W>
REFIMPL_INLINE bool put_half(const Tensor& w, std::size_t at, std::size_t ld, std::size_t half, char* step) {
  if constexpr (W::count == 2) return false;
  if (w.storage == Storage::float16 || (w.storage == Storage::bfloat16 && W::count != 1)) return false;
  __m512i rows[kTile], lines[kTile];
  if constexpr (W::count == 1) {
    for (std::size_t i = 0; i < kTile; ++i, at += ld) {
      if (w.storage == Storage::bfloat16) {
        rows[i] = _mm512_loadu_si512(static_cast<const bf16*>(w.data) + at);
        continue;
      }
      const float* x = static_cast<const float*>(w.data) + at;
      rows[i] = _mm512_inserti64x4(_mm512_castsi256_si512(narrow(load(x))), narrow(load(x + kTile)), 1);
    }
    transpose(rows, lines);
    for (std::size_t pair = 0; pair < kTile; ++pair) _mm512_storeu_si512(step + half * kTileBytes + pair * kTileLine, lines[pair]);
  } else {
    for (std::size_t side = 0; side < 2; ++side) {
      for (std::size_t i = 0; i < kTile; ++i)
        rows[i] = _mm512_castps_si512(as_stored(load(static_cast<const float*>(w.data) + at + i * ld + side * kTile)).v);
      transpose(rows, lines);
      for (std::size_t pair = 0; pair < kTile; ++pair)
        _mm512_storeu_si512(step + half * 2 * kTileBytes + pair * kPairBytes + side * kTileLine, lines[pair]);
    }
  }
  return true;
}

template <class W>
inline void pack(const Packing& p, const Tensor& w, std::size_t panel0, std::size_t panel1, void* packed) {
  const std::size_t steps = steps_of(p.k);
  char* at = static_cast<char*>(packed) + panel0 * steps * kStepBytes<W>;
  for (std::size_t panel = panel0; panel < panel1; ++panel) {
    const PanelColumns c = columns_of(p, panel, kLanes);
    for (std::size_t step = 0; step < steps; ++step, at += kStepBytes<W>) {
      const std::size_t k0 = step * kTileDepth, depth = p.k - k0 < kTileDepth ? p.k - k0 : kTileDepth;
      for (std::size_t half = 0; half < 2; ++half) {
        const std::size_t first = half ? c.second : c.first, there = static_cast<std::size_t>(half ? c.n_second : c.n_first);
        if (there == kLanes && depth == kTileDepth && put_half<W>(w, first * p.k + k0, p.k, half, at)) continue;
        for (std::size_t i = 0; i < kLanes; ++i) {
          float column[kTileDepth] = {};
          if (i < there) widen(w, (first + i) * p.k + k0, depth, column);
          put<W>(column, half, i, at);
        }
      }
    }
  }
}

// Rows of W' are what tiles want: two of them are a row of pairs.
template <class W>
inline void pack_turned(const Packing& p, const float* w, std::size_t panel0, std::size_t panel1, void* packed) {
  const std::size_t steps = steps_of(p.k);
  for (std::size_t step = 0; step < steps; ++step) {  // the panels' pieces of a row lie side by side
    const std::size_t k0 = step * kTileDepth, depth = p.k - k0 < kTileDepth ? p.k - k0 : kTileDepth;
    for (std::size_t panel = panel0; panel < panel1; ++panel) {
      const PanelColumns c = columns_of(p, panel, kLanes);
      char* const at = static_cast<char*>(packed) + (panel * steps + step) * kStepBytes<W>;
      for (std::size_t half = 0; half < 2; ++half) {
        const float* x = w + k0 * p.n + (half ? c.second : c.first);
        const int there = half ? c.n_second : c.n_first;
        const auto row = [&](std::size_t j) { return j < depth && there ? load_first(x + j * p.n, there) : set1(0.0f); };
        if constexpr (W::count == 1) {
          for (std::size_t j = 0; j < kTileDepth; j += 2)
            _mm512_storeu_si512(at + half * kTileBytes + j / 2 * kTileLine, pairs(narrow(row(j)), narrow(row(j + 1))));
        } else if constexpr (W::count == 3) {
          for (std::size_t j = 0; j < kTileDepth; ++j)
            store(reinterpret_cast<float*>(at + half * 2 * kTileBytes + pair_of<W>(j) * kPairBytes + side_of<W>(j) * kTileLine),
                  as_stored(row(j)));
        } else {
          float rows[kTileDepth][kLanes], column[kTileDepth];
          for (std::size_t j = 0; j < kTileDepth; ++j) store(rows[j], row(j));
          for (std::size_t i = 0; i < kLanes; ++i) {
            for (std::size_t j = 0; j < kTileDepth; ++j) column[j] = rows[j][i];
            put<W>(column, half, i, at);
          }
        }
      }
    }
  }
}

// -- at work --------------------------------------------------------------------------------------

// The panels of one call, in groups of equal size that stay in the L2 cache. While a group is at work, for so many
// blocks of rows, the group that starts with panel `next` comes nearer: evenly, as a burst would wait for memory.
// `ours` tells whether that is one of this call's; it may be Range::kNone. A call's first group, which other rows may
// have brought or not, comes while the first block of rows passes it.
template <class W>
class Coming {
 public:
  const std::size_t group;

  static std::size_t scratch_bytes(std::size_t) { return 0; }
  Coming(const Gemm& g, const Range& range, char*)
      : group(range.row1 - range.row0 <= kFewRows ? 1 : equal_groups(range.panel1 - range.panel0, kGroupBytes / bytes_of(g))),
        bytes_(bytes_of(g)), left_(group * steps_of(g.packing.k)), all_(panels_of(g.packing, kLanes)),
        packed_(static_cast<const char*>(g.packed)) {}

  void begin(std::size_t panel0, std::size_t panel1, std::size_t next, bool, std::size_t blocks) {
    const std::size_t coming = next >= all_ ? 0 : all_ - next < group ? all_ - next : group;
    ahead_ = until_ = packed_ + (coming ? next : 0) * bytes_;
    pace_ = ceil_div(coming * kStepBytes<W>, (panel1 - panel0) * blocks);
  }
  // The tiles of a step of a panel, before its products.
  REFIMPL_INLINE const char* tiles(std::size_t panel, std::size_t step) {
    for (until_ += pace_; ahead_ < until_; ahead_ += kTileLine) __builtin_prefetch(ahead_, 0, 2);
    const char* now = packed_ + panel * bytes_ + step * kStepBytes<W>;
    if (left_) {
      --left_;
      for (std::size_t i = 0; i < kStepBytes<W>; i += kTileLine) __builtin_prefetch(now + kNear + i, 0, 2);
    }
    return now;
  }
  // After the i-th of these products.
  REFIMPL_INLINE void beside(std::size_t, std::size_t) {}

 private:
  // Two groups stand in L2 beside the rows. At k = 768 and T = 1 a group has up to 3 panels of 48 KiB each.
  static constexpr std::size_t kGroupBytes = 144 << 10;
  // Few rows take a panel about as fast as memory brings the next one: a larger group would come late.
  static constexpr std::size_t kFewRows = 128;
  static constexpr std::size_t kNear = 8 << 10;  // from 2 KiB on any distance streams as fast
  static std::size_t bytes_of(const Gemm& g) { return steps_of(g.packing.k) * kStepBytes<W>; }
  static std::size_t equal_groups(std::size_t panels, std::size_t most) {
    return panels && most ? ceil_div(panels, ceil_div(panels, most)) : 1;
  }

  const std::size_t bytes_;
  std::size_t left_;  // steps of the first group that were not met yet
  const std::size_t all_;
  const char* const packed_;
  const char *ahead_ = nullptr, *until_ = nullptr;
  std::size_t pace_ = 0;
};

// Two vectors of numbers as a row of pairs of T terms, one `term_bytes` after the other: the first vector's bits
// below. Terms are rounded to the nearest, ties away from zero; a third one is exact. Numbers are finite, and
// bfloat16 rounds none to Inf.
template <int T>
REFIMPL_INLINE void split_finite(f32 a, f32 b, char* to, std::size_t term_bytes) {
  const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-65536);
  for (int t = 0; t < T; ++t, to += term_bytes) {
    __m512i first = _mm512_castps_si512(a.v), second = _mm512_castps_si512(b.v);
    if (t < 2) first = _mm512_add_epi32(first, half), second = _mm512_add_epi32(second, half);
    second = _mm512_and_si512(second, upper);
    _mm512_storeu_si512(to, _mm512_or_si512(_mm512_srli_epi32(first, 16), second));
    if (t + 1 == T) return;
    first = _mm512_and_si512(first, upper);
    a = sub(a, {_mm512_castsi512_ps(first)}), b = sub(b, {_mm512_castsi512_ps(second)});
  }
}

// Two rows of 16 weights as a row of three tiles. Inf and NaN stand as in the other splits.
REFIMPL_INLINE void split_pair(const float* from, char* to) {
  constexpr int kInfOrNan = 0x99;  // of vfpclassps
  f32 a = load(from), b = load(from + kTile);
  const __mmask16 odd_a = _mm512_fpclass_ps_mask(a.v, kInfOrNan), odd_b = _mm512_fpclass_ps_mask(b.v, kInfOrNan);
  if (!__builtin_expect(odd_a | odd_b, 0)) return split_finite<3>(a, b, to, 2 * kTileBytes);
  a.v = _mm512_mask_mov_ps(a.v, odd_a, _mm512_setzero_ps()), b.v = _mm512_mask_mov_ps(b.v, odd_b, _mm512_setzero_ps());
  split_finite<3>(a, b, to, 2 * kTileBytes);
  bf16* third = reinterpret_cast<bf16*>(to + 2 * 2 * kTileBytes);
  for (std::size_t i = 0; i < 2 * kTile; ++i)
    if ((i < kTile ? odd_a >> i : odd_b >> (i - kTile)) & 1) third[i % kTile * 2 + i / kTile] = to_bf16(from[i]);
}

// The same where panels are split. The first block of rows splits a panel step by step, so that its products find
// the terms in the L1 cache. Where it is the only block, two steps take turns in memory, and the last step splits the
// first one of the next panel; where there are more blocks, all steps are kept for them, and they fetch that panel.
template <>
class Coming<Terms<3>> {
 public:
  static constexpr std::size_t group = 1;

  static std::size_t scratch_bytes(std::size_t k) { return (steps_of(k) + 1) * kSplitBytes; }
  Coming(const Gemm& g, const Range&, char* scratch)
      : all_(panels_of(g.packing, kLanes)), steps_(steps_of(g.packing.k)), packed_(static_cast<const char*>(g.packed)),
        split_(scratch) {}

  void begin(std::size_t panel, std::size_t, std::size_t next, bool ours, std::size_t blocks) {
    const bool there = next_ == panel && blocks == 1;  // its first step
    first_ = there ? (first_ + steps_) % 2 : 0;
    kept_ = blocks > 1, block_ = 0;
    from_ = packed_ + panel * steps_ * kBytes;
    next_ = ours && !kept_ ? next : Range::kNone;
    ahead_ = until_ = packed_ + (next < all_ ? next : panel) * steps_ * kBytes;
    pace_ = kept_ && next < all_ ? ceil_div(kBytes, blocks - 1) : 0;
    if (!there) split(from_, 0, 0, kPairs);
  }
  REFIMPL_INLINE const char* tiles(std::size_t, std::size_t step) const { return place(step); }
  REFIMPL_INLINE void beside(std::size_t step, std::size_t i) {
    constexpr std::size_t kProductsOfStep = 6, kAtATime = (kPairs + kProductsOfStep - 1) / kProductsOfStep;
    const std::size_t pair = i * kAtATime, end = pair + kAtATime < kPairs ? pair + kAtATime : kPairs;
    const bool last = step + 1 == steps_;
    if (block_ == 0 && !last) return split(from_ + (step + 1) * kBytes, step + 1, pair, end);
    if (block_ == 0 && next_ != Range::kNone) split(ahead_, step + 1, pair, end);
    if (block_ && i == 0)
      for (until_ += pace_; ahead_ < until_; ahead_ += kTileLine) __builtin_prefetch(ahead_, 0, 2);
    if (last && i + 1 == kProductsOfStep) ++block_;
  }

 private:
  static constexpr std::size_t kSplitBytes = 3 * 2 * kTileBytes;  // of a step
  static constexpr std::size_t kBytes = kStepBytes<Terms<3>>;
  static constexpr std::size_t kAhead = 8 << 10;  // from 2 KiB on any distance streams as fast

  // Where a step's terms stand; step steps_ is the first one of the next panel.
  REFIMPL_INLINE char* place(std::size_t step) const {
    return split_ + (kept_ ? step : (first_ + step) % 2) * kSplitBytes;
  }
  REFIMPL_INLINE void split(const char* from, std::size_t step, std::size_t pair, std::size_t end) {
    for (char* to = place(step); pair < end; ++pair) {
      const char* two = from + pair * kPairBytes;
      __builtin_prefetch(two + kAhead, 0, 2);
      __builtin_prefetch(two + kAhead + kTileLine, 0, 2);
      split_pair(reinterpret_cast<const float*>(two), to + pair * kTileLine);
    }
  }

  const std::size_t all_, steps_;
  const char *const packed_, *from_ = nullptr, *ahead_ = nullptr, *until_ = nullptr;
  char* const split_;
  std::size_t next_ = Range::kNone, first_ = 0, block_ = 0, pace_ = 0;
  bool kept_ = false;
};
