"""Re-balancing: a provider replaces a unit that fails by its reserved backups, within 15 minutes (ACT-06; F 4.2,
exception path 2). What no backup covers in that time is the market's to replace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from coflex.activation.split import EPSILON
from coflex.domain.quantity import Ints

WITHIN = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Backup:
    """A unit that is reserved: at most `kw[t]` in each of t periods, 0 where it is not reserved or comes too late.
    `least_kw`: nothing, or at least this. `energy_kwh`: all in all, None for no limit but power."""

    unit: str
    perimeter: str
    kw: tuple[int, ...]
    activation_s: int = 0
    least_kw: int = 0
    energy_kwh: float | None = None


@dataclass(frozen=True, eq=False)
class Rebalanced:
    """`kw[u, t]` of `units[u]`; `missing_kw[t]`: what no backup covers."""

    units: tuple[str, ...]
    kw: Ints
    missing_kw: Ints


def deadline(failed_at: datetime) -> datetime:
    """By when the provider has to have replaced what failed."""
    return failed_at + WITHIN


def rebalance(
    missing_kw: Sequence[int],
    hours: Sequence[float],
    backups: Sequence[Backup],
    room_kw: Mapping[tuple[str, int], int],
    home: str = "",
) -> Rebalanced:
    """Which backups replace `missing_kw[t]` in periods of `hours[t]`.

    `room_kw[perimeter, t]`: what a light lets through beyond all that is called already; no entry, no limit. `home`:
    the perimeter of the unit that failed, whose room its own power has left.

    Rule: units of the same perimeter first, then those that come soonest, then the larger ones, then by id. Guarantees:
    kw and missing add up; no unit beyond its reservation, its energy or under its least; no perimeter beyond its room;
    backups in any order give the same. Raises ValueError on a unit that stands twice.
    """
    units = sorted(backups, key=lambda one: one.unit)
    if len({one.unit for one in units}) < len(units):
        raise ValueError("a backup stands twice")
    turn = sorted(
        range(len(units)),
        key=lambda u: (
            units[u].perimeter != home, units[u].activation_s, -max(units[u].kw, default=0), units[u].unit
        ),
    )  # fmt: skip
    kw = np.zeros((len(units), len(missing_kw)), dtype=np.int64)
    missing = np.array(missing_kw, dtype=np.int64)
    room, energy = dict(room_kw), [one.energy_kwh for one in units]
    for t in range(len(missing_kw)):
        for u in turn:
            place = units[u].perimeter, t
            able = min(units[u].kw[t], room.get(place, units[u].kw[t]), int(missing[t]))
            if (rest := energy[u]) is not None:
                able = min(able, int(max(0.0, rest) / hours[t] + EPSILON))
            if able <= 0 or able < units[u].least_kw:
                continue
            kw[u, t] = able
            missing[t] -= able
            energy[u] = None if rest is None else rest - able * hours[t]
            if place in room:
                room[place] -= able
    return Rebalanced(tuple(one.unit for one in units), kw, missing)
