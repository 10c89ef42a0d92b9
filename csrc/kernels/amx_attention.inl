// Softmax attention on AMX of blocks of 32 queries of one head, or of half of one, over the keys that they
// can see. Included like amx_gemm.inl, after amx_heads.inl and amx_softmax.inl.
//
//   S = q K^T     tiles, float32, a panel of 32 rows x kKeys
//   P = softmax of S before its division, rounded to bfloat16
//   out = P V     tiles, float32; divided by the sum, rounded to bfloat16 where q stood
//
// A window of up to kKeys - 62 keys (both sides together) is one panel and an exact softmax; more keys
// take several, with running maximum and sum. Panels start at the block of 32 slots of the first key
// that these queries see: a row's order of operations depends on its place and the sequence's length.

constexpr std::size_t kQueries = 4 * kRows;
constexpr std::size_t kKeys = 512;
constexpr std::size_t kQueryParts = kQueries / kTile;  // a part is the rows of one tile, at least
constexpr std::size_t kScoreStride = kKeys + kTile;       // an odd number of cache lines, of float32
constexpr std::size_t kWeightStride = kKeys + 2 * kTile;  // and of bfloat16

// One thread's memory.
struct Desk {
  float* scores;  // [kRows, kScoreStride]
  bf16* weights;  // P, [kRows, kWeightStride]
  float* out;     // [kRows, padded_head], before its division
  bf16* q;        // [kRows, padded_head], tail rows and components zero
  char* last;     // a block of values whose slots after the sequence's end are zero
};

inline std::size_t desk_bytes(std::size_t head_dim) {
  return kRows * (kScoreStride * 4 + kWeightStride * 2 + padded_head(head_dim) * 6) + block_bytes(head_dim);
}

inline Desk desk_at(void* memory, std::size_t head_dim) {
  const std::size_t d = padded_head(head_dim);
  Desk desk;
  desk.scores = static_cast<float*>(memory);
  desk.weights = reinterpret_cast<bf16*>(desk.scores + kRows * kScoreStride);
  desk.out = reinterpret_cast<float*>(desk.weights + kRows * kWeightStride);
  desk.q = reinterpret_cast<bf16*>(desk.out + kRows * d);
  desk.last = reinterpret_cast<char*>(desk.q + kRows * d);
  return desk;
}

inline std::size_t scratch_bytes(std::size_t, std::size_t head_dim) { return desk_bytes(head_dim); }

// -- tile steps -----------------------------------------------------------------------------------

// scores = q K^T for `keys` keys, a multiple of 32 from the start of a block; d / 32 steps a block. lower:
// whether there are rows in the second of its two tiles of rows.
struct Scores {
  const bf16* q;
  float* scores;
  const char* block;
  std::size_t keys, d, bytes;
  bool lower;
  std::size_t key = 0, i = 0;

  std::size_t steps() const { return keys / kSlotBlock * (d / kTileDepth); }

  REFIMPL_INLINE void step(Tiles& tiles) {
    if (i == 0) tiles.zero_sums<0, 0>(), tiles.zero_sums<0, 1>(), tiles.zero_sums<1, 0>(), tiles.zero_sums<1, 1>();
    tiles.load_rows<0>(q + i, d * sizeof(bf16));
    if (lower) tiles.load_rows<1>(q + kTile * d + i, d * sizeof(bf16));
    tiles.stream_columns<0>(block + i / kTileDepth * 2 * kTileBytes);
    tiles.stream_columns<1>(block + i / kTileDepth * 2 * kTileBytes + kTileBytes);
    tiles.dot<0>();
    if (lower) tiles.dot<1>();
    if ((i += kTileDepth) < d) return;
    constexpr std::size_t ld = kScoreStride * sizeof(float);
    float *above = scores + key, *below = above + kTile * kScoreStride;
    tiles.store_sums<0, 0>(above, ld), tiles.store_sums<0, 1>(above + kTile, ld);
    if (lower) tiles.store_sums<1, 0>(below, ld), tiles.store_sums<1, 1>(below + kTile, ld);
    i = 0, key += kSlotBlock, block += bytes;
  }
};

// out += P V over the same keys; out = P V when it is the block of queries' first panel. Values from
// `blocks`, but the block at key `last_key` from `last`. keys / 32 steps for 32 columns.
struct Values {
  const bf16* weights;
  float* out;
  const char *blocks, *last;
  std::size_t keys, last_key, d, bytes;
  bool first, lower;
  std::size_t c = 0, key = 0;

  std::size_t steps() const { return keys / kSlotBlock * (d / kTileDepth); }

  REFIMPL_INLINE void step(Tiles& tiles) {
    const std::size_t ld = d * sizeof(float), row_bytes = kWeightStride * sizeof(bf16);
    float *above = out + c, *below = above + kTile * d;
    if (key == 0 && first) {
      tiles.zero_sums<0, 0>(), tiles.zero_sums<0, 1>(), tiles.zero_sums<1, 0>(), tiles.zero_sums<1, 1>();
    } else if (key == 0) {
      tiles.load_sums<0, 0>(above, ld), tiles.load_sums<0, 1>(above + kTile, ld);
      if (lower) tiles.load_sums<1, 0>(below, ld), tiles.load_sums<1, 1>(below + kTile, ld);
    }
    const char* block = (key == last_key ? last : blocks + key / kSlotBlock * bytes) + c / kTile * kTileBytes;
    tiles.load_rows<0>(weights + key, row_bytes);
    if (lower) tiles.load_rows<1>(weights + kTile * kWeightStride + key, row_bytes);
    tiles.stream_columns<0>(block);
    tiles.stream_columns<1>(block + kTileBytes);
    tiles.dot<0>();
    if (lower) tiles.dot<1>();
    if ((key += kSlotBlock) < keys) return;
    tiles.store_sums<0, 0>(above, ld), tiles.store_sums<0, 1>(above + kTile, ld);
    if (lower) tiles.store_sums<1, 0>(below, ld), tiles.store_sums<1, 1>(below + kTile, ld);
    key = 0, c += 2 * kTile;
  }
};

// -- attention ------------------------------------------------------------------------------------

// Queries [first, first + rows) of a block, all or half of it, and keys [key, key + keys) that the block
// sees; no rows: none.
struct Panel {
  std::size_t first, rows, key, keys;
  bool begins, ends;  // the first of its block of queries, the last
};

// The panels of queries up to `end` of a sequence, one after the other. Blocks of kRows queries start at the
// sequence's first; keys are those of the whole block, whatever part of it is taken.
struct Panels {
  std::size_t end, length, reach;

  // After the last key that the block of a query sees.
  std::size_t last_key(std::size_t query) const {
    const std::size_t block = query / kRows * kRows, stop = length - block < kRows ? length : block + kRows;
    return length - stop < reach ? length : stop + reach;
  }

  Panel starting_at(std::size_t first) const {
    if (first >= end) return {};
    const std::size_t block = first / kRows * kRows;
    return at(first, block > reach ? (block - reach) / kSlotBlock * kSlotBlock : 0, true);
  }
  Panel after(const Panel& p) const {
    return p.ends ? starting_at(p.first / kRows * kRows + kRows) : at(p.first, p.key + kKeys, false);
  }

 private:
  Panel at(std::size_t first, std::size_t key, bool begins) const {
    const std::size_t stop = first / kRows * kRows + kRows, left = last_key(first) - key;
    return {first, (end < stop ? end : stop) - first, key, round_up(left < kKeys ? left : kKeys, kSlotBlock), begins,
            left <= kKeys};
  }
};

// y = the output of query q over keys [from, to) of its sequence, by plain sums: for a row whose tiles gave what is
// not finite, as a weight of zero does not hide an Inf or NaN of a key that other rows see. out [head_dim] is scratch.
inline void attention_of_one(const Heads& h, std::size_t head, std::size_t slot0, std::size_t from, std::size_t to,
                             const unsigned char* visible, const bf16* q, float* out, bf16* y) {
  const auto score = [&](std::size_t j) {
    char* block = block_of(h, h.keys, head, slot0 + j);
    float s = 0.0f;
    for (std::size_t i = 0; i < h.head_dim; ++i) s += to_float(q[i]) * to_float(*key_at(block, (slot0 + j) % kSlotBlock, i));
    return s;
  };
  float top = -__builtin_inff(), total = 0.0f;
  for (std::size_t j = from; j < to; ++j)
    if (!visible || visible[j])
      if (const float s = score(j); !(s <= top)) top = s;  // NaN stays
  for (std::size_t i = 0; i < h.head_dim; ++i) out[i] = 0.0f;
  for (std::size_t j = from; j < to; ++j) {
    if (visible && !visible[j]) continue;
    const float weight = _mm512_cvtss_f32(exp2_for_bf16(set1((score(j) - top) * 1.44269504f)).v);
    const float rounded = to_float(to_bf16(weight));
    const char* block = block_of(h, h.values, head, slot0 + j);
    total += weight;
    for (std::size_t i = 0; i < h.head_dim; ++i) out[i] += rounded * to_float(*value_at(block, (slot0 + j) % kSlotBlock, i));
  }
  for (std::size_t i = 0; i < h.head_dim; ++i) y[i] = to_bf16(total == 0.0f ? 0.0f : out[i] / total);
}

inline void attention(const Heads& h, const Sequence& sequence, std::size_t head, std::size_t first, std::size_t part,
                      std::size_t parts, void* memory) {
  const std::size_t length = sequence.length, d = padded_head(h.head_dim), bytes = block_bytes(h.head_dim);
  const std::size_t reach = sequence.window < 0 ? length : static_cast<std::size_t>(sequence.window);
  const std::size_t slot0 = h.slot[sequence.first], filled = length / kSlotBlock * kSlotBlock;
  const unsigned char* visible = h.visible ? h.visible + sequence.first : nullptr;
  const std::size_t tiles_here = ceil_div(length - first < kQueries ? length - first : kQueries, kTile);
  const std::size_t begin = first + tiles_here * part / parts * kTile;
  const std::size_t stop = first + tiles_here * (part + 1) / parts * kTile;
  if (begin == stop) return;
  const Panels panels{length < stop ? length : stop, length, reach};
  const Desk desk = desk_at(memory, h.head_dim);
  Softmax soft;
  const auto query = [&](std::size_t i) { return operand(h.q, h.ldq, sequence.first + i) + head * h.head_dim; };

  // Slots after the last token were never written: a weight of zero does not hide a NaN there.
  if (panels.last_key(panels.end - 1) > filled) {
    const __m512i* values = reinterpret_cast<const __m512i*>(block_of(h, h.values, head, slot0 + filled));
    __m512i* copy = reinterpret_cast<__m512i*>(desk.last);
    for (std::size_t line = 0; line < bytes / kTileLine; ++line) {
      const std::size_t slot = filled + line % kTile * 2;  // and the next one, number by number
      const __mmask32 exist = slot + 1 < length ? 0xffffffffu : slot < length ? 0x55555555u : 0u;
      _mm512_storeu_si512(copy + line, _mm512_maskz_loadu_epi16(exist, values + line));
    }
  }

  // Other heads' tasks write beside this head's q: only its own components are read, and copied.
  const auto take_queries = [&](const Panel& p) {
    for (std::size_t r = 0; r < kRows; ++r)
      for (std::size_t i = 0; i < d; i += kLanes) {
        const int n = r >= p.rows || i >= h.head_dim ? 0 : static_cast<int>(h.head_dim - i < kLanes ? h.head_dim - i : kLanes);
        const bf16* q = n ? query(p.first + r) + i : nullptr;
        store_bits(desk.q + r * d + i, _mm256_maskz_loadu_epi16(first_lanes(n), q));
      }
  };
  Tiles tiles;
  const auto score = [&](const Panel& p) {
    Scores scores{desk.q, desk.scores, block_of(h, h.keys, head, slot0 + p.key), p.keys, d, bytes, p.rows > kTile};
    for (std::size_t left = scores.steps(); left; --left) scores.step(tiles);
  };
  const auto hide_keys = [&](const Panel& p) {
    float* scores = desk.scores;
    for (std::size_t r = 0; r < p.rows; ++r, scores += kScoreStride) {
      const std::size_t i = p.first + r, end = p.key + p.keys;
      const std::size_t low = i > reach ? i - reach : 0, high = length - i > reach ? i + reach + 1 : length;
      hide(scores, 0, low < p.key ? 0 : (low < end ? low : end) - p.key);
      hide(scores, high < p.key ? 0 : (high < end ? high : end) - p.key, p.keys);
      if (visible) hide(scores, 0, (end < length ? end : length) - p.key, visible + p.key);
    }
  };
  const auto rescale = [&] {
    for (std::size_t r = 0; r < kRows; ++r)
      if (soft.by[r] != 1.0f)
        for (float *out = desk.out + r * d, *end = out + d; out < end; out += kLanes)
          store(out, mul(load(out), set1(soft.by[r])));
  };
  const auto add_values = [&](const Panel& p) {
    const char* blocks = block_of(h, h.values, head, slot0 + p.key);
    Values values{desk.weights, desk.out, blocks, desk.last, p.keys, filled - p.key, d, bytes, p.begins, p.rows > kTile};
    for (std::size_t left = values.steps(); left; --left) values.step(tiles);
  };
  const auto put_out = [&](const Panel& p) {
    for (std::size_t r = 0; r < p.rows; ++r) {
      const float total = soft.total[r];
      const f32 by = set1(total > 0.0f ? 1.0f / total : 0.0f);
      bf16* y = query(p.first + r);
      if (reach < length) {
        f32 wrong = set1(0.0f);  // NaN where a number is not finite
        for_lanes(h.head_dim, [&](std::size_t i, int n) {  // components that fill up were never written
          wrong = fma(load_first(desk.out + r * d + i, n), set1(0.0f), wrong);
        });
        if (sum(wrong) != 0.0f) {
          const std::size_t i = p.first + r;
          const bf16* q = y;  // other heads' are beside it; this one's is read before it is written
          attention_of_one(h, head, slot0, i > reach ? i - reach : 0, length - i > reach ? i + reach + 1 : length, visible,
                           q, desk.out + r * d, y);
          continue;
        }
      }
      for_lanes(h.head_dim, [&](std::size_t i, int n) { store_first(y + i, mul(load(desk.out + r * d + i), by), n); });
    }
  };

  for (Panel p = panels.starting_at(begin); p.rows; p = panels.after(p)) {
    if (p.begins) take_queries(p), soft.reset();
    score(p);
    hide_keys(p);
    for (std::size_t r = 0; r < p.rows; r += kTile)
      soften(desk.scores + r * kScoreStride, kScoreStride, desk.weights + r * kWeightStride, kWeightStride, soft, r, p.keys);
    if (!p.begins) rescale();
    add_values(p);
    if (p.ends) put_out(p);
  }
}
