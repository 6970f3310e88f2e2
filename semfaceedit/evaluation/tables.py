"""Markdown tables of figures."""

from collections.abc import Sequence
from typing import Any


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table; figures right-aligned with four digits, a dash for none."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return [_row(row) for row in (head, marks, *rows)]


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(format_number(cell) for cell in cells)} |"


def format_number(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
