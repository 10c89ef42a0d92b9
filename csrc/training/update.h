// One tensor's update on threads, in pieces that are always the same.
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

}  // namespace refimpl
