// One random case of each kernel, compared with double loops.
#pragma once

#include <iterator>
#include <string>

#include "subject.h"

namespace driver {

// -- sizes ----------------------------------------------------------------------------------------

// Around a multiple of something that the kernels count in; at least 1.
inline std::size_t near(Random& random, const Subject& s, std::size_t most) {
  const std::size_t steps[] = {1, s.k.lanes, 2 * s.k.lanes, s.k.row_block, s.k.slot_block, s.k.query_block, 32, 64};
  const std::size_t step = steps[random.below(8)];
  const std::size_t n = step * random.between(1, std::max<std::size_t>(1, std::min<std::size_t>(4, most / step))) + random.below(3);
  return std::min(most, std::max<std::size_t>(n, 2) - 1);
}

// Rows, columns and depth of a product of bounded work: one of the three may be large.
struct Sizes {
  std::size_t m, n, k;
};
inline Sizes sizes(Random& random, const Subject& s) {
  Sizes z{near(random, s, 40), near(random, s, 70), near(random, s, 70)};
  switch (random.below(5)) {
    case 0: z.m = random.between(90, 300), z.n = std::min<std::size_t>(z.n, 33), z.k = std::min<std::size_t>(z.k, 33); break;
    case 1: z.k = 256 * random.between(1, 2) + random.below(3) - 1, z.m = std::min<std::size_t>(z.m, 20); break;
    case 2: z.n = near(random, s, 260); break;
    case 3: z.n = random.between(200, 300), z.k = random.between(700, 900), z.m = random.between(1, 40); break;
    default: break;
  }
  return z;
}

inline std::size_t even_head(Random& random, const Subject& s) {
  const std::size_t usual[] = {2, 4, 6, 16, 32, 64, 64, 128};
  return random.once_in(2) ? usual[random.below(8)] : 2 * near(random, s, 64);
}

inline std::string text(const char* format, std::size_t a, std::size_t b = 0, std::size_t c = 0, std::size_t d = 0) {
  char line[120];
  std::snprintf(line, sizeof line, format, a, b, c, d);
  return line;
}

#define REFIMPL_VALUE(name, ...) Activation::name,
inline constexpr Activation kActivations[] = {REFIMPL_ACTIVATIONS(REFIMPL_VALUE)};
#undef REFIMPL_VALUE

// -- numbers and formats --------------------------------------------------------------------------

// Every bfloat16 and float16 pattern.
inline void widen_case(const Subject&, Random& random, Op& op) {
  const std::size_t first = random.below(70);
  for (const Storage storage : {Storage::bfloat16, Storage::float16}) {
    op.begin(storage == Storage::bfloat16 ? "bfloat16" : "float16");
    Buffer bits(65536 * 2, 2);
    for (std::size_t i = 0; i < 65536; ++i) {
      const std::uint16_t x = static_cast<std::uint16_t>(i);
      std::memcpy(bits.data() + 2 * i, &x, 2);
    }
    Matrix out(1, 65536 - first);
    widen(Tensor{bits.data(), storage}, first, out.columns, out.data());
    const int fraction_bits = storage == Storage::bfloat16 ? 7 : 10, bias = storage == Storage::bfloat16 ? 127 : 15;
    for (std::size_t i = first; i < 65536; ++i) {
      const int exponent = static_cast<int>(i & 0x7fff) >> fraction_bits, fraction = static_cast<int>(i) & ((1 << fraction_bits) - 1);
      const float got = out.at(0, i - first);
      bool right;
      if (exponent == 2 * bias + 1) {
        right = fraction ? std::isnan(got) : std::isinf(got);
      } else {
        const int whole = exponent ? fraction + (1 << fraction_bits) : fraction;
        right = std::fabs(got) == std::ldexp(whole, (exponent ? exponent : 1) - bias - fraction_bits);
      }
      op.must(right && std::signbit(got) == (i >= 32768), text("pattern %zu", i).c_str());
    }
    op.must(out.only_entries_written(), "wrote beyond its entries");
  }
}

// To an operand and back: nothing is lost, or each number is rounded to bfloat16.
inline void operand_case(const Subject& s, Random& random, Op& op) {
  const std::size_t rows = random.below(6), columns = near(random, s, 300);
  op.begin(text("rows %zu, columns %zu", rows, columns));
  Matrix x(rows, columns, random.below(5)), back(rows, columns, random.below(5));
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c) x.row(r)[c] = std::ldexp(random.unit(), static_cast<int>(random.below(80)) - 40);
  Operands y(s, random, rows, columns);
  y.set(x), y.get(back);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c)
      op.must(back.at(r, c) == as_operand(s, x.at(r, c)), "a number is neither kept nor rounded to bfloat16");
  op.must(y.only_rows_written() && back.only_entries_written(), "wrote beyond its rows");
}

// The format is the kernels' own; products read it. Here: any storage and any split fill it alike.
inline void pack_case(const Subject& s, Random& random, Op& op) {
  const std::size_t k = near(random, s, 140);
  Packing p{near(random, s, 200), k, 0};
  if (random.once_in(2)) p.group = 2 * near(random, s, 40), p.n = p.group * random.between(1, 3);
  const Weight w(random, p.n, k, any_storage(random));
  op.begin(text("n %zu, k %zu, group %zu, storage %zu", p.n, k, p.group, static_cast<std::size_t>(w.tensor().storage)));
  const Packed whole(s, p, w.tensor());
  op.must(whole.buffer.surroundings_untouched(), "wrote beyond packed_bytes");
  const Packed widened(s, p, Tensor{w.values.data(), Storage::float32});
  op.must(whole.buffer.same_bytes(widened.buffer), "differs from its widened self");
  Buffer parts(whole.buffer.bytes(), 64);
  for (const Range& r : pieces(random, 1, panels_of(s, p))) s.k.pack(p, w.tensor(), r.panel0, r.panel1, parts.data());
  op.must(whole.buffer.same_bytes(parts), "differs when packed in pieces");
  op.must(parts.surroundings_untouched(), "wrote beyond packed_bytes in pieces");
  if (random.once_in(3)) {
    Buffer none(whole.buffer.bytes(), 64);
    s.k.pack(p, w.tensor(), 0, 0, none.data());
    op.must(none.untouched(0, none.bytes()), "wrote without panels");
  }
}

// -- products -------------------------------------------------------------------------------------

// One element of x W^T + bias + residual: k products, each of s.products terms, and what is added.
// Integers: to the bit.
inline Bounded product(const Subject& s, const float* x, const float* w, std::size_t k, double bias, double residual) {
  if (s.dtype == Dtype::int8) {
    const float y = product_of(Integers(x, k, 127), Integers(w, k, 63));
    return {y + static_cast<float>(bias) + static_cast<float>(residual), 0};
  }
  double value = 0, size = 0;
  for (std::size_t p = 0; p < k; ++p) {
    const double term = static_cast<double>(x[p]) * as_weight(s, w[p]);
    value += term, size += std::fabs(term);
  }
  const double all = (s.products * static_cast<double>(k) + 3), roundings = all * kEps / 2;
  const double left_out = size * s.dropped;
  size += std::fabs(bias) + std::fabs(residual);
  return {value + bias + residual, size * roundings / (1 - roundings) + left_out + all * kTiny};
}

// A product's operands, its bias, and what it should be.
struct Product {
  Product(const Subject& subject, Random& random, std::size_t m, const Packing& p)
      : s(subject), m(m), extreme(subject.dtype == Dtype::int8 && random.once_in(4)),
        weight(random, p.n, p.k, any_storage(random), extreme ? 0 : 1, extreme ? 1 : 0), packed(s, p, weight.tensor()),
        x(s, random, m, p.k), seen(m, p.k), bias(1, p.n), with_bias(random.once_in(2)), scratch(s, p.k, 2) {
    seen.fill(random), bias.fill(random);
    if (extreme)  // every integer the largest: where a sum in 16 bits would be cut
      for (std::size_t r = 0; r < m; ++r) std::fill_n(seen.row(r), p.k, r % 2 ? -3.0f : 3.0f);
    if (m && random.once_in(4)) seen.row(m / 2)[p.k / 2] = 2.5e4f;  // an outlier, as ModernBERT has
    x.set(seen), x.get(seen);
  }
  Gemm gemm() { return x.product(packed.packing, packed.buffer.data(), with_bias ? bias.data() : nullptr); }
  Bounded at(std::size_t r, std::size_t c, double residual = 0) {
    const float* w = weight.values.data() + c * weight.k;
    return product(s, seen.row(r), w, weight.k, with_bias ? bias.at(0, c) : 0, residual);
  }
  std::size_t panels() const { return panels_of(s, packed.packing); }
  Range all() const { return {0, m, 0, panels()}; }

  const Subject& s;
  const std::size_t m;
  const bool extreme;
  const Weight weight;
  Packed packed;
  Operands x;
  Matrix seen, bias;
  const bool with_bias;
  Scratch scratch;
};

// An operand that a kernel wrote must serve a product as the same numbers brought by to_operand do.
inline bool feeds_products(const Subject& s, Random& random, Operands& y) {
  Matrix numbers = y.read();
  Operands again(s, random, y.rows, y.columns);
  again.set(numbers);
  const std::size_t n = near(random, s, 20);
  const Weight w(random, n, y.columns, Storage::float32);
  const Packed packed(s, {n, y.columns, 0}, w.tensor());
  Scratch scratch(s, y.columns, 2);
  Matrix a(y.rows, n), b(y.rows, n);
  const Range all{0, y.rows, 0, panels_of(s, packed.packing)};
  s.k.project(y.product(packed.packing, packed.buffer.data(), nullptr), nullptr, 0, a.data(), a.ld, all, scratch.data());
  s.k.project(again.product(packed.packing, packed.buffer.data(), nullptr), nullptr, 0, b.data(), b.ld, all, scratch.data());
  return a.same_bits(b);
}

inline void project_case(const Subject& s, Random& random, Op& op) {
  const Sizes z = sizes(random, s);
  Packing p{z.n, z.k, 0};
  if (random.once_in(3)) p.group = 2 * random.between(1, 20), p.n = round_up(z.n, p.group);
  const std::size_t m = random.once_in(20) ? 0 : z.m, n = p.n, panels = panels_of(s, p);
  Product g(s, random, m, p);
  const bool add = random.once_in(2);
  op.begin(text("m %zu, n %zu, k %zu, group %zu", m, n, z.k, p.group));
  Matrix residual(m, n, random.below(4)), whole(m, n, random.below(4)), parts(m, n, random.below(4));
  residual.fill(random, 8.0f);
  s.k.project(g.gemm(), add ? residual.data() : nullptr, residual.ld, whole.data(), whole.ld, g.all(), g.scratch.data());
  for (std::size_t r = 0; r < m; ++r)
    for (std::size_t c = 0; c < n; ++c) op.within(whole.at(r, c), g.at(r, c, add ? residual.at(r, c) : 0), r, c);

  for (const Range& piece : pieces(random, m, panels))
    s.k.project(g.gemm(), add ? residual.data() : nullptr, residual.ld, parts.data(), parts.ld, piece, g.scratch.data());
  op.must(parts.same_bits(whole), "other bits in pieces");
  parts.fill(random);
  for (const Range& piece : pieces_by_rows(random, m, panels))
    s.k.project(g.gemm(), add ? residual.data() : nullptr, residual.ld, parts.data(), parts.ld, piece, g.scratch.data());
  op.must(parts.same_bits(whole), "other bits in pieces of the same rows");
  op.must(whole.only_entries_written() && parts.only_entries_written(), "wrote beyond its rows");

  // One piece alone: its rows and columns, and nothing else.
  if (m) {
    const std::vector<Range> cut = pieces(random, m, panels);
    const Range& piece = cut[random.below(cut.size())];
    std::vector<bool> mine(n, false);
    for (std::size_t i = piece.panel0; i < piece.panel1; ++i) {
      const PanelColumns c = columns_of(p, i, s.k.lanes);
      for (int l = 0; l < c.n_first; ++l) mine[c.first + static_cast<std::size_t>(l)] = true;
      for (int l = 0; l < c.n_second; ++l) mine[c.second + static_cast<std::size_t>(l)] = true;
    }
    Matrix alone(m, n);
    s.k.project(g.gemm(), add ? residual.data() : nullptr, residual.ld, alone.data(), alone.ld, piece, g.scratch.data());
    for (std::size_t r = 0; r < m; ++r)
      for (std::size_t c = 0; c < n; ++c) {
        const std::size_t at = (r * n + c) * sizeof(float);
        const bool inside = r >= piece.row0 && r < piece.row1 && mine[c];
        op.must(inside || alone.buffer.untouched(at, at + sizeof(float)), "a piece wrote elsewhere");
      }
  }
  if (add) {  // y may be the residual
    s.k.project(g.gemm(), residual.data(), residual.ld, residual.data(), residual.ld, g.all(), g.scratch.data());
    op.must(residual.same_bits(whole) && residual.only_entries_written(), "other bits in place");
  }
  op.must(g.scratch.buffer.surroundings_untouched(), "wrote beyond its scratch");
  op.must(g.x.integers_kept(), "wrote beyond its rows of integers");
}

// Inf in a row makes its results Inf of the weight's sign, NaN makes them NaN; other rows keep their bits.
// As integers both make all of a row NaN, as it has no scale.
inline void infinite_case(const Subject& s, Random& random, Op& op) {
  const Sizes z = sizes(random, s);
  op.begin(text("m %zu, n %zu, k %zu", z.m, z.n, z.k));
  Product g(s, random, z.m, {z.n, z.k, 0});
  Matrix before(z.m, z.n), after(z.m, z.n);
  s.k.project(g.gemm(), nullptr, 0, before.data(), before.ld, g.all(), g.scratch.data());
  const std::size_t row = random.below(z.m), p = random.below(z.k);
  const float odd[] = {HUGE_VALF, -HUGE_VALF, NAN};
  g.seen.row(row)[p] = odd[random.below(3)];
  g.x.set(g.seen);
  s.k.project(g.gemm(), nullptr, 0, after.data(), after.ld, g.all(), g.scratch.data());
  for (std::size_t c = 0; c < z.n; ++c) {
    const float expected = s.dtype == Dtype::int8 ? NAN : g.seen.row(row)[p] * as_weight(s, g.weight.values[c * z.k + p]);
    const float got = after.at(row, c);
    op.must(std::isnan(expected) ? std::isnan(got) : got == expected, text("column %zu is neither its Inf nor its NaN", c).c_str());
  }
  std::memcpy(after.row(row), before.row(row), z.n * sizeof(float));
  op.must(after.same_bits(before), "another row has other bits");
}

// The same of a weight, and its column of y.
inline void infinite_weight_case(const Subject& s, Random& random, Op& op) {
  const Sizes z = sizes(random, s);
  op.begin(text("m %zu, n %zu, k %zu", z.m, z.n, z.k));
  Weight weight(random, z.n, z.k, Storage::float32);
  Operands x(s, random, z.m, z.k);
  Matrix seen(z.m, z.k), before(z.m, z.n), after(z.m, z.n);
  seen.fill(random), x.set(seen), x.get(seen);
  Scratch scratch(s, z.k, 2);
  const Packing p{z.n, z.k, 0};
  const auto project = [&](Matrix& y) {
    const Packed packed(s, p, weight.tensor());
    s.k.project(x.product(p, packed.buffer.data(), nullptr), nullptr, 0, y.data(), y.ld, {0, z.m, 0, panels_of(s, p)}, scratch.data());
  };
  project(before);
  const std::size_t column = random.below(z.n), at = random.below(z.k);
  const float odd[] = {HUGE_VALF, -HUGE_VALF, NAN};
  const float w = odd[random.below(3)];
  weight.set(column * z.k + at, w);
  project(after);
  for (std::size_t r = 0; r < z.m; ++r) {
    const float expected = s.dtype == Dtype::int8 ? NAN : seen.row(r)[at] * w, got = after.at(r, column);
    op.must(std::isnan(expected) ? std::isnan(got) : got == expected, text("row %zu is neither its Inf nor its NaN", r).c_str());
    after.row(r)[column] = before.at(r, column);
  }
  op.must(after.same_bits(before), "another column has other bits");
}

inline void glu_case(const Subject& s, Random& random, Op& op) {
  const Sizes z = sizes(random, s);
  const std::size_t m = random.once_in(20) ? 0 : z.m, inter = (z.n + 1) / 2;
  const Activation act = kActivations[op.cases % std::size(kActivations)];
  Product g(s, random, m, {2 * inter, z.k, 2 * inter});
  op.begin(text("m %zu, inter %zu, k %zu, activation %zu", m, inter, z.k, static_cast<std::size_t>(act)));
  Operands y(s, random, m, inter), unfused(s, random, m, inter);
  for (const Range& piece : pieces(random, m, g.panels())) s.k.project_glu(g.gemm(), act, y.data(), y.ld, piece, g.scratch.data());
  Matrix got = y.read();
  for (std::size_t r = 0; r < m; ++r)
    for (std::size_t c = 0; c < inter; ++c)
      op.within(got.at(r, c), as_operand(s, activate(act, g.at(r, c)) * g.at(r, inter + c)), r, c);

  Matrix u(m, 2 * inter), gated(m, inter);
  s.k.project(g.gemm(), nullptr, 0, u.data(), u.ld, g.all(), g.scratch.data());
  s.k.glu(m, inter, act, u.data(), u.ld, gated.data(), gated.ld);
  unfused.set(gated);
  Matrix separate = unfused.read();
  op.must(got.same_bits(separate), "other bits than its parts");
  op.must(y.only_rows_written() && g.scratch.buffer.surroundings_untouched(), "wrote beyond its rows");
  op.must(feeds_products(s, random, y), "its operands do not serve a product");
  if (m > 1) {
    Operands one(s, random, m, inter);
    const std::size_t row = random.below(m);
    s.k.project_glu(g.gemm(), act, one.data(), one.ld, {row, row + 1, 0, g.panels()}, g.scratch.data());
    for (std::size_t r = 0; r < m; ++r) op.must(r == row || one.row_untouched(r), "a piece wrote elsewhere");
  }
}

// -- rows -----------------------------------------------------------------------------------------

// Sum of n terms.
inline Bounded total(const std::vector<Bounded>& x) {
  double value = 0, error = 0, size = 0;
  for (const Bounded& b : x) value += b.value, error += b.error, size += std::fabs(b.value);
  return {value, error + static_cast<double>(x.size()) * kEps * size};
}

inline std::vector<Bounded> layer_norm(const float* x, std::size_t n, const float* weight, const float* bias, float eps) {
  const double count = static_cast<double>(n);
  std::vector<Bounded> y, squares;
  for (std::size_t i = 0; i < n; ++i) y.push_back({x[i]});
  const Bounded mean = total(y) / Bounded{count};
  for (Bounded& b : y) b = b - mean, squares.push_back(b * b);
  const Bounded sigma = root(total(squares) / Bounded{count} + Bounded{eps});
  for (std::size_t i = 0; i < n; ++i) {
    y[i] = y[i] / sigma * Bounded{weight[i]};
    if (bias) y[i] = y[i] + Bounded{bias[i]};
  }
  return y;
}

// Rows with an offset, an outlier, tiny or equal entries.
struct NormInput {
  NormInput(Random& random, const Subject& s)
      : x(random.below(9), 1 + near(random, s, 300), random.below(4)), weight(1, x.columns), bias(1, x.columns),
        with_bias(random.once_in(2)), eps(random.once_in(2) ? 1e-5f : 1e-12f) {
    x.fill(random), weight.fill(random), bias.fill(random);
    for (std::size_t r = 0; r < x.rows; ++r) {
      const std::size_t kind = random.below(5);
      if (kind == 1) x.row(r)[x.columns / 2] = 2.5e4f;
      for (std::size_t c = 0; c < x.columns; ++c) {
        if (kind == 0) x.row(r)[c] += 1000.0f;
        if (kind == 2) x.row(r)[c] *= 1e-4f;
        if (kind == 3) x.row(r)[c] = 4.0f;
      }
    }
  }
  const float* bias_or_null() { return with_bias ? bias.data() : nullptr; }
  Matrix x, weight, bias;
  const bool with_bias;
  const float eps;
};

inline void norm_case(const Subject& s, Random& random, Op& op) {
  NormInput in(random, s);
  const std::size_t rows = in.x.rows, n = in.x.columns;
  op.begin(text("rows %zu, n %zu", rows, n));
  Matrix y(rows, n, random.below(4)), single(rows, n);
  s.k.layer_norm(rows, n, in.x.data(), in.x.ld, in.weight.data(), in.bias_or_null(), in.eps, y.data(), y.ld);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::vector<Bounded> expected = layer_norm(in.x.row(r), n, in.weight.data(), in.bias_or_null(), in.eps);
    for (std::size_t c = 0; c < n; ++c) op.within(y.at(r, c), expected[c], r, c);
    s.k.layer_norm(1, n, in.x.row(r), in.x.ld, in.weight.data(), in.bias_or_null(), in.eps, single.row(r), single.ld);
  }
  op.must(y.same_bits(single), "other bits for a row alone");
  s.k.layer_norm(rows, n, in.x.data(), in.x.ld, in.weight.data(), in.bias_or_null(), in.eps, in.x.data(), in.x.ld);
  op.must(y.same_bits(in.x), "other bits in place");
  op.must(y.only_entries_written() && in.x.only_entries_written(), "wrote beyond its rows");
}

inline void norm_operand_case(const Subject& s, Random& random, Op& op) {
  NormInput in(random, s);
  const std::size_t rows = in.x.rows, n = in.x.columns;
  op.begin(text("rows %zu, n %zu", rows, n));
  Matrix y(rows, n);
  Operands fused(s, random, rows, n), separate(s, random, rows, n);
  s.k.norm_operand(rows, n, in.x.data(), in.x.ld, in.weight.data(), in.bias_or_null(), in.eps, fused.data(), fused.ld);
  s.k.layer_norm(rows, n, in.x.data(), in.x.ld, in.weight.data(), in.bias_or_null(), in.eps, y.data(), y.ld);
  separate.set(y);
  Matrix a = fused.read(), b = separate.read();
  op.must(a.same_bits(b), "other bits than layer_norm and to_operand");
  op.must(fused.only_rows_written(), "wrote beyond its rows");
  op.must(feeds_products(s, random, fused), "its operands do not serve a product");
}

// A number of any size, or close to where one formula of activate() takes over from another.
inline float activation_input(Random& random) {
  const float edges[] = {0.4f, 3.9f, 5.5154f, 87.3f, 88.3f, 104.0f, 0.0f};
  const float sign = random.once_in(2) ? -1.0f : 1.0f;
  switch (random.below(3)) {
    case 0: return 12 * random.unit();
    case 1: return std::min(1e4f, std::ldexp(random.unit(), static_cast<int>(random.below(115)) - 100));
    default: return sign * edges[random.below(7)] + 1e-4f * random.unit();
  }
}

inline void activation_case(const Subject& s, Random& random, Op& op) {
  const Activation act = kActivations[op.cases % std::size(kActivations)];
  const std::size_t rows = random.below(6), inter = near(random, s, 200);
  op.begin(text("rows %zu, inter %zu, activation %zu", rows, inter, static_cast<std::size_t>(act)));
  Matrix u(rows, 2 * inter, random.below(4)), y(rows, inter, random.below(4));
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < inter; ++c) u.row(r)[c] = activation_input(random), u.row(r)[inter + c] = 4 * random.unit();
  const bool poison = rows && random.once_in(2);
  const std::size_t lost = random.below(inter);
  if (poison) u.row(rows - 1)[lost] = std::nanf("");
  s.k.glu(rows, inter, act, u.data(), u.ld, y.data(), y.ld);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < inter; ++c)
      if (poison && r == rows - 1 && c == lost)
        op.must(std::isnan(y.at(r, c)), "a NaN disappeared");
      else
        op.within(y.at(r, c), activate(act, {u.at(r, c)}) * Bounded{u.at(r, inter + c)}, r, c);
  op.must(y.only_entries_written(), "wrote beyond its rows");
  s.k.glu(rows, inter, act, u.data(), u.ld, u.data(), u.ld);
  for (std::size_t r = 0; r < rows; ++r)
    op.must(std::memcmp(u.row(r), y.row(r), inter * sizeof(float)) == 0, "other bits in place");
  op.must(u.only_entries_written(), "wrote beyond its rows in place");
}

// The rotation of one head's row, from components with their own errors.
inline std::vector<Bounded> rope(const std::vector<Bounded>& x, const float* cos, const float* sin, float scale) {
  const std::size_t half = x.size() / 2;
  std::vector<Bounded> y(x.size());
  for (std::size_t i = 0; i < half; ++i) {
    const Bounded c{cos[i]}, d{sin[i]}, by{scale};
    // A bound that holds where the two products cancel, too: each is rounded by itself.
    y[i] = (x[i] * c - x[half + i] * d) * by;
    y[half + i] = (x[half + i] * c + x[i] * d) * by;
  }
  return y;
}

inline void fill_rotary(Random& random, Matrix& cos, Matrix& sin) {
  for (std::size_t r = 0; r < cos.rows; ++r)
    for (std::size_t i = 0; i < cos.columns; ++i) {
      const double angle = 1000.0 * random.unit();
      cos.row(r)[i] = static_cast<float>(std::cos(angle)), sin.row(r)[i] = static_cast<float>(std::sin(angle));
    }
}

inline void rope_case(const Subject& s, Random& random, Op& op) {
  const std::size_t d = even_head(random, s);
  const float scale = random.once_in(2) ? 1.0f : 0.125f;
  op.begin(text("head_dim %zu", d));
  Matrix x(1, d), y(1, d), cos(1, d / 2), sin(1, d / 2);
  x.fill(random, 3.0f), fill_rotary(random, cos, sin);
  s.k.rope(d, x.data(), cos.data(), sin.data(), scale, y.data());
  std::vector<Bounded> exact;
  for (std::size_t i = 0; i < d; ++i) exact.push_back({x.at(0, i)});
  const std::vector<Bounded> expected = rope(exact, cos.data(), sin.data(), scale);
  for (std::size_t i = 0; i < d; ++i) op.within(y.at(0, i), expected[i], 0, i);
  s.k.rope(d, x.data(), cos.data(), sin.data(), scale, x.data());
  op.must(x.same_bits(y), "other bits in place");
  op.must(y.only_entries_written() && x.only_entries_written(), "wrote beyond its row");
}

// -- attention ------------------------------------------------------------------------------------

inline Tokens any_tokens(Random& random, const Subject& s, std::size_t most, std::size_t sequences) {
  const std::ptrdiff_t windows[] = {-1, 0, 1, 7, 16, 64, 100, 1000000};
  Tokens t;
  const std::ptrdiff_t window = windows[random.below(8)];
  while (t.sequences.size() < sequences) t.add(s, near(random, s, most), window);
  return t;
}

inline void hide_some(Random& random, Tokens& t) {
  const std::size_t kind = random.below(4);
  if (kind == 0) return;  // no mask at all
  t.visible.assign(t.total(), 1);
  for (std::size_t i = 0; i < t.total(); ++i) {
    if (kind == 1) t.visible[i] = random.once_in(2);
    if (kind == 2) t.visible[i] = i > t.total() / 2;
  }
  if (kind == 3) {  // one sequence without a visible key
    const Sequence& q = t.sequences[random.below(t.sequences.size())];
    std::fill_n(t.visible.begin() + static_cast<std::ptrdiff_t>(q.first), q.length, static_cast<unsigned char>(0));
  }
}

// One row of one head, component by component. A score has head_dim + 3 roundings of its magnitude,
// an exponential kCall more, and both meet twice, in the weights and in their sum. With bfloat16
// operands the weights are rounded to it, too.
inline std::vector<Bounded> attend(const Subject& s, const Tokens& t, const Sequence& q, std::size_t i, Matrix& qs, Matrix& ks,
                                   Matrix& vs, std::size_t column, std::size_t d) {
  std::vector<double> weight, value(d, 0.0), magnitude(d, 0.0);
  std::vector<std::size_t> keys;
  double top = -INFINITY, size = 0, sum = 0;
  for (std::size_t j = 0; j < q.length; ++j) {
    const std::size_t distance = i > j ? i - j : j - i;
    if (!t.sees(q.first + j) || (q.window >= 0 && distance > static_cast<std::size_t>(q.window))) continue;
    double score = 0, products = 0;
    for (std::size_t c = 0; c < d; ++c) {
      const double term = static_cast<double>(qs.at(q.first + i, column + c)) * ks.at(q.first + j, column + c);
      score += term, products += std::fabs(term);
    }
    keys.push_back(q.first + j), weight.push_back(score);
    top = std::max(top, score), size = std::max(size, products);
  }
  if (keys.size() == 1) size = 0;  // a key alone has the weight 1, however large its score
  for (double& w : weight) w = std::exp(w - top), sum += w;
  for (std::size_t j = 0; j < keys.size(); ++j)
    for (std::size_t c = 0; c < d; ++c) {
      const double v = vs.at(keys[j], column + c);
      value[c] += weight[j] / sum * v, magnitude[c] += weight[j] / sum * std::fabs(v);
    }
  const double roundings = 2 * ((static_cast<double>(d) + 3) * size + kCall) + 2 * static_cast<double>(keys.size()) + 2;
  // An exponential that is computed to bfloat16 alone, and rounded to it: twice a unit.
  const double relative = kEps * roundings + (s.bf16_operands ? 2 * kBf16Unit : 0) + (2 * size + 1) * s.dropped_in_attention;
  std::vector<Bounded> y;
  // No key: exactly zero.
  for (std::size_t c = 0; c < d; ++c)
    y.push_back(keys.empty() ? Bounded{0} : as_operand(s, Bounded{value[c], relative * magnitude[c] + kTiny}));
  return y;
}

inline void attention_case(const Subject& s, Random& random, Op& op) {
  const bool longer = random.once_in(4);
  const std::size_t heads = random.between(1, 3), d = longer ? 8 : even_head(random, s), hidden = heads * d;
  Tokens t = longer ? any_tokens(random, s, 70, 1) : any_tokens(random, s, 70, random.between(1, 3));
  if (longer) t.add(s, random.between(250, 700), random.once_in(2) ? -1 : t.sequences[0].window);  // several panels of keys
  hide_some(random, t);
  const std::size_t total = t.total();
  const float sharp[] = {1.0f, 30.0f, 300.0f, 1e10f};
  const float scale = sharp[random.below(4)] / static_cast<float>(d);
  op.begin(text("tokens %zu, heads %zu, head_dim %zu, window ", total, heads, d) + std::to_string(t.sequences[0].window));
  Matrix q(total, hidden), k(total, hidden), v(total, hidden);
  q.fill(random, scale), k.fill(random), v.fill(random);
  if (random.once_in(3))  // the maximum keeps rising
    for (std::size_t i = 0; i < total; ++i)
      for (std::size_t c = 0; c < hidden; ++c) k.row(i)[c] *= 1.0f + static_cast<float>(i) / 30.0f;
  for (std::size_t i = 0; i < total; ++i)
    for (std::size_t c = 0; c < hidden; ++c) {
      q.row(i)[c] = as_operand(s, q.at(i, c)), k.row(i)[c] = as_operand(s, k.at(i, c)), v.row(i)[c] = as_operand(s, v.at(i, c));
      if (!t.sees(i)) k.row(i)[c] = v.row(i)[c] = std::nanf("");  // must not be read
    }
  // A key that holds no number reaches the rows that see it, and no others.
  const std::size_t bad = random.below(total);
  const bool poisoned = t.sees(bad) && random.once_in(2);
  if (poisoned) v.row(bad)[random.below(hidden)] = random.once_in(2) ? std::nanf("") : -INFINITY;
  if (poisoned && random.once_in(2)) k.row(bad)[random.below(hidden)] = INFINITY;
  const auto meets = [&](const Sequence& sequence, std::size_t i) {
    const std::size_t row = sequence.first + i, distance = row > bad ? row - bad : bad - row;
    return poisoned && bad >= sequence.first && bad < sequence.first + sequence.length &&
           (sequence.window < 0 || distance <= static_cast<std::size_t>(sequence.window));
  };
  Placed placed(s, random, t, heads, d);
  placed.place(q, k, v);
  Matrix before = placed.q.read();
  op.must(before.same_bits(q), "q is not what was placed");

  // One block: its rows of its head, and nothing else.
  const std::size_t some = random.below(t.sequences.size()), head = random.below(heads);
  const std::size_t block = random.below(ceil_div(t.sequences[some].length, s.k.query_block)) * s.k.query_block;
  const std::size_t row0 = t.sequences[some].first + block;
  const std::size_t row1 = std::min(row0 + s.k.query_block, t.sequences[some].first + t.sequences[some].length);
  {
    Placed one(s, random, t, heads, d);
    one.place(q, k, v);
    Scratch scratch(s, 1, d);
    s.k.attention(one.view(), t.sequences[some], head, block, 0, 1, scratch.data());
    Matrix after = one.q.read();
    for (std::size_t i = 0; i < total; ++i)
      for (std::size_t c = 0; c < hidden; ++c) {
        const bool inside = i >= row0 && i < row1 && c / d == head;
        op.must(inside || after.at(i, c) == q.at(i, c), "a block of queries wrote elsewhere");
      }
    op.must(one.only_own_written() && scratch.buffer.surroundings_untouched(), "wrote beyond its memory");
  }
  placed.attend(random, 1);
  Matrix got = placed.q.read();
  Placed parted(s, random, t, heads, d);
  parted.place(q, k, v);
  parted.attend(random, random.between(2, s.k.query_parts));
  op.must(parted.q.read().same_bits(got), "other bits in parts");
  for (const Sequence& sequence : t.sequences)
    for (std::size_t h = 0; h < heads; ++h)
      for (std::size_t i = 0; i < sequence.length; ++i) {
        if (meets(sequence, i)) continue;
        const std::vector<Bounded> expected = attend(s, t, sequence, i, q, k, v, h * d, d);
        for (std::size_t c = 0; c < d; ++c) op.within(got.at(sequence.first + i, h * d + c), expected[c], sequence.first + i, h * d + c);
      }
  op.must(placed.only_own_written(), "wrote beyond its memory");
  op.must(poisoned || feeds_products(s, random, placed.q), "its operands do not serve a product");

  // The sequence by itself, one head of it.
  const Sequence& alone = t.sequences[some];
  Tokens single;
  single.add(s, alone.length, alone.window);
  if (!t.visible.empty())
    single.visible.assign(t.visible.begin() + static_cast<std::ptrdiff_t>(alone.first),
                          t.visible.begin() + static_cast<std::ptrdiff_t>(alone.first + alone.length));
  Matrix q1(alone.length, d), k1(alone.length, d), v1(alone.length, d);
  for (std::size_t i = 0; i < alone.length; ++i)
    for (std::size_t c = 0; c < d; ++c) {
      q1.row(i)[c] = q.at(alone.first + i, head * d + c);
      k1.row(i)[c] = k.at(alone.first + i, head * d + c), v1.row(i)[c] = v.at(alone.first + i, head * d + c);
    }
  Placed by_itself(s, random, single, 1, d);
  // What is never written, be it zeros here or NaN above, is not read, or decides nothing.
  std::memset(by_itself.keys.data(), 0, by_itself.keys.bytes()), std::memset(by_itself.values.data(), 0, by_itself.values.bytes());
  by_itself.place(q1, k1, v1), by_itself.attend(random, 1);
  Matrix again = by_itself.q.read();
  for (std::size_t i = 0; i < alone.length; ++i)
    op.must(std::memcmp(again.row(i), got.row(alone.first + i) + head * d, d * sizeof(float)) == 0, "other bits for a sequence alone");
}

inline void qkv_case(const Subject& s, Random& random, Op& op) {
  const std::size_t d = even_head(random, s), heads = random.between(1, d > 32 ? 2 : 4), hidden = heads * d;
  const std::size_t k = d > 64 ? 40 : sizes(random, s).k;
  Tokens t = any_tokens(random, s, 40, random.between(1, 3));
  hide_some(random, t);
  const std::size_t m = t.total();
  Product g(s, random, m, {3 * hidden, k, d});
  op.begin(text("tokens %zu, heads %zu, head_dim %zu, k %zu", m, heads, d, k));
  Matrix cos(m + 3, d / 2), sin(m + 3, d / 2);
  fill_rotary(random, cos, sin);
  std::vector<std::size_t> rows(m);
  for (std::size_t& r : rows) r = random.below(cos.rows);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  const Rotation turn{cos.data(), sin.data(), rows.data(), scale};

  Placed fused(s, random, t, heads, d), separate(s, random, t, heads, d);
  for (const Range& piece : pieces(random, m, g.panels())) s.k.project_qkv(g.gemm(), fused.view(), turn, piece, g.scratch.data());
  Matrix got = fused.q.read();
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<Bounded> q;
      for (std::size_t c = 0; c < d; ++c) q.push_back(g.at(i, h * d + c));
      q = rope(q, cos.row(rows[i]), sin.row(rows[i]), scale);
      for (std::size_t c = 0; c < d; ++c) op.within(got.at(i, h * d + c), as_operand(s, q[c]), i, h * d + c, "q");
    }

  // Keys and values stand in a format of the kernels' own: they are read by attention.
  Matrix u(m, 3 * hidden);
  s.k.project(g.gemm(), nullptr, 0, u.data(), u.ld, g.all(), g.scratch.data());
  for (std::size_t i = 0; i < m; ++i) {
    float* row = u.row(i);
    for (std::size_t h = 0; h < heads; ++h) {
      s.k.rope(d, row + h * d, cos.row(rows[i]), sin.row(rows[i]), scale, row + h * d);
      s.k.rope(d, row + hidden + h * d, cos.row(rows[i]), sin.row(rows[i]), 1.0f, row + hidden + h * d);
    }
    s.k.place_qkv(separate.view(), i, row, row + hidden, row + 2 * hidden);
  }
  Matrix parts = separate.q.read();
  op.must(got.same_bits(parts), "q has other bits than its parts");
  op.must(feeds_products(s, random, fused.q), "its operands do not serve a product");
  fused.attend(random, 1), separate.attend(random, 1);
  Matrix a = fused.q.read(), b = separate.q.read();
  op.must(a.same_bits(b), "keys or values are other than those of its parts");
  op.must(fused.only_own_written() && g.scratch.buffer.surroundings_untouched(), "wrote beyond its memory");

  // A hidden token of NaN is seen by no other.
  const std::size_t lost = static_cast<std::size_t>(std::find(t.visible.begin(), t.visible.end(), 0) - t.visible.begin());
  if (lost == t.visible.size()) return;
  for (std::size_t c = 0; c < k; ++c) g.seen.row(lost)[c] = std::nanf("");
  g.x.set(g.seen);
  Placed spoilt(s, random, t, heads, d);
  for (const Range& piece : pieces(random, m, g.panels())) s.k.project_qkv(g.gemm(), spoilt.view(), turn, piece, g.scratch.data());
  spoilt.attend(random, 1);
  Matrix others = spoilt.q.read();
  for (std::size_t i = 0; i < m; ++i)
    op.must(i == lost || std::memcmp(others.row(i), a.row(i), hidden * sizeof(float)) == 0, "a hidden token is seen");
}

}  // namespace driver
