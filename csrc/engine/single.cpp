#include "engine/single.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/memory.h"

namespace refimpl {
namespace {

// x [rows, columns] as operands.
Memory operands(const Kernels& kernels, std::size_t rows, std::size_t columns, const float* x) {
  const std::size_t ld = kernels.operand_bytes(columns);
  Memory y((rows + kernels.row_block - 1) * ld);
  kernels.to_operand(rows, columns, x, columns, y.data(), ld);
  return y;
}

// What products read: rows of integers where the kernels have them, else operands.
struct Rows {
  Memory data;
  std::size_t ld;
};
Rows product_rows(const Kernels& kernels, std::size_t rows, std::size_t columns, const float* x) {
  Memory in = operands(kernels, rows, columns, x);
  const std::size_t ld = kernels.operand_bytes(columns);
  if (!kernels.to_integers) return {std::move(in), ld};
  const std::size_t whole = kernels.integer_bytes(columns);
  Memory y((rows + kernels.row_block - 1) * whole);
  kernels.to_integers(rows, columns, in.data(), ld, y.data(), whole);
  return {std::move(y), whole};
}

Memory packed_weights(const Kernels& kernels, const Packing& packing, const Tensor& w) {
  Memory packed(kernels.packed_bytes(packing));
  kernels.pack(packing, w, 0, panels_of(packing, kernels.lanes), packed.data());
  return packed;
}

template <class F>  // f(Range)
void each_range(std::size_t m, std::size_t panels, std::size_t row_split, std::size_t panel_split, F f) {
  row_split = std::clamp<std::size_t>(row_split, 1, std::max<std::size_t>(m, 1));
  panel_split = std::clamp<std::size_t>(panel_split, 1, std::max<std::size_t>(panels, 1));
  for (std::size_t row = 0; row < m; row += row_split)
    for (std::size_t panel = 0; panel < panels; panel += panel_split)
      f(Range{row, std::min(m, row + row_split), panel, std::min(panels, panel + panel_split)});
}

}  // namespace

void single_linear(const Kernels& kernels, std::size_t m, std::size_t n, std::size_t k, const float* x,
                   const Tensor& w, const float* bias, const float* residual, std::size_t row_split,
                   std::size_t panel_split, float* y) {
  const Packing packing{n, k, 0};
  const Memory packed = packed_weights(kernels, packing, w);
  const Rows in = product_rows(kernels, m, k, x);
  Memory scratch(kernels.scratch_bytes(k, 2));
  const Gemm g{packing, packed.data(), bias, in.data.data(), in.ld};
  each_range(m, panels_of(packing, kernels.lanes), row_split, panel_split,
             [&](const Range& range) { kernels.project(g, residual, n, y, n, range, scratch.data()); });
}

void single_linear_glu(const Kernels& kernels, Activation activation, std::size_t m, std::size_t n, std::size_t k,
                       const float* x, const Tensor& w, const float* bias, std::size_t row_split,
                       std::size_t panel_split, float* y) {
  const Packing packing{n, k, n};
  const Memory packed = packed_weights(kernels, packing, w);
  const Rows in = product_rows(kernels, m, k, x);
  const std::size_t ld = kernels.operand_bytes(n / 2);
  Memory scratch(kernels.scratch_bytes(k, 2)), out(m * ld);
  const Gemm g{packing, packed.data(), bias, in.data.data(), in.ld};
  each_range(m, panels_of(packing, kernels.lanes), row_split, panel_split, [&](const Range& range) {
    kernels.project_glu(g, activation, out.data(), ld, range, scratch.data());
  });
  kernels.from_operand(m, n / 2, out.data(), ld, y, n / 2);
}

void single_rope(const Kernels& kernels, std::size_t seq, std::size_t heads, std::size_t head_dim, const float* x,
                 const float* cos, const float* sin, float* y) {
  for (std::size_t t = 0; t < seq; ++t, cos += head_dim / 2, sin += head_dim / 2)
    for (std::size_t h = 0; h < heads; ++h, x += head_dim, y += head_dim)
      kernels.rope(head_dim, x, cos, sin, 1.0f, y);
}

void single_attention(const Kernels& kernels, std::size_t seq, std::size_t heads, std::size_t head_dim,
                      std::ptrdiff_t window, const float* q, const float* k, const float* v,
                      const unsigned char* visible, float* out) {
  const std::size_t hidden = heads * head_dim, ld = kernels.operand_bytes(hidden);
  const std::size_t slots = round_up(seq, kernels.slot_block);
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  Memory queries((seq + kernels.row_block - 1) * ld), keys(heads * kernels.kv_bytes(slots, head_dim)),
      values(heads * kernels.kv_bytes(slots, head_dim)), scratch(kernels.scratch_bytes(hidden, head_dim));
  std::vector<std::size_t> slot(seq);
  std::iota(slot.begin(), slot.end(), std::size_t{0});
  const Heads h{heads, head_dim, queries.data(), ld, keys.data(), values.data(), slots, slot.data(), visible};
  std::vector<float> scaled(hidden);
  for (std::size_t t = 0; t < seq; ++t) {
    for (std::size_t i = 0; i < hidden; ++i) scaled[i] = q[t * hidden + i] * scale;
    kernels.place_qkv(h, t, scaled.data(), k + t * hidden, v + t * hidden);
  }
  for (std::size_t head = 0; head < heads; ++head)
    for (std::size_t first = 0; first < seq; first += kernels.query_block)
      kernels.attention(h, {0, seq, window}, head, first, 0, 1, scratch.data());
  kernels.from_operand(seq, hidden, queries.data(), ld, out, hidden);
}

}  // namespace refimpl
