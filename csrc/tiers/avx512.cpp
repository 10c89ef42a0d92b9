// The avx512 tier: every kernel, compiled for AVX-512 F, DQ, BW, VL.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 takes the undefined lanes inside its own AVX-512 headers for a mistake of the includer.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstddef>

#include "base/target.h"
#include "kernels/kernels.h"

REFIMPL_TARGET_BEGIN("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#include "simd/avx512.h"
namespace refimpl::avx512 {
namespace {
constexpr std::size_t kRows = 14;  // 28 accumulators, 2 of b, 1 of a: 31 of 32 registers
#include "kernels/gemm.inl"
#include "kernels/rowwise.inl"
#include "kernels/attention.inl"
}  // namespace
}  // namespace refimpl::avx512
REFIMPL_TARGET_END

namespace refimpl {
const Kernels kernels_avx512 = {avx512::kPanel, avx512::kQueries, avx512::packed_floats, avx512::pack, avx512::gemm, avx512::layer_norm,
                                avx512::glu, avx512::rope, avx512::scratch_floats, avx512::attention};
}  // namespace refimpl
#endif
