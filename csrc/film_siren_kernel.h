// film_siren for one instruction set; see film_siren_cpu.cpp.

#include "simd.h"
#include "sine.h"

// h = sin(frequency z + phase), and its cosine where asked for.
template <bool with_cosine>
static void film(int64_t width, int64_t columns, const float* z, const float* frequency,
                 const float* phase, float* h, float* cosine) {
  VecInt outside{};
  for (int64_t i = 0; i < width; ++i) {
    const Vec f = splat(frequency[i]), p = splat(phase[i]);
    for (int64_t j = i * TILE; j < i * TILE + columns; j += LANES) {
      const Vec x = load(z + j) * f + p;
      outside |= ~((x <= MAX_ARGUMENT) & (x >= -MAX_ARGUMENT));
      const Reduced reduced = reduce(x);
      store(h + j, sin_of(reduced));
      if (with_cosine) store(cosine + j, cos_of(reduced));
    }
  }
  if (!any(outside)) return;
  for (int64_t i = 0; i < width; ++i)
    for (int64_t j = i * TILE; j < i * TILE + columns; ++j) {
      const float x = z[j] * frequency[i] + phase[i];
      if (std::abs(x) <= MAX_ARGUMENT) continue;
      h[j] = std::sin(x);
      if (with_cosine) cosine[j] = std::cos(x);
    }
}

// (count, size) from memory -> (size, columns) of a tile, zero beyond `count`.
static void read_tile(const float* from, int64_t count, int64_t size, int64_t columns, float* to) {
  transpose(count, size, from, size, to, TILE);
  if (count < columns)
    for (int64_t i = 0; i < size; ++i)
      std::fill(to + i * TILE + count, to + i * TILE + columns, 0.0f);
}

static void write_tile(const float* from, int64_t count, int64_t size, float* to) {
  transpose(size, count, from, TILE, to, size);
}

// z (W, TILE) = W_1 x + b_1 of the points of a tile; x (I, TILE) is left unread where W_1 is the identity.
static void first_products(const FilmSirenProblem& p, const Tile& tile, int64_t columns, float* x,
                           float* z) {
  const int64_t W = p.width, I = p.inputs;
  read_tile(p.x + tile.start * I, tile.count, I, columns, p.first_weight ? x : z);
  if (p.first_weight) {
    multiply<false>(W, I, columns, p.first_weight, I, x, TILE, z, TILE, p.first_bias);
    return;
  }
  for (int64_t i = 0; i < W; ++i)
    for (int64_t j = i * TILE; j < i * TILE + columns; j += LANES)
      store(z + j, load(z + j) + splat(p.first_bias[i]));
}

// The FiLM rows and the weights that one tile uses.
struct Row {
  const float *frequency, *phase, *view_weight, *view_bias, *head_weight, *head_bias;
};

static Row row_of(const FilmSirenProblem& p, int64_t row) {
  const int64_t group = p.row_groups[row], heads = p.layers - 1;
  return {p.frequencies + row * (p.layers + 1) * p.width,
          p.phases + row * (p.layers + 1) * p.width,
          p.view_weight + group * p.width * (3 + p.width),
          p.view_bias + group * p.width,
          p.head_weight + group * heads * p.channels * p.width,
          p.head_bias + group * heads * p.channels};
}

static void forward_tile(const FilmSirenProblem& p, const Tile& tile, float* scratch,
                         float* output) {
  const int64_t W = p.width, L = p.layers, C = p.channels, split = p.trunk_channels;
  const int64_t columns = round_up(tile.count);
  float* x = scratch;              // (I, TILE)
  float* z = x + p.inputs * TILE;  // (W, TILE)
  float* out = z + W * TILE;       // (C, TILE)
  float* viewed = out + C * TILE;  // (3 + W, TILE): the direction, then h
  float* h = viewed + 3 * TILE;
  const Row row = row_of(p, tile.row);

  read_tile(p.directions + tile.start * 3, tile.count, 3, columns, viewed);
  for (int64_t c = 0; c < C; ++c) {
    float bias = 0.0f;
    for (int64_t head = 0; head < L - 1; ++head) bias += row.head_bias[head * C + c];
    std::fill(out + c * TILE, out + c * TILE + columns, bias);
  }
  const auto add_head = [&](int64_t head, int64_t begin, int64_t end) {
    multiply<false>(end - begin, W, columns, row.head_weight + (head * C + begin) * W, W, h, TILE,
                    out + begin * TILE, TILE, nullptr, true);
  };
  first_products(p, tile, columns, x, z);
  film<false>(W, columns, z, row.frequency, row.phase, h, nullptr);
  for (int64_t layer = 1; layer < L; ++layer) {
    multiply<false>(W, W, columns, p.hidden_weight + (layer - 1) * W * W, W, h, TILE, z, TILE,
                    p.hidden_bias + (layer - 1) * W);
    film<false>(W, columns, z, row.frequency + layer * W, row.phase + layer * W, h, nullptr);
    if (layer < L - 1) add_head(layer - 1, 0, C);
  }
  add_head(L - 2, 0, split);
  multiply<false>(W, 3 + W, columns, row.view_weight, 3 + W, viewed, TILE, z, TILE, row.view_bias);
  film<false>(W, columns, z, row.frequency + L * W, row.phase + L * W, h, nullptr);
  add_head(L - 2, split, C);
  write_tile(out, tile.count, C, output + tile.start * C);
}

static int64_t forward_scratch(const FilmSirenProblem& p) {
  return (p.inputs + 2 * p.width + 3 + p.channels) * TILE;
}

// What the backward pass of a tile adds to.
struct Sums {
  SegmentSums segment;
  float *first_weight, *hidden_weight, *view_weight, *head_weight;  // of its partition, or null
};

static inline int64_t padded_inputs(const FilmSirenProblem& p) { return round_up(p.inputs); }
static inline int64_t padded_width(const FilmSirenProblem& p) { return round_up(p.width); }
static inline int64_t padded_view(const FilmSirenProblem& p) { return round_up(3 + p.width); }

static int64_t backward_scratch(const FilmSirenProblem& p) {
  const int64_t W = p.width, activations = (p.layers + 1) * W * TILE;
  const int64_t transposed = TILE * (padded_inputs(p) + padded_view(p) + LANES);
  return 3 * activations + (2 * p.inputs + 3 + (3 + W) + W + p.channels) * TILE + transposed;
}

static void backward_tile(const FilmSirenProblem& p, const Tile& tile, const float* grad_output,
                          const FilmSirenGradients& gradients, const Sums& sums, float* scratch) {
  const int64_t W = p.width, L = p.layers, C = p.channels, split = p.trunk_channels;
  const int64_t I = p.inputs, columns = round_up(tile.count), size = W * TILE;
  const int64_t ld_inputs = padded_inputs(p), ld_width = padded_width(p), ld_view = padded_view(p);
  float* z = scratch;                             // (L + 1, W, TILE)
  float* cosine = z + (L + 1) * size;             // (L + 1, W, TILE)
  float* h = cosine + (L + 1) * size;             // (L - 1, W, TILE), (3 + W, TILE), (W, TILE)
  float* x = h + (L + 1) * size + 3 * TILE;       // (I, TILE)
  float* g = x + I * TILE;                        // (C, TILE)
  float* dh = g + C * TILE;                       // (3 + W, TILE)
  float* dz = dh + (3 + W) * TILE;                // (W, TILE)
  float* dx = dz + size;                          // (I, TILE)
  float* x_points = dx + I * TILE;                // (TILE, I padded)
  float* h_points = x_points + TILE * ld_inputs;  // (TILE, 3 + W padded)
  float* viewed = h + (L - 1) * size;
  const auto h_of = [&](int64_t layer) {
    return h + layer * size + (layer < L - 1 ? 0 : 3 * TILE);
  };
  const Row row = row_of(p, tile.row);
  const bool weights = sums.first_weight != nullptr;

  read_tile(p.directions + tile.start * 3, tile.count, 3, columns, viewed);
  read_tile(grad_output + tile.start * C, tile.count, C, columns, g);
  const auto film_of = [&](int64_t layer) {
    film<true>(W, columns, z + layer * size, row.frequency + layer * W, row.phase + layer * W,
               h_of(layer), cosine + layer * size);
  };
  const auto run = [&](int64_t layer, const float* weight, const float* bias, const float* input,
                       int64_t depth) {
    multiply<false>(W, depth, columns, weight, depth, input, TILE, z + layer * size, TILE, bias);
    film_of(layer);
  };
  first_products(p, tile, columns, x, z);
  film_of(0);
  for (int64_t layer = 1; layer < L; ++layer)
    run(layer, p.hidden_weight + (layer - 1) * W * W, p.hidden_bias + (layer - 1) * W,
        h_of(layer - 1), W);
  run(L, row.view_weight, row.view_bias, viewed, 3 + W);

  // dh -> dz, and the sums over the points that FiLM and the biases need.
  const auto through_film = [&](int64_t layer, const float* grad) {
    for (int64_t i = 0; i < W; ++i) {
      const float f = row.frequency[layer * W + i];
      Vec phase{}, frequency{};
      for (int64_t j = i * TILE; j < i * TILE + columns; j += LANES) {
        const Vec d = load(grad + j) * load(cosine + layer * size + j);
        phase += d;
        frequency += d * load(z + layer * size + j);
        store(dz + j, d * f);
      }
      sums.segment.phases[layer * W + i] += sum(phase);
      sums.segment.frequencies[layer * W + i] += sum(frequency);
    }
  };
  const auto head_grad = [&](int64_t head, int64_t begin, int64_t end, float* to, bool add) {
    multiply<true>(W, end - begin, columns, row.head_weight + (head * C + begin) * W, W,
                   g + begin * TILE, TILE, to, TILE, nullptr, add);
  };
  // Weight gradients sum over points, so they need h with a point a row.
  const auto by_point = [&](int64_t depth, const float* from, float* to, int64_t ld) {
    transpose(depth, columns, from, TILE, to, ld);
  };
  const auto weight_grad = [&](int64_t rows, const float* grad, int64_t depth, const float* input,
                               int64_t ld, float* to) {
    multiply<false>(rows, columns, depth, grad, TILE, input, ld, to, depth, nullptr, true);
  };
  const auto head_weight_grad = [&](int64_t head, int64_t begin, int64_t end, const float* input,
                                    int64_t ld) {
    weight_grad(end - begin, g + begin * TILE, ld_width, input, ld,
                sums.head_weight + (head * C + begin) * ld_width);
  };

  for (int64_t c = 0; c < C; ++c) {
    Vec total{};
    for (int64_t j = c * TILE; j < c * TILE + columns; j += LANES) total += load(g + j);
    sums.segment.head_bias[c] += sum(total);
  }
  head_grad(L - 2, split, C, dh, false);
  if (weights) {
    by_point(W, h_of(L), h_points, ld_view);
    head_weight_grad(L - 2, split, C, h_points, ld_view);
    by_point(3 + W, viewed, h_points, ld_view);
    head_weight_grad(L - 2, 0, split, h_points + 3, ld_view);
  }
  through_film(L, dh);
  if (weights) weight_grad(W, dz, ld_view, h_points, ld_view, sums.view_weight);
  multiply<true>(3 + W, W, columns, row.view_weight, 3 + W, dz, TILE, dh, TILE);
  if (gradients.directions) write_tile(dh, tile.count, 3, gradients.directions + tile.start * 3);
  head_grad(L - 2, 0, split, dh + 3 * TILE, true);
  float* grad = dh + 3 * TILE;
  for (int64_t layer = L - 1; layer > 0; --layer) {
    through_film(layer, grad);
    if (weights) {
      by_point(W, h_of(layer - 1), h_points, ld_width);
      weight_grad(W, dz, ld_width, h_points, ld_width,
                  sums.hidden_weight + (layer - 1) * W * ld_width);
      if (layer > 1) head_weight_grad(layer - 2, 0, C, h_points, ld_width);
    }
    multiply<true>(W, W, columns, p.hidden_weight + (layer - 1) * W * W, W, dz, TILE, grad, TILE);
    if (layer > 1) head_grad(layer - 2, 0, C, grad, true);
  }
  through_film(0, grad);
  if (weights && p.first_weight) {
    by_point(I, x, x_points, ld_inputs);
    weight_grad(W, dz, ld_inputs, x_points, ld_inputs, sums.first_weight);
  }
  if (gradients.x && !p.first_weight) write_tile(dz, tile.count, W, gradients.x + tile.start * W);
  if (gradients.x && p.first_weight) {
    multiply<true>(I, W, columns, p.first_weight, I, dz, TILE, dx, TILE);
    write_tile(dx, tile.count, I, gradients.x + tile.start * I);
  }
}

static void film_siren_forward(const FilmSirenProblem& p, float* output, int threads) {
  const std::vector<Tile> tiles = make_tiles(p, TILE);
  const int64_t count = static_cast<int64_t>(tiles.size());
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4)
  for (int64_t i = 0; i < count; ++i)
    forward_tile(p, tiles[i], thread_scratch(forward_scratch(p)), output);
}

static void film_siren_backward(const FilmSirenProblem& p, const float* grad_output,
                                const FilmSirenGradients& gradients, int threads) {
  const int64_t W = p.width, L = p.layers, G = p.groups;
  int64_t size = 0;  // of a part's weight sums
  const auto sum_of = [&](int64_t rows, int64_t columns, float* result) {
    const MatrixSum matrix{rows, columns, round_up(columns), size, result};
    size += rows * matrix.padded;
    return matrix;
  };
  const MatrixSum first = sum_of(W, p.first_weight ? p.inputs : 0, gradients.first_weight);
  const MatrixSum hidden = sum_of((L - 1) * W, W, gradients.hidden_weight);
  const MatrixSum view = sum_of(G * W, 3 + W, gradients.view_weight);
  const MatrixSum head = sum_of(G * (L - 1) * p.channels, W, gradients.head_weight);
  const bool weights = first.result || hidden.result || view.result || head.result;
  if (!weights) size = 0;

  std::vector<Tile> tiles = make_tiles(p, TILE);
  const Partition parts = partition(static_cast<int64_t>(tiles.size()), size);
  const std::vector<int64_t> segment_rows = make_segments(tiles, parts);
  std::vector<float> segment_sums(segment_rows.size() * SegmentSums::floats(p));
  const Buffer weight_sums(parts.parts * size);

#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t part = 0; part < parts.parts; ++part) {
    float* base = weight_sums.data() + part * size;
    std::fill(base, base + size, 0.0f);
    for (int64_t i = parts.begin(part); i < parts.end(part); ++i) {
      const int64_t group = p.row_groups[tiles[i].row];
      const auto at = [&](const MatrixSum& matrix, int64_t row) {
        return weights ? base + matrix.offset + row * matrix.padded : nullptr;
      };
      const Sums sums{SegmentSums(p, segment_sums.data(), tiles[i].segment), at(first, 0),
                      at(hidden, 0), at(view, group * W), at(head, group * (L - 1) * p.channels)};
      backward_tile(p, tiles[i], grad_output, gradients, sums, thread_scratch(backward_scratch(p)));
    }
  }
  if (weights)
    for (const MatrixSum& matrix : {first, hidden, view, head})
      add_parts(matrix, weight_sums.data(), size, parts.parts, threads);
  add_segments(p, segment_rows, segment_sums.data(), gradients);
}
