// The adjoint of attention, one head of one sequence: MODEL.md (26') - (28'). Included after outer.inl and
// kernels/attention.inl.
//
// Blocks of kBack queries from the first on. A block's scores over all keys that it can see are computed anew,
// so that its softmax is exact and no row statistics are kept: O(length window) under a window. dK and dV
// are sums over the blocks in their order. A hidden key is read as zeros and gets none.

constexpr std::size_t kBack = 4 * kRows;

// Keys that a block can see, in whole panels.
inline std::size_t span_of(std::size_t length, std::ptrdiff_t window) {
  const std::size_t all = round_up(length, kPanel);
  const std::size_t seen = window < 0 || static_cast<std::size_t>(window) >= length
                               ? all
                               : round_up(kBack + 2 * static_cast<std::size_t>(window), kPanel) + kPanel;
  return seen < all ? seen : all;
}

inline std::size_t adjoint_floats(std::size_t length, std::size_t head_dim, std::ptrdiff_t window) {
  const std::size_t width = round_up(head_dim, kPanel), keys = round_up(length, kPanel);
  return keys * (2 * head_dim + 3 * width) + kBack * (4 * width + 2 * span_of(length, window) + kPanel);
}

// x [length, d] as panels of kPanel rows [d, kPanel]; hidden rows and those past the end are zeros.
inline void turn(std::size_t length, std::size_t d, const float* x, std::size_t ld, const unsigned char* visible,
                 float* to) {
  for (std::size_t key = 0; key < length; key += kPanel, to += d * kPanel)
    for (std::size_t l = 0; l < kPanel; ++l) {
      const bool there = key + l < length && (!visible || visible[key + l]);
      const float* row = x + (key + l) * ld;
      for (std::size_t i = 0; i < d; ++i) to[i * kPanel + l] = there ? row[i] : 0.0f;
    }
}

// x [rows, d] times scale as panels of kPanel columns [height, kPanel], filled up with zeros.
inline void cut(std::size_t rows, std::size_t height, std::size_t d, const float* x, std::size_t ld,
                const unsigned char* visible, float scale, float* to) {
  for (std::size_t c = 0; c < d; c += kPanel, to += height * kPanel)
    for (std::size_t r = 0; r < height; ++r) {
      const bool there = r < rows && (!visible || visible[r]);
      for (std::size_t i = 0; i < kPanel; ++i)
        to[r * kPanel + i] = there && c + i < d ? x[r * ld + c + i] * scale : 0.0f;
    }
}

// The inverse of `cut`, without a scale.
inline void join(std::size_t rows, std::size_t height, std::size_t d, const float* from, float* to, std::size_t ld) {
  for (std::size_t c = 0; c < d; c += kPanel, from += height * kPanel)
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < kPanel && c + i < d; ++i) to[r * ld + c + i] = from[r * kPanel + i];
}

// s: scores of query i over the keys of a span become weights; d: of the weights, becomes that of the scores.
inline void row_adjoint(const Span& keys, std::size_t i, std::size_t reach, std::size_t length,
                        const unsigned char* visible, float* s, float* d) {
  hide(keys, i, reach, length, visible, s);
  const std::size_t n = keys.to - keys.from;
  const float total = weigh(n, peak_of(n, s, -__builtin_inff()), s);
  const f32 by = set1(total != 0.0f ? 1.0f / total : 0.0f);
  f32 sums[2] = {set1(0.0f), set1(0.0f)};
  for (std::size_t j = 0; j < n; j += kPanel)
    for (int c = 0; c < 2; ++c) {
      const f32 p = mul(load(s + j + c * kLanes), by);
      store(s + j + c * kLanes, p);
      sums[c] = fma(p, load(d + j + c * kLanes), sums[c]);
    }
  const f32 along = set1(sum(add(sums[0], sums[1])));
  for (std::size_t j = 0; j < n; j += kPanel)
    for (int c = 0; c < 2; ++c)
      store(d + j + c * kLanes, mul(load(s + j + c * kLanes), sub(load(d + j + c * kLanes), along)));
}

inline void attention_adjoint(const AttentionAdjoint& a, float* memory) {
  const std::size_t n = a.length, d = a.head_dim, width = round_up(d, kPanel), all = round_up(n, kPanel);
  const std::size_t reach = a.window < 0 ? n : static_cast<std::size_t>(a.window), lds = span_of(n, a.window);
  float* kt = memory;                  // keys and values, whose scores are products with panels
  float* vt = kt + all * d;
  float* kc = vt + all * d;            // keys, and dK and dV, in columns
  float* dk = kc + all * width;
  float* dv = dk + all * width;
  float* q = dv + all * width;         // of a block of queries: rows and columns of q, scaled, and of d
  float* qc = q + kBack * width;
  float* dy = qc + kBack * width;
  float* dc = dy + kBack * width;
  float* s = dc + kBack * width;       // weights
  float* ds = s + kBack * lds;
  float* dq = ds + kBack * lds;        // a panel of columns
  turn(n, d, a.k, a.ld, a.visible, kt);
  turn(n, d, a.v, a.ld, a.visible, vt);
  cut(n, all, d, a.k, a.ld, a.visible, 1.0f, kc);
  for (std::size_t i = 0; i < 2 * all * width; ++i) dk[i] = 0.0f;

  for (std::size_t first = 0; first < n; first += kBack) {
    const std::size_t rows = n - first < kBack ? n - first : kBack;
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < d; ++i) {
        q[r * width + i] = a.q[(first + r) * a.ld + i] * a.scale;
        dy[r * width + i] = a.d[(first + r) * a.ldd + i];
      }
    cut(rows, rows, d, q, width, nullptr, 1.0f, qc);
    cut(rows, rows, d, dy, width, nullptr, 1.0f, dc);
    const Span block = seen_by(first, first + rows - 1, reach, n);
    const std::size_t keys = round_up(block.to - block.from, kPanel);
    for (std::size_t row = 0, here; row < rows; row += here) {
      here = tile_rows(rows - row);
      const int tile = static_cast<int>(here);
      const Span seen = seen_by(first + row, first + row + here - 1, reach, n);
      for (std::size_t j = 0; j < keys; j += kPanel) {
        float *scores = s + row * lds + j, *back = ds + row * lds + j;
        if (common(seen, {block.from + j, block.from + j + kPanel}).empty()) {
          for (std::size_t r = 0; r < here; ++r)
            for (std::size_t l = 0; l < kPanel; ++l) scores[r * lds + l] = back[r * lds + l] = 0.0f;
          continue;
        }
        const float *panel = kt + (block.from + j) * d, *values = vt + (block.from + j) * d;
        gemm_rows<kRows>(tile, d, q + row * width, width, panel, reinterpret_cast<const char*>(panel), 0, scores, lds);
        gemm_rows<kRows>(tile, d, dy + row * width, width, values, reinterpret_cast<const char*>(values), 0, back, lds);
      }
      for (std::size_t r = 0; r < here; ++r)
        row_adjoint(block, first + row + r, reach, n, a.visible, s + (row + r) * lds, ds + (row + r) * lds);
      for (std::size_t c = 0; c < width; c += kPanel) {
        const float* panel = kc + c * all + seen.from * kPanel;
        gemm_rows<kRows>(tile, round_up(seen.to - seen.from, kPanel), ds + row * lds + (seen.from - block.from), lds,
                         panel, reinterpret_cast<const char*>(panel), 0, dq, kPanel);
        for (std::size_t r = 0; r < here; ++r)
          for (std::size_t i = 0; i < kPanel && c + i < d; ++i)
            a.dq[(first + row + r) * a.lddq + c + i] = dq[r * kPanel + i] * a.scale;
      }
    }
    for (std::size_t c = 0; c < width; c += kPanel)
      for (std::size_t j = 0, here; j < keys; j += here) {
        here = keys - j < kRows ? keys - j : kRows;
        const std::size_t at = c * all + (block.from + j) * kPanel;
        outer_rows<kRows>(here, rows, ds + j, lds, qc + c * rows, dk + at);
        outer_rows<kRows>(here, rows, s + j, lds, dc + c * rows, dv + at);
      }
  }
  join(n, all, d, dk, a.dk, a.lddq);
  join(n, all, d, dv, a.dv, a.lddq);
}
