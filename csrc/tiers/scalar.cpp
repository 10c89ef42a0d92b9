// The scalar tier: every kernel in plain C++, for any machine.
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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
#include "kernels/int8_rows.inl"
namespace plain {
using Dots = Plain;
#include "kernels/int8_gemm.inl"
#include "kernels/project.inl"
#include "kernels/int8_table.inl"
}  // namespace plain
}  // namespace
}  // namespace refimpl::scalar

namespace refimpl {
const Kernels* kernels_scalar(Dtype dtype, std::size_t alternative) {
  if (alternative) return nullptr;
  return dtype == Dtype::int8 ? &scalar::plain::int8_table : scalar::table_of(dtype);
}
}  // namespace refimpl
