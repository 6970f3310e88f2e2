"""The command: every question answered, the same again, taken up again, and what cannot be had."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import SIZE, settings, write_checkpoint
from support import change_a_number
from training import drawn_faces

from semfaceedit import evaluate
from semfaceedit.evaluation import consistency, cost, editing, inception, pictures, quality
from semfaceedit.evaluation import run as evaluation_run
from semfaceedit.evaluation.session import EvaluateOptions, Evaluation, Results, Unmeasured, plain
from semfaceedit.model import checkpoint
from semfaceedit.model.generator import Generator
from semfaceedit.model.mean_face import mean_codes
from semfaceedit.training.distributed import World

QUICK = ("--count", "12", "--batch", "4", "--pairs", "1", "--geometry-iterations", "2",
         "--appearance-iterations", "2", "--faces", "4", "--parser-steps", "2",
         "--cost-resolutions", "8", "--cost-repeats", "1")  # fmt: skip


class Alone(World):
    """One rank of several that waits for nobody."""

    def barrier(self) -> None:
        pass


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "drawn"
    drawn_faces(folder, count=40, resolution=2 * SIZE)
    return folder


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pictures, "PIECE", 12)
    monkeypatch.setattr(editing, "painted", lambda labels, name: None)  # it has tests of its own
    monkeypatch.setattr(
        cost, "profile", lambda *_: {"total_ms": 1.0, "peak_bytes": 2**20, "flops": 10**9}
    )


def run(weights: Path, data: Path | None, out: Path, *arguments: str) -> int:
    where = [] if data is None else ["--data", str(data)]
    return evaluate.main(
        [*arguments, "--checkpoint", str(weights), *where, "--out", str(out), *QUICK]
    )


def report_of(out: Path) -> dict:
    """The report but for what the seed does not decide."""
    report = json.loads((out / "report.json").read_text())
    return {key: value for key, value in report.items() if key not in ("timings", "machine")}


def test_all_questions_and_the_same_again(weights, data, tmp_path, capsys):
    assert run(weights, data, tmp_path / "a", "--all") == 0
    report = report_of(tmp_path / "a")
    assert set(report["results"]) == {
        "quality.sliced_wasserstein", "semantics.sliced_wasserstein", "semantics.areas",
        "semantics.agreement", "inversion", "locality", "consistency.reprojection", "cost",
    }  # fmt: skip
    reasons = report["missing"]
    assert (
        "Inception weights" in reasons["quality.fid"]
        and "12 pictures" in (reasons["quality.pixel_frechet"])
    )
    assert "procedural" in reasons["consistency.ground_truth"]
    assert "no discriminators" in reasons["consistency.pose"]
    assert "no face can take an edit" in reasons["editing"]
    said = capsys.readouterr().err
    assert all(said.count(f"not measured: {name}:") == 1 for name in reasons)
    text = (tmp_path / "a" / "report.md").read_text()
    for title, _ in (section for section in evaluate_sections().values()):
        assert f"## {title}" in text
    for name in ("inversion-miou", "inversion-groups", "inversion-psnr", "samples", "areas"):
        assert f"figures/{name}.png" in text
        assert (tmp_path / "a" / "figures" / f"{name}.png").is_file()
    shutil.rmtree(tmp_path / "cache")
    assert run(weights, data, tmp_path / "b", "--all") == 0
    assert report_of(tmp_path / "b") == report
    assert run(weights, data, tmp_path / "b", "locality", "--seed", "1") == 0
    other = report_of(tmp_path / "b")["results"]["locality"]
    assert other != report["results"]["locality"]


def evaluate_sections():
    from semfaceedit.evaluation.sections import SECTIONS

    return SECTIONS


def test_an_interrupted_evaluation_goes_on_where_it_stopped(weights, data, tmp_path, monkeypatch):
    names = ("quality", "inversion", "locality")
    assert run(weights, data, tmp_path / "whole", *names) == 0

    def stop(_evaluation):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(evaluation_run.QUESTIONS, "locality", stop)
        assert run(weights, data, tmp_path / "part", *names) == 130
    done = json.loads((tmp_path / "part" / "report.json").read_text())
    assert "inversion" in done["results"] and "locality" not in done["results"]

    def again(*_arguments, **_more):
        raise AssertionError("measured a second time")

    monkeypatch.setattr(pictures, "generated_piece", again)
    monkeypatch.setattr(quality, "wasserstein", again)
    monkeypatch.setattr("semfaceedit.evaluation.inversion.invert", again)
    assert run(weights, data, tmp_path / "part", *names) == 0
    assert report_of(tmp_path / "part") == report_of(tmp_path / "whole")


def test_questions_add_up_to_one_report(weights, tmp_path):
    assert run(weights, None, tmp_path, "locality") == 0
    assert run(weights, None, tmp_path, "cost") == 0
    assert set(report_of(tmp_path)["results"]) == {"cost", "locality"}
    assert "## Disentanglement" in (tmp_path / "report.md").read_text()
    assert run(weights, None, tmp_path, "cost", "--seed", "1") == 0
    assert set(report_of(tmp_path)["results"]) == {"cost"}  # the other is of another seed


def test_only_what_is_used_is_made(weights, data, tmp_path, monkeypatch):
    def unused(*_arguments, **_more):
        raise AssertionError("nobody uses it")

    monkeypatch.setattr(consistency, "_carried", lambda *_: {})
    with monkeypatch.context() as patch:
        patch.setattr("semfaceedit.evaluation.inversion.invert", unused)
        assert run(weights, data, tmp_path / "a", "consistency") == 0
    nothing = {"heads": 0, "inverted": {}, "mean_face": {}}
    monkeypatch.setattr(consistency, "ground_truth", lambda _: nothing)
    monkeypatch.setattr("semfaceedit.evaluation.session.open_training_data", unused)
    assert run(weights, None, tmp_path / "b", "inversion", "consistency") == 0
    report = report_of(tmp_path / "b")
    assert "inversion" in report["results"] and report["data"] is None


def test_a_question_asked_later_leaves_the_other_answers(weights, tmp_path, capsys):
    """Whose options need not be given again; those that both depend on must be."""
    common = ["--checkpoint", str(weights), "--out", str(tmp_path)]
    cost_alone = ["cost", *common, "--cost-resolutions", "8", "--cost-repeats", "1"]
    locality = ["locality", *common, "--faces", "4", "--batch", "4"]
    assert evaluate.main(cost_alone) == 0
    first = report_of(tmp_path)
    assert evaluate.main(locality) == 0
    report = report_of(tmp_path)
    assert set(report["results"]) == {"cost", "locality"}
    assert report["results"]["cost"] == first["results"]["cost"]
    assert report["settings"]["cost_resolutions"] == [8] and report["settings"]["faces"] == 4
    capsys.readouterr()
    assert evaluate.main([*cost_alone, "--faces", "3"]) == 0
    assert "note: --faces has no effect here" in capsys.readouterr().err
    assert report_of(tmp_path) == report
    assert evaluate.main([*locality, "--seed", "1"]) == 0
    assert set(report_of(tmp_path)["results"]) == {"locality"}


def test_other_settings_are_measured_anew(tmp_path):
    results = Results(tmp_path)
    assert results.measure("a", {"x": 1}, lambda: {"v": 1.0}) == {"v": 1.0}
    assert results.measure("a", {"x": 1}, lambda: {"v": 2.0}) == {"v": 1.0}
    assert results.measure("a", {"x": 2}, lambda: {"v": 2.0, "timings": {"ms": 3}}) == {"v": 2.0}
    assert results.timings["a"]["ms"] == 3
    (tmp_path / "a.json").write_text("{")  # cut short by a dead disk
    assert results.measure("a", {"x": 2}, lambda: {"v": 4.0}) == {"v": 4.0}


def test_plain_values():
    value = {"a": torch.tensor([1.0, float("nan")]), "b": np.float64(1 / 3), 3: (True, None, 7)}
    assert plain(value) == {"a": [1.0, None], "b": 0.333333, "3": [True, None, 7]}


def opened(weights: Path, out: Path, world: World | None = None, **changes) -> Evaluation:
    options = EvaluateOptions(
        checkpoint=weights, out=out, **{"count": 10, "resolution": 8} | changes
    )
    return Evaluation.open(options, torch.device("cpu"), world or World())


def test_pictures_do_not_depend_on_who_makes_them(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "PIECE", 4)
    alone = opened(weights, tmp_path / "one", batch=4)
    pictures.generate_pictures(alone, 10)
    for rank in range(2):
        pictures.generate_pictures(opened(weights, tmp_path / "two", Alone(rank, 2), batch=4), 10)
    both = [
        torch.cat([chunk.images for chunk in pictures.generated_pictures(e).read()])
        for e in (alone, opened(weights, tmp_path / "two"))
    ]
    assert len(both[0]) == 10 and torch.equal(*both)
    assert both[0].float().std() > 1  # they show something


@pytest.mark.parametrize("damage", ["cut", "number"])
def test_generation_makes_only_what_is_missing(weights, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(pictures, "PIECE", 4)
    evaluation = opened(weights, tmp_path)
    pictures.generate_pictures(evaluation, 10)
    folder = pictures.generated_folder(evaluation)
    second = folder / "pictures-000004.safetensors"
    before = second.read_bytes()
    if damage == "number":
        change_a_number(second)
    else:
        second.write_bytes(before[: len(before) // 2])
    made = []
    original = pictures.generated_piece
    monkeypatch.setattr(
        pictures, "generated_piece", lambda e, part: made.append(part) or original(e, part)
    )
    pictures.generate_pictures(evaluation, 10)
    assert made == [range(4, 8)] and second.read_bytes() == before


def test_truncation_moves_faces_to_the_mean(weights):
    evaluation = opened(weights, Path("unused"))
    mean = mean_codes(evaluation.generator)
    codes, poses = pictures.sampled_faces(evaluation.generator, range(2), 0, truncation=0.0)
    torch.testing.assert_close(codes.geometry.phases, mean.geometry.phases.expand(2, -1, -1))
    whole, same_poses = pictures.sampled_faces(evaluation.generator, range(2), 0)
    assert torch.equal(poses, same_poses)
    assert (whole.geometry.phases - mean.geometry.phases).abs().max() > 1e-3


def color_features(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean((2, 3))


@pytest.fixture
def fake_inception(monkeypatch):
    """Mean colours in place of Inception features."""
    monkeypatch.setattr(
        quality, "load_inception", lambda *_: inception.Inception(color_features, "0" * 64)
    )


def test_fid_and_kid_from_features(weights, data, tmp_path, monkeypatch, fake_inception):
    monkeypatch.setattr(quality, "LEAST_FID", 4)
    monkeypatch.setattr(quality, "LEAST_KID", 4)
    assert run(weights, data, tmp_path, "quality") == 0
    report = report_of(tmp_path)
    evaluation = opened(weights, tmp_path, data=data, count=12, resolution=SIZE)
    sets = [
        torch.cat([color_features(chunk.images) for chunk in found(evaluation).read()])
        for found in (pictures.real_pictures, pictures.generated_pictures)
    ]
    found = report["results"]["quality.fid"]
    assert found["distance"] == pytest.approx(quality.gaussian_distance(*sets), rel=1e-4)
    assert (found["real"], found["generated"]) == (12, 12)
    assert found["weights_sha256"] == "0" * 64 and "TensorFlow 1" in found["resize"]
    kernel = 1000 * quality.kernel_distance(*sets, 0).mean
    assert report["results"]["quality.kid"]["distance"] == pytest.approx(kernel, rel=1e-4)


def test_a_set_against_itself_is_at_no_distance(weights, data, tmp_path):
    evaluation = opened(weights, tmp_path, data=data, count=40, resolution=SIZE)
    real = pictures.real_pictures(evaluation)
    for view in (quality.IMAGES, quality.MAPS):
        found = quality.wasserstein(real, real, view, seed=0)
        assert found["distance"] == 0 and found["real_halves"] > 0


def test_too_few_pictures_for_fid(weights, data, tmp_path, fake_inception):
    assert run(weights, data, tmp_path, "quality") == 0
    reasons = report_of(tmp_path)["missing"]
    assert "12 generated and 12 real" in reasons["quality.fid"]
    assert "at least 100" in reasons["quality.kid"]
    assert "quality.sliced_wasserstein" in report_of(tmp_path)["results"]


def test_files_that_are_named_are_looked_at_before_pictures_are_made(
    weights, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("semfaceedit.evaluation.run.prepare", None)
    (tmp_path / "text.pth").write_text("text")
    (tmp_path / "folder").mkdir()
    for question, option, name, said in (
        ("quality", "--inception-weights", "none.pth", "none.pth: no such file: check the path"),
        ("semantics", "--inception-weights", "folder", "folder is a folder: give the file of"),
        ("quality", "--inception-weights", "text.pth", "text.pth: not a state dict"),
        ("inversion", "--vgg-weights", "text.pth", "text.pth: not a state dict"),
        ("consistency", "--run-folder", "none", "none: no such run folder"),
        ("consistency", "--run-folder", "folder", "--run-folder"),
        ("novelty", "--training-data", "folder", "folder: no known layout"),
        ("novelty", "--training-data", "text.pth", "text.pth is a file"),
    ):
        assert run(weights, data, tmp_path / "out", question, option, str(tmp_path / name)) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, (question, error)
    words = ["ablate", "--inception-weights", str(tmp_path / "none.pth"), "--out"]
    assert evaluate.main([*words, str(tmp_path / "out")]) == 1
    assert "none.pth: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_that_are_named_must_be_weights(weights, data, tmp_path, capsys):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    arguments = ("quality", "--inception-weights", str(tmp_path / "other.pth"))
    assert run(weights, data, tmp_path / "out", *arguments) == 1
    said = capsys.readouterr().err
    assert "quality.fid was requested by passing its weights" in said.splitlines()[-1]
    assert report_of(tmp_path / "out")["missing"]["quality.fid"] not in said.splitlines()[-1]
    assert "quality.sliced_wasserstein" in report_of(tmp_path / "out")["results"]


def test_weights_that_gave_one_of_their_figures_are_enough(
    weights, data, tmp_path, monkeypatch, fake_inception
):
    monkeypatch.setattr(quality, "LEAST_KID", 4)
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    named = ("--inception-weights", str(tmp_path / "a.pth"))
    assert run(weights, data, tmp_path, "quality", *named) == 0
    report = report_of(tmp_path)
    assert "quality.kid" in report["results"] and "quality.fid" in report["missing"]


def test_results_are_told_apart_by_what_the_weights_hold(tmp_path):
    options = EvaluateOptions(inception_weights=tmp_path / "a.pth")
    options.inception_weights.write_bytes(b"a")
    first = inception.weights_key(options)
    options.inception_weights.write_bytes(b"b")
    assert first != inception.weights_key(options)
    (tmp_path / "b.pth").write_bytes(b"a")
    assert first == inception.weights_key(EvaluateOptions(inception_weights=tmp_path / "b.pth"))


def test_weights_must_be_tensors(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": Path("/")}, path)
    pytest.importorskip("torch_fidelity")
    options = EvaluateOptions(checkpoint=path, inception_weights=path)
    with pytest.raises(Unmeasured, match="not a state dict"):
        inception.load_inception(options, torch.device("cpu"))


def test_a_question_that_gives_nothing_fails(weights, data, tmp_path, monkeypatch, capsys):
    def nothing(*_):
        raise Unmeasured("nobody is here")

    monkeypatch.setattr(cost, "profile", nothing)
    assert run(weights, data, tmp_path, "cost", "locality") == 1
    said = capsys.readouterr().err
    assert "cost: nothing could be measured" in said.splitlines()[-1]
    assert said.count("no backend ran") == 1
    assert "locality" in report_of(tmp_path)["results"]
    assert run(weights, data, tmp_path, "--all") == 0  # nothing was named


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["beauty"], "no question 'beauty': use quality"),
        ([], "name what to measure"),
        (["cost", "--pairs", "0"], "--pairs 0: must be at least 1"),
        (["cost", "--resolution", "2"], "--resolution 2: use 4 to 4096"),
        (["cost", "--chunk-rays", "0"], "--chunk-rays 0: must be at least 1"),
        (["cost", "--truncation", "2"], "--truncation 2: use 0 to 1"),
    ],
)
def test_wrong_options_in_one_line(weights, tmp_path, capsys, arguments, said):
    assert evaluate.main([*arguments, "--checkpoint", str(weights), "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_checkpoint_of_another_grouping(data, tmp_path):
    run_settings = settings()
    model = dataclasses.replace(run_settings.model, group_of_class=(1, *[0] * 18))
    other = dataclasses.replace(run_settings, model=model)
    path = tmp_path / "two-groups.safetensors"
    checkpoint.save_generator(path, Generator(model), other, images=0, ema_decay=None)
    assert run(path, data, tmp_path / "out", "semantics", "inversion", "locality") == 0
    report = report_of(tmp_path / "out")
    assert "own grouping of the classes (2 groups)" in report["notes"][0]
    assert report["notes"][0] in (tmp_path / "out" / "report.md").read_text()
    assert set(report["results"]["locality"]["per_group"]) == {"group 0", "group 1"}
    assert set(report["results"]["inversion"]["per_group"]) == {"group 0", "group 1"}
    assert set(report["results"]["semantics.agreement"]["generated"]["per_group"]) == {
        "group 0", "group 1",
    }  # fmt: skip


@pytest.mark.parametrize("paired", [True, False])
def test_discriminators_of_another_run_are_refused(weights, tmp_path, data, paired):
    run_settings = settings()
    discriminator = dataclasses.replace(run_settings.discriminator, paired=paired)
    run_settings = dataclasses.replace(run_settings, discriminator=discriminator)
    networks = checkpoint.build_discriminators(run_settings)
    copy = tmp_path / weights.name
    shutil.copy(weights, copy)
    beside = checkpoint.discriminators_beside(copy)
    checkpoint.save_discriminators(beside, networks, run_settings, images=0)
    evaluation = opened(copy, tmp_path / "out", data=data, resolution=SIZE)
    pictures.generate_pictures(evaluation, 10)
    found = consistency.pose_accuracy(evaluation)
    assert found["discriminator"] == beside.name and found["generated"]["pictures"] == 10
    assert found["real, estimated poses"]["pictures"] == 10
    with pytest.raises(Unmeasured, match="trained at 8, 16 pixels, not at 32"):
        consistency.pose_accuracy(opened(copy, tmp_path / "out", data=data, resolution=32))
    model = dataclasses.replace(run_settings.model, width=32)
    checkpoint.save_discriminators(
        beside, networks, dataclasses.replace(run_settings, model=model), images=0
    )
    with pytest.raises(Unmeasured, match="another model"):
        consistency.pose_accuracy(evaluation)


def test_other_discriminators_are_measured_anew(weights, tmp_path, data, monkeypatch):
    copy, calls = tmp_path / weights.name, []
    shutil.copy(weights, copy)
    evaluation = opened(copy, tmp_path / "out", data=data, resolution=SIZE)
    for name in ("reprojection", "ground_truth"):
        monkeypatch.setattr(consistency, name, lambda _: {})
    monkeypatch.setattr(consistency, "pose_accuracy", lambda _: calls.append(1) or {})
    beside = checkpoint.discriminators_beside(copy)
    for seed, expected in ((1, 1), (1, 1), (2, 2)):
        torch.manual_seed(seed)
        networks = checkpoint.build_discriminators(settings())
        checkpoint.save_discriminators(beside, networks, settings(), images=0)
        consistency.consistency(evaluation)
        assert len(calls) == expected


def test_cost_runs_profile_in_a_process_of_its_own(weights, tmp_path, monkeypatch):
    monkeypatch.undo()
    evaluation = opened(weights, tmp_path, cost_resolutions=(8,), backend="reference")
    found = cost.measure_cost(evaluation)
    (entry,) = found["timings"]["pictures"]
    assert (entry["resolution"], entry["backend"]) == (8, "reference")
    assert entry["milliseconds"] > 0 and entry["peak_bytes"] > 2**20
    parts = found["parameters"]
    assert parts["total"] == parts["manifolds"] + parts["geometry"] + parts["appearance"]


def test_backends_of_a_device():
    assert cost.usable_backends("cpu", "reference") == ["reference"]
    assert "reference" in cost.usable_backends("cpu", None)
    assert "cuda" not in cost.usable_backends("cpu", None)


@pytest.mark.slow
def test_two_processes_give_the_same_report(weights, data, tmp_path):
    for name, start in (("one", ["-m"]), ("two", ["-m", "torch.distributed.run", "--standalone",
                                                  "--nproc-per-node", "2", "-m"])):  # fmt: skip
        command = [sys.executable, *start, "semfaceedit.evaluate", "quality", "inversion",
                   "--checkpoint", str(weights), "--data", str(data), "--out",
                   str(tmp_path / name), *QUICK, "--pairs", "2"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert report_of(tmp_path / "one") == report_of(tmp_path / "two")
