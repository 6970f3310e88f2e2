"""`ray_isosurface` in CUDA C++: a few launches each way (`csrc/ray_isosurface_cuda.cu`)."""

from semfaceedit.kernels._extension import cuda_unavailable as unavailable
from semfaceedit.kernels._extension import native_cuda, on_stream
from semfaceedit.kernels.ray_isosurface_ops import native_launches, register

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32",)

forward, backward = register("cuda", *native_launches(native_cuda, on_stream))
