"""What several verbs look up in the same way: free and qualified power, places, what was planned."""

from __future__ import annotations

import numpy as np

from coflex.domain.activation import Replacement
from coflex.domain.clearing import Holding, Status
from coflex.domain.qualification import StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Direction, Floats, Ints
from coflex.domain.unit import Unit
from coflex.market.book import Place
from coflex.market.design import SessionPlan
from coflex.process.day import Day
from coflex.process.ports import Transaction

# The states of a day's grid, in the order in which they are told.
STATES = ("forecast", "planned", "untouched", "actual")


def free_power(t: Transaction, source: SessionPlan, session: SessionPlan) -> tuple[Floats, Floats]:
    """Declared and qualified free power of all units over the session's horizon: up and down kW (u, t)."""
    up, down = t.series(f"{source.id}/up"), t.series(f"{source.id}/down")
    assert up is not None and down is not None  # planned together with the forecast
    return up.window(session.horizon).values, down.window(session.horizon).values


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
