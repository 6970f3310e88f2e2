// Products over points by wgmma, for compute capability 9.0 alone (sm_90a). The blocks of a cluster
// have the same columns of right and other ones of left: each copies a share of the former to all. A
// warp fills a ring of places in shared memory, with a part of a tile each; two warpgroups multiply 64
// columns of left by all of right each or, where there are no more, by one half. While one of them
// scales its sums the other multiplies: they take turns.
//
// Barriers of a place are as film_siren_groups.h says. Beside them lies the part's inverse scale, which
// the filling warp puts there before it arrives; 0 says that no part follows.

#include "film_siren_backward_chain.h"
#include "film_siren_groups.h"

namespace semfaceedit {
namespace {

constexpr int RUNS = FILM_ROWS / FILM_GROUPS / 16;  // of 16 points, in a part
constexpr int COLUMNS_BYTES =
    RUN_WORDS * static_cast<int>(sizeof(uint32_t));  // 16 columns of a run
// Registers of a thread: 168 at launch, so many where copies are made, and where sums are held.
constexpr int FILLING = 72, HOLDING = (3 * 168 - FILLING) / 2;
constexpr unsigned WARP_MASK = 0xffffffffu;

// What a block multiplies.
template <int LEFT, int RIGHT, int CLUSTER>
struct ProductBlock {
  static constexpr int LEFT_BYTES = LEFT / 16 * COLUMNS_BYTES,
                       RIGHT_BYTES = RIGHT / 16 * COLUMNS_BYTES;
  static constexpr int GROUPS_DOWN = LEFT / 64, COLUMNS = RIGHT * GROUPS_DOWN / FILM_GROUPS;

  const FilmSirenProduct& p;
  int first_left, first_right, matrix, layer, group, begin, end;

  explicit SEMFACEEDIT_DEVICE ProductBlock(const FilmSirenProduct& product) : p(product) {
    const int down = p.left_runs * 16 / LEFT, across = p.right_runs * 16 / RIGHT;
    const int block = static_cast<int>(blockIdx.x), place = block % (down * across);
    first_left = place % down * LEFT;
    first_right = place / down * RIGHT;
    matrix = block / (down * across);
    group = matrix % p.groups;
    layer = matrix / p.groups % p.layers;
    const int share = (p.tiles + p.splits - 1) / p.splits;
    begin = matrix / (p.groups * p.layers) * share;
    end = begin + share < p.tiles ? begin + share : p.tiles;
    const int first_of_cluster = first_left / (LEFT * CLUSTER) * (LEFT * CLUSTER);
    if (!is_read(p, layer, first_of_cluster, LEFT * CLUSTER)) end = begin;
  }

  // Else its left is not loaded.
  SEMFACEEDIT_DEVICE bool is_used() const { return is_read(p, layer, first_left, LEFT); }

  // Inverse scale of a part, 0 if it is of another group.
  SEMFACEEDIT_DEVICE float inverse(int part) const {
    const int64_t its = p.tile_groups[part];
    if (p.every_group ? its < 0 : its != group) return 0.0f;
    return p.inverses[part * p.inverse_tile + layer * p.inverse_layer];
  }
};

template <int LEFT, int RIGHT, int CLUSTER>
struct PartRing {
  using Block = ProductBlock<LEFT, RIGHT, CLUSTER>;
  static constexpr int PLACE = RUNS * (Block::LEFT_BYTES + Block::RIGHT_BYTES), PLACES = 4;
  static constexpr int BARRIERS = PLACES * PLACE, INVERSES = BARRIERS + PLACES * 16;
  static constexpr int FLOATS = INVERSES / 4 + PLACES;
  static constexpr int RELEASES = CLUSTER * FILM_THREADS / 32;

  const uint32_t memory = sm80::shared_address(shared_memory());
  int place = 0;
  uint32_t parity = 0;

  SEMFACEEDIT_DEVICE uint32_t full() const { return memory + BARRIERS + 16 * place; }
  SEMFACEEDIT_DEVICE uint32_t empty() const { return full() + 8; }
  SEMFACEEDIT_DEVICE float& inverse() const { return shared_memory()[INVERSES / 4 + place]; }
  // Left lies before right, each a run of points after the other.
  SEMFACEEDIT_DEVICE uint32_t left(int run) const {
    return memory + place * PLACE + run * Block::LEFT_BYTES;
  }
  SEMFACEEDIT_DEVICE uint32_t right(int run) const { return left(RUNS) + run * Block::RIGHT_BYTES; }

  SEMFACEEDIT_DEVICE void advance() {
    if (++place == PLACES) place = 0, parity ^= 1;
  }

  SEMFACEEDIT_DEVICE void init() {
    for (int i = 0; i < PLACES; ++i, advance()) {
      sm90::init_barrier(full(), 1);
      sm90::init_barrier(empty(), RELEASES);
    }
    parity = 0;
    sm90::publish_barriers();
  }
};

// Of a lane: its part into the place, which is empty.
template <int LEFT, int RIGHT, int CLUSTER>
SEMFACEEDIT_DEVICE inline void load_part(const ProductBlock<LEFT, RIGHT, CLUSTER>& block,
                                         const PartRing<LEFT, RIGHT, CLUSTER>& ring, int part,
                                         float inverse) {
  using Block = ProductBlock<LEFT, RIGHT, CLUSTER>;
  constexpr int SHARE = (Block::RIGHT_BYTES / 16 + CLUSTER - 1) / CLUSTER * 16;
  const FilmSirenProduct& p = block.p;
  const int first = SHARE * static_cast<int>(sm90::block_rank());
  const int share = SHARE < Block::RIGHT_BYTES - first ? SHARE : Block::RIGHT_BYTES - first;
  const bool used = block.is_used();
  ring.inverse() = inverse;
  sm90::expect_bytes(ring.full(), RUNS * (Block::RIGHT_BYTES + (used ? Block::LEFT_BYTES : 0)));
  const uint32_t* left =
      p.left + part * p.left_tile + block.layer * p.left_layer + block.first_left / 16 * RUN_WORDS;
  const uint32_t* right = p.right + part * p.right_tile + block.layer * p.right_layer +
                          block.first_right / 16 * RUN_WORDS + first / 4;
  SEMFACEEDIT_NO_UNROLL for (int run = 0; run < RUNS; ++run) {
    sm90::copy_to_cluster<CLUSTER>(ring.right(run) + first, right + run * p.right_runs * RUN_WORDS,
                                   share, ring.full());
    if (used)
      sm90::copy_to_block(ring.left(run), left + run * p.left_runs * RUN_WORDS, Block::LEFT_BYTES,
                          ring.full());
  }
}

// Of a warp: all parts that count, in the same order in each block of the cluster.
template <int LEFT, int RIGHT, int CLUSTER>
SEMFACEEDIT_DEVICE inline void load_parts(const ProductBlock<LEFT, RIGHT, CLUSTER>& block,
                                          PartRing<LEFT, RIGHT, CLUSTER> ring) {
  const int lane = own_lane();
  float largest = 0.0f;
  for (int part = block.begin + lane; part < block.end; part += 32)
    largest = sm80::larger_magnitude(largest, block.inverse(part));
  for (int step = 16; step > 0; step /= 2)
    largest = sm80::larger_magnitude(largest, __shfl_xor_sync(WARP_MASK, largest, step));
  const float least = largest * FILM_NOTHING;
  SEMFACEEDIT_NO_UNROLL for (int first = block.begin; first < block.end; first += 32) {
    const int part = first + lane;
    const float inverse = part < block.end ? block.inverse(part) : 0.0f;
    const unsigned wanted = __ballot_sync(WARP_MASK, inverse > 0.0f && inverse >= least);
    SEMFACEEDIT_NO_UNROLL for (int i = 0; i < 32; ++i) {
      if (!(wanted >> i & 1)) continue;
      sm90::wait_barrier(ring.empty(), ring.parity ^ 1);
      if (lane == i) load_part(block, ring, part, inverse);
      ring.advance();
    }
  }
  sm90::wait_barrier(ring.empty(), ring.parity ^ 1);
  if (lane == 0) {
    ring.inverse() = 0.0f;
    sm90::expect_bytes(ring.full(), 0);
  }
}

// Of a warpgroup: its columns of the block's product.
template <int LEFT, int RIGHT, int CLUSTER>
SEMFACEEDIT_DEVICE inline void multiply_parts(const ProductBlock<LEFT, RIGHT, CLUSTER>& block,
                                              PartRing<LEFT, RIGHT, CLUSTER> ring) {
  using Block = ProductBlock<LEFT, RIGHT, CLUSTER>;
  using Unit = GroupUnit<RIGHT, 0>;
  constexpr int COLUMNS = Block::COLUMNS;
  const int number = static_cast<int>(threadIdx.x) / GROUP - 1;
  const int row = number % Block::GROUPS_DOWN * 64, column = number / Block::GROUPS_DOWN * COLUMNS;
  const bool used = block.is_used();

  float sums[COLUMNS / 2] = {};
  float inverse = 1.0f;
  bool added = false;
  SEMFACEEDIT_NO_UNROLL for (;; ring.advance()) {
    sm90::wait_barrier(ring.full(), ring.parity);
    const float own = ring.inverse();
    if (own == 0.0f) break;
    if (used) {
      // Of powers of two.
      const float ratio = inverse * sm80::number_of((254u << 23) - sm80::bits_of(own));
      inverse = own;
      added = true;
      SEMFACEEDIT_UNROLL
      for (float& sum : sums) sum *= ratio;
      Unit::template start<COLUMNS / 2>(sums, nullptr);
      SEMFACEEDIT_UNROLL
      for (int run = 0; run < RUNS; ++run)
        sm90::multiply_points<COLUMNS>(
            sums, sm90::points_at(ring.left(run) + row / 16 * COLUMNS_BYTES),
            sm90::points_at(ring.right(run) + column / 16 * COLUMNS_BYTES));
      sm90::close_products();
      Unit::give_turn();
      Unit::template finish<COLUMNS / 2>(sums, nullptr);
    }
    __syncwarp();  // all its threads have read
    if (own_lane() < CLUSTER) sm90::arrive(ring.empty(), own_lane());
  }

  if (!added) return;
  const FilmSirenProduct& p = block.p;
  const int64_t width = p.right_runs * 16;
  const int64_t first = block.first_left + row + static_cast<int>(threadIdx.x) % GROUP / 32 * 16;
  float* to = p.product +
              (block.matrix * p.left_runs * int64_t{16} + first + own_lane() / 4) * width +
              block.first_right + column + own_lane() % 4 * 2;
  SEMFACEEDIT_UNROLL
  for (int j = 0; j < COLUMNS / 8; ++j) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) to[i / 2 * 8 * width + 8 * j + i % 2] += sums[4 * j + i] * inverse;
}

template <int LEFT, int RIGHT, int CLUSTER>
__global__ void __cluster_dims__(CLUSTER) __launch_bounds__(GROUP + FILM_THREADS, 1)
    weight_gradient_kernel(FilmSirenProduct p) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Unit = GroupUnit<RIGHT, 0>;
  const ProductBlock<LEFT, RIGHT, CLUSTER> block(p);
  PartRing<LEFT, RIGHT, CLUSTER> ring;
  if (threadIdx.x == 0) ring.init();
  sm90::cluster_sync();
  if (threadIdx.x < GROUP) {
    sm90::decrease_registers<FILLING>();
    if (threadIdx.x < 32) load_parts(block, ring);
  } else {
    sm90::increase_registers<HOLDING>();
    if (threadIdx.x >= 2 * GROUP) Unit::give_turn();  // the other begins
    multiply_parts(block, ring);
    if (threadIdx.x < 2 * GROUP) Unit::take_turn();  // so that nothing is left at the barriers
  }
  sm90::cluster_sync();  // no block ends while another can still write there or arrive
#else
  __trap();
#endif
}

template <int LEFT, int RIGHT, int CLUSTER>
void launch_product(const FilmSirenProduct& p, const CudaPlace& place) {
  const int64_t blocks = static_cast<int64_t>(p.left_runs * 16 / LEFT) *
                         (p.right_runs * 16 / RIGHT) * p.layers * p.groups * p.splits;
  launch<CLUSTER>("film_siren", place, weight_gradient_kernel<LEFT, RIGHT, CLUSTER>, blocks,
                  GROUP + FILM_THREADS, PartRing<LEFT, RIGHT, CLUSTER>::FLOATS, p);
}

}  // namespace

void film_siren_weight_gradients_sm90(int64_t width, const FilmSirenProduct& product,
                                      const CudaPlace& place) {
  if (product.tile_runs != RUNS) throw std::invalid_argument("film_siren: parts are of 64 points");
  const int down = product.left_runs % 8 == 0 ? product.left_runs / 8 : 0;  // 128 columns each
  for_width(width, [&](auto constant) {
    constexpr int WIDTH = decltype(constant)::value;
    if (down == 0)
      launch_product<64, WIDTH, 1>(product, place);
    else if (down % 2 == 0)
      launch_product<128, WIDTH, 2>(product, place);
    else if (down % 3 == 0)
      launch_product<128, WIDTH, 3>(product, place);
    else
      launch_product<128, WIDTH, 1>(product, place);
  });
}

}  // namespace semfaceedit
