"""Quarter-hour energies from readings of any step, in the version that a log of a given size tells.

Readings come as columns, one row a reading, in any order; a correction is one more row with a higher revision. Nothing
is overwritten: who names the size of the log that was read (`size`) gets the same energies for ever, and `revised`
lists what late or corrected readings changed since.

    E(q) = sum_i P_i |[at_i, at_i + step_i) intersected with q| / 3.6e9      P in W, time in ms, E in kWh

Injection positive. A quarter that was measured for its whole time is measured; from LEAST of it on, its energy is that
of the time measured, extended to the whole, and counts as estimated; below that it is missing, and NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats, Ints
from coflex.domain.reading import Quality

QUARTER_MS = 900_000
W_MS_A_KWH = 3.6e9
LEAST = 0.9
QUALITIES = (Quality.MEASURED, Quality.ESTIMATED, Quality.MISSING)
_MEASURED, _ESTIMATED, _MISSING = range(3)


@dataclass(frozen=True, eq=False)
class Columns:
    """Readings of one quantity. `at`: start of the interval, ms since the epoch; `step`: ms; `value`: mean power in W,
    or net energy in Wh, NaN where missing; `leaf`: number of its message in the log. All of one length."""

    point: NDArray[Any]
    at: Ints
    step: NDArray[Any]
    value: Floats
    revision: NDArray[Any]
    leaf: Ints

    def __post_init__(self) -> None:
        lengths = {len(one) for one in (self.point, self.at, self.step, self.value, self.revision, self.leaf)}
        if len(lengths) > 1:
            raise CoflexError("The columns of readings have several lengths.", "Give one value of each a reading.")

    def __len__(self) -> int:
        return len(self.at)

    def where(self, rows: NDArray[Any]) -> Columns:
        """These rows, by number or by truth."""
        return Columns(
            self.point[rows], self.at[rows], self.step[rows], self.value[rows], self.revision[rows], self.leaf[rows]
        )


@dataclass(frozen=True, eq=False)
class Quarters:
    """One row a point and quarter-hour that any reading touches, sorted by point and start.

    `start`: ms since the epoch. `energy_kwh`: injection positive, NaN where missing. `covered`: share of the time that
    was measured. `quality`: index into QUALITIES. `leaf`: the latest message it was made from.
    """

    point: NDArray[np.int64]
    start: Ints
    energy_kwh: Floats
    covered: Floats
    quality: NDArray[np.uint8]
    leaf: Ints

    def __len__(self) -> int:
        return len(self.start)

    def grid(self, points: NDArray[Any], start: int, count: int) -> tuple[Floats, NDArray[np.uint8]]:
        """Energies and qualities of `count` quarters from `start` (ms, on a quarter); shape (points, count), points
        ascending. What no reading touched is missing. Raises CoflexError when start is not on a quarter."""
        if start % QUARTER_MS:
            raise CoflexError("The start is on no quarter-hour.", "Give a multiple of 900 000 ms.")
        energy = np.full((len(points), count), np.nan)
        quality = np.full((len(points), count), _MISSING, np.uint8)
        row = np.searchsorted(points, self.point)
        column = (self.start - start) // QUARTER_MS
        here = (row < len(points)) & (column >= 0) & (column < count)
        here[here] = points[row[here]] == self.point[here]
        energy[row[here], column[here]] = self.energy_kwh[here]
        quality[row[here], column[here]] = self.quality[here]
        return energy, quality


def latest(readings: Columns, size: int | None = None) -> Columns:
    """Of each point and start the reading with the highest revision as of a log of `size` (all of it if None), sorted
    by point and start; of equal revisions the later message."""
    known = readings if size is None else readings.where(readings.leaf < size)
    order = np.lexsort((known.leaf, known.revision, known.at, known.point))
    found = known.where(order)
    last = np.ones(len(found), np.bool_)
    last[:-1] = (found.point[1:] != found.point[:-1]) | (found.at[1:] != found.at[:-1])
    return found.where(last)


def quarter_hours(readings: Columns, size: int | None = None, energy: bool = False) -> Quarters:
    """Quarter-hour energies of all points. `energy`: values are Wh over each interval, not W.

    Guarantee: the same readings in any order give the same bits.
    """
    found = latest(readings, size)
    there = ~np.isnan(found.value)
    end = found.at + found.step
    first = found.at // QUARTER_MS
    spans = (end - 1) // QUARTER_MS - first + 1
    of = np.repeat(np.arange(len(found)), spans)
    quarter = first[of] + np.arange(len(of)) - np.repeat(np.cumsum(spans) - spans, spans)
    start = quarter * QUARTER_MS
    overlap = (np.minimum(end[of], start + QUARTER_MS) - np.maximum(found.at[of], start)) * there[of]
    share = overlap / found.step[of] / 1000 if energy else overlap / W_MS_A_KWH
    order = np.lexsort((found.at[of], quarter, found.point[of]))
    point, quarter, of = found.point[of][order].astype(np.int64), quarter[order], of[order]
    begins = np.flatnonzero(_changes(point, quarter))
    return _rated(
        point[begins],
        quarter[begins] * QUARTER_MS,
        _sums(np.where(there, found.value, 0.0)[of] * share[order], begins),
        _sums(overlap[order].astype(np.float64), begins) / QUARTER_MS,
        np.maximum.reduceat(found.leaf[of], begins) if len(begins) else np.empty(0, np.int64),
    )


def _changes(point: NDArray[np.int64], quarter: Ints) -> NDArray[np.bool_]:
    new = np.ones(len(point), np.bool_)
    new[1:] = (point[1:] != point[:-1]) | (quarter[1:] != quarter[:-1])
    return new


def _sums(values: Floats, begins: NDArray[np.intp]) -> Floats:
    return np.add.reduceat(values, begins) if len(begins) else np.empty(0)


def _rated(point: NDArray[np.int64], start: Ints, energy: Floats, covered: Floats, leaf: Ints) -> Quarters:
    quality = np.where(covered >= 1.0, _MEASURED, np.where(covered >= LEAST, _ESTIMATED, _MISSING)).astype(np.uint8)
    told = energy.copy()
    told[quality == _ESTIMATED] /= covered[quality == _ESTIMATED]
    told[quality == _MISSING] = np.nan
    return Quarters(point, start, told, covered, quality, leaf)


def revised(before: Quarters, after: Quarters) -> Quarters:
    """The rows of `after` that `before` does not have, or has with another energy or quality."""
    earlier = (before.point, before.start, before.energy_kwh, before.quality)
    known = {(point, start): rest for point, start, *rest in zip(*(one.tolist() for one in earlier), strict=True)}
    rows = []
    told = zip(
        after.point.tolist(), after.start.tolist(), after.energy_kwh.tolist(), after.quality.tolist(), strict=True
    )
    for row, (point, start, energy, quality) in enumerate(told):
        old = known.get((point, start))
        same = old is not None and old[1] == quality and (old[0] == energy or old[0] != old[0])
        if not same:
            rows.append(row)
    at = np.array(rows, np.int64)
    return Quarters(
        after.point[at], after.start[at], after.energy_kwh[at], after.covered[at], after.quality[at], after.leaf[at]
    )
