"""Forecasts: series with quantiles, and how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coflex.domain.quantity import Floats
from coflex.domain.time import Axis


@dataclass(frozen=True, eq=False)
class Forecast:
    """Forecast of several series made at `issued`, from nothing measured after it.

    `values[i, t]`: central forecast of `names[i]`; `quantiles[q, i, t]` at `levels[q]`. `methods[i]`: which
    method made the series.
    """

    issued: datetime
    names: tuple[str, ...]
    axis: Axis
    values: Floats
    levels: tuple[float, ...]
    quantiles: Floats
    methods: tuple[str, ...]
