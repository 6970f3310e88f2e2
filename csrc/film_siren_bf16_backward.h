// The backward pass of film_siren with operands in bf16, for one instruction set; see
// film_siren_bf16.cpp.
//
// A tile's layers are evaluated again, then its gradients go back through them as they came: points
// are rows. Weight gradients are sums over points, for which each operand is brought into the order
// of the unit once per tile and layer.

// Through a layer's FiLM: the gradient of its output to that of the products, and what the
// frequencies and phases receive.
template <int parts>
struct FilmBack {
  const float* products;        // (32, 32): the gradient
  const float* kept;            // see `keep`
  const float* frequency;       // (32,)
  float *frequencies, *phases;  // (32,) sums over points; the former without the bias
  uint16_t* to[parts];          // the tile of the first 16 points
  int64_t next;                 // from there to that of the other 16

  void run(int64_t row, int64_t end) const {
    Vec frequency_sums[ROW_VECS], phase_sums[ROW_VECS];
#pragma GCC unroll 8
    for (int v = 0; v < ROW_VECS; ++v) {
      frequency_sums[v] = load(frequencies + v * LANES);
      phase_sums[v] = load(phases + v * LANES);
    }
    for (int64_t i = row; i < end; ++i) {
      Vec dz[ROW_VECS];
#pragma GCC unroll 8
      for (int v = 0; v < ROW_VECS; ++v) {
        const int64_t j = v * LANES;
        Vec z, cosine;
        recall<parts>(kept, i * BLOCK + j, &z, &cosine);
        const Vec grad = load(products + i * BLOCK + j) * cosine;
        phase_sums[v] += grad;
        frequency_sums[v] += grad * z;
        dz[v] = grad * load(frequency + j);
      }
      store_row<parts>(to, next, i, dz);
    }
#pragma GCC unroll 8
    for (int v = 0; v < ROW_VECS; ++v) {
      store(frequencies + v * LANES, frequency_sums[v]);
      store(phases + v * LANES, phase_sums[v]);
    }
  }
};

// Activations as operands of sums over points: on the right as they are, on the left transposed.
template <int parts>
struct OverPoints {
  uint16_t *right[parts], *left[parts];
  int64_t steps = 0;  // blocks of points

  static int64_t floats(int64_t columns) { return 2 * parts * POINTS * columns / 2; }

  OverPoints(float*& scratch, int64_t columns) {
    for (int part = 0; part < parts; ++part)
      for (uint16_t** to : {&right[part], &left[part]}) {
        *to = reinterpret_cast<uint16_t*>(scratch);
        scratch += POINTS * columns / 2;
      }
  }

  void pair(const Activations<parts>& from, int64_t points) {
    steps = points;
    for (int part = 0; part < parts; ++part)
      for (int64_t point = 0; point < steps; ++point)
        for (int64_t block = 0; block < from.steps; ++block) {
          const uint16_t* upper = from.part[part] + point * 2 * from.next() + block * TILE_SIZE;
          pair_rows(upper, upper + from.next(), right[part] + at(block, point));
        }
  }

  void transpose(const Activations<parts>& from, int64_t points) {
    pair(from, points);
    for (int part = 0; part < parts; ++part)
      for (int64_t point = 0; point < steps; ++point)
        for (int64_t half = 0; half < 2 * from.steps; ++half)
          transpose_pairs(right[part] + at(half / 2, point) + half % 2 * TILE_SIZE,
                          left[part] + (half * steps + point) * TILE_SIZE);
  }

  Operand<parts> rows(int64_t block) const {
    Operand<parts> result = operand(left, block);
    result.next = steps * TILE_SIZE;
    return result;
  }
  Operand<parts> columns(int64_t block) const { return operand(right, block); }

 private:
  int64_t at(int64_t block, int64_t point) const { return (block * steps + point) * 2 * TILE_SIZE; }

  Operand<parts> operand(uint16_t* const (&from)[parts], int64_t block) const {
    Operand<parts> result{};
    for (int part = 0; part < parts; ++part) result.part[part] = from[part] + at(block, 0);
    return result;
  }
};

// Where the sums of weight gradients lie in those of a part of the points.
class WeightSums {
 public:
  int64_t size = 0;
  std::vector<MatrixSum> matrices;

  WeightSums(const FilmSirenProblem& p, const FilmSirenGradients& to) : heads_each_(p.layers) {
    const int64_t W = p.width, L = p.layers, C = p.channels, split = p.trunk_channels;
    const auto from = [](float* result, int64_t at) { return result ? result + at : nullptr; };
    first = add(to.first_weight, 0, W, p.inputs, p.inputs);
    for (int64_t i = 0; i < L - 1; ++i)
      hidden.push_back(add(from(to.hidden_weight, i * W * W), 0, W, W, W));
    for (int64_t group = 0; group < p.groups; ++group) {
      float* view = from(to.view_weight, group * W * (3 + W));
      directions.push_back(add(view, 0, W, 3, 3 + W));
      views.push_back(add(from(view, 3), 0, W, W, 3 + W));
      float* rows = from(to.head_weight, group * (L - 1) * C * W);
      for (int64_t i = 0; i < L - 2; ++i) heads.push_back(add(from(rows, i * C * W), 0, C, W, W));
      heads.push_back(add(from(rows, (L - 2) * C * W), 0, split, W, W));
      heads.push_back(add(from(rows, (L - 2) * C * W), split, C, W, W));
    }
  }

  // Indices of matrices; the heads' as in PackedWeights.
  size_t first;
  std::vector<size_t> hidden, views, directions, heads;
  size_t head(int64_t group, int64_t head) const { return heads[group * heads_each_ + head]; }

 private:
  int64_t heads_each_;

  // Rows [begin, end) of a gradient, whose block of rows 0 is that of `begin`.
  size_t add(float* result, int64_t begin, int64_t end, int64_t columns, int64_t stride) {
    const int64_t skipped = begin % BLOCK, rows = (blocks(end) - begin / BLOCK) * BLOCK;
    matrices.push_back({end - begin, columns, BLOCK, size + skipped * BLOCK,
                        result ? result + begin * stride : nullptr, rows * BLOCK, stride});
    if (result) size += rows * blocks(columns) * BLOCK;
    return matrices.size() - 1;
  }
};

// What the tiles of a thread share.
template <int parts>
struct BackwardShared {
  const WeightSums& layout;
  OverPoints<parts> outputs, inputs;  // of a layer
  float* weights = nullptr;           // sums of a part

  BackwardShared(const WeightSums& layout, const PackedWeights<parts>& w, float*& scratch)
      : layout(layout), outputs(scratch, w.width), inputs(scratch, std::max(w.width, w.inputs)) {}

  static int64_t floats(const PackedWeights<parts>& w) {
    return OverPoints<parts>::floats(w.width) +
           OverPoints<parts>::floats(std::max(w.width, w.inputs));
  }
};

template <int parts>
class BackwardRun : TileRun<parts> {
  using Run = TileRun<parts>;
  using Run::group_, Run::h, Run::inputs_, Run::p_, Run::point_blocks, Run::products_;
  using Run::take, Run::tile_, Run::unit_, Run::w_, Run::width_blocks;

 public:
  BackwardRun(const FilmSirenProblem& p, const PackedWeights<parts>& w, const Tile& tile,
              Unit& unit, BackwardShared<parts>& shared, float*& scratch)
      : Run(p, w, tile, unit, p.layers + 1, scratch),
        shared_(shared),
        kept_(take(scratch, (p.layers + 1) * kept_floats())),
        frequency_(take(scratch, (p.layers + 1) * w.width)),
        frequencies_(take(scratch, (p.layers + 1) * w.width)),
        phases_(take(scratch, (p.layers + 1) * w.width)),
        grad_(scratch, w.channels / BLOCK),
        directions_(scratch, 1),
        dz_{Activations<parts>(scratch, width_blocks()),
            Activations<parts>(scratch, width_blocks())},
        channels_(scratch, w.channels) {}

  static int64_t floats(const FilmSirenProblem& p, const PackedWeights<parts>& w) {
    return Run::floats(p, w, p.layers + 1) + (p.layers + 1) * (parts * POINTS + 3) * w.width +
           Activations<parts>::floats((w.channels + BLOCK + 2 * w.width) / BLOCK) +
           OverPoints<parts>::floats(w.channels);
  }

  void evaluate() {
    Run::prepare();
    Run::first_layer(kept(0));
    for (int64_t i = 1; i < p_.layers; ++i) Run::hidden_layer(i, kept(i));
    Run::view_layer(kept(p_.layers));
    Run::film_.finish();
  }

  void begin(const float* grad_output) {
    const int64_t W = p_.width, C = p_.channels, L = p_.layers, points = point_blocks() * BLOCK;
    std::fill(frequency_, frequency_ + 3 * (L + 1) * w_.width, 0.0f);  // both sums too
    for (int64_t layer = 0; layer <= L; ++layer)
      std::copy_n(p_.frequencies + (tile_.row * (L + 1) + layer) * W, W,
                  frequency_ + layer * w_.width);
    grad_.round(grad_output + tile_.start * C, tile_.count, C, points);
    if (!shared_.layout.size) return;
    channels_.transpose(grad_, point_blocks());
    directions_.round(p_.directions + tile_.start * 3, tile_.count, 3, points);
    if (w_.fp32_inputs)  // those in bf16 are rounded already
      inputs_.round(p_.x + tile_.start * p_.inputs, tile_.count, p_.inputs, points);
  }

  // To be called for the layers from L, the view layer, to 0 in turn.
  void layer(int64_t index, const FilmSirenGradients& gradients) {
    through_layer(index);
    if (shared_.layout.size) add_weights(index);
    if (index == p_.layers && gradients.directions)
      write_inputs(index, w_.directions_back(group_), 3, gradients.directions);
    if (index == 0 && gradients.x) {
      if (p_.first_weight)
        write_inputs(index, w_.first_back(), p_.inputs, gradients.x);
      else
        write_deltas(gradients.x);
    }
  }

  void finish(const float* grad_output, const SegmentSums& to) const {
    const int64_t W = p_.width, C = p_.channels;
    for (int64_t layer = 0; layer <= p_.layers; ++layer) {
      const float *bias = Run::bias(layer), *phases = phases_ + layer * w_.width;
      const float* frequencies = frequencies_ + layer * w_.width;
      for (int64_t i = 0; i < W; ++i) {
        to.phases[layer * W + i] += phases[i];
        to.frequencies[layer * W + i] += frequencies[i] + bias[i] * phases[i];
      }
    }
    for (int64_t i = tile_.start; i < tile_.start + tile_.count; ++i)
      for (int64_t c = 0; c < C; ++c) to.head_bias[c] += grad_output[i * C + c];
  }

 private:
  BackwardShared<parts>& shared_;
  float* kept_;                                // of L + 1 layers; see `keep`
  float *frequency_, *frequencies_, *phases_;  // (L + 1, width): FiLM, and sums for its gradient
  Activations<parts> grad_;                    // of the output
  Activations<parts> directions_;
  Activations<parts> dz_[2];    // gradients of a layer's products and of those of the next
  OverPoints<parts> channels_;  // of `grad_`
  Pending<FilmBack<parts>> film_back_;

  int64_t kept_floats() const { return parts * POINTS * w_.width; }
  float* kept(int64_t layer) const { return kept_ + layer * kept_floats(); }
  const Activations<parts>& dz(int64_t layer) const { return dz_[layer % 2]; }

  // dz of a layer: what comes from the next layer and through the layer's head.
  void through_layer(int64_t index) {
    const int64_t L = p_.layers, split = p_.trunk_channels;
    const Matrix weight = index == L       ? Matrix{}
                          : index == L - 1 ? w_.view_back(group_)
                                           : w_.hidden_back(index + 1);
    // The blocks of the head's channels; layer 0 has no head.
    const Matrix head = w_.head_back(group_, std::max<int64_t>(index - 1, 0));
    const int64_t first = index == L ? split / BLOCK : 0;
    const int64_t end = index == 0 ? 0 : blocks(index == L - 1 ? split : p_.channels);
    const Activations<parts>&from = dz(index + 1), &to = dz(index);
    const float* block_kept = kept(index);
    for (int64_t points = 0; points < point_blocks(); ++points)
      for (int64_t block = 0; block < width_blocks(); ++block) {
        multiply_beside<parts>(
            unit_,
            {{from.rows(points), w_.at(weight, block), index == L ? 0 : from.steps},
             {grad_.rows(points, first), w_.at(head, block, first), end - first}},
            products_, BLOCK, false, film_back_);
        const int64_t at = index * w_.width + block * BLOCK;
        FilmBack<parts> next{products_,    block_kept, frequency_ + at, frequencies_ + at,
                             phases_ + at, {},         to.next()};
        to.point_to(points, block, next.to);
        film_back_.begin(next);
        block_kept += parts * BLOCK * BLOCK;
      }
    film_back_.finish();
  }

  // Weight gradients of a layer, and of the heads that read its inputs (of the view layer, those
  // that read its outputs too).
  void add_weights(int64_t index) {
    const int64_t L = p_.layers, W = p_.width, C = p_.channels, split = p_.trunk_channels;
    const WeightSums& to = shared_.layout;
    if (index == L) {
      pair(h(L));
      add(to.head(group_, L - 1), channels_, split, C, W);
    }
    shared_.outputs.transpose(dz(index), point_blocks());
    if (index == L) {
      pair(directions_);
      add(to.directions[group_], shared_.outputs, 0, W, 3);
      pair(h(L - 1));
      add(to.views[group_], shared_.outputs, 0, W, W);
      add(to.head(group_, L - 2), channels_, 0, split, W);
    } else if (index > 0) {
      pair(h(index - 1));
      add(to.hidden[index - 1], shared_.outputs, 0, W, W);
      if (index > 1) add(to.head(group_, index - 2), channels_, 0, C, W);
    } else if (p_.first_weight) {
      pair(inputs_);
      add(to.first, shared_.outputs, 0, W, p_.inputs);
    }
  }

  void pair(const Activations<parts>& inputs) { shared_.inputs.pair(inputs, point_blocks()); }

  // The sums of a matrix += outputs^T inputs; its rows are the outputs [begin, end).
  void add(size_t matrix, const OverPoints<parts>& outputs, int64_t begin, int64_t end,
           int64_t columns) {
    const MatrixSum& sum = shared_.layout.matrices[matrix];
    if (!sum.result) return;
    float* to = shared_.weights + sum.offset - begin % BLOCK * BLOCK;
    for (int64_t i = begin / BLOCK; i < blocks(end); ++i, to += BLOCK * BLOCK)
      for (int64_t j = 0; j < blocks(columns); ++j)
        unit_.template product<parts>({{outputs.rows(i), shared_.inputs.columns(j), outputs.steps}},
                                      to + j * sum.strip, BLOCK, true, [] {});
  }

  // The gradient of inputs that are the first layer's products.
  void write_deltas(float* to) {
    const int64_t W = p_.width;
    for (int64_t points = 0; points < blocks(tile_.count); ++points)
      for (int64_t block = 0; block < width_blocks(); ++block)
        dz(0).unround(points, block, std::min(BLOCK, tile_.count - points * BLOCK),
                      std::min(BLOCK, W - block * BLOCK),
                      to + (tile_.start + points * BLOCK) * W + block * BLOCK, W);
  }

  // The gradient of a layer's inputs (of the view layer, of the directions) as rows of `size`.
  void write_inputs(int64_t layer, Matrix matrix, int64_t size, float* to) {
    const Activations<parts>& from = dz(layer);
    for (int64_t points = 0; points < point_blocks(); ++points)
      for (int64_t block = 0; block < blocks(size); ++block) {
        unit_.template product<parts>({{from.rows(points), w_.at(matrix, block), from.steps}},
                                      products_, BLOCK, false, [] {});
        const int64_t count = std::min(BLOCK, tile_.count - points * BLOCK);
        const int64_t columns = std::min(BLOCK, size - block * BLOCK);
        float* rows = to + (tile_.start + points * BLOCK) * size + block * BLOCK;
        for (int64_t i = 0; i < count; ++i)
          std::copy_n(products_ + i * BLOCK, columns, rows + i * size);
      }
  }
};

// Tiles that go through a layer together, so that sums too large for a cache are fetched less often.
static inline int64_t tiles_together(const WeightSums& sums) {
  constexpr int64_t cached = int64_t{1} << 17, most = 8;
  return sums.size > cached ? most : 1;
}

template <int parts>
static void film_siren_backward_parts(const FilmSirenProblem& p, const float* grad_output,
                                      const FilmSirenGradients& gradients, int threads) {
  std::vector<Tile> tiles = make_tiles(p, POINTS);
  const PackedWeights<parts> packed(p, true, threads);
  const WeightSums layout(p, gradients);
  const int64_t together = tiles_together(layout);
  const Partition division =
      partition(static_cast<int64_t>(tiles.size()), layout.size, 2 * together);
  const std::vector<int64_t> segment_rows = make_segments(tiles, division);
  std::vector<float> segment_sums(segment_rows.size() * SegmentSums::floats(p));
  float* const weight_sums = sums_scratch(division.parts * layout.size);

#pragma omp parallel num_threads(threads)
  {
    Unit unit;
    float* scratch = thread_scratch(BackwardShared<parts>::floats(packed) +
                                    together * BackwardRun<parts>::floats(p, packed));
    BackwardShared<parts> shared(layout, packed, scratch);
    std::vector<BackwardRun<parts>> runs;
    runs.reserve(together);
#pragma omp for schedule(dynamic)
    for (int64_t part = 0; part < division.parts; ++part) {
      shared.weights = weight_sums + part * layout.size;
      std::fill(shared.weights, shared.weights + layout.size, 0.0f);
      for (int64_t i = division.begin(part); i < division.end(part); i += together) {
        const int64_t end = std::min(i + together, division.end(part));
        float* memory = scratch;
        runs.clear();
        for (int64_t j = i; j < end; ++j) {
          runs.emplace_back(p, packed, tiles[j], unit, shared, memory);
          runs.back().evaluate();
          runs.back().begin(grad_output);
        }
        for (int64_t layer = p.layers; layer >= 0; --layer)
          for (BackwardRun<parts>& run : runs) run.layer(layer, gradients);
        for (int64_t j = i; j < end; ++j)
          runs[j - i].finish(grad_output, SegmentSums(p, segment_sums.data(), tiles[j].segment));
      }
    }
  }
  for (const MatrixSum& matrix : layout.matrices)
    add_parts(matrix, weight_sums, layout.size, division.parts, threads);
  add_segments(p, segment_rows, segment_sums.data(), gradients);
}
