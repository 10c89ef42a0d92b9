// One forward pass: its buffers, where each sequence stands, and the steps in MODEL.md's order.
//
// The residual stream stands in `out` from the embedding to the final norm. Tokens pass through the
// matrices kTokenChunk at a time, so that what lies between two of them stays small.
#pragma once

#include <cstddef>
#include <vector>

#include "base/pool.h"
#include "engine/engine.h"
#include "engine/workspace.h"

namespace refimpl {

// Tokens whose normed and gated rows exist at a time.
constexpr std::size_t kTokenChunk = 768;
constexpr std::size_t kNoLayer = static_cast<std::size_t>(-1);

class Forward {
 public:
  // tap null: the fused steps alone. Throws std::bad_alloc.
  Forward(const Engine& engine, const Batch& batch, float* out, int threads, const std::function<bool()>& stop,
          const Tap* tap = nullptr, bool fused = true);

  // False when it was stopped.
  bool run();

 private:
  struct Rows {  // tokens [first, first + count)
    std::size_t first, count;
  };
  // A block of queries that `attention` takes at a time.
  struct QueryBlock {
    std::size_t sequence, first;
  };

  void place_sequences();

  // -- forward.cpp: the steps --
  void embedding();
  void qkv(std::size_t layer);
  void attention(std::size_t layer);
  void attn_out(std::size_t layer, Rows rows);
  void mlp(std::size_t layer, Rows rows);
  void final_norm();

  // -- trace.cpp: the same, every step by itself, and what is told of them --
  void qkv_unfused(std::size_t layer, Rows rows, const Gemm& g, const Rotation& rotation);
  void glu_unfused(std::size_t layer, Rows rows, const Gemm& g);
  void tap_tables();
  void tap_rows(const char* step, std::size_t layer, Rows rows, std::size_t columns, const float* x);
  void tap_operands(const char* step, std::size_t layer, Rows rows, std::size_t columns, const void* x,
                    std::size_t ldx);

  // -- what the steps are made of --
  template <class F>
  void each_chunk(F f);  // f(Rows) for all tokens
  template <class F>
  void rowwise(Rows rows, F f);  // f(Rows) on the threads
  template <class F>
  void tiles(const Linear& l, std::size_t rows, F f);  // f(Range, scratch) on the threads
  // Rows of the residual stream, normed, for the product that reads them.
  Gemm normed(const Norm& norm, const Linear& l, Rows rows);
  // The product of operands of `rows`.
  Gemm gemm_of(const Linear& l, Rows rows, const std::byte* in, std::size_t ldin);
  // x W^T + bias, [rows, n], by itself
  Floats product(const Linear& l, Rows rows, const Gemm& g);
  // x += in W^T + bias; in: operands of `rows`
  void add_projection(const Linear& l, Rows rows, const std::byte* in, std::size_t ldin, const char* step,
                      std::size_t layer);
  Heads heads(std::size_t first);  // whose token 0 is `first`
  const Rotary& table_of(std::size_t layer) const;
  std::byte* q_of(std::size_t token) { return w_->q.data() + token * ldq_; }
  std::byte* scratch_of(int thread) { return w_->scratch.data() + static_cast<std::size_t>(thread) * scratch_bytes_; }

  const Engine& e;
  const Kernels& k;
  const Batch& b;
  float* const x;  // [total, hidden]
  const int threads;
  const std::size_t total, hidden, inter, head_dim;
  Stop stop_;
  const Tap* const tap_;
  const bool fused_;

  std::vector<Sequence> sequences_;   // window is the layer's
  std::vector<std::size_t> slot_;     // [total]
  std::vector<std::size_t> row_;      // [total]: of the rotary tables
  std::vector<QueryBlock> blocks_;
  std::size_t slots_ = 0, longest_ = 0;
  const std::size_t ldq_, ldgated_, ldintegers_, scratch_bytes_;
  const KeptWorkspace::Use w_;
  std::vector<Rotary> turned_;         // of the positions, where there are any
  std::vector<std::size_t> last_row_;  // [threads]: where the rows began of a thread's last task of this product
};

}  // namespace refimpl
