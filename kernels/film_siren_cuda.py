"""`film_siren` in CUDA C++, fp16 operands: the forward pass (`csrc/film_siren_sm80.cu` and, for
compute capability 9.0, `csrc/film_siren_sm90.cu`). Gradients: `film_siren_cuda_backward.py`.
"""

import torch
from torch import Tensor

from . import _extension
from ._extension import addresses, native_cuda, on_stream
from ._extension import cuda_unavailable as unavailable
from ._triton import padded
from .film_siren_cuda_backward import launch_backward
from .film_siren_cuda_streams import constants_of, weight_stream
from .film_siren_ops import empty_output, register
from .film_siren_reference import FilmSirenCall, is_identity
from .film_siren_tiles import folded_film, point_tiles

__all__ = ["PRECISIONS", "backward", "bodies", "forward", "skips_identity", "unavailable"]

PRECISIONS = ("fp16",)

# What multiplies, and on which compute capabilities.
BODIES = {"sm80": "mma.sync, 8.0 and later", "sm90": "wgmma forward and backward, 9.0"}


def bodies(device: int | None = None) -> dict[str, str | None]:
    """{body: why it does not run on a device (default: the current), None for the one that does}"""
    module, reason = _extension.load_cuda(device)
    if module is None:
        return dict.fromkeys(BODIES, reason)
    index = torch.cuda.current_device() if device is None and torch.cuda.is_available() else device
    runs = module.film_siren_body(index or 0)
    return {body: None if body == runs else f"{runs} runs on this GPU" for body in BODIES}


def skips_identity() -> bool:
    """A first weight of size (W, 0) is not multiplied with."""
    return True


def _launch_forward(call: FilmSirenCall) -> Tensor:
    module, weights, output = native_cuda(), call.weights, empty_output(call)
    count, inputs = call.points.shape
    groups, heads, channels, own_width = weights.head_weight.shape
    width, layers = module.film_siren_width(own_width), heads + 1
    device = output.get_device()
    tiles = point_tiles(call.row_offsets, count, module.film_siren_rows(device))
    film = torch.stack(folded_film(call, 1.0), 3)
    film = padded(film, (len(call.frequencies), layers + 1, width, 2))
    split = call.trunk_channels
    stream = weight_stream(weights, split, width, constants_of(module))
    blocks = module.film_siren_blocks(tiles.bound, device)
    wide = channels > module.FILM_NARROW
    fragments = blocks * layers * width // 16 * module.FILM_THREADS * 4 if wide else 0
    tensors = [
        call.points, call.directions, tiles.table, tiles.used, call.row_groups, film, stream,
        weights.head_bias.sum(1), output,
        torch.empty(fragments, dtype=torch.int32, device=output.device),
    ]  # fmt: skip
    sizes = [
        inputs, layers, channels, split, is_identity(weights.first_weight), tiles.bound,
        stream.shape[1],
    ]  # fmt: skip
    with on_stream(output) as place:
        module.film_siren_forward(width, blocks, sizes, addresses(*tensors), place)
    return output


forward, backward = register("cuda", _launch_forward, launch_backward)
