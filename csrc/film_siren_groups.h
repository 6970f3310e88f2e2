// The matrix unit of film_siren_chain.h by wgmma, for compute capability 9.0 alone (sm_90a). The
// blocks of a cluster share a tile, a part of its points each: every slab of weights comes from L2 once
// for all of them. A thread of the first warpgroup fills a ring of places in shared memory; the two others
// hold 64 points each, their activations in registers from layer to layer. While one of them computes
// sines, the other multiplies: they take turns.
//
// A place of the ring has a barrier that ends a phase when it is full (the filling thread arrives, and
// all bytes do), and one that does when it is empty (every warp of the cluster that holds points
// arrives, at each block). In a place lies a slab with the rows of WIDTH outputs and of ADDED narrow
// channels and, if there are these, behind the last slab of a layer its FiLM.
#pragma once

#include "film_siren_chain.h"
#include "cuda_launch.h"
#include "sm90.h"

namespace semfaceedit {

constexpr int GROUP = 128;  // threads of a warpgroup
constexpr int RELEASES = FILM_CLUSTER * FILM_THREADS / 32;

template <int WIDTH, int ADDED>
struct GroupRing {
  static constexpr int SLAB = (WIDTH + ADDED) * ROW_BYTES;
  static constexpr int FILM = ADDED > 0 ? WIDTH * 2 * static_cast<int>(sizeof(float)) : 0;
  static constexpr int PLACE = (SLAB + FILM + 1023) / 1024 * 1024;
  static constexpr int PLACES = ADDED > 0 ? 6 : 4;
  static constexpr int BYTES = PLACES * (PLACE + 2 * sizeof(uint64_t));

  const uint32_t memory;
  int place = 0;
  uint32_t parity = 0;

  SEMFACEEDIT_DEVICE explicit GroupRing(const void* shared)
      : memory(sm80::shared_address(shared)) {}

  SEMFACEEDIT_DEVICE uint32_t full(int at) const { return memory + PLACES * PLACE + 8 * at; }
  SEMFACEEDIT_DEVICE uint32_t empty(int at) const { return full(PLACES + at); }

  SEMFACEEDIT_DEVICE void advance() {
    if (++place == PLACES) place = 0, parity ^= 1;
  }
};

// Fills its share of every place, in the rings of all blocks of the cluster.
template <int WIDTH, int ADDED>
struct Filler {
  using Ring = GroupRing<WIDTH, ADDED>;
  const FilmSirenChain& p;
  Ring ring;

  SEMFACEEDIT_DEVICE void copy(uint32_t to, const void* from, int64_t item, int size,
                               uint32_t bytes) const {
    const uint32_t share = bytes / FILM_CLUSTER, first = share * sm90::block_rank();
    sm90::copy_to_cluster<FILM_CLUSTER>(to + first,
                                        static_cast<const char*>(from) + item * size + first, share,
                                        ring.full(ring.place));
  }

  // Rows of a slab into the next place, if any, and a layer's FiLM behind it if it is not negative.
  SEMFACEEDIT_DEVICE void load(int slab, int rows, int film) {
    sm90::wait_barrier(ring.empty(ring.place), ring.parity ^ 1);
    if (threadIdx.x == 0) {
      const uint32_t to = ring.memory + ring.place * Ring::PLACE;
      sm90::expect_bytes(ring.full(ring.place), rows * ROW_BYTES + (film >= 0 ? Ring::FILM : 0));
      if (rows > 0) copy(to, p.stream, slab, Ring::SLAB, rows * ROW_BYTES);
      if (film >= 0) copy(to + Ring::SLAB, p.film, film, Ring::FILM, Ring::FILM);
    }
    ring.advance();
  }
};

// The matrix unit as film_siren_chain.h wants it.
template <int WIDTH, int ADDED>
struct GroupUnit {
  using Ring = GroupRing<WIDTH, ADDED>;
  const FilmSirenChain& p;
  Ring ring;
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
    return ring.memory + held * Ring::PLACE;
  }

  SEMFACEEDIT_DEVICE void release(int place) const {
    const uint32_t lane = threadIdx.x % 32;
    if (lane < FILM_CLUSTER) sm90::arrive(ring.empty(place), lane);
  }

  SEMFACEEDIT_DEVICE void done() const {
    __syncwarp();  // all its threads have read
    release(held);
  }

  SEMFACEEDIT_DEVICE void next_film() {
    if constexpr (ADDED > 0) next_full();
  }

  SEMFACEEDIT_DEVICE const float4* film(int number, int layer) const {
    if constexpr (ADDED == 0) return film_of<WIDTH>(p, number, layer, column());
    return reinterpret_cast<const float4*>(shared_memory()) + column() +
           (held * Ring::PLACE + Ring::SLAB) / static_cast<int>(sizeof(float4));
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
      const int place = first + slab < Ring::PLACES ? first + slab : first + slab - Ring::PLACES;
      release(place);
    }
    finish<WIDTH / 2>(sums, narrow);
  }

  static SEMFACEEDIT_DEVICE void clear(float (&sums)[WIDTH / 2]) {
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < WIDTH / 2; ++i) sums[i] = 0.0f;
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
SEMFACEEDIT_DEVICE inline int clusters() {
  return sm80::unknown(static_cast<int>(gridDim.x)) / FILM_CLUSTER;
}

// Registers of a thread: 168 at launch, so many of the first warpgroup, what that leaves of the others.
template <int WIDTH>
struct Registers {
  static constexpr int FILLING = WIDTH == 256 ? 24 : 40;
  static constexpr int HOLDING = (3 * 168 - FILLING) / 2;
};

// A thread's part of a kernel: `fill(ring)` fills the ring of its block, `hold(ring)` holds points.
template <int WIDTH, int ADDED, class Fill, class Hold>
SEMFACEEDIT_DEVICE inline void run_groups(const Fill& fill, const Hold& hold) {
  using Ring = GroupRing<WIDTH, ADDED>;
  using Unit = GroupUnit<WIDTH, ADDED>;
  const Ring ring(shared_memory());
  if (threadIdx.x == 0) {
    for (int place = 0; place < Ring::PLACES; ++place) {
      sm90::init_barrier(ring.full(place), 1);
      sm90::init_barrier(ring.empty(place), RELEASES);
    }
    sm90::publish_barriers();
  }
  sm90::cluster_sync();
  if (threadIdx.x < GROUP) {
    sm90::decrease_registers<Registers<WIDTH>::FILLING>();
    if (threadIdx.x < 32) fill(ring);
  } else {
    sm90::increase_registers<Registers<WIDTH>::HOLDING>();
    if (threadIdx.x >= 2 * GROUP) Unit::give_turn();  // the other begins
    hold(ring);
    if (threadIdx.x < 2 * GROUP) Unit::take_turn();  // so that nothing is left at the barriers
  }
  sm90::cluster_sync();  // no block ends while another can still arrive at it
}

}  // namespace semfaceedit
