"""How the DSO runs its grid over the day: what its own means are set to, decided when a session is planned (GRID-04).

Kept as one document: of each quarter-hour what departs from the normal setting, nothing where nothing does. Every verb
sees the grid through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from coflex.domain.need import LocalNeed, Violation
from coflex.domain.quantity import Floats
from coflex.domain.time import Axis
from coflex.grid.assess import violations
from coflex.grid.means import Means, OperatedGrid, Operation, Schedule, Setting, apply, schedule
from coflex.grid.needs import Reach, effects, local_needs
from coflex.grid.network import Network, moved
from coflex.grid.powerflow import GridState
from coflex.grid.rows import AcGrid, Guard
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


def seen_grid(
    day: Day, t: Transaction, axis: Axis, p_mw: Floats, q_mvar: Floats, guard: Guard | None
) -> AcGrid | OperatedGrid:
    """The grid as it is run over an axis, as a clearing sees it, with node injections (t, n) before anything is
    bought."""
    runs = operation(day, t, axis)
    if len(runs.networks) == 1:
        return AcGrid(day.network, p_mw, q_mvar, guard)
    return OperatedGrid(runs, p_mw, q_mvar, guard or Guard())


def decide(
    day: Day, t: Transaction, session: SessionPlan, p_mw: Floats, q_mvar: Floats, reach: Reach
) -> Schedule | None:
    """Set the operator's own means for a session's horizon, for node injections (t, n), and keep that; None where the
    design gives it none. `reach`: what could be bought for what they leave."""
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
    guard = Guard(margin.voltage_pu, margin.loading_share) if margin else Guard()
    found = schedule(day.case.grid, means, p_mw, q_mvar, guard)
    found = _sparing(found, p_mw, q_mvar, session.horizon, guard, reach)
    kept = dict(t.document(OPERATION) or {})
    for k, start in enumerate(session.horizon):
        departs = _departs(means, found.settings[0], found.settings[found.of_period[k]])
        kept.pop(start.isoformat(), None)
        if departs:
            kept[start.isoformat()] = departs
    t.put_document(OPERATION, kept)
    return found


def _sparing(found: Schedule, p_mw: Floats, q_mvar: Floats, axis: Axis, guard: Guard, reach: Reach) -> Schedule:
    """The schedule without the settings that leave more to buy than the normal one does: of two limits that one unit
    relieves together, one alone may be left, but farther off."""
    normal = Operation.steady(found.operation.normal, len(axis))
    before, after = (_to_buy_kw(runs, p_mw, q_mvar, axis, guard, reach) for runs in (normal, found.operation))
    stays = after <= before
    return replace(
        found,
        operation=replace(found.operation, of_period=np.where(stays, found.of_period, 0)),
        burden_after=np.where(stays, found.burden_after, found.burden_before),
    )


def _to_buy_kw(runs: Operation, p_mw: Floats, q_mvar: Floats, axis: Axis, guard: Guard, reach: Reach) -> Floats:
    """kW (t,) that the limits, tightened by a guard, ask for: the largest need of each perimeter, which serves its
    others too; infinite where a need cannot be covered."""
    tight = Operation(tuple(_tightened(network, guard) for network in runs.networks), runs.of_period)
    state = tight.solve(p_mw, q_mvar)
    largest: dict[tuple[datetime, str], float] = {}
    for need in foreseen_needs("", tight, state, axis, violations(tight.normal, state, axis), reach):
        key = need.start, need.perimeter
        largest[key] = max(largest.get(key, 0.0), float(need.volume_kw) if need.coverable else np.inf)
    kw = np.zeros(len(axis))
    for (start, _), volume in largest.items():
        kw[axis.position(start)] += volume
    return kw


def _tightened(network: Network, guard: Guard) -> Network:
    return replace(
        network,
        v_min=network.v_min + guard.voltage_pu,
        v_max=network.v_max - guard.voltage_pu,
        loading_max=network.loading_max - guard.loading_share,
    )


def foreseen_needs(
    session: str, runs: Operation, state: GridState, axis: Axis, broken: Sequence[Violation], reach: Reach
) -> tuple[LocalNeed, ...]:
    """As `local_needs`, each quarter-hour with the network that holds in it."""
    needs: list[LocalNeed] = []
    for network, mine in _shared_out(runs, axis, broken):
        needs += local_needs(session, network, state, axis, [broken[k] for k in mine], reach)
    place = {(one.start, one.kind, one.element): k for k, one in enumerate(broken)}
    return tuple(sorted(needs, key=lambda need: place[need.start, need.kind, need.element]))


def unit_effects(day: Day, runs: Operation, state: GridState, axis: Axis, broken: Sequence[Violation]) -> Floats:
    """How much one kW more injection of each unit worsens each violation (violations, units), in pu or share of rating
    per kW; nothing outside the modelled grid."""
    effect = np.zeros((len(broken), len(day.units)))
    for network, mine in _shared_out(runs, axis, broken):
        here = [broken[k] for k in mine]
        effect[mine] = effects(network, state, axis, here, np.maximum(day.unit_node, 0), day.unit_tan_phi)
    return np.where(day.unit_node >= 0, effect, 0.0)


def _shared_out(runs: Operation, axis: Axis, broken: Sequence[Violation]) -> Iterator[tuple[Network, list[int]]]:
    """Each network in use and the places of the violations in the quarter-hours in which it holds."""
    period = np.array([axis.position(one.start) for one in broken], dtype=np.int64)
    for network, at in runs.parts():
        yield network, np.flatnonzero(np.isin(period, at)).tolist()


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
