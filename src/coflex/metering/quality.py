"""Quality of readings: what stands in for a missing one, and which ones cannot be.

The rule for gaps. Up to two quarter-hours between readings lie on the straight line between them and count as
estimated. A longer gap, or one at the edge of the day, takes the baseline and stays marked missing: the place of
the reading is held, no delivery is invented, and the settlement neither pays nor penalises it until a reading
arrives. So neither side gains from a meter that falls silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from coflex.domain.errors import CoflexError, Finding
from coflex.domain.quantity import Bools, Floats
from coflex.domain.reading import Quality
from coflex.domain.series import Series

LONGEST_LINE = 2


@dataclass(frozen=True, eq=False)
class Substituted:
    """A series without gaps, kW, injection positive, and where each value comes from; both of shape (periods,)."""

    values: Floats
    quality: tuple[Quality, ...]


def substitute(measured_kw: Floats, baseline_kw: Floats) -> Substituted:
    """Fill the gaps (NaN) of one unit's readings by the rule above.

    Raises CoflexError when the shapes differ. Guarantee: a value that was measured is returned as it is.
    """
    if measured_kw.shape != baseline_kw.shape:
        raise CoflexError("Readings and baseline are on different axes.", "Give both for the same quarter-hours.")
    missing = np.isnan(measured_kw)
    bridged = _bridged(missing)
    values = np.where(missing, baseline_kw, measured_kw)
    if bridged.any():
        at = np.arange(len(values))
        values[bridged] = np.interp(at[bridged], at[~missing], measured_kw[~missing])
    quality = [Quality.ESTIMATED if line else Quality.MISSING if gap else Quality.MEASURED
               for gap, line in zip(missing, bridged, strict=True)]  # fmt: skip
    return Substituted(values, tuple(quality))


def _bridged(missing: Bools) -> Bools:
    """The missing quarters that lie in a short gap with a reading on either side."""
    bridged = np.zeros(len(missing), dtype=np.bool_)
    for gap, run in groupby(range(len(missing)), key=lambda t: bool(missing[t])):
        places = list(run)
        inside = places[0] > 0 and places[-1] < len(missing) - 1
        bridged[places] = gap and inside and len(places) <= LONGEST_LINE
    return bridged


def out_of_range(readings: Series, low_kw: Floats, high_kw: Floats) -> tuple[Finding, ...]:
    """Readings that the unit cannot have: a finding for each value outside [low_kw[i], high_kw[i]], in kW.

    Missing values (NaN) are no finding; they are the gap rule's.
    """
    outside = (readings.values < low_kw[:, None]) | (readings.values > high_kw[:, None])
    return tuple(
        Finding(
            f"readings: unit {readings.names[i]}, {readings.axis[int(t)].isoformat()}",
            "out_of_range",
            f"{readings.values[i, t]:g} kW is outside {low_kw[i]:g} to {high_kw[i]:g} kW; check the meter.",
        )
        for i, t in np.argwhere(outside)
    )
