// The scalar tier: every kernel in plain C++, for any machine.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/target.h"
#include "kernels/kernels.h"

#include "simd/scalar.h"
namespace refimpl::scalar {
namespace {
constexpr std::size_t kRows = 4;
#include "kernels/rowwise.inl"
#include "kernels/operand.inl"
#include "kernels/heads.inl"
#include "kernels/gemm.inl"
#include "kernels/project.inl"
#include "kernels/attention.inl"
#include "kernels/table.inl"
}  // namespace
}  // namespace refimpl::scalar

namespace refimpl {
const Kernels* kernels_scalar(Dtype dtype) { return scalar::table_of(dtype); }
}  // namespace refimpl
