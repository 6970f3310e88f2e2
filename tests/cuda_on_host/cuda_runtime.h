// CUDA's execution model on the host, as far as csrc/*.cu use it, so that tests run those files as
// they are without a GPU. The threads of a block are coroutines that give way at barriers; between
// barriers they run one after another, from the last to the first if CUDA_ON_HOST_REVERSED is set: a
// missing barrier then changes results. With CUDA_ON_HOST_SEED=number, warps stall at random and
// asynchronous copies arrive at random. Shared memory begins as NaN, and its end is watched.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
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
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline CudaOnHostIndex threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {

constexpr size_t STACK = 64 * 1024;
constexpr int64_t SHARED_LIMIT = 227 * 1024;  // bytes, of compute capability 9.0
constexpr float CANARY = 12345.678f;

struct Copy {
  unsigned char* to;
  const void* from;
  int bytes;
  long group;
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  bool finished, waiting;
  uint64_t barrier;  // the threads it waits for: 0 for the block, else the warp and a mask
  float slot;
  std::vector<Copy> copies;  // asynchronous ones that have not arrived, oldest first
  long groups;               // closed groups of them
  uint32_t operands[2][6];   // put down for the other threads of the warp
  unsigned turn;
};

inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline unsigned current;
inline std::vector<float> shared;
inline float* shared_memory() {
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(shared.data()) + 127) / 128 * 128);
}
inline std::mt19937 schedule;  // random numbers that decide who goes on

inline std::string planted_fault;  // of CUDA_ON_HOST_FAULT

// Whether this fault is planted.
inline bool fault(const char* name) { return planted_fault == name; }

// Copies of groups below `end` arrive.
inline void finish_copies(Thread& thread, long end) {
  size_t count = 0;
  for (; count < thread.copies.size() && thread.copies[count].group < end; ++count)
    std::memcpy(thread.copies[count].to, thread.copies[count].from, thread.copies[count].bytes);
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + count);
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

// Threads that wait at the same barrier, and how many must come.
struct Gathering {
  unsigned waiting = 0, finished = 0;
};

inline unsigned members(uint64_t barrier, unsigned count) {
  return barrier == 0 ? count : __builtin_popcount(static_cast<unsigned>(barrier));
}

// Lets go on whoever waits at a barrier that all its threads that have not ended have reached.
inline bool release(unsigned count) {
  std::map<uint64_t, Gathering> barriers;
  for (unsigned i = 0; i < count; ++i)
    if (threads[i].waiting) ++barriers[threads[i].barrier].waiting;
  for (auto& [barrier, gathering] : barriers)
    for (unsigned i = 0; i < count; ++i)
      if (threads[i].finished &&
          (barrier == 0 || (i / 32 + 1 == barrier >> 32 && (barrier >> (i % 32) & 1))))
        ++gathering.finished;
  bool any = false;
  for (unsigned i = 0; i < count; ++i) {
    if (!threads[i].waiting) continue;
    const Gathering& at = barriers[threads[i].barrier];
    if (at.waiting + at.finished < members(threads[i].barrier, count)) continue;
    threads[i].waiting = false;
    any = true;
  }
  return any;
}

inline void run_block(unsigned count, bool reversed) {
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.finished = thread.waiting = false;
    thread.copies.clear();
    thread.groups = thread.turn = 0;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = STACK;
    makecontext(&thread.context, run_thread, 0);
  }
  const bool random = std::getenv("CUDA_ON_HOST_SEED") != nullptr;
  for (bool any = true; any;) {
    any = false;
    bool moved = false, stalled = false;
    unsigned stalls = random ? schedule() : 0;  // a bit a warp, some of the time
    if (schedule() % 4 == 0) stalls = 0;
    for (unsigned i = 0; i < count; ++i) {
      current = reversed ? count - 1 - i : i;
      Thread& thread = threads[current];
      any |= !thread.finished;
      if (thread.finished || thread.waiting) continue;
      if (stalls >> (current / 32 % 32) & 1) {
        stalled = true;
        continue;
      }
      threadIdx.x = current;
      swapcontext(&scheduler, &thread.context);
      moved = true;
      if (random && !thread.copies.empty() && schedule() % 64 == 0)
        finish_copies(thread, thread.copies.front().group + 1);
    }
    const bool released = release(count);
    if (any && !moved && !stalled && !released)
      throw std::runtime_error("threads wait at different barriers");
  }
}

inline void run(const std::function<void()>& function, int64_t blocks, int count, int64_t bytes) {
  const bool reversed = std::getenv("CUDA_ON_HOST_REVERSED") != nullptr;
  const char *seed = std::getenv("CUDA_ON_HOST_SEED"), *fault = std::getenv("CUDA_ON_HOST_FAULT");
  schedule.seed(seed ? std::strtoul(seed, nullptr, 10) : 0);
  planted_fault = fault ? fault : "";
  if (threads.size() < static_cast<size_t>(count)) threads = std::vector<Thread>(count);
  kernel = function;
  blockDim.x = count;
  gridDim.x = static_cast<unsigned>(blocks);
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(reversed ? blocks - 1 - block : block);
    shared.assign(bytes / 4 + 40, __builtin_nanf(""));
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
enum { cudaSuccess = 0, cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount };
struct cudaFuncAttributes {};
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int attribute, int) {
  const bool memory = attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin;
  return *value = memory ? cuda_on_host::SHARED_LIMIT : 3, cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return cudaSuccess;
}
