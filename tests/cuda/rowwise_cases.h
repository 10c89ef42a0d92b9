// Cases of the row-wise kernels that no tier of the CPU has, or has in another form.
#pragma once

#include "emulated.h"

namespace driver {

// Rows that one warp holds in registers, and longer ones, that it reads again.
inline std::size_t any_width(Random& random) {
  const std::size_t held = cuda::kHeld * cuda::kWarp;
  const std::size_t usual[] = {1, 31, 32, 33, 768, held - 1, held, held + 1, held + 32, 2 * held + 7};
  return random.once_in(3) ? usual[random.below(10)] : random.between(1, 400);
}

// Out's rounding of a float32 result, and memory that shows who wrote where.
template <class Out>
Bounded stored(Bounded x) {
  if (sizeof(Out) == sizeof(bf16)) x.error += kBf16Unit * (std::fabs(x.value) + x.error);
  return x;
}
template <class Out>
struct Rows {
  Rows(std::size_t rows, std::size_t n, std::size_t extra)
      : rows(rows), n(n), ld(n + extra), memory(rows ? (rows - 1) * ld + n : 0) {}
  float at(std::size_t r, std::size_t c) { return number(memory[r * ld + c]); }
  bool only_entries_written() const {
    for (std::size_t r = 0; r + 1 < rows; ++r)
      if (!memory.buffer.untouched((r * ld + n) * sizeof(Out), (r + 1) * ld * sizeof(Out))) return false;
    return memory.buffer.surroundings_untouched();
  }
  std::size_t rows, n, ld;
  Device<Out> memory;
};

template <class Out>
void residual_norm_rows(const Subject&, Random& random, Op& op) {
  const std::size_t rows = random.below(10), n = any_width(random);
  const bool add = random.once_in(2), with_bias = random.once_in(2);
  const float eps = random.once_in(2) ? 1e-5f : 1e-12f;
  op.begin(text("rows %zu, n %zu, added %zu, bytes %zu", rows, n, add, sizeof(Out)));
  Matrix x(rows, n, random.below(4)), added(rows, n, random.below(4)), weight(1, n), bias(1, n);
  x.fill(random, 8), added.fill(random, 8), weight.fill(random), bias.fill(random);
  if (rows) x.row(rows / 2)[n / 2] = 2.5e4f;  // an outlier, as ModernBERT has
  Matrix before(rows, n);
  before.copy(x);
  Rows<Out> y(rows, n, random.below(4));
  cuda::residual_norm<Out>(next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(n), x.data(), x.ld,
                                          add ? added.data() : nullptr, added.ld,
                                          {weight.data(), with_bias ? bias.data() : nullptr, eps}, y.memory.data(), y.ld});
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < n; ++c)
      op.must(x.at(r, c) == (add ? before.at(r, c) + added.at(r, c) : before.at(r, c)), "the residual is not the sum");
    const std::vector<Bounded> expected = layer_norm(x.row(r), n, weight.data(), with_bias ? bias.data() : nullptr, eps);
    for (std::size_t c = 0; c < n; ++c) op.within(y.at(r, c), stored<Out>(expected[c]), r, c);
  }
  op.must(y.only_entries_written() && x.only_entries_written(), "wrote beyond its rows");
}
inline void residual_norm_case(const Subject& s, Random& random, Op& op) {
  random.once_in(2) ? residual_norm_rows<float>(s, random, op) : residual_norm_rows<bf16>(s, random, op);
}

inline float stored_number(Random& random, float& x) { return x = random.unit(); }
inline float stored_number(Random& random, bf16& x) { return to_float(x = to_bf16(random.unit())); }
inline float stored_number(Random& random, cuda::f16& x) {  // any sign and fraction, exponents up to below 1
  x.bits = static_cast<std::uint16_t>((random.bits() & 0x83ff) | random.below(15) << 10);
  float y;
  widen(Tensor{&x, Storage::float16}, 0, 1, &y);
  return y;
}

template <class Stored, class Out>
void embedding_norm_rows(Random& random, Op& op) {
  const std::size_t rows = random.below(10), n = any_width(random), vocab = random.between(1, 9), types = random.between(1, 3);
  const bool typed = random.once_in(2), given = random.once_in(2), with_bias = random.once_in(2), first = random.once_in(2);
  op.begin(text("rows %zu, n %zu, stored %zu, out %zu", rows, n, sizeof(Stored), sizeof(Out)));
  Device<Stored> table(vocab * n);
  Matrix wide(vocab, n), type_table(types, n), weight(1, n), bias(1, n);
  for (std::size_t i = 0; i < vocab * n; ++i) wide.data()[i] = stored_number(random, table[i]);
  type_table.fill(random), weight.fill(random), bias.fill(random);
  Device<std::int64_t> ids(rows), type_ids(rows);
  for (std::size_t r = 0; r < rows; ++r)
    ids[r] = static_cast<std::int64_t>(random.below(vocab)), type_ids[r] = static_cast<std::int64_t>(random.below(types));
  Rows<float> x(rows, n, random.below(4));
  Rows<Out> y(rows, n, random.below(4));
  cuda::embedding_norm<Stored, Out>(
      next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(n), ids.data(), given ? type_ids.data() : nullptr, table.data(),
                     vocab, typed ? type_table.data() : nullptr, types, {weight.data(), with_bias ? bias.data() : nullptr, 1e-5f}, x.memory.data(), x.ld,
                     first ? y.memory.data() : nullptr, y.ld});
  std::vector<float> row(n);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < n; ++c)
      row[c] = wide.row(static_cast<std::size_t>(ids[r]))[c] +
               (typed ? type_table.row(given ? static_cast<std::size_t>(type_ids[r]) : 0)[c] : 0.0f);
    const std::vector<Bounded> expected = layer_norm(row.data(), n, weight.data(), with_bias ? bias.data() : nullptr, 1e-5f);
    for (std::size_t c = 0; c < n; ++c) {
      op.within(x.at(r, c), expected[c], r, c);
      if (first) op.must(y.at(r, c) == number(cuda::as<Out>(x.at(r, c))), "the operand is not the stream's number");
    }
  }
  op.must(x.only_entries_written() && y.only_entries_written(), "wrote beyond its rows");
  op.must(first || y.memory.buffer.untouched(0, y.memory.buffer.bytes()), "wrote operands that nobody asked for");
}
inline void embedding_norm_case(const Subject&, Random& random, Op& op) {
  const auto with = [&](auto stored) {
    random.once_in(2) ? embedding_norm_rows<decltype(stored), float>(random, op) : embedding_norm_rows<decltype(stored), bf16>(random, op);
  };
  switch (random.below(3)) {
    case 0: return with(float{});
    case 1: return with(bf16{});
    default: return with(cuda::f16{});
  }
}

// Rows of several heads; each as the row of one head by itself, which rope_case bounds.
inline void rope_rows_case(const Subject& s, Random& random, Op& op) {
  const std::size_t rows = random.below(5), heads = random.between(1, 12), d = even_head(random, s), n = heads * d;
  const float scale = random.once_in(2) ? 1.0f : 0.125f;
  op.begin(text("rows %zu, heads %zu, head_dim %zu", rows, heads, d));
  Matrix x(rows, n, random.below(4)), y(rows, n, random.below(4)), cos(rows + 3, d / 2), sin(rows + 3, d / 2);
  x.fill(random, 3), fill_rotary(random, cos, sin);
  Device<std::uint32_t> table_row(rows);
  for (std::size_t r = 0; r < rows; ++r) table_row[r] = static_cast<std::uint32_t>(random.below(cos.rows));
  const auto run = [&](Matrix& to) {
    cuda::rope(next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(heads), static_cast<unsigned>(d), x.data(), x.ld, cos.data(),
                              sin.data(), table_row.data(), scale, to.data(), to.ld});
  };
  run(y);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<Bounded> exact;
      for (std::size_t i = 0; i < d; ++i) exact.push_back({x.row(r)[h * d + i]});
      const std::vector<Bounded> expected = rope(exact, cos.row(table_row[r]), sin.row(table_row[r]), scale);
      for (std::size_t i = 0; i < d; ++i) op.within(y.at(r, h * d + i), expected[i], r, h * d + i);
    }
  run(x);
  op.must(x.same_bits(y), "other bits in place");
  op.must(y.only_entries_written() && x.only_entries_written(), "wrote beyond its rows");
}

}  // namespace driver
