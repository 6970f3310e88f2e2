// film_siren in CUDA: what a launch takes. `kernels/film_siren_cuda.py` arranges it.
//
// Points come in tiles of at most ROWS that share a FiLM row. The weights that a tile needs lie in a
// stream, in the order of need, a stream for each group of rows. A stream is made of slabs: 64 inputs
// of WIDTH outputs of one matrix, and of NARROW channels of the head that reads the same inputs. A
// row of a slab is an output: 64 halves, in pieces of 8 whose place in the row is the exclusive or of
// their number and the row's (modulo 8). The order: the first layer where points have more than three
// inputs; the other layers, the view layer's last; one slab for the NARROW channels that read the view
// layer, 64 inputs after the other; then, for each WIDTH of the channels that are left, the heads that
// read layers 2 to L, and the view layer.
#pragma once

#include <cstdint>

#include "ops_cuda.h"

namespace semfaceedit {

constexpr int FILM_ROWS = 128;   // points of a tile
constexpr int FILM_NARROW = 24;  // channels that are summed up on the way
constexpr int FILM_INPUTS = 64;  // of a slab

struct FilmSirenChain {
  int inputs, layers, channels, trunk_channels;  // I L C
  int tile_bound;                                // T
  int slabs;                                     // of a stream
  const float* points;                           // (P, I)
  const float* directions;                       // (P, 3)
  const int64_t* tiles;         // (3, T): first point, point after the last, FiLM row
  const int64_t* tile_count;    // (1,): how many of T are used
  const int64_t* row_groups;    // (M,)
  const float* film;            // (M, L + 1, WIDTH, 2): factor and summand of W h, in turns
  const float* first_weight;    // (WIDTH, 4) fp32; used where I <= 3
  const float* view_direction;  // (G, WIDTH, 4) fp32
  const uint16_t* stream;       // (G, slabs, WIDTH + NARROW, 64) halves
  const float* head_bias;       // (G, C), summed over heads
  float* output;                // (P, C)
  uint32_t* kept;  // (blocks, L, WIDTH / 16, threads, 4): fragments; used where C > NARROW
};

// The smallest width that has room, 0 if none has: 64, 128 or 256.
int64_t film_siren_width(int64_t width);
// Blocks to launch for so many tiles.
int64_t film_siren_blocks(int64_t tiles, int device);
void film_siren_forward(int64_t width, int64_t blocks, const FilmSirenChain& chain,
                        const CudaPlace& place);

}  // namespace semfaceedit
