// Cases of products that no tier of the CPU has.
#pragma once

#include "attention_cases.h"

namespace driver {

// Blocks of 32, 64 and 128 rows give the same bits.
inline void heights_case(const Subject& s, Random& random, Op& op) {
  const std::size_t m = random.between(1, 150), k = near(random, s, 100);
  Packing p{near(random, s, 200), k, 0};
  if (random.once_in(2)) p.group = 2 * random.between(1, 20), p.n = round_up(p.n, p.group);
  op.begin(text("m %zu, n %zu, k %zu, group %zu", m, p.n, k, p.group));
  Product g(s, random, m, p);
  with_dtype(s, [&](auto number, auto terms) {
    using T = decltype(number);
    constexpr unsigned kTerms = decltype(terms)::value;
    Matrix y[3] = {{m, p.n}, {m, p.n}, {m, p.n}};
    const auto run = [&](auto kernel, unsigned row_warps, Matrix& to) {
      const cuda::Product<T, cuda::AddTo> product{
          static_cast<unsigned>(m), static_cast<unsigned>(p.n), static_cast<unsigned>(k), static_cast<unsigned>(p.group), 0,
          static_cast<unsigned>(g.panels()), static_cast<const T*>(g.gemm().x), g.x.ld / sizeof(T),
          static_cast<const T*>(g.gemm().packed), cuda::k_padded(k), {g.gemm().bias, nullptr, 0, to.data(), to.ld}};
      const unsigned rows = 32 * row_warps, panels = static_cast<unsigned>(g.panels());
      cuda::launch(kernel, {(panels + cuda::kBlockPanels - 1) / cuda::kBlockPanels, (static_cast<unsigned>(m) + rows - 1) / rows,
                            2 * row_warps * cuda::kWarp, cuda::product_shared<T>(row_warps)}, next_order(), product);
    };
    run(cuda::product_kernel<T, kTerms, 1, cuda::AddTo>, 1, y[0]);
    run(cuda::product_kernel<T, kTerms, 2, cuda::AddTo>, 2, y[1]);
    run(cuda::product_kernel<T, kTerms, 4, cuda::AddTo>, 4, y[2]);
    for (Matrix& other : y) op.must(other.same_bits(y[0]) && other.only_entries_written(), "other bits, or more, in blocks of another height");
    for (std::size_t r = 0; r < m; ++r)
      for (std::size_t c = 0; c < p.n; ++c) op.within(y[0].at(r, c), g.at(r, c), r, c);
  });
}

}  // namespace driver
