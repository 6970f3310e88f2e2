// Compiles SEMFACEEDIT_KERNEL once per unit with bf16 products, each copy in a namespace of its own:
// a `Unit` multiplies blocks of tiles. See each_isa.h; operands are described in bf16_tiles.h.

#include "targets.h"

#define LANES 4
#define BLOCK_ROWS 4
namespace semfaceedit::amx_model {
#include "tile_model.h"

#include "bf16_product_tiles.h"
#include SEMFACEEDIT_KERNEL
}  // namespace semfaceedit::amx_model
#undef LANES
#undef BLOCK_ROWS

#if defined(SEMFACEEDIT_BF16)

#define LANES 16
#define BLOCK_ROWS 8
SEMFACEEDIT_TARGET("avx512f,avx512dq,avx512bw,avx512bf16,fma")
namespace semfaceedit::avx512_bf16 {
#include "bf16_product_vectors.h"
#include SEMFACEEDIT_KERNEL
}  // namespace semfaceedit::avx512_bf16
SEMFACEEDIT_END_TARGET

SEMFACEEDIT_TARGET("amx-tile,amx-bf16,avx512f,avx512dq,avx512bw,avx512bf16,fma")
namespace semfaceedit::amx {
#include "tile_amx.h"

#include "bf16_product_tiles.h"
#include SEMFACEEDIT_KERNEL
}  // namespace semfaceedit::amx
SEMFACEEDIT_END_TARGET
#undef LANES
#undef BLOCK_ROWS

// Calls the copy of `function` for the unit in use, with 2 parts where `accurate`, else 1.
#define SEMFACEEDIT_DISPATCH_BF16(accurate, function, ...)                                         \
  (::semfaceedit::isa() == ::semfaceedit::Isa::avx512_bf16 ? avx512_bf16::function<1>(__VA_ARGS__) \
   : ::semfaceedit::isa() == ::semfaceedit::Isa::amx                                               \
       ? ((accurate) ? amx::function<2>(__VA_ARGS__) : amx::function<1>(__VA_ARGS__))              \
       : ((accurate) ? amx_model::function<2>(__VA_ARGS__) : amx_model::function<1>(__VA_ARGS__)))

#else

#define SEMFACEEDIT_DISPATCH_BF16(accurate, function, ...) \
  ((accurate) ? amx_model::function<2>(__VA_ARGS__) : amx_model::function<1>(__VA_ARGS__))

#endif
