// The avx512 tier: every kernel, compiled for AVX-512 F, DQ, BW, VL.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 takes the undefined lanes inside its own AVX-512 headers for a mistake of the includer.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

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
#include "kernels/int8_rows.inl"
namespace in_steps {
using Dots = InSteps;
#include "kernels/int8_gemm.inl"
#include "kernels/project.inl"
#include "kernels/int8_table.inl"
}  // namespace in_steps
}  // namespace
}  // namespace refimpl::avx512
REFIMPL_TARGET_END

REFIMPL_TARGET_BEGIN("avx512vnni,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#include "simd/avx512_vnni.h"
namespace refimpl::avx512 {
namespace {
namespace at_once {
using Dots = AtOnce;
#include "kernels/int8_gemm.inl"
#include "kernels/project.inl"
#include "kernels/int8_table.inl"
}  // namespace at_once
}  // namespace
}  // namespace refimpl::avx512
REFIMPL_TARGET_END

namespace refimpl {
const Kernels* kernels_avx512(Dtype dtype, std::size_t alternative) {
  if (dtype != Dtype::int8) return alternative ? nullptr : avx512::table_of(dtype);
  if (has_avx512_vnni() && alternative-- == 0) return &avx512::at_once::int8_table;
  return alternative ? nullptr : &avx512::in_steps::int8_table;
}
}  // namespace refimpl
#endif
