// The forward pass by single steps, and what a tap is told of it.
//
// The unfused steps use the kernels that the fused ones are made of, on the same packed weights, so
// that every step that both bring into being has the same bits.
#include <algorithm>
#include <cmath>

#include "engine/forward.h"

namespace refimpl {

void Engine::trace(const Batch& batch, float* out, int threads, bool fused, const Tap& tap) const {
  if (batch.cu_seqlens.back() == 0) return;
  Forward(*this, batch, out, threads, nullptr, &tap, fused).run();
}

void Forward::qkv_unfused(std::size_t layer, Rows rows, const Gemm& g, const Rotation& rotation) {
  Floats qkv = product(e.layers_[layer].wqkv, rows, g);
  Floats part(rows.count * hidden);
  const auto tap_part = [&](const char* step, std::size_t which) {
    for (std::size_t t = 0; t < rows.count; ++t)
      std::copy_n(qkv.data() + (3 * t + which) * hidden, hidden, part.data() + t * hidden);
    tap_rows(step, layer, rows, hidden, part.data());
  };
  tap_part("q", 0), tap_part("k", 1), tap_part("v", 2);
  const auto each_head = [&](auto f) {  // f(head's row of q, cos, sin)
    for (std::size_t t = 0; t < rows.count; ++t)
      for (std::size_t h = 0; h < e.plan.heads; ++h) {
        const std::size_t angle = rotation.row[rows.first + t] * (head_dim / 2);
        f(qkv.data() + 3 * t * hidden + h * head_dim, rotation.cos + angle, rotation.sin + angle);
      }
  };
  each_head([&](float* q, const float* cos, const float* sin) {
    k.rope(head_dim, q, cos, sin, 1.0f, q);
    k.rope(head_dim, q + hidden, cos, sin, 1.0f, q + hidden);
  });
  tap_part("q_rot", 0), tap_part("k_rot", 1);
  const Heads all = heads(0);
  for (std::size_t t = 0; t < rows.count; ++t) {
    float* q = qkv.data() + 3 * t * hidden;
    for (std::size_t i = 0; i < hidden; ++i) q[i] *= rotation.scale;
    k.place_qkv(all, rows.first + t, q, q + hidden, q + 2 * hidden);
  }
}

void Forward::glu_unfused(std::size_t layer, Rows rows, const Gemm& g) {
  Floats u = product(e.layers_[layer].wi, rows, g);
  tap_rows("wi", layer, rows, 2 * inter, u.data());
  k.glu(rows.count, inter, e.plan.activation, u.data(), 2 * inter, u.data(), 2 * inter);
  k.to_operand(rows.count, inter, u.data(), 2 * inter, w_->gated.data(), ldgated_);
}

// rope.full.* and rope.sliding.*, [total, head_dim]: both halves of a row are alike.
void Forward::tap_tables() {
  for (const bool full : {true, false}) {
    const auto layer = std::find_if(e.plan.layers.begin(), e.plan.layers.end(),
                                    [&](const LayerPlan& l) { return (l.window < 0) == full; });
    if (layer == e.plan.layers.end()) continue;
    const Rotary& table = table_of(static_cast<std::size_t>(layer - e.plan.layers.begin()));
    Floats rows(total * head_dim);
    for (const bool cosine : {true, false}) {
      const std::size_t half = head_dim / 2;
      for (std::size_t t = 0; t < total; ++t)
        for (std::size_t i = 0; i < head_dim; ++i)
          rows[t * head_dim + i] = (cosine ? table.cos() : table.sin())[row_[t] * half + i % half];
      tap_rows(full ? (cosine ? "rope.full.cos" : "rope.full.sin") : (cosine ? "rope.sliding.cos" : "rope.sliding.sin"),
               kNoLayer, {0, total}, head_dim, rows.data());
    }
  }
}

void Forward::tap_rows(const char* step, std::size_t layer, Rows rows, std::size_t columns, const float* data) {
  (*tap_)({step, layer == kNoLayer ? -1 : static_cast<std::ptrdiff_t>(layer), rows.first, rows.count, columns, data});
}

void Forward::tap_operands(const char* step, std::size_t layer, Rows rows, std::size_t columns, const void* data,
                           std::size_t ld) {
  Floats wide(rows.count * columns);
  k.from_operand(rows.count, columns, data, ld, wide.data(), columns);
  tap_rows(step, layer, rows, columns, wide.data());
}

}  // namespace refimpl
