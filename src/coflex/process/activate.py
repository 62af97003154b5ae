"""Activate: set points for every unit that was definitively bought, and the operator's hand on them (ACT-01, ACT-03).

The DSO watches the state of its grid: what its sensors show as a quarter-hour begins, with the set points that come
in force. Where that breaks a limit, it takes back those orders, its own among them, that make it worse, as far as
needed; what the TSO had ordered it reports to the TSO, which calls the next of its list elsewhere.

The data hold one value a quarter-hour, so what is seen as it begins is its value, and a limit counts from its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from coflex.domain.activation import Hop, Limitation, Replacement, SetPoint
from coflex.domain.clearing import Holding, MeritLine, Reason, Status
from coflex.domain.errors import NotReady
from coflex.domain.light import DynamicLight
from coflex.domain.need import Request, Violation
from coflex.domain.offer import Offer
from coflex.domain.party import Role
from coflex.domain.quantity import Direction, Floats
from coflex.domain.unit import Unit
from coflex.grid.assess import violations
from coflex.grid.means import Operation
from coflex.market.engine import SessionState
from coflex.market.ledger import assign
from coflex.process.day import Day, states, told
from coflex.process.lookups import ACTIVATED, free_power
from coflex.process.operation import operation, unit_effects
from coflex.process.ports import Evidence, Store, Transaction

# Rounds of looking and limiting until nothing that harms is left.
ROUNDS = 4
# An activation harms a limit when its effect is at least this share of the strongest unit's.
HARMS = 0.05
# Why a line of a list was not taken, or not wholly, that does not stop it from being called later.
_CALLABLE = (Reason.OUT_OF_MERIT, Reason.MARGINAL, Reason.NO_NEED, Reason.YELLOW_LIGHT)


@dataclass(frozen=True, slots=True)
class Activated:
    """Set points sent, unit quarter-hours limited, energy taken back and energy replaced in MWh."""

    setpoints: int
    ordered_mwh: float
    limited: int
    limited_mwh: float
    replaced_mwh: float


def activate(day: Day, store: Store, evidence: Evidence | None = None) -> Activated:
    """Send the day's set points, as signed messages where `evidence` is kept.

    Raises NotReady while a session is still to be cleared.
    """
    axis = day.case.axis
    with store.transaction() as t:
        _ready(day, t)
        if t.document(ACTIVATED) is not None:
            raise NotReady("The day's set points are already sent.", "Measure it with coflex measure.")
        holdings = t.all(Holding, status=Status.DEFINITIVE)
        limits = _limit(day, operation(day, t, day.case.axis), holdings)
        replaced = _replacements(day, t, holdings, limits)
        extra = _replacement_holdings(day, replaced)
        t.add(extra)
        points = _setpoints(day, t, [*holdings, *extra], limits)
        t.add([*points, *limits, *replaced])
        if evidence is not None:
            evidence.order(points)
        t.put_document(ACTIVATED, {"setpoints": len(points)})
        _tell(day, t, points, limits, replaced)
    hours = axis.hours / 1000
    return Activated(
        len(points),
        sum(point.ordered_kw for point in points) * hours,
        len(limits),
        sum(limit.from_kw - limit.to_kw for limit in limits) * hours,
        sum(one.quantity_kw for one in replaced) * hours,
    )


def _ready(day: Day, t: Transaction) -> None:
    known = states(t)
    waiting = [plan.id for plan in day.plans if known.get(plan.id) != SessionState.PUBLISHED]
    if waiting:
        raise NotReady(f"{len(waiting)} sessions are not cleared yet, the first is {waiting[0]}.", "Run coflex clear.")


def _limit(day: Day, runs: Operation, holdings: Sequence[Holding]) -> list[Limitation]:
    """Take back orders where the observed state breaks a limit that they worsen, the most harmful first."""
    axis = day.case.axis
    p, q = day.injections(day.truth(axis))
    bought = day.held_kw(holdings, axis)
    stands = bought.copy()
    causes: dict[tuple[int, int], Violation] = {}
    for _ in range(ROUNDS):
        change_p, change_q = day.changes(stands)
        state = runs.solve(p + change_p, q + change_q)
        broken = violations(day.network, state, axis)
        effect = unit_effects(day, runs, state, axis, broken)
        taken = np.zeros_like(stands)
        for violation, per_kw in zip(broken, effect, strict=True):
            t = axis.position(violation.start)
            # What was taken back for another limit of this quarter-hour relieves this one too.
            left = violation.excess + float(per_kw @ taken[:, t])
            for u, back in _take_back(left, per_kw, stands[:, t] + taken[:, t]):
                taken[u, t] += back
                causes.setdefault((u, t), violation)
        if not taken.any():
            break
        stands += taken
    return _limitations(day, holdings, bought, stands, causes)


def _take_back(excess: float, per_kw: Floats, stands: Floats) -> list[tuple[int, float]]:
    """(unit, kW with its sign) to give back, the most harmful first, until the limit is kept on the linearisation.

    `per_kw[u]`: effect of one kW more injection on how far the limit is broken; `stands[u]`: signed kW ordered.
    """
    strongest = float(np.abs(per_kw).max(initial=0.0))
    harm = per_kw * np.sign(stands)
    order = np.lexsort((np.arange(len(harm)), -harm))
    back: list[tuple[int, float]] = []
    left = excess
    for u in order.tolist():
        if left <= 0 or harm[u] <= HARMS * strongest:
            break
        kw = min(abs(float(stands[u])), np.ceil(left / harm[u]))
        if kw:
            back.append((u, -float(np.sign(stands[u])) * kw))
            left -= kw * harm[u]
    return back


def _limitations(
    day: Day,
    holdings: Sequence[Holding],
    bought: Floats,
    stands: Floats,
    causes: dict[tuple[int, int], Violation],
) -> list[Limitation]:
    buyer = {(h.unit, h.start): h.buyer for h in holdings}
    found = []
    for (u, t), violation in sorted(causes.items(), key=lambda item: (item[0][1], item[0][0])):
        before, after = abs(round(float(bought[u, t]))), abs(round(float(stands[u, t])))
        if after < before:
            unit, start = day.units[u].id, day.case.axis[t]
            value, bound = round(violation.value, 6), round(violation.bound, 6)
            who = buyer[(unit, start)]
            found.append(Limitation(start, unit, who, before, after, violation.element, value, bound))
    return found


def _replacements(
    day: Day, t: Transaction, holdings: Sequence[Holding], limits: Sequence[Limitation]
) -> list[Replacement]:
    """What is called in place of what was taken back: the next of the list, without what would harm the grid."""
    harmful: set[tuple[str, datetime]] = set()
    while True:
        called = _replace(day, t, holdings, limits, harmful)
        kept = _harmless(day, operation(day, t, day.case.axis), holdings, limits, called)
        dropped = {(one.unit, one.start) for one in called} - {(one.unit, one.start) for one in kept}
        if not dropped:
            return kept
        harmful |= dropped


def _replace(
    day: Day,
    t: Transaction,
    holdings: Sequence[Holding],
    limits: Sequence[Limitation],
    harmful: set[tuple[str, datetime]],
) -> list[Replacement]:
    """The next lines of the TSO's list, elsewhere, for what was taken back.

    Only lines that could have been bought: not refused for what they are, and without terms that a single
    quarter-hour would break.
    """
    held = {(h.unit, h.start): h for h in holdings}
    missing: dict[tuple[datetime, Direction, str], int] = {}
    barred: dict[datetime, set[str]] = {}
    tso = day.party(Role.TSO)
    for limit in (limit for limit in limits if limit.buyer == tso):
        holding = held[(limit.unit, limit.start)]
        key = limit.start, holding.direction, holding.session
        missing[key] = missing.get(key, 0) + limit.from_kw - limit.to_kw
        barred.setdefault(limit.start, set()).add(day.unit_perimeter[day.unit_index[limit.unit]])
    taken = set(held) | harmful
    found: list[Replacement] = []
    for (start, direction, session), kw in sorted(missing.items()):
        room = _room_left(day, t, session, start, direction, holdings)
        for line, members in _callable_lines(day, t, session, start, direction):
            perimeter = day.unit_perimeter[day.unit_index[members[0]]]
            if perimeter in barred[start]:
                continue
            able = min(kw, line.offered_kw - line.accepted_kw, room.get(perimeter, kw))
            for unit, share in _free_shares(day, t, session, members, start, direction, able, taken):
                taken.add((unit, start))
                found.append(
                    Replacement(
                        start, session, line.offer, line.step, unit, direction, share, line.price_eur_mwh, "limited"
                    )
                )
                kw -= share
                if perimeter in room:
                    room[perimeter] -= share
    return found


def _callable_lines(
    day: Day, t: Transaction, session: str, start: datetime, direction: Direction
) -> list[tuple[MeritLine, tuple[str, ...]]]:
    """Lines of a list with something left to call, in their order, and the units behind each."""
    members = {group.id: group.units for group in day.case.groups}
    offers = {offer.id: offer for offer in t.all(Offer, session=session)}
    limit = {r.price_limit_eur_mwh for r in t.all(Request, session=session, start=start, direction=direction)}
    lines = []
    for line in sorted(t.all(MeritLine, session=session, start=start, direction=direction), key=lambda x: x.rank):
        offer = offers[line.offer]
        bound = offer.block or offer.min_quantity_kw or offer.exclusive is not None or offer.max_periods is not None
        dear = bool(limit) and line.price_eur_mwh > max(limit)
        if line.accepted_kw < line.offered_kw and line.reason in _CALLABLE and not bound and not dear:
            lines.append((line, members.get(line.location, (line.location,))))
    return lines


def _harmless(
    day: Day,
    runs: Operation,
    holdings: Sequence[Holding],
    limits: Sequence[Limitation],
    replaced: Sequence[Replacement],
) -> list[Replacement]:
    """Replacements that worsen no limit which the observed state breaks once they are called."""
    axis = day.case.axis
    kw = day.held_kw(holdings, axis)
    for limit in limits:
        u, t = day.unit_index[limit.unit], axis.position(limit.start)
        kw[u, t] = np.sign(kw[u, t]) * limit.to_kw
    extra = day.held_kw(_replacement_holdings(day, replaced), axis)
    p, q = day.injections(day.truth(axis))
    change_p, change_q = day.changes(kw + extra)
    state = runs.solve(p + change_p, q + change_q)
    broken = violations(day.network, state, axis)
    effect = unit_effects(day, runs, state, axis, broken)
    harmful: set[tuple[int, datetime]] = set()
    for violation, per_kw in zip(broken, effect, strict=True):
        harm = per_kw * np.sign(extra[:, axis.position(violation.start)])
        worst = np.flatnonzero(harm > HARMS * np.abs(per_kw).max(initial=0.0))
        harmful |= {(u, violation.start) for u in worst.tolist()}
    return [one for one in replaced if (day.unit_index[one.unit], one.start) not in harmful]


def _room_left(
    day: Day, t: Transaction, session: str, start: datetime, direction: Direction, holdings: Sequence[Holding]
) -> dict[str, int]:
    """What each perimeter's light still allows; perimeters without a light are not limited."""
    room = {
        light.perimeter: light.capability_kw
        for light in t.all(DynamicLight, session=session, start=start, direction=direction)
    }
    for holding in holdings:
        perimeter = day.unit_perimeter[day.unit_index[holding.unit]]
        if holding.session == session and holding.start == start and perimeter in room:
            room[perimeter] -= holding.quantity_kw
    return {perimeter: max(0, kw) for perimeter, kw in room.items()}


def _free_shares(
    day: Day,
    t: Transaction,
    session: str,
    members: Sequence[str],
    start: datetime,
    direction: Direction,
    able_kw: int,
    taken: set[tuple[str, datetime]],
) -> Sequence[tuple[str, int]]:
    plan = day.plan(session)
    up, down = free_power(t, day.forwarder(plan), plan)
    power = (up if direction is Direction.UP else down)[:, plan.horizon.position(start)]
    # What a unit with little energy has left is planned already; only the others step in.
    lasting = [unit for unit in members if _unlimited(day.unit_by_id[unit], direction)]
    free = [(unit, int(power[day.unit_index[unit]])) for unit in lasting if (unit, start) not in taken]
    return assign(min(able_kw, sum(kw for _, kw in free)), free)


def _unlimited(unit: Unit, direction: Direction) -> bool:
    return (unit.energy_up_kwh if direction is Direction.UP else unit.energy_down_kwh) is None


def _replacement_holdings(day: Day, replaced: Sequence[Replacement]) -> list[Holding]:
    tso, fixed = day.party(Role.TSO), Status.DEFINITIVE
    return [
        Holding(one.unit, one.start, one.session, tso, one.direction, one.quantity_kw, one.offer, fixed)
        for one in replaced
    ]


def _setpoints(
    day: Day, t: Transaction, holdings: Sequence[Holding], limits: Sequence[Limitation]
) -> tuple[SetPoint, ...]:
    """One set point for each holding, on the nominated schedule, confirmed by every hop down to the customer."""
    nominated = day.firm(t, "nomination")
    rows = {name: nominated.values[i] for i, name in enumerate(nominated.names)}
    stands = {(limit.unit, limit.start): limit.to_kw for limit in limits}
    points = []
    for holding in sorted(holdings, key=lambda h: (h.unit, h.start)):
        baseline = float(rows[holding.unit][nominated.axis.position(holding.start)])
        ordered = stands.get((holding.unit, holding.start), holding.quantity_kw)
        points.append(
            SetPoint(
                unit=holding.unit,
                start=holding.start,
                buyer=holding.buyer,
                session=holding.session,
                direction=holding.direction,
                awarded_kw=holding.quantity_kw,
                ordered_kw=ordered,
                baseline_kw=round(baseline, 3),
                power_kw=round(baseline + holding.direction.sign * ordered, 3),
                acknowledged=Hop.ENERGY_MANAGEMENT_SYSTEM,
            )
        )
    return tuple(points)


def _tell(
    day: Day,
    t: Transaction,
    points: Sequence[SetPoint],
    limits: Sequence[Limitation],
    replaced: Sequence[Replacement],
) -> None:
    """Orders go out a quarter-hour before they start and come back confirmed; limits go to the TSO, then to the SP."""
    market, dso, tso = (day.party(role) for role in (Role.MARKET_OPERATOR, Role.DSO, Role.TSO))
    provider = {unit.id: unit.provider for unit in day.units}
    late = {(one.unit, one.start) for one in replaced}
    orders: dict[tuple[datetime, str, str], int] = {}
    for point in points:
        at = point.start if (point.unit, point.start) in late else point.start - timedelta(minutes=15)
        key = at, point.buyer, provider[point.unit]
        orders[key] = orders.get(key, 0) + 1
    for (at, buyer, name), count in sorted(orders.items()):
        t.event("activation_order", at, buyer, market, f"{count} set points of {name}")
        t.event("set_points", at, market, name, f"{count} set points")
        t.event("acknowledgement", at, name, buyer, f"{count} set points")
    for limit in limits:
        detail = f"{limit.unit} from {limit.from_kw} to {limit.to_kw} kW, {limit.element}"
        told(t, "limit", limit.start, dso, [tso] if limit.buyer == tso else [], detail)
        told(t, "modification", limit.start, limit.buyer, [provider[limit.unit]], detail)
    for one in replaced:
        t.event("replacement", one.start, tso, provider[one.unit], f"{one.unit} {one.quantity_kw} kW {one.direction}")
    for start in sorted({limit.start for limit in limits if limit.buyer == tso}):
        lost = sum(x.from_kw - x.to_kw for x in limits if x.start == start and x.buyer == tso)
        rest = lost - sum(one.quantity_kw for one in replaced if one.start == start)
        if rest > 0:
            t.event("not_replaced", start, market, tso, f"{rest} kW")
