// film_siren's gradients by wgmma, for compute capability 9.0 alone (sm_90a): see
// film_siren_backward.h. A warpgroup's 64 points are a part. W h is not kept: it is multiplied anew from
// the activations that weight gradients want anyway, 64 columns at a time, so that its sums have room
// beside those of the layer's gradients. The activations lie in shared memory for that: a thread's own,
// which it wrote to device memory on the way there.

#include "film_siren_backward_chain.h"
#include "film_siren_groups.h"

namespace semfaceedit {
namespace {

constexpr int BLOCK = 64;                                   // columns of W h at a time
constexpr int PARTS = FILM_CLUSTER * FILM_GROUPS;           // of a tile
constexpr int PIECE = FILM_ROWS / FILM_GROUPS * ROW_BYTES;  // 64 inputs of a part, in shared memory

template <int WIDTH>
struct BackwardGroup;

// Shared memory: the ring, the activations of each group, its sums.
template <int WIDTH>
struct BackwardMemory {
  using Ring = GroupRing<WIDTH, 0>;
  static constexpr int ACTIVATIONS = (Ring::BYTES + 1023) / 1024 * 1024;
  static constexpr int OF_GROUP = WIDTH / FILM_INPUTS * PIECE;
  static constexpr int SUMS = (ACTIVATIONS + FILM_GROUPS * OF_GROUP) / 4;  // floats
  static constexpr int FLOATS = SUMS + FILM_GROUPS * PartSums<WIDTH, BackwardGroup<WIDTH>>::FLOATS;
};

// W h of a layer, BLOCK columns at a time.
template <int WIDTH>
struct MultipliedAffine {
  BackwardGroup<WIDTH>& unit;
  const FilmSirenBackward& p;
  const int number, layer;
  float sums[BLOCK / 2];

  SEMFACEEDIT_DEVICE void begin(int first) {
    if (first % BLOCK != 0) return;
    SEMFACEEDIT_UNROLL
    for (float& sum : sums) sum = 0.0f;
    unit.multiply_affine(p, number, layer, first, sums);
    sm90::keep_single();  // else ptxas copies what follows, for sums that are multiplied and read
  }
  SEMFACEEDIT_DEVICE float4 operator()(int j) const {
    const float* s = sums + 4 * (j % (BLOCK / 8));
    return float4{s[0], s[1], s[2], s[3]};
  }
};

// The matrix unit as film_siren_backward_chain.h wants it.
template <int WIDTH>
struct BackwardGroup : GroupUnit<WIDTH, 0> {
  using Unit = GroupUnit<WIDTH, 0>;
  static constexpr int WARPS = GROUP / 32, ROWS = FILM_ROWS / FILM_GROUPS;

  static SEMFACEEDIT_DEVICE int own_thread() {
    return sm80::unknown(static_cast<int>(threadIdx.x)) % GROUP;
  }
  static SEMFACEEDIT_DEVICE int warp() { return own_thread() / 32; }
  static SEMFACEEDIT_DEVICE int group() {
    return sm80::unknown(static_cast<int>(threadIdx.x)) / GROUP - 1;
  }
  static SEMFACEEDIT_DEVICE int own_part() {
    return static_cast<int>(blockIdx.x) * FILM_GROUPS + group();
  }
  static SEMFACEEDIT_DEVICE int part(int number) { return number * PARTS + own_part() % PARTS; }
  static SEMFACEEDIT_DEVICE int first_row() { return own_part() % PARTS * ROWS; }
  static SEMFACEEDIT_DEVICE void sync(const char* what) { sm90::group_sync(what); }
  static SEMFACEEDIT_DEVICE float* part_memory() {
    constexpr int FLOATS = PartSums<WIDTH, BackwardGroup>::FLOATS;
    return shared_memory() + BackwardMemory<WIDTH>::SUMS + group() * FLOATS;
  }

  SEMFACEEDIT_DEVICE void multiply_deltas(float (&sums)[WIDTH / 2],
                                          const uint32_t (&h)[WIDTH / 16][4], bool none) {
    if (none) {
      this->clear(sums);
      return;
    }
    this->multiply(sums, nullptr, h, false);
    this->done();
    // Here and not for both cases: else the compiler copies sums while products write them.
    const float ratio = PartSums<WIDTH, BackwardGroup>::ratio();
    SEMFACEEDIT_UNROLL
    for (float& sum : sums) sum *= ratio;
  }

  SEMFACEEDIT_DEVICE void multiply_slab(float (&sums)[WIDTH / 2],
                                        const uint32_t (&a)[FILM_INPUTS / 16][4], int) {
    Unit::template start<WIDTH / 2>(sums, nullptr);
    const uint32_t b = sm90::matrix_at(this->next_full());
    SEMFACEEDIT_UNROLL
    for (int k = 0; k < FILM_INPUTS / 16; ++k)
      sm90::multiply<WIDTH>(sums, a[k], b + k * sm90::NEXT_INPUTS, true);
    sm90::close_products();
    Unit::give_turn();
    Unit::template finish<WIDTH / 2>(sums, nullptr);
  }

  SEMFACEEDIT_DEVICE void keep_affine(const FilmSirenBackward&, int,
                                      const float (&)[WIDTH / 2]) const {}

  // Brings the warp's activations that a layer reads from memory to L2, where products hide it.
  SEMFACEEDIT_DEVICE void prepare(const FilmSirenBackward& p, int number, int layer) const {
    constexpr int LINE = 128, LINES = WIDTH / 16 * RUN_WORDS * 4 / LINE;
    if (layer == 0) return;
    const uint32_t* from =
        layer_words<WIDTH, BackwardGroup>(p, p.activations, number, layer - 1) - own_lane();
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < (LINES + 31) / 32; ++i)
      if (const int line = 32 * i + own_lane(); line < LINES)
        sm80::prefetch(from + line * (LINE / 4));
  }

  // Where the part's activations lie in shared memory: 64 inputs of all points after the other.
  static SEMFACEEDIT_DEVICE uint32_t activations() {
    return sm80::shared_address(shared_memory()) + BackwardMemory<WIDTH>::ACTIVATIONS +
           group() * BackwardMemory<WIDTH>::OF_GROUP;
  }

  // A thread's words of 16 inputs from 16 k on.
  SEMFACEEDIT_DEVICE static void put(int k, const uint32_t (&a)[4]) {
    const int row = own_thread() / 32 * 16 + own_lane() / 4;
    const uint32_t to =
        activations() + k / 4 * PIECE + row * ROW_BYTES + row % 8 * 16 + Unit::column() * 4;
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < 4; ++i)
      sm90::store_shared((to ^ (k % 4 * 2 + i / 2) * 16) + i % 2 * 8 * ROW_BYTES, a[i]);
  }

  static SEMFACEEDIT_DEVICE void are_put() {
    sm90::fence_shared();
    __syncwarp();  // a warp's products read the rows of its own threads
  }

  // The activations that a layer after the first one reads.
  SEMFACEEDIT_DEVICE static void put_activations(const FilmSirenBackward& p, int number,
                                                 int layer) {
    const uint32_t* from = layer_words<WIDTH, BackwardGroup>(p, p.activations, number, layer - 1);
    SEMFACEEDIT_UNROLL
    for (int k = 0; k < WIDTH / 16; ++k) {
      uint32_t a[4];
      SEMFACEEDIT_UNROLL
      for (int i = 0; i < 4; ++i) a[i] = from[(4 * k + i) * 32];
      put(k, a);
    }
    are_put();
  }

  // WIDTH inputs of the points from `first` on.
  SEMFACEEDIT_DEVICE void put_inputs(int number, int first) const {
    const FilmSirenTile tile = this->tile(number);
    SEMFACEEDIT_NO_UNROLL for (int k = 0; k < WIDTH / 16; ++k) {
      uint32_t a[4];
      load_inputs(this->p, tile, Unit::column(), first + 16 * k, a);
      put(k, a);
    }
    are_put();
  }

  // sums (+)= activations times the rows of the next slab.
  SEMFACEEDIT_DEVICE void multiply_rows(float (&sums)[BLOCK / 2], bool onto) {
    Unit::template start<BLOCK / 2>(sums, nullptr);
    const uint32_t b = sm90::matrix_at(this->next_full()), a = sm90::matrix_at(activations());
    SEMFACEEDIT_UNROLL
    for (int k = 0; k < WIDTH / 16; ++k)
      sm90::multiply_shared(sums, a + k / 4 * sm90::rows_on(ROWS) + k % 4 * sm90::NEXT_INPUTS,
                            b + k / 4 * sm90::rows_on(BLOCK) + k % 4 * sm90::NEXT_INPUTS,
                            onto || k > 0);
    sm90::close_products();
    Unit::give_turn();
    Unit::template finish<BLOCK / 2>(sums, nullptr);
    this->done();
  }

  // sums (+)= coordinates times the rows of the next slab.
  SEMFACEEDIT_DEVICE void multiply_coordinate_rows(float (&sums)[BLOCK / 2], const uint32_t (&a)[4],
                                                   bool onto) {
    Unit::template start<BLOCK / 2>(sums, nullptr);
    sm90::multiply<BLOCK>(sums, a, sm90::matrix_at(this->next_full()), onto);
    sm90::close_products();
    Unit::give_turn();
    Unit::template finish<BLOCK / 2>(sums, nullptr);
    this->done();
  }

  // BLOCK columns from `first` on of a layer's W h.
  SEMFACEEDIT_DEVICE void multiply_affine(const FilmSirenBackward& p, int number, int layer,
                                          int first, float (&sums)[BLOCK / 2]) {
    if (sm80::unknown(layer) == 0 && this->p.identity) {
      load_sums(this->p, this->tile(number), Unit::column(), sm80::unknown(first), sums);
      return;
    }
    const int inputs = this->p.inputs;
    const bool view = layer == this->p.layers, thin = layer == 0 && reads_coordinates(this->p);
    if (!thin) {
      const int read = layer > 0 ? WIDTH : inputs;
      if (first == 0 && layer > 0) put_activations(p, number, layer);
      SEMFACEEDIT_NO_UNROLL for (int at = 0; at < read; at += WIDTH) {
        if (layer == 0 && (first == 0 || read > WIDTH)) put_inputs(number, at);
        multiply_rows(sums, at > 0);
      }
    }
    if (view || thin) {
      uint32_t a[4];
      load_coordinates(view ? this->p.directions : this->p.points, view ? 3 : inputs,
                       this->tile(number), own_lane() % 4, a);
      multiply_coordinate_rows(sums, a, view);
    }
  }

  SEMFACEEDIT_DEVICE MultipliedAffine<WIDTH> affine(const FilmSirenBackward& p, int number,
                                                    int layer) {
    return {*this, p, number, layer, {}};
  }
};

template <int WIDTH>
__global__ void __cluster_dims__(FILM_CLUSTER) __launch_bounds__(GROUP + FILM_THREADS, 1)
    backward_chain_kernel(FilmSirenBackward p) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Ring = GroupRing<WIDTH, 0>;
  const int tiles = static_cast<int>(*p.chain.tile_count);
  const int first = p.first_tile + static_cast<int>(blockIdx.x) / FILM_CLUSTER;
  const auto fill = [&](const Ring& ring) {
    Filler<WIDTH, 0> filler{p.chain, ring};
    SEMFACEEDIT_NO_UNROLL for (int tile = first; tile < tiles; tile += clusters()) {
      const int64_t row = p.chain.tiles[2 * p.chain.tile_bound + tile];
      const int begin = static_cast<int>(p.chain.row_groups[row]) * p.chain.slabs;
      SEMFACEEDIT_NO_UNROLL for (int slab = 0; slab < p.chain.slabs; ++slab)
          filler.load(begin + slab, WIDTH, -1);
    }
  };
  const auto hold = [&](const Ring& ring) {
    BackwardGroup<WIDTH> unit{{p.chain, ring}};
    SEMFACEEDIT_NO_UNROLL for (int tile = first; tile < tiles; tile += clusters()) {
      go_forward<WIDTH>(p, tile, unit);
      go_back<WIDTH>(p, tile, unit);
    }
  };
  run_groups<WIDTH, 0>(fill, hold);
#else
  __trap();
#endif
}

}  // namespace

void film_siren_backward_sm90(int64_t width, int64_t blocks, const FilmSirenBackward& pass,
                              const CudaPlace& place) {
  for_width(width, [&](auto constant) {
    constexpr int WIDTH = decltype(constant)::value;
    launch<FILM_CLUSTER>("film_siren", place, backward_chain_kernel<WIDTH>, blocks,
                         GROUP + FILM_THREADS, BackwardMemory<WIDTH>::FLOATS, pass);
  });
}

}  // namespace semfaceedit
