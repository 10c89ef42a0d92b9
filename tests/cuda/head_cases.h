// Cases of the kernels that stand behind an encoder, and between its steps.
#pragma once

#include "rowwise_cases.h"

namespace driver {

inline void activate_case(const Subject& s, Random& random, Op& op) {
  const Activation act = kActivations[op.cases % std::size(kActivations)];
  const std::size_t rows = random.below(5), n = near(random, s, 300);
  op.begin(text("rows %zu, n %zu, activation %zu", rows, n, static_cast<std::size_t>(act)));
  Matrix x(rows, n, random.below(4)), before(rows, n);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < n; ++c) x.row(r)[c] = activation_input(random);
  before.copy(x);
  cuda::activate_rows(next_order(), act, {static_cast<unsigned>(rows), static_cast<unsigned>(n), x.data(), x.ld});
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < n; ++c) op.within(x.at(r, c), activate(act, {before.at(r, c)}), r, c);
  op.must(x.only_entries_written(), "wrote beyond its rows");
}

// x / max(|x|, 1e-12): the length is rounded once, and so is the quotient.
inline void unit_case(const Subject&, Random& random, Op& op) {
  const std::size_t rows = random.below(10), n = any_width(random);
  const double size = random.once_in(4) ? 1e-15 : 4;
  op.begin(text("rows %zu, n %zu", rows, n));
  Matrix x(rows, n, random.below(4)), y(rows, n, random.below(4));
  x.fill(random, size);
  if (rows && random.once_in(2)) std::fill(x.row(0), x.row(0) + n, 0.0f);
  cuda::unit_rows(next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(n), x.data(), x.ld, y.data(), y.ld});
  for (std::size_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (std::size_t c = 0; c < n; ++c) squares += static_cast<double>(x.at(r, c)) * static_cast<double>(x.at(r, c));
    const double length = std::max(std::sqrt(squares), static_cast<double>(1e-12f));
    for (std::size_t c = 0; c < n; ++c) {
      const double value = static_cast<double>(x.at(r, c)) / length;
      op.within(y.at(r, c), {value, 0x1.02p-23 * std::fabs(value) + kTiny}, r, c);
    }
  }
  op.must(y.only_entries_written() && x.only_entries_written(), "wrote beyond its rows");
}

template <class Out>
void narrow_rows(Random& random, Op& op) {
  const std::size_t rows = random.below(6), n = random.between(1, 600);
  op.begin(text("rows %zu, n %zu, bytes %zu", rows, n, sizeof(Out)));
  Matrix x(rows, n, random.below(4));
  x.fill(random, 8);
  Rows<Out> y(rows, n, random.below(4));
  cuda::narrow<Out>(next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(n), x.data(), x.ld, y.memory.data(), y.ld});
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < n; ++c) op.must(y.at(r, c) == number(cuda::as<Out>(x.at(r, c))), "not the nearest number");
  op.must(y.only_entries_written(), "wrote beyond its rows");
}
inline void narrow_case(const Subject&, Random& random, Op& op) {
  random.once_in(2) ? narrow_rows<float>(random, op) : narrow_rows<bf16>(random, op);
}

// Ids and types that there is no row for, which the host has not looked at: NaN, and nothing else is read.
inline void unknown_rows_case(const Subject&, Random& random, Op& op) {
  const std::size_t rows = random.between(1, 9), n = random.between(1, 80), vocab = random.between(1, 5), types = random.between(1, 3);
  op.begin(text("rows %zu, n %zu, vocab %zu", rows, n, vocab));
  Device<float> table(vocab * n);
  Matrix type_table(types, n), weight(1, n);
  for (std::size_t i = 0; i < vocab * n; ++i) table[i] = random.unit();
  type_table.fill(random), weight.fill(random);
  const std::int64_t wrong[] = {-1, static_cast<std::int64_t>(vocab), INT64_MIN, INT64_MAX, std::int64_t{1} << 32};
  Device<std::int64_t> ids(rows), type_ids(rows);
  std::vector<bool> known(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t what = random.below(3);
    ids[r] = what == 1 ? wrong[random.below(5)] : static_cast<std::int64_t>(random.below(vocab));
    type_ids[r] = what == 2 ? static_cast<std::int64_t>(types) + static_cast<std::int64_t>(random.below(2)) : 0;
    known[r] = what == 0;
  }
  Rows<float> x(rows, n, random.below(4));
  Rows<bf16> y(rows, n, 0);
  cuda::embedding_norm<float, bf16>(next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(n), ids.data(), type_ids.data(),
                                                   table.data(), vocab, type_table.data(), types, {weight.data(), nullptr, 1e-5f},
                                                   x.memory.data(), x.ld, y.memory.data(), y.ld});
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < n; ++c)
      op.must(std::isnan(x.at(r, c)) != known[r] && std::isnan(y.at(r, c)) != known[r], "NaN where there is a row, or none where there is none");
  op.must(x.only_entries_written() && y.only_entries_written(), "wrote beyond its rows");
}

}  // namespace driver
