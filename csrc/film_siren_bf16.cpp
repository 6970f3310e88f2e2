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

#define SEMFACEEDIT_KERNEL "film_siren_bf16_kernel.h"
#include "each_bf16.h"

namespace semfaceedit {

void tile_dot(Isa isa, const uint16_t* a, const uint16_t* b, float* c) {
#if defined(SEMFACEEDIT_BF16)
  if (isa == Isa::amx && isa_available(isa)) return amx::tile_dot(a, b, c);
#endif
  if (isa != Isa::amx_model) throw std::invalid_argument("no tiles");
  amx_model::tile_dot(a, b, c);
}

namespace {

void check(Precision precision) {
  if (!offers(isa(), precision))
    throw std::invalid_argument("film_siren: this precision needs other instructions");
}

}  // namespace

void film_siren_forward_bf16(const FilmSirenProblem& problem, Precision precision, float* output,
                             int threads) {
  check(precision);
  SEMFACEEDIT_DISPATCH_BF16(precision == Precision::accurate, film_siren_forward_parts, problem,
                            output, threads);
}

void film_siren_backward_bf16(const FilmSirenProblem& problem, Precision precision,
                              const float* grad_output, const FilmSirenGradients& gradients,
                              int threads) {
  check(precision);
  SEMFACEEDIT_DISPATCH_BF16(precision == Precision::accurate, film_siren_backward_parts, problem,
                            grad_output, gradients, threads);
}

}  // namespace semfaceedit
