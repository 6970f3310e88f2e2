// semantic_composite on CUDA: a ray's channels over the threads of a group, four for a few channels
// and a warp for more. Nothing is shared between rays, so results do not depend on the order.

#include <algorithm>
#include <cstdint>

#include "cuda_launch.h"
#include "host_device.h"
#include "ops_cuda.h"

namespace semfaceedit {

constexpr int COMPOSITE_THREADS = 128;
constexpr int COMPOSITE_BLOCKS = 8;  // on a multiprocessor: leaves 64 registers a thread
constexpr int64_t FEW_CHANNELS = 4;

}  // namespace semfaceedit

#define LANES 4
namespace semfaceedit::quad {
#include "semantic_composite_group.h"
}
#undef LANES

#define LANES 32
namespace semfaceedit::warp {
#include "semantic_composite_group.h"
}
#undef LANES

#define SEMFACEEDIT_BY_CHANNELS(function, sizes, ...)                    \
  ((sizes).channels <= FEW_CHANNELS ? quad::function(sizes, __VA_ARGS__) \
                                    : warp::function(sizes, __VA_ARGS__))

namespace semfaceedit {

std::string cuda_unavailable() {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  cudaFuncAttributes attributes;
  if (error == cudaSuccess)
    error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(warp::mask_kernel));
  cudaGetLastError();  // forgets it
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

void semantic_forward(const CompositeSizes& sizes, const float* alpha, const float* semantics,
                      int64_t* labels, float* map, const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  SEMFACEEDIT_BY_CHANNELS(semantic_forward, sizes, alpha, semantics, labels, map, place);
}

void semantic_backward(const CompositeSizes& sizes, const float* grad_map, const float* alpha,
                       const float* semantics, float* grad_alpha, float* grad_semantics,
                       const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  SEMFACEEDIT_BY_CHANNELS(semantic_backward, sizes, grad_map, alpha, semantics, grad_alpha,
                          grad_semantics, place);
}

void color_forward(const CompositeSizes& sizes, const float* alpha, const float* colors,
                   const float* depths, float* color, float* depth, float* weights,
                   const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  SEMFACEEDIT_BY_CHANNELS(color_forward, sizes, alpha, colors, depths, color, depth, weights,
                          place);
}

void color_backward(const CompositeSizes& sizes, const ColorGradOutputs& grad_outputs,
                    const float* alpha, const float* colors, const float* depths,
                    const float* depth, float* grad_alpha, float* grad_colors, float* grad_depths,
                    const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  if (sizes.channels <= FEW_CHANNELS)
    quad::color_backward(sizes, grad_outputs, alpha, colors, depths, depth,
                         {grad_alpha, grad_colors, grad_depths}, place);
  else
    warp::color_backward(sizes, grad_outputs, alpha, colors, depths, depth,
                         {grad_alpha, grad_colors, grad_depths}, place);
}

}  // namespace semfaceedit
