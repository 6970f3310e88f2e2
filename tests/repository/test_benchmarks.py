"""The GPU suite and its table, run at toy sizes with the native kernels in Triton's place."""

import ast
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from op_problems import film_problem
from support import needs_native

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu_checks  # noqa: E402
import gpu_suite  # noqa: E402
import measuring  # noqa: E402
import roofline  # noqa: E402
import roofline_baselines  # noqa: E402
import roofline_gradients  # noqa: E402
import table  # noqa: E402
import times_table  # noqa: E402
from baselines import NAMES  # noqa: E402
from measuring import Case, Suite  # noqa: E402
from workloads import film_op  # noqa: E402

from semfaceedit.editing.fit_terms import finished  # noqa: E402
from semfaceedit.kernels import resolve  # noqa: E402

pytestmark = [pytest.mark.usefixtures("one_thread"), needs_native]

TOY = gpu_checks.Plan(
    preset="tiny", resolution=8, label_resolution=8, other_resolutions=(4,), points=67, rays=601,
    chunk_rays=24, repeats=2, variants=("cpu fp32",), checked=("cpu fp32",), baselines=NAMES[:2],
)  # fmt: skip
MACHINE = {"device", "torch", "triton", "cuda", "python", "commit", "seed"}


def run(path: Path, plan: gpu_checks.Plan) -> dict:
    suite = Suite(path, torch.device("cpu"), seed=1)
    failures = gpu_suite.run(suite, plan, 1)
    content = json.loads(path.read_text())
    assert failures == 0, [r for r in content["records"] if r["kind"] == "check"]
    return content


def test_every_step_of_the_suite_and_the_table(tmp_path: Path) -> None:
    path = tmp_path / "gpu-toy.json"
    content = run(path, TOY)
    assert content["machine"].keys() >= MACHINE
    records = content["records"]
    kinds = {kind: [r for r in records if r["kind"] == kind] for kind in ("check", "time", "ratio")}
    checked = {(r["op"], r["tensor"]) for r in kinds["check"] if "tensor" in r}
    for check in (("geometry", "output"), ("appearance", "d head_weight"), ("cull", "image"),
                  ("ray_isosurface", "d last_bias"), ("color_composite", "d alpha")):  # fmt: skip
        assert check in checked
    timed = {(r["what"], r["variant"]) for r in kinds["time"]}
    for what in ("render", "render in chunks", "render with cached intersections", "geometry",
                 "appearance", "generator step"):  # fmt: skip
        assert {(what, name) for name in (*TOY.variants, *TOY.baselines)} <= timed, what
    for what in ("recolor one group", "training step", "ray_isosurface", "semantic_composite"):
        assert (what, "cpu fp32") in timed
    whole = next(r for r in kinds["time"] if r["what"] == "render")
    assert whole["floor_share"] == pytest.approx(whole["floor_ms"] / whole["ms"])
    assert whole["tflops_per_s"] == pytest.approx(whole["flops"] / whole["ms"] / 1e9)
    assert all(r["to_eager_amp"] >= r["to_fastest_baseline"] * 0.99 for r in kinds["ratio"])
    assert len(kinds["ratio"]) == 3
    assert [r["layer"] for r in records if r["kind"] == "layer"] == [2, 3]

    assert table.main([str(path)]) == 0
    text = path.with_suffix(".md").read_text()
    assert "| 1 | render 8 | cpu fp32 |" in text and "checks passed" in text
    assert path.with_suffix(".png").stat().st_size > 1000


def test_a_wrong_kernel_is_found(tmp_path: Path) -> None:
    """An op that is off by 1e-4 where the native kernels run, and only there."""

    def wrong(inputs: dict) -> dict:
        native = resolve("film_siren", None, None, inputs["points"]).backend == "cpu"
        return {"output": film_op(1, 1, 1)(inputs)["output"] * (1 + 1e-4 * native)}

    suite = Suite(tmp_path / "a.json", torch.device("cpu"))
    problem = film_problem(9, 3, 8, 2, 1, 1, 4)
    gpu_checks.check(suite, "geometry", film_op(1, 1, 1), problem, "cpu fp32")
    assert suite.failures == 0
    gpu_checks.check(suite, "geometry", wrong, problem, "cpu fp32")
    assert suite.failures >= 1 and not suite.records[-1]["passed"]


@pytest.mark.slow
def test_compiled_baseline_computes_the_same(tmp_path: Path) -> None:
    suite = Suite(tmp_path / "a.json", torch.device("cpu"))
    plan = gpu_checks.Plan(preset="tiny", points=67, rays=9, baselines=NAMES)
    gpu_checks.check_baselines(suite, plan, gpu_checks.problems(plan))
    assert not suite.failures


def test_table_of_pytest_benchmark_and_of_nonsense(tmp_path: Path, capsys) -> None:
    entry = {"group": "render", "name": "a", "extra_info": {
        "cpu_ms": 2.0, "autocast_ms": 8.0, "reference_ms": 6.0, "cpu_gflops": 500.0,
        "cpu_peak_mib": 3.0, "commit": "abc"}}  # fmt: skip
    rows = table.markdown({"benchmarks": [entry]})
    assert (
        "| 1 | render | cpu | 2.000 | 4.00x | 3.00x | 3 | 0.5 |  |" in rows and "commit abc" in rows
    )
    broken = tmp_path / "broken.json"
    broken.write_text("[1]")
    assert table.main([str(broken)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_tables_of_times_are_those_of_the_records() -> None:
    text = times_table.PAGE.read_text()
    assert times_table.MARKED.search(text)
    assert times_table.updated(text) == text, "run benchmarks/times_table.py"


def test_times_table_of_a_gpu_record(tmp_path: Path, capsys, monkeypatch) -> None:
    records = [
        {"kind": "time", "what": "render", "resolution": 256, "variant": variant, "ms": ms}
        for variant, ms in (("triton fp16", 12.5), ("eager AMP", 100.0), ("compile AMP", None))
    ]
    monkeypatch.setattr(times_table, "RESULTS", tmp_path)
    content = {"machine": {"checkpoint": None}, "records": records}
    (tmp_path / "gpu.json").write_text(json.dumps(content))
    page = tmp_path / "page.md"
    page.write_text("A\n<!-- times: gpu.json -->\nold\n<!-- end of times -->\nB\n")
    assert times_table.main(["--page", str(page)]) == 0
    text = page.read_text()
    assert "| `paper`, render at 256² | 12 ms | 100 ms | 8.0 |  |" in text and "old" not in text
    trained = times_table.times_table({**content, "machine": {"checkpoint": "w.safetensors"}})
    assert "| `w.safetensors`, render at 256² |" in trained
    assert text.startswith("A\n") and text.endswith("<!-- end of times -->\nB\n")
    capsys.readouterr()
    (tmp_path / "gpu.json").unlink()
    assert times_table.main(["--page", str(page)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and page.read_text() == text


def test_cases_are_timed_in_turns(tmp_path: Path, monkeypatch) -> None:
    calls = ""

    def case(name: str, broken: bool = False) -> Case:
        def run() -> None:
            nonlocal calls
            calls += name
            if broken:
                raise torch.OutOfMemoryError("no room")

        return Case("thing", name, run, flops=10, about={"resolution": 4, "floor_ms": 1e-9})

    suite = Suite(tmp_path / "a.json", torch.device("cpu"))
    suite.time([case("a"), case("b", broken=True), case("c")], repeats=3)
    assert calls == "aa" + "b" + "cc" + "acacac"
    a, b, c = suite.records
    assert a["repeats"] == c["repeats"] == 3 and a["ms_p20"] <= a["ms"] <= a["ms_p80"]
    assert a["tflops_per_s"] > 0 and 0 < a["floor_share"] < 1 and a["resolution"] == 4
    assert b["out_of_memory"] and "ms" not in b
    monkeypatch.setattr(measuring, "SLOW_MS", 0)
    calls = ""
    suite = Suite(tmp_path / "b.json", torch.device("cpu"))  # the first one knows these cases
    suite.time([case("a"), case("c")], repeats=3)
    assert calls == "aaccac" and suite.records[-1]["repeats"] == 1


def test_resumed_suite_times_what_is_missing(tmp_path: Path) -> None:
    calls: list[str] = []
    cases = [
        Case("render", name, partial(calls.append, name), None, {"resolution": 8}) for name in "ab"
    ]
    path = tmp_path / "gpu.json"
    Suite(path, torch.device("cpu")).time(cases[:1], 1)
    calls.clear()
    suite = Suite(path, torch.device("cpu"))
    suite.resume()
    suite.time(cases, 1)
    assert set(calls) == {"b"}
    assert [record["variant"] for record in suite.records] == ["a", "b"]
    content = json.loads(path.read_text())
    content["machine"]["commit"] = "another"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="commit was another"):
        suite.resume()


def test_counted_work_of_film_siren() -> None:
    """Bytes through L2 by hand, and how many multiplications come on each."""
    stacks = roofline.stacks()
    # Layers but for the first, which has no product; directions; last heads.
    slabs = 4 * stacks["appearance"].layers + 1 + 1
    film = 9 * 256 * 2 * 4
    by_hand = (slabs * (256 + 24) * 64 * 2 + film) / 128 + 4 * (256 + 3 + 3)
    assert roofline.cuda_work(stacks["appearance"], "sm80").l2 == pytest.approx(by_hand)
    slabs = 1 + 4 * stacks["geometry"].layers + 1  # points, other layers, directions
    plain = 1 + 4 * 7  # last heads; wide heads of layers 2 to 7 and of the view layer
    weights = (slabs * (256 + 24) + plain * 256) * 64 * 2
    by_hand = (weights + film) / (4 * 128) + 4 * (3 + 3 + 276) + (6 + 6) * 256 * 2
    assert roofline.cuda_work(stacks["geometry"], "sm90").l2 == pytest.approx(by_hand)
    for architecture, passes in ((80, 2), (89, 3), (90, 2)):  # of 32 columns; of 256, or twice 128
        kib = roofline.triton_work(stacks["geometry"], architecture).l2 * 128 / 1024
        by_hand = 9 * 64 + 8 * (2 * 64 + 128) + 64 + 16 + 141  # of each tile
        by_hand += 7 * (passes * 64 + 288 / 2)
        assert kib == pytest.approx(by_hand, rel=0.03)
    work = roofline.triton_work(stacks["appearance"], 90)
    by_hand = 9 * 64 + 8 * (2 * 64 + 128) + 7 * (64 + 16 / 2) + 131  # no first product
    assert work.l2 * 128 / 1024 == pytest.approx(by_hand, rel=1e-3)
    assert work.matrix == 2 * 256 * (8 * 256 + 7 * 16)


def test_counted_work_of_gradients() -> None:
    stack = roofline.stacks()["appearance"]
    there, back = 4 * 8 + 1, 4 * 8  # layers but for the first, directions; layers
    heads = 6 + 1  # of layers 2 to 7, of the view layer: 3 channels a slab
    slabs, angles = there + back + heads, 9 * 256
    counted = roofline_gradients.gradients_pass(stack, "sm80", weights=False)
    by_hand = (slabs * 256 * 64 * 2 + 2 * angles * 8) / 128  # weights and FiLM of a tile
    by_hand += 2 * angles * 4  # W h
    by_hand += 2 * 4 * (256 + 3 + 3) + 2 * (64 + heads * 64)
    assert counted.chain.l2 == pytest.approx(by_hand)
    inputs = (there - 1 + back) * 64 + 16 + heads * 16
    assert counted.chain.matrix == 2 * 256 * inputs
    assert counted.products.matrix == 0
    counted = roofline_gradients.gradients_pass(stack, "sm80", weights=True)
    assert counted.chain.l2 == pytest.approx(by_hand + 2 * angles * 2)
    assert counted.products.matrix == 2 * 256 * (8 * 256 + 7 * 64)
    assert counted.products.l2 == 2 * (8 * (256 + 2 * 256) + 7 * (64 + 256))
    counted = roofline_gradients.gradients_pass(stack, "sm90", weights=True)
    slabs += 4 * 8 + 4  # W h of these layers; directions, a slab for each 64 columns
    by_hand = slabs * 256 * 64 * 2 / (4 * 128) + 2 * angles * 8 / 128
    by_hand += (angles + angles - 256) * 2 + angles * 2  # activations there and back, deltas
    by_hand += 4 * (3 * (256 + 3) + 2 * 3) + 2 * (64 + heads * 64)
    assert counted.chain.l2 == pytest.approx(by_hand)
    inputs = (there - 1 + back + 4 * 8 + heads) * 64 + 2 * 16
    assert counted.chain.matrix == 2 * 256 * inputs
    table = roofline_gradients.steps()
    for _, render, culled, inversion, training in table:
        assert float(culled) < float(render) < float(inversion) < float(training)


@pytest.mark.parametrize("installed", [None, (3, 6), (3, 9)])
def test_predictions_in_the_documentation_are_those_of_now(
    installed: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever Triton is installed."""
    if installed is not None:
        monkeypatch.setattr(roofline.triton_tiling, "version", lambda: installed)
    text = roofline.PAGE.read_text()
    assert roofline.with_tables(text) == text


def test_each_byte_through_l2_is_used_often_enough() -> None:
    for name, of_block in (("geometry", 75), ("appearance", 95)):  # of a block of 128
        stack = roofline.stacks()[name]
        assert roofline.cuda_work(stack, "sm80").intensity >= of_block, name
        assert roofline.cuda_work(stack, "sm90").intensity >= 128, name


def test_predictions() -> None:
    for gpu in roofline.GPUS.values():
        for stack in roofline.stacks().values():
            triton, cuda = (
                roofline.predict(work, 10**6, gpu, kernel)
                for kernel, work in roofline.works(stack, gpu).items()
            )
            assert cuda.total < triton.total
            assert triton.total == pytest.approx(triton.matrix + triton.epilogue + triton.l2)
    assert roofline.Prediction(3.0, 2.0, 1.0, "L2").total == 5.0
    assert roofline.Prediction(3.0, 2.0, 4.0, "L2, sines").total == 4.0


# Milliseconds that a picture of `paper` at 256x256 should take: all points, those that --cull 1e-4
# leaves, a step of training.
TARGETS = {"RTX 4090": (45.0,), "H100": (8.0, 4.5, 40.0), "H200": (8.0, 4.5, 40.0)}


def test_predicted_times_are_within_the_targets() -> None:
    """What is asked of a real GPU must be possible by the data sheet, at the least."""
    for name, render, culled, _, training in roofline_gradients.steps():
        times = (float(render), float(culled), float(training))
        for time, target in zip(times, TARGETS.get(name, ()), strict=False):
            assert time <= target, name


def test_what_plain_pytorch_moves_is_counted() -> None:
    """By hand: a stack of two layers of 8 units, 4 inputs, 5 channels, the first of the trunk."""
    stack = roofline.Stack(inputs=4, width=8, layers=2, groups=1, channels=5, trunk=1)
    half, single = 2 * 8, 4 * 8  # bytes of a layer
    sine = (half + single) + 2 * single + 2 * single  # times, plus, sine
    rounded = single + half
    first = 4 * (4 + 2) + (4 * 2 + half) + sine
    second = rounded + 2 * half + sine
    joined = 4 * (3 + 8)
    view = 2 * joined + (joined + joined // 2) + (joined // 2 + half) + sine
    heads = 2 * rounded + (half + 2) + (half + 2 * 4)  # each rounds what it reads
    output = 2 * (2 * 5) + 2 * (2 * 5)  # joined, added to nothing
    trace = roofline_baselines.traced(stack, gradients=False)
    assert sum(o.bytes for o in trace.operations) == first + second + view + heads + output
    flops = 2 * (4 * 8 + 8 * 8 + 11 * 8 + 8 * 5)
    assert sum(o.flops for o in trace.operations) == flops
    made = 3 * half + 2 * 5  # by products; each is read once
    assert trace.between == made + 2 * 4 + half + joined // 2 + 2 * half  # and what they take
    training = roofline_baselines.traced(stack, gradients=True)
    assert sum(o.flops for o in training.operations) == 3 * flops


def test_plain_pytorch_takes_longer_by_what_is_asked() -> None:
    """2 times where it is compiled, 5 eager, 3 in training: by the data sheet on both sides."""
    for name, _, _, render, _, _, step in roofline_baselines.lines():
        if name in ("H100", "H200"):
            eager, compiled = map(float, render.split(", "))
            assert eager >= 5, name
            assert compiled >= 2, name
            assert float(step.split(", ")[0]) >= 3, name


FITTING = ("benchmarks/*.py", "tools/*.py", "semfaceedit/evaluation/*.py")
FITS = {"edit", "invert", "transfer"}


def test_no_measurement_goes_on_with_half_a_fit() -> None:
    """Ctrl-C ends a fit with the best so far: what measures or draws it asks `finished`."""
    root, unasked, asked = BENCHMARKS.parent, [], 0
    for path in (path for pattern in FITTING for path in sorted(root.glob(pattern))):
        tree = ast.parse(path.read_text())
        within = [
            c.args for c in ast.walk(tree) if isinstance(c, ast.Call) and _called(c) == "finished"
        ]
        direct = {id(args[0]) for args in within if args}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and _called(call) in FITS:
                asked += id(call) in direct
                if id(call) not in direct:
                    unasked.append(f"{path.name}:{call.lineno}")
    assert unasked == [] and asked > 10


def _called(call: ast.Call) -> str:
    """The function, or the method of an `editor`, that is called."""
    if isinstance(call.func, ast.Name):
        return call.func.id
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    return call.func.attr if isinstance(owner, ast.Name) and owner.id == "editor" else ""


def test_half_a_fit_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        finished(SimpleNamespace(interrupted=True))
    whole = SimpleNamespace(interrupted=False)
    assert finished(whole) is whole
