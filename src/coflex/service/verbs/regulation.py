"""Continuous regulation: a band that was bought as capacity follows its buyer's signal (ACT-05).

The signal itself comes every 4 s and is no command: it is published on the band's stream, and the field door shares it
over the units by what stands here. Here is decided who regulates, when, within which band, and with which shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from coflex.activation.profile import Profile, between
from coflex.domain.clearing import Award
from coflex.domain.errors import Conflict, Finding, Refused, refuse
from coflex.domain.party import Role
from coflex.domain.product import QuantityKind
from coflex.domain.quantity import Direction
from coflex.register.activations import Regulation, RegulationState, Share
from coflex.register.market import SessionEntry
from coflex.register.products import ProductEntry
from coflex.service.gates import plan_of
from coflex.service.index import index
from coflex.service.limits import qualified_kw
from coflex.service.machine import CREATED, Context, Outcome, Verb
from coflex.service.orders import Draft, awarded, awards_of, held_for, operators_of_units, quarter
from coflex.service.reading import record, require, require_new, shown
from coflex.service.state import State
from coflex.service.verbs.order_forms import Instant, Kw, utc
from coflex.service.verbs.resource_forms import Form, Nothing

MOST_FACTOR = 10_000


class RegulationForm(Form, frozen=True):
    """The buyer starts to regulate the band of a group or a unit in [starts, ends), within what it bought of it as
    capacity in a session; `starts`: now, if left out; `up_kw`, `down_kw`: all that was bought, if left out."""

    session: str
    band: str
    ends: Instant
    starts: Instant | None = None
    up_kw: Kw | None = None
    down_kw: Kw | None = None


class ShareForm(Form, frozen=True):
    """A unit's factor beside those of the others; 0: it does not take part."""

    unit: str
    factor: Annotated[int, msgspec.Meta(ge=0, le=MOST_FACTOR)]


class SharesForm(Form, frozen=True):
    """The factors of all units that take part; one that is left out does not."""

    shares: tuple[ShareForm, ...]


def _start(state: State, context: Context, form: RegulationForm) -> Outcome:
    """Begin to regulate. Raises NotFound, Forbidden, Conflict where the band is regulated already, Refused."""
    entry = record(state, context, SessionEntry, form.session)
    bands = _bought(state, context, entry, form.band)
    if not bands:
        message = f"No capacity of '{form.band}' was bought for {context.party} in {entry.id}; name one of your awards."
        raise Refused("The regulation", [Finding("band", "not_bought", message)])
    starts = context.now if form.starts is None else utc(form.starts, "starts")
    ends = utc(form.ends, "ends")
    refuse("The regulation", _time_faults(starts, ends, context.now))
    step = plan_of(state, entry).horizon.step
    most = {way: _least(awarded(mine, step), starts, ends) for way, mine in bands.items()}
    up = most.get(Direction.UP, 0) if form.up_kw is None else form.up_kw
    down = most.get(Direction.DOWN, 0) if form.down_kw is None else form.down_kw
    refuse("The regulation", _band_faults(up, down, most))
    made = _made(state, context, entry, [one for mine in bands.values() for one in mine], (starts, ends), (up, down))
    require_new(state, context, made, ("id", "band"))
    _not_twice(state, made)
    refuse("The regulation", _share_faults(made))
    draft = Draft(state, context)
    draft.put(made)
    draft.tell("regulation.started", made.id, _concerned(made), band=made.band, up_kw=up, down_kw=down)
    return draft.outcome(shown(state, context, made), CREATED)


def _bought(state: State, context: Context, entry: SessionEntry, band: str) -> Mapping[Direction, list[Award]]:
    """The caller's awards of capacity of a group or unit, by direction."""
    found: dict[Direction, list[Award]] = {}
    for (_, direction), awards in awards_of(state, entry).items():
        for one in awards:
            product = state.find(ProductEntry, one.product)
            capacity = product is not None and product.product.kind is QuantityKind.ACTIVE_CAPACITY
            if capacity and one.buyer == context.party and band in (one.group, one.unit):
                found.setdefault(direction, []).append(one)
    return found


def _least(bought: Profile, starts: datetime, ends: datetime) -> int:
    """The power that was bought for the whole of a time."""
    inside = between(bought, starts, ends)
    covered = sum((piece.ends - piece.starts for piece in inside), timedelta(0))
    return min(piece.kw for piece in inside) if inside and covered == ends - starts else 0


def _time_faults(starts: datetime, ends: datetime, now: datetime) -> Iterator[Finding]:
    if starts < now:
        yield Finding("starts", "past", "A regulation does not reach back; leave the start out to begin now.")
    if ends <= starts:
        yield Finding("ends", "ends_first", "It ends before it starts; order the two.")


def _band_faults(up: int, down: int, most: Mapping[Direction, int]) -> Iterator[Finding]:
    for name, kw, way in (("up_kw", up, Direction.UP), ("down_kw", down, Direction.DOWN)):
        if kw > most.get(way, 0):
            message = f"{kw} kW are more than the {most.get(way, 0)} bought for all of that time; lower it."
            yield Finding(name, "above_award", message)
    if not up and not down:
        yield Finding("up_kw", "nothing", "Nothing was bought for all of that time; choose another time.")


def _made(
    state: State,
    context: Context,
    entry: SessionEntry,
    awards: list[Award],
    time: tuple[datetime, datetime],
    band: tuple[int, int],
) -> Regulation:
    first = awards[0]
    product = state.get(ProductEntry, first.product).product
    offers = tuple(sorted({one.offer for one in awards}))
    units = _units(state, entry, offers, *time)
    shares = tuple(_share(state, name, context.now) for name in units)
    return Regulation(
        id=context.new_id("regulation"),
        buyer=context.party,
        provider=first.provider,
        product=first.product,
        session=entry.id,
        offers=offers,
        band=first.group or first.unit or "",
        starts=time[0],
        ends=time[1],
        up_kw=band[0],
        down_kw=band[1],
        full_activation_s=product.full_activation_time_s,
        shares=tuple(one for one in shares if one.up_kw or one.down_kw),
        operators=operators_of_units(state, units),
    )


def _units(
    state: State, entry: SessionEntry, offers: Iterable[str], starts: datetime, ends: datetime
) -> tuple[str, ...]:
    """Units that the ledger holds for the offers in all of a time."""
    step = timedelta(minutes=15)
    found: dict[str, set[datetime]] = {}
    for offer in offers:
        for unit, of_unit in held_for(state, entry.day, entry.session, offer).items():
            found.setdefault(unit, set()).update(of_unit)
    first, count = quarter(starts), -(-(ends - quarter(starts)) // step)
    wanted = {first + k * step for k in range(count)}
    return tuple(sorted(unit for unit, there in found.items() if wanted <= there))


def _share(state: State, name: str, now: datetime) -> Share:
    """A unit with all that the grid lets it give; as factor what it can give at most, so all are used alike."""
    power = qualified_kw(state, now)
    up, down = power.get((name, Direction.UP), 0), power.get((name, Direction.DOWN), 0)
    return Share(name, up, down, min(MOST_FACTOR, max(up, down)))


def _share_faults(one: Regulation) -> Iterator[Finding]:
    part = [share for share in one.shares if share.factor]
    for name, kw in (("up_kw", one.up_kw), ("down_kw", one.down_kw)):
        can = sum(getattr(share, name) for share in part)
        if can < kw:
            yield Finding("shares", "too_little", f"Together the units give {can} kW of the {kw} of {name}; add some.")


def _not_twice(state: State, made: Regulation) -> None:
    """Raises Conflict where one of the units regulates in that time already."""
    mine = {share.unit for share in made.shares}
    for other in index(state, Regulation, "session", lambda one: (one.session,)).at(made.session):
        both = other.state is RegulationState.RUNNING and other.starts < made.ends and made.starts < other.ends
        if both and mine & {share.unit for share in other.shares}:
            raise Conflict(f"The regulation '{other.id}' has units of '{made.band}' then.", "Stop that one first.")


def _stop(state: State, context: Context, form: Nothing) -> Outcome:
    """End a regulation now. Raises NotFound, Forbidden, Conflict where it is over."""
    before = _running(state, context, "state")
    after = replace(before, state=RegulationState.STOPPED, stopped_at=context.now)
    draft = Draft(state, context)
    draft.put(after)
    draft.tell("regulation.stopped", after.id, _concerned(after), band=after.band)
    return draft.outcome(shown(state, context, after))


def _set_shares(state: State, context: Context, form: SharesForm) -> Outcome:
    """The provider's participation factors. Raises NotFound, Forbidden, Conflict, Refused with every fault."""
    before = _running(state, context, "shares")
    refuse("The shares", _unknown(before, form))
    factors = {one.unit: one.factor for one in form.shares}
    after = replace(before, shares=tuple(replace(one, factor=factors.get(one.unit, 0)) for one in before.shares))
    refuse("The shares", _share_faults(after))
    draft = Draft(state, context)
    draft.put(after)
    draft.tell("regulation.shared", after.id, _concerned(after), band=after.band)
    return draft.outcome(shown(state, context, after))


def _unknown(before: Regulation, form: SharesForm) -> Iterator[Finding]:
    known, seen = {one.unit for one in before.shares}, set()
    for i, one in enumerate(form.shares):
        if one.unit not in known:
            yield Finding(f"shares[{i}].unit", "unknown_unit", f"'{one.unit}' has no part in the band; leave it out.")
        if one.unit in seen:
            yield Finding(f"shares[{i}].unit", "twice", "The unit stands twice; give it one factor.")
        seen.add(one.unit)


def _running(state: State, context: Context, field: str) -> Regulation:
    before = record(state, context, Regulation, context.subject)
    require(state, context, before, (field,))
    if before.state is not RegulationState.RUNNING or before.ends <= context.now:
        raise Conflict(f"The regulation '{before.id}' is over.", "Start another one.")
    return before


def _concerned(one: Regulation) -> tuple[str, ...]:
    return (one.buyer, one.provider, *one.operators)


_BUYERS = frozenset({Role.TSO, Role.DSO})
VERBS = (
    Verb("regulation.start", RegulationForm, _start, _BUYERS),
    Verb("regulation.stop", Nothing, _stop, _BUYERS, Regulation),
    Verb("regulation.share", SharesForm, _set_shares, frozenset({Role.SERVICE_PROVIDER}), Regulation),
)
