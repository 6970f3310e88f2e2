// The parts of film_siren's CUDA kernels that do not depend on the matrix unit: a warp owns 16 points
// and all outputs of a layer. A thread holds rows g = lane / 4 and g + 8, of every eight outputs those
// numbered 2 t and 2 t + 1 with t = lane % 4. As sums they are four numbers (two of row g, two of
// g + 8); as sines, packed to halves, they are already the operand of the next product.
#pragma once

#include "film_siren_cuda.h"
#include "sm80.h"

namespace semfaceedit {

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

// Of an angle in turns. Adding 1.5 * 2^23 leaves no place for a fraction.
SEMFACEEDIT_DEVICE inline float sine_of_turns(float turns) {
  const float whole = sm80::add_rounded(sm80::add_rounded(turns, 12582912.0f), -12582912.0f);
  return sm80::approximate_sine((turns - whole) * 6.283185307f);
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
      h[j / 2][j % 2 * 2 + i] = sm80::pack_halves(sine_of_turns(s[2 * i] * f.x + f.y),
                                                  sine_of_turns(s[2 * i + 1] * f.z + f.w));
  }
}

// Three coordinates of each row times a matrix in fp32, rows of (x, y, z, 0).
template <int WIDTH>
SEMFACEEDIT_DEVICE inline void multiply_coordinates(const float* from, int size,
                                                    const FilmSirenTile& tile, const float4* weight,
                                                    float (&sums)[WIDTH / 2]) {
  float x[2], y[2], z[2];
  for (int i = 0; i < 2; ++i) {
    const float* row = from + static_cast<int64_t>(tile.rows[i]) * size;
    x[i] = row[0], y[i] = size > 1 ? row[1] : 0.0f, z[i] = size > 2 ? row[2] : 0.0f;
  }
  SEMFACEEDIT_UNROLL
  for (int j = 0; j < WIDTH / 8; ++j) SEMFACEEDIT_UNROLL
  for (int column = 0; column < 2; ++column) {
    const float4 w = weight[8 * j + column];
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < 2; ++i) sums[4 * j + 2 * i + column] = x[i] * w.x + y[i] * w.y + z[i] * w.z;
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

}  // namespace semfaceedit
