// semantic_composite on the CPU: rays over threads, a ray's channels over the lanes of vectors.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "host_device.h"
#include "ops.h"
#include "parallel.h"

#define SEMFACEEDIT_KERNEL "semantic_composite_kernel.h"
#include "each_isa.h"

namespace semfaceedit {

void semantic_forward(const CompositeSizes& sizes, const float* alpha, const float* semantics,
                      int64_t* labels, float* map, int threads) {
  SEMFACEEDIT_DISPATCH(semantic_forward, sizes, alpha, semantics, labels, map, threads);
}

void semantic_backward(const CompositeSizes& sizes, const float* grad_map, const float* alpha,
                       const float* semantics, float* grad_alpha, float* grad_semantics,
                       int threads) {
  SEMFACEEDIT_DISPATCH(semantic_backward, sizes, grad_map, alpha, semantics, grad_alpha,
                       grad_semantics, threads);
}

void color_forward(const CompositeSizes& sizes, const float* alpha, const float* colors,
                   const float* depths, float* color, float* depth, float* weights, int threads) {
  SEMFACEEDIT_DISPATCH(color_forward, sizes, alpha, colors, depths, color, depth, weights, threads);
}

void color_backward(const CompositeSizes& sizes, const ColorGradOutputs& grad_outputs,
                    const float* alpha, const float* colors, const float* depths,
                    const float* depth, float* grad_alpha, float* grad_colors, float* grad_depths,
                    int threads) {
  SEMFACEEDIT_DISPATCH(color_backward, sizes, grad_outputs, alpha, colors, depths, depth,
                       grad_alpha, grad_colors, grad_depths, threads);
}

}  // namespace semfaceedit
