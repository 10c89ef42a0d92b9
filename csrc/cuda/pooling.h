// Pooling: the hidden states of a sequence's visible tokens to one vector, as engine/sentence.h has it.
//
//   hidden [total, n] -> out [sequences, n], float32; sums in double, rounded once
//
// Tokens are taken by eight warps, the i-th token by warp i % 8, whose sums are added in order: a
// sequence's bits depend on its own tokens alone. A token that is hidden adds nothing, whatever it
// holds; without one that counts the result is zeros.
#pragma once

#include "cuda/numbers.h"
#include "kernels/pooling.h"

namespace refimpl::cuda {

constexpr unsigned kPoolWarps = 8;

// Sequence s has the tokens cu_seqlens[s] .. cu_seqlens[s + 1]. visible [total] or null: all. left_out:
// so many positions, from the first visible token on, are a prompt's, and do not count.
struct Pool {
  unsigned sequences, n;
  const float* hidden;
  std::size_t ldh;
  const std::uint32_t* cu_seqlens;
  const unsigned char* visible;
  unsigned left_out;
  float* out;
  std::size_t ldo;
};

// Where the tokens that count are among the tokens [begin, end) of a sequence, and where position 1 is.
struct Counted {
  unsigned first_visible, first, last, count;  // first and last that count; count 0: there is none
};

// By all threads of a block: each looks at its share of the tokens, and learns the whole.
REFIMPL_DEVICE Counted counted_tokens(const Pool& a, unsigned begin, unsigned end) {
  constexpr unsigned kThreads = kPoolWarps * kWarp;
  const Shared<std::uint32_t> seen = shared<std::uint32_t>(0, 3 * kPoolWarps);
  const auto over_block = [&](unsigned which, unsigned x, auto combined) {
    REFIMPL_UNROLL
    for (unsigned bit = kWarp / 2; bit; bit /= 2) x = combined(x, shuffle_xor(x, bit));
    if (lane() == 0) seen.store(which * kPoolWarps + warp(), x);
    barrier();
    x = seen.load(which * kPoolWarps);
    for (unsigned w = 1; w < kPoolWarps; ++w) x = combined(x, seen.load(which * kPoolWarps + w));
    return x;
  };
  const auto smaller = [](unsigned x, unsigned y) { return x < y ? x : y; };
  const auto larger = [](unsigned x, unsigned y) { return x < y ? y : x; };
  const auto is_visible = [&](unsigned t) { return !a.visible || load_global(a.visible + t); };

  unsigned first = end, last = 0, count = 0;
  for (unsigned t = begin + thread(); t < end; t += kThreads)
    if (is_visible(t)) first = smaller(first, t);
  const unsigned first_visible = over_block(0, first, smaller);
  first = end;
  for (unsigned t = begin + thread(); t < end; t += kThreads)
    if (is_visible(t) && t - first_visible >= a.left_out) first = smaller(first, t), last = t, ++count;
  first = over_block(1, first, smaller), last = over_block(2, last, larger);
  count = over_block(0, count, [](unsigned x, unsigned y) { return x + y; });
  return {first_visible, first, last, count};
}

template <Pooling How>
REFIMPL_KERNEL pool_kernel(Pool a) {
  const unsigned sequence = block_x(), column = block_y() * kWarp + lane();
  const unsigned begin = load_global(a.cu_seqlens + sequence), end = load_global(a.cu_seqlens + sequence + 1);
  const Counted found = counted_tokens(a, begin, end);
  float* out = a.out + sequence * a.ldo + column;
  const bool mine = column < a.n;
  if constexpr (How == Pooling::cls || How == Pooling::first || How == Pooling::lasttoken) {
    const unsigned one = How == Pooling::cls ? found.first : How == Pooling::first ? begin : found.last;
    if (mine && warp() == 0) store_global(out, found.count ? load_global(a.hidden + one * a.ldh + column) : 0.0f);
    return;
  }

  // A partial sum, or the largest, of each warp and column; NaN stays NaN.
  const auto join = [](double x, double y) {
    if constexpr (How == Pooling::max) return x != x || y <= x ? x : y;
    return x + y;
  };
  double sum = How == Pooling::max ? -HUGE_VAL : 0.0, weights = 0.0;
  for (unsigned t = begin + warp(); t < end; t += kPoolWarps) {
    if ((a.visible && !load_global(a.visible + t)) || t - found.first_visible < a.left_out) continue;
    const double weight = How == Pooling::weightedmean ? t - found.first_visible + 1 : 1;
    weights += weight;
    if (mine) {
      const double x = load_global(a.hidden + t * a.ldh + column);
      sum = join(sum, How == Pooling::max ? x : weight * x);
    }
  }
  constexpr std::size_t kSums = 3 * kPoolWarps * sizeof(std::uint32_t);
  const Shared<double> sums = shared<double>(kSums, kPoolWarps * kWarp);
  const Shared<double> all_weights = shared<double>(kSums + kPoolWarps * kWarp * sizeof(double), kPoolWarps);
  sums.store(thread(), sum);
  if (lane() == 0) all_weights.store(warp(), weights);
  barrier();
  if (warp() != 0 || !mine) return;
  for (unsigned w = 1; w < kPoolWarps; ++w) sum = join(sum, sums.load(w * kWarp + lane())), weights += all_weights.load(w);
  if constexpr (How == Pooling::mean || How == Pooling::weightedmean) sum /= weights;
  if constexpr (How == Pooling::mean_sqrt_len_tokens) sum /= sqrt(weights);
  store_global(out, found.count ? static_cast<float>(sum) : 0.0f);
}

constexpr std::size_t kPoolShared = 3 * kPoolWarps * sizeof(std::uint32_t) + (kPoolWarps * kWarp + kPoolWarps) * sizeof(double);

inline auto pool(Stream stream, Pooling how, const Pool& a) {
  const Grid grid{a.sequences, (a.n + kWarp - 1) / kWarp, kPoolWarps * kWarp, kPoolShared};
  switch (how) {
    case Pooling::cls: return launch(pool_kernel<Pooling::cls>, grid, stream, a);
    case Pooling::max: return launch(pool_kernel<Pooling::max>, grid, stream, a);
    case Pooling::mean: return launch(pool_kernel<Pooling::mean>, grid, stream, a);
    case Pooling::mean_sqrt_len_tokens: return launch(pool_kernel<Pooling::mean_sqrt_len_tokens>, grid, stream, a);
    case Pooling::weightedmean: return launch(pool_kernel<Pooling::weightedmean>, grid, stream, a);
    case Pooling::first: return launch(pool_kernel<Pooling::first>, grid, stream, a);
    case Pooling::lasttoken: break;
  }
  return launch(pool_kernel<Pooling::lasttoken>, grid, stream, a);
}

}  // namespace refimpl::cuda
