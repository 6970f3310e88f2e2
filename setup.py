"""The native modules `_C` and `_C_cuda`; everything else about the package is in pyproject.toml.

SEMFACEEDIT_BUILD says what to build: `none`, `cpu` (`_C` alone), or `cuda` (`_C_cuda` too, even
where there is no GPU). By default `_C_cuda` is built where nvcc and a GPU are found. What cannot be
built is left out, with a note of the reason that `info` shows, and the package works without it.
SEMFACEEDIT_CXXFLAGS adds flags, SEMFACEEDIT_CUDA_ARCHS ("80,89,90") names GPU architectures.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fvisibility=hidden", "-g0"]
FLAGS += [] if sys.platform == "darwin" else ["-fopenmp"]  # Apple's compiler has no OpenMP
NVCC_FLAGS = ["-O3", "-std=c++17", "-shared", "-Xcompiler=-fPIC,-fvisibility=hidden"]
NVCC_FLAGS += ["-cudart", "static", "--threads", "0"]


class BuildNative(build_ext):
    """A failed build leaves a working package, and a module in use is never overwritten."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        note = Path(self.build_lib) / note_of(ext)
        note.parent.mkdir(parents=True, exist_ok=True)
        try:
            reason = self.left_out(ext)
            if reason is None:
                self.compile(ext, target)
                note.unlink(missing_ok=True)
                return
        except Exception as error:
            reason = str(error)
        target.unlink(missing_ok=True)  # an earlier build's
        note.write_text(reason + "\n")
        print(f"semfaceedit: {ext.name} not built ({reason}); the ops use what else there is")

    def left_out(self, ext: Extension) -> str | None:
        wanted = os.environ.get("SEMFACEEDIT_BUILD", "")
        if ext.name.endswith("_cuda"):
            if wanted == "cpu":
                return "the build was asked to leave it out by SEMFACEEDIT_BUILD=cpu"
            if find_nvcc() is None:
                return "the build found no nvcc"
            if wanted != "cuda" and not has_gpu():
                return "the build found no GPU"
        return None

    def compile(self, ext: Extension, target: Path) -> None:
        import pybind11

        ext.include_dirs.append(pybind11.get_include())
        if not ext.name.endswith("_cuda"):
            super().build_extension(ext)
            return
        includes = [f"-I{path}" for path in (*ext.include_dirs, sysconfig.get_path("include"))]
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [find_nvcc(), *NVCC_FLAGS, *architectures(), *includes, *ext.sources]
        result = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
        if result.returncode != 0:
            print(result.stdout + result.stderr)
            lines = (result.stdout + result.stderr).splitlines()
            raise RuntimeError(next((line for line in lines if "error" in line), "nvcc failed"))

    def copy_extensions_to_source(self) -> None:
        """As setuptools does, but by renaming: a running process keeps the file that it mapped."""
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(self.get_ext_fullname(ext.name))
            for path in (built, Path(self.build_lib) / note_of(ext)):
                target = Path("semfaceedit") / path.name
                if path.exists():
                    fresh = target.with_suffix(".new")
                    self.copy_file(str(path), str(fresh))
                    fresh.replace(target)
                else:
                    target.unlink(missing_ok=True)


def note_of(ext: Extension) -> str:
    """Where the build says why a module is missing; `kernels/_extension.py` reads it."""
    return ext.name.replace(".", "/") + ".missing"


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def has_gpu() -> bool:
    """Whether a driver has a GPU here, Windows' subsystem for Linux included."""
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/dxg"))


def architectures() -> list[str]:
    """Machine code for each architecture, with all that 9.0 has (90a), and for later ones the last
    one's intermediate code."""
    names = os.environ.get("SEMFACEEDIT_CUDA_ARCHS", "80,89,90").split(",")
    exact = ["90a" if name == "90" else name for name in names]
    codes = [f"arch=compute_{name},code=sm_{name}" for name in exact]
    codes.append(f"arch=compute_{names[-1]},code=compute_{names[-1]}")
    return [flag for code in codes for flag in ("-gencode", code)]


def native_modules() -> list[Extension]:
    wanted = os.environ.get("SEMFACEEDIT_BUILD", "")
    if wanted not in ("", "none", "cpu", "cuda"):
        raise SystemExit(f"SEMFACEEDIT_BUILD is none, cpu or cuda, not {wanted!r}")
    if wanted == "none":
        print("semfaceedit: SEMFACEEDIT_BUILD=none, native kernels left out")
        return []
    flags = [*FLAGS, *os.environ.get("SEMFACEEDIT_CXXFLAGS", "").split()]
    sources = {path.as_posix() for path in Path("csrc").glob("*.cpp")}
    headers = sorted(path.as_posix() for path in Path("csrc").glob("*.h"))
    cuda = {"csrc/bindings_cuda.cpp"}
    cuda_sources = sorted(cuda) + sorted(path.as_posix() for path in Path("csrc").glob("*.cu"))
    return [
        Extension(
            "semfaceedit._C",
            sorted(sources - cuda),
            depends=headers,
            include_dirs=["csrc"],
            extra_compile_args=flags,
            extra_link_args=flags,
            language="c++",
            optional=True,
        ),
        Extension(
            "semfaceedit._C_cuda",
            cuda_sources,
            depends=headers,
            include_dirs=["csrc"],
            optional=True,
        ),
    ]


setup(ext_modules=native_modules(), cmdclass={"build_ext": BuildNative})
