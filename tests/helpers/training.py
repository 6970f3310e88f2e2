"""What the training tests share: a packed data set of drawn faces, settings, and a gloo worker."""

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from face_maps import draw_labels, paint

from semfaceedit.data.dataset import FaceDataset, open_packed
from semfaceedit.data.packing import pack_dataset
from semfaceedit.model import config
from semfaceedit.model.config import Config, Phase
from semfaceedit.training.distributed import World
from semfaceedit.training.trainer import Trainer


def drawn_faces(folder: Path, count: int = 12, resolution: int = 32) -> FaceDataset:
    """Drawn faces with known poses, packed into `folder`; one pose is unknown."""
    random = np.random.default_rng(0)

    def items():
        for index in range(count):
            pose = random.normal(0, (0.3, 0.15)).astype(np.float32)
            labels = draw_labels(resolution, *pose)
            known = pose if index else np.full(2, np.nan, np.float32)
            yield f"{index:03d}", paint(labels), labels, known

    pack_dataset(items(), count, resolution, folder, {"layout": "drawn"})
    return open_packed(folder)


def tiny(*, one_phase: bool = True, **changes) -> Config:
    """The `tiny` preset without a prior for background, so that all groups occur early."""
    base = config.tiny()
    if one_phase:
        changes["phases"] = (Phase(until=1.0, resolution=8, batch=4),)
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, background_prior=0.0, semantic_gain=30.0),
        train=dataclasses.replace(base.train, **changes),
    )


def train_five_steps(data_folder: Path, world: World) -> dict[str, torch.Tensor]:
    """All parameters after five float64 steps with R1 and R2 in every step, augmentation that
    adapts, and a change of stage."""
    settings = tiny(
        stage1_iterations=3, stage2_iterations=2, r1_interval=1, r2=True,
        augment=0.9, cutout=0.9, augment_target=1e-3, augment_ramp=16,
    )  # fmt: skip
    trainer = Trainer(
        settings, seed=3, device=torch.device("cpu"), world=world, dtype=torch.float64
    )
    data = open_packed(data_folder)
    for _ in range(5):
        trainer.step(data)
    modules = {
        "generator": trainer.generator,
        "average": trainer.averages[0],
        "d_image": trainer.d_image,
        "d_semantic": trainer.d_semantic,
    }
    adapted = torch.tensor([trainer.augmentation.strength, trainer.augmentation.sign])
    return {
        "augmentation": adapted.double(),
        **{
            f"{name}.{key}": value
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        },
    }


if __name__ == "__main__":  # a process of the two-process test, started by torchrun
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    result = train_five_steps(Path(sys.argv[1]), World(rank, size))
    if rank == 0:
        torch.save(result, sys.argv[2])
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)
