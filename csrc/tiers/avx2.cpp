// The avx2 tier: every kernel, compiled for AVX2 and FMA.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

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
#include "kernels/int8_rows.inl"
namespace in_steps {
using Dots = InSteps;
#include "kernels/int8_gemm.inl"
#include "kernels/project.inl"
#include "kernels/int8_table.inl"
}  // namespace in_steps
}  // namespace
}  // namespace refimpl::avx2
REFIMPL_TARGET_END

#if defined(REFIMPL_AVX_VNNI)
REFIMPL_TARGET_BEGIN("avxvnni,avx2,fma")
#include "simd/avx2_vnni.h"
namespace refimpl::avx2 {
namespace {
namespace at_once {
using Dots = AtOnce;
#include "kernels/int8_gemm.inl"
#include "kernels/project.inl"
#include "kernels/int8_table.inl"
}  // namespace at_once
}  // namespace
}  // namespace refimpl::avx2
REFIMPL_TARGET_END
#endif

namespace refimpl {
const Kernels* kernels_avx2(Dtype dtype, std::size_t alternative) {
  if (dtype != Dtype::int8) return alternative ? nullptr : avx2::table_of(dtype);
#if defined(REFIMPL_AVX_VNNI)
  if (has_avx_vnni() && alternative-- == 0) return &avx2::at_once::int8_table;
#endif
  return alternative ? nullptr : &avx2::in_steps::int8_table;
}
}  // namespace refimpl
#endif
