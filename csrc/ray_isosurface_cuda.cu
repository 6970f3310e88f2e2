// ray_isosurface on CUDA, in full fp32. Forward: the field at all samples, tile by tile, then a thread
// a ray. Backward: a thread a ray, then the samples on either side of each crossing, tile by tile.
// Sums are formed by a fixed number of blocks and added in order: the same bits every time.

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cuda_launch.h"
#include "field_tile.h"
#include "ops_cuda.h"
#include "ray_isosurface_ray.h"

namespace semfaceedit {

namespace {

constexpr int RAY_THREADS = 128;
constexpr int64_t MOST_PARTS = 256;  // blocks of the backward pass, each with sums of its own

// Samples of one ray among those of all rays, (S, R).
struct RaySamples {
  const float* first;
  int64_t step;

  SEMFACEEDIT_DEVICE float operator[](int64_t sample) const { return first[sample * step]; }
};

SEMFACEEDIT_DEVICE inline int64_t index_in_grid() {
  return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
}

// tile.field at the columns of tile.x; the activations of layer l also at kept + l * KEPT, if not
// null. Rows beyond the field's width are zero.
template <int WIDTH>
SEMFACEEDIT_DEVICE void evaluate(const RayIsosurfaceProblem& p, const FieldTile<WIDTH>& tile,
                                 float* kept) {
  using Tile = FieldTile<WIDTH>;
  const int size = static_cast<int>(p.width);
  __syncthreads();
  for (int at = thread(); at < WIDTH * Tile::COLUMNS; at += FIELD_THREADS) {
    const int u = at / Tile::COLUMNS, c = at % Tile::COLUMNS;
    float value = 0.0f;
    if (u < size) {
      value = p.first_bias[u];
      for (int axis = 0; axis < 3; ++axis)
        value += p.first_weight[u * 3 + axis] * tile.x[axis * Tile::COLUMNS + c];
    }
    tile.h[u * Tile::LD + c] = relu(value);
    if (kept) kept[at] = relu(value);
  }
  for (int layer = 1; layer < p.layers; ++layer) {
    float acc[8][8];
    multiply_tile<WIDTH, false>(tile, p.hidden_weight + (layer - 1) * p.width * p.width, size, acc);
    const float* bias = p.hidden_bias + (layer - 1) * p.width;
    float* copy = kept ? kept + layer * Tile::KEPT : nullptr;
    store_tile(tile, acc, [&](int u, int c, float value) {
      value = u < size ? relu(value + bias[u]) : 0.0f;
      if (copy) copy[u * Tile::COLUMNS + c] = value;
      return value;
    });
  }
  __syncthreads();
  constexpr int PARTS = FIELD_THREADS / Tile::COLUMNS;  // threads that share a column
  const int column = thread() % Tile::COLUMNS;
  float total = 0.0f;
  for (int u = thread() / Tile::COLUMNS; u < size; u += PARTS)
    total += p.last_weight[u] * tile.h[u * Tile::LD + column];
  tile.field[thread()] = total;
  __syncthreads();
  if (thread() < Tile::COLUMNS) {
    for (int part = 1; part < PARTS; ++part) total += tile.field[part * Tile::COLUMNS + column];
    tile.field[column] = total + p.last_bias[0];
  }
  __syncthreads();
}

// The field at every sample, (S, R): neighbouring threads then read neighbouring rays.
template <int WIDTH>
__global__ void __launch_bounds__(FIELD_THREADS, FIELD_BLOCKS)
    sample_kernel(RayIsosurfaceProblem p, float* field) {
  using Tile = FieldTile<WIDTH>;
  const Tile tile(shared_memory());
  const int64_t first = blockIdx.x * static_cast<int64_t>(Tile::COLUMNS);
  const int64_t total = p.rays * p.samples;
  const int column = thread();
  if (column < Tile::COLUMNS) {
    const int64_t at = first + column < total ? first + column : total - 1;
    for (int axis = 0; axis < 3; ++axis)
      tile.x[axis * Tile::COLUMNS + column] = field_coordinate(p, at % p.rays, at / p.rays, axis);
  }
  evaluate<WIDTH>(p, tile, nullptr);
  if (column < Tile::COLUMNS && first + column < total) field[first + column] = tile.field[column];
}

__global__ void __launch_bounds__(RAY_THREADS)
    hits_kernel(RayIsosurfaceProblem p, const float* field, RayIsosurfaceHits hits) {
  const int64_t ray = index_in_grid();
  if (ray < p.rays) write_hits(p, ray, RaySamples{field + ray, p.rays}, hits);
}

__global__ void __launch_bounds__(RAY_THREADS)
    grade_rays_kernel(RayIsosurfaceProblem p, RayIsosurfaceGradHits hits, RayIsosurfaceGradients to,
                      float* grads) {
  const int64_t ray = index_in_grid();
  if (ray < p.rays) grade_ray(p, ray, hits, to, grads + ray * p.hit_count);
}

// The backward pass's workspace, in floats from its beginning.
struct Workspace {
  int64_t parts, kept, part_size, weight_sums, ray_sums, grads, size;
};

// Where the gradient of each weight begins in a part's sums.
struct WeightOffsets {
  int64_t first_weight, first_bias, hidden_weight, hidden_bias, last_weight, last_bias, size;

  SEMFACEEDIT_DEVICE explicit WeightOffsets(const RayIsosurfaceProblem& p) {
    first_weight = 0;
    first_bias = p.width * 3;
    hidden_weight = first_bias + p.width;
    hidden_bias = hidden_weight + (p.layers - 1) * p.width * p.width;
    last_weight = hidden_bias + (p.layers - 1) * p.width;
    last_bias = last_weight + p.width;
    size = last_bias + 1;
  }
};

// What a block of the backward pass reads and writes.
struct BackwardPart {
  int64_t begin, end;  // of the hits
  const float* grads;  // (R, K) as `grade_ray` leaves them
  float* kept;         // the activations of a tile
  float* sums;         // of the gradients of the weights; null if they are not needed
  float* ray_sums;     // (R, K, 6) gradients of origin and direction; null if not needed
};

// The next hits that carry gradient, from `first` on: their places go to queue[queued...], in order.
SEMFACEEDIT_DEVICE inline int enqueue(const BackwardPart& part, int64_t first, int* queue,
                                      int queued, int* counts) {
  const bool carries = first + thread() < part.end && part.grads[first + thread()] != 0.0f;
  const unsigned votes = __ballot_sync(0xffffffffu, carries);
  const int warp = thread() / 32;
  if (thread() % 32 == 0) counts[warp] = __popc(votes);
  __syncthreads();
  int before = queued + __popc(votes & ((1u << (thread() % 32)) - 1));
  int total = queued;
  for (int other = 0; other < FIELD_THREADS / 32; ++other) {
    if (other < warp) before += counts[other];
    total += counts[other];
  }
  if (carries) queue[before] = static_cast<int>(first + thread() - part.begin);
  __syncthreads();
  return total;
}

// From the gradient of the field at a tile's columns to those of weights and coordinates. On entry
// tile.h holds the last layer's activations.
template <int WIDTH>
SEMFACEEDIT_DEVICE void backward_tile(const RayIsosurfaceProblem& p, const FieldTile<WIDTH>& tile,
                                      const float* grad_field, const BackwardPart& part) {
  using Tile = FieldTile<WIDTH>;
  const int size = static_cast<int>(p.width);
  const WeightOffsets at(p);
  if (part.sums) {
    add_row_sums<WIDTH>(tile, size, grad_field, part.sums + at.last_weight, 1);
    if (thread() < 32) {
      float total = 0.0f;
      for (int c = thread(); c < Tile::COLUMNS; c += 32) total += grad_field[c];
      total = warp_sum(total);
      if (thread() == 0) part.sums[at.last_bias] += total;
    }
    __syncthreads();
  }
  for (int i = thread(); i < WIDTH * Tile::COLUMNS; i += FIELD_THREADS) {
    const int u = i / Tile::COLUMNS, c = i % Tile::COLUMNS;
    float* h = tile.h + u * Tile::LD + c;
    *h = *h <= 0.0f ? 0.0f : p.last_weight[u] * grad_field[c];
  }
  for (int64_t layer = p.layers - 1; layer > 0; --layer) {
    const float* input = part.kept + (layer - 1) * Tile::KEPT;
    const int64_t matrix = (layer - 1) * p.width * p.width;
    __syncthreads();
    if (part.sums) {
      add_row_sums<WIDTH>(tile, size, nullptr, part.sums + at.hidden_bias + (layer - 1) * p.width,
                          1);
      add_product<WIDTH>(tile, input, size, part.sums + at.hidden_weight + matrix);
    }
    float acc[8][8];
    multiply_tile<WIDTH, true>(tile, p.hidden_weight + matrix, size, acc);
    store_tile(tile, acc, [&](int u, int c, float value) {
      return input[u * Tile::COLUMNS + c] <= 0.0f ? 0.0f : value;
    });
  }
  __syncthreads();
  if (part.sums) {
    for (int axis = 0; axis < 3; ++axis)
      add_row_sums<WIDTH>(tile, size, tile.x + axis * Tile::COLUMNS,
                          part.sums + at.first_weight + axis, 3);
    add_row_sums<WIDTH>(tile, size, nullptr, part.sums + at.first_bias, 1);
  }
  if (part.ray_sums && thread() < Tile::COLUMNS) {
    float grad[3] = {};
    for (int u = 0; u < size; ++u)
      for (int axis = 0; axis < 3; ++axis)
        grad[axis] += p.first_weight[u * 3 + axis] * tile.h[u * Tile::LD + thread()];
    for (int axis = 0; axis < 3; ++axis)
      tile.slab[axis * Tile::COLUMNS + thread()] = grad[axis] * p.scale;
  }
  __syncthreads();
}

// Hits that carry gradient, half a tile at a time: column e is the start of hit e's interval, column
// e + COLUMNS / 2 its end.
template <int WIDTH>
SEMFACEEDIT_DEVICE void backward_hits(const RayIsosurfaceProblem& p,
                                      const RayIsosurfaceGradHits& hits,
                                      const FieldTile<WIDTH>& tile, float* grad_field,
                                      const int* queue, int count, const BackwardPart& part) {
  using Tile = FieldTile<WIDTH>;
  constexpr int HALF = Tile::COLUMNS / 2;
  const int column = thread(), entry = column % HALF;
  const bool used = entry < count;
  const int64_t hit = used ? part.begin + queue[entry] : 0, ray = hit / p.hit_count;
  const int64_t sample = used ? hits.interval[hit] : 0;
  if (column < Tile::COLUMNS)
    for (int axis = 0; axis < 3; ++axis)
      tile.x[axis * Tile::COLUMNS + column] =
          used ? field_coordinate(p, ray, sample + column / HALF, axis) : 0.0f;
  evaluate<WIDTH>(p, tile, part.kept);
  if (column < HALF) {
    IntervalGrads grads{0.0f, 0.0f};
    if (used)
      grads = grade_crossing(p.levels[hits.level[hit]], tile.field[entry], tile.field[HALF + entry],
                             part.grads[hit]);
    grad_field[entry] = grads.a;
    grad_field[HALF + entry] = grads.b;
  }
  __syncthreads();
  backward_tile<WIDTH>(p, tile, grad_field, part);
  if (part.ray_sums && column < HALF && used)
    for (int axis = 0; axis < 3; ++axis) {
      const float* grad = tile.slab + axis * Tile::COLUMNS + entry;
      part.ray_sums[hit * 6 + axis] = grad[0] + grad[HALF];
      part.ray_sums[hit * 6 + 3 + axis] =
          grad[0] * p.distances[sample] + grad[HALF] * p.distances[sample + 1];
    }
}

template <int WIDTH>
__global__ void __launch_bounds__(FIELD_THREADS, FIELD_BLOCKS)
    backward_kernel(RayIsosurfaceProblem p, RayIsosurfaceGradHits hits, Workspace at,
                    float* workspace, bool need_weights, bool need_rays) {
  using Tile = FieldTile<WIDTH>;
  constexpr int HALF = Tile::COLUMNS / 2;
  const Tile tile(shared_memory());
  float* grad_field = shared_memory() + Tile::FLOATS;               // (COLUMNS,)
  int* queue = reinterpret_cast<int*>(grad_field + Tile::COLUMNS);  // (HALF + FIELD_THREADS,)
  int* counts = queue + HALF + FIELD_THREADS;                       // of each warp
  const int64_t total = p.rays * p.hit_count, block = blockIdx.x;
  const BackwardPart part{
      total * block / at.parts,
      total * (block + 1) / at.parts,
      workspace + at.grads,
      workspace + at.kept + block * p.layers * Tile::KEPT,
      need_weights ? workspace + at.weight_sums + block * at.part_size : nullptr,
      need_rays ? workspace + at.ray_sums : nullptr};
  if (part.sums)
    for (int64_t i = thread(); i < at.part_size; i += FIELD_THREADS) part.sums[i] = 0.0f;
  __syncthreads();
  int queued = 0;
  int64_t next = part.begin;
  while (true) {
    for (; queued < HALF && next < part.end; next += FIELD_THREADS)
      queued = enqueue(part, next, queue, queued, counts);
    if (queued == 0) break;
    const int count = queued < HALF ? queued : HALF, rest = queued - count;
    backward_hits<WIDTH>(p, hits, tile, grad_field, queue, count, part);
    const int moved = thread() < rest ? queue[count + thread()] : 0;
    __syncthreads();
    if (thread() < rest) queue[thread()] = moved;
    __syncthreads();
    queued = rest;
  }
}

// A ray's gradients through the field, added to the others in the order of its hits.
__global__ void __launch_bounds__(RAY_THREADS)
    add_rays_kernel(RayIsosurfaceProblem p, const float* grads, const float* ray_sums,
                    RayIsosurfaceGradients to) {
  const int64_t ray = index_in_grid();
  if (ray >= p.rays) return;
  float sums[6] = {};
  for (int64_t hit = ray * p.hit_count; hit < (ray + 1) * p.hit_count; ++hit)
    if (grads[hit] != 0.0f)
      for (int i = 0; i < 6; ++i) sums[i] += ray_sums[hit * 6 + i];
  for (int64_t axis = 0; axis < 3; ++axis) {
    if (to.origins) to.origins[ray * 3 + axis] += sums[axis];
    if (to.directions) to.directions[ray * 3 + axis] += sums[3 + axis];
  }
}

__global__ void __launch_bounds__(RAY_THREADS)
    add_parts_kernel(const float* sums, int64_t parts, int64_t part_size, int64_t offset,
                     int64_t size, float* result) {
  const int64_t i = index_in_grid();
  if (i >= size) return;
  float total = 0.0f;
  for (int64_t part = 0; part < parts; ++part) total += sums[part * part_size + offset + i];
  result[i] = total;
}

// Calls function(std::integral_constant<int, WIDTH>) with the smallest WIDTH that has room.
template <class Function>
void by_width(int64_t width, const Function& function) {
  if (width <= 64)
    function(std::integral_constant<int, 64>{});
  else if (width <= 128)
    function(std::integral_constant<int, 128>{});
  else if (width <= 256)
    function(std::integral_constant<int, 256>{});
  else
    throw std::invalid_argument(
        "ray_isosurface: the cuda backend takes fields of up to 256 units, "
        "got " +
        std::to_string(width) + "; use the triton or reference backend");
}

Workspace backward_workspace(const RayIsosurfaceProblem& p) {
  Workspace at{};
  by_width(p.width, [&](auto width) {
    using Tile = FieldTile<width.value>;
    at.parts = std::min(MOST_PARTS, ceil_div(p.rays * p.hit_count, Tile::COLUMNS / 2));
    at.part_size = p.width * 3 + p.width + (p.layers - 1) * (p.width + 1) * p.width + p.width + 1;
    at.kept = 0;
    at.weight_sums = at.parts * p.layers * Tile::KEPT;
  });
  at.ray_sums = at.weight_sums + at.parts * at.part_size;
  at.grads = at.ray_sums + p.rays * p.hit_count * 6;
  at.size = at.grads + p.rays * p.hit_count;
  return at;
}

void add_parts(const RayIsosurfaceProblem& p, const Workspace& at,
               const RayIsosurfaceGradients& gradients, const CudaPlace& place) {
  const int64_t hidden = p.layers - 1;
  const std::pair<float*, int64_t> results[] = {
      {gradients.first_weight, p.width * 3},
      {gradients.first_bias, p.width},
      {gradients.hidden_weight, hidden * p.width * p.width},
      {gradients.hidden_bias, hidden * p.width},
      {gradients.last_weight, p.width},
      {gradients.last_bias, 1}};
  int64_t offset = 0;
  for (const auto& [result, size] : results) {
    if (result)
      launch("ray_isosurface", place, add_parts_kernel, ceil_div(size, RAY_THREADS), RAY_THREADS, 0,
             place.workspace + at.weight_sums, at.parts, at.part_size, offset, size, result);
    offset += size;
  }
}

}  // namespace

std::array<int64_t, 2> ray_isosurface_workspace(const std::array<int64_t, 5>& sizes) {
  RayIsosurfaceProblem p{};
  p.rays = sizes[0], p.hit_count = sizes[1], p.samples = sizes[2], p.width = sizes[3];
  p.layers = sizes[4];
  return {p.rays * p.samples, backward_workspace(p).size};
}

void ray_isosurface_forward(const RayIsosurfaceProblem& p, const RayIsosurfaceHits& hits,
                            const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  if (p.hit_count > 1)
    by_width(p.width, [&](auto width) {
      using Tile = FieldTile<width.value>;
      launch("ray_isosurface", place, sample_kernel<width.value>,
             ceil_div(p.rays * p.samples, Tile::COLUMNS), FIELD_THREADS, Tile::FLOATS, p,
             place.workspace);
    });
  launch("ray_isosurface", place, hits_kernel, ceil_div(p.rays, RAY_THREADS), RAY_THREADS, 0, p,
         place.workspace, hits);
}

void ray_isosurface_backward(const RayIsosurfaceProblem& p, const RayIsosurfaceGradHits& hits,
                             const RayIsosurfaceGradients& gradients, const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  const Workspace at = backward_workspace(p);
  const bool need_rays = gradients.origins || gradients.directions;
  const bool need_weights = gradients.first_weight || gradients.first_bias ||
                            gradients.hidden_weight || gradients.hidden_bias ||
                            gradients.last_weight || gradients.last_bias;
  float* grads = place.workspace + at.grads;
  const int64_t ray_blocks = ceil_div(p.rays, RAY_THREADS);
  launch("ray_isosurface", place, grade_rays_kernel, ray_blocks, RAY_THREADS, 0, p, hits, gradients,
         grads);
  by_width(p.width, [&](auto width) {
    using Tile = FieldTile<width.value>;
    const int64_t floats =
        Tile::FLOATS + Tile::COLUMNS + Tile::COLUMNS / 2 + FIELD_THREADS + FIELD_THREADS / 32;
    launch("ray_isosurface", place, backward_kernel<width.value>, at.parts, FIELD_THREADS, floats,
           p, hits, at, place.workspace, need_weights, need_rays);
  });
  if (need_rays)
    launch("ray_isosurface", place, add_rays_kernel, ray_blocks, RAY_THREADS, 0, p, grads,
           place.workspace + at.ray_sums, gradients);
  if (need_weights) add_parts(p, at, gradients, place);
}

}  // namespace semfaceedit
