"""The device's clock, and what is known about how far it can be trusted.

Three clocks are compared: the machine's (UTC), its monotonic one, which counts seconds and is never set, and the
platform's, as its answers tell it. A step is a change of UTC that the monotonic clock did not see. The offset to the
platform follows Cristian (1989, DOI 10.1007/BF01784024): the platform's time lies between sending and hearing, so the
middle of the two is wrong by at most half the round trip.
"""

from __future__ import annotations

import time
from typing import Protocol

STEP_MS = 500


class Clock(Protocol):
    """Both in milliseconds."""

    def utc_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...


class SystemClock:
    """The machine's clocks."""

    def utc_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class Watch:
    """Over one clock. `last_signed_at`: of the last message, from the buffer. `bound_ms`: offset that is told.
    `last`: the time of the last stamp, above which the next one lies."""

    def __init__(self, clock: Clock, last_signed_at: int, bound_ms: int) -> None:
        self.clock = clock
        self.bound_ms = bound_ms
        self.offset_ms: int | None = None
        self.uncertainty_ms = 0
        self.steps = 0
        self.last = last_signed_at
        self._utc, self._monotonic = clock.utc_ms(), clock.monotonic_ms()

    def stamp(self) -> int:
        """When a message is signed, ms since the epoch: now, and above the last stamp also after a step backwards."""
        self.last = max(self.last + 1, self.clock.utc_ms())
        return self.last

    def look(self) -> int:
        """How far the clock was set since the last look, ms; 0 when it was not (less than half a second is drift)."""
        utc, monotonic = self.clock.utc_ms(), self.clock.monotonic_ms()
        step = (utc - self._utc) - (monotonic - self._monotonic)
        self._utc, self._monotonic = utc, monotonic
        if abs(step) < STEP_MS:
            return 0
        self.steps += 1
        if self.offset_ms is not None:
            self.offset_ms += step
        return step

    def heard(self, platform_ms: int, sent_monotonic_ms: int) -> None:
        """The platform told its time in the answer to what was sent at an instant of the monotonic clock."""
        trip = max(0, self.clock.monotonic_ms() - sent_monotonic_ms)
        self.offset_ms = self.clock.utc_ms() - trip // 2 - platform_ms
        self.uncertainty_ms = trip - trip // 2

    @property
    def off(self) -> bool:
        """Whether the clock is surely further from the platform's than the bound."""
        return self.offset_ms is not None and abs(self.offset_ms) - self.uncertainty_ms > self.bound_ms
