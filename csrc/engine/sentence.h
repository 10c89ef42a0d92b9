// What stands behind an encoder: the hidden states of a sequence to one vector, as the modules of
// sentence-transformers and classifiers of transformers make it.
//
//   hidden -> Pooling -> (Dense | LayerNorm | Normalize)* -> [sequences, width]
//
// As refimpl/reference/sentence.py and heads.py have it, in float32 whatever the encoder's products are in: Dense and
// LayerNorm by the float32 kernels of a tier, sums over tokens and lengths of vectors in double, rounded
// once. A sequence's vector has the same bits whatever stands beside it, and at any thread count.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/engine.h"
#include "kernels/pooling.h"

namespace refimpl {

struct ModulePlan {
  enum class Kind { pooling, dense, layer_norm, normalize };
  Kind kind;
  std::vector<Pooling> modes{};  // of a pooling: their vectors are joined
  bool include_prompt = true;    // of a pooling
  std::size_t width = 0;         // of what a dense gives
  Activation activation = Activation::linear;  // of a dense
  Tensor weight{}, bias{};  // of a dense [width, width before] and [width], which may be missing; of a norm, whose
                            // bias may be missing. Read during construction only.
  float eps = 1e-5f;  // of a norm: torch.nn.LayerNorm's default, as sentence-transformers' files do not say
};

// Which tokens of a sequence are pooled: visible ones, in order.
struct Pooled {
  std::size_t token;     // in the batch
  std::size_t position;  // from 1 at the sequence's first visible token
};

class SentenceHead {
 public:
  // Packs the weights, on `threads` threads. The first module is the only pooling. Throws
  // std::bad_alloc.
  SentenceHead(const Kernels& kernels, std::size_t hidden, const std::vector<ModulePlan>& plan, int threads);

  std::size_t width() const { return width_; }

  // hidden [total, hidden] -> [sequences, width]. prompt_tokens: so many tokens, from the first visible
  // one on, belong to a prompt. A sequence without a token that is pooled is pooled to zeros. Throws
  // std::bad_alloc.
  Floats run(const Batch& batch, const float* hidden, std::size_t prompt_tokens, int threads) const;

  // x / max(|x|, 1e-12) of each row.
  static void normalize(std::size_t rows, std::size_t width, float* x);

 private:
  struct Module {
    ModulePlan plan;
    Memory packed;
    Linear dense;  // in `packed`
    Norm norm;
  };
  Floats pool(const ModulePlan& plan, const Batch& batch, const float* hidden, std::size_t prompt_tokens) const;
  Floats dense(const Module& module, std::size_t rows, const Floats& x, int threads) const;

  const Kernels& k_;
  std::size_t hidden_, width_;
  std::vector<Module> modules_;
};

}  // namespace refimpl
