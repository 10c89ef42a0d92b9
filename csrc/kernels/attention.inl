// Softmax attention of one block of queries over the keys it can see, block by block of keys.
// Included like gemm.inl.
//
// Running maximum and sum per row (online softmax). Blocks of keys start at multiples of kKeys from
// the panel of the first key that the block of queries can see, so that a row's order of operations
// depends on its index in its sequence and on the sequence's length alone. Blocks of keys out of
// every row's window are skipped; within a block a hidden key has weight zero.

constexpr std::size_t kQueries = 4 * kRows;
constexpr std::size_t kKeys = 8 * kPanel;

// Floats of scratch: scores of a block, the output before its division, running maximum and sum.
inline std::size_t attention_floats(std::size_t head_dim) {
  return kQueries * (kKeys + kv_width(head_dim) + 2);
}

// Products need none.
inline std::size_t scratch_bytes(std::size_t, std::size_t head_dim) {
  return attention_floats(head_dim) * sizeof(float);
}

// scores[r, key0 + c] = q[r] . k[c], one panel of keys.
template <int R>
inline void score_tile(std::size_t head_dim, const float* q, std::size_t ldq, const float* keys, float* scores) {
  f32 acc[R][2];
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = set1(0.0f);
  multiply<R>(0, head_dim, q, ldq, keys, kPanel, acc);
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c) store(scores + r * kKeys + c * f32::lanes, acc[r][c]);
}

template <int R>
inline void score_rows(int rows, std::size_t head_dim, const float* q, std::size_t ldq, const float* keys,
                       float* scores) {
  if (rows == R) return score_tile<R>(head_dim, q, ldq, keys, scores);
  if constexpr (R > 1) score_rows<R - 1>(rows, head_dim, q, ldq, keys, scores);
}

// out[r, 0:columns] += sum_j p[r, j] v[j], columns <= kPanel of values with row stride ldv.
template <int R>
inline void value_tile(std::size_t keys, const float* p, const float* v, std::size_t ldv, float* out,
                       std::size_t ldo) {
  f32 acc[R][2];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c) acc[r][c] = load(out + r * ldo + c * f32::lanes);
  multiply<R>(0, keys, p, kKeys, v, ldv, acc);
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 2; ++c) store(out + r * ldo + c * f32::lanes, acc[r][c]);
}

template <int R>
inline void value_rows(int rows, std::size_t keys, const float* p, const float* v, std::size_t ldv, float* out,
                       std::size_t ldo) {
  if (rows == R) return value_tile<R>(keys, p, v, ldv, out, ldo);
  if constexpr (R > 1) value_rows<R - 1>(rows, keys, p, v, ldv, out, ldo);
}

inline void attention(const Heads& h, const Sequence& sequence, std::size_t head, std::size_t first, void* memory) {
  const std::size_t length = sequence.length, d = h.head_dim;
  const std::size_t last = length - first < kQueries ? length : first + kQueries;
  const std::size_t rows = last - first;
  const std::size_t width = kv_width(d);  // of the accumulated output
  const std::size_t reach = sequence.window < 0 ? length : static_cast<std::size_t>(sequence.window);
  const std::size_t from = (first > reach ? first - reach : 0) / kPanel * kPanel;
  const std::size_t to = length - last < reach ? length : last + reach;
  const std::size_t slot0 = h.slot[sequence.first], ldq = h.ldq / sizeof(float);
  const unsigned char* visible = h.visible ? h.visible + sequence.first : nullptr;
  float* q = operand(h.q, h.ldq, sequence.first + first) + head * d;  // and the output, once they are read

  float* scores = static_cast<float*>(memory);
  float* out = scores + kQueries * kKeys;
  float* top = out + kQueries * width;
  float* total = top + kQueries;
  for (std::size_t i = 0; i < rows * width; ++i) out[i] = 0.0f;
  for (std::size_t r = 0; r < rows; ++r) top[r] = -__builtin_inff(), total[r] = 0.0f;

  for (std::size_t key0 = from; key0 < to; key0 += kKeys) {
    const std::size_t keys = to - key0 < kKeys ? to - key0 : kKeys;
    const std::size_t padded = round_up(keys, kPanel);
    for (std::size_t c = 0; c < padded; c += kPanel)
      for (std::size_t r = 0, n; r < rows; r += n) {
        n = tile_rows(rows - r);
        score_rows<kRows>(static_cast<int>(n), d, q + r * ldq, ldq, keys_of(h, head, slot0 + key0 + c), scores + r * kKeys + c);
      }
    for (std::size_t r = 0; r < rows; ++r) {
      float* s = scores + r * kKeys;
      const std::size_t i = first + r;
      // Hide what the window, the end of the sequence or the padding mask hides from this row.
      const std::size_t low = i > reach ? i - reach : 0, high = length - i > reach ? i + reach + 1 : length;
      const std::size_t end = key0 + padded;
      for (std::size_t j = key0; j < (low < end ? low : end); ++j) s[j - key0] = -__builtin_inff();
      for (std::size_t j = high > key0 ? high : key0; j < end; ++j) s[j - key0] = -__builtin_inff();
      if (visible)
        for (std::size_t j = key0; j < key0 + keys; ++j)
          if (!visible[j]) s[j - key0] = -__builtin_inff();
      f32 best = set1(top[r]);
      for (std::size_t c = 0; c < padded; c += f32::lanes) best = max(best, load(s + c));
      const float peak = max(best);
      if (peak == -__builtin_inff()) {
        for (std::size_t c = 0; c < padded; ++c) s[c] = 0.0f;
        continue;
      }
      f32 sums = set1(0.0f);
      const f32 shift = set1(peak);
      for (std::size_t c = 0; c < padded; c += f32::lanes) {
        const f32 p = exp(sub(load(s + c), shift));
        sums = add(sums, p);
        store(s + c, p);
      }
      if (top[r] < peak) {  // what was summed so far was relative to a smaller maximum
        float shrink[f32::lanes];
        store(shrink, exp(set1(top[r] - peak)));
        total[r] *= shrink[0];
        const f32 by = set1(shrink[0]);
        for (std::size_t c = 0; c < width; c += f32::lanes) store(out + r * width + c, mul(load(out + r * width + c), by));
        top[r] = peak;
      }
      total[r] += sum(sums);
    }
    for (std::size_t c = 0; c < d; c += kPanel)
      for (std::size_t r = 0, n; r < rows; r += n) {
        n = tile_rows(rows - r);
        value_rows<kRows>(static_cast<int>(n), keys, scores + r * kKeys, values_of(h, head, slot0 + key0) + c, width, out + r * width + c, width);
      }
  }
  for (std::size_t r = 0; r < rows; ++r) {
    const f32 by = set1(total[r] > 0.0f ? 1.0f / total[r] : 0.0f);
    for_lanes(d, [&](std::size_t c, int lanes) {
      store_first(q + r * ldq + c, mul(load_first(out + r * width + c, lanes), by), lanes);
    });
  }
}
