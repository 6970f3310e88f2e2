// What C++ has no word for among the instructions of compute capability 8.0 and later, a function
// each. tests/cuda_on_host/sm80_on_host.h has the same functions for the host.
#pragma once

#if defined(__CUDACC__)

#include <cuda_fp16.h>

#include <cstdint>

#define SEMFACEEDIT_UNROLL _Pragma("unroll")
#define SEMFACEEDIT_NO_UNROLL _Pragma("unroll 1")
#define SEMFACEEDIT_UNROLL_FOUR _Pragma("unroll 4")

namespace semfaceedit {
namespace sm80 {

// An address as the instructions below take it.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes from device memory to shared memory, some time before `wait_for_copies` returns.
__device__ __forceinline__ void copy_async(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Asks for the 128 bytes around an address in device memory to be brought to L2.
__device__ __forceinline__ void prefetch(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

// The thread's copies since the last call become a group.
__device__ __forceinline__ void close_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until all but the thread's newest `pending` groups have arrived.
template <int pending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// `what` is done before anyone goes on; it names the barrier where one can be left out.
__device__ __forceinline__ void block_sync(const char* what) { __syncthreads(); }

// Matrices of 8 x 8 halves, a row of 16 bytes at each thread's address: the first eight threads name
// the rows of the first matrix. Thread i gets elements 2 (i % 4) and 2 (i % 4) + 1 of row i / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&to)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(address)
               : "memory");
}

// The same matrices transposed: thread i gets elements 2 (i % 4) and 2 (i % 4) + 1 of column i / 4.
__device__ __forceinline__ void load_transposed(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void load_transposed(uint32_t (&to)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(address)
               : "memory");
}

// d (16, 8) += a (16, 16) b (8, 16)^T by a warp: halves in, sums in fp32.
__device__ __forceinline__ void multiply(float* d, const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The compiler moves no memory access across.
__device__ __forceinline__ void keep_order() { asm volatile("" ::: "memory"); }

// The number; the compiler knows nothing of it, so that what follows from it is computed here and not
// kept in registers from before.
__device__ __forceinline__ int unknown(int number) {
  asm volatile("" : "+r"(number));
  return number;
}

// Sum that no optimisation may take apart.
__device__ __forceinline__ float add_rounded(float a, float b) { return __fadd_rn(a, b); }

__device__ __forceinline__ float approximate_sine(float x) { return __sinf(x); }
__device__ __forceinline__ float approximate_cosine(float x) { return __cosf(x); }

// The larger of a and the magnitude of b; NaN if one of them is.
__device__ __forceinline__ float larger_magnitude(float a, float b) {
  float larger;
  asm("{.reg .f32 m; abs.f32 m, %2; max.NaN.f32 %0, %1, m;}" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

__device__ __forceinline__ uint32_t bits_of(float number) { return __float_as_uint(number); }
__device__ __forceinline__ float number_of(uint32_t bits) { return __uint_as_float(bits); }

// Two numbers as halves, the first in the lower bits.
__device__ __forceinline__ uint32_t pack_halves(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

}  // namespace sm80
}  // namespace semfaceedit

#else
#include "sm80_on_host.h"
#endif
