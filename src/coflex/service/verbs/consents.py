"""Owners: what they allow a provider, for how long, and when their units are to be had (REG-10, ACT-07)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from coflex.domain.errors import Conflict, Finding, refuse
from coflex.domain.party import Role
from coflex.domain.unit import Unit
from coflex.register.consents import Availability, Consent, ConsentScope, Window
from coflex.register.parties import PartyEntry
from coflex.register.resources import UnitEntry
from coflex.service.machine import CREATED, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.reading import record, require, require_new, shown
from coflex.service.state import State
from coflex.service.verbs.resource_forms import Form, Nothing, audience

MOST_WINDOWS = 1_000


class ConsentForm(Form, frozen=True):
    """The owner of `unit` allows `provider` what `scope` says, in [starts, ends); `starts`: now, if left out."""

    unit: str
    provider: str
    scope: tuple[ConsentScope, ...]
    ends: datetime
    starts: datetime | None = None


class WindowForm(Form, frozen=True):
    """A time in which a unit gives at most this, in kW per direction."""

    starts: datetime
    ends: datetime
    up_kw: int
    down_kw: int


class AvailabilityForm(Form, frozen=True):
    """All windows of a unit from now on, in place of those before; none: it is to be had as registered."""

    windows: tuple[WindowForm, ...]


def _give(state: State, context: Context, form: ConsentForm) -> Outcome:
    """Give consent. Raises NotFound, Forbidden, Conflict, Refused with every fault."""
    unit = _own(state, context, form.unit)
    starts = context.now if form.starts is None else form.starts
    refuse("The consent", _consent_faults(state, context, form, starts))
    entry = Consent(context.new_id("consent"), unit.owner, unit.id, form.provider, form.scope, starts, form.ends)
    require_new(state, context, entry, ("id", "owner"))
    note = Note("consent.given", entry.id, audience(state, entry), encode({"unit": unit.id}))
    return Outcome(shown(state, context, entry), ((Consent, entry.id, entry),), (note,), CREATED)


def _own(state: State, context: Context, id: str) -> Unit:
    """A unit of the caller's. Raises NotFound, Forbidden where it is another owner's, Conflict where it is over."""
    entry = record(state, context, UnitEntry, id)
    require_new(state, context, Availability(id, entry.unit.owner, ()), ("owner",))
    if not entry.live:
        raise Conflict(f"The unit '{id}' is terminated.", "Choose another one.")
    return entry.unit


def _consent_faults(state: State, context: Context, form: ConsentForm, starts: datetime) -> Iterator[Finding]:
    provider = state.find(PartyEntry, form.provider)
    if provider is None or not provider.stands or Role.SERVICE_PROVIDER not in provider.party.roles:
        yield Finding("provider", "unknown_provider", f"'{form.provider}' is no service provider here; correct it.")
    if not form.scope or len(set(form.scope)) != len(form.scope):
        yield Finding("scope", "scope", "Say what is allowed: offer, measure or both, each once.")
    zoneless = [name for name, at in (("starts", starts), ("ends", form.ends)) if at.tzinfo is None]
    for name in zoneless:
        yield Finding(name, "no_offset", "The instant has no offset from UTC; write one, as 2026-07-05T10:00:00Z.")
    if zoneless:
        return
    if starts < context.now:
        yield Finding("starts", "past", "A consent does not reach back; leave the start out to begin now.")
    if form.ends <= starts:
        yield Finding("ends", "ends_first", "It ends before it starts; order the two.")


def _withdraw(state: State, context: Context, form: Nothing) -> Outcome:
    """Take a consent back, from now on. Raises NotFound, Forbidden, Conflict."""
    before = record(state, context, Consent, context.subject)
    require(state, context, before, ("withdrawn",))
    if before.until <= context.now:
        raise Conflict(f"The consent '{before.id}' is over already.", "Nothing needs to be done.")
    after = replace(before, withdrawn=context.now)
    note = Note("consent.withdrawn", after.id, audience(state, after), encode({"unit": after.unit}))
    return Outcome(shown(state, context, after), ((Consent, after.id, after),), (note,))


def _set_availability(state: State, context: Context, form: AvailabilityForm) -> Outcome:
    """Set when and how far a unit is to be had. Raises NotFound, Forbidden, Conflict, Refused with every fault."""
    unit = _own(state, context, context.subject)
    refuse("The availability", _window_faults(unit, form.windows))
    windows = [Window(one.starts, one.ends, one.up_kw, one.down_kw) for one in form.windows]
    entry = Availability(unit.id, unit.owner, tuple(sorted(windows, key=lambda one: one.starts)))
    note = Note("availability.set", unit.id, audience(state, entry))
    return Outcome(shown(state, context, entry), ((Availability, unit.id, entry),), (note,))


def _window_faults(unit: Unit, windows: tuple[WindowForm, ...]) -> Iterator[Finding]:
    if len(windows) > MOST_WINDOWS:
        yield Finding("windows", "window_count", f"There are more than {MOST_WINDOWS} windows; join some.")
    for place, one in enumerate(windows):
        if one.starts.tzinfo is None or one.ends.tzinfo is None:
            yield Finding(f"windows[{place}]", "no_offset", "An instant has no offset from UTC; write one.")
            return
        if one.ends <= one.starts:
            yield Finding(f"windows[{place}]", "ends_first", "It ends before it starts; order the two.")
        for name, most in (("up_kw", unit.up_kw), ("down_kw", unit.down_kw)):
            if not 0 <= getattr(one, name) <= most:
                message = f"{getattr(one, name)} kW is not between 0 and the unit's {most} kW; correct it."
                yield Finding(f"windows[{place}].{name}", "power", message)
    ordered = sorted(windows, key=lambda one: one.starts)
    if any(one.ends > following.starts for one, following in pairwise(ordered)):
        yield Finding("windows", "overlap", "Two windows overlap; separate them.")


_OWNER = frozenset({Role.ASSET_OWNER})
VERBS = (
    Verb("consent.give", ConsentForm, _give, _OWNER),
    Verb("consent.withdraw", Nothing, _withdraw, _OWNER, Consent),
    Verb("availability.set", AvailabilityForm, _set_availability, _OWNER, Availability),
)
