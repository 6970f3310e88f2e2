// ray_isosurface along one ray: crossings, their order, and gradients on either side of the field.
// The one place for this logic; the CPU and CUDA files evaluate the field and go over the rays.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "ops.h"

namespace semfaceedit {

constexpr float MIN_FIELD_STEP = 0.05f;  // as in kernels/ray_isosurface_reference.py
constexpr float MIN_PLANE_SLOPE = 1e-4f;

struct Hit {
  float depth;
  bool valid;
  int64_t level;
  int32_t interval;
};

// A sample of a ray in the field's coordinates.
SEMFACEEDIT_DEVICE inline float field_coordinate(const RayIsosurfaceProblem& p, int64_t ray,
                                                 int64_t sample, int64_t axis) {
  const float world =
      p.origins[ray * 3 + axis] + p.distances[sample] * p.directions[ray * 3 + axis];
  return world * p.scale - p.centre[axis];
}

// The first interval with s_b <= level <= s_a, interpolated; the far end if there is none.
// `field[a]` is the field at sample a of the ray.
template <class Field>
SEMFACEEDIT_DEVICE inline Hit find_crossing(const RayIsosurfaceProblem& p, const Field& field,
                                            int64_t index) {
  const float level = p.levels[index];
  const float* t = p.distances;
  const int64_t last = p.samples - 2;
  int64_t a = 0;
  while (a <= last && !(field[a + 1] <= level && level <= field[a])) ++a;
  const bool found = a <= last;
  if (!found) a = last;
  const float step = field[a + 1] - field[a];
  const bool usable = found && fabsf(step) > MIN_FIELD_STEP;
  const float u = usable ? (level - field[a]) / step : 1.0f;
  return {t[a] + u * (t[a + 1] - t[a]), found, index, static_cast<int32_t>(a)};
}

// Whether the ray meets the plane in front of the camera, and where.
SEMFACEEDIT_DEVICE inline bool meet_plane(const RayIsosurfaceProblem& p, int64_t ray,
                                          float* depth) {
  const float slope = p.directions[ray * 3 + 2];
  const bool meets = slope < -MIN_PLANE_SLOPE;
  *depth = meets ? (p.plane_z - p.origins[ray * 3 + 2]) / slope : 0.0f;
  if (*depth > 0.0f) return true;
  *depth = p.far;
  return false;
}

// NaN comes last.
SEMFACEEDIT_DEVICE inline bool nearer(float a, float b) { return a < b || (b != b && a == a); }

// The hits of a ray, from its samples of the field; sorted as they are found.
template <class Field>
SEMFACEEDIT_DEVICE inline void write_hits(const RayIsosurfaceProblem& p, int64_t ray,
                                          const Field& field, const RayIsosurfaceHits& to) {
  float* depths = to.depths + ray * p.hit_count;
  bool* valid = to.valid + ray * p.hit_count;
  int64_t* level = to.level + ray * p.hit_count;
  int32_t* interval = to.interval + ray * p.hit_count;
  for (int64_t index = 0; index < p.hit_count; ++index) {
    Hit hit{0.0f, true, index, 0};
    if (index < p.hit_count - 1) {
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
    if (index == p.hit_count - 1) to.plane_index[ray] = k;
  }
  for (int64_t k = 0; k < p.hit_count; ++k)
    for (int64_t axis = 0; axis < 3; ++axis)
      to.points[(ray * p.hit_count + k) * 3 + axis] =
          p.origins[ray * 3 + axis] + depths[k] * p.directions[ray * 3 + axis];
}

// Gradients of a ray that do not pass through the field: of the points' formula and of the plane.
// `grads` receives, for each other hit, the gradient of its place within the interval of its
// crossing; 0 where nothing was crossed.
SEMFACEEDIT_DEVICE inline void grade_ray(const RayIsosurfaceProblem& p, int64_t ray,
                                         const RayIsosurfaceGradHits& hits,
                                         const RayIsosurfaceGradients& to, float* grads) {
  float origin[3] = {}, direction[3] = {};
  for (int64_t k = 0; k < p.hit_count; ++k) {
    const int64_t hit = ray * p.hit_count + k;
    float grad_depth = hits.depths[hit];
    for (int64_t axis = 0; axis < 3; ++axis) {
      const float grad = hits.points[hit * 3 + axis];
      grad_depth += grad * p.directions[ray * 3 + axis];
      origin[axis] += grad;
      direction[axis] += grad * hits.depth[hit];
    }
    grads[k] = 0.0f;
    if (hits.level[hit] == p.hit_count - 1) {
      float depth;
      if (meet_plane(p, ray, &depth)) {
        const float grad = grad_depth / p.directions[ray * 3 + 2];
        origin[2] -= grad;
        direction[2] -= grad * depth;
      }
    } else if (hits.valid[hit]) {
      const int64_t a = hits.interval[hit];
      grads[k] = grad_depth * (p.distances[a + 1] - p.distances[a]);
    }
  }
  for (int64_t axis = 0; axis < 3; ++axis) {
    if (to.origins) to.origins[ray * 3 + axis] = origin[axis];
    if (to.directions) to.directions[ray * 3 + axis] = direction[axis];
  }
}

struct IntervalGrads {
  float a, b;  // of the field at the interval's start and end
};

// Back through u = (level - s_a) / (s_b - s_a), unless the step is too small to interpolate.
SEMFACEEDIT_DEVICE inline IntervalGrads grade_crossing(float level, float a, float b,
                                                       float grad_u) {
  const float step = b - a;
  if (!(fabsf(step) > MIN_FIELD_STEP)) return {0.0f, 0.0f};
  const float slope = grad_u / (step * step);
  return {slope * (level - b), -slope * (level - a)};
}

}  // namespace semfaceedit
