"""Automatic frequency restoration (aFRR): a group follows the operator's set value, sent every 4 s (ACT-05).

    r+ = R+ / T,  r- = R- / T                                what may change in a second
    p(k) = p(k-1) + clip(s(k) - p(k-1), -(r-) dt, +(r+) dt)  the target, s clipped to [-R-, R+]

R+ and R- are the reserves up and down, T the full activation time (300 s in the European standard product, decision
02/2020 of ACER): the whole reserve is reached in T, the whole way from one end to the other in 2 T. A target is shared
among units by their participation factors, and what one cannot take goes to the others.

Realisation is what was measured less the baseline. A unit may be faster than the target, or later than it by up to T;
so at every instant it gives something between the least and the most of signal and target in the T before. That bounds
what counts as following.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from coflex.domain.quantity import Bools, Floats, Ints

STEP_S = 4.0
EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Band:
    """The reserve of a group in W, up and down, and its full activation time in seconds."""

    up_w: int
    down_w: int
    full_activation_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Participant:
    """A unit that takes part: what it can give each way in W, and its factor, relative to those of the others."""

    unit: str
    up_w: int
    down_w: int
    factor: int


@dataclass(frozen=True, slots=True)
class Following:
    """How well a signal was followed, over n samples of which `judged` have a number.

    `compliant`: inside what was asked for, widened by the tolerance. `mean_error_w`: mean distance of the realisation
    from the target; `worst_w`: largest distance from what was asked for. `asked_wh`, `given_wh`: energies up and down.
    `delay_s`: by how much the realisation lags behind the target, the shift at which they are nearest; None where the
    target never moved.
    """

    judged: int
    compliant: int
    mean_error_w: float
    worst_w: float
    asked_wh: tuple[float, float]
    given_wh: tuple[float, float]
    delay_s: float | None

    @property
    def share(self) -> float | None:
        return self.compliant / self.judged if self.judged else None


def target(set_w: float, before_w: float, band: Band, seconds: float = STEP_S) -> float:
    """The next target in W, injection positive, from the one before and the set value. Never outside the band, never
    faster than its ramp, never past the set value."""
    wanted = min(max(set_w, -band.down_w), band.up_w)
    rise, fall = _ramp(band, seconds)
    # above zero a change is of the reserve up, below of the one down; across zero each part has its own pace
    reach_up = _moved(before_w, seconds, rise / seconds, fall / seconds)
    reach_down = -_moved(-before_w, seconds, fall / seconds, rise / seconds)
    return min(max(wanted, reach_down), reach_up)


def _ramp(band: Band, seconds: float) -> tuple[float, float]:
    return band.up_w * seconds / band.full_activation_s, band.down_w * seconds / band.full_activation_s


def _moved(from_w: float, seconds: float, above: float, below: float) -> float:
    """How far up one comes in a time: at the pace `below` while under zero, at `above` from there on."""
    if from_w < 0 and below > 0:
        to_zero = -from_w / below
        if to_zero >= seconds:
            return from_w + below * seconds
        return above * (seconds - to_zero)
    return from_w + (below if from_w < 0 else above) * seconds


def targets(set_w: Floats, band: Band, before_w: float = 0.0, seconds: float = STEP_S) -> Floats:
    """The targets of a signal of n set values, one every `seconds`."""
    found, now = np.empty(len(set_w)), before_w
    for k, wanted in enumerate(set_w.tolist()):
        now = target(wanted, now, band, seconds)
        found[k] = now
    return found


def shares(target_w: int, participants: Sequence[Participant]) -> dict[str, int]:
    """A whole target in W shared by participation factors, each at most what it can give that way.

    Adds up exactly to the target, or to what all can give together where that is less. Rests of rounding go to the
    largest remainders, ties by id. Units in any order give the same. Raises ValueError on a unit that stands twice.
    """
    units = sorted(participants, key=lambda one: one.unit)
    if len({one.unit for one in units}) < len(units):
        raise ValueError("a unit stands twice")
    sign = 1 if target_w >= 0 else -1
    most = {one.unit: one.up_w if sign > 0 else one.down_w for one in units}
    left, found = abs(target_w), dict.fromkeys(most, 0)
    waiting = {one.unit: one.factor for one in units if one.factor > 0 and most[one.unit] > 0}
    total = sum(waiting.values())
    # whoever its part would fill takes what it can; the rest is shared anew, so factors keep their meaning among others
    for unit in sorted(waiting, key=lambda unit: (Fraction(most[unit], waiting[unit]), unit)):
        if left * waiting[unit] < most[unit] * total:
            break
        found[unit] = most[unit]
        left, total = left - most[unit], total - waiting.pop(unit)
    if waiting:
        found |= _largest_remainder(left, waiting)
    return {unit: sign * kw for unit, kw in found.items()}


def _largest_remainder(whole: int, weights: dict[str, int]) -> dict[str, int]:
    total = sum(weights.values())
    found = {unit: whole * weight // total for unit, weight in weights.items()}
    rest = whole - sum(found.values())
    order = sorted(weights, key=lambda unit: (-(whole * weights[unit] % total), unit))
    for unit in order[:rest]:
        found[unit] += 1
    return found


def quality(
    set_w: Floats, measured_w: Floats, baseline_w: Floats, band: Band, tolerance: float = 0.05, seconds: float = STEP_S
) -> Following:
    """How well a group followed n set values, one every `seconds`; W, injection positive, NaN where it is missing.
    `tolerance`: share of the larger reserve."""
    asked = np.clip(set_w, -band.down_w, band.up_w)
    wanted = targets(asked, band, 0.0, seconds)
    change = measured_w - baseline_w
    window = round(band.full_activation_s / seconds)
    low, high = _around(np.minimum(asked, wanted), np.maximum(asked, wanted), window)
    judged = np.isfinite(change)
    off = np.where(judged, np.maximum(np.maximum(low - change, change - high), 0.0), 0.0)
    most = (tolerance + EPSILON) * max(band.up_w, band.down_w)
    given = np.where(judged, change, 0.0)
    hours = seconds / 3600
    return Following(
        judged=int(judged.sum()),
        compliant=int((judged & (off <= most)).sum()),
        mean_error_w=float(np.abs(given - wanted)[judged].mean()) if judged.any() else 0.0,
        worst_w=float(off.max(initial=0.0)),
        asked_wh=_energies(np.where(judged, wanted, 0.0), hours),
        given_wh=_energies(given, hours),
        delay_s=_delay(wanted, given, judged, window, seconds),
    )


def _around(least: Floats, most: Floats, window: int) -> tuple[Floats, Floats]:
    """The least and the most of each value and the `window` before it; before the first one it was zero."""
    low, high, count = least.copy(), most.copy(), len(least)
    for lag in range(1, window + 1):
        begun = np.zeros(min(lag, count))
        low = np.minimum(low, np.concatenate([begun, least[: max(0, count - lag)]]))
        high = np.maximum(high, np.concatenate([begun, most[: max(0, count - lag)]]))
    return low, high


def _energies(power: Floats, hours: float) -> tuple[float, float]:
    return float(np.maximum(power, 0.0).sum() * hours), float(np.maximum(-power, 0.0).sum() * hours)


def _delay(wanted: Floats, given: Floats, judged: Bools, most: int, seconds: float) -> float | None:
    if not len(wanted) or float(np.ptp(wanted)) == 0.0:
        return None
    errors = []
    for lag in range(min(most, len(wanted) - 1) + 1):
        count = len(wanted) - lag
        use = judged[lag:]
        gap = (given[lag:] - wanted[:count])[use]
        errors.append(float(gap @ gap) / len(gap) if len(gap) else np.inf)
    best = int(np.argmin(np.array(errors)))
    return best * seconds if np.isfinite(errors[best]) else None


def sent(target_w: Sequence[int], participants: Sequence[Participant]) -> Ints:
    """Shares of n targets, shape (n, units), units by id: the streams of set values that go to the units."""
    names = sorted(one.unit for one in participants)
    rows = [[found[name] for name in names] for found in (shares(one, participants) for one in target_w)]
    return np.array(rows, dtype=np.int64).reshape(len(target_w), len(names))
