"""torch.compile(fullgraph=True) traces every op, forward and backward, to the same values.

The Triton ops are compiled the same way in `triton_cases.py`, where they can run.
"""

from collections.abc import Callable

import pytest
import test_film_siren
import test_ray_isosurface
import test_semantic_composite
import torch
from comparison import assert_identical, values_and_gradients
from support import needs_native
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from semfaceedit.kernels import (
    FieldWeights,
    FilmSirenWeights,
    _backend,
    color_composite,
    film_siren,
    ray_isosurface,
    semantic_composite,
    use_backend,
)

pytestmark = pytest.mark.usefixtures("one_thread")

Inputs = dict[str, Tensor]
Function = Callable[[Inputs], dict[str, Tensor]]

FIELD = (9, 5, 16, 17, 3)  # rays, hits, samples, width, layers


def stack_case(backend: str) -> tuple[Function, Inputs]:
    inputs, *rows = test_film_siren.problem((37, 3, 16, 3, 4, 2, 9))
    return test_film_siren.call(*rows, backend), inputs


def stack_case_without_first_product(backend: str) -> tuple[Function, Inputs]:
    inputs, *rows = test_film_siren.problem((37, 0, 16, 3, 4, 2, 9))
    return test_film_siren.call(*rows, backend), inputs


def field_case(backend: str) -> tuple[Function, Inputs]:
    return test_ray_isosurface.call(FIELD, backend), test_ray_isosurface.problem(FIELD)


def semantic_case(backend: str) -> tuple[Function, Inputs]:
    inputs = test_semantic_composite.problem((7, 5, 6))
    del inputs["depths"]
    return test_semantic_composite.semantic(backend), inputs


def color_case(backend: str) -> tuple[Function, Inputs]:
    return test_semantic_composite.color(backend), test_semantic_composite.problem((7, 5, 3))


CASES = {
    "film_siren": stack_case,
    "film_siren, no first product": stack_case_without_first_product,
    "ray_isosurface": field_case,
    "semantic_composite": semantic_case,
    "color_composite": color_case,
}


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> None:
    torch.compiler.reset()


def compiled(function: Function, compiler: str = "aot_eager") -> Function:
    return torch.compile(function, fullgraph=True, backend=compiler)


@needs_native
@pytest.mark.parametrize("wanted", [[], None], ids=["forward", "with gradients"])
@pytest.mark.parametrize("name", CASES)
def test_native_op(name: str, wanted: list[str] | None) -> None:
    function, inputs = CASES[name]("cpu")
    eager = values_and_gradients(function, inputs, torch.float32, wanted)
    traced = values_and_gradients(compiled(function), inputs, torch.float32, wanted)
    floats = [key for key in eager if eager[key].is_floating_point()]
    assert_identical({key: eager[key] for key in floats}, traced)


@needs_native
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_native_op_through_inductor(name: str) -> None:
    function, inputs = CASES[name]("cpu")
    eager = values_and_gradients(function, inputs, torch.float32)
    traced = values_and_gradients(compiled(function, "inductor"), inputs, torch.float32)
    for key, value in eager.items():
        torch.testing.assert_close(traced[key], value)


@pytest.mark.parametrize("name", [name for name in CASES if "film_siren" not in name])
def test_reference(name: str) -> None:
    """That of film_siren splits the points by numbers in a tensor: no graph holds that."""
    function, inputs = CASES[name]("reference")
    eager = values_and_gradients(function, inputs, torch.float32)
    traced = values_and_gradients(compiled(function), inputs, torch.float32)
    for key, value in eager.items():
        torch.testing.assert_close(traced[key], value)


@needs_native
def test_another_choice_compiles_again() -> None:
    def masked(inputs: Inputs) -> dict[str, Tensor]:
        labels, mixed = semantic_composite(inputs["alpha"], inputs["values"])
        return {"map": mixed}

    _, inputs = semantic_case("cpu")
    graphs = []

    def record(graph: torch.fx.GraphModule, _: object) -> Callable:
        graphs.append("semantic_forward_cpu" in graph.code)
        return graph.forward

    traced = torch.compile(masked, fullgraph=True, backend=record)
    for backend, native in (("cpu", True), ("reference", False), ("cpu", True)):
        with use_backend(backend):
            traced(inputs)
        assert graphs[-1] is native or len(graphs) == 2
    assert graphs == [True, False]


def test_what_was_asked_for_by_name_is_still_refused() -> None:
    function, inputs = semantic_case("triton")
    with pytest.raises(Exception, match="needs cuda tensors"):
        compiled(function)(inputs)


FAKE_CUDA = {
    "film_siren": lambda t: film_siren(
        *t[:4], torch.zeros(5, dtype=torch.int64, device="cuda"),
        torch.zeros(4, dtype=torch.int64, device="cuda"), FilmSirenWeights(*t[4:]),
    ),
    "ray_isosurface": lambda t: ray_isosurface(
        *t[:2], torch.zeros(4, device="cuda"), FieldWeights(*t[2:]), centre=(0, 0, 0), scale=1.0,
        near=0.0, far=1.0, samples=16, plane_z=0.0,
    ).depths,
    "semantic_composite": lambda t: semantic_composite(*t)[1],
    "color_composite": lambda t: color_composite(*t)[0],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_triton_forward_traces_for_a_gpu_that_is_not_there(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fake CUDA tensors through the public functions, with what `auto` chooses."""
    monkeypatch.setattr(_backend, "unavailable", lambda op, backend, device: None)
    monkeypatch.setattr(_backend, "AUTO_ORDER", {"cuda": ("triton",)})
    _, inputs = CASES[name]("reference")
    with FakeTensorMode(), torch.no_grad():
        tensors = [torch.empty(tensor.shape, device="cuda") for tensor in inputs.values()]
        function = FAKE_CUDA[name.partition(",")[0]]
        graph, output = make_fx(function)(tensors), function(tensors)
    assert output.device.type == "cuda"
    assert f"{name.split('_')[0]}_" in graph.code and "forward_triton" in graph.code
