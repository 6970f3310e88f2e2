// semantic_composite along one ray, worked on by LANES lanes together: the one place for this logic.
//
// Included, without an include guard, in the namespace of the lanes. These are the elements of a CPU
// vector (semantic_composite_kernel.h) or a group of a warp's threads (lane_group.h), and either
// defines
//   Vec, VecInt     a float or an integer for each lane
//   load, store     LANES floats in a row
//   sum             over the lanes, known to all of them
//   sync            lanes see what others stored before
//   Channels        a matrix of `s.channels` columns: read(row, j) and write(row, j, v) lanes from j
//                   on, with zeros or nothing beyond the row
//   write_labels    as Channels::write, of integers
//   Scores          (channels, hits) read LANES hits at a time, from rows of channels

// The first index of each hit's largest value; NaN counts as the largest, as in PyTorch.
template <class Matrix>
SEMFACEEDIT_DEVICE static void argmax(const Matrix& scores, int64_t channels, int64_t hit_count,
                                      int64_t* labels) {
  for (int64_t j = 0; j < hit_count; j += LANES) {
    Vec best = scores.read(0, j);
    VecInt index{};
    for (int64_t i = 1; i < channels; ++i) {
      const Vec v = scores.read(i, j);
      const VecInt better = (v > best) | ((v != v) & (best == best));
      best = better ? v : best;
      index = better ? VecInt{} + static_cast<int32_t>(i) : index;
    }
    write_labels(labels, j, hit_count, index);
  }
}

// Eq. 2, `chunk` hits at a time: C_k = alpha_k s_k + (1 - alpha_k) C_{k+1}, then their labels.
// `mixed` holds min(hits, chunk) rows of `ld` floats, the first one also C of the chunk behind;
// `turned` is what Scores needs.
SEMFACEEDIT_DEVICE static void mask_ray(const CompositeSizes& s, int64_t ray, int64_t chunk,
                                        const float* alpha, const float* semantics, int64_t* labels,
                                        float* map, float* mixed, int64_t ld, float* turned) {
  const Channels values(s, semantics, s.rays * s.hit_count), maps(s, map, s.rays);
  const float* alphas = alpha + ray * s.hit_count;
  const float* rows = semantics + ray * s.hit_count * s.channels;
  for (int64_t j = 0; j < s.channels; j += LANES) store(mixed + j, Vec{});
  for (int64_t end = s.hit_count; end > 0; end -= chunk) {
    const int64_t begin = end > chunk ? end - chunk : 0;
    for (int64_t j = 0; j < s.channels; j += LANES) {
      Vec behind = load(mixed + j);
      for (int64_t k = end - 1; k >= begin; --k) {
        const float a = alphas[k], rest = 1.0f - a;
        behind = a * values.read(rows + k * s.channels, j) + rest * behind;
        store(mixed + (k - begin) * ld + j, behind);
      }
    }
    sync();
    argmax(Scores(mixed, ld, end - begin, s.channels, turned), s.channels, end - begin,
           labels + ray * s.hit_count + begin);
    sync();
  }
  for (int64_t j = 0; j < s.channels; j += LANES)
    maps.write(map + ray * s.channels, j, load(mixed + j));
}

// transmittance_k = prod_{i < k} (1 - alpha_i)
SEMFACEEDIT_DEVICE static void transmit(const float* alpha, int64_t hit_count,
                                        float* transmittance) {
  float rest = 1.0f;
  for (int64_t k = 0; k < hit_count; ++k) {
    transmittance[k] = rest;
    rest *= 1.0f - alpha[k];
  }
}

// With w_k = alpha_k transmittance_k and the gradients of w: those of alpha.
SEMFACEEDIT_DEVICE static void grade_alpha(const float* alpha, const float* transmittance,
                                           const float* grad_weights, int64_t hit_count,
                                           float* grad_alpha) {
  float behind = 0.0f;  // of what is composited behind hit k
  for (int64_t k = hit_count - 1; k >= 0; --k) {
    grad_alpha[k] = transmittance[k] * (grad_weights[k] - behind);
    behind = alpha[k] * grad_weights[k] + (1.0f - alpha[k]) * behind;
  }
}

// Working memory of a backward pass: the incoming gradient in whole vectors, and numbers of each hit.
// All lanes write the same numbers, so none may be read, changed and written back.
struct BackwardScratch {
  float *grad, *transmittance, *dots, *grad_weights;

  SEMFACEEDIT_DEVICE BackwardScratch(float* memory, int64_t padded, int64_t hit_count)
      : grad(memory),
        transmittance(memory + padded),
        dots(transmittance + hit_count),
        grad_weights(dots + hit_count) {}

  static int64_t floats(int64_t padded, int64_t hit_count) { return padded + 3 * hit_count; }
};

// What both backward passes begin with: transmittances, for each hit of the ray the dot product of
// `grad`, the gradient of the composited row, with the hit's values, and the gradient of these.
SEMFACEEDIT_DEVICE static void grade_values(const CompositeSizes& s, int64_t ray, const float* grad,
                                            const float* alpha, const float* values,
                                            float* grad_values, const BackwardScratch& scratch) {
  const Channels grads(s, grad, s.rays), channels(s, values, s.rays * s.hit_count);
  for (int64_t j = 0; j < s.channels; j += LANES)
    store(scratch.grad + j, grads.read(grad + ray * s.channels, j));
  transmit(alpha, s.hit_count, scratch.transmittance);
  for (int64_t k = 0; k < s.hit_count; ++k) {
    const int64_t row = (ray * s.hit_count + k) * s.channels;
    const float weight = alpha[k] * scratch.transmittance[k];
    Vec total{};
    for (int64_t j = 0; j < s.channels; j += LANES) {
      const Vec g = load(scratch.grad + j);
      total += g * channels.read(values + row, j);
      if (grad_values) channels.write(grad_values + row, j, g * weight);
    }
    scratch.dots[k] = sum(total);
  }
}

// Gradients of w C_1 in alpha and semantics; either may be null. The suffix sums of Eq. 2 are never
// formed: their products with the incoming gradient follow the same recurrence.
SEMFACEEDIT_DEVICE static void grade_mask_ray(const CompositeSizes& s, int64_t ray,
                                              const float* grad_map, const float* alpha,
                                              const float* semantics, float* grad_alpha,
                                              float* grad_semantics,
                                              const BackwardScratch& scratch) {
  const float* alphas = alpha + ray * s.hit_count;
  grade_values(s, ray, grad_map, alphas, semantics, grad_semantics, scratch);
  if (grad_alpha)
    grade_alpha(alphas, scratch.transmittance, scratch.dots, s.hit_count,
                grad_alpha + ray * s.hit_count);
}

// Weights, their mean depth, and the weighted sum of colours.
SEMFACEEDIT_DEVICE static void composite_ray(const CompositeSizes& s, int64_t ray,
                                             const float* alpha, const float* colors,
                                             const float* depths, float* color, float* depth,
                                             float* weights) {
  const Channels channels(s, colors, s.rays * s.hit_count), pixels(s, color, s.rays);
  const int64_t first = ray * s.hit_count;
  for (int64_t j = 0; j < s.channels; j += LANES) {
    float rest = 1.0f, total = 0.0f, distance = 0.0f;
    Vec running{};
    for (int64_t k = first; k < first + s.hit_count; ++k) {
      const float weight = alpha[k] * rest;
      running += weight * channels.read(colors + k * s.channels, j);
      rest *= 1.0f - alpha[k];
      total += weight;
      distance += weight * depths[k];
      weights[k] = weight;
    }
    pixels.write(color + ray * s.channels, j, running);
    depth[ray] = total > 0.0f ? distance / total : distance;
  }
}

// Null where a gradient is not needed.
struct ColorGradients {
  float *alpha, *colors, *depths;
};

SEMFACEEDIT_DEVICE static void grade_composite_ray(const CompositeSizes& s, int64_t ray,
                                                   const ColorGradOutputs& grads,
                                                   const float* alpha, const float* colors,
                                                   const float* depths, const float* depth,
                                                   const ColorGradients& to,
                                                   const BackwardScratch& scratch) {
  const int64_t first = ray * s.hit_count;
  const float* alphas = alpha + first;
  grade_values(s, ray, grads.color, alphas, colors, to.colors, scratch);
  float total = 0.0f;
  for (int64_t k = 0; k < s.hit_count; ++k) total += alphas[k] * scratch.transmittance[k];
  const bool seen = total > 0.0f;
  const float grad_depth = seen ? grads.depth[ray] / total : grads.depth[ray];
  const float mean = seen ? depth[ray] : 0.0f;
  for (int64_t k = 0; k < s.hit_count; ++k) {
    scratch.grad_weights[k] =
        scratch.dots[k] + grads.weights[first + k] + grad_depth * (depths[first + k] - mean);
    if (to.depths) to.depths[first + k] = grad_depth * alphas[k] * scratch.transmittance[k];
  }
  if (to.alpha)
    grade_alpha(alphas, scratch.transmittance, scratch.grad_weights, s.hit_count, to.alpha + first);
}
