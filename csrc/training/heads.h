// The decoder of a masked-LM under its loss, some rows at a time: logits of a large vocabulary never stand whole.
#pragma once

#include <cstddef>
#include <cstdint>

#include "training/products.h"

namespace refimpl {

struct Decoder {
  std::size_t classes, depth;
  const float *weight, *bias;  // [classes, depth], [classes] or null
};

// losses [rows]: cross-entropies of x W^T + bias [rows, classes] under labels; dx [rows, depth], dw and db, which
// may be null, get the gradient of share times their sum. Throws std::bad_alloc.
void cross_entropy(Products& products, const Blocks& blocks, const Decoder& decoder, const float* x,
                   const std::int64_t* labels, float smoothing, float share, double* losses, float* dx, float* dw,
                   float* db, int threads);

}  // namespace refimpl
