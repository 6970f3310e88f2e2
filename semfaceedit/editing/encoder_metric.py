"""How much a coefficient of an encoder counts: by what it changes in the picture."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..data.seeds import mixed_seed
from ..model.codes import Codes
from ..model.generator import Generator
from ..model.renderer import RenderOutput, render
from .encoder import Encoder, film_of
from .encoder_samples import draw_codes
from .fit_terms import DEPTH_UNIT, FitSettings

SEMANTIC, IMAGE = FitSettings.semantic_weight, FitSettings.image_weight
DEPTH = 0.4  # weight of the depth term
FLOOR = 0.02  # share of the metric that counts every component alike
FACES, SIZE, STEP = 8, 16, 0.5  # faces measured at, pixels along an edge, deviations moved by
AT_ONCE = 16  # components


class CoefficientMetric(NamedTuple):
    """Squared changes of the terms of Eq. 9 that coefficients make."""

    geometry: Tensor  # (k, k)
    appearance: Tensor  # (n, k, k)

    def of_geometry(self, error: Tensor) -> Tensor:  # (B, k) -> (B,)
        return torch.einsum("bi,ij,bj->b", error, self.geometry, error)

    def of_appearance(self, error: Tensor) -> Tensor:  # (B, n, k) -> (B,)
        return torch.einsum("bni,nij,bnj->b", error, self.appearance, error)


@torch.no_grad()
def coefficient_metric(generator: Generator, encoder: Encoder, seed: int) -> CoefficientMetric:
    """Measured once: each component is moved by half a deviation at sampled faces; a group's
    counts where it shows."""
    count, groups = encoder.settings.components, generator.config.groups
    random = torch.Generator().manual_seed(mixed_seed(seed, 1))
    geometry = torch.zeros(count, count, device=generator.device)
    looks = torch.zeros(groups, count, count, device=generator.device)
    for _ in range(FACES):
        codes, pose = draw_codes(generator, 1, random)
        here = render(generator, codes, pose, SIZE)
        change, colour = _changes(generator, encoder, codes, pose, here)
        geometry += change @ change.T / FACES
        table = generator.group_table(here.labels)[:, None]  # (1, 1, H, H)
        for group in range(groups):
            own = (colour * (table == group)).flatten(1)
            looks[group] += IMAGE * own @ own.T / FACES
    eye = torch.eye(count, device=generator.device)
    geometry += FLOOR * geometry.trace() / count * eye
    looks += FLOOR * looks.diagonal(dim1=1, dim2=2).mean() * eye  # of groups never seen too
    return CoefficientMetric(geometry, looks)


def _changes(
    generator: Generator, encoder: Encoder, codes: Codes, pose: Tensor, here: RenderOutput
) -> tuple[Tensor, Tensor]:  # (k, terms) of the geometry's components, (k, 3, H, H) of the looks'
    count, width = encoder.settings.components, generator.config.width
    moved: list[Tensor] = []
    shaded: list[Tensor] = []
    for part in range(0, count, AT_ONCE):
        chosen = slice(part, min(part + AT_ONCE, count))
        seen_from = pose.expand(chosen.stop - chosen.start, 2)
        step = STEP * encoder.geometry_basis[chosen]
        look = STEP * encoder.appearance_basis[:, chosen].transpose(0, 1)
        way = Codes(film_of(step, width), film_of(torch.zeros_like(look), width))
        moved.append(_terms(render(generator, codes + way, seen_from, SIZE), here))
        way = Codes(film_of(torch.zeros_like(step), width), film_of(look, width))
        there = render(generator, codes + way, seen_from, SIZE)
        shaded.append((there.image - here.image) / here.image.numel() ** 0.5)
    return torch.cat(moved) / STEP, torch.cat(shaded) / STEP


def _terms(there: RenderOutput, here: RenderOutput) -> Tensor:
    """(k, terms) whose squares add up to the terms of Eq. 9 and of depth."""
    semantics = (there.semantics - here.semantics).flatten(1)
    image = (there.image - here.image).flatten(1)
    depth = (there.depth - here.depth).flatten(1)
    return torch.cat(
        [
            SEMANTIC**0.5 * 2 * semantics / here.semantics.numel() ** 0.5,
            IMAGE**0.5 * image / here.image.numel() ** 0.5,
            DEPTH**0.5 * depth / DEPTH_UNIT / here.depth.numel() ** 0.5,
        ],
        1,
    )
