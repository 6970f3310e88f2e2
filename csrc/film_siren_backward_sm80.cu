// film_siren's gradients by mma.sync, for compute capability 8.0 and later: see film_siren_backward.h.
// Deltas stay in registers from layer to layer as the forward pass's activations do.

#include <algorithm>

#include "cuda_launch.h"
#include "film_siren_backward.h"
#include "film_siren_slabs.h"

namespace semfaceedit {
namespace {

constexpr int WARPS = FILM_THREADS / 32;
constexpr int RUN_WORDS = 128;  // of 16 points and 16 columns in matrix order

// Computed anew at each use, as what follows from it: registers are scarce.
SEMFACEEDIT_DEVICE inline int own_thread() { return sm80::unknown(static_cast<int>(threadIdx.x)); }
SEMFACEEDIT_DEVICE inline int lane() { return own_thread() % 32; }
SEMFACEEDIT_DEVICE inline int warp() { return own_thread() / 32; }

// A power of two that brings what is at most `largest` below 2^14, and its inverse.
struct Scale {
  float scale, inverse;

  explicit SEMFACEEDIT_DEVICE Scale(float largest) {
    int exponent = 267 - static_cast<int>(sm80::bits_of(largest) >> 23);
    exponent = exponent < 1 ? 1 : exponent > 253 ? 253 : exponent;
    scale = sm80::number_of(static_cast<uint32_t>(exponent) << 23);
    inverse = sm80::number_of(static_cast<uint32_t>(254 - exponent) << 23);
  }
};

// Of 2 HALF numbers a thread keeps the sums of HALF, its other one of the rest.
template <int HALF>
SEMFACEEDIT_DEVICE inline void add_halves(float (&values)[8]) {
  const bool upper = lane() & 4 * HALF;
  SEMFACEEDIT_UNROLL
  for (int i = 0; i < HALF; ++i) {
    const float own = upper ? values[i + HALF] : values[i];
    const float other = upper ? values[i] : values[i + HALF];
    values[i] = own + __shfl_xor_sync(0xffffffffu, other, 4 * HALF);
  }
}

// What the warps of a block put together, in shared memory after the ring of slabs.
template <int WIDTH>
struct BlockSums {
  using Ring = SlabRing<WIDTH, 0>;
  static constexpr int RING = Ring::SLAB / 4 * Ring::STAGES;
  static constexpr int SUMS = RING + 2 * WARPS * WIDTH, FLOATS = SUMS + WARPS + 2;

  static SEMFACEEDIT_DEVICE float* parts() { return shared_memory() + RING; }   // (2, WARPS, WIDTH)
  static SEMFACEEDIT_DEVICE float* maxima() { return shared_memory() + SUMS; }  // (WARPS,)
  // Inverse scales of the output's gradient and of the deltas in registers: the same in all threads.
  static SEMFACEEDIT_DEVICE float& output_inverse() { return maxima()[WARPS]; }
  static SEMFACEEDIT_DEVICE float& inverse() { return maxima()[WARPS + 1]; }

  // Sums over the warp for 32 columns, of which a thread has numbers 2 j + c of columns
  // 8 j + 2 (lane % 4) + c. Of the eight threads that have the same, thread 2 j + c keeps those.
  static SEMFACEEDIT_DEVICE void put(int kind, int first, float (&values)[8]) {
    add_halves<4>(values);
    add_halves<2>(values);
    add_halves<1>(values);
    const int own = lane(), column = own / 8 * 8 + own % 4 * 2 + own / 4 % 2;
    parts()[(kind * WARPS + warp()) * WIDTH + first + column] = values[0];
  }

  // to (kinds, WIDTH) = what the warps have put down.
  static SEMFACEEDIT_DEVICE void write(int kinds, float* to) {
    sm80::block_sync("sums are put down");
    if (threadIdx.x < WIDTH) SEMFACEEDIT_NO_UNROLL
    for (int kind = 0; kind < kinds; ++kind) {
      const float* from = parts() + kind * WARPS * WIDTH + threadIdx.x;
      float sum = 0.0f;
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < WARPS; ++i) sum += from[i * WIDTH];
      to[kind * WIDTH + threadIdx.x] = sum;
    }
    sm80::block_sync("sums are read");
  }

  static SEMFACEEDIT_DEVICE void put_largest(float own) {
    SEMFACEEDIT_UNROLL
    for (int step = 16; step > 0; step /= 2)
      own = sm80::larger_magnitude(own, __shfl_xor_sync(0xffffffffu, own, step));
    if (lane() == 0) maxima()[warp()] = own;
  }

  // After a barrier.
  static SEMFACEEDIT_DEVICE float largest() {
    float largest = 0.0f;
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < WARPS; ++i) largest = sm80::larger_magnitude(largest, maxima()[i]);
    return largest;
  }
};

// A thread's words of a tile in matrix order: of run k and matrix i at [(4 k + i) 32].
SEMFACEEDIT_DEVICE inline uint32_t* words_of(uint32_t* from, int64_t tile, int runs) {
  return from + (tile * WARPS + warp()) * runs * RUN_WORDS + lane();
}

template <int RUNS>
SEMFACEEDIT_DEVICE inline void write_words(uint32_t* to, const uint32_t (&h)[RUNS][4]) {
  SEMFACEEDIT_UNROLL
  for (int k = 0; k < RUNS; ++k) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) to[(4 * k + i) * 32] = h[k][i];
}

SEMFACEEDIT_DEVICE inline int output_runs(const FilmSirenBackward& p) {
  return static_cast<int>(film_siren_outputs(p.chain.channels)) / 16;
}

// A thread's part of the output's deltas. Where weights have no gradient a block's tiles share it.
SEMFACEEDIT_DEVICE inline uint32_t* output_words(const FilmSirenBackward& p, int number) {
  const int64_t tile = p.activations ? number - p.first_tile : static_cast<int>(blockIdx.x);
  return words_of(p.output_deltas, tile, output_runs(p));
}

template <int WIDTH>
SEMFACEEDIT_DEVICE inline float4* affine_of(const FilmSirenBackward& p, int layer) {
  constexpr int64_t SIZE = WIDTH / 8 * FILM_THREADS;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * (p.chain.layers + 1) + sm80::unknown(layer);
  return reinterpret_cast<float4*>(p.affine) + at * SIZE + own_thread();
}

// Brings the warp's W h of a layer from memory to L2, where a product hides it.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline void prefetch_affine(const FilmSirenBackward& p, int layer) {
  constexpr int LINE = 128, LINES = 32 * static_cast<int>(sizeof(float4)) / LINE;
  const unsigned char* from =
      reinterpret_cast<const unsigned char*>(affine_of<WIDTH>(p, layer) - lane());
  SEMFACEEDIT_UNROLL
  for (int i = 0; i < WIDTH / 8 * LINES / 32; ++i) {
    const int line = 32 * i + lane();
    sm80::prefetch(from + line / LINES * FILM_THREADS * sizeof(float4) + line % LINES * LINE);
  }
}

template <int WIDTH>
SEMFACEEDIT_DEVICE inline uint32_t* layer_words(const FilmSirenBackward& p, uint32_t* from,
                                                int number, int layer) {
  const int64_t tile = sm80::unknown(number) - p.first_tile;
  return words_of(from, tile * (p.chain.layers + 1) + layer, WIDTH / 16);
}

// Two numbers of a row of the output's gradient.
SEMFACEEDIT_DEVICE inline void load_pair(const FilmSirenBackward& p, const FilmSirenTile& tile,
                                         int row, int at, float (&pair)[2]) {
  const int channels = p.chain.channels;
  const float* from = p.grad_output + static_cast<int64_t>(tile.rows[row]) * channels;
  SEMFACEEDIT_UNROLL
  for (int i = 0; i < 2; ++i) pair[i] = tile.used[row] && at + i < channels ? from[at + i] : 0.0f;
}

// Writes the output's deltas, their inverse scale, and sums of the channels.
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void write_output_deltas(const FilmSirenBackward& p, int number,
                                                   Unit& unit) {
  using Block = BlockSums<WIDTH>;
  const FilmSirenTile tile = unit.tile(number);
  const int runs = output_runs(p), column = 2 * Unit::column();
  float largest = 0.0f, pair[2];
  SEMFACEEDIT_NO_UNROLL for (int k = 0; k < runs; ++k) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    load_pair(p, tile, i % 2, 16 * k + i / 2 * 8 + column, pair);
    largest = sm80::larger_magnitude(sm80::larger_magnitude(largest, pair[0]), pair[1]);
  }
  Block::put_largest(largest);
  sm80::block_sync("the largest is put down");
  const Scale scale(Block::largest());
  uint32_t* to = output_words(p, number);
  SEMFACEEDIT_NO_UNROLL for (int k = 0; k < runs; ++k) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    load_pair(p, tile, i % 2, 16 * k + i / 2 * 8 + column, pair);
    to[(4 * k + i) * 32] = sm80::pack_halves(pair[0] * scale.scale, pair[1] * scale.scale);
  }
  const int64_t layers = p.chain.layers + 2;
  if (p.inverses && threadIdx.x == 0)
    p.inverses[(number - p.first_tile) * layers + layers - 1] = scale.inverse;
  if (p.channels_at >= 0) {
    const int64_t channels = p.chain.channels, begin = p.chain.tiles[number];
    const int64_t end = p.chain.tiles[p.chain.tile_bound + number];
    for (int channel = threadIdx.x; channel < channels; channel += FILM_THREADS) {
      float sum = 0.0f;
      for (int64_t row = begin; row < end; ++row) sum += p.grad_output[row * channels + channel];
      p.sums[static_cast<int64_t>(number) * p.sum_size + p.channels_at + channel] = sum;
    }
  }
  Block::output_inverse() = scale.inverse;
  sm80::block_sync("the largest is read");
}

// Through all layers, keeping W h, and activations and points where they are needed.
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void go_forward(const FilmSirenBackward& p, int number, Unit& unit) {
  const FilmSirenChain& chain = p.chain;
  uint32_t h[WIDTH / 16][4];
  float sums[WIDTH / 2] = {};
  if (p.inputs) {
    const FilmSirenTile tile = unit.tile(number);
    const int runs = (chain.inputs + WIDTH - 1) / WIDTH * (WIDTH / 16);
    uint32_t* to = words_of(p.inputs, number - p.first_tile, runs);
    SEMFACEEDIT_NO_UNROLL for (int k = 0; k < runs; ++k) {
      uint32_t a[1][4];
      load_inputs(chain, tile, Unit::column(), 16 * k, a[0]);
      write_words(to + k * RUN_WORDS, a);
    }
  }
  multiply_points<WIDTH>(chain, number, unit, sums);
  SEMFACEEDIT_NO_UNROLL for (int layer = 0;; ++layer) {
    float4* affine = affine_of<WIDTH>(p, layer);
    SEMFACEEDIT_UNROLL
    for (int j = 0; j < WIDTH / 8; ++j) {
      const float* s = sums + 4 * j;
      affine[j * FILM_THREADS] = float4{s[0], s[1], s[2], s[3]};
    }
    modulate<WIDTH>(sums, unit.film(number, layer), h);
    if (p.activations) write_words(layer_words<WIDTH>(p, p.activations, number, layer), h);
    if (layer == chain.layers) break;
    unit.multiply(sums, nullptr, h, false);
    if (layer == chain.layers - 1)  // the view layer's it was
      multiply_coordinates<WIDTH>(chain.directions, 3, unit.tile(number), unit, sums, true);
  }
}

// Deltas of a layer from gradients of its sines, which are times 1 / inverse, in their place; sums over
// the tile; returns the largest delta of the thread.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline float differentiate(float (&sums)[WIDTH / 2], float inverse,
                                              const float4* film, const float4* affine) {
  using Block = BlockSums<WIDTH>;
  float largest = 0.0f;
  SEMFACEEDIT_UNROLL
  for (int first = 0; first < WIDTH; first += 32) {
    float of_angles[8], of_factors[8];
    SEMFACEEDIT_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (j % 2 == 0) sm80::keep_order();
      const float4 f = film[4 * (first / 8 + j)], a = affine[(first / 8 + j) * FILM_THREADS];
      float* s = sums + 4 * (first / 8 + j);
      const float x[] = {
          s[0] * inverse * cosine(a.x * f.x + f.y), s[1] * inverse * cosine(a.y * f.z + f.w),
          s[2] * inverse * cosine(a.z * f.x + f.y), s[3] * inverse * cosine(a.w * f.z + f.w)};
      of_angles[2 * j] = x[0] + x[2];
      of_angles[2 * j + 1] = x[1] + x[3];
      of_factors[2 * j] = x[0] * a.x + x[2] * a.z;
      of_factors[2 * j + 1] = x[1] * a.y + x[3] * a.w;
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < 4; ++i) {
        s[i] = x[i] * (i % 2 == 0 ? f.x : f.z);
        largest = sm80::larger_magnitude(largest, s[i]);
      }
    }
    Block::put(0, first, of_angles);
    Block::put(1, first, of_factors);
  }
  return largest;
}

// What coordinates have to do with a layer that reads them: sums over the tile of deltas times each of
// `size` coordinates, at `sums_at` (-1: not needed), and the gradient of the coordinates (or null).
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void differentiate_coordinates(
    const FilmSirenBackward& p, int number, Unit& unit, const float (&deltas)[WIDTH / 2],
    const float* from, int size, const float4* rows, int sums_at, float* grad) {
  using Block = BlockSums<WIDTH>;
  const FilmSirenTile tile = unit.tile(number);
  if (sums_at >= 0) SEMFACEEDIT_NO_UNROLL
  for (int axis = 0; axis < size; ++axis) {
    const float x = from[static_cast<int64_t>(tile.rows[0]) * size + axis];
    const float y = from[static_cast<int64_t>(tile.rows[1]) * size + axis];
    SEMFACEEDIT_UNROLL
    for (int first = 0; first < WIDTH; first += 32) {
      float values[8];
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < 8; ++i) {
        const float* d = deltas + first / 2 + i / 2 * 4 + i % 2;
        values[i] = d[0] * x + d[2] * y;
      }
      Block::put(0, first, values);
    }
    Block::write(1, p.sums + static_cast<int64_t>(number) * p.sum_size + sums_at + axis * WIDTH);
  }
  if (!grad) return;
  float sums[2][3] = {};
  SEMFACEEDIT_UNROLL
  for (int j = 0; j < WIDTH / 8; ++j) SEMFACEEDIT_UNROLL
  for (int column = 0; column < 2; ++column) {
    if (j % 4 == 0) sm80::keep_order();
    const float4 w = rows[8 * j + 2 * Unit::column() + column];
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float delta = deltas[4 * j + 2 * i + column];
      sums[i][0] += delta * w.x;
      sums[i][1] += delta * w.y;
      sums[i][2] += delta * w.z;
    }
  }
  SEMFACEEDIT_UNROLL
  for (int i = 0; i < 2; ++i) SEMFACEEDIT_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    float sum = sums[i][axis];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (Unit::column() == 0 && tile.used[i] && axis < size)
      grad[static_cast<int64_t>(tile.rows[i]) * size + axis] = sum;
  }
}

// The gradient of points of more than three numbers.
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void write_grad_points(const FilmSirenBackward& p, int number, Unit& unit,
                                                 const uint32_t (&h)[WIDTH / 16][4]) {
  const int inputs = p.chain.inputs;
  SEMFACEEDIT_NO_UNROLL for (int first = 0; first < inputs; first += WIDTH) {
    float sums[WIDTH / 2];
    unit.multiply(sums, nullptr, h, false);
    const FilmSirenTile tile = unit.tile(number);
    const float inverse = BlockSums<WIDTH>::inverse();
    SEMFACEEDIT_UNROLL
    for (int j = 0; j < WIDTH / 8; ++j) SEMFACEEDIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int at = first + 8 * j + 2 * Unit::column() + i % 2;
      if (at < inputs && tile.used[i / 2])
        p.grad_points[static_cast<int64_t>(tile.rows[i / 2]) * inputs + at] =
            sums[4 * j + i] * inverse;
    }
  }
}

template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void go_back(const FilmSirenBackward& p, int number, Unit& unit) {
  using Block = BlockSums<WIDTH>;
  const FilmSirenChain& chain = p.chain;
  write_output_deltas<WIDTH>(p, number, unit);
  uint32_t h[WIDTH / 16][4] = {};  // else ptxas keeps registers for what the last tile left
  float sums[WIDTH / 2] = {};
  SEMFACEEDIT_NO_UNROLL for (int layer = chain.layers;; --layer) {
    prefetch_affine<WIDTH>(p, layer);
    if (layer < chain.layers)
      unit.multiply(sums, nullptr, h, false);
    else
      Unit::clear(sums);
    const float output_inverse = Block::output_inverse();
    const float output_scale = sm80::number_of((254u << 23) - sm80::bits_of(output_inverse));
    const float factor = layer < chain.layers ? Block::inverse() * output_scale : 1.0f;
    SEMFACEEDIT_UNROLL
    for (float& sum : sums) sum *= factor;
    const int begin = layer == chain.layers ? chain.trunk_channels / FILM_INPUTS : 0;
    const int read = layer == chain.layers - 1 ? chain.trunk_channels : chain.channels;
    SEMFACEEDIT_NO_UNROLL for (int slab = begin; layer > 0 && slab * FILM_INPUTS < read; ++slab) {
      const uint32_t* from = output_words(p, sm80::unknown(number)) + slab * 4 * RUN_WORDS;
      uint32_t a[FILM_INPUTS / 16][4];
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < FILM_INPUTS / 4; ++i) a[i / 4][i % 4] = from[i * 32];
      unit.multiply_slab(sums, a, read - slab * FILM_INPUTS);
    }
    Block::put_largest(differentiate<WIDTH>(sums, Block::output_inverse(), unit.film(number, layer),
                                            affine_of<WIDTH>(p, layer)));
    Block::write(2, p.sums + static_cast<int64_t>(number) * p.sum_size + layer * 2 * WIDTH);
    const bool view = layer == chain.layers;
    if (view || (layer == 0 && chain.inputs <= FILM_COORDINATES)) {
      const int64_t group = unit.tile(number).group;
      const float* rows = view ? p.view_rows + group * 4 * WIDTH : p.first_rows;
      differentiate_coordinates<WIDTH>(
          p, number, unit, sums, view ? chain.directions : chain.points, view ? 3 : chain.inputs,
          reinterpret_cast<const float4*>(rows), view ? p.view_at : p.first_at,
          view ? p.grad_directions : p.grad_points);
    }
    const Scale scale(Block::largest());
    SEMFACEEDIT_UNROLL
    for (int j = 0; j < WIDTH / 8; ++j) SEMFACEEDIT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float* s = sums + 4 * j + 2 * i;
      h[j / 2][j % 2 * 2 + i] = sm80::pack_halves(s[0] * scale.scale, s[1] * scale.scale);
    }
    Block::inverse() = scale.inverse;
    if (p.deltas) {
      write_words(layer_words<WIDTH>(p, p.deltas, number, layer), h);
      if (threadIdx.x == 0)
        p.inverses[static_cast<int64_t>(number - p.first_tile) * (chain.layers + 2) + layer] =
            scale.inverse;
    }
    if (layer == 0) break;
  }
  if (p.grad_points && chain.inputs > FILM_COORDINATES)
    write_grad_points<WIDTH>(p, number, unit, h);
}

template <int WIDTH>
__global__ void __launch_bounds__(FILM_THREADS, 1) backward_chain_kernel(FilmSirenBackward p) {
  const int first = p.first_tile + static_cast<int>(blockIdx.x);
  WarpUnit<WIDTH, 0> unit{p.chain, SlabRing<WIDTH, 0>(p.chain, shared_memory(), first)};
  for (int tile = first; tile < static_cast<int>(*p.chain.tile_count); tile += gridDim.x) {
    go_forward<WIDTH>(p, tile, unit);
    go_back<WIDTH>(p, tile, unit);
  }
}

// Points of tiles, 32 at a time, through a ring in shared memory.
template <int LEFT, int RIGHT>
struct PointRing {
  static constexpr int RUN_BYTES = 4 * RUN_WORDS;
  static constexpr int RUNS = 2;  // of 16 points
  static constexpr int LEFT_BYTES = LEFT / 16 * RUN_BYTES, RIGHT_BYTES = RIGHT / 16 * RUN_BYTES;
  static constexpr int STAGE = RUNS * (LEFT_BYTES + RIGHT_BYTES), STAGES = 3;
  static constexpr float NOTHING = 8.67e-19f;  // 2^-60: tiles so much smaller than the largest

  const FilmSirenProduct& p;
  const uint32_t memory;
  const int layer, group, end;
  int64_t left, right;  // first words of a tile's block
  float least;          // inverse that matters
  int tile, run = 0, stage = 0;

  SEMFACEEDIT_DEVICE PointRing(const FilmSirenProduct& product, float* shared, int at_layer,
                               int at_group, int first_left, int first_right, int begin, int stop)
      : p(product),
        memory(sm80::shared_address(shared)),
        layer(at_layer),
        group(at_group),
        end(stop),
        left(at_layer * product.left_layer + first_left / 16 * RUN_WORDS),
        right(at_layer * product.right_layer + first_right / 16 * RUN_WORDS),
        least(0.0f),
        tile(begin - 1) {
    float largest = 0.0f;
    for (int i = begin + threadIdx.x; i < end; i += FILM_THREADS)
      if (is_mine(i)) largest = inverse(i) > largest ? inverse(i) : largest;
    shared[threadIdx.x] = largest;
    sm80::block_sync("inverses are put down");
    for (int i = 0; i < FILM_THREADS; ++i) largest = shared[i] > largest ? shared[i] : largest;
    sm80::block_sync("inverses are read");
    least = largest * NOTHING;
    find();
    for (int i = 0; i < STAGES - 1; ++i) load();
  }

  SEMFACEEDIT_DEVICE float inverse(int of_tile) const {
    return p.inverses[of_tile * p.inverse_tile + layer * p.inverse_layer];
  }

  SEMFACEEDIT_DEVICE bool is_mine(int of_tile) const {
    const int64_t its = p.tile_groups[of_tile];
    return p.every_group ? its >= 0 : its == group;
  }

  SEMFACEEDIT_DEVICE int next(int of_tile) const {
    do ++of_tile;
    while (of_tile < end && !(is_mine(of_tile) && inverse(of_tile) >= least));
    return of_tile;
  }

  SEMFACEEDIT_DEVICE void find() { tile = next(tile); }

  SEMFACEEDIT_DEVICE void copy(uint32_t to, const uint32_t* from, int runs, int bytes) {
    for (int i = 0; i < RUNS; ++i)
      for (int at = threadIdx.x * 16; at < bytes; at += FILM_THREADS * 16)
        sm80::copy_async(to + i * bytes + at,
                         reinterpret_cast<const unsigned char*>(
                             from + static_cast<int64_t>(run + i) * runs * RUN_WORDS) +
                             at);
  }

  SEMFACEEDIT_DEVICE void load() {
    if (tile < end) {
      const uint32_t to = memory + stage * STAGE;
      copy(to, p.left + tile * p.left_tile + left, p.left_runs, LEFT_BYTES);
      copy(to + RUNS * LEFT_BYTES, p.right + tile * p.right_tile + right, p.right_runs,
           RIGHT_BYTES);
      run += RUNS;
      if (run == WARPS) {
        run = 0;
        find();
      }
    }
    sm80::close_copies();
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }

  // As of SlabRing.
  SEMFACEEDIT_DEVICE uint32_t advance() {
    sm80::wait_for_copies<STAGES - 2>();
    sm80::block_sync("points");
    load();
    return memory + stage * STAGE;
  }
};

// A block's LEFT x RIGHT of a product, a warp's 64 x COLUMNS.
template <int LEFT, int RIGHT>
__global__ void __launch_bounds__(FILM_THREADS, 1) weight_gradient_kernel(FilmSirenProduct p) {
  using Ring = PointRing<LEFT, RIGHT>;
  constexpr int DOWN = LEFT / 64, COLUMNS = RIGHT / (WARPS / DOWN);
  const int across = p.right_runs * 16 / RIGHT, down = p.left_runs * 16 / LEFT;
  const int place = blockIdx.x % (across * down), matrix = blockIdx.x / (across * down);
  const int group = matrix % p.groups, layer = matrix / p.groups % p.layers;
  const int first_left = place / across * LEFT, first_right = place % across * RIGHT;
  const int share = (p.tiles + p.splits - 1) / p.splits;
  const int begin = matrix / (p.groups * p.layers) * share;
  int end = begin + share < p.tiles ? begin + share : p.tiles;
  if (p.trunk_channels >= 0 && ((layer == p.layers - 2 && first_left >= p.trunk_channels) ||
                                (layer == p.layers - 1 && first_left + LEFT <= p.trunk_channels)))
    end = begin;  // no channel here reads it
  const int row = warp() % DOWN * 64, column = warp() / DOWN * COLUMNS;

  float sums[4][COLUMNS / 8][4] = {};
  float inverse = 1.0f;
  Ring ring(p, shared_memory(), layer, group, first_left, first_right, begin, end);
  SEMFACEEDIT_NO_UNROLL for (int tile = ring.next(begin - 1); tile < end; tile = ring.next(tile)) {
    const float own = ring.inverse(tile), ratio = inverse / own;
    inverse = own;
    SEMFACEEDIT_UNROLL
    for (auto& block : sums) SEMFACEEDIT_UNROLL
    for (auto& part : block) SEMFACEEDIT_UNROLL
    for (float& sum : part) sum *= ratio;
    SEMFACEEDIT_NO_UNROLL for (int run = 0; run < WARPS; run += Ring::RUNS) {
      const uint32_t address = ring.advance();
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < Ring::RUNS; ++i) {
        const uint32_t left = address + i * Ring::LEFT_BYTES + row / 16 * Ring::RUN_BYTES;
        const uint32_t right = address + Ring::RUNS * Ring::LEFT_BYTES + i * Ring::RIGHT_BYTES +
                               column / 16 * Ring::RUN_BYTES;
        const uint32_t at = lane() % 8 * 16, which = lane() / 8;
        uint32_t a[4][4];
        SEMFACEEDIT_UNROLL
        for (int m = 0; m < 4; ++m)
          sm80::load_transposed(
              a[m], left + m * Ring::RUN_BYTES + (which % 2 * 2 + which / 2) * 128 + at);
        if constexpr (COLUMNS >= 16) {
          SEMFACEEDIT_UNROLL
          for (int n = 0; n < COLUMNS / 16; ++n) {
            uint32_t b[4];
            sm80::load_transposed(b, right + n * Ring::RUN_BYTES + which * 128 + at);
            SEMFACEEDIT_UNROLL
            for (int m = 0; m < 4; ++m) {
              sm80::multiply(sums[m][2 * n], a[m], b[0], b[1]);
              sm80::multiply(sums[m][2 * n + 1], a[m], b[2], b[3]);
            }
          }
        } else {
          uint32_t b[2];
          sm80::load_transposed(b, right + column / 8 % 2 * 256 + which % 2 * 128 + at);
          SEMFACEEDIT_UNROLL
          for (int m = 0; m < 4; ++m) sm80::multiply(sums[m][0], a[m], b[0], b[1]);
        }
      }
    }
  }

  const int64_t width = p.right_runs * 16;
  float* to = p.product + static_cast<int64_t>(matrix) * p.left_runs * 16 * width;
  SEMFACEEDIT_UNROLL
  for (int m = 0; m < 4; ++m) SEMFACEEDIT_UNROLL
  for (int n = 0; n < COLUMNS / 8; ++n) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int64_t output = first_left + row + 16 * m + i / 2 * 8 + lane() / 4;
    to[output * width + first_right + column + 8 * n + lane() % 4 * 2 + i % 2] =
        sums[m][n][i] * inverse;
  }
}

constexpr int SUM_COLUMNS = 32;

__global__ void __launch_bounds__(FILM_THREADS)
    row_sums_kernel(int size, const int64_t* first, const float* sums, float* row_sums) {
  const int blocks = (size + SUM_COLUMNS - 1) / SUM_COLUMNS;
  const int64_t row = blockIdx.x / blocks;
  const int column = blockIdx.x % blocks * SUM_COLUMNS + lane();
  float sum = 0.0f;
  if (column < size) SEMFACEEDIT_UNROLL_FOUR
  for (int64_t tile = first[row] + warp(); tile < first[row + 1]; tile += WARPS)
    sum += sums[tile * size + column];
  float* parts = shared_memory();
  parts[threadIdx.x] = sum;
  sm80::block_sync("sums of rows are put down");
  if (warp() != 0 || column >= size) return;
  for (int i = 1; i < WARPS; ++i) sum += parts[i * SUM_COLUMNS + lane()];
  row_sums[row * size + column] = sum;
}

template <int LEFT, int RIGHT>
void launch_product(const FilmSirenProduct& p, const CudaPlace& place) {
  using Ring = PointRing<LEFT, RIGHT>;
  const int64_t blocks = static_cast<int64_t>(p.left_runs * 16 / LEFT) *
                         (p.right_runs * 16 / RIGHT) * p.layers * p.groups * p.splits;
  launch("film_siren", place, weight_gradient_kernel<LEFT, RIGHT>, blocks, FILM_THREADS,
         Ring::STAGE / 4 * Ring::STAGES, p);
}

}  // namespace

int64_t film_siren_backward_blocks(int64_t tiles, int device) {
  int processors = 0;
  check_cuda(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute");
  return std::min<int64_t>(tiles, processors);
}

void film_siren_backward(int64_t width, int64_t blocks, const FilmSirenBackward& pass,
                         const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  for_width(width, [&](auto constant) {
    constexpr int WIDTH = decltype(constant)::value;
    launch("film_siren", place, backward_chain_kernel<WIDTH>, blocks, FILM_THREADS,
           BlockSums<WIDTH>::FLOATS, pass);
  });
}

void film_siren_weight_gradients(int64_t width, const FilmSirenProduct& product,
                                 const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  for_width(width, [&](auto constant) {
    constexpr int WIDTH = decltype(constant)::value;
    if (product.left_runs % 8 == 0)
      launch_product<128, WIDTH>(product, place);
    else
      launch_product<64, WIDTH>(product, place);
  });
}

void film_siren_row_sums(int64_t rows, int64_t size, const int64_t* first, const float* sums,
                         float* row_sums, const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  const int64_t blocks = rows * ceil_div(size, SUM_COLUMNS);
  launch("film_siren", place, row_sums_kernel, blocks, FILM_THREADS, FILM_THREADS,
         static_cast<int>(size), first, sums, row_sums);
}

}  // namespace semfaceedit
