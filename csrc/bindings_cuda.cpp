// semfaceedit._C_cuda: the per-ray ops on CUDA. As bindings.cpp, built apart from it: it needs nvcc.

#include "bindings_rays.h"
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

PYBIND11_MODULE(_C_cuda, module) {
  using namespace semfaceedit;
  module.doc() = "CUDA kernels of semfaceedit; use semfaceedit.kernels.";
  module.def("unavailable", &cuda_unavailable, "Why the kernels cannot run here; empty: they can");
  module.def("ray_isosurface_workspace", &ray_isosurface_workspace,
             "Floats that the forward and the backward pass need, by sizes");
  define_ray_ops<CudaPlace>(module);
}
