// Cases of pooling: every mode against long sums over the tokens that count.
#pragma once

#include "cuda/pooling.h"
#include "emulated.h"

namespace driver {

inline Bounded pooled(Pooling how, const std::vector<std::size_t>& tokens, const std::vector<double>& positions, Matrix& hidden, std::size_t c) {
  if (tokens.empty()) return {0};
  const auto at = [&](std::size_t i) { return static_cast<double>(hidden.row(tokens[i])[c]); };
  if (how == Pooling::cls) return {at(0)};
  if (how == Pooling::lasttoken) return {at(tokens.size() - 1)};
  double sum = 0, size = 0, weights = 0, top = at(0);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const double w = how == Pooling::weightedmean ? positions[i] : 1;
    sum += w * at(i), size += std::fabs(w * at(i)), weights += w, top = std::max(top, at(i));
  }
  if (how == Pooling::max) return {top};
  const double divisor = how == Pooling::mean_sqrt_len_tokens ? std::sqrt(weights) : weights, value = sum / divisor;
  // Of the sum in double; and one rounding to float32.
  return {value, static_cast<double>(2 * tokens.size() + 4) * 0x1p-53 * size / divisor + 0x1p-24 * std::fabs(value) + kTiny};
}

inline void pool_case(const Subject&, Random& random, Op& op) {
  const Pooling modes[] = {Pooling::cls, Pooling::max, Pooling::mean, Pooling::mean_sqrt_len_tokens, Pooling::weightedmean, Pooling::lasttoken, Pooling::first};
  const Pooling how = modes[op.cases % 7];
  const std::size_t sequences = random.below(5), n = random.once_in(3) ? 32 * random.between(1, 3) : random.between(1, 100);
  const std::size_t left_out = random.once_in(2) ? 0 : random.below(6);
  Device<std::uint32_t> cu(sequences + 1);
  cu[0] = 0;
  for (std::size_t i = 0; i < sequences; ++i) cu[i + 1] = static_cast<std::uint32_t>(cu[i] + (random.once_in(6) ? random.between(200, 600) : random.below(20)));
  const std::size_t total = cu[sequences];
  op.begin(text("mode %zu, sequences %zu, n %zu, left out %zu", static_cast<std::size_t>(how), sequences, n, left_out));
  Matrix hidden(total, n, random.below(4));
  hidden.fill(random, 4);
  Device<unsigned char> visible(total);
  const std::size_t kind = random.below(3);
  for (std::size_t t = 0; t < total; ++t) {
    visible[t] = kind == 0 || !random.once_in(kind == 1 ? 3 : 2);
    if (!visible[t])
      for (std::size_t c = 0; c < n; ++c) hidden.row(t)[c] = std::nanf("");
  }
  if (sequences && random.once_in(4)) std::fill(visible.data() + cu[0], visible.data() + cu[1], static_cast<unsigned char>(0));
  const bool masked = kind != 0 || std::count(visible.data(), visible.data() + total, 0) > 0;
  Matrix out(sequences, n, random.below(4));
  const auto run = [&](std::size_t count, const std::uint32_t* offsets, Matrix& to) {
    cuda::pool(next_order(), how, {static_cast<unsigned>(count), static_cast<unsigned>(n), hidden.data(), hidden.ld, offsets,
                                   masked ? visible.data() : nullptr, static_cast<unsigned>(left_out), to.data(), to.ld});
  };
  run(sequences, cu.data(), out);
  for (std::size_t s = 0; s < sequences; ++s) {
    std::vector<std::size_t> tokens;
    std::vector<double> positions;
    std::size_t position = 0;
    for (std::size_t t = cu[s]; t < cu[s + 1]; ++t) {
      if (visible[t] || position) ++position;
      if (visible[t] && position > left_out) tokens.push_back(t), positions.push_back(static_cast<double>(position));
    }
    if (how == Pooling::first && !tokens.empty()) {  // which may be a hidden one, and is NaN then
      op.must(!std::memcmp(out.row(s), hidden.row(cu[s]), n * sizeof(float)), "not the first token");
      continue;
    }
    for (std::size_t c = 0; c < n; ++c) op.within(out.at(s, c), pooled(how, tokens, positions, hidden, c), s, c);
  }
  op.must(out.only_entries_written(), "wrote beyond its rows");
  if (!sequences) return;
  const std::size_t one = random.below(sequences);
  Matrix alone(1, n);
  run(1, cu.data() + one, alone);
  op.must(std::memcmp(alone.row(0), out.row(one), n * sizeof(float)) == 0, "other bits for a sequence alone");
}

}  // namespace driver
