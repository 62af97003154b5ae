"""Frequency containment (FCR): the local droop, and its proof from the frequency log (ACT-05).

    x(f) = f - f0                               deviation, here in mHz
    s(f) = clip((|x| - d) / (F - d), 0, 1)      d dead band, F deviation of the full reserve
    P(f) = -sign(x) s(f) R                      R reserve, the same both ways

Default numbers: Regulation (EU) 2017/1485, Annex V, continental Europe: F = 200 mHz, d = 10 mHz at most, the whole
reserve within 30 s. Below the nominal frequency more is injected.

The proof. A unit that follows the droop in at most T seconds gives at every instant a mean of what the droop asked for
in the T seconds before, whatever its own dynamics. So its change of power lies between the least and the most that was
asked for in [t - T, t], widened by the tolerance; a deviation that stays for longer than T leaves nothing but the droop
itself. Frequency between two samples is held at the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Bools, Floats, Ints

# Seconds between two samples from which on the log has a hole: what the frequency did there is not known.
HOLE_S = 10.0
# Rounding of floats, as a share of the reserve.
EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Droop:
    """A symmetric reserve of `reserve_w` and its characteristic; times in seconds, deviations in mHz."""

    reserve_w: float
    full_mhz: float = 200.0
    dead_band_mhz: float = 10.0
    nominal_hz: float = 50.0
    full_activation_s: float = 30.0


@dataclass(frozen=True, eq=False)
class FrequencyLog:
    """What a unit recorded at n instants: `at_s` seconds after `start`, rising; `hz` frequency; `power_w` measured and
    `baseline_w` without the reserve, W, injection positive. A number that is missing is NaN."""

    start: datetime
    at_s: Floats
    hz: Floats
    power_w: Floats
    baseline_w: Floats


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the change of power (W) may be at each instant before the tolerance, and where that is known, all (n,)."""

    low_w: Floats
    high_w: Floats
    known: Bools


@dataclass(frozen=True, slots=True)
class DroopProof:
    """The numbers that the log proves.

    `judged`, `left_out`: samples with and without a verdict (missing values, holes); the first full activation time of
    the log leads in and is neither.
    `compliant`: of those judged, inside the bounds. `gain`: slope of the measured change on the droop through zero,
    1 for a unit that follows at once; None where the frequency never left the dead band.
    `worst_w`: the largest distance from the bounds, tolerance not counted, at `worst_at`; `longest_s`: the longest time
    outside the bounds. `full_s`: time in which the whole reserve was due, `full_held_s`: of it, inside the bounds.
    `up_due_wh`, `down_due_wh`: energy that the droop asked for, `up_given_wh`, `down_given_wh`: that was given while it
    asked for it, all of the judged samples.
    """

    judged: int
    left_out: int
    compliant: int
    gain: float | None
    worst_w: float
    worst_at: datetime | None
    longest_s: float
    full_s: float
    full_held_s: float
    up_due_wh: float
    up_given_wh: float
    down_due_wh: float
    down_given_wh: float

    @property
    def compliant_share(self) -> float | None:
        """Share of the judged samples inside the bounds; None where none was judged."""
        return self.compliant / self.judged if self.judged else None

    @property
    def judged_share(self) -> float:
        """Share of all samples that have a verdict; 0 where there are none."""
        return self.judged / (self.judged + self.left_out) if self.judged else 0.0

    def holds(self, share: float = 0.95, judged_share: float = 0.95) -> bool:
        """Whether enough samples have a verdict, and enough of those are inside the bounds."""
        compliant = self.compliant_share
        return compliant is not None and compliant >= share and self.judged_share >= judged_share


def droop_power(frequency_hz: Floats | float, droop: Droop) -> Floats:
    """Change of power in W, injection positive, at each frequency in Hz; shape as given, a number gives a number.

    Odd around the nominal frequency, never rising with the frequency, never beyond the reserve. NaN stays NaN.
    """
    deviation = (np.asarray(frequency_hz, dtype=np.float64) - droop.nominal_hz) * 1000
    share = (np.abs(deviation) - droop.dead_band_mhz) / (droop.full_mhz - droop.dead_band_mhz)
    change: Floats = -np.sign(deviation) * np.clip(share, 0.0, 1.0) * droop.reserve_w
    return change


def bounds(log: FrequencyLog, droop: Droop) -> Bounds:
    """The least and the most that the droop asked for in the full activation time up to each instant."""
    asked, at = droop_power(log.hz, droop), log.at_s
    first = _in_force(at, at - droop.full_activation_s)
    low, high = asked.copy(), asked.copy()
    place = np.arange(len(at))
    for lag in range(1, int((place - first).max(initial=0)) + 1):
        # minimum and maximum of NumPy hand on NaN: a window with a missing frequency is not known
        reached = np.flatnonzero(place - first >= lag)
        low[reached] = np.minimum(low[reached], asked[reached - lag])
        high[reached] = np.maximum(high[reached], asked[reached - lag])
    known = np.isfinite(low) & _led_in(at, droop)
    holes = np.concatenate([[0], np.cumsum(np.diff(at) > HOLE_S)])
    known &= holes == holes[first]
    return Bounds(low, high, known)


def prove(log: FrequencyLog, droop: Droop, tolerance: float = 0.05) -> DroopProof:
    """Hold what was measured against the droop. `tolerance`: share of the reserve.

    Raises Refused with every fault of the log, the droop and the tolerance.
    """
    refuse("The frequency log", tuple(_faults(log, droop, tolerance)))
    change, around = log.power_w - log.baseline_w, bounds(log, droop)
    judged = around.known & np.isfinite(change)
    off = np.where(judged, np.maximum(np.maximum(around.low_w - change, change - around.high_w), 0.0), 0.0)
    inside = off <= (tolerance + EPSILON) * droop.reserve_w
    seconds = np.where(judged, _lasting(log.at_s), 0.0)
    least = np.where((around.low_w > 0) | (around.high_w < 0), np.minimum(abs(around.low_w), abs(around.high_w)), 0.0)
    full = judged & (least >= (1 - EPSILON) * droop.reserve_w)
    asked = np.where(judged, droop_power(log.hz, droop), 0.0)
    given = np.where(judged, change, 0.0)
    worst = int(np.argmax(off)) if len(off) else 0
    return DroopProof(
        judged=int(judged.sum()),
        left_out=int((~judged & _led_in(log.at_s, droop)).sum()),
        compliant=int((judged & inside).sum()),
        gain=_gain(asked, given),
        worst_w=float(off[worst]) if len(off) else 0.0,
        worst_at=log.start + timedelta(seconds=float(log.at_s[worst])) if off.any() else None,
        longest_s=_longest(judged & ~inside, seconds),
        full_s=float(seconds[full].sum()),
        full_held_s=float(seconds[full & inside].sum()),
        up_due_wh=_energy(asked, asked > 0, seconds),
        up_given_wh=_energy(given, asked > 0, seconds),
        down_due_wh=-_energy(asked, asked < 0, seconds),
        down_given_wh=-_energy(given, asked < 0, seconds),
    )


def _led_in(at: Floats, droop: Droop) -> Bools:
    """Samples that have a whole full activation time of the log before them."""
    led: Bools = at - droop.full_activation_s >= at[:1]
    return led


def _in_force(at: Floats, instants: Floats) -> Ints:
    """The sample that holds at each instant; the first one before all."""
    place: Ints = np.maximum(np.searchsorted(at, instants, side="right") - 1, 0).astype(np.int64)
    return place


def _lasting(at: Floats) -> Floats:
    """Seconds for which each sample stands: to the next one, the last as long as the one before it; no hole counts."""
    if len(at) < 2:
        return np.zeros(len(at))
    gaps = np.diff(at)
    lasting: Floats = np.where(np.append(gaps, gaps[-1]) > HOLE_S, 0.0, np.append(gaps, gaps[-1]))
    return lasting


def _gain(asked: Floats, given: Floats) -> float | None:
    square = float(asked @ asked)
    return float(asked @ given) / square if square else None


def _energy(power: Floats, when: Bools, seconds: Floats) -> float:
    return float((power[when] * seconds[when]).sum()) / 3600


def _longest(outside: Bools, seconds: Floats) -> float:
    longest = run = 0.0
    for out, lasting in zip(outside.tolist(), seconds.tolist(), strict=True):
        run = run + lasting if out else 0.0
        longest = max(longest, run)
    return longest


def _faults(log: FrequencyLog, droop: Droop, tolerance: float) -> Iterator[Finding]:
    lengths = {name: len(getattr(log, name)) for name in ("at_s", "hz", "power_w", "baseline_w")}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {count}" for name, count in lengths.items())
        yield Finding("log", "lengths", f"The columns have different lengths ({text}); give one value an instant.")
    if not np.isfinite(log.at_s).all() or (np.diff(log.at_s) <= 0).any():
        yield Finding("at_s", "order", "The instants do not rise; sort the samples and drop the repeated ones.")
    if not (np.isfinite(droop.reserve_w) and droop.reserve_w > 0):
        yield Finding("reserve_w", "reserve", f"A reserve of {droop.reserve_w} W is none; give one above zero.")
    if not 0 <= droop.dead_band_mhz < droop.full_mhz:
        yield Finding("dead_band_mhz", "dead_band", "The dead band is not below the full deviation; correct the two.")
    if not droop.full_activation_s > 0:
        yield Finding("full_activation_s", "time", "The full activation time is not above zero; correct it.")
    if not 0 <= tolerance < 1:
        yield Finding("tolerance", "tolerance", "The tolerance is a share from 0 to below 1; correct it.")
