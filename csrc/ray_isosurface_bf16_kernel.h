// The field of ray_isosurface with operands in bf16, for one instruction set; see
// ray_isosurface_bf16.cpp. Coordinates are multiplied in fp32, as is the last layer.

#include "simd.h"
#include "bf16_vectors.h"
#include "bf16_layers.h"

// What remains to be done with a block of products: bias and ReLU, then it is an operand again, or
// is summed with the weights of the last layer.
template <int parts>
struct Relu {
  const float* products;      // (32, 32); null: none
  const float* x;             // (32, 4) coordinates, for the first layer; else null
  const float *w0, *w1, *w2;  // (32,) each, their weights
  const float* bias;          // (32,)
  uint16_t* to[parts];        // the tile of the first 16 points
  int64_t next;               // from there to that of the other 16
  const float* last;          // (32,) weights of the last layer; null: there are more layers
  float* sums;                // (32, LANES) of the last layer

  void run(int64_t row, int64_t end) const {
    for (int64_t i = row; i < end; ++i) {
      Vec h[ROW_VECS];
#pragma GCC unroll 8
      for (int v = 0; v < ROW_VECS; ++v) {
        const int64_t j = v * LANES;
        Vec z = load(bias + j);
        if (products)
          z += load(products + i * BLOCK + j);
        else
          z += x[i * 4] * load(w0 + j) + x[i * 4 + 1] * load(w1 + j) + x[i * 4 + 2] * load(w2 + j);
        h[v] = z < 0.0f ? Vec{} : z;  // as PyTorch, NaN stays NaN
      }
      if (!last) {
        store_row<parts>(to, next, i, h);
        continue;
      }
      Vec sum = load(sums + i * LANES);
#pragma GCC unroll 8
      for (int v = 0; v < ROW_VECS; ++v) sum += h[v] * load(last + v * LANES);
      store(sums + i * LANES, sum);
    }
  }
};

// The field's weights: hidden layers as right operands, the others padded with zeros.
template <int parts>
class PackedField {
 public:
  const int64_t width;  // padded

  explicit PackedField(const RayIsosurfaceProblem& p)
      : width(blocks(p.width) * BLOCK),
        layer_(width * width),
        tiles_((parts * (p.layers - 1) * layer_ + 1) / 2),
        rows_((3 + p.layers + 1) * width) {
    const int64_t H = p.width, count = width / BLOCK;
    std::fill(rows_.data(), rows_.data() + rows_.size(), 0.0f);
    for (int64_t i = 0; i < H; ++i) {
      for (int64_t axis = 0; axis < 3; ++axis) first(axis)[i] = p.first_weight[i * 3 + axis];
      bias(0)[i] = p.first_bias[i];
      last()[i] = p.last_weight[i];
    }
    for (int64_t layer = 1; layer < p.layers; ++layer) {
      std::copy_n(p.hidden_bias + (layer - 1) * H, H, bias(layer));
      const float* weight = p.hidden_weight + (layer - 1) * H * H;
      for (int64_t block = 0; block < count; ++block)
        for (int64_t step = 0; step < count; ++step) {
          uint16_t* to[parts];
          for (int part = 0; part < parts; ++part) to[part] = tiles(layer, block, step, part);
          pack_block<parts>(weight + (block * H + step) * BLOCK, H, 0, H - block * BLOCK,
                            H - step * BLOCK, false, to);
        }
    }
  }

  float* first(int64_t axis) const { return rows_.data() + axis * width; }
  float* last() const { return rows_.data() + 3 * width; }
  float* bias(int64_t layer) const { return rows_.data() + (4 + layer) * width; }
  Operand<parts> at(int64_t layer, int64_t block) const {
    Operand<parts> result;
    for (int part = 0; part < parts; ++part) result.part[part] = tiles(layer, block, 0, part);
    return result;
  }

 private:
  int64_t layer_;  // bf16 values
  Buffer tiles_, rows_;

  uint16_t* tiles(int64_t layer, int64_t block, int64_t step, int part) const {
    const int64_t count = width / BLOCK;
    const int64_t layers = tiles_.size() * 2 / parts / layer_;
    return reinterpret_cast<uint16_t*>(tiles_.data()) + (part * layers + layer - 1) * layer_ +
           (block * count + step) * 2 * TILE_SIZE;
  }
};

// The field at up to POINTS points.
template <int parts>
class FieldRun {
 public:
  FieldRun(const RayIsosurfaceProblem& p, const PackedField<parts>& w, Unit& unit, float* scratch)
      : p_(p),
        w_(w),
        unit_(unit),
        x_(scratch),
        products_(x_ + POINTS * 4),
        sums_(products_ + BLOCK * BLOCK),
        memory_(sums_ + POINTS * LANES),
        h_{Activations<parts>(memory_, w.width / BLOCK),
           Activations<parts>(memory_, w.width / BLOCK)} {}

  static int64_t floats(const PackedField<parts>& w) {
    return POINTS * (4 + LANES) + BLOCK * BLOCK + 2 * Activations<parts>::floats(w.width / BLOCK);
  }

  float* x() const { return x_; }  // (POINTS, 4): to be written before `evaluate`

  void evaluate(int64_t count, float* field) {
    std::fill(sums_, sums_ + POINTS * LANES, 0.0f);
    for (int64_t i = 0; i < p_.layers; ++i) layer(i, blocks(count));
    pending_.finish();
    for (int64_t i = 0; i < count; ++i) field[i] = sum(load(sums_ + i * LANES)) + p_.last_bias[0];
  }

 private:
  const RayIsosurfaceProblem& p_;
  const PackedField<parts>& w_;
  Unit& unit_;
  float *x_, *products_, *sums_, *memory_;
  Activations<parts> h_[2];
  Pending<Relu<parts>> pending_;

  void layer(int64_t index, int64_t point_blocks) {
    const Activations<parts>&from = h_[(index + 1) % 2], &to = h_[index % 2];
    const bool last = index == p_.layers - 1;
    if (point_blocks == 1) pending_.finish();
    for (int64_t points = 0; points < point_blocks; ++points)
      for (int64_t block = 0; block < w_.width / BLOCK; ++block) {
        if (index > 0)
          multiply_beside<parts>(unit_, {{from.rows(points), w_.at(index, block), from.steps}},
                                 products_, BLOCK, false, pending_);
        const int64_t at = block * BLOCK;
        Relu<parts> next{index > 0 ? products_ : nullptr,
                         x_ + points * BLOCK * 4,
                         w_.first(0) + at,
                         w_.first(1) + at,
                         w_.first(2) + at,
                         w_.bias(index) + at,
                         {},
                         to.next(),
                         last ? w_.last() + at : nullptr,
                         sums_ + points * BLOCK * LANES};
        to.point_to(points, block, next.to);
        pending_.begin(next);
        if (index == 0) pending_.finish();
      }
  }
};

template <int parts>
static void ray_isosurface_forward_parts(const RayIsosurfaceProblem& p,
                                         const RayIsosurfaceHits& hits, int threads) {
  const PackedField<parts> weights(p);
  const int64_t chunks = (p.rays + RAYS_EACH - 1) / RAYS_EACH;
#pragma omp parallel num_threads(threads)
  {
    Unit unit;
    const int64_t run_floats = FieldRun<parts>::floats(weights);
    float* scratch = thread_scratch(run_floats + RAYS_EACH * p.samples);
    float* field = scratch + run_floats;
    FieldRun<parts> run(p, weights, unit, scratch);
#pragma omp for schedule(dynamic)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t begin = chunk * RAYS_EACH, count = std::min(RAYS_EACH, p.rays - begin);
      const int64_t total = count * p.samples;
      for (int64_t start = 0; start < total; start += POINTS) {
        for (int64_t j = 0; j < POINTS; ++j) {
          const int64_t at = std::min(start + j, total - 1);
          for (int64_t axis = 0; axis < 3; ++axis)
            run.x()[j * 4 + axis] =
                field_coordinate(p, begin + at / p.samples, at % p.samples, axis);
        }
        run.evaluate(std::min(POINTS, total - start), field + start);
      }
      for (int64_t ray = 0; ray < count; ++ray)
        write_hits(p, begin + ray, field + ray * p.samples, hits);
    }
  }
}
