// film_siren with operands in bf16 (`fast`), or as two bf16 each (`accurate`).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "bf16.h"
#include "bf16_tiles.h"
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
#include "film_siren_bf16_backward.h"
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
#include "film_siren_bf16_backward.h"
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
#include "film_siren_bf16_backward.h"
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

// Calls the copy of `function` for the instruction set and precision in use.
#if defined(SEMFACEEDIT_BF16)
#define SEMFACEEDIT_DISPATCH_BF16(function, ...)                                              \
  (isa() == Isa::avx512_bf16 ? avx512_bf16::function<1>(__VA_ARGS__)                          \
   : isa() == Isa::amx       ? (accurate ? amx::function<2>(__VA_ARGS__)                      \
                                         : amx::function<1>(__VA_ARGS__))                     \
                             : (accurate ? amx_model::function<2>(__VA_ARGS__)                \
                                         : amx_model::function<1>(__VA_ARGS__)))
#else
#define SEMFACEEDIT_DISPATCH_BF16(function, ...) \
  (accurate ? amx_model::function<2>(__VA_ARGS__) : amx_model::function<1>(__VA_ARGS__))
#endif

namespace {

// Whether it is `accurate`; throws if the instructions in use do not have the precision.
bool is_accurate(Precision precision) {
  if (!offers(isa(), precision))
    throw std::invalid_argument("film_siren: this precision needs other instructions");
  return precision == Precision::accurate;
}

}  // namespace

void film_siren_forward_bf16(const FilmSirenProblem& problem, Precision precision, float* output,
                             int threads) {
  const bool accurate = is_accurate(precision);
  SEMFACEEDIT_DISPATCH_BF16(film_siren_forward_parts, problem, output, threads);
}

void film_siren_backward_bf16(const FilmSirenProblem& problem, Precision precision,
                              const float* grad_output, const FilmSirenGradients& gradients,
                              int threads) {
  const bool accurate = is_accurate(precision);
  SEMFACEEDIT_DISPATCH_BF16(film_siren_backward_parts, problem, grad_output, gradients, threads);
}

}  // namespace semfaceedit
