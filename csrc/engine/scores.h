// Logits to scores: none, sigmoid, softmax or an activation, in double and rounded once.
//
// Python on this engine calls the same function, so that both have the same bits.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace refimpl {

// y [n] = activation(x).
void activate(Activation activation, std::size_t n, const float* x, float* y);

// y [rows, columns] = exp(x) / sum(exp(x)) of each row. x and y may be one.
void softmax(std::size_t rows, std::size_t columns, const float* x, float* y);

}  // namespace refimpl
