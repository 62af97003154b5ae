"""From samples of a meter to the measurements of a message: intervals aligned to the clock, nothing invented.

A value is the mean of the samples inside its interval; an interval without one is missing. A message holds the
intervals of one window (15 of 4 s in a minute), from the first that was looked at. Where nobody looked (the device was
off, or the clock jumped ahead) no message is made. An interval is delivered once: samples that fall into one that was
delivered already, because the clock was set back, are counted and dropped; unless the platform refused what was
delivered ahead of time (`set_back`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from coflex.evidence.message import MISSING, Measurement, Quantity

# Decimals that a value keeps: value = integer * 10**scale in the quantity's unit.
_SCALES = {
    Quantity.ACTIVE_POWER_W: 0,
    Quantity.REACTIVE_POWER_VAR: 0,
    Quantity.VOLTAGE_V: -2,
    Quantity.FREQUENCY_HZ: -3,
    Quantity.ACTIVE_ENERGY_WH: 0,
    Quantity.STATE_OF_ENERGY_WH: 0,
    Quantity.BASELINE_W: 0,
}
_COARSEST = 9
# What is as large as this fits into no message, and is no reading.
_LARGEST = (-MISSING[4] - 1) * 10.0**_COARSEST


@dataclass
class _Cell:
    total: float = 0.0
    count: int = 0


@dataclass
class Sampler:
    """The samples of one quantity. `step_ms`: of an interval; `count`: intervals of a window; `delivered`: end of the
    last interval that was delivered, ms since the epoch; `from_counter`: samples are readings of a counter, and the
    value is how far it went from the interval's start to its end; `readings`: those at the start of intervals."""

    quantity: Quantity
    step_ms: int
    count: int
    delivered: int = 0
    from_counter: bool = False
    dropped: int = 0
    readings: dict[int, float] = field(default_factory=dict)
    _cells: dict[int, _Cell] = field(default_factory=dict)

    @property
    def window_ms(self) -> int:
        return self.step_ms * self.count

    def sample(self, at_ms: int, value: float | None) -> None:
        """What the meter said at an instant; None when it said nothing."""
        if self.from_counter:
            self._counted(at_ms, value)
            return
        start = at_ms - at_ms % self.step_ms
        if start < self.delivered:
            self.dropped += 1
            return
        cell = self._cells.setdefault(start, _Cell())
        if value is not None and abs(value) < _LARGEST:
            cell.total += value
            cell.count += 1

    def _counted(self, at_ms: int, value: float | None) -> None:
        """A reading of a counter: the first one in an interval, within a tenth of it, is the one at its start. NaN
        says that the counter began anew, so what was read before is of no use."""
        if value is not None and math.isnan(value):
            self.readings.clear()
            value = None
        start = at_ms - at_ms % self.step_ms
        if start < self.delivered:
            self.dropped += 1
            return
        self._cells.setdefault(start, _Cell())
        fresh = value is not None and math.isfinite(value) and at_ms - start <= self.step_ms // 10
        if fresh and value is not None and start not in self.readings:
            self.readings[start] = value
            before, earlier = self.readings.get(start - self.step_ms), start - self.step_ms
            # Both ends are enough: the device may have been off in between.
            if before is not None and earlier >= self.delivered:
                self._cells[earlier] = _Cell(value - before, 1)

    def due(self, now_ms: int) -> list[Measurement]:
        """The windows that ended, in order. Of a counter once its last reading has come, which may be a tenth of an
        interval late."""
        windows = sorted({start - start % self.window_ms for start in self._cells})
        return [self._close(window) for window in windows if self._ended(window + self.window_ms, now_ms)]

    def _ended(self, end: int, now_ms: int) -> bool:
        known = not self.from_counter or end in self.readings
        return end + (0 if known else self.step_ms // 10) <= now_ms

    def rest(self, now_ms: int) -> list[Measurement]:
        """What is there of windows that have not ended, up to the last whole interval: when the device stops."""
        for start in [start for start in self._cells if start + self.step_ms > now_ms]:
            del self._cells[start]
        return [self._close(one) for one in sorted({start - start % self.window_ms for start in self._cells})]

    def set_back(self, now_ms: int) -> None:
        """The clock was ahead, and nothing that was measured then was taken: measure from now on."""
        start = now_ms - now_ms % self.step_ms
        self.delivered = min(self.delivered, start)
        self._cells = {at: cell for at, cell in self._cells.items() if at <= start}
        self.readings = {at: value for at, value in self.readings.items() if at <= start}

    def _close(self, window: int) -> Measurement:
        starts = sorted(start for start in self._cells if window <= start < window + self.window_ms)
        cells = {start: self._cells.pop(start) for start in starts}
        self.delivered = starts[-1] + self.step_ms
        values = [_mean(cells.get(start)) for start in range(starts[0], self.delivered, self.step_ms)]
        self.readings = {at: value for at, value in self.readings.items() if at >= self.delivered}
        return packed(self.quantity, starts[0], self.step_ms, values)


def _mean(cell: _Cell | None) -> float | None:
    return cell.total / cell.count if cell is not None and cell.count else None


def packed(quantity: Quantity, first: int, step: int, values: list[float | None], revision: int = 0) -> Measurement:
    """Values in the quantity's unit as integers of the finest scale, from the quantity's own, that holds them all."""
    known = [abs(value) for value in values if value is not None]
    scale, largest = _SCALES[quantity], max(known, default=0.0)
    while round(largest / 10.0**scale) >= -MISSING[4] and scale < _COARSEST:
        scale += 1
    integers = tuple(None if value is None else round(value / 10.0**scale) for value in values)
    width = 2 if all(one is None or abs(one) < -MISSING[2] for one in integers) else 4
    return Measurement(first, step, quantity, revision, width, scale, integers)
