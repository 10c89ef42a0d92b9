// Embedding + norm, residual + norm, GLU, RoPE: what is computed one row at a time.
//
// A row's result depends on that row and the weights alone: its order of operations is that of its
// width, never of how many rows there are. 0 rows are legal and write nothing. Statistics and the
// residual stream are float32; results are Out, float or bf16, as the next product takes them.
// ld* are strides of rows in elements. Reads are of 32 neighbours at a time; no alignment is asked for.
#pragma once

#include "cuda/activations.h"
#include "cuda/numbers.h"

namespace refimpl::cuda {

// -- LayerNorm --------------------------------------------------------------------------------------

// (x - mean) / sqrt(var + eps) * weight + bias, two passes; bias may be null.
struct NormWeights {
  const float *weight, *bias;
  float eps;
};

// Columns of a row that a lane keeps in registers: rows of up to 1,024. What is beyond is read again.
constexpr unsigned kHeld = 32;
constexpr unsigned kRowsPerBlock = 4;  // one warp each

// The norm of a row of n by one warp. first(i): entry i, asked for once; again(i): the same, as often as
// it is wanted, for those that are not held; put(i, y), after all entries were asked for.
template <class First, class Again, class Put>
REFIMPL_DEVICE void norm_row(unsigned n, const NormWeights& w, First first, Again again, Put put) {
  const unsigned lane0 = lane(), rest = kHeld * kWarp + lane0;
  float held[kHeld];
  float total = 0.0f;
  REFIMPL_UNROLL
  for (unsigned k = 0; k < kHeld; ++k)
    if (const unsigned i = k * kWarp + lane0; i < n) total += held[k] = first(i);
  for (unsigned i = rest; i < n; i += kWarp) total += first(i);
  const float count = static_cast<float>(n), mean = warp_sum(total) / count;

  // Centre first: the one-pass variance loses every digit when the mean is large.
  float squares = 0.0f;
  REFIMPL_UNROLL
  for (unsigned k = 0; k < kHeld; ++k)
    if (k * kWarp + lane0 < n) held[k] -= mean, squares = fma(held[k], held[k], squares);
  for (unsigned i = rest; i < n; i += kWarp) {
    const float centred = again(i) - mean;
    squares = fma(centred, centred, squares);
  }
  const float scale = 1.0f / sqrt(warp_sum(squares) / count + w.eps);

  const auto finish = [&](unsigned i, float centred) {
    const float y = centred * scale * load_global(w.weight + i);
    put(i, w.bias ? y + load_global(w.bias + i) : y);
  };
  REFIMPL_UNROLL
  for (unsigned k = 0; k < kHeld; ++k)
    if (const unsigned i = k * kWarp + lane0; i < n) finish(i, held[k]);
  for (unsigned i = rest; i < n; i += kWarp) finish(i, again(i) - mean);
}

// x [rows, n] += added, where that is not null, and y = LN(x). y may be x.
template <class Out>
struct ResidualNorm {
  unsigned rows, n;
  float* x;
  std::size_t ldx;
  const float* added;
  std::size_t lda;
  NormWeights norm;
  Out* y;
  std::size_t ldy;
};

template <class Out>
REFIMPL_KERNEL residual_norm_kernel(ResidualNorm<Out> a) {
  const unsigned row = block_x() * kRowsPerBlock + warp();
  if (row >= a.rows) return;
  float* x = a.x + row * a.ldx;
  const float* added = a.added ? a.added + row * a.lda : nullptr;
  Out* y = a.y + row * a.ldy;
  const auto first = [&](unsigned i) {
    float v = load_global(x + i);
    if (added) v += load_global(added + i), store_global(x + i, v);
    return v;
  };
  norm_row(a.n, a.norm, first, [&](unsigned i) { return load_global(x + i); },
           [&](unsigned i, float v) { store_global(y + i, as<Out>(v)); });
}

template <class Out>
auto residual_norm(Stream stream, const ResidualNorm<Out>& a) {
  return launch(residual_norm_kernel<Out>, {(a.rows + kRowsPerBlock - 1) / kRowsPerBlock, 1, kRowsPerBlock * kWarp, 0}, stream, a);
}

// x = LN(E[ids] + T[types]), the residual stream, and the same as y, where that is not null: operands of
// the first layer, which has no norm of its own. E [vocab, n], T [types_rows, n] or null; types null: type 0.
// Of an id or a type that there is no row for, the result is NaN: those of a device are seen here first.
// Stored: the type that the checkpoint has, float, bf16 or f16. x may be the table of `rows` rows 0, 1, ..
template <class Stored, class Out>
struct EmbeddingNorm {
  unsigned rows, n;
  const std::int64_t *ids, *types;  // ids null: 0, 1, ..
  const Stored* table;
  std::size_t vocab;
  const float* type_table;
  std::size_t type_rows;
  NormWeights norm;
  float* x;
  std::size_t ldx;
  Out* y;
  std::size_t ldy;
};

template <class Stored, class Out>
REFIMPL_KERNEL embedding_norm_kernel(EmbeddingNorm<Stored, Out> a) {
  const unsigned row = block_x() * kRowsPerBlock + warp();
  if (row >= a.rows) return;
  const std::uint64_t id = a.ids ? static_cast<std::uint64_t>(load_global(a.ids + row)) : row;
  const std::uint64_t type_id = a.type_table && a.types ? static_cast<std::uint64_t>(load_global(a.types + row)) : 0;
  const bool known = id < a.vocab && (!a.type_table || type_id < a.type_rows);
  const Stored* token = a.table + (known ? id * a.n : 0);
  const float* type = a.type_table ? a.type_table + (known ? type_id * a.n : 0) : nullptr;
  float* x = a.x + row * a.ldx;
  Out* y = a.y ? a.y + row * a.ldy : nullptr;
  const auto entry = [&](unsigned i) {
    if (!known) return NAN;
    const float v = as_float(load_global(token + i));
    return type ? v + load_global(type + i) : v;
  };
  norm_row(a.n, a.norm, entry, entry, [&](unsigned i, float v) {
    store_global(x + i, v);
    if (y) store_global(y + i, as<Out>(v));
  });
}

template <class Stored, class Out>
auto embedding_norm(Stream stream, const EmbeddingNorm<Stored, Out>& a) {
  return launch(embedding_norm_kernel<Stored, Out>, {(a.rows + kRowsPerBlock - 1) / kRowsPerBlock, 1, kRowsPerBlock * kWarp, 0},
                stream, a);
}

// -- GLU --------------------------------------------------------------------------------------------

constexpr unsigned kElementsPerBlock = 256;

// y[r, i] = act(u[r, i]) * u[r, inter + i], u [rows, 2 inter]. y may be u, with ldy = ldu.
template <class Out>
struct Glu {
  unsigned rows, inter;
  const float* u;
  std::size_t ldu;
  Out* y;
  std::size_t ldy;
};

template <Activation A, class Out>
REFIMPL_KERNEL glu_kernel(Glu<Out> a) {
  const unsigned per_row = (a.inter + kElementsPerBlock - 1) / kElementsPerBlock;
  const unsigned row = block_x() / per_row, i = block_x() % per_row * kElementsPerBlock + thread();
  if (i >= a.inter) return;
  const float* u = a.u + row * a.ldu + i;
  store_global(a.y + row * a.ldy + i, as<Out>(activate<A>(load_global(u)) * load_global(u + a.inter)));
}

template <class Out>
auto glu(Stream stream, Activation activation, const Glu<Out>& a) {
  const unsigned per_row = (a.inter + kElementsPerBlock - 1) / kElementsPerBlock;
  return with_activation(activation, [&](auto chosen) {
    return launch(glu_kernel<decltype(chosen)::value, Out>, {a.rows * per_row, 1, kElementsPerBlock, 0}, stream, a);
  });
}

// -- RoPE -------------------------------------------------------------------------------------------

// Of each head of each row of x [rows, heads * head_dim], half-split, times scale:
//   y1 = (x1 cos - x2 sin) scale,  y2 = (x2 cos + x1 sin) scale
// cos, sin [.., head_dim / 2]; table_row [rows] tells which row of them. y may be x.
struct Rope {
  unsigned rows, heads, head_dim;
  const float* x;
  std::size_t ldx;
  const float *cos, *sin;
  const std::uint32_t* table_row;
  float scale;
  float* y;
  std::size_t ldy;
};

REFIMPL_DEVICE float rotated_first(float x1, float x2, float cos, float sin, float scale) {
  return (x1 * cos - x2 * sin) * scale;
}
REFIMPL_DEVICE float rotated_second(float x1, float x2, float cos, float sin, float scale) {
  return (x2 * cos + x1 * sin) * scale;
}

template <class = void>  // a template, as every kernel is: a header may define it
REFIMPL_KERNEL rope_kernel(Rope a) {
  const unsigned half = a.head_dim / 2, pairs = a.heads * half;
  const unsigned per_row = (pairs + kElementsPerBlock - 1) / kElementsPerBlock;
  const unsigned row = block_x() / per_row, pair = block_x() % per_row * kElementsPerBlock + thread();
  if (pair >= pairs) return;
  const unsigned at = pair / half * a.head_dim + pair % half;
  const float* x = a.x + row * a.ldx + at;
  const float x1 = load_global(x), x2 = load_global(x + half);
  const std::size_t angle = std::size_t{load_global(a.table_row + row)} * half + pair % half;
  const float cos = load_global(a.cos + angle), sin = load_global(a.sin + angle);
  float* y = a.y + row * a.ldy + at;
  store_global(y, rotated_first(x1, x2, cos, sin, a.scale));
  store_global(y + half, rotated_second(x1, x2, cos, sin, a.scale));
}

inline auto rope(Stream stream, const Rope& a) {
  const unsigned per_row = (a.heads * (a.head_dim / 2) + kElementsPerBlock - 1) / kElementsPerBlock;
  return launch(rope_kernel<>, {a.rows * per_row, 1, kElementsPerBlock, 0}, stream, a);
}

// -- heads ------------------------------------------------------------------------------------------

// x [rows, n] = act(x)
struct Activated {
  unsigned rows, n;
  float* x;
  std::size_t ldx;
};

template <Activation A>
REFIMPL_KERNEL activate_kernel(Activated a) {
  const unsigned per_row = (a.n + kElementsPerBlock - 1) / kElementsPerBlock;
  const unsigned row = block_x() / per_row, i = block_x() % per_row * kElementsPerBlock + thread();
  if (i >= a.n) return;
  float* x = a.x + row * a.ldx + i;
  store_global(x, activate<A>(load_global(x)));
}

inline auto activate_rows(Stream stream, Activation activation, const Activated& a) {
  const unsigned per_row = (a.n + kElementsPerBlock - 1) / kElementsPerBlock;
  return with_activation(activation, [&](auto chosen) {
    return launch(activate_kernel<decltype(chosen)::value>, {a.rows * per_row, 1, kElementsPerBlock, 0}, stream, a);
  });
}

// y = x / max(|x|, 1e-12) of each row [rows, n]; squares are summed in double. y may be x, with ldy = ldx.
struct Unit {
  unsigned rows, n;
  const float* x;
  std::size_t ldx;
  float* y;
  std::size_t ldy;
};

template <class = void>
REFIMPL_KERNEL unit_kernel(Unit a) {
  const unsigned row = block_x() * kRowsPerBlock + warp();
  if (row >= a.rows) return;
  const float* x = a.x + row * a.ldx;
  double squares = 0.0;
  for (unsigned i = lane(); i < a.n; i += kWarp) {
    const double v = load_global(x + i);
    squares += v * v;
  }
  REFIMPL_UNROLL
  for (unsigned bit = kWarp / 2; bit; bit /= 2) squares += shuffle_xor(squares, bit);
  const float shortest = 1e-12f, found = static_cast<float>(sqrt(squares)), length = found < shortest ? shortest : found;
  for (unsigned i = lane(); i < a.n; i += kWarp) store_global(a.y + row * a.ldy + i, load_global(x + i) / length);
}

inline auto unit_rows(Stream stream, const Unit& a) {
  return launch(unit_kernel<>, {(a.rows + kRowsPerBlock - 1) / kRowsPerBlock, 1, kRowsPerBlock * kWarp, 0}, stream, a);
}

// y [rows, n] = x as T
template <class T>
struct Narrowed {
  unsigned rows, n;
  const float* x;
  std::size_t ldx;
  T* y;
  std::size_t ldy;
};

template <class T>
REFIMPL_KERNEL narrow_kernel(Narrowed<T> a) {
  const unsigned per_row = (a.n + kElementsPerBlock - 1) / kElementsPerBlock;
  const unsigned row = block_x() / per_row, i = block_x() % per_row * kElementsPerBlock + thread();
  if (i < a.n) store_global(a.y + row * a.ldy + i, as<T>(load_global(a.x + row * a.ldx + i)));
}

template <class T>
auto narrow(Stream stream, const Narrowed<T>& a) {
  const unsigned per_row = (a.n + kElementsPerBlock - 1) / kElementsPerBlock;
  return launch(narrow_kernel<T>, {a.rows * per_row, 1, kElementsPerBlock, 0}, stream, a);
}

}  // namespace refimpl::cuda
