// The avx2 tier: every kernel, compiled for AVX2 and FMA.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>

#include "base/target.h"
#include "kernels/kernels.h"

REFIMPL_TARGET_BEGIN("avx2,fma")
#include "simd/avx2.h"
namespace refimpl::avx2 {
namespace {
constexpr std::size_t kRows = 6;  // 12 accumulators, 2 of b, 1 of a: 15 of 16 registers
#include "kernels/gemm.inl"
#include "kernels/rowwise.inl"
#include "kernels/attention.inl"
}  // namespace
}  // namespace refimpl::avx2
REFIMPL_TARGET_END

namespace refimpl {
const Kernels kernels_avx2 = {avx2::kPanel, avx2::kQueries, avx2::packed_floats, avx2::pack, avx2::gemm, avx2::layer_norm,
                              avx2::glu, avx2::rope, avx2::scratch_floats, avx2::attention};
}  // namespace refimpl
#endif
