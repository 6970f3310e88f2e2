// A block's products with the field's weights, in fp32: a tile of points, one a column, goes through
// all layers in shared memory, and the weights pass by in slabs. For CUDA; see
// ray_isosurface_cuda.cu.
#pragma once

#include <cstdint>

#include "cuda_launch.h"

namespace semfaceedit {

constexpr int FIELD_THREADS = 256;
constexpr int FIELD_BLOCKS = 2;  // on a multiprocessor: leaves 128 registers a thread
constexpr int SLAB = 16;  // rows of a weight, or columns of a product of two tiles, at a time

// WIDTH: the number of hidden units, rounded up. Each thread holds 8 x 8 numbers of a tile.
template <int WIDTH>
struct FieldTile {
  static constexpr int COLUMNS = 64 * FIELD_THREADS / WIDTH;
  static constexpr int LD = COLUMNS + 4;  // rows lie in different banks
  static constexpr int LD_SLAB = WIDTH + 4;
  static constexpr int KEPT = WIDTH * COLUMNS;  // floats of a layer's activations in the workspace
  static constexpr int FLOATS = WIDTH * LD + SLAB * LD_SLAB + 3 * COLUMNS + FIELD_THREADS;

  float *h, *slab, *x, *field;  // (WIDTH, LD), (SLAB, LD_SLAB), (3, COLUMNS), (FIELD_THREADS,)

  SEMFACEEDIT_DEVICE explicit FieldTile(float* memory)
      : h(memory), slab(h + WIDTH * LD), x(slab + SLAB * LD_SLAB), field(x + 3 * COLUMNS) {}
};

SEMFACEEDIT_DEVICE inline int thread() { return static_cast<int>(threadIdx.x); }

SEMFACEEDIT_DEVICE inline float4 four(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}

SEMFACEEDIT_DEVICE inline float relu(float v) { return v < 0.0f ? 0.0f : v; }  // NaN stays NaN

// Where the 8 numbers that a thread holds of a dimension of SIZE lie: 4 in each half.
template <int SIZE>
SEMFACEEDIT_DEVICE inline int place_of(int group, int i) {
  return i / 4 * (SIZE / 2) + group * 4 + i % 4;
}

template <int SIZE>
SEMFACEEDIT_DEVICE inline void read_eight(const float* row, int group, float (&to)[8]) {
  const float4 low = four(row + place_of<SIZE>(group, 0)),
               high = four(row + place_of<SIZE>(group, 4));
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

// acc = weight h, or weight^T h, of the thread's rows and columns. Waits before it reads h, and until
// all threads have read it.
template <int WIDTH, bool transposed>
SEMFACEEDIT_DEVICE inline void multiply_tile(const FieldTile<WIDTH>& tile, const float* weight,
                                             int size, float (&acc)[8][8]) {
  using Tile = FieldTile<WIDTH>;
  const int rows = thread() / (Tile::COLUMNS / 8), columns = thread() % (Tile::COLUMNS / 8);
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) acc[i][j] = 0.0f;
  for (int first = 0; first < size; first += SLAB) {
    __syncthreads();
    for (int at = thread(); at < SLAB * WIDTH; at += FIELD_THREADS) {
      const int i = transposed ? at / WIDTH : at % SLAB, o = transposed ? at % WIDTH : at / SLAB;
      const int from = transposed ? (first + i) * size + o : o * size + first + i;
      tile.slab[i * Tile::LD_SLAB + o] = first + i < size && o < size ? weight[from] : 0.0f;
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < SLAB; ++k) {
      float a[8], b[8];
      read_eight<WIDTH>(tile.slab + k * Tile::LD_SLAB, rows, a);
      read_eight<Tile::COLUMNS>(tile.h + (first + k) * Tile::LD, columns, b);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) acc[i][j] += a[i] * b[j];
    }
  }
  __syncthreads();
}

// h = what `function(row, column, number)` makes of each number of the tile that the threads hold.
template <int WIDTH, class Function>
SEMFACEEDIT_DEVICE inline void store_tile(const FieldTile<WIDTH>& tile, const float (&acc)[8][8],
                                          const Function& function) {
  using Tile = FieldTile<WIDTH>;
  const int rows = thread() / (Tile::COLUMNS / 8), columns = thread() % (Tile::COLUMNS / 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int row = place_of<WIDTH>(rows, i);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int column = place_of<Tile::COLUMNS>(columns, j);
      tile.h[row * Tile::LD + column] = function(row, column, acc[i][j]);
    }
  }
}

// sum (size, size) += h other^T, with `other` a layer's activations in the workspace.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline void add_product(const FieldTile<WIDTH>& tile, const float* other,
                                           int size, float* total) {
  using Tile = FieldTile<WIDTH>;
  constexpr int OUT = WIDTH < 128 ? WIDTH : 128, EACH = OUT / 16;  // 16 x 16 threads
  const int rows = thread() / 16, columns = thread() % 16;
  for (int top = 0; top < size; top += OUT)
    for (int left = 0; left < size; left += OUT) {
      float acc[EACH][EACH] = {};
      for (int first = 0; first < Tile::COLUMNS; first += SLAB) {
        __syncthreads();
        for (int at = thread(); at < SLAB * OUT; at += FIELD_THREADS) {
          const int c = at % SLAB, i = at / SLAB;
          tile.slab[c * Tile::LD_SLAB + i] = other[(left + i) * Tile::COLUMNS + first + c];
        }
        __syncthreads();
#pragma unroll 2
        for (int c = 0; c < SLAB; ++c) {
          float a[EACH], b[EACH];
#pragma unroll
          for (int i = 0; i < EACH; ++i) {
            a[i] = tile.h[(top + rows * EACH + i) * Tile::LD + first + c];
            b[i] = tile.slab[c * Tile::LD_SLAB + i * 16 + columns];
          }
#pragma unroll
          for (int i = 0; i < EACH; ++i)
#pragma unroll
            for (int j = 0; j < EACH; ++j) acc[i][j] += a[i] * b[j];
        }
      }
#pragma unroll
      for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
          const int row = top + rows * EACH + i, column = left + j * 16 + columns;
          if (row < size && column < size) total[row * size + column] += acc[i][j];
        }
    }
}

// The sum of v over a warp, in all its threads.
SEMFACEEDIT_DEVICE inline float warp_sum(float v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

// to[u * step] += the dot product of row u of h with `factors` (ones where null), a warp a row.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline void add_row_sums(const FieldTile<WIDTH>& tile, int size,
                                            const float* factors, float* to, int step) {
  using Tile = FieldTile<WIDTH>;
  for (int u = thread() / 32; u < size; u += FIELD_THREADS / 32) {
    float total = 0.0f;
    for (int c = thread() % 32; c < Tile::COLUMNS; c += 32)
      total += tile.h[u * Tile::LD + c] * (factors ? factors[c] : 1.0f);
    total = warp_sum(total);
    if (thread() % 32 == 0) to[u * step] += total;
  }
}

}  // namespace semfaceedit
