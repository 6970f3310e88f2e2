// Compiles SEMFACEEDIT_KERNEL once per instruction set, each copy in a namespace of its own.
// `LANES` is the number of floats in a vector, `BLOCK_ROWS` the height of a matrix block.

#include "targets.h"

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
SEMFACEEDIT_TARGET("avx2,fma")
namespace semfaceedit::avx2 {
#include SEMFACEEDIT_KERNEL
}
SEMFACEEDIT_END_TARGET
#undef LANES
#undef BLOCK_ROWS

#define LANES 16
#define BLOCK_ROWS 8
SEMFACEEDIT_TARGET("avx512f,avx512dq,fma")
namespace semfaceedit::avx512 {
#include SEMFACEEDIT_KERNEL
}
SEMFACEEDIT_END_TARGET
#undef LANES
#undef BLOCK_ROWS

#endif
