// The adjoints of the amx tier: in bfloat16, sums over rows and attention in tiles; the rest is the avx512 tier's.
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

#if defined(REFIMPL_AMX)
REFIMPL_TARGET_BEGIN("amx-tile,amx-bf16,amx-int8,avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#include "simd/avx512.h"
#include "simd/bf16.h"
#include "simd/amx.h"
namespace refimpl::amx {
namespace {
#include "training/tiles_outer.inl"
#include "training/tiles_attention_adjoint.inl"
}  // namespace
}  // namespace refimpl::amx
REFIMPL_TARGET_END

namespace refimpl {
namespace amx {
namespace {
#include "training/tiles_table.inl"
}  // namespace
}  // namespace amx

const Adjoints& adjoints_amx(Dtype dtype) {
  static const Adjoints half = amx::half_table();
  return dtype == Dtype::bfloat16 ? half : adjoints_avx512(dtype);
}
}  // namespace refimpl

#else

namespace refimpl {
const Adjoints& adjoints_amx(Dtype dtype) { return adjoints_avx512(dtype); }
}  // namespace refimpl

#endif
#endif
