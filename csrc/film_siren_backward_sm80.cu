// film_siren's gradients by mma.sync, for compute capability 8.0 and later: see film_siren_backward.h.

#include "film_siren_backward_chain.h"
#include "film_siren_slabs.h"

namespace semfaceedit {
namespace {

// Where a thread's W h of a layer lies: (L + 1, WIDTH / 8, threads) float4 a block.
template <int WIDTH>
SEMFACEEDIT_DEVICE inline float4* affine_of(const FilmSirenBackward& p, int layer) {
  constexpr int64_t SIZE = WIDTH / 8 * FILM_THREADS;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * (p.chain.layers + 1) + sm80::unknown(layer);
  return reinterpret_cast<float4*>(p.affine) + at * SIZE +
         sm80::unknown(static_cast<int>(threadIdx.x));
}

struct StoredAffine {
  const float4* from;

  SEMFACEEDIT_DEVICE void begin(int) const {}
  SEMFACEEDIT_DEVICE float4 operator()(int j) const { return from[j * FILM_THREADS]; }
};

// The matrix unit as film_siren_backward_chain.h wants it: a block is a part, and keeps W h.
template <int WIDTH>
struct BackwardUnit : WarpUnit<WIDTH, 0> {
  static constexpr int WARPS = FILM_THREADS / 32, ROWS = FILM_ROWS;

  static SEMFACEEDIT_DEVICE int own_thread() {
    return sm80::unknown(static_cast<int>(threadIdx.x));
  }
  static SEMFACEEDIT_DEVICE int warp() { return own_thread() / 32; }
  static SEMFACEEDIT_DEVICE int own_part() { return static_cast<int>(blockIdx.x); }
  static SEMFACEEDIT_DEVICE int part(int number) { return number; }
  static SEMFACEEDIT_DEVICE int first_row() { return 0; }
  static SEMFACEEDIT_DEVICE void sync(const char* what) { sm80::block_sync(what); }
  static SEMFACEEDIT_DEVICE float* part_memory() {
    using Ring = SlabRing<WIDTH, 0>;
    return shared_memory() + Ring::SLAB / 4 * Ring::STAGES;
  }

  SEMFACEEDIT_DEVICE void multiply_deltas(float (&sums)[WIDTH / 2],
                                          const uint32_t (&h)[WIDTH / 16][4], bool none) {
    if (none)
      this->clear(sums);
    else
      this->multiply(sums, nullptr, h, false);
    const float ratio = none ? 1.0f : PartSums<WIDTH, BackwardUnit>::ratio();
    SEMFACEEDIT_UNROLL
    for (float& sum : sums) sum *= ratio;
  }

  SEMFACEEDIT_DEVICE void keep_affine(const FilmSirenBackward& p, int layer,
                                      const float (&sums)[WIDTH / 2]) const {
    float4* affine = affine_of<WIDTH>(p, layer);
    SEMFACEEDIT_UNROLL
    for (int j = 0; j < WIDTH / 8; ++j) {
      const float* s = sums + 4 * j;
      affine[j * FILM_THREADS] = float4{s[0], s[1], s[2], s[3]};
    }
  }

  // Brings the warp's W h of a layer from memory to L2, where a product hides it.
  SEMFACEEDIT_DEVICE void prepare(const FilmSirenBackward& p, int, int layer) const {
    constexpr int LINE = 128, LINES = 32 * static_cast<int>(sizeof(float4)) / LINE;
    const unsigned char* from =
        reinterpret_cast<const unsigned char*>(affine_of<WIDTH>(p, layer) - own_lane());
    SEMFACEEDIT_UNROLL
    for (int i = 0; i < WIDTH / 8 * LINES / 32; ++i) {
      const int line = 32 * i + own_lane();
      sm80::prefetch(from + line / LINES * FILM_THREADS * sizeof(float4) + line % LINES * LINE);
    }
  }

  SEMFACEEDIT_DEVICE StoredAffine affine(const FilmSirenBackward& p, int, int layer) const {
    return {affine_of<WIDTH>(p, layer)};
  }
};

template <int WIDTH>
__global__ void __launch_bounds__(FILM_THREADS, 1) backward_chain_kernel(FilmSirenBackward p) {
  const int first = p.first_tile + static_cast<int>(blockIdx.x);
  BackwardUnit<WIDTH> unit{{p.chain, SlabRing<WIDTH, 0>(p.chain, shared_memory(), first)}};
  for (int tile = first; tile < static_cast<int>(*p.chain.tile_count); tile += gridDim.x) {
    go_forward<WIDTH>(p, tile, unit);
    go_back<WIDTH>(p, tile, unit);
  }
}

}  // namespace

void film_siren_backward_sm80(int64_t width, int64_t blocks, const FilmSirenBackward& pass,
                              const CudaPlace& place) {
  for_width(width, [&](auto constant) {
    constexpr int WIDTH = decltype(constant)::value;
    using Ring = SlabRing<WIDTH, 0>;
    launch("film_siren", place, backward_chain_kernel<WIDTH>, blocks, FILM_THREADS,
           Ring::SLAB / 4 * Ring::STAGES + PartSums<WIDTH, BackwardUnit<WIDTH>>::FLOATS, pass);
  });
}

}  // namespace semfaceedit
