"""Steps of Adam, and what a fit must not import."""

import subprocess
import sys

import torch

from semfaceedit.editing.descent import Adam


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    start = [torch.randn(3, 2), torch.randn(4)]
    ours, theirs = ([t.clone() for t in start] for _ in range(2))
    adam = Adam(ours, weight_decay=0.1)
    reference = torch.optim.Adam(theirs, 0.02, weight_decay=0.1)
    for step in range(5):
        gradients = [torch.randn_like(t) for t in start]
        adam.step(gradients, 0.02 * 0.5**step)
        for leaf, gradient in zip(theirs, gradients, strict=True):
            leaf.grad = gradient
        reference.param_groups[0]["lr"] = 0.02 * 0.5**step
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_fit_does_not_import_the_compiler():
    """It takes seconds of a core, and every command that renders would wait for it."""
    code = """
import sys
import torch
from semfaceedit.api import EditSettings, Generator, edit, generate
from semfaceedit.editing.encoder import EncoderSettings, Encoder
from semfaceedit.model.config import preset
config = preset("tiny").model
generator = Generator(config)
with torch.device("meta"):
    Encoder(config, EncoderSettings(width=8, features=8, components=4))
face = generate(generator, 1).project
labels = face.labels.copy()
labels[:4] = 13
edit(generator, face, labels, settings=EditSettings(iterations=1, perceptual_weight=0))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
