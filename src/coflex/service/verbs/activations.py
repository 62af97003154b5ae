"""Orders: from a definitive result or from their buyer, split over units, changed, stopped, limited, and replaced
(ACT-01, ACT-03, ACT-04, ACT-06).

    ordered -> split     by the provider until `split_by`, else by the platform
    split -> over        by time
    either -> stopped    by the buyer; or because limits left nothing

What a limit takes away is called from the next of the list at once. What fails may be replaced by the provider's own
backups for 15 minutes, and is called from the list after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from coflex.activation.profile import Profile, between, constant, exceeds, kw_at, kwh, plus, profile
from coflex.domain.activation import Acknowledgement, Hop, Notice, Piece, Verdict
from coflex.domain.clearing import Award
from coflex.domain.errors import Conflict, Finding, Forbidden, Refused, refuse
from coflex.domain.party import Role
from coflex.domain.product import QuantityKind
from coflex.domain.quantity import Direction
from coflex.register.activations import LIVE, ActivationOrder, OrderKind, OrderState, SessionOrders, SetPointEntry
from coflex.register.market import SessionEntry
from coflex.register.products import ProductEntry
from coflex.register.resources import PointEntry, UnitEntry
from coflex.service.gates import plan_of
from coflex.service.index import index
from coflex.service.machine import CREATED, Context, Outcome, Verb
from coflex.service.orders import (
    Draft,
    again,
    awarded,
    awards_of,
    ceiling,
    concerned,
    held_for,
    operators_of_units,
    taken_off,
    tell_units,
)
from coflex.service.reading import record, require_new, shown
from coflex.service.state import State
from coflex.service.takeover import barred_by, laid, lose, lowered
from coflex.service.verbs.order_forms import Instant, Kw, mine, text_faults, utc
from coflex.service.verbs.resource_forms import Form, Nothing

# Offers of a result that one command makes orders of.
MOST_OFFERS = 500
# Orders are with the units this long before they start, and the units' own preparation and ramp before that.
LEAD = timedelta(minutes=5)


class DirectOrder(Form, frozen=True):
    """The buyer calls what it bought of an offer of a session: `quantity_kw` in [starts, ends); `starts`: now, if left
    out. `offer`: as awards name it."""

    session: str
    offer: str
    direction: Direction
    ends: Instant
    quantity_kw: Kw
    starts: Instant | None = None


class OrderChange(Form, frozen=True):
    """Another quantity or another end from an instant on (now, if left out); what is left out stays."""

    quantity_kw: Kw | None = None
    ends: Instant | None = None
    starts: Instant | None = None


class Limit(Form, frozen=True):
    """A unit gives at most `to_kw` from now on, until `ends` (the end of the order, if left out), because `element` of
    the grid shows `value` against its `bound`."""

    unit: str
    to_kw: Kw
    element: str
    value: float
    bound: float
    reason: str = ""
    ends: Instant | None = None


class Stop(Form, frozen=True):
    """Why an order ends now."""

    reason: str = ""


class Word(Form, frozen=True):
    """What an operator's platform says of an order."""

    verdict: Verdict = Verdict.TAKEN


# ---------------------------------------------------------------- orders from a result, by the clock


def _schedule(state: State, context: Context, form: Nothing) -> Outcome:
    """Make the orders of a session's definitive awards, so many at a time; withdraw them where its result was taken
    back."""
    entry = state.get(SessionEntry, context.subject)
    draft = Draft(state, context)
    if not entry.outcome:
        return _withdraw(draft, entry)
    before = state.find(SessionOrders, entry.id)
    first = before.offers if before is not None else 0
    awards = awards_of(state, entry)
    keys = list(awards)[first : first + MOST_OFFERS]
    for offer, direction in keys:
        _from_awards(draft, entry, offer, direction, awards[offer, direction])
    last = first + len(keys)
    draft.put(SessionOrders(entry.id, last, last == len(awards), context.now))
    return draft.outcome({"session": entry.id, "offers": last})


def _withdraw(draft: Draft, entry: SessionEntry) -> Outcome:
    of_session = index(draft.state, ActivationOrder, "session", lambda one: (one.session,)).at(entry.id)
    for order in of_session:
        if order.state in LIVE:
            past = between(order.profile, None, draft.context.now)
            after = replace(again(order, draft.context), state=OrderState.WITHDRAWN, profile=past, missing=(), due=None)
            draft.put(after)
            tell_units(draft, after, {})
            draft.tell("activation.withdrawn", after.id, concerned(after))
    made = draft.outcome({"session": entry.id, "offers": 0})
    return replace(made, records=(*made.records, (SessionOrders, entry.id, None)))


def _from_awards(
    draft: Draft, entry: SessionEntry, offer: str, direction: Direction, awards: tuple[Award, ...]
) -> None:
    state, now, first = draft.state, draft.context.now, awards[0]
    product = state.find(ProductEntry, first.product)
    bought = awarded(awards, plan_of(state, entry).horizon.step)
    if product is None or product.product.kind is not QuantityKind.ACTIVE_ENERGY or not between(bought, now, None):
        return
    order = _made(draft, entry, first, OrderKind.SCHEDULED, bought, between(bought, now, None))
    _begun(draft, order)


def _made(
    draft: Draft, entry: SessionEntry, award: Award, kind: OrderKind, bought: Profile, ordered: Profile
) -> ActivationOrder:
    """An order on what was bought of an offer."""
    state, now = draft.state, draft.context.now
    units = held_for(state, entry.day, entry.session, award.offer)
    return ActivationOrder(
        id=draft.new_order_id(),
        kind=kind,
        state=OrderState.ORDERED,
        buyer=award.buyer,
        provider=award.provider,
        product=award.product,
        session=entry.id,
        offer=award.offer,
        direction=award.direction,
        unit=award.unit,
        group=award.group,
        awarded=bought,
        profile=ordered,
        ordered_at=now,
        split_by=_split_by(state, now, units, ordered),
        operators=operators_of_units(state, units),
        acknowledgements=(Acknowledgement(Hop.MARKET, "market", Verdict.TAKEN, now),),
    )


def _split_by(state: State, now: datetime, units: Iterable[str], ordered: Profile) -> datetime:
    """Until when the provider may split: the slowest unit is to be told in time."""
    entries = (state.find(UnitEntry, unit) for unit in units)
    slowest = max((one.unit.activation_period_s for one in entries if one is not None), default=0)
    return max(now, ordered[0].starts - timedelta(seconds=slowest) - LEAD)


def _begun(draft: Draft, order: ActivationOrder) -> ActivationOrder:
    """Tell everybody of a new order; the platform splits it where the provider has no time left to, or no choice."""
    now = draft.context.now
    if order.split_by <= now or order.unit is not None:
        order = laid(draft, replace(order, state=OrderState.SPLIT))
    else:
        order = replace(order, due=order.split_by)
    draft.put(order)
    draft.tell("activation.ordered", order.id, concerned(order), how=order.kind, split_by=order.split_by)
    return order


def _due(state: State, context: Context, form: Nothing) -> Outcome:
    """The provider's time is over: the platform splits, or calls the next of the list for what is missing. What lies in
    the past was told to no unit, as after a pause of the platform: it is ordered no more."""
    before = order = state.get(ActivationOrder, context.subject)
    draft = Draft(state, context)
    if order.state is OrderState.ORDERED:
        order = replace(again(order, context), profile=between(order.profile, context.now, None))
        if order.profile:
            order = laid(draft, replace(order, state=OrderState.SPLIT))
            if order.profile != before.profile:
                draft.tell("activation.changed", order.id, concerned(order), version=order.version)
        else:
            order = replace(order, state=OrderState.WITHDRAWN, due=None, reason="No unit was told of it in time.")
            draft.tell("activation.withdrawn", order.id, concerned(order), reason=order.reason)
    elif not order.live(context.now):
        order = replace(order, due=None)
    else:
        lost = between(order.missing, context.now, None)
        order = lose(draft, replace(again(order, context), missing=(), due=None), lost, frozenset(), "failure")
    draft.put(order)
    return draft.outcome({"activation": order.id, "state": order.state})


# ---------------------------------------------------------------- the buyer


def _order(state: State, context: Context, form: DirectOrder) -> Outcome:
    """Call what was bought, now or at a time. Raises NotFound, Forbidden, Refused with every fault."""
    entry = record(state, context, SessionEntry, form.session)
    award = next(iter(awards_of(state, entry).get((form.offer, form.direction), ())), None)
    if award is None or award.buyer != context.party:
        message = (
            f"Nothing was bought of '{form.offer}' for {context.party} in {entry.id}; name an offer of your awards."
        )
        raise Refused("The order", [Finding("offer", "not_bought", message)])
    bought = awarded(awards_of(state, entry)[form.offer, form.direction], plan_of(state, entry).horizon.step)
    starts = context.now if form.starts is None else utc(form.starts, "starts")
    ends, draft = utc(form.ends, "ends"), Draft(state, context)
    refuse("The order", _time_faults(starts, ends, context.now))
    ordered = constant(form.quantity_kw, starts, ends)
    if not ordered:
        refuse("The order", [Finding("quantity_kw", "quantity", "An order is for more than 0 kW; give a quantity.")])
    order = _made(draft, entry, award, OrderKind.DIRECT, bought, ordered)
    require_new(state, context, order, ("id", "profile"))
    refuse("The order", _above(ordered, ceiling(state, order)))
    order = _begun(draft, order)
    return draft.outcome(shown(state, context, order), CREATED)


def _time_faults(starts: datetime, ends: datetime, now: datetime) -> Iterator[Finding]:
    if starts < now:
        yield Finding("starts", "past", "An order does not reach back; leave the start out to begin now.")
    if ends <= starts:
        yield Finding("ends", "ends_first", "It ends before it starts; order the two.")


def _above(wanted: Profile, most: Profile) -> Iterator[Finding]:
    for piece in exceeds(wanted, most):
        free = kw_at(most, piece.starts)
        message = (
            f"From {piece.starts.isoformat()} to {piece.ends.isoformat()} there are {free} kW of what was bought; "
            "order at most that."
        )
        yield Finding("quantity_kw", "above_award", message)


def _change(state: State, context: Context, form: OrderChange) -> Outcome:
    """Another quantity or end from now or a later instant on, never above what was bought. Raises NotFound, Forbidden,
    Conflict, Refused with every fault."""
    before = mine(state, context, "profile")
    at = context.now if form.starts is None else utc(form.starts, "starts")
    last = max((piece.ends for piece in before.profile), default=at)
    ends = last if form.ends is None else utc(form.ends, "ends")
    refuse("The change", _time_faults(at, ends, context.now))
    if form.quantity_kw is None and form.ends is None:
        refuse("The change", [Finding("body", "nothing", "Nothing is to change; give a quantity, an end, or both.")])
    coming = between(before.profile, at, ends)
    if form.quantity_kw is not None:
        coming = constant(form.quantity_kw, at, ends)
    elif ends > last:
        power = before.profile[-1].kw if before.profile else 0
        coming = plus(coming, constant(power, max(at, last), ends))
    refuse("The change", _above(coming, ceiling(state, before)))
    draft = Draft(state, context)
    after = replace(again(before, context), profile=profile((*between(before.profile, None, at), *coming)))
    if before.state is OrderState.ORDERED and after.profile:
        after = _sooner(state, context.now, after)
    if after.state is OrderState.SPLIT:
        after = laid(draft, replace(after, own_split=False))
    draft.put(after)
    draft.tell("activation.changed", after.id, concerned(after), version=after.version)
    return draft.outcome(shown(state, context, after))


def _sooner(state: State, now: datetime, order: ActivationOrder) -> ActivationOrder:
    """An order that may have been moved forward: the provider's time ends sooner, or is over."""
    entry = state.get(SessionEntry, order.session)
    units = held_for(state, entry.day, entry.session, order.offer)
    by = min(order.split_by, _split_by(state, now, units, order.profile))
    return replace(order, state=OrderState.SPLIT if by <= now else order.state, split_by=by, due=by)


def _stop(state: State, context: Context, form: Stop) -> Outcome:
    """End an order now. Raises NotFound, Forbidden, Conflict where it is over."""
    before, draft = mine(state, context, "state"), Draft(state, context)
    refuse("The stop", text_faults("reason", form.reason))
    after = replace(
        again(before, context),
        state=OrderState.STOPPED,
        profile=between(before.profile, None, context.now),
        missing=(),
        due=None,
        reason=form.reason,
    )
    draft.put(after)
    tell_units(draft, after, {})
    draft.tell("activation.stopped", after.id, concerned(after), reason=form.reason)
    return draft.outcome(shown(state, context, after))


# ---------------------------------------------------------------- the system operator


def _limit(state: State, context: Context, form: Limit) -> Outcome:
    """A system operator limits or ends what a unit of its grid gives; the next of the list takes over for another
    buyer. Raises NotFound, Forbidden, Conflict, Refused."""
    before = mine(state, context, "notices")
    _in_my_grid(state, context, form.unit)
    refuse("The limit", [*text_faults("element", form.element), *text_faults("reason", form.reason), *_numbers(form)])
    draft = Draft(state, context)
    order = before
    if before.state is OrderState.ORDERED:
        order = laid(draft, replace(before, state=OrderState.SPLIT))
    ends = before.ends if form.ends is None else utc(form.ends, "ends")
    told = draft.find(SetPointEntry, f"{order.id}.{form.unit}")
    pieces = _whole(told.profile if told is not None else (), context.now, ends)
    from_kw = max((piece.kw for piece in pieces), default=0)
    taken = taken_off(draft, order, form.unit, context.now, ends, form.to_kw)
    # one for each power that it gave: what exactly was taken off is not owed
    why = form.to_kw, form.element, form.value, form.bound, form.reason, context.now
    notices = [Notice(form.unit, context.party, one.starts, one.ends, one.kw, *why) for one in pieces]
    order = replace(again(order, context), notices=(*order.notices, *notices))
    barred = barred_by(state, (form.unit,))
    if order.buyer == context.party:
        after = lowered(draft, order, taken, "limit")
    else:
        after = lose(draft, order, taken, barred, "limit")
    draft.put(after)
    draft.tell(
        "activation.limited", after.id, concerned(after), unit=form.unit, element=form.element, value=form.value,
        bound=form.bound, from_kw=from_kw, to_kw=form.to_kw, kwh=kwh(taken),
    )  # fmt: skip
    return draft.outcome(shown(state, context, after))


def _whole(one: Profile, starts: datetime, ends: datetime) -> list[Piece]:
    """A profile over all of [starts, ends), with pieces of no power where it has none."""
    coming = between(one, starts, ends)
    cut = sorted({starts, ends, *(at for piece in coming for at in (piece.starts, piece.ends))})
    return [Piece(first, last, kw_at(coming, first)) for first, last in pairwise(cut) if first < last]


def _numbers(form: Limit) -> Iterator[Finding]:
    for name in ("value", "bound"):
        number = getattr(form, name)
        if number != number or abs(number) == float("inf"):
            yield Finding(name, "number", "It is no number; give what was seen.")


def _in_my_grid(state: State, context: Context, unit: str) -> None:
    """Raises NotFound or Forbidden unless the caller answers for the unit."""
    entry = record(state, context, UnitEntry, unit)
    point = state.find(PointEntry, entry.unit.connection_point)
    if point is None or context.party not in point.operators:
        raise Forbidden(f"{context.party} does not operate the grid of '{unit}'.", "Ask its system operator.")


def _acknowledge(state: State, context: Context, form: Word) -> Outcome:
    """A system operator's platform has an order. Raises NotFound, Forbidden, Conflict where it said so already."""
    before = mine(state, context, "acknowledgements")
    if context.party not in before.operators:
        raise Forbidden(f"{context.party} operates no grid of the order's units.", "Nothing is to be said.")
    if any(one.by == context.party for one in before.acknowledgements):
        raise Conflict(f"{context.party} has acknowledged this version already.", "Nothing is to be done.")
    mark = Acknowledgement(Hop.DSO_PLATFORM, context.party, form.verdict, context.now)
    after = replace(before, acknowledgements=(*before.acknowledgements, mark))
    draft = Draft(state, context)
    draft.put(after)
    draft.tell("activation.acknowledged", after.id, (after.buyer, after.provider), verdict=form.verdict)
    return draft.outcome(shown(state, context, after))


_BUYERS = frozenset({Role.TSO, Role.DSO})
VERBS = (
    Verb("activation.schedule", Nothing, _schedule, kind=SessionOrders),
    Verb("activation.due", Nothing, _due, kind=ActivationOrder),
    Verb("activation.order", DirectOrder, _order, _BUYERS),
    Verb("activation.change", OrderChange, _change, _BUYERS, ActivationOrder),
    Verb("activation.stop", Stop, _stop, _BUYERS, ActivationOrder),
    Verb("activation.limit", Limit, _limit, _BUYERS, ActivationOrder),
    Verb("activation.acknowledge", Word, _acknowledge, _BUYERS, ActivationOrder),
)
