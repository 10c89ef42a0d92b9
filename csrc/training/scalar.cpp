// The adjoints of the scalar tier, in plain C++.
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/target.h"
#include "training/adjoints.h"

#include "simd/scalar.h"
namespace refimpl::scalar {
namespace {
constexpr std::size_t kRows = 4;  // as tiers/scalar.cpp
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
}  // namespace refimpl::scalar

namespace refimpl {
const Adjoints& adjoints_scalar(Dtype) { return scalar::adjoints; }
}  // namespace refimpl
