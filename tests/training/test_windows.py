"""Training on windows of pictures, and from narrower weights."""

import dataclasses

import pytest
import torch
from training import drawn_faces, tiny

from semfaceedit.model.config import Phase
from semfaceedit.training.trainer import Trainer

PHASE = Phase(until=1.0, resolution=16, batch=4, window=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return drawn_faces(tmp_path_factory.mktemp("data") / "drawn")


def trainer(window_share: float, **changes) -> Trainer:
    settings = tiny(
        one_phase=False, phases=(PHASE,), window_share=window_share, r1_interval=1, **changes
    )
    return Trainer(settings, seed=1, device=torch.device("cpu"), dtype=torch.float64)


def test_windows_of_photographs_and_faces_are_of_the_same_places(data):
    windowed = trainer(1.0)
    (micro,) = windowed._micro_batches(0, PHASE, data)
    (whole,) = trainer(0.0)._micro_batches(0, dataclasses.replace(PHASE, window=16), data)
    assert micro.windows is not None and whole.windows is None and micro.resolution == 16
    for name in ("real_image", "real_map"):
        assert torch.equal(
            getattr(micro, name), micro.windows.cut_pictures(getattr(whole, name))
        ), name
    face = windowed._generate(micro, grad=False).image
    picture = windowed._generate(dataclasses.replace(micro, windows=None), grad=False).image
    torch.testing.assert_close(face, micro.windows.cut_pictures(picture))


def test_whole_pictures_take_turns_at_the_size_of_windows(data):
    mixed = trainer(0.5)
    seen = set()
    for step in range(12):
        (micro,) = mixed._micro_batches(step, PHASE, data)
        assert micro.real_image.shape[-1] == 8
        seen.add((micro.windows is None, micro.resolution))
    assert seen == {(True, 8), (False, 16)}


@pytest.mark.parametrize("window_share", [0.0, 1.0])
def test_pose_and_geometry_code_are_regressed_from_whole_pictures_alone(data, window_share):
    run = trainer(window_share)
    log = run.step(data)
    assert all(torch.as_tensor(value).isfinite().all() for value in log.values())
    for network in (run.d_image, run.d_semantic):
        gradient = network.last.weight.grad
        assert gradient[0].any()
        assert bool(gradient[1:].any()) is (window_share == 0)


def test_a_run_that_starts_narrower_goes_on_as_that_one(data):
    narrow = trainer(0.0)
    for _ in range(2):
        narrow.step(data)
    settings = narrow.config
    wide = Trainer(
        dataclasses.replace(settings, model=dataclasses.replace(settings.model, width=32)),
        seed=7,
        device=torch.device("cpu"),
        dtype=torch.float64,
    )
    wide.start_from(narrow.generator, (narrow.d_image, narrow.d_semantic))
    (micro,) = narrow._micro_batches(2, PHASE, data)
    expected = narrow._generate(micro, grad=False).image
    torch.testing.assert_close(wide._generate(micro, grad=False).image, expected)
    for average in wide.averages:
        assert torch.equal(
            average.geometry.stack.hidden_weight, wide.generator.geometry.stack.hidden_weight
        )
