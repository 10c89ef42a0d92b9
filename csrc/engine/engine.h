// The whole encoder on packed tokens: weights packed once, one workspace, the steps of MODEL.md.
//
// Sequences of any lengths stand one after the other, [total, hidden]; none sees another. Input and
// output are float32, as are the residual stream and all statistics; the products are the dtype's.
// A sequence's result has the same bits whatever stands beside it and however many threads work:
// work is split over rows, columns, heads and blocks of queries, never over a sum.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/row_source.h"
#include "engine/workspace.h"
#include "files/pack_file.h"
#include "kernels/kernels.h"

namespace refimpl {

using Floats = std::vector<float>;

// The matrices of a layer, in the order in which a pass reads them.
enum class Matrix { wqkv, wo, wi, mlp_wo };

struct LayerPlan {
  std::ptrdiff_t window;  // visible iff |i - j| <= window; negative: all
  double theta;
  unsigned kept = 0;  // int8: what does not become integers, bit 1 << Matrix in bfloat16, 16 << Matrix in float32
};

struct Plan {
  std::size_t vocab, hidden, inter, heads;
  float norm_eps;
  Activation activation;
  std::vector<LayerPlan> layers;
  std::size_t types = 0;  // rows of the token type table; 0: there is none
};

// Tensors of a checkpoint, [out, in]; biases may be missing. Read during construction only, but for
// the embedding, whose memory must outlive the engine.
struct LayerWeights {
  Tensor attn_norm, attn_norm_bias;  // missing in layer 0
  Tensor wqkv, wqkv_bias, wo, wo_bias;
  Tensor mlp_norm, mlp_norm_bias;
  Tensor wi, wi_bias, mlp_wo, mlp_wo_bias;
};

struct Weights {
  RowSource embedding;  // [vocab, hidden]
  Tensor embedding_norm, embedding_norm_bias;
  Tensor types;  // [types, hidden]
  Tensor final_norm, final_norm_bias;
  std::vector<LayerWeights> layers;
};

// Rows [first_row, first_row + rows) of a step of MODEL.md, [rows, columns] float32. `layer` is -1
// outside the layers. A step may come in several pieces.
struct Tapped {
  const char* step;
  std::ptrdiff_t layer;
  std::size_t first_row, rows, columns;
  const float* data;
};
using Tap = std::function<void(const Tapped&)>;

// What to run on; total = cu_seqlens.back(). Exactly one of ids and embeddings.
struct Batch {
  const std::int64_t* ids;              // [total], each below vocab, or null
  const float* embeddings;              // [total, hidden], before their norm, or null
  const std::int64_t* types;            // [total], each below types, or null: type 0
  const std::int64_t* positions;        // [total] or null: 0, 1, .. in each sequence
  const unsigned char* visible;         // [total], 0 = masked as a key, or null: all visible
  std::vector<std::size_t> cu_seqlens;  // [batch + 1], from 0, never falling
};

// Weights as the kernels take them; empty floats stand for a bias or norm that is not there.
struct Linear {
  const Kernels* kernels = nullptr;  // that packed it and multiply with it: the engine's, or theirs for what is kept
  Packing packing{};
  const std::byte* packed = nullptr;  // in its owner's memory
  Floats bias;
};

struct Norm {
  Floats weight, bias;
};

// Packed for the tier of `kernels`, on `threads` threads, into packed_bytes() at `to`. Throw std::bad_alloc.
Linear make_linear(const Kernels& kernels, int threads, const Packing& packing, const Tensor& w, const Tensor& bias,
                   std::byte* to);
Norm make_norm(std::size_t n, const Tensor& weight, const Tensor& bias);

struct Layer {
  Norm attn_norm, mlp_norm;
  Linear wqkv, wo, wi, mlp_wo;
};

class Engine {
 public:
  // Packs the weights, on `threads` threads; calls reading(i) before those of layer i, whose tensors
  // were not read yet, and packed(i) after them: they are not read again. Where a pack holds the
  // matrices, in the order of `matrices`, these are not read, and need not be there. Throws what these throw,
  // std::invalid_argument for sizes that do not fit, std::bad_alloc.
  Engine(const Kernels& kernels, Plan plan, const Weights& weights, int threads,
         const std::function<void(std::size_t layer)>& reading, const std::function<void(std::size_t layer)>& packed,
         std::shared_ptr<const PackFile> pack = nullptr);

  // The packed matrices of a plan, by the names of their tensors and without data.
  static std::vector<PackedTensor> matrices(const Kernels& kernels, const Plan& plan);
  // Those of this engine, to be written.
  std::vector<PackedTensor> matrices() const;
  // null where they are in memory of this process alone
  const PackFile* pack() const { return pack_.get(); }

  // out [total, hidden]: the last hidden state. `stop` is asked now and then; when it says yes, out
  // is left unfinished and the result is false. Throws std::bad_alloc, and Unreadable for rows of the
  // embedding, or a pack that was changed. May be called from several threads at once.
  bool forward(const Batch& batch, float* out, int threads, const std::function<bool()>& stop) const;

  // The same with every step given to `tap`: unfused, all of MODEL.md; fused, those that forward
  // brings into being, of the same bits. Throws what tap throws.
  void trace(const Batch& batch, float* out, int threads, bool fused, const Tap& tap) const;

  // Bytes of the packed matrices, which the engine holds beside the embedding.
  std::size_t packed_bytes() const;
  // Bytes that forward needs for so many tokens in so many sequences, and keeps for the next pass
  // (workspace.h) or frees; the index arrays and rotary tables come on top.
  std::size_t workspace_bytes(std::size_t total, std::size_t batch, int threads) const;

  std::size_t head_dim() const { return plan.hidden / plan.heads; }
  // Of rows of integers, for the longest rows; 0 where there are none.
  std::size_t integer_bytes() const { return kernels.integer_bytes ? kernels.integer_bytes(std::max(plan.hidden, plan.inter)) : 0; }

  const Kernels& kernels;
  const Plan plan;

 private:
  friend class Forward;
  RowSource embedding_;
  Floats types_;
  Norm embedding_norm_, final_norm_;
  Memory packed_;  // the matrices of all layers, in the order in which a pass reads them
  std::shared_ptr<const PackFile> pack_;  // which they stand in instead
  std::vector<Layer> layers_;
  mutable KeptWorkspace workspace_;
};

}  // namespace refimpl
