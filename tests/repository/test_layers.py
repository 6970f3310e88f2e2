"""The package's layers: imports go one way, and never in circles."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import imports  # noqa: E402


def test_imports_are_seen():
    known = imports.modules()
    found = imports.imports("training.trainer", known["training.trainer"], known)
    assert {"model.config", "training.losses", "data.dataset"} <= found
    assert "kernels" in imports.imports("model.film", known["model.film"], known)
    assert imports.layer("model.film") < imports.layer("editing.fit") < imports.layer("invert")


def test_no_module_imports_from_a_later_layer():
    assert imports.upward() == []


def test_no_circles():
    assert imports.circle() is None
