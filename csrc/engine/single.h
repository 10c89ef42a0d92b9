// One operation at a time on plain float arrays, the kernels of a tier without the engine around
// them: for tests and benchmarks. Each does its rows in the order and split that the engine would
// use, or in the one it is told. All throw std::bad_alloc.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace refimpl {

// y [m, n] = x [m, k] W^T + bias + residual, `row_split` rows and `panel_split` panels at a time.
void single_linear(const Kernels& kernels, std::size_t m, std::size_t n, std::size_t k, const float* x,
                   const Tensor& w, const float* bias, const float* residual, std::size_t row_split,
                   std::size_t panel_split, float* y);

// y [m, n / 2] = glu(x [m, k] W^T + bias), W [n, k] gate rows first: the engine's fused product.
void single_linear_glu(const Kernels& kernels, Activation activation, std::size_t m, std::size_t n, std::size_t k,
                       const float* x, const Tensor& w, const float* bias, std::size_t row_split,
                       std::size_t panel_split, float* y);

// y [seq, heads, head_dim]: each head of x rotated by its row of cos, sin [seq, head_dim / 2].
void single_rope(const Kernels& kernels, std::size_t seq, std::size_t heads, std::size_t head_dim, const float* x,
                 const float* cos, const float* sin, float* y);

// softmax(q k^T / sqrt(head_dim)) v of one sequence, all [seq, heads, head_dim]; visible [seq] or null.
void single_attention(const Kernels& kernels, std::size_t seq, std::size_t heads, std::size_t head_dim,
                      std::ptrdiff_t window, const float* q, const float* k, const float* v,
                      const unsigned char* visible, float* out);

}  // namespace refimpl
