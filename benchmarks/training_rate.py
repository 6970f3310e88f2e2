"""Train `small` at 32 pixels for some seconds, on noise, and print images a second as JSON.

A program of its own, since OpenMP reads how threads wait when it is loaded.
"""

import dataclasses
import json
import sys
import time

import torch
from workloads import RandomFaces

from semfaceedit.model import config
from semfaceedit.threads import FairThreads
from semfaceedit.training.distributed import World
from semfaceedit.training.trainer import Trainer

BATCH = 8


def main(seconds: float) -> None:
    run = config.preset("small")
    phase = config.Phase(until=1.0, resolution=32, batch=BATCH)
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, phases=(phase,)))
    device = torch.device("cpu")
    trainer, faces = Trainer(run, seed=0, device=device, world=World()), RandomFaces(device)

    def interval() -> int:
        for _ in range(run.train.r1_interval):
            threads.step()
            trainer.step(faces)  # type: ignore[arg-type]
        return BATCH * run.train.r1_interval

    with FairThreads() as threads:
        interval()
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            images += interval()
        print(json.dumps(images / (time.perf_counter() - start)))


if __name__ == "__main__":
    main(float(sys.argv[1]))
