"""Hashes of what a change of structure must leave as it is, `python tools/bits.py`.

For both weights in the package: the arrays of `render --seeds 0-3`, then the offsets, the pose and
the rendering of inversions of seed 1, in 20 steps from the mean face and from the encoder. Run it
in the checkout before and after, on the same machine, and compare the lines. They depend on the
CPU, the versions and the number of threads: one here.
"""

import hashlib
import sys

import torch

from semfaceedit.api import InvertSettings, generate, invert, load
from semfaceedit.editing.fit_terms import finished


def digest(*tensors: torch.Tensor) -> str:
    """The start of the SHA-256 of shapes, types and bytes."""
    sha = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        sha.update(f"{array.shape} {array.dtype}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()[:16]


def main() -> int:
    torch.set_num_threads(1)
    settings = InvertSettings(
        geometry_iterations=10, appearance_iterations=10, perceptual_weight=0.0
    )
    for weights in ("procedural", "portraits"):
        editor = load(weights)
        for seed in range(4):
            output = generate(editor.generator, seed).output
            parts = (output.image, output.semantics, output.depth, output.labels)
            print(weights, "seed", seed, *map(digest, parts), flush=True)
        face = generate(editor.generator, 1, pose=(0.2, 0.0)).project
        for start, encoder in (("mean", None), ("encoder", editor.encoder)):
            found = finished(
                invert(
                    editor.generator, face.image, face.labels, settings=settings, encoder=encoder
                )
            )
            film = (found.project.offsets.geometry, found.project.offsets.appearance)
            codes = [part for pair in film for part in (pair.frequencies, pair.phases)]
            print(
                weights, "inversion from", start, digest(*codes), digest(found.project.pose),
                digest(found.output.image, found.output.semantics), flush=True,
            )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
