// Code for wider instructions than the ABI floor, one region per tier file.
//
//   #include everything first (standard headers must not be seen inside the region: a weak std::
//   symbol compiled for AVX2 could be linked into the baseline path)
//   REFIMPL_TARGET_BEGIN("avx2,fma")
//   namespace refimpl::avx2 { ... }
//   REFIMPL_TARGET_END
#pragma once

#define REFIMPL_PRAGMA(x) _Pragma(#x)

#if defined(__clang__)
#define REFIMPL_TARGET_BEGIN(isa) \
  REFIMPL_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define REFIMPL_TARGET_END REFIMPL_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define REFIMPL_TARGET_BEGIN(isa) REFIMPL_PRAGMA(GCC push_options) REFIMPL_PRAGMA(GCC target(isa))
#define REFIMPL_TARGET_END REFIMPL_PRAGMA(GCC pop_options)
#endif

#if defined(__GNUC__) || defined(__clang__)
#define REFIMPL_INLINE inline __attribute__((always_inline))
#define REFIMPL_RESTRICT __restrict__
#else
#define REFIMPL_INLINE inline
#define REFIMPL_RESTRICT
#endif

// Compilers that know AVX-VNNI: gcc 11, clang 12.
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define REFIMPL_AVX_VNNI
#endif
// Compilers that know AMX: gcc 11, clang 12.
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define REFIMPL_AMX
#endif
