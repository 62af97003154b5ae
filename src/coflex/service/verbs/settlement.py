"""Settlement of a period: by which rules, its runs, and their invoices (SET-03, SET-05, SET-06).

first run            one person of the market operator
every later run      two persons, on inputs that the first one names by their digest; posts differences alone
invoices of a run    once, at a date that the operator gives; numbers without a gap for each seller
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import date, timedelta
from decimal import Decimal

import msgspec

from coflex.domain.errors import Conflict, Finding, NotFound, NotReady, Refused, refuse
from coflex.domain.party import Role
from coflex.domain.quantity import CENT
from coflex.domain.statement import Cause
from coflex.metering.baselines.document import check_allowed, methods
from coflex.register.market import SessionEntry
from coflex.register.parties import PartyEntry
from coflex.register.products import ProductEntry
from coflex.register.settlement import (
    BillingDetails,
    InvoiceEntry,
    Kept,
    SettlementRun,
    SettlementTerms,
    SharedPurchase,
    Terms,
    lines_in,
    packed,
)
from coflex.service.machine import CREATED, DONE, Context, Outcome, Verb, encode
from coflex.service.orders import Draft, awards_of
from coflex.service.ports import Note
from coflex.service.posting import (
    Proposed,
    invoice_of,
    invoices_by,
    kept_invoice,
    last_issued,
    post,
    propose,
    require_over,
    runs_of,
    unbilled_before,
)
from coflex.service.reading import record, require, require_new, shown
from coflex.service.settling import CATALOGUE, period_of, rule_in, service_of, usual_methods, zone_of
from coflex.service.state import State
from coflex.service.verbs.order_forms import text_faults
from coflex.service.verbs.resource_forms import Form
from coflex.settlement.document import Need, Rule
from coflex.settlement.invoice import Details, Invoice, billed_on, issue, misformed
from coflex.settlement.invoice import Terms as PaymentTerms
from coflex.settlement.shelf import rule_text, rules

MOST_DOCUMENT, MOST_DUE_DAYS = 100_000, 366
# Invoices follow each other in time, so that one of a later day keeps every other one back until then.
LATEST = timedelta(days=7)
_COUNTRY = re.compile(r"[A-Z]{2}").fullmatch
_LIKE_A_PERIOD = re.compile(r"\d{4}-\d\d").match
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,32}").fullmatch


class TermsForm(Form, frozen=True):
    """How a product is settled from a delivery day on. `document`: a settlement rule as YAML, or the id of one that
    comes with the platform. `methods`: baseline methods to try, the first one first; if none is named those that the
    product allows, without the ones that have to be agreed (`zero`, `contracted`)."""

    from_day: date
    document: str
    methods: tuple[str, ...] = ()


class BillingForm(Form, frozen=True):
    """A party as its invoices name it; see `coflex.settlement.invoice.Details`."""

    name: str
    city: str
    country: str
    street: str = ""
    postcode: str = ""
    vat_id: str = ""
    vat_percent: Decimal | None = None
    reverse_charge: bool = False
    iban: str = ""
    endpoint: str = ""
    prefix: str = ""


class FirstRun(Form, frozen=True):
    """`incomplete`: settle although readings or baselines are missing; what they are for is paid by a later run."""

    incomplete: bool = False


class Rerun(Form, frozen=True):
    """Why a settled period is settled again, and the digest of the inputs it is settled from, as the preview of the
    period tells it: a second person confirms these and no others."""

    inputs: str
    reason: str


class IssueForm(Form, frozen=True):
    """The date on the invoices of a run, and the days until they are to be paid."""

    issued: date
    due_days: int = 30


class InvoicesIssued(msgspec.Struct, frozen=True):
    """The invoices of a run, by number."""

    run: str
    invoices: tuple[str, ...]


# ---------------------------------------------------------------- terms and addresses


def _set_terms(state: State, context: Context, form: TermsForm) -> Outcome:
    """Settle a product otherwise from a day on that is not settled yet. Raises NotFound, Refused with every fault."""
    product = state.get(ProductEntry, context.subject).product
    document = rule_text(form.document) if form.document in rules() else form.document
    if len(document) > MOST_DOCUMENT:
        raise Refused("The rule", [Finding("document", "too_large", "A rule is a page of text; shorten it.")])
    rule, service = rule_in(document), service_of(state, product)
    form = form if form.methods else msgspec.structs.replace(form, methods=usual_methods(service, product.id))
    before = state.find(SettlementTerms, context.subject)
    kept = tuple(one for one in before.terms if one.from_day != form.from_day) if before is not None else ()
    refuse(
        "The terms", [*_terms_faults(state, form, rule.id, document, service), *_unshared(state, context, form, rule)]
    )
    made = Terms(form.from_day, rule.id, document, form.methods)
    entry = SettlementTerms(context.subject, tuple(sorted((*kept, made), key=lambda one: one.from_day)))
    require_new(state, context, entry, ("terms",))
    note = Note("settlement_terms.set", entry.id, ("*",), encode({"from_day": made.from_day, "rule": rule.name}))
    return Outcome(shown(state, context, entry), ((SettlementTerms, entry.id, entry),), (note,))


def _terms_faults(state: State, form: TermsForm, rule: str, document: str, service: str) -> Iterator[Finding]:
    settled = [one for one in state.all(SettlementRun) if form.from_day <= one.last_day]
    if settled:
        message = f"Days to {max(one.last_day for one in settled)} are settled; choose a later one."
        yield Finding("from_day", "settled", message)
    others = [one for entry in state.all(SettlementTerms) for one in entry.terms if one.rule == rule]
    if rule.startswith(CATALOGUE):
        yield Finding(
            "document", "rule_id", f"Rules of the catalogue have names with '{CATALOGUE}'; choose another id."
        )
    elif any(one.document != document for one in others):
        yield Finding("document", "rule_id", f"Another rule is called '{rule}'; a changed rule has another id.")
    if len(set(form.methods)) != len(form.methods):
        yield Finding("methods", "methods", "Name each baseline method once.")
    for name in form.methods:
        if name not in methods():
            yield Finding("methods", "unknown_method", f"There is no method '{name}'; choose {', '.join(methods())}.")
        yield from check_allowed(name, service)


def _unshared(state: State, context: Context, form: TermsForm, rule: Rule) -> Iterator[Finding]:
    """Purchases of the product that are shared, by a rule that does not say how: no run could settle them."""
    for one in state.all(SharedPurchase) if Need.SHARED not in rule.payers else ():
        awards = awards_of(state, state.get(SessionEntry, one.session)).values()
        if one.ended is None and form.from_day <= one.day and context.subject in {mine[0].product for mine in awards}:
            yield Finding("document", "no_sharing", f"'{one.id}' shares what {one.session} bought; add 'sharing'.")


def _set_billing(state: State, context: Context, form: BillingForm) -> Outcome:
    """Say how a party's invoices name it; by itself, or by the market operator. Raises NotFound, Conflict for a natural
    person, whose data are not kept in records, Refused with every fault."""
    party = state.find(PartyEntry, context.subject)
    mine = context.subject == context.party or Role.MARKET_OPERATOR in context.roles
    if party is None or not mine:
        raise NotFound(f"There are no billing details '{context.subject}'.", "Check the id.")
    if party.personal_commitment:
        raise Conflict(f"'{party.id}' is a natural person, whose data are kept apart.", "Bill it outside.")
    details = Details(party.id, **{name: getattr(form, name) for name in form.__struct_fields__})
    refuse("The billing details", _billing_faults(state, details))
    entry = BillingDetails(party.id, details)
    before = state.find(BillingDetails, party.id)
    require(state, context, before or entry, ("details",))
    draft = Draft(state, context)
    draft.put(entry)
    draft.tell("billing_details.set", entry.id, (entry.id,))
    return draft.outcome(shown(state, context, entry))


def _billing_faults(state: State, one: Details) -> Iterator[Finding]:
    for name in ("name", "street", "city", "postcode", "vat_id", "iban", "endpoint"):
        text = getattr(one, name)
        yield from text_faults(name, text)
        if name in ("name", "city") and not text.strip():
            yield Finding(name, "empty", "It stands on every invoice; give it.")
    if not _COUNTRY(one.country):
        yield Finding("country", "country", "Give the two capital letters of ISO 3166-1, as IT.")
    rate = one.vat_percent
    if rate is not None and not (rate.is_finite() and 0 <= rate <= 100 and rate == rate.quantize(CENT)):
        yield Finding("vat_percent", "out_of_range", "A rate is 0 to 100 percent, to two decimals; correct it.")
    yield from (Finding(*fault) for fault in misformed(one))
    if one.vat_percent is not None and not one.vat_id:
        yield Finding("vat_id", "no_vat_id", "It charges value added tax; give its VAT number.")
    if _LIKE_A_PERIOD(one.prefix or one.id):
        yield Finding("prefix", "like_a_period", "It begins as a period does; choose a prefix of letters.")
    if not _PREFIX(one.prefix):
        message = "A prefix has up to 32 letters, digits, points, hyphens or underscores; choose another."
        yield Finding("prefix", "prefix", message)
    others = {entry.details.prefix or entry.id for entry in state.all(BillingDetails) if entry.id != one.id}
    if (one.prefix or one.id) in others:
        yield Finding("prefix", "taken", "Another party numbers its invoices so; choose another prefix.")


# ---------------------------------------------------------------- runs


def _run(state: State, context: Context, form: FirstRun) -> Outcome:
    """Settle a period for the first time. Raises NotReady before it is over or while readings are missing, Conflict
    where it is settled or nothing was ordered in it, Refused with every fault of the inputs."""
    period = period_of(state, context.subject)
    if runs_of(state, period.name):
        raise Conflict(f"The period {period.name} is settled.", "Two persons settle it again.")
    require_over(period, context)
    found = propose(state, period)
    if not found.prepared.inputs.deliveries:
        raise Conflict(f"Nothing was ordered in {period.name}.", "There is nothing to settle.")
    lacking = found.prepared.unmetered
    if lacking and not form.incomplete:
        raise NotReady(
            f"Of {len(lacking)} deliveries a reading or a baseline is missing, first of {lacking[0]}.",
            "Wait for them, or settle what there is with 'incomplete'.",
        )
    return _posted(state, context, found, "", CREATED)


def _rerun(state: State, context: Context, form: Rerun) -> Outcome:
    """Post what changed since a period was settled. Raises NotReady where it never was, Conflict where nothing changed,
    or where the inputs are not those that were named."""
    period = period_of(state, context.subject)
    refuse("The run", [*text_faults("reason", form.reason), *_no_reason(form.reason)])
    if not runs_of(state, period.name):
        raise NotReady(f"The period {period.name} was never settled.", "Settle it first.")
    found = propose(state, period)
    if found.digest != form.inputs:
        raise Conflict(f"The inputs of {period.name} are not those that were named.", "Look at its preview again.")
    if not found.run.lines:
        raise Conflict(f"Nothing of {period.name} has changed.", "There is nothing to post.")
    return _posted(state, context, found, form.reason)


def _no_reason(reason: str) -> Iterator[Finding]:
    if not reason.strip():
        yield Finding("reason", "empty", "Say why the period is settled again.")


def _posted(state: State, context: Context, found: Proposed, reason: str, status: int = DONE) -> Outcome:
    made = post(context, found, reason)
    return Outcome(shown(state, context, made.run), made.records, made.notes, status)


# ---------------------------------------------------------------- invoices


def _issue(state: State, context: Context, form: IssueForm) -> Outcome:
    """Issue the invoices of a run, all or none. Raises NotFound, Conflict where they are issued or an earlier run waits
    for its own, Refused with every party that lacks what its invoices need."""
    run = record(state, context, SettlementRun, context.subject)
    require(state, context, run, ("billed",))
    if run.billed is not None:
        raise Conflict(f"The invoices of {run.id} were issued on {run.billed}.", "A later run has invoices of its own.")
    earlier = unbilled_before(state, run)
    if earlier:
        raise Conflict(f"The run {earlier} comes first.", "Issue its invoices, to which these refer.")
    refuse("The invoices", _issue_faults(form, run, context.now.astimezone(zone_of(state)).date()))
    made = _made(state, run, form)
    draft = Draft(state, context)
    draft.put(replace(run, billed=form.issued))
    for one in made:
        draft.put(_entry(run, one), Kept(kept_invoice(one.number), invoice=packed(one)))
        audience = (one.seller.id, one.customer.id)
        draft.tell("invoice.issued", one.number, audience, what=one.kind, gross_cents=one.gross_cents)
    return draft.outcome(InvoicesIssued(run.id, tuple(one.number for one in made)))


def _issue_faults(form: IssueForm, run: SettlementRun, today: date) -> Iterator[Finding]:
    if form.issued <= run.last_day:
        yield Finding("issued", "too_early", f"The period ends on {run.last_day}; choose a later date.")
    if form.issued - today > LATEST:
        yield Finding("issued", "too_late", f"Today is {today}; choose a date of these {LATEST.days} days or before.")
    if not 0 <= form.due_days <= MOST_DUE_DAYS:
        yield Finding("due_days", "out_of_range", f"Give 0 to {MOST_DUE_DAYS} days.")


def _made(state: State, run: SettlementRun, form: IssueForm) -> tuple[Invoice, ...]:
    parties = {one.id: one.details for one in state.all(BillingDetails)}
    of_period = [one for one in state.all(InvoiceEntry) if one.period == run.period]
    billed = billed_on(invoice_of(state, one) for one in of_period)
    sellers = {line.charge.seller for line in lines_in(state.find(Kept, run.id))}
    numbers = {name: len(invoices_by(state, name)) + 1 for name in sorted(sellers)}
    terms = PaymentTerms(form.issued, form.due_days)
    # an owner that bills nobody is paid its share by its statement
    lines = [
        line for line in lines_in(state.find(Kept, run.id))
        if line.charge.cause is not Cause.OWNER or line.charge.seller in parties
    ]  # fmt: skip
    made = issue(lines, parties, run.period, terms, numbers, billed).invoices
    refuse("The invoices", _number_faults(state, made))
    return made


def _number_faults(state: State, made: tuple[Invoice, ...]) -> Iterator[Finding]:
    for one in made:
        last = last_issued(state, one.seller.id)
        if last is not None and one.issued < last:
            message = f"{one.seller.id} issued one on {last}; invoices follow each other, choose that day or a later."
            yield Finding("issued", "out_of_order", message)
        if state.find(InvoiceEntry, one.number) is not None:
            yield Finding(f"party {one.seller.id}", "number_taken", f"{one.number} is taken; give it another prefix.")


def _entry(run: SettlementRun, one: Invoice) -> InvoiceEntry:
    same = {each.name: getattr(one, each.name) for each in fields(InvoiceEntry) if each.name in _ALIKE}
    return InvoiceEntry(id=one.number, run=run.id, seller=one.seller.id, customer=one.customer.id, **same)


_ALIKE = frozenset(
    ("period", "kind", "issued", "due", "positions", "net_cents", "tax", "tax_cents", "gross_cents", "corrects")
)
_OPERATOR = frozenset({Role.MARKET_OPERATOR})
_EVERY_ROLE = frozenset(Role)
VERBS = (
    Verb("settlement_terms.set", TermsForm, _set_terms, _OPERATOR, SettlementTerms, two_persons=True),
    Verb("billing_details.set", BillingForm, _set_billing, _EVERY_ROLE, BillingDetails),
    Verb("settlement.run", FirstRun, _run, _OPERATOR),
    Verb("settlement.rerun", Rerun, _rerun, _OPERATOR, two_persons=True),
    Verb("invoice.issue", IssueForm, _issue, _OPERATOR, SettlementRun),
)
