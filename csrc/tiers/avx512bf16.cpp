// The avx512bf16 tier: for bfloat16, the algorithms of the amx tier by VDPBF16PS; float32 and int8 are the avx512
// tier's.
//
// Products multiply bfloat16 by bfloat16, as on amx: activations are rounded as well.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 takes the undefined lanes inside its own AVX-512 headers for a mistake of the includer.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstddef>

#include "base/target.h"
#include "kernels/kernels.h"

#if defined(REFIMPL_AMX)  // the compilers that know AMX know AVX512_BF16
REFIMPL_TARGET_BEGIN("avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#include "simd/avx512.h"
#include "simd/bf16.h"
#include "simd/dot_tiles.h"
namespace refimpl::avx512bf16 {
namespace {
#include "kernels/rowwise.inl"
#include "kernels/amx_weights.inl"
#include "kernels/amx_gemm.inl"
#include "kernels/amx_operand.inl"
#include "kernels/amx_heads.inl"
#include "kernels/project.inl"
#include "kernels/amx_softmax.inl"
#include "kernels/amx_attention.inl"

// Rows of operands that stay in an L2 cache of 1 MiB beside two groups of panels.
constexpr std::size_t kRowChunk = 192;

constexpr Kernels table = {
    kLanes, kRows, kRowChunk, kSlotBlock, kQueries, kQueryParts, operand_bytes, packed_bytes<Terms<1>>, kv_bytes,
    scratch_bytes, pack<Terms<1>>, pack_turned<Terms<1>>, project<Terms<1>>, project_glu<Terms<1>>, project_qkv<Terms<1>>, layer_norm,
    norm_operand, to_operand, from_operand, attention, glu, rope, place_qkv};

}  // namespace
}  // namespace refimpl::avx512bf16
REFIMPL_TARGET_END

namespace refimpl {
const Kernels* kernels_avx512bf16(Dtype dtype, std::size_t alternative) {
  if (dtype != Dtype::bfloat16) return kernels_avx512(dtype, alternative);
  return alternative ? nullptr : &avx512bf16::table;
}
}  // namespace refimpl

#else

namespace refimpl {
const Kernels* kernels_avx512bf16(Dtype, std::size_t) { return nullptr; }
}  // namespace refimpl

#endif
#endif
