// ray_isosurface's field with operands of two bf16 parts, where there are tiles: forward.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "bf16.h"
#include "bf16_tiles.h"
#include "ops.h"
#include "parallel.h"
#include "ray_isosurface_chunks.h"
#include "ray_isosurface_ray.h"

#if defined(SEMFACEEDIT_BF16)
#include <immintrin.h>
#endif

#define SEMFACEEDIT_KERNEL "ray_isosurface_bf16_kernel.h"
#include "each_bf16.h"

namespace semfaceedit {

void ray_isosurface_forward_bf16(const RayIsosurfaceProblem& problem, const RayIsosurfaceHits& hits,
                                 int threads) {
  if (!offers(isa(), Precision::accurate)) return ray_isosurface_forward(problem, hits, threads);
#if defined(SEMFACEEDIT_BF16)
  if (isa() == Isa::amx) return amx::ray_isosurface_forward_parts<2>(problem, hits, threads);
#endif
  amx_model::ray_isosurface_forward_parts<2>(problem, hits, threads);
}

}  // namespace semfaceedit
