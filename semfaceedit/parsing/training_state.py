"""What a training needs to go on after it was stopped, in one file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..tensor_files import optimizer_tensors, read_kept, restore_optimizer, write_tensors


class TrainingState:
    """Networks by name, Adam's moments and the schedule, as safetensors."""

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ):
        self.networks, self.optimizer, self.schedule = networks, optimizer, schedule

    def save(self, path: Path, key: str, step: int) -> None:
        """key: tells this training from others."""
        tensors = {
            f"{name}.{place}": tensor
            for name, network in self.networks.items()
            for place, tensor in network.state_dict().items()
        }
        tensors |= optimizer_tensors(self.optimizer)
        header = {"key": key, "step": step, "schedule": self.schedule.state_dict()}
        write_tensors(path, tensors, header)

    def restore(self, path: Path, key: str) -> int:
        """The steps done in a state of this training; 0 where there is none."""
        kept = read_kept(path)
        if kept is None or kept[0].get("key") != key:
            return 0
        header, tensors = kept
        restore_optimizer(self.optimizer, tensors)
        rates = header["schedule"]["_last_lr"]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for name, network in self.networks.items():
            start = f"{name}."
            network.load_state_dict(
                {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            )
        self.schedule.load_state_dict(header["schedule"])
        return int(header["step"])
