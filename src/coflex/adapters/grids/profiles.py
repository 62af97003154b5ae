"""The profiles of SimBench grids as readings of units: what baselines are tried on where nobody has meters to show.

A profile is the power of a device over the year 2016 as a share of its largest, so one unit stands for all devices
that follow it. Public holidays are those of all German states in 2016, where the profiles are from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from coflex.adapters.grids.simbench import YEAR, load_grid
from coflex.domain.series import Series

HOLIDAYS = frozenset(
    date(2016, month, day)
    for month, day in ((1, 1), (3, 25), (3, 28), (5, 1), (5, 5), (5, 16), (10, 3), (12, 25), (12, 26))
)
# By the beginning of a profile's name (S. Meinecke et al., doi 10.3390/en13123290, section 3.3).
_KINDS = (
    ("H0", "household"),
    ("G", "business"),
    ("L", "farm"),
    ("BL", "industry"),
    ("WB", "industry"),
    ("APLS", "electric vehicle"),
    ("HLS", "electric vehicle"),
    ("Air", "heat pump"),
    ("Soil", "heat pump"),
    ("PV", "photovoltaics"),
    ("WP", "wind"),
    ("BM", "biomass"),
    ("Hydro", "hydro"),
)


def profile_readings(codes: Sequence[str], cache: Path) -> tuple[Series, dict[str, str]]:
    """The profiles of grids as power of units of 1 kW, injection positive, and the kind of each; a profile that
    several grids use stands once. Raises CoflexError on an unknown grid."""
    rows = {}
    for code in codes:
        profiles = load_grid(code, cache).profiles
        for name, values in zip(profiles.names, profiles.values, strict=True):
            if not name.endswith("_qload"):
                rows[name] = values if name.endswith("_res") else -values
    names = tuple(sorted(rows))
    units = tuple(re.sub(r"_pload$", "", name) for name in names)
    kinds = {unit: kind_of(name) for unit, name in zip(units, names, strict=True)}
    return Series(units, YEAR, np.array([rows[name] for name in names])), kinds


def kind_of(profile: str) -> str:
    """What follows a profile, in words."""
    if profile.startswith("lv_"):
        return "low-voltage area" if profile.endswith("_pload") else "generation of a low-voltage area"
    return next((kind for start, kind in _KINDS if re.match(rf"{start}(?![a-z])", profile)), "other")
