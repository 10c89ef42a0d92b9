// The adjoints of the avx2 tier, in AVX2 and FMA.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/target.h"
#include "training/adjoints.h"

REFIMPL_TARGET_BEGIN("avx2,fma")
#include "simd/avx2.h"
namespace refimpl::avx2 {
namespace {
constexpr std::size_t kRows = 6;  // as tiers/avx2.cpp
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
}  // namespace refimpl::avx2
REFIMPL_TARGET_END

namespace refimpl {
const Adjoints& adjoints_avx2(Dtype) { return avx2::adjoints; }
}  // namespace refimpl
#endif
