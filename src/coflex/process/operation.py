"""How the DSO runs its grid over the day: what its own means are set to, decided when a session is planned (GRID-04).

Kept as one document: of each quarter-hour what departs from the normal setting, nothing where nothing does. Every verb
sees the grid through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coflex.domain.need import Violation
from coflex.domain.quantity import Floats
from coflex.domain.time import Axis
from coflex.grid.means import Means, Operation, Schedule, Setting, apply, schedule
from coflex.grid.needs import effects
from coflex.grid.network import Network, moved
from coflex.grid.powerflow import GridState
from coflex.grid.rows import Guard
from coflex.market.design import OwnMeans, SessionPlan
from coflex.process.day import Day
from coflex.process.ports import Transaction

OPERATION = "operation"


def operation(day: Day, t: Transaction, axis: Axis) -> Operation:
    """The grid as it is run over an axis of quarter-hours."""
    kept = t.document(OPERATION) or {}
    networks: list[Network] = [day.network]
    place: dict[str, int] = {"": 0}
    of_period = []
    for start in axis:
        departs = kept.get(start.isoformat())
        key = "" if departs is None else repr(departs)
        if departs is not None and key not in place:
            place[key] = len(networks)
            networks.append(_network(day, key, departs))
        of_period.append(place[key])
    return Operation(tuple(networks), np.array(of_period, dtype=np.int64))


def decide(day: Day, t: Transaction, session: SessionPlan, p_mw: Floats, q_mvar: Floats) -> Schedule | None:
    """Set the operator's own means for a session's horizon, for node injections (t, n), and keep that; None where the
    design gives it none."""
    chosen = session.session.own_means
    if not chosen:
        return None
    every = Means.all_of(day.case.grid)
    means = Means(
        every.transformers if OwnMeans.TAPS in chosen else (),
        every.shunts if OwnMeans.CAPACITORS in chosen else (),
        every.switches if OwnMeans.SWITCHING in chosen else (),
    )
    margin = session.session.security_margin
    guard = Guard(margin.voltage_pu, margin.loading_share) if margin else None
    found = schedule(day.case.grid, means, p_mw, q_mvar, guard)
    kept = dict(t.document(OPERATION) or {})
    for k, start in enumerate(session.horizon):
        departs = _departs(means, found.settings[0], found.settings[found.of_period[k]])
        kept.pop(start.isoformat(), None)
        if departs:
            kept[start.isoformat()] = departs
    t.put_document(OPERATION, kept)
    return found


def unit_effects(day: Day, runs: Operation, state: GridState, axis: Axis, broken: Sequence[Violation]) -> Floats:
    """How much one kW more injection of each unit worsens each violation (violations, units), in pu or share of rating
    per kW; nothing outside the modelled grid."""
    effect = np.zeros((len(broken), len(day.units)))
    period = np.array([axis.position(one.start) for one in broken], dtype=np.int64)
    for network, at in runs.parts():
        mine = np.flatnonzero(np.isin(period, at))
        here = [broken[k] for k in mine.tolist()]
        effect[mine] = effects(network, state, axis, here, np.maximum(day.unit_node, 0), day.unit_tan_phi)
    return np.where(day.unit_node >= 0, effect, 0.0)


def _departs(means: Means, normal: Setting, setting: Setting) -> dict[str, Any]:
    """Positions that are not the normal ones; of switches whether they are closed."""
    taps = zip(means.transformers, normal.taps, setting.taps, strict=True)
    steps = zip(means.shunts, normal.steps, setting.steps, strict=True)
    switched = sorted(normal.open ^ setting.open)
    departs = {
        "taps": {name: there for name, here, there in taps if here != there},
        "steps": {name: there for name, here, there in steps if here != there},
        "closed": {name: name not in setting.open for name in switched},
    }
    return {kind: positions for kind, positions in departs.items() if positions}


def _network(day: Day, key: str, departs: dict[str, Any]) -> Network:
    if key not in day.networks:
        grid = day.case.grid
        closed = departs.get("closed", {})
        switches = tuple(replace(s, closed=closed.get(s.switch, s.closed)) for s in grid.switches)
        taps, steps = departs.get("taps", {}), departs.get("steps", {})
        setting = Setting(tuple(taps.values()), tuple(steps.values()), frozenset())
        day.networks[key] = moved(
            day.network, apply(replace(grid, switches=switches), Means(tuple(taps), tuple(steps)), setting)
        )
    return day.networks[key]
