"""Scheduling units: from the public intent of a balancing service provider (BSP) to the agreement with the TSO
(REG-09; document O, PL-04).

    declared        the BSP states its intent; providers offer units that are prequalified for balancing, it asks for
                    them, either side accepts or declines
    closed          the BSP has enough: it and every provider confirm
    created         the connection points stand; the BSP requests tests
    test_requested  every connecting DSO takes part
    testing         the TSO sets the tests; failed: the BSP corrects and requests again
    tested          the TSO confirms
    registered      BSP and TSO sign
    agreed          the agreement names the unit

A step out of order is a Conflict that names the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec

from coflex.domain.errors import Conflict, Finding, Forbidden, refuse
from coflex.domain.party import Role
from coflex.domain.quantity import Direction
from coflex.domain.unit import Scope
from coflex.qualification.requirements import Requirements, SignalKind
from coflex.qualification.signals import faults
from coflex.register.parties import PartyEntry
from coflex.register.prequalification import (
    Agreement,
    AnswerRecording,
    Condition,
    MemberStatus,
    ProductTest,
    SchedulingMember,
    SchedulingStatus,
    SchedulingType,
    SchedulingUnit,
    Subject,
    Taken,
    agreement_id,
    member_id,
)
from coflex.register.products import ProductEntry
from coflex.register.records import Record
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry
from coflex.service.limits import asked_now, qualified_kw, qualified_products
from coflex.service.machine import CREATED, DONE, EVERYBODY, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.reading import require
from coflex.service.state import State
from coflex.service.verbs.product_tests import AnswerForm, Plan, judged, planned, tests_of

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_UNITS = 10_000
MOST_TEXT = 2_000
S, M = SchedulingStatus, MemberStatus
Written = tuple[type[Record], str, Record | None]
NEXT = {
    S.DECLARED: "Offer, ask for and accept units; then the BSP closes the acquisition.",
    S.CLOSED: "The BSP and every provider of a unit confirm, or the BSP opens the acquisition again.",
    S.CREATED: "The BSP requests the tests.",
    S.TEST_REQUESTED: "Every connecting operator says that it takes part; then the TSO sets the tests.",
    S.TESTING: "The BSP sends the answers to the tests once they are over.",
    S.TESTED: "The TSO confirms the registration.",
    S.FAILED: "The BSP corrects the unit and requests the tests again.",
    S.REGISTERED: "BSP and TSO sign the agreement.",
    S.AGREED: "Declare another scheduling unit to go on.",
    S.WITHDRAWN: "Declare another scheduling unit.",
}


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every form: what it does not know it refuses."""


class Declaration(_Form, frozen=True):
    """The intent to create a scheduling unit: its id, what it is made of, the balancing products and the TSO."""

    id: str
    type: SchedulingType
    products: tuple[str, ...]
    tso: str
    note: str = ""


class Units(_Form, frozen=True):
    """Units (ids) that are offered to a scheduling unit, or asked for."""

    units: tuple[str, ...]


class Reason(_Form, frozen=True):
    """Why, in words that the other side is told."""

    reason: str = ""


class SchedulingTestRequest(_Form, frozen=True):
    """The quantities (kW) to be tested, and the conditions of the terms for balancing that the BSP declares fulfilled:
    all of them are needed."""

    up_kw: int
    down_kw: int
    conditions: tuple[Condition, ...]


class SchedulingTestPlan(_Form, frozen=True):
    """A test of one product of the unit: when it begins, by which signal (None: the first that is not yet set), and
    the seed of random set points."""

    product: str
    starts: datetime
    signal: SignalKind | None = None
    seed: int | None = None


class Signature(_Form, frozen=True):
    """The reference of the agreement's document, the same from both sides."""

    reference: str


class Nothing(_Form, frozen=True):
    """The subject says it all."""


# ---------------------------------------------------------------- intent


def _declare(state: State, context: Context, form: Declaration) -> Outcome:
    """State publicly that a scheduling unit is to be created. Raises Forbidden unless the BSP may balance."""
    party = state.get(PartyEntry, context.party)
    if not party.may_balance:
        raise Forbidden(
            f"{context.party} has neither a balancing contract with the TSO nor all duties confirmed.",
            "Give the contract's reference, or confirm the duties, in your registration.",
        )
    if state.find(SchedulingUnit, form.id) is not None:
        raise Conflict(f"There is a scheduling unit '{form.id}' already.", "Choose another id.")
    refuse("The declaration", _declaration_faults(state, form))
    record = SchedulingUnit(
        id=form.id,
        bsp=context.party,
        tso=form.tso,
        type=form.type,
        products=tuple(sorted(set(form.products))),
        status=S.DECLARED,
        status_since=context.now,
        note=form.note,
        steps=(Taken(S.DECLARED, context.now, context.party),),
    )
    body = encode({"bsp": record.bsp, "type": record.type, "products": record.products})
    note = Note("scheduling_unit.declared", record.id, EVERYBODY, body)
    return Outcome(record, ((SchedulingUnit, record.id, record),), (note,), CREATED)


def _declaration_faults(state: State, form: Declaration) -> Iterator[Finding]:
    if not ID.fullmatch(form.id):
        yield Finding("id", "id", "An id is 1 to 64 letters, digits, dots, lines; choose another.")
    if len(form.note) > MOST_TEXT:
        yield Finding("note", "text", f"The note is longer than {MOST_TEXT} characters; shorten it.")
    tso = state.find(PartyEntry, form.tso)
    if tso is None or Role.TSO not in tso.roles:
        yield Finding("tso", "unknown_party", f"There is no transmission system operator '{form.tso}'; correct it.")
    if not form.products:
        yield Finding("products", "missing", "Name the balancing products that the unit is for.")
    for i, name in enumerate(form.products):
        product = state.find(ProductEntry, name)
        if product is None or product.withdrawn is not None:
            yield Finding(f"products[{i}]", "unknown_product", f"There is no product '{name}'; name another.")
        elif product.product.scope is not Scope.GLOBAL or form.tso not in product.procured_by:
            yield Finding(f"products[{i}]", "no_balancing", f"'{name}' is no balancing product of {form.tso}.")


def _withdraw(state: State, context: Context, form: Reason) -> Outcome:
    """Give a scheduling unit up before it is registered; its units are free again."""
    record = _bsp(state, context, S.DECLARED, S.CLOSED, S.CREATED, S.TEST_REQUESTED, S.TESTING, S.TESTED, S.FAILED)
    members = [_moved(one, M.WITHDRAWN, context, form.reason) for one in _members(state, record.id) if _open(one)]
    return _stored(_to(record, S.WITHDRAWN, context, reason=form.reason), *_member_records(members))


# ---------------------------------------------------------------- offering and asking


def _offer(state: State, context: Context, form: Units) -> Outcome:
    """A provider offers prequalified units of its own; those of the BSP itself are in at once."""
    record = _step(state, context, S.DECLARED)
    refuse("The offer", _unit_faults(state, context, record, form.units, own=True))
    status = M.ACCEPTED if context.party == record.bsp else M.OFFERED
    return _new_members(state, context, record, form.units, status)


def _ask(state: State, context: Context, form: Units) -> Outcome:
    """The BSP asks for prequalified units of other providers."""
    record = _bsp(state, context, S.DECLARED)
    refuse("The request", _unit_faults(state, context, record, form.units, own=False))
    return _new_members(state, context, record, form.units, M.ASKED)


def _unit_faults(
    state: State, context: Context, record: SchedulingUnit, units: tuple[str, ...], *, own: bool
) -> Iterator[Finding]:
    """What is not prequalified, or not the asker's, is answered like what is not there."""
    if not 1 <= len(units) <= MOST_UNITS:
        yield Finding("units", "parcel_size", f"{len(units)} units are named; name 1 to {MOST_UNITS}.")
    seen: set[str] = set()
    for i, name in enumerate(units):
        entry = state.find(UnitEntry, name)
        mine = entry is not None and entry.unit.provider == context.party
        there = state.find(SchedulingMember, member_id(record.id, name))
        if name in seen:
            yield Finding(f"units[{i}]", "repeated", f"The unit '{name}' is named twice; name it once.")
        elif mine is not own or not _prequalified(state, name, record.products, context.now):
            text = f"There is no {'unit of yours' if own else 'other unit'} '{name}' that is prequalified"
            yield Finding(f"units[{i}]", "not_prequalified", f"{text} for {', '.join(record.products)}.")
        elif there is not None and _open(there):
            yield Finding(f"units[{i}]", "there", f"'{name}' is {there.status} already; accept, decline or wait.")
        elif own and (other := _home(state, name)):
            yield Finding(f"units[{i}]", "taken", f"'{name}' is part of '{other}'; a unit is part of one.")
        seen.add(name)


def _prequalified(state: State, unit: str, products: Iterable[str], now: datetime) -> bool:
    """Whether the grid lets a unit give anything and one of its groups is qualified for one of the products."""
    limits = qualified_kw(state, now)
    if not any((unit, direction) in limits for direction in Direction):
        return False
    wanted = set(products)
    return any(wanted & qualified_products(state, group, now) for group in _groups_of(state).get(unit, ()))


def _groups_of(state: State) -> dict[str, tuple[str, ...]]:
    def make() -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for entry in state.all(GroupEntry):
            for unit in entry.group.units if entry.live else ():
                found.setdefault(unit, []).append(entry.id)
        return {unit: tuple(groups) for unit, groups in found.items()}

    return state.derived("groups of units", (GroupEntry,), make)


def _new_members(
    state: State, context: Context, record: SchedulingUnit, units: tuple[str, ...], status: MemberStatus
) -> Outcome:
    members = [
        SchedulingMember(
            id=member_id(record.id, name),
            scheduling_unit=record.id,
            bsp=record.bsp,
            unit=name,
            provider=state.get(UnitEntry, name).unit.provider,
            status=status,
            status_since=context.now,
        )
        for name in units
    ]
    return Outcome(members, _member_records(members), _member_notes(members), CREATED)


def _accept(state: State, context: Context, form: Nothing) -> Outcome:
    """The other side takes a unit in. Raises Conflict unless it still is prequalified and free."""
    member, record = _to_decide(state, context)
    if not _prequalified(state, member.unit, record.products, context.now):
        raise Conflict(f"The unit '{member.unit}' is not prequalified any more.", "Qualify it again, or decline.")
    home = _home(state, member.unit)
    if home:
        raise Conflict(f"The unit '{member.unit}' is part of another scheduling unit.", "Decline it.")
    return _decided(member, M.ACCEPTED, context, "")


def _decline(state: State, context: Context, form: Reason) -> Outcome:
    """The other side does not want it."""
    member, _ = _to_decide(state, context)
    return _decided(member, M.DECLINED, context, form.reason)


def _to_decide(state: State, context: Context) -> tuple[SchedulingMember, SchedulingUnit]:
    """A member that waits for the asking party, and its scheduling unit."""
    member = state.get(SchedulingMember, context.subject)
    require(state, context, member, ("status",))
    record = state.get(SchedulingUnit, member.scheduling_unit)
    _in_order(record, S.DECLARED)
    if member.status not in (M.OFFERED, M.ASKED):
        raise Conflict(f"'{member.id}' is {member.status}.", "Only what is offered or asked for waits for an answer.")
    decides = record.bsp if member.status is M.OFFERED else member.provider
    if context.party != decides:
        raise Forbidden(f"'{member.id}' is {member.status}; it waits for {decides}.", "Wait, or withdraw it.")
    return member, record


def _take_out(state: State, context: Context, form: Reason) -> Outcome:
    """Take back one's offer or question, or, until all have confirmed, a unit of one's own that was accepted. What the
    others confirmed was another unit: they confirm again."""
    member = state.get(SchedulingMember, context.subject)
    require(state, context, member, ("status",))
    record = state.get(SchedulingUnit, member.scheduling_unit)
    _in_order(record, S.DECLARED, S.CLOSED)
    side = record.bsp if member.status is M.ASKED else member.provider
    if not _open(member) or context.party != side:
        raise Conflict(f"'{member.id}' is {member.status}.", f"What is open is withdrawn by {side}.")
    outcome = _decided(member, M.WITHDRAWN, context, form.reason)
    if record.status is S.DECLARED:
        return outcome
    left = [one for one in _accepted(state, record.id) if one.id != member.id]
    changed = _composed(state, record, left)
    return replace(outcome, records=(*outcome.records, (SchedulingUnit, record.id, changed)))


def _decided(member: SchedulingMember, status: MemberStatus, context: Context, reason: str) -> Outcome:
    moved = _moved(member, status, context, reason)
    return Outcome(moved, _member_records([moved]), _member_notes([moved]))


# ---------------------------------------------------------------- closing and confirming


def _close(state: State, context: Context, form: Nothing) -> Outcome:
    """The BSP has enough: what is still open is declined, and those accepted are asked to confirm."""
    record = _bsp(state, context, S.DECLARED)
    accepted = _accepted(state, record.id)
    if not accepted:
        raise Conflict(f"'{record.id}' has no unit.", NEXT[S.DECLARED])
    waiting = [one for one in _members(state, record.id) if one.status in (M.OFFERED, M.ASKED)]
    declined = [_moved(one, M.DECLINED, context, "The acquisition is closed.") for one in waiting]
    closed = _composed(state, _to(record, S.CLOSED, context), accepted)
    return _stored(closed, *_member_records(declined))


def _reopen(state: State, context: Context, form: Reason) -> Outcome:
    """The BSP goes on with the acquisition; what was confirmed and tested counts no more."""
    record = _bsp(state, context, S.CLOSED, S.CREATED, S.FAILED)
    return _stored(_to(record, S.DECLARED, context, reason=form.reason, confirmed_by=(), ready=(), tests=()))


def _confirm(state: State, context: Context, form: Nothing) -> Outcome:
    """The BSP or the provider of an accepted unit confirms; with the last one the unit is created."""
    record = _step(state, context, S.CLOSED)
    require(state, context, record, ("confirmed_by",))
    concerned = {record.bsp, *record.providers}
    if context.party not in concerned:
        raise Forbidden(f"{context.party} has no unit in '{record.id}'.", f"Ask {' or '.join(sorted(concerned))}.")
    if not record.providers:
        raise Conflict(f"'{record.id}' has no unit left.", "Open the acquisition again.")
    confirmed = tuple(sorted({*record.confirmed_by, context.party}))
    changed = replace(record, confirmed_by=confirmed)
    return _stored(_to(changed, S.CREATED, context) if concerned <= set(confirmed) else changed)


def _composed(state: State, record: SchedulingUnit, members: list[SchedulingMember]) -> SchedulingUnit:
    """The record with the providers, connection points and connecting operators of its units; nobody has confirmed."""
    points = [state.get(PointEntry, state.get(UnitEntry, one.unit).unit.connection_point) for one in members]
    return replace(
        record,
        providers=tuple(sorted({one.provider for one in members})),
        points=tuple(sorted({point.id for point in points})),
        operators=tuple(sorted({point.point.system_operator for point in points})),
        confirmed_by=(),
    )


# ---------------------------------------------------------------- tests


def _request_tests(state: State, context: Context, form: SchedulingTestRequest) -> Outcome:
    """The BSP asks the TSO for the tests. Raises Refused where a condition or a quantity is not met."""
    record = _bsp(state, context, S.CREATED, S.FAILED)
    units = [one.unit for one in _accepted(state, record.id)]
    findings = [
        Finding(
            "conditions", "not_fulfilled", f"'{one}' is not declared fulfilled; the terms for balancing ask for it."
        )
        for one in Condition
        if one not in form.conditions
    ]
    limits = qualified_kw(state, context.now)
    for direction, quantity in ((Direction.UP, form.up_kw), (Direction.DOWN, form.down_kw)):
        allowed = sum(limits.get((unit, direction), 0) for unit in units)
        if quantity > allowed:
            text = f"The grid lets the units give {allowed} kW {direction}, not {quantity}"
            findings.append(Finding(f"{direction}_kw", "beyond_grid", f"{text}; ask for less."))
    for asked in _asked(state, record):
        findings += faults(asked, form.up_kw, form.down_kw)
    refuse("The request", findings)
    conditions = tuple(sorted(set(form.conditions)))
    return _stored(
        _to(record, S.TEST_REQUESTED, context, reason="", ready=(), tests=(), attempt=record.attempt + 1,
            conditions=conditions, up_kw=form.up_kw, down_kw=form.down_kw)
    )  # fmt: skip


def _asked(state: State, record: SchedulingUnit) -> list[Requirements]:
    return [asked for product in record.products for asked in asked_now(state, product)]


def _take_part(state: State, context: Context, form: Nothing) -> Outcome:
    """A connecting operator takes part in the tests."""
    record = _step(state, context, S.TEST_REQUESTED)
    require(state, context, record, ("ready",))
    if context.party not in record.operators:
        raise Forbidden(f"No unit of '{record.id}' is connected to your grid.", f"Ask {', '.join(record.operators)}.")
    return _stored(replace(record, ready=tuple(sorted({*record.ready, context.party}))))


def _set_test(state: State, context: Context, form: SchedulingTestPlan) -> Outcome:
    """The TSO sets a test under its supervision. Raises Conflict before every connecting DSO takes part."""
    record = _tso(state, context, S.TEST_REQUESTED, S.TESTING)
    absent = sorted(set(record.operators) - set(record.ready) - {record.tso})
    if absent:
        raise Conflict(f"{', '.join(absent)} did not say yet that they take part.", NEXT[S.TEST_REQUESTED])
    done = {(test.product, test.signal.kind) for test in tests_of(state, record.tests)}
    due = [
        one for one in _asked(state, record) if one.product == form.product and (form.product, one.signal) not in done
    ]
    asked, signal = planned(context, Plan(form.starts, form.signal, form.seed), due, record.up_kw, record.down_kw)
    test = ProductTest(
        id=context.new_id("test"),
        subject=Subject.SCHEDULING_UNIT,
        subject_id=record.id,
        product=form.product,
        provider=record.bsp,
        tester=record.tso,
        present=tuple(sorted(set(record.operators) - {record.tso})),
        attempt=record.attempt,
        starts=form.starts,
        ends=form.starts + timedelta(seconds=signal.length_s),
        signal=signal,
        asked=asked,
        baseline=(),
        as_of=_as_of(state, record),
    )
    tests = (*record.tests, test.id)
    moved = replace(record, tests=tests) if record.status is S.TESTING else _to(record, S.TESTING, context, tests=tests)
    return replace(_stored(moved, (ProductTest, test.id, test)), reply=test, status=CREATED)


def _as_of(state: State, record: SchedulingUnit) -> datetime:
    """When one of the units that are in last changed materially."""
    return max(state.get(UnitEntry, one.unit).changed_materially for one in _accepted(state, record.id))


def _answer_test(state: State, context: Context, form: AnswerForm) -> Outcome:
    """The measured answer to a test, judged at once; with the last one passed the unit is tested."""
    test, recording = judged(state, context, form, Subject.SCHEDULING_UNIT)
    record = state.get(SchedulingUnit, test.subject_id)
    _in_order(record, S.TESTING)
    if test.id not in record.tests:
        raise Conflict(f"'{test.id}' is of an earlier attempt.", NEXT[record.status])
    tests = [test if one.id == test.id else one for one in tests_of(state, record.tests)]
    passed = {(one.product, one.signal.kind) for one in tests if one.judgement is not None and one.judgement.passed}
    moved = record
    if _as_of(state, record) != test.as_of:
        moved = _to(record, S.FAILED, context, reason="A unit changed since the test was set.")
    elif test.judgement is not None and not test.judgement.passed:
        failed = ", ".join(one.name for one in test.judgement.criteria if not one.passed)
        moved = _to(record, S.FAILED, context, reason=f"Test {test.id} was not passed: {failed}.")
    elif {(asked.product, asked.signal) for asked in _asked(state, record)} <= passed:
        moved = _to(record, S.TESTED, context)
    outcome = _stored(moved, (ProductTest, test.id, test), (AnswerRecording, test.id, recording))
    return replace(outcome, reply=test)


# ---------------------------------------------------------------- registration and agreement


def _register(state: State, context: Context, form: Nothing) -> Outcome:
    """The TSO confirms that all conditions are fulfilled. Raises Conflict when a unit changed since its tests."""
    record = _tso(state, context, S.TESTED)
    if any(test.as_of != _as_of(state, record) for test in tests_of(state, record.tests)):
        raise Conflict(f"A unit of '{record.id}' changed since the tests.", "Refuse it, so that it is tested again.")
    return _stored(_to(record, S.REGISTERED, context))


def _refuse(state: State, context: Context, form: Reason) -> Outcome:
    """The TSO does not confirm, and says why; the BSP corrects and requests the tests again."""
    record = _tso(state, context, S.TEST_REQUESTED, S.TESTING, S.TESTED)
    if not 0 < len(form.reason.strip()) <= MOST_TEXT:
        refuse("The reason", [Finding("reason", "text", f"Give it in 1 to {MOST_TEXT} characters.")])
    return _stored(_to(record, S.FAILED, context, reason=form.reason))


def _agree(state: State, context: Context, form: Signature) -> Outcome:
    """TSO and BSP each sign; with the second signature under the same reference the agreement is concluded, or
    amended where there is one."""
    record = _step(state, context, S.REGISTERED)
    if context.party not in (record.tso, record.bsp):
        raise Forbidden(f"The agreement on '{record.id}' is not yours.", f"{record.tso} and {record.bsp} sign it.")
    if not 0 < len(form.reference.strip()) <= MOST_TEXT:
        refuse("The signature", [Finding("reference", "text", "Give the reference of the agreement's document.")])
    id = agreement_id(record.tso, record.bsp)
    there = state.find(Agreement, id) or Agreement(id, record.tso, record.bsp, "", 0, context.now)
    if there.pending not in ("", record.id):
        raise Conflict(f"'{there.pending}' is to be agreed on first.", "Sign for that one.")
    second = there.proposed_by not in ("", context.party) and there.pending_reference == form.reference
    if not second:
        signed = replace(there, pending=record.id, pending_reference=form.reference, proposed_by=context.party)
        note = _note("agreement.proposed", record, {"reference": form.reference, "by": context.party})
        return Outcome(signed, ((Agreement, id, signed),), (note,))
    concluded = Agreement(
        id, record.tso, record.bsp, form.reference, there.version + 1, context.now,
        (*there.scheduling_units, record.id),
    )  # fmt: skip
    kind = "agreement.amended" if there.version else "agreement.concluded"
    outcome = _stored(_to(record, S.AGREED, context, agreement=id), (Agreement, id, concluded))
    notes = (*outcome.notes, _note(kind, record, {"reference": form.reference, "version": concluded.version}))
    return replace(outcome, reply=concluded, notes=notes)


# ---------------------------------------------------------------- who, when, and what is written


def _step(state: State, context: Context, *when: SchedulingStatus) -> SchedulingUnit:
    """The scheduling unit that the subject names, in one of the states. Raises NotFound, Conflict."""
    record = state.get(SchedulingUnit, context.subject)
    _in_order(record, *when)
    return record


def _bsp(state: State, context: Context, *when: SchedulingStatus) -> SchedulingUnit:
    """The same for a step of its BSP alone. Raises Forbidden."""
    return _of(state, context, state.get(SchedulingUnit, context.subject).bsp, when)


def _tso(state: State, context: Context, *when: SchedulingStatus) -> SchedulingUnit:
    """The same for a step of its TSO alone. Raises Forbidden."""
    return _of(state, context, state.get(SchedulingUnit, context.subject).tso, when)


def _of(state: State, context: Context, who: str, when: tuple[SchedulingStatus, ...]) -> SchedulingUnit:
    if context.party != who:
        raise Forbidden(f"This step of '{context.subject}' is not yours.", f"{who} takes it.")
    return _step(state, context, *when)


def _in_order(record: SchedulingUnit, *when: SchedulingStatus) -> None:
    if record.status not in when:
        raise Conflict(f"'{record.id}' is {record.status}.", NEXT[record.status])


def _members(state: State, scheduling_unit: str) -> tuple[SchedulingMember, ...]:
    there = state.grouped(SchedulingMember, "scheduling unit", lambda one: one.scheduling_unit)
    return there.get(scheduling_unit, ())


def _accepted(state: State, scheduling_unit: str) -> list[SchedulingMember]:
    return [one for one in _members(state, scheduling_unit) if one.status is M.ACCEPTED]


def _home(state: State, unit: str) -> str:
    """The scheduling unit that a unit is part of; empty where there is none."""
    there = state.grouped(SchedulingMember, "unit", lambda one: one.unit).get(unit, ())
    return next((one.scheduling_unit for one in there if one.status is M.ACCEPTED), "")


def _open(member: SchedulingMember) -> bool:
    return member.status in (M.OFFERED, M.ASKED, M.ACCEPTED)


def _moved(member: SchedulingMember, status: MemberStatus, context: Context, reason: str) -> SchedulingMember:
    return replace(member, status=status, status_since=context.now, reason=reason)


def _to(record: SchedulingUnit, status: SchedulingStatus, context: Context, **more: object) -> SchedulingUnit:
    steps = (*record.steps, Taken(status, context.now, context.party))
    return replace(record, status=status, status_since=context.now, steps=steps, **more)  # type: ignore[arg-type]


def _stored(record: SchedulingUnit, *more: Written) -> Outcome:
    note = _note(f"scheduling_unit.{record.status}", record, {"status": record.status})
    return Outcome(record, ((SchedulingUnit, record.id, record), *more), (note,), DONE)


def _note(kind: str, record: SchedulingUnit, body: dict[str, object]) -> Note:
    audience = tuple(sorted({record.bsp, record.tso, *record.providers, *record.operators}))
    return Note(kind, record.id, audience, encode(body))


def _member_records(members: Iterable[SchedulingMember]) -> tuple[Written, ...]:
    return tuple((SchedulingMember, one.id, one) for one in members)


def _member_notes(members: Iterable[SchedulingMember]) -> tuple[Note, ...]:
    """One note for each provider and status, so that nobody learns of another's units."""
    told: dict[tuple[str, str, str, str], list[str]] = {}
    for one in members:
        told.setdefault((one.scheduling_unit, one.bsp, one.provider, one.status), []).append(one.unit)
    return tuple(
        Note(f"scheduling_member.{status}", unit, tuple(sorted({bsp, provider})), encode({"units": units}))
        for (unit, bsp, provider, status), units in sorted(told.items())
    )


_PROVIDER = frozenset({Role.SERVICE_PROVIDER})
_TSO = frozenset({Role.TSO})
_SYSTEM = frozenset({Role.DSO, Role.TSO})
VERBS = (
    Verb("scheduling_unit.declare", Declaration, _declare, _PROVIDER),
    Verb("scheduling_unit.withdraw", Reason, _withdraw, _PROVIDER, SchedulingUnit),
    Verb("scheduling_unit.offer_units", Units, _offer, _PROVIDER, SchedulingUnit),
    Verb("scheduling_unit.ask_for_units", Units, _ask, _PROVIDER, SchedulingUnit),
    Verb("scheduling_member.accept", Nothing, _accept, _PROVIDER, SchedulingMember),
    Verb("scheduling_member.decline", Reason, _decline, _PROVIDER, SchedulingMember),
    Verb("scheduling_member.withdraw", Reason, _take_out, _PROVIDER, SchedulingMember),
    Verb("scheduling_unit.close", Nothing, _close, _PROVIDER, SchedulingUnit),
    Verb("scheduling_unit.reopen", Reason, _reopen, _PROVIDER, SchedulingUnit),
    Verb("scheduling_unit.confirm", Nothing, _confirm, _PROVIDER, SchedulingUnit),
    Verb("scheduling_unit.request_tests", SchedulingTestRequest, _request_tests, _PROVIDER, SchedulingUnit),
    Verb("scheduling_unit.take_part", Nothing, _take_part, _SYSTEM, SchedulingUnit),
    Verb("scheduling_test.set", SchedulingTestPlan, _set_test, _TSO, SchedulingUnit),
    Verb("scheduling_test.answer", AnswerForm, _answer_test, _PROVIDER | _TSO, ProductTest),
    Verb("scheduling_unit.register", Nothing, _register, _TSO, SchedulingUnit),
    Verb("scheduling_unit.refuse", Reason, _refuse, _TSO, SchedulingUnit),
    Verb("scheduling_unit.agree", Signature, _agree, _PROVIDER | _TSO, SchedulingUnit),
)
