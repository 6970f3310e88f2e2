"""A Markdown table and a plot of benchmark records: `python benchmarks/table.py [FILE ...]`.

Reads what gpu_suite.py and `pytest benchmarks --benchmark-json FILE` write; without FILE, every
JSON file in benchmarks/results/. Writes FILE with the endings .md and .png beside each.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measuring import RESULTS, fail  # noqa: E402

from semfaceedit.errors import UserError  # noqa: E402
from semfaceedit.files import write_atomically  # noqa: E402
from semfaceedit.pictures.plots import bar_plot  # noqa: E402

PAPER_MODE = ("eager AMP", "autocast")  # what ratios are given to
BASELINES = (*PAPER_MODE, "eager fp32", "compile AMP", "eager", "chunked", "compiled", "reference")
HEADINGS = ("#", "what", "variant", "ms", "vs. autocast", "vs. fastest baseline", "peak MiB",
            "TFLOP/s", "of peak")  # fmt: skip
PLOTTED = 12  # groups of bars


@dataclass(frozen=True)
class Row:
    """One timing; what could not be measured is None."""

    what: str
    variant: str
    ms: float | None
    peak_bytes: float | None = None
    tflops_per_s: float | None = None
    peak_share: float | None = None  # of the least time that the device's peak allows


def rows_of(content: dict[str, Any]) -> list[Row]:
    """Of a file of gpu_suite.py, or of pytest-benchmark."""
    if "records" in content:
        return [_suite_row(r) for r in content["records"] if r.get("kind") == "time"]
    return [row for entry in content["benchmarks"] for row in _pytest_rows(entry)]


def _suite_row(record: dict[str, Any]) -> Row:
    details = [str(record[key]) for key in ("mode", "resolution") if key in record]
    return Row(
        " ".join([record["what"], *details]),
        record["variant"],
        record.get("ms"),
        record.get("peak_bytes"),
        record.get("tflops_per_s"),
        record.get("floor_share"),
    )


def _pytest_rows(entry: dict[str, Any]) -> Iterable[Row]:
    facts = entry["extra_info"]
    for key, ms in facts.items():
        if key.endswith("_ms"):
            name = key.removesuffix("_ms")
            peak, rate = facts.get(f"{name}_peak_mib"), facts.get(f"{name}_gflops")
            yield Row(
                entry["group"] or entry["name"],
                name,
                ms,
                None if peak is None else peak * 2**20,
                None if rate is None else rate / 1e3,
                facts.get(f"{name}_peak_share"),
            )


def machine_of(content: dict[str, Any]) -> dict[str, Any]:
    """The device, versions and commit that the file names."""
    if "machine" in content:
        return content["machine"]
    facts = content["benchmarks"][0]["extra_info"] if content["benchmarks"] else {}
    return {
        key: facts[key] for key in ("cpu", "isa", "threads", "torch", "python", "commit")
        if key in facts
    }  # fmt: skip


def markdown(content: dict[str, Any]) -> str:
    """Machine, one line a timing, with ratios to the paper's mode and to the fastest baseline."""
    lines = [
        ", ".join(f"{key} {value}" for key, value in machine_of(content).items()),
        "",
        f"| {' | '.join(HEADINGS)} |",
        "|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    rows = rows_of(content)
    numbers = {what: str(i + 1) for i, what in enumerate(plotted(rows))}
    for row in rows:
        paper = _fastest(rows, row.what, PAPER_MODE.__contains__)
        rival = _fastest(rows, row.what, BASELINES.__contains__)
        cells = (
            numbers.get(row.what, ""),
            row.what,
            row.variant,
            "out of memory" if row.ms is None else f"{row.ms:.3f}",
            _ratio(paper, row.ms),
            _ratio(rival, row.ms),
            _cell(row.peak_bytes, lambda value: f"{value / 2**20:,.0f}"),
            _cell(row.tflops_per_s, lambda value: f"{value:.3g}"),
            _cell(row.peak_share, lambda value: f"{value:.0%}"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    checks = [r for r in content.get("records", ()) if r.get("kind") == "check"]
    if checks:
        passed = sum(record["passed"] for record in checks)
        lines += ["", f"{passed} of {len(checks)} checks passed in the same run."]
    return "\n".join(lines) + "\n"


def plotted(rows: Sequence[Row]) -> list[str]:
    """The first things that were timed in more than one way."""
    groups = dict.fromkeys(row.what for row in rows)
    return [what for what in groups if len({r.variant for r in rows if r.what == what}) > 1][
        :PLOTTED
    ]


def plot(content: dict[str, Any], path: Path) -> None:
    """Times of every variant, relative to the slowest of its group; nothing without rivals."""
    rows = [row for row in rows_of(content) if row.ms is not None]
    groups = plotted(rows)
    if not groups:
        return
    variants = list(dict.fromkeys(row.variant for row in rows if row.what in groups))
    slowest = {
        what: max(row.ms for row in rows if row.what == what and row.ms is not None)
        for what in groups
    }
    values = {
        variant: [_time(rows, what, variant) / slowest[what] for what in groups]
        for variant in variants
    }
    names = [str(number + 1) for number in range(len(groups))]
    bar_plot(path, names, values, title="Times; numbers as in the table", y_label="slowest = 1")


def _time(rows: Sequence[Row], what: str, variant: str) -> float:
    found = [row.ms for row in rows if row.what == what and row.variant == variant]
    return found[-1] if found and found[-1] is not None else float("nan")


def _fastest(rows: Sequence[Row], what: str, wanted: Callable[[str], bool]) -> float | None:
    times = [
        row.ms for row in rows if row.what == what and wanted(row.variant) and row.ms is not None
    ]
    return min(times, default=None)


def _ratio(other: float | None, ms: float | None) -> str:
    return "" if other is None or ms is None else f"{other / ms:.2f}x"


def _cell(value: float | None, style: Callable[[float], str]) -> str:
    return "" if value is None else style(value)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    files = parser.parse_args(argv).files or sorted(RESULTS.glob("*.json"))
    if not files:
        return fail(f"table: no JSON files in {RESULTS}; run gpu_suite.py or pytest benchmarks")
    for file in files:
        try:
            content = json.loads(file.read_text())
            text = markdown(content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return fail(f"table: {file}: not benchmark records ({error!r})")
        write_atomically(file.with_suffix(".md"), lambda path, text=text: path.write_text(text))
        try:
            plot(content, file.with_suffix(".png"))
        except UserError as error:  # a picture that is not ours
            return fail(f"table: {error}")
        print(f"wrote {file.with_suffix('.md')} and .png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
