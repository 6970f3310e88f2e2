// Loops that keep a unit busy from its registers alone, for one instruction set; see peaks.cpp.

#include "simd.h"
#include "sine.h"

// Multiplications and additions done.
static int64_t multiply_add_loop(int64_t rounds) {
  constexpr int sums = LANES == 4 ? 8 : 12;
  Vec acc[sums];
  for (int i = 0; i < sums; ++i) acc[i] = splat(static_cast<float>(i));
  Vec a = splat(0.999f), b = splat(0.5f);
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : "+x"(a), "+x"(b));  // not known to the compiler
#pragma GCC unroll 12
    for (int i = 0; i < sums; ++i) acc[i] = acc[i] * a + b;
  }
  for (int i = 0; i < sums; ++i) asm volatile("" : : "x"(acc[i]));
  return rounds * sums * 2 * LANES;
}

// Sines done.
static int64_t sine_loop(int64_t rounds) {
  constexpr int at_once = 4;
  Vec x = splat(1.0f);
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 4
    for (int i = 0; i < at_once; ++i) {
      asm volatile("" : "+x"(x));
      const Vec result = sin_of(reduce(x));
      asm volatile("" : : "x"(result));
    }
  return rounds * at_once * LANES;
}
