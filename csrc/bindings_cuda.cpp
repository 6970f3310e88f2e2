// semfaceedit._C_cuda: the per-ray ops on CUDA. As bindings.cpp, built apart from it: it needs nvcc.

#include "bindings_rays.h"
#include "film_siren_cuda.h"
#include "ops_cuda.h"

namespace pybind11::detail {

// (device index, stream, address of the workspace)
template <>
struct type_caster<semfaceedit::CudaPlace> {
  PYBIND11_TYPE_CASTER(semfaceedit::CudaPlace, const_name("tuple[int, int, int]"));

  bool load(handle source, bool convert) {
    make_caster<std::tuple<int, uintptr_t, uintptr_t>> numbers;
    if (!numbers.load(source, convert)) return false;
    const auto [device, stream, workspace] =
        cast_op<std::tuple<int, uintptr_t, uintptr_t>>(numbers);
    value = {device, stream, reinterpret_cast<float*>(workspace)};
    return true;
  }
};

}  // namespace pybind11::detail

namespace semfaceedit {
namespace {

// Sizes and addresses in the order of FilmSirenChain.
void film_siren_forward_binding(int64_t width, int64_t blocks, const std::array<int64_t, 6>& s,
                                const Addresses<10>& a, const CudaPlace& place) {
  const FilmSirenChain chain{static_cast<int>(s[0]),
                             static_cast<int>(s[1]),
                             static_cast<int>(s[2]),
                             static_cast<int>(s[3]),
                             static_cast<int>(s[4]),
                             static_cast<int>(s[5]),
                             floats(a[0]),
                             floats(a[1]),
                             integers(a[2]),
                             integers(a[3]),
                             integers(a[4]),
                             floats(a[5]),
                             reinterpret_cast<const uint16_t*>(a[6]),
                             floats(a[7]),
                             floats(a[8]),
                             reinterpret_cast<uint32_t*>(a[9])};
  pybind11::gil_scoped_release release;
  film_siren_forward(width, blocks, chain, place);
}

}  // namespace
}  // namespace semfaceedit

PYBIND11_MODULE(_C_cuda, module) {
  using namespace semfaceedit;
  module.doc() = "CUDA kernels of semfaceedit; use semfaceedit.kernels.";
  module.def("unavailable", &cuda_unavailable, "Why the kernels cannot run here; empty: they can");
  module.def("ray_isosurface_workspace", &ray_isosurface_workspace,
             "Floats that the forward and the backward pass need, by sizes");
  module.def("film_siren_width", &film_siren_width, "The padded width of a stack");
  module.def("film_siren_body", &film_siren_body, "Which body runs on a device");
  module.def("film_siren_rows", &film_siren_rows, "Points of a tile on a device");
  module.def("film_siren_blocks", &film_siren_blocks, "Blocks to launch, by tiles and device");
  module.def("film_siren_forward", &film_siren_forward_binding);
  module.attr("FILM_NARROW") = FILM_NARROW;
  module.attr("FILM_INPUTS") = FILM_INPUTS;
  module.attr("FILM_THREADS") = FILM_THREADS;
  module.attr("FILM_COORDINATES") = FILM_COORDINATES;
  define_ray_ops<CudaPlace>(module);
}
