// film_siren's forward pass by wgmma, for compute capability 9.0 alone (sm_90a). Two blocks form a
// cluster and share a tile, half of its points each: every slab of weights comes from L2 once for
// both. A thread of the first warpgroup fills a ring of places in shared memory; the two others hold
// 64 points each, their activations in registers from layer to layer. While one of them computes
// sines, the other multiplies: they take turns.
//
// A place of the ring has a barrier that ends a phase when it is full (the filling thread arrives, and
// all bytes do), and one that does when it is empty (every warp of both blocks that holds points
// arrives, at both blocks). In a place lies a slab, and behind the last slab of a layer its FiLM.

#include <algorithm>
#include <stdexcept>

#include "cuda_launch.h"
#include "film_siren_chain.h"
#include "sm90.h"

namespace semfaceedit {
namespace {

constexpr int GROUP = 128;  // threads of a warpgroup
[[maybe_unused]] constexpr int RELEASES = FILM_CLUSTER * FILM_THREADS / 32;

template <int WIDTH>
struct Ring {
  static constexpr int SLAB = slab_bytes(WIDTH);
  static constexpr int FILM = WIDTH * 2 * sizeof(float);
  static constexpr int PLACE = (SLAB + FILM + 1023) / 1024 * 1024;
  static constexpr int PLACES = 6;
  static constexpr int BYTES = PLACES * (PLACE + 2 * sizeof(uint64_t));

  const uint32_t memory;
  int place = 0;
  uint32_t parity = 0;

  SEMFACEEDIT_DEVICE explicit Ring(const void* shared) : memory(sm80::shared_address(shared)) {}

  SEMFACEEDIT_DEVICE uint32_t full(int at) const { return memory + PLACES * PLACE + 8 * at; }
  SEMFACEEDIT_DEVICE uint32_t empty(int at) const { return full(PLACES + at); }

  SEMFACEEDIT_DEVICE void advance() {
    if (++place == PLACES) place = 0, parity ^= 1;
  }
};

// Fills the ring of its block, and half of every place in the other's.
template <int WIDTH>
struct Producer {
  const FilmSirenChain& p;
  Ring<WIDTH> ring;

  SEMFACEEDIT_DEVICE void copy(uint32_t to, const void* from, int64_t item, int size,
                               uint32_t bytes) const {
    const uint32_t half = bytes / 2 * sm90::block_rank();
    sm90::copy_to_both(to + half, static_cast<const char*>(from) + item * size + half, bytes / 2,
                       ring.full(ring.place));
  }

  // Rows of a slab into the next place, and a layer's FiLM behind it if it is not negative.
  SEMFACEEDIT_DEVICE void load(int slab, int rows, int film) {
    sm90::wait_barrier(ring.empty(ring.place), ring.parity ^ 1);
    if (threadIdx.x == 0) {
      const uint32_t to = ring.memory + ring.place * Ring<WIDTH>::PLACE;
      sm90::expect_bytes(ring.full(ring.place),
                         rows * ROW_BYTES + (film >= 0 ? Ring<WIDTH>::FILM : 0));
      copy(to, p.stream, slab, Ring<WIDTH>::SLAB, rows * ROW_BYTES);
      if (film >= 0)
        copy(to + Ring<WIDTH>::SLAB, p.film, film, Ring<WIDTH>::FILM, Ring<WIDTH>::FILM);
    }
    ring.advance();
  }

  // Few numbers, of 32 bits: this warpgroup has 24 registers a thread.
  SEMFACEEDIT_DEVICE void load_tile(int number) {
    constexpr int SLABS = WIDTH / FILM_INPUTS;
    const int row = static_cast<int>(p.tiles[2 * p.tile_bound + number]);
    int slab = static_cast<int>(p.row_groups[row]) * p.slabs;
    const int end = slab + p.slabs;
    int film = row * p.layers + row;
    const int view = film + p.layers, inputs = sm80::unknown(p.inputs);
    int left = inputs <= FILM_COORDINATES ? 1 : (inputs + WIDTH - 1) / WIDTH * SLABS;  // of a layer
    SEMFACEEDIT_NO_UNROLL for (; film <= view; ++film) {
      SEMFACEEDIT_NO_UNROLL for (; left != 0; ++slab)
          load(slab, WIDTH + FILM_NARROW, --left == 0 ? film : -1);
      left = film + 1 == view ? SLABS + 1 : SLABS;  // the view layer's directions
    }
    // No narrow rows from here on.
    SEMFACEEDIT_NO_UNROLL for (; slab < end; ++slab) load(slab, WIDTH, -1);
  }
};

// The matrix unit as film_siren_chain.h wants it.
template <int WIDTH>
struct GroupUnit {
  const FilmSirenChain& p;
  Ring<WIDTH> ring;
  int held = 0;  // the place that `done` releases

  static SEMFACEEDIT_DEVICE int thread() { return threadIdx.x - GROUP; }
  static SEMFACEEDIT_DEVICE int column() { return threadIdx.x % 4; }

  SEMFACEEDIT_DEVICE FilmSirenTile tile(int number) const {
    number = sm80::unknown(number);
    const int row = sm90::block_rank() * FILM_ROWS + thread() / 32 * 16 + threadIdx.x % 32 / 4;
    return FilmSirenTile(p, number, row);
  }

  SEMFACEEDIT_DEVICE uint32_t next_full() {
    sm90::wait_barrier(ring.full(ring.place), ring.parity);
    held = ring.place;
    ring.advance();
    return ring.memory + held * Ring<WIDTH>::PLACE;
  }

  SEMFACEEDIT_DEVICE void release(int place) const {
    const uint32_t lane = threadIdx.x % 32;
    if (lane < FILM_CLUSTER) sm90::arrive(ring.empty(place), lane);
  }

  SEMFACEEDIT_DEVICE void done() const {
    __syncwarp();  // all its threads have read
    release(held);
  }

  SEMFACEEDIT_DEVICE const float4* film(int, int) const {
    return reinterpret_cast<const float4*>(shared_memory()) + column() +
           (held * Ring<WIDTH>::PLACE + Ring<WIDTH>::SLAB) / static_cast<int>(sizeof(float4));
  }

  // The two groups take turns: barrier 1 or 2 is met by the one whose turn it is and passed by the
  // other, which has started its products by then.
  SEMFACEEDIT_DEVICE static void take_turn() { sm90::meet(threadIdx.x / GROUP, FILM_THREADS); }
  SEMFACEEDIT_DEVICE static void give_turn() { sm90::pass(3 - threadIdx.x / GROUP, FILM_THREADS); }

  // Products with these sums from here to `finish`.
  template <int COUNT>
  SEMFACEEDIT_DEVICE static void start(float* sums, float* narrow) {
    take_turn();
    sm90::hold<COUNT>(sums);
    if (narrow) sm90::hold<FILM_NARROW / 2>(narrow);
    sm90::fence_registers();
  }

  template <int COUNT>
  SEMFACEEDIT_DEVICE static void finish(float* sums, float* narrow) {
    sm90::wait_for_products(0);
    sm90::hold<COUNT>(sums);
    if (narrow) sm90::hold<FILM_NARROW / 2>(narrow);
  }

  SEMFACEEDIT_DEVICE void multiply(float (&sums)[WIDTH / 2], float* narrow,
                                   const uint32_t (&h)[WIDTH / 16][4], bool onto) {
    constexpr int SLABS = WIDTH / FILM_INPUTS;
    start<WIDTH / 2>(sums, narrow);
    const int first = ring.place;
    SEMFACEEDIT_UNROLL
    for (int slab = 0; slab < SLABS; ++slab) {
      const uint32_t b = sm90::matrix_at(next_full());
      SEMFACEEDIT_UNROLL
      for (int k = 0; k < FILM_INPUTS / 16; ++k) {
        const uint32_t (&a)[4] = h[slab * FILM_INPUTS / 16 + k];
        const uint32_t at = b + k * sm90::NEXT_INPUTS;
        sm90::multiply<WIDTH>(sums, a, at, onto || slab + k > 0);
        if (narrow) sm90::multiply<FILM_NARROW>(narrow, a, at + sm90::rows_on(WIDTH), true);
      }
      sm90::close_products();
    }
    give_turn();
    SEMFACEEDIT_UNROLL
    for (int slab = 0; slab < SLABS - 1; ++slab) {
      sm90::wait_for_products(SLABS - 1 - slab);
      const int place =
          first + slab < Ring<WIDTH>::PLACES ? first + slab : first + slab - Ring<WIDTH>::PLACES;
      release(place);
    }
    finish<WIDTH / 2>(sums, narrow);
  }

  SEMFACEEDIT_DEVICE void multiply_coordinates(float (&sums)[WIDTH / 2], const uint32_t (&a)[4],
                                               bool onto) {
    start<WIDTH / 2>(sums, nullptr);
    sm90::multiply<WIDTH>(sums, a, sm90::matrix_at(next_full()), onto);
    sm90::close_products();
    give_turn();
    finish<WIDTH / 2>(sums, nullptr);
  }

  SEMFACEEDIT_DEVICE void multiply_last(float* narrow, const uint32_t (&h)[WIDTH / 16][4]) {
    start<FILM_NARROW / 2>(narrow, nullptr);
    const uint32_t b = sm90::matrix_at(next_full());
    SEMFACEEDIT_UNROLL
    for (int k = 0; k < WIDTH / 16; ++k)
      sm90::multiply<FILM_NARROW>(
          narrow, h[k], b + k % 4 * sm90::NEXT_INPUTS + k / 4 * sm90::rows_on(FILM_NARROW), true);
    sm90::close_products();
    give_turn();
    finish<FILM_NARROW / 2>(narrow, nullptr);
  }
};

// Read anew at each use.
[[maybe_unused]] SEMFACEEDIT_DEVICE inline int clusters() {
  return sm80::unknown(static_cast<int>(gridDim.x)) / FILM_CLUSTER;
}

// Registers of a thread: 168 at launch, so many of the first warpgroup, what that leaves of the others.
template <int WIDTH>
struct Registers {
  static constexpr int FILLING = WIDTH == 256 ? 24 : 40;
  static constexpr int HOLDING = (3 * 168 - FILLING) / 2;
};

template <int WIDTH>
__global__ void __cluster_dims__(FILM_CLUSTER) __launch_bounds__(GROUP + FILM_THREADS, 1)
    chain_kernel(FilmSirenChain p) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const int tiles = static_cast<int>(*p.tile_count);
  const int first = blockIdx.x / FILM_CLUSTER;
  const Ring<WIDTH> ring(shared_memory());
  if (threadIdx.x == 0) {
    for (int place = 0; place < Ring<WIDTH>::PLACES; ++place) {
      sm90::init_barrier(ring.full(place), 1);
      sm90::init_barrier(ring.empty(place), RELEASES);
    }
    sm90::publish_barriers();
  }
  sm90::cluster_sync();
  if (threadIdx.x < GROUP) {
    sm90::decrease_registers<Registers<WIDTH>::FILLING>();
    if (threadIdx.x < 32) {
      Producer<WIDTH> producer{p, ring};
      SEMFACEEDIT_NO_UNROLL for (int tile = first; tile < tiles; tile += clusters())
          producer.load_tile(tile);
    }
  } else {
    using Unit = GroupUnit<WIDTH>;
    sm90::increase_registers<Registers<WIDTH>::HOLDING>();
    Unit unit{p, ring};
    if (threadIdx.x >= 2 * GROUP) Unit::give_turn();  // the other begins
    SEMFACEEDIT_NO_UNROLL for (int tile = first; tile < tiles; tile += clusters())
        run_tile<WIDTH>(p, tile, unit);
    if (threadIdx.x < 2 * GROUP) Unit::take_turn();  // so that nothing is left at the barriers
  }
  sm90::cluster_sync();  // no block ends while the other can still arrive at it
#else
  __trap();
#endif
}

template <int WIDTH>
void launch_chain(int64_t blocks, const FilmSirenChain& chain, const CudaPlace& place) {
  launch<FILM_CLUSTER>("film_siren", place, chain_kernel<WIDTH>, blocks, GROUP + FILM_THREADS,
                       Ring<WIDTH>::BYTES / sizeof(float), chain);
}

}  // namespace

void film_siren_forward_sm90(int64_t width, int64_t blocks, const FilmSirenChain& chain,
                             const CudaPlace& place) {
  for_width(width,
            [&](auto constant) { launch_chain<decltype(constant)::value>(blocks, chain, place); });
}

bool film_siren_sm90_is_built() {
  cudaFuncAttributes attributes;
  check_cuda(cudaFuncGetAttributes(&attributes, chain_kernel<256>), "film_siren");
  return attributes.ptxVersion >= 90;  // elsewhere the kernels are empty
}

}  // namespace semfaceedit
