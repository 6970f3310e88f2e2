// What the units of this CPU reach at most, measured by loops that touch no memory: the floors that
// shares of a peak refer to.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "bf16.h"
#include "bf16_tiles.h"
#include "ops.h"

#if defined(SEMFACEEDIT_BF16)
#include <immintrin.h>
#endif

#define SEMFACEEDIT_KERNEL "peaks_kernel.h"
#include "each_isa.h"
#undef SEMFACEEDIT_KERNEL

#define SEMFACEEDIT_KERNEL "peaks_bf16_kernel.h"
#include "each_bf16.h"

namespace semfaceedit {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Operations per second of all threads together, in the fastest of some runs.
template <typename Loop>
double rate(int threads, const Loop& loop) {
  constexpr int runs = 8;
  constexpr double least = 0.004;  // seconds of a run
  int64_t rounds = int64_t{1} << 10;
  for (;; rounds *= 2) {
    const auto start = std::chrono::steady_clock::now();
    loop(rounds);
    if (seconds_since(start) > least) break;
  }
  double best = 0.0;
  for (int run = 0; run < runs; ++run) {
    int64_t done = 0;
    const auto start = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(threads) reduction(+ : done)
    done += loop(rounds);
    best = std::max(best, static_cast<double>(done) / seconds_since(start));
  }
  return best;
}

}  // namespace

Peaks peaks(Precision precision, int threads) {
  if (precision == Precision::fp32)
    return {rate(threads, [](int64_t n) { return SEMFACEEDIT_DISPATCH(multiply_add_loop, n); }),
            rate(threads, [](int64_t n) { return SEMFACEEDIT_DISPATCH(sine_loop, n); })};
  const bool accurate = precision == Precision::accurate;
  return {
      rate(threads, [=](int64_t n) { return SEMFACEEDIT_DISPATCH_BF16(accurate, bf16_loop, n); }),
      rate(threads,
           [=](int64_t n) { return SEMFACEEDIT_DISPATCH_BF16(accurate, bf16_sine_loop, n); })};
}

}  // namespace semfaceedit
