"""The native module `semfaceedit._C`; everything else about the package is in pyproject.toml.

SEMFACEEDIT_BUILD=none leaves it out. Without a working compiler the package installs without it,
and the ops run in plain PyTorch.
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fvisibility=hidden", "-g0"]


class BuildNative(build_ext):
    """A failed build leaves a working package, and a module in use is never overwritten."""

    def build_extension(self, ext: Extension) -> None:
        try:
            import pybind11

            ext.include_dirs.append(pybind11.get_include())
            super().build_extension(ext)
        except Exception as error:
            print(f"semfaceedit: native kernels not built ({error}); the ops run in PyTorch")

    def copy_extensions_to_source(self) -> None:
        """As setuptools does, but by renaming: a running process keeps the file that it mapped."""
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(self.get_ext_fullname(ext.name))
            if built.exists():
                target = Path("semfaceedit") / built.name
                fresh = target.with_suffix(".new")
                self.copy_file(str(built), str(fresh))
                fresh.replace(target)


def native_modules() -> list[Extension]:
    if os.environ.get("SEMFACEEDIT_BUILD", "") == "none":
        print("semfaceedit: SEMFACEEDIT_BUILD=none, native kernels left out")
        return []
    flags = [*FLAGS, *os.environ.get("SEMFACEEDIT_CXXFLAGS", "").split()]
    return [
        Extension(
            "semfaceedit._C",
            sorted(str(path) for path in Path("csrc").glob("*.cpp")),
            depends=sorted(str(path) for path in Path("csrc").glob("*.h")),
            include_dirs=["csrc"],
            extra_compile_args=flags,
            extra_link_args=flags,
            language="c++",
            optional=True,
        )
    ]


setup(ext_modules=native_modules(), cmdclass={"build_ext": BuildNative})
