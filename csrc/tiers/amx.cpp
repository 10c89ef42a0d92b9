// The amx tier: products in tiles of bfloat16, and for bfloat16 attention too; the rest in AVX-512.
//
// bfloat16: operands, q, keys and values are bfloat16. float32 and bf16x3: the avx512 tier's operands
// and attention around products of split numbers.
#if defined(__x86_64__)
#include "base/target.h"
#include "kernels/kernels.h"

#if defined(REFIMPL_AMX)
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 takes the undefined lanes inside its own AVX-512 headers for a mistake of the includer.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

REFIMPL_TARGET_BEGIN("amx-tile,amx-bf16,amx-int8,avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#include "simd/avx512.h"
#include "simd/bf16.h"
#include "simd/amx.h"
namespace refimpl::amx {
namespace {
#include "kernels/rowwise.inl"
#include "kernels/amx_weights.inl"
#include "kernels/amx_gemm.inl"
namespace half {  // operands, keys and values in bfloat16
#include "kernels/amx_operand.inl"
#include "kernels/amx_heads.inl"
#include "kernels/project.inl"
#include "kernels/amx_softmax.inl"
#include "kernels/amx_attention.inl"
}  // namespace half
namespace whole {  // in float32, as the avx512 tier has them
#include "kernels/operand.inl"
#include "kernels/heads.inl"
#include "kernels/project.inl"
}  // namespace whole
namespace integers {  // the avx512 tier's rows and panels of them
#include "kernels/operand.inl"
#include "kernels/heads.inl"
#include "kernels/int8_rows.inl"
#include "kernels/amx_int8_gemm.inl"
#include "kernels/project.inl"
}  // namespace integers

// Rows of bfloat16 operands that stay in L2 beside two groups of panels: 0.9 MB at k = 1152.
constexpr std::size_t kRowChunk = 384;

constexpr Kernels half_table = {
    kLanes, kRows, kRowChunk, half::kSlotBlock, half::kQueries, half::kQueryParts, half::operand_bytes, packed_bytes<Terms<1>>,
    half::kv_bytes, half::scratch_bytes, pack<Terms<1>>, pack_turned<Terms<1>>, half::project<Terms<1>>, half::project_glu<Terms<1>>,
    half::project_qkv<Terms<1>>, layer_norm, half::norm_operand, half::to_operand, half::from_operand,
    half::attention, glu, rope, half::place_qkv};

}  // namespace
}  // namespace refimpl::amx
REFIMPL_TARGET_END

// Tables are made out here: they may be asked for where none of this runs.
namespace refimpl {
namespace amx {
namespace {

// The avx512 tier with products of T terms.
template <int T>
inline Kernels split_table() {
  Kernels k = *kernels_avx512(Dtype::float32, 0);
  k.row_block = kRows;
  k.row_chunk = kSplitRows;
  k.packed_bytes = packed_bytes<Terms<T>>;
  k.scratch_bytes = [](std::size_t depth, std::size_t head_dim) {
    const std::size_t others = kernels_avx512(Dtype::float32, 0)->scratch_bytes(depth, head_dim);
    return product_bytes<Terms<T>>(depth) > others ? product_bytes<Terms<T>>(depth) : others;
  };
  k.pack = pack<Terms<T>>;
  k.pack_turned = pack_turned<Terms<T>>;
  k.project = whole::project<Terms<T>>;
  k.project_glu = whole::project_glu<Terms<T>>;
  k.project_qkv = whole::project_qkv<Terms<T>>;
  return k;
}

// The avx512 tier with products of integers in tiles.
inline Kernels int8_table() {
  Kernels k = *kernels_avx512(Dtype::int8, 0);
  k.row_block = integers::kRows;
  k.project = integers::project<integers::Bytes>;
  k.project_glu = integers::project_glu<integers::Bytes>;
  k.project_qkv = integers::project_qkv<integers::Bytes>;
  return k;
}

}  // namespace
}  // namespace amx

const Kernels* kernels_amx(Dtype dtype, std::size_t alternative) {
  if (dtype == Dtype::int8) {
    static const Kernels table = amx::int8_table();
    if (has_amx_int8() && alternative-- == 0) return &table;
    return kernels_avx512(dtype, alternative);
  }
  if (alternative) return nullptr;
  switch (dtype) {
    case Dtype::bfloat16: return &amx::half_table;
    case Dtype::bf16x3: {
      static const Kernels table = amx::split_table<2>();
      return &table;
    }
    case Dtype::float32: {
      static const Kernels table = amx::split_table<3>();
      return &table;
    }
    case Dtype::int8: break;
  }
  return nullptr;
}
}  // namespace refimpl

#else

namespace refimpl {
const Kernels* kernels_amx(Dtype, std::size_t) { return nullptr; }
}  // namespace refimpl

#endif
#endif
