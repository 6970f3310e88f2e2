// film_siren's CUDA kernels but for the matrix unit: a warp owns 16 points and all outputs of a layer.
// A thread holds rows g = lane / 4 and g + 8, of every eight outputs those numbered 2 t and 2 t + 1
// with t = lane % 4. As sums they are four numbers (two of row g, two of g + 8); as sines, packed to
// halves, they are already the operand of the next product.
//
// `run_tile` is the whole op for a thread's points. The matrix unit that it is given, a `Unit`, takes
// the slabs of the stream one after the other. It has
//   column(), thread()      t, and the thread's number among those of its block that hold points
//   tile(number)            the thread's rows of a tile
//   multiply(sums, narrow, h, onto)   sums (+)= h W, and narrow += h times the narrow rows beside it
//                           if it is not null
//   multiply_coordinates(sums, a, onto)   sums (+)= the 16 inputs a times W
//   multiply_last(narrow, h)          narrow += h times the slab of NARROW channels alone
//   next_film()             FiLM of a layer without a product may be read
//   film(number, layer)     (factor, summand) of output pairs t, t + 4, ..., after the layer's product
//   done()                  the last slab of a product, and FiLM, may be overwritten
#pragma once

#include "film_siren_cuda.h"
#include "sm80.h"

namespace semfaceedit {

constexpr int ROW_BYTES = 2 * FILM_INPUTS;  // of a slab

// Bytes of a slab.
SEMFACEEDIT_DEVICE constexpr int slab_bytes(int width) { return (width + FILM_NARROW) * ROW_BYTES; }

struct FilmSirenTile {
  int group;
  int rows[2];  // of this thread, the last one's again where the tile has no more
  bool used[2];

  SEMFACEEDIT_DEVICE FilmSirenTile(const FilmSirenChain& p, int tile, int row) {
    const int begin = static_cast<int>(p.tiles[tile]);
    const int end = static_cast<int>(p.tiles[p.tile_bound + tile]);
    group = static_cast<int>(p.row_groups[p.tiles[2 * p.tile_bound + tile]]);
    for (int i = 0; i < 2; ++i) {
      const int wanted = begin + row + 8 * i;
      used[i] = wanted < end;
      rows[i] = used[i] ? wanted : end - 1;
    }
  }
};

// A layer's FiLM of a tile in device memory, as a Unit's `film` says; t: the thread's `column`.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline const float4* film_of(const FilmSirenChain& p, int number, int layer,
                                                int t) {
  const int64_t row = p.tiles[2 * p.tile_bound + sm80::unknown(number)] * (p.layers + 1) + layer;
  return reinterpret_cast<const float4*>(p.film) + row * (WIDTH / 2) + t;
}

// Whole turns are taken off: adding 1.5 * 2^23 leaves no place for a fraction of one.
SEMFACEEDIT_DEVICE inline float within_a_turn(float angle) {
  constexpr float TURN = 6.283185307f, WHOLE = 12582912.0f;
  const float turns = sm80::add_rounded(angle * (1.0f / TURN) + WHOLE, -WHOLE);
  return angle - turns * TURN;
}

SEMFACEEDIT_DEVICE inline float sine(float angle) {
  return sm80::approximate_sine(within_a_turn(angle));
}

SEMFACEEDIT_DEVICE inline float cosine(float angle) {
  return sm80::approximate_cosine(within_a_turn(angle));
}

// What a layer says: sines of modulated sums, as the next product's operand.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline void modulate(const float (&sums)[WIDTH / 2], const float4* film,
                                        uint32_t (&h)[WIDTH / 16][4]) {
  SEMFACEEDIT_UNROLL
  for (int j = 0; j < WIDTH / 8; ++j) {
    if (j % 4 == 0) sm80::keep_order();  // else loads come early and take registers
    const float4 f = film[4 * j];
    const float* s = sums + 4 * j;
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < 2; ++i)
      h[j / 2][j % 2 * 2 + i] =
          sm80::pack_halves(sine(s[2 * i] * f.x + f.y), sine(s[2 * i + 1] * f.z + f.w));
  }
}

// Writes those of a run of channels, beginning with `first`, that lie in [from, to).
template <int COLUMNS>
SEMFACEEDIT_DEVICE inline void write_channels(const FilmSirenChain& p, const FilmSirenTile& tile,
                                              const float (&sums)[COLUMNS / 2], int t, int first,
                                              int from, int to) {
  const float* bias = p.head_bias + tile.group * p.channels;
  SEMFACEEDIT_UNROLL
  for (int j = 0; j < COLUMNS / 8; ++j) SEMFACEEDIT_UNROLL
  for (int column = 0; column < 2; ++column) {
    const int channel = first + 8 * j + 2 * t + column;
    if (channel >= from && channel < to) SEMFACEEDIT_UNROLL
    for (int i = 0; i < 2; ++i)
      if (tile.used[i])
        p.output[static_cast<int64_t>(tile.rows[i]) * p.channels + channel] =
            sums[4 * j + 2 * i + column] + bias[channel];
  }
}

// Inputs [first, first + 16) of the points as an operand, zero where there are none.
SEMFACEEDIT_DEVICE inline void load_inputs(const FilmSirenChain& p, const FilmSirenTile& tile,
                                           int t, int first, uint32_t (&a)[4]) {
  SEMFACEEDIT_UNROLL
  for (int half = 0; half < 2; ++half) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 2; ++i) {
    const float* row = p.points + static_cast<int64_t>(tile.rows[i]) * p.inputs;
    const int at = first + 8 * half + 2 * t;
    a[2 * half + i] =
        sm80::pack_halves(at < p.inputs ? row[at] : 0.0f, at + 1 < p.inputs ? row[at + 1] : 0.0f);
  }
}

// Input `at` of nine: a coordinate of a row as film_siren_cuda.h says, zero where there is none.
SEMFACEEDIT_DEVICE inline float coordinate_part(const float* row, int size, int at) {
  const int axis = at % FILM_COORDINATES;
  if (at >= 3 * FILM_COORDINATES || axis >= size) return 0.0f;
  const float x = row[axis], scaled = x * 8193.0f;  // 2^13 + 1: a half has 13 bits less
  const float half = sm80::add_rounded(scaled, -sm80::add_rounded(scaled, -x));
  return at < 2 * FILM_COORDINATES ? half : x - half;
}

SEMFACEEDIT_DEVICE inline void load_coordinates(const float* from, int size,
                                                const FilmSirenTile& tile, int t,
                                                uint32_t (&a)[4]) {
  SEMFACEEDIT_UNROLL
  for (int half = 0; half < 2; ++half) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 2; ++i) {
    const float* row = from + static_cast<int64_t>(tile.rows[i]) * size;
    const int at = 8 * half + 2 * t;
    a[2 * half + i] =
        sm80::pack_halves(coordinate_part(row, size, at), coordinate_part(row, size, at + 1));
  }
}

// The fragments of layer `read` + 1 that a thread of a block keeps for the wide heads.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline uint4* kept_fragments(const FilmSirenChain& p, int thread, int read) {
  constexpr int64_t SIZE = WIDTH / 16 * FILM_THREADS;
  return reinterpret_cast<uint4*>(p.kept) + (blockIdx.x * p.layers + read) * SIZE + thread;
}

template <int WIDTH>
SEMFACEEDIT_DEVICE inline void keep(const FilmSirenChain& p, int thread, int read,
                                    const uint32_t (&h)[WIDTH / 16][4]) {
  uint4* to = kept_fragments<WIDTH>(p, thread, read);
  SEMFACEEDIT_UNROLL
  for (int k = 0; k < WIDTH / 16; ++k)
    to[k * FILM_THREADS] = uint4{h[k][0], h[k][1], h[k][2], h[k][3]};
}

template <int WIDTH>
SEMFACEEDIT_DEVICE inline void take_kept(const FilmSirenChain& p, int thread, int read,
                                         uint32_t (&h)[WIDTH / 16][4]) {
  const uint4* from = kept_fragments<WIDTH>(p, thread, read);
  SEMFACEEDIT_UNROLL
  for (int k = 0; k < WIDTH / 16; ++k) {
    const uint4 x = from[k * FILM_THREADS];
    h[k][0] = x.x, h[k][1] = x.y, h[k][2] = x.z, h[k][3] = x.w;
  }
}

template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void multiply_coordinates(const float* from, int size,
                                                    const FilmSirenTile& tile, Unit& unit,
                                                    float (&sums)[WIDTH / 2], bool onto) {
  uint32_t a[4];
  load_coordinates(from, size, tile, Unit::column(), a);
  unit.multiply_coordinates(sums, a, onto);
}

// Columns [first, first + 2 COUNT) of the points as sums: what a first layer without a product reads.
template <int COUNT>
SEMFACEEDIT_DEVICE inline void load_sums(const FilmSirenChain& p, const FilmSirenTile& tile, int t,
                                         int first, float (&sums)[COUNT]) {
  SEMFACEEDIT_UNROLL
  for (int i = 0; i < 2; ++i) {
    const float* row = p.points + static_cast<int64_t>(tile.rows[i]) * p.inputs + first + 2 * t;
    const int left = p.inputs - first - 2 * t;
    SEMFACEEDIT_UNROLL
    for (int j = 0; j < COUNT / 4; ++j) {
      sums[4 * j + 2 * i] = 8 * j < left ? row[8 * j] : 0.0f;
      sums[4 * j + 2 * i + 1] = 8 * j + 1 < left ? row[8 * j + 1] : 0.0f;
    }
  }
}

SEMFACEEDIT_DEVICE inline bool reads_coordinates(const FilmSirenChain& p) {
  return !p.identity && p.inputs <= FILM_COORDINATES;
}

// The first layer's product.
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void multiply_points(const FilmSirenChain& p, int number, Unit& unit,
                                               float (&sums)[WIDTH / 2]) {
  const FilmSirenTile tile = unit.tile(number);
  if (p.identity) {
    unit.next_film();
    load_sums(p, tile, Unit::column(), 0, sums);
    return;
  }
  if (reads_coordinates(p)) {
    multiply_coordinates<WIDTH>(p.points, p.inputs, tile, unit, sums, false);
    return;
  }
  SEMFACEEDIT_NO_UNROLL for (int first = 0; first < p.inputs; first += WIDTH) {
    if (first > 0) unit.done();
    uint32_t inputs[WIDTH / 16][4];
    SEMFACEEDIT_UNROLL
    for (int k = 0; k < WIDTH / 16; ++k)
      load_inputs(p, tile, Unit::column(), first + 16 * k, inputs[k]);
    unit.multiply(sums, nullptr, inputs, first > 0);
  }
}

// Whether the wide heads read layer `read` + 2, or the view layer (the last), from what is kept.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline bool is_kept(const FilmSirenChain& p, int read) {
  if (p.channels <= FILM_NARROW || read < 0) return false;
  const bool of_trunk = read == p.layers - 2, of_view = read == p.layers - 1;
  const bool trunk = p.trunk_channels > FILM_NARROW;
  return of_trunk ? trunk : !of_view || trunk || p.channels - FILM_NARROW > WIDTH;
}

// Channels from NARROW on, WIDTH at a time, from the fragments that this thread has kept. Where a
// block has no channels of the trunk it begins with the view layer, which the first one finds in h.
template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void write_wide(const FilmSirenChain& p, int number, Unit& unit,
                                          uint32_t (&h)[WIDTH / 16][4]) {
  SEMFACEEDIT_NO_UNROLL for (int first = FILM_NARROW; first < p.channels; first += WIDTH) {
    const int end = first + WIDTH < p.channels ? first + WIDTH : p.channels;
    const int of_trunk = p.layers - 2, of_view = p.layers - 1;
    const bool trunk = first < p.trunk_channels;
    float sums[WIDTH / 2] = {};
    SEMFACEEDIT_NO_UNROLL for (int i = trunk ? 0 : -1; i < (trunk ? p.layers : of_trunk); ++i) {
      if (i == of_view) {
        write_channels<WIDTH>(p, unit.tile(number), sums, Unit::column(), first, first,
                              p.trunk_channels);
        if (end <= p.trunk_channels) break;
      }
      if (i >= 0 || first > FILM_NARROW)
        take_kept<WIDTH>(p, Unit::thread(), i < 0 ? of_view : i, h);
      unit.multiply(sums, nullptr, h, true);
      unit.done();
    }
    write_channels<WIDTH>(p, unit.tile(number), sums, Unit::column(), first, p.trunk_channels, end);
  }
}

template <int WIDTH, class Unit>
SEMFACEEDIT_DEVICE inline void run_tile(const FilmSirenChain& p, int number, Unit& unit) {
  uint32_t h[WIDTH / 16][4];
  float sums[WIDTH / 2] = {}, narrow[FILM_NARROW / 2] = {};
  multiply_points<WIDTH>(p, number, unit, sums);
  SEMFACEEDIT_NO_UNROLL for (int layer = 0;; ++layer) {
    modulate<WIDTH>(sums, unit.film(number, layer), h);
    unit.done();
    if (is_kept<WIDTH>(p, layer - 1)) keep<WIDTH>(p, Unit::thread(), layer - 1, h);
    if (layer == p.layers) break;
    unit.multiply(sums, narrow, h, false);
    if (layer == p.layers - 1) {  // the view layer's it was
      unit.done();
      multiply_coordinates<WIDTH>(p.directions, 3, unit.tile(number), unit, sums, true);
    }
  }
  // Written before the view layer is read: no direction, not even NaN, reaches the trunk's channels.
  const int end = p.channels < FILM_NARROW ? p.channels : FILM_NARROW;
  const int split = p.trunk_channels < end ? p.trunk_channels : end;
  write_channels<FILM_NARROW>(p, unit.tile(number), narrow, Unit::column(), 0, 0, split);
  unit.multiply_last(narrow, h);
  unit.done();
  write_channels<FILM_NARROW>(p, unit.tile(number), narrow, Unit::column(), 0, split, end);
  write_wide<WIDTH>(p, number, unit, h);
}

}  // namespace semfaceedit
