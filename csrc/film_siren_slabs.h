// The matrix unit of film_siren_chain.h by mma.sync, for compute capability 8.0 and later: weights come
// through a ring of slabs in shared memory, which all threads fill. A block is eight warps of 16
// points. A slab has the rows of WIDTH outputs and of ADDED narrow channels.
#pragma once

#include "film_siren_chain.h"

namespace semfaceedit {

template <int WIDTH, int ADDED>
struct SlabRing {
  static constexpr int SLAB = (WIDTH + ADDED) * ROW_BYTES;
  static constexpr int STAGES = WIDTH == 256 ? 2 : 4;

  // What is loaded next: slab `slab` of a tile, for a group of rows (-1: no tile is left), to place
  // `stage` of the ring. Few numbers: they stay in registers during the products.
  const FilmSirenChain& p;
  const uint32_t memory;
  int tile, group, slab = 0, stage = 0;

  SEMFACEEDIT_DEVICE SlabRing(const FilmSirenChain& chain, void* shared, int first_tile)
      : p(chain), memory(sm80::shared_address(shared)), tile(first_tile), group(group_of_tile()) {
    for (int i = 0; i < STAGES - 1; ++i) load();
  }

  SEMFACEEDIT_DEVICE int group_of_tile() const {
    if (tile >= *p.tile_count) return -1;
    return static_cast<int>(p.row_groups[p.tiles[2 * p.tile_bound + tile]]);
  }

  SEMFACEEDIT_DEVICE void load() {
    if (group >= 0) {
      const unsigned char* from = reinterpret_cast<const unsigned char*>(p.stream) +
                                  (static_cast<int64_t>(group) * p.slabs + slab) * SLAB;
      SEMFACEEDIT_NO_UNROLL for (int at = threadIdx.x * 16; at < SLAB; at += FILM_THREADS * 16)
          sm80::copy_async(memory + stage * SLAB + at, from + at);
      if (++slab == p.slabs) {
        slab = 0;
        tile += gridDim.x;
        group = group_of_tile();
      }
    }
    sm80::close_copies();  // without a slab too: `advance` counts groups
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }

  // The address of the next slab in use. Its copies have arrived in every thread that passes the
  // barrier, and every thread has done with the slab before, whose place is filled anew.
  SEMFACEEDIT_DEVICE uint32_t advance() {
    sm80::wait_for_copies<STAGES - 2>();
    sm80::block_sync("slabs");
    load();
    return memory + stage * SLAB;  // the ring is full: the oldest slab
  }
};

// Where this thread's row of the first matrices of a slab lies; inputs from 16 k on are k * 32 away, by
// exclusive or.
SEMFACEEDIT_DEVICE inline uint32_t row_address(uint32_t slab) {
  const uint32_t lane = threadIdx.x % 32, row = lane / 16 * 8 + lane % 8;
  return slab + row * ROW_BYTES + ((lane / 8 % 2) ^ (lane % 8)) * 16;
}

// sums += a (16, 16) times 16 inputs of COLUMNS rows from `address` on.
template <int COLUMNS>
SEMFACEEDIT_DEVICE inline void multiply_rows(float* sums, const uint32_t (&a)[4],
                                             uint32_t address) {
  SEMFACEEDIT_UNROLL
  for (int j = 0; j < COLUMNS / 16; ++j) {
    uint32_t b[4];
    sm80::load_matrices(b, address + j * 16 * ROW_BYTES);
    sm80::multiply(sums + 8 * j, a, b[0], b[1]);
    sm80::multiply(sums + 8 * j + 4, a, b[2], b[3]);
  }
  if (COLUMNS % 16 != 0) {
    uint32_t b[2];
    sm80::load_matrices(b, address + COLUMNS / 16 * 16 * ROW_BYTES);
    sm80::multiply(sums + COLUMNS / 16 * 8, a, b[0], b[1]);
  }
}

// The matrix unit as film_siren_chain.h wants it.
template <int WIDTH, int ADDED>
struct WarpUnit {
  const FilmSirenChain& p;
  SlabRing<WIDTH, ADDED> ring;

  static SEMFACEEDIT_DEVICE int thread() { return threadIdx.x; }
  static SEMFACEEDIT_DEVICE int column() { return threadIdx.x % 4; }

  // Read anew at each use: registers are scarce in between.
  SEMFACEEDIT_DEVICE FilmSirenTile tile(int number) const {
    return FilmSirenTile(p, sm80::unknown(number), threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4);
  }

  SEMFACEEDIT_DEVICE void next_film() const {}

  SEMFACEEDIT_DEVICE const float4* film(int number, int layer) const {
    return film_of<WIDTH>(p, number, layer, column());
  }

  static SEMFACEEDIT_DEVICE void clear(float (&sums)[WIDTH / 2]) {
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < WIDTH / 2; ++i) sums[i] = 0.0f;
  }

  SEMFACEEDIT_DEVICE void multiply(float (&sums)[WIDTH / 2], float* narrow,
                                   const uint32_t (&h)[WIDTH / 16][4], bool onto) {
    if (!onto) clear(sums);
    SEMFACEEDIT_UNROLL
    for (int slab = 0; slab < WIDTH / FILM_INPUTS; ++slab) {
      const uint32_t address = row_address(ring.advance());
      SEMFACEEDIT_UNROLL
      for (int k = 0; k < FILM_INPUTS / 16; ++k) {
        const uint32_t (&a)[4] = h[slab * FILM_INPUTS / 16 + k];
        const uint32_t at = address ^ k * 32;
        multiply_rows<WIDTH>(sums, a, at);
        if (narrow) multiply_rows<FILM_NARROW>(narrow, a, at + WIDTH * ROW_BYTES);
      }
    }
  }

  // sums += the next slab's product with `count` inputs, 16 a step.
  SEMFACEEDIT_DEVICE void multiply_slab(float (&sums)[WIDTH / 2],
                                        const uint32_t (&a)[FILM_INPUTS / 16][4], int count) {
    const uint32_t address = row_address(ring.advance());
    SEMFACEEDIT_UNROLL
    for (int k = 0; k < FILM_INPUTS / 16; ++k)
      if (16 * k < count) multiply_rows<WIDTH>(sums, a[k], address ^ k * 32);
  }

  SEMFACEEDIT_DEVICE void multiply_coordinates(float (&sums)[WIDTH / 2], const uint32_t (&a)[4],
                                               bool onto) {
    if (!onto) clear(sums);
    multiply_rows<WIDTH>(sums, a, row_address(ring.advance()));
  }

  SEMFACEEDIT_DEVICE void multiply_last(float* narrow, const uint32_t (&h)[WIDTH / 16][4]) {
    const uint32_t address = row_address(ring.advance());
    SEMFACEEDIT_UNROLL
    for (int k = 0; k < WIDTH / 16; ++k)
      multiply_rows<FILM_NARROW>(narrow, h[k],
                                 (address ^ k % 4 * 32) + k / 4 * FILM_NARROW * ROW_BYTES);
  }

  SEMFACEEDIT_DEVICE void done() const {}  // the ring's barrier says it
};

}  // namespace semfaceedit
