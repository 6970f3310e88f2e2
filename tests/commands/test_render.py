"""Grids, moving pictures, interpolation and normals of the render command."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from semfaceedit import api, render
from semfaceedit.api import load
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.tuning import TunedWeights, read_weights
from semfaceedit.editing.views import RenderedFace, between
from semfaceedit.kernels._backend import resolve
from semfaceedit.model import checkpoint, config
from semfaceedit.model.camera import CameraConfig
from semfaceedit.model.codes import interpolate
from semfaceedit.model.generator import Generator, seed_codes
from semfaceedit.model.labels import PALETTE
from semfaceedit.model.rays import pixel_directions
from semfaceedit.model.renderer import RenderOutput
from semfaceedit.pictures.grids import normals


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(config.tiny().model)


@pytest.fixture(scope="module")
def weights(generator, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoint.save_generator(path, generator, config.tiny(), images=0, ema_decay=None)
    return path


def run(weights, out, *arguments: str) -> int:
    return render.main(["--checkpoint", str(weights), "--out", str(out), "--resolution", "8",
                        "--seeds", "0-1", *arguments])  # fmt: skip


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_turntable_plays_the_faces_side_by_side(weights, tmp_path, suffix):
    assert run(weights, tmp_path, "--video", f"turn.{suffix}", "--frames", "6",
               "--kinds", "image", "semantics") == 0  # fmt: skip
    for name in (f"turn.{suffix}", f"turn-semantics.{suffix}"):
        with Image.open(tmp_path / name) as animation:
            assert animation.size == (16, 8)
    with Image.open(tmp_path / f"turn.{suffix}") as animation:
        assert animation.n_frames >= 2


def test_a_strip_of_interpolated_hair(weights, tmp_path):
    assert run(weights, tmp_path, "--interpolate", "hair", "--frames", "5", "--kinds", "image") == 0
    assert Image.open(tmp_path / "image.png").size == (5 * 8, 8)


def test_raw_labels_are_palette_pictures(weights, tmp_path):
    assert run(weights, tmp_path, "--kinds", "labels", "semantics", "--yaws", "0") == 0
    first = Image.open(tmp_path / "labels-0000.png")
    assert first.mode == "P"
    colors = np.asarray(Image.open(tmp_path / "semantics.png"))[:8]
    np.testing.assert_array_equal(PALETTE[np.asarray(first)], colors)


@pytest.mark.parametrize("which", ["all", "z", "hair", "face", "garment", "background"])
def test_only_the_named_codes_move(generator, which):
    names = generator.config.group_names
    a, b = seed_codes(generator, 0), seed_codes(generator, 1)
    half = interpolate(a, b, 0.5, which, names)
    moved = not torch.equal(half.geometry.phases, a.geometry.phases)
    assert moved == (which in ("all", "z"))
    for group, name in enumerate(names):
        now, start, end = (c.appearance.phases[:, group] for c in (half, a, b))
        wanted = (start + end) / 2 if which in ("all", name) else start
        torch.testing.assert_close(now, wanted)
    end = interpolate(a, b, 1.0, "all", names)
    torch.testing.assert_close(end.appearance.frequencies, b.appearance.frequencies)


def test_normals_of_a_tilted_plane():
    camera = CameraConfig()
    directions = pixel_directions(16, camera)
    normal = torch.tensor([math.sin(0.4), 0.0, math.cos(0.4)], dtype=torch.float64)
    depth = -1.0 * normal[2] / (directions @ normal)  # the plane through (0, 0, -1)
    maps = torch.zeros(1, 19, 16, 16)
    output = RenderOutput(maps[:, :3], maps, depth[None, None], torch.zeros(1, 2))
    found = normals(output, camera)[0, 1:-1, 1:-1]
    torch.testing.assert_close(found, normal.expand_as(found), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--video", "turn.avi"], "ends in .mp4, .gif, .webp"),
        (["--kinds", "smell"], "--kinds smell"),
        (["--interpolate", "nose"], "use all, z, hair, face, garment, background"),
        (["--interpolate", "all", "--seeds", "3"], "at least two --seeds"),
        (["--frames", "0"], "--frames 0: use 1 to 100000"),
        (["--truncation", "1.5"], "--truncation 1.5"),
        (["--truncation", "0.5", "--save-projects"], "leave --truncation out"),
        (["--cull", "1"], "--cull 1: must be at least 0 and less than 1"),
        (["--chunk-rays", "0"], "--chunk-rays 0"),
        (["--yaws", "nan"], "--yaws nan: must be finite"),
        (["--kinds"], "need at least one value each"),
        (["--video", "turn.gif", "--pitches", "0", "0.2"], "give a single value to --pitches"),
        (["--video", "turn.gif", "--fps", "60"], "at most 50 frames per second, not 60"),
        (["--interpolate", "all", "--pitches", "0", "0.2"], "give a single value to --pitches"),
        (["--interpolate", "all", "--yaws", "0", "0.2"], "give a single value to --yaws"),
        (["--projects", "nowhere.safetensors"], "no face project at nowhere.safetensors"),
    ],
)
def test_bad_input_is_one_line(weights, tmp_path, capsys, arguments, said):
    assert run(weights, tmp_path / "out", *arguments) == 1
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_one_line(weights, tmp_path, capsys):
    assert run(weights, weights) == 1
    text = capsys.readouterr().err
    assert f"{weights} is or lies in a file" in text and text.count("\n") == 1


def test_mp4_asks_for_its_extra_or_is_written(weights, tmp_path, capsys):
    code = run(weights, tmp_path, "--video", "turn.mp4", "--frames", "4", "--resolution", "16")
    if code:
        assert "pip install 'semfaceedit[media]'" in capsys.readouterr().err
    else:
        assert (tmp_path / "turn.mp4").stat().st_size > 0


@pytest.fixture(scope="module")
def projects(generator, weights, tmp_path_factory):
    """Two faces of the checkpoint: one of a seed, one with other weights."""
    folder, editor = tmp_path_factory.mktemp("projects"), load(weights)
    one, two = (editor.generate(seed).project for seed in (0, 5))
    own = read_weights(editor.generator).tensors
    changed = TunedWeights({n: t * 1.5 if "head" in n else t for n, t in own.items()})
    two = dataclasses.replace(two, tuned=changed)
    for name, project in (("a", one), ("b", two)):
        project.save(folder / f"{name}.safetensors")
    return [str(folder / "a.safetensors"), str(folder / "b.safetensors")]


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_a_project_of_a_seed_looks_like_the_seed(weights, projects, tmp_path):
    arguments = ["--checkpoint", str(weights), "--resolution", "8", "--pitches", "0", "0.2"]
    assert render.main([*arguments, "--out", str(tmp_path / "a"), "--projects", projects[0]]) == 0
    assert render.main([*arguments, "--out", str(tmp_path / "b"), "--seeds", "0"]) == 0
    for kind in render.RenderOptions.kinds:
        one, two = (pixels(tmp_path / name / f"{kind}.png") for name in "ab")
        assert one.shape == (8, 6 * 8, 3) and np.abs(one - two).max() <= 1, kind


def test_tuned_weights_are_used(weights, projects, tmp_path):
    arguments = ["--checkpoint", str(weights), "--resolution", "8", "--kinds", "image"]
    assert render.main([*arguments, "--out", str(tmp_path), "--projects", *projects,
                        "--seeds", "5"]) == 0  # fmt: skip
    tuned, plain = np.split(pixels(tmp_path / "image.png")[8:], 2)
    assert np.abs(tuned - plain).max() > 3


@pytest.mark.parametrize("which", ["all", "hair"])
def test_between_two_projects(generator, weights, projects, which):
    loaded = load(weights).generator
    found = [FaceProject.load(path, loaded) for path in projects]
    start, end = (RenderedFace(project.codes(loaded), project.tuned) for project in found)
    half, whole = (between(loaded, start, end, share, which) for share in (0.5, 1.0))
    if which == "hair":
        assert half.tuned is None and whole.tuned is None
        return
    for name, tensor in whole.tuned.tensors.items():
        torch.testing.assert_close(tensor, end.tuned.tensors[name])
    assert half.tuned.fingerprint not in (None, end.tuned.fingerprint)


def test_projects_make_moving_pictures_and_strips(weights, projects, tmp_path):
    arguments = ["--checkpoint", str(weights), "--resolution", "8", "--projects", *projects,
                 "--out", str(tmp_path), "--kinds", "image", "normals", "labels"]  # fmt: skip
    assert render.main([*arguments, "--interpolate", "all", "--frames", "4"]) == 0
    assert pixels(tmp_path / "image.png").shape == (8, 4 * 8, 3)
    assert len(list(tmp_path.glob("labels-*.png"))) == 4
    assert render.main([*arguments, "--video", "turn.gif", "--frames", "4"]) == 0
    assert Image.open(tmp_path / "turn-normals.gif").size == (16, 8)


def test_truncation_0_is_the_mean_face_for_all(weights, projects, tmp_path):
    arguments = ["--checkpoint", str(weights), "--resolution", "8", "--truncation", "0"]
    assert render.main([*arguments, "--out", str(tmp_path), "--projects", projects[0],
                        "--seeds", "3"]) == 0  # fmt: skip
    one, two = np.split(pixels(tmp_path / "image.png"), 2)
    assert np.array_equal(one, two)


def test_a_project_of_another_checkpoint_is_one_line(projects, tmp_path, capsys):
    torch.manual_seed(9)
    other = tmp_path / "other.safetensors"
    checkpoint.save_generator(
        other, Generator(config.tiny().model), config.tiny(), images=0, ema_decay=None
    )
    assert render.main(["--checkpoint", str(other), "--projects", projects[0],
                        "--out", str(tmp_path / "out")]) == 1  # fmt: skip
    text = capsys.readouterr().err
    assert "made with another checkpoint" in text and text.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_seeds_are_saved_as_projects_to_go_on_with(weights, tmp_path):
    assert run(weights, tmp_path, "--save-projects", "--yaws", "0") == 0
    paths = [tmp_path / f"face-{seed}.safetensors" for seed in (0, 1)]
    again = ["--checkpoint", str(weights), "--out", str(tmp_path / "again"), "--resolution", "8"]
    assert render.main([*again, "--yaws", "0", "--projects", *map(str, paths)]) == 0
    pictures = [np.asarray(Image.open(folder / "image.png"), np.int16)
                for folder in (tmp_path, tmp_path / "again")]  # fmt: skip
    assert np.abs(pictures[0] - pictures[1]).max() <= 1  # offsets are added to the mean again
    assert (tmp_path / "face-0.labels.png").exists()


def test_saved_projects_are_made_as_the_pictures_are(weights, tmp_path, monkeypatch):
    made = []

    def generate(*arguments, **settings):
        made.append(resolve("film_siren", None, None, torch.zeros(1)).backend)
        return api.generate(*arguments, **settings)

    monkeypatch.setattr(render, "generate", generate)
    assert run(weights, tmp_path, "--save-projects", "--backend", "reference") == 0
    assert made == ["reference"] * 2
    assert FaceProject.load(tmp_path / "face-0.safetensors").labels.shape == (8, 8)


def test_projects_alone_cannot_be_saved_as_projects(weights, projects, tmp_path, capsys):
    assert render.main(["--checkpoint", str(weights), "--out", str(tmp_path), "--save-projects",
                        "--projects", *projects]) == 1  # fmt: skip
    assert "name some with --seeds" in capsys.readouterr().err


def test_culling_changes_little(weights, tmp_path):
    for name, cull in (("exact", "0"), ("culled", "1e-4")):
        assert run(weights, tmp_path / name, "--cull", cull) == 0
    pictures = [np.asarray(Image.open(tmp_path / name / "image.png"), np.int16)
                for name in ("exact", "culled")]  # fmt: skip
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
