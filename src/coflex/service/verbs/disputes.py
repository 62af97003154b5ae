"""Disputes: the seller or the customer of a line contests it, two persons of the market operator decide (SET-05).

    opened -> upheld | changed     by the market operator, two persons
    opened -> withdrawn            by the party that opened it

A decision settles the line's delivery anew with named inputs and keeps both settlements. Where an amount changed, the
difference is posted at once, as a run of its own; later runs of the period settle by what was decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from functools import partial

from coflex.domain.errors import Conflict, Finding, Forbidden, NotFound, refuse
from coflex.domain.party import Role
from coflex.domain.statement import Charge
from coflex.register.settlement import DisputeEntry, DisputeStep, InputChange
from coflex.service.deliveries import changes_of
from coflex.service.index import index
from coflex.service.machine import CREATED, Context, Outcome, Verb
from coflex.service.orders import Draft
from coflex.service.posting import Posted, kept_by, line_of, post, proposed, runs_of
from coflex.service.reading import record, require, require_new, shown
from coflex.service.relations import operators
from coflex.service.settling import period_of
from coflex.service.state import State
from coflex.service.verbs.order_forms import text_faults
from coflex.service.verbs.resource_forms import Form
from coflex.settlement.dispute import Dispute, Step, decide, open_dispute, withdraw
from coflex.settlement.dispute import State as DisputeState

MOST_CHANGES = 100
MOST, FINEST = 10**9, Decimal("1e-9")


class DisputeForm(Form, frozen=True):
    """A line of one's own that is contested, by the id of its charge, in a period, and what is wrong with it."""

    period: str
    line: str
    reason: str


class ChangeForm(Form, frozen=True):
    """An input of the line's delivery that is to be another one; `source`: where the new value comes from. See
    `coflex.settlement.dispute.Change`."""

    field: str
    source: str
    value: str | None = None


class DisputeDecision(Form, frozen=True):
    """What two persons decide. No changes: the line stands."""

    reason: str
    changes: tuple[ChangeForm, ...] = ()


class DisputeWithdrawal(Form, frozen=True):
    """Why a dispute is taken back."""

    reason: str = ""


def _open(state: State, context: Context, form: DisputeForm) -> Outcome:
    """Contest a line. Raises NotFound where it is no line of the caller, Conflict where it is contested already."""
    period = period_of(state, form.period)
    refuse("The dispute", [*text_faults("reason", form.reason), *_empty(form.reason)])
    line = line_of(state, context.party, period.name, form.line)
    if line is None:
        raise NotFound(f"There is no line '{form.line[:200]}' in {period.name}.", "Check the id.")
    root, charge = line.charge.root, line.charge
    there = index(state, DisputeEntry, "line", lambda one: (one.line,)).at(root)
    open_one = next((one for one in there if one.state is DisputeState.OPENED), None)
    if open_one is not None:
        raise Conflict(f"The line is contested in '{open_one.id}'.", "Wait for its decision.")
    opened = open_dispute(context.new_id("dispute"), line, context.party, context.now, form.reason)
    entry = DisputeEntry(
        opened.id, period.name, root, context.party, charge.seller, charge.customer, opened.state, _steps(opened)
    )
    require_new(state, context, entry, ("line",))
    return _told(state, context, entry, "dispute.opened", CREATED)


def _decide(state: State, context: Context, form: DisputeDecision) -> Outcome:
    """Settle the line's delivery anew. Raises NotFound, Conflict once it is decided, Refused with every change that
    cannot be made."""
    before = record(state, context, DisputeEntry, context.subject)
    require(state, context, before, ("changes",))
    refuse("The decision", _faults(form))
    given = replace(before, changes=tuple(InputChange(one.field, one.value, one.source) for one in form.changes))
    run = runs_of(state, before.period)[-1]
    prepared = kept_by(state, run)
    decided, inputs = decide(
        _dispute(before), prepared.inputs, prepared.rules, changes_of(given), context.now, context.party, form.reason
    )
    # what is between others, as a contract of the provider with the owner, is no matter of these two
    old, new = (tuple(filter(partial(_between, before), charges)) for charges in (decided.old, decided.new))
    after = replace(given, state=decided.state, steps=_steps(decided), old=old, new=new)
    if decided.state is not DisputeState.CHANGED:
        return _told(state, context, after, "dispute.decided")
    period = period_of(state, before.period)
    posted = post(context, proposed(state, period, replace(prepared, inputs=inputs)), form.reason, after.id)
    return _told(state, context, replace(after, posted=posted.run.id), "dispute.decided", posted=posted)


def _withdraw(state: State, context: Context, form: DisputeWithdrawal) -> Outcome:
    """Take a dispute back. Raises NotFound, Forbidden to all but who opened it, Conflict once it is decided."""
    before = record(state, context, DisputeEntry, context.subject)
    if context.party != before.party:
        raise Forbidden(f"The dispute '{before.id}' was opened by {before.party}.", "Only who opened it takes it back.")
    require(state, context, before, ("state",))
    refuse("The withdrawal", text_faults("reason", form.reason))
    after = withdraw(_dispute(before), context.now, form.reason)
    return _told(state, context, replace(before, state=after.state, steps=_steps(after)), "dispute.withdrawn")


def _between(entry: DisputeEntry, charge: Charge) -> bool:
    """Whether a charge is between the two parties of the contested line."""
    return {charge.seller, charge.customer} == {entry.seller, entry.customer}


def _dispute(entry: DisputeEntry) -> Dispute:
    steps = tuple(Step(one.state, one.at, one.by, one.reason) for one in entry.steps)
    return Dispute(entry.id, entry.line, entry.party, steps)


def _steps(dispute: Dispute) -> tuple[DisputeStep, ...]:
    return tuple(DisputeStep(one.state, one.at, one.by, one.reason) for one in dispute.steps)


def _told(
    state: State, context: Context, entry: DisputeEntry, kind: str, status: int = 200, posted: Posted | None = None
) -> Outcome:
    """A dispute as it is now, told to both sides and to the market operators."""
    draft = Draft(state, context)
    draft.put(entry)
    audience = (entry.seller, entry.customer, *operators(state, Role.MARKET_OPERATOR))
    draft.tell(kind, entry.id, audience, line=entry.line, state=entry.state, posted=entry.posted)
    made = draft.outcome(shown(state, context, entry), status)
    if posted is None:
        return made
    return replace(made, records=(*made.records, *posted.records), notes=(*made.notes, *posted.notes))


def _empty(reason: str) -> Iterator[Finding]:
    if not reason.strip():
        yield Finding("reason", "empty", "Say what is wrong with the line.")


def _faults(form: DisputeDecision) -> Iterator[Finding]:
    yield from text_faults("reason", form.reason)
    if not form.reason.strip():
        yield Finding("reason", "empty", "Say why it is decided so.")
    if len(form.changes) > MOST_CHANGES:
        yield Finding("changes", "too_many", f"One decision has at most {MOST_CHANGES} changes.")
    for i, one in enumerate(form.changes):
        yield from text_faults(f"changes[{i}].source", one.source)
        yield from text_faults(f"changes[{i}].value", one.value or "")
        yield from _number_faults(f"changes[{i}].value", one.value or "")


def _number_faults(place: str, text: str) -> Iterator[Finding]:
    """A value that reads as a number is one of energy, power or price."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return
    if not number.is_finite() or abs(number) > MOST or number != number.quantize(FINEST):
        yield Finding(place, "number", f"It is no number of up to {MOST} with at most nine decimals; correct it.")


_OPERATOR = frozenset({Role.MARKET_OPERATOR})
_EVERY_ROLE = frozenset(Role)
VERBS = (
    Verb("dispute.open", DisputeForm, _open, _EVERY_ROLE),
    Verb("dispute.decide", DisputeDecision, _decide, _OPERATOR, DisputeEntry, two_persons=True),
    Verb("dispute.withdraw", DisputeWithdrawal, _withdraw, _EVERY_ROLE, DisputeEntry),
)
