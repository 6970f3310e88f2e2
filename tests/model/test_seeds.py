"""A seed means one start: the same weights for any number of threads and on any CPU.

Those of the manifolds to the last bit. The others are drawn in float32 by code that PyTorch chooses
by the instruction set, so that they agree to rounding: to 4e-7 of each tensor's norm.
"""

import pytest
from initial_weights import bits, modules, projection
from support import use_threads

from semfaceedit.model import config

START: dict[str, dict[str, float]] = {  # of seed 0, by module: see `projection`
    "paper": {
        "manifolds": -1.1152648,
        "geometry": -0.1061199,
        "appearance": 0.3596597,
        "d_image": -0.1080020,
        "d_semantic": -0.8429837,
    },
    "small": {
        "manifolds": -0.6337181,
        "geometry": 0.4140620,
        "appearance": -1.6853699,
        "d_image": 0.3487087,
        "d_semantic": -1.1486701,
    },
    "medium": {
        "manifolds": -0.6337181,
        "geometry": -0.1906843,
        "appearance": 0.4084824,
        "d_image": -0.4284042,
        "d_semantic": -0.2045046,
    },
    "tiny": {
        "manifolds": -0.0484338,
        "geometry": 1.0578709,
        "appearance": 0.1426996,
        "d_image": -1.8890314,
        "d_semantic": 0.6065473,
    },
    "paper-unshared": {
        "manifolds": -1.1152648,
        "geometry": -0.1061199,
        "appearance": 0.3279187,
    },
    "paper-shared": {
        "manifolds": -1.1152648,
        "geometry": -0.1061199,
        "appearance": 0.3346161,
    },
    "paper-depth4": {
        "manifolds": -1.1152648,
        "geometry": 0.0419474,
        "appearance": 0.6140414,
    },
    "paper-depth6": {
        "manifolds": -1.1152648,
        "geometry": 0.3419874,
        "appearance": 0.1645616,
    },
}
MANIFOLDS = {
    "paper": "979dafe5cd956b9a",
    "medium": "4201247d55e3c658",
    "small": "4201247d55e3c658",
    "tiny": "d356be9ce24ae9c5",
}


@pytest.mark.parametrize("preset", config.PRESETS)
def test_seed_0_starts_with_these_weights(preset: str) -> None:
    with use_threads(1):
        found = modules(preset, 0)
    assert bits(found["manifolds"]) == MANIFOLDS[preset.split("-")[0]]
    assert {name: projection(module) for name, module in found.items()} == pytest.approx(
        START[preset], rel=0, abs=1e-6
    )


@pytest.mark.parametrize("preset", ["paper", "small", "tiny"])
def test_same_bits_for_1_2_and_4_threads(preset: str) -> None:
    found = []
    for threads in (1, 2, 4):
        with use_threads(threads):
            found.append({name: bits(module) for name, module in modules(preset, 5).items()})
    assert found[0] == found[1] == found[2]
