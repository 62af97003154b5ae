"""Qualify: the connecting operator answers each unit with a static traffic light and its proof (REG-04)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from coflex.domain.errors import NotReady
from coflex.domain.party import Role
from coflex.domain.qualification import StaticLight, StaticMode
from coflex.domain.quantity import Floats
from coflex.domain.time import Axis, local_label
from coflex.domain.unit import Unit
from coflex.grid.powerflow import GridState, solve
from coflex.grid.qualify import Candidates, static_lights
from coflex.process.day import Day, history_days, states, told
from coflex.process.ports import Store

# Local days before the delivery day whose mean day gives the reference states.
REFERENCE_DAYS = 28


@dataclass(frozen=True, slots=True)
class Qualified:
    """Lights by mode and verdict, and the qualified power in the mode that the design uses."""

    mode: StaticMode
    verdicts: dict[str, int]
    registered_kw: int
    qualified_kw: int


def qualify(day: Day, store: Store, at: datetime) -> Qualified:
    """Compute and store the static light of every unit, direction and mode, and tell the providers.

    Units outside the modelled grid are confirmed as registered by the transmission operator's own rules and get no
    light here. Raises NotReady before the register is filled.
    """
    reference, labels = reference_states(day)
    inside = [u for u, node in enumerate(day.unit_node) if node >= 0]
    units = [day.units[u] for u in inside]
    candidates = Candidates(
        names=tuple(unit.id for unit in units),
        node=day.unit_node[inside],
        tan_phi=day.unit_tan_phi[inside],
        up_kw=np.array([unit.up_kw for unit in units], dtype=np.int64),
        down_kw=np.array([unit.down_kw for unit in units], dtype=np.int64),
    )
    lights = static_lights(day.network, reference, labels, candidates)
    keeper, operator = day.party(Role.REGISTER_OPERATOR), day.party(Role.DSO)
    with store.transaction() as t:
        if not t.all(Unit):
            raise NotReady("No unit is registered yet.", "Run coflex register first.")
        if states(t):
            raise NotReady("Sessions have begun on the lights that stand.", "Qualify anew on another day.")
        t.remove(StaticLight)
        t.add(lights)
        told(t, "static_light", at, operator, [keeper], f"{len(lights)} lights")
        for provider in sorted({unit.provider for unit in units}):
            told(t, "static_light_forwarded", at, keeper, [provider], "lights of its units")
    mode = StaticMode.ONE_BY_ONE
    mine = [light for light in lights if light.mode is mode]
    verdicts = Counter(f"{light.mode.value} {light.verdict.value}" for light in lights)
    return Qualified(
        mode, dict(sorted(verdicts.items())), sum(x.registered_kw for x in mine), sum(x.limit_kw for x in mine)
    )


def reference_states(day: Day) -> tuple[GridState, tuple[str, ...]]:
    """The states against which static lights are computed: on the mean day of the last four weeks that are known when
    the day begins, the quarter-hours at the upper and the lower quartile of the whole grid's withdrawal.

    They stand for ordinary operation; what the extremes allow is the dynamic light's to say, every quarter-hour anew.
    Raises NotReady without a known day.
    """
    known = [axis for axis in history_days(day, REFERENCE_DAYS + 1) if axis.end <= day.plans[0].opens]
    axes = [axis for axis in known if len(axis) == 96]
    if not axes:
        raise NotReady("The profiles hold no whole day before the first session.", "Choose a later delivery day.")
    p, q = _mean_day(day, axes)
    rank = np.argsort(p.sum(axis=1), kind="stable")
    chosen = (int(rank[len(rank) // 4]), int(rank[3 * len(rank) // 4]))
    clock = [local_label(axes[-1][t], day.case.zone)[11:16] for t in chosen]
    labels = (f"mean day, high withdrawal at {clock[0]}", f"mean day, low withdrawal at {clock[1]}")
    return solve(day.network, p[list(chosen)], q[list(chosen)]), labels


def _mean_day(day: Day, axes: list[Axis]) -> tuple[Floats, Floats]:
    p = q = None
    for axis in axes:
        one_p, one_q = day.injections(day.truth(axis))
        p, q = (one_p, one_q) if p is None or q is None else (p + one_p, q + one_q)
    assert p is not None and q is not None
    return p / len(axes), q / len(axes)
