// semfaceedit._C. Python checks shapes, types and contiguity and passes addresses; see kernels/.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ops.h"

namespace py = pybind11;

namespace semfaceedit {
namespace {

template <size_t count>
using Addresses = std::array<uintptr_t, count>;  // of tensors; 0 for a gradient that is not needed

const std::pair<const char*, Isa> isa_names[] = {
    {"amx", Isa::amx},       {"avx512_bf16", Isa::avx512_bf16}, {"avx512", Isa::avx512},
    {"avx2", Isa::avx2},     {"portable", Isa::portable},       {"amx_model", Isa::amx_model}};

const std::pair<const char*, Precision> precision_names[] = {{"accurate", Precision::accurate},
                                                             {"fp32", Precision::fp32},
                                                             {"fast", Precision::fast}};

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

float* floats(uintptr_t address) { return reinterpret_cast<float*>(address); }
const int64_t* integers(uintptr_t address) { return reinterpret_cast<const int64_t*>(address); }

FilmSirenProblem film_siren_problem(const std::array<int64_t, 8>& s, const Addresses<14>& a) {
  FilmSirenProblem p{s[0],          s[1],          s[2],         s[3],         s[4],
                     s[5],          s[6],          s[7],         floats(a[0]), floats(a[1]),
                     floats(a[2]),  floats(a[3]),  integers(a[4]), integers(a[5]), floats(a[6]),
                     floats(a[7]),  floats(a[8]),  floats(a[9]), floats(a[10]), floats(a[11]),
                     floats(a[12]), floats(a[13])};
  if (p.row_offsets[0] != 0 || p.row_offsets[p.rows] != p.points)
    throw std::invalid_argument("film_siren: row_offsets must run from 0 to the number of points");
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
                                 uintptr_t grad_output, const Addresses<12>& g, int threads) {
  const FilmSirenProblem problem = film_siren_problem(sizes, inputs);
  const FilmSirenGradients gradients{
      floats(g[0]), floats(g[1]), floats(g[2]), floats(g[3]), floats(g[4]),  floats(g[5]),
      floats(g[6]), floats(g[7]), floats(g[8]), floats(g[9]), floats(g[10]), floats(g[11])};
  py::gil_scoped_release release;
  film_siren_backward(problem, floats(grad_output), gradients, threads);
}

void tile_dot_binding(const std::string& isa, uintptr_t a, uintptr_t b, uintptr_t c) {
  tile_dot(isa_of(isa), reinterpret_cast<const uint16_t*>(a),
           reinterpret_cast<const uint16_t*>(b), floats(c));
}

bool* flags(uintptr_t address) { return reinterpret_cast<bool*>(address); }

using RaySettings = std::array<float, 6>;  // centre, scale, far, plane_z

RayIsosurfaceProblem ray_isosurface_problem(const std::array<int64_t, 5>& s,
                                            const RaySettings& f, const Addresses<10>& a) {
  return {s[0],
          s[1],
          s[2],
          s[3],
          s[4],
          {f[0], f[1], f[2]},
          f[3],
          f[4],
          f[5],
          floats(a[0]),
          floats(a[1]),
          floats(a[2]),
          floats(a[3]),
          floats(a[4]),
          floats(a[5]),
          floats(a[6]),
          floats(a[7]),
          floats(a[8]),
          floats(a[9])};
}

void ray_isosurface_forward_binding(const std::array<int64_t, 5>& sizes,
                                    const RaySettings& settings, const Addresses<10>& inputs,
                                    const Addresses<6>& o, int threads) {
  const RayIsosurfaceProblem problem = ray_isosurface_problem(sizes, settings, inputs);
  const RayIsosurfaceHits hits{floats(o[0]),
                               floats(o[1]),
                               flags(o[2]),
                               reinterpret_cast<int64_t*>(o[3]),
                               reinterpret_cast<int64_t*>(o[4]),
                               reinterpret_cast<int32_t*>(o[5])};
  py::gil_scoped_release release;
  ray_isosurface_forward(problem, hits, threads);
}

void ray_isosurface_backward_binding(const std::array<int64_t, 5>& sizes,
                                     const RaySettings& settings, const Addresses<10>& inputs,
                                     const Addresses<6>& h, const Addresses<8>& g, int threads) {
  const RayIsosurfaceProblem problem = ray_isosurface_problem(sizes, settings, inputs);
  const RayIsosurfaceGradHits hits{floats(h[0]),   floats(h[1]), floats(h[2]),
                                   integers(h[3]), flags(h[4]),  reinterpret_cast<int32_t*>(h[5])};
  const RayIsosurfaceGradients gradients{floats(g[0]), floats(g[1]), floats(g[2]), floats(g[3]),
                                         floats(g[4]), floats(g[5]), floats(g[6]), floats(g[7])};
  py::gil_scoped_release release;
  ray_isosurface_backward(problem, hits, gradients, threads);
}

CompositeSizes composite_sizes(const std::array<int64_t, 3>& s) { return {s[0], s[1], s[2]}; }

void semantic_forward_binding(const std::array<int64_t, 3>& sizes, const Addresses<2>& inputs,
                              const Addresses<2>& outputs, int threads) {
  py::gil_scoped_release release;
  semantic_forward(composite_sizes(sizes), floats(inputs[0]), floats(inputs[1]),
                   reinterpret_cast<int64_t*>(outputs[0]), floats(outputs[1]), threads);
}

void semantic_backward_binding(const std::array<int64_t, 3>& sizes, const Addresses<3>& inputs,
                               const Addresses<2>& grads, int threads) {
  py::gil_scoped_release release;
  semantic_backward(composite_sizes(sizes), floats(inputs[0]), floats(inputs[1]),
                    floats(inputs[2]), floats(grads[0]), floats(grads[1]), threads);
}

void color_forward_binding(const std::array<int64_t, 3>& sizes, const Addresses<3>& inputs,
                           const Addresses<3>& outputs, int threads) {
  py::gil_scoped_release release;
  color_forward(composite_sizes(sizes), floats(inputs[0]), floats(inputs[1]), floats(inputs[2]),
                floats(outputs[0]), floats(outputs[1]), floats(outputs[2]), threads);
}

void color_backward_binding(const std::array<int64_t, 3>& sizes, const Addresses<7>& a,
                            const Addresses<3>& grads, int threads) {
  py::gil_scoped_release release;
  color_backward(composite_sizes(sizes), {floats(a[0]), floats(a[1]), floats(a[2])}, floats(a[3]),
                 floats(a[4]), floats(a[5]), floats(a[6]), floats(grads[0]), floats(grads[1]),
                 floats(grads[2]), threads);
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
  module.def("tile_dot", &tile_dot_binding, "One tile product, by `amx` or `amx_model`");
  module.def("film_siren_forward", &film_siren_forward_binding);
  module.def("film_siren_backward", &film_siren_backward_binding);
  module.def("ray_isosurface_forward", &ray_isosurface_forward_binding);
  module.def("ray_isosurface_backward", &ray_isosurface_backward_binding);
  module.def("semantic_forward", &semantic_forward_binding);
  module.def("semantic_backward", &semantic_backward_binding);
  module.def("color_forward", &color_forward_binding);
  module.def("color_backward", &color_backward_binding);
}
