"""Who takes part in a run: sellers, providers, the DSO, and how much of what distribution offers gets through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction

from coflex.domain.unit import Level
from coflex.market.coordination.outcome import Actor, Bought, Delivering, Held, Message, Run
from coflex.market.coordination.world import World
from coflex.market.design import Buyer
from coflex.reporting.coordination.money import PAYERS, kept_for, paid, payers_of, shares_of
from coflex.reporting.coordination.volumes import units_of


def percent(part: float, whole: float) -> float | None:
    """A part in percent of the whole, nothing where there is no whole."""
    return 100.0 * part / whole if whole else None


def ratio(part: float, whole: float) -> float | None:
    """A part over the whole, nothing where there is no whole."""
    return part / whole if whole else None


def dso_messages_pct(messages: Iterable[Message]) -> float | None:
    """Percent of messages that the DSO sends or receives."""
    count = {True: 0, False: 0}
    for one in messages:
        count[Actor.DSO in (one.sender, one.receiver)] += one.count
    return percent(count[True], count[True] + count[False])


def static_tests(world: World) -> tuple[int, int]:
    """Static tests of units at distribution grids, one for each direction, and services that they qualify for."""
    mine = [one for one in world.sellers if one.level is Level.DISTRIBUTION and one.services]
    return 2 * len(mine), sum(len(one.services) for one in mine)


def services_given(run: Run, world: World) -> int:
    """Pairs of a unit at a distribution grid and a payer that it moved or kept capacity ready for."""
    pairs: set[tuple[str, Buyer]] = set()
    for one in run.bought:
        payers = [payer for payer, share in zip(PAYERS, shares_of(one), strict=True) if share > 0]
        pairs |= {(unit, p) for unit in units_of(one.award.unit, one.award.group, world) for p in payers}
    for kept in run.reserved:
        payers = list(payers_of(kept.buyer, world))
        pairs |= {(unit, p) for unit in units_of(kept.unit, kept.group, world) for p in payers}
    return sum(unit in world.seller and bool(world.seller[unit].grid) for unit, _ in pairs)


def stopped_by_dso_pct(run: Run) -> float | None:
    """Percent of the lines of the lists that a light limited or refused."""
    found = _delivering(run.held)
    return percent(found.stopped, found.lines)


def deliverable_pct(run: Run) -> float | None:
    """Percent of what distribution units offer in sessions of the TSO that neither light, walk nor limit refuses."""
    sessions = {one.award.session for one in run.bought if one.share_tso > 0}
    found = _delivering(held for held in run.held if held.session in sessions)
    return percent(found.local_kwh - found.refused_kwh, found.local_kwh)


def _delivering(several: Iterable[Held]) -> Delivering:
    """Of several rounds together, added in an order of their own."""
    ordered = sorted(several, key=lambda held: (held.closes, held.session))
    return sum((held.delivering for held in ordered), Delivering())


def income(run: Run, world: World) -> Mapping[str, Fraction]:
    """EUR, exact, of each provider: energy at paid prices and availability."""
    found: dict[str, Fraction] = defaultdict(Fraction)
    for one in run.bought:
        found[one.award.provider] += paid(one, world.axis)
    for kept in run.reserved:
        found[kept.provider] += kept_for(kept, world.axis)
    return found


def herfindahl(awards: Iterable[Bought]) -> float:
    """Sum of the squared percentages of providers in the energy bought, 0 where nothing is."""
    volume: dict[str, int] = defaultdict(int)
    for one in awards:
        volume[one.award.provider] += one.award.quantity_kw
    total = sum(volume.values())
    return sum((100.0 * volume[name] / total) ** 2 for name in sorted(volume)) if total else 0.0
