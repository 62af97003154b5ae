"""Live values: the last reading of each point and quantity, for whoever may see them, as soon as it is durable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from coflex.metering.admission import Signers


class LiveValue(NamedTuple):
    """`at`: start of the reading's interval, ms since the epoch; `value`: in the quantity's unit."""

    point: int
    unit: str
    quantity: int
    at: int
    value: float


Told = Callable[[list[LiveValue]], None]


class Live:
    """The last values in memory. `owners` (None: all) say whose points somebody may see."""

    def __init__(self, signers: Signers) -> None:
        self._signers = signers
        self._last: dict[int, tuple[int, float]] = {}
        self._subscribed: dict[int, tuple[Told, frozenset[str] | None, frozenset[int] | None]] = {}
        self._number = 0
        self._guard = threading.Lock()

    def put(self, found: Iterable[tuple[int, int, int, float]]) -> None:
        """Take over (row of the signer, quantity, at, value) of messages that are durable; older ones are passed by."""
        last, new = self._last, []
        for row, quantity, at, value in found:
            if value == value and at >= last.get(key := row << 3 | quantity, (at, 0.0))[0]:
                last[key] = at, value
                new.append(key)
        if self._subscribed and new:
            self._tell(new)

    def last(self, points: Iterable[int], owners: frozenset[str] | None = None) -> list[LiveValue]:
        """The last values of these points, as far as they are known and may be seen."""
        found = []
        for point in points:
            row = self._signers.row(point)
            if row is not None and (owners is None or self._signers.owners[row] in owners):
                found += [self._value(key) for key in range(row << 3, (row << 3) + 8) if key in self._last]
        return found

    def subscribe(
        self, told: Told, owners: frozenset[str] | None = None, points: Iterable[int] | None = None
    ) -> Callable[[], None]:
        """Have `told` called with each new value that may be seen, of these points or of all; the answer ends it.

        It is called on the writer's thread: it must be quick, and hand over what takes longer.
        """
        with self._guard:
            self._number += 1
            number = self._number
            self._subscribed[number] = told, owners, None if points is None else frozenset(points)

        def end() -> None:
            self._subscribed.pop(number, None)

        return end

    def _value(self, key: int) -> LiveValue:
        row, (at, value) = key >> 3, self._last[key]
        return LiveValue(self._signers.numbers[row], self._signers.units[row], key & 7, at, value)

    def _tell(self, keys: list[int]) -> None:
        values = [(self._signers.owners[key >> 3], self._value(key)) for key in keys]
        for told, owners, points in list(self._subscribed.values()):
            seen = [
                value
                for owner, value in values
                if (owners is None or owner in owners) and (points is None or value.point in points)
            ]
            if seen:
                told(seen)
