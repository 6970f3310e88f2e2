"""Which tiles a Triton of a version gets; `test_triton_compile.py` sees that they fit."""

import sys
from types import ModuleType

import pytest

from semfaceedit.kernels import _triton
from semfaceedit.kernels.film_siren_triton_tiling import Tiling, forward_tiling, head_constants
from semfaceedit.kernels.ray_isosurface_triton import forward_tiling as field_tiling

VERSIONS = [(3, 6), (3, 7), (3, 8), (3, 9), (3, 10), (4, 0)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [("3.6.0", (3, 6)), ("3.10.1+git12ab", (3, 10)), ("4.0", (4, 0)), (None, _triton.NEWEST)],
)
def test_version_of_the_installed_triton(
    written: str | None, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = None  # an import fails
    if written is not None:
        module = ModuleType("triton")
        module.__version__ = written  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", module)
    assert _triton.version.__wrapped__() == expected


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("architecture", _triton.ARCHITECTURES)
def test_blocks_of_the_descriptor_by_version(architecture: int, version: tuple[int, int]) -> None:
    """At width 256 they read the activations together, at width 128 where Triton 3.9 compiles."""
    tiling = forward_tiling("fp16", architecture, 3, 256, version)
    many = head_constants(276, tiling)
    wide = version >= (3, 9) and architecture in (80, 90)
    assert many["VIEW_COLUMNS"] == (64 if wide else 32)
    assert many["VIEW_BLOCKS"] == 4
    few = head_constants(148, forward_tiling("fp16", architecture, 3, 128, version))
    assert (few["VIEW_BLOCKS"] > 1) == (version >= (3, 9))


@pytest.mark.parametrize("width", [128, 256])
def test_later_versions_get_what_the_newest_known_gets(width: int) -> None:
    for architecture in _triton.ARCHITECTURES:
        for later in VERSIONS[4:]:
            newest = forward_tiling("fp16", architecture, 3, width, _triton.NEWEST)
            assert forward_tiling("fp16", architecture, 3, width, later) == newest
            newest = field_tiling(64, 64, 2, "fp32", architecture, _triton.NEWEST)
            assert field_tiling(64, 64, 2, "fp32", architecture, later) == newest


def test_the_installed_version_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[Tiling, int]] = []
    for version in ((3, 6), (3, 9)):
        monkeypatch.setattr(
            "semfaceedit.kernels.film_siren_triton_tiling.version", lambda own=version: own
        )
        monkeypatch.setattr(
            "semfaceedit.kernels.ray_isosurface_triton.version", lambda own=version: own
        )
        own = (forward_tiling("fp16", 90, 3, 256), field_tiling(24, 64, 2, "fp32", 80).programs)
        film = forward_tiling("fp16", 90, 3, 256, version)
        assert own == (film, field_tiling(24, 64, 2, "fp32", 80, version).programs)
        chosen.append(own)
    assert chosen[0][0] != chosen[1][0]
    assert chosen[0][1] < chosen[1][1]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("architecture", _triton.ARCHITECTURES)
def test_programs_of_the_field_follow_from_registers(
    architecture: int, version: tuple[int, int]
) -> None:
    for samples, width in ((24, 64), (64, 64), (64, 128), (128, 256)):
        tiling = field_tiling(samples, width, 2, "fp32", architecture, version)
        assert 1 <= tiling.programs <= _triton.resident(tiling.warps, tiling.registers)


def test_registers_are_given_to_threads_by_eights() -> None:
    assert [_triton.resident(4, registers) for registers in (128, 129, 168, 169, 255)] == [
        4, 3, 3, 2, 2,
    ]  # fmt: skip
    assert _triton.resident(8, 255) == 1
