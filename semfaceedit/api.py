"""Everything at a glance: load a checkpoint, then generate, invert, edit, adjust and transfer.

A face is a `FaceProject`; each step returns a typed result that holds one, and every project can be
saved and taken up again.

>>> generator = Generator.from_checkpoint(checkpoint)
>>> face = generate(generator, 3, pose=(0.2, 0.0)).project
>>> settings = InvertSettings(geometry_iterations=2, appearance_iterations=2, perceptual_weight=0)
>>> found = invert(generator, face.image, face.labels, pose=(0.2, 0.0), settings=settings)
>>> labels = found.project.labels.copy()  # or paint(found.project.labels, ["hat"])
>>> labels[:4] = 13  # hair along the upper edge
>>> short = EditSettings(iterations=2, perceptual_weight=0)
>>> edited = edit(generator, found.project, labels, settings=short)
>>> other = generate(generator, z=torch.ones(generator.config.latent_dim)).project
>>> swapped = transfer(generator, edited.project, other, what="appearance", region=["hair"])
>>> swapped.project.save(folder / "swapped.safetensors")

`Editor` holds a checkpoint, its VGG weights and these functions together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .editing.encoder import Encoder, find_encoder, follow_map
from .editing.fit_terms import FitSettings, Watch
from .editing.inversion import InversionResult, InvertSettings, default_invert_settings, invert
from .editing.map_edit import edit, refine
from .editing.mask_edits import paint
from .editing.paste import paste_to_file
from .editing.project import FaceProject
from .editing.refit import EditedFace, EditSettings, default_edit_settings
from .editing.region_transfer import What, transfer
from .editing.sliders import Directions, adjust, find_sliders
from .editing.source_photograph import find_photograph
from .editing.target import (
    OVERSAMPLING,
    SourceCrop,
    check_labels,
    read_edited_labels,
    read_target,
)
from .editing.tuning import weights_of
from .errors import UserError
from .metrics.perceptual import PerceptualFeatures, load_perceptual
from .model.checkpoint import load_generator
from .model.config import Config, ModelConfig
from .model.generator import Generator, seed_latents
from .model.mean_face import fingerprint, mean_codes
from .model.renderer import RenderOutput, render
from .parsing.photographs import OwnParser, parse_file
from .pictures.grids import picture_rows

__all__ = [
    "EditSettings", "EditedFace", "Editor", "FaceProject", "FitSettings", "GeneratedFace",
    "Generator", "InversionResult", "InvertSettings", "adjust", "edit", "find_photograph",
    "generate", "invert", "load", "paint", "paste_to_file", "transfer",
]  # fmt: skip


@dataclass(frozen=True)
class GeneratedFace:
    """A generated face: its rendering, and a project of it to edit or to transfer from."""

    output: RenderOutput
    project: FaceProject


def load(
    path: Path | str | None = None,
    *,
    device: torch.device | str = "cpu",
    vgg_weights: Path | str | None = None,
    encoder: Path | str | bool = True,
) -> "Editor":
    """Open a checkpoint, by default the weights that come with the package.

    vgg_weights: torchvision's vgg16 for the perceptual term; without it the settings of each call
    must leave that term out (`perceptual_weight=0`). encoder: a file of `train-encoder`; True: the
    one beside the weights, if there is one; False: none.
    """
    generator, config = load_generator(Path(path) if path else None, device=device)
    perceptual = None
    if vgg_weights is not None:
        perceptual, _ = load_perceptual(Path(vgg_weights), device=device)
    found = None
    if encoder is not False:
        found = find_encoder(generator, None if encoder is True else Path(encoder))
    return Editor(generator, config, perceptual, encoder=found)


@torch.no_grad()
def generate(
    generator: Generator,
    seed: int | None = None,
    *,
    z: Tensor | None = None,  # (Z,) or (1, Z) geometry code
    appearance: Mapping[str, int] | Tensor | None = None,
    pose: tuple[float, float] = (0.0, 0.0),
    resolution: int | None = None,
) -> GeneratedFace:
    """The face of a seed, or of a geometry code z.

    appearance: seeds by group name, for groups that look like those of other seeds; or the codes
    of all groups, (n, Z) or (1, n, Z), N(0, 1) each. With z and no appearance, that of seed 0.
    pose: yaw and pitch in radians.

    >>> face = generate(Generator.from_checkpoint(checkpoint), 3, appearance={"hair": 7})
    >>> face.output.semantics.shape, face.project.image.dtype
    (torch.Size([1, 19, 16, 16]), dtype('uint8'))
    """
    if (seed is None) == (z is None):
        raise UserError("generate: give either a seed or z")
    model, mean = generator.config, mean_codes(generator)
    if resolution is not None and resolution < 1:
        raise UserError(f"generate: resolution {resolution}: use at least 1")
    own, looks = _latents(model, seed or 0)
    if z is not None:
        own = _code(z, own.shape, "z")
    if isinstance(appearance, Tensor):
        looks = _code(appearance, looks.shape, "appearance")
    else:
        for name, other in (appearance or {}).items():
            if name not in model.group_names:
                names = ", ".join(model.group_names)
                raise UserError(f"appearance of {name!r}: the groups are {names}")
            group = model.group_names.index(name)
            looks[:, group] = _latents(model, other)[1][:, group]
    like = mean.geometry.phases
    codes = generator.map(own.to(like), looks.to(like))
    where = torch.tensor([pose]).to(like)
    output = render(generator, codes, where, resolution or model.resolution)
    image = picture_rows(output)["image"][0].numpy()
    project = FaceProject(
        checkpoint=fingerprint(generator),
        group_of_class=model.group_of_class,
        geometry=(codes.geometry - mean.geometry)[0],
        appearance=(codes.appearance - mean.appearance)[0],
        pose=where[0],
        labels=output.labels[0].to(torch.uint8).cpu().numpy(),
        image=image,
        preview=image,
        tuned=weights_of(generator),
    )
    return GeneratedFace(output, project)


def _latents(model: ModelConfig, seed: int) -> tuple[Tensor, Tensor]:
    if not -(2**63) <= seed < 2**64:
        raise UserError(f"seed {seed}: use 0 to {2**64 - 1}")
    return seed_latents(model, seed)


def _code(given: Tensor, shape: torch.Size, name: str) -> Tensor:
    if given.shape not in (shape, shape[1:]):
        raise UserError(f"{name} of shape {tuple(given.shape)}: give {tuple(shape[1:])}")
    return given.reshape(shape).float()


class Editor:
    """A checkpoint and what can be done with it.

    >>> editor = load(checkpoint)
    >>> face = editor.generate(3, pose=(0.2, 0.0), appearance={"hair": 7})
    >>> face.output.image.shape
    torch.Size([1, 3, 16, 16])

    A face that is known by its picture and label map alone is inverted; `quick` stands for
    settings that suit a short example:

    >>> quick = InvertSettings(geometry_iterations=20, appearance_iterations=20,
    ...                        perceptual_weight=0)
    >>> found = editor.invert(face.project.image, face.project.labels, pose=(0.2, 0.0),
    ...                       settings=quick)
    >>> found.history[-1].loss < found.history[0].loss * 100
    True
    >>> found.project.save(folder / "face.safetensors")
    >>> project = FaceProject.load(folder / "face.safetensors", editor.generator)

    Edit the label map, and the face follows:

    >>> labels = project.labels.copy()
    >>> labels[:4] = 13  # hair along the upper edge
    >>> edited = editor.edit(project, labels, settings=EditSettings(iterations=10,
    ...                      perceptual_weight=0))
    >>> edited.project.save(folder / "edited.safetensors")

    Give it the hair of another face, at once:

    >>> other = editor.generate(4).project
    >>> swapped = editor.transfer(project, other, what="appearance", region=["hair"])
    >>> sorted(swapped.change)
    ['change_inside', 'change_outside', 'ssim_outside']
    """

    def __init__(
        self,
        generator: Generator,
        config: Config,
        perceptual: PerceptualFeatures | None = None,
        parser: OwnParser | None = None,  # reads label maps in place of the network that ships
        encoder: Encoder | None = None,  # reads faces, from which fits start
    ):
        self.generator, self.config, self.perceptual = generator, config, perceptual
        self.parser, self.encoder = parser, encoder

    def generate(
        self,
        seed: int | None = None,
        *,
        z: Tensor | None = None,
        appearance: Mapping[str, int] | Tensor | None = None,
        pose: tuple[float, float] = (0.0, 0.0),
        resolution: int | None = None,
    ) -> GeneratedFace:
        """The face of a seed or of a geometry code: see `generate`."""
        return generate(
            self.generator, seed, z=z, appearance=appearance, pose=pose, resolution=resolution
        )

    def invert(
        self,
        image: np.ndarray | Path,
        labels: np.ndarray | Path | None = None,
        *,
        pose: tuple[float, float] | None = None,
        crop: SourceCrop | None = None,
        settings: InvertSettings | None = None,
        watch: Watch | None = None,
    ) -> InversionResult:
        """Fit a face: files, which are aligned first, or an aligned pair of arrays.

        Without labels they are read off the photograph, and so is the pose. crop: where arrays were
        cut out of a photograph. See `invert.invert`.
        """
        settings = settings or self.invert_settings()
        size = OVERSAMPLING * (settings.resolution or self.config.model.resolution)
        if isinstance(image, Path) and labels is None:
            with TemporaryDirectory() as folder:
                read = Path(folder) / "labels.png"
                face = parse_file(image, read, parser=self.parser)
                target = read_target(image, read, size, **face.placed)
            image, labels, crop, pose = target.image, target.labels, target.crop, pose or face.pose
        if isinstance(image, Path) and isinstance(labels, Path):
            target = read_target(image, labels, size)
            image, labels, crop = target.image, target.labels, target.crop
        if isinstance(image, Path) or not isinstance(labels, np.ndarray):
            raise UserError("give image and labels both as paths, or both as aligned arrays")
        return invert(
            self.generator,
            image,
            labels,
            pose=pose,
            settings=settings,
            perceptual=self._perceptual(settings),
            crop=crop,
            watch=watch,
            encoder=self.encoder,
        )

    def edit(
        self,
        project: FaceProject,
        labels: np.ndarray | Path,
        *,
        region: np.ndarray | None = None,
        settings: EditSettings | None = None,
        watch: Watch | None = None,
    ) -> EditedFace:
        """Change a face through its label map, an array or a file: see `edit.edit`."""
        settings = settings or self.edit_settings()
        if isinstance(labels, Path):
            labels = read_edited_labels(labels, len(project.labels), project.crop)
        return edit(
            self.generator,
            project,
            labels,
            region=region,
            settings=settings,
            perceptual=self._perceptual(settings),
            watch=watch,
            encoder=self.encoder,
        )

    def refine(
        self,
        before: FaceProject,
        after: FaceProject,
        *,
        settings: EditSettings | None = None,
        watch: Watch | None = None,
    ) -> EditedFace:
        """Bring a face that follows a painted map nearer to it: see `map_edit.refine`."""
        settings = settings or self.edit_settings()
        return refine(
            self.generator,
            before,
            after,
            settings,
            perceptual=self._perceptual(settings),
            watch=watch,
        )

    def follow(self, project: FaceProject, labels: np.ndarray) -> FaceProject:
        """The face as the encoder makes it follow a painted map, at once: see `follow_map`."""
        if self.encoder is None:
            raise UserError(
                "these weights have no encoder to follow a map: use edit (on the page, Apply)"
            )
        return follow_map(self.encoder, project, check_labels(labels))

    def adjust(self, project: FaceProject, changes: Mapping[str, float]) -> EditedFace:
        """Move sliders of a face, {"mouth opening": 1.5}, in standard deviations; at once."""
        return adjust(self.generator, project, changes, self.directions)

    @cached_property
    def directions(self) -> Directions | None:
        """The sliders beside the weights, if there are any."""
        return find_sliders(self.generator)

    def transfer(
        self,
        target: FaceProject,
        source: FaceProject,
        *,
        what: What,
        region: Sequence[str],
        settings: EditSettings | None = None,
        watch: Watch | None = None,
    ) -> EditedFace:
        """Give `target` a region of `source`: see `transfer.transfer`."""
        settings = settings or self.edit_settings()
        return transfer(
            self.generator,
            target,
            source,
            what=what,
            region=region,
            settings=settings,
            perceptual=self._perceptual(settings),
            watch=watch,
            encoder=self.encoder,
        )

    def invert_settings(self, **changes: Any) -> InvertSettings:
        """How it inverts by default: few steps where an encoder reads the face; with changes."""
        return default_invert_settings(self.encoder, **changes)

    def edit_settings(self, **changes: Any) -> EditSettings:
        """How it edits and transfers by default, with changes."""
        return default_edit_settings(self.encoder, **changes)

    def _perceptual(self, settings: FitSettings) -> PerceptualFeatures | None:
        return self.perceptual if settings.perceptual_weight else None
