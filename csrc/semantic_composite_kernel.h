// semantic_composite for one instruction set; see semantic_composite_cpu.cpp.

#include "simd.h"

// Rows of N channels; the last vector of a row is cut off there, and reads stop at `end`.
struct Channels {
  int64_t count;
  const float* end;

  int64_t padded() const { return round_up(count); }

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

static Channels channels_of(const CompositeSizes& s, const float* values) {
  return {s.channels, values + s.rays * s.hits * s.channels};
}

// The first index of each column's largest value; NaN counts as the largest, as in PyTorch.
static void argmax(const float* values, int64_t rows, int64_t columns, int64_t ld,
                   int64_t* result) {
  for (int64_t j = 0; j < columns; j += LANES) {
    Vec best = load(values + j);
    VecInt index{};
    for (int64_t i = 1; i < rows; ++i) {
      const Vec v = load(values + i * ld + j);
      const VecInt better = (v > best) | ((v != v) & (best == best));
      best = better ? v : best;
      index = better ? VecInt{} + static_cast<int32_t>(i) : index;
    }
    for (int64_t i = 0; i < std::min<int64_t>(columns - j, LANES); ++i) result[j + i] = index[i];
  }
}

static void semantic_forward(const CompositeSizes& s, const float* alpha, const float* semantics,
                             int64_t* labels, float* map, int threads) {
  const Channels channels = channels_of(s, semantics);
  const int64_t ld = channels.padded(), ld_hits = round_up(s.hits);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t ray = 0; ray < s.rays; ++ray) {
    float* running = thread_scratch((s.hits + 1) * ld + s.channels * ld_hits);  // (K + 1, N padded)
    float* by_channel = running + (s.hits + 1) * ld;                            // (N, K padded)
    std::fill(running + s.hits * ld, running + (s.hits + 1) * ld, 0.0f);
    for (int64_t k = s.hits - 1; k >= 0; --k) {
      const float a = alpha[ray * s.hits + k], rest = 1.0f - a;
      const float* values = semantics + (ray * s.hits + k) * s.channels;
      float* at = running + k * ld;
      for (int64_t j = 0; j < ld; j += LANES)
        store(at + j, a * channels.read(values, j) + rest * load(at + ld + j));
    }
    transpose(s.hits, s.channels, running, ld, by_channel, ld_hits);
    argmax(by_channel, s.channels, s.hits, ld_hits, labels + ray * s.hits);
    std::copy(running, running + s.channels, map + ray * s.channels);
  }
}

// transmittance_k = prod_{i < k} (1 - alpha_i)
static void transmit(const float* alpha, int64_t hits, float* transmittance) {
  float rest = 1.0f;
  for (int64_t k = 0; k < hits; ++k) {
    transmittance[k] = rest;
    rest *= 1.0f - alpha[k];
  }
}

// With w_k = alpha_k transmittance_k and the gradients of w: those of alpha.
static void grade_alpha(const float* alpha, const float* transmittance, const float* grad_weights,
                        int64_t hits, float* grad_alpha) {
  float behind = 0.0f;  // of what is composited behind hit k
  for (int64_t k = hits - 1; k >= 0; --k) {
    grad_alpha[k] = transmittance[k] * (grad_weights[k] - behind);
    behind = alpha[k] * grad_weights[k] + (1.0f - alpha[k]) * behind;
  }
}

// For each hit of a ray: the dot product of `grad` with its values, and the values' gradient.
static void grade_values(const CompositeSizes& s, const Channels& channels, int64_t ray,
                         const float* grad, const float* values, const float* alpha,
                         const float* transmittance, float* dots, float* grad_values) {
  for (int64_t k = 0; k < s.hits; ++k) {
    const int64_t at = (ray * s.hits + k) * s.channels;
    const float weight = alpha[k] * transmittance[k];
    Vec total{};
    for (int64_t j = 0; j < s.channels; j += LANES) {
      const Vec g = load(grad + j);
      total += g * channels.read(values + at, j);
      if (grad_values) channels.write(grad_values + at, j, g * weight);
    }
    dots[k] = sum(total);
  }
}

static void semantic_backward(const CompositeSizes& s, const float* grad_map, const float* alpha,
                              const float* semantics, float* grad_alpha, float* grad_semantics,
                              int threads) {
  const Channels channels = channels_of(s, semantics);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t ray = 0; ray < s.rays; ++ray) {
    float* grad = thread_scratch(channels.padded() + 2 * s.hits);
    float* transmittance = grad + channels.padded();
    float* dots = transmittance + s.hits;
    const float* from = grad_map + ray * s.channels;
    std::fill(std::copy(from, from + s.channels, grad), grad + channels.padded(), 0.0f);
    transmit(alpha + ray * s.hits, s.hits, transmittance);
    grade_values(s, channels, ray, grad, semantics, alpha + ray * s.hits, transmittance, dots,
                 grad_semantics);
    if (grad_alpha)
      grade_alpha(alpha + ray * s.hits, transmittance, dots, s.hits, grad_alpha + ray * s.hits);
  }
}

static void color_forward(const CompositeSizes& s, const float* alpha, const float* colors,
                          const float* depths, float* color, float* depth, float* weights,
                          int threads) {
  const Channels channels = channels_of(s, colors);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t ray = 0; ray < s.rays; ++ray) {
    float* running = thread_scratch(channels.padded());
    std::fill(running, running + channels.padded(), 0.0f);
    float rest = 1.0f, total = 0.0f, distance = 0.0f;
    for (int64_t k = 0; k < s.hits; ++k) {
      const int64_t hit = ray * s.hits + k;
      const float weight = alpha[hit] * rest;
      const float* values = colors + hit * s.channels;
      for (int64_t j = 0; j < s.channels; j += LANES)
        store(running + j, load(running + j) + weight * channels.read(values, j));
      rest *= 1.0f - alpha[hit];
      total += weight;
      distance += weight * depths[hit];
      weights[hit] = weight;
    }
    std::copy(running, running + s.channels, color + ray * s.channels);
    depth[ray] = total > 0.0f ? distance / total : distance;
  }
}

static void color_backward(const CompositeSizes& s, const ColorGradOutputs& grads,
                           const float* alpha, const float* colors, const float* depths,
                           const float* depth, float* grad_alpha, float* grad_colors,
                           float* grad_depths, int threads) {
  const Channels channels = channels_of(s, colors);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t ray = 0; ray < s.rays; ++ray) {
    float* grad = thread_scratch(channels.padded() + 2 * s.hits);
    float* transmittance = grad + channels.padded();
    float* grad_weights = transmittance + s.hits;
    const int64_t first = ray * s.hits;
    const float* from = grads.color + ray * s.channels;
    std::fill(std::copy(from, from + s.channels, grad), grad + channels.padded(), 0.0f);
    transmit(alpha + first, s.hits, transmittance);
    grade_values(s, channels, ray, grad, colors, alpha + first, transmittance, grad_weights,
                 grad_colors);
    float total = 0.0f;
    for (int64_t k = 0; k < s.hits; ++k) total += alpha[first + k] * transmittance[k];
    const bool seen = total > 0.0f;
    const float grad_depth = seen ? grads.depth[ray] / total : grads.depth[ray];
    const float mean = seen ? depth[ray] : 0.0f;
    for (int64_t k = 0; k < s.hits; ++k) {
      grad_weights[k] += grads.weights[first + k] + grad_depth * (depths[first + k] - mean);
      if (grad_depths) grad_depths[first + k] = grad_depth * alpha[first + k] * transmittance[k];
    }
    if (grad_alpha)
      grade_alpha(alpha + first, transmittance, grad_weights, s.hits, grad_alpha + first);
  }
}
