// The adjoints of the neon tier, in Advanced SIMD.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/target.h"
#include "training/adjoints.h"

#include "simd/neon.h"
namespace refimpl::neon {
namespace {
constexpr std::size_t kRows = 12;  // as tiers/neon.cpp
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
}  // namespace refimpl::neon

namespace refimpl {
const Adjoints& adjoints_neon(Dtype) { return neon::adjoints; }
}  // namespace refimpl
#endif
