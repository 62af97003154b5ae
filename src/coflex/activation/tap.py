"""Conservation voltage reduction (CVR) as an order to tap changers: what it will do, and what it did (T, scenario II).

Estimated: by power flow with loads that follow the voltage (`coflex.grid.voltage_reduction`), step by step.

Measured: the taps are switched on and off many times, and each switching compares the power and the voltage just before
with those just after, which leaves out all that changes slowly. Of m switchings with

    y = ln(P after / P before),   x = ln(V after / V before)

the voltage-to-load factor is the slope through zero, n = sum(x y) / sum(x^2): n percent less load for a percent less
voltage (CVR factor; Wang and Wang, IEEE Trans. Power Systems 29 (2014) 1306). With
residuals e and m - 1 degrees of freedom its standard error is s = sqrt(sum(e^2) / (m - 1) / sum(x^2)), and
n -+ t(m-1) s holds the true factor in the share of cases that the confidence says, where residuals are normal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.voltage_reduction import Reduction


@dataclass(frozen=True, slots=True)
class TapOrder:
    """Lower the taps of `transformers` together by `steps` from their normal position, in t periods; `kw[t]`: whole kW
    that the load falls by, as estimated. `short_kw[t]`: what was asked for and the taps do not give."""

    transformers: tuple[str, ...]
    steps: tuple[int, ...]
    kw: tuple[int, ...]
    short_kw: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Factor:
    """A measured voltage-to-load factor: its value, its bounds at `confidence`, from `switchings` of which each gave
    `x`, `y` (m,)."""

    value: float
    low: float
    high: float
    confidence: float
    x: Floats
    y: Floats

    @property
    def switchings(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Effect:
    """Energy in kWh by which the load was lower while the taps were lowered, with its bounds."""

    kwh: float
    low_kwh: float
    high_kwh: float


def order_of(reduction: Reduction, transformers: Sequence[str], wanted_kw: Sequence[int]) -> TapOrder:
    """The fewest steps in each period that take `wanted_kw[t]` off the loads; all there are where that is not enough.

    A step that would break a limit has no effect in `reduction`, nor those after it, so it is never ordered.
    """
    total: Ints = np.cumsum(reduction.kw, axis=0)
    steps, given = [], []
    for t, wanted in enumerate(wanted_kw):
        reached = [0, *total[:, t].tolist()]
        useful = [s for s in range(len(reached)) if s == 0 or reached[s] > reached[s - 1]]
        enough = [s for s in useful if reached[s] >= wanted]
        steps.append(enough[0] if enough else useful[-1])
        given.append(int(reached[steps[-1]]))
    short = [max(0, wanted - kw) for wanted, kw in zip(wanted_kw, given, strict=True)]
    return TapOrder(tuple(transformers), tuple(steps), tuple(given), tuple(short))


def measured_factor(
    lowered: Bools, power: Floats, voltage: Floats, window: int, settle: int = 0, confidence: float = 0.95
) -> Factor:
    """The voltage-to-load factor from n samples at even times: whether the taps were `lowered`, withdrawal `power` and
    `voltage` (any unit of each). `window`: samples before and after a switching that are averaged; `settle`: samples
    after it that are left out. A switching counts where both windows lie between the switchings beside it.

    Raises Refused with every fault: too few switchings, no change of voltage, values that are none.
    """
    refuse("The comparison of switchings", tuple(_faults(lowered, power, voltage, window, settle, confidence)))
    pairs = list(_pairs(lowered, window, settle))
    x = np.array([np.log(voltage[after].mean() / voltage[before].mean()) for before, after in pairs])
    y = np.array([np.log(power[after].mean() / power[before].mean()) for before, after in pairs])
    square = float(x @ x)
    refuse("The comparison of switchings", tuple(_too_little(len(pairs), square)))
    value = float(x @ y) / square
    rest = y - value * x
    error = float(np.sqrt(rest @ rest / (len(x) - 1) / square))
    reach = float(stdtrit(len(x) - 1, (1 + confidence) / 2)) * error
    return Factor(value, value - reach, value + reach, confidence, x, y)


def effect(factor: Factor, lowered: Bools, power: Floats, voltage: Floats, hours: float) -> Effect:
    """Energy that was not drawn while the taps were lowered: withdrawal `power` in kW of samples `hours` long.

    Without the order P (V0/V)^n would have flowed, V0 the mean voltage at the normal taps.
    """
    if not lowered.any() or lowered.all():
        return Effect(0.0, 0.0, 0.0)
    ratio = float(voltage[~lowered].mean()) / voltage[lowered]

    def saved(n: float) -> float:
        return float((power[lowered] * (ratio**n - 1)).sum() * hours)

    low, high = sorted((saved(factor.low), saved(factor.high)))
    return Effect(saved(factor.value), low, high)


def _pairs(lowered: Bools, window: int, settle: int) -> Iterator[tuple[slice, slice]]:
    """The windows before and after each switching that has both whole between its neighbours."""
    at = (np.flatnonzero(np.diff(lowered.astype(np.int8))) + 1).tolist()
    bounds = [0, *at, len(lowered)]
    for i in range(1, len(bounds) - 1):
        here = bounds[i]
        # the samples that settle after the switching before belong to neither window
        first = bounds[i - 1] + (settle if i > 1 else 0)
        if here - window >= first and here + settle + window <= bounds[i + 1]:
            yield slice(here - window, here), slice(here + settle, here + settle + window)


def _too_little(count: int, square: float) -> Iterator[Finding]:
    if count < 2:
        message = f"{count} switchings have whole windows beside them; switch more often, or shorten the windows."
        yield Finding("lowered", "switchings", message)
    elif square == 0.0:
        yield Finding("voltage", "no_change", "The voltage did not change with the taps; check where it is measured.")


def _faults(
    lowered: Bools, power: Floats, voltage: Floats, window: int, settle: int, confidence: float
) -> Iterator[Finding]:
    if not len(lowered) == len(power) == len(voltage):
        message = f"There are {len(lowered)}, {len(power)} and {len(voltage)} values; give one a sample."
        yield Finding("power", "lengths", message)
    for name, values in (("power", power), ("voltage", voltage)):
        if not (np.isfinite(values) & (values > 0)).all():
            yield Finding(name, "value", "A value is missing or not above zero; leave such a time out.")
    if window < 1 or settle < 0:
        yield Finding("window", "window", "A window has at least one sample, and none settles backwards; correct it.")
    if not 0 < confidence < 1:
        yield Finding("confidence", "confidence", "The confidence lies between 0 and 1; correct it.")
