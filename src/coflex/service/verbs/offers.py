"""Offers: into an open session and out again, until its gate closes (MKT-02, MKT-03).

A parcel of up to 1,000 offers is one command: taken whole, or refused with every fault. Its time is the sequencer's:
an offer sequenced at the very instant of the gate is late.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from coflex.domain.errors import Finding, Refused, refuse
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.party import Role
from coflex.domain.quantity import Direction
from coflex.market.intake import Intake
from coflex.service.books import Book, books, offer_id, own_offer
from coflex.service.machine import CREATED, Context, Outcome, Verb, decode
from coflex.service.ports import Brief
from coflex.service.state import State

MOST_OFFERS = 1_000
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,100}").fullmatch


# An instant of one sense, and a number that arithmetic on whole days of many units keeps whole.
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Whole = Annotated[int, msgspec.Meta(ge=-(10**9), le=10**9)]


class StepForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A price step: whole kW in consecutive quarter-hours from `start`, EUR/MWh. Steps stack in their order, or by
    `number` where one price holds in several stretches of time."""

    start: Instant
    price_eur_mwh: Decimal
    quantity_kw: Annotated[tuple[Whole, ...], msgspec.Meta(max_length=400)]
    number: Whole | None = None


class OfferForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An offer of a unit or of a group; `id` is the provider's own name for it, unique among its offers in the session.
    See `coflex.domain.offer.Offer` for the terms."""

    id: str
    product: str
    direction: Direction
    steps: Annotated[tuple[StepForm, ...], msgspec.Meta(max_length=200)]
    unit: str | None = None
    group: str | None = None
    min_quantity_kw: Whole = 0
    block: bool = False
    max_periods: Whole | None = None
    energy_limit_kwh: Whole | None = None
    exclusive: str | None = None
    valid_until: Instant | None = None
    local_only: bool = False


class Withdrawal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which offer is taken out, by the provider's own id."""

    id: str


class Accepted(msgspec.Struct, frozen=True):
    """What a provider is told: its offers are in. `first_receipt`: of the first offer; the others follow it in their
    order. Receipts break ties. `received_at`: the tenant's time."""

    session: str
    entry: int
    accepted: int
    first_receipt: int
    received_at: datetime


class Withdrawn(msgspec.Struct, frozen=True):
    session: str
    entry: int
    withdrawn: str
    at: datetime


Parcel = OfferForm | list[OfferForm]


def _submit(state: State, context: Context, form: Parcel) -> Outcome:
    """Take a parcel into an open session. Raises GateClosed, NotFound, Refused with every fault."""
    book = books(state).open(state, context.subject, context.now)
    offers = made(form, book.plan.id, context.party, context.number, context.now)
    refuse(f"The offers to {context.subject}", _named(book.intake.take(offers), offers))
    return _accepted(context, book.intake, offers)


def _replace(state: State, context: Context, form: OfferForm) -> Outcome:
    """Put an offer in the place of the party's own one with its id; it gets a new receipt."""
    book = books(state).open(state, context.subject, context.now)
    old = own_offer(book, context.party, form.id)
    offers = made(form, book.plan.id, context.party, context.number, context.now)
    book.intake.give_back((old.id,))
    try:
        refuse(f"The offer to {context.subject}", _named(book.intake.take(offers), offers))
    except BaseException:
        book.intake.put((old,))
        raise
    outcome = _accepted(context, book.intake, offers)

    def undo() -> None:
        book.intake.give_back((old.id,))
        book.intake.put((old,))

    return Outcome(outcome.reply, undo=undo)


def _withdraw(state: State, context: Context, form: Withdrawal) -> Outcome:
    """Take an offer out. Raises GateClosed, NotFound."""
    book = books(state).open(state, context.subject, context.now)
    old = own_offer(book, context.party, form.id)
    book.intake.give_back((old.id,))
    reply = Withdrawn(context.subject, context.number, form.id, context.now)
    return Outcome(reply, undo=lambda: book.intake.put((old,)))


def _accepted(context: Context, intake: Intake, offers: tuple[Offer, ...]) -> Outcome:
    ids = tuple(offer.id for offer in offers)
    reply = Accepted(context.subject, context.number, len(offers), offers[0].receipt, context.now)
    return Outcome(reply, status=CREATED, undo=lambda: intake.give_back(ids))


def made(form: Parcel, session: str, party: str, number: int, now: datetime) -> tuple[Offer, ...]:
    """The offers of a form, with receipts that follow the entry's number. Raises Refused on an empty or a too long
    parcel, and on ids that are none."""
    forms = form if isinstance(form, list) else [form]
    if not 1 <= len(forms) <= MOST_OFFERS:
        fault = Finding("parcel", "parcel_size", f"It holds {len(forms)} offers; send 1 to {MOST_OFFERS}.")
        raise Refused("The parcel", [fault])
    first = number * MOST_OFFERS
    for one in forms:
        if not _NAME(one.id):
            raise Refused("The parcel", _unnamed(forms))
    return tuple([_offer(one, first + i, session, party, now) for i, one in enumerate(forms)])


def _unnamed(forms: list[OfferForm]) -> Iterable[Finding]:
    for i, one in enumerate(forms):
        if not _NAME(one.id):
            message = "An id has 1 to 100 letters, digits, dots, colons, hyphens or underscores; correct it."
            yield Finding(f"[{i}].id", "name", message)


def _offer(form: OfferForm, receipt: int, session: str, party: str, now: datetime) -> Offer:
    return Offer(
        offer_id(party, form.id),
        receipt,
        now,
        session,
        party,
        form.product,
        form.direction,
        form.unit,
        form.group,
        tuple(
            [
                OfferStep(number if step.number is None else step.number, step.start, step.price_eur_mwh,
                          step.quantity_kw)
                for number, step in enumerate(form.steps, start=1)
            ]
        ),
        form.min_quantity_kw,
        form.block,
        form.max_periods,
        form.energy_limit_kwh,
        None if form.exclusive is None else offer_id(party, form.exclusive),
        form.valid_until,
        form.local_only,
    )  # fmt: skip


def _named(findings: Iterable[Finding], offers: Sequence[Offer]) -> list[Finding]:
    """Findings with the provider's own names of its offers. What belongs to another provider is told like what does
    not exist."""
    by_id = {offer.id: offer for offer in offers}
    mark, found = f"{offers[0].provider}/", []
    for one in findings:
        offer = by_id.get(one.place.partition(", ")[0].removeprefix("offer "))
        place, code, message = one.place.replace(mark, ""), one.code, one.message.replace(mark, "")
        if offer is not None and code in ("foreign_unit", "foreign_group"):
            what, name = ("unit", offer.unit) if offer.unit is not None else ("group", offer.group)
            code, message = f"unknown_{what}", f"The {what} '{name}' is not registered; register it first."
        found.append(Finding(place, code, message))
    unknown = {one.place for one in found if one.code == "unknown_group"}
    return [one for one in found if one.place not in unknown or one.code != "group_without_place"]


# ---------------------------------------------------------------- reading a book back


def reread(book: Book, taken: Brief, withdrawn: Container[int] = ()) -> None:
    """Do to a book what an entry of the journal did to it; it was checked when it was taken. `withdrawn`: receipts of
    offers that were taken out of it by entries about something else.

    When an offer was received stands in the answer: the tenant's clock may have been set anew since.
    """
    form: Any = decode(taken.body, VERBS_BY_NAME[taken.verb].form)
    if taken.verb in (REPLACE.name, WITHDRAW.name):
        book.intake.give_back((offer_id(taken.party, form.id),))
    if taken.verb in (SUBMIT.name, REPLACE.name):
        received_at = decode(taken.reply, Accepted).received_at
        offers = made(form, book.plan.id, taken.party, taken.number, received_at)
        book.intake.put(offer for offer in offers if offer.receipt not in withdrawn)


_PROVIDER = frozenset({Role.SERVICE_PROVIDER})
SUBMIT = Verb("offer.submit", Parcel, _submit, _PROVIDER)
REPLACE = Verb("offer.replace", OfferForm, _replace, _PROVIDER)
WITHDRAW = Verb("offer.withdraw", Withdrawal, _withdraw, _PROVIDER)
VERBS = (SUBMIT, REPLACE, WITHDRAW)
VERBS_BY_NAME = {verb.name: verb for verb in VERBS}
