"""Plots: round ticks, and curves and bars where their values are."""

import math

import numpy as np
import pytest
from PIL import Image

from semfaceedit.pictures import plots
from semfaceedit.pictures.plots import Line, bar_plot, line_plot, ticks


def rows_of(path, color, x):
    """The rows (from the top) in which column x of a picture has about this colour."""
    column = np.asarray(Image.open(path).convert("RGB"))[:, x].astype(int)
    return np.nonzero(np.abs(column - color).max(1) < 40)[0]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 300, [0, 50, 100, 150, 200, 250, 300]),
        (7.3, 8.1, [7.2, 7.4, 7.6, 7.8, 8.0, 8.2]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


def test_one_value_alone_has_ticks():
    assert ticks(3, 3)[0] <= 3 <= ticks(3, 3)[-1]


def test_a_curve_passes_through_its_values(tmp_path):
    path = tmp_path / "curve.png"
    y = [0.0, 0.5, 0.5, math.nan, math.nan, math.nan, 0.5, 0.5, 1.0]
    line_plot(path, [Line("a", range(9), y)], title="t", x_label="x", y_label="y", y_range=(0, 1))
    left, right = plots.LEFT, plots.WIDTH - plots.RIGHT
    bottom, top = plots.HEIGHT - plots.BOTTOM, plots.TOP
    quarter = round(left + (right - left) * 1.5 / 8)
    found = rows_of(path, plots.COLORS[0], quarter)
    assert abs(found.mean() - (top + bottom) / 2) < 2.5
    assert not len(rows_of(path, plots.COLORS[0], round((left + right) / 2)))  # the gap
    assert abs(rows_of(path, plots.COLORS[0], right - 1).min() - top) < 4


def test_bars_have_the_heights_of_their_values(tmp_path):
    path = tmp_path / "bars.png"
    bar_plot(path, ["a", "b"], {"one": [1.0, 0.5]}, title="t", y_label="y")
    left, right = plots.LEFT, plots.WIDTH - plots.RIGHT
    heights = [
        len(rows_of(path, plots.COLORS[0], round(left + share * (right - left))))
        for share in (0.25, 0.75)
    ]
    assert heights[0] == pytest.approx(plots.HEIGHT - plots.TOP - plots.BOTTOM, abs=3)
    assert heights[1] == pytest.approx(heights[0] / 2, abs=3)
