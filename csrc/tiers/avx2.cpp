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
#include "kernels/rowwise.inl"
#include "kernels/operand.inl"
#include "kernels/heads.inl"
#include "kernels/gemm.inl"
#include "kernels/project.inl"
#include "kernels/attention.inl"
#include "kernels/table.inl"
}  // namespace
}  // namespace refimpl::avx2
REFIMPL_TARGET_END

namespace refimpl {
const Kernels* kernels_avx2(Dtype dtype) { return avx2::table_of(dtype); }
}  // namespace refimpl
#endif
