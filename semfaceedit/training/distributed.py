"""Training on several processes started by torchrun: who am I, and averaging gradients."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among all; a single process has rank 0 of 1 and needs no process group."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` samples; `count` must be a multiple of the size."""
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the processes, in one all-reduce."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= self.size
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes, everywhere; each has as many samples."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool, device: torch.device) -> bool:
        """True everywhere if `flag` is True anywhere."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block first, then the others; a failure there ends all."""
        if not self.is_main:
            self._ready_or_raise(True)
            yield
            return
        ready = False
        try:
            yield
            ready = True
        finally:
            self._ready_or_raise(ready)

    def _ready_or_raise(self, ready: bool) -> None:
        """Wait for all; the other processes exit if the main one failed."""
        if self.size == 1:
            return
        flags: list[bool] = [ready]
        dist.broadcast_object_list(flags, src=0)
        if not flags[0] and not self.is_main:
            raise SystemExit(1)  # the main process says why

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def join_world(device_type: str) -> World:
    """Join the group that torchrun describes in the environment (gloo on CPU, nccl on CUDA)."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    backend = "nccl" if device_type == "cuda" else "gloo"
    # The others wait while the main process packs the data: of many photographs, for hours.
    dist.init_process_group(backend, timeout=timedelta(hours=24))
    return World(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
