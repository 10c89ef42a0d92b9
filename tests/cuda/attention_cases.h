// Cases of attention that one block of queries does not show: whole launches, and what is not touched.
#pragma once

#include <numeric>

#include <sys/mman.h>

#include "emulated.h"

namespace driver {

// f(a number of the dtype, its terms as a constant).
template <class F>
void with_dtype(const Subject& s, F f) {
  if (s.dtype == Dtype::bfloat16) return f(bf16{}, std::integral_constant<unsigned, 1>{});
  if (s.dtype == Dtype::bf16x3) return f(float{}, std::integral_constant<unsigned, 2>{});
  f(float{}, std::integral_constant<unsigned, 3>{});
}

inline std::vector<cuda::QueryBlock> blocks_of(const std::vector<Sequence>& sequences) {
  std::vector<cuda::QueryBlock> blocks;
  for (const Sequence& q : sequences)
    for (std::size_t first = 0; first < q.length; first += cuda::kQueries)
      blocks.push_back({static_cast<std::uint32_t>(q.first), static_cast<std::uint32_t>(q.length), static_cast<std::uint32_t>(first)});
  return blocks;
}

// q, k, v [total, heads * head_dim] by `place` and `attention`, all tokens in one launch each.
template <class T, unsigned kTerms>
Matrix attend_all(Random& random, const Tokens& t, std::size_t heads, std::size_t d, float scale, Matrix& q, Matrix& k, Matrix& v, Op& op) {
  const std::size_t total = t.total(), width = cuda::padded_head(d), ldq = heads * d + 2 * random.below(3);
  Device<T> to_q(total * ldq);
  Buffer keys(heads * total * width * sizeof(T), 16), values(heads * total * width * sizeof(T), 16);
  T *to_k = reinterpret_cast<T*>(keys.data()), *to_v = reinterpret_cast<T*>(values.data());
  const unsigned some_heads = static_cast<unsigned>(heads), head_dim = static_cast<unsigned>(d), padded = static_cast<unsigned>(width);
  const std::size_t half = random.below(total + 1);  // in two launches
  for (const auto& [first, rows] : {std::pair{std::size_t{0}, half}, std::pair{half, total - half}})
    if (rows)
      cuda::place<T>(next_order(), {static_cast<unsigned>(rows), some_heads, head_dim, q.row(first), k.row(first), v.row(first), q.ld, scale,
                                    to_q.data(), ldq, to_k, to_v, first, total, padded});
  std::vector<cuda::QueryBlock> blocks = blocks_of(t.sequences);
  for (std::size_t free = random.below(3); free; --free) blocks.push_back({});
  for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random.below(i)]);
  Device<cuda::QueryBlock> list(blocks.size());
  std::copy(blocks.begin(), blocks.end(), list.data());
  Device<unsigned char> visible(t.visible.size());
  std::copy(t.visible.begin(), t.visible.end(), visible.data());
  cuda::attention<T, kTerms>(next_order(), {static_cast<unsigned>(blocks.size()), some_heads, head_dim, list.data(), t.sequences[0].window,
                                            to_q.data(), ldq, to_k, to_v, total, t.visible.empty() ? nullptr : visible.data()});
  Matrix out(total, heads * d);
  for (std::size_t i = 0; i < total; ++i) {
    for (std::size_t c = 0; c < heads * d; ++c) out.row(i)[c] = number(to_q[i * ldq + c]);
    op.must(to_q.buffer.untouched((i * ldq + heads * d) * sizeof(T), (i + 1) * ldq * sizeof(T)), "wrote between the rows");
  }
  op.must(to_q.buffer.surroundings_untouched() && keys.surroundings_untouched() && values.surroundings_untouched(), "wrote beyond its memory");
  return out;
}

inline void attention_launch_case(const Subject& s, Random& random, Op& op) {
  const std::size_t edges[] = {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 191, 193};
  const std::ptrdiff_t windows[] = {-1, -1, 64, 5, 0, 63, 65, 1000};
  const std::size_t head_dims[] = {64, 64, 16, 32, 34, 66, 128};
  const std::size_t heads = random.between(1, 2), d = head_dims[random.below(7)], hidden = heads * d;
  const std::ptrdiff_t window = windows[random.below(8)];
  Tokens t;
  for (std::size_t i = random.between(1, 3); i--;) t.add(s, edges[random.below(13)], window);
  hide_some(random, t);
  const std::size_t total = t.total();
  op.begin(text("tokens %zu, heads %zu, head_dim %zu, window ", total, heads, d) + std::to_string(window));
  Matrix q(total, hidden), k(total, hidden), v(total, hidden);
  q.fill(random), k.fill(random), v.fill(random);
  const float scale = random.once_in(2) ? 0.25f : 4.0f;
  Matrix scaled(total, hidden);
  for (std::size_t i = 0; i < total; ++i)
    for (std::size_t c = 0; c < hidden; ++c) {
      k.row(i)[c] = as_operand(s, k.at(i, c)), v.row(i)[c] = as_operand(s, v.at(i, c)), q.row(i)[c] = as_operand(s, q.at(i, c));
      scaled.row(i)[c] = q.at(i, c) * scale;  // a power of two
      if (!t.sees(i)) k.row(i)[c] = v.row(i)[c] = std::nanf("");
    }
  with_dtype(s, [&](auto number, auto terms) {
    using T = decltype(number);
    constexpr unsigned kTerms = decltype(terms)::value;
    Matrix got = attend_all<T, kTerms>(random, t, heads, d, scale, q, k, v, op);
    for (const Sequence& sequence : t.sequences)
      for (std::size_t h = 0; h < heads; ++h)
        for (std::size_t i = 0; i < sequence.length; ++i) {
          const std::vector<Bounded> expected = attend(s, t, sequence, i, scaled, k, v, h * d, d);
          for (std::size_t c = 0; c < d; ++c) op.within(got.at(sequence.first + i, h * d + c), expected[c], sequence.first + i, h * d + c);
        }
    // One sequence by itself.
    const Sequence& one = t.sequences[random.below(t.sequences.size())];
    Tokens single;
    single.add(s, one.length, window);
    if (!t.visible.empty()) {
      const auto from = t.visible.begin() + static_cast<std::ptrdiff_t>(one.first);
      single.visible.assign(from, from + static_cast<std::ptrdiff_t>(one.length));
    }
    Matrix q1(one.length, hidden), k1(one.length, hidden), v1(one.length, hidden);
    for (std::size_t i = 0; i < one.length; ++i)
      for (std::size_t c = 0; c < hidden; ++c)
        q1.row(i)[c] = q.at(one.first + i, c), k1.row(i)[c] = k.at(one.first + i, c), v1.row(i)[c] = v.at(one.first + i, c);
    Matrix alone = attend_all<T, kTerms>(random, single, heads, d, scale, q1, k1, v1, op);
    for (std::size_t i = 0; i < one.length; ++i)
      op.must(!std::memcmp(alone.row(i), got.row(one.first + i), hidden * sizeof(float)), "other bits for a sequence alone");
  });
}

// Blocks of keys that no query of a block can see stand in pages that nobody may touch.
inline void attention_untouched_case(const Subject& s, Random& random, Op& op) {
  constexpr std::size_t kD = 64;
  // A block of queries sees its own keys and two blocks on either side at most.
  const std::size_t blocks = random.between(6, 8), length = cuda::kKeys * blocks - random.below(63), query = cuda::kQueries * random.below(blocks);
  const std::size_t window = random.between(0, 80);
  op.begin(text("length %zu, query %zu, window %zu", length, query, window));
  with_dtype(s, [&](auto number, auto terms) {
    using T = decltype(number);
    constexpr std::size_t kBlockBytes = cuda::kKeys * kD * sizeof(T);
    Device<T> q(length * kD);
    Buffer keys(blocks * kBlockBytes, kBlockBytes), values(blocks * kBlockBytes, kBlockBytes);
    for (std::size_t i = 0; i < blocks * cuda::kKeys * kD; ++i)
      for (Buffer* b : {&keys, &values}) reinterpret_cast<T*>(b->data())[i] = cuda::as<T>(random.unit());
    for (std::size_t i = 0; i < length * kD; ++i) q[i] = cuda::as<T>(random.unit());
    const std::size_t last = std::min(length, query + cuda::kQueries) - 1;
    std::size_t forbidden = 0;
    for (std::size_t b = 0; b < blocks; ++b)
      if ((b + 1) * cuda::kKeys + window <= query || b * cuda::kKeys > last + window)
        for (Buffer* of : {&keys, &values}) ++forbidden, mprotect(of->data() + b * kBlockBytes, kBlockBytes, PROT_NONE);
    Device<cuda::QueryBlock> block(1);
    block[0] = {0, static_cast<std::uint32_t>(length), static_cast<std::uint32_t>(query)};
    cuda::attention<T, decltype(terms)::value>(next_order(), {1, 1, kD, block.data(), static_cast<std::int64_t>(window), q.data(), kD,
                                                              reinterpret_cast<T*>(keys.data()), reinterpret_cast<T*>(values.data()), length, nullptr});
    op.must(forbidden >= 2, "no block of keys is out of reach");
  });
}

}  // namespace driver
