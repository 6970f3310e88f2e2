"""The train command: run folder, resuming after signals and kills, answers to bad input."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training import drawn_faces

from semfaceedit import train
from semfaceedit.model import checkpoint, config
from semfaceedit.training import run as training_run
from semfaceedit.training import run_folder
from semfaceedit.training.run_folder import new_run_folder

ROOT = Path(__file__).parents[2]
DECAY = config.tiny().train.ema_decays[0]
STEPS = ["--stage1-iterations", "40", "--stage2-iterations", "20", "--checkpoint-every", "3",
         "--log-every", "2", "--sample-every", "1000", "--monitor-every", "1000"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "drawn"
    drawn_faces(folder)
    return folder


def command(data: Path, out: Path, *extra: str) -> list[str]:
    return ["--preset", "tiny", "--data", str(data), "--out", str(out), "--device", "cpu", *extra]


def start(arguments: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "semfaceedit.train", *arguments],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def weights_of(folder: Path) -> Path:
    return folder / f"generator-ema{DECAY}.safetensors"


def weights(folder: Path) -> bytes:
    return weights_of(folder).read_bytes()


def records_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("straight")
    process = start(command(data, out, *STEPS))
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return out / "00000-tiny-drawn"


def test_run_folder_holds_all_that_is_promised(straight):
    names = {path.name for path in straight.iterdir()}
    assert {"config.json", "metrics.jsonl", "samples-00000060.png", "state-00000060.pt"} <= names
    records = records_of(straight)
    assert [r["step"] for r in records if "d_image" in r] == list(range(2, 61, 2))
    assert {"d_image", "d_semantic", "g_image", "r1_image", "manifold_weights"} <= set(records[0])
    assert {"frechet_image", "frechet_semantic"} <= set(records[-1])
    assert records[-2]["stage"] == 2
    generator, settings = checkpoint.load_generator(straight / f"generator-ema{DECAY}.safetensors")
    assert settings.preset == "tiny" and not any(p.requires_grad for p in generator.parameters())


def test_sigterm_saves_and_resuming_ends_bit_identical(data, straight, tmp_path):
    process = start(command(data, tmp_path, *STEPS))
    folder = tmp_path / "00000-tiny-drawn"
    _wait_for(lambda: list(folder.glob("state-*.pt")), process)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "the state will be saved" in text
    process = start(["--resume", str(folder), *STEPS])
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert weights(folder) == weights(straight)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "d_image" in line]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments(data, straight, tmp_path, kills):
    chance = random.Random(0)
    folder = tmp_path / "00000-tiny-drawn"
    arguments = command(data, tmp_path, *STEPS)
    for _ in range(kills):
        process = start(arguments)
        if folder.exists():
            _wait_for(lambda: _first_sign(folder, before=before), process)  # noqa: B023
        else:
            _wait_for(lambda: list(folder.glob("state-*.pt")), process)
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.communicate()
        before = _sizes(folder)
        assert checkpoint.load_state(folder)["completed"] >= 3
        arguments = ["--resume", str(folder), *STEPS]
    process = start(arguments)
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert weights(folder) == weights(straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_last_measurement_may_be_stopped(data, straight, tmp_path, number):
    """The state is there before it; a run that goes on makes it good."""
    folder = tmp_path / "00000-tiny-drawn"
    process = start(command(data, tmp_path, *STEPS))
    _wait_for((folder / "state-00000060.pt").exists, process)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGKILL), text
    measured = [r for r in records_of(folder) if "frechet_image" in r]
    assert not measured and not weights_of(folder).exists()
    process = start(["--resume", str(folder), *STEPS])
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert "all 60 steps are done; its weights are written again. --stage1-iterations" in text
    assert weights(folder) == weights(straight)
    assert (folder / "samples-00000060.png").read_bytes() == (
        straight / "samples-00000060.png"
    ).read_bytes()
    assert records_of(folder)[-1] == records_of(straight)[-1]
    assert [r["step"] for r in records_of(folder)] == [r["step"] for r in records_of(straight)]


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the run replaces files meanwhile
            sizes[path.name] = path.stat().st_size
    return sizes


def _first_sign(folder: Path, before: dict[str, int]) -> bool:
    return _sizes(folder) != before


def _wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "nothing was written in time"
        time.sleep(0.005)


def test_resuming_goes_on_with_as_many_procedural_faces(tmp_path, monkeypatch):
    counts = []
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path / "cache"))
    original = training_run.open_training_data

    def open_training_data(source, **settings):
        counts.append(settings["procedural_count"])
        return original(source, **settings)

    monkeypatch.setattr(training_run, "open_training_data", open_training_data)
    steps = ["--stage1-iterations", "2", "--stage2-iterations", "1", "--device", "cpu"]
    new = ["--preset", "tiny", "--out", str(tmp_path), "--procedural-count", "9"]
    assert train.main([*new, *steps]) == 0
    assert train.main(["--resume", str(tmp_path / "00000-tiny-procedural"), "--device", "cpu"]) == 0
    assert counts == [9, 9]


def test_changed_data_are_noticed_on_resuming(straight, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_folder, "report", lambda *_: {})
    drawn_faces(tmp_path / "other", count=5)
    state = checkpoint.load_state(straight) | {"data": str(tmp_path / "other")}
    checkpoint.save_state(tmp_path, 60, state)
    resume = ["--resume", str(tmp_path), "--device", "cpu"]
    code, text = run(resume, capsys)
    assert code == 1 and "have changed since" in text.splitlines()[-1]
    code, text = run([*resume, "--data", str(tmp_path / "other")], capsys)
    assert code == 0 and f"continuing with other data: {tmp_path / 'other'}" in text
    checkpoint.save_state(tmp_path, 60, state | {"data_sha256": None})  # of an older version
    code, text = run(resume, capsys)
    assert code == 0 and "other data" not in text


def test_an_out_that_is_a_file_is_said_before_data_are_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training_run, "open_training_data", None)
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "runs"):
        code, text = run(["--preset", "tiny", "--out", str(out)], capsys)
        assert code == 1 and f"{file} is or lies in a file" in text.splitlines()[-1]


def test_a_damaged_newest_state_gives_way_to_the_one_before(straight, tmp_path):
    for path in sorted(straight.glob("state-*.pt")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    newest = sorted(tmp_path.glob("state-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert checkpoint.load_state(tmp_path)["completed"] == 57


def run(arguments: list[str], capsys) -> tuple[int, str]:
    code = train.main(arguments)
    return code, capsys.readouterr().err


def test_a_preset_for_tests_draws_few_faces():
    for name, count, given in (("tiny", 200, None), ("small", 2000, None), ("tiny", 7, 7)):
        options = train.TrainOptions(preset=name, procedural_count=given)
        drawn = train._data(options, config.preset(name))
        assert drawn is not None and drawn.path is None and drawn.procedural_count == count


def test_bad_input_is_one_clear_line(data, straight, tmp_path, capsys):
    missing = tmp_path / "nowhere"
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        (["--preset", "huge"], "--preset 'huge' is unknown"),
        (["--data", str(missing)], str(missing)),
        (["--data", str(empty)], str(empty)),
        (["--resume", str(missing)], "no such run folder"),
        (["--resume", str(empty)], "no usable state"),
        (["--resume", str(straight), "--preset", "small"], "is a run of preset 'tiny'"),
        (["--resume", str(straight), "--rare-share", "0.2"], "sets a new run"),
        (["--resume", str(straight), "--paired"], "--paired sets a new run"),
        (["--resume", str(straight), "--set", "train.augment=0.5"], "--set sets a new run"),
        (["--set", "train.agument=0.5"], "did you mean 'train.augment'?"),
        (["--config", "nowhere.toml"], "--config nowhere.toml: No such file"),
        (["--batch", "0"], "--batch 0: must be at least 1"),
        (["--rare-share", "1.5"], "--rare-share 1.5: use 0 to 1"),
        (["--resume", str(straight), "--resolution", "16"], "--resolution sets a new run"),
        (["--resume", str(straight), "--seed", "3"], "is a run of seed 0, not 3"),
        (["--resume", str(straight), "--out=x"], "--out sets a new run"),
        (["--data", str(data), "--procedural-count", "5"], "leave out one of them"),
        (["--log-every", "0"], "--log-every 0: must be at least 1"),
        (["--checkpoint-every", "0"], "--checkpoint-every 0: must be at least 1"),
        (["--sample-every", "-2"], "--sample-every -2: must be at least 1"),
        (["--monitor-every", "0"], "--monitor-every 0: must be at least 1"),
        (["--procedural-count", "0"], "--procedural-count 0: use 1 to 10000000"),
        (["--seed", "-1"], "--seed -1: use a whole number from 0"),
        (["--stage1-iterations", "-3"], "--stage1-iterations -3: must be at least 0"),
        (["--stage1-iterations", "0", "--stage2-iterations", "0"], "a run needs a step"),
        (["--device", "gpu3"], "is not a device"),
        (["--preset", "tiny", "--resolution", "12", "--data", str(data)], "must be a power of two"),
        (["--phases", "16:many"], "write RESOLUTION:STEPS"),
        (["--phases", "16:9", "--resolution", "16"], "--phases sets resolutions"),
    ]
    if not torch.cuda.is_available():
        cases.append((["--device", "cuda"], "CUDA is not available here"))
    for arguments, said in cases:
        out = [] if "--resume" in arguments else ["--out", str(tmp_path / "runs")]
        code, text = run([*arguments, *out], capsys)
        line = text.strip().splitlines()[-1]
        assert code == 1 and line.startswith("semfaceedit train: error:") and said in line, text
    assert not (tmp_path / "runs").exists()


def test_dry_run_prints_settings_and_writes_nothing(tmp_path, capsys):
    assert train.main(["--preset", "paper", "--dry-run", "--out", str(tmp_path / "runs")]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["model"]["manifolds"] == 24 and settings["train"]["image_r1"] == 5
    assert not (tmp_path / "runs").exists()


def test_phases_set_resolutions_and_steps(tmp_path, capsys):
    options = ["--phases", "8:3", "16:9", "--preset", "tiny", "--out", str(tmp_path)]
    assert train.main([*options, "--dry-run"]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["train"]["stage1_iterations"] == 12
    assert [phase["resolution"] for phase in settings["train"]["phases"]] == [8, 16]
    assert [phase["until"] for phase in settings["train"]["phases"]] == [0.25, 1.0]
    assert settings["model"]["resolution"] == 16


def test_every_setting_can_be_given(tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text("[train]\nimage_r1 = 4\n[discriminator]\npaired = true\n")
    options = ["--preset", "tiny", "--config", str(file), "--batch", "2", "--dry-run"]
    assert train.main([*options, "--set", "train.generator_lr=2e-4", "model.width=24"]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["train"]["image_r1"] == 4 and settings["train"]["generator_lr"] == 2e-4
    assert settings["model"]["width"] == 24 and settings["discriminator"]["paired"] is True
    assert [phase["batch"] for phase in settings["train"]["phases"]] == [2, 2]
    file.write_text('preset = "tiny"\npaired = true\nphases = ["8:5"]\nseed = 4\n')
    assert train.main(["--config", str(file), "--dry-run", "--phases", "8:7"]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["preset"] == "tiny" and settings["discriminator"]["paired"] is True
    assert settings["train"]["stage1_iterations"] == 7  # the command line goes first
    for text, message in (("lr = 1", "no option 'lr' in a file"), ("seed = 'a'", "give a whole")):
        file.write_text(text)
        assert train.main(["--config", str(file), "--dry-run"]) == 1
        assert message in capsys.readouterr().err


def test_rare_share_is_a_setting_of_the_run(tmp_path, capsys):
    for given, expected in (([], 0), (["--rare-share", "0.25"], 0.25)):
        assert train.main([*given, "--dry-run", "--out", str(tmp_path)]) == 0
        assert json.loads(capsys.readouterr().out)["train"]["rare_share"] == expected


def test_paired_is_a_setting_of_the_run(tmp_path, capsys):
    for given, expected in (([], False), (["--paired"], True)):
        assert train.main([*given, "--dry-run", "--out", str(tmp_path)]) == 0
        assert json.loads(capsys.readouterr().out)["discriminator"]["paired"] is expected


def test_run_folders_are_numbered(tmp_path):
    assert new_run_folder(tmp_path, "a").name == "00000-a"
    (tmp_path / "00007-b").mkdir()
    assert new_run_folder(tmp_path, "c").name == "00008-c"


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path, monkeypatch):
    original = Path.iterdir

    def iterdir(path):
        found = list(original(path))
        (tmp_path / "00000-a").mkdir(exist_ok=True)  # by another run, after this one has looked
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert new_run_folder(tmp_path, "a").name == "00001-a"


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    target = tmp_path / "state.pt"
    target.write_bytes(b"old")
    with pytest.raises(OSError):
        checkpoint.write_atomically(target, write)
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_a_full_disk_ends_the_command_in_one_line(data, straight, tmp_path, capsys, monkeypatch):
    def full(*_arguments, **_settings):
        raise OSError(28, "No space left on device", "state.pt")

    monkeypatch.setattr(checkpoint, "save_state", full)
    code, text = run(command(data, tmp_path, "--stage1-iterations", "1",
                             "--stage2-iterations", "0"), capsys)  # fmt: skip
    assert code == 1 and "no space left on the disk (state.pt)" in text.splitlines()[-1]


def test_a_loss_that_is_no_number_ends_the_command(data, tmp_path, capsys, monkeypatch):
    from semfaceedit.training import trainer

    monkeypatch.setattr(trainer, "generator_loss", lambda fake: fake.mean() * float("nan"))
    code, text = run(command(data, tmp_path, *STEPS), capsys)
    assert code == 1 and "a loss of step 0 is nan" in text and "--resume" in text


def test_tensorboard_is_optional(data, tmp_path, capsys, monkeypatch):
    arguments = command(data, tmp_path, "--stage1-iterations", "1", "--stage2-iterations", "0")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, text = run([*arguments, "--tensorboard"], capsys)
    assert code == 1 and "pip install 'semfaceedit[tb]'" in text.splitlines()[-1]


def test_a_collapse_from_the_start_is_said_once(data, tmp_path, monkeypatch, capsys):
    """Before some steps the weights say little; what still holds then is said."""
    monkeypatch.setattr(run_folder, "WARN_AFTER", 4)
    steps = ["--stage1-iterations", "8", "--stage2-iterations", "0", "--log-every", "1",
             "--set", "train.collapse_share=0.01"]  # fmt: skip
    assert train.main(command(data, tmp_path, *steps)) == 0
    assert capsys.readouterr().err.count("geometry is collapsing") == 1
