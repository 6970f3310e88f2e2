"""`semantic_composite` as `torch.library` ops: registered here once, for every backend."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._extension import addresses, empty_where, none_where_not, registered
from .semantic_composite_reference import ColorGradients


class Launches(NamedTuple):
    """How a backend runs each pass on contiguous tensors; a gradient of size 0 is not needed.

    `semantic_forward(alpha, semantics, labels, semantic_map)`;
    `semantic_backward(grad_map, alpha, semantics, needed, grads)`, of alpha and semantics;
    `color_forward(alpha, colors, depths, color, depth, weights)`;
    `color_backward(given, needed, grads)`, of alpha, colors and depths.
    """

    semantic_forward: Callable[..., None]
    semantic_backward: Callable[..., None]
    color_forward: Callable[..., None]
    color_backward: Callable[[ColorGradients, list[bool], list[Tensor]], None]


class Functions(NamedTuple):
    """What `SemanticCompositeFunction` and `ColorCompositeFunction` call."""

    semantic_forward: Callable[..., tuple[Tensor, Tensor]]
    semantic_backward: Callable[..., list[Tensor | None]]
    color_forward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    color_backward: Callable[..., list[Tensor | None]]


def native_launches(module: Callable[[], ModuleType], where: Callable[..., Any]) -> Launches:
    """Those of a module built from csrc/; `where` gives the last argument of its functions."""

    def semantic_forward(alpha: Tensor, semantics: Tensor, labels: Tensor, mixed: Tensor) -> None:
        inputs, outputs = addresses(alpha, semantics), addresses(labels, mixed)
        with where(alpha) as place:
            module().semantic_forward(semantics.shape, inputs, outputs, place)

    def semantic_backward(
        grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool], grads: list[Tensor]
    ) -> None:
        inputs = addresses(grad_map, alpha, semantics)
        outputs = addresses(*none_where_not(needed, grads))
        with where(alpha) as place:
            module().semantic_backward(semantics.shape, inputs, outputs, place)

    def color_forward(alpha: Tensor, colors: Tensor, depths: Tensor, *outputs: Tensor) -> None:
        inputs = addresses(alpha, colors, depths)
        with where(alpha) as place:
            module().color_forward(colors.shape, inputs, addresses(*outputs), place)

    def color_backward(given: ColorGradients, needed: list[bool], grads: list[Tensor]) -> None:
        outputs = addresses(*none_where_not(needed, grads))
        with where(given.alpha) as place:
            module().color_backward(given.colors.shape, addresses(*given), outputs, place)

    return Launches(semantic_forward, semantic_backward, color_forward, color_backward)


def register(backend: str, launches: Launches) -> Functions:
    """The four ops `semfaceedit::{semantic,color}_{forward,backward}_<backend>`."""
    return Functions(*_register_semantic(backend, launches), *_register_color(backend, launches))


def _register_semantic(
    backend: str, launches: Launches
) -> tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., list[Tensor | None]]]:
    def forward_run(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        outputs = _empty_labels_and_map(alpha, semantics)
        launches.semantic_forward(alpha, semantics, *outputs)
        return outputs

    def forward_fake(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        return _empty_labels_and_map(alpha, semantics)

    forward_op = registered(f"semantic_forward_{backend}", forward_run, forward_fake)

    def backward_run(
        grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool]
    ) -> list[Tensor]:
        grads = empty_where(needed, [alpha, semantics])
        launches.semantic_backward(grad_map, alpha, semantics, needed, grads)
        return grads

    def backward_fake(
        grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool]
    ) -> list[Tensor]:
        return empty_where(needed, [alpha, semantics])

    backward_op = registered(f"semantic_backward_{backend}", backward_run, backward_fake)

    def forward(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        return forward_op(alpha.contiguous(), semantics.contiguous())

    def backward(
        grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: tuple[bool, ...]
    ) -> list[Tensor | None]:
        flags = list(needed)
        tensors = [tensor.contiguous() for tensor in (grad_map, alpha, semantics)]
        return none_where_not(flags, backward_op(*tensors, flags))

    return forward, backward


def _register_color(
    backend: str, launches: Launches
) -> tuple[Callable[..., tuple[Tensor, Tensor, Tensor]], Callable[..., list[Tensor | None]]]:
    def forward_run(alpha: Tensor, colors: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs = _empty_color_depth_weights(alpha, colors)
        launches.color_forward(alpha, colors, depths, *outputs)
        return outputs

    def forward_fake(
        alpha: Tensor, colors: Tensor, depths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _empty_color_depth_weights(alpha, colors)

    forward_op = registered(f"color_forward_{backend}", forward_run, forward_fake)

    def backward_run(tensors: list[Tensor], needed: list[bool]) -> list[Tensor]:
        given = ColorGradients(*tensors)
        grads = empty_where(needed, given.inputs)
        launches.color_backward(given, needed, grads)
        return grads

    def backward_fake(tensors: list[Tensor], needed: list[bool]) -> list[Tensor]:
        return empty_where(needed, ColorGradients(*tensors).inputs)

    backward_op = registered(f"color_backward_{backend}", backward_run, backward_fake)

    def forward(alpha: Tensor, colors: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return forward_op(alpha.contiguous(), colors.contiguous(), depths.contiguous())

    def backward(given: ColorGradients, needed: tuple[bool, ...]) -> list[Tensor | None]:
        flags = list(needed)
        return none_where_not(flags, backward_op([t.contiguous() for t in given], flags))

    return forward, backward


def _empty_labels_and_map(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.empty(alpha.shape, dtype=torch.int64, device=alpha.device)
    rays, _, channels = semantics.shape
    return labels, semantics.new_empty(rays, channels)


def _empty_color_depth_weights(alpha: Tensor, colors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rays, _, channels = colors.shape
    return colors.new_empty(rays, channels), alpha.new_empty(rays), torch.empty_like(alpha)
