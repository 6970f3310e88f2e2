// Compiles SEMFACEEDIT_KERNEL once per instruction set, each copy in a namespace of its own.
// `LANES` is the number of floats in a vector, `BLOCK_ROWS` the height of a matrix block.

#define LANES 4
#define BLOCK_ROWS 4
namespace semfaceedit::portable {
#include SEMFACEEDIT_KERNEL
}
#undef LANES
#undef BLOCK_ROWS

#if defined(__x86_64__)

#define LANES 8
#define BLOCK_ROWS 4
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace semfaceedit::avx2 {
#include SEMFACEEDIT_KERNEL
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LANES
#undef BLOCK_ROWS

#define LANES 16
#define BLOCK_ROWS 8
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,fma")
#endif
namespace semfaceedit::avx512 {
#include SEMFACEEDIT_KERNEL
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LANES
#undef BLOCK_ROWS

#endif
