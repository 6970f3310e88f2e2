"""FiLM-SIREN: a whole stack of FiLM layers with skip-summed heads, as one differentiable op."""

from typing import Any

import torch
from torch import Tensor

from ._backend import implementation, resolve
from ._checks import check_tensors
from .film_siren_reference import (
    FilmSirenCall,
    FilmSirenWeights,
    call_of,
    film_siren_reference,
    is_identity,
    tensors_of,
)

__all__ = ["FilmSirenFunction", "FilmSirenWeights", "film_siren"]


def film_siren(
    points: Tensor,  # (P, I) network inputs, sorted by row
    directions: Tensor,  # (P, 3) unit view directions
    frequencies: Tensor,  # (M, L + 1, W) multipliers f^ of each row, the view layer's last
    phases: Tensor,  # (M, L + 1, W)
    row_offsets: Tensor,  # (M + 1,) int64; row m owns points [row_offsets[m], row_offsets[m + 1])
    row_groups: Tensor,  # (M,) int64 in [0, G): which view layer and heads a row uses
    weights: FilmSirenWeights,
    *,
    trunk_channels: int = 0,
    backend: str | None = None,
    precision: str | None = None,
) -> Tensor:  # (P, C)
    """Evaluate a FiLM-SIREN stack (the paper's Eq. 1; section 4.1) on points grouped by FiLM row.

    h_1 = sin(f^_1 (W_1 x + b_1) + p_1), h_{l+1} = sin(f^_{l+1} (W_{l+1} h_l + b_{l+1}) + p_{l+1}),
    v = sin(f^_v (W_v [d, h_L] + b_v) + p_v). The output is the sum of L - 1 linear heads: the first
    L - 2 read h_2 ... h_{L-1}; the last reads h_L for the first `trunk_channels` channels and v for
    the others, so that the former cannot depend on the view direction. W_1 of size (W, 0) is the
    identity: the points are what the first layer adds b_1 to, made elsewhere.

    Differentiable once, in everything but `row_offsets` and `row_groups`. Raises ValueError for
    arguments that do not fit together, RuntimeError if a backend named explicitly cannot run.
    """
    call = FilmSirenCall(
        points, directions, frequencies, phases, row_offsets, row_groups, weights, trunk_channels
    )
    _check(call)
    choice = resolve("film_siren", backend, precision, points)
    if choice.backend == "reference":
        return film_siren_reference(*call._replace(precision=choice.precision))
    if is_identity(weights.first_weight) and not _skips_identity(choice.backend):
        identity = torch.eye(len(weights.first_weight), dtype=points.dtype, device=points.device)
        call = call._replace(weights=weights._replace(first_weight=identity))
    return FilmSirenFunction.apply(
        trunk_channels, choice.backend, choice.precision, *tensors_of(call)
    )


class FilmSirenFunction(torch.autograd.Function):
    """The seam for fused backends: `<backend>.forward` and `<backend>.backward`, nothing else.

    `forward(call)` returns the output; `backward(grad_output, call, needed)` recomputes what it
    needs and returns twelve gradients in the order of `FilmSirenGradients`, as the flags `needed`
    are; a gradient that is not needed is None.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        trunk_channels, backend, precision, *tensors = arguments
        ctx.save_for_backward(*tensors)
        ctx.settings = trunk_channels, backend, precision
        call = call_of(tensors, trunk_channels, precision)
        return implementation("film_siren", backend).forward(call)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        trunk_channels, backend, precision = ctx.settings
        call = call_of(ctx.saved_tensors, trunk_channels, precision)
        _, _, _, x, directions, frequencies, phases, _, _, *weights = ctx.needs_input_grad
        needed = (x, directions, frequencies, phases, *weights)
        x, directions, frequencies, phases, *weights = implementation(
            "film_siren", backend
        ).backward(grad_outputs[0], call, needed)
        # None for trunk_channels, backend, precision; row_offsets, row_groups.
        return (None, None, None, x, directions, frequencies, phases, None, None, *weights)


def _skips_identity(backend: str) -> bool:
    """Whether its launches take a first weight of size (W, 0). Others multiply with a matrix."""
    return getattr(implementation("film_siren", backend), "skips_identity", lambda: False)()


_skips_identity._dynamo_marked_constant = True  # type: ignore[attr-defined]  # as of `_choose`


def _check(call: FilmSirenCall) -> None:
    points, frequencies, weights = call.points, call.frequencies, call.weights
    if points.dim() != 2 or weights.head_weight.dim() != 4 or frequencies.dim() != 3:
        raise ValueError(
            "film_siren: expected points (P, I), frequencies (M, L + 1, W) and head_weight "
            f"(G, L - 1, C, W), got {tuple(points.shape)}, {tuple(frequencies.shape)} and "
            f"{tuple(weights.head_weight.shape)}"
        )
    count, inputs = points.shape
    rows = frequencies.shape[0]
    groups, heads, channels, width = weights.head_weight.shape
    skipped = is_identity(weights.first_weight)
    if heads < 1:
        raise ValueError("film_siren: a stack needs at least two layers")
    if not 0 <= call.trunk_channels <= channels:
        raise ValueError(
            f"film_siren: trunk_channels {call.trunk_channels} is not in 0 to {channels}"
        )
    check_tensors(
        "film_siren",
        {
            "points": (points, (count, width if skipped else inputs)),
            "directions": (call.directions, (count, 3)),
            "frequencies": (frequencies, (rows, heads + 2, width)),
            "phases": (call.phases, (rows, heads + 2, width)),
            "first_weight": (weights.first_weight, (width, 0 if skipped else inputs)),
            "first_bias": (weights.first_bias, (width,)),
            "hidden_weight": (weights.hidden_weight, (heads, width, width)),
            "hidden_bias": (weights.hidden_bias, (heads, width)),
            "view_weight": (weights.view_weight, (groups, width, 3 + width)),
            "view_bias": (weights.view_bias, (groups, width)),
            "head_weight": (weights.head_weight, (groups, heads, channels, width)),
            "head_bias": (weights.head_bias, (groups, heads, channels)),
        },
    )
    for name, tensor, size in (
        ("row_offsets", call.row_offsets, rows + 1),
        ("row_groups", call.row_groups, rows),
    ):
        if tensor.shape != (size,) or tensor.dtype != torch.int64:
            raise ValueError(
                f"film_siren: {name} has shape {tuple(tensor.shape)} and type {tensor.dtype}, "
                f"expected ({size},) torch.int64"
            )
