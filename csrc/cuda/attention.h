// Softmax attention over packed sequences, 64 queries of a head at a time, over blocks of 64 keys.
//
//   q [total, heads * head_dim], scaled, becomes softmax(q k^T) v
//   keys, values [heads, total, padded_head(head_dim)], what fills up a row zero
// A query sees the keys of its sequence that are visible and within its window; a block of keys that no
// query of 64 can see is never touched. Without a key the result is zeros. A key that a query cannot
// see adds nothing, whatever it holds. Blocks start at the sequence's first token and are taken in
// order, so a sequence's bits depend on that sequence alone. Running maximum and sum are float32.
// Of float each lane splits what it multiplies into terms; bf16 is multiplied as it stands.
#pragma once

#include "cuda/terms.h"

namespace refimpl::cuda {

constexpr unsigned kQueries = 64, kKeys = 64;  // of a block
constexpr unsigned kAttentionWarps = 4;        // 16 queries each

// Columns of a key and a value in memory; 0 where the head is too large.
constexpr unsigned padded_head(std::size_t head_dim) {
  return head_dim <= 32 ? 32 : head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 0;
}

// 64 queries of a sequence, or what is left of it; none, of length 0: a place that is free.
struct QueryBlock {
  std::uint32_t first, length;  // of the sequence: its first token, its tokens
  std::uint32_t query;          // the first of the queries, a multiple of kQueries
};

// window: |i - j| at most; negative: all. visible [total] or null: all. ldq and head_dim are even, q and
// ldq * sizeof(T) multiples of 8, keys and values of 16.
template <class T>
struct Attention {
  unsigned blocks, heads, head_dim;
  const QueryBlock* block;
  std::int64_t window;
  T* q;
  std::size_t ldq;
  const T *keys, *values;
  std::size_t total;
  const unsigned char* visible;
};

// Two neighbours of a row.
template <class T>
struct alignas(2 * sizeof(T)) Two {
  T first, second;
};

// Keys [from, to) of a sequence.
struct KeySpan {
  std::uint32_t from, to;
};

// What queries i .. last can see: nothing, beyond the sequence.
REFIMPL_DEVICE KeySpan seen_by(std::uint32_t i, std::uint32_t last, std::int64_t window, std::uint32_t length) {
  if (i >= length) return {0, 0};
  if (window < 0 || window >= length) return {0, length};
  const std::uint32_t reach = static_cast<std::uint32_t>(window);
  return {i > reach ? i - reach : 0, length - last > reach + 1 ? last + reach + 1 : length};
}

// One warp's 16 queries, kD columns of a head.
template <class T, unsigned kTerms, unsigned kD>
struct AttentionWarp {
  static constexpr unsigned kLd = kD + 8;  // of keys and values in shared memory: rows begin in other banks
  static constexpr bool kHeld = kTerms == 1;  // q stays in registers
  static constexpr float kLog2e = 1.44269504f;

  const Attention<T>& a;
  const QueryBlock b;
  const unsigned head, row;  // row: of the sequence, this lane's first; the other is 8 further
  const Shared<T> keys, values;
  TermsA<kTerms> q[kHeld ? kD / 16 : 1];
  FragmentD scores[kKeys / 8], out[kD / 8];
  float top[2], sum[2];  // of this lane's rows; sums over this lane's columns

  REFIMPL_DEVICE T* q_row(unsigned i) const { return a.q + (b.first + std::size_t{i}) * a.ldq + std::size_t{head} * a.head_dim; }

  // Columns c, c + 1 of row i of q; zeros beyond the sequence and the head.
  REFIMPL_DEVICE Pairs<kTerms> q_pair(unsigned i, unsigned c) const {
    if (i >= b.length || c >= a.head_dim) return Pairs<kTerms>{};
    const Two<T> two = load_global(reinterpret_cast<const Two<T>*>(q_row(i) + c));
    return split<kTerms>(as_float(two.first), as_float(two.second));
  }
  REFIMPL_DEVICE TermsA<kTerms> q_fragment(unsigned step) const {
    TermsA<kTerms> f;
    REFIMPL_UNROLL
    for (unsigned i = 0; i < 4; ++i) f.set(i, q_pair(row + 8 * (i % 2), 16 * step + 2 * (lane() % 4) + 8 * (i / 2)));
    return f;
  }

  // Keys 8 n .. 8 n + 7 of the block, columns 16 step .. 16 step + 15.
  REFIMPL_DEVICE TermsB<kTerms> key_fragment(unsigned n, unsigned step) const {
    TermsB<kTerms> f;
    const unsigned at = (8 * n + lane() / 4) * kLd + 16 * step + 2 * (lane() % 4);
    REFIMPL_UNROLL
    for (unsigned i = 0; i < 2; ++i) f.set(i, split<kTerms>(as_float(keys.load(at + 8 * i)), as_float(keys.load(at + 8 * i + 1))));
    return f;
  }
  // Values 16 step .. 16 step + 15, columns 8 n .. 8 n + 7.
  REFIMPL_DEVICE TermsB<kTerms> value_fragment(unsigned n, unsigned step) const {
    TermsB<kTerms> f;
    const unsigned at = (16 * step + 2 * (lane() % 4)) * kLd + 8 * n + lane() / 4;
    REFIMPL_UNROLL
    for (unsigned i = 0; i < 2; ++i)
      f.set(i, split<kTerms>(as_float(values.load(at + 8 * i * kLd)), as_float(values.load(at + (8 * i + 1) * kLd))));
    return f;
  }

  REFIMPL_DEVICE void begin() {
    if constexpr (kHeld) {
      REFIMPL_UNROLL
      for (unsigned step = 0; step < kD / 16; ++step) q[step] = q_fragment(step);
    }
    REFIMPL_UNROLL
    for (unsigned n = 0; n < kD / 8; ++n) out[n] = FragmentD{};
    top[0] = top[1] = -HUGE_VALF, sum[0] = sum[1] = 0.0f;
  }

  // scores = q k^T of this block of keys.
  REFIMPL_DEVICE void multiply_keys() {
    REFIMPL_UNROLL
    for (unsigned n = 0; n < kKeys / 8; ++n) scores[n] = FragmentD{};
    if constexpr (kHeld) {
      REFIMPL_UNROLL
      for (unsigned step = 0; step < kD / 16; ++step) {
        REFIMPL_UNROLL
        for (unsigned n = 0; n < kKeys / 8; n += 2) {  // two fragments at once
          const unsigned l = lane(), key = 8 * n + l % 8 + l / 16 * 8;
          const Matrices m = load_matrices(keys, key * kLd + 16 * step + l / 8 % 2 * 8);
          multiply(scores[n], q[step].term[0], {{m.pair[0], m.pair[1]}});
          multiply(scores[n + 1], q[step].term[0], {{m.pair[2], m.pair[3]}});
        }
      }
    } else {
      REFIMPL_NO_UNROLL  // registers are for `out`
      for (unsigned step = 0; step < kD / 16; ++step) {
        q[0] = q_fragment(step);
        REFIMPL_UNROLL
        for (unsigned n = 0; n < kKeys / 8; ++n) multiply_terms(scores[n], q[0], key_fragment(n, step));
      }
    }
  }

  // What cannot be seen of keys [key0, ..) is -inf; then the running maximum and sum, and scores become weights.
  REFIMPL_DEVICE void weigh(std::uint32_t key0, bool all_seen) {
    REFIMPL_UNROLL
    for (unsigned r = 0; r < 2; ++r) {
      const std::uint32_t i = row + 8 * r;
      const KeySpan seen = seen_by(i, i, a.window, b.length);
      float best = top[r];
      REFIMPL_UNROLL
      for (unsigned n = 0; n < kKeys / 8; ++n)
        REFIMPL_UNROLL
        for (unsigned e = 0; e < 2; ++e) {
          const std::uint32_t j = key0 + 8 * n + 2 * (lane() % 4) + e;
          float& s = scores[n].x[2 * r + e];
          if (!all_seen && !(j >= seen.from && j < seen.to && is_visible(j))) s = -HUGE_VALF;
          if (best < s) best = s;
        }
      REFIMPL_UNROLL
      for (unsigned bit = 2; bit; bit /= 2) {  // four lanes have a row
        const float other = shuffle_xor(best, bit);
        if (best < other) best = other;
      }
      const float shift = best == -HUGE_VALF ? 0.0f : best;
      const float shrink = exp2((top[r] - shift) * kLog2e);  // what was summed so far was relative to a smaller maximum
      top[r] = best, sum[r] *= shrink;
      REFIMPL_UNROLL
      for (unsigned n = 0; n < kKeys / 8; ++n)
        REFIMPL_UNROLL
        for (unsigned e = 0; e < 2; ++e) {
          float& s = scores[n].x[2 * r + e];
          s = exp2((s - shift) * kLog2e), sum[r] += s;
        }
      REFIMPL_UNROLL
      for (unsigned n = 0; n < kD / 8; ++n)
        REFIMPL_UNROLL
        for (unsigned e = 0; e < 2; ++e) out[n].x[2 * r + e] *= shrink;
    }
  }
  REFIMPL_DEVICE bool is_visible(std::uint32_t j) const { return !a.visible || load_global(a.visible + b.first + j); }

  // out += weights v. A lane's weights are those of the fragment that it multiplies.
  REFIMPL_DEVICE void multiply_values() {
    REFIMPL_UNROLL
    for (unsigned step = 0; step < kKeys / 16; ++step) {
      TermsA<kTerms> p;
      REFIMPL_UNROLL
      for (unsigned i = 0; i < 4; ++i) {
        const float* s = scores[2 * step + i / 2].x + 2 * (i % 2);
        p.set(i, split<kTerms>(s[0], s[1]));
      }
      if constexpr (kHeld) {
        REFIMPL_UNROLL
        for (unsigned n = 0; n < kD / 8; n += 2) {
          const unsigned l = lane(), key = 16 * step + l % 8 + l / 8 % 2 * 8;
          const Matrices m = load_matrices_turned(values, key * kLd + 8 * n + l / 16 * 8);
          multiply(out[n], p.term[0], {{m.pair[0], m.pair[1]}});
          multiply(out[n + 1], p.term[0], {{m.pair[2], m.pair[3]}});
        }
      } else {
        REFIMPL_UNROLL
        for (unsigned n = 0; n < kD / 8; ++n) multiply_terms(out[n], p, value_fragment(n, step));
      }
    }
  }

  // Which of this lane's rows hold a number that is not finite: bit 0 its first, bit 1 the other.
  REFIMPL_DEVICE unsigned spoilt() const {
    unsigned odd = 0;
    REFIMPL_UNROLL
    for (unsigned n = 0; n < kD / 8; ++n)
      REFIMPL_UNROLL
      for (unsigned e = 0; e < 4; ++e) odd |= is_finite(out[n].x[e]) ? 0u : 1u << e / 2;
    REFIMPL_UNROLL
    for (unsigned bit = 2; bit; bit /= 2) odd |= shuffle_xor(odd, bit);  // four lanes have a row
    return odd;
  }

  REFIMPL_DEVICE void store(unsigned r, unsigned c, float first, float second) const {
    store_global(reinterpret_cast<Two<T>*>(q_row(r) + c), Two<T>{as<T>(first), as<T>(second)});
  }
  // All rows but those.
  REFIMPL_DEVICE void finish(unsigned but) {
    REFIMPL_UNROLL
    for (unsigned r = 0; r < 2; ++r) {
      REFIMPL_UNROLL
      for (unsigned bit = 2; bit; bit /= 2) sum[r] += shuffle_xor(sum[r], bit);
      const float by = sum[r] > 0.0f ? 1.0f / sum[r] : 0.0f;
      if (row + 8 * r >= b.length || (but >> r & 1u)) continue;
      REFIMPL_UNROLL
      for (unsigned n = 0; n < kD / 8; ++n)
        if (const unsigned c = 8 * n + 2 * (lane() % 4); c < a.head_dim)
          store(row + 8 * r, c, out[n].x[2 * r] * by, out[n].x[2 * r + 1] * by);
    }
  }

  // Those rows, one by one, over the keys that each sees: a weight of zero does not hide an Inf or NaN that stands
  // under it. The others keep their bits. A lane has two columns of 64.
  REFIMPL_DEVICE void finish_one_by_one(unsigned rows) const {
    const T* own_keys = a.keys + (head * a.total + b.first) * kD;
    const T* own_values = a.values + (head * a.total + b.first) * kD;
    const unsigned first_row = row - lane() / 4;
    REFIMPL_NO_UNROLL  // what is rare takes no registers
    for (unsigned i = first_row; i < first_row + 16 && i < b.length; ++i) {
      const unsigned local = i - first_row;
      if (!any_lane(lane() / 4 == local % 8 && (rows >> local / 8 & 1u))) continue;
      const KeySpan seen = seen_by(i, i, a.window, b.length);
      const auto score = [&](std::uint32_t j) {
        float s = 0.0f;
        REFIMPL_NO_UNROLL
        for (unsigned c = lane(); c < a.head_dim; c += kWarp)
          s = fma(as_float(load_global(q_row(i) + c)), as_float(load_global(own_keys + std::size_t{j} * kD + c)), s);
        return warp_sum(s);
      };
      float best = -HUGE_VALF, total = 0.0f, y[(kD + 63) / 64][2] = {};
      REFIMPL_NO_UNROLL
      for (std::uint32_t j = seen.from; j < seen.to; ++j)
        if (is_visible(j)) {
          const float s = score(j);
          if (best < s) best = s;
        }
      REFIMPL_NO_UNROLL
      for (std::uint32_t j = seen.from; j < seen.to; ++j)
        if (is_visible(j)) {
          const float p = exp2((score(j) - best) * kLog2e);
          total += p;
          REFIMPL_UNROLL
          for (unsigned k = 0; k < (kD + 63) / 64; ++k)
            if (const unsigned c = 64 * k + 2 * lane(); c < a.head_dim) {
              const Two<T> v = load_global(reinterpret_cast<const Two<T>*>(own_values + std::size_t{j} * kD + c));
              y[k][0] = fma(p, as_float(v.first), y[k][0]), y[k][1] = fma(p, as_float(v.second), y[k][1]);
            }
        }
      const float by = total > 0.0f ? 1.0f / total : 0.0f;
      warp_barrier();  // every lane has read this row of q
      REFIMPL_UNROLL
      for (unsigned k = 0; k < (kD + 63) / 64; ++k)
        if (const unsigned c = 64 * k + 2 * lane(); c < a.head_dim) store(i, c, y[k][0] * by, y[k][1] * by);
    }
  }
};

template <class T, unsigned kD>
constexpr std::size_t attention_shared() {
  return 2 * std::size_t{kKeys} * (kD + 8) * sizeof(T);
}

template <class T, unsigned kTerms, unsigned kD>
REFIMPL_KERNEL attention_kernel(Attention<T> a) {
  using Warp = AttentionWarp<T, kTerms, kD>;
  constexpr unsigned kTile = kKeys * Warp::kLd, kPerCopy = 16 / sizeof(T);
  const Shared<T> keys = shared<T>(0, kTile), values = shared<T>(kTile * sizeof(T), kTile);
  const unsigned head = block_y();
  const QueryBlock b = load_global(a.block + block_x());
  if (b.query >= b.length) return;
  const std::uint32_t last = b.length - b.query < kQueries ? b.length - 1 : b.query + kQueries - 1;
  const KeySpan seen = seen_by(b.query, last, a.window, b.length);

  // 64 rows of keys or values; zeros for those that are not there and for values that nobody may see.
  const auto bring = [&](const Shared<T>& to, const T* from, std::uint32_t key0, bool hidden_too) {
    from += (head * a.total + b.first) * kD;
    for (unsigned i = thread(); i < kKeys * kD / kPerCopy; i += kAttentionWarps * kWarp) {
      const unsigned r = i / (kD / kPerCopy), c = i % (kD / kPerCopy) * kPerCopy;
      const std::uint32_t j = key0 + r;
      const bool real = j < b.length && (hidden_too || !a.visible || load_global(a.visible + b.first + j));
      copy_async(to, r * Warp::kLd + c, from + (real ? std::size_t{j} * kD + c : 0), real ? 16 : 0);
    }
    commit_copies();
  };

  Warp w{a, b, head, b.query + warp() * 16 + lane() / 4, keys, values, {}, {}, {}, {}, {}};
  w.begin();
  // Whole blocks of keys, from the sequence's first on; values come while scores are made, the next keys meanwhile.
  std::uint32_t key0 = seen.from / kKeys * kKeys;
  bring(keys, a.keys, key0, true);
  for (; key0 < seen.to; key0 += kKeys) {
    wait_copies<0>();
    barrier();  // keys are here, and nobody reads the values before
    bring(values, a.values, key0, false);
    w.multiply_keys();
    wait_copies<0>();
    barrier();  // values are here, and nobody reads these keys
    if (key0 + kKeys < seen.to) bring(keys, a.keys, key0 + kKeys, true);
    // Whether every query of the block sees every key: no mask then.
    const KeySpan by_first = seen_by(b.query, b.query, a.window, b.length), by_last = seen_by(last, last, a.window, b.length);
    const bool all_seen = !a.visible && key0 >= by_last.from && key0 + kKeys <= by_first.to && key0 + kKeys <= b.length;
    w.weigh(key0, all_seen);
    w.multiply_values();
  }
  const unsigned spoilt = a.window >= 0 ? w.spoilt() : 0;
  w.finish(spoilt);
  if (any_lane(spoilt != 0)) w.finish_one_by_one(spoilt);
}

// kTerms: of float 2 or 3, of bf16 1. The head has to have a padded_head.
template <class T, unsigned kTerms>
auto attention(Stream stream, const Attention<T>& a) {
  const auto run = [&](auto kernel, std::size_t bytes) {
    return launch(kernel, {a.blocks, a.heads, kAttentionWarps * kWarp, bytes}, stream, a);
  };
  switch (padded_head(a.head_dim)) {
    case 32: return run(attention_kernel<T, kTerms, 32>, attention_shared<T, 32>());
    case 64: return run(attention_kernel<T, kTerms, 64>, attention_shared<T, 64>());
    default: return run(attention_kernel<T, kTerms, 128>, attention_shared<T, 128>());
  }
}

// q, k, v [rows, heads * head_dim] to where attention reads them: q times scale, keys and values head by head with
// zeros that fill up. Where Wqkv does not do it itself.
template <class T>
struct Place {
  unsigned rows, heads, head_dim;
  const float *q, *k, *v;
  std::size_t ld;
  float scale;
  T* to_q;
  std::size_t ldq;
  T *keys, *values;
  std::size_t first, total;  // the first of the rows is this token of so many
  unsigned width;            // padded_head(head_dim)
};

template <class T>
REFIMPL_KERNEL place_kernel(Place<T> a) {
  const unsigned width = a.width, columns = a.heads * width;
  const unsigned per_row = (columns + 255) / 256;
  const unsigned row = block_x() / per_row, i = block_x() % per_row * 256 + thread();
  if (i >= columns) return;
  const unsigned head = i / width, c = i % width;
  const bool real = c < a.head_dim;
  const std::size_t from = row * a.ld + std::size_t{head} * a.head_dim + c, token = a.first + row;
  const std::size_t slot = (head * a.total + token) * width + c;
  store_global(a.keys + slot, as<T>(real ? load_global(a.k + from) : 0.0f));
  store_global(a.values + slot, as<T>(real ? load_global(a.v + from) : 0.0f));
  if (real) store_global(a.to_q + token * a.ldq + std::size_t{head} * a.head_dim + c, as<T>(load_global(a.q + from) * a.scale));
}

template <class T>
auto place(Stream stream, const Place<T>& a) {
  const unsigned per_row = (a.heads * a.width + 255) / 256;
  return launch(place_kernel<T>, {a.rows * per_row, 1, 256, 0}, stream, a);
}

}  // namespace refimpl::cuda
