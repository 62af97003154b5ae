"""Test signals (REG-07): set points over time, as changes from the baseline, made of what the product asks for.

Every signal begins with a time at zero, from which the baseline can be measured, and ends with one. Chance comes from a
seed alone: value i of seed s is the first eight bytes of SHA-256("s:i") as a whole number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from coflex.domain.errors import Finding
from coflex.domain.quantity import Direction, Floats
from coflex.qualification.requirements import Requirements, SignalKind

# Intervals of the meter before the first order, and after what must be over by then.
LEAD, MARGIN = 10, 2
RAMP_LEVELS = 60
RANDOM_LEVELS = 8
FOLLOWING_LEVELS = 12
# Shares of the deviation at full response, in the order in which a test of containment imposes them.
FREQUENCY_STEPS = (0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Level:
    """From `at_s` seconds after the start, until the next level: `change_kw` from the baseline, signed, injection
    positive. `deviation_mhz`: of the frequency that is simulated, zero in all other tests."""

    at_s: int
    change_kw: float
    deviation_mhz: float = 0.0


@dataclass(frozen=True, slots=True)
class Signal:
    """What a test sends: levels in the order of time, the first at 0, over `length_s` seconds.

    `up_kw`, `down_kw`: the quantity tested in each direction. `seed`: of the random set points.
    """

    kind: SignalKind
    levels: tuple[Level, ...]
    length_s: int
    up_kw: int
    down_kw: int
    seed: int | None = None

    def change_at(self, seconds: Floats) -> Floats:
        """Set points (kW) at times in seconds after the start, shape as given."""
        begins = np.array([level.at_s for level in self.levels], dtype=np.float64)
        kw = np.array([level.change_kw for level in self.levels], dtype=np.float64)
        changes: Floats = kw[np.maximum(np.searchsorted(begins, seconds, side="right") - 1, 0)]
        return changes

    def quantity(self, direction: Direction) -> int:
        return self.up_kw if direction is Direction.UP else self.down_kw

    def ends(self) -> tuple[int, ...]:
        """When each level ends."""
        return (*(level.at_s for level in self.levels[1:]), self.length_s)


def make(required: Requirements, up_kw: int, down_kw: int, seed: int = 0) -> Signal:
    """The signal of a test of `up_kw` and `down_kw` (zero where the product has not that direction).

    `required` must be free of `faults`.
    """
    levels = _Levels(required.interval_s)
    levels.hold(0.0, LEAD * required.interval_s)
    quantities = [up_kw if direction is Direction.UP else -down_kw for direction in required.directions]
    _MAKERS[required.signal](levels, required, [q for q in quantities if q], seed)
    chance = required.signal in (SignalKind.RANDOM, SignalKind.FOLLOWING)
    return Signal(required.signal, tuple(levels.levels), levels.end, up_kw, down_kw, seed if chance else None)


def faults(required: Requirements, up_kw: int, down_kw: int) -> tuple[Finding, ...]:
    """Why no test can be made of these quantities; empty when one can."""
    findings = []
    for direction, quantity in ((Direction.UP, up_kw), (Direction.DOWN, down_kw)):
        place = f"{direction}_kw"
        if direction not in required.directions:
            if quantity:
                findings.append(
                    Finding(place, "wrong_direction", f"'{required.product}' has no direction {direction}; give 0.")
                )
        elif quantity < required.min_quantity_kw or quantity <= 0:
            text = f"{quantity} kW are less than the {required.min_quantity_kw} kW that '{required.product}' asks for"
            findings.append(Finding(place, "min_quantity", f"{text}; offer more."))
        elif quantity % required.tick_kw:
            text = f"{quantity} kW are not in steps of {required.tick_kw} kW"
            findings.append(Finding(place, "tick", f"{text}; round the quantity."))
    if required.symmetric and up_kw != down_kw:
        findings.append(Finding("down_kw", "symmetric", "The product is symmetric; give the same quantity both ways."))
    if required.full_activation_time_s < required.interval_s:
        text = f"A meter of {required.interval_s} s cannot show {required.full_activation_time_s} s"
        findings.append(Finding("product", "coarse_meter", f"{text}; let the operator set a shorter test interval."))
    return tuple(findings)


def droop_kw(required: Requirements, deviation_mhz: float, up_kw: int, down_kw: int) -> float:
    """The change that containment gives at a deviation: none inside the dead band, then in proportion to what exceeds
    it, all of it from `full_mhz` on. Under-frequency (negative) asks for more injection."""
    excess = abs(deviation_mhz) - required.dead_band_mhz
    share = min(max(excess / (required.full_mhz - required.dead_band_mhz), 0.0), 1.0)
    return share * (up_kw if deviation_mhz < 0 else -down_kw)


def drawn(seed: int, i: int, count: int) -> int:
    """A whole number below `count`, the i-th of a seed."""
    return int.from_bytes(sha256(f"{seed}:{i}".encode()).digest()[:8], "big") % count


class _Levels:
    """Levels one after the other; every time is a whole number of the meter's intervals."""

    def __init__(self, interval_s: int) -> None:
        self.interval, self.end = interval_s, 0
        self.levels: list[Level] = []

    def hold(self, change_kw: float, seconds: float, deviation_mhz: float = 0.0) -> None:
        self.levels.append(Level(self.end, change_kw, deviation_mhz))
        self.end += -int(-seconds // self.interval) * self.interval


def _step(levels: _Levels, required: Requirements, quantities: list[int], seed: int) -> None:
    """Each direction twice: the second order comes as soon as the product allows, so it shows the recovery."""
    for quantity in quantities:
        levels.hold(quantity, _hold(required))
        levels.hold(0.0, max(required.recovery_s, _rest(required)))
        levels.hold(quantity, _hold(required))
        levels.hold(0.0, _rest(required))


def _ramp(levels: _Levels, required: Requirements, quantities: list[int], seed: int) -> None:
    """Up to the whole quantity in twice the full activation time, by even set points, held, and back."""
    rise = 2 * required.full_activation_time_s
    parts = min(max(rise // required.interval_s, LEAD), RAMP_LEVELS)
    for quantity in quantities:
        for part in range(1, parts):
            levels.hold(quantity * part / parts, rise / parts)
        levels.hold(quantity, _hold(required))
        for part in range(parts - 1, 0, -1):
            levels.hold(quantity * part / parts, rise / parts)
        levels.hold(0.0, _rest(required))


def _random(levels: _Levels, required: Requirements, quantities: list[int], seed: int) -> None:
    """In each direction the whole quantity, then random ones, each held until it can be reached."""
    for way, quantity in enumerate(quantities):
        levels.hold(quantity, _hold(required))
        _chance(levels, required, quantity, (seed, way * RANDOM_LEVELS), RANDOM_LEVELS, required.full_activation_time_s)
        levels.hold(0.0, _rest(required))


def _following(levels: _Levels, required: Requirements, quantities: list[int], seed: int) -> None:
    """As `_random`, with set points that change four times in a full activation time."""
    held = required.full_activation_time_s / 4
    for way, quantity in enumerate(quantities):
        levels.hold(quantity, _hold(required))
        _chance(levels, required, quantity, (seed, way * FOLLOWING_LEVELS), FOLLOWING_LEVELS, held)
        levels.hold(0.0, _rest(required))


def _chance(
    levels: _Levels, required: Requirements, quantity: int, chance: tuple[int, int], count: int, seconds: float
) -> None:
    """Random whole ticks between zero and the quantity, never twice the same in a row, after the quantity itself.

    `chance`: seed and number of its first value.
    """
    steps, (seed, first) = abs(quantity) // required.tick_kw, chance
    there = steps
    for i in range(first, first + count):
        other = drawn(seed, i, steps)
        there = other if other < there else other + 1
        kw = there * required.tick_kw
        levels.hold(kw if quantity > 0 else -kw, seconds + MARGIN * required.interval_s)


def _frequency(levels: _Levels, required: Requirements, quantities: list[int], seed: int) -> None:
    """Steps of growing deviation each way, with the frequency back at its nominal value between the two."""
    up, down = max(0, *quantities), -min(0, *quantities)
    settled = 2 * required.full_activation_time_s
    for sign in [-1 if quantity > 0 else 1 for quantity in quantities]:
        for share in FREQUENCY_STEPS:
            deviation = sign * share * required.full_mhz
            held = _hold(required) if share == 1 else settled
            levels.hold(droop_kw(required, deviation, up, down), held, deviation)
        levels.hold(0.0, max(settled, _rest(required)))


def _hold(required: Requirements) -> int:
    """Long enough to be reached and then held."""
    return required.full_activation_time_s + required.min_duration_s + MARGIN * required.interval_s


def _rest(required: Requirements) -> int:
    """Long enough for the way back."""
    gone = required.full_activation_time_s if required.deactivation_s is None else required.deactivation_s
    return gone + MARGIN * required.interval_s


_MAKERS: dict[SignalKind, Callable[[_Levels, Requirements, list[int], int], None]] = {
    SignalKind.STEP: _step,
    SignalKind.RAMP: _ramp,
    SignalKind.RANDOM: _random,
    SignalKind.FREQUENCY: _frequency,
    SignalKind.FOLLOWING: _following,
}
