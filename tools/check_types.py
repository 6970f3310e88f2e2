"""mypy over the package as it is installed, with `kernels/` as `semfaceedit.kernels`.

    python tools/check_types.py [MYPY OPTIONS]

In a checkout the kernels stand beside the package, where mypy does not look for
`semfaceedit.kernels`: their callers would see nothing but `Any`. So this lays out a folder of links
in build/types/ as a wheel lays out its files, and checks that.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = ROOT / "build" / "types"


def lay_out() -> None:
    """LAYOUT/semfaceedit/: a link to each part of the package, and to the kernels."""
    shutil.rmtree(LAYOUT, ignore_errors=True)
    package = LAYOUT / "semfaceedit"
    package.mkdir(parents=True)
    parts = [path for path in (ROOT / "semfaceedit").iterdir() if path.name != "__pycache__"]
    for path in (*parts, ROOT / "kernels"):
        (package / path.name).symlink_to(os.path.relpath(path, package))


def main(arguments: list[str]) -> int:
    lay_out()
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), "-p", "semfaceedit", *arguments]
    return subprocess.run(command, cwd=LAYOUT).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
