"""nvcc takes 20 seconds for a large file: each is compiled once for all tests that look at it."""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """`compile_file(stem, architecture, folder)` of a module keeps what it made."""
    compile_file = getattr(request.module, "compile_file", None)
    if compile_file is None:
        yield
        return

    @functools.cache
    def compiled(stem: str, architecture: int):
        folder = tmp_path_factory.mktemp(f"{stem}-{architecture}")
        return compile_file(stem, architecture, folder), folder

    def copied(stem: str, architecture: int, folder: Path):
        uses, kept = compiled(stem, architecture)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        return uses

    request.module.compile_file = copied
    yield
    request.module.compile_file = compile_file
