"""`semantic_composite` on the CPU: one native launch each (`csrc/semantic_composite_cpu.cpp`)."""

from ._extension import native, on_threads, unavailable
from .semantic_composite_ops import native_launches, register

__all__ = [
    "PRECISIONS",
    "color_backward",
    "color_forward",
    "semantic_backward",
    "semantic_forward",
    "unavailable",
]

PRECISIONS = ("fp32", "accurate", "fast")  # all the same: nothing here is a matrix product

semantic_forward, semantic_backward, color_forward, color_backward = register(
    "cpu", native_launches(native, on_threads)
)
