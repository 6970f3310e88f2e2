"""Which backend runs, and that the native module behaves as part of a process."""

import functools
import logging
import os
import subprocess
import sys
import textwrap
import threading
from types import ModuleType, SimpleNamespace

import pytest
import torch
from comparison import assert_identical
from support import needs_native, use_threads
from torch import Tensor

from semfaceedit.kernels import (
    BACKENDS,
    OPS,
    _backend,
    _extension,
    _triton,
    available_backends,
    film_siren_cpu,
    resolve,
    semantic_composite,
    use_backend,
)

OP = "semantic_composite"
CPU = torch.zeros(1)
META_CUDA = CPU.to("meta")  # neither CPU nor CUDA


def offered(monkeypatch: pytest.MonkeyPatch, **reasons: str | None) -> None:
    """Pretend that a backend is there (None) or is missing for the reason given."""
    module = ModuleType("fake")
    module.PRECISIONS = ("fp32", "fast")  # type: ignore[attr-defined]
    monkeypatch.setattr(_backend, "unavailable", lambda op, backend, device: reasons.get(backend))
    monkeypatch.setattr(_backend, "implementation", lambda op, backend: module)
    _backend._log_once.cache_clear()
    for name in ("SEMFACEEDIT_BACKEND", "SEMFACEEDIT_PRECISION"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "argument, context, environment, wanted",
    [
        (None, None, None, "cpu"),
        (None, None, "reference", "reference"),
        (None, "cpu", "reference", "cpu"),
        ("reference", "cpu", "cpu", "reference"),
        ("auto", "reference", None, "cpu"),
        (None, None, "auto", "cpu"),
        (None, "reference", None, "reference"),
    ],
)
def test_order_of_choice(
    monkeypatch: pytest.MonkeyPatch,
    argument: str | None,
    context: str | None,
    environment: str | None,
    wanted: str,
) -> None:
    offered(monkeypatch, cpu=None)
    if environment is not None:
        monkeypatch.setenv("SEMFACEEDIT_BACKEND", environment)
    with use_backend(context):
        assert resolve(OP, argument, None, CPU).backend == wanted


def test_precision_is_chosen_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, cpu=None)
    assert resolve(OP, None, None, CPU).precision == "fp32"
    monkeypatch.setenv("SEMFACEEDIT_PRECISION", "fast")
    assert resolve(OP, None, None, CPU).precision == "fast"
    with use_backend(precision="fp32"):
        assert resolve(OP, None, None, CPU).precision == "fp32"
        assert resolve(OP, None, "fast", CPU).precision == "fast"


def test_a_preferred_precision_yields_to_all_that_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, cpu=None)
    with use_backend(preferred="fast"):
        assert resolve(OP, None, None, CPU) == _backend.Choice("cpu", "fast")
        assert resolve(OP, "reference", None, CPU).precision == "fp32"  # which has no `fast`
        assert resolve(OP, None, "fp32", CPU).precision == "fp32"
        with use_backend(precision="fp32"):
            assert resolve(OP, None, None, CPU).precision == "fp32"
        with use_backend("cpu"):
            assert resolve(OP, None, None, CPU).precision == "fast"
        monkeypatch.setenv("SEMFACEEDIT_PRECISION", "fp32")
        assert resolve(OP, None, None, CPU).precision == "fp32"
    with use_backend(precision="fp32"), use_backend(preferred="fast"):
        assert resolve(OP, None, None, CPU).precision == "fp32"
    monkeypatch.delenv("SEMFACEEDIT_PRECISION")
    assert resolve(OP, None, None, CPU).precision == "fp32"
    with pytest.raises(ValueError, match="unknown precision"), use_backend(preferred="quick"):
        pass


def test_a_preferred_precision_that_gains_nothing_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered(monkeypatch, cpu=None)
    module = _backend.implementation(OP, "cpu")
    monkeypatch.setattr(module, "gains_nothing", lambda name: name == "fast", raising=False)
    with use_backend(preferred="fast"):
        assert resolve(OP, None, None, CPU).precision == "fp32"
    with use_backend(precision="fast"):
        assert resolve(OP, None, None, CPU).precision == "fast"


@needs_native
@pytest.mark.parametrize("isa", ["amx", "avx512_bf16"])
@pytest.mark.parametrize("intel", [True, False])
def test_bf16_pays_with_amx_and_on_amd(
    monkeypatch: pytest.MonkeyPatch, isa: str, intel: bool
) -> None:
    monkeypatch.setattr(film_siren_cpu, "_is_intel", lambda: intel)
    monkeypatch.setattr(film_siren_cpu, "native", lambda: SimpleNamespace(isa=lambda: isa))
    assert film_siren_cpu.gains_nothing("fast") == (intel and isa == "avx512_bf16")
    assert not film_siren_cpu.gains_nothing("fp32")


def test_nested_choices_keep_what_they_do_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, cpu=None)
    with use_backend("cpu", "fast"):
        with use_backend(precision="fp32"):
            assert resolve(OP, None, None, CPU) == _backend.Choice("cpu", "fp32")
        assert resolve(OP, None, None, CPU) == _backend.Choice("cpu", "fast")


@pytest.mark.parametrize(
    "backend, precision, tensor, message",
    [
        ("cpu", None, CPU, "no kernels here"),
        ("cuda", None, CPU, "needs cuda tensors, got cpu"),
        ("triton", None, CPU, "needs cuda tensors, got cpu"),
        ("reference", "fast", CPU, "'fast' is not among its precisions fp32, fp16"),
    ],
)
def test_explicit_choice_never_falls_back(
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    precision: str | None,
    tensor: Tensor,
    message: str,
) -> None:
    offered(monkeypatch, cpu="no kernels here")
    with pytest.raises(RuntimeError, match=message):
        resolve(OP, backend, precision, tensor)
    monkeypatch.setenv("SEMFACEEDIT_BACKEND", backend)
    with pytest.raises(RuntimeError, match=message):
        resolve(OP, None, precision, tensor)


def test_auto_falls_back_and_says_why_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offered(monkeypatch, cpu="no kernels here")
    with caplog.at_level(logging.INFO, logger="semfaceedit.kernels"):
        for _ in range(3):
            assert resolve(OP, None, None, CPU).backend == "reference"
    assert caplog.messages == [f"{OP}: not using backend 'cpu': no kernels here"]


def test_other_types_and_devices_run_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, cpu=None)
    assert resolve(OP, None, None, CPU.double()).backend == "reference"
    assert resolve(OP, None, None, META_CUDA).backend == "reference"
    with pytest.raises(RuntimeError, match="takes float32 tensors, got torch.float64"):
        resolve(OP, "cpu", None, CPU.double())


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown backend 'gpu'"):
        resolve(OP, "gpu", None, CPU)
    with pytest.raises(ValueError, match="unknown precision 'fp8'"), use_backend(precision="fp8"):
        pass


def test_every_backend_is_listed() -> None:
    table = available_backends()
    assert set(table) == set(BACKENDS)
    for backend, reasons in table.items():
        assert set(reasons) == set(OPS), backend
    assert not any(table["reference"].values())


def test_missing_module_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "semfaceedit._C", None)
    module, reason = _extension.load.__wrapped__()
    assert module is None
    assert reason is not None and "pip install" in reason


@needs_native
def test_instruction_set_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    native = _extension.native()
    before = native.isa()
    try:
        for isa in native.isas():
            monkeypatch.setenv("SEMFACEEDIT_CPU_ISA", isa)
            assert _extension.load.__wrapped__() == (native, None)
            assert native.isa() == isa
        monkeypatch.setenv("SEMFACEEDIT_CPU_ISA", "mmx")
        assert "this CPU offers" in _extension.load.__wrapped__()[1]
    finally:
        native.set_isa(before)


def run(script: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@needs_native
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, forks")
def test_in_a_process_of_its_own() -> None:
    """Importing loads nothing native; then one OpenMP runtime serves both; a fork computes on."""
    loaded, runtimes, forked = run(
        """
        import os
        import sys
        import torch
        from semfaceedit.kernels import available_backends, semantic_composite
        print([name for name in ("semfaceedit._C", "triton") if name in sys.modules])
        available_backends()
        libraries = {line.split()[-1] for line in open("/proc/self/maps") if "omp" in line}
        print(len({path for path in libraries if "libgomp" in path or "libomp" in path}))
        torch.set_num_threads(2)
        alpha, semantics = torch.rand(5000, 9), torch.rand(5000, 9, 19)
        before = semantic_composite(alpha, semantics, backend="cpu")[1]
        child = os.fork()
        if child == 0:
            after = semantic_composite(alpha, semantics, backend="cpu")[1]
            os._exit(0 if bytes(after.numpy()) == bytes(before.numpy()) else 1)
        print(os.waitpid(child, 0)[1])
        """
    ).splitlines()
    assert loaded == "[]" and runtimes == "1" and forked == "0"


@needs_native
def test_several_python_threads() -> None:
    alpha, semantics = torch.rand(3000, 9), torch.rand(3000, 9, 19)
    wanted = semantic_composite(alpha, semantics, backend="cpu")[1]
    results: list[Tensor] = []

    def work() -> None:
        for _ in range(10):
            results.append(semantic_composite(alpha, semantics, backend="cpu")[1])

    with use_threads(2):
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(results) == 40
    for result in results:
        assert_identical({"map": wanted}, {"map": result})


def test_the_switch_for_tf32_is_read_in_its_old_and_its_new_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_backend, "_precisions", lambda *_: ("fp32", "tf32", "fp16"))
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for name, value, expected in (
            ("allow_tf32", True, "tf32"),
            ("allow_tf32", False, "fp32"),
            ("fp32_precision", "tf32", "tf32"),
            ("fp32_precision", "ieee", "fp32"),
        ):
            setattr(matmul, name, value)
            assert _backend._auto_precision(OP, "triton", "cuda") == expected, (name, value)
    finally:
        matmul.fp32_precision = before


def test_each_gpu_is_asked_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    capabilities = [(9, 0), (7, 5), (10, 3)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device])
    _triton.unavailable.cache_clear()
    _backend.unavailable.cache_clear()
    try:
        choose = functools.partial(_backend._choose, "film_siren", None, None, "cuda")
        assert choose(0, torch.float32).backend == "triton"
        for index in (1, 2):
            assert choose(index, torch.float32).backend == "reference"
        reason = _backend.unavailable("film_siren", "triton", 2)
        assert reason is not None and "GPU 2 has compute capability 10.3" in reason
    finally:
        _triton.unavailable.cache_clear()
        _backend.unavailable.cache_clear()
