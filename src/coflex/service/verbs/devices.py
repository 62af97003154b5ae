"""The field: devices and their keys, who may see what they measure, and what became of the set points that were sent
(ACT-01, ACT-02, CERT-02).

Point numbers are the platform's: they rise by one, and none is used again. A key is one device's for ever. What the
field door brings (the platform's own `field`) names set points by the sequences of the messages that carried them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from string import hexdigits
from typing import Annotated

import msgspec

from coflex.activation.monitor import Alarm
from coflex.domain.activation import Acknowledgement, Hop, Verdict
from coflex.domain.errors import Conflict, Finding, Forbidden, Refused, refuse
from coflex.domain.party import Role
from coflex.register.activations import SetPointEntry, SetPointState
from coflex.register.consents import Consent, ConsentScope, covered
from coflex.register.devices import DataGrant, DataScope, Device, DeviceKey
from coflex.register.parties import PartyEntry
from coflex.register.resources import UnitEntry
from coflex.service.field import MOST_MESSAGES, device_of, led_anew, set_point_of, unit_at
from coflex.service.index import index
from coflex.service.machine import CREATED, Context, Outcome, Verb, encode
from coflex.service.orders import Draft
from coflex.service.reading import record, require, require_new, shown
from coflex.service.state import State
from coflex.service.verbs.order_forms import Instant, text_faults, utc
from coflex.service.verbs.resource_forms import Form, Nothing

MOST_POINTS = 2**32 - 1
MOST_AT_ONCE = 10_000
Sequence64 = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class DeviceForm(Form, frozen=True):
    """A device of `unit` that signs with the key of which `public_key` is the public half, 64 hexadecimal digits."""

    unit: str
    public_key: str


class KeyForm(Form, frozen=True):
    """The key that follows, from now on."""

    public_key: str


class Revocation(Form, frozen=True):
    """Why a device is trusted no more."""

    reason: str = ""


class DataGrantForm(Form, frozen=True):
    """The owner of `unit` lets `party` see what `scope` says, of the time in [starts, ends); `starts`: now, if left
    out."""

    unit: str
    party: str
    scope: tuple[DataScope, ...]
    ends: Instant
    starts: Instant | None = None


class SentSetPoint(Form, frozen=True):
    """A version of a set point left, in messages with these sequences."""

    id: str
    version: int
    sequences: Annotated[tuple[Sequence64, ...], msgspec.Meta(max_length=MOST_MESSAGES)]


class Sent(Form, frozen=True):
    """What left, and when."""

    set_points: Annotated[tuple[SentSetPoint, ...], msgspec.Meta(max_length=MOST_AT_ONCE)]
    at: Instant


class HopWord(Form, frozen=True):
    """What a hop behind the platform says of the message with a sequence, at which point, and when it said so."""

    point: int
    sequence: Sequence64
    hop: Hop
    verdict: Verdict
    at: Instant


class Heard(Form, frozen=True):
    """Acknowledgements from the field."""

    acknowledgements: Annotated[tuple[HopWord, ...], msgspec.Meta(max_length=MOST_AT_ONCE)]


class AlarmWord(Form, frozen=True):
    """The alarm of a set point's version as it is from `at` on: since when its unit does otherwise, and by how much."""

    id: str
    version: int
    alarm: Alarm
    since: Instant | None
    deviation_kw: Decimal | None
    at: Instant


class Watched(Form, frozen=True):
    """Alarms that began, changed or ended."""

    alarms: Annotated[tuple[AlarmWord, ...], msgspec.Meta(max_length=MOST_AT_ONCE)]


# ---------------------------------------------------------------- devices


def _enrol(state: State, context: Context, form: DeviceForm) -> Outcome:
    """Give a device its number. By the unit's owner, or by its provider with the owner's consent to measure. Raises
    NotFound, Forbidden, Conflict where the unit has a device, Refused with every fault."""
    entry = record(state, context, UnitEntry, form.unit)
    unit = entry.unit
    if context.party not in (unit.owner, unit.provider):
        raise Forbidden(f"'{form.unit}' is not {context.party}'s.", "Ask its owner or its provider.")
    if not entry.live:
        raise Conflict(f"The unit '{form.unit}' is terminated.", "Choose another one.")
    if context.party != unit.owner and not _may_measure(state, context, entry):
        message = f"The owner's consent to measure '{form.unit}' is not in force; the owner gives it first."
        raise Refused("The device", [Finding("unit", "no_consent", message)])
    refuse("The device", _key_faults(state, form.public_key))
    there = device_of(state, form.unit)
    if there is not None:
        raise Conflict(f"The unit '{form.unit}' has the device '{there.id}'.", "Revoke that one, or change its key.")
    point = max((one.point for one in state.all(Device)), default=0) + 1
    if point > MOST_POINTS:
        raise Conflict("There is no point number left.", "Open another tenant.")
    key = DeviceKey(form.public_key.lower(), context.now)
    made = Device(context.new_id("device"), point, form.unit, unit.owner, (key,), context.now, context.party)
    require_new(state, context, made, ("id", "unit", "keys"))
    return _kept(state, context, made, "enrolled", CREATED, led_anew(state, made.unit, context.now))


def _may_measure(state: State, context: Context, entry: UnitEntry) -> bool:
    unit, now = entry.unit, context.now
    mine = state.grouped(Consent, "unit", lambda one: one.unit).get(unit.id, ())
    # in force at this instant: a time of no length is covered by every consent, so one microsecond is asked for
    return covered(mine, unit.owner, unit.id, context.party, ConsentScope.MEASURE, now, now + datetime.resolution)


def _key_faults(state: State, public: str) -> Iterator[Finding]:
    if len(public) != 64 or not set(public) <= set(hexdigits):
        yield Finding("public_key", "key", "A public key has 64 hexadecimal digits; send the 32 bytes so.")
    elif index(state, Device, "key", _keys_of).at(public.lower()):
        yield Finding("public_key", "key_taken", "A device has or had this key; make a new pair.")


def _keys_of(device: Device) -> tuple[str, ...]:
    return tuple(one.public for one in device.keys)


def _rotate(state: State, context: Context, form: KeyForm) -> Outcome:
    """Another key from now on; messages signed before are held against the old one. Raises NotFound, Forbidden,
    Conflict, Refused."""
    before = _standing(state, context, "keys")
    refuse("The key", _key_faults(state, form.public_key))
    old, new = replace(before.keys[-1], ends=context.now), DeviceKey(form.public_key.lower(), context.now)
    return _kept(state, context, replace(before, keys=(*before.keys[:-1], old, new)), "key_changed")


def _revoke(state: State, context: Context, form: Revocation) -> Outcome:
    """Trust a device no more from now on. Raises NotFound, Forbidden, Conflict where it is revoked."""
    before = _standing(state, context, "revoked")
    refuse("The revocation", text_faults("reason", form.reason))
    keys = (*before.keys[:-1], replace(before.keys[-1], ends=context.now))
    after = replace(before, keys=keys, revoked=context.now, reason=form.reason)
    return _kept(state, context, after, "revoked")


def _standing(state: State, context: Context, field: str) -> Device:
    device = record(state, context, Device, context.subject)
    require(state, context, device, (field,))
    if device.revoked is not None:
        raise Conflict(f"The device '{device.id}' is revoked.", "Enrol another one.")
    return device


def _kept(
    state: State, context: Context, device: Device, what: str, status: int = 200, also: Iterable[SetPointEntry] = ()
) -> Outcome:
    draft = Draft(state, context)
    draft.put(device, *also)
    unit = state.get(UnitEntry, device.unit).unit
    draft.tell(f"device.{what}", device.id, (unit.owner, unit.provider), unit=device.unit, point=device.point)
    return draft.outcome(shown(state, context, device), status)


# ---------------------------------------------------------------- who may see


def _grant(state: State, context: Context, form: DataGrantForm) -> Outcome:
    """Let a party see data of a unit. Raises NotFound, Forbidden, Refused with every fault."""
    unit = record(state, context, UnitEntry, form.unit).unit
    starts = context.now if form.starts is None else utc(form.starts, "starts")
    made = DataGrant(
        context.new_id("data-grant"), unit.owner, unit.id, form.party, form.scope, starts, utc(form.ends, "ends")
    )
    require_new(state, context, made, ("id", "owner"))
    refuse("The grant", _grant_faults(state, made))
    draft = Draft(state, context)
    draft.put(made)
    draft.tell("data_grant.given", made.id, (made.owner, made.party), unit=made.unit)
    return draft.outcome(shown(state, context, made), CREATED)


def _grant_faults(state: State, made: DataGrant) -> Iterator[Finding]:
    party = state.find(PartyEntry, made.party)
    if party is None or not party.stands:
        yield Finding("party", "unknown_party", f"'{made.party}' is no party here; correct it.")
    if not made.scope or len(set(made.scope)) != len(made.scope):
        yield Finding("scope", "scope", "Say what may be seen: live, certified or both, each once.")
    if made.ends <= made.starts:
        yield Finding("ends", "ends_first", "It ends before it starts; order the two.")


def _withdraw(state: State, context: Context, form: Nothing) -> Outcome:
    """Take a grant back: nothing more is read by it from now on. Raises NotFound, Forbidden, Conflict."""
    before = record(state, context, DataGrant, context.subject)
    require(state, context, before, ("withdrawn",))
    if before.withdrawn is not None:
        raise Conflict(f"The grant '{before.id}' is withdrawn already.", "Nothing needs to be done.")
    after = replace(before, withdrawn=context.now)
    draft = Draft(state, context)
    draft.put(after)
    draft.tell("data_grant.withdrawn", after.id, (after.owner, after.party), unit=after.unit)
    return draft.outcome(shown(state, context, after))


# ---------------------------------------------------------------- set points, by the field door


def _sent(state: State, context: Context, form: Sent) -> Outcome:
    """Set points left. A version that is not the newest any more is answered as stale: the newer one is still to be
    sent, and says what holds."""
    draft, stale = Draft(state, context), []
    for one in form.set_points:
        told = draft.find(SetPointEntry, one.id)
        if told is None or told.version != one.version or told.state is SetPointState.SENT:
            stale.append(one.id)
            continue
        at = utc(form.at, "at")
        until = told.holds_until
        draft.put(replace(told, state=SetPointState.SENT, sequences=one.sequences, sent_at=at, told_until=until))
    return draft.outcome({"sent": len(form.set_points) - len(stale), "stale": stale})


def _heard(state: State, context: Context, form: Heard) -> Outcome:
    """Hops behind the platform answered. Words about messages that carried no standing version, or none of the unit
    that speaks, are named as unknown; one that says the same again changes nothing."""
    draft, unknown = Draft(state, context), []
    for one in form.acknowledgements:
        id = set_point_of(state, one.sequence)
        told = draft.find(SetPointEntry, id) if id is not None else None
        behind = one.hop in (Hop.LIGHT_NODE, Hop.ENERGY_MANAGEMENT_SYSTEM)
        if told is None or not behind or unit_at(state, one.point) != told.unit:
            unknown.append(one.sequence)
            continue
        said = [(mark.hop, mark.verdict) for mark in told.acknowledgements]
        if (one.hop, one.verdict) in said:
            continue
        mark = Acknowledgement(one.hop, told.unit, one.verdict, utc(one.at, "at"))
        draft.put(replace(told, acknowledgements=(*told.acknowledgements, mark)))
        if one.verdict in (Verdict.REFUSED, Verdict.NOT_REACHABLE):
            body = encode({"unit": told.unit, "hop": one.hop, "verdict": one.verdict})
            draft.tell("set_point.not_taken", told.id, (told.provider, told.owner), **msgspec.json.decode(body))
    return draft.outcome({"taken": len(form.acknowledgements) - len(unknown), "unknown": unknown})


def _watched(state: State, context: Context, form: Watched) -> Outcome:
    """Units do otherwise than they were told, or as told again. Words about a version that stands no more are named as
    stale; by how much a unit is off is told to nobody who may not read it."""
    draft, stale = Draft(state, context), []
    for one in form.alarms:
        told = draft.find(SetPointEntry, one.id)
        if told is None or told.version != one.version:
            stale.append(one.id)
            continue
        if told.alarm is one.alarm:
            continue
        since = None if one.since is None else utc(one.since, "since")
        draft.put(replace(told, alarm=one.alarm, alarm_since=since, deviation_kw=one.deviation_kw))
        readers = (told.provider, told.owner, told.buyer, *told.operators)
        draft.tell("set_point.alarm", told.id, readers, unit=told.unit, alarm=one.alarm, at=utc(one.at, "at"))
    return draft.outcome({"taken": len(form.alarms) - len(stale), "stale": stale})


_OWNER = frozenset({Role.ASSET_OWNER})
_SIDES = frozenset({Role.ASSET_OWNER, Role.SERVICE_PROVIDER})
VERBS = (
    Verb("device.enrol", DeviceForm, _enrol, _SIDES),
    Verb("device.rotate_key", KeyForm, _rotate, _SIDES, Device),
    Verb("device.revoke", Revocation, _revoke, _SIDES | {Role.REGISTER_OPERATOR}, Device),
    Verb("data_grant.give", DataGrantForm, _grant, _OWNER),
    Verb("data_grant.withdraw", Nothing, _withdraw, _OWNER, DataGrant),
    Verb("set_point.sent", Sent, _sent),
    Verb("set_point.heard", Heard, _heard),
    Verb("set_point.watched", Watched, _watched),
)
