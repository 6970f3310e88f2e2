"""profile and floors: work counted by hand and by PyTorch, floors, JSON fields and traces."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from support import isas, needs_native, use_isa
from torch.utils.flop_counter import FlopCounterMode

from semfaceedit import profile
from semfaceedit.errors import UserError
from semfaceedit.evaluation import roofline as floors
from semfaceedit.evaluation.stage_times import time_stages
from semfaceedit.kernels import _extension, cpu_peaks, use_backend
from semfaceedit.model import config
from semfaceedit.model.generator import Generator, sample_latents
from semfaceedit.model.rays import camera_rays
from semfaceedit.model.renderer import STAGES, render, stage_clock

pytestmark = pytest.mark.usefixtures("one_thread")


def test_work_of_the_paper_by_hand() -> None:
    """256 x 256 rays with 24 hits of 64 samples: 4.88 TFLOP in both modules, 0.28 before them."""
    work = floors.stage_work(config.paper().model, 256 * 256)
    points = 256 * 256 * 24  # each evaluated by both modules: 3.14 M samples
    assert 2 * points == 3_145_728
    trunk = 7 * 256 * 256 + (3 + 256) * 256
    geometry = 3 * 256 + trunk + 7 * 256 * (1 + 19 + 256)
    appearance = trunk + 7 * 256 * 3  # its first product is in the heads of the descriptor
    fold = 7 * 256 * 256 * (256 + 1)
    assert work["geometry"].flops == 2 * (points * geometry + fold)
    assert work["appearance"].flops == 2 * points * appearance
    assert work["geometry"].flops + work["appearance"].flops == pytest.approx(4.88e12, rel=1e-3)
    predictor = 3 * 128 + 2 * 128 * 128 + 128
    assert work["manifolds"].flops == 2 * 256 * 256 * 64 * predictor
    assert work["manifolds"].flops == pytest.approx(0.28e12, rel=5e-3)
    assert work["geometry"].sines == work["appearance"].sines == points * 256 * 9
    assert work["masking"].bytes == points * (20 * 4 + 8) + 65536 * 19 * 4
    weights = 4 * 128 + 2 * 129 * 128 + 129
    assert work["manifolds"].bytes == 65536 * 32 + points * 29 + 4 * weights


@needs_native
def test_peaks_are_of_the_units_in_use() -> None:
    """A precision each that the instructions offer; wider vectors are faster."""
    with use_isa("portable"):
        portable = cpu_peaks()
    best = cpu_peaks()
    assert set(portable) == {"fp32"} and set(best) == set(
        _extension.native().film_siren_precisions()
    )
    for products, sines in [*portable.values(), *best.values()]:
        assert 1e8 < sines < products
    if set(isas()) > {"portable"}:
        assert best["fp32"][0] > 1.5 * portable["fp32"][0]


@torch.no_grad()
@pytest.mark.parametrize("preset", ["tiny", "paper-shared", "paper-unshared"])
def test_work_is_what_pytorch_counts(preset: str) -> None:
    model = config.preset(preset).model
    generator = Generator(model)
    codes = generator.map(*sample_latents(model, 1))
    counted = dict.fromkeys(STAGES, 0)

    @contextmanager
    def count(stage: str) -> Iterator[None]:
        with FlopCounterMode(display=False) as counter:
            yield
        counted[stage] += counter.get_total_flops()

    pose = torch.zeros(1, 2)
    with use_backend("reference"), stage_clock(count):
        render(generator, codes, pose, 8, chunk_rays=40)
    if model.sharing != "none":  # twice, for 64 rays in two chunks
        counted["geometry"] -= floors.fold_flops(model.width, model.geometry_depth)
    points = int(generator.manifolds(camera_rays(pose, 8, model.camera)).valid.sum())
    work = floors.stage_work(model, 64, points)
    for stage in ("manifolds", "geometry", "appearance"):
        assert counted[stage] == work[stage].flops > 0, stage


def test_weights_are_counted_once() -> None:
    for preset in ("paper", "paper-shared", "paper-unshared"):
        model = config.preset(preset).model
        generator = Generator(model)
        work, none = (floors.stage_work(model, rays) for rays in (1, 0))
        for stage, module in (
            ("manifolds", generator.manifolds),
            ("geometry", generator.geometry.stack),
            ("appearance", generator.appearance.stacks),
        ):
            held = 4 * sum(parameter.numel() for parameter in module.parameters())
            assert none[stage].bytes == held < work[stage].bytes


def test_floor_is_the_slower_of_products_and_memory() -> None:
    peaks = floors.device_peaks("NVIDIA H200")
    assert peaks is not None and floors.device_peaks("Abacus 9000") is None
    products, memory = floors.Work(989 * 10**9, 1), floors.Work(1, 4800 * 10**6)
    assert peaks.floor_ms("geometry", products, "fp16") == pytest.approx(1.0)
    assert peaks.floor_ms("geometry", products, "tf32") == pytest.approx(989 / 495)
    assert peaks.floor_ms("manifolds", products, "fp16") == pytest.approx(989 / 165)
    assert peaks.floor_ms("masking", memory, "fp16") == pytest.approx(1.0)
    sines = floors.Peaks({"fp32": 1e12, "fast": 2e12}, 1e12, "", {"fp32": 1e9, "fast": 4e9})
    work = floors.Work(10**9, 1, 4 * 10**6)
    assert sines.floor_ms("geometry", work, "fp32") == pytest.approx(4.0)
    assert sines.floor_ms("geometry", work, "fast") == pytest.approx(1.0)
    names = [floors.device_peaks(name) for name in ("NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3")]
    assert [peaks.bandwidth / 1e9 for peaks in names if peaks] == [2000, 3350]


def test_profile_json_and_trace(capsys, tmp_path) -> None:
    trace = tmp_path / "deep" / "trace.json"
    arguments = ["--preset", "tiny", "--resolution", "8", "--repeats", "1", "--device", "cpu"]
    more = ["--backend", "reference", "--precision", "fp32", "--json", "--trace", str(trace)]
    assert profile.main([*arguments, *more]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["choices"]["film_siren"] == "reference, fp32"
    assert facts["peaks"]["source"].startswith("measured in this run")
    assert 0 < facts["evaluated_points"] <= facts["points"]
    for stage in facts["stages"]:
        assert stage["share"] == pytest.approx(stage["ms"] / facts["total_ms"])
        assert stage["floor_share"] == pytest.approx(stage["floor_ms"] / stage["ms"])
    assert facts["floor_ms"] == pytest.approx(sum(s["floor_ms"] for s in facts["stages"]))
    events = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert set(STAGES) <= events


def test_profile_as_a_table(capsys) -> None:
    arguments = ["--preset", "tiny", "--resolution", "8", "--repeats", "1", "--device", "cpu"]
    assert profile.main(arguments) == 0
    text = capsys.readouterr().out
    assert all(stage in text for stage in STAGES) and "triad" in text and "TFLOP/s" in text
    model = config.tiny().model
    torch.manual_seed(0)
    rays = camera_rays(torch.zeros(1, 2), 8, model.camera)
    met = int(Generator(model).manifolds(rays).valid.sum())
    share = (met - 64) / (64 * 4)
    assert f"320 points, of which {met} are met and evaluated ({share:.0%} of those on iso-" in text


@torch.no_grad()
def test_paper_renders_its_manifolds() -> None:
    """Seven of eight points of the 3.14M-sample render are met, as by exact spheres."""
    model = config.paper().model
    torch.manual_seed(0)
    rays = camera_rays(torch.zeros(1, 2), 32, model.camera)
    met = int(Generator(model).manifolds(rays).valid.sum()) - 32**2  # without the plane
    assert 0.86 < met / (32**2 * 23) < 0.9


def test_a_render_of_the_plane_alone_is_not_timed() -> None:
    generator = Generator(config.tiny().model)
    with torch.no_grad():
        generator.manifolds.last_bias.fill_(-1000.0)
    with pytest.raises(UserError, match="no ray meets one of the 4 iso-surfaces"):
        time_stages(generator, 8, repeats=1, chunk_rays=None)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--resolution=-4", "--resolution -4: use 4 to 4096"),
        ("--resolution=0", "--resolution 0: use 4 to 4096"),
        ("--chunk-rays=0", "--chunk-rays 0: must be at least 1"),
        ("--repeats=0", "--repeats 0: must be at least 1"),
    ],
)
def test_wrong_options_in_one_line(capsys, argument, said) -> None:
    assert profile.main(["--preset", "tiny", "--device", "cpu", argument]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
