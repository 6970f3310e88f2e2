"""Weights to share: half precision, discriminators beside, and a run that starts from them."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import drawn_faces, tiny

from semfaceedit import export, render, train
from semfaceedit.data.dataset import FaceDataset
from semfaceedit.errors import UserError
from semfaceedit.model import checkpoint
from semfaceedit.model.config import small
from semfaceedit.model.discriminator import Discriminator
from semfaceedit.training.run import _start_from
from semfaceedit.training.trainer import Trainer

TINY = ["--preset", "tiny", "--stage1-iterations", "3", "--stage2-iterations", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, FaceDataset]:
    folder = tmp_path_factory.mktemp("data") / "drawn"
    return folder, drawn_faces(folder)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert train.main([*TINY, "--data", str(data[0]), "--out", str(out)]) == 0
    return next(out.iterdir())


@pytest.fixture(scope="module")
def shared(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    assert export.main(["--run", str(run), "--out", str(path)]) == 0
    return path


def test_export_is_the_average_in_fp16_and_smaller(run, shared):
    source = run / f"generator-ema{tiny().train.ema_decays[0]}.safetensors"
    exact, half = (checkpoint.load_generator(path)[0] for path in (source, shared))
    for name, tensor in exact.state_dict().items():
        rounded = tensor if checkpoint._needs_fp32(name) else tensor.half().float()
        assert torch.equal(half.state_dict()[name], rounded), name
    assert shared.stat().st_size < 0.8 * source.stat().st_size
    assert checkpoint.read_header(shared)["images"] == 16


def test_exported_discriminators_are_those_of_the_run(run, shared):
    networks, settings = checkpoint.load_discriminators(checkpoint.discriminators_beside(shared))
    state = checkpoint.load_state(run)
    assert settings.preset == "tiny"
    for network, name in zip(networks, ("d_image", "d_semantic"), strict=True):
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, state[name][key].half().float()), (name, key)


def test_a_stopped_run_is_exported_as_it_stood(run, tmp_path):
    """Generator, discriminators and images are of the newest state, finished weights or not."""
    for path in run.glob("state-*.pt"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = checkpoint.load_state(run)
    state["completed"] = 2
    for name, value in state["averages"][0].items():
        state["averages"][0][name] = value + 0.01
    for path in tmp_path.iterdir():
        torch.save(state, path)
    out = tmp_path / "w.safetensors"
    assert export.main(["--run", str(tmp_path), "--out", str(out), "--no-half"]) == 0
    for name, value in checkpoint.load_generator(out)[0].state_dict().items():
        assert torch.equal(value, state["averages"][0][name]), name
    for path in (out, checkpoint.discriminators_beside(out)):
        kind = checkpoint.FORMAT if path == out else checkpoint.DISCRIMINATORS_FORMAT
        assert checkpoint.read_header(path, kind)["images"] == 8


def test_a_run_starts_from_exported_weights(shared, data, tmp_path, capsys):
    options = [*TINY, "--data", str(data[0]), "--out", str(tmp_path), "--init", str(shared)]
    assert train.main([*options, "--seed", "5"]) == 0
    assert "with the discriminators beside it" in capsys.readouterr().err


def test_weights_may_be_trained_on_with_another_spread_of_poses(shared):
    _, settings = checkpoint.load_generator(shared)
    model = settings.model
    turned = replace(model, camera=replace(model.camera, yaw_std=0.1, pitch_std=0.05))
    wide = replace(model, camera=replace(model.camera, fov_degrees=20.0))
    device = torch.device("cpu")
    _start_from(Trainer(replace(settings, model=turned), seed=0, device=device), shared)
    with pytest.raises(UserError, match="another camera than this run"):
        _start_from(Trainer(replace(settings, model=wide), seed=0, device=device), shared)


def test_an_image_discriminator_learns_to_read_maps_later(shared, data, tmp_path, capsys):
    options = ["--paired", *TINY, "--data", str(data[0]), "--out", str(tmp_path)]
    assert train.main([*options, "--init", str(shared)]) == 0
    assert "whose D_c now learns to read label maps" in capsys.readouterr().err
    (run,) = tmp_path.iterdir()
    assert train.main(["--resume", str(run), "--stage2-iterations", "5"]) == 0
    out = tmp_path / "paired.safetensors"
    assert export.main(["--run", str(run), "--out", str(out), "--no-half"]) == 0
    networks, settings = checkpoint.load_discriminators(checkpoint.discriminators_beside(out))
    assert settings.discriminator.paired and networks[0].inputs == 22
    assert networks[0].adapters["16"].weight[:, 3:].any()


def test_weights_are_taken_and_optimisers_are_fresh(shared):
    generator, settings = checkpoint.load_generator(shared)
    networks, _ = checkpoint.load_discriminators(checkpoint.discriminators_beside(shared))
    trainer = Trainer(settings, seed=1, device=torch.device("cpu"))
    trainer.start_from(generator, networks)
    pairs = [
        (trainer.generator, generator),
        (trainer.averages[0], generator),
        (trainer.d_image, networks[0]),
        (trainer.d_semantic, networks[1]),
    ]
    for mine, its in pairs:
        for name, tensor in its.state_dict().items():
            assert torch.equal(mine.state_dict()[name], tensor), name
    assert all(not optimizer.state for optimizer in trainer.optimizers.values())


def test_a_discriminator_for_higher_resolutions_takes_the_lower_blocks():
    channels = (4, 5, 6, 7)
    low, high = Discriminator(3, 2, channels, (4, 8)), Discriminator(3, 2, channels, (8, 16))
    high.take(low)
    for mine, its in ((high.blocks[1], low.blocks[0]), (high.blocks[2], low.blocks[1])):
        assert torch.equal(mine.first.weight, its.first.weight)
    picture = torch.randn(2, 3, 8, 8)
    for mine, its in zip(high(picture), low(picture), strict=True):
        assert torch.equal(mine, its)


def test_bad_input_is_one_clear_line(run, shared, data, tmp_path, capsys):
    out = ["--out", str(tmp_path / "w.safetensors")]
    for arguments, wanted in (
        (["--run", str(tmp_path / "none"), *out], "no such run folder"),
        (["--run", str(run), "--out", str(tmp_path / "w.pt")], "written as .safetensors"),
        (["--run", str(run), "--ema-decay", "0.5", *out], "this run has averages of"),
    ):
        assert export.main(arguments) == 1
        assert wanted in capsys.readouterr().err
    small = ["--preset", "small", "--data", str(data[0]), "--out", str(tmp_path / "runs")]
    assert train.main([*small, "--init", str(shared)]) == 1
    assert "give --preset tiny" in capsys.readouterr().err
    assert train.main(["--resume", str(run), "--init", str(shared)]) == 1
    assert "--init sets a new run" in capsys.readouterr().err
    with pytest.raises(Exception, match="holds no discriminators"):
        checkpoint.load_discriminators(shared)


def test_half_precision_that_changes_the_picture_is_refused(
    run, shared, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(export, "compare_weights", lambda *_: (20.0, 0.5))
    path = tmp_path / "w.safetensors"
    path.write_bytes(older := shared.read_bytes())
    assert export.main(["--run", str(run), "--out", str(path)]) == 1
    assert "--no-half" in capsys.readouterr().err
    assert path.read_bytes() == older and list(tmp_path.iterdir()) == [path]


def test_comparison_counts_error_and_flips(shared):
    generator, _ = checkpoint.load_generator(shared)
    assert export.compare_weights(generator, generator) == (float("inf"), 0.0)
    other = copy.deepcopy(generator)
    other.appearance.stacks[0].head_bias.add_(0.01)
    psnr, flips = export.compare_weights(generator, other)
    assert 5 < psnr < 60 and flips == 0


def test_the_header_names_its_settings(shared):
    header = json.loads(json.dumps(checkpoint.read_header(shared)))
    assert header["config"]["preset"] == "tiny" and header["ema_decay"] in tiny().train.ema_decays


def test_without_shipped_weights_a_checkpoint_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SEMFACEEDIT_WEIGHTS")
    monkeypatch.setattr(checkpoint, "SHIPPED_WEIGHTS", tmp_path / "none.safetensors")
    assert render.main(["--out", str(tmp_path)]) == 1
    assert "give --checkpoint" in capsys.readouterr().err


def test_shipped_weights_have_names(tmp_path, monkeypatch, capsys):
    (tmp_path / "procedural").mkdir()
    monkeypatch.chdir(tmp_path)  # a name is no folder: that is ./procedural
    assert checkpoint.locate_weights(Path("procedural")) == checkpoint.WEIGHTS / (
        "procedural.safetensors"
    )
    assert checkpoint.locate_weights(Path("run/procedural")) == Path("run/procedural")
    options = ["--seeds", "0", "--yaws", "0", "--resolution", "8", "--out", "a"]
    assert render.main(["--checkpoint", "procedural", *options]) == 0
    assert render.main(["--checkpoint", str(tmp_path / "procedural"), *options]) == 1
    assert "is a folder" in capsys.readouterr().err
    trainer = Trainer(small(), seed=0, device=torch.device("cpu"))
    _start_from(trainer, Path("procedural"))
    taken = checkpoint.load_generator(Path("procedural"))[0].state_dict()
    for name, value in trainer.generator.state_dict().items():
        assert torch.equal(value, taken[name]), name


def test_the_weights_of_faces_are_the_default(monkeypatch):
    monkeypatch.delenv("SEMFACEEDIT_WEIGHTS")
    assert checkpoint.locate_weights(None).name == "portraits.safetensors"
    monkeypatch.setenv("SEMFACEEDIT_WEIGHTS", "procedural")
    assert checkpoint.locate_weights(None).name == "procedural.safetensors"
    assert checkpoint.locate_weights(Path("other.safetensors")) == Path("other.safetensors")


def test_shipped_weights_are_the_default(shared, tmp_path, monkeypatch):
    monkeypatch.delenv("SEMFACEEDIT_WEIGHTS")
    monkeypatch.setattr(checkpoint, "SHIPPED_WEIGHTS", shared)
    assert render.main(["--out", str(tmp_path), "--seeds", "0", "--yaws", "0"]) == 0
    assert (tmp_path / "image.png").exists()
