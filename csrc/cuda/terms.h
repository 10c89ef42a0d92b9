// Numbers as sums of bfloat16 terms, and products of fragments of them.
//
//   kTerms  a number is                products  as accurate as
//   1       one bfloat16               1         bfloat16
//   2       a sum of two               3         4e-6: bf16x3
//   3       a sum of three: all of it  6         float32
// Numbers beyond bfloat16's largest, 3.39e38, count as Inf. Products of less than 2^-16 (two terms) and
// 2^-24 (three) are left out.
#pragma once

#include "cuda/numbers.h"

namespace refimpl::cuda {

// Two neighbours, the first in the lower half.
REFIMPL_DEVICE std::uint32_t pair_of(bf16 first, bf16 second) {
  return std::uint32_t{first.bits} | std::uint32_t{second.bits} << 16;
}

template <unsigned kTerms>
struct Pairs {
  std::uint32_t term[kTerms];
};

// The terms of two neighbours, the largest first.
template <unsigned kTerms>
REFIMPL_DEVICE Pairs<kTerms> split(float first, float second) {
  Pairs<kTerms> pairs;
  REFIMPL_UNROLL
  for (unsigned t = 0; t < kTerms; ++t) {
    const bf16 a = round_bf16(first), b = round_bf16(second);
    pairs.term[t] = pair_of(a, b);
    // What is left is exact; of Inf and NaN nothing is.
    first = is_finite(widened(a)) ? first - widened(a) : 0.0f;
    second = is_finite(widened(b)) ? second - widened(b) : 0.0f;
  }
  return pairs;
}

// A fragment of each term.
template <unsigned kTerms>
struct TermsA {
  FragmentA term[kTerms];
  REFIMPL_DEVICE void set(unsigned i, const Pairs<kTerms>& pairs) {
    REFIMPL_UNROLL
    for (unsigned t = 0; t < kTerms; ++t) term[t].pair[i] = pairs.term[t];
  }
};
template <unsigned kTerms>
struct TermsB {
  FragmentB term[kTerms];
  REFIMPL_DEVICE void set(unsigned i, const Pairs<kTerms>& pairs) {
    REFIMPL_UNROLL
    for (unsigned t = 0; t < kTerms; ++t) term[t].pair[i] = pairs.term[t];
  }
};

// d += a b, the smallest products first. Tensor cores cut a sum where it has no more room, they do not round it: over
// a long k that is a drift of several float32 units. So three terms sum 16 of k from zero, and add them to d as float32.
template <unsigned kTerms>
REFIMPL_DEVICE void multiply_terms(FragmentD& d, const TermsA<kTerms>& a, const TermsB<kTerms>& b) {
  FragmentD fresh{};
  FragmentD& part = kTerms == 3 ? fresh : d;
  REFIMPL_UNROLL
  for (unsigned sum = kTerms; sum-- > 0;) {
    REFIMPL_UNROLL
    for (unsigned t = 0; t <= sum; ++t) multiply(part, a.term[sum - t], b.term[t]);
  }
  if constexpr (kTerms == 3) {
    REFIMPL_UNROLL
    for (unsigned e = 0; e < 4; ++e) d.x[e] += fresh.x[e];
  }
}

}  // namespace refimpl::cuda
