"""Directions in the space of the codes that each change one thing that can be measured.

No labels are needed: faces are sampled and measured (`attributes`), and a ridge regression on the
principal components of their FiLM codes says how each attribute depends on them. A direction is the
shortest change that moves one attribute by a standard deviation and, as far as the regression
knows, none of the others; then faces are moved and measured, and the directions are mixed so that
what they really do comes nearest to that. R^2 and leakage are those of faces drawn afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.codes import Codes
from ..model.generator import Generator, sample_latents
from ..model.renderer import RenderOutput, find_intersections, recolor, render
from .attributes import COLOURS, SHAPES, Places, colour_names, colours, find_places, shapes
from .encoder import film_of, flat_film
from .sliders import Directions, Slider, add_way

RESOLUTION = 32  # pixels along an edge of what is measured
BATCH = 16
COMPONENTS = 128  # principal components of codes, at most
PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)  # of the ridge, as shares of the samples
RARE = 5e-4  # of the picture: a class with less of it on average is one the generator lacks
RARE_CLASSES = ("glasses", "hat", "neck", "mouth opening", "eye size")
MOST_LEAKS = 1000.0  # shares; also where the own attribute does not move
CULL = 0.01  # compositing weight below which a point is not coloured


@dataclass(frozen=True)
class FindSettings:
    """How much is drawn: samples of the regression, faces moved, faces that are measured afresh."""

    samples: int = 2000
    moved: int = 96
    fresh: int = 400
    judged: int = 96
    rounds: int = 1  # of mixing
    seed: int = 0


Progress = Callable[[str], None]


@torch.no_grad()
def find_directions(
    generator: Generator, settings: FindSettings | None = None, *, say: Progress = lambda _: None
) -> Directions:
    """The sliders of a generator, those that pass and the figures of those that do not."""
    settings = settings or FindSettings()
    work, groups = _Work(generator, settings), generator.config.groups
    say(f"measuring {settings.samples} samples")
    codes = work.draw(settings.samples)
    measured = work.measure(codes)
    work.places = find_places(measured.mean)
    known = _table(work, measured)
    say(f"measuring {settings.fresh} fresh samples")
    test_codes = work.draw(settings.fresh)
    test = _table(work, work.measure(test_codes))
    names = [*SHAPES, *colour_names(generator.config.group_names)]
    scale, shown = _statistics(known)
    known, test = _scores(known, known), _scores(test, known)
    found, ways = [], []
    for part in range(-1, groups):  # -1: the geometry
        first = 0 if part < 0 else len(SHAPES) + len(COLOURS) * part
        columns = [i for i in range(first, first + (len(SHAPES) if part < 0 else len(COLOURS)))
                   if shown[i]]  # fmt: skip
        if not columns:
            continue
        say(f"directions of {'the shape' if part < 0 else generator.config.group_names[part]}")
        flat, flat_test = (_flat(c, part) for c in (codes, test_codes))
        middle = flat.mean(0)
        basis = _basis(flat - middle)
        weights, r2 = _regress(
            (flat - middle) @ basis, known[:, columns], (flat_test - middle) @ basis,
            test[:, columns],
        )  # fmt: skip
        mixed = torch.linalg.pinv(weights).T  # (m, k)
        back = torch.linalg.pinv(basis)  # (k, F)
        moved = work.draw(settings.moved)
        for _ in range(settings.rounds):
            answers, _ = work.answers(moved, part, mixed @ back, scale)
            mixed = torch.linalg.pinv(answers[:, columns]) @ mixed
        answers, follows = work.answers(work.draw(settings.judged), part, mixed @ back, scale)
        for row, column in enumerate(columns):
            others = [i for i in range(len(names)) if shown[i] and i != column]
            leaks = (answers[row, others] / answers[row, column]).abs()
            leaks = leaks.nan_to_num(MOST_LEAKS, MOST_LEAKS).clamp(max=MOST_LEAKS)
            worst = int(leaks.argmax())
            found.append(
                Slider(
                    name=names[column],
                    part=part,
                    r2=float(r2[row]),
                    leakage=float(leaks[worst]),
                    leaks_into=names[others[worst]],
                    moves=float(answers[row, column]),
                    follows=float(follows[row, column]),
                    length=float(mixed[row].norm()),
                )
            )
            ways.append((mixed[row] @ back).float())
    return Directions.of(generator, found, ways)


@dataclass(frozen=True)
class _Measured:
    semantics: Tensor  # (M, 19, s, s) half
    colours: Tensor  # (M, 3 n)

    @property
    def mean(self) -> Tensor:
        return self.semantics.float().mean(0)


class _Work:
    """Draws, moves and measures frontal faces."""

    def __init__(self, generator: Generator, settings: FindSettings):
        self.generator = generator
        self.random = torch.Generator().manual_seed(settings.seed)
        self.device = generator.device
        self.size = min(RESOLUTION, 2 * generator.config.resolution)
        self.pose = torch.zeros(BATCH, 2, device=self.device)
        self.intersections = find_intersections(generator, self.pose, self.size)
        self.places: Places | None = None

    def draw(self, count: int) -> Codes:
        z, looks = sample_latents(self.generator.config, count, generator=self.random)
        return self.generator.map(z.to(self.device), looks.to(self.device))

    def answers(
        self, codes: Codes, part: int, ways: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(m, attributes): mean change by each way, in deviations, of faces moved one step; and
        the share of faces where it is an increase."""
        width, count = self.generator.config.width, len(codes.geometry.phases)
        sums = torch.zeros(len(ways), len(scale), dtype=torch.float64)
        seen, up = torch.zeros_like(sums), torch.zeros_like(sums)
        for first in range(0, count, BATCH):
            chosen = [min(first + i, count - 1) for i in range(BATCH)]
            some = Codes(codes.geometry[chosen], codes.appearance[chosen])
            drawn = self._render(some, keep=True) if part >= 0 else None
            for row, way in enumerate(ways):
                ends = []
                for sign in (1, -1):
                    moved = add_way(some, part, film_of(sign * way.float(), width))
                    output = (
                        self._render(moved)
                        if drawn is None
                        else recolor(self.generator, drawn, moved.appearance)
                    )
                    ends.append(_table(self, self._read(output)))
                change = (ends[0] - ends[1]) / 2 / scale
                seen[row] += change.isfinite().sum(0)
                sums[row] += change.nan_to_num().sum(0)
                up[row] += (change > 0).sum(0)
        return sums / seen.clamp(min=1), up / seen.clamp(min=1)

    def measure(self, codes: Codes) -> _Measured:
        count = len(codes.geometry.phases)
        parts = []
        for first in range(0, count, BATCH):
            chosen = [min(first + i, count - 1) for i in range(BATCH)]
            parts.append(
                self._read(self._render(Codes(codes.geometry[chosen], codes.appearance[chosen])))
            )
        return _Measured(
            torch.cat([part.semantics for part in parts])[:count],
            torch.cat([part.colours for part in parts])[:count],
        )

    def _render(self, codes: Codes, *, keep: bool = False) -> RenderOutput:
        return render(
            self.generator, codes, self.pose, self.size, intersections=self.intersections,
            cull=CULL, keep_shading=keep,
        )  # fmt: skip

    def _read(self, output: RenderOutput) -> _Measured:
        grouping = self.generator.config.group_of_class
        seen = colours(output.image, output.semantics, grouping)
        return _Measured(output.semantics.half().cpu(), seen.cpu())


def _table(work: _Work, measured: _Measured) -> Tensor:
    """(M, attributes) float64; NaN where a face does not show what is measured."""
    assert work.places is not None
    return torch.cat([shapes(measured.semantics, work.places), measured.colours], 1).double()


def _statistics(table: Tensor) -> tuple[Tensor, list[bool]]:
    """The deviation of each attribute, and whether faces show it at all."""
    centre = table.nanmean(0)
    scale = (table - centre).square().nanmean(0).sqrt()
    often = table.isfinite().double().mean(0) > 0.5
    for name in RARE_CLASSES:
        often[SHAPES.index(name)] = centre[SHAPES.index(name)] > RARE
    shown = often & (scale > 1e-6)
    return torch.where(shown, scale, 1.0), shown.tolist()


def _scores(table: Tensor, known: Tensor) -> Tensor:
    """Normal scores: where each value stands among those of `known`, as a quantile of N(0, 1), so
    that what most faces lack, such as a hat, depends on codes as linearly as it can."""
    scores = torch.full_like(table, torch.nan)
    for column in range(table.shape[1]):
        here, among = table[:, column].isfinite(), known[:, column]
        among = among[among.isfinite()].sort().values
        if not len(among):
            continue
        low, high = (torch.searchsorted(among, table[here, column].contiguous(), right=right)
                     for right in (False, True))  # fmt: skip
        share = ((low + high) / 2).clamp(0.5, len(among) - 0.5) / len(among)
        scores[here, column] = torch.special.ndtri(share.double())
    return scores


def _flat(codes: Codes, part: int) -> Tensor:
    film = codes.geometry if part < 0 else codes.appearance[:, part]
    return flat_film(film).double().cpu()


def _basis(offsets: Tensor) -> Tensor:
    """(M, F) offsets from their mean -> (F, k): codes times it are whitened components."""
    _, values, vectors = torch.linalg.svd(offsets, full_matrices=False)
    count = min(COMPONENTS, int((values > 1e-4 * values[0]).sum()))
    return vectors[:count].T * (len(offsets) ** 0.5 / values[:count])


def _regress(inputs: Tensor, wanted: Tensor, fresh: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(M, k), (M, m) -> weights (m, k) and R^2 (m,) on fresh samples; each attribute's penalty is
    the best of `PENALTIES` on a fifth of the samples kept out."""
    weights, scores = [], []
    for column in range(wanted.shape[1]):
        here, there = wanted[:, column].isfinite(), truth[:, column].isfinite()
        x, y = inputs[here], wanted[here, column]
        cut = max(1, 4 * len(x) // 5)
        tried = [_r2(x[cut:] @ _ridge(x[:cut], y[:cut], p), y[cut:]) for p in PENALTIES]
        best = _ridge(x, y, PENALTIES[int(torch.stack(tried).argmax())])
        weights.append(best)
        scores.append(_r2(fresh[there] @ best, truth[there, column]))
    return torch.stack(weights), torch.stack(scores)


def _ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1]).to(x)
    return torch.linalg.solve(gram, x.T @ (y - y.mean()))


def _r2(predicted: Tensor, truth: Tensor) -> Tensor:
    centred = truth - truth.mean()
    error = truth - predicted
    return 1 - (error - error.mean()).square().sum() / centred.square().sum().clamp(min=1e-12)
