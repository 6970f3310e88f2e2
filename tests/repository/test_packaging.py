"""What is built and installed: with a compiler, without one, and under sanitizers."""

import ast
import fnmatch
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from commands import OPTIONS
from support import needs_native

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
FOLDERS = ("csrc", "kernels", "semfaceedit", "tests")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def test_kernels_import_nothing_from_the_rest_of_the_package() -> None:
    for path in (ROOT / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""] if node.level < 2 else ["semfaceedit"]
            else:
                continue
            assert not any(name.split(".")[0] == "semfaceedit" for name in names), path.name


def test_folder_does_not_import_under_its_own_name() -> None:
    script = "import kernels"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "imported as semfaceedit.kernels" in result.stderr


def test_weights_are_packed_and_what_is_kept_beside_them_is_not() -> None:
    """A checkout in use holds files that save finding things again: of this machine alone."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["semfaceedit"]
    ignored = [line for line in (ROOT / ".gitignore").read_text().splitlines() if "*" in line]

    def packed(name: str) -> bool:
        return any(fnmatch.fnmatch(f"weights/{name}", pattern) for pattern in patterns)

    for path in (ROOT / "semfaceedit" / "weights").iterdir():
        kept = any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored)
        assert packed(path.name) != kept, path.name
    assert not packed("mean-codes-0.safetensors") and not packed("surfaces-0.safetensors")


def test_what_commands_write_by_default_is_not_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for options in OPTIONS.values():
        out = getattr(options, "out", None)
        if isinstance(out, Path):
            patterns = {f"/{out}/", f"{out}/", f"/*{out.suffix}"}
            assert patterns & set(ignored), out


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, without anything that was built."""
    target = tmp_path / "checkout"
    target.mkdir()
    for name in SOURCES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.new")
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    for name in ("README.md", "LICENSE"):
        (target / name).touch()
    return target


def build_wheel(checkout: Path, **environment: str) -> tuple[set[str], str]:
    """The names in the wheel and what the build said."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation",
         "--wheel-dir", "wheels", "."],
        cwd=checkout, capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = (checkout / "wheels").glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist()), result.stdout + result.stderr


LEFT_OUT = "portraits-128-discriminators.safetensors"  # of the wheel, to keep it small


def native_modules(names: set[str]) -> list[str]:
    return [name for name in names if name.startswith("semfaceedit/_C") and ".missing" not in name]


@pytest.mark.slow
@needs_compiler
def test_wheel(checkout: Path) -> None:
    names, _ = build_wheel(checkout)
    assert len(native_modules(names)) == 1
    for path in (ROOT / "kernels").glob("*.py"):
        assert f"semfaceedit/kernels/{path.name}" in names
    for path in (ROOT / "semfaceedit").rglob("*"):
        if path.suffix in (".py", ".html", ".css", ".js", ".svg", ".safetensors"):
            left_out = path.name.startswith((LEFT_OUT, "mean-codes-", "surfaces-"))
            assert (path.relative_to(ROOT).as_posix() in names) != left_out
    (wheel,) = (checkout / "wheels").glob("*.whl")
    assert wheel.stat().st_size < 20e6
    tops = {name.split("/")[0] for name in names}
    assert tops - {"semfaceedit"} == {top for top in tops if top.endswith(".dist-info")}


@pytest.mark.slow
@needs_compiler
def test_an_installed_wheel_renders_natively_without_a_compiler(checkout: Path) -> None:
    build_wheel(checkout)
    (wheel,) = (checkout / "wheels").glob("*.whl")
    site, nothing = checkout.parent / "site", checkout.parent / "nothing"
    nothing.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True)
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_wheel.py")],
        cwd=nothing, capture_output=True, text=True,
        env={**os.environ, "PATH": str(nothing), "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "compilers: []" in result.stdout


@pytest.mark.slow
def test_wheel_without_native_code(checkout: Path) -> None:
    names, said = build_wheel(checkout, SEMFACEEDIT_BUILD="none")
    assert native_modules(names) == []
    assert "native kernels left out" in said


@pytest.mark.slow
def test_wheel_without_a_compiler(checkout: Path) -> None:
    names, said = build_wheel(checkout, CC="no-such-compiler", CXX="no-such-compiler")
    assert native_modules(names) == []
    assert "semfaceedit._C not built" in said


def runtime(name: str) -> str:
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
@needs_native
@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="preloads the sanitizers' runtimes")
def test_op_tests_under_sanitizers(checkout: Path) -> None:
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -O1 -g"
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = {**os.environ, "SEMFACEEDIT_CXXFLAGS": flags}
    subprocess.run(build, cwd=checkout, env=environment, check=True, capture_output=True)
    assert list((checkout / "semfaceedit").glob("_C.*"))
    environment["LD_PRELOAD"] = f"{runtime('libasan.so')} {runtime('libubsan.so')}"
    environment["ASAN_OPTIONS"] = "detect_leaks=0"
    environment["PYTHONPATH"] = str(checkout)
    tests = [
        f"tests/kernels/test_{op}.py"
        for op in (
            "film_siren", "film_siren_bf16", "ray_isosurface", "ray_isosurface_arguments",
            "ray_isosurface_bf16", "semantic_composite",
        )
    ]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-k", "not registered", "-p", "no:cacheprovider",
         *tests],
        cwd=checkout, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
