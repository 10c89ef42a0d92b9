// The adjoints of the avx512 tier, in AVX-512 F, DQ, BW, VL.
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
#include "training/adjoints.h"

REFIMPL_TARGET_BEGIN("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#include "simd/avx512.h"
namespace refimpl::avx512 {
namespace {
constexpr std::size_t kRows = 14;  // as tiers/avx512.cpp
#include "kernels/rowwise.inl"
#include "kernels/operand.inl"
#include "kernels/heads.inl"
#include "kernels/gemm.inl"
#include "kernels/attention.inl"
#include "training/elementwise.inl"
#include "training/outer.inl"
#include "training/attention_adjoint.inl"
#include "training/loss.inl"
#include "training/update.inl"
#include "training/table.inl"
}  // namespace
}  // namespace refimpl::avx512
REFIMPL_TARGET_END

namespace refimpl {
const Adjoints& adjoints_avx512(Dtype) { return avx512::adjoints; }
}  // namespace refimpl
#endif
