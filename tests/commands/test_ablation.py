"""The ablations: their settings, one command that trains and resumes, and the tables."""

import json
from dataclasses import replace

import pytest
from training import drawn_faces

from semfaceedit.errors import UserError
from semfaceedit.evaluation import ablation
from semfaceedit.evaluation.ablation import DEPTH, VARIANTS, AblationOptions, ablate, settings
from semfaceedit.model.generator import Generator, count_parameters
from semfaceedit.training.trainer import Trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "drawn"
    drawn_faces(folder, count=40, resolution=32)
    return folder


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("semfaceedit.evaluation.pictures.PIECE", 8)


def test_every_variant_sees_the_same_number_of_images():
    options = AblationOptions(preset="small", images=5000)
    for name, variant in VARIANTS.items():
        train = settings(options, variant).train
        assert train.stage1_iterations * 8 <= 5000
        total = 8 * (train.stage1_iterations + train.stage2_iterations)
        assert total == (4000 if name == "stage1" else 5000)
        assert (train.stage2_iterations == 0) == (name in ("stage1", "single-stage"))


def test_variants_differ_in_what_they_are_named_after():
    found = {name: settings(AblationOptions(), variant).model for name, variant in VARIANTS.items()}
    assert found["unshared"].sharing == "none" and found["shared"].sharing == "all"
    for name, depth in (("depth4", 4), ("depth6", 6), ("proposed", DEPTH)):
        assert found[name].geometry_depth == found[name].appearance_depth == depth
    sizes = {name: count_parameters(Generator(model)) for name, model in found.items()}
    assert sizes["shared"] < sizes["proposed"] < sizes["unshared"]
    assert sizes["depth4"] < sizes["depth6"] < sizes["proposed"] == sizes["single-stage"]


def test_counts_at_the_papers_size():
    counts = {name: ablation._paper_parameters(v.paper) for name, v in VARIANTS.items()}
    assert counts["proposed"] == 8_780_641
    for name, millions in (("unshared", 10.36), ("shared", 8.565), ("depth4", 5.327)):
        assert round(counts[name] / 1e6, 3) == millions


def quick(out, data, **changes) -> AblationOptions:
    settings = {"preset": "tiny", "images": 32, "count": 8, "parser_steps": 2}
    return AblationOptions(out=out, data=data, **(settings | changes))


def test_an_ablation_that_was_stopped_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "VARIANTS", {k: VARIANTS[k] for k in ("proposed", "depth4")})
    options = quick(tmp_path / "part", data, variants=("proposed", "depth4"))
    original, steps = Trainer.step, []

    def killed(self, faces):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(self.completed)
        return original(self, faces)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            ablate(options)
    assert steps == [0, 1, 2, 3, 4]
    resumed = []

    def watched(self, faces):
        resumed.append(self.completed)
        return original(self, faces)

    monkeypatch.setattr(Trainer, "step", watched)
    ablate(options)
    assert resumed == [5, 6, 7, *range(8)]  # the last checkpoint was after step 5
    resumed.clear()
    ablate(options)
    assert not resumed
    whole = quick(tmp_path / "whole", data, variants=("proposed",))
    ablate(whole)
    row, again = (
        json.loads((o.out / "ablation.json").read_text())["variants"]["proposed"]
        for o in (options, whole)
    )
    assert row == again
    assert row["paper_parameters"] == 8_780_641 and row["SWD x 1000"]["mean"] > 0
    text = (options.out / "ablation.md").read_text()
    assert "## Table 3: depth of both modules" in text and "| depth 4 |" in text
    assert f"{row['parameters']:,}" in text


def test_a_variant_that_is_half_measured_is_measured_again(data, tmp_path, monkeypatch):
    options = quick(tmp_path, data, variants=("stage1",))
    report = tmp_path / "measured" / "stage1-seed0" / "report.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"results": {"quality.sliced_wasserstein": {}}}))
    measured = []
    monkeypatch.setattr(ablation, "trained", lambda *_: tmp_path)
    monkeypatch.setattr(ablation, "measure_run", lambda _, name, *__: measured.append(name))
    ablate(options)
    assert measured == ["stage1"]
    assert json.loads((tmp_path / "ablation.json").read_text())["variants"] == {}


def test_other_settings_in_the_same_folder_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "measure_run", lambda *_: None)
    monkeypatch.setattr(ablation, "write_tables", lambda *_: None)
    ablate(quick(tmp_path, data, variants=("stage1",)))
    with pytest.raises(UserError, match="a run with other settings"):
        ablate(quick(tmp_path, data, variants=("stage1",), images=64))


def test_other_data_in_the_same_folder_is_refused(data, tmp_path, monkeypatch):
    for name in ("trained", "measure_run", "write_tables"):
        monkeypatch.setattr(ablation, name, lambda *_: None)
    drawn_faces(tmp_path / "other", count=41, resolution=32)
    options = quick(tmp_path / "out", data, variants=("stage1",))
    ablate(quick(options.out, tmp_path / "other"))  # nothing was trained on them
    ablate(options)
    run = options.out / "runs" / "stage1-seed0" / "00000-tiny" / "config.json"
    run.parent.mkdir(parents=True)
    wanted = settings(options, VARIANTS["stage1"])
    run.write_text(json.dumps(ablation.plain_config(wanted)))
    ablate(options)
    for name in ("stage1", "depth4"):
        with pytest.raises(UserError, match="runs on other data: give the same --data"):
            ablate(quick(options.out, tmp_path / "other", variants=(name,)))
    with pytest.raises(UserError, match="a run with other settings"):
        ablate(quick(options.out, data, variants=("depth4",), images=64))


def test_what_a_variant_is_measured_on_can_change(data, tmp_path, monkeypatch, capsys):
    options = quick(tmp_path, data, variants=("stage1",))

    def written() -> dict:
        return json.loads((tmp_path / "ablation.json").read_text())["variants"]["stage1"]

    ablate(options)
    before = written()
    monkeypatch.setattr(ablation, "train", None)
    more = replace(options, count=10)
    assert ablation.row(more, "stage1", [0]) is None
    assert "stage1, seed 0: measured with other settings" in capsys.readouterr().err
    ablate(more)
    after = written()
    assert before["images"] == after["images"] and before["leakage"] == after["leakage"]
    assert before["SWD x 1000"] != after["SWD x 1000"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"variants": ("deep",)}, "--variants deep"), ({"images": 2}, "--images 2")],
)
def test_wrong_options(data, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        ablate(quick(tmp_path, data, **changes))
