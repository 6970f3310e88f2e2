// Sums and products over points, from what film_siren's backward pass keeps: the latter by mma.sync, for
// compute capability 8.0 and later.

#include "film_siren_backward_chain.h"

namespace semfaceedit {
namespace {

constexpr int WARPS = FILM_THREADS / 32;

SEMFACEEDIT_DEVICE inline int warp() { return sm80::unknown(static_cast<int>(threadIdx.x)) / 32; }

// Points of tiles, 32 at a time, through a ring in shared memory.
template <int LEFT, int RIGHT>
struct PointRing {
  static constexpr int RUN_BYTES = 4 * RUN_WORDS;
  static constexpr int RUNS = 2;  // of 16 points
  static constexpr int LEFT_BYTES = LEFT / 16 * RUN_BYTES, RIGHT_BYTES = RIGHT / 16 * RUN_BYTES;
  static constexpr int STAGE = RUNS * (LEFT_BYTES + RIGHT_BYTES), STAGES = 3;

  const FilmSirenProduct& p;
  const uint32_t memory;
  const int layer, group, end;
  int64_t left, right;  // first words of a tile's block
  float least;          // inverse that matters
  int tile, run = 0, stage = 0;

  SEMFACEEDIT_DEVICE PointRing(const FilmSirenProduct& product, float* shared, int at_layer,
                               int at_group, int first_left, int first_right, int begin, int stop)
      : p(product),
        memory(sm80::shared_address(shared)),
        layer(at_layer),
        group(at_group),
        end(stop),
        left(at_layer * product.left_layer + first_left / 16 * RUN_WORDS),
        right(at_layer * product.right_layer + first_right / 16 * RUN_WORDS),
        least(0.0f),
        tile(begin - 1) {
    float largest = 0.0f;
    for (int i = begin + threadIdx.x; i < end; i += FILM_THREADS)
      if (is_mine(i)) largest = inverse(i) > largest ? inverse(i) : largest;
    shared[threadIdx.x] = largest;
    sm80::block_sync("inverses are put down");
    for (int i = 0; i < FILM_THREADS; ++i) largest = shared[i] > largest ? shared[i] : largest;
    sm80::block_sync("inverses are read");
    least = largest * FILM_NOTHING;
    find();
    for (int i = 0; i < STAGES - 1; ++i) load();
  }

  SEMFACEEDIT_DEVICE float inverse(int of_tile) const {
    return p.inverses[of_tile * p.inverse_tile + layer * p.inverse_layer];
  }

  SEMFACEEDIT_DEVICE bool is_mine(int of_tile) const {
    const int64_t its = p.tile_groups[of_tile];
    return p.every_group ? its >= 0 : its == group;
  }

  SEMFACEEDIT_DEVICE int next(int of_tile) const {
    do ++of_tile;
    while (of_tile < end && !(is_mine(of_tile) && inverse(of_tile) >= least));
    return of_tile;
  }

  SEMFACEEDIT_DEVICE void find() { tile = next(tile); }

  SEMFACEEDIT_DEVICE void copy(uint32_t to, const uint32_t* from, int runs, int bytes) {
    for (int i = 0; i < RUNS; ++i)
      for (int at = threadIdx.x * 16; at < bytes; at += FILM_THREADS * 16)
        sm80::copy_async(to + i * bytes + at,
                         reinterpret_cast<const unsigned char*>(
                             from + static_cast<int64_t>(run + i) * runs * RUN_WORDS) +
                             at);
  }

  SEMFACEEDIT_DEVICE void load() {
    if (tile < end) {
      const uint32_t to = memory + stage * STAGE;
      copy(to, p.left + tile * p.left_tile + left, p.left_runs, LEFT_BYTES);
      copy(to + RUNS * LEFT_BYTES, p.right + tile * p.right_tile + right, p.right_runs,
           RIGHT_BYTES);
      run += RUNS;
      if (run == p.tile_runs) {
        run = 0;
        find();
      }
    }
    sm80::close_copies();
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }

  // As of SlabRing.
  SEMFACEEDIT_DEVICE uint32_t advance() {
    sm80::wait_for_copies<STAGES - 2>();
    sm80::block_sync("points");
    load();
    return memory + stage * STAGE;
  }
};

// A block's LEFT x RIGHT of a product, a warp's 64 x COLUMNS.
template <int LEFT, int RIGHT>
__global__ void __launch_bounds__(FILM_THREADS, 1) weight_gradient_kernel(FilmSirenProduct p) {
  using Ring = PointRing<LEFT, RIGHT>;
  constexpr int DOWN = LEFT / 64, COLUMNS = RIGHT / (WARPS / DOWN);
  const int across = p.right_runs * 16 / RIGHT, down = p.left_runs * 16 / LEFT;
  const int place = blockIdx.x % (across * down), matrix = blockIdx.x / (across * down);
  const int group = matrix % p.groups, layer = matrix / p.groups % p.layers;
  const int first_left = place / across * LEFT, first_right = place % across * RIGHT;
  const int share = (p.tiles + p.splits - 1) / p.splits;
  const int begin = matrix / (p.groups * p.layers) * share;
  int end = begin + share < p.tiles ? begin + share : p.tiles;
  if (!is_read(p, layer, first_left, LEFT)) end = begin;
  const int row = warp() % DOWN * 64, column = warp() / DOWN * COLUMNS;

  float sums[4][COLUMNS / 8][4] = {};
  float inverse = 1.0f;
  Ring ring(p, shared_memory(), layer, group, first_left, first_right, begin, end);
  const int first = ring.next(begin - 1);
  SEMFACEEDIT_NO_UNROLL for (int tile = first; tile < end; tile = ring.next(tile)) {
    const float own = ring.inverse(tile), ratio = inverse / own;
    inverse = own;
    SEMFACEEDIT_UNROLL
    for (auto& block : sums) SEMFACEEDIT_UNROLL
    for (auto& part : block) SEMFACEEDIT_UNROLL
    for (float& sum : part) sum *= ratio;
    SEMFACEEDIT_NO_UNROLL for (int run = 0; run < p.tile_runs; run += Ring::RUNS) {
      const uint32_t address = ring.advance();
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < Ring::RUNS; ++i) {
        const uint32_t left = address + i * Ring::LEFT_BYTES + row / 16 * Ring::RUN_BYTES;
        const uint32_t right = address + Ring::RUNS * Ring::LEFT_BYTES + i * Ring::RIGHT_BYTES +
                               column / 16 * Ring::RUN_BYTES;
        const uint32_t at = own_lane() % 8 * 16, which = own_lane() / 8;
        uint32_t a[4][4];
        SEMFACEEDIT_UNROLL
        for (int m = 0; m < 4; ++m)
          sm80::load_transposed(
              a[m], left + m * Ring::RUN_BYTES + (which % 2 * 2 + which / 2) * 128 + at);
        if constexpr (COLUMNS >= 16) {
          SEMFACEEDIT_UNROLL
          for (int n = 0; n < COLUMNS / 16; ++n) {
            uint32_t b[4];
            sm80::load_transposed(b, right + n * Ring::RUN_BYTES + which * 128 + at);
            SEMFACEEDIT_UNROLL
            for (int m = 0; m < 4; ++m) {
              sm80::multiply(sums[m][2 * n], a[m], b[0], b[1]);
              sm80::multiply(sums[m][2 * n + 1], a[m], b[2], b[3]);
            }
          }
        } else {
          uint32_t b[2];
          sm80::load_transposed(b, right + column / 8 % 2 * 256 + which % 2 * 128 + at);
          SEMFACEEDIT_UNROLL
          for (int m = 0; m < 4; ++m) sm80::multiply(sums[m][0], a[m], b[0], b[1]);
        }
      }
    }
  }

  if (first >= end) return;
  const int64_t width = p.right_runs * 16;
  float* to = p.product + static_cast<int64_t>(matrix) * p.left_runs * 16 * width;
  SEMFACEEDIT_UNROLL
  for (int m = 0; m < 4; ++m) SEMFACEEDIT_UNROLL
  for (int n = 0; n < COLUMNS / 8; ++n) SEMFACEEDIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int64_t output = first_left + row + 16 * m + i / 2 * 8 + own_lane() / 4;
    to[output * width + first_right + column + 8 * n + own_lane() % 4 * 2 + i % 2] +=
        sums[m][n][i] * inverse;
  }
}

constexpr int SUM_COLUMNS = 32;

__global__ void __launch_bounds__(FILM_THREADS)
    row_sums_kernel(int size, const int64_t* first, const float* sums, float* row_sums) {
  const int blocks = (size + SUM_COLUMNS - 1) / SUM_COLUMNS;
  const int64_t row = blockIdx.x / blocks;
  const int column = blockIdx.x % blocks * SUM_COLUMNS + own_lane();
  float sum = 0.0f;
  if (column < size) SEMFACEEDIT_UNROLL_FOUR
  for (int64_t tile = first[row] + warp(); tile < first[row + 1]; tile += WARPS)
    sum += sums[tile * size + column];
  float* parts = shared_memory();
  parts[threadIdx.x] = sum;
  sm80::block_sync("sums of rows are put down");
  if (warp() != 0 || column >= size) return;
  for (int i = 1; i < WARPS; ++i) sum += parts[i * SUM_COLUMNS + own_lane()];
  row_sums[row * size + column] = sum;
}

template <int LEFT, int RIGHT>
void launch_product(const FilmSirenProduct& p, const CudaPlace& place) {
  using Ring = PointRing<LEFT, RIGHT>;
  const int64_t blocks = static_cast<int64_t>(p.left_runs * 16 / LEFT) *
                         (p.right_runs * 16 / RIGHT) * p.layers * p.groups * p.splits;
  launch("film_siren", place, weight_gradient_kernel<LEFT, RIGHT>, blocks, FILM_THREADS,
         Ring::STAGE / 4 * Ring::STAGES, p);
}

}  // namespace

void film_siren_weight_gradients_sm80(int64_t width, const FilmSirenProduct& product,
                                      const CudaPlace& place) {
  for_width(width, [&](auto constant) {
    constexpr int WIDTH = decltype(constant)::value;
    if (product.left_runs % 8 == 0)
      launch_product<128, WIDTH>(product, place);
    else
      launch_product<64, WIDTH>(product, place);
  });
}

void film_siren_row_sums(int64_t rows, int64_t size, const int64_t* first, const float* sums,
                         float* row_sums, const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  const int64_t blocks = rows * ceil_div(size, SUM_COLUMNS);
  launch("film_siren", place, row_sums_kernel, blocks, FILM_THREADS, FILM_THREADS,
         static_cast<int>(size), first, sums, row_sums);
}

}  // namespace semfaceedit
