"""Readings: what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Quality(StrEnum):
    MEASURED = "measured"
    ESTIMATED = "estimated"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Reading:
    """Mean power of a unit in a quarter-hour in kW, signed, injection positive."""

    unit: str
    start: datetime
    power_kw: float
    quality: Quality
