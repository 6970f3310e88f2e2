"""The tables of times in docs/performance.md, from the records: `python benchmarks/times_table.py`.

A table stands between `<!-- times: FILE.json -->`, a record in benchmarks/results/, and
`<!-- end of times -->`; whatever is between them is replaced.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measuring import RESULTS, fail  # noqa: E402
from table import Row, rows_of  # noqa: E402

from semfaceedit.files import write_atomically  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
MARKED = re.compile(r"(?<=<!-- times: )(\S+)( -->\n).*?(?=<!-- end of times -->)", re.DOTALL)


@dataclass(frozen=True)
class Layout:
    """Which timings a table shows: a line for each of `titles` that the record has."""

    headings: tuple[str, ...]  # of product, plain, their ratio, other; perhaps plain to other
    product: str
    plain: tuple[str, ...]  # names of the one thing that the product is compared with
    other: str
    titles: dict[str, str]  # by what was timed


CPU = Layout(
    ("native fp32", "plain PyTorch fp32", "ratio", "native `fast` (bf16)", "ratio"),
    product="cpu",
    plain=("reference", "eager"),
    other="cpu_fast",
    titles={
        "training-small-32": "`small`, four whole training steps, 8 faces at 32²",
        "generator-small-32": "`small`, generator forward and backward, 8 faces at 32²",
        "film_siren-paper-geometry-full": "`paper`, Geometry Module, all gradients, 16,384 points",
        "film_siren-paper-appearance-full": (
            "`paper`, Appearance Module, all gradients, 16,384 points"
        ),
        "inversion-geometry-small-64": "`small`, inversion step at 64², geometry stage",
        "inversion-appearance-small-64": "`small`, inversion step at 64², all offsets",
        "render-paper-64": "`paper`, render at 64²",
        "render-small-64": "`small`, render at 64²",
        "film_siren-paper-geometry-forward": "`paper`, Geometry Module, 16,384 points",
        "film_siren-paper-appearance-forward": "`paper`, Appearance Module, 16,384 points",
    },
)
GPU = Layout(
    ("Triton fp16", "eager fp16 autocast", "ratio", "compiled fp16 autocast"),
    product="triton fp16",
    plain=("eager AMP",),
    other="compile AMP",
    titles={
        **{f"render {size}": f"render at {size}²" for size in (64, 128, 256)},
        **{f"render in chunks {size}": f"render at {size}², in chunks"
           for size in (64, 128, 256, 512, 1024)},
        "generator step 256": "generator forward and backward at 256²",
        "training step 256": "whole training step at 256², batch 1",
    },
)  # fmt: skip


def times_table(content: dict[str, Any]) -> str:
    """The Markdown table of a record of gpu_suite.py or of pytest-benchmark."""
    layout, model = CPU, ""
    if "records" in content:
        layout, model = GPU, f"`{content['machine'].get('checkpoint') or 'paper'}`, "
    rows = rows_of(content)
    lines = [f"| | {' | '.join(layout.headings)} |", "|---|" + "---:|" * len(layout.headings)]
    for what, title in layout.titles.items():
        product = _ms(rows, what, (layout.product,))
        if product is None:
            continue
        plain, other = _ms(rows, what, layout.plain), _ms(rows, what, (layout.other,))
        cells = [_cell(product), _cell(plain), _ratio(plain, product), _cell(other)]
        if len(layout.headings) > len(cells):
            cells.append(_ratio(plain, other))
        cells.insert(0, model + title)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ms(rows: Sequence[Row], what: str, variants: tuple[str, ...]) -> float | None:
    found = [row.ms for row in rows if row.what == what and row.variant in variants]
    return found[0] if found else None


def _ratio(plain: float | None, ours: float | None) -> str:
    return "" if plain is None or ours is None else f"{plain / ours:.1f}"


def _cell(ms: float | None) -> str:
    if ms is None:
        return ""
    return f"{ms:,.0f} ms" if ms >= 10 else f"{ms:.2f} ms"


def updated(text: str) -> str:
    """The page with every marked table replaced by that of its record."""

    def table(match: re.Match[str]) -> str:
        content = json.loads((RESULTS / match[1]).read_text())
        return f"{match[1]}{match[2]}\n{times_table(content)}\n"

    return MARKED.sub(table, text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=PAGE)
    page = parser.parse_args(argv).page
    try:
        text = updated(page.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        return fail(f"times_table: {page}: a table's record cannot be read ({error!r})")
    write_atomically(page, lambda path: path.write_text(text))
    print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
