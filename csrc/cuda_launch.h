// Launching kernels from raw addresses. Compiled by nvcc, or by the host's compiler in the tests,
// whose cuda_runtime.h runs the threads of a block in turns.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "ops_cuda.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#undef __cluster_dims__  // nvcc refuses it there; kernels that want it do nothing there
#define __cluster_dims__(...)
#endif

namespace semfaceedit {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": CUDA error: " + cudaGetErrorString(error));
}

// Launches go to this device while the object lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check_cuda(cudaGetDevice(&before_), "cudaGetDevice");
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
  }
  ~DeviceGuard() { cudaSetDevice(before_); }
  DeviceGuard(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A block's working memory, as large as its launch says.
SEMFACEEDIT_DEVICE inline float* shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(1024) float4 memory[];  // as the matrix unit of 9.0 wants slabs
  return reinterpret_cast<float*>(memory);
#else
  return cuda_on_host::shared_memory();
#endif
}

// A block may use so much of the device's current in shared memory.
inline int64_t shared_limit() {
  int device = 0, bytes = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "cudaDeviceGetAttribute");
  return bytes;
}

// Lets blocks of a kernel have so much shared memory.
template <class Kernel>
void allow_shared(const char* what, Kernel* kernel, int64_t bytes) {
#if defined(__CUDACC__)
  if (bytes > 48 * 1024)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(bytes)),
               what);
#endif
}

// Clusters of a kernel that run at a time on the current device. Processors come in groups, and a
// cluster lies in one of them: there may be fewer than all processors have room for.
template <int CLUSTER, class Kernel>
int64_t clusters_at_a_time(const char* what, Kernel* kernel, int threads, int64_t shared_floats) {
  const int64_t bytes = shared_floats * static_cast<int64_t>(sizeof(float));
  allow_shared(what, kernel, bytes);
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = CLUSTER;
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t launch = {};
  launch.gridDim = {CLUSTER, 1, 1};
  launch.blockDim = {static_cast<unsigned>(threads), 1, 1};
  launch.dynamicSmemBytes = bytes;
  launch.attrs = &cluster;
  launch.numAttrs = 1;
  int count = 0;
  check_cuda(cudaOccupancyMaxActiveClusters(&count, kernel, &launch), what);
  return count;
}

// CLUSTER: blocks of a cluster, as the kernel's __cluster_dims__ says.
template <int CLUSTER = 1, class... Parameters, class... Arguments>
void launch(const char* what, const CudaPlace& place, void (*kernel)(Parameters...), int64_t blocks,
            int threads, int64_t shared_floats, const Arguments&... arguments) {
  if (blocks == 0) return;
  const int64_t bytes = shared_floats * static_cast<int64_t>(sizeof(float));
  if (bytes > shared_limit())
    throw std::invalid_argument(
        std::string(what) + ": the cuda backend needs " + std::to_string(bytes) +
        " bytes of shared memory a block at these sizes, this GPU has " +
        std::to_string(shared_limit()) + "; use the triton or reference backend");
  allow_shared(what, kernel, bytes);
#if defined(__CUDACC__)
  kernel<<<static_cast<unsigned>(blocks), threads, bytes,
           reinterpret_cast<cudaStream_t>(place.stream)>>>(arguments...);
#else
  cuda_on_host::run([&] { kernel(arguments...); }, blocks, threads, bytes, CLUSTER);
#endif
  check_cuda(cudaGetLastError(), what);
}

}  // namespace semfaceedit
