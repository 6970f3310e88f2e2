"""`ray_isosurface` on the CPU: one native launch each way (`csrc/ray_isosurface_cpu.cpp`)."""

from ._extension import native, on_threads, unavailable
from .ray_isosurface_ops import native_launches, register

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32", "accurate", "fast")  # all the same: the predictor stays in fp32

forward, backward = register("cpu", *native_launches(native, on_threads))
