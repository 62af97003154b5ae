"""Clear: at the gate, choose the cheapest offers that meet every need, write who holds what, publish the list.

One transaction from the check to the ledger: a session that was cleared once is never cleared again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from time import perf_counter
from typing import Any

import numpy as np

from coflex.domain.clearing import Award, Holding, MeritLine, Reason, Status, Uncovered
from coflex.domain.errors import CoflexError
from coflex.domain.light import DynamicLight
from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.domain.party import Role
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.grid.means import OperatedGrid
from coflex.grid.rows import AcGrid, Guard
from coflex.market.book import OrderBook, build, direction_of
from coflex.market.clearing import Answer
from coflex.market.comparison import ModelOutcome, clear_on, compare
from coflex.market.design import DistributionGrid, Needs, SessionPlan
from coflex.market.engine import SessionState, advance, life
from coflex.market.ledger import Claim, assign_over, claim, free_units
from coflex.market.merit import merit_order, uncovered
from coflex.market.model import Demand
from coflex.market.pricing import bid, prices
from coflex.process.day import SESSIONS, Day, states, told
from coflex.process.lookups import energy_left, free_power, others_kw, places
from coflex.process.operation import seen_grid
from coflex.process.ports import Store, Transaction
from coflex.process.profile import send_profile


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a session decided, and how long the clearing took once its inputs were read.

    Times are for measuring and never stored.
    """

    session: str
    offers: int
    awards: int
    definitive_mwh: float
    preliminary_mwh: float
    cost_eur: Decimal
    uncovered: int
    passes: int
    gap: float
    solver_seconds: float
    total_seconds: float


def clear(day: Day, store: Store, session: SessionPlan, at: datetime) -> Cleared:
    """Close the gate, clear, write awards, list and ledger, publish. Raises NotReady when the session is not open."""
    with store.transaction() as t:
        known = states(t)
        state = SessionState(known.get(session.id, SessionState.ANNOUNCED))
        state = advance(session.session, state, SessionState.CLOSED)
        offers = t.all(Offer, session=session.id)
        book = build(offers, session.horizon, places(day))
        admissible, shut = _admissible(day, t, session, book)
        demand = _demand(t, session)
        capability = _capability(t, session)
        grid = _grid(day, t, session)
        begun = perf_counter()
        answer = clear_on(session.session.grid.distribution, book, admissible, demand, grid, capability)
        total = perf_counter() - begun
        awards = _awards(day, session, book, answer)
        lines = merit_order(session.id, book, answer, shut, capability or {}, session.status)
        short = uncovered(session.id, book, demand, answer)
        _write(day, t, session, awards, lines, short, at)
        send_profile(day, t, session, at)
        for following in life(session.session):
            if following not in (SessionState.ANNOUNCED, SessionState.OPEN, SessionState.CLOSED):
                state = advance(session.session, state, following)
        known[session.id] = state.value
        t.put_document(SESSIONS, known)
        cleared = _summary(session, len(offers), awards, len(short), answer, total)
        models = _models(session, answer, book, admissible, demand, grid, capability)
        t.put_document(f"cleared/{session.id}", _note(session, book, awards, lines, cleared, models))
    return cleared


def _grid(day: Day, t: Transaction, session: SessionPlan) -> AcGrid | OperatedGrid | None:
    """The grid as the session sees it: the forecast with what other buyers hold for good, or nothing.

    What they hold preliminarily they will buy anew, under the light of what is bought here.
    """
    if not session.session.grid.distribution.sees_network:
        return None
    outlook = t.series(f"{day.forwarder(session).id}/forecast")
    assert outlook is not None  # the session has been planned
    margin = session.session.security_margin
    guard = Guard(margin.voltage_pu, margin.loading_share) if margin else None
    p, q = day.injections(outlook.window(session.horizon))
    change_p, change_q = day.changes(others_kw(day, t, session, (Status.DEFINITIVE,)))
    return seen_grid(day, t, session.horizon, p + change_p, q + change_q, guard)


def _models(
    session: SessionPlan,
    answer: Answer,
    book: OrderBook,
    admissible: Bools,
    demand: Demand,
    grid: AcGrid | OperatedGrid | None,
    capability: dict[tuple[str, int], Floats] | None,
) -> tuple[ModelOutcome, ...]:
    """What the answer breaks under the full power flow, and what other grid models would have answered, where the
    session sees the network."""
    if grid is None:
        return ()
    seen = session.session.grid
    return compare(seen.compare, seen.distribution, answer, book, admissible, demand, grid, capability)


def _demand(t: Transaction, session: SessionPlan) -> Demand:
    if session.session.needs is not Needs.REQUESTS:
        return Demand.none()
    asked = [r for r in t.all(Request, session=session.id) if r.quantity_kw > 0]
    asked.sort(key=lambda r: (r.start, r.direction))
    return Demand(
        np.array([r.direction.sign for r in asked], dtype=np.int64),
        np.array([session.horizon.position(r.start) for r in asked], dtype=np.int64),
        np.array([r.quantity_kw / 1000 for r in asked]),
        np.array([float(r.price_limit_eur_mwh) for r in asked]),
    )


def _capability(t: Transaction, session: SessionPlan) -> dict[tuple[str, int], Floats] | None:
    """Capability of each perimeter and direction over the horizon in MW, where the session works under lights."""
    if session.session.grid.distribution is not DistributionGrid.CAPABILITY:
        return None
    found: dict[tuple[str, int], Floats] = {}
    for light in t.all(DynamicLight, session=session.id):
        key = light.perimeter, light.direction.sign
        row = found.setdefault(key, np.zeros(len(session.horizon)))
        row[session.horizon.position(light.start)] = light.capability_kw / 1000
    return found


def _admissible(
    day: Day, t: Transaction, session: SessionPlan, book: OrderBook
) -> tuple[Bools, dict[int, tuple[Reason, str]]]:
    """Blocks that may be bought, and why the others may not: held by another buyer, or above the price limit."""
    ledger = t.all(Holding)
    names = [unit.id for unit in day.units]
    free = free_units(ledger, names, day.buyer(session), session.horizon)
    usable = np.ones((len(book.offers), len(session.horizon)), dtype=np.bool_)
    members = {group.id: group.units for group in day.case.groups}
    for o, offer in enumerate(book.offers):
        units = [offer.unit] if offer.unit else list(members[offer.group or ""])
        usable[o] = free[[day.unit_index[unit] for unit in units]].any(axis=0)
    admissible = usable[book.offer, book.period]
    shut = dict.fromkeys(np.flatnonzero(~admissible).tolist(), (Reason.HELD_ELSEWHERE, "held by another buyer"))
    limits = {
        (r.direction.sign, session.horizon.position(r.start)): r.price_limit_eur_mwh
        for r in t.all(Request, session=session.id)
    }
    for i in np.flatnonzero(admissible).tolist() if limits else ():
        limit = limits.get((int(book.sign[i]), int(book.period[i])))
        if limit is not None and bid(book, i) > limit:
            admissible[i] = False
            shut[i] = Reason.PRICE_LIMIT, f"the buyer pays at most {limit} EUR/MWh"
    return admissible, shut


def _awards(day: Day, session: SessionPlan, book: OrderBook, answer: Answer) -> tuple[Award, ...]:
    paid = prices(book, answer, session.session.pricing)
    instants = tuple(session.horizon)
    awards = []
    for i, price in paid.items():
        offer = book.offers[int(book.offer[i])]
        start = instants[int(book.period[i])]
        awards.append(
            Award(
                session=session.id,
                offer=offer.id,
                step=offer.steps[int(book.step[i])].number,
                provider=offer.provider,
                buyer=day.buyer(session),
                product=offer.product,
                unit=offer.unit,
                group=offer.group,
                direction=direction_of(int(book.sign[i])),
                start=start,
                quantity_kw=int(answer.award_kw[i]),
                bid_eur_mwh=bid(book, i),
                price_eur_mwh=price,
                status=session.status(start),
            )
        )
    return tuple(awards)


def _write(
    day: Day,
    t: Transaction,
    session: SessionPlan,
    awards: Sequence[Award],
    lines: Sequence[MeritLine],
    short: Sequence[Uncovered],
    at: datetime,
) -> None:
    """Awards replace the buyer's preliminary ones of this horizon; the ledger follows; everyone concerned is told."""
    buyer = day.buyer(session)
    ledger = t.all(Holding)
    _, removed, added = claim(ledger, session, buyer, _claims(day, t, session, ledger, awards))
    if removed:
        t.remove(Holding, buyer=buyer, status=Status.PRELIMINARY, start=tuple(session.horizon))
    earlier = t.all(Award, buyer=buyer, status=Status.PRELIMINARY)
    for gone in sorted({award.session for award in earlier}):
        starts = tuple({a.start for a in earlier if a.session == gone and session.horizon.covers(a.start)})
        t.remove(Award, session=gone, start=starts)
    t.add([*added, *awards, *lines, *short])
    market, operators = day.party(Role.MARKET_OPERATOR), [day.party(Role.DSO), day.party(Role.TSO)]
    told(t, "session_closed", at, market, sorted({unit.provider for unit in day.units}), session.id)
    for provider in sorted({award.provider for award in awards}):
        mine = [award for award in awards if award.provider == provider]
        t.event("award", at, market, provider, f"{len(mine)} in {session.id}")
    told(t, "merit_order_list", at, market, operators, f"{len(lines)} lines of {session.id}")
    told(t, "unavailable_units", at, market, operators, f"{len(added)} unit quarter-hours by {session.id}")


def _claims(
    day: Day, t: Transaction, session: SessionPlan, ledger: Sequence[Holding], awards: Sequence[Award]
) -> list[Claim]:
    """Units behind the awards: the unit that offered, or the group's units by the ledger's rule."""
    alone: dict[tuple[str, datetime, Direction], Claim] = {}
    grouped: dict[tuple[str, Direction], list[Award]] = {}
    for award in awards:
        if award.group:
            grouped.setdefault((award.group, award.direction), []).append(award)
            continue
        key = award.unit or "", award.start, award.direction
        before = alone[key].quantity_kw if key in alone else 0
        alone[key] = Claim(*key, before + award.quantity_kw, award.offer)
    free = _free_members(day, t, session, ledger) if grouped else {}
    # Both ways, or by two sellers: every claim goes to the ledger, which refuses what is sold twice.
    claims = list(alone.values())
    for group, direction in sorted(grouped):
        claims += _group_claims(day, session, group, direction, grouped[(group, direction)], free[direction])
    return claims


def _free_members(
    day: Day, t: Transaction, session: SessionPlan, ledger: Sequence[Holding]
) -> dict[Direction, tuple[Ints, Floats]]:
    """Of every unit in each direction: the whole kW (u, t) this buyer may still use, and the kWh it has left."""
    buyer = day.buyer(session)
    free = free_units(ledger, [unit.id for unit in day.units], buyer, session.horizon)
    power = free_power(t, day.forwarder(session), session)
    energy = energy_left(day.units, ledger, session, buyer)
    return {
        direction: (np.floor(power[way] * free).astype(np.int64), energy[way])
        for way, direction in enumerate((Direction.UP, Direction.DOWN))
    }


def _group_claims(
    day: Day,
    session: SessionPlan,
    group: str,
    direction: Direction,
    awards: Sequence[Award],
    free: tuple[Ints, Floats],
) -> list[Claim]:
    """The awards of a group in one direction, laid on its units by the ledger's rule over the horizon."""
    members = next(g.units for g in day.case.groups if g.id == group)
    rows = [day.unit_index[member] for member in members]
    total = np.zeros(len(session.horizon), dtype=np.int64)
    offer_at: dict[int, str] = {}
    for award in awards:
        column = session.horizon.position(award.start)
        total[column] += award.quantity_kw
        offer_at.setdefault(column, award.offer)
    shares, misfit = assign_over(total, free[0][rows], free[1][rows], session.horizon.hours, members)
    if misfit is not None:
        start = session.horizon[misfit].isoformat()
        raise CoflexError(f"The units of {group} cannot deliver {total[misfit]} kW at {start}.", "Check its offers.")
    return [
        Claim(members[u], session.horizon[column], direction, int(shares[u, column]), offer_at[column])
        for u, column in zip(*(axis.tolist() for axis in np.nonzero(shares)), strict=True)
    ]


def _summary(
    session: SessionPlan, offers: int, awards: Sequence[Award], short: int, answer: Answer, total: float
) -> Cleared:
    hours = Decimal(str(session.horizon.hours)) / 1000
    mwh = {status: float(sum(a.quantity_kw for a in awards if a.status is status) * hours) for status in Status}
    cost = sum((a.quantity_kw * hours * a.price_eur_mwh for a in awards), Decimal(0))
    return Cleared(
        session=session.id,
        offers=offers,
        awards=len(awards),
        definitive_mwh=mwh[Status.DEFINITIVE],
        preliminary_mwh=mwh[Status.PRELIMINARY],
        cost_eur=cost.quantize(Decimal("0.01")),
        uncovered=short,
        passes=answer.passes,
        gap=answer.gap,
        solver_seconds=answer.solver_seconds,
        total_seconds=total,
    )


def _note(
    session: SessionPlan,
    book: OrderBook,
    awards: Sequence[Award],
    lines: Sequence[MeritLine],
    cleared: Cleared,
    models: Sequence[ModelOutcome],
) -> dict[str, Any]:
    """What the report tells of the clearing, for later sessions replace its preliminary awards."""
    hours = session.horizon.hours
    awarded = {d: [0] * len(session.horizon) for d in Direction}
    for award in awards:
        awarded[award.direction][session.horizon.position(award.start)] += award.quantity_kw

    def mwh(status: Status) -> dict[str, float]:
        kept = [award for award in awards if award.status is status]
        return {d.value: sum(a.quantity_kw for a in kept if a.direction is d) * hours / 1000 for d in Direction}

    return {
        "offers": cleared.offers,
        "offered_mwh": {
            d.value: round(float(book.quantity_mw[book.sign == d.sign].sum()) * hours, 6) for d in Direction
        },
        "awards": cleared.awards,
        "awarded_kw": {d.value: kw for d, kw in awarded.items()},
        "definitive_mwh": mwh(Status.DEFINITIVE),
        "preliminary_mwh": mwh(Status.PRELIMINARY),
        "cost_eur": str(cleared.cost_eur),
        "uncovered": cleared.uncovered,
        "passes": cleared.passes,
        "gap": round(cleared.gap, 9) + 0.0,
        "reasons": dict(sorted(Counter(line.reason.value for line in lines).items())),
        "models": [asdict(model) for model in models],
    }
