// What C++ has no word for among the instructions that only compute capability 9.0 has (sm_90a), a
// function each; sm80.h has those of all. tests/cuda_on_host/sm90_on_host.h has the same functions for
// the host.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "sm80.h"

namespace semfaceedit {
namespace sm90 {

// A matrix in shared memory as products take it: rows of 128 bytes whose pieces of 16 lie at the
// exclusive or of their number and the row's (modulo 8); the address is a multiple of 1024. These are
// the lower 32 bits of PTX's descriptor, MATRIX_FORM the upper ones.
SEMFACEEDIT_DEVICE inline uint32_t matrix_at(uint32_t address) {
  return (address & 0x3ffff) >> 4 | 1 << 16;
}

constexpr uint32_t MATRIX_FORM = 1024 >> 4 | 1u << 30;  // bytes to eight rows on; swizzled by 128
constexpr uint32_t NEXT_INPUTS = 32 >> 4;               // to be added: 16 inputs on
SEMFACEEDIT_DEVICE constexpr uint32_t rows_on(int rows) { return rows * 128 >> 4; }

// Columns of 16 points in matrix order (film_siren_backward.h) as products over points take them. A
// column's neighbour lies beside it, the next point 16 bytes on: to wgmma, whose K are the points, such
// a matrix is transposed ("MN-major"). Not swizzled, PTX's canonical layout of that is, in pieces of 16
// bytes, which are eight columns of a point: ((1, n), (8, k)) : ((., stride), (1, leading)), so eight
// columns on lie "stride" bytes on, and eight points on "leading" bytes. Matrix order has eight points
// on in the next matrix, eight columns on in the one after: 128 and 256 bytes.
SEMFACEEDIT_DEVICE inline uint32_t points_at(uint32_t address) {
  return (address & 0x3ffff) >> 4 | (128 >> 4) << 16;
}

constexpr uint32_t POINTS_FORM = 256 >> 4;

}  // namespace sm90
}  // namespace semfaceedit

#if defined(__CUDACC__)

namespace semfaceedit {
namespace sm90 {

// The number of this block in its cluster.
__device__ __forceinline__ uint32_t block_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Until all threads of the cluster are here.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
}

// Of a warpgroup: so many registers for each of its threads from here on.
template <int count>
__device__ __forceinline__ void decrease_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

template <int count>
__device__ __forceinline__ void increase_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

// A barrier in shared memory (8 bytes). A phase of it ends once so many have arrived and all bytes
// that were expected are there.
__device__ __forceinline__ void init_barrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// The thread's new barriers can be used by the cluster and by copies, after `cluster_sync`.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Of a warp, until the phase of this parity (0 for the first) has ended. The threads agree, so that
// the compiler sees no divergence between products.
__device__ __forceinline__ void wait_barrier(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred ended;\n"
      "AGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "vote.sync.all.pred ended, ended, 0xffffffff;\n"
      "@ended bra.uni GO_ON;\n"
      "bra.uni AGAIN;\n"
      "GO_ON:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Arrives, and lets the phase wait for so many more bytes.
__device__ __forceinline__ void expect_bytes(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Arrives at the barrier that lies there in a block of the cluster.
__device__ __forceinline__ void arrive(uint32_t barrier, uint32_t block) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
      "r"(block)
      : "memory");
}

// Bytes (a multiple of 16) from device memory to the same place in all BLOCKS of a cluster; they
// count at the barrier that lies there in each.
template <int BLOCKS>
__device__ __forceinline__ void copy_to_cluster(uint32_t to, const void* from, uint32_t bytes,
                                                uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(static_cast<uint16_t>((1 << BLOCKS) - 1))
      : "memory");
}

// The same to this block alone.
__device__ __forceinline__ void copy_to_block(uint32_t to, const void* from, uint32_t bytes,
                                              uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// A barrier of the block by number: until so many threads are there, this one among them.
__device__ __forceinline__ void meet(int number, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// To be counted there without waiting.
__device__ __forceinline__ void pass(int number, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// Products that follow see the registers as they are.
__device__ __forceinline__ void fence_registers() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// What the warpgroup does before is done before any of its threads goes on: barrier 2 + its number of
// the block. `what` names the barrier where one can be left out.
__device__ __forceinline__ void group_sync(const char* what) {
  asm volatile("bar.sync %0, 128;" ::"r"(2 + threadIdx.x / 128) : "memory");
}

// The compiler does not copy what follows into several branches: a barrier of the warpgroup, by the
// number of `group_sync`.
__device__ __forceinline__ void keep_single() {
  asm volatile("bar.sync %0, 128;" ::"r"(2 + threadIdx.x / 128) : "memory");
}

// A word in shared memory, for products to read after `fence_shared` and `__syncwarp`.
__device__ __forceinline__ void store_shared(uint32_t to, uint32_t word) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
}

__device__ __forceinline__ void fence_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The products since the last call become a group.
__device__ __forceinline__ void close_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until all but the newest `pending` groups of products are done; a constant after unrolling.
__device__ __forceinline__ void wait_for_products(int pending) {
  switch (pending) {
    case 3:
      asm volatile("wgmma.wait_group.sync.aligned 3;" ::: "memory");
      break;
    case 2:
      asm volatile("wgmma.wait_group.sync.aligned 2;" ::: "memory");
      break;
    case 1:
      asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
      break;
    default:
      asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
}

// The compiler leaves sums where they are: products in flight write them.
template <int COUNT>
__device__ __forceinline__ void hold(float* sums) {
  SEMFACEEDIT_UNROLL
  for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

#define SEMFACEEDIT_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define SEMFACEEDIT_NAMES_16 \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SEMFACEEDIT_NAMES_32 \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define SEMFACEEDIT_NAMES_48 \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SEMFACEEDIT_NAMES_64 \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define SEMFACEEDIT_NAMES_80 \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define SEMFACEEDIT_NAMES_96 \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define SEMFACEEDIT_NAMES_112 \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define SEMFACEEDIT_FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SEMFACEEDIT_SIXTEEN(i) \
  SEMFACEEDIT_FOUR(i), SEMFACEEDIT_FOUR(i + 4), SEMFACEEDIT_FOUR(i + 8), SEMFACEEDIT_FOUR(i + 12)

// d (64, COLUMNS) = a (64, 16) b (COLUMNS, 16)^T by a warpgroup, or += where `onto`: halves in, sums
// in fp32. Rows and columns of a thread are as in sm80::multiply, a warp having 16 of the rows. Read
// and written some time before `wait_for_products` returns.
template <int COLUMNS>
__device__ void multiply(float* d, const uint32_t (&a)[4], uint32_t b, bool onto);

template <>
__device__ __forceinline__ void multiply<24>(float* d, const uint32_t (&a)[4], uint32_t b,
                                             bool onto) {
  asm volatile(
      "{\n.reg .pred onto;\n.reg .b64 matrix;\nsetp.ne.b32 onto, %18, 0;\n"
      "mov.b64 matrix, {%16, %17};\n"
      "wgmma.mma_async.sync.aligned.m64n24k16.f32.f16.f16 "
      "{"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11"
      "}, "
      "{%12, %13, %14, %15}, matrix, onto, 1, 1, 0;\n}\n"
      : SEMFACEEDIT_FOUR(0), SEMFACEEDIT_FOUR(4), SEMFACEEDIT_FOUR(8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(MATRIX_FORM),
        "r"(static_cast<int>(onto)));
}

template <>
__device__ __forceinline__ void multiply<64>(float* d, const uint32_t (&a)[4], uint32_t b,
                                             bool onto) {
  asm volatile(
      "{\n.reg .pred onto;\n.reg .b64 matrix;\nsetp.ne.b32 onto, %38, 0;\n"
      "mov.b64 matrix, {%36, %37};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{" SEMFACEEDIT_NAMES_0 ", " SEMFACEEDIT_NAMES_16
      "}, "
      "{%32, %33, %34, %35}, matrix, onto, 1, 1, 0;\n}\n"
      : SEMFACEEDIT_SIXTEEN(0), SEMFACEEDIT_SIXTEEN(16)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(MATRIX_FORM),
        "r"(static_cast<int>(onto)));
}

template <>
__device__ __forceinline__ void multiply<128>(float* d, const uint32_t (&a)[4], uint32_t b,
                                              bool onto) {
  asm volatile(
      "{\n.reg .pred onto;\n.reg .b64 matrix;\nsetp.ne.b32 onto, %70, 0;\n"
      "mov.b64 matrix, {%68, %69};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
      "{" SEMFACEEDIT_NAMES_0 ", " SEMFACEEDIT_NAMES_16 ", " SEMFACEEDIT_NAMES_32
      ", " SEMFACEEDIT_NAMES_48
      "}, "
      "{%64, %65, %66, %67}, matrix, onto, 1, 1, 0;\n}\n"
      : SEMFACEEDIT_SIXTEEN(0), SEMFACEEDIT_SIXTEEN(16), SEMFACEEDIT_SIXTEEN(32),
        SEMFACEEDIT_SIXTEEN(48)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(MATRIX_FORM),
        "r"(static_cast<int>(onto)));
}

// The same of a (64, 16) in shared memory, as b lies there.
__device__ __forceinline__ void multiply_shared(float (&d)[32], uint32_t a, uint32_t b, bool onto) {
  asm volatile(
      "{\n.reg .pred onto;\n.reg .b64 left, right;\nsetp.ne.b32 onto, %35, 0;\n"
      "mov.b64 left, {%32, %34};\nmov.b64 right, {%33, %34};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{" SEMFACEEDIT_NAMES_0 ", " SEMFACEEDIT_NAMES_16
      "}, "
      "left, right, onto, 1, 1, 0, 0;\n}\n"
      : SEMFACEEDIT_SIXTEEN(0), SEMFACEEDIT_SIXTEEN(16)
      : "r"(a), "r"(b), "r"(MATRIX_FORM), "r"(static_cast<int>(onto)));
}

template <>
__device__ __forceinline__ void multiply<256>(float* d, const uint32_t (&a)[4], uint32_t b,
                                              bool onto) {
  asm volatile(
      "{\n.reg .pred onto;\n.reg .b64 matrix;\nsetp.ne.b32 onto, %134, 0;\n"
      "mov.b64 matrix, {%132, %133};\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
      "{" SEMFACEEDIT_NAMES_0 ", " SEMFACEEDIT_NAMES_16 ", " SEMFACEEDIT_NAMES_32
      ", " SEMFACEEDIT_NAMES_48 ", " SEMFACEEDIT_NAMES_64 ", " SEMFACEEDIT_NAMES_80
      ", " SEMFACEEDIT_NAMES_96 ", " SEMFACEEDIT_NAMES_112
      "}, "
      "{%128, %129, %130, %131}, matrix, onto, 1, 1, 0;\n}\n"
      : SEMFACEEDIT_SIXTEEN(0), SEMFACEEDIT_SIXTEEN(16), SEMFACEEDIT_SIXTEEN(32),
        SEMFACEEDIT_SIXTEEN(48), SEMFACEEDIT_SIXTEEN(64), SEMFACEEDIT_SIXTEEN(80),
        SEMFACEEDIT_SIXTEEN(96), SEMFACEEDIT_SIXTEEN(112)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(MATRIX_FORM),
        "r"(static_cast<int>(onto)));
}

// d (64, COLUMNS) += a^T b by a warpgroup, of a (16, 64) and b (16, COLUMNS) as `points_at` says.
template <int COLUMNS>
__device__ void multiply_points(float* d, uint32_t a, uint32_t b);

#define SEMFACEEDIT_MULTIPLY_POINTS(COLUMNS, NAMES, A, B, FORM, ...)                           \
  template <>                                                                                  \
  __device__ __forceinline__ void multiply_points<COLUMNS>(float* d, uint32_t a, uint32_t b) { \
    asm volatile("{\n.reg .pred onto;\n.reg .b64 left, right;\nsetp.ne.b32 onto, " FORM        \
                 ", 0;\n"                                                                      \
                 "mov.b64 left, {" A ", " FORM "};\nmov.b64 right, {" B ", " FORM              \
                 "};\n"                                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32.f16.f16 {" NAMES        \
                 "}, left, right, onto, 1, 1, 1, 1;\n}\n"                                      \
                 : __VA_ARGS__                                                                 \
                 : "r"(a), "r"(b), "r"(POINTS_FORM));                                          \
  }

SEMFACEEDIT_MULTIPLY_POINTS(32, SEMFACEEDIT_NAMES_0, "%16", "%17", "%18", SEMFACEEDIT_SIXTEEN(0))
SEMFACEEDIT_MULTIPLY_POINTS(64, SEMFACEEDIT_NAMES_0 ", " SEMFACEEDIT_NAMES_16, "%32", "%33", "%34",
                            SEMFACEEDIT_SIXTEEN(0), SEMFACEEDIT_SIXTEEN(16))
SEMFACEEDIT_MULTIPLY_POINTS(128,
                            SEMFACEEDIT_NAMES_0 ", " SEMFACEEDIT_NAMES_16 ", " SEMFACEEDIT_NAMES_32
                                                ", " SEMFACEEDIT_NAMES_48,
                            "%64", "%65", "%66", SEMFACEEDIT_SIXTEEN(0), SEMFACEEDIT_SIXTEEN(16),
                            SEMFACEEDIT_SIXTEEN(32), SEMFACEEDIT_SIXTEEN(48))
SEMFACEEDIT_MULTIPLY_POINTS(256,
                            SEMFACEEDIT_NAMES_0 ", " SEMFACEEDIT_NAMES_16 ", " SEMFACEEDIT_NAMES_32
                                                ", " SEMFACEEDIT_NAMES_48 ", " SEMFACEEDIT_NAMES_64
                                                ", " SEMFACEEDIT_NAMES_80 ", " SEMFACEEDIT_NAMES_96
                                                ", " SEMFACEEDIT_NAMES_112,
                            "%128", "%129", "%130", SEMFACEEDIT_SIXTEEN(0), SEMFACEEDIT_SIXTEEN(16),
                            SEMFACEEDIT_SIXTEEN(32), SEMFACEEDIT_SIXTEEN(48),
                            SEMFACEEDIT_SIXTEEN(64), SEMFACEEDIT_SIXTEEN(80),
                            SEMFACEEDIT_SIXTEEN(96), SEMFACEEDIT_SIXTEEN(112))

}  // namespace sm90
}  // namespace semfaceedit

#else
#include "sm90_on_host.h"
#endif
