"""What the tests of inversion, editing and transfer share: a tiny checkpoint and its faces."""

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import load_file

from semfaceedit.api import Editor, load
from semfaceedit.editing.project import FaceProject
from semfaceedit.model import checkpoint
from semfaceedit.model.config import Config, tiny
from semfaceedit.model.generator import Generator

SIZE = 16
UNTRAINED = Path(__file__).with_name("untrained-tiny.safetensors")
"""Untrained weights of `settings` that show three groups, kept so that the tests of editing do not
hang on the rules of initialisation (`test_several_groups_are_seen`)."""


def settings() -> Config:
    """The `tiny` preset without a prior for background, so that several groups occur untrained."""
    run = tiny()
    model = dataclasses.replace(run.model, background_prior=0.0, semantic_gain=30.0)
    return dataclasses.replace(run, model=model)


def write_checkpoint(folder: Path, seed: int | None = None) -> Path:
    """A checkpoint of untrained weights: those that are kept, or those that a seed draws."""
    path = folder / f"tiny-{seed or 'kept'}.safetensors"
    run = settings()
    if seed is not None:
        torch.manual_seed(seed)
    generator = Generator(run.model)
    if seed is None:
        generator.load_state_dict(load_file(UNTRAINED))
    checkpoint.save_generator(path, generator, run, images=0, ema_decay=None)
    return path


def open_editor(folder: Path, seed: int | None = None) -> Editor:
    return load(write_checkpoint(folder, seed))


def face(editor: Editor, seed: int, size: int = SIZE) -> FaceProject:
    """A generated face at a turned pose."""
    return editor.generate(seed, pose=(0.2, -0.1), resolution=size).project
