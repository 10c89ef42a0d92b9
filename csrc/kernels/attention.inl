// Softmax attention of one block of queries over the keys it can see, block by block of keys.
// Included like gemm.inl.
//
// Running maximum and sum per row (online softmax). Blocks of keys start at multiples of kKeys from
// the panel of the first key that the block of queries can see, so that a row's order of operations
// depends on its index in its sequence and on the sequence's length alone. Within a block of keys each
// register tile of queries takes only the panels that one of its rows can see; there a hidden key has
// weight zero. Where that does not hide its value, an Inf or NaN, rows are summed one by one, each over
// the keys that it sees.

// Queries that use a key while it is in the caches; a window of 128 and its queries fit one block of
// keys, and scores and keys of a block stay in L2.
constexpr std::size_t kQueries = 8 * kRows;
constexpr std::size_t kKeys = 12 * kPanel;
constexpr std::size_t kQueryParts = 8;  // a part is a register tile, at least

// Floats of scratch: scores of a block, the output before its division, running maximum and sum.
inline std::size_t attention_floats(std::size_t head_dim) {
  return kQueries * (kKeys + kv_width(head_dim) + 2);
}

// Products need none.
inline std::size_t scratch_bytes(std::size_t, std::size_t head_dim) {
  return attention_floats(head_dim) * sizeof(float);
}

// Keys [from, to) of a sequence.
struct Span {
  std::size_t from, to;
  bool empty() const { return from >= to; }
};

// The keys that query i can see.
inline Span window_of(std::size_t i, std::size_t reach, std::size_t length) {
  return {i > reach ? i - reach : 0, length - i > reach ? i + reach + 1 : length};
}

// out[r, 0:kPanel] += sum_j p[r, j] v[j, 0:kPanel], j < keys, one panel of values. seen(r): those of the
// keys that row r can see; called when it matters. all_seen: every row can see every key.
template <int R, class Seen>
inline void value_tile(std::size_t keys, const float* p, const float* v, float* out, std::size_t ldo, bool all_seen,
                       const Seen& seen) {
  f32 acc[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c) acc[r][c] = load(out + r * ldo + c * kLanes);
  multiply<R>(0, keys, p, kKeys, v, kPanel, acc);
  f32 wrong = set1(0.0f);  // NaN where a number is not finite
  if (!all_seen) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < 2; ++c) wrong = fma(acc[r][c], set1(0.0f), wrong);
  }
  if (sum(wrong) == 0.0f) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < 2; ++c) store(out + r * ldo + c * kLanes, acc[r][c]);
    return;
  }
  for (int r = 0; r < R; ++r) {  // the same sums without their terms of weight zero
    f32 row[1][2];
    for (int c = 0; c < 2; ++c) row[0][c] = load(out + r * ldo + c * kLanes);
    const Span own = seen(r);
    multiply<1>(own.from, own.to, p + r * kKeys, kKeys, v, kPanel, row);
    for (int c = 0; c < 2; ++c) store(out + r * ldo + c * kLanes, row[0][c]);
  }
}

template <int R, class Seen>
inline void value_rows(int rows, std::size_t keys, const float* p, const float* v, float* out, std::size_t ldo,
                       bool all_seen, const Seen& seen) {
  if (rows == R) return value_tile<R>(keys, p, v, out, ldo, all_seen, seen);
  if constexpr (R > 1) value_rows<R - 1>(rows, keys, p, v, out, ldo, all_seen, seen);
}

inline Span common(Span a, Span b) { return {a.from > b.from ? a.from : b.from, a.to < b.to ? a.to : b.to}; }

// What queries i .. last can see of their sequence; from is a multiple of kPanel.
inline Span seen_by(std::size_t i, std::size_t last, std::size_t reach, std::size_t length) {
  return {(i > reach ? i - reach : 0) / kPanel * kPanel, length - last > reach ? last + reach + 1 : length};
}

// s: scores of query i for the keys of a span, filled up to whole panels; -inf where it cannot see.
inline void hide(const Span& keys, std::size_t i, std::size_t reach, std::size_t length, const unsigned char* visible,
                 float* s) {
  const std::size_t from = keys.from, end = from + round_up(keys.to - from, kPanel);
  const Span own = window_of(i, reach, length);
  for (std::size_t j = from; j < (own.from < end ? own.from : end); ++j) s[j - from] = -__builtin_inff();
  for (std::size_t j = own.to > from ? own.to : from; j < end; ++j) s[j - from] = -__builtin_inff();
  if (visible)
    for (std::size_t j = from; j < keys.to; ++j)
      if (!visible[j]) s[j - from] = -__builtin_inff();
}

// The largest of `top` and the scores of so many keys, whole panels of them.
inline float peak_of(std::size_t keys, const float* s, float top) {
  f32 best[2] = {set1(top), set1(top)};
  for (std::size_t j = 0; j < keys; j += kPanel)
    for (int c = 0; c < 2; ++c) best[c] = max(best[c], load(s + j + c * kLanes));
  return max(max(best[0], best[1]));
}

// s[j] becomes exp(s[j] - peak); returns their sum. Zeros when all are hidden.
inline float weigh(std::size_t keys, float peak, float* s) {
  const f32 shift = set1(peak == -__builtin_inff() ? 0.0f : peak);
  f32 sums[2] = {set1(0.0f), set1(0.0f)};
  for (std::size_t j = 0; j < keys; j += kPanel)
    for (int c = 0; c < 2; ++c) {
      const f32 p = exp(sub(load(s + j + c * kLanes), shift));
      sums[c] = add(sums[c], p);
      store(s + j + c * kLanes, p);
    }
  return sum(add(sums[0], sums[1]));
}

inline void attention(const Heads& h, const Sequence& sequence, std::size_t head, std::size_t first, std::size_t part,
                      std::size_t parts, void* memory) {
  const std::size_t length = sequence.length, d = h.head_dim, width = kv_width(d);
  const std::size_t rows = length - first < kQueries ? length - first : kQueries;
  const std::size_t reach = sequence.window < 0 ? length : static_cast<std::size_t>(sequence.window);
  const std::size_t slot0 = h.slot[sequence.first], ldq = h.ldq / sizeof(float);
  const unsigned char* visible = h.visible ? h.visible + sequence.first : nullptr;
  float* q = operand(h.q, h.ldq, sequence.first + first) + head * d;  // and the output, once they are read

  float* scores = static_cast<float*>(memory);
  float* out = scores + kQueries * kKeys;
  float* top = out + kQueries * width;
  float* total = top + kQueries;
  for (std::size_t i = 0; i < rows * width; ++i) out[i] = 0.0f;
  for (std::size_t r = 0; r < rows; ++r) top[r] = -__builtin_inff(), total[r] = 0.0f;

  struct Tile {
    std::size_t row, rows;
    Span seen;
  } tiles[kQueries / kRows + 1];
  std::size_t count = 0;
  for (std::size_t r = 0, n; r < rows; r += n) {
    n = tile_rows(rows - r);
    tiles[count++] = {r, n, seen_by(first + r, first + r + n - 1, reach, length)};
  }
  const Span all = seen_by(first, first + rows - 1, reach, length);  // by all parts: their blocks of keys are the same
  const Tile *const begin = tiles + count * part / parts, *const end = tiles + count * (part + 1) / parts;
  if (begin == end) return;
  const std::size_t pace = ceil_div(kPanel * sizeof(float), static_cast<std::size_t>(end - begin));  // the next panel of keys, while these pass one

  for (std::size_t key0 = all.from; key0 < all.to; key0 += kKeys) {
    const Span block{key0, all.to - key0 < kKeys ? all.to : key0 + kKeys};
    for (std::size_t key = block.from; key < block.to; key += kPanel) {
      const float* panel = keys_of(h, head, slot0 + key);
      const char* next = reinterpret_cast<const char*>(keys_of(h, head, slot0 + key + (key + kPanel < all.to ? kPanel : 0)));
      for (const Tile* t = begin; t < end; ++t, next += pace * d)
        if (!common(t->seen, {key, key + kPanel}).empty())
          gemm_rows<kRows>(static_cast<int>(t->rows), d, q + t->row * ldq, ldq, panel, next, pace,
                           scores + t->row * kKeys + (key - key0), kKeys);
    }
    for (const Tile* t = begin; t < end; ++t) {
      const Span keys = common(t->seen, block);
      if (keys.empty()) continue;
      const std::size_t n = keys.to - keys.from;
      float* s = scores + t->row * kKeys + (keys.from - key0);
      float peaks[kRows];  // of all rows first: their reductions overlap
      for (std::size_t r = 0; r < t->rows; ++r) {
        hide(keys, first + t->row + r, reach, length, visible, s + r * kKeys);
        peaks[r] = peak_of(n, s + r * kKeys, top[t->row + r]);
      }
      for (std::size_t r = 0; r < t->rows; ++r) {
        const std::size_t row = t->row + r;
        if (top[row] < peaks[r]) {  // what was summed so far was relative to a smaller maximum
          float shrink[kLanes];
          store(shrink, exp(set1(top[row] - peaks[r])));
          total[row] *= shrink[0];
          float* y = out + row * width;
          for (std::size_t c = 0; c < width; c += kLanes) store(y + c, mul(load(y + c), set1(shrink[0])));
          top[row] = peaks[r];
        }
        total[row] += weigh(n, peaks[r], s + r * kKeys);
      }
    }
    for (std::size_t c = 0; c < d; c += kPanel)
      for (const Tile* t = begin; t < end; ++t)
        if (const Span keys = common(t->seen, block); !keys.empty())
          value_rows<kRows>(static_cast<int>(t->rows), keys.to - keys.from, scores + t->row * kKeys + (keys.from - key0),
                            values_of(h, head, slot0 + keys.from, c), out + t->row * width + c, width, reach >= length,
                            [&](int r) {
                              const Span own = common(window_of(first + t->row + static_cast<std::size_t>(r), reach, length), keys);
                              return Span{own.from - keys.from, own.empty() ? own.from - keys.from : own.to - keys.from};
                            });
  }
  for (std::size_t r = begin->row; r < end[-1].row + end[-1].rows; ++r) {
    const f32 by = set1(total[r] > 0.0f ? 1.0f / total[r] : 0.0f);
    for_lanes(d, [&](std::size_t c, int lanes) {
      store_first(q + r * ldq + c, mul(load_first(out + r * width + c, lanes), by), lanes);
    });
  }
}
