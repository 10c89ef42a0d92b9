// The kernels of csrc/cuda on this processor, behind the contracts of kernels.h: so that the cases of
// tests/native ask of them what they ask of every tier.
//
// A launch has an order of threads of its own, drawn from a counter: what is asked to have the same
// bits has them in any order.
#pragma once

#include <atomic>
#include <vector>

#include "../native/cases.h"
#include "cuda/attention.h"
#include "cuda/gemm.h"
#include "cuda/rowwise.h"

namespace driver {

inline cuda::Stream next_order() {
  static std::atomic<cuda::Stream> order{0};
  return ++order;
}

// Numbers in memory that ends where a page begins that nobody may touch.
template <class T>
class Device {
 public:
  explicit Device(std::size_t n) : n(n), buffer(n * sizeof(T), sizeof(T)) {}
  T* data() { return reinterpret_cast<T*>(buffer.data()); }
  T& operator[](std::size_t i) { return data()[i]; }
  const std::size_t n;
  Buffer buffer;
};

inline float number(float x) { return x; }
inline float number(bf16 x) { return to_float(x); }

namespace emulated_kernels {

inline void layer_norm(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight, const float* bias,
                       float eps, float* y, std::size_t ldy) {
  cuda::residual_norm<float>(next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(n), const_cast<float*>(x), ldx, nullptr, 0,
                                            {weight, bias, eps}, y, ldy});
}
inline void glu(std::size_t rows, std::size_t inter, Activation activation, const float* u, std::size_t ldu, float* y, std::size_t ldy) {
  cuda::glu<float>(next_order(), activation, {static_cast<unsigned>(rows), static_cast<unsigned>(inter), u, ldu, y, ldy});
}
inline void rope(std::size_t head_dim, const float* x, const float* cos, const float* sin, float scale, float* y) {
  Device<std::uint32_t> row(1);
  row[0] = 0;
  cuda::rope(next_order(), {1, 1, static_cast<unsigned>(head_dim), x, head_dim, cos, sin, row.data(), scale, y, head_dim});
}


// Operands are rows of T.
template <class T>
std::size_t operand_bytes(std::size_t columns) {
  return round_up(columns * sizeof(T), 16);
}
template <class T>
void to_operand(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, void* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < n; ++c) reinterpret_cast<T*>(static_cast<std::byte*>(y) + r * ldy)[c] = cuda::as<T>(x[r * ldx + c]);
}
template <class T>
void from_operand(std::size_t rows, std::size_t n, const void* x, std::size_t ldx, float* y, std::size_t ldy) {
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < n; ++c) y[r * ldy + c] = number(reinterpret_cast<const T*>(static_cast<const std::byte*>(x) + r * ldx)[c]);
}
template <class T>
std::size_t packed_bytes(const Packing& p) {
  return cuda::packed_numbers(p) * sizeof(T);
}
template <class T>
void pack(const Packing& p, const Tensor& w, std::size_t panel0, std::size_t panel1, void* packed) {
  const auto from = [&](auto stored) {
    using Stored = decltype(stored);
    cuda::pack<Stored, T>(next_order(), {static_cast<unsigned>(p.n), static_cast<unsigned>(p.k), static_cast<unsigned>(p.group),
                                         static_cast<unsigned>(panel0), static_cast<unsigned>(panel1), static_cast<const Stored*>(w.data),
                                         static_cast<T*>(packed), cuda::k_padded(p.k)});
  };
  w.storage == Storage::float32 ? from(float{}) : w.storage == Storage::bfloat16 ? from(bf16{}) : from(cuda::f16{});
}

// Some rows and panels; the epilogue's pointers are those of the range's first row.
template <class T, unsigned kTerms, class Epilogue>
void product(const Gemm& g, const Range& range, const Epilogue& epilogue) {
  if (range.row0 >= range.row1 || range.panel0 >= range.panel1) return;
  cuda::product<kTerms>(next_order(), cuda::Product<T, Epilogue>{
      static_cast<unsigned>(range.row1 - range.row0), static_cast<unsigned>(g.packing.n), static_cast<unsigned>(g.packing.k),
      static_cast<unsigned>(g.packing.group), static_cast<unsigned>(range.panel0), static_cast<unsigned>(range.panel1),
      static_cast<const T*>(g.x) + range.row0 * (g.ldx / sizeof(T)), g.ldx / sizeof(T), static_cast<const T*>(g.packed),
      cuda::k_padded(g.packing.k), epilogue});
}
template <class T, unsigned kTerms>
void project(const Gemm& g, const float* residual, std::size_t ldr, float* y, std::size_t ldy, const Range& range, void*) {
  product<T, kTerms>(g, range, cuda::AddTo{g.bias, residual ? residual + range.row0 * ldr : nullptr, ldr, y + range.row0 * ldy, ldy});
}
template <class T, unsigned kTerms>
void project_glu(const Gemm& g, Activation activation, void* y, std::size_t ldy, const Range& range, void*) {
  T* to = reinterpret_cast<T*>(static_cast<std::byte*>(y) + range.row0 * ldy);
  if (activation == Activation::gelu) product<T, kTerms>(g, range, cuda::Gated<cuda::Gelu, T>{{}, g.bias, to, ldy / sizeof(T)});
  else product<T, kTerms>(g, range, cuda::Gated<cuda::Named, T>{{activation}, g.bias, to, ldy / sizeof(T)});
}
template <class T, unsigned kTerms>
void project_qkv(const Gemm& g, const Heads& h, const Rotation& turn, const Range& range, void*) {
  const std::size_t rows = range.row1 - range.row0, width = cuda::padded_head(h.head_dim);
  Device<std::uint32_t> table_row(rows);
  for (std::size_t r = 0; r < rows; ++r) table_row[r] = static_cast<std::uint32_t>(turn.row[range.row0 + r]);
  for (std::size_t head = 0; head < h.heads; ++head)  // what fills up is the caller's
    for (std::size_t r = range.row0; r < range.row1; ++r)
      for (std::size_t c = h.head_dim; c < width; ++c)
        for (void* to : {h.keys, h.values}) static_cast<T*>(to)[(head * h.slots + h.slot[r]) * width + c] = cuda::as<T>(0.0f);
  product<T, kTerms>(g, range, cuda::ToHeads<T>{g.bias, static_cast<unsigned>(h.heads), static_cast<unsigned>(h.head_dim),
                                                static_cast<unsigned>(width), static_cast<T*>(h.q), h.ldq / sizeof(T), static_cast<T*>(h.keys),
                                                static_cast<T*>(h.values), range.row0, h.slots, turn.cos, turn.sin, table_row.data(), turn.scale});
}
template <class T>
void norm_operand(std::size_t rows, std::size_t n, const float* x, std::size_t ldx, const float* weight, const float* bias, float eps, void* y,
                  std::size_t ldy) {
  cuda::residual_norm<T>(next_order(), {static_cast<unsigned>(rows), static_cast<unsigned>(n), const_cast<float*>(x), ldx, nullptr, 0,
                                        {weight, bias, eps}, static_cast<T*>(y), ldy / sizeof(T)});
}

template <class T>
std::size_t kv_bytes(std::size_t slots, std::size_t head_dim) {
  return slots * cuda::padded_head(head_dim) * sizeof(T);
}
inline std::size_t scratch_bytes(std::size_t, std::size_t) { return 0; }
template <class T>
void place_qkv(const Heads& h, std::size_t token, const float* q, const float* k, const float* v) {
  const std::size_t width = cuda::padded_head(h.head_dim);
  to_operand<T>(1, h.heads * h.head_dim, q, 0, static_cast<std::byte*>(h.q) + token * h.ldq, 0);
  for (std::size_t head = 0; head < h.heads; ++head)
    for (std::size_t c = 0; c < width; ++c) {
      const std::size_t slot = (head * h.slots + h.slot[token]) * width + c, from = head * h.head_dim + c;
      static_cast<T*>(h.keys)[slot] = cuda::as<T>(c < h.head_dim ? k[from] : 0.0f);
      static_cast<T*>(h.values)[slot] = cuda::as<T>(c < h.head_dim ? v[from] : 0.0f);
    }
}
// All of a block of queries is part 0, whatever the parts.
template <class T, unsigned kTerms>
void attention(const Heads& h, const Sequence& s, std::size_t head, std::size_t first, std::size_t part, std::size_t, void*) {
  if (part) return;
  Device<cuda::QueryBlock> block(1);
  block[0] = {static_cast<std::uint32_t>(s.first), static_cast<std::uint32_t>(s.length), static_cast<std::uint32_t>(first)};
  const std::size_t one = h.slots * cuda::padded_head(h.head_dim);
  cuda::attention<T, kTerms>(next_order(), {1, 1, static_cast<unsigned>(h.head_dim), block.data(), s.window,
                                            static_cast<T*>(h.q) + head * h.head_dim, h.ldq / sizeof(T), static_cast<T*>(h.keys) + head * one,
                                            static_cast<T*>(h.values) + head * one, h.slots, h.visible});
}

}  // namespace emulated_kernels

template <class T, unsigned kTerms>
Kernels kernels_here() {
  using namespace emulated_kernels;
  Kernels k{};
  k.lanes = cuda::kLanes, k.row_block = 1, k.slot_block = 1, k.query_block = cuda::kQueries, k.query_parts = cuda::kAttentionWarps, k.row_chunk = 128;
  k.layer_norm = emulated_kernels::layer_norm, k.glu = emulated_kernels::glu, k.rope = emulated_kernels::rope;
  k.operand_bytes = operand_bytes<T>, k.to_operand = to_operand<T>, k.from_operand = from_operand<T>;
  k.packed_bytes = packed_bytes<T>, k.pack = pack<T>, k.norm_operand = norm_operand<T>;
  k.project = project<T, kTerms>, k.project_glu = project_glu<T, kTerms>, k.project_qkv = project_qkv<T, kTerms>;
  k.kv_bytes = kv_bytes<T>, k.scratch_bytes = scratch_bytes, k.place_qkv = place_qkv<T>;
  k.attention = emulated_kernels::attention<T, kTerms>;
  return k;
}

}  // namespace driver
