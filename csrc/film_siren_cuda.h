// film_siren in CUDA: what a launch takes. `kernels/film_siren_cuda.py` arranges it.
//
// Points come in tiles of at most `film_siren_rows` that share a FiLM row. The weights that a tile
// needs lie in a stream, in the order of need, a stream for each group of rows. A stream is made of
// slabs: 64 inputs of WIDTH outputs of one matrix, and of NARROW channels of the head that reads the
// same inputs. A row of a slab is an output: 64 halves, in pieces of 8 whose place in the row is the
// exclusive or of their number and the row's (modulo 8). The order: the first layer, its inputs
// filled up to a multiple of WIDTH (none where the first layer is the identity); the hidden layers; the view layer, and after it the directions;
// one slab for the NARROW channels that read the view layer, 64 inputs after the other; then, for each
// WIDTH of the channels that are left, the heads that read layers 2 to L, and the view layer. Where
// none of these channels is the trunk's, the view layer is first, and layer L is not read.
//
// Up to three coordinates are multiplied as precisely as in fp32: a number is a half and what that
// leaves, rounded to a half too. Such a slab has nine inputs: halves of the weights, what they leave,
// and the halves again, for halves of the coordinates twice, and what those leave.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "ops_cuda.h"

namespace semfaceedit {

constexpr int FILM_ROWS = 128;               // points of a block
constexpr int FILM_THREADS = 2 * FILM_ROWS;  // that hold them
constexpr int FILM_CLUSTER = 4;              // blocks that share a tile, by sm_90's body
constexpr int FILM_GROUPS = 2;               // of threads that hold points, of such a block
constexpr int FILM_NARROW = 24;              // channels that are summed up on the way
constexpr int FILM_INPUTS = 64;              // of a slab
constexpr int FILM_COORDINATES = 3;          // up to so many inputs are coordinates

struct FilmSirenChain {
  int inputs, layers, channels, trunk_channels;  // I L C
  int identity;                                  // the first layer has no product: I is the width
  int tile_bound;                                // T
  int slabs;                                     // of a stream
  const float* points;                           // (P, I)
  const float* directions;                       // (P, 3)
  const int64_t* tiles;       // (3, T): first point, point after the last, FiLM row
  const int64_t* tile_count;  // (1,): how many of T are used
  const int64_t* row_groups;  // (M,)
  const float* film;          // (M, L + 1, WIDTH, 2): factor and summand of W h
  const uint16_t* stream;     // (G, slabs, WIDTH + NARROW, 64) halves
  const float* head_bias;     // (G, C), summed over heads
  float* output;              // (P, C)
  uint32_t* kept;  // (blocks, L, WIDTH / 16, threads, 4): fragments; used where C > NARROW
};

// Which body runs on a device: "sm90" on compute capability 9.0, else "sm80".
std::string film_siren_body(int device);
// The smallest width that has room: 64, 128 or 256.
int64_t film_siren_width(int64_t width);
// Points of a tile on a device, at most.
int64_t film_siren_rows(int device);
// Blocks to launch for so many tiles.
int64_t film_siren_blocks(int64_t tiles, int device);
void film_siren_forward(int64_t width, int64_t blocks, const FilmSirenChain& chain,
                        const CudaPlace& place);

// Calls `act` with the width that kernels are compiled for, as an integral constant.
template <class Act>
void for_width(int64_t width, Act act) {
  if (width == 64)
    act(std::integral_constant<int, 64>());
  else if (width == 128)
    act(std::integral_constant<int, 128>());
  else
    act(std::integral_constant<int, 256>());
}

// The bodies, on the current device.
void film_siren_forward_sm80(int64_t width, int64_t blocks, const FilmSirenChain& chain,
                             const CudaPlace& place);
void film_siren_forward_sm90(int64_t width, int64_t blocks, const FilmSirenChain& chain,
                             const CudaPlace& place);
// Whether this build has machine code of the latter for the current device.
bool film_siren_sm90_is_built();
// Clusters of it that the current device runs at a time.
int64_t film_siren_sm90_clusters();

}  // namespace semfaceedit
