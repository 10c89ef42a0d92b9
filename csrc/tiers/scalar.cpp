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
#include "kernels/gemm.inl"
#include "kernels/rowwise.inl"
#include "kernels/attention.inl"
}  // namespace
}  // namespace refimpl::scalar

namespace refimpl {
const Kernels kernels_scalar = {scalar::kPanel, scalar::kQueries, scalar::packed_floats, scalar::pack, scalar::gemm, scalar::layer_norm,
                                scalar::glu, scalar::rope, scalar::scratch_floats, scalar::attention};
}  // namespace refimpl
