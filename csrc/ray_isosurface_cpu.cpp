// ray_isosurface on the CPU: the field at all samples of a few rays, then their crossings, before
// the next rays. The backward pass evaluates again only the samples that carry gradient.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <vector>

#include "ops.h"
#include "parallel.h"
#include "ray_isosurface_chunks.h"
#include "ray_isosurface_ray.h"

#define SEMFACEEDIT_KERNEL "ray_isosurface_kernel.h"
#include "each_isa.h"

namespace semfaceedit {

void ray_isosurface_forward(const RayIsosurfaceProblem& problem, const RayIsosurfaceHits& hits,
                            int threads) {
  SEMFACEEDIT_DISPATCH(ray_isosurface_forward, problem, hits, threads);
}

void ray_isosurface_backward(const RayIsosurfaceProblem& problem, const RayIsosurfaceGradHits& hits,
                             const RayIsosurfaceGradients& gradients, int threads) {
  SEMFACEEDIT_DISPATCH(ray_isosurface_backward, problem, hits, gradients, threads);
}

}  // namespace semfaceedit
