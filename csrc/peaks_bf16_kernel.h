// Loops that keep a unit with bf16 products busy from its registers alone; see peaks.cpp.

#include "simd.h"
#include "bf16_vectors.h"
#include "sine_turns.h"

template <int parts>
static int64_t bf16_loop(int64_t rounds) {
  Unit unit;
  return unit.busy(rounds) / (parts == 2 ? 3 : 1);  // two parts take three products
}

template <int parts>
static int64_t bf16_sine_loop(int64_t rounds) {
  constexpr int at_once = 4;
  Vec x = splat(1.0f);
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 4
    for (int i = 0; i < at_once; ++i) {
      asm volatile("" : "+x"(x));
      const Vec result = sin_turns<parts>(turns(x));
      asm volatile("" : : "x"(result));
    }
  return rounds * at_once * LANES;
}
