// Bindings of the per-ray ops, the same for _C and _C_cuda; Where is the last argument of their ops.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "ops.h"

namespace semfaceedit {

template <size_t count>
using Addresses = std::array<uintptr_t, count>;  // of tensors; 0 for a gradient that is not needed

inline float* floats(uintptr_t address) { return reinterpret_cast<float*>(address); }
inline const int64_t* integers(uintptr_t address) {
  return reinterpret_cast<const int64_t*>(address);
}

using RaySizes = std::array<int64_t, 5>;
using RaySettings = std::array<float, 6>;  // centre, scale, far, plane_z

inline RayIsosurfaceProblem ray_isosurface_problem(const RaySizes& s, const RaySettings& f,
                                                   const Addresses<10>& a) {
  return {s[0],         s[1],         s[2],         s[3],         s[4],         {f[0], f[1], f[2]},
          f[3],         f[4],         f[5],         floats(a[0]), floats(a[1]), floats(a[2]),
          floats(a[3]), floats(a[4]), floats(a[5]), floats(a[6]), floats(a[7]), floats(a[8]),
          floats(a[9])};
}

inline RayIsosurfaceHits ray_isosurface_hits(const Addresses<6>& o) {
  return {floats(o[0]),
          floats(o[1]),
          reinterpret_cast<bool*>(o[2]),
          reinterpret_cast<int64_t*>(o[3]),
          reinterpret_cast<int64_t*>(o[4]),
          reinterpret_cast<int32_t*>(o[5])};
}

template <class Where>
void ray_isosurface_forward_binding(const RaySizes& sizes, const RaySettings& settings,
                                    const Addresses<10>& inputs, const Addresses<6>& outputs,
                                    const Where& where) {
  const RayIsosurfaceProblem problem = ray_isosurface_problem(sizes, settings, inputs);
  const RayIsosurfaceHits hits = ray_isosurface_hits(outputs);
  pybind11::gil_scoped_release release;
  ray_isosurface_forward(problem, hits, where);
}

template <class Where>
void ray_isosurface_backward_binding(const RaySizes& sizes, const RaySettings& settings,
                                     const Addresses<10>& inputs, const Addresses<6>& h,
                                     const Addresses<8>& g, const Where& where) {
  const RayIsosurfaceProblem problem = ray_isosurface_problem(sizes, settings, inputs);
  const RayIsosurfaceGradHits hits{floats(h[0]),
                                   floats(h[1]),
                                   floats(h[2]),
                                   integers(h[3]),
                                   reinterpret_cast<const bool*>(h[4]),
                                   reinterpret_cast<const int32_t*>(h[5])};
  const RayIsosurfaceGradients gradients{floats(g[0]), floats(g[1]), floats(g[2]), floats(g[3]),
                                         floats(g[4]), floats(g[5]), floats(g[6]), floats(g[7])};
  pybind11::gil_scoped_release release;
  ray_isosurface_backward(problem, hits, gradients, where);
}

using RowSizes = std::array<int64_t, 3>;

inline CompositeSizes composite_sizes(const RowSizes& s) { return {s[0], s[1], s[2]}; }

template <class Where>
void semantic_forward_binding(const RowSizes& sizes, const Addresses<2>& inputs,
                              const Addresses<2>& outputs, const Where& where) {
  pybind11::gil_scoped_release release;
  semantic_forward(composite_sizes(sizes), floats(inputs[0]), floats(inputs[1]),
                   reinterpret_cast<int64_t*>(outputs[0]), floats(outputs[1]), where);
}

template <class Where>
void semantic_backward_binding(const RowSizes& sizes, const Addresses<3>& inputs,
                               const Addresses<2>& grads, const Where& where) {
  pybind11::gil_scoped_release release;
  semantic_backward(composite_sizes(sizes), floats(inputs[0]), floats(inputs[1]), floats(inputs[2]),
                    floats(grads[0]), floats(grads[1]), where);
}

template <class Where>
void color_forward_binding(const RowSizes& sizes, const Addresses<3>& inputs,
                           const Addresses<3>& outputs, const Where& where) {
  pybind11::gil_scoped_release release;
  color_forward(composite_sizes(sizes), floats(inputs[0]), floats(inputs[1]), floats(inputs[2]),
                floats(outputs[0]), floats(outputs[1]), floats(outputs[2]), where);
}

template <class Where>
void color_backward_binding(const RowSizes& sizes, const Addresses<7>& a, const Addresses<3>& grads,
                            const Where& where) {
  pybind11::gil_scoped_release release;
  color_backward(composite_sizes(sizes), {floats(a[0]), floats(a[1]), floats(a[2])}, floats(a[3]),
                 floats(a[4]), floats(a[5]), floats(a[6]), floats(grads[0]), floats(grads[1]),
                 floats(grads[2]), where);
}

template <class Where>
void define_ray_ops(pybind11::module_& module) {
  module.def("ray_isosurface_forward", &ray_isosurface_forward_binding<Where>);
  module.def("ray_isosurface_backward", &ray_isosurface_backward_binding<Where>);
  module.def("semantic_forward", &semantic_forward_binding<Where>);
  module.def("semantic_backward", &semantic_backward_binding<Where>);
  module.def("color_forward", &color_forward_binding<Where>);
  module.def("color_backward", &color_backward_binding<Where>);
}

}  // namespace semfaceedit
