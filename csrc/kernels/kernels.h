// What every tier offers: one table of functions, filled in by each file of tiers/.
//
// All arrays are float32, row-major, aligned to 4 bytes; strides (ld*) count floats. A row's result
// depends on that row and on the weights alone: never on how many rows there are, where the work is
// split, or which thread does it. 0 rows are legal everywhere and write nothing.
#pragma once

#include <cstddef>

#include "base/cpu.h"

namespace refimpl {

enum class Activation { gelu, gelu_tanh, quick_gelu, silu, relu, tanh, sigmoid, linear };

// y[m, n] = x[m, k] W^T + bias + residual, W [n, k] packed by `pack`, k >= 1.
// bias [n] and residual [m, n] (ldr) may be null; y overlaps neither x nor residual. Nothing outside
// y[m, n] is written, whatever the panel.
struct Gemm {
  std::size_t n, k;
  const float* packed;  // packed_floats(n, k): panels of `panel` columns, k-major
  const float* bias;
  const float* x;
  std::size_t ldx;
  const float* residual;
  std::size_t ldr;
  float* y;
  std::size_t ldy;
};

// One block of queries of one head of one sequence, softmax(q k^T) v over visible keys.
// q is scaled already. A query without a visible key gives zeros.
struct Attention {
  std::size_t head_dim, length;  // tokens of the sequence
  std::ptrdiff_t window;         // visible iff |i - j| <= window; negative: all
  const float* q;                // [length, head_dim], ldq
  std::size_t ldq;
  const float* keys;             // as place_key_value leaves them, [ceil(length / panel), head_dim, panel]
  const float* values;           // [length, padded_width(head_dim, panel)], zero where masked
  const unsigned char* visible;  // [length], 0 = masked key; null: all visible
  float* out;                    // [length, head_dim], ldo
  std::size_t ldo;
};

struct Kernels {
  std::size_t panel;        // columns of a packed panel
  std::size_t query_block;  // queries that `attention` takes at a time

  std::size_t (*packed_floats)(std::size_t n, std::size_t k);
  // W [n, k] into panels; columns that fill up the last one are zero.
  void (*pack)(std::size_t n, std::size_t k, const float* w, float* packed);
  // Rows [row0, row1) and panels [panel0, panel1) of y.
  void (*gemm)(const Gemm&, std::size_t row0, std::size_t row1, std::size_t panel0, std::size_t panel1);
  // (x - mean) / sqrt(var + eps) * weight + bias, two passes; bias may be null. y may be x.
  void (*layer_norm)(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight,
                     const float* bias, float eps, float* y, std::size_t ldy);
  // y[r, i] = act(u[r, i]) * u[r, inter + i], u [rows, 2 inter]. y may be u (with ldy = ldu).
  void (*glu)(std::size_t rows, std::size_t inter, Activation, const float* u, std::size_t ldu, float* y,
              std::size_t ldy);
  // Half-split rotation of one head's row, times scale: cos, sin [head_dim / 2]. y may be x.
  void (*rope)(std::size_t head_dim, const float* x, const float* cos, const float* sin, float scale, float* y);
  // Floats of scratch that `attention` needs.
  std::size_t (*scratch_floats)(std::size_t head_dim);
  // Queries [first, first + query_block) of the sequence, as far as it goes; first is a multiple of
  // query_block.
  void (*attention)(const Attention&, std::size_t first, float* scratch);
};

inline std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// n rounded up to whole panels.
inline std::size_t padded_width(std::size_t n, std::size_t panel) { return ceil_div(n, panel) * panel; }

// Key and value of token j of a sequence, [head_dim] each, to where `attention` reads them: the key
// into its column of its panel, the value into its row, or zeros there when it is masked.
inline void place_key_value(std::size_t panel, std::size_t head_dim, std::size_t j, const float* key,
                            const float* value, bool visible, float* keys, float* values) {
  float* column = keys + j / panel * panel * head_dim + j % panel;
  float* row = values + j * padded_width(head_dim, panel);
  for (std::size_t c = 0; c < head_dim; ++c) column[c * panel] = key[c];
  for (std::size_t c = 0; c < head_dim; ++c) row[c] = visible ? value[c] : 0.0f;
}

// The table of a tier.
const Kernels& kernels_of(Tier tier);

#define REFIMPL_TIER(name) extern const Kernels kernels_##name;
#include "base/tiers.inc"

}  // namespace refimpl
