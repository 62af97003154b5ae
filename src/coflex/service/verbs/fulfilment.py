"""The provider's side of an order: its own split, a unit that fails, the backups that step in (ACT-01, ACT-06).

A backup is a unit that nobody else may buy in its time: sessions and lists leave it alone, so it is never sold beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from coflex.activation.profile import Profile, between, bounds, kw_at, kwh, minus, plus, profile
from coflex.activation.rebalance import Backup as Candidate
from coflex.activation.rebalance import deadline, rebalance
from coflex.activation.split import check_split
from coflex.domain.activation import Piece
from coflex.domain.errors import Conflict, Finding, Forbidden, refuse
from coflex.domain.party import Role
from coflex.domain.time import QUARTER
from coflex.register.activations import ActivationOrder, Backup, Failure, OrderState
from coflex.register.market import SessionEntry
from coflex.register.resources import UnitEntry
from coflex.service.ledger import holdings
from coflex.service.machine import CREATED, Context, Outcome, Verb
from coflex.service.orders import (
    Draft,
    Span,
    able,
    again,
    concerned,
    held_for,
    in_use,
    operators_of_units,
    perimeter_of,
    quarter,
    room,
    shares,
    spans,
    taken_off,
    tell_units,
)
from coflex.service.reading import record, require, require_new, shown
from coflex.service.standby import in_offers, still_offered
from coflex.service.state import State
from coflex.service.verbs.order_forms import Instant, Kw, mine, text_faults, utc
from coflex.service.verbs.resource_forms import Form, Nothing
from coflex.service.withheld import backups_of

LONGEST_BACKUP = timedelta(days=31)
# Pieces of a split in all; and messages, one a piece and quarter-hour, by which a device is told of it.
MOST_PIECES = 1_000


class PieceForm(Form, frozen=True):
    """`kw` in [starts, ends), in the order's direction."""

    starts: Instant
    ends: Instant
    kw: Kw


class UnitShare(Form, frozen=True):
    """What one unit gives of an order."""

    unit: str
    pieces: tuple[PieceForm, ...]


class SplitForm(Form, frozen=True):
    """The provider's own split of what is still to come of an order; a unit that is left out gives nothing."""

    units: tuple[UnitShare, ...]


class FailureForm(Form, frozen=True):
    """A unit gives at most `remaining_kw` from now on, until `ends` (the end of the order, if left out)."""

    unit: str
    remaining_kw: Kw = 0
    reason: str = ""
    ends: Instant | None = None


class Rebalance(Form, frozen=True):
    """Which backups may step in; all that are reserved, if left out."""

    units: tuple[str, ...] = ()


class BackupForm(Form, frozen=True):
    """A unit is kept free in [starts, ends), whole quarter-hours."""

    unit: str
    starts: Instant
    ends: Instant


# ---------------------------------------------------------------- the provider


def _split(state: State, context: Context, form: SplitForm) -> Outcome:
    """The provider's own split of what is still to come, over units that were bought for it and reserved backups. It
    gives all that is ordered, or leaves open what was missing before. Raises NotFound, Forbidden, Conflict, Refused
    with every fault."""
    before = mine(state, context, "failures")
    refuse("The split", _too_many(sum(len(share.pieces) for share in form.units), "units"))
    own, findings = _own_shares(form, context.now, before.ends)
    refuse("The split", findings)
    refuse("The split", (one for unit, mine in own.items() for one in _too_many(len(spans(mine)), unit)))
    ordered = between(before.profile, context.now, None)
    places = _common_cells(ordered, own)
    power = {unit: [kw_at(one, starts) for starts, _ in places] for unit, one in own.items()}
    least = minus(ordered, before.missing)
    wanted = [
        min(kw_at(ordered, starts), max(kw_at(least, starts), sum(one[t] for one in power.values())))
        for t, (starts, _) in enumerate(places)
    ]
    can = able(state, before, places, context.now, backups=True)
    hours = [(ends - starts) / timedelta(hours=1) for starts, ends in places]
    refuse("The split", check_split(wanted, hours, [starts for starts, _ in places], can, power))
    refuse("The split", _beyond_lights(state, before, places, power))
    draft = Draft(state, context)
    given = profile(Piece(*place, kw) for place, kw in zip(places, wanted, strict=True))
    missing = minus(ordered, given)
    after = replace(
        again(before, context),
        state=OrderState.SPLIT,
        own_split=True,
        missing=missing,
        due=before.due if missing else None,
        operators=tuple(sorted({*before.operators, *operators_of_units(state, own)})),
    )
    tell_units(draft, after, own)
    draft.put(after)
    draft.tell("activation.split", after.id, concerned(after), version=after.version)
    return draft.outcome(shown(state, context, after))


def _too_many(count: int, place: str) -> Iterator[Finding]:
    if count > MOST_PIECES:
        message = f"These are {count} pieces, and at most {MOST_PIECES} are taken; give longer ones."
        yield Finding(place, "too_many", message)


def _own_shares(form: SplitForm, now: datetime, ends: datetime) -> tuple[dict[str, Profile], list[Finding]]:
    """The shares by unit from now on, none beyond the end of the order, and what is wrong with them."""
    own: dict[str, Profile] = {}
    findings = []
    for i, share in enumerate(form.units):
        if share.unit in own:
            findings.append(Finding(f"units[{i}]", "twice", "The unit stands twice; give all of its pieces once."))
            continue
        try:
            pieces = [Piece(utc(one.starts, "starts"), utc(one.ends, "ends"), one.kw) for one in share.pieces]
            own[share.unit] = between(profile(pieces), now, None)
        except ValueError:
            message = "A piece ends before it starts, or overlaps another; correct them."
            findings.append(Finding(f"units[{i}].pieces", "pieces", message))
            own[share.unit] = ()
        if any(piece.ends > ends for piece in own[share.unit]):
            message = f"The order ends at {ends.isoformat()}; let no piece go on after it."
            findings.append(Finding(f"units[{i}].pieces", "beyond_order", message))
    return own, findings


def _common_cells(coming: Profile, own: Mapping[str, Profile]) -> list[Span]:
    """Time cut wherever the order, a unit's share or a quarter-hour begins or ends."""
    busy = (coming, *own.values())
    cut = [Piece(starts, ends, 1) for starts, ends in pairwise(bounds(busy))]
    cells = [(starts, ends) for piece in cut for starts, ends, _ in spans((piece,))]
    return [cell for cell in cells if any(kw_at(one, cell[0]) for one in busy)]


def _beyond_lights(
    state: State, order: ActivationOrder, places: list[Span], power: Mapping[str, list[int]]
) -> Iterator[Finding]:
    """Power that a split moves into a perimeter beyond what its light leaves there."""
    entry = state.get(SessionEntry, order.session)
    held = held_for(state, entry.day, entry.session, order.offer)
    left = room(state, order, places)
    for (perimeter, t), kw in sorted(left.items()):
        starts = places[t][0]
        ours = sum(one[quarter(starts)].quantity_kw for unit, one in held.items()
                   if quarter(starts) in one and perimeter_of(state, unit) == perimeter)  # fmt: skip
        wanted = sum(of_unit[t] for unit, of_unit in power.items() if perimeter_of(state, unit) == perimeter)
        if wanted > ours + kw:
            message = f"{wanted} kW in {perimeter} are more than the {ours + kw} its light leaves; move some elsewhere."
            yield Finding(f"period {starts.isoformat()}", "light", message)


def _fail(state: State, context: Context, form: FailureForm) -> Outcome:
    """A unit cannot give what it was told. For 15 minutes the provider may replace it by backups. Raises NotFound,
    Forbidden, Conflict."""
    before = mine(state, context, "failures")
    refuse("The failure", text_faults("reason", form.reason))
    draft = Draft(state, context)
    ends = before.ends if form.ends is None else utc(form.ends, "ends")
    taken = taken_off(draft, before, form.unit, context.now, ends, form.remaining_kw)
    failure = Failure(form.unit, context.now, ends, form.remaining_kw, form.reason, context.now)
    after = replace(
        again(before, context),
        failures=(*before.failures, failure),
        missing=plus(before.missing, taken),
        due=before.due if before.missing and before.due is not None else deadline(context.now),
    )
    draft.put(after)
    draft.tell("activation.failed", after.id, concerned(after), unit=form.unit, by=after.due, kwh=kwh(taken))
    return draft.outcome(shown(state, context, after))


def _rebalance(state: State, context: Context, form: Rebalance) -> Outcome:
    """Replace what is missing by reserved backups. Raises NotFound, Forbidden, Conflict where nothing is missing or no
    backup can help."""
    before = mine(state, context, "failures")
    cells = spans(between(before.missing, context.now, None))
    if not cells:
        raise Conflict(f"Nothing of the order '{before.id}' is missing.", "Nothing is to be done.")
    places = [(starts, ends) for starts, ends, _ in cells]
    entry = state.get(SessionEntry, before.session)
    held = held_for(state, entry.day, entry.session, before.offer)
    failed = {one.unit for one in before.failures}
    given = {unit.unit: unit for unit in able(state, before, places, context.now, backups=True)}
    draft = Draft(state, context)
    now = shares(draft, before)
    backups = [
        Candidate(
            name,
            perimeter_of(state, name),
            tuple(max(0, one.most(t) - kw_at(now.get(name, ()), starts)) for t, (starts, _) in enumerate(places)),
            state.get(UnitEntry, name).unit.activation_period_s,
            0 if name in now else one.least,
            None if one.energy is None else one.energy - kwh(now.get(name, ())),
        )
        for name, one in sorted(given.items())
        if name not in held and name not in failed and (not form.units or name in form.units)
    ]
    home = perimeter_of(state, before.failures[-1].unit) if before.failures else ""
    left = room(state, before, places)
    for t, (_, _, kw) in enumerate(cells):
        if (home, t) in left:
            left[home, t] += kw
    hours = [(ends - starts) / timedelta(hours=1) for starts, ends in places]
    found = rebalance([kw for _, _, kw in cells], hours, backups, left, home)
    if not found.kw.any():
        raise Conflict("No reserved backup can step in.", "Reserve one, or let the next of the list take over.")
    for u, name in enumerate(found.units):
        more = profile(Piece(*places[t], int(kw)) for t, kw in enumerate(found.kw[u]))
        now[name] = plus(now.get(name, ()), more)
    missing = profile(Piece(*places[t], int(kw)) for t, kw in enumerate(found.missing_kw))
    after = replace(
        again(before, context),
        missing=missing,
        due=before.due if missing else None,
        operators=tuple(sorted({*before.operators, *operators_of_units(state, now)})),
    )
    tell_units(draft, after, now)
    draft.put(after)
    draft.tell("activation.rebalanced", after.id, concerned(after), version=after.version, missing_kwh=kwh(missing))
    return draft.outcome(shown(state, context, after))


# ---------------------------------------------------------------- backups


def _reserve(state: State, context: Context, form: BackupForm) -> Outcome:
    """Keep a unit free as a backup: nobody buys it in that time. Raises NotFound, Forbidden, Conflict where it is sold,
    may still be sold, or is reserved; Refused."""
    entry = record(state, context, UnitEntry, form.unit)
    starts, ends = utc(form.starts, "starts"), utc(form.ends, "ends")
    made = Backup(context.new_id("backup"), context.party, entry.unit.owner, form.unit, starts, ends, context.now)
    if entry.unit.provider != context.party:
        raise Forbidden(f"'{form.unit}' is another provider's unit.", "Reserve one of your own.")
    require_new(state, context, made, ("id", "unit"))
    refuse("The backup", _backup_faults(starts, ends, context.now))
    _free(state, form.unit, starts, ends)
    draft = Draft(state, context)
    draft.put(made)
    draft.tell("backup.reserved", made.id, (made.provider, made.owner), unit=made.unit)
    return draft.outcome(shown(state, context, made), CREATED)


def _backup_faults(starts: datetime, ends: datetime, now: datetime) -> Iterator[Finding]:
    for name, at in (("starts", starts), ("ends", ends)):
        if quarter(at) != at:
            yield Finding(name, "quarter", "A backup is of whole quarter-hours; give the start of one.")
    if ends <= starts or ends <= now:
        yield Finding("ends", "ends_first", "It ends before it starts, or before now; order the two.")
    if ends - starts > LONGEST_BACKUP:
        yield Finding("ends", "too_long", f"A backup is for at most {LONGEST_BACKUP.days} days; reserve it in parts.")


def _free(state: State, unit: str, starts: datetime, ends: datetime) -> None:
    """Raises Conflict where a unit is sold, may still be sold, or is reserved in a time."""
    days = {(starts - timedelta(days=1)).date() + timedelta(days=k) for k in range((ends - starts).days + 4)}
    for day in sorted(days):
        sold = next((one for one in holdings(state, day) if one.unit == unit and starts < one.start + QUARTER
                     and one.start < ends), None)  # fmt: skip
        if sold is not None:
            raise Conflict(f"The unit '{unit}' is sold at {sold.start.isoformat()}.", "Reserve another time or unit.")
    if in_offers(still_offered(state, days), unit, starts, ends):
        raise Conflict(f"A session may still buy the unit '{unit}'.", "Wait for its result, or withdraw the offer.")
    if any(one.touches(starts, ends) for one in backups_of(state, unit)):
        raise Conflict(f"The unit '{unit}' is reserved already.", "Release that backup first.")


def _release(state: State, context: Context, form: Nothing) -> Outcome:
    """A backup may be sold again. Raises NotFound, Forbidden, Conflict while an order uses it."""
    before = record(state, context, Backup, context.subject)
    require(state, context, before, ("released",))
    if before.released is not None or before.ends <= context.now:
        raise Conflict(f"The backup '{before.id}' is over.", "Nothing needs to be done.")
    if in_use(state, before, context.now):
        raise Conflict(f"An order uses the backup '{before.id}'.", "Let the order end first.")
    after = replace(before, released=context.now)
    draft = Draft(state, context)
    draft.put(after)
    draft.tell("backup.released", after.id, (after.provider, after.owner), unit=after.unit)
    return draft.outcome(shown(state, context, after))


_PROVIDER = frozenset({Role.SERVICE_PROVIDER})
VERBS = (
    Verb("activation.split", SplitForm, _split, _PROVIDER, ActivationOrder),
    Verb("activation.fail", FailureForm, _fail, _PROVIDER, ActivationOrder),
    Verb("activation.rebalance", Rebalance, _rebalance, _PROVIDER, ActivationOrder),
    Verb("backup.reserve", BackupForm, _reserve, _PROVIDER),
    Verb("backup.release", Nothing, _release, _PROVIDER, Backup),
)
