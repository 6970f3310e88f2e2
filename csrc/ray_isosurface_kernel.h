// ray_isosurface for one instruction set; see ray_isosurface_cpu.cpp.

#include "simd.h"

static void relu(int64_t rows, int64_t columns, float* h, int64_t ld) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i * ld; j < i * ld + columns; j += LANES) {
      const Vec v = load(h + j);
      store(h + j, v < 0.0f ? Vec{} : v);  // as PyTorch, NaN stays NaN
    }
}

// Column j of x (3, ld): a point on a ray in the field's coordinates.
static inline void put_coordinates(const RayIsosurfaceProblem& p, int64_t ray, int64_t sample,
                                   float* x, int64_t ld, int64_t j) {
  for (int64_t axis = 0; axis < 3; ++axis)
    x[axis * ld + j] = field_coordinate(p, ray, sample, axis);
}

// The field at the columns of x (3, ld). Layer l writes its activations at h + l * step.
static void evaluate(const RayIsosurfaceProblem& p, const float* x, int64_t columns, int64_t ld,
                     float* h, int64_t step, float* field) {
  const int64_t H = p.width;
  multiply<false>(H, 3, columns, p.first_weight, 3, x, ld, h, ld, p.first_bias);
  relu(H, columns, h, ld);
  for (int64_t layer = 1; layer < p.layers; ++layer) {
    const float* input = h + (layer - 1) * step;
    float* output = h + layer * step;
    multiply<false>(H, H, columns, p.hidden_weight + (layer - 1) * H * H, H, input, ld, output, ld,
                    p.hidden_bias + (layer - 1) * H);
    relu(H, columns, output, ld);
  }
  multiply<false>(1, H, columns, p.last_weight, H, h + (p.layers - 1) * step, ld, field, ld,
                  p.last_bias);
}

// The field at every sample of `count` rays from `begin` on, ray by ray.
static void sample_rays(const RayIsosurfaceProblem& p, int64_t begin, int64_t count, float* scratch,
                        float* field) {
  const int64_t total = count * p.samples, size = p.width * TILE;
  float* x = scratch;  // (3, TILE)
  float* h = x + 3 * TILE;
  for (int64_t start = 0; start < total; start += TILE) {
    const int64_t columns = std::min(TILE, total - start);
    for (int64_t j = 0; j < TILE; ++j) {
      const int64_t at = std::min(start + j, total - 1);
      put_coordinates(p, begin + at / p.samples, at % p.samples, x, TILE, j);
    }
    evaluate(p, x, round_up(columns), TILE, h, size, field + start);
  }
}

static int64_t forward_scratch(const RayIsosurfaceProblem& p) {
  return 3 * TILE + p.layers * p.width * TILE + RAYS_EACH * p.samples + TILE;
}

static void ray_isosurface_forward(const RayIsosurfaceProblem& p, const RayIsosurfaceHits& hits,
                                   int threads) {
  const int64_t chunks = (p.rays + RAYS_EACH - 1) / RAYS_EACH;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    float* scratch = thread_scratch(forward_scratch(p));
    const int64_t begin = chunk * RAYS_EACH, count = std::min(RAYS_EACH, p.rays - begin);
    float* field = scratch + 3 * TILE + p.layers * p.width * TILE;
    sample_rays(p, begin, count, scratch, field);
    for (int64_t ray = 0; ray < count; ++ray)
      write_hits(p, begin + ray, field + ray * p.samples, hits);
  }
}

// Where a part's sums of weight gradients begin; biases are matrices of one row.
struct FieldSums {
  float *first_weight, *first_bias, *hidden_weight, *hidden_bias, *last_weight, *last_bias;
};

// Whole rays' samples that carry gradient, gathered as the columns of a tile.
class SampleTile {
 public:
  SampleTile(const RayIsosurfaceProblem& p, const RayIsosurfaceGradients& gradients,
             const FieldSums* sums)
      : p_(p),
        gradients_(gradients),
        sums_(sums),
        ld_(round_up(std::max(TILE, std::min(p.samples, 2 * (p.hit_count - 1))))),
        ld_points_(round_up(std::max<int64_t>(p.width, 3))),
        column_of_(p.samples, -1) {
    x_ = thread_scratch((2 * 3 + 2 + (p.layers + 2) * p.width + ld_points_) * ld_);
    dx_ = x_ + 3 * ld_;
    field_ = dx_ + 3 * ld_;
    grad_field_ = field_ + ld_;
    h_ = grad_field_ + ld_;
    dh_ = h_ + p.layers * p.width * ld_;
    dz_ = dh_ + p.width * ld_;
    points_ = dz_ + p.width * ld_;
  }

  // `grads`: as `grade_ray` leaves them.
  void add_ray(int64_t ray, const RayIsosurfaceGradHits& hits, const float* grads) {
    int64_t before = count();
    if (!gather(ray, hits, grads)) {
      forget_columns(before);
      columns_.resize(before);
      flush();
      before = 0;
      gather(ray, hits, grads);
    }
    forget_columns(before);
  }

  void flush() {
    if (columns_.empty()) return;
    const int64_t padded = round_up(count());
    for (int64_t j = 0; j < padded; ++j) {
      const Column& column = columns_[std::min(j, count() - 1)];
      put_coordinates(p_, column.ray, column.sample, x_, ld_, j);
    }
    evaluate(p_, x_, padded, ld_, h_, p_.width * ld_, field_);
    grade_field(padded);
    backward(padded);
    columns_.clear();
    crossings_.clear();
  }

 private:
  struct Column {
    int64_t ray, sample;
  };
  struct Crossing {
    float level, grad;  // grad: of the place within the interval
    int64_t a, b;       // columns
  };

  int64_t count() const { return static_cast<int64_t>(columns_.size()); }

  int64_t column(int64_t ray, int64_t sample) {
    if (column_of_[sample] < 0) {
      column_of_[sample] = count();
      columns_.push_back({ray, sample});
    }
    return column_of_[sample];
  }

  bool gather(int64_t ray, const RayIsosurfaceGradHits& hits, const float* grads) {
    const size_t crossings = crossings_.size();
    for (int64_t k = 0; k < p_.hit_count; ++k) {
      const int64_t hit = ray * p_.hit_count + k;
      if (grads[k] == 0.0f) continue;
      const int64_t a = hits.interval[hit];
      const int64_t column_a = column(ray, a), column_b = column(ray, a + 1);
      crossings_.push_back({p_.levels[hits.level[hit]], grads[k], column_a, column_b});
    }
    if (count() <= ld_) return true;
    crossings_.resize(crossings);
    return false;
  }

  void forget_columns(int64_t from) {
    for (int64_t j = from; j < count(); ++j) column_of_[columns_[j].sample] = -1;
  }

  void grade_field(int64_t padded) {
    std::fill(grad_field_, grad_field_ + padded, 0.0f);
    for (const Crossing& crossing : crossings_) {
      const IntervalGrads grads =
          grade_crossing(crossing.level, field_[crossing.a], field_[crossing.b], crossing.grad);
      grad_field_[crossing.a] += grads.a;
      grad_field_[crossing.b] += grads.b;
    }
  }

  // sums (rows, depth padded) += grad (rows, padded) input (depth, padded)^T
  void add_weights(int64_t rows, const float* grad, int64_t depth, const float* input,
                   int64_t padded, float* weight, float* bias) {
    if (!sums_) return;
    const int64_t ld = round_up(depth);
    transpose(depth, padded, input, ld_, points_, ld);
    multiply<false>(rows, padded, ld, grad, ld_, points_, ld, weight, ld, nullptr, true);
    for (int64_t i = 0; i < rows; ++i) {
      Vec total{};
      for (int64_t j = 0; j < padded; j += LANES) total += load(grad + i * ld_ + j);
      bias[i] += sum(total);
    }
  }

  // dz = dh except where the layer's output is zero
  void through_relu(int64_t layer, int64_t padded) {
    const float* h = h_ + layer * p_.width * ld_;
    for (int64_t i = 0; i < p_.width * ld_; i += ld_)
      for (int64_t j = i; j < i + padded; j += LANES) {
        const Vec grad = load(dh_ + j);
        store(dz_ + j, load(h + j) <= 0.0f ? Vec{} : grad);
      }
  }

  void backward(int64_t padded) {
    const int64_t H = p_.width, last = p_.layers - 1;
    const auto h = [&](int64_t layer) { return h_ + layer * H * ld_; };
    const FieldSums none{};
    const FieldSums& to = sums_ ? *sums_ : none;
    add_weights(1, grad_field_, H, h(last), padded, to.last_weight, to.last_bias);
    multiply<true>(H, 1, padded, p_.last_weight, H, grad_field_, ld_, dh_, ld_);
    for (int64_t layer = last; layer > 0; --layer) {
      through_relu(layer, padded);
      const int64_t at = layer - 1;
      add_weights(H, dz_, H, h(at), padded, to.hidden_weight + at * H * round_up(H),
                  to.hidden_bias + at * H);
      multiply<true>(H, H, padded, p_.hidden_weight + at * H * H, H, dz_, ld_, dh_, ld_);
    }
    through_relu(0, padded);
    add_weights(H, dz_, 3, x_, padded, to.first_weight, to.first_bias);
    if (gradients_.origins || gradients_.directions) add_coordinates(padded);
  }

  void add_coordinates(int64_t padded) {
    multiply<true>(3, p_.width, padded, p_.first_weight, 3, dz_, ld_, dx_, ld_);
    for (int64_t j = 0; j < count(); ++j) {
      const float distance = p_.distances[columns_[j].sample];
      for (int64_t axis = 0; axis < 3; ++axis) {
        const float grad = dx_[axis * ld_ + j] * p_.scale;
        const int64_t at = columns_[j].ray * 3 + axis;
        if (gradients_.origins) gradients_.origins[at] += grad;
        if (gradients_.directions) gradients_.directions[at] += grad * distance;
      }
    }
  }

  const RayIsosurfaceProblem& p_;
  const RayIsosurfaceGradients& gradients_;
  const FieldSums* sums_;
  int64_t ld_, ld_points_;
  std::vector<int64_t> column_of_;  // a sample of the current ray -> its column, or -1
  std::vector<Column> columns_;
  std::vector<Crossing> crossings_;
  float *x_, *dx_;              // (3, ld)
  float *field_, *grad_field_;  // (ld,)
  float* h_;                    // (D, H, ld)
  float *dh_, *dz_;             // (H, ld)
  float* points_;               // (ld, H padded)
};

static void ray_isosurface_backward(const RayIsosurfaceProblem& p,
                                    const RayIsosurfaceGradHits& hits,
                                    const RayIsosurfaceGradients& gradients, int threads) {
  const int64_t H = p.width, D = p.layers;
  int64_t size = 0;  // of a part's sums
  const auto sum_of = [&](int64_t rows, int64_t columns, bool pad, float* result) {
    const MatrixSum matrix{rows, columns, pad ? round_up(columns) : columns, size, result};
    size += rows * matrix.padded;
    return matrix;
  };
  const MatrixSum first = sum_of(H, 3, true, gradients.first_weight);
  const MatrixSum first_bias = sum_of(1, H, false, gradients.first_bias);
  const MatrixSum hidden = sum_of((D - 1) * H, H, true, gradients.hidden_weight);
  const MatrixSum hidden_bias = sum_of(D - 1, H, false, gradients.hidden_bias);
  const MatrixSum last = sum_of(1, H, true, gradients.last_weight);
  const MatrixSum last_bias = sum_of(1, 1, false, gradients.last_bias);
  const MatrixSum matrices[] = {first, first_bias, hidden, hidden_bias, last, last_bias};
  const bool weights = std::any_of(std::begin(matrices), std::end(matrices),
                                   [](const MatrixSum& matrix) { return matrix.result; });
  if (!weights) size = 0;

  const int64_t chunks = (p.rays + RAYS_EACH - 1) / RAYS_EACH;
  const Partition parts = partition(chunks, size);
  const Buffer weight_sums(parts.parts * size);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t part = 0; part < parts.parts; ++part) {
    float* base = weight_sums.data() + part * size;
    std::fill(base, base + size, 0.0f);
    const FieldSums sums{base + first.offset,  base + first_bias.offset,
                         base + hidden.offset, base + hidden_bias.offset,
                         base + last.offset,   base + last_bias.offset};
    SampleTile tile(p, gradients, weights ? &sums : nullptr);
    std::vector<float> grads(p.hit_count);
    const int64_t end = std::min(p.rays, parts.end(part) * RAYS_EACH);
    for (int64_t ray = parts.begin(part) * RAYS_EACH; ray < end; ++ray) {
      grade_ray(p, ray, hits, gradients, grads.data());
      tile.add_ray(ray, hits, grads.data());
    }
    tile.flush();
  }
  if (weights)
    for (const MatrixSum& matrix : matrices)
      add_parts(matrix, weight_sums.data(), size, parts.parts, threads);
}
