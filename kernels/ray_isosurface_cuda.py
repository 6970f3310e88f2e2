"""`ray_isosurface` in CUDA C++: a few launches each way (`csrc/ray_isosurface_cuda.cu`)."""

from ._extension import cuda_unavailable as unavailable
from ._extension import native_cuda, on_stream
from .ray_isosurface_ops import native_launches, register

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32", "tf32", "fp16")  # all the same: its products are in fp32

forward, backward = register("cuda", *native_launches(native_cuda, on_stream))
