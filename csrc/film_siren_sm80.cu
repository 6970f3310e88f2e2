// film_siren's forward pass by mma.sync, for compute capability 8.0 and later. Activations stay in
// registers from layer to layer; weights come through a ring of slabs in shared memory, which all
// threads fill. A block is eight warps of 16 points.

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda_launch.h"
#include "film_siren_chain.h"

namespace semfaceedit {
namespace {

constexpr int CHAIN_THREADS = 2 * FILM_ROWS;
constexpr int ROW_BYTES = 2 * FILM_INPUTS;

template <int WIDTH>
struct SlabRing {
  static constexpr int SLAB = (WIDTH + FILM_NARROW) * ROW_BYTES;  // bytes
  static constexpr int STAGES = WIDTH == 256 ? 2 : 4;

  // What is loaded next: slab `slab` of a tile, for a group of rows (-1: no tile is left), to place
  // `stage` of the ring. Few numbers: they stay in registers during the products.
  const FilmSirenChain& p;
  const uint32_t memory;
  int tile, group, slab = 0, stage = 0;

  SEMFACEEDIT_DEVICE SlabRing(const FilmSirenChain& chain, void* shared)
      : p(chain), memory(sm80::shared_address(shared)), tile(blockIdx.x), group(group_of_tile()) {
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
      SEMFACEEDIT_NO_UNROLL for (int at = threadIdx.x * 16; at < SLAB; at += CHAIN_THREADS * 16)
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
    sm80::block_sync();
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

// sums += h times a matrix, and narrow += h times the narrow rows beside it if there are any.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline void multiply_matrix(SlabRing<WIDTH>& ring, float (&sums)[WIDTH / 2],
                                               float* narrow, const uint32_t (&h)[WIDTH / 16][4]) {
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

template <int WIDTH>
SEMFACEEDIT_DEVICE inline uint4* kept_fragments(const FilmSirenChain& p, int read) {
  constexpr int64_t SIZE = WIDTH / 16 * CHAIN_THREADS;
  return reinterpret_cast<uint4*>(p.kept) + (blockIdx.x * p.layers + read) * SIZE + threadIdx.x;
}

template <int WIDTH>
SEMFACEEDIT_DEVICE inline void keep(const FilmSirenChain& p, int read,
                                    const uint32_t (&h)[WIDTH / 16][4]) {
  uint4* to = kept_fragments<WIDTH>(p, read);
  SEMFACEEDIT_UNROLL
  for (int k = 0; k < WIDTH / 16; ++k)
    to[k * CHAIN_THREADS] = uint4{h[k][0], h[k][1], h[k][2], h[k][3]};
}

// What a thread knows of a tile, read anew at each use: registers are scarce in between.
SEMFACEEDIT_DEVICE inline FilmSirenTile tile_of_thread(const FilmSirenChain& p, int tile) {
  return FilmSirenTile(p, tile, threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4);
}

template <int WIDTH>
SEMFACEEDIT_DEVICE inline const float4* film_of(const FilmSirenChain& p, int tile, int layer) {
  const int64_t row = p.tiles[2 * p.tile_bound + tile] * (p.layers + 1) + layer;
  return reinterpret_cast<const float4*>(p.film) + row * (WIDTH / 2) + threadIdx.x % 4;
}

template <int COLUMNS>
SEMFACEEDIT_DEVICE inline void write(const FilmSirenChain& p, int tile,
                                     const float (&sums)[COLUMNS / 2], int first, int from,
                                     int to) {
  write_channels<COLUMNS>(p, tile_of_thread(p, tile), sums, threadIdx.x % 4, first, from, to);
}

// Channels from NARROW on, WIDTH at a time, from the fragments that this thread has kept.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline void write_wide(const FilmSirenChain& p, int tile, SlabRing<WIDTH>& ring,
                                          uint32_t (&h)[WIDTH / 16][4]) {
  SEMFACEEDIT_NO_UNROLL for (int first = FILM_NARROW; first < p.channels; first += WIDTH) {
    const int end = first + WIDTH < p.channels ? first + WIDTH : p.channels;
    float sums[WIDTH / 2] = {};
    SEMFACEEDIT_NO_UNROLL for (int read = 0; read < p.layers; ++read) {
      const bool of_trunk = read == p.layers - 2, of_view = read == p.layers - 1;
      if (of_view) write<WIDTH>(p, tile, sums, first, first, p.trunk_channels);
      if ((of_trunk && first >= p.trunk_channels) || (of_view && end <= p.trunk_channels)) continue;
      const uint4* from = kept_fragments<WIDTH>(p, read);
      SEMFACEEDIT_UNROLL
      for (int k = 0; k < WIDTH / 16; ++k) {
        const uint4 x = from[k * CHAIN_THREADS];
        h[k][0] = x.x, h[k][1] = x.y, h[k][2] = x.z, h[k][3] = x.w;
      }
      multiply_matrix<WIDTH>(ring, sums, nullptr, h);
    }
    write<WIDTH>(p, tile, sums, first, p.trunk_channels, end);
  }
}

template <int WIDTH, bool THIN>
SEMFACEEDIT_DEVICE inline void first_layer(const FilmSirenChain& p, int number,
                                           SlabRing<WIDTH>& ring, uint32_t (&h)[WIDTH / 16][4]) {
  const FilmSirenTile tile = tile_of_thread(p, number);
  const int t = threadIdx.x % 4;
  float sums[WIDTH / 2] = {};
  if (THIN) {
    multiply_coordinates<WIDTH>(p.points, p.inputs, tile,
                                reinterpret_cast<const float4*>(p.first_weight) + 2 * t, sums);
  } else {
    SEMFACEEDIT_NO_UNROLL for (int first = 0; first < p.inputs; first += FILM_INPUTS) {
      const uint32_t address = row_address(ring.advance());
      SEMFACEEDIT_UNROLL
      for (int k = 0; k < FILM_INPUTS / 16; ++k) {
        uint32_t a[4];
        load_inputs(p, tile, t, first + 16 * k, a);
        multiply_rows<WIDTH>(sums, a, address ^ k * 32);
      }
    }
  }
  modulate<WIDTH>(sums, film_of<WIDTH>(p, number, 0), h);
}

template <int WIDTH, bool THIN>
SEMFACEEDIT_DEVICE inline void run_tile(const FilmSirenChain& p, int tile, SlabRing<WIDTH>& ring) {
  uint32_t h[WIDTH / 16][4];
  first_layer<WIDTH, THIN>(p, tile, ring, h);
  float narrow[FILM_NARROW / 2] = {};
  SEMFACEEDIT_NO_UNROLL for (int layer = 1; layer <= p.layers; ++layer) {
    float sums[WIDTH / 2] = {};
    if (layer == p.layers) {
      const FilmSirenTile here = tile_of_thread(p, tile);
      const float4* weight = reinterpret_cast<const float4*>(p.view_direction);
      multiply_coordinates<WIDTH>(p.directions, 3, here,
                                  weight + here.group * WIDTH + 2 * (threadIdx.x % 4), sums);
    }
    multiply_matrix<WIDTH>(ring, sums, narrow, h);
    modulate<WIDTH>(sums, film_of<WIDTH>(p, tile, layer), h);
    if (p.channels > FILM_NARROW) keep<WIDTH>(p, layer - 1, h);
  }
  // Written before the view layer is read: no direction, not even NaN, reaches the trunk's channels.
  const int end = p.channels < FILM_NARROW ? p.channels : FILM_NARROW;
  const int split = p.trunk_channels < end ? p.trunk_channels : end;
  write<FILM_NARROW>(p, tile, narrow, 0, 0, split);
  const uint32_t address = row_address(ring.advance());
  SEMFACEEDIT_UNROLL
  for (int k = 0; k < WIDTH / 16; ++k)
    multiply_rows<FILM_NARROW>(narrow, h[k],
                               (address ^ k % 4 * 32) + k / 4 * FILM_NARROW * ROW_BYTES);
  write<FILM_NARROW>(p, tile, narrow, 0, split, end);
  write_wide<WIDTH>(p, tile, ring, h);
}

template <int WIDTH, bool THIN>
__global__ void __launch_bounds__(CHAIN_THREADS, 1) chain_kernel(FilmSirenChain p) {
  const int tiles = static_cast<int>(*p.tile_count);
  SlabRing<WIDTH> ring(p, shared_memory());
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) run_tile<WIDTH, THIN>(p, tile, ring);
}

template <int WIDTH>
void launch_chain(int64_t blocks, const FilmSirenChain& chain, const CudaPlace& place) {
  constexpr int64_t FLOATS = SlabRing<WIDTH>::SLAB / 4 * SlabRing<WIDTH>::STAGES;
  const auto kernel = chain.inputs <= 3 ? chain_kernel<WIDTH, true> : chain_kernel<WIDTH, false>;
  launch("film_siren", place, kernel, blocks, CHAIN_THREADS, FLOATS, chain);
}

}  // namespace

int64_t film_siren_width(int64_t width) {
  for (int64_t room : {64, 128, 256})
    if (width <= room) return room;
  throw std::invalid_argument("film_siren: the cuda backend takes stacks of up to 256 units, got " +
                              std::to_string(width) + "; use the triton or reference backend");
}

int64_t film_siren_blocks(int64_t tiles, int device) {
  int processors = 0;
  check_cuda(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute");
  return std::min<int64_t>(tiles, processors);
}

void film_siren_forward(int64_t width, int64_t blocks, const FilmSirenChain& chain,
                        const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  if (width == 64)
    launch_chain<64>(blocks, chain, place);
  else if (width == 128)
    launch_chain<128>(blocks, chain, place);
  else
    launch_chain<256>(blocks, chain, place);
}

}  // namespace semfaceedit
