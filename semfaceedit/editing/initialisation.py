"""Where a change of the label map may start: at faces moved towards samples that show what it asks.

A class that a face does not show at all has next to no gradient, so that descent from the face
itself may never find it: a painted hat stays hair. Samples that have the wanted labels in the
changed region tell a direction in the space of the codes (as InterFaceGAN, Shen et al. 2020, finds
them for attributes); a step along it makes the class appear, and descent does the rest.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from ..model.codes import Codes, Film
from ..model.generator import Generator, sample_latents
from ..model.mean_face import mean_codes
from ..model.renderer import find_intersections, render

SEED = 0  # of the latents
LEADERS = (2, 8)  # how many samples nearest to the goal; each mean gives a direction
RESOLUTION = 32  # pixels along an edge at which maps are compared, at most
BATCH = 8
STEPS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # lengths tried, in distances of such a mean
GAINS = (0.5, 1.0, 1.5, 2.0)  # of an encoder's answer, that are tried
OUTSIDE = (1.0, 0.25)  # what errors outside the region count; each gives a start


@torch.no_grad()
def best_along(
    generator: Generator,
    offsets: Codes,  # batch 1
    way: Film,  # (1, L + 1, W) of geometry offsets
    pose: Tensor,  # (1, 2)
    semantics: Tensor,  # (1, N, r, r) class shares asked for
) -> Codes:
    """`offsets`, or those some way along `way` whose label map differs least from what is asked."""
    size = min(RESOLUTION, semantics.shape[-1])
    goal = adaptive_avg_pool2d(semantics, size)
    own = offsets.geometry
    ahead = own + way
    tried = own.cat(*(own.lerp(ahead, gain) for gain in GAINS))
    count = len(tried.phases)
    mean = mean_codes(generator)
    codes = Codes(tried + mean.geometry, mean.appearance[[0] * count])
    output = render(generator, codes, pose.expand(count, 2), size, shade=False)
    errors = (output.semantics - goal).square().sum((1, 2, 3))
    return Codes(tried[[int(errors.argmin())]], offsets.appearance)


@torch.no_grad()
def other_starts(
    generator: Generator,
    offsets: Codes,  # batch 1
    pose: Tensor,  # (1, 2)
    semantics: Tensor,  # (1, N, r, r) class shares asked for
    region: Tensor,  # (1, 1, r, r) bool: what is to change
    *,
    samples: int,
) -> list[Codes]:
    """Offsets nearer to the goal than `offsets` in their label map; none where none is found.

    Of `samples` drawn faces, the leaders are those whose maps differ least from the goal inside the
    region. Geometry offsets step from `offsets` along the ways from the mean face to the mean of
    the first leaders; the best step is kept for each weight of the errors outside the region.
    Appearance offsets stay. The same arguments give the same starts.
    """
    size = min(RESOLUTION, semantics.shape[-1])
    goal = adaptive_avg_pool2d(semantics, size)
    inside = adaptive_max_pool2d(region.to(goal), size)
    intersections = find_intersections(generator, pose.expand(BATCH, 2), size)
    mean = mean_codes(generator)

    def errors(geometry: Film) -> tuple[Tensor, Tensor]:
        """(M, ...) codes -> squared errors (M,) inside the region, and outside."""
        within, without = [], []
        count = len(geometry.phases)
        for first in range(0, count, BATCH):
            chosen = [min(first + i, count - 1) for i in range(BATCH)]
            codes = Codes(geometry[chosen], mean.appearance[[0] * BATCH])
            output = render(
                generator,
                codes,
                pose.expand(BATCH, 2),
                size,
                intersections=intersections,
                shade=False,
            )
            error = (output.semantics - goal).square()
            within.append((error * inside).sum((1, 2, 3)))
            without.append((error * (1 - inside)).sum((1, 2, 3)))
        return torch.cat(within)[:count], torch.cat(without)[:count]

    z, appearance = sample_latents(
        generator.config, samples, generator=torch.Generator().manual_seed(SEED)
    )
    drawn = generator.map(z.to(goal.device), appearance.to(goal.device)).geometry
    order = errors(drawn)[0].argsort()
    tried = own = mean.geometry + offsets.geometry
    for count in LEADERS:
        way = drawn[order[:count]] - mean.geometry
        ahead = own + Film(way.frequencies.mean(0, True), way.phases.mean(0, True))
        tried = tried.cat(*(own.lerp(ahead, step) for step in STEPS))
    within, without = errors(tried)
    best = {int((within + share * without).argmin()) for share in OUTSIDE} - {0}
    return [Codes(tried[[i]] - mean.geometry, offsets.appearance) for i in sorted(best)]
