"""Laying an order on units, and the next of the merit order list that takes over what was taken away (ACT-03).

What is called becomes an order of the same buyer, at the line's price, and a holding in the ledger: later sessions meet
it there. A unit that a session without a result may still take is not called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from coflex.activation.profile import Profile, between, kwh, minus, plus, profile
from coflex.activation.rebalance import deadline
from coflex.activation.succession import Call, Candidate, Line, Skipped, succeed
from coflex.domain.activation import Acknowledgement, Hop, Piece, Verdict
from coflex.domain.clearing import Holding, MeritLine, Reason, Status
from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.domain.quantity import Direction
from coflex.domain.series import Series
from coflex.register.activations import ActivationOrder, OrderKind, OrderState
from coflex.register.consents import Consent, ConsentScope, covered
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome, Step, call_id, computed_with, outcome_id, pack
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.service.ledger import decided, forwarders, free_kw, holdings, planned
from coflex.service.limits import qualified_kw, qualified_products
from coflex.service.orders import (
    Draft,
    concerned,
    operators_of_units,
    perimeter_of,
    quarter,
    resplit,
    room,
    spans,
    tell_units,
)
from coflex.service.rules import groups_of
from coflex.service.standby import in_offers, still_offered
from coflex.service.state import State
from coflex.service.withheld import windows

# Why a line was not taken, or not wholly, that does not keep it from being called later.
_CALLABLE = (Reason.OUT_OF_MERIT, Reason.MARGINAL, Reason.NO_NEED, Reason.YELLOW_LIGHT, Reason.ACCEPTED)


def take_over(draft: Draft, order: ActivationOrder, lost: Profile, barred: frozenset[str], reason: str) -> Profile:
    """Call the next of the list for what an order lost; its orders, set points and holdings are in the draft. Returns
    what nobody takes over."""
    wanted = spans(lost)
    if not wanted:
        return ()
    scene = _Scene(draft, order)
    rooms = room(draft.state, order, [(starts, ends) for starts, ends, _ in wanted])
    missing = []
    for t, (starts, ends, kw) in enumerate(wanted):
        here = {perimeter: left for (perimeter, at), left in rooms.items() if at == t}
        found = succeed(kw, scene.lines(starts, ends), here, barred)
        for call in found.calls:
            scene.called(call, starts, ends)
        if found.missing_kw:
            missing.append(Piece(starts, ends, found.missing_kw))
    scene.write(reason)
    return profile(missing)


def laid(draft: Draft, order: ActivationOrder, own: Mapping[str, Profile] | None = None) -> ActivationOrder:
    """Lay an order on units; what no unit can give has 15 minutes to be found elsewhere, and is called after that."""
    order = resplit(draft, order, own)
    if not order.missing:
        return replace(order, due=None)
    draft.tell("activation.missing", order.id, (order.buyer, order.provider), kwh=kwh(order.missing))
    return replace(order, due=deadline(draft.context.now))


def lowered(draft: Draft, order: ActivationOrder, lost: Profile, reason: str) -> ActivationOrder:
    """An order less what it lost for good; stopped where that leaves nothing."""
    after = replace(order, profile=minus(order.profile, lost), lost=plus(order.lost, lost))
    if between(after.profile, draft.context.now, None):
        return after
    return replace(after, state=OrderState.STOPPED, reason=reason, due=None)


def lose(draft: Draft, order: ActivationOrder, lost: Profile, barred: frozenset[str], reason: str) -> ActivationOrder:
    """Take power off an order for good, and call the next of the list for it. Raises nothing: what nobody takes over is
    told to the buyer."""
    after = lowered(draft, order, lost, reason)
    rest = take_over(draft, after, lost, barred, reason)
    draft.tell("activation.lost", after.id, (after.buyer, after.provider), kwh=kwh(lost), reason=reason)
    if rest:
        draft.tell("activation.not_replaced", after.id, (after.buyer,), kwh=kwh(rest))
    return after


@dataclass(eq=False)
class _Scene:
    """A session's list and what is free of it, while one command calls from it."""

    draft: Draft
    order: ActivationOrder
    _pieces: dict[tuple[str, int], dict[str, list[Piece]]] = field(default_factory=dict)
    _by: dict[tuple[str, datetime], tuple[str, int, int]] = field(default_factory=dict)
    _prices: dict[tuple[str, int], Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        state, session = self.state, self.order.session
        self.entry = state.get(SessionEntry, session)
        result = state.get(SessionOutcome, outcome_id(session, Step.RESULT))
        self.offers = {offer.id: offer for offer in (*computed_with(result), *_forwarded(state, self.entry))}
        self.merit = [line for line in decided(state, session, MeritLine) if line.direction is self.order.direction]
        self.asked = [one for one in planned(state, session, Request) if one.direction is self.order.direction]
        self.ledger = {(one.unit, one.start): one for one in holdings(state, self.entry.day)}
        self.offered = still_offered(state, (self.entry.day,))
        self.free = free_kw(state, self.entry)

    @property
    def state(self) -> State:
        return self.draft.state

    # ------------------------------------------------------------ what may be called

    def lines(self, starts: datetime, ends: datetime) -> tuple[Line, ...]:
        """The list of a quarter-hour, in [starts, ends) of it."""
        start = quarter(starts)
        return tuple(self._line(one, starts, ends) for one in self.merit if one.start == start)

    def _line(self, one: MeritLine, starts: datetime, ends: datetime) -> Line:
        offer = self.offers.get(one.offer)
        why = self._why_not(one, offer)
        units = () if offer is None or why is not None else self._members(offer)
        candidates = tuple(self._candidate(name, one, starts, ends) for name in units)
        left = one.offered_kw - one.accepted_kw
        return Line(one.rank, one.offer, one.step, one.provider, one.price_eur_mwh, left, candidates, why)

    def _why_not(self, one: MeritLine, offer: Offer | None) -> Skipped | None:
        if offer is None or one.reason not in _CALLABLE:
            return Skipped.REFUSED
        if offer.valid_until is not None and offer.valid_until <= self.draft.context.now:
            return Skipped.REFUSED
        terms = (offer.exclusive, offer.max_periods, offer.energy_limit_kwh)
        if offer.block or offer.min_quantity_kw or any(term is not None for term in terms):
            return Skipped.BOUND
        limits = [asked.price_limit_eur_mwh for asked in self.asked if asked.start == one.start]
        return Skipped.DEAR if limits and one.price_eur_mwh > max(limits) else None

    def _members(self, offer: Offer) -> tuple[str, ...]:
        if offer.unit is not None:
            return (offer.unit,)
        group = self.state.find(GroupEntry, offer.group or "")
        return group.group.units if group is not None and group.status is UnitStatus.ACTIVE else ()

    def _candidate(self, name: str, line: MeritLine, starts: datetime, ends: datetime) -> Candidate:
        entry = self.state.find(UnitEntry, name)
        if entry is None or not self._qualified(entry, line, starts, ends):
            return Candidate(name, "", 0, Skipped.NOT_QUALIFIED)
        perimeter = perimeter_of(self.state, name)
        return Candidate(name, perimeter, self._free_kw(entry, line, starts, ends))

    def _qualified(self, entry: UnitEntry, line: MeritLine, starts: datetime, ends: datetime) -> bool:
        now, unit = self.draft.context.now, entry.unit
        groups = [one.id for one in groups_of(self.state, unit.id)]
        consents = self.state.grouped(Consent, "unit", lambda one: one.unit).get(unit.id, ())
        return (
            entry.status is UnitStatus.ACTIVE
            and unit.provider == line.provider
            and (unit.id, self.order.direction) in qualified_kw(self.state, now)
            and any(line.product in qualified_products(self.state, group, now) for group in groups)
            and covered(consents, unit.owner, unit.id, unit.provider, ConsentScope.OFFER, starts, ends)
        )

    def _free_kw(self, entry: UnitEntry, line: MeritLine, starts: datetime, ends: datetime) -> int:
        """Nothing where the unit is held, kept back, or may still be sold, or where its energy is limited: that was
        planned for what it was sold for."""
        unit, up = entry.unit, self.order.direction is Direction.UP
        start = quarter(starts)
        called = self._by.get((unit.id, start))
        held = (unit.id, start) in self.ledger and called is None
        if held or (called is not None and called[:2] != (line.offer, line.step)):
            return 0
        if (unit.energy_up_kwh if up else unit.energy_down_kwh) is not None:
            return 0
        if in_offers(self.offered, unit.id, starts, ends):
            return 0
        limits = [qualified_kw(self.state, self.draft.context.now)[unit.id, self.order.direction]]
        limits += [_at(self.free[0 if up else 1], unit.id, start)] if self.free is not None else []
        limits += [
            one.up_kw if up else one.down_kw
            for one in windows(self.state, unit.id)
            if one.starts < ends and starts < one.ends
        ]
        return max(0, min(limits))

    # ------------------------------------------------------------ what was called

    def called(self, call: Call, starts: datetime, ends: datetime) -> None:
        place = call.unit, quarter(starts)
        before = self._by.get(place)
        kw = max(call.kw, before[2] if before is not None else 0)
        self._by[place] = call.offer, call.step, kw
        self._prices[call.offer, call.step] = call.price_eur_mwh
        self._pieces.setdefault((call.offer, call.step), {}).setdefault(call.unit, []).append(
            Piece(starts, ends, call.kw)
        )

    def write(self, reason: str) -> None:
        """Put the orders, the set points and the holdings of all calls into the draft."""
        for (offer, step), units in sorted(self._pieces.items()):
            self._order(self.offers[offer], step, {unit: profile(pieces) for unit, pieces in units.items()}, reason)
        if self._by:
            self.draft.put(self._holdings())

    def _order(self, offer: Offer, step: int, units: dict[str, Profile], reason: str) -> None:
        now, whole = self.draft.context.now, plus(*units.values())
        made = ActivationOrder(
            id=self.draft.new_order_id(),
            kind=OrderKind.SUCCESSION,
            state=OrderState.SPLIT,
            buyer=self.order.buyer,
            provider=offer.provider,
            product=offer.product,
            session=self.order.session,
            offer=offer.id,
            direction=self.order.direction,
            unit=offer.unit,
            group=offer.group,
            awarded=whole,
            profile=whole,
            ordered_at=now,
            split_by=now,
            operators=operators_of_units(self.state, units),
            acknowledgements=(Acknowledgement(Hop.MARKET, "market", Verdict.TAKEN, now),),
            replaces=self.order.id,
            price_eur_mwh=self._prices[offer.id, step],
            reason=reason,
        )
        self.draft.put(made)
        tell_units(self.draft, made, units)
        self.draft.tell("activation.ordered", made.id, concerned(made), how=made.kind, replaces=made.replaces)

    def _holdings(self) -> SessionOutcome:
        """The calls as the ledger keeps them: whole quarter-hours, the most that was called in each."""
        context, buyer = self.draft.context, self.order.buyer
        units = [self.state.get(UnitEntry, name).unit for name in sorted({unit for unit, _ in self._by})]
        points = [self.state.get(PointEntry, name).point for name in sorted({one.connection_point for one in units})]
        held = [
            Holding(unit, start, self.entry.session, buyer, self.order.direction, kw, offer, Status.DEFINITIVE)
            for (unit, start), (offer, _, kw) in sorted(self._by.items())
        ]
        return SessionOutcome(
            id=call_id(self.entry.id, context.number),
            day=self.entry.day,
            session=self.entry.session,
            step=Step.CALL,
            at=context.now,
            buyer=buyer,
            given=pack([*points, *units]),
            added=pack(held),
        )


def _forwarded(state: State, entry: SessionEntry) -> Iterator[Offer]:
    """Offers of the sessions that forward to a session, by the names that they have there."""
    for source in forwarders(state, entry):
        result = state.find(SessionOutcome, outcome_id(source, Step.RESULT))
        name = state.get(SessionEntry, source).session
        for offer in computed_with(result) if result is not None else ():
            if not offer.local_only:
                yield replace(offer, id=f"{name}/{offer.id}")


def _at(series: Series, unit: str, start: datetime) -> int:
    if unit not in series.names or not series.axis.covers(start):
        return 0
    return int(series.row(unit)[series.axis.position(start)])


def barred_by(state: State, units: Iterable[str]) -> frozenset[str]:
    """Perimeters of units that were just limited."""
    return frozenset(place for unit in units if (place := perimeter_of(state, unit)))
