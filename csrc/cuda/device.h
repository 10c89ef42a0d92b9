// What the kernels of this folder are written in: the little of CUDA that they use, in one vocabulary.
//
// Under nvcc each name is CUDA's own intrinsic (on_gpu.h). Elsewhere it is plain C++ that does what the
// documents say the device does, and refuses what they forbid (on_cpu.h). A kernel is a function
// template REFIMPL_KERNEL of one argument, a struct of sizes and pointers, and is started by `launch`.
// Products and sums stay two roundings unless a kernel says fma, in both.
//
//   thread() warp() lane()       of this block; block_x() block_y(): which block
//   barrier()                    of the block's threads: all of them or none
//   warp_barrier()               of the 32 threads of a warp
//   shuffle_xor(x, bit)          x of the lane whose number differs in these bits; all 32 lanes
//   any_lane(b)                  whether it is so on some lane; all 32 lanes
//   shared<T>(offset, count)     Shared<T>: load(i), store(i, x); nothing is known of it at first
//   load_global(p), store_global(p, x)
//   copy_async(s, i, p, bytes)   so many bytes from memory, and zeros up to 16, to element i of s, some time before
//   commit_copies(), wait_copies<N>()    this thread's copies but for the last N groups are done
//   load_matrices(s, i), load_matrices_turned(s, i)    ldmatrix .x4: four 8 x 8 of bf16; lane l brings the
//                                element where row l % 8 of matrix l / 8 begins
//   multiply(d, a, b)            mma m16n8k16: d += a b, bf16 in fragments, float32 sums
//   exp exp2 erf tanh sqrt fma   float32, at most 2 units in the last place, sqrt and fma exact; so are + - * /
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/tensor.h"

namespace refimpl::cuda {

constexpr unsigned kWarp = 32;

// Blocks of a launch, threads of a block (a multiple of kWarp), and bytes of shared memory of a block.
struct Grid {
  unsigned x, y, threads;
  std::size_t shared_bytes;
};

// What a lane holds of a matrix of 16 x 16 (a), 16 x 8 transposed (b), both pairs of bf16, and 16 x 8 float32 (d).
// a: rows l / 4 and l / 4 + 8, columns 2 (l % 4) + {0, 1} and 8 further, of lane l; in the order a[0] row l / 4,
// a[1] row l / 4 + 8, a[2] and a[3] the same 8 columns further. b: rows as those columns, column l / 4. d: d[0],
// d[1] row l / 4, columns 2 (l % 4) + {0, 1}; d[2], d[3] row l / 4 + 8.
struct FragmentA {
  std::uint32_t pair[4];
};
struct FragmentB {
  std::uint32_t pair[2];
};
struct FragmentD {
  float x[4];
};
// Of lane l, of each of four matrices of 8 x 8: row l / 4, columns 2 (l % 4) + {0, 1}; turned: of its transpose.
struct Matrices {
  std::uint32_t pair[4];
};

constexpr unsigned kMostThreads = 1024;
// 99 KiB: what a block may have on every device of compute capability 8.0 and later.
constexpr std::size_t kMostShared = 99 * 1024;

}  // namespace refimpl::cuda

#if defined(__CUDACC__)
#include "cuda/on_gpu.h"
#else
#include "cuda/on_cpu.h"
#endif
