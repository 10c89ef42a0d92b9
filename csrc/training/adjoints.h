// What every tier offers to a backward pass and an update, beside kernels/kernels.h: a table for float32, and
// another for bfloat16 where the tier multiplies such numbers; its arrays are float32 as well.
//
// The rules of kernels.h hold: row-major arrays, strides of rows in floats, a row's result from that row
// alone. Sums over rows are taken block by block: within a block in the order of its rows, from zero, then
// added to what was there, in the order of the blocks (in bfloat16: 32 rows of a block are such a sum). So bits
// depend on the blocks, and neither on where the work is split nor on which rows one call brings.
// Formulas: MODEL.md, the equations with a prime; the truth is refimpl/train/adjoints.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace refimpl {

// Rows [first, first + count) that are summed together.
struct RowBlock {
  std::size_t first, count;
};

// One head of one sequence. q, k are rotated, q is not scaled; rows of q, k, v are ld apart.
struct AttentionAdjoint {
  std::size_t length, head_dim;
  std::ptrdiff_t window;         // negative: everything is visible
  float scale;                   // of the scores
  const float *q, *k, *v;
  std::size_t ld;
  const unsigned char* visible;  // [length], 0 = hidden as a key; null: all visible
  const float* d;                // of the output [length, head_dim]
  std::size_t ldd;
  float *dq, *dk, *dv;           // may be q, k, v
  std::size_t lddq;
};

// Of one update of one tensor, by MODEL.md (53) - (55), in float32 as numpy has it.
struct Update {
  float kept;    // p *= kept: what weight decay leaves
  float toward;  // m += toward (g - m)
  float beta;    // v = beta v + square g g
  float square;
  float eps;
  float rate;    // AdamW: lr over the first bias correction; StableAdamW: its lr
  float second;  // AdamW: the root of the second bias correction
};

struct Adjoints {
  // dW. Columns stand in panels of left_width (of dy) and right_width (of x); a panel has number_bytes for each of
  // width x rows numbers, where the rows of each block are filled up to a multiple of row_step. What fills up is zero.
  std::size_t left_width, right_width, row_step, number_bytes;
  std::size_t outer_rows;  // rows whose products are best summed in one go
  bool left_stays;         // panels of which side should stay while those of the other pass
  std::size_t passing;     // bytes of panels that pass again and again, for L2 to hold
  // Panel number `panel` of x [.., columns]: the rows of the blocks, one after the other.
  void (*gather_left)(const RowBlock* blocks, std::size_t count, const float* x, std::size_t columns, std::size_t panel,
                      void* to);
  void (*gather_right)(const RowBlock* blocks, std::size_t count, const float* x, std::size_t columns,
                       std::size_t panel, void* to);
  // c[i, j] += sum left[t, i] right[t, j], block by block, c [m, n]: panels [left0, left1) of the left side times
  // [right0, right1) of the right side. left, right: all panels, of `rows` rows, those that fill up included.
  void (*outer)(const RowBlock* blocks, std::size_t count, std::size_t rows, const void* left, std::size_t left0,
                std::size_t left1, std::size_t m, const void* right, std::size_t right0, std::size_t right1,
                std::size_t n, float* c);

  // dx = residual + the adjoint of LayerNorm; residual may be null, or dx; dx may be dy. dw, db [n]: sums over
  // these rows, from zero; db may be null.
  void (*layer_norm)(std::size_t rows, std::size_t n, const float* dy, const float* x, const float* weight, float eps,
                     const float* residual, float* dx, float* dw, float* db);
  // du [rows, 2 inter] of y = act(u[:, :inter]) u[:, inter:]; du may be u.
  void (*glu)(std::size_t rows, std::size_t inter, Activation, const float* dy, const float* u, float* du);
  // The whole of one head of one sequence; scratch of attention_floats().
  void (*attention)(const AttentionAdjoint&, float* scratch);
  std::size_t (*attention_floats)(std::size_t length, std::size_t head_dim, std::ptrdiff_t window);

  // A row of logits x [classes] becomes share (softmax(x) - target), target = 1 - smoothing at the label and
  // smoothing / classes more at each; returns -sum target log softmax(x).
  double (*cross_entropy)(std::size_t classes, std::size_t label, float smoothing, float share, float* x);

  // Tensors of n numbers, changed in place, with AdamW's formula; or StableAdamW's moments, returning the sum of
  // g g / max(v, eps eps), and then its step.
  void (*adamw)(std::size_t n, float* p, const float* g, float* m, float* v, const Update&);
  double (*stable_moments)(std::size_t n, const float* g, float* m, float* v, const Update&);
  void (*stable_step)(std::size_t n, float* p, const float* m, const float* v, const Update&);
};

// The table of a tier. That of amx and avx512bf16 is avx512's; in bfloat16 their sums over rows and attention are
// their own. The others' is the same for both dtypes.
const Adjoints& adjoints_of(Tier tier, Dtype dtype = Dtype::float32);

#define REFIMPL_TIER(name) const Adjoints& adjoints_##name(Dtype dtype);
#include "base/tiers.inc"

}  // namespace refimpl
