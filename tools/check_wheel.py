"""Whether an installed wheel renders with its native kernels: run where no compiler is needed.

    python tools/check_wheel.py

Run it with the Python that the wheel was installed for, from any folder but the checkout, whose
package it must not import. cibuildwheel does so with every wheel.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import semfaceedit
from semfaceedit import render
from semfaceedit.kernels import available_backends

CHECKOUT = Path(__file__).resolve().parent.parent


def main() -> int:
    package = Path(semfaceedit.__file__).resolve()
    if package.is_relative_to(CHECKOUT / "semfaceedit"):
        print(f"{package} is the checkout's, not that of a wheel: run from another folder")
        return 1
    reasons = available_backends()["cpu"]
    missing = {op: reason for op, reason in reasons.items() if reason is not None}
    if missing:
        print(f"no native kernels in {package.parent}: {missing}")
        return 1
    compilers = [name for name in ("cc", "gcc", "g++", "clang") if shutil.which(name)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--seeds", "0", "--resolution", "32", "--backend", "cpu", "--out", folder]
        code = render.main(arguments)
        size = (Path(folder) / "image.png").stat().st_size if code == 0 else 0
    print(f"semfaceedit {semfaceedit.__version__}: image of {size} bytes; compilers: {compilers}")
    return 0 if size > 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
