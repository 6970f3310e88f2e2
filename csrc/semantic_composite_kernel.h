// semantic_composite for one instruction set; see semantic_composite_cpu.cpp.

#include "simd.h"

static inline void sync() {}

// The last vector of a row is cut off at its end, and nothing is read from `end` on.
struct Channels {
  int64_t count;
  const float* end;

  Channels(const CompositeSizes& s, const float* values, int64_t rows)
      : count(s.channels), end(values + rows * s.channels) {}

  Vec read(const float* row, int64_t j) const {
    const int64_t rest = count - j;
    if (rest >= LANES) return load(row + j);
    if (row + j + LANES <= end) return lanes() < static_cast<int32_t>(rest) ? load(row + j) : Vec{};
    Vec v{};
    std::memcpy(&v, row + j, rest * sizeof(float));
    return v;
  }

  void write(float* row, int64_t j, Vec v) const {
    if (count - j >= LANES) {
      store(row + j, v);
    } else {
      for (int64_t i = 0; i < count - j; ++i) row[j + i] = v[i];
    }
  }

  static VecInt lanes() {
    VecInt index;
    for (int i = 0; i < LANES; ++i) index[i] = i;
    return index;
  }
};

static inline void write_labels(int64_t* labels, int64_t j, int64_t hit_count, VecInt index) {
  for (int64_t i = 0; i < std::min<int64_t>(hit_count - j, LANES); ++i) labels[j + i] = index[i];
}

// Rows of channels, turned into rows of hits.
struct Scores {
  const float* turned;
  int64_t ld;

  Scores(const float* mixed, int64_t ld_mixed, int64_t hit_count, int64_t channels, float* memory)
      : turned(memory), ld(round_up(hit_count)) {
    transpose(hit_count, channels, mixed, ld_mixed, memory, ld);
  }

  Vec read(int64_t channel, int64_t hit) const { return load(turned + channel * ld + hit); }
};

#include "semantic_composite_ray.h"

static void semantic_forward(const CompositeSizes& s, const float* alpha, const float* semantics,
                             int64_t* labels, float* map, int threads) {
  const int64_t ld = round_up(s.channels), size = (s.hit_count + 1) * ld;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t ray = 0; ray < s.rays; ++ray) {
    float* mixed = thread_scratch(size + s.channels * round_up(s.hit_count));
    mask_ray(s, ray, s.hit_count, alpha, semantics, labels, map, mixed, ld, mixed + size);
  }
}

static BackwardScratch backward_scratch(const CompositeSizes& s) {
  const int64_t padded = round_up(s.channels);
  return {thread_scratch(BackwardScratch::floats(padded, s.hit_count)), padded, s.hit_count};
}

static void semantic_backward(const CompositeSizes& s, const float* grad_map, const float* alpha,
                              const float* semantics, float* grad_alpha, float* grad_semantics,
                              int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t ray = 0; ray < s.rays; ++ray)
    grade_mask_ray(s, ray, grad_map, alpha, semantics, grad_alpha, grad_semantics,
                   backward_scratch(s));
}

static void color_forward(const CompositeSizes& s, const float* alpha, const float* colors,
                          const float* depths, float* color, float* depth, float* weights,
                          int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t ray = 0; ray < s.rays; ++ray)
    composite_ray(s, ray, alpha, colors, depths, color, depth, weights);
}

static void color_backward(const CompositeSizes& s, const ColorGradOutputs& grads,
                           const float* alpha, const float* colors, const float* depths,
                           const float* depth, float* grad_alpha, float* grad_colors,
                           float* grad_depths, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t ray = 0; ray < s.rays; ++ray)
    grade_composite_ray(s, ray, grads, alpha, colors, depths, depth,
                        {grad_alpha, grad_colors, grad_depths}, backward_scratch(s));
}
