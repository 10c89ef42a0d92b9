// What blocks of kernels are started with: "kernel argument.. threads bytes", for benchmarks/gpu_floors.py.
#include <cstdio>

#include "cuda/attention.h"
#include "cuda/gemm.h"
#include "cuda/pooling.h"

using namespace refimpl;

template <class T>
void tell(const char* number) {
  for (unsigned warps : {1u, 2u, 4u})
    std::printf("product_kernel %s %u %u %zu\n", number, warps, 2 * warps * cuda::kWarp, cuda::product_shared<T>(warps));
  const auto attention = [&](unsigned columns, std::size_t bytes) {
    std::printf("attention_kernel %s %u %u %zu\n", number, columns, cuda::kAttentionWarps * cuda::kWarp, bytes);
  };
  attention(32, cuda::attention_shared<T, 32>()), attention(64, cuda::attention_shared<T, 64>());
  attention(128, cuda::attention_shared<T, 128>());
}

int main() {
  tell<float>("float"), tell<bf16>("bf16");
  std::printf("pool_kernel - 0 %u %zu\n", cuda::kPoolWarps * cuda::kWarp, cuda::kPoolShared);
  std::printf("residual_norm_kernel - 0 %u 0\n", cuda::kRowsPerBlock * cuda::kWarp);
  std::printf("glu_kernel - 0 %u 0\n", cuda::kElementsPerBlock);
}
