// film_siren's forward pass by wgmma, for compute capability 9.0 alone (sm_90a).

#include "film_siren_groups.h"

namespace semfaceedit {
namespace {

template <int WIDTH>
struct ForwardFiller : Filler<WIDTH, FILM_NARROW> {
  // Few numbers, of 32 bits: this warpgroup has 24 registers a thread.
  SEMFACEEDIT_DEVICE void load_tile(int number) {
    constexpr int SLABS = WIDTH / FILM_INPUTS;
    const int row = static_cast<int>(this->p.tiles[2 * this->p.tile_bound + number]);
    int slab = static_cast<int>(this->p.row_groups[row]) * this->p.slabs;
    const int end = slab + this->p.slabs;
    int film = row * this->p.layers + row;
    const int view = film + this->p.layers, inputs = sm80::unknown(this->p.inputs);
    int left = inputs <= FILM_COORDINATES ? 1 : (inputs + WIDTH - 1) / WIDTH * SLABS;  // of a layer
    if (this->p.identity) this->load(slab, 0, film++), left = SLABS;
    SEMFACEEDIT_NO_UNROLL for (; film <= view; ++film) {
      SEMFACEEDIT_NO_UNROLL for (; left != 0; ++slab) this->load(slab, WIDTH + FILM_NARROW,
                                                                 --left == 0 ? film : -1);
      left = film + 1 == view ? SLABS + 1 : SLABS;  // the view layer's directions
    }
    // No narrow rows from here on.
    SEMFACEEDIT_NO_UNROLL for (; slab < end; ++slab) this->load(slab, WIDTH, -1);
  }
};

template <int WIDTH>
__global__ void __cluster_dims__(FILM_CLUSTER) __launch_bounds__(GROUP + FILM_THREADS, 1)
    chain_kernel(FilmSirenChain p) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Ring = GroupRing<WIDTH, FILM_NARROW>;
  const int tiles = static_cast<int>(*p.tile_count);
  const int first = blockIdx.x / FILM_CLUSTER;
  const auto fill = [&](const Ring& ring) {
    ForwardFiller<WIDTH> filler{{p, ring}};
    SEMFACEEDIT_NO_UNROLL for (int tile = first; tile < tiles; tile += clusters())
        filler.load_tile(tile);
  };
  const auto hold = [&](const Ring& ring) {
    GroupUnit<WIDTH, FILM_NARROW> unit{p, ring};
    SEMFACEEDIT_NO_UNROLL for (int tile = first; tile < tiles; tile += clusters())
        run_tile<WIDTH>(p, tile, unit);
  };
  run_groups<WIDTH, FILM_NARROW>(fill, hold);
#else
  __trap();
#endif
}

constexpr int THREADS = GROUP + FILM_THREADS;
template <int WIDTH>
constexpr int64_t SHARED = GroupRing<WIDTH, FILM_NARROW>::BYTES / sizeof(float);

template <int WIDTH>
void launch_chain(int64_t blocks, const FilmSirenChain& chain, const CudaPlace& place) {
  launch<FILM_CLUSTER>("film_siren", place, chain_kernel<WIDTH>, blocks, THREADS, SHARED<WIDTH>,
                       chain);
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

int64_t film_siren_sm90_clusters() {
  // Of gradients and of other widths too: all have room for one block on a processor.
  return clusters_at_a_time<FILM_CLUSTER>("film_siren", chain_kernel<256>, THREADS, SHARED<256>);
}

}  // namespace semfaceedit
