// The neon tier: every kernel in Advanced SIMD, which belongs to the ABI of AArch64: no wider region but for
// the dot products of Armv8.2.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

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
#include "kernels/int8_rows.inl"
namespace in_steps {
using Dots = InSteps;
#include "kernels/int8_gemm.inl"
#include "kernels/project.inl"
#include "kernels/int8_table.inl"
}  // namespace in_steps
}  // namespace
}  // namespace refimpl::neon

REFIMPL_TARGET_BEGIN("arch=armv8.2-a+dotprod")
#include "simd/neon_dot.h"
namespace refimpl::neon {
namespace {
namespace at_once {
using Dots = AtOnce;
#include "kernels/int8_gemm.inl"
#include "kernels/project.inl"
#include "kernels/int8_table.inl"
}  // namespace at_once
}  // namespace
}  // namespace refimpl::neon
REFIMPL_TARGET_END

namespace refimpl {
const Kernels* kernels_neon(Dtype dtype, std::size_t alternative) {
  if (dtype != Dtype::int8) return alternative ? nullptr : neon::table_of(dtype);
  if (has_neon_dot() && alternative-- == 0) return &neon::at_once::int8_table;
  return alternative ? nullptr : &neon::in_steps::int8_table;
}
}  // namespace refimpl
#endif
