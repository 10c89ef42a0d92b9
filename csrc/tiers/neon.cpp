// The neon tier: every kernel in Advanced SIMD, which belongs to the ABI of AArch64: no wider region.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstddef>

#include "base/target.h"
#include "kernels/kernels.h"

#include "simd/neon.h"
namespace refimpl::neon {
namespace {
constexpr std::size_t kRows = 12;  // 24 accumulators, 2 of b, 6 left of 32 registers for rows of a
#include "kernels/rowwise.inl"
#include "kernels/operand.inl"
#include "kernels/heads.inl"
#include "kernels/gemm.inl"
#include "kernels/project.inl"
#include "kernels/attention.inl"
#include "kernels/table.inl"
}  // namespace
}  // namespace refimpl::neon

namespace refimpl {
const Kernels* kernels_neon(Dtype dtype) { return neon::table_of(dtype); }
}  // namespace refimpl
#endif
