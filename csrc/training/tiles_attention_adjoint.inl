// The adjoint of attention in tiles of bfloat16, one head of one sequence: MODEL.md (26') - (28'). Included after
// tiles_outer.inl.
//
// Scores stand turned, a row is a key and a lane a query: then what one product leaves is what the next one takes,
// and what belongs to a query lies in lanes. In cells of 32 keys x 32 queries:
//   S' = K Q'    dP' = V dY'    P' = exp(S' - peak) / total    dS' = P' (dP' - along)
//   dV += P' dY    dK += dS' Q    dQ' += K' dS'
// P and dS are rounded to bfloat16 for the last three. Peak, total and along = sum P dP of each query come from a
// pass over the cells before. Sums over cells are float32, in the order of the keys, or of the queries. A hidden key
// is read as zeros, its weights are zero. A cell that the window hides is left out.

constexpr std::size_t kCell = 2 * kTile;
constexpr std::size_t kSquare = 4;  // cells whose products with Q, K and dY follow one another: 4 x 4

// One thread's memory. all, d: length and head_dim, filled up to whole cells.
struct AdjointDesk {
  std::size_t all, d;
  bf16 *keys, *values, *rows;                       // [all, d]; rows: of q or dY, to be arranged
  char *keys_turned;                                // rows of tiles are components, pairs of keys
  char *q_columns, *dy_columns;                     // a tile's columns are queries, pairs of components
  char *q_pairs, *dy_pairs;                         // a tile's columns are components, pairs of queries
  float *peak, *share, *along;                      // [all]: peak is in powers of two, share is 1 / total
  float* cells[2];                                  // scores, then dP, of two cells [keys, queries]
  char *p, *ds, *ds_pairs;                          // of a square of cells: tiles of rows, and of columns
  float *dq;                                        // cell by cell of queries [d, kCell]
  float *dk, *dv;                                   // of a square's keys [kSquare * kCell, d]
};

// Pieces of memory, one after the other; of none, they are counted.
struct Carver {
  char* memory;
  std::size_t used = 0;
  template <class T>
  T* take(std::size_t bytes) {
    char* const here = memory ? memory + used : nullptr;
    used += bytes;
    return reinterpret_cast<T*>(here);
  }
};

inline AdjointDesk adjoint_desk(std::size_t length, std::size_t head_dim, Carver& c) {
  AdjointDesk k;
  k.all = round_up(length, kCell), k.d = round_up(head_dim, kCell);
  const std::size_t number = k.all * k.d * sizeof(bf16), square = kSquare * kSquare * kCell * kCell * sizeof(bf16);
  k.keys = c.take<bf16>(number), k.values = c.take<bf16>(number), k.rows = c.take<bf16>(number);
  k.keys_turned = c.take<char>(number), k.q_columns = c.take<char>(number), k.dy_columns = c.take<char>(number);
  k.q_pairs = c.take<char>(number), k.dy_pairs = c.take<char>(number);
  for (float** x : {&k.peak, &k.share, &k.along}) *x = c.take<float>(k.all * sizeof(float));
  for (float*& x : k.cells) x = c.take<float>(2 * kCell * kCell * sizeof(float));
  for (char** x : {&k.p, &k.ds, &k.ds_pairs}) *x = c.take<char>(square);
  k.dq = c.take<float>(k.all * k.d * sizeof(float));
  for (float** x : {&k.dk, &k.dv}) *x = c.take<float>(kSquare * kCell * k.d * sizeof(float));
  return k;
}

inline std::size_t adjoint_floats(std::size_t length, std::size_t head_dim, std::ptrdiff_t) {
  Carver count{nullptr};
  adjoint_desk(length, head_dim, count);
  return count.used / sizeof(float);
}

// -- arrangements ---------------------------------------------------------------------------------

// x [length, head_dim] times scale, rounded; hidden rows, and what fills up, are zeros.
inline void round_rows(const AdjointDesk& k, const AttentionAdjoint& a, const float* x, std::size_t ld,
                       const unsigned char* visible, float scale, bf16* to) {
  for (std::size_t r = 0; r < k.all; ++r) {
    const bool there = r < a.length && (!visible || visible[r]);
    for (std::size_t i = 0; i < k.d; i += kTile, to += kTile) {
      const int n = there ? lanes_at(i, a.head_dim) : 0;
      store_bits(to, n ? narrow(mul(load_first(x + r * ld + i, n), set1(scale))) : _mm256_setzero_si256());
    }
  }
}

// 16 rows are a tile's columns: [all / 16][d / 32] tiles.
inline void as_columns(const AdjointDesk& k, const bf16* rows, char* to) {
  for (std::size_t r = 0; r < k.all; r += kTile)
    for (std::size_t i = 0; i < k.d; i += kTileDepth, to += kTileBytes) {
      __m512i lines[kTile], turned[kTile];
      for (std::size_t j = 0; j < kTile; ++j) lines[j] = _mm512_loadu_si512(rows + (r + j) * k.d + i);
      transpose(lines, turned);
      for (std::size_t j = 0; j < kTile; ++j) _mm512_storeu_si512(to + j * kTileLine, turned[j]);
    }
}

// Pairs of rows one under the other, or turned: [all / 32][d / 16] tiles.
template <bool turned>
inline void as_pairs(const AdjointDesk& k, const bf16* rows, char* to) {
  for (std::size_t r = 0; r < k.all; r += kTileDepth)
    for (std::size_t i = 0; i < k.d; i += kTile, to += kTileBytes) {
      const auto row = [&](std::size_t j) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + (r + j) * k.d + i)); };
      __m512i lines[kTile], other[kTile];
      for (std::size_t p = 0; p < kTile; ++p) lines[p] = pairs(row(2 * p), row(2 * p + 1));
      if (turned) transpose(lines, other);
      for (std::size_t p = 0; p < kTile; ++p) _mm512_storeu_si512(to + p * kTileLine, turned ? other[p] : lines[p]);
    }
}

// -- cells ----------------------------------------------------------------------------------------

struct Cells {
  std::size_t count, reach, length, far;
  const unsigned char* visible;

  Cells(const AttentionAdjoint& a)
      : count(ceil_div(a.length, kCell)),
        reach(a.window < 0 || static_cast<std::size_t>(a.window) > a.length ? a.length : static_cast<std::size_t>(a.window)),
        length(a.length), far((reach + kCell - 1) / kCell), visible(a.visible) {}

  // The cells on the other axis that a cell sees, [from, to), of those in [first, end).
  std::size_t from(std::size_t cell, std::size_t first) const { return cell > first + far ? cell - far : first; }
  std::size_t to(std::size_t cell, std::size_t end) const { return cell + far + 1 < end ? cell + far + 1 : end; }
  // Whether every pair of a cell is visible.
  bool whole(std::size_t key, std::size_t query) const {
    const std::size_t apart = key > query ? key - query : query - key;
    return !visible && apart * kCell + kCell - 1 <= reach && (key + 1) * kCell <= length;
  }
  // Of 16 queries from `query` on, those that see a key.
  REFIMPL_INLINE __mmask16 lanes(std::size_t key, std::size_t query) const {
    if (key >= length || (visible && !visible[key])) return 0;
    const std::size_t low = key > reach ? key - reach : 0, high = key + reach + 1;
    const auto within = [&](std::size_t i) { return static_cast<int>(i < query ? 0 : i - query < kTile ? i - query : kTile); };
    return static_cast<__mmask16>(first_lanes(within(high)) & ~first_lanes(within(low)));
  }
};

// sums [keys, queries] of a cell: rows [kCell, d] times tiles of columns.
REFIMPL_INLINE void cell_product(Tiles& tiles, const AdjointDesk& k, const bf16* rows, const char* columns, float* sums) {
  const std::size_t steps = k.d / kTileDepth, row_bytes = k.d * sizeof(bf16);
  zero_block(tiles);
  for (std::size_t s = 0; s < steps; ++s) {
    tiles.load_rows<0>(rows + s * kTileDepth, row_bytes), tiles.load_rows<1>(rows + kTile * k.d + s * kTileDepth, row_bytes);
    tiles.load_columns<0>(columns + s * kTileBytes), tiles.load_columns<1>(columns + (steps + s) * kTileBytes);
    tiles.dot<0>(), tiles.dot<1>();
  }
  store_block(tiles, sums, kCell);
}

REFIMPL_INLINE void scores_of(Tiles& tiles, const AdjointDesk& k, std::size_t key, std::size_t query, float* cell) {
  cell_product(tiles, k, k.keys + key * kCell * k.d, k.q_columns + query * kCell * k.d * sizeof(bf16), cell);
  cell_product(tiles, k, k.values + key * kCell * k.d, k.dy_columns + query * kCell * k.d * sizeof(bf16), cell + kCell * kCell);
}

// use(i, its scores) for cells [from, to) one after the other; make(i, where) is called for each before the one ahead of
// it is used, so that products run beside that and their sums have left the tiles when they are read.
template <class Make, class Use>
REFIMPL_INLINE void each_cell(const AdjointDesk& k, std::size_t from, std::size_t to, Make make, Use use) {
  if (from < to) make(from, k.cells[from % 2]);
  for (std::size_t i = from; i < to; ++i) {
    if (i + 1 < to) make(i + 1, k.cells[(i + 1) % 2]);
    use(i, k.cells[i % 2]);
  }
}

REFIMPL_INLINE f32 kept(f32 x, __mmask16 lanes) { return {_mm512_maskz_mov_ps(lanes, x.v)}; }

// What is known of 16 queries after some keys.
struct Sums {
  f32 top, total, along;
};

// Scores and dP of a cell's keys, of 16 queries that begin with number `query`. whole: all of them are visible.
template <bool whole>
REFIMPL_INLINE void sum_keys(const Cells& cells, std::size_t key, std::size_t query, const float* s, const float* d, Sums& sums) {
  const f32 nothing = set1(-__builtin_inff()), log2e = set1(1.44269504f), zero = set1(0.0f);
  __mmask16 seen[kCell];
  f32 best = sums.top;
  for (std::size_t r = 0; r < kCell; ++r) {
    if constexpr (whole) {
      best = max(best, load(s + r * kCell));
    } else {
      seen[r] = cells.lanes(key + r, query);
      best.v = _mm512_mask_max_ps(best.v, seen[r], best.v, load(s + r * kCell).v);
    }
  }
  const f32 peak{_mm512_mask_mov_ps(best.v, _mm512_cmp_ps_mask(best.v, nothing.v, _CMP_EQ_OQ), zero.v)};
  const f32 shift = mul(peak, set1(-1.44269504f)), by = exp2_for_bf16(fma(sums.top, log2e, shift));
  f32 total = mul(sums.total, by), along = mul(sums.along, by);
#pragma GCC unroll 4
  for (std::size_t r = 0; r < kCell; ++r) {
    f32 p = exp2_for_bf16(fma(load(s + r * kCell), log2e, shift));
    if constexpr (!whole) p = kept(p, seen[r]);
    total = add(total, p), along = fma(p, load(d + r * kCell), along);
  }
  sums = {best, total, along};
}

// Peak, share and along of a cell of queries.
inline void sum_up(Tiles& tiles, const AdjointDesk& k, const Cells& cells, std::size_t query) {
  const f32 zero = set1(0.0f);
  Sums sums[2] = {{set1(-__builtin_inff()), zero, zero}, {set1(-__builtin_inff()), zero, zero}};
  const auto make = [&](std::size_t key, float* cell) { scores_of(tiles, k, key, query, cell); };
  each_cell(k, cells.from(query, 0), cells.to(query, cells.count), make, [&](std::size_t key, const float* cell) {
    const bool whole = cells.whole(key, query);
    for (std::size_t h = 0; h < 2; ++h) {
      const float *s = cell + h * kTile, *d = s + kCell * kCell;
      if (whole)
        sum_keys<true>(cells, key * kCell, query * kCell + h * kTile, s, d, sums[h]);
      else
        sum_keys<false>(cells, key * kCell, query * kCell + h * kTile, s, d, sums[h]);
    }
  });
  for (std::size_t h = 0; h < 2; ++h) {
    const std::size_t at = query * kCell + h * kTile;
    const __mmask16 some = _mm512_cmp_ps_mask(sums[h].total.v, zero.v, _CMP_NEQ_UQ);
    const f32 share = kept(div(set1(1.0f), sums[h].total), some);
    store(k.peak + at, kept(mul(sums[h].top, set1(1.44269504f)), some)), store(k.share + at, share);
    store(k.along + at, mul(sums[h].along, share));
  }
}

// P' and dS' of 16 keys under 16 queries, from their scores and dP: rows of tiles, and dS' as tiles of columns.
template <bool whole>
REFIMPL_INLINE void weigh_tile(const Cells& cells, std::size_t key, std::size_t query, f32 peak, f32 share, f32 along,
                               const float* s, const float* d, char* p_rows, char* ds_rows, char* ds_columns) {
  const f32 log2e = set1(1.44269504f);
#pragma GCC unroll 2
  for (std::size_t r = 0; r < kTile; r += 2) {
    __m256i two[2];
#pragma GCC unroll 2
    for (std::size_t o = 0; o < 2; ++o) {
      f32 p = mul(exp2_for_bf16(sub(mul(load(s + (r + o) * kCell), log2e), peak)), share);
      if constexpr (!whole) p = kept(p, cells.lanes(key + r + o, query));
      two[o] = narrow(mul(p, sub(load(d + (r + o) * kCell), along)));
      store_bits(reinterpret_cast<bf16*>(p_rows + (r + o) * kTileLine), narrow(p));
      store_bits(reinterpret_cast<bf16*>(ds_rows + (r + o) * kTileLine), two[o]);
    }
    _mm512_storeu_si512(ds_columns + r / 2 * kTileLine, pairs(two[0], two[1]));
  }
}

// P' and dS' of a cell, which is number (i, j) of its square.
inline void weigh_cell(const AdjointDesk& k, const Cells& cells, std::size_t key, std::size_t query, std::size_t i,
                       std::size_t j, const float* scores) {
  const bool whole = cells.whole(key, query);
  for (std::size_t h = 0; h < 2; ++h) {
    const std::size_t at = query * kCell + h * kTile;
    const f32 peak = load(k.peak + at), share = load(k.share + at), along = load(k.along + at);
    for (std::size_t t = 0; t < 2; ++t) {
      const std::size_t row = key * kCell + t * kTile, from = t * kTile * kCell + h * kTile;
      const std::size_t place = ((2 * i + t) * kSquare + j) * kTileBytes + h * (kTileLine / 2);
      char* columns = k.ds_pairs + ((i * kSquare + j) * 2 + h) * kTileBytes + t * (kTileBytes / 2);
      if (whole)
        weigh_tile<true>(cells, row, at, peak, share, along, scores + from, scores + kCell * kCell + from, k.p + place, k.ds + place, columns);
      else
        weigh_tile<false>(cells, row, at, peak, share, along, scores + from, scores + kCell * kCell + from, k.p + place, k.ds + place, columns);
    }
  }
}

// sums [keys of cell i of a square, d] += rows of its cells [from, to) times tiles of pairs of queries, the first of
// which belong to cell `query0`.
REFIMPL_INLINE void add_keys(Tiles& tiles, const AdjointDesk& k, const char* rows, std::size_t i, std::size_t from,
                             std::size_t to, const char* columns, std::size_t query0, float* sums) {
  const std::size_t across = k.d / kTile;
  for (std::size_t c = 0; c < across; c += 2) {
    float* at = sums + i * kCell * k.d + c * kTile;
    load_block(tiles, at, k.d);
    for (std::size_t j = from; j < to; ++j) {
      tiles.load_rows<0>(rows + (2 * i * kSquare + j) * kTileBytes, kTileLine);
      tiles.load_rows<1>(rows + ((2 * i + 1) * kSquare + j) * kTileBytes, kTileLine);
      const char* two = columns + ((query0 + j) * across + c) * kTileBytes;
      tiles.load_columns<0>(two), tiles.load_columns<1>(two + kTileBytes);
      tiles.dot<0>(), tiles.dot<1>();
    }
    store_block(tiles, at, k.d);
  }
}

// dQ' of cell j of a square's queries += K' dS' over its cells [from, to) of keys.
REFIMPL_INLINE void add_queries(Tiles& tiles, const AdjointDesk& k, std::size_t j, std::size_t from, std::size_t to,
                                std::size_t key0, std::size_t query0) {
  const std::size_t across = k.d / kTile;
  for (std::size_t c = 0; c < across; c += 2) {
    float* at = k.dq + ((query0 + j) * k.d + c * kTile) * kCell;
    load_block(tiles, at, kCell);
    for (std::size_t i = from; i < to; ++i) {
      const char* two = k.keys_turned + ((key0 + i) * across + c) * kTileBytes;
      tiles.load_rows<0>(two, kTileLine), tiles.load_rows<1>(two + kTileBytes, kTileLine);
      const char* columns = k.ds_pairs + (i * kSquare + j) * 2 * kTileBytes;
      tiles.load_columns<0>(columns), tiles.load_columns<1>(columns + kTileBytes);
      tiles.dot<0>(), tiles.dot<1>();
    }
    store_block(tiles, at, kCell);
  }
}

// -- the adjoint ----------------------------------------------------------------------------------

inline void attention_adjoint(const AttentionAdjoint& a, float* memory) {
  Carver pieces{reinterpret_cast<char*>(memory)};
  const AdjointDesk k = adjoint_desk(a.length, a.head_dim, pieces);
  const Cells cells(a);
  round_rows(k, a, a.k, a.ld, a.visible, 1.0f, k.keys), as_pairs<true>(k, k.keys, k.keys_turned);
  round_rows(k, a, a.v, a.ld, a.visible, 1.0f, k.values);
  round_rows(k, a, a.q, a.ld, nullptr, a.scale, k.rows), as_columns(k, k.rows, k.q_columns), as_pairs<false>(k, k.rows, k.q_pairs);
  round_rows(k, a, a.d, a.ldd, nullptr, 1.0f, k.rows), as_columns(k, k.rows, k.dy_columns), as_pairs<false>(k, k.rows, k.dy_pairs);
  __builtin_memset(k.dq, 0, k.all * k.d * sizeof(float));

  Tiles tiles;
  for (std::size_t query = 0; query < cells.count; ++query) sum_up(tiles, k, cells, query);
  for (std::size_t key0 = 0; key0 < cells.count; key0 += kSquare) {
    const std::size_t keys = cells.count - key0 < kSquare ? cells.count - key0 : kSquare;
    __builtin_memset(k.dk, 0, kSquare * kCell * k.d * sizeof(float));
    __builtin_memset(k.dv, 0, kSquare * kCell * k.d * sizeof(float));
    const std::size_t begin = cells.from(key0, 0) / kSquare * kSquare, end = cells.to(key0 + keys - 1, cells.count);
    for (std::size_t query0 = begin; query0 < end; query0 += kSquare) {
      const std::size_t queries = cells.count - query0 < kSquare ? cells.count - query0 : kSquare;
      for (std::size_t i = 0; i < keys; ++i) {
        const std::size_t from = cells.from(key0 + i, query0), to = cells.to(key0 + i, query0 + queries);
        if (from >= to) continue;
        const auto make = [&](std::size_t query, float* cell) { scores_of(tiles, k, key0 + i, query, cell); };
        each_cell(k, from, to, make, [&](std::size_t query, const float* cell) {
          weigh_cell(k, cells, key0 + i, query, i, query - query0, cell);
        });
        add_keys(tiles, k, k.p, i, from - query0, to - query0, k.dy_pairs, query0, k.dv);
        add_keys(tiles, k, k.ds, i, from - query0, to - query0, k.q_pairs, query0, k.dk);
      }
      for (std::size_t j = 0; j < queries; ++j) {
        const std::size_t from = cells.from(query0 + j, key0), to = cells.to(query0 + j, key0 + keys);
        if (from < to) add_queries(tiles, k, j, from - key0, to - key0, key0, query0);
      }
    }
    for (std::size_t r = 0; r < keys * kCell && key0 * kCell + r < a.length; ++r) {
      const std::size_t to = (key0 * kCell + r) * a.lddq;
      for (std::size_t i = 0; i < a.head_dim; i += kLanes) {
        const int n = lanes_at(i, a.head_dim);
        store_first(a.dk + to + i, load(k.dk + r * k.d + i), n), store_first(a.dv + to + i, load(k.dv + r * k.d + i), n);
      }
    }
  }
  for (std::size_t query = 0; query < k.all; query += kTile)
    for (std::size_t i = 0; i < a.head_dim; i += kTile) {
      __m512i lines[kTile], turned[kTile];
      const float* from = k.dq + (query / kCell * k.d + i) * kCell + query % kCell;
      for (std::size_t r = 0; r < kTile; ++r) lines[r] = _mm512_loadu_si512(from + r * kCell);
      transpose(lines, turned);
      for (std::size_t r = 0; r < kTile && query + r < a.length; ++r)
        store_first(a.dq + (query + r) * a.lddq + i, mul({_mm512_castsi512_ps(turned[r])}, set1(a.scale)), lanes_at(i, a.head_dim));
    }
}
