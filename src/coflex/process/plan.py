"""Plan: before a session opens, look ahead and say what is needed and what the grid allows.

A session on the assessment: forecast the horizon, assess the grid, name each violation, derive the needs.
A session on requests: the light of every perimeter after local activations, the buyer's requests, the netting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np

from coflex.domain.clearing import Holding, Status
from coflex.domain.errors import NotReady
from coflex.domain.light import Colour, DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.domain.party import Role
from coflex.domain.qualification import StaticLight
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.series import Series
from coflex.grid.assess import violations
from coflex.grid.light import Agents, capability
from coflex.grid.needs import Reach
from coflex.grid.powerflow import solve
from coflex.market.design import DistributionGrid, Interface, Needs, SessionPlan
from coflex.market.engine import SessionState, advance, upcoming
from coflex.process.day import SESSIONS, Day, states, told
from coflex.process.lookups import free_power, limit_array, others_kw, qualified_kw
from coflex.process.operation import decide, foreseen_needs, operation
from coflex.process.ports import Store, SystemOperator, Transaction
from coflex.process.profile import send_profile

# A provider's schedule and free power from the forecast of its units: (forecast kW) -> (schedule, up_kw, down_kw).
Nominate = Callable[[Series], tuple[Series, Floats, Floats]]


@dataclass(frozen=True, slots=True)
class Planned:
    """What the planning of a session found: violations foreseen, how many of them the operator's own means spare and
    by how many steps of devices, needs from the rest, requests, lights by colour."""

    session: str
    violations: int
    spared: int
    operations: int
    needs: int
    requested_mwh: float
    netted_mwh: float
    lights: dict[str, int]


def plan(
    day: Day, store: Store, session: SessionPlan, at: datetime, nominate: Nominate, system_operator: SystemOperator
) -> Planned:
    """Plan one session and open it. Raises NotReady before units are qualified, or when another step is due before."""
    with store.transaction() as t:
        if not t.all(StaticLight):
            raise NotReady("No unit is qualified yet.", "Run coflex qualify first.")
        known = states(t)
        coming = upcoming(day.plans, {name: SessionState(one) for name, one in known.items()})
        state = SessionState(known.get(session.id, SessionState.ANNOUNCED))
        if coming is not None and coming.session != session.id and state is SessionState.ANNOUNCED:
            raise NotReady(f"Session {coming.session} comes before {session.id}.", f"Take {coming.session} on first.")
        known[session.id] = advance(session.session, state, SessionState.OPEN).value
        source = day.forwarder(session)
        if source is session:
            _look_ahead(day, t, session, at, nominate)
        outlook = t.series(f"{source.id}/forecast")
        assert outlook is not None  # written by _look_ahead of this session or of the one that forwards to it
        foreseen = _Foreseen((), 0, 0)
        if session.session.needs is Needs.ASSESSMENT:
            foreseen = _needs(day, t, session, source, outlook)
        needs = foreseen.needs
        lights: tuple[DynamicLight, ...] = ()
        if session.session.grid.distribution is DistributionGrid.CAPABILITY:
            lights = _lights(day, t, session, source, outlook)
        requests: tuple[Request, ...] = ()
        if session.session.needs is Needs.REQUESTS:
            requests = _requests(day, t, session, outlook, system_operator, at)
        t.add([*needs, *lights, *requests])
        t.put_document(SESSIONS, known)
        _tell(day, t, session, at, len(needs), len(lights))
        if source is session:
            send_profile(day, t, session, at)
        hours = session.horizon.hours / 1000
        planned = Planned(
            session.id,
            foreseen.violations,
            foreseen.violations - len(needs),
            foreseen.operations,
            len(needs),
            sum(r.quantity_kw for r in requests) * hours,
            sum(r.netted_kw for r in requests) * hours,
            {colour.value: sum(light.colour is colour for light in lights) for colour in Colour},
        )
        t.put_document(f"planned/{session.id}", asdict(planned))
    return planned


def _look_ahead(day: Day, t: Transaction, session: SessionPlan, at: datetime, nominate: Nominate) -> None:
    """Forecast the horizon; every provider nominates its units' schedules and free power on it."""
    outlook = day.outlook(at, session.horizon)
    schedule, up_kw, down_kw = nominate(day.unit_kw(outlook))
    limits = qualified_kw(t.all(StaticLight), day.units)
    up = np.minimum(up_kw, limit_array(limits, day.units, Direction.UP)[:, None])
    down = np.minimum(down_kw, limit_array(limits, day.units, Direction.DOWN)[:, None])
    t.put_series(f"{session.id}/forecast", outlook)
    t.put_series(f"{session.id}/nomination", schedule)
    t.put_series(f"{session.id}/up", Series(schedule.names, session.horizon, up))
    t.put_series(f"{session.id}/down", Series(schedule.names, session.horizon, down))


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """Needs of a session, the violations before the operator's own means, and the steps that these took."""

    needs: tuple[LocalNeed, ...]
    violations: int
    operations: int


def _needs(day: Day, t: Transaction, session: SessionPlan, source: SessionPlan, outlook: Series) -> _Foreseen:
    """Needs of the foreseen state, with what others hold for good in it, once the operator's own means are set."""
    p, q = day.injections(outlook.window(session.horizon))
    change_p, change_q = day.changes(others_kw(day, t, session, (Status.DEFINITIVE,)))
    p, q = p + change_p, q + change_q
    reach = _reach(day, t, source, session)
    made = decide(day, t, session, p, q, reach)
    runs = operation(day, t, session.horizon)
    base = runs.solve(p, q)
    broken = violations(day.network, base, session.horizon)
    needs = foreseen_needs(session.id, runs, base, session.horizon, broken, reach)
    if made is None:
        return _Foreseen(needs, len(broken), 0)
    before = violations(day.network, solve(day.network, p, q), session.horizon)
    return _Foreseen(needs, len(before), made.operations)


def _reach(day: Day, t: Transaction, source: SessionPlan, session: SessionPlan) -> Reach:
    """The units in the modelled grid and their free power over the horizon."""
    up, down = free_power(t, source, session)
    inside = np.flatnonzero(day.unit_node >= 0)
    return Reach(
        tuple(day.units[u].id for u in inside),
        day.unit_node[inside],
        day.unit_tan_phi[inside],
        up[inside],
        down[inside],
    )


def _lights(
    day: Day, t: Transaction, session: SessionPlan, source: SessionPlan, outlook: Series
) -> tuple[DynamicLight, ...]:
    """The dynamic light of every perimeter, direction and quarter-hour of the horizon (GRID-06).

    What other buyers hold is in the state already; its perimeter is red in the opposite direction, and its units are
    out of the potential.
    """
    axis = session.horizon
    held = others_kw(day, t, session, tuple(Status))
    p, q = day.injections(outlook.window(axis))
    change_p, change_q = day.changes(held)
    runs = operation(day, t, axis)
    state = runs.solve(p + change_p, q + change_q)
    up, down = free_power(t, source, session)
    agents, potential, red = _agents(day, held, up, down)
    kw = np.zeros((agents.parts, len(axis)))
    element = [[""] * len(axis) for _ in range(agents.parts)]
    for network, at in runs.parts():
        safe = capability(network, state.part(at), agents, np.where(red, 0.0, potential)[:, at])
        kw[:, at] = safe.kw
        for part, names in enumerate(safe.element):
            for k, name in zip(at.tolist(), names, strict=True):
                element[part][k] = name
    return _as_lights(day, session, agents, potential, red, kw, element)


def _agents(day: Day, held: Floats, up: Floats, down: Floats) -> tuple[Agents, Floats, Bools]:
    """Units twice, up then down: their part, potential (u, t), and where a local activation turns the light red."""
    inside = np.flatnonzero(day.unit_node >= 0)
    perimeter = np.array([day.perimeters.index(day.unit_perimeter[u]) for u in inside], dtype=np.int64)
    parts = 2 * len(day.perimeters)
    free = held[inside] == 0
    potential = np.concatenate([up[inside] * free, down[inside] * free])
    part = np.concatenate([2 * perimeter, 2 * perimeter + 1])
    sign = np.concatenate([np.ones(len(inside), np.int64), -np.ones(len(inside), np.int64)])
    opposite = np.zeros((parts, held.shape[1]), dtype=np.bool_)
    np.logical_or.at(opposite, 2 * perimeter, held[inside] < 0)
    np.logical_or.at(opposite, 2 * perimeter + 1, held[inside] > 0)
    agents = Agents(np.tile(day.unit_node[inside], 2), np.tile(day.unit_tan_phi[inside], 2), sign, part, parts)
    return agents, potential, opposite[part]


def _as_lights(
    day: Day,
    session: SessionPlan,
    agents: Agents,
    potential: Floats,
    red: Bools,
    safe_kw: Floats,
    element: Sequence[Sequence[str]],
) -> tuple[DynamicLight, ...]:
    whole: Floats = np.zeros((agents.parts, potential.shape[1]))
    np.add.at(whole, agents.part, potential)
    opposed = np.zeros(whole.shape, dtype=np.bool_)
    np.logical_or.at(opposed, agents.part, red)
    kw: Ints = np.floor(safe_kw + 1e-6).astype(np.int64)
    lights = []
    for part in range(agents.parts):
        perimeter = day.perimeters[part // 2]
        direction = Direction.DOWN if part % 2 else Direction.UP
        for i, start in enumerate(session.horizon):
            potential_kw, able = round(float(whole[part, i])), int(kw[part, i])
            if opposed[part, i]:
                colour, able, why = Colour.RED, 0, f"local activation {direction.opposite.value}"
            elif able >= potential_kw:
                colour, why = Colour.GREEN, ""
            else:
                colour, why = (Colour.YELLOW if able > 0 else Colour.RED), element[part][i]
            lights.append(
                DynamicLight(
                    session.id, perimeter, direction, start, colour, potential_kw, min(able, potential_kw), why
                )
            )
    return tuple(lights)


def _requests(
    day: Day,
    t: Transaction,
    session: SessionPlan,
    outlook: Series,
    system_operator: SystemOperator,
    at: datetime,
) -> tuple[Request, ...]:
    """The buyer's requests, netted with what local activations moved at the interface (MKT-11)."""
    axis = session.horizon
    buyer = day.buyer(session)
    called = system_operator.requests(session.id, session.number, axis, day.product(session))
    asked = [request for request in called if request.buyer == buyer]
    told(t, "request", at, buyer, [day.party(Role.MARKET_OPERATOR)], f"{len(asked)} for {session.id}")
    moved = np.zeros(len(axis))
    if session.session.interface is Interface.NETTED:
        moved = _moved_at_interface(day, t, session, outlook)
    wanted = np.zeros(len(axis))
    for request in asked:
        wanted[axis.position(request.start)] += request.direction.sign * request.asked_kw
    by_key = {(request.start, request.direction): request for request in asked}
    limit = day.case.settings.tso.price_limit_eur_mwh
    netted = []
    for i, start in enumerate(axis):
        rest = round(float(wanted[i] - moved[i]))
        for direction in Direction:
            own = by_key.get((start, direction))
            kw, before = max(0, direction.sign * rest), own.asked_kw if own else 0
            if kw or before:
                netted.append(
                    Request(
                        session=session.id,
                        buyer=buyer,
                        product=day.product(session).id,
                        direction=direction,
                        start=start,
                        asked_kw=before,
                        netted_kw=kw - before,
                        price_limit_eur_mwh=own.price_limit_eur_mwh if own else limit,
                    )
                )
    return tuple(netted)


def _moved_at_interface(day: Day, t: Transaction, session: SessionPlan, outlook: Series) -> Floats:
    """kW by which local activations raise what the grid gives to the system (up positive), by AC power flow."""
    axis = session.horizon
    buyers = {day.buyer(plan) for plan in day.plans if plan.session.needs is Needs.ASSESSMENT}
    local = [h for buyer in sorted(buyers) for h in t.all(Holding, buyer=buyer)]
    change_p, change_q = day.changes(day.held_kw(local, axis))
    p, q = day.injections(outlook.window(axis))
    runs = operation(day, t, axis)
    base, after = runs.solve(p, q), runs.solve(p + change_p, q + change_q)
    moved: Floats = (base.interface_p_mw - after.interface_p_mw) * 1000.0
    return moved


def _tell(day: Day, t: Transaction, session: SessionPlan, at: datetime, needs: int, lights: int) -> None:
    market, dso, tso = (day.party(role) for role in (Role.MARKET_OPERATOR, Role.DSO, Role.TSO))
    if needs:
        t.event("needs", at, dso, market, f"{needs} for {session.id}")
    if lights:
        told(t, "traffic_light", at, dso, [tso, market], f"{lights} for {session.id}")
    providers = sorted({unit.provider for unit in day.units})
    told(t, "session_open", at, market, providers, f"{session.id} until {session.closes.isoformat()}")
