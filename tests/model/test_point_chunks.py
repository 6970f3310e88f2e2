"""Points a part at a time: the same bits, and memory that holds wide rows of a part alone."""

from typing import Any

import pytest
import torch
from generators import draw, tiny_generator
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from semfaceedit.model import appearance, config, point_chunks
from semfaceedit.model.generator import Generator
from semfaceedit.model.renderer import find_intersections, render


class PeakBytes(TorchDispatchMode):
    """The most bytes of tensors made within the block at a time, but for what an op uses inside."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        result = function(*arguments, **(named or {}))
        self._alive = {ref: size for ref, size in self._alive.items() if not ref.expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._alive[StorageWeakRef(storage)] = storage.nbytes()
        self.peak = max(self.peak, sum(self._alive.values()))
        return result


@pytest.mark.parametrize("sharing", ["proposed", "none", "all"])
@pytest.mark.parametrize("chunk", [1, 100, 257])
def test_chunks_change_no_bit(monkeypatch, sharing, chunk):
    generator = tiny_generator(sharing=sharing).float()
    shape, looks, pose = (tensor.float() for tensor in draw(generator, 2))
    resolution = 2 if chunk == 1 else 8
    with torch.no_grad():
        whole = generator(shape, looks, pose, resolution=resolution)
        calls = []
        monkeypatch.setitem(point_chunks.CHUNK_POINTS, "cpu", chunk)
        within = point_chunks.offsets_within
        monkeypatch.setattr(
            appearance, "offsets_within", lambda *these: calls.append(these) or within(*these)
        )
        parts = generator(shape, looks, pose, resolution=resolution)
    assert len(calls) > 2
    for name in ("image", "semantics", "depth", "weights"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name


def test_gradients_come_from_one_run(monkeypatch):
    monkeypatch.setitem(point_chunks.CHUNK_POINTS, "cpu", 3)
    runs = point_chunks.chunks(10, torch.device("cpu"))
    assert runs == [slice(0, 10)]
    with torch.no_grad():
        runs = point_chunks.chunks(10, torch.device("cpu"))
        assert [(run.start, run.stop) for run in runs] == [(0, 3), (3, 6), (6, 9), (9, 10)]
        assert point_chunks.chunks(0, torch.device("cpu")) == [slice(0, 0)]


def peak_bytes(resolution: int) -> int:
    """Of a render of one picture at the paper's width, all points met."""
    settings = config.paper_variant("paper", geometry_depth=2, appearance_depth=2).model
    torch.manual_seed(0)
    generator = Generator(settings)
    z, looks, pose = (tensor.float() for tensor in draw(generator, 1))
    with torch.no_grad():
        codes, met = generator.map(z, looks), find_intersections(generator, pose, resolution)
        met = met._replace(valid=torch.ones_like(met.valid))
        with PeakBytes() as most:
            render(generator, codes, pose, resolution, intersections=met)
    return most.peak


def test_memory_of_a_render_of_the_paper_by_formula(monkeypatch):
    """256 x 256 pixels take at most 3 GB on a GPU; without chunks 3.7."""
    # What depends on points and chunks is (256 / 32)^2 times as much at 256. No smaller side: the
    # tests keep small tensors of kernels.
    side = 32
    scale = (256 // side) ** 2
    monkeypatch.setitem(
        point_chunks.CHUNK_POINTS, "cpu", point_chunks.CHUNK_POINTS["cuda"] // scale
    )
    peak = peak_bytes(side)
    print(f"{peak / (24 * side**2):.0f} bytes a point, {scale * peak / 1e9:.2f} GB")
    assert scale * peak <= 3e9
