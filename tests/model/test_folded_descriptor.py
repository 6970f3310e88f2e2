"""W_1 of the Appearance Module in the heads of the descriptor: the colours of two products."""

from typing import Any

import pytest
import torch
from comparison import assert_matches, values_and_gradients
from generators import draw, tiny_generator
from support import needs_native
from torch import Tensor, nn
from torch.func import functional_call

from semfaceedit.kernels import Intersections, available_precisions, use_backend
from semfaceedit.model.appearance import AppearanceModule
from semfaceedit.model.codes import Codes, Film
from semfaceedit.model.renderer import find_intersections, recolor, render

pytestmark = pytest.mark.usefixtures("one_thread")

RAYS, IMAGES = 41, 2

MODELS: dict[str, dict[str, Any]] = {
    "proposed": {},
    "all": {"sharing": "all"},
    "odd width": {"width": 37, "geometry_depth": 4, "appearance_depth": 3},
    "two layers": {"geometry_depth": 2, "appearance_depth": 2},
    "two groups": {"group_of_class": (1, *[0] * 18), "descriptor_gain": 1.0},
}


class Colors(nn.Module):
    """Both modules on given points, whose groups do not depend on rounding."""

    def __init__(self, **changes: Any):
        super().__init__()
        generator = tiny_generator(**changes)
        self.geometry, self.appearance = generator.geometry, generator.appearance
        self.groups = generator.config.groups

    def forward(
        self, points: Tensor, directions: Tensor, *films: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        codes = Codes(Film(*films[:2]), Film(*films[2:]))
        level = torch.arange(2).expand(len(points), 2)
        valid = torch.ones_like(level, dtype=torch.bool)
        valid[::3, 0] = False
        hits = Intersections(points, points[..., 0], valid, level, level[:, 1])
        through = self.appearance.first_weight
        geometry = self.geometry(hits, directions, codes.geometry, through=through)
        rays = geometry.hit_index // 2
        group = geometry.hit_index % (self.groups + 1) % self.groups
        color = self.appearance(
            geometry.descriptor, directions[rays], rays // RAYS, group, codes.appearance,
            multiplied=geometry.multiplied,
        )  # fmt: skip
        return geometry.alpha, geometry.semantics, color


def problem(module: Colors, **changes: Any) -> dict[str, Tensor]:
    """Numbers that float32 holds: points, directions, FiLM vectors of latents, all weights."""
    generator = tiny_generator(**changes)
    codes = generator.map(*draw(generator, IMAGES)[:2])
    random = torch.Generator().manual_seed(2)
    points = 0.3 * torch.randn(RAYS * IMAGES, 2, 3, generator=random)
    directions = torch.randn(RAYS * IMAGES, 3, generator=random)
    tensors = {
        "points": points,
        "directions": nn.functional.normalize(directions, dim=1),
        "geometry frequencies": codes.geometry.frequencies,
        "geometry phases": codes.geometry.phases,
        "appearance frequencies": codes.appearance.frequencies,
        "appearance phases": codes.appearance.phases,
        **{name: p for name, p in module.named_parameters() if "mapping" not in name},
    }
    return {name: tensor.float() for name, tensor in tensors.items()}


def evaluate(
    changes: dict[str, Any], dtype: torch.dtype, backend: str, precision: str = "fp32"
) -> dict[str, Tensor]:
    module = Colors(**changes)
    inputs = problem(module, **changes)
    module.to(dtype)

    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        own = {name for name, _ in module.named_parameters()}
        parameters = {name: t for name, t in inputs.items() if name in own}
        rest = tuple(t for name, t in inputs.items() if name not in own)
        with use_backend(backend, precision):
            alpha, semantics, color = functional_call(module, parameters, rest)
        return {"alpha": alpha, "semantics": semantics, "color": color}

    return values_and_gradients(function, inputs, dtype)


PATHS = [
    "reference",
    *(pytest.param(f"cpu {p}", marks=needs_native) for p in ("fp32", "accurate", "fast")),
]


@pytest.mark.gradients
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", MODELS)
def test_folded_is_as_exact_as_two_products(name, path, monkeypatch) -> None:
    """Every output and gradient, by name, against two products in float64."""
    backend, precision = (*path.split(), "fp32")[:2]
    if backend == "cpu" and available_precisions("cpu")["film_siren"].get(precision):
        pytest.skip(f"this CPU has no {precision}")
    changes = MODELS[name]
    folded = evaluate(changes, torch.float32, backend, precision)
    exactly = evaluate(changes, torch.float64, "reference")
    monkeypatch.setattr(AppearanceModule, "first_weight", None)
    apart = evaluate(changes, torch.float32, backend, precision)
    exact = evaluate(changes, torch.float64, "reference")
    assert_matches(folded, exact, apart)
    for key, value in exact.items():
        torch.testing.assert_close(exactly[key], value, rtol=1e-9, atol=1e-9, msg=key)
    assert (folded["color"] != apart["color"]).any(), "the two ways are one"


@pytest.mark.parametrize("trained", ["both", "geometry", "appearance", "none"])
@pytest.mark.parametrize("sharing", ["proposed", "all", "none"])
def test_no_gradient_goes_through_a_frozen_stack(sharing: str, trained: str) -> None:
    """As in stage 2: there W_1 alone has a gradient, and nothing is folded."""
    generator = tiny_generator(sharing=sharing)
    generator.geometry.requires_grad_(trained in ("both", "geometry"))
    generator.appearance.requires_grad_(trained in ("both", "appearance"))
    codes = Codes(*(Film(f.frequencies.detach(), f.phases.detach())
                    for f in vars(generator.map(*draw(generator, 1)[:2])).values()))  # fmt: skip
    hits = find_intersections(generator, torch.zeros(1, 2).double(), 4)
    directions = torch.zeros(16, 3).double()
    through = generator.appearance.first_weight
    with torch.enable_grad():
        found = generator.geometry(hits, directions, codes.geometry, through=through)
    assert found.multiplied == (sharing != "none" and trained != "appearance")
    assert found.semantics.requires_grad == (trained in ("both", "geometry"))
    with torch.no_grad():
        found = generator.geometry(hits, directions, codes.geometry, through=through)
    assert found.multiplied == (sharing != "none")


@pytest.mark.parametrize("stage", [1, 2])
def test_recoloured_is_rendered(stage: int) -> None:
    """Colours of a picture that was rendered with gradients, folded or not."""
    generator = tiny_generator()
    generator.geometry.requires_grad_(stage == 1)
    codes, other = (generator.map(*draw(generator, 1, seed)[:2]) for seed in (1, 2))
    pose = torch.zeros(1, 2).double()
    before = render(generator, codes, pose, 8, keep_shading=True)
    after = recolor(generator, before, other.appearance)
    assert before.shading is not None and before.shading.parts[0].multiplied == (stage == 1)
    whole = render(generator, Codes(codes.geometry, other.appearance), pose, 8)
    torch.testing.assert_close(after.image, whole.image.detach())
    assert not torch.allclose(after.image, before.image)
