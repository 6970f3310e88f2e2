// film_siren with operands in bf16 (`fast`), or as two bf16 each (`accurate`): forward.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "bf16.h"
#include "film_siren_packed.h"
#include "film_siren_tiles.h"
#include "ops.h"
#include "parallel.h"

#if defined(SEMFACEEDIT_BF16)
#include <immintrin.h>
#endif

#define LANES 4
#define BLOCK_ROWS 4
namespace semfaceedit::amx_model {
#include "tile_model.h"

#include "bf16_product_tiles.h"
#include "film_siren_bf16_kernel.h"
}  // namespace semfaceedit::amx_model
#undef LANES
#undef BLOCK_ROWS

#if defined(SEMFACEEDIT_BF16)

#define LANES 16
#define BLOCK_ROWS 8
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512bf16,fma")
#endif
namespace semfaceedit::avx512_bf16 {
#include "bf16_product_vectors.h"
#include "film_siren_bf16_kernel.h"
}  // namespace semfaceedit::avx512_bf16
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,avx512f,avx512dq,avx512bw,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512f,avx512dq,avx512bw,avx512bf16,fma")
#endif
namespace semfaceedit::amx {
#include "tile_amx.h"

#include "bf16_product_tiles.h"
#include "film_siren_bf16_kernel.h"
}  // namespace semfaceedit::amx
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LANES
#undef BLOCK_ROWS

#endif

namespace semfaceedit {

void tile_dot(Isa isa, const uint16_t* a, const uint16_t* b, float* c) {
#if defined(SEMFACEEDIT_BF16)
  if (isa == Isa::amx && isa_available(isa)) return amx::tile_dot(a, b, c);
#endif
  if (isa != Isa::amx_model) throw std::invalid_argument("no tiles");
  amx_model::tile_dot(a, b, c);
}

void film_siren_forward_bf16(const FilmSirenProblem& problem, Precision precision, float* output,
                             int threads) {
  const Isa in_use = isa();
  if (!offers(in_use, precision))
    throw std::invalid_argument("film_siren: this precision needs other instructions");
  const bool accurate = precision == Precision::accurate;
#if defined(SEMFACEEDIT_BF16)
  if (in_use == Isa::avx512_bf16)
    return avx512_bf16::film_siren_forward_parts<1>(problem, output, threads);
  if (in_use == Isa::amx)
    return accurate ? amx::film_siren_forward_parts<2>(problem, output, threads)
                    : amx::film_siren_forward_parts<1>(problem, output, threads);
#endif
  return accurate ? amx_model::film_siren_forward_parts<2>(problem, output, threads)
                  : amx_model::film_siren_forward_parts<1>(problem, output, threads);
}

}  // namespace semfaceedit
