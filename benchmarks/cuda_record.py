"""What can be shown of the CUDA kernels without a GPU: `python benchmarks/cuda_record.py`.

Compiles csrc/*.cu with nvcc for every architecture that is shipped, runs them on the host in the
emulator, slow tests too, and writes both to results/cuda-without-a-gpu.md. Takes some ten minutes.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(ROOT),
    *(str(ROOT / part) for part in ("benchmarks", "tests/helpers", "tests/kernels")),
]

import test_cuda_compile as compiling  # noqa: E402
from measuring import RESULTS, commit  # noqa: E402
from test_film_siren_cuda_on_host import BODIES  # noqa: E402

from semfaceedit.files import write_atomically  # noqa: E402

EMULATED = sorted((ROOT / "tests/kernels").glob("test_*cuda_on_host.py"))
BUILD = ("file", "architecture", "kernel", "registers", "bytes spilled", "stack, bytes")
FAULT = "test_a_fault_in_the_order_of_things_shows"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    version = re.search(r"V([\d.]+)", _output("nvcc", "--version"))
    if version is None:
        raise SystemExit("nvcc says no version")
    parts = [
        "# The CUDA kernels without a GPU\n",
        f"nvcc {version[1]}, commit {commit()}; written by `python benchmarks/cuda_record.py`.\n",
        "## Registers and spills\n",
        *_table(BUILD, builds()),
        "\nSeveral numbers: of instances of a template, for other widths or columns of a block.\n",
        "## In the emulator\n",
        "The files as they are, against float64 in memory that is NaN where nothing was written; "
        "random\norders of warps, copies and products of seeds 0 to 3, and reversed, give the same "
        "bits.\n",
        *emulated(),
    ]
    path = RESULTS / "cuda-without-a-gpu.md"
    write_atomically(path, lambda to: to.write_text("\n".join(parts) + "\n"))
    print(f"wrote {path.relative_to(ROOT)}")


def builds() -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for stem in compiling.KERNELS:
        for architecture in compiling.BODIES.get(stem, compiling.SHIPPED):
            said, _ = compiling.compiled(stem, architecture)
            kernels: dict[str, list[tuple[int, int, int]]] = {}
            for kernel, *use in sorted(compiling.uses_of(stem, said)):
                kernels.setdefault(kernel, []).append(use)
            for kernel, uses in kernels.items():
                registers, spilled, stack = (
                    ", ".join(map(str, dict.fromkeys(x))) for x in zip(*uses, strict=True)
                )
                rows.append((stem, f"sm_{architecture}", kernel, registers, spilled, stack))
            print(stem, architecture)
    return rows


def emulated() -> list[str]:
    """How many cases of each test passed, and the planted faults, all of which were caught."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        files = [str(path) for path in EMULATED]
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", *files]
        if subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT).returncode != 0:
            raise SystemExit("tests failed: no record is written")
        cases = list(ElementTree.parse(report).iter("testcase"))
    passed: Counter[tuple[str, str, str]] = Counter()
    faults: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        if case.find("skipped") is not None:
            continue
        file = case.attrib["classname"].rpartition(".")[2]
        name, _, parameters = case.attrib["name"].rstrip("]").partition("[")
        capability, _, what = parameters.partition("-")
        if capability not in BODIES:
            capability, what = "", parameters
        passed[file, name, capability] += 1
        if name == FAULT:
            faults.setdefault((file, capability), []).append(what)
    rows = [(*key, count) for key, count in sorted(passed.items())]
    lines = _table(("file", "test", "capability", "passed"), rows)
    for (file, capability), names in sorted(faults.items()):
        lines += [f"\nFaults planted and caught, `{file}`, capability {capability}:\n"]
        lines += [f"- {name}" for name in sorted(names)]
    return lines


def _table(headings: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    cells = [headings, ("---",) * len(headings), *rows]
    return ["| " + " | ".join(map(str, row)) + " |" for row in cells]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not installed") from None


if __name__ == "__main__":
    main()
