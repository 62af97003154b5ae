"""Product qualification: a group shows by test, or by the table of equivalences, that it can deliver a product
(REG-07, REG-08).

    requested -> testing -> passed | failed      the tester sets a test; its answer, after its end, is judged at once
    failed -> requested                          corrected, and tested again
    passed -> requested                          renewed; what stands holds until it ends
    passed -> revoked                            by an operator, with its reason

A product with several signals is passed when all of them are, in one attempt. What counts now is
`coflex.service.limits.qualified_products`: it ends with its time, with a material change of the group or of a unit, and
with its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec

from coflex.domain.errors import Conflict, Finding, Forbidden, NotFound, refuse
from coflex.domain.party import Role
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.qualification.equivalence import configuration, equivalence, table
from coflex.qualification.requirements import Procedure, Requirements, Service, SignalKind, usual_procedure
from coflex.qualification.signals import Signal, faults, make
from coflex.qualification.verdict import LARGEST_KW, BaselinePoint, Recording, judge
from coflex.register.prequalification import (
    AnswerRecording,
    Basis,
    Grant,
    ProductProcedure,
    ProductQualification,
    ProductStatus,
    ProductTest,
    Subject,
    qualification_id,
)
from coflex.register.products import ProductEntry
from coflex.register.records import Record
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry
from coflex.service.limits import asked_now, group_as_of, qualified_kw, qualified_products
from coflex.service.machine import CREATED, DONE, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.reading import require, require_new
from coflex.service.settling import terms_as_sold
from coflex.service.state import State
from coflex.service.verbs.products import with_terms

MOST_SAMPLES = 100_000
MOST_POINTS = 2_000
MOST_TEXT = 2_000
LONGEST_AHEAD = timedelta(days=366)
LONGEST_TEMPORARY = timedelta(days=366)
MOST_VALID_DAYS = 3_660
MOST_SEED = 2**63
LONGEST_S = 86_400
Written = tuple[type[Record], str, Record | None]
CHANCE = frozenset({SignalKind.RANDOM, SignalKind.FOLLOWING})


class ProcedureForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a product is tested; see `coflex.qualification.requirements.Procedure`."""

    service: Service
    signals: tuple[SignalKind, ...]
    ramp_s: int | None = None
    valid_days: int = 1826
    full_mhz: float = 200.0
    dead_band_mhz: float = 10.0
    delay_s: float = 2.0


class QualificationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The quantities (kW) that a group wants to offer of a product; zero in a direction that the product has not.

    `correction`: what was corrected, needed after a failed test.
    """

    group: str
    product: str
    up_kw: int
    down_kw: int
    correction: str = ""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a test begins, and by which signal (None: the first that is not yet passed). `seed`: of random set points,
    made by chance where the command is made."""

    starts: datetime
    signal: SignalKind | None = None
    seed: int | None = None


class Nomination(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The power without the test, as the provider states it before the test begins."""

    baseline: tuple[BaselinePoint, ...]


class AnswerForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The measured answer, sample by sample; see `coflex.qualification.verdict.Recording`. `quality`: of every sample;
    left out where all were measured."""

    at: tuple[datetime, ...]
    kw: tuple[float | None, ...]
    interval_s: float
    accuracy_percent: float
    unit: str = "kW"
    quality: tuple[Quality, ...] | None = None


class Temporary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Until when a group may offer before it is tested, and why."""

    until: datetime
    reason: str


class Why(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reason, as the other side is told."""

    reason: str


class EquivalenceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The passed qualification (`source`) that is to count for a group and a product too."""

    source: str
    group: str
    product: str


# ---------------------------------------------------------------- how a product is tested


def _procedure(state: State, context: Context, form: ProcedureForm) -> Outcome:
    """Set how a product is tested from now on. Raises NotFound, Forbidden, Refused."""
    product = state.get(ProductEntry, context.subject).product
    refuse("The procedure", _procedure_faults(form))
    record = ProductProcedure(
        context.subject,
        Procedure(
            form.service,
            form.signals,
            form.ramp_s,
            form.valid_days,
            form.full_mhz,
            form.dead_band_mhz,
            form.delay_s,
        ),
        context.party,
    )
    require_new(state, context, record, ("procedure",))
    note = Note("product_procedure.set", record.id, ("*",))
    made = Outcome(record, ((ProductProcedure, record.id, record),), (note,))
    return with_terms(made, terms_as_sold(state, context.now, product, service=form.service.value))


def _procedure_faults(form: ProcedureForm) -> Iterator[Finding]:
    if not form.signals or len(set(form.signals)) < len(form.signals):
        yield Finding("signals", "signals", "Name at least one signal, and each once.")
    by_frequency = form.service is Service.FREQUENCY_CONTAINMENT
    if any((signal is SignalKind.FREQUENCY) is not by_frequency for signal in form.signals):
        yield Finding("signals", "signals", "Containment is tested by the signal 'frequency', nothing else is.")
    if not 1 <= form.valid_days <= MOST_VALID_DAYS:
        yield Finding("valid_days", "range", f"A test counts for 1 to {MOST_VALID_DAYS} days.")
    if form.ramp_s is not None and not 0 < form.ramp_s <= LONGEST_S:
        yield Finding("ramp_s", "range", f"A ramp takes some time: give 1 to {LONGEST_S} seconds, or none.")
    if not 0 <= form.dead_band_mhz < form.full_mhz <= 5000:
        yield Finding("dead_band_mhz", "range", "Order the deviations: 0, dead band, full response, 5000 mHz at most.")
    if not 0 < form.delay_s <= LONGEST_S:
        yield Finding("delay_s", "range", f"A response takes some time to begin: above 0, at most {LONGEST_S} seconds.")


# ---------------------------------------------------------------- the provider asks


def _request(state: State, context: Context, form: QualificationRequest) -> Outcome:
    """Ask for the qualification of a group, for the first time, after a failed test, or to renew it."""
    group, product = _own_group(state, context, form.group), _offered(state, form.product)
    there = state.find(ProductQualification, qualification_id(form.group, form.product))
    if there is not None and there.status is ProductStatus.TESTING:
        raise Conflict(f"'{there.id}' is being tested.", "Send the answer, or have the test cancelled.")
    findings = [
        *_eligible(group, product),
        *(fault for asked in asked_now(state, form.product) for fault in faults(asked, form.up_kw, form.down_kw)),
        *_beyond_grid(state, context, group.group.units, form.up_kw, form.down_kw),
    ]
    failed = there is not None and there.status is ProductStatus.FAILED
    if not (1 if failed else 0) <= len(form.correction.strip()) <= MOST_TEXT:
        findings.append(Finding("correction", "text", f"Say what was corrected, in 1 to {MOST_TEXT} characters."))
    refuse("The request", findings)
    testers, reason = _testers(state, group, product)
    record = ProductQualification(
        id=qualification_id(form.group, form.product),
        group=form.group,
        product=form.product,
        provider=context.party,
        testers=testers,
        tester_reason=reason,
        up_kw=form.up_kw,
        down_kw=form.down_kw,
        status=ProductStatus.REQUESTED,
        status_since=context.now,
        attempt=1 if there is None else there.attempt + (there.status is not ProductStatus.REQUESTED),
        correction=form.correction,
        grant=None if there is None else there.grant,
    )
    return _written(record, "product_qualification.requested", status=CREATED)


def _own_group(state: State, context: Context, name: str) -> GroupEntry:
    entry = state.find(GroupEntry, name)
    if entry is None or not entry.live or entry.group.provider != context.party:
        raise NotFound(f"You have no group '{name}'.", "Register it, or correct the name.")
    return entry


def _offered(state: State, name: str) -> ProductEntry:
    entry = state.get(ProductEntry, name)
    if entry.withdrawn is not None:
        raise Conflict(f"The product '{name}' is withdrawn.", "Choose another one.")
    return entry


def _eligible(group: GroupEntry, product: ProductEntry) -> Iterator[Finding]:
    """Whether the group may offer the product at all, whatever it can."""
    if group.group.scope is not product.product.scope:
        text = f"A {group.group.scope} group cannot offer the {product.product.scope} product '{product.id}'"
        yield Finding("group", "wrong_scope", f"{text}; name a group of its scope.")
    if product.product.perimeters and group.group.perimeter not in product.product.perimeters:
        text = f"'{product.id}' is not bought in the perimeter '{group.group.perimeter}'"
        yield Finding("product", "wrong_perimeter", f"{text}; name another product.")


def _beyond_grid(state: State, asker: Context, units: Iterable[str], up_kw: int, down_kw: int) -> Iterator[Finding]:
    """Quantities that the grid does not let the units give together."""
    limits = qualified_kw(state, asker.now)
    names = tuple(units)
    for direction, quantity in ((Direction.UP, up_kw), (Direction.DOWN, down_kw)):
        allowed = sum(limits.get((name, direction), 0) for name in names)
        if quantity > allowed:
            text = f"The grid lets the units give {allowed} kW {direction}, not {quantity}"
            yield Finding(
                f"{direction}_kw", "beyond_grid", f"{text}; have them qualified by the grid, or ask for less."
            )


def _testers(state: State, group: GroupEntry, product: ProductEntry) -> tuple[tuple[str, ...], str]:
    """Who may test: those that procure the product; the connecting operator where the test counts for others too."""
    others = [
        one.id
        for one in state.all(ProductEntry)
        if one.withdrawn is None
        and one.id != product.id
        and set(one.procured_by) != set(product.procured_by)
        and _counts_for(state, product.id, one.id)
        and _twin(state, group, one)
    ]
    points = {one.unit.connection_point for name in group.group.units if (one := state.find(UnitEntry, name))}
    found = [state.find(PointEntry, point) for point in sorted(points)]
    connecting = sorted({one.point.system_operator for one in found if one is not None})
    if others and len(connecting) == 1:
        names = ", ".join(f"'{one}'" for one in others)
        return tuple(connecting), f"By the table of equivalences the test counts for {names} too: who connects tests."
    return product.procured_by, "No other product is qualified by this test: who procures tests."


def _counts_for(state: State, tested: str, other: str) -> bool:
    """Whether passing all tests of one product shows all that the other's ask for."""
    shown, wanted = asked_now(state, tested), asked_now(state, other)
    return bool(wanted) and all(any(table().covers(one, want) for one in shown) for want in wanted)


def _twin(state: State, group: GroupEntry, product: ProductEntry) -> bool:
    """Whether the provider has a group of the same units that could offer the product."""
    units, provider = set(group.group.units), group.group.provider
    return any(
        one.live and one.group.provider == provider and set(one.group.units) == units
        and not list(_eligible(one, product))
        for one in state.all(GroupEntry)
    )  # fmt: skip


# ---------------------------------------------------------------- the tester sets a test


def _set(state: State, context: Context, form: Plan) -> Outcome:
    """Set a test of a qualification. Raises Conflict unless one is due, Refused on a plan that cannot be."""
    record = _to_test(state, context)
    if record.status not in (ProductStatus.REQUESTED, ProductStatus.TESTING):
        raise Conflict(f"'{record.id}' is {record.status}.", "The provider requests it first.")
    done = {test.signal.kind for test in tests_of(state, record.tests)}
    due = [asked for asked in asked_now(state, record.product) if asked.signal not in done]
    asked, signal = planned(context, form, due, record.up_kw, record.down_kw)
    test = ProductTest(
        id=context.new_id("test"),
        subject=Subject.GROUP,
        subject_id=record.id,
        product=record.product,
        provider=record.provider,
        tester=context.party,
        present=(),
        attempt=record.attempt,
        starts=form.starts,
        ends=form.starts + timedelta(seconds=signal.length_s),
        signal=signal,
        asked=asked,
        baseline=(),
        as_of=group_as_of(state, state.get(GroupEntry, record.group)),
    )
    moved = replace(
        record, status=ProductStatus.TESTING, status_since=context.now, reason="", tests=(*record.tests, test.id)
    )
    outcome = _written(moved, "product_qualification.testing", (ProductTest, test.id, test))
    return replace(outcome, reply=test, status=CREATED)


def _to_test(state: State, context: Context) -> ProductQualification:
    """The qualification that the subject names, for one of its testers. Raises NotFound, Forbidden."""
    record = state.get(ProductQualification, context.subject)
    require(state, context, record, ("grant",))
    if context.party not in record.testers:
        raise Forbidden(f"'{record.id}' is not yours to test.", f"Ask {' or '.join(record.testers)}.")
    return record


def tests_of(state: State, ids: Iterable[str]) -> list[ProductTest]:
    return [state.get(ProductTest, id) for id in ids]


def planned(
    context: Context, form: Plan, due: list[Requirements], up_kw: int, down_kw: int
) -> tuple[Requirements, Signal]:
    """What a test asks for and the signal it sends. Raises Conflict when no such test is due, Refused on the plan."""
    chosen = [asked for asked in due if form.signal in (None, asked.signal)]
    if not chosen:
        raise Conflict("No such test is due.", "All tests are set; wait for their answers.")
    findings = []
    if form.starts.tzinfo is None:
        findings.append(Finding("starts", "no_zone", "Give the time with its zone, as 2030-01-01T00:00:00Z."))
    elif not context.now <= form.starts <= context.now + LONGEST_AHEAD:
        text = f"A test begins between now ({context.now.isoformat()}) and a year later"
        findings.append(Finding("starts", "range", f"{text}; give another time."))
    if chosen[0].signal in CHANCE and form.seed is None:
        findings.append(Finding("seed", "missing", "Random set points come from a seed; give one, made by chance."))
    if form.seed is not None and not 0 <= form.seed < MOST_SEED:
        findings.append(Finding("seed", "range", f"A seed is a whole number from 0 to {MOST_SEED - 1}."))
    refuse("The test", [*findings, *faults(chosen[0], up_kw, down_kw)])
    return chosen[0], make(chosen[0], up_kw, down_kw, form.seed or 0)


def _nominate(state: State, context: Context, form: Nomination) -> Outcome:
    """State the baseline of a test before it begins. Raises Conflict once it has begun."""
    test = state.get(ProductTest, context.subject)
    require(state, context, test, ("baseline",))
    if context.party != test.provider:
        raise Forbidden(f"The baseline of '{test.id}' is not yours to state.", f"Ask {test.provider}.")
    if context.now >= test.starts:
        raise Conflict(f"The test began at {test.starts.isoformat()}.", "Nominate before the next one.")
    points = form.baseline
    findings = []
    if not 1 <= len(points) <= MOST_POINTS:
        findings.append(Finding("baseline", "parcel_size", f"Give 1 to {MOST_POINTS} points."))
    if points and points[0].at_s != 0:
        findings.append(Finding("baseline[0].at_s", "start", "The first point is at 0 seconds."))
    if any(later.at_s <= point.at_s for point, later in pairwise(points)):
        findings.append(Finding("baseline", "order", "Points follow each other in time; sort them."))
    if any(abs(point.kw) > LARGEST_KW or point.at_s > LONGEST_AHEAD.total_seconds() for point in points):
        findings.append(Finding("baseline", "range", f"A point is beyond {LARGEST_KW:g} kW or a year; correct it."))
    refuse("The baseline", findings)
    changed = replace(test, baseline=points)
    return Outcome(changed, ((ProductTest, test.id, changed),), (_test_note("product_test.nominated", changed),))


def _cancel(state: State, context: Context, form: Why) -> Outcome:
    """Take back a test that was not answered: the attempt begins again. By its tester, or by the provider before it
    began: afterwards it would be a way to hide a bad answer."""
    test = state.get(ProductTest, context.subject)
    require(state, context, test, ("starts",))
    if test.subject is not Subject.GROUP or test.judgement is not None:
        raise Conflict(f"'{test.id}' cannot be cancelled.", "Only a group's test without a verdict can be.")
    if context.party != test.tester and context.now >= test.starts:
        raise Conflict(f"The test began at {test.starts.isoformat()}.", f"Send its answer, or ask {test.tester}.")
    refuse("The reason", _why_fault(form.reason))
    record = state.get(ProductQualification, test.subject_id)
    back = replace(record, status=ProductStatus.REQUESTED, status_since=context.now, tests=(), reason=form.reason)
    ended = [(ProductTest, one.id, None) for one in tests_of(state, record.tests) if one.judgement is None]
    return _written(back, "product_qualification.cancelled", *ended)


# ---------------------------------------------------------------- the answer, and the verdict


def _answer(state: State, context: Context, form: AnswerForm) -> Outcome:
    """Take the measured answer to a group's test, and judge it at once. Raises Conflict before its end and after its
    verdict, Refused on columns that do not fit."""
    test, recording = judged(state, context, form, Subject.GROUP)
    assert test.judgement is not None
    record = state.get(ProductQualification, test.subject_id)
    if test.id not in record.tests:
        raise Conflict(f"'{test.id}' is of an earlier attempt.", "Answer the tests of this one.")
    group = state.get(GroupEntry, record.group)
    tests = [test if one.id == test.id else one for one in tests_of(state, record.tests)]
    due = {asked.signal for asked in asked_now(state, record.product)}
    if group_as_of(state, group) != test.as_of:
        reason = "The group or one of its units changed since the test was set; test again."
        moved = replace(record, status=ProductStatus.REQUESTED, tests=(), reason=reason)
    elif not test.judgement.passed:
        failed = ", ".join(one.name for one in test.judgement.criteria if not one.passed)
        reason = f"Test {test.id} was not passed: {failed}. Correct the group and request again."
        moved = replace(record, status=ProductStatus.FAILED, reason=reason, grant=None)
    elif due <= {one.signal.kind for one in tests if one.judgement is not None and one.judgement.passed}:
        moved = replace(record, status=ProductStatus.PASSED, reason="", grant=_grant(state, context.now, record, tests))
    else:
        moved = record
    outcome = _written(
        replace(moved, status_since=record.status_since if moved.status is record.status else context.now),
        f"product_qualification.{moved.status}",
        (ProductTest, test.id, test),
        (AnswerRecording, test.id, recording),
    )
    return replace(outcome, reply=test)


def judged(state: State, context: Context, form: AnswerForm, subject: Subject) -> tuple[ProductTest, AnswerRecording]:
    """The test with its verdict, and the recording to keep. Raises as `_answer` does."""
    test = state.get(ProductTest, context.subject)
    require(state, context, test, ())
    if test.subject is not subject:
        raise NotFound(f"There is no test '{test.id}' of a {subject.replace('_', ' ')}.", "Check the id.")
    if test.judgement is not None:
        raise Conflict(f"'{test.id}' was judged at {test.judged_at}.", "A new test needs a new request.")
    if context.now < test.ends:
        raise Conflict(f"'{test.id}' lasts until {test.ends.isoformat()}.", "Send the answer after its end.")
    refuse("The answer", _answer_faults(form))
    quality = form.quality if form.quality is not None else (Quality.MEASURED,) * len(form.at)
    answer = Recording(form.at, form.kw, quality, form.unit, form.interval_s, form.accuracy_percent)
    record = AnswerRecording(test.id, test.provider, test.tester, test.present, answer, context.party, context.now)
    require_new(state, context, record, ("recording",))
    verdict = judge(test.asked, test.signal, test.starts, answer, test.baseline)
    return replace(test, judgement=verdict, judged_at=context.now), record


def _answer_faults(form: AnswerForm) -> Iterator[Finding]:
    count = len(form.at)
    if not 1 <= count <= MOST_SAMPLES:
        yield Finding("at", "parcel_size", f"{count} samples; send 1 to {MOST_SAMPLES}.")
    for name, column in (("kw", form.kw), ("quality", form.quality)):
        if column is not None and len(column) != count:
            yield Finding(name, "length", f"{len(column)} values for {count} times; give one for each.")
    if any(at.tzinfo is None for at in form.at):
        yield Finding("at", "no_zone", "Give every time with its zone, as 2030-01-01T00:00:00Z.")
    for name, value in (("interval_s", form.interval_s), ("accuracy_percent", form.accuracy_percent)):
        if value <= 0:
            yield Finding(name, "range", "Give a value above zero.")


def _grant(state: State, now: datetime, record: ProductQualification, tests: list[ProductTest]) -> Grant:
    return Grant(
        basis=Basis.TEST,
        up_kw=record.up_kw,
        down_kw=record.down_kw,
        valid_from=now,
        valid_until=now + timedelta(days=_valid_days(state, record.product)),
        group_as_of=group_as_of(state, state.get(GroupEntry, record.group)),
        asked=tuple(test.asked for test in tests),
        tests=tuple(test.id for test in tests),
    )


def _valid_days(state: State, product: str) -> int:
    own = state.find(ProductProcedure, product)
    return (usual_procedure(state.get(ProductEntry, product).product) if own is None else own.procedure).valid_days


# ---------------------------------------------------------------- without a test, or no longer


def _temporary(state: State, context: Context, form: Temporary) -> Outcome:
    """Let a group offer until it is tested. Raises Conflict where it is qualified already, or asks for nothing."""
    record = _to_test(state, context)
    if record.status not in (ProductStatus.REQUESTED, ProductStatus.TESTING):
        raise Conflict(f"'{record.id}' is {record.status}.", "The provider requests it first.")
    standing = record.grant is not None and record.grant.basis is not Basis.TEMPORARY
    if standing and record.product in qualified_products(state, record.group, context.now):
        raise Conflict(f"'{record.id}' is qualified already.", "Nothing is to be granted for the time until its test.")
    findings = list(_why_fault(form.reason))
    if form.until.tzinfo is None:
        findings.append(Finding("until", "no_zone", "Give the time with its zone, as 2030-01-01T00:00:00Z."))
    elif not context.now < form.until <= context.now + LONGEST_TEMPORARY:
        findings.append(Finding("until", "range", "It holds for a year at most, and ends later than now."))
    refuse("The grant", findings)
    grant = Grant(
        basis=Basis.TEMPORARY,
        up_kw=record.up_kw,
        down_kw=record.down_kw,
        valid_from=context.now,
        valid_until=form.until,
        group_as_of=group_as_of(state, state.get(GroupEntry, record.group)),
        reason=form.reason,
    )
    return _written(replace(record, grant=grant), "product_qualification.temporary")


def _revoke(state: State, context: Context, form: Why) -> Outcome:
    """Take a qualification away. Raises Conflict where there is none."""
    record = state.get(ProductQualification, context.subject)
    require(state, context, record, ("grant",))
    if context.party == record.provider or record.grant is None:
        raise Conflict(f"'{record.id}' holds nothing that you could revoke.", "Look at its status.")
    refuse("The reason", _why_fault(form.reason))
    moved = replace(
        record, status=ProductStatus.REVOKED, status_since=context.now, reason=form.reason, grant=None, tests=()
    )
    open_tests = [(ProductTest, one.id, None) for one in tests_of(state, record.tests) if one.judgement is None]
    return _written(moved, "product_qualification.revoked", *open_tests)


def _why_fault(reason: str) -> Iterator[Finding]:
    if not 0 < len(reason.strip()) <= MOST_TEXT:
        yield Finding("reason", "text", f"Give the reason in 1 to {MOST_TEXT} characters.")


def _equivalent(state: State, context: Context, form: EquivalenceRequest) -> Outcome:
    """Let a passed test of one product count for another, by the table of equivalences.

    Raises Conflict unless the source's own test is in force, Refused with every attribute that it does not include.
    """
    group, product = _own_group(state, context, form.group), _offered(state, form.product)
    source = state.get(ProductQualification, form.source)
    require(state, context, source, ())
    id = qualification_id(form.group, form.product)
    there = state.find(ProductQualification, id)
    if source.id == id:
        raise Conflict(f"'{id}' is qualified by its own test.", "Name another group or product.")
    if there is not None and there.status is ProductStatus.TESTING:
        raise Conflict(f"'{id}' is being tested.", "Send the answer, or have the test cancelled.")
    given = _by_equivalence(state, context, source, group, product)
    testers, reason = _testers(state, group, product)
    record = ProductQualification(
        id=id,
        group=form.group,
        product=form.product,
        provider=context.party,
        testers=testers,
        tester_reason=reason,
        up_kw=given.up_kw,
        down_kw=given.down_kw,
        status=ProductStatus.PASSED,
        status_since=context.now,
        attempt=1 if there is None else there.attempt,
        grant=given,
    )
    return _written(record, "product_qualification.passed", status=CREATED)


def _by_equivalence(
    state: State, context: Context, source: ProductQualification, group: GroupEntry, product: ProductEntry
) -> Grant:
    """What a passed test grants to another group and product. Raises as `_equivalent` does."""
    tested, grant = _own_group(state, context, source.group), source.grant
    in_force = source.product in qualified_products(state, source.group, context.now)
    if grant is None or grant.basis is not Basis.TEST or not in_force:
        raise Conflict(f"'{source.id}' holds no passed test that is in force.", "Pass the test first.")
    how = configuration(tested.group.units, group.group.units)
    ruling = equivalence(grant.asked, asked_now(state, product.id), how)
    missing = [Finding(one.attribute, "not_included", one.sentence) for one in ruling.rulings if not one.included]
    if not ruling.applies and not missing:
        missing = [Finding("group", how, ruling.sentence)]
    up_kw, down_kw = (
        kw // product.product.tick_kw * product.product.tick_kw if direction in product.product.directions else 0
        for direction, kw in ((Direction.UP, grant.up_kw), (Direction.DOWN, grant.down_kw))
    )
    refuse("The equivalence", [*_eligible(group, product), *missing])
    until = context.now + timedelta(days=_valid_days(state, product.id))
    return replace(
        grant,
        basis=Basis.EQUIVALENCE,
        up_kw=up_kw,
        down_kw=down_kw,
        valid_from=context.now,
        valid_until=until if grant.valid_until is None else min(until, grant.valid_until),
        group_as_of=group_as_of(state, group),
        tests=(),
        source=source.id,
        source_tests=grant.tests,
        rulings=ruling.rulings,
        reason=ruling.sentence,
    )


# ---------------------------------------------------------------- what is written


def _written(record: ProductQualification, kind: str, *more: Written, status: int = DONE) -> Outcome:
    audience = tuple(sorted({record.provider, *record.testers}))
    body = encode({"group": record.group, "product": record.product, "status": record.status})
    records = ((ProductQualification, record.id, record), *more)
    return Outcome(record, records, (Note(kind, record.id, audience, body),), status)


def _test_note(kind: str, test: ProductTest) -> Note:
    return Note(kind, test.id, tuple(sorted({test.provider, test.tester, *test.present})))


_PROVIDER = frozenset({Role.SERVICE_PROVIDER})
_SYSTEM = frozenset({Role.DSO, Role.TSO})
VERBS = (
    Verb("product_procedure.set", ProcedureForm, _procedure, _SYSTEM, ProductProcedure),
    Verb("product_qualification.request", QualificationRequest, _request, _PROVIDER),
    Verb("product_qualification.apply_equivalence", EquivalenceRequest, _equivalent, _PROVIDER),
    Verb("product_qualification.grant_temporarily", Temporary, _temporary, _SYSTEM, ProductQualification),
    Verb("product_qualification.revoke", Why, _revoke, _SYSTEM, ProductQualification),
    Verb("product_test.set", Plan, _set, _SYSTEM, ProductQualification),
    Verb("product_test.nominate", Nomination, _nominate, _PROVIDER, ProductTest),
    Verb("product_test.cancel", Why, _cancel, _PROVIDER | _SYSTEM, ProductTest),
    Verb("product_test.answer", AnswerForm, _answer, _PROVIDER | _SYSTEM, ProductTest),
)
