"""The load profile of every primary substation, which the DSO sends the TSO after each change (GRID-09).

Of the grid as it is planned: the forecast, everything that is held, the operator's own means as they are set. What was
sent in a session is kept as one pair of series a substation; together they are what the TSO knows.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from coflex.domain.clearing import Holding
from coflex.domain.party import Role
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.grid.planning import SubstationProfile, changed, profiles_over
from coflex.market.design import SessionPlan
from coflex.process.day import Day, told
from coflex.process.operation import operation
from coflex.process.ports import Transaction


def send_profile(day: Day, t: Transaction, session: SessionPlan, at: datetime) -> int:
    """Send the profiles over the session's horizon that moved by 1 kW (or kvar) or more since they were last sent;
    how many these are."""
    axis = session.horizon
    outlook = t.series(f"{day.forwarder(session).id}/forecast")
    assert outlook is not None  # the session has been planned
    p, q = day.injections(outlook.window(axis))
    change_p, change_q = day.changes(day.held_kw(t.all(Holding), axis))
    runs = operation(day, t, axis)
    now = profiles_over(runs, runs.solve(p + change_p, q + change_q))
    sent = changed(known_profiles(day, t, axis), now)
    if sent:
        earlier = {one.substation: one for one in sent_in(t, session)}
        _keep(t, session, tuple((earlier | {one.substation: one for one in sent}).values()))
        dso, tso = day.party(Role.DSO), day.party(Role.TSO)
        told(t, "substation_profile", at, dso, [tso], f"{len(sent)} for {session.id}")
    return len(sent)


def known_profiles(day: Day, t: Transaction, axis: Axis) -> tuple[SubstationProfile, ...]:
    """What the TSO was last told of the quarter-hours of an axis; nan where it was told nothing."""
    known: dict[str, SubstationProfile] = {}
    instants = np.array([start.timestamp() for start in axis])
    for plan in day.plans:
        here = np.flatnonzero([plan.horizon.covers(start) for start in axis])
        there = np.searchsorted([start.timestamp() for start in plan.horizon], instants[here])
        for one in sent_in(t, plan):
            fresh = SubstationProfile(one.substation, np.full(len(axis), np.nan), np.full(len(axis), np.nan))
            before = known.setdefault(one.substation, fresh)
            before.p_mw[here], before.q_mvar[here] = one.p_mw[there], one.q_mvar[there]
    return tuple(known[name] for name in sorted(known))


def sent_in(t: Transaction, session: SessionPlan) -> tuple[SubstationProfile, ...]:
    """What was last sent in a session, over its horizon."""
    kept = t.series(f"profile/{session.id}")
    if kept is None:
        return ()
    names = [name.removesuffix(" p_mw") for name in kept.names[::2]]
    return tuple(SubstationProfile(name, kept.values[2 * i], kept.values[2 * i + 1]) for i, name in enumerate(names))


def _keep(t: Transaction, session: SessionPlan, sent: tuple[SubstationProfile, ...]) -> None:
    ordered = sorted(sent, key=lambda one: one.substation)
    names = [f"{one.substation} {quantity}" for one in ordered for quantity in ("p_mw", "q_mvar")]
    values = np.array([row for one in ordered for row in (one.p_mw, one.q_mvar)])
    t.put_series(f"profile/{session.id}", Series(tuple(names), session.horizon, values))
