"""`semantic_composite` in CUDA C++: one launch each (`csrc/semantic_composite_cuda.cu`)."""

from ._extension import cuda_unavailable as unavailable
from ._extension import native_cuda, on_stream
from .semantic_composite_ops import native_launches, register

__all__ = [
    "PRECISIONS",
    "color_backward",
    "color_forward",
    "semantic_backward",
    "semantic_forward",
    "unavailable",
]

PRECISIONS = ("fp32", "tf32", "fp16")  # all the same: nothing here is a matrix product

semantic_forward, semantic_backward, color_forward, color_backward = register(
    "cuda", native_launches(native_cuda, on_stream)
)
