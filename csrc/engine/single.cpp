#include "engine/single.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace refimpl {

void single_linear(const Kernels& kernels, std::size_t m, std::size_t n, std::size_t k, const float* x, const float* w,
                   const float* bias, const float* residual, std::size_t row_split, std::size_t panel_split, float* y) {
  std::vector<float> packed(kernels.packed_floats(n, k));
  kernels.pack(n, k, w, packed.data());
  const Gemm g{n, k, packed.data(), bias, x, k, residual, n, y, n};
  const std::size_t panels = ceil_div(n, kernels.panel);
  row_split = std::clamp<std::size_t>(row_split, 1, std::max<std::size_t>(m, 1));
  panel_split = std::clamp<std::size_t>(panel_split, 1, std::max<std::size_t>(panels, 1));
  for (std::size_t row = 0; row < m; row += row_split)
    for (std::size_t panel = 0; panel < panels; panel += panel_split)
      kernels.gemm(g, row, std::min(m, row + row_split), panel, std::min(panels, panel + panel_split));
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
  const std::size_t width = padded_width(head_dim, kernels.panel), hidden = heads * head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  std::vector<float> scaled(seq * head_dim), keys(padded_width(seq, kernels.panel) * head_dim), values(seq * width);
  std::vector<float> scratch(kernels.scratch_floats(head_dim));
  for (std::size_t h = 0; h < heads; ++h) {
    for (std::size_t j = 0; j < seq; ++j) {
      const std::size_t at = j * hidden + h * head_dim;
      for (std::size_t c = 0; c < head_dim; ++c) scaled[j * head_dim + c] = q[at + c] * scale;
      place_key_value(kernels.panel, head_dim, j, k + at, v + at, !visible || visible[j], keys.data(), values.data());
    }
    const Attention a{head_dim, seq, window, scaled.data(), head_dim, keys.data(), values.data(), visible,
                      out + h * head_dim, hidden};
    for (std::size_t first = 0; first < seq; first += kernels.query_block) kernels.attention(a, first, scratch.data());
  }
}

}  // namespace refimpl
