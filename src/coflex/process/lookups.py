"""What several verbs look up in the same way: free and qualified power, places, what was planned."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from coflex.domain.activation import Replacement
from coflex.domain.clearing import Holding, Status
from coflex.domain.errors import NotReady
from coflex.domain.offer import Offer
from coflex.domain.qualification import StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Direction, Floats, Ints
from coflex.domain.unit import Unit
from coflex.market.book import Place
from coflex.market.design import SessionPlan
from coflex.market.ledger import changeable
from coflex.process.day import Day
from coflex.process.ports import Transaction
from coflex.settlement.document import Rule
from coflex.settlement.inputs import Inputs
from coflex.settlement.records import read

# The states of a day's grid, in the order in which they are told.
STATES = ("forecast", "planned", "untouched", "actual")
# The document that activation leaves behind, also on a day on which nothing was bought.
ACTIVATED = "activated"
# The document that tells where the log holds the day's set points and measurements.
EVIDENCE = "evidence"
# The documents that settling leaves behind: the record of each baseline; deliveries and rules.
BASELINES = "baselines"
SETTLEMENT = "settlement"


def kept_settlement(t: Transaction) -> tuple[Inputs, dict[str, Rule]]:
    """What the day was settled from: deliveries, and rules by id. Raises NotReady where the store does not hold it."""
    kept = t.document(SETTLEMENT)
    if kept is None:
        raise NotReady("The day is not settled yet.", "Run coflex settle first.")
    if "inputs" not in kept:
        raise NotReady("The store does not hold what this day was settled from.", "Run the day again from the start.")
    rules = {name: Rule.model_validate(rule) for name, rule in kept["rules"].items()}
    return read(Inputs, json.dumps(kept["inputs"]), SETTLEMENT), rules


def free_power(t: Transaction, source: SessionPlan, session: SessionPlan) -> tuple[Floats, Floats]:
    """Declared and qualified free power of all units over the session's horizon: up and down kW (u, t).

    A unit whose offer in the session that forwards here was "local only" has none.
    """
    up, down = t.series(f"{source.id}/up"), t.series(f"{source.id}/down")
    assert up is not None and down is not None  # planned together with the forecast
    kept: set[str] = set()
    if source.id != session.id:
        kept = {offer.unit for offer in t.all(Offer, session=source.id) if offer.local_only and offer.unit}
    free = np.array([name not in kept for name in up.names])[:, None]
    return up.window(session.horizon).values * free, down.window(session.horizon).values * free


def energy_left(
    units: Sequence[Unit], ledger: Sequence[Holding], session: SessionPlan, buyer: str
) -> tuple[Floats, Floats]:
    """kWh that each unit may still give per direction over the day, up and down; infinite where nothing limits it.

    What this session may change is not counted as used.
    """
    used = {unit.id: [0.0, 0.0] for unit in units}
    for holding in ledger:
        mine = changeable(holding, buyer) and session.horizon.covers(holding.start)
        if holding.unit in used and not mine:
            used[holding.unit][0 if holding.direction.sign > 0 else 1] += holding.quantity_kw * session.horizon.hours
    up = [np.inf if u.energy_up_kwh is None else max(0.0, u.energy_up_kwh - used[u.id][0]) for u in units]
    down = [np.inf if u.energy_down_kwh is None else max(0.0, u.energy_down_kwh - used[u.id][1]) for u in units]
    return np.array(up), np.array(down)


def qualified_kw(lights: tuple[StaticLight, ...], units: tuple[Unit, ...]) -> dict[tuple[str, Direction], int]:
    """Qualified power of each unit and direction in the mode for operators that take part in every session; units
    outside the modelled grid as registered."""
    limits = {
        (light.unit, light.direction): 0 if light.verdict is Verdict.REJECTED else light.limit_kw
        for light in lights
        if light.mode is StaticMode.ONE_BY_ONE
    }
    for unit in units:
        if not unit.element:
            limits[(unit.id, Direction.UP)], limits[(unit.id, Direction.DOWN)] = unit.up_kw, unit.down_kw
    return limits


def limit_array(limits: dict[tuple[str, Direction], int], units: tuple[Unit, ...], direction: Direction) -> Ints:
    """Limits as an array in the order of `units`, zero where there is none."""
    return np.array([limits.get((unit.id, direction), 0) for unit in units], dtype=np.int64)


def places(day: Day) -> dict[str, Place]:
    """Where every unit and group acts. A group has no single node: sessions that see the grid take units alone."""
    found = {
        unit.id: Place(int(day.unit_node[u]), day.unit_perimeter[u], unit.tan_phi) for u, unit in enumerate(day.units)
    }
    return found | {group.id: Place(-1, group.perimeter, 0.0) for group in day.case.groups}


def planned_holdings(t: Transaction) -> list[Holding]:
    """What the sessions definitively bought, without what was called later in place of something limited."""
    later = {(one.unit, one.start) for one in t.all(Replacement)}
    return [h for h in t.all(Holding, status=Status.DEFINITIVE) if (h.unit, h.start) not in later]


def others_kw(day: Day, t: Transaction, session: SessionPlan, statuses: Sequence[Status]) -> Floats:
    """Signed kW (u, t) that buyers other than this session's hold inside its horizon, injection positive."""
    mine = day.buyer(session)
    held = [h for status in statuses for h in t.all(Holding, status=status) if h.buyer != mine]
    return day.held_kw(held, session.horizon)
