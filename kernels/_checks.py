"""Argument checks shared by the ops."""

import torch
from torch import Tensor


def check_tensors(op: str, expected: dict[str, tuple[Tensor, tuple[int | None, ...]]]) -> None:
    """Each tensor must have the shape given (None: any size), one float dtype and one device.

    Raises ValueError that names the argument, what it is and what it should be.
    """
    first_name, (first, _) = next(iter(expected.items()))
    for name, (tensor, shape) in expected.items():
        if tensor.dim() != len(shape) or any(
            want is not None and want != got for want, got in zip(shape, tensor.shape, strict=True)
        ):
            wanted = "(" + ", ".join("*" if size is None else str(size) for size in shape) + ")"
            raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}, expected {wanted}")
        if not tensor.is_floating_point() or tensor.dtype != first.dtype:
            raise ValueError(
                f"{op}: {name} is {tensor.dtype}, {first_name} is {first.dtype}; all must share "
                "one floating-point type"
            )
        if tensor.device != first.device:
            raise ValueError(
                f"{op}: {name} is on {tensor.device}, {first_name} is on {first.device}"
            )


def linear(x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    """x (..., I) @ weight (O, I)^T + bias (O,), operands at `precision`, result in x's dtype.

    `fp16` rounds the operands, and plain PyTorch rounds the product too; `fp32` and `tf32` keep the
    tensors' own dtype (float64 stays float64).
    """
    if precision == "fp16":
        product = torch.nn.functional.linear(x.half(), weight.half())
        return product.to(x.dtype) + bias
    return torch.nn.functional.linear(x, weight, bias)
