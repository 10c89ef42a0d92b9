// What every tier offers: one table of functions per dtype, filled in by each file of tiers/.
//
// Arrays are row-major; ld* are strides of rows, in elements for float arrays, in bytes for opaque
// ones. A row's result depends on that row and on the weights alone: never on how many rows there
// are, where the work is split, or which thread does it. 0 rows are legal everywhere and write
// nothing. `scratch` is scratch_bytes() of memory that no other thread uses, aligned to 64 bytes.
//
// Two formats belong to a tier alone. An *operand* is a row of activations as its products read it,
// operand_bytes(columns) long. *Keys and values* stand in slots, as its attention reads them.
#pragma once

#include <cstddef>

#include "base/cpu.h"
#include "base/tensor.h"

namespace refimpl {

// Every activation: one(name, how config.json spells it, ..). The enum, the names (activations.cpp)
// and the choice of a kernel follow from this list; the formula is in rowwise.inl.
#define REFIMPL_ACTIVATIONS(one)                   \
  one(gelu, "gelu")                                \
  one(gelu_tanh, "gelu_new", "gelu_pytorch_tanh")  \
  one(quick_gelu, "quick_gelu")                    \
  one(silu, "silu", "swish")                       \
  one(relu, "relu")                                \
  one(tanh, "tanh")                                \
  one(sigmoid, "sigmoid")                          \
  one(linear, "linear")

#define REFIMPL_ENUMERATOR(name, ...) name,
enum class Activation { REFIMPL_ACTIVATIONS(REFIMPL_ENUMERATOR) };
#undef REFIMPL_ENUMERATOR

inline std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }
inline std::size_t round_up(std::size_t n, std::size_t step) { return ceil_div(n, step) * step; }

// The columns of W [n, k] in panels of two vectors.
//   group = 0: in plain order, one vector after the other
//   else: groups of `group` columns, an even number that divides n; a panel holds some columns of a
//   group's first half, and those that stand group / 2 further. So the two that meet in an epilogue
//   meet in registers: gate and up of Wi (group = n), the halves that RoPE turns (group = head_dim).
struct Packing {
  std::size_t n, k, group;
};
// Counts the forms that `pack` writes: matrices in a file that have another are not taken.
constexpr int kPackLayout = 1;

struct PanelColumns {
  std::size_t first, second;  // the first column of each vector
  int n_first, n_second;      // columns that exist, of each vector's lanes
};

inline std::size_t panels_of(const Packing& p, std::size_t lanes) {
  return p.group ? p.n / p.group * ceil_div(p.group / 2, lanes) : ceil_div(p.n, 2 * lanes);
}

inline PanelColumns columns_of(const Packing& p, std::size_t panel, std::size_t lanes) {
  const auto left = [&](std::size_t end, std::size_t at) {
    return static_cast<int>(at >= end ? 0 : end - at < lanes ? end - at : lanes);
  };
  if (!p.group) {
    const std::size_t first = panel * 2 * lanes, second = first + lanes;
    return {first, second, left(p.n, first), left(p.n, second)};
  }
  const std::size_t half = p.group / 2, per_group = ceil_div(half, lanes);
  const std::size_t i = panel % per_group * lanes, first = panel / per_group * p.group + i;
  return {first, first + half, left(half, i), left(half, i)};
}

// A product x W^T + bias. x: operands of k columns, with row_block - 1 readable rows after the last.
struct Gemm {
  Packing packing;
  const void* packed;  // by `pack`
  const float* bias;   // [n] or null
  const void* x;       // where the kernels have them, rows of integers instead
  std::size_t ldx;
};

// Which part of it a call computes.
struct Range {
  static constexpr std::size_t kNone = ~std::size_t{0};
  std::size_t row0, row1, panel0, panel1;
  std::size_t next = kNone;  // the panel that this thread will probably start with after these: to be fetched
  bool again = false;  // the last call with this scratch was of the same product and rows: what it made of x is there
};

// q k v of all tokens, head by head. A token's key and value stand in its slot; slots of a sequence
// follow one another and start at a multiple of slot_block.
struct Heads {
  std::size_t heads, head_dim;
  void* q;  // [total] operands of heads * head_dim columns, scaled; attention leaves its output there
  std::size_t ldq;
  void *keys, *values;           // heads * kv_bytes(slots, head_dim) each
  std::size_t slots;             // per head, a multiple of slot_block
  const std::size_t* slot;       // [total]
  const unsigned char* visible;  // [total], 0 = hidden as a key, its value zeros; null: all visible
};

// RoPE of q and k: cos, sin [rows, head_dim / 2], `row` [total] tells which is a token's.
struct Rotation {
  const float *cos, *sin;
  const std::size_t* row;
  float scale;  // of q, after its rotation
};

// Tokens first .. first + length see each other iff |i - j| <= window; negative: always.
struct Sequence {
  std::size_t first, length;
  std::ptrdiff_t window;
};

struct Kernels {
  std::size_t lanes;        // columns of one vector of a panel
  std::size_t row_block;    // rows that `Gemm::x` may be read past its end, plus one
  std::size_t row_chunk;    // rows that one call of a product should take, where there are as many
  std::size_t slot_block;   // where the slots of a sequence start
  std::size_t query_block;  // queries that `attention` takes at a time
  std::size_t query_parts;  // parts of them that it can take by themselves, of the same bits

  std::size_t (*operand_bytes)(std::size_t columns);
  std::size_t (*packed_bytes)(const Packing&);
  std::size_t (*kv_bytes)(std::size_t slots, std::size_t head_dim);
  // For products of up to k columns and attention.
  std::size_t (*scratch_bytes)(std::size_t k, std::size_t head_dim);

  // Panels [panel0, panel1) of W into their place in `packed`; columns that fill up are zero.
  void (*pack)(const Packing&, const Tensor& w, std::size_t panel0, std::size_t panel1, void* packed);
  // The same of a matrix that stands turned, W' [k, n], of no groups: for the way back.
  void (*pack_turned)(const Packing&, const float* w, std::size_t panel0, std::size_t panel1, void* packed);

  // y = x W^T + bias + residual, [rows, n]; residual may be null, or y.
  void (*project)(const Gemm&, const float* residual, std::size_t ldr, float* y, std::size_t ldy, const Range&,
                  void* scratch);
  // y = act(gate) * up, operands of n / 2 columns; packed with group = n.
  void (*project_glu)(const Gemm&, Activation, void* y, std::size_t ldy, const Range&, void* scratch);
  // q, k rotated, and v, to where Heads wants them; n = 3 heads * head_dim, packed with group = head_dim.
  void (*project_qkv)(const Gemm&, const Heads&, const Rotation&, const Range&, void* scratch);

  // (x - mean) / sqrt(var + eps) * weight + bias, two passes; bias may be null. y may be x.
  void (*layer_norm)(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight,
                     const float* bias, float eps, float* y, std::size_t ldy);
  // The same into operands.
  void (*norm_operand)(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight,
                       const float* bias, float eps, void* y, std::size_t ldy);
  void (*to_operand)(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, void* y, std::size_t ldy);
  void (*from_operand)(std::size_t rows, std::size_t n, const void* x, std::size_t ldx, float* y, std::size_t ldy);

  // Heads::q [first_query, + query_block) of one head of one sequence, as far as it goes, becomes
  // softmax(q k^T) v over its visible keys; zeros where there is none. first_query counts from the
  // start of the sequence and is a multiple of query_block. Of `parts` parts, at most query_parts, only
  // this one; a part may be empty. A key that a query cannot see adds nothing, whatever it holds.
  void (*attention)(const Heads&, const Sequence&, std::size_t head, std::size_t first_query, std::size_t part,
                    std::size_t parts, void* scratch);

  // -- what the fused ones are made of: for traces and tests --

  // y[r, i] = act(u[r, i]) * u[r, inter + i], u [rows, 2 inter]. y may be u (with ldy = ldu).
  void (*glu)(std::size_t rows, std::size_t inter, Activation, const float* u, std::size_t ldu, float* y,
              std::size_t ldy);
  // Half-split rotation of one head's row, times scale: cos, sin [head_dim / 2]. y may be x.
  void (*rope)(std::size_t head_dim, const float* x, const float* cos, const float* sin, float scale, float* y);
  // One token's q (scaled), k, v [heads * head_dim] to where Heads wants them.
  void (*place_qkv)(const Heads&, std::size_t token, const float* q, const float* k, const float* v);

  // -- int8; null elsewhere --

  // Products read rows of integers, integer_bytes(columns) long, which operands become.
  std::size_t (*integer_bytes)(std::size_t columns) = nullptr;
  void (*to_integers)(std::size_t rows, std::size_t n, const void* x, std::size_t ldx, void* y, std::size_t ldy) = nullptr;
  // Of the same operands, for matrices that are kept from becoming integers.
  const Kernels *in_bfloat16 = nullptr, *in_float32 = nullptr;
};

// int8: the longest rows, whose sums of integers stay within 32 bits: 2^31 / (255 x 63).
constexpr std::size_t kMostIntegers = 133'000;

// The table of a tier; null when it does not offer that dtype. int8 may have several of the same formats and
// bits, for instructions beside those of the tier: the best one that runs here, then the others. null past the last.
const Kernels* kernels_of(Tier tier, Dtype dtype, std::size_t alternative = 0);

#define REFIMPL_TIER(name) const Kernels* kernels_##name(Dtype dtype, std::size_t alternative);
#include "base/tiers.inc"

}  // namespace refimpl
