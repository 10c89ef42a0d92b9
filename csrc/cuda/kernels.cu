// Every kernel of this folder for a device: tests/cuda/test_cuda_compiles.py asks nvcc to compile it.
#include "cuda/attention.h"
#include "cuda/gemm.h"
#include "cuda/pooling.h"
#include "cuda/rowwise.h"

namespace refimpl::cuda {

#define REFIMPL_FOR_OPERAND(Out)                                                      \
  template auto residual_norm<Out>(Stream, const ResidualNorm<Out>&);                  \
  template auto glu<Out>(Stream, Activation, const Glu<Out>&);                         \
  template auto embedding_norm<float, Out>(Stream, const EmbeddingNorm<float, Out>&);  \
  template auto embedding_norm<bf16, Out>(Stream, const EmbeddingNorm<bf16, Out>&);    \
  template auto embedding_norm<f16, Out>(Stream, const EmbeddingNorm<f16, Out>&);
REFIMPL_FOR_OPERAND(float)
REFIMPL_FOR_OPERAND(bf16)
#undef REFIMPL_FOR_OPERAND

template <class T>
using GeGlu = Gated<Activation::gelu, T>;
#define REFIMPL_FOR_TERMS(T, kTerms)                                            \
  template auto product<kTerms, T, AddTo>(Stream, const Product<T, AddTo>&);     \
  template auto product<kTerms, T, ToHeads<T>>(Stream, const Product<T, ToHeads<T>>&); \
  template auto product<kTerms, T, GeGlu<T>>(Stream, const Product<T, GeGlu<T>>&);
REFIMPL_FOR_TERMS(float, 3)
REFIMPL_FOR_TERMS(float, 2)
REFIMPL_FOR_TERMS(bf16, 1)
#undef REFIMPL_FOR_TERMS

#define REFIMPL_FOR_STORED(Stored)                                   \
  template auto pack<Stored, float>(Stream, const Pack<Stored, float>&); \
  template auto pack<Stored, bf16>(Stream, const Pack<Stored, bf16>&);
REFIMPL_FOR_STORED(float)
REFIMPL_FOR_STORED(bf16)
REFIMPL_FOR_STORED(f16)
#undef REFIMPL_FOR_STORED

template auto attention<float, 3>(Stream, const Attention<float>&);
template auto attention<float, 2>(Stream, const Attention<float>&);
template auto attention<bf16, 1>(Stream, const Attention<bf16>&);
template auto place<float>(Stream, const Place<float>&);
template auto place<bf16>(Stream, const Place<bf16>&);

cudaError_t rope_rows(Stream stream, const Rope& a) { return rope(stream, a); }
cudaError_t pool_rows(Stream stream, Pooling how, const Pool& a) { return pool(stream, how, a); }

}  // namespace refimpl::cuda
