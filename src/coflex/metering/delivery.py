"""Delivered energy: metered power against the baseline.

Power arrives as float kW (mean of a quarter-hour, injection positive) and becomes exact here, once: every energy
is a Decimal in kWh, rounded to 0.001 kWh half to even, taken from the shortest decimal that names the float.
What the energies are worth, by metered or by requested response, is the settlement's to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from math import isfinite

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Direction, Floats

QUARTER_HOUR = Decimal("0.25")
WATT_HOUR = Decimal("0.001")


def energy_kwh(power_kw: float) -> Decimal:
    """Energy of a quarter-hour at a mean power, signed, to 0.001 kWh. Raises CoflexError on a missing power."""
    if not isfinite(power_kw):
        raise CoflexError(f"The power {power_kw} is no number.", "Substitute missing readings before the energy.")
    return to_watt_hour(Decimal(repr(float(power_kw))) * QUARTER_HOUR)


def to_watt_hour(kwh: Decimal) -> Decimal:
    """An energy rounded to 0.001 kWh, half to even; what rounds to nothing has no sign."""
    return kwh.quantize(WATT_HOUR) + 0


def energies_kwh(power_kw: Iterable[float] | Floats) -> tuple[Decimal, ...]:
    """`energy_kwh` of each value, in order."""
    return tuple(energy_kwh(power) for power in np.asarray(power_kw, dtype=np.float64).tolist())


def delivered_kwh(direction: Direction, baseline_kwh: Decimal, measured_kwh: Decimal) -> Decimal:
    """Energy delivered in the direction ordered, never below zero: a move against the order delivers nothing.

    Injection positive: up delivers measured - baseline, down delivers baseline - measured.
    """
    return max(Decimal(0), direction.sign * (measured_kwh - baseline_kwh))


def deliveries_kwh(direction: Direction, baseline_kw: Floats, measured_kw: Floats) -> tuple[Decimal, ...]:
    """`delivered_kwh` of each quarter-hour from powers in kW; both of shape (periods,)."""
    pairs = zip(energies_kwh(baseline_kw), energies_kwh(measured_kw), strict=True)
    return tuple(delivered_kwh(direction, baseline, measured) for baseline, measured in pairs)
