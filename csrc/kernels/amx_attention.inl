// Softmax attention on AMX of 32 queries of one head, over the keys that they can see. Included like
// amx_gemm.inl, after amx_heads.inl.
//
//   S = q K^T     tiles, float32, a panel of 32 rows x kKeys that stays in the L1 cache
//   P = exp(S - max), rounded to bfloat16; the sum is of P before its rounding
//   out = P V     tiles, float32; divided by the sum, rounded to bfloat16 where q stood
//
// A window of up to kKeys - 62 keys (both sides together) is one panel and an exact softmax; more keys
// take several, with running maximum and sum. Panels start at the block of 32 slots of the first key
// that these queries see: a row's order of operations depends on its place and the sequence's length.

constexpr std::size_t kQueries = kRows;
constexpr std::size_t kKeys = 256;
constexpr std::size_t kScoreStride = kKeys + kTile;  // floats, and below bfloat16s: lines spread over sets

// One thread's memory: queries, scores, weights P, the output before its division, the last values.
struct Desk {
  bf16* q;        // [kQueries, padded_head], tail rows and components zero
  float* scores;  // [kQueries, kScoreStride]
  bf16* weights;  // [kQueries, kScoreStride]
  float* out;     // [kQueries, padded_head]
  char* last;     // a block of values whose slots after the sequence's end are zero
};

inline std::size_t desk_bytes(std::size_t head_dim) {
  const std::size_t d = padded_head(head_dim);
  return kQueries * (d * 6 + kScoreStride * 6) + block_bytes(head_dim);
}

inline Desk desk_at(void* memory, std::size_t head_dim) {
  const std::size_t d = padded_head(head_dim);
  Desk desk;
  char* at = static_cast<char*>(memory);
  desk.scores = reinterpret_cast<float*>(at), at += kQueries * kScoreStride * 4;
  desk.weights = reinterpret_cast<bf16*>(at), at += kQueries * kScoreStride * 2;
  desk.out = reinterpret_cast<float*>(at), at += kQueries * d * 4;
  desk.q = reinterpret_cast<bf16*>(at), at += kQueries * d * 2;
  desk.last = at;
  return desk;
}

inline std::size_t scratch_bytes(std::size_t, std::size_t head_dim) { return desk_bytes(head_dim); }

// 2^x for x <= 0 to 1e-4, a twentieth of bfloat16's rounding: 2^n times a cubic in x - n, the least maximal
// error with the value 1 at 0. Below -126 it is 0. NaN stays NaN.
REFIMPL_INLINE f32 exp2_for_bf16(f32 x) {
  const f32 n = round(x), r = sub(x, n);
  f32 y = set1(0.05500842f);
  y = fma(y, r, set1(0.24221075f));
  y = fma(y, r, set1(0.69328296f));
  y = fma(y, r, set1(1.0f));
  const __mmask16 not_tiny = _mm512_cmp_ps_mask(x.v, set1(-126.0f).v, _CMP_NLT_UQ);
  return {_mm512_maskz_scalef_ps(not_tiny, y.v, n.v)};
}

// scores[:, 0:keys) = q K^T, keys a multiple of 32 from the start of a block.
inline void score_panel(const Desk& desk, const char* block, std::size_t keys, std::size_t d, std::size_t bytes) {
  const std::size_t row_bytes = d * sizeof(bf16), ld = kScoreStride * sizeof(float);
  for (std::size_t key = 0; key < keys; key += kSlotBlock, block += bytes) {
    zero_sums<0, 0>(), zero_sums<0, 1>(), zero_sums<1, 0>(), zero_sums<1, 1>();
    for (std::size_t i = 0; i < d; i += kTileDepth) {
      load_rows<0>(desk.q + i, row_bytes);
      load_rows<1>(desk.q + kTile * d + i, row_bytes);
      stream_columns<0>(block + i / kTileDepth * 2 * kTileBytes);
      stream_columns<1>(block + i / kTileDepth * 2 * kTileBytes + kTileBytes);
      dot<0, 0>(), dot<0, 1>(), dot<1, 0>(), dot<1, 1>();
    }
    float *upper = desk.scores + key, *lower = upper + kTile * kScoreStride;
    store_sums<0, 0>(upper, ld), store_sums<0, 1>(upper + kTile, ld);
    store_sums<1, 0>(lower, ld), store_sums<1, 1>(lower + kTile, ld);
  }
}

// out += P V over the same keys; out = P V when it is the first panel. Values from `blocks`, but the
// block at `last_key` from desk.last.
inline void value_panel(const Desk& desk, const char* blocks, std::size_t keys, std::size_t last_key, std::size_t d,
                        std::size_t bytes, bool first) {
  const std::size_t row_bytes = kScoreStride * sizeof(bf16), ld = d * sizeof(float);
  for (std::size_t c = 0; c < d; c += 2 * kTile) {
    float *upper = desk.out + c, *lower = upper + kTile * d;
    if (first) {
      zero_sums<0, 0>(), zero_sums<0, 1>(), zero_sums<1, 0>(), zero_sums<1, 1>();
    } else {
      load_sums<0, 0>(upper, ld), load_sums<0, 1>(upper + kTile, ld);
      load_sums<1, 0>(lower, ld), load_sums<1, 1>(lower + kTile, ld);
    }
    for (std::size_t key = 0; key < keys; key += kSlotBlock) {
      const char* block = (key == last_key ? desk.last : blocks + key / kSlotBlock * bytes) + c / kTile * kTileBytes;
      load_rows<0>(desk.weights + key, row_bytes);
      load_rows<1>(desk.weights + kTile * kScoreStride + key, row_bytes);
      stream_columns<0>(block);
      stream_columns<1>(block + kTileBytes);
      dot<0, 0>(), dot<0, 1>(), dot<1, 0>(), dot<1, 1>();
    }
    store_sums<0, 0>(upper, ld), store_sums<0, 1>(upper + kTile, ld);
    store_sums<1, 0>(lower, ld), store_sums<1, 1>(lower + kTile, ld);
  }
}

// Row by row: hides keys, moves the maximum and sum on, and turns scores into weights.
struct Softmax {
  float top[kQueries], total[kQueries];
};

// Keys [low, high) of the panel are in row r's window; `visible` belongs to the first of them all, or is null.
inline void soften(const Desk& desk, Softmax& soft, std::size_t r, std::size_t keys, std::size_t low, std::size_t high,
                   const unsigned char* visible, std::size_t d) {
  float* s = desk.scores + r * kScoreStride;
  bf16* p = desk.weights + r * kScoreStride;
  const float nothing = -__builtin_inff();
  for (std::size_t j = 0; j < (low < keys ? low : keys); ++j) s[j] = nothing;
  for (std::size_t j = high; j < keys; ++j) s[j] = nothing;
  if (visible)
    for (std::size_t j = low; j < high; ++j)
      if (!visible[j]) s[j] = nothing;
  f32 best = set1(soft.top[r]);
  for (std::size_t c = 0; c < keys; c += kLanes) best = max(best, load(s + c));
  const float peak = max(best);
  if (peak == nothing) {
    for (std::size_t c = 0; c < keys; c += kLanes) store_bits(p + c, _mm256_setzero_si256());
    return;
  }
  const f32 shift = set1(peak), log2e = set1(1.44269504f);
  f32 sums = set1(0.0f);
  for (std::size_t c = 0; c < keys; c += kLanes) {
    const f32 weight = exp2_for_bf16(mul(sub(load(s + c), shift), log2e));
    sums = add(sums, weight);
    store_bits(p + c, narrow(weight));
  }
  if (soft.top[r] < peak) {  // what was summed so far was relative to a smaller maximum
    const f32 by = exp(set1(soft.top[r] - peak));
    soft.total[r] *= _mm512_cvtss_f32(by.v);
    float* out = desk.out + r * d;
    if (soft.top[r] != nothing)
      for (std::size_t c = 0; c < d; c += kLanes) store(out + c, mul(load(out + c), by));
    soft.top[r] = peak;
  }
  soft.total[r] += sum(sums);
}

inline void attention(const Heads& h, const Sequence& sequence, std::size_t head, std::size_t first, void* memory) {
  const std::size_t length = sequence.length, d = padded_head(h.head_dim), bytes = block_bytes(h.head_dim);
  const std::size_t last = length - first < kQueries ? length : first + kQueries, rows = last - first;
  const std::size_t reach = sequence.window < 0 ? length : static_cast<std::size_t>(sequence.window);
  const std::size_t from = (first > reach ? first - reach : 0) / kSlotBlock * kSlotBlock;
  const std::size_t to = length - last < reach ? length : last + reach;
  const std::size_t slot0 = h.slot[sequence.first], filled = length / kSlotBlock * kSlotBlock;
  const unsigned char* visible = h.visible ? h.visible + sequence.first : nullptr;
  const Desk desk = desk_at(memory, h.head_dim);

  // Other heads' tasks write beside this head's q: only its own components are read, and copied.
  for (std::size_t r = 0; r < kQueries; ++r)
    for (std::size_t i = 0; i < d; i += kLanes) {
      const int n = r >= rows || i >= h.head_dim ? 0 : static_cast<int>(h.head_dim - i < kLanes ? h.head_dim - i : kLanes);
      const bf16* q = n ? operand(static_cast<const void*>(h.q), h.ldq, sequence.first + first + r) + head * h.head_dim + i : nullptr;
      store_bits(desk.q + r * d + i, _mm256_maskz_loadu_epi16(first_lanes(n), q));
    }
  // Slots after the last token were never written: a weight of zero does not hide a NaN there.
  const bool ragged = to > filled;
  if (ragged) {
    const __m512i* values = reinterpret_cast<const __m512i*>(block_of(h, h.values, head, slot0 + filled));
    __m512i* copy = reinterpret_cast<__m512i*>(desk.last);
    for (std::size_t line = 0; line < bytes / kTileLine; ++line) {
      const std::size_t slot = filled + line % kTile * 2;  // and the next one, number by number
      const __mmask32 exist = slot + 1 < length ? 0xffffffffu : slot < length ? 0x55555555u : 0u;
      _mm512_storeu_si512(copy + line, _mm512_maskz_loadu_epi16(exist, values + line));
    }
  }

  Softmax soft;
  for (std::size_t r = 0; r < kQueries; ++r) soft.top[r] = -__builtin_inff(), soft.total[r] = 0.0f;
  const Tiles tiles;
  for (std::size_t key0 = from; key0 < to; key0 += kKeys) {
    const std::size_t keys = round_up(to - key0 < kKeys ? to - key0 : kKeys, kSlotBlock);
    score_panel(desk, block_of(h, h.keys, head, slot0 + key0), keys, d, bytes);
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t i = first + r, end = key0 + keys;
      const std::size_t low = i > reach ? i - reach : 0, high = length - i > reach ? i + reach + 1 : length;
      soften(desk, soft, r, keys, low > key0 ? low - key0 : 0, high < key0 ? 0 : (high < end ? high : end) - key0,
             visible ? visible + key0 : nullptr, d);
    }
    value_panel(desk, block_of(h, h.values, head, slot0 + key0), keys, ragged ? filled - key0 : keys, d, bytes,
                key0 == from);
  }

  for (std::size_t r = 0; r < rows; ++r) {
    const f32 by = set1(soft.total[r] > 0.0f ? 1.0f / soft.total[r] : 0.0f);
    bf16* y = operand(h.q, h.ldq, sequence.first + first + r) + head * h.head_dim;
    for_lanes(h.head_dim, [&](std::size_t i, int n) { store_first(y + i, mul(load(desk.out + r * d + i), by), n); });
  }
}
