// film_siren's gradients but for the matrix unit: deltas stay in registers from layer to layer as the
// forward pass's activations do. A part of a tile, 16 points a warp, has its own scales and sums.
//
// `go_forward` and `go_back` are the whole pass for a thread's points. Their `Unit` is one as
// film_siren_chain.h says, and has
//   WARPS, ROWS             of a part; ROWS are points
//   own_thread(), warp()    of a part; computed anew at each use, as what follows from them: registers
//                           are scarce
//   own_part()              the number of this part among those of the launch
//   part(number)            and of a tile's among those of all tiles
//   first_row()             of the part, in its tile
//   sync(what)              of the part: `what` is done before anyone goes on
//   part_memory()           shared memory for PartSums
//   multiply_deltas(sums, h, none)    sums = h W PartSums::ratio(), or 0 if there are none
//   multiply_slab(sums, a, count)     sums += the next slab's product with `count` of 64 inputs
//   keep_affine(p, layer, sums)       what W h has to be kept for the way back
//   prepare(p, number, layer)         brings what is needed of that closer, before a layer's products
//   affine(p, number, layer)          begin(first): before 32 columns are read; (j): W h of pairs of
//                                     outputs 8 j + 2 t for both rows
#pragma once

#include "cuda_launch.h"
#include "film_siren_backward.h"
#include "film_siren_chain.h"

namespace semfaceedit {

constexpr int RUN_WORDS = 128;  // of 16 points and 16 columns in matrix order

SEMFACEEDIT_DEVICE inline int own_lane() {
  return sm80::unknown(static_cast<int>(threadIdx.x)) & 31;
}

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
  const bool upper = own_lane() & 4 * HALF;
  SEMFACEEDIT_UNROLL
  for (int i = 0; i < HALF; ++i) {
    const float own = upper ? values[i + HALF] : values[i];
    const float other = upper ? values[i] : values[i + HALF];
    values[i] = own + __shfl_xor_sync(0xffffffffu, other, 4 * HALF);
  }
}

// What the warps of a part put together, in shared memory.
template <int WIDTH, class Unit>
struct PartSums {
  static constexpr int WARPS = Unit::WARPS, THREADS = 32 * WARPS;
  static constexpr int SUMS = 2 * WARPS * WIDTH, FLOATS = SUMS + WARPS + 2;

  static SEMFACEEDIT_DEVICE float* parts() { return Unit::part_memory(); }  // (2, WARPS, WIDTH)
  static SEMFACEEDIT_DEVICE float* maxima() { return parts() + SUMS; }      // (WARPS,)
  // Inverse scales of the output's gradient and of the deltas in registers: the same in all threads.
  static SEMFACEEDIT_DEVICE float& output_inverse() { return maxima()[WARPS]; }
  static SEMFACEEDIT_DEVICE float& inverse() { return maxima()[WARPS + 1]; }
  // What brings gradients to the scale of the output's.
  static SEMFACEEDIT_DEVICE float ratio() {
    return inverse() * sm80::number_of((254u << 23) - sm80::bits_of(output_inverse()));
  }

  // Sums over the warp for 32 columns, of which a thread has numbers 2 j + c of columns
  // 8 j + 2 (lane % 4) + c. Of the eight threads that have the same, thread 2 j + c keeps those.
  static SEMFACEEDIT_DEVICE void put(int kind, int first, float (&values)[8]) {
    add_halves<4>(values);
    add_halves<2>(values);
    add_halves<1>(values);
    const int own = own_lane(), column = own / 8 * 8 + own % 4 * 2 + own / 4 % 2;
    parts()[(kind * WARPS + Unit::warp()) * WIDTH + first + column] = values[0];
  }

  // to (kinds, WIDTH) = what the warps have put down.
  static SEMFACEEDIT_DEVICE void write(int kinds, float* to) {
    Unit::sync("sums are put down");
    const int thread = Unit::own_thread();
    if (THREADS < WIDTH || thread < WIDTH) SEMFACEEDIT_NO_UNROLL
    for (int kind = 0; kind < kinds; ++kind) SEMFACEEDIT_UNROLL
    for (int first = 0; first < WIDTH; first += THREADS) {
      const float* from = parts() + kind * WARPS * WIDTH + first + thread;
      float sum = 0.0f;
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < WARPS; ++i) sum += from[i * WIDTH];
      to[kind * WIDTH + first + thread] = sum;
    }
    Unit::sync("sums are read");
  }

  static SEMFACEEDIT_DEVICE void put_largest(float own) {
    SEMFACEEDIT_UNROLL
    for (int step = 16; step > 0; step /= 2)
      own = sm80::larger_magnitude(own, __shfl_xor_sync(0xffffffffu, own, step));
    if (own_lane() == 0) maxima()[Unit::warp()] = own;
  }

  // After a barrier.
  static SEMFACEEDIT_DEVICE float largest() {
    float largest = 0.0f;
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < WARPS; ++i) largest = sm80::larger_magnitude(largest, maxima()[i]);
    return largest;
  }
};

// A thread's words of a part in matrix order: of run k and matrix i at [(4 k + i) 32].
template <class Unit>
SEMFACEEDIT_DEVICE inline uint32_t* words_of(uint32_t* from, int64_t part, int runs) {
  return from + (part * Unit::WARPS + Unit::warp()) * runs * RUN_WORDS + own_lane();
}

// Where what is kept of a part of a tile lies: where weights have no gradient, the parts that a block
// takes one after the other share it.
template <class Unit>
SEMFACEEDIT_DEVICE inline int place_of(const FilmSirenBackward& p, int number) {
  return p.deltas ? Unit::part(sm80::unknown(number) - p.first_tile) : Unit::own_part();
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

// A thread's words of the output's deltas.
template <class Unit>
SEMFACEEDIT_DEVICE inline uint32_t* output_words(const FilmSirenBackward& p, int number) {
  return words_of<Unit>(p.output_deltas, place_of<Unit>(p, number), output_runs(p));
}

// And of the activations or deltas of a layer.
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline uint32_t* layer_words(const FilmSirenBackward& p, uint32_t* from,
                                                int number, int layer) {
  const int64_t place = place_of<Unit>(p, number);
  return words_of<Unit>(from, place * (p.chain.layers + 1) + layer, WIDTH / 16);
}

// Where the sums of a part of a tile go.
template <class Unit>
SEMFACEEDIT_DEVICE inline float* sums_of(const FilmSirenBackward& p, int number) {
  return p.sums + static_cast<int64_t>(Unit::part(number)) * p.sum_size;
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
  using Part = PartSums<WIDTH, Unit>;
  const FilmSirenTile tile = unit.tile(number);
  const int runs = output_runs(p), column = 2 * Unit::column();
  float largest = 0.0f, pair[2];
  SEMFACEEDIT_NO_UNROLL for (int k = 0; k < runs; ++k) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    load_pair(p, tile, i % 2, 16 * k + i / 2 * 8 + column, pair);
    largest = sm80::larger_magnitude(sm80::larger_magnitude(largest, pair[0]), pair[1]);
  }
  Part::put_largest(largest);
  Unit::sync("the largest is put down");
  const Scale scale(Part::largest());
  uint32_t* to = output_words<Unit>(p, number);
  SEMFACEEDIT_NO_UNROLL for (int k = 0; k < runs; ++k) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    load_pair(p, tile, i % 2, 16 * k + i / 2 * 8 + column, pair);
    to[(4 * k + i) * 32] = sm80::pack_halves(pair[0] * scale.scale, pair[1] * scale.scale);
  }
  const int64_t layers = p.chain.layers + 2;
  if (p.inverses && Unit::own_thread() == 0)
    p.inverses[place_of<Unit>(p, number) * layers + layers - 1] = scale.inverse;
  if (p.channels_at >= 0) {
    const int64_t channels = p.chain.channels, begin = p.chain.tiles[number] + Unit::first_row();
    const int64_t tile_end = p.chain.tiles[p.chain.tile_bound + number];
    const int64_t end = begin + Unit::ROWS < tile_end ? begin + Unit::ROWS : tile_end;
    for (int channel = Unit::own_thread(); channel < channels; channel += 32 * Unit::WARPS) {
      float sum = 0.0f;
      for (int64_t row = begin; row < end; ++row) sum += p.grad_output[row * channels + channel];
      sums_of<Unit>(p, number)[p.channels_at + channel] = sum;
    }
  }
  Part::output_inverse() = scale.inverse;
  Unit::sync("the largest is read");
}

// Through all layers, keeping what the way back needs.
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void go_forward(const FilmSirenBackward& p, int number, Unit& unit) {
  const FilmSirenChain& chain = p.chain;
  uint32_t h[WIDTH / 16][4];
  float sums[WIDTH / 2] = {};
  if (p.inputs) {
    const FilmSirenTile tile = unit.tile(number);
    const int runs = (chain.inputs + WIDTH - 1) / WIDTH * (WIDTH / 16);
    uint32_t* to = words_of<Unit>(p.inputs, place_of<Unit>(p, number), runs);
    SEMFACEEDIT_NO_UNROLL for (int k = 0; k < runs; ++k) {
      uint32_t a[1][4];
      load_inputs(chain, tile, Unit::column(), 16 * k, a[0]);
      write_words(to + k * RUN_WORDS, a);
    }
  }
  multiply_points<WIDTH>(chain, number, unit, sums);
  if (!chain.identity) unit.done();
  SEMFACEEDIT_NO_UNROLL for (int layer = 0;; ++layer) {
    unit.keep_affine(p, layer, sums);
    modulate<WIDTH>(sums, unit.film(number, layer), h);
    if (p.activations) write_words(layer_words<WIDTH, Unit>(p, p.activations, number, layer), h);
    if (layer == chain.layers) break;
    unit.multiply(sums, nullptr, h, false);
    unit.done();
    if (layer == chain.layers - 1) {  // the view layer's it was
      multiply_coordinates<WIDTH>(chain.directions, 3, unit.tile(number), unit, sums, true);
      unit.done();
    }
  }
}

// Deltas of a layer from gradients of its sines, which are times 1 / inverse, in their place; sums over
// the tile; returns the largest delta of the thread.
template <int WIDTH, class Unit, class Affine>
SEMFACEEDIT_DEVICE inline float differentiate(float (&sums)[WIDTH / 2], float inverse,
                                              const float4* film, Affine affine) {
  using Part = PartSums<WIDTH, Unit>;
  float largest = 0.0f;
  SEMFACEEDIT_UNROLL
  for (int first = 0; first < WIDTH; first += 32) {
    affine.begin(first);
    float of_angles[8], of_factors[8];
    SEMFACEEDIT_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (j % 2 == 0) sm80::keep_order();
      const float4 f = film[4 * (first / 8 + j)], a = affine(first / 8 + j);
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
    Part::put(0, first, of_angles);
    Part::put(1, first, of_factors);
  }
  return largest;
}

// What coordinates have to do with a layer that reads them: sums over the tile of deltas times each of
// `size` coordinates, at `sums_at` (-1: not needed), and the gradient of the coordinates (or null).
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void differentiate_coordinates(
    const FilmSirenBackward& p, int number, Unit& unit, const float (&deltas)[WIDTH / 2],
    const float* from, int size, const float4* rows, int sums_at, float* grad) {
  using Part = PartSums<WIDTH, Unit>;
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
      Part::put(0, first, values);
    }
    Part::write(1, sums_of<Unit>(p, number) + sums_at + axis * WIDTH);
  }
  if (!grad) return;
  float sums[2][3] = {};
  const uint32_t nothing = static_cast<uint32_t>(p.chain.layers) >> 31;
  SEMFACEEDIT_UNROLL
  for (int j = 0; j < WIDTH / 8; ++j) SEMFACEEDIT_UNROLL
  for (int column = 0; column < 2; ++column) {
    if (j % 4 == 0) sm80::keep_order();
    if (WIDTH == 256 && j % 2 == 0 && column == 0) {
      // The next four rows wait for the sums so far, else ptxas loads more than it has registers for.
      uint32_t bits = 0;
      SEMFACEEDIT_UNROLL
      for (const auto& row : sums) SEMFACEEDIT_UNROLL
      for (const float& sum : row) bits |= sm80::bits_of(sum);
      rows += bits & nothing;
    }
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

// Numbers from `first` on of the gradients of points: sums times `inverse`.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline void write_grad_points(const FilmSirenBackward& p,
                                                 const FilmSirenTile& tile, int t, int first,
                                                 const float (&sums)[WIDTH / 2], float inverse) {
  const int inputs = p.chain.inputs;
  SEMFACEEDIT_UNROLL
  for (int j = 0; j < WIDTH / 8; ++j) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int at = first + 8 * j + 2 * t + i % 2;
    if (at < inputs && tile.used[i / 2])
      p.grad_points[static_cast<int64_t>(tile.rows[i / 2]) * inputs + at] =
          sums[4 * j + i] * inverse;
  }
}

// The gradient of points of more than three numbers.
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void multiply_grad_points(const FilmSirenBackward& p, int number,
                                                    Unit& unit,
                                                    const uint32_t (&h)[WIDTH / 16][4]) {
  const int inputs = p.chain.inputs;
  SEMFACEEDIT_NO_UNROLL for (int first = 0; first < inputs; first += WIDTH) {
    float sums[WIDTH / 2];
    unit.multiply(sums, nullptr, h, false);
    unit.done();
    write_grad_points<WIDTH>(p, unit.tile(number), Unit::column(), first, sums,
                             PartSums<WIDTH, Unit>::inverse());
  }
}

template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void go_back(const FilmSirenBackward& p, int number, Unit& unit) {
  using Part = PartSums<WIDTH, Unit>;
  const FilmSirenChain& chain = p.chain;
  write_output_deltas<WIDTH>(p, number, unit);
  uint32_t h[WIDTH / 16][4] = {};  // else ptxas keeps registers for what the last tile left
  float sums[WIDTH / 2] = {};
  SEMFACEEDIT_NO_UNROLL for (int layer = chain.layers;; --layer) {
    unit.prepare(p, number, layer);
    unit.multiply_deltas(sums, h, layer == chain.layers);
    const int begin = layer == chain.layers ? chain.trunk_channels / FILM_INPUTS : 0;
    const int read = layer == chain.layers - 1 ? chain.trunk_channels : chain.channels;
    SEMFACEEDIT_NO_UNROLL for (int slab = begin; layer > 0 && slab * FILM_INPUTS < read; ++slab) {
      const uint32_t* from = output_words<Unit>(p, number) + slab * 4 * RUN_WORDS;
      uint32_t a[FILM_INPUTS / 16][4];
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < FILM_INPUTS / 4; ++i) a[i / 4][i % 4] = from[i * 32];
      unit.multiply_slab(sums, a, read - slab * FILM_INPUTS);
      unit.done();
    }
    Part::put_largest(differentiate<WIDTH, Unit>(
        sums, Part::output_inverse(), unit.film(number, layer), unit.affine(p, number, layer)));
    Part::write(2, sums_of<Unit>(p, number) + layer * 2 * WIDTH);
    const bool view = layer == chain.layers;
    if (view || (layer == 0 && reads_coordinates(chain))) {
      const int64_t group = unit.tile(number).group;
      const float* rows = view ? p.view_rows + group * 4 * WIDTH : p.first_rows;
      differentiate_coordinates<WIDTH>(
          p, number, unit, sums, view ? chain.directions : chain.points, view ? 3 : chain.inputs,
          reinterpret_cast<const float4*>(rows), view ? p.view_at : p.first_at,
          view ? p.grad_directions : p.grad_points);
    } else if (layer == 0 && chain.identity && p.grad_points) {
      write_grad_points<WIDTH>(p, unit.tile(number), Unit::column(), 0, sums, 1.0f);
    }
    const Scale scale(Part::largest());
    SEMFACEEDIT_UNROLL
    for (int j = 0; j < WIDTH / 8; ++j) SEMFACEEDIT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float* s = sums + 4 * j + 2 * i;
      h[j / 2][j % 2 * 2 + i] = sm80::pack_halves(s[0] * scale.scale, s[1] * scale.scale);
    }
    Part::inverse() = scale.inverse;
    if (p.deltas) {
      write_words(layer_words<WIDTH, Unit>(p, p.deltas, number, layer), h);
      if (Unit::own_thread() == 0)
        p.inverses[place_of<Unit>(p, number) * (chain.layers + 2) + layer] = scale.inverse;
    }
    if (layer == 0) break;
  }
  if (p.grad_points && !chain.identity && !reads_coordinates(chain))
    multiply_grad_points<WIDTH>(p, number, unit, h);
}

}  // namespace semfaceedit
