"""render, info, profile and the command plumbing, as a user calls them."""

import errno
import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semfaceedit import __main__ as entry
from semfaceedit import cli, info, profile, render
from semfaceedit.__main__ import COMMANDS
from semfaceedit.errors import UserError
from semfaceedit.model import checkpoint, config
from semfaceedit.model.generator import Generator
from semfaceedit.model.labels import PALETTE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    run = config.tiny()
    checkpoint.save_generator(path, Generator(run.model), run, images=7, ema_decay=0.5)
    return path


def test_info_prints_one_object(capsys):
    assert info.main(["--preset", "paper", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["generator_parameters"] == 8780641
    assert set(facts["backends"]) == {"reference", "triton", "cuda", "cpu"}
    for backend in facts["backends"].values():
        assert backend["available"] or backend["reason"]
    assert facts["backends"]["reference"]["available"]
    bodies = {name: body["reason"] for name, body in facts["cuda_bodies"].items()}
    assert set(bodies) == {"sm80", "sm90"}
    without = facts["backends"]["cuda"]["reason"]
    if without is not None:
        assert all(reason in without for reason in bodies.values())


def test_info_for_people(capsys):
    assert info.main([]) == 0
    text = capsys.readouterr().out
    assert "8,780,641" in text and "reference       available" in text
    assert "sm90            wgmma forward and backward, 9.0: " in text


def test_render_writes_image_semantics_and_depth(weights, tmp_path):
    arguments = ["--checkpoint", str(weights), "--out", str(tmp_path), "--seeds", "0,2-3"]
    assert render.main([*arguments, "--yaws", "-0.3", "0.3", "--resolution", "12"]) == 0
    for kind in ("image", "semantics", "depth"):
        assert Image.open(tmp_path / f"{kind}.png").size == (2 * 12, 3 * 12)
    colors = np.asarray(Image.open(tmp_path / "semantics.png")).reshape(-1, 3)
    assert {tuple(c) for c in np.unique(colors, axis=0)} <= {tuple(c) for c in PALETTE}


def test_the_same_seed_gives_the_same_picture(weights, tmp_path):
    for name in ("a", "b"):
        render.main(["--checkpoint", str(weights), "--out", str(tmp_path / name), "--seeds", "5"])
    first, second = ((tmp_path / name / "image.png").read_bytes() for name in ("a", "b"))
    assert first == second
    render.main(["--checkpoint", str(weights), "--out", str(tmp_path / "c"), "--seeds", "6"])
    assert (tmp_path / "c" / "image.png").read_bytes() != first


def test_no_truncation_left_means_the_mean_face(weights, tmp_path):
    for seed in ("1", "2"):
        arguments = ["--checkpoint", str(weights), "--out", str(tmp_path / seed), "--seeds", seed]
        render.main([*arguments, "--truncation", "0"])
    first, second = (np.asarray(Image.open(tmp_path / s / "image.png"), int) for s in ("1", "2"))
    assert np.abs(first - second).max() <= 1


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--checkpoint", "nowhere.safetensors"], "no checkpoint at nowhere.safetensors"),
        (["--seeds", "3-x"], "is not a number or a range"),
        (["--preset", "small"], "weights of preset 'tiny', not 'small'"),
        (["--resolution", "0"], "--resolution 0"),
        (["--device", "potato"], "is not a device"),
    ],
)
def test_bad_input_to_render_is_one_line(weights, tmp_path, capsys, arguments, said):
    given = ["--checkpoint", str(weights)] if "--checkpoint" not in arguments else []
    assert render.main([*given, *arguments, "--out", str(tmp_path)]) == 1
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "text", "foreign", "newer"])
def test_files_that_are_no_weights_are_said(weights, tmp_path, damage):
    path = tmp_path / "bad.safetensors"
    if damage == "truncated":
        path.write_bytes(weights.read_bytes()[:500])
    elif damage == "text":
        path.write_text("hello")
    else:
        from safetensors.torch import save_file

        header = {"format": checkpoint.FORMAT, "version": 99} if damage == "newer" else {}
        save_file({"x": torch.zeros(1)}, path, {"semfaceedit": json.dumps(header)})
    with pytest.raises(UserError, match="bad.safetensors"):
        checkpoint.load_generator(path)


def test_weights_round_trip_with_their_settings(weights):
    generator, run = checkpoint.load_generator(weights)
    assert run == config.tiny()
    assert checkpoint.read_header(weights)["images"] == 7
    torch.manual_seed(0)
    for (name, kept), made in zip(
        generator.state_dict().items(), Generator(run.model).state_dict().values(), strict=True
    ):
        assert torch.equal(kept, made), name


def test_profile_prints_every_stage(capsys):
    assert profile.main(["--preset", "tiny", "--resolution", "8", "--repeats", "2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    names = [stage["name"] for stage in facts["stages"]]
    assert names == ["rays", "manifolds", "geometry", "masking", "appearance", "compositing"]
    assert all(stage["ms"] > 0 for stage in facts["stages"])
    assert sum(stage["ms"] for stage in facts["stages"]) < 1.5 * facts["total_ms"]
    assert facts["peak_bytes"] > 0 and facts["points"] == 8 * 8 * 5


@pytest.mark.parametrize(
    "backend,said", [("triton", "it needs cuda tensors, got cpu"), ("abacus", "unknown backend")]
)
def test_a_backend_that_cannot_be_had_is_one_line(capsys, backend, said):
    arguments = ["--preset", "tiny", "--resolution", "8", "--device", "cpu"]
    assert profile.main([*arguments, "--backend", backend]) == 1
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1


def test_seeds():
    assert cli.parse_seeds("0,4-7") == [0, 4, 5, 6, 7]
    for text in ("", "a", "3-", "1,,2", "²", "1-²"):
        with pytest.raises(UserError):
            cli.parse_seeds(text)


def test_a_file_that_cannot_be_read_is_not_said_to_be_written(capsys):
    def refused(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "data/images")

    assert cli.run_command(Sample, refused, ["--folder", "x"], name="sample") == 1
    text = capsys.readouterr().err
    assert "permission denied (data/images): check its permissions" in text
    assert text.count("\n") == 1


@dataclass(kw_only=True)
class Sample:
    """Options of every kind."""

    folder: Path
    count: int = 3
    rate: float | None = None
    names: tuple[str, ...] = ("a",)
    flag: bool = False
    mode: str | None = None


@pytest.mark.parametrize("parser", [cli.parse, cli._parse_plain])
def test_both_parsers_agree(parser):
    arguments = ["--folder", "x", "--rate", "0.5", "--names", "b", "c", "--flag"]
    assert parser(Sample, arguments, name="sample") == Sample(
        folder=Path("x"), rate=0.5, names=("b", "c"), flag=True
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    command = importlib.import_module(f"semfaceedit.{name.replace('-', '_')}")
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert not ended.value.code
    text = capsys.readouterr().out
    assert "Example:" in text and f"semfaceedit {name}" in text


def test_ctrl_c_while_modules_are_read_is_one_line(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["semfaceedit", "render"])
    monkeypatch.setattr(importlib, "import_module", stop)
    assert entry.main() == 130
    assert capsys.readouterr().err == "semfaceedit render: interrupted\n"


def test_an_unknown_command_is_refused():
    result = subprocess.run(
        [sys.executable, "-m", "semfaceedit", "fly"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 2 and "no command 'fly'" in result.stderr


def test_core_and_trainer_import_without_tyro_and_rich():
    code = (
        "import sys; sys.modules['tyro'] = sys.modules['rich'] = None\n"
        "import semfaceedit.train, semfaceedit.render, semfaceedit.kernels, semfaceedit.info\n"
        "sys.exit(semfaceedit.train.main(['--preset', 'tiny', '--dry-run']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["preset"] == "tiny"
