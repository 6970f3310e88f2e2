// The functions of csrc/sm80.h for the host. Copies arrive when the schedule says so, at the latest
// when they are waited for, and until then their place is NaN. Faults can be planted, by name in
// CUDA_ON_HOST_FAULT: a test that does not see one is no test.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#define SEMFACEEDIT_UNROLL
#define SEMFACEEDIT_NO_UNROLL
#define SEMFACEEDIT_UNROLL_FOUR

namespace semfaceedit {
namespace sm80 {

using cuda_on_host::current;

struct Copy {
  unsigned char* to;
  const void* from;
  int bytes;
  long group;
};

struct Lane {
  std::vector<Copy> copies;  // asynchronous ones that have not arrived, oldest first
  long groups = 0;           // closed groups of them
  uint32_t operands[2][6];   // put down for the other threads of the warp
  unsigned turn = 0;
};

// Copies of groups below `end` arrive.
inline void finish_copies(Lane& lane, long end) {
  size_t count = 0;
  for (; count < lane.copies.size() && lane.copies[count].group < end; ++count)
    std::memcpy(lane.copies[count].to, lane.copies[count].from, lane.copies[count].bytes);
  lane.copies.erase(lane.copies.begin(), lane.copies.begin() + count);
}

struct Copies : cuda_on_host::Device {
  std::vector<Lane> lanes;

  Copies() { cuda_on_host::devices.push_back(this); }
  void begin() override { lanes.assign(cuda_on_host::count, Lane{}); }
  void end() override {}
  bool step(bool) override {
    for (Lane& lane : lanes)
      if (!lane.copies.empty() && cuda_on_host::schedule() % 64 == 0)
        finish_copies(lane, lane.copies.front().group + 1);
    return false;  // nobody who waits for copies gives way
  }
};
inline Copies copies;

inline Lane& this_lane() { return copies.lanes[current]; }

inline unsigned char* shared_bytes() {
  return reinterpret_cast<unsigned char*>(cuda_on_host::shared_memory());
}

inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - shared_bytes());
}

inline void copy_async(uint32_t to, const void* from) {
  const int bytes = cuda_on_host::fault("half a piece is copied") ? 8 : 16;
  std::memset(shared_bytes() + to, 0xff, 16);
  this_lane().copies.push_back({shared_bytes() + to, from, bytes, this_lane().groups});
}

inline void prefetch(const void*) {}

inline void close_copies() { ++this_lane().groups; }

template <int pending>
void wait_for_copies() {
  if (cuda_on_host::fault("copies are not waited for")) return;
  const int wanted = cuda_on_host::fault("a group too few is waited for") ? pending + 1 : pending;
  finish_copies(this_lane(), this_lane().groups - wanted);
}

inline void block_sync(const char* what) {
  if (!cuda_on_host::fault((std::string("no barrier: ") + what).c_str()))
    cuda_on_host::wait_block();
}

// What the threads of a warp have put down, once all of them have. Two places in turn: nobody can be
// two exchanges ahead.
struct Operands {
  uint32_t words[6];
};

inline const Lane* exchange(const Operands& mine) {
  Lane& lane = this_lane();
  lane.turn ^= 1;
  std::memcpy(lane.operands[lane.turn], mine.words, sizeof mine.words);
  cuda_on_host::wait_warp(0xffffffffu);
  return &copies.lanes[current / 32 * 32];
}

template <int count>
void load_matrices(uint32_t (&to)[count], uint32_t address) {
  const Lane* warp = exchange({address});
  const unsigned lane = threadIdx.x % 32, turn = this_lane().turn;
  for (int i = 0; i < count; ++i) {
    uint32_t row = warp[8 * i + lane / 4].operands[turn][0];
    if (cuda_on_host::fault("a piece is read from its neighbour's place")) row ^= 16;
    if (row % 16 != 0) throw std::runtime_error("load_matrices: an address is not aligned");
    std::memcpy(&to[i], shared_bytes() + row + lane % 4 * 4, 4);
  }
}

template <int count>
void load_transposed(uint32_t (&to)[count], uint32_t address) {
  const Lane* warp = exchange({address});
  const unsigned lane = threadIdx.x % 32, turn = this_lane().turn;
  const bool plain = cuda_on_host::fault("matrices are not transposed");
  for (int i = 0; i < count; ++i)
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned column = lane / 4, row = lane % 4 * 2 + half;
      const uint32_t at = warp[8 * i + (plain ? column : row)].operands[turn][0];
      if (at % 16 != 0) throw std::runtime_error("load_transposed: an address is not aligned");
      std::memcpy(reinterpret_cast<char*>(&to[i]) + 2 * half,
                  shared_bytes() + at + 2 * (plain ? row : column), 2);
    }
}

inline float half_of(uint32_t packed, int which) {
  const uint16_t bits = static_cast<uint16_t>(packed >> (16 * which));
  _Float16 value;
  std::memcpy(&value, &bits, 2);
  return static_cast<float>(value);
}

inline void multiply(float* d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const Lane* warp = exchange({a[0], a[1], a[2], a[3], b0, b1});
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, turn = this_lane().turn;
  for (unsigned row = 0; row < 2; ++row)
    for (unsigned column = 0; column < 2; ++column) {
      float sum = 0.0f;
      for (unsigned k = 0; k < 8; ++k) {  // pairs of inputs
        const uint32_t x = warp[g * 4 + k % 4].operands[turn][k / 4 * 2 + row];
        const uint32_t y = warp[(2 * t + column) * 4 + k % 4].operands[turn][4 + k / 4];
        sum += half_of(x, 0) * half_of(y, 0) + half_of(x, 1) * half_of(y, 1);
      }
      d[2 * row + column] += sum;
    }
}

inline void keep_order() {}

inline int unknown(int number) { return number; }

inline float add_rounded(float a, float b) {
  volatile float sum = a + b;
  return sum;
}

inline float approximate_sine(float x) { return std::sin(x); }
inline float approximate_cosine(float x) { return std::cos(x); }

inline float larger_magnitude(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return NAN;
  return std::max(a, std::abs(b));
}

inline uint32_t bits_of(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, 4);
  return bits;
}

inline float number_of(uint32_t bits) {
  float number;
  std::memcpy(&number, &bits, 4);
  return number;
}

inline uint32_t pack_halves(float low, float high) {
  const _Float16 values[] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
  uint32_t packed;
  std::memcpy(&packed, values, 4);
  return packed;
}

}  // namespace sm80
}  // namespace semfaceedit
