// The threads of a cluster of blocks as coroutines that give way where they wait for each other; in
// between they run one after another, from the last to the first if CUDA_ON_HOST_REVERSED is set: a
// missing barrier then changes results. With CUDA_ON_HOST_SEED=number, warps stall at random, one thread
// goes on only where nothing else can, and what is asynchronous is done at random, else as late as can
// be. Shared memory begins as NaN, and
// its end is watched. CUDA_ON_HOST_FAULT plants a fault by name.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

struct CudaOnHostIndex {
  unsigned x;
};
inline CudaOnHostIndex threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {

constexpr size_t STACK = 64 * 1024;
constexpr float CANARY = 12345.678f;
constexpr size_t ALIGNMENT = 1024;  // of shared memory, bytes

struct Thread {
  std::unique_ptr<char[]> stack{new char[STACK]};
  jmp_buf place;  // where it goes on
  bool started, finished, waiting;
  std::function<bool()> ready;  // if not null: it goes on once this is true
  float slot;                   // put down for the other threads of its warp
};

inline std::vector<Thread> threads;  // of all blocks of a cluster, block by block
inline unsigned current, count;      // the thread that runs; threads of all these blocks
inline std::function<void()> kernel;
inline std::exception_ptr failure;
inline jmp_buf scheduler;
inline std::mt19937 schedule;  // random numbers that decide who goes on
inline std::string planted_fault;
inline std::vector<std::vector<float>> shared;  // by block

// Whether this fault is planted.
inline bool fault(const char* name) { return planted_fault == name; }

// The number of the running thread's block in its cluster.
inline unsigned block_rank() { return current / blockDim.x; }

inline float* shared_memory(unsigned block) {
  const auto first = reinterpret_cast<uintptr_t>(shared[block].data());
  return reinterpret_cast<float*>((first + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}
inline float* shared_memory() { return shared_memory(block_rank()); }

// Hardware beside the threads: what it does, and what must hold when a cluster begins and ends.
struct Device {
  virtual void begin() = 0;
  virtual bool step(bool forced) = 0;  // whether it did something; it must if it can when forced
  virtual void end() = 0;
};
inline std::vector<Device*> devices;

// swapcontext without its two system calls.
inline void give_way() {
  if (_setjmp(threads[current].place) == 0) _longjmp(scheduler, 1);
}

inline void wait_until(std::function<bool()> ready) {
  if (ready()) return;
  threads[current].ready = std::move(ready);
  give_way();
}

// Threads at a barrier: of a block if `mask` is 0, else of a warp.
struct Gathering {
  unsigned first, size, mask;
  std::vector<unsigned> waiting;
};
inline std::unordered_map<uint64_t, Gathering> gatherings;

// Lets go on who waits if all threads that have not ended are there.
inline void release_if_complete(Gathering& at) {
  unsigned missing = at.mask == 0 ? at.size : __builtin_popcount(at.mask);
  missing -= static_cast<unsigned>(at.waiting.size());
  for (unsigned i = 0; missing != 0 && i < at.size; ++i)
    if ((at.mask == 0 || (at.mask >> i & 1)) && threads[at.first + i].finished) --missing;
  if (missing != 0) return;
  for (unsigned thread : at.waiting) threads[thread].waiting = false;
  at.waiting.clear();
}

inline void wait_among(unsigned first, unsigned size, unsigned mask) {
  const uint64_t key = (static_cast<uint64_t>(first) << 32) + mask;
  auto [place, fresh] = gatherings.try_emplace(key);
  if (fresh) place->second = Gathering{first, size, mask, {}};
  place->second.waiting.push_back(current);
  threads[current].waiting = true;
  release_if_complete(place->second);
  give_way();
}

inline void wait_block() { wait_among(block_rank() * blockDim.x, blockDim.x, 0); }
inline void wait_warp(unsigned mask) { wait_among(current / 32 * 32, 32, mask); }

inline void run_thread() {
  try {
    kernel();
  } catch (...) {
    failure = std::current_exception();
  }
  threads[current].finished = true;
  for (auto& [key, gathering] : gatherings)
    if (!gathering.waiting.empty()) release_if_complete(gathering);
  _longjmp(scheduler, 1);
}

inline void go_on(Thread& thread) {
  if (_setjmp(scheduler) != 0) return;
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = thread.stack.get();
  context.uc_stack.ss_size = STACK;
  makecontext(&context, run_thread, 0);
  setcontext(&context);
}

inline void run_cluster(unsigned first_block, bool reversed, bool random) {
  for (unsigned i = 0; i < count; ++i) {
    threads[i].started = threads[i].finished = threads[i].waiting = false;
    threads[i].ready = nullptr;
  }
  gatherings.clear();
  for (Device* device : devices) device->begin();
  const unsigned late = random ? (schedule() % (count / 32) + 1) * 32 - 1 : count;
  bool now_the_late = false;
  for (bool left = true; left;) {
    left = false;
    bool moved = false, stalled = false, held_back = false;
    unsigned stalls = random ? schedule() : 0;  // a bit a warp, some of the time
    if (schedule() % 4 == 0) stalls = 0;
    for (unsigned i = 0; i < count; ++i) {
      current = reversed ? count - 1 - i : i;
      Thread& thread = threads[current];
      left |= !thread.finished;
      if (thread.finished || thread.waiting || (thread.ready && !thread.ready())) continue;
      if (current == late && !now_the_late) {
        held_back = true;
        continue;
      }
      if (stalls >> (current / 32 % 32) & 1) {
        stalled = true;
        continue;
      }
      thread.ready = nullptr;
      threadIdx.x = current % blockDim.x;
      blockIdx.x = first_block + block_rank();
      go_on(thread);
      if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
      moved = true;
    }
    const bool forced = !moved && !stalled;
    for (Device* device : devices) moved |= (random || forced) && device->step(forced);
    now_the_late = held_back && forced && !moved;
    if (left && forced && !moved && !held_back)
      throw std::runtime_error("threads wait for what never comes");
  }
  for (Device* device : devices) device->end();
}

// Runs `function` as so many blocks of so many threads, `together` blocks at a time.
inline void run(const std::function<void()>& function, int64_t blocks, int block_threads,
                int64_t bytes, int together) {
  const bool reversed = std::getenv("CUDA_ON_HOST_REVERSED") != nullptr;
  const char *seed = std::getenv("CUDA_ON_HOST_SEED"), *fault = std::getenv("CUDA_ON_HOST_FAULT");
  schedule.seed(seed ? std::strtoul(seed, nullptr, 10) : 0);
  planted_fault = fault ? fault : "";
  count = static_cast<unsigned>(together * block_threads);
  if (threads.size() < count) threads = std::vector<Thread>(count);
  kernel = function;
  blockDim.x = static_cast<unsigned>(block_threads);
  gridDim.x = static_cast<unsigned>(blocks);
  const int64_t clusters = blocks / together;
  for (int64_t cluster = 0; cluster < clusters; ++cluster) {
    shared.assign(together, std::vector<float>(bytes / 4 + ALIGNMENT / 4 + 1, __builtin_nanf("")));
    for (int block = 0; block < together; ++block) shared_memory(block)[bytes / 4] = CANARY;
    const int64_t first = (reversed ? clusters - 1 - cluster : cluster) * together;
    run_cluster(static_cast<unsigned>(first), reversed, seed != nullptr);
    for (int block = 0; block < together; ++block)
      if (shared_memory(block)[bytes / 4] != CANARY)
        throw std::runtime_error("a kernel wrote beyond its shared memory");
  }
}

}  // namespace cuda_on_host
