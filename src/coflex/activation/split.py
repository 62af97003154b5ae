"""An order on many units becomes a power for each: the platform's split, and the check of a provider's own.

The platform's rule, period by period: the unit that can go on longest first (energy left over power; without an energy
limit for ever), then the one that gives most, then by id. Each is filled before the next is touched, so the fewest
units are used, and what runs dry soonest is spared (Evans, Tindemans and Angeli, 2018, as in the ledger of the market).

Power is in whole units, kW or W as the caller likes; energies are the same times hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from coflex.domain.errors import Finding
from coflex.domain.quantity import Floats, Ints

# Energies are held to their limit up to this share of a unit of power in an hour.
EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Able:
    """What one unit can give in t periods: at most `power[t]`, nothing or at least `least`, all in all `energy` (None:
    no limit but power). `late[t]`: periods that its preparation and its ramp do not reach any more."""

    unit: str
    power: tuple[int, ...]
    energy: float | None = None
    least: int = 0
    late: tuple[bool, ...] = ()

    def most(self, t: int) -> int:
        """What it can give in a period, its energy aside."""
        return 0 if self.late and self.late[t] else max(0, self.power[t])


@dataclass(frozen=True, eq=False)
class Split:
    """`power[u, t]` of `units[u]`, and what of the order no unit can give, `short[t]`."""

    units: tuple[str, ...]
    power: Ints
    short: Ints


def split(order: Sequence[int], hours: Sequence[float], able: Sequence[Able]) -> Split:
    """Split `order[t]` over units, periods of `hours[t]`.

    Guarantees: power and short add up to the order in every period; no unit above what it can give nor under its
    least, none beyond its energy; short is zero where units without a least can give the order; units in any order
    give the same. Raises ValueError on a unit that stands twice or an order below zero.
    """
    units = sorted(able, key=lambda one: one.unit)
    if len({one.unit for one in units}) < len(units) or min(order, default=0) < 0:
        raise ValueError("a unit stands twice, or the order is below zero")
    power = np.zeros((len(units), len(order)), dtype=np.int64)
    short = np.zeros(len(order), dtype=np.int64)
    left = np.array([np.inf if one.energy is None else one.energy for one in units])
    for t, wanted in enumerate(order):
        most = [_most(one, t, left[u], hours[t]) for u, one in enumerate(units)]
        share = _shares(wanted, most, [one.least for one in units], _longest_first(units, most, left))
        power[:, t] = share
        short[t] = wanted - int(share.sum())
        left = left - share * hours[t]
    return Split(tuple(one.unit for one in units), power, short)


def _most(one: Able, t: int, left: float, hours: float) -> int:
    most = one.most(t)
    return most if np.isinf(left) else min(most, int(max(0.0, left) / hours + EPSILON))


def _longest_first(units: Sequence[Able], most: Sequence[int], left: Floats) -> list[int]:
    usable = [u for u in range(len(units)) if most[u] > 0]
    return sorted(usable, key=lambda u: (-float(left[u]) / most[u], -most[u], units[u].unit))


def _shares(wanted: int, most: Sequence[int], least: Sequence[int], turn: Sequence[int]) -> Ints:
    """Fill one after the other. Where the rest is less than a unit's least, those before it give way down to theirs."""
    share = np.zeros(len(most), dtype=np.int64)
    left = wanted
    for u in turn:
        give = min(left, most[u])
        if give and give < least[u]:
            if most[u] < least[u] or not _give_way(share, least, turn, least[u] - give):
                continue
            give = least[u]
        share[u] = give
        left = wanted - int(share.sum())
    return share


def _give_way(share: Ints, least: Sequence[int], turn: Sequence[int], wanted: int) -> bool:
    """Take power from units that have more than their least, the last one first; none where it is not enough."""
    room = {u: int(share[u]) - max(least[u], 1) for u in turn if share[u] > 0}
    if sum(room.values()) < wanted:
        return False
    for u in reversed(turn):
        taken = min(wanted, room.get(u, 0))
        share[u] -= taken
        wanted -= taken
    return True


# ---------------------------------------------------------------- a provider's own


def check_split(
    order: Sequence[int],
    hours: Sequence[float],
    starts: Sequence[datetime],
    able: Sequence[Able],
    own: Mapping[str, Sequence[int]],
) -> tuple[Finding, ...]:
    """Every fault of a provider's own split `own[unit][t]`, sorted: it adds up in every period, and each unit is one of
    those that may be called, inside what it can give, its least, its energy, and in time."""
    known = {one.unit: one for one in able}
    findings = [*_wholes(order, starts, own)]
    for unit, power in own.items():
        if unit not in known:
            message = f"The unit '{unit}' cannot be called for this order; split over the units of the offer."
            findings.append(Finding(f"units.{unit}", "unknown_unit", message))
        elif len(power) != len(order):
            message = f"It has {len(power)} values for {len(order)} periods; give one a period."
            findings.append(Finding(f"units.{unit}", "periods", message))
        else:
            findings += _unit_faults(known[unit], power, hours, starts)
    return tuple(sorted(set(findings)))


def _wholes(order: Sequence[int], starts: Sequence[datetime], own: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    for t, wanted in enumerate(order):
        given = sum(power[t] for power in own.values() if len(power) == len(order))
        if given != wanted:
            at = starts[t].isoformat()
            yield Finding(f"period {at}", "sum", f"The units give {given}, the order is {wanted}; make them equal.")


def _unit_faults(
    one: Able, power: Sequence[int], hours: Sequence[float], starts: Sequence[datetime]
) -> Iterator[Finding]:
    for t, kw in enumerate(power):
        place = f"units.{one.unit}, {starts[t].isoformat()}"
        if kw < 0:
            yield Finding(place, "negative", f"{kw} is below zero; the order says which way.")
        elif kw and one.late and one.late[t]:
            yield Finding(place, "too_late", "Its preparation and ramp do not reach this any more; take another unit.")
        elif kw > one.power[t]:
            yield Finding(place, "above_able", f"{kw} is more than the {one.power[t]} it can give; lower it.")
        elif 0 < kw < one.least:
            yield Finding(place, "least", f"{kw} is less than its least, {one.least}; raise it or leave it out.")
    given = sum(kw * hour for kw, hour in zip(power, hours, strict=True) if kw > 0)
    if one.energy is not None and given > one.energy + EPSILON:
        message = f"{given:g} in energy is more than the {one.energy:g} it has left; lower it."
        yield Finding(f"units.{one.unit}", "energy", message)
