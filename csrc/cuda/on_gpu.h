// The vocabulary of device.h under nvcc: each name is one intrinsic.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda/device.h"

#define REFIMPL_KERNEL __global__ void
#define REFIMPL_DEVICE __device__ __forceinline__
#define REFIMPL_DEVICE_CALL inline __device__ __noinline__  // for what is rare and would make a kernel long
#define REFIMPL_UNROLL _Pragma("unroll")
#define REFIMPL_NO_UNROLL _Pragma("unroll 1")

namespace refimpl::cuda {

REFIMPL_DEVICE unsigned thread() { return threadIdx.x; }
REFIMPL_DEVICE unsigned lane() { return threadIdx.x % kWarp; }
REFIMPL_DEVICE unsigned warp() { return threadIdx.x / kWarp; }
REFIMPL_DEVICE unsigned block_x() { return blockIdx.x; }
REFIMPL_DEVICE unsigned block_y() { return blockIdx.y; }
REFIMPL_DEVICE unsigned blocks_x() { return gridDim.x; }

REFIMPL_DEVICE void barrier() { __syncthreads(); }
REFIMPL_DEVICE void warp_barrier() { __syncwarp(); }

constexpr unsigned kAllLanes = 0xffffffffu;
template <class T>
REFIMPL_DEVICE T shuffle_xor(T x, unsigned bits) {
  return __shfl_xor_sync(kAllLanes, x, static_cast<int>(bits));
}
REFIMPL_DEVICE bool any_lane(bool b) { return __any_sync(kAllLanes, b) != 0; }

template <class T>
REFIMPL_DEVICE T load_global(const T* p) {
  return *p;
}
template <class T>
REFIMPL_DEVICE void store_global(T* p, T x) {
  *p = x;
}

template <class T>
struct Shared {
  T* data;
  REFIMPL_DEVICE T load(unsigned i) const { return data[i]; }
  REFIMPL_DEVICE void store(unsigned i, T x) const { data[i] = x; }
};

template <class T>
REFIMPL_DEVICE Shared<T> shared(std::size_t offset, unsigned) {
  extern __shared__ __align__(128) unsigned char refimpl_shared_memory[];
  return {reinterpret_cast<T*>(refimpl_shared_memory + offset)};
}

template <class T>
REFIMPL_DEVICE void copy_async(const Shared<T>& s, unsigned i, const T* p, unsigned bytes) {
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(s.data + i));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(p), "r"(bytes) : "memory");
}
REFIMPL_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
REFIMPL_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

REFIMPL_DEVICE Matrices load_matrices(const Shared<bf16>& s, unsigned i) {
  Matrices m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.pair[0]), "=r"(m.pair[1]), "=r"(m.pair[2]), "=r"(m.pair[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(s.data + i)))
               : "memory");
  return m;
}
REFIMPL_DEVICE Matrices load_matrices_turned(const Shared<bf16>& s, unsigned i) {
  Matrices m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.pair[0]), "=r"(m.pair[1]), "=r"(m.pair[2]), "=r"(m.pair[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(s.data + i)))
               : "memory");
  return m;
}
REFIMPL_DEVICE void multiply(FragmentD& d, const FragmentA& a, const FragmentB& b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d.x[0]), "+f"(d.x[1]), "+f"(d.x[2]), "+f"(d.x[3])
      : "r"(a.pair[0]), "r"(a.pair[1]), "r"(a.pair[2]), "r"(a.pair[3]), "r"(b.pair[0]), "r"(b.pair[1]));
}

REFIMPL_DEVICE float exp(float x) { return ::expf(x); }
REFIMPL_DEVICE float exp2(float x) { return ::exp2f(x); }
REFIMPL_DEVICE float erf(float x) { return ::erff(x); }
REFIMPL_DEVICE float tanh(float x) { return ::tanhf(x); }
REFIMPL_DEVICE float sqrt(float x) { return ::sqrtf(x); }
REFIMPL_DEVICE double sqrt(double x) { return ::sqrt(x); }
REFIMPL_DEVICE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }

REFIMPL_DEVICE bool is_finite(float x) { return ::isfinite(x); }

REFIMPL_DEVICE bf16 round_bf16(float x) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }
REFIMPL_DEVICE float widened(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
REFIMPL_DEVICE float widened_half(std::uint16_t x) { return __half2float(__ushort_as_half(x)); }

using Stream = cudaStream_t;

// Starts a kernel on a stream; cudaSuccess, or why it could not be started.
template <class Arguments>
cudaError_t launch(void (*kernel)(Arguments), const Grid& grid, Stream stream, const Arguments& arguments) {
  if (grid.x == 0 || grid.y == 0) return cudaSuccess;
  if (grid.shared_bytes > 48 * 1024) {  // what a kernel may have without being asked
    const cudaError_t allowed =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(grid.shared_bytes));
    if (allowed != cudaSuccess) return allowed;
  }
  kernel<<<dim3(grid.x, grid.y), dim3(grid.threads), grid.shared_bytes, stream>>>(arguments);
  return cudaGetLastError();
}

}  // namespace refimpl::cuda
