"""Charts of the page of designs: values in, SVG text out.

Colours are class names, which the style sheet gives a meaning in light and dark. Coordinates are rounded to a tenth, so
that the bytes depend on the values alone. Every mark says its value in a title; every chart has a name for readers that
do not see it, and stands beside a table with the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from coflex.reporting.drawing import Scale, plain, scale, svg, svg_text, tenth

WIDTH = 620.0
_NAMES = 206.0
_RIGHT = 596.0
_ROW = 24.0


@dataclass(frozen=True, slots=True)
class Layer:
    """One colour of a chart: its class, its name, and a value for each row or point; None where there is none."""

    style: str
    name: str
    values: tuple[float | None, ...]


def fixed(value: float, digits: int) -> str:
    """A number with exactly `digits` decimals, so that columns align; zero has no sign."""
    text = f"{value:,.{digits}f}".replace(",", "\u202f")
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text.replace("-", "\u2212")


def stacked_rows(names: Sequence[str], layers: Sequence[Layer], label: str, unit: str) -> Markup:
    """A bar for each name: positive values stack to the right, negative ones to the left; the sum stands at the end."""
    ends = [_ends(layers, row) for row in range(len(names))]
    values = scale([x for pair in ends for x in pair], _NAMES, _RIGHT - 52, count=5)
    bottom = 8 + _ROW * len(names)
    parts = _across(values, 4, bottom, unit)
    for row, name in enumerate(names):
        y, right, left = 8 + _ROW * row, 0.0, 0.0
        parts.append(svg_text(_NAMES - 8, y + 14, _short(name), "end", "strong"))
        for layer in layers:
            value = layer.values[row] or 0.0
            before = right if value >= 0 else left
            right, left = right + max(value, 0.0), left + min(value, 0.0)
            title = f"{name}, {layer.name}: {plain(value, 2)} {unit}"
            parts.append(_bar(values.at(before), values.at(before + value), y + 3, _ROW - 8, layer.style, title))
        parts.append(svg_text(values.at(right) + 5, y + 14, plain(right + left, 0), "start", "strong"))
    return svg(WIDTH, bottom + 34, label, parts)


def grouped_rows(names: Sequence[str], layers: Sequence[Layer], label: str, unit: str, digits: int = 0) -> Markup:
    """A thin bar of each layer for each name, with its value at its end; a dash where there is none."""
    values = scale([x for layer in layers for x in layer.values if x is not None], _NAMES, _RIGHT - 52, count=5)
    thin, height = 12.0, 12.0 * len(layers) + 10.0
    bottom = 8 + height * len(names)
    parts = _across(values, 4, bottom, unit)
    for row, name in enumerate(names):
        y = 8 + height * row
        parts.append(svg_text(_NAMES - 8, y + height / 2 + 2, _short(name), "end", "strong"))
        for place, layer in enumerate(layers):
            given, top = layer.values[row], y + 3 + thin * place
            if given is not None:
                title = f"{name}, {layer.name}: {plain(given, 2)} {unit}"
                parts.append(_bar(values.at(0), values.at(given), top, thin - 2, layer.style, title))
            figure = "\u2013" if given is None else plain(given, digits)
            parts.append(svg_text(values.at(max(given or 0.0, 0.0)) + 5, top + 9.5, figure, "start", "count"))
    return svg(WIDTH, bottom + 34, label, parts)


def lines(
    at: Sequence[float], ticks: Sequence[str], layers: Sequence[Layer], label: str, unit: str, lever: str
) -> Markup:
    """A line for each layer over a lever that was varied: `at[i]` is where point i stands, `ticks[i]` its name.

    A value that is missing breaks its line; single points are drawn as dots.
    """
    top, bottom, left = 22.0, 252.0, 64.0
    values = scale([x for layer in layers for x in layer.values if x is not None], bottom, top, zero=False, count=5)
    across = Scale(min(at, default=0.0), max(at, default=0.0), left + 8, _RIGHT - 8, ())
    span = across.high > across.low
    xs = [across.at(x) if span else (left + _RIGHT) / 2 for x in at]
    parts = [svg_text(left - 58, 12, unit, "start", "unit")]
    for mark in values.ticks:
        level = values.at(mark)
        parts.append(_path(f"M{tenth(left)} {tenth(level)}H{tenth(_RIGHT)}", "zero" if abs(mark) < 1e-12 else "grid"))
        parts.append(svg_text(left - 6, level + 4, plain(mark), "end"))
    for x, name in _spaced(xs, ticks):
        parts.append(svg_text(x, bottom + 17, name, "middle"))
    parts.append(svg_text((left + _RIGHT) / 2, bottom + 36, lever, "middle", "unit"))
    for place, layer in enumerate(layers):
        points = [(x, None if v is None else values.at(v)) for x, v in zip(xs, layer.values, strict=True)]
        parts.append(_path(_broken(points), f"ln {layer.style} dash{place // 8}"))
        for (x, y), given, tick in zip(points, layer.values, ticks, strict=True):
            if y is not None and given is not None:
                title = f"{layer.name}, {lever} {tick}: {plain(given, 2)} {unit}"
                parts.append(_dot(x, y, layer.style, title))
    return svg(WIDTH, bottom + 44, label, parts)


def _ends(layers: Sequence[Layer], row: int) -> tuple[float, float]:
    values = [layer.values[row] or 0.0 for layer in layers]
    return sum(x for x in values if x < 0), sum(x for x in values if x > 0)


def _across(values: Scale, top: float, bottom: float, unit: str) -> list[str]:
    parts = []
    for tick in values.ticks:
        x = values.at(tick)
        parts.append(_path(f"M{tenth(x)} {tenth(top)}V{tenth(bottom)}", "zero" if abs(tick) < 1e-12 else "grid"))
        parts.append(svg_text(x, bottom + 15, plain(tick), "middle"))
    parts.append(svg_text((values.start + values.end) / 2, bottom + 31, unit, "middle", "unit"))
    return parts


def _spaced(xs: Sequence[float], ticks: Sequence[str]) -> list[tuple[float, str]]:
    """Names that do not run into the one before."""
    kept: list[tuple[float, str]] = []
    for x, name in sorted(zip(xs, ticks, strict=True)):
        if not kept or x - kept[-1][0] > 3.4 * (len(name) + len(kept[-1][1])) + 8:
            kept.append((x, name))
    return kept


def _broken(points: Sequence[tuple[float, float | None]]) -> str:
    text, on = "", False
    for x, y in points:
        if y is not None:
            text += f"{'L' if on else 'M'}{tenth(x)} {tenth(y)}"
        on = y is not None
    return text


def _short(text: str) -> str:
    return text if len(text) <= 27 else f"{text[:26]}\u2026"


def _bar(x1: float, x2: float, y: float, height: float, style: str, title: str) -> str:
    head = f'<rect x="{tenth(min(x1, x2))}" y="{tenth(y)}" width="{tenth(abs(x2 - x1))}" height="{tenth(height)}"'
    return f'{head} class="bar {style}"><title>{escape(title)}</title></rect>'


def _dot(x: float, y: float, style: str, title: str) -> str:
    head = f'<circle cx="{tenth(x)}" cy="{tenth(y)}" r="3.2" class="bar {style}">'
    return f"{head}<title>{escape(title)}</title></circle>"


def _path(d: str, style: str) -> str:
    return f'<path d="{d}" class="{style}"/>'
