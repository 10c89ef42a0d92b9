// Small kernels that a device does not take, or does not define, and their right twins.
//
//   refusals NAME     runs one: 0 and "done", or 1 and what is wrong with it
//   refusals order N  prints the threads of a block in the order in which seed N lets them go
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cuda/numbers.h"

namespace {

using namespace refimpl::cuda;
using refimpl::bf16;

struct Nothing {};
struct Floats {
  float* x;
};

template <bool kWithBarrier>
REFIMPL_KERNEL to_the_next_warp(Nothing) {
  const Shared<float> s = shared<float>(0, 64);
  s.store(thread(), 0.0f);
  barrier();
  s.store(thread(), 1.0f);
  if (kWithBarrier) barrier();
  s.load((thread() + kWarp) % 64);
}
template <bool kWithBarrier>
REFIMPL_KERNEL to_the_next_lane(Nothing) {
  const Shared<float> s = shared<float>(0, 64);
  s.store(thread(), 0.0f);
  barrier();
  s.store(thread(), 1.0f);
  if (kWithBarrier) warp_barrier();
  s.load(thread() ^ 1);
}
template <bool kWithBarrier>
REFIMPL_KERNEL overwritten(Nothing) {
  const Shared<float> s = shared<float>(0, 64);
  s.store(thread(), 1.0f);
  barrier();
  s.load(thread() ^ 32), s.load(thread());
  if (kWithBarrier) barrier();
  s.store(thread(), 2.0f);
}
// A barrier of one warp says nothing about another.
inline void warp_barrier_for_a_block(Nothing) {
  const Shared<float> s = shared<float>(0, 64);
  s.store(thread(), 0.0f);
  barrier();
  s.store(thread(), 1.0f);
  warp_barrier();
  s.load((thread() + kWarp) % 64);
}
inline void barrier_of_some(Nothing) {
  if (warp() == 0) barrier();
}
inline void lanes_apart(Nothing) { lane() < 16 ? static_cast<void>(shuffle_xor(1, 1)) : static_cast<void>(any_lane(true)); }
inline void lane_left(Nothing) {
  if (lane()) shuffle_xor(1, 1);
}
inline void never_written(Nothing) { shared<float>(0, 64).load(thread()); }
inline void beyond_its_count(Nothing) { shared<float>(0, 63).store(thread(), 1.0f); }
inline void beyond_the_block(Nothing) { shared<float>(4, 64); }
inline void not_aligned(Floats a) { load_global(reinterpret_cast<const double*>(a.x + 1)); }
inline void sums(Floats a) { a.x[thread()] = warp_sum(static_cast<float>(thread())) + (any_lane(lane() == 7) ? 0.5f : 0.0f); }

// -- copies and fragments --

struct Copied {
  const float* from;
  float* to;
};
template <bool kWaits>
REFIMPL_KERNEL copied(Copied a) {
  const Shared<float> s = shared<float>(0, 64);
  if (lane() < 15) copy_async(s, 4 * lane(), a.from + 4 * lane(), lane() == 3 ? 4 : 16);
  commit_copies();
  if (lane() == 0) copy_async(s, 60, a.from + 4, 16);  // a group after the one that is waited for
  commit_copies();
  if (kWaits) wait_copies<1>();
  warp_barrier();
  for (unsigned i = lane(); i < 60; i += kWarp) a.to[i] = s.load(i);
  wait_copies<0>();
}
inline void copied_and_left(Copied a) { copy_async(shared<float>(0, 4), 0, a.from, 16); }
inline void copied_askew(Copied a) { copy_async(shared<float>(0, 8), 0, a.from + 1, 16); }
inline void copied_to_askew(Copied a) { copy_async(shared<float>(0, 8), 1, a.from, 16); }

// d [16, 8] += a [16, 16] b [16, 8], from shared memory in one of three ways: b turned [8, 16] or plain.
enum class Way { by_hand, matrices, turned };
struct Product {
  const float *a, *b;
  float* d;
};
template <Way kWay>
REFIMPL_KERNEL product(Product p) {
  const unsigned l = lane(), row = l / 4, column = 2 * (l % 4);
  const Shared<bf16> a = shared<bf16>(0, 256), b = shared<bf16>(512, 128);
  for (unsigned i = l; i < 256; i += kWarp) a.store(i, as<bf16>(p.a[i]));
  for (unsigned i = l; i < 128; i += kWarp) {
    const unsigned k = i / 8, n = i % 8;
    b.store(kWay == Way::turned ? k * 8 + n : n * 16 + k, as<bf16>(p.b[i]));
  }
  warp_barrier();
  FragmentA x;
  FragmentB y;
  const auto pair = [](bf16 low, bf16 high) { return std::uint32_t{low.bits} | std::uint32_t{high.bits} << 16; };
  if (kWay == Way::by_hand) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned at = (row + 8 * (i % 2)) * 16 + column + 8 * (i / 2);
      x.pair[i] = pair(a.load(at), a.load(at + 1));
    }
    for (unsigned i = 0; i < 2; ++i) y.pair[i] = pair(b.load(row * 16 + column + 8 * i), b.load(row * 16 + column + 8 * i + 1));
  } else {
    const Matrices m = load_matrices(a, (l % 16) * 16 + l / 16 * 8);
    for (unsigned i = 0; i < 4; ++i) x.pair[i] = m.pair[i];
    const Matrices n = kWay == Way::turned ? load_matrices_turned(b, l % 16 * 8) : load_matrices(b, l % 8 * 16 + l / 8 % 2 * 8);
    y = {{n.pair[0], n.pair[1]}};
  }
  FragmentD d;
  for (unsigned e = 0; e < 4; ++e) d.x[e] = p.d[(row + e / 2 * 8) * 8 + column + e % 2];
  multiply(d, x, y);
  for (unsigned e = 0; e < 4; ++e) p.d[(row + e / 2 * 8) * 8 + column + e % 2] = d.x[e];
}

// The product in double; 24 bits below the largest addend are kept, of two sums of nine.
template <Way kWay>
int right_product() {
  float a[256], b[128], d[128], before[128];
  for (int i = 0; i < 256; ++i) a[i] = static_cast<float>((i * 37) % 101 - 50) / 16;
  for (int i = 0; i < 128; ++i) b[i] = static_cast<float>((i * 53) % 97 - 40) / 32, before[i] = d[i] = 1.0f / static_cast<float>(i + 3);
  launch(product<kWay>, {1, 1, 32, 768}, 5, Product{a, b, d});
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      double sum = before[m * 8 + n], size = std::fabs(sum);
      for (int k = 0; k < 16; ++k) {
        const double term = static_cast<double>(a[m * 16 + k]) * static_cast<double>(b[k * 8 + n]);
        sum += term, size += std::fabs(term);
      }
      if (!(std::fabs(d[m * 8 + n] - sum) <= size * (2 * 9 * 0x1p-24 + 2 * 0x1p-23)))
        return std::printf("[%d, %d]: expected %g, got %g\n", m, n, sum, static_cast<double>(d[m * 8 + n])), 1;
    }
  std::printf("done\n");
  return 0;
}

std::vector<unsigned> went;
inline void goes(Nothing) { went.push_back(thread()); }

template <class A>
int run(void (*kernel)(A), A a, Grid grid = {3, 2, 64, 256}) {
  for (Stream order = 0; order < 20; ++order) launch(kernel, grid, order, a);
  std::printf("done\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const auto is = [&](const char* name) { return !std::strcmp(argv[1], name); };
  alignas(8) float x[64] = {};
  if (is("order") && argc == 3) {
    launch(goes, {1, 1, 64, 0}, std::strtoull(argv[2], nullptr, 10), Nothing{});
    for (const unsigned t : went) std::printf("%u ", t);
    return 0;
  }
  if (is("sums")) {
    run(sums, Floats{x}, {1, 1, 64, 0});
    for (unsigned t = 0; t < 64; ++t)
      if (x[t] != (t < 32 ? 496.5f : 1520.5f)) return 1;
    return 0;
  }
  if (is("block_race")) return run(to_the_next_warp<false>, Nothing{});
  if (is("block_barrier")) return run(to_the_next_warp<true>, Nothing{});
  if (is("warp_race")) return run(to_the_next_lane<false>, Nothing{});
  if (is("warp_barrier")) return run(to_the_next_lane<true>, Nothing{});
  if (is("overwriting_race")) return run(overwritten<false>, Nothing{});
  if (is("overwriting_barrier")) return run(overwritten<true>, Nothing{});
  if (is("warp_barrier_for_a_block")) return run(warp_barrier_for_a_block, Nothing{});
  if (is("barrier_of_some")) return run(barrier_of_some, Nothing{});
  if (is("lanes_apart")) return run(lanes_apart, Nothing{});
  if (is("lane_left")) return run(lane_left, Nothing{});
  if (is("never_written")) return run(never_written, Nothing{});
  if (is("beyond_its_count")) return run(beyond_its_count, Nothing{});
  if (is("beyond_the_block")) return run(beyond_the_block, Nothing{});
  if (is("not_aligned")) return run(not_aligned, Floats{x});
  alignas(16) float from[68], to[64];
  for (int i = 0; i < 68; ++i) from[i] = static_cast<float>(i);
  const Copied both{from, to};
  if (is("copies_waited_for")) {
    run(copied<true>, both, {1, 1, 32, 256});
    for (int i = 0; i < 60; ++i)  // of one copy a number alone, and zeros
      if (to[i] != (i / 4 == 3 && i % 4 ? 0.0f : from[i])) return std::printf("%d: %g\n", i, static_cast<double>(to[i])), 1;
    return 0;
  }
  if (is("copies_not_waited_for")) return run(copied<false>, both, {1, 1, 32, 256});
  if (is("copied_and_left")) return run(copied_and_left, both);
  if (is("copied_askew")) return run(copied_askew, both);
  if (is("copied_to_askew")) return run(copied_to_askew, both);
  if (is("product")) return right_product<Way::by_hand>();
  if (is("product_of_matrices")) return right_product<Way::matrices>();
  if (is("product_of_turned_matrices")) return right_product<Way::turned>();
  if (is("odd_block")) return run(goes, Nothing{}, {1, 1, 33, 0});
  if (is("large_block")) return run(goes, Nothing{}, {1, 1, 1056, 0});
  if (is("much_shared")) return run(goes, Nothing{}, {1, 1, 32, 101377});
  return 2;
}
