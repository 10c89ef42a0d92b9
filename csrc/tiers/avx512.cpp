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
#include "kernels/rowwise.inl"
#include "kernels/operand.inl"
#include "kernels/heads.inl"
#include "kernels/gemm.inl"
#include "kernels/project.inl"
#include "kernels/attention.inl"
#include "kernels/table.inl"
}  // namespace
}  // namespace refimpl::avx512
REFIMPL_TARGET_END

namespace refimpl {
const Kernels* kernels_avx512(Dtype dtype) { return avx512::table_of(dtype); }
}  // namespace refimpl
#endif
