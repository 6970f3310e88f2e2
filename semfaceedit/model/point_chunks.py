"""Points in parts where no gradient is recorded, so that memory holds wide rows of a part alone."""

from collections.abc import Callable

import torch
from torch import Tensor

# On a GPU a launch should be long: 16 tiles of 128 points for each of 128 multiprocessors.
CHUNK_POINTS = {"cpu": 1 << 15, "cuda": 1 << 18}


def by_chunks(function: Callable[[slice], Tensor], points: int, device: torch.device) -> Tensor:
    """`function` of runs of points, which together are all of them, joined: (points, ...).

    It returns a row for each point of its run. One run where gradients are recorded.
    """
    parts = [function(chunk) for chunk in chunks(points, device)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def chunks(points: int, device: torch.device) -> list[slice]:
    """Runs of points in order, at least one."""
    step = CHUNK_POINTS.get(device.type)
    if step is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return [slice(0, points)]
    return [slice(start, min(start + step, points)) for start in range(0, max(points, 1), step)]


def offsets_within(row_offsets: Tensor, chunk: slice) -> Tensor:
    """(M + 1,) `row_offsets` of the points of a chunk alone; rows outside it have none."""
    return row_offsets.clamp(chunk.start, chunk.stop) - chunk.start
