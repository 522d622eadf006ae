"""Small charts as inline SVG: axes, a panel, and marks. Colours are CSS classes, so that a page's theme decides them.

Positions inside a panel are in SVG units, which are CSS pixels at the panel's natural width.

Not Optuna's own plots: the script of plotly 7.1 alone is 4.8 MB a page, where a report is to stay below 5 with all that
it shows; pictures of matplotlib have one theme and no text that a screen reader could read.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A range of values, linear, logarithmic (`log`) or of named places 0, 1, … (`names`)."""

    low: float
    high: float
    label: str = ""
    log: bool = False
    names: tuple[str, ...] = ()

    def place(self, value: float) -> float:
        """Where `value` lies between low (0) and high (1), held within the axis."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Values to mark, with their labels."""
        if self.names:
            return [(float(i), name) for i, name in enumerate(self.names)]
        values = _log_ticks(self.low, self.high) if self.log else []
        values = values if len(values) > 1 else _linear_ticks(self.low, self.high)
        return list(zip(values, _tick_labels(values), strict=True))


def axis(values: Iterable[float], label: str = "", *, pad: float = 0.06) -> Axis:
    """A linear axis that holds `values` with a little air; of equal values one around them."""
    found = list(values)
    low, high = min(found), max(found)
    air = (high - low) * pad or abs(high) * 0.05 or 0.5
    return Axis(low - air, high + air, label)


@dataclass(frozen=True)
class Panel:
    """A chart with two axes. `width` and `height` are its natural size in pixels, `left` the room for y labels."""

    x: Axis
    y: Axis
    width: int = 360
    height: int = 230
    left: int = 54

    @property
    def right(self) -> float:
        return self.width - 14.0

    @property
    def bottom(self) -> float:
        return self.height - (40.0 if self.x.label else 24.0)

    def at(self, x: float, y: float) -> Point:
        """SVG position of a pair of values."""
        across, up = self.x.place(x), self.y.place(y)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - 10.0)

    def dot(self, x: float, y: float, css: str, tip: str, link: str = "", radius: float = 3.5) -> Markup:
        """A point with a text that shows on hovering, linked to a place in the page where `link` is given."""
        left, top = self.at(x, y)
        mark = Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            css, _short(left), _short(top), _short(radius), tip
        )
        return Markup('<a href="#{}" tabindex="-1">{}</a>').format(link, mark) if link else mark

    def line(self, points: Sequence[Point], css: str, tip: str = "") -> Markup:
        """A line through pairs of values."""
        places = (self.at(x, y) for x, y in points)
        path = "M" + "L".join(f"{_short(left)} {_short(top)}" for left, top in places)
        title = Markup("<title>{}</title>").format(tip) if tip else ""
        return Markup('<path class="{}" d="{}">{}</path>').format(css, path, title)

    def draw(self, marks: Iterable[Markup], title: str) -> Markup:
        """The panel as an SVG element; `title` says for a screen reader what it shows."""
        inside = Markup("").join((*self._grid(), *marks, *self._labels()))
        return picture(self.width, self.height, inside, title)

    def _grid(self) -> Iterable[Markup]:
        for value, label in self.y.ticks():
            _, top = self.at(self.x.low, value)
            yield Markup('<path class="grid" d="M{} {}H{}"/><text class="tick end" x="{}" y="{}">{}</text>').format(
                self.left, _short(top), _short(self.right), self.left - 7, _short(top + 4), label
            )
        for value, label in self.x.ticks():
            left, _ = self.at(value, self.y.low)
            yield Markup('<path class="grid" d="M{} {}V10"/><text class="tick mid" x="{}" y="{}">{}</text>').format(
                _short(left), _short(self.bottom), _short(left), _short(self.bottom + 16), label
            )

    def _labels(self) -> Iterable[Markup]:
        if self.x.label:
            yield Markup('<text class="label mid" x="{}" y="{}">{}</text>').format(
                _short((self.left + self.right) / 2), self.height - 6, self.x.label
            )
        if self.y.label:
            yield Markup('<text class="label mid" transform="translate(12 {}) rotate(-90)">{}</text>').format(
                _short(self.bottom / 2 + 5), self.y.label
            )


def picture(width: float, height: float, inside: Markup, title: str) -> Markup:
    """An SVG element of a natural size, with a title for screen readers."""
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" height="{}">{}</svg>').format(
        title, _short(width), _short(height), _short(width), _short(height), inside
    )


def frame(left: float, top: float, width: float, height: float, css: str = "frame") -> Markup:
    """A box without a text."""
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(css, left, top, width, height)


def tick(text: object, x: float, y: float, css: str = "") -> Markup:
    """A small text beside a picture; `css` `mid` or `end` says what of it is at x."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(f"tick {css}".rstrip(), _short(x), _short(y), text)


def row_and_column(name: object, middle: float, left: float, top: float) -> tuple[Markup, Markup]:
    """The name of a row and of the column of the same number, `middle` from the corner of a square at (left, top)."""
    return tick(name, left - 6, top + middle + 4, "end"), tick(name, left + middle, top - 7, "mid")


def shaded(x: float, y: float, size: float, shade: float, tip: str, text: object = "", over: bool = False) -> Markup:
    """A cell of a matrix: its colour by a share of 1, a text in it, `over` where the shade is dark under it."""
    box = Markup(
        '<rect class="cell" x="{}" y="{}" width="{}" height="{}" fill-opacity="{:.3f}"><title>{}</title></rect>'
    ).format(x, y, size, size, shade, tip)
    css, middle = "figure mid over" if over else "figure mid", (x + size / 2, y + size / 2 + 4)
    return box + Markup('<text class="{}" x="{}" y="{}">{}</text>').format(css, *middle, text) if text != "" else box


def png_uri(image: Image.Image, **options: object) -> str:
    """A picture as a data URI."""
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def epochs_of(points: Iterable[Point]) -> Axis:
    """The axis that holds the epochs of curves."""
    found = [epoch for epoch, _ in points]
    return Axis(min(found), max(found), "epoch")


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` of the points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _linear_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    raw = (high - low) / wanted
    if raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    span = math.log10(high / low)
    steps = (1, 2, 5) if span < 2 else (1,)
    every = max(1, round(span / 4))
    values = [m * 10.0**d for d in decades for m in steps if d % every == 0]
    return [v for v in values if low * 0.999 <= v <= high * 1.001]


def _tick_labels(values: Sequence[float]) -> list[str]:
    """With as few digits, from three on, as tell them apart."""
    for digits in range(3, 13):
        shown = [_tick_label(value, digits) for value in values]
        if len(set(shown)) == len(values):
            break
    return shown


def _tick_label(value: float, digits: int) -> str:
    shown = f"{value:.{digits}g}" if abs(value) >= 1e-3 or not value else f"{value:.{digits - 3}e}"
    return shown.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
