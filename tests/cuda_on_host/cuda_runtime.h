// CUDA's execution model on the host, as far as csrc/*.cu use it, so that tests run those files as
// they are without a GPU. The threads of a block are coroutines that give way at barriers; between
// barriers they run one after another, from the last to the first if CUDA_ON_HOST_REVERSED is set: a
// missing barrier then changes results. Shared memory begins as NaN, and its end is watched.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)

struct CudaOnHostIndex {
  unsigned x;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline CudaOnHostIndex threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {

constexpr size_t STACK = 64 * 1024;
constexpr int64_t SHARED_LIMIT = 227 * 1024;  // bytes, of compute capability 9.0
constexpr float CANARY = 12345.678f;

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  bool finished, waiting;
  uint64_t barrier;  // the threads it waits for: 0 for the block, else the warp and a mask
  float slot;
};

inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline unsigned current;
inline std::vector<float> shared;
inline float* shared_memory() {
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(shared.data()) + 15) / 16 * 16);
}
inline std::function<void()> kernel;

inline void run_thread() {
  kernel();
  threads[current].finished = true;
  swapcontext(&threads[current].context, &scheduler);
}

inline void wait(uint64_t barrier) {
  threads[current].waiting = true;
  threads[current].barrier = barrier;
  swapcontext(&threads[current].context, &scheduler);
}

inline void wait_warp(unsigned mask) { wait((current / 32 + 1ull) << 32 | mask); }

inline bool member(unsigned thread, uint64_t barrier) {
  if (barrier == 0) return true;
  return thread / 32 + 1 == barrier >> 32 && (barrier >> (thread % 32) & 1);
}

// Whether every thread that `barrier` waits for, and that has not ended, has arrived.
inline bool complete(uint64_t barrier, unsigned count) {
  for (unsigned other = 0; other < count; ++other) {
    const Thread& thread = threads[other];
    if (member(other, barrier) && !thread.finished && !(thread.waiting && thread.barrier == barrier))
      return false;
  }
  return true;
}

inline void run_block(unsigned count, bool reversed) {
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.finished = thread.waiting = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = STACK;
    makecontext(&thread.context, run_thread, 0);
  }
  for (bool any = true; any;) {
    any = false;
    bool moved = false;
    for (unsigned i = 0; i < count; ++i) {
      current = reversed ? count - 1 - i : i;
      if (threads[current].finished || threads[current].waiting) continue;
      threadIdx.x = current;
      swapcontext(&scheduler, &threads[current].context);
      moved = true;
    }
    std::vector<unsigned> released;
    for (unsigned i = 0; i < count; ++i) {
      any |= !threads[i].finished;
      if (threads[i].waiting && complete(threads[i].barrier, count)) released.push_back(i);
    }
    for (unsigned i : released) threads[i].waiting = false;
    if (any && !moved && released.empty())
      throw std::runtime_error("threads wait at different barriers");
  }
}

inline void run(const std::function<void()>& function, int64_t blocks, int count, int64_t bytes) {
  const bool reversed = std::getenv("CUDA_ON_HOST_REVERSED") != nullptr;
  if (threads.size() < static_cast<size_t>(count)) threads = std::vector<Thread>(count);
  kernel = function;
  blockDim.x = count;
  gridDim.x = static_cast<unsigned>(blocks);
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(reversed ? blocks - 1 - block : block);
    shared.assign(bytes / 4 + 8, __builtin_nanf(""));
    float* end = shared_memory() + bytes / 4;
    *end = CANARY;
    run_block(count, reversed);
    if (*end != CANARY) throw std::runtime_error("a kernel wrote beyond its shared memory");
  }
}

}  // namespace cuda_on_host

inline void __syncthreads() { cuda_on_host::wait(0); }
inline void __syncwarp(unsigned mask) { cuda_on_host::wait_warp(mask); }

// Calls function(thread of the warp) once all threads of the mask have put down their value.
template <class Function>
auto cuda_on_host_exchange(unsigned mask, float value, const Function& function) {
  cuda_on_host::threads[threadIdx.x].slot = value;
  cuda_on_host::wait_warp(mask);
  const auto result = function(&cuda_on_host::threads[threadIdx.x / 32 * 32]);
  cuda_on_host::wait_warp(mask);
  return result;
}

inline float __shfl_xor_sync(unsigned mask, float value, int step) {
  const unsigned other = threadIdx.x % 32 ^ step;
  if (!(mask >> other & 1)) throw std::runtime_error("__shfl_xor_sync: a thread is not in the mask");
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
enum { cudaSuccess = 0, cudaDevAttrMaxSharedMemoryPerBlockOptin };
struct cudaFuncAttributes {};
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
  return *value = cuda_on_host::SHARED_LIMIT, cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return cudaSuccess;
}
