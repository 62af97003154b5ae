"""What every chart is drawn with: a value axis with round ends, written numbers, and the SVG around them.

Coordinates are rounded to a tenth, so that the bytes depend on the values alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True)
class Scale:
    """A value axis with round ends: `low` is drawn at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def scale(values: Iterable[float], start: float, end: float, *, zero: bool = True, count: int = 4) -> Scale:
    """A scale over the values, and over zero if asked, whose ends are round numbers."""
    given = [*values, *([0.0] if zero else [])] or [0.0]
    low, high = min(given), max(given)
    if high - low < 1e-9 * max(abs(high), 1.0):
        high = low + max(abs(low), 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(first * step, last * step, start, end, tuple(step * k for k in range(first, last + 1)))


def plain(value: float, digits: int = 3) -> str:
    """A number with at most `digits` decimals, none of them needless, a true minus sign and narrow spaces."""
    text = f"{value:,.{digits}f}"
    text = (text.rstrip("0").rstrip(".") if digits else text).replace(",", "\u202f")
    return "0" if text in ("0", "-0") else text.replace("-", "\u2212")


def tenth(value: float) -> str:
    """A coordinate or a length, to a tenth."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def svg(width: float, height: float, label: str, parts: Iterable[str]) -> Markup:
    """The SVG element around parts; `label` is its name for readers that do not see it."""
    head = f'<svg viewBox="0 0 {tenth(width)} {tenth(height)}" role="img" aria-label="{escape(label)}">'
    return Markup(head + "".join(parts) + "</svg>")


def svg_text(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    """Text in a drawing; `anchor` says which of its ends stands at x."""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    look = f' class="{style}"' if style else ""
    return f'<text x="{tenth(x)}" y="{tenth(y)}"{place}{look}>{escape(text)}</text>'
