#include "training/update.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/pool.h"

namespace refimpl {
namespace {

constexpr std::size_t kPiece = 1 << 15;  // numbers that one task takes

template <class F>  // f(first, count, task)
void each_piece(int threads, std::size_t n, F f) {
  parallel_for(threads, ceil_div(n, kPiece), [&](std::size_t task, int) {
    f(task * kPiece, std::min(kPiece, n - task * kPiece), task);
  });
}

float number(double x) { return static_cast<float>(x); }

// beta (1 - beta^(step - 1)) / (1 - beta^step)
double debiased(double beta, double step) {
  return beta * (1.0 - std::pow(beta, step - 1.0)) / (1.0 - std::pow(beta, step));
}

}  // namespace

void adamw(const Adjoints& a, int threads, const Rule& r, std::size_t n, float* p, const float* g, float* m, float* v) {
  const double first = 1.0 - std::pow(r.beta1, r.step), second = std::sqrt(1.0 - std::pow(r.beta2, r.step));
  const Update u{number(1.0 - r.lr * r.weight_decay), number(1.0 - r.beta1), number(r.beta2), number(1.0 - r.beta2),
                 number(r.eps), number(r.lr / first), number(second)};
  each_piece(threads, n, [&](std::size_t i, std::size_t count, std::size_t) {
    a.adamw(count, p + i, g + i, m + i, v + i, u);
  });
}

void stable_adamw(const Adjoints& a, int threads, const Rule& r, std::size_t n, float* p, const float* g, float* m,
                  float* v) {
  if (n == 0) return;
  const double b1 = debiased(r.beta1, r.step), b2 = debiased(r.beta2, r.step);
  Update u{1.0f, number(1.0 - b1), number(b2), number(1.0 - b2), number(r.eps), 0.0f, 1.0f};
  std::vector<double> sums(ceil_div(n, kPiece));
  each_piece(threads, n, [&](std::size_t i, std::size_t count, std::size_t task) {
    sums[task] = a.stable_moments(count, g + i, m + i, v + i, u);
  });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  // A tensor whose gradients outgrow their running square takes a shorter step; NaN stays NaN.
  const double excess = std::sqrt(total / static_cast<double>(n)), lr = excess <= 1.0 ? r.lr : r.lr / excess;
  u.kept = number(1.0 - lr / r.peak * r.weight_decay), u.rate = number(lr);
  each_piece(threads, n, [&](std::size_t i, std::size_t count, std::size_t) {
    a.stable_step(count, p + i, m + i, v + i, u);
  });
}

bool all_finite(int threads, std::size_t n, const float* x) {
  std::atomic<bool> finite{true};
  each_piece(threads, n, [&](std::size_t first, std::size_t count, std::size_t) {
    std::uint32_t odd = 0;
    for (std::size_t i = first; i < first + count; ++i) {
      std::uint32_t bits;
      std::memcpy(&bits, x + i, sizeof bits);
      odd |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    if (odd) finite = false;
  });
  return finite;
}

void clear(int threads, std::size_t n, float* x) {
  each_piece(threads, n, [&](std::size_t i, std::size_t count, std::size_t) { std::fill_n(x + i, count, 0.0f); });
}

}  // namespace refimpl
