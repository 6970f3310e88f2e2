"""Line and bar plots as PNG, drawn with Pillow alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..outputs import save_picture

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 34, 48  # margins in pixels; the legend stands on the right
SCALE = 3  # plots are drawn this many times as large, then averaged
TICKS = 6
INK, GRID, PAPER = (40, 40, 40), (226, 226, 226), (255, 255, 255)
COLORS = ((31, 90, 165), (214, 96, 28), (46, 139, 87), (150, 60, 150), (120, 100, 60),
          (200, 40, 70), (20, 150, 170), (110, 110, 110))  # fmt: skip


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Line:
    """A curve; points whose value is not finite leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None  # half the height of a band around the curve


def line_plot(
    path: Path,
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> None:
    """Write curves over one pair of axes."""
    xs = [x for line in lines for x in line.x]
    highs = [y + s for line in lines for y, s in zip(line.y, _spread(line), strict=True)]
    lows = [y - s for line in lines for y, s in zip(line.y, _spread(line), strict=True)]
    finite = [y for y in lows + highs if math.isfinite(y)]
    low, high = y_range or (min(finite, default=0.0), max(finite, default=1.0))
    canvas = _Canvas(title, x_label, y_label)
    canvas.axes(ticks(min(xs, default=0.0), max(xs, default=1.0)), ticks(low, high))
    for index, line in enumerate(lines):
        canvas.band(line, COLORS[index % len(COLORS)])
    for index, line in enumerate(lines):
        canvas.curve(line, COLORS[index % len(COLORS)])
        canvas.legend(index, line.name)
    canvas.save(path)


def bar_plot(
    path: Path,
    names: Sequence[str],
    values: Mapping[str, Sequence[float]],
    *,
    title: str,
    y_label: str,
) -> None:
    """Write groups of bars: one group a name, one bar in it for each entry of `values`."""
    finite = [v for row in values.values() for v in row if math.isfinite(v)]
    canvas = _Canvas(title, "", y_label)
    canvas.axes([-0.5, len(names) - 0.5], ticks(0, max(finite, default=1.0)), names)
    width = 0.8 / len(values)
    for index, (label, row) in enumerate(values.items()):
        for place, value in enumerate(row):
            left = place - 0.4 + index * width
            canvas.bar(left, left + width, value, COLORS[index % len(COLORS)])
        canvas.legend(index, label)
    canvas.save(path)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, that enclose low..high."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


class _Canvas:
    def __init__(self, title: str, x_label: str, y_label: str):
        self.image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(12 * SCALE)
        self.heading = ImageFont.load_default(14 * SCALE)
        self.middle = (LEFT + WIDTH - RIGHT) / 2
        self.text(self.middle, TOP / 2, title, "mm", self.heading)
        self.text(self.middle, HEIGHT - 11, x_label, "mm")
        self._upright(y_label)

    def axes(
        self, x_ticks: Sequence[float], y_ticks: Sequence[float], names: Sequence[str] | None = None
    ) -> None:
        self.x_span, self.y_span = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])
        for y in y_ticks:
            self.stroke([(self.x_span[0], y), (self.x_span[1], y)], GRID, 1)
            self.text(LEFT - 6, self.at(self.x_span[0], y)[1] / SCALE, f"{y:g}", "rm")
        if names is None:
            for x in x_ticks:
                self.text(self.at(x, 0)[0] / SCALE, HEIGHT - BOTTOM + 11, f"{x:g}", "mm")
        else:
            for place, name in enumerate(names):
                lower = 12 * (place % 2) if len(names) > 8 else 0
                where = self.at(place, 0)[0] / SCALE
                self.text(where, HEIGHT - BOTTOM + 10 + lower, name, "mm")
        corner = (self.x_span[0], self.y_span[0])
        self.stroke([(self.x_span[0], self.y_span[1]), corner], INK, 1)
        self.stroke([corner, (self.x_span[1], self.y_span[0])], INK, 1)

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x_span[0]) / (self.x_span[1] - self.x_span[0])
        up = (y - self.y_span[0]) / (self.y_span[1] - self.y_span[0])
        up = min(max(up, 0.0), 1.0)
        return (
            SCALE * (LEFT + across * (WIDTH - LEFT - RIGHT)),
            SCALE * (HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)),
        )

    def curve(self, line: Line, color: tuple[int, int, int]) -> None:
        for piece in _pieces(line):
            points = [(x, y) for x, y, _ in piece]
            if len(points) == 1:
                x, y = self.at(*points[0])
                r = 2 * SCALE
                self.draw.ellipse([x - r, y - r, x + r, y + r], fill=color)
            self.stroke(points, color, 2)

    def band(self, line: Line, color: tuple[int, int, int]) -> None:
        light = tuple(round(255 - 0.16 * (255 - c)) for c in color)
        for piece in _pieces(line) if line.spread is not None else ():
            upper = [self.at(x, y + s) for x, y, s in piece]
            lower = [self.at(x, y - s) for x, y, s in reversed(piece)]
            if len(piece) > 1:
                self.draw.polygon(upper + lower, fill=light)

    def bar(self, left: float, right: float, value: float, color: tuple[int, int, int]) -> None:
        if math.isfinite(value):
            (x0, y0), (x1, y1) = self.at(left, value), self.at(right, self.y_span[0])
            self.draw.rectangle([x0, min(y0, y1), x1, y1], fill=color)

    def legend(self, index: int, name: str) -> None:
        y = TOP + 10 + 18 * index
        x = WIDTH - RIGHT + 14
        color = COLORS[index % len(COLORS)]
        self.draw.rectangle(
            [x * SCALE, (y - 4) * SCALE, (x + 14) * SCALE, (y + 4) * SCALE], fill=color
        )
        self.text(x + 20, y, name, "lm")

    def stroke(
        self, points: Sequence[tuple[float, float]], color: tuple[int, int, int], width: int
    ) -> None:
        if len(points) > 1:
            self.draw.line([self.at(*p) for p in points], color, width * SCALE, joint="curve")

    def text(self, x: float, y: float, text: str, anchor: str, font: Font | None = None) -> None:
        self.draw.text((x * SCALE, y * SCALE), text, INK, font or self.font, anchor)

    def save(self, path: Path) -> None:
        small = self.image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
        palette = small.quantize(64, dither=Image.Dither.NONE)
        save_picture(path, palette)

    def _upright(self, text: str) -> None:
        length = (HEIGHT - TOP - BOTTOM) * SCALE
        label = Image.new("RGB", (length, 18 * SCALE), PAPER)
        place = (length / 2, 9 * SCALE)
        ImageDraw.Draw(label).text(place, text, INK, self.font, "mm")
        self.image.paste(label.rotate(90, expand=True), (2 * SCALE, TOP * SCALE))


def _spread(line: Line) -> Sequence[float]:
    return line.spread if line.spread is not None else [0.0] * len(line.x)


def _pieces(line: Line) -> list[list[tuple[float, float, float]]]:
    """Runs of finite points (x, y, spread)."""
    pieces: list[list[tuple[float, float, float]]] = [[]]
    for x, y, spread in zip(line.x, line.y, _spread(line), strict=True):
        if math.isfinite(y) and math.isfinite(spread):
            pieces[-1].append((x, y, spread))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]
