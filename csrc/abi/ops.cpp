// Single operations: sizes and pointers checked, then the kernels of one tier.
#include "modernbert_ops.h"

#include <algorithm>
#include <initializer_list>

#include "abi/choice.h"
#include "abi/status.h"
#include "engine/single.h"
#include "kernels/activations.h"

using namespace refimpl;

namespace {

constexpr std::size_t kMaxElements = std::size_t{1} << 44;
constexpr std::int64_t kMaxWindow = std::int64_t{1} << 40;

// What sizes multiply to is a size. `least_one`: none of these is 0.
void check_sizes(std::initializer_list<std::size_t> sizes, std::initializer_list<std::size_t> least_one) {
  std::size_t product = 1;
  for (const std::size_t n : sizes)
    if (__builtin_mul_overflow(product, std::max<std::size_t>(n, 1), &product) || product > kMaxElements)
      refuse("sizes are larger than any memory");
  for (const std::size_t n : least_one)
    if (n == 0) refuse("a size that must be at least 1 is 0");
}

void check_even(std::size_t n, const char* name) {
  if (n % 2) refuse(std::string(name) + " is " + std::to_string(n) + "; it must be even");
}

Activation activation_of(const char* given) {
  const std::string name = &not_null(given, "activation");
  Activation found;
  if (!named_activation(name, found)) refuse("activation '" + name + "' is unknown; supported: " + activation_names());
  return found;
}

Tensor tensor_of(const void* data, modernbert_storage storage) {
  not_null(static_cast<const char*>(data), "weight");
  switch (storage) {
    case MODERNBERT_FLOAT32: return {data, Storage::float32};
    case MODERNBERT_BFLOAT16: return {data, Storage::bfloat16};
    case MODERNBERT_FLOAT16: return {data, Storage::float16};
  }
  refuse("storage " + std::to_string(static_cast<int>(storage)) + " is unknown");
}

template <class... T>
void all_there(const T*... pointers) {
  if (!(pointers && ...)) refuse("an array is NULL");
}

}  // namespace

extern "C" {

int modernbert_op_offered(const char* tier, const char* dtype) {
  return guarded([&] { kernels_named(tier, dtype); });
}

int modernbert_op_linear(const char* tier, const char* dtype, size_t m, size_t n, size_t k, const float* x,
                         const void* weight, modernbert_storage storage, const float* bias, const float* residual,
                         size_t row_split, size_t panel_split, float* y) {
  return guarded([&] {
    const Kernels& kernels = kernels_named(tier, dtype);
    check_sizes({m, n, k}, {k, row_split, panel_split});
    all_there(x, y);
    single_linear(kernels, m, n, k, x, tensor_of(weight, storage), bias, residual, row_split, panel_split, y);
  });
}

int modernbert_op_linear_glu(const char* tier, const char* dtype, const char* activation, size_t m, size_t n, size_t k,
                             const float* x, const void* weight, modernbert_storage storage, const float* bias,
                             size_t row_split, size_t panel_split, float* y) {
  return guarded([&] {
    const Kernels& kernels = kernels_named(tier, dtype);
    const Activation act = activation_of(activation);
    check_sizes({m, n, k}, {k, row_split, panel_split}), check_even(n, "n");
    all_there(x, y);
    single_linear_glu(kernels, act, m, n, k, x, tensor_of(weight, storage), bias, row_split, panel_split, y);
  });
}

int modernbert_op_layer_norm(const char* tier, const char* dtype, size_t rows, size_t n, const float* x,
                             const float* weight, const float* bias, float eps, float* y) {
  return guarded([&] {
    const Kernels& kernels = kernels_named(tier, dtype);
    check_sizes({rows, n}, {n});
    all_there(x, weight, y);
    kernels.layer_norm(rows, n, x, n, weight, bias, eps, y, n);
  });
}

int modernbert_op_glu(const char* tier, const char* dtype, const char* activation, size_t rows, size_t inter,
                      const float* u, float* y) {
  return guarded([&] {
    const Kernels& kernels = kernels_named(tier, dtype);
    const Activation act = activation_of(activation);
    check_sizes({rows, 2, inter}, {inter});
    all_there(u, y);
    kernels.glu(rows, inter, act, u, 2 * inter, y, inter);
  });
}

int modernbert_op_rope(const char* tier, const char* dtype, size_t seq, size_t heads, size_t head_dim, const float* x,
                       const float* cos, const float* sin, float* y) {
  return guarded([&] {
    const Kernels& kernels = kernels_named(tier, dtype);
    check_sizes({seq, heads, head_dim}, {head_dim}), check_even(head_dim, "head_dim");
    all_there(x, cos, sin, y);
    single_rope(kernels, seq, heads, head_dim, x, cos, sin, y);
  });
}

int modernbert_op_attention(const char* tier, const char* dtype, size_t seq, size_t heads, size_t head_dim,
                            int64_t window, const float* q, const float* k, const float* v,
                            const unsigned char* visible, float* y) {
  return guarded([&] {
    const Kernels& kernels = kernels_named(tier, dtype);
    check_sizes({seq, heads, head_dim}, {head_dim}), check_even(head_dim, "head_dim");
    all_there(q, k, v, y);
    window = window < 0 ? -1 : std::min(window, kMaxWindow);
    single_attention(kernels, seq, heads, head_dim, window, q, k, v, visible, y);
  });
}

}  // extern "C"
