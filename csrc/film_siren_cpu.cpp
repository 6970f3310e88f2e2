// film_siren on the CPU in fp32: tiles of points pass through all layers without leaving the cache.
// The backward pass runs a tile forward again and then back.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "film_siren_tiles.h"
#include "ops.h"
#include "parallel.h"

#define SEMFACEEDIT_KERNEL "film_siren_kernel.h"
#include "each_isa.h"

namespace semfaceedit {

void film_siren_forward(const FilmSirenProblem& problem, Precision precision, float* output,
                        int threads) {
  if (precision != Precision::fp32)
    return film_siren_forward_bf16(problem, precision, output, threads);
  SEMFACEEDIT_DISPATCH(film_siren_forward, problem, output, threads);
}

void film_siren_backward(const FilmSirenProblem& problem, Precision precision,
                         const float* grad_output, const FilmSirenGradients& gradients,
                         int threads) {
  if (precision != Precision::fp32)
    return film_siren_backward_bf16(problem, precision, grad_output, gradients, threads);
  SEMFACEEDIT_DISPATCH(film_siren_backward, problem, grad_output, gradients, threads);
}

}  // namespace semfaceedit
