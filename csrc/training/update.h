// One tensor's update on threads, in pieces that are always the same; and what a gradient sees before and after it.
#pragma once

#include <cstddef>

#include "training/adjoints.h"

namespace refimpl {

// As modernbert_update has them; `kept` and `rate` of an Update are made here.
struct Rule {
  double lr, weight_decay, eps, beta1, beta2, peak;
  double step;
};

void adamw(const Adjoints& a, int threads, const Rule& rule, std::size_t n, float* p, const float* g, float* m, float* v);
// Throws std::bad_alloc.
void stable_adamw(const Adjoints& a, int threads, const Rule& rule, std::size_t n, float* p, const float* g, float* m,
                  float* v);


// Whether no number of a tensor is Inf or NaN.
bool all_finite(int threads, std::size_t n, const float* x);
void clear(int threads, std::size_t n, float* x);

}  // namespace refimpl
