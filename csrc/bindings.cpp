// semfaceedit._C. Python checks shapes, types and contiguity and passes addresses; see kernels/.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings_rays.h"
#include "ops.h"

namespace py = pybind11;

namespace semfaceedit {
namespace {

const std::pair<const char*, Isa> isa_names[] = {
    {"amx", Isa::amx},   {"avx512_bf16", Isa::avx512_bf16}, {"avx512", Isa::avx512},
    {"avx2", Isa::avx2}, {"portable", Isa::portable},       {"amx_model", Isa::amx_model}};

const std::pair<const char*, Precision> precision_names[] = {
    {"accurate", Precision::accurate}, {"fp32", Precision::fp32}, {"fast", Precision::fast}};

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const auto& [name, isa] : isa_names)
    if (isa_available(isa)) names.emplace_back(name);
  return names;
}

std::string isa_name() {
  for (const auto& [name, value] : isa_names)
    if (value == isa()) return name;
  return "";
}

Isa isa_of(const std::string& wanted) {
  for (const auto& [name, isa] : isa_names)
    if (name == wanted && isa_available(isa)) return isa;
  throw std::invalid_argument("instruction set '" + wanted + "' is unknown or not on this CPU");
}

void set_isa_by_name(const std::string& wanted) { set_isa(isa_of(wanted)); }

std::vector<std::string> film_siren_precisions() {
  std::vector<std::string> names;
  for (const auto& [name, precision] : precision_names)
    if (offers(isa(), precision)) names.emplace_back(name);
  return names;
}

Precision precision_of(const std::string& wanted) {
  for (const auto& [name, precision] : precision_names)
    if (name == wanted) return precision;
  throw std::invalid_argument("precision '" + wanted + "' is unknown");
}

FilmSirenProblem film_siren_problem(const std::array<int64_t, 8>& s, const Addresses<14>& a) {
  FilmSirenProblem p{s[0],          s[1],         s[2],           s[3],           s[4],
                     s[5],          s[6],         s[7],           floats(a[0]),   floats(a[1]),
                     floats(a[2]),  floats(a[3]), integers(a[4]), integers(a[5]), floats(a[6]),
                     floats(a[7]),  floats(a[8]), floats(a[9]),   floats(a[10]),  floats(a[11]),
                     floats(a[12]), floats(a[13])};
  if (p.row_offsets[0] != 0 || p.row_offsets[p.rows] != p.points)
    throw std::invalid_argument("film_siren: row_offsets must run from 0 to the number of points");
  if (!p.first_weight && p.inputs != p.width)
    throw std::invalid_argument("film_siren: without a first weight inputs must be the width");
  if (p.trunk_channels < 0 || p.trunk_channels > p.channels)
    throw std::invalid_argument("film_siren: trunk_channels must lie in [0, channels]");
  for (int64_t row = 0; row < p.rows; ++row) {
    if (p.row_offsets[row] > p.row_offsets[row + 1])
      throw std::invalid_argument("film_siren: row_offsets must not decrease");
    if (p.row_groups[row] < 0 || p.row_groups[row] >= p.groups)
      throw std::invalid_argument("film_siren: row_groups must lie in [0, groups)");
  }
  return p;
}

void film_siren_forward_binding(const std::array<int64_t, 8>& sizes, const Addresses<14>& inputs,
                                const std::string& precision, uintptr_t output, int threads) {
  const FilmSirenProblem problem = film_siren_problem(sizes, inputs);
  const Precision chosen = precision_of(precision);
  py::gil_scoped_release release;
  film_siren_forward(problem, chosen, floats(output), threads);
}

void film_siren_backward_binding(const std::array<int64_t, 8>& sizes, const Addresses<14>& inputs,
                                 const std::string& precision, uintptr_t grad_output,
                                 const Addresses<12>& g, int threads) {
  const FilmSirenProblem problem = film_siren_problem(sizes, inputs);
  const Precision chosen = precision_of(precision);
  const FilmSirenGradients gradients{floats(g[0]), floats(g[1]), floats(g[2]),  floats(g[3]),
                                     floats(g[4]), floats(g[5]), floats(g[6]),  floats(g[7]),
                                     floats(g[8]), floats(g[9]), floats(g[10]), floats(g[11])};
  py::gil_scoped_release release;
  film_siren_backward(problem, chosen, floats(grad_output), gradients, threads);
}

void ray_isosurface_forward_bf16_binding(const RaySizes& sizes, const RaySettings& settings,
                                         const Addresses<10>& inputs, const Addresses<6>& outputs,
                                         int threads) {
  const RayIsosurfaceProblem problem = ray_isosurface_problem(sizes, settings, inputs);
  const RayIsosurfaceHits hits = ray_isosurface_hits(outputs);
  py::gil_scoped_release release;
  ray_isosurface_forward_bf16(problem, hits, threads);
}

std::pair<double, double> peaks_by_name(const std::string& precision, int threads) {
  const Precision chosen = precision_of(precision);
  if (!offers(isa(), chosen)) throw std::invalid_argument("peaks: not offered: " + precision);
  py::gil_scoped_release release;
  const Peaks result = peaks(chosen, threads);
  return {result.products, result.sines};
}

void tile_dot_binding(const std::string& isa, uintptr_t a, uintptr_t b, uintptr_t c) {
  tile_dot(isa_of(isa), reinterpret_cast<const uint16_t*>(a), reinterpret_cast<const uint16_t*>(b),
           floats(c));
}

}  // namespace
}  // namespace semfaceedit

PYBIND11_MODULE(_C, module) {
  using namespace semfaceedit;
  module.doc() = "Native kernels of semfaceedit; use semfaceedit.kernels.";
  module.def("isas", &available_isas, "Instruction sets of this CPU that have kernels, best first");
  module.def("isa", &isa_name, "The instruction set in use");
  module.def("set_isa", &set_isa_by_name);
  module.def("film_siren_precisions", &film_siren_precisions,
             "What the instruction set in use offers, its automatic choice first");
  module.attr("film_siren_skips_identity") = true;  // a null first weight is one
  module.def("peaks", &peaks_by_name,
             "Operations of products and sines a second from registers alone, at a precision");
  module.def("tile_dot", &tile_dot_binding, "One tile product, by `amx` or `amx_model`");
  module.def("film_siren_forward", &film_siren_forward_binding);
  module.def("film_siren_backward", &film_siren_backward_binding);
  define_ray_ops<int>(module);  // threads
  module.def("ray_isosurface_forward_bf16", &ray_isosurface_forward_bf16_binding);
  module.def("ray_isosurface_workspace", [](const RaySizes&) { return std::array<int64_t, 2>{}; });
}
