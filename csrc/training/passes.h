// A training step of the encoder: the forward pass, which keeps what the way back needs, and the way back,
// which adds to the gradients of the tensors that are wanted. MODEL.md section 14; the truth is
// refimpl/train/encoder.py.
//
// Weights are the caller's float32 tensors, read anew in each pass. Of each layer its input, q k v, the joined
// heads, the residual between its halves and what comes out of Wi are kept; of the first `recomputed` layers the
// input alone, and the rest is computed again, of the same bits. A layer takes its rows slice by slice, each through
// several steps. Rows of the embedding are summed in `finish`, once for all micro-batches of a step. A gradient's bits
// do not depend on threads, nor on how the sequences of a step are cut into micro-batches. No dropout.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/forward.h"
#include "training/products.h"

namespace refimpl {

// Null: a tensor that is not there; a gradient that nobody wants.
struct Parameter {
  const float* weight = nullptr;
  float* gradient = nullptr;
};

struct NormParameters {
  Parameter weight, bias;
};

struct LinearParameters {
  Parameter weight, bias;
};

struct LayerParameters {
  NormParameters attn_norm, mlp_norm;
  LinearParameters wqkv, wo, wi, mlp_wo;
};

struct Parameters {
  Parameter embedding, types;
  NormParameters embedding_norm, final_norm;
  std::vector<LayerParameters> layers;
};

class Passes {
 public:
  Passes(const Kernels& kernels, const Adjoints& adjoints, Plan plan, Parameters parameters)
      : plan(std::move(plan)), p_(std::move(parameters)), products_(kernels, adjoints), k_(kernels), a_(adjoints) {}

  // out [total, hidden]: the last hidden state. The batch has ids. False when it was stopped. Throws
  // std::bad_alloc. After either there is no way back.
  bool forward(const Batch& batch, std::size_t recomputed, int threads, const std::function<bool()>& stop, float* out);
  // The way back in its parts, each once and in this order after `forward`: part `layers` from d [total, hidden] of
  // the last hidden state through the final norm, then each layer from the last on, and part -1, the embedding's norm.
  // The gradients of a part's parameters are complete then, but for the embeddings' (finish). False when it was
  // stopped. Throws std::bad_alloc. After either gradients are unfinished, and there is no way on.
  bool backward(std::ptrdiff_t part, const float* d, int threads, const std::function<bool()>& stop);
  // Adds the rows of the embedding of all passes since the last time.
  void finish(int threads);
  // The part that `backward` is to take next, kNone for none, of so many tokens.
  static constexpr std::ptrdiff_t kNone = -2;
  std::ptrdiff_t next() const { return next_; }
  std::size_t total() const { return total_; }

  const Plan plan;

 private:
  // What is kept of a layer; the first room is that of all layers that are computed again.
  struct Kept {
    Room qkv, joined, middle, wi;
  };
  // Rows that go through several steps while the caches hold them. What it lists is counted from its first row on.
  struct Slice {
    explicit Slice(std::size_t row) : first(row) {}
    void add(std::size_t rows);  // that are a sequence, or a block of one

    std::size_t first, count = 0, slots = 0;
    std::vector<Sequence> sequences;  // where they are whole
    Blocks blocks, norm_blocks;
  };

  void take(const Batch& batch, int threads, Stop* stop);
  void cut(const std::vector<std::size_t>& cu_seqlens);
  void embed(float* out);
  void layer(std::size_t i, Kept& kept, float* out);  // from its input, kept, to out
  void layer_back(std::size_t i, Kept& kept, float* d);
  void embed_back(float* d);
  // Of a slice's rows, which all pointers begin with.
  void rotate(const Slice& slice, float* qkv, const float* cos, const float* sin);
  void attend(std::size_t layer, const Slice& slice, const float* qkv, float* joined);
  void attend_back(std::size_t layer, const Slice& slice, const float* d, float* qkv);

  template <class F>
  void rowwise(std::size_t rows, F f);  // f(first, count) on the threads
  void norm(std::size_t rows, const NormParameters& n, const float* x, float* y);
  const std::byte* norm_operands(std::size_t rows, const NormParameters* n, const float* x);
  void norm_back(const Blocks& blocks, const NormParameters& n, const float* dy, const float* x, const float* residual,
                 float* dx);
  void norm_back(const NormParameters& n, const float* dy, const float* x, float* dx);  // of all rows
  void linear(const Packed& w, std::size_t rows, const std::byte* x, const Parameter& bias, const float* residual, float* y);
  // dw += dy^T x, db += dy, where wanted
  void linear_back(const Blocks& blocks, const LinearParameters& l, std::size_t n, std::size_t depth, const float* dy,
                   const float* x);
  Kept& kept_of(std::size_t i) { return kept_[i < recomputed_ ? 0 : i - recomputed_ + (recomputed_ ? 1 : 0)]; }
  const Rotary& table_of(std::size_t layer) const;
  std::size_t head_dim() const { return plan.hidden / plan.heads; }

  Parameters p_;
  Products products_;
  const Kernels& k_;
  const Adjoints& a_;

  // -- of the pass that is under way --
  int threads_ = 1;
  Stop* stop_ = nullptr;
  std::size_t recomputed_ = 0;
  std::ptrdiff_t next_ = kNone;
  std::size_t total_ = 0, longest_ = 0;
  std::vector<std::int64_t> ids_, types_, positions_;
  std::vector<unsigned char> visible_;
  std::vector<std::size_t> slot_, row_;
  std::vector<Rotary> tables_;
  std::vector<Slice> by_sequence_, by_block_;  // all rows twice: attention takes whole sequences
  std::vector<Kept> kept_;
  std::vector<Room> inputs_;  // of each layer, and of the final norm
  Room first_, second_;       // matrices
  Room q_, keys_, values_, scratch_, d_, wide_, gated_, normed_, negative_, partial_;

  // -- of the step --
  struct Row {
    std::int64_t id, type;
  };
  std::vector<Row> rows_;
  std::vector<float> d_rows_;  // of E[ids] + T[types], [rows, hidden]
};

}  // namespace refimpl
