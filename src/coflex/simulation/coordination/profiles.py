"""Profiles of a summer day as closed forms of the local hour h (middle of the quarter-hour), peak about 1.

d(h, m) = distance in hours between h and m round the clock, bell(m, w) = exp(-(d(h, m)/w)^2):

    household   0.38 + 0.20 bell(8, 1.8) + 0.22 bell(13, 2.0) + 0.62 bell(20, 2.2)
    commercial  0.25 + 0.75 / (1 + ((h - 13)/5.2)^8)
    industrial  0.55 + 0.45 / (1 + ((h - 14)/7)^10)
    ev          0.08 + 0.92 bell(19.75, 1.9)
    heat_pump   0.20 + 0.45 bell(6.5, 1.3) + 0.75 bell(20.25, 1.6)      hot water and cooling of homes
    water_pump  0.30 + 0.60 bell(10, 2.5) + 0.30 bell(22, 3)            irrigation
    sun         sin(pi (h - 5.6)/15.4)^1.3 between 5.6 and 21.0, else 0
    wind        0.50 + 0.22 sin(2 pi (h - 7)/24) + 0.06 sin(10 pi h/24)
    steady      0.6, hydro 0.5: output of plants that run below their rated power
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis


def hours(axis: Axis, zone: ZoneInfo) -> Floats:
    """Local hour at the middle of each period, shape (t,)."""
    local = [instant.astimezone(zone) for instant in axis]
    return np.array([moment.hour + moment.minute / 60 for moment in local]) + axis.hours / 2


def bell(h: Floats, middle: float, width: float) -> Floats:
    """exp(-(d/width)^2) with the distance d round the clock."""
    apart = np.abs(h - middle)
    shape: Floats = np.exp(-((np.minimum(apart, 24 - apart) / width) ** 2))
    return shape


def profiles(axis: Axis, zone: ZoneInfo) -> Series:
    """All profiles by name, rounded to six digits."""
    h = hours(axis, zone)
    day = np.clip((h - 5.6) / 15.4, 0.0, 1.0)
    rows = {
        "household": 0.38 + 0.20 * bell(h, 8, 1.8) + 0.22 * bell(h, 13, 2.0) + 0.62 * bell(h, 20, 2.2),
        "commercial": 0.25 + 0.75 / (1 + ((h - 13) / 5.2) ** 8),
        "industrial": 0.55 + 0.45 / (1 + ((h - 14) / 7) ** 10),
        "ev": 0.08 + 0.92 * bell(h, 19.75, 1.9),
        "heat_pump": 0.20 + 0.45 * bell(h, 6.5, 1.3) + 0.75 * bell(h, 20.25, 1.6),
        "water_pump": 0.30 + 0.60 * bell(h, 10, 2.5) + 0.30 * bell(h, 22, 3.0),
        "sun": np.maximum(np.sin(np.pi * day), 0.0) ** 1.3,
        "wind": 0.50 + 0.22 * np.sin(2 * np.pi * (h - 7) / 24) + 0.06 * np.sin(10 * np.pi * h / 24),
        "steady": np.full(len(h), 0.6),
        "hydro": np.full(len(h), 0.5),
    }
    return Series(tuple(rows), axis, np.round(np.array(list(rows.values())), 6))
