// The kernels of semantic_composite, each ray by a group of LANES threads; see
// semantic_composite_cuda.cu.

#include "lane_group.h"
#include "semantic_composite_ray.h"

constexpr int RAYS_EACH = COMPOSITE_THREADS / LANES;  // that a block works on at a time

SEMFACEEDIT_DEVICE static inline int64_t first_ray() {
  return blockIdx.x * static_cast<int64_t>(RAYS_EACH) + threadIdx.x / LANES;
}

SEMFACEEDIT_DEVICE static inline int64_t ray_step() {
  return gridDim.x * static_cast<int64_t>(RAYS_EACH);
}

// The group's part of the block's working memory.
SEMFACEEDIT_DEVICE static inline float* group_memory(int64_t floats) {
  return shared_memory() + threadIdx.x / LANES * floats;
}

static __global__ void __launch_bounds__(COMPOSITE_THREADS, COMPOSITE_BLOCKS)
    mask_kernel(CompositeSizes s, const float* alpha, const float* semantics, int64_t* labels,
                float* map, int64_t ld) {
  float* mixed = group_memory(LANES * ld);
  for (int64_t ray = first_ray(); ray < s.rays; ray += ray_step()) {
    mask_ray(s, ray, LANES, alpha, semantics, labels, map, mixed, ld, nullptr);
    sync();
  }
}

static __global__ void __launch_bounds__(COMPOSITE_THREADS, COMPOSITE_BLOCKS)
    composite_kernel(CompositeSizes s, const float* alpha, const float* colors, const float* depths,
                     float* color, float* depth, float* weights) {
  for (int64_t ray = first_ray(); ray < s.rays; ray += ray_step())
    composite_ray(s, ray, alpha, colors, depths, color, depth, weights);
}

static __global__ void __launch_bounds__(COMPOSITE_THREADS, COMPOSITE_BLOCKS)
    grade_mask_kernel(CompositeSizes s, const float* grad_map, const float* alpha,
                      const float* semantics, float* grad_alpha, float* grad_semantics,
                      int64_t padded, int64_t memory_each) {
  const BackwardScratch scratch(group_memory(memory_each), padded, s.hit_count);
  for (int64_t ray = first_ray(); ray < s.rays; ray += ray_step()) {
    grade_mask_ray(s, ray, grad_map, alpha, semantics, grad_alpha, grad_semantics, scratch);
    sync();
  }
}

static __global__ void __launch_bounds__(COMPOSITE_THREADS, COMPOSITE_BLOCKS)
    grade_composite_kernel(CompositeSizes s, ColorGradOutputs grads, const float* alpha,
                           const float* colors, const float* depths, const float* depth,
                           ColorGradients to, int64_t padded, int64_t memory_each) {
  const BackwardScratch scratch(group_memory(memory_each), padded, s.hit_count);
  for (int64_t ray = first_ray(); ray < s.rays; ray += ray_step()) {
    grade_composite_ray(s, ray, grads, alpha, colors, depths, depth, to, scratch);
    sync();
  }
}

static int64_t blocks(const CompositeSizes& s) {
  return std::min<int64_t>(ceil_div(s.rays, RAYS_EACH), 1 << 20);
}

static int64_t padded(const CompositeSizes& s) { return ceil_div(s.channels, LANES) * LANES; }

static int64_t backward_floats(const CompositeSizes& s) {
  return BackwardScratch::floats(padded(s), s.hit_count);
}

static void semantic_forward(const CompositeSizes& s, const float* alpha, const float* semantics,
                             int64_t* labels, float* map, const CudaPlace& place) {
  const int64_t ld = padded(s) + 1;  // odd: a column's rows lie in different banks
  launch("semantic_composite", place, mask_kernel, blocks(s), COMPOSITE_THREADS,
         RAYS_EACH * LANES * ld, s, alpha, semantics, labels, map, ld);
}

static void semantic_backward(const CompositeSizes& s, const float* grad_map, const float* alpha,
                              const float* semantics, float* grad_alpha, float* grad_semantics,
                              const CudaPlace& place) {
  launch("semantic_composite", place, grade_mask_kernel, blocks(s), COMPOSITE_THREADS,
         RAYS_EACH * backward_floats(s), s, grad_map, alpha, semantics, grad_alpha, grad_semantics,
         padded(s), backward_floats(s));
}

static void color_forward(const CompositeSizes& s, const float* alpha, const float* colors,
                          const float* depths, float* color, float* depth, float* weights,
                          const CudaPlace& place) {
  launch("color_composite", place, composite_kernel, blocks(s), COMPOSITE_THREADS, 0, s, alpha,
         colors, depths, color, depth, weights);
}

static void color_backward(const CompositeSizes& s, const ColorGradOutputs& grads,
                           const float* alpha, const float* colors, const float* depths,
                           const float* depth, const ColorGradients& to, const CudaPlace& place) {
  launch("color_composite", place, grade_composite_kernel, blocks(s), COMPOSITE_THREADS,
         RAYS_EACH * backward_floats(s), s, grads, alpha, colors, depths, depth, to, padded(s),
         backward_floats(s));
}
