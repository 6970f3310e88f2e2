// film_siren's gradients in CUDA: what launches take. `kernels/film_siren_cuda_backward.py` arranges it.
//
// A launch takes a run of tiles, which consist of parts: `film_siren_backward_parts` of 128 or 64
// points. A tile goes forward through the layers, then back. sm_80's body keeps W h of each layer in
// between; sm_90's keeps activations and multiplies W h again.
//
// A tile's stream of weights is as film_siren_cuda.h says, without narrow rows, and has: the first
// layer, the hidden layers, the view layer, the directions; then, as rows of what a layer reads, 64
// outputs a slab: heads that read the view layer, the view layer, heads that read layer L, layer L,
// heads that read layer L - 1, ..., layer 2 and, if points of more than three numbers need a gradient,
// the first layer, WIDTH inputs after the other. Of the heads of the view layer those slabs that have a
// channel of it, of layer L those that have one of the trunk. Where W h is multiplied again, what that
// takes of a layer comes after the heads that read it: for each 64 outputs slabs of 64 inputs after the
// other, then of coordinates, filled up to WIDTH rows.
//
// Deltas are gradients of W h, in halves: times a power of two for each part and layer that brings the
// largest close to 2^14. Their sums are of numbers before that.
//
// Matrix order is how weight gradients want halves: (parts, runs of 16 points, runs of 16 columns, 4,
// 32), words of two columns. Four matrices of 8 x 8: points 0 to 7 and 8 to 15 of columns 0 to 7, then
// of 8 to 15. "parts" are all of the launch where weights have gradients, else those under way.
#pragma once

#include "film_siren_cuda.h"

namespace semfaceedit {

struct FilmSirenBackward {
  FilmSirenChain chain;   // without output, biases, fragments; tile_count: where the run ends
  int first_tile;         // where it begins
  int sum_size;           // of a tile
  int first_at, view_at;  // in its sums: deltas times coordinates, of the first and the view layer
  int channels_at;        // gradients of the channels. These three: -1 if they are not needed
  const float* grad_output;  // (P, C)
  const float* first_rows;   // (WIDTH, 4): rows of the first layer, if it reads coordinates
  const float* view_rows;    // (G, WIDTH, 4): of the view layer, what they read of directions
  float* affine;             // (blocks, L + 1, WIDTH / 8, threads, 4): W h, where it is kept
  uint32_t* output_deltas;   // (parts, film_siren_outputs / 16 runs), in matrix order
  uint32_t* activations;     // (parts, L + 1, WIDTH / 16 runs), in matrix order; null if not needed
  uint32_t* deltas;          // the same; null where no weight has a gradient
  uint32_t* inputs;          // (parts, I / 16 runs): points, filled up to WIDTH; null if not needed
  float* inverses;           // (parts, L + 2): what takes the scales off; those of the output last
  float* sums;               // (T parts, sum_size): over a part; first (L + 1, 2, WIDTH): of
                             // gradients of angles, and of these times W h
  float* grad_points;        // (P, I) or null
  float* grad_directions;    // (P, 3) or null
};

// Channels of the output's deltas: filled up to blocks of weight gradients.
SEMFACEEDIT_DEVICE constexpr int64_t film_siren_outputs(int64_t channels) {
  return channels <= 64 ? 64 : (channels + 127) / 128 * 128;
}

// 2^-60: products over points leave out tiles whose deltas are so much smaller than the largest.
constexpr float FILM_NOTHING = 8.67e-19f;

// left^T right over the points of a run of tiles, here the parts of a launch, for several layers and
// each group of rows.
struct FilmSirenProduct {
  int tiles, layers, groups, splits;
  int every_group;            // one product for all groups: `groups` is 1
  int tile_runs;              // of 16 points
  int left_runs, right_runs;  // of 16 columns
  int trunk_channels;  // -1, or: left is the output's, the last two layers read trunk and view
  int64_t left_tile, left_layer, right_tile, right_layer;  // words from one to the next
  int64_t inverse_tile, inverse_layer;
  const uint32_t* left;  // in matrix order
  const uint32_t* right;
  const float* inverses;       // of left
  const int64_t* tile_groups;  // (tiles,), -1: not used
  float* product;              // (splits, layers, groups, left columns, right columns): added to
};

// Whether a channel of these columns of left reads what the layer's right is.
SEMFACEEDIT_DEVICE inline bool is_read(const FilmSirenProduct& p, int layer, int first,
                                       int columns) {
  if (p.trunk_channels < 0) return true;
  if (layer == p.layers - 2) return first < p.trunk_channels;
  return layer < p.layers - 2 || first + columns > p.trunk_channels;
}

// Parts of a tile on a device.
int64_t film_siren_backward_parts(int device);
// Of so many blocks as `film_siren_blocks` says.
void film_siren_backward(int64_t width, int64_t blocks, const FilmSirenBackward& pass,
                         const CudaPlace& place);
void film_siren_weight_gradients(int64_t width, const FilmSirenProduct& product,
                                 const CudaPlace& place);
// The bodies, on the current device.
void film_siren_backward_sm80(int64_t width, int64_t blocks, const FilmSirenBackward& pass,
                              const CudaPlace& place);
void film_siren_backward_sm90(int64_t width, int64_t blocks, const FilmSirenBackward& pass,
                              const CudaPlace& place);
void film_siren_weight_gradients_sm80(int64_t width, const FilmSirenProduct& product,
                                      const CudaPlace& place);
void film_siren_weight_gradients_sm90(int64_t width, const FilmSirenProduct& product,
                                      const CudaPlace& place);
// (M, size) from (T, size): sums over the tiles first[m] to first[m + 1] of each FiLM row.
void film_siren_row_sums(int64_t rows, int64_t size, const int64_t* first, const float* sums,
                         float* row_sums, const CudaPlace& place);

}  // namespace semfaceedit
