// film_siren's forward pass by mma.sync, for compute capability 8.0 and later. Activations stay in
// registers from layer to layer.

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda_launch.h"
#include "film_siren_slabs.h"

namespace semfaceedit {
namespace {

template <int WIDTH>
__global__ void __launch_bounds__(FILM_THREADS, 1) chain_kernel(FilmSirenChain p) {
  const int tiles = static_cast<int>(*p.tile_count);
  using Ring = SlabRing<WIDTH, FILM_NARROW>;
  WarpUnit<WIDTH, FILM_NARROW> unit{p, Ring(p, shared_memory(), static_cast<int>(blockIdx.x))};
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) run_tile<WIDTH>(p, tile, unit);
}

template <int WIDTH>
void launch_chain(int64_t blocks, const FilmSirenChain& chain, const CudaPlace& place) {
  using Ring = SlabRing<WIDTH, FILM_NARROW>;
  constexpr int64_t FLOATS = Ring::SLAB / 4 * Ring::STAGES;
  launch("film_siren", place, chain_kernel<WIDTH>, blocks, FILM_THREADS, FLOATS, chain);
}

}  // namespace

void film_siren_forward_sm80(int64_t width, int64_t blocks, const FilmSirenChain& chain,
                             const CudaPlace& place) {
  for_width(width,
            [&](auto constant) { launch_chain<decltype(constant)::value>(blocks, chain, place); });
}

}  // namespace semfaceedit
