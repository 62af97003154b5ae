"""Energy of a run: what was offered, bought where and for whom, and what was undone again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from math import fsum

import numpy as np

from coflex.domain.offer import Offer
from coflex.domain.quantity import Direction
from coflex.domain.unit import Level
from coflex.market.coordination.outcome import Bought, Run
from coflex.market.coordination.world import World
from coflex.market.design import Buyer
from coflex.reporting.coordination.money import PAYERS, paid, shares_of
from coflex.reporting.interface import Netting

# A unit, a direction and a quarter-hour.
Cell = tuple[str, Direction, int]
_VOLTAGE = "voltage of "


def active(run: Run) -> list[Bought]:
    """Awards of active energy."""
    return [one for one in run.bought if not one.reactive]


def level_of(bought: Bought) -> Level:
    """Where the seller is connected."""
    return Level.DISTRIBUTION if bought.grid else Level.TRANSMISSION


def mwh(kw: float, world: World) -> float:
    """Energy of kW summed over quarter-hours."""
    return kw * world.axis.hours / 1000.0


def bought_kw(awards: Iterable[Bought]) -> dict[tuple[Level, Direction], int]:
    """kW summed over quarter-hours by level and direction, every pair present."""
    found = {(level, direction): 0 for level in Level for direction in Direction}
    for one in awards:
        found[level_of(one), one.award.direction] += one.award.quantity_kw
    return found


def power_kw(awards: Iterable[Bought]) -> dict[datetime, int]:
    """kW by quarter-hour, both directions added."""
    found: dict[datetime, int] = defaultdict(int)
    for one in awards:
        found[one.award.start] += one.award.quantity_kw
    return dict(found)


def spare_kw(run: Run) -> int:
    """kW summed over quarter-hours that sessions of energy selected beyond their request, at no price for being ready,
    and that no award of the unit in that direction and quarter-hour called."""
    called: dict[tuple[str | None, Direction, datetime], int] = defaultdict(int)
    for one in active(run):
        called[one.award.unit, one.award.direction, one.award.start] += one.award.quantity_kw
    kept: dict[tuple[str | None, Direction, datetime], int] = defaultdict(int)
    for spare in run.reserved:
        if not spare.availability_eur_mw_h:
            kept[spare.unit, spare.direction, spare.start] += spare.quantity_kw
    return sum(max(0, kw - called[cell]) for cell, kw in kept.items())


def paid_by(awards: Iterable[Bought], payer: Buyer) -> Fraction:
    """kW summed over quarter-hours, by the share of one payer."""
    place = PAYERS.index(payer)
    return sum((shares_of(one)[place] * one.award.quantity_kw for one in awards), Fraction(0))


# ---------------------------------------------------------------- what is undone


def counter_kw(awards: Sequence[Bought]) -> float:
    """kW summed over quarter-hours that one buyer moved up and another down.

    In a quarter-hour, up power U_b and down power D_b of buyers b are paired between different buyers. The most that
    can be paired is the least cut of that network: min(ΣU, ΣD, min over b of ΣU + ΣD − U_b − D_b). A session with an
    award that several share or buy together cleared for all of them at once, so it is one buyer: what it moves both
    ways it meant to.
    """
    joint = {
        one.award.session for one in awards if "+" in one.award.buyer or sum(share > 0 for share in shares_of(one)) > 1
    }
    cells: dict[datetime, dict[str, dict[Direction, int]]] = defaultdict(dict)
    for one in awards:
        session, shares = one.award.session, shares_of(one)
        name = f"session {session}" if session in joint else PAYERS[shares.index(max(shares))].value
        moved = cells[one.award.start].setdefault(name, {Direction.UP: 0, Direction.DOWN: 0})
        moved[one.award.direction] += one.award.quantity_kw
    return float(sum(_paired(list(buyers.values())) for buyers in cells.values()))


def _paired(buyers: Sequence[Mapping[Direction, int]]) -> int:
    up, down = (sum(moved[direction] for moved in buyers) for direction in (Direction.UP, Direction.DOWN))
    return min(up, down, *(up + down - sum(moved.values()) for moved in buyers))


def netting(awards: Iterable[Bought], world: World) -> Netting:
    """What the system needs beside what was bought for the DSO at distribution grids, kW up positive.

    What balance responsible parties buy they take themselves, so it leaves the system as it was.
    """
    moved = [Fraction(0)] * len(world.axis)
    for one in awards:
        if level_of(one) is Level.DISTRIBUTION:
            mine = shares_of(one)[PAYERS.index(Buyer.DSO)]
            moved[world.axis.position(one.award.start)] += mine * one.award.direction.sign * one.award.quantity_kw
    return Netting(
        np.asarray(world.system_kw, dtype=np.float64), np.array([float(kw) for kw in moved]), world.axis.hours
    )


def discordant_eur(netted: Netting, awards: Iterable[Bought], world: World) -> float:
    """What the discordant volume costs: bought back by the TSO at its mean price in the direction against it, the rest
    mended at the emergency price."""
    kw: dict[tuple[int, int], Fraction] = defaultdict(Fraction)
    eur: dict[tuple[int, int], Fraction] = defaultdict(Fraction)
    for one in awards:
        share = shares_of(one)[PAYERS.index(Buyer.TSO)]
        if share:
            cell = (world.axis.position(one.award.start), one.award.direction.sign)
            kw[cell] += share * one.award.quantity_kw
            eur[cell] += share * paid(one, world.axis)
    cost = 0.0
    for t in np.flatnonzero(netted.discordant_kw).tolist():
        cell = (t, -int(np.sign(netted.local_kw[t])))
        discordant, back = float(netted.discordant_kw[t]), float(kw[cell])
        covered = min(discordant, back)
        cost += covered * float(eur[cell]) / back if back else 0.0
        cost += mwh(discordant - covered, world) * world.emergency_eur_mwh
    return cost


# ---------------------------------------------------------------- what is offered


@dataclass(frozen=True, slots=True)
class Offered:
    """kW summed over quarter-hours: what the case offers, each seller once, and what of it was not bought."""

    offered_kw: float
    unused_kw: float


def offered(awards: Iterable[Bought], world: World) -> Offered:
    """Per unit, direction and quarter-hour the most that an active offer of the case puts on it, and that less what was
    bought. An offer of a group counts for its units in proportion to their power; the voltage of a grid is a unit."""
    cells = _offers(world)
    taken: dict[Cell, int] = defaultdict(int)
    for one in awards:
        t = world.axis.position(one.award.start)
        taken[one.award.unit or f"{_VOLTAGE}{one.grid}", one.award.direction, t] += one.award.quantity_kw
    unused = (max(kw - taken.get(cell, 0), 0.0) for cell, kw in cells.items())
    return Offered(fsum(cells.values()), fsum(unused))


def units_of(unit: str | None, group: str | None, world: World) -> tuple[str, ...]:
    """The units behind an offer, an award or a reservation."""
    return (unit,) if unit else tuple(world.groups.get(group or "", ()))


def _offers(world: World) -> dict[Cell, float]:
    cells: dict[Cell, float] = defaultdict(float)
    for offer in world.offers:
        if offer.product in world.reactive:
            continue
        kw = _quantity_kw(offer, world)
        for unit, share in _parts(offer, world).items():
            for t, whole in kw.items():
                cell = (unit, offer.direction, t)
                cells[cell] = max(cells[cell], share * whole)
    for reduction in world.reductions:
        for t, less in enumerate(reduction.kw.sum(axis=0).tolist()):
            cells[f"{_VOLTAGE}{reduction.grid}", Direction.UP, t] += less
    return {cell: kw for cell, kw in cells.items() if kw}


def _quantity_kw(offer: Offer, world: World) -> dict[int, int]:
    """All steps of an offer together, by quarter-hour of the case."""
    found: dict[int, int] = defaultdict(int)
    for step in offer.steps:
        for i, kw in enumerate(step.quantity_kw):
            start = step.start + i * world.axis.step
            if world.axis.covers(start):
                found[world.axis.position(start)] += kw
    return found


def _parts(offer: Offer, world: World) -> dict[str, float]:
    """The part of an offer that each unit stands for: by power in its direction, equal where none has any."""
    units = units_of(offer.unit, offer.group, world)
    power = [world.seller[unit].limit_kw(offer.direction) if unit in world.seller else 0 for unit in units]
    whole = sum(power)
    return {unit: kw / whole if whole else 1 / len(units) for unit, kw in zip(units, power, strict=True)}
