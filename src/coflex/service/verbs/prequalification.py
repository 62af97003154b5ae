"""Grid prequalification: one request of the provider, forwarded to every operator concerned, and each one's answer
(REG-03, REG-04).

A unit asks by itself when it enters the register, changes materially or goes to another provider; its provider may ask
again at any time. A record for the connecting operator and for every impacted one says how far it is;
each chooses how it has the static light computed, or answers by itself. A unit may give what the smallest answer
allows, and nothing before all are there (`coflex.service.limits`).

    requested -> in_progress -> approved | conditionally_approved | not_approved     with the mode chosen, by power flow
    requested -> approved | conditionally_approved | not_approved                    by the operator's own answer
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

import msgspec

from coflex.domain.errors import Conflict, Finding, refuse
from coflex.domain.party import Role
from coflex.domain.qualification import StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Direction
from coflex.domain.unit import Unit
from coflex.register.prequalification import GridAnswer, GridPrequalification, GridStatus, grid_id
from coflex.register.records import Record
from coflex.register.resources import PointEntry, UnitEntry
from coflex.service.index import index
from coflex.service.limits import operators_of
from coflex.service.machine import CREATED, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.reading import require
from coflex.service.state import State

MOST_UNITS = 10_000
MOST_TEXT = 2_000
PENDING = frozenset({GridStatus.REQUESTED, GridStatus.IN_PROGRESS})
ENGINE = "engine"
Written = tuple[type[Record], str, Record | None]


class GridRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units (ids) that their provider wants qualified by every operator concerned, for the first time or again."""

    units: tuple[str, ...]


class GridCheckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an operator has units computed: in which mode, which units (none named: all that wait for it), and until when
    the answers are to hold (None: until something changes)."""

    mode: StaticMode
    units: tuple[str, ...] = ()
    valid_until: datetime | None = None


class Uncomputed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A unit of which no light could be computed, and why."""

    unit: str
    reason: str


class GridCheckComputed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the engine computed for the record that the command's subject names, and for any others of its operator
    that are in progress in the same mode.

    `lights`: one for each direction in which a unit is registered. `failed`: units without, and why. `at`: the tenant's
    time at which the register was read; None: when each record came into progress.
    """

    lights: tuple[StaticLight, ...]
    failed: tuple[Uncomputed, ...] = ()
    at: datetime | None = None


class OwnAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operator's own answer: approved, conditionally_approved with an upper limit in kW (None: not limited in that
    direction), or not_approved; with the reason and what proves it (study, contract, measurement)."""

    status: GridStatus
    reason: str
    proof: str
    up_kw: int | None = None
    down_kw: int | None = None
    valid_until: datetime | None = None


# ---------------------------------------------------------------- the provider asks


def _request(state: State, context: Context, form: GridRequest) -> Outcome:
    """Begin the procedure of units before all their operators; where it is under way, it goes on as it is. Raises
    Refused with every unit that cannot be."""
    refuse("The request", _request_faults(state, context, form))
    records = [
        _asked(state, entry, operator, i == 0, context.now)
        for entry in (state.get(UnitEntry, name) for name in form.units)
        for i, operator in enumerate(operators_of(state.get(PointEntry, entry.unit.connection_point)))
    ]
    new = {one.id: one for one in records if one is not state.find(GridPrequalification, one.id)}
    return Outcome(
        {"requested": list(new), "waiting": [one.id for one in records if one.id not in new]},
        tuple((GridPrequalification, id, one) for id, one in new.items()),
        _told("grid_prequalification.requested", new.values()),
        CREATED,
    )


def _request_faults(state: State, context: Context, form: GridRequest) -> Iterator[Finding]:
    if not 1 <= len(form.units) <= MOST_UNITS:
        yield Finding("units", "parcel_size", f"{len(form.units)} units are named; name 1 to {MOST_UNITS}.")
    seen: set[str] = set()
    for i, name in enumerate(form.units):
        entry = state.find(UnitEntry, name)
        if name in seen:
            yield Finding(f"units[{i}]", "repeated", f"The unit '{name}' is named twice; name it once.")
        elif entry is None or not entry.live or entry.unit.provider != context.party:
            yield Finding(f"units[{i}]", "unknown_unit", f"You have no unit '{name}'; register it or correct the name.")
        elif state.find(PointEntry, entry.unit.connection_point) is None:
            yield Finding(
                f"units[{i}]", "unknown_point", f"The connection point of '{name}' is not there; name another."
            )
        seen.add(name)


def _asked(state: State, entry: UnitEntry, operator: str, connecting: bool, now: datetime) -> GridPrequalification:
    """The record as a request leaves it: one that waits stays as it is, an answer stays until another comes."""
    there = state.find(GridPrequalification, grid_id(entry.id, operator))
    if there is not None and there.status in PENDING and there.provider == entry.unit.provider:
        return there
    return GridPrequalification(
        id=grid_id(entry.id, operator),
        unit=entry.id,
        operator=operator,
        provider=entry.unit.provider,
        connecting=connecting,
        status=GridStatus.REQUESTED,
        status_since=now,
        answer=None if there is None else there.answer,
    )


Asked = tuple[list[Written], list[Note]]
_Gone = tuple[str, GridPrequalification | None]


def begin(state: State, units: Iterable[tuple[UnitEntry, PointEntry]], now: datetime, reason: str = "") -> Asked:
    """Records and notes that belong to the registration, the material change or the switch of units, each given with
    its point, both as they will be: every operator is asked, also where it was being asked about what the unit was.

    Answers to what it was have lapsed by their own timestamps; others stand until the new one.
    """
    asked: list[GridPrequalification] = []
    gone: list[_Gone] = []
    for entry, point in units:
        for i, operator in enumerate(operators_of(point)):
            one = _asked(state, entry, operator, i == 0, now)
            asked.append(replace(one, status=GridStatus.REQUESTED, status_since=now, mode=None, reason=reason))
        gone += _others(state, entry, point)
    return _written(asked, gone)


def follow(state: State, units: Iterable[tuple[UnitEntry, PointEntry]], now: datetime) -> Asked:
    """The same where other operators answer for units that did not change: only those who were not asked yet are."""
    asked: list[GridPrequalification] = []
    gone: list[_Gone] = []
    for entry, point in units:
        there = {one.operator for one in _of_unit(state, entry.id)}
        for i, operator in enumerate(operators_of(point)):
            if operator not in there:
                asked.append(_asked(state, entry, operator, i == 0, now))
        gone += _others(state, entry, point)
    return _written(asked, gone)


def end(state: State, unit: str) -> list[Written]:
    """Nobody is asked about a unit any more: what waits for an answer ends."""
    return [(GridPrequalification, one.id, None) for one in _of_unit(state, unit) if one.status in PENDING]


def _others(state: State, entry: UnitEntry, point: PointEntry) -> Iterator[_Gone]:
    """Records of a unit before operators that do not answer for it now: an answer is the present provider's to read,
    what waits ends."""
    for one in _of_unit(state, entry.id):
        if one.operator not in operators_of(point) and one.status in PENDING:
            yield one.id, None
        elif one.operator not in operators_of(point) and one.provider != entry.unit.provider:
            yield one.id, replace(one, provider=entry.unit.provider)


def _written(asked: Iterable[GridPrequalification], others: Iterable[_Gone]) -> Asked:
    records = list(asked)
    written: list[Written] = [(GridPrequalification, one.id, one) for one in records]
    written += [(GridPrequalification, id, one) for id, one in others]
    return written, list(_told("grid_prequalification.requested", records))


def _of_unit(state: State, unit: str) -> tuple[GridPrequalification, ...]:
    return index(state, GridPrequalification, "unit", lambda one: (one.unit,)).at(unit)


# ---------------------------------------------------------------- the operator has it computed


def _check(state: State, context: Context, form: GridCheckRequest) -> Outcome:
    """Choose the mode in which an operator's units are computed. Raises Refused on a unit that did not ask, Conflict
    when none waits."""
    mine = {one.unit: one for one in _by_operator(state).get(context.party, ())}
    findings = [
        Finding(f"units[{i}]", "unknown_unit", f"No unit '{name}' asks for your answer; correct the name.")
        for i, name in enumerate(form.units)
        if name not in mine
    ]
    refuse("The request", [*findings, *_until_fault(form.valid_until, context.now)])
    chosen = [mine[name] for name in form.units] or [one for one in mine.values() if one.status is GridStatus.REQUESTED]
    if not chosen:
        raise Conflict("No unit waits for your answer.", "Name units to have them computed again.")
    moved = [
        replace(
            one,
            status=GridStatus.IN_PROGRESS,
            status_since=context.now,
            mode=form.mode,
            renew_until=form.valid_until,
            reason="",
        )
        for one in {one.id: one for one in chosen}.values()
    ]
    return Outcome(
        {"in_progress": [one.id for one in moved]},
        tuple((GridPrequalification, one.id, one) for one in moved),
        _told("grid_prequalification.in_progress", moved),
    )


def _by_operator(state: State) -> dict[str, tuple[GridPrequalification, ...]]:
    return state.grouped(GridPrequalification, "operator", lambda one: one.operator)


def checks_in_progress(state: State) -> dict[tuple[str, StaticMode], tuple[str, ...]]:
    """Units (ids, sorted) whose static light is to be computed, by operator and mode."""

    def make() -> dict[tuple[str, StaticMode], tuple[str, ...]]:
        found: dict[tuple[str, StaticMode], list[str]] = {}
        for one in state.all(GridPrequalification):
            if one.status is GridStatus.IN_PROGRESS and one.mode is not None:
                found.setdefault((one.operator, one.mode), []).append(one.unit)
        return {key: tuple(sorted(units)) for key, units in sorted(found.items())}

    return state.derived("grid checks in progress", (GridPrequalification,), make)


def _computed(state: State, context: Context, form: GridCheckComputed) -> Outcome:
    """Take what the engine computed; every answer it gives is proved by its lights.

    The subject is in progress no longer, whatever was computed: where its lights do not fit what is registered now, it
    goes back to the operator. Other units named that no longer wait are left as they are. Raises Conflict when the
    subject does not wait.
    """
    subject = state.get(GridPrequalification, context.subject)
    if subject.status is not GridStatus.IN_PROGRESS:
        raise Conflict(f"'{subject.id}' is {subject.status}, not in progress.", "Compute what is in progress.")
    lights: dict[str, list[StaticLight]] = {}
    for light in form.lights:
        lights.setdefault(light.unit, []).append(light)
    failed = {one.unit: one.reason for one in form.failed}
    written, left = [], []
    for name in sorted({subject.unit, *lights, *failed}):
        record = state.find(GridPrequalification, grid_id(name, subject.operator))
        if record is None or record.status is not GridStatus.IN_PROGRESS or record.mode is not subject.mode:
            left.append(name)
            continue
        of_unit = sorted(lights.get(name, ()), key=lambda one: one.direction)
        fault = failed.get(name) or _unfit(state.get(UnitEntry, name), record, of_unit, form.at)
        if fault:
            written.append(_back(record, context.now, f"It could not be computed: {fault}"))
        else:
            written.append(_answered(record, _by_lights(state.get(UnitEntry, name), record, of_unit, context.now)))
    return Outcome(
        {"answered": [one.id for one in written], "left": left},
        tuple((GridPrequalification, one.id, one) for one in written),
        _told("grid_prequalification.answered", written),
    )


def _unfit(entry: UnitEntry, record: GridPrequalification, lights: list[StaticLight], at: datetime | None) -> str:
    """Why lights do not prove an answer for a unit; empty if they do."""
    if entry.changed_materially > (record.status_since if at is None else at):
        return "the unit was changed while it was computed."
    if not lights:
        return "the model of the grid does not hold the unit."
    registered = {Direction.UP: entry.unit.up_kw, Direction.DOWN: entry.unit.down_kw}
    there = {light.direction: light.registered_kw for light in lights if light.mode is record.mode}
    if len(there) != len(lights) or there != {one: kw for one, kw in registered.items() if kw}:
        return "the lights are not of the power and mode that were asked for."
    return ""


def _back(record: GridPrequalification, now: datetime, reason: str) -> GridPrequalification:
    """The record with its operator again."""
    return replace(record, status=GridStatus.REQUESTED, status_since=now, mode=None, reason=reason)


def _by_lights(entry: UnitEntry, record: GridPrequalification, lights: list[StaticLight], now: datetime) -> GridAnswer:
    limits = {light.direction: light.limit_kw for light in lights}
    if all(light.verdict is Verdict.CONFIRMED for light in lights):
        status = GridStatus.APPROVED
    elif any(limits.values()):
        status = GridStatus.CONDITIONALLY_APPROVED
    else:
        status = GridStatus.NOT_APPROVED
    return GridAnswer(
        status=status,
        up_kw=limits.get(Direction.UP, 0),
        down_kw=limits.get(Direction.DOWN, 0),
        reason=" ".join(_sentence(light) for light in lights),
        proof=f"Power flow, {lights[0].mode.value.replace('_', ' ')}.",
        lights=tuple(lights),
        answered_by=ENGINE,
        valid_from=now,
        valid_until=record.renew_until,
        unit_as_of=entry.changed_materially,
    )


def _sentence(light: StaticLight) -> str:
    """A light in words, with the numbers that prove it."""
    near = "nearest is" if light.verdict is Verdict.CONFIRMED else "limited by"
    return (
        f"{light.direction.capitalize()}: {light.limit_kw} of {light.registered_kw} kW, {near} {light.element} "
        f"({light.kind.replace('_', ' ')} {light.value:g} against {light.bound:g}, {light.state})."
    )


# ---------------------------------------------------------------- the operator answers by itself


def _answer(state: State, context: Context, form: OwnAnswer) -> Outcome:
    """Answer a unit, or answer it anew. Raises NotFound or Forbidden unless it is the operator's to give, Refused on
    limits that do not fit the status."""
    record = state.get(GridPrequalification, context.subject)
    require(state, context, record, ("answer",))
    entry = state.get(UnitEntry, record.unit)
    refuse("The answer", [*_own_faults(entry.unit, form), *_until_fault(form.valid_until, context.now)])
    up_kw, down_kw = (
        0 if form.status is GridStatus.NOT_APPROVED else registered if limit is None else limit
        for limit, registered in ((form.up_kw, entry.unit.up_kw), (form.down_kw, entry.unit.down_kw))
    )
    answer = GridAnswer(
        status=form.status,
        up_kw=up_kw,
        down_kw=down_kw,
        reason=form.reason,
        proof=form.proof,
        lights=(),
        answered_by=context.party,
        valid_from=context.now,
        valid_until=form.valid_until,
        unit_as_of=entry.changed_materially,
    )
    answered = _answered(record, answer)
    return Outcome(
        answered, ((GridPrequalification, record.id, answered),), _told("grid_prequalification.answered", [answered])
    )


def _own_faults(unit: Unit, form: OwnAnswer) -> Iterator[Finding]:
    for name, text in (("reason", form.reason), ("proof", form.proof)):
        if not 0 < len(text.strip()) <= MOST_TEXT:
            yield Finding(name, "text", f"Give the {name} in 1 to {MOST_TEXT} characters.")
    if form.status in PENDING:
        yield Finding("status", "no_answer", "An answer is approved, conditionally_approved or not_approved.")
    conditional = form.status is GridStatus.CONDITIONALLY_APPROVED
    limits = {"up_kw": (form.up_kw, unit.up_kw), "down_kw": (form.down_kw, unit.down_kw)}
    for name, (limit, registered) in limits.items():
        if limit is not None and not conditional:
            yield Finding(name, "limit", "Only a conditional approval has a limit; leave it out.")
        elif limit is not None and not 0 <= limit <= registered:
            yield Finding(name, "limit", f"A limit of {limit} kW is not within the registered 0 to {registered} kW.")
    if conditional:
        kept = [registered if limit is None else limit for limit, registered in limits.values()]
        if all(limit is None for limit, _ in limits.values()):
            yield Finding("up_kw", "limit", "Give the upper limit in at least one direction, or approve the unit.")
        elif not any(kept):
            yield Finding("up_kw", "limit", "Nothing is left in any direction; answer not_approved.")


def _until_fault(until: datetime | None, now: datetime) -> Iterator[Finding]:
    if until is not None and until.tzinfo is None:
        yield Finding("valid_until", "no_zone", "Give the time with its zone, as 2030-01-01T00:00:00Z.")
    elif until is not None and until <= now:
        yield Finding("valid_until", "past", "The end of validity is over already; give a later one, or none.")


def _answered(record: GridPrequalification, answer: GridAnswer) -> GridPrequalification:
    return replace(record, status=answer.status, status_since=answer.valid_from, reason="", answer=answer)


# ---------------------------------------------------------------- what is told


def _told(kind: str, records: Iterable[GridPrequalification]) -> tuple[Note, ...]:
    """One note for each operator and provider, naming the records."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in records:
        pairs.setdefault((one.operator, one.provider), []).append(one.id)
    return tuple(Note(kind, operator, (operator, provider), encode({"ids": ids}))
                 for (operator, provider), ids in sorted(pairs.items()))  # fmt: skip


_PROVIDER = frozenset({Role.SERVICE_PROVIDER})
_SYSTEM = frozenset({Role.DSO, Role.TSO})
VERBS = (
    Verb("grid_prequalification.request", GridRequest, _request, _PROVIDER),
    Verb("grid_check.request", GridCheckRequest, _check, _SYSTEM),
    Verb("grid_check.computed", GridCheckComputed, _computed, kind=GridPrequalification),
    Verb("grid_prequalification.answer", OwnAnswer, _answer, _SYSTEM, GridPrequalification),
)
