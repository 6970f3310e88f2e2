"""A network that reads a face off a picture and a label map at once, where `Fit` walks to it.

It gives the pose and the FiLM offsets from the mean face that an inversion would look for (Eq. 9);
`train-encoder` trains one for a checkpoint. Offsets are coefficients of the principal components of
the generator's own codes, so that a face it could have drawn is near, plus a small free part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, leaky_relu

from ..model.codes import Codes, Film
from ..model.config import ModelConfig
from ..model.generator import Generator, sample_latents
from ..model.labels import NUM_CLASSES
from ..model.mean_face import mean_codes
from .beside import DAMAGE, Kind
from .project import FaceProject
from .target import footprint_shares

FORMAT = "semfaceedit-encoder"
KIND = Kind(
    name="encoder",
    what="an encoder",
    format=FORMAT,
    version=2,  # 1: all in fp16
    command="train-encoder",
    way_out="train it again with `train-encoder`, or leave it out with --no-encoder",
    bytes=True,
)
SIZE = 32  # pixels along an edge of what the network reads
COMPONENTS = 64  # of each part's codes, at most
PCA_SAMPLES, PCA_SEED = 4096, 0
FREE_FLOATS = 400_000  # what the free part's last layer may hold
FOLLOW_GAIN = 1.0  # of the encoder's difference between two maps


@dataclass(frozen=True)
class EncoderSettings:
    """The sizes of an encoder; files carry them."""

    width: int = 32  # channels of the first level
    features: int = 512
    components: int = COMPONENTS
    size: int = SIZE


@dataclass(frozen=True)
class Estimate:
    """What the encoder reads: pose, and offsets from the mean face."""

    pose: Tensor  # (B, 2) yaw, pitch in radians
    offsets: Codes
    geometry: Tensor  # (B, k) coefficients of the principal components
    appearance: Tensor  # (B, n, k)


class Encoder(nn.Module):
    """Pictures and class shares -> pose and offsets; either input may be missing."""

    geometry_basis: Tensor  # (k, 2 (L + 1) W) components, each as long as codes deviate along it
    appearance_basis: Tensor  # (n, k, 2 (L + 1) W)

    def __init__(self, model: ModelConfig, settings: EncoderSettings | None = None):
        super().__init__()
        self.model, self.settings = model, settings or EncoderSettings()
        self.learned_depth = False  # from heads whose depth is known
        width, features, groups = self.settings.width, self.settings.features, model.groups
        count = self.settings.components
        geometry = 2 * (model.geometry_depth + 1) * model.width
        appearance = 2 * (model.appearance_depth + 1) * model.width
        self.register_buffer("geometry_basis", torch.zeros(count, geometry))
        self.register_buffer("appearance_basis", torch.zeros(groups, count, appearance))
        widths = (width, 2 * width, 4 * width)
        self.first = nn.Conv2d(3 + NUM_CLASSES + 4, widths[0], 5, stride=2, padding=2)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.blocks = nn.ModuleList(_Residual(w) for w in widths)
        self.body = nn.Linear(widths[-1] * (self.settings.size // 8) ** 2, features)
        self.body2 = nn.Linear(features, features)
        self.pose = nn.Linear(features, 2)
        self.geometry = nn.Linear(features, count)
        self.appearance = nn.Linear(features, groups * count)
        total = geometry + groups * appearance
        rank = max(1, min(96, FREE_FLOATS // total))
        self.free_in = nn.Linear(features, rank)
        self.free_out = nn.Linear(rank, total, bias=False)

    def reset_outputs(self) -> None:
        """Let an untrained network begin near the mean face.

        Not in `__init__`: for a network on the meta device `normal_` imports torch's compiler,
        which takes seconds.
        """
        for layer in (self.pose, self.geometry, self.appearance, self.free_in):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.free_out.weight)

    def forward(
        self,
        image: Tensor | None,  # (B, 3, s, s) in [-1, 1]; s a multiple of 32
        semantics: Tensor | None,  # (B, 19, s, s) class shares in [0, 1]
        *,
        keep_image: Tensor | None = None,  # (B,) 1 or 0: leave the picture of some out
        keep_semantics: Tensor | None = None,
    ) -> Estimate:
        h = self._inputs(image, semantics, keep_image, keep_semantics)
        h = self.blocks[0](leaky_relu(self.first(h), 0.2))
        for layer, block in zip(self.down, list(self.blocks)[1:], strict=True):
            h = block(leaky_relu(layer(h), 0.2))
        h = leaky_relu(self.body(h.flatten(1)), 0.2)
        h = h + leaky_relu(self.body2(h), 0.2)
        groups = self.model.groups
        geometry = self.geometry(h)
        appearance = self.appearance(h).unflatten(1, (groups, -1))
        free = self.free_out(torch.tanh(self.free_in(h)))
        length = self.geometry_basis.shape[1]
        flat = geometry @ self.geometry_basis + free[:, :length]
        looks = torch.einsum("bnk,nkf->bnf", appearance, self.appearance_basis)
        looks = looks + free[:, length:].unflatten(1, (groups, -1))
        return Estimate(
            pose=self.pose(h),
            offsets=Codes(film_of(flat, self.model.width), film_of(looks, self.model.width)),
            geometry=geometry,
            appearance=appearance,
        )

    def _inputs(
        self,
        image: Tensor | None,
        semantics: Tensor | None,
        keep_image: Tensor | None,
        keep_semantics: Tensor | None,
    ) -> Tensor:
        given = image if image is not None else semantics
        if given is None:
            raise ValueError("give a picture, a label map or both")
        count, size = len(given), self.settings.size
        like = self.body.weight

        def part(picture: Tensor | None, channels: int, keep: Tensor | None) -> list[Tensor]:
            if picture is None:
                return [like.new_zeros(count, channels + 1, size, size)]
            small = picture.to(like)
            if small.shape[-1] != size:
                small = adaptive_avg_pool2d(small, size)
            here = torch.ones(count) if keep is None else keep
            here = here.to(like).view(-1, 1, 1, 1)
            return [small * here, here.expand(-1, 1, size, size)]

        line = torch.linspace(-1, 1, size).to(like)
        places = torch.stack(torch.meshgrid(line, line, indexing="ij"))
        return torch.cat(
            [
                *part(image, 3, keep_image),
                *part(semantics, NUM_CLASSES, keep_semantics),
                places.expand(count, -1, -1, -1),
            ],
            1,
        )

    @torch.no_grad()
    def read(self, image: Tensor | None, semantics: Tensor | None) -> Estimate:
        """`forward` without gradients."""
        return self(image, semantics)


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8 if width % 8 == 0 else 1, width)
        self.one = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + leaky_relu(self.one(self.norm(x)), 0.2)


def flat_film(film: Film) -> Tensor:
    """(..., L + 1, W) frequencies and phases -> (..., 2 (L + 1) W)."""
    return torch.cat([film.frequencies.flatten(-2), film.phases.flatten(-2)], -1)


def film_of(flat: Tensor, width: int) -> Film:
    """The inverse of `flat_film`."""
    frequencies, phases = flat.chunk(2, -1)
    return Film(frequencies.unflatten(-1, (-1, width)), phases.unflatten(-1, (-1, width)))


@torch.no_grad()
def new_encoder(
    generator: Generator, settings: EncoderSettings | None = None, *, seed: int = 0
) -> Encoder:
    """An untrained encoder with the principal components of the generator's codes."""
    model = generator.config
    settings = settings or EncoderSettings()
    lengths = ((model.geometry_depth + 1) * model.width, (model.appearance_depth + 1) * model.width)
    count = min(settings.components, 2 * min(lengths))
    settings = replace(settings, components=count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(model, settings)
        encoder.reset_outputs()
    device = generator.device
    mean = mean_codes(generator)
    random = torch.Generator().manual_seed(PCA_SEED)
    z, looks = sample_latents(model, PCA_SAMPLES, generator=random)
    codes = generator.map(z.to(device), looks.to(device))
    encoder.geometry_basis.copy_(
        principal_components(flat_film(codes.geometry - mean.geometry), count)
    )
    appearance = flat_film(codes.appearance - mean.appearance)
    for group in range(model.groups):
        encoder.appearance_basis[group] = principal_components(appearance[:, group], count)
    return encoder.to(device)


def principal_components(offsets: Tensor, count: int) -> Tensor:
    """(M, F) offsets -> (k, F) principal components about 0, scaled by their deviation.

    In float64, then rounded: in float32 they depend on the number of threads.
    """
    _, values, vectors = torch.linalg.svd(offsets.double().cpu(), full_matrices=False)
    scaled = vectors[:count] * (values[:count, None] / len(offsets) ** 0.5)
    signs = scaled.gather(1, scaled.abs().argmax(1, keepdim=True)).sign()
    return (scaled * signs).float()


# Files.


def encoder_beside(path: Path) -> Path:
    """Where the encoder of the weights file `path` is looked for."""
    return KIND.beside(path)


def find_encoder(generator: Generator, path: Path | None = None) -> Encoder | None:
    """The encoder in `path`, by default in the file beside the generator's weights; None where
    there is none.

    UserError where the file is damaged or belongs to other weights.
    """
    found = KIND.find(generator, path)
    return None if found is None else load_encoder(found, generator)


def save_encoder(
    path: Path, encoder: Encoder, generator: Generator, facts: Mapping[str, Any]
) -> None:
    """Write an encoder, its large weights in bytes; the header says whose it is, and `facts`."""
    own = {"settings": asdict(encoder.settings), "learned_depth": encoder.learned_depth}
    KIND.save(path, encoder.state_dict(), generator, {**own, **facts})


def load_encoder(path: Path, generator: Generator) -> Encoder:
    """An encoder that `train-encoder` wrote for this generator; UserError for any other file."""
    header, tensors = KIND.read(path, generator)
    try:
        settings = EncoderSettings(**header["settings"])
        sizes = asdict(settings)
        if not all(type(n) is int and 1 <= n <= 4096 for n in sizes.values()):
            raise ValueError(f"its sizes are {sizes}")
        with torch.device("meta"):
            encoder = Encoder(generator.config, settings)
        encoder.load_state_dict(tensors, assign=True)
        encoder.learned_depth = header.get("learned_depth") is True
    except DAMAGE as error:
        raise KIND.unreadable(path, error) from None
    device = generator.device
    return encoder.to(device).eval().requires_grad_(False)


# What a painted map asks for.


@torch.no_grad()
def map_change(encoder: Encoder, before: Tensor, after: Tensor) -> Film:
    """What changes in the geometry (1, L + 1, W) from one map (1, 19, s, s) to another, each read
    without a picture; s may differ."""
    size = encoder.settings.size
    maps = torch.cat([adaptive_avg_pool2d(shares, size) for shares in (before, after)])
    read = encoder.read(None, maps).offsets.geometry
    return read[1:] - read[:1]


@torch.no_grad()
def follow_map(
    encoder: Encoder,
    project: FaceProject,
    labels: np.ndarray,  # (R, R) class ids, as large as the project's map
    *,
    gain: float = FOLLOW_GAIN,
) -> FaceProject:
    """The face with the geometry that a painted map asks for, at once; looks and pose stay.

    `gain` times what lies between the encoder's answers to the project's map and to the painted one
    (`map_change`) is added to the face's own geometry offsets; `labels` becomes the project's map.
    Nothing is rendered and nothing is fitted: `edit` refines from there.
    """
    own = project.geometry
    if not np.array_equal(labels, project.labels):
        size, like = encoder.settings.size, encoder.geometry_basis
        before, after = (footprint_shares(map_, size).to(like) for map_ in (project.labels, labels))
        own = own.lerp(own + map_change(encoder, before, after)[0], gain)
    return replace(project, geometry=own, labels=labels)
