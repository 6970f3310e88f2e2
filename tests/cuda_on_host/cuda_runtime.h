// CUDA's execution model on the host, as far as csrc/*.cu use it, so that tests run those files as
// they are without a GPU. threads_on_host.h runs the threads.
#pragma once

#include "threads_on_host.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __cluster_dims__(...)

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace cuda_on_host {

constexpr int PROCESSORS = 6;
constexpr int CLUSTERS = 2;  // that run at a time

// The first and the second digit of the compute capability; CUDA_ON_HOST_CAPABILITY is both.
inline int capability() {
  const char* wanted = std::getenv("CUDA_ON_HOST_CAPABILITY");
  return wanted ? std::atoi(wanted) : 80;
}

// Bytes of shared memory that a block may have, from CUDA's programming guide.
inline int shared_limit() {
  switch (capability()) {
    case 80:
      return 163 * 1024;
    case 90:
    case 100:
      return 227 * 1024;
    default:
      return 99 * 1024;
  }
}

}  // namespace cuda_on_host

inline void __syncthreads() { cuda_on_host::wait_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  if (!cuda_on_host::fault("lanes do not gather")) cuda_on_host::wait_warp(mask);
}

// Calls function(thread of the warp) once all threads of the mask have put down their value.
template <class Function>
auto cuda_on_host_exchange(unsigned mask, float value, const Function& function) {
  using namespace cuda_on_host;
  threads[current].slot = value;
  wait_warp(mask);
  const auto result = function(&threads[current / 32 * 32]);
  wait_warp(mask);
  return result;
}

inline float __shfl_xor_sync(unsigned mask, float value, int step) {
  const unsigned other = threadIdx.x % 32 ^ (cuda_on_host::fault("a lane gets its own") ? 0 : step);
  if (!(mask >> other & 1))
    throw std::runtime_error("__shfl_xor_sync: a thread is not in the mask");
  return cuda_on_host_exchange(
      mask, value, [other](const cuda_on_host::Thread* warp) { return warp[other].slot; });
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
  return cuda_on_host_exchange(mask, vote ? 1.0f : 0.0f, [mask](const cuda_on_host::Thread* warp) {
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; ++i)
      if (mask >> i & 1 && warp[i].slot != 0.0f) votes |= 1u << i;
    return votes;
  });
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

using cudaError_t = int;
using cudaStream_t = void*;
constexpr int cudaSuccess = 0;
enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};
struct cudaFuncAttributes {
  int ptxVersion;
};
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int attribute, int) {
  const int values[] = {cuda_on_host::shared_limit(), cuda_on_host::PROCESSORS,
                        cuda_on_host::capability() / 10, cuda_on_host::capability() % 10};
  return *value = values[attribute], cudaSuccess;
}
struct dim3 {
  unsigned x, y, z;
};
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      int x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* count, Kernel, const cudaLaunchConfig_t*) {
  return *count = cuda_on_host::CLUSTERS, cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel) {
  return attributes->ptxVersion = cuda_on_host::capability(), cudaSuccess;
}
