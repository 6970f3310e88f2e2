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

namespace semfaceedit {

namespace {

constexpr float MIN_FIELD_STEP = 0.05f;   // as in kernels/ray_isosurface_reference.py
constexpr float MIN_PLANE_SLOPE = 1e-4f;
constexpr int64_t RAYS_EACH = 48;  // rays that are worked on together

struct Hit {
  float depth;
  bool valid;
  int64_t level;
  int32_t interval;
};

// The first interval with s_b <= level <= s_a, interpolated; the far end if there is none.
Hit find_crossing(const RayIsosurfaceProblem& p, const float* field, int64_t index) {
  const float level = p.levels[index];
  const float* t = p.distances;
  const int64_t last = p.samples - 2;
  int64_t a = 0;
  while (a <= last && !(field[a + 1] <= level && level <= field[a])) ++a;
  const bool found = a <= last;
  if (!found) a = last;
  const float step = field[a + 1] - field[a];
  const bool usable = found && std::abs(step) > MIN_FIELD_STEP;
  const float u = usable ? (level - field[a]) / step : 1.0f;
  return {t[a] + u * (t[a + 1] - t[a]), found, index, static_cast<int32_t>(a)};
}

// Whether the ray meets the plane in front of the camera, and where.
bool meet_plane(const RayIsosurfaceProblem& p, int64_t ray, float* depth) {
  const float slope = p.directions[ray * 3 + 2];
  const bool meets = slope < -MIN_PLANE_SLOPE;
  *depth = meets ? (p.plane_z - p.origins[ray * 3 + 2]) / slope : 0.0f;
  if (*depth > 0.0f) return true;
  *depth = p.far;
  return false;
}

// NaN comes last.
bool nearer(float a, float b) { return a < b || (std::isnan(b) && !std::isnan(a)); }

// The hits of a ray, from its samples of the field; sorted as they are found.
void write_hits(const RayIsosurfaceProblem& p, int64_t ray, const float* field,
                const RayIsosurfaceHits& to) {
  float* depths = to.depths + ray * p.hits;
  bool* valid = to.valid + ray * p.hits;
  int64_t* level = to.level + ray * p.hits;
  int32_t* interval = to.interval + ray * p.hits;
  for (int64_t index = 0; index < p.hits; ++index) {
    Hit hit{0.0f, true, index, 0};
    if (index < p.hits - 1) {
      hit = find_crossing(p, field, index);
    } else {
      meet_plane(p, ray, &hit.depth);
    }
    int64_t k = index;
    for (; k > 0 && nearer(hit.depth, depths[k - 1]); --k) {
      depths[k] = depths[k - 1];
      valid[k] = valid[k - 1];
      level[k] = level[k - 1];
      interval[k] = interval[k - 1];
    }
    depths[k] = hit.depth;
    valid[k] = hit.valid;
    level[k] = hit.level;
    interval[k] = hit.interval;
    if (index == p.hits - 1) to.plane_index[ray] = k;
  }
  for (int64_t k = 0; k < p.hits; ++k)
    for (int64_t axis = 0; axis < 3; ++axis)
      to.points[(ray * p.hits + k) * 3 + axis] =
          p.origins[ray * 3 + axis] + depths[k] * p.directions[ray * 3 + axis];
}

// Gradients of a ray that do not pass through the field: of the points' formula and of the plane.
// `grads` receives the gradient of each other hit's depth, 0 where nothing was crossed.
void grade_ray(const RayIsosurfaceProblem& p, int64_t ray, const RayIsosurfaceGradHits& hits,
               const RayIsosurfaceGradients& to, float* grads) {
  float origin[3] = {}, direction[3] = {};
  for (int64_t k = 0; k < p.hits; ++k) {
    const int64_t hit = ray * p.hits + k;
    grads[k] = hits.depths[hit];
    for (int64_t axis = 0; axis < 3; ++axis) {
      const float grad = hits.points[hit * 3 + axis];
      grads[k] += grad * p.directions[ray * 3 + axis];
      origin[axis] += grad;
      direction[axis] += grad * hits.depth[hit];
    }
    if (hits.level[hit] == p.hits - 1) {
      float depth;
      if (meet_plane(p, ray, &depth)) {
        const float grad = grads[k] / p.directions[ray * 3 + 2];
        origin[2] -= grad;
        direction[2] -= grad * depth;
      }
      grads[k] = 0.0f;
    } else if (!hits.valid[hit]) {
      grads[k] = 0.0f;
    }
  }
  if (to.origins) std::copy(origin, origin + 3, to.origins + ray * 3);
  if (to.directions) std::copy(direction, direction + 3, to.directions + ray * 3);
}

}  // namespace

}  // namespace semfaceedit

#define SEMFACEEDIT_KERNEL "ray_isosurface_kernel.h"
#include "each_isa.h"

namespace semfaceedit {

void ray_isosurface_forward(const RayIsosurfaceProblem& problem, const RayIsosurfaceHits& hits,
                            int threads) {
  SEMFACEEDIT_DISPATCH(ray_isosurface_forward, problem, hits, threads);
}

void ray_isosurface_backward(const RayIsosurfaceProblem& problem,
                             const RayIsosurfaceGradHits& hits,
                             const RayIsosurfaceGradients& gradients, int threads) {
  SEMFACEEDIT_DISPATCH(ray_isosurface_backward, problem, hits, gradients, threads);
}

}  // namespace semfaceedit
