// semfaceedit._C_cuda: the per-ray ops on CUDA. As bindings.cpp, built apart from it: it needs nvcc.

#include "bindings_rays.h"
#include "film_siren_backward.h"
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
void film_siren_forward_binding(int64_t width, int64_t blocks, const std::array<int64_t, 7>& s,
                                const Addresses<10>& a, const CudaPlace& place) {
  const FilmSirenChain chain{static_cast<int>(s[0]),
                             static_cast<int>(s[1]),
                             static_cast<int>(s[2]),
                             static_cast<int>(s[3]),
                             static_cast<int>(s[4]),
                             static_cast<int>(s[5]),
                             static_cast<int>(s[6]),
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

// The same of FilmSirenBackward; of its chain what it uses.
void film_siren_backward_binding(int64_t width, int64_t blocks, const std::array<int64_t, 12>& s,
                                 const Addresses<19>& a, const CudaPlace& place) {
  const auto number = [&](int i) { return static_cast<int>(s[i]); };
  const auto words = [&](int i) { return reinterpret_cast<uint32_t*>(a[i]); };
  const FilmSirenChain chain{number(0),      number(1),
                             number(2),      number(3),
                             number(4),      number(5),
                             number(6),      floats(a[0]),
                             floats(a[1]),   integers(a[2]),
                             integers(a[3]), integers(a[4]),
                             floats(a[5]),   reinterpret_cast<const uint16_t*>(a[6]),
                             nullptr,        nullptr,
                             nullptr};
  const FilmSirenBackward pass{
      chain,        number(7),    number(8),     number(9),     number(10),    number(11),
      floats(a[7]), floats(a[8]), floats(a[9]),  floats(a[10]), words(11),     words(12),
      words(13),    words(14),    floats(a[15]), floats(a[16]), floats(a[17]), floats(a[18])};
  pybind11::gil_scoped_release release;
  film_siren_backward(width, blocks, pass, place);
}

// Sizes and addresses in the order of FilmSirenProduct.
void film_siren_weight_gradients_binding(int64_t width, const std::array<int64_t, 15>& s,
                                         const Addresses<5>& a, const CudaPlace& place) {
  const auto number = [&](int i) { return static_cast<int>(s[i]); };
  const FilmSirenProduct product{number(0),
                                 number(1),
                                 number(2),
                                 number(3),
                                 number(4),
                                 number(5),
                                 number(6),
                                 number(7),
                                 number(8),
                                 s[9],
                                 s[10],
                                 s[11],
                                 s[12],
                                 s[13],
                                 s[14],
                                 reinterpret_cast<const uint32_t*>(a[0]),
                                 reinterpret_cast<const uint32_t*>(a[1]),
                                 floats(a[2]),
                                 integers(a[3]),
                                 floats(a[4])};
  pybind11::gil_scoped_release release;
  film_siren_weight_gradients(width, product, place);
}

void film_siren_row_sums_binding(int64_t rows, int64_t size, const Addresses<3>& a,
                                 const CudaPlace& place) {
  pybind11::gil_scoped_release release;
  film_siren_row_sums(rows, size, integers(a[0]), floats(a[1]), floats(a[2]), place);
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
  module.def("film_siren_outputs", &film_siren_outputs, "Padded channels of the output's deltas");
  module.def("film_siren_backward_parts", &film_siren_backward_parts,
             "Parts of a tile, by device: the backward pass has scales and sums of each");
  module.def("film_siren_backward", &film_siren_backward_binding);
  module.def("film_siren_weight_gradients", &film_siren_weight_gradients_binding);
  module.def("film_siren_row_sums", &film_siren_row_sums_binding);
  module.attr("FILM_ROWS") = FILM_ROWS;
  module.attr("FILM_NARROW") = FILM_NARROW;
  module.attr("FILM_INPUTS") = FILM_INPUTS;
  module.attr("FILM_THREADS") = FILM_THREADS;
  module.attr("FILM_COORDINATES") = FILM_COORDINATES;
  define_ray_ops<CudaPlace>(module);
}
