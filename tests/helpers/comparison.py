"""How results are compared with the float64 reference, in tests and benchmarks alike."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

FLOOR = 4  # in units of the dtype's eps: what two correctly rounded sums may differ by


def limit(own: float, dtype: torch.dtype) -> float:
    """The error allowed where plain PyTorch of that dtype has the error `own`."""
    return 2 * own + FLOOR * torch.finfo(dtype).eps


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the exact values."""
    difference = (actual.double() - exact).norm().item()
    scale = exact.norm().item()
    return difference / scale if scale else difference


def assert_matches(
    actual: Mapping[str, Tensor], exact: Mapping[str, Tensor], *plain: Mapping[str, Tensor]
) -> None:
    """Each tensor's error is at most twice that of plain PyTorch in the same dtype, plus a floor.

    `exact` is the reference in float64, `plain` the reference in the dtype under test: several
    where one sample of its rounding says too little, such as the same problem with its sums in
    other orders; then the largest error of them counts.
    """
    failures = []
    for name, wanted in exact.items():
        got = actual[name]
        assert got.shape == wanted.shape, f"{name}: {tuple(got.shape)}, not {tuple(wanted.shape)}"
        error = relative_error(got, wanted)
        own = max(relative_error(draw[name], wanted) for draw in plain)
        line = f"{name}: error {error:.2e}, plain PyTorch {own:.2e}"
        print(line)
        if not error <= limit(own, plain[0][name].dtype):  # NaN fails
            failures.append(line)
    assert not failures, "; ".join(failures)


def assert_identical(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """The same bits, NaN included."""
    for name, value in first.items():
        other = second[name]
        if value.is_floating_point():
            value, other = value.view(torch.int32), other.view(torch.int32)
        assert torch.equal(value, other), f"{name} differs"


def values_and_gradients(
    function: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    inputs: Mapping[str, Tensor],
    dtype: torch.dtype,
    wanted: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Outputs of `function` and the gradients of a fixed random functional of them, by name.

    `wanted` are the inputs to differentiate (default: all); a gradient is named "d <input>".
    """
    wanted = list(inputs) if wanted is None else wanted
    leaves = {
        name: tensor.to(dtype).detach().requires_grad_(name in wanted)
        for name, tensor in inputs.items()
    }
    outputs = function(leaves)
    differentiable = [tensor for tensor in outputs.values() if tensor.requires_grad]
    result = {name: tensor.detach() for name, tensor in outputs.items()}
    if differentiable:
        device = differentiable[0].device
        generator = torch.Generator(device=device).manual_seed(1)
        seeds = [
            torch.randn(tensor.shape, generator=generator, device=device)
            for tensor in differentiable
        ]
        grads = torch.autograd.grad(
            differentiable,
            [leaves[name] for name in wanted],
            [seed.to(dtype) for seed in seeds],
            allow_unused=True,
        )
        for name, grad in zip(wanted, grads, strict=True):
            result[f"d {name}"] = torch.zeros_like(leaves[name]) if grad is None else grad
    return result
