// The CUDA versions of the per-ray ops of ops.h: the same arguments, in the memory of a device.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "host_device.h"
#include "ops.h"

namespace semfaceedit {

struct CudaPlace {
  int device;
  uintptr_t stream;
  float* workspace;  // as many floats as the pass asks for
};

// Why kernels of this build cannot run on the current device; empty if they can.
std::string cuda_unavailable();

// Floats of workspace that the forward and the backward pass need; by R, K, S, H, D.
std::array<int64_t, 2> ray_isosurface_workspace(const std::array<int64_t, 5>& sizes);
void ray_isosurface_forward(const RayIsosurfaceProblem& problem, const RayIsosurfaceHits& hits,
                            const CudaPlace& place);
void ray_isosurface_backward(const RayIsosurfaceProblem& problem, const RayIsosurfaceGradHits& hits,
                             const RayIsosurfaceGradients& gradients, const CudaPlace& place);

void semantic_forward(const CompositeSizes& sizes, const float* alpha, const float* semantics,
                      int64_t* labels, float* map, const CudaPlace& place);
void semantic_backward(const CompositeSizes& sizes, const float* grad_map, const float* alpha,
                       const float* semantics, float* grad_alpha, float* grad_semantics,
                       const CudaPlace& place);
void color_forward(const CompositeSizes& sizes, const float* alpha, const float* colors,
                   const float* depths, float* color, float* depth, float* weights,
                   const CudaPlace& place);
void color_backward(const CompositeSizes& sizes, const ColorGradOutputs& grad_outputs,
                    const float* alpha, const float* colors, const float* depths,
                    const float* depth, float* grad_alpha, float* grad_colors, float* grad_depths,
                    const CudaPlace& place);

}  // namespace semfaceedit
