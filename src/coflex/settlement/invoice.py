"""Invoices: what one party owes another in a settlement period, with numbers that have no gap, issued from data alone.

A seller bills a customer once a period and run: what it is owed, less penalties and claw-back. Where that is below zero
it is a credit note. The cents on the account of roundings are on accounts alone: nobody is sent a bill for them, and
nobody one by itself, such as an operator of the market that buys and owes its own fee.
Amounts are whole cents and re-add: lines to positions, positions to the net sum, that and the tax to the gross sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

from coflex.domain.errors import Finding, refuse
from coflex.domain.statement import Cause, Line, Measure

_DAYS = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?", re.ASCII).fullmatch
# As EN 16931 has them: a country before the number (BR-CO-09), a scheme before the address (BR-62, BR-63).
_VAT_ID = re.compile(r"[A-Z]{2}[0-9A-Za-z+*.]+", re.ASCII).fullmatch
_ENDPOINT = re.compile(r"([0-9]{4}|[A-Z]{2}):\S+", re.ASCII).fullmatch


class Kind(StrEnum):
    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


class Category(StrEnum):
    """How value added tax treats an invoice (UNCL 5305): standard rate, rate of zero, reverse charge, outside of it."""

    STANDARD = "S"
    ZERO = "Z"
    REVERSE = "AE"
    OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Details:
    """A party as invoices name it. `country`: ISO 3166-1, two letters.

    `vat_percent`: the rate at which it sells; None: it does not charge the tax. `reverse_charge`: as a customer it owes
    the tax itself. `endpoint`: electronic address for UBL, as `0211:IT12345678901`. `prefix`: of its invoice numbers,
    its id if empty.
    """

    id: str
    name: str
    street: str
    city: str
    postcode: str
    country: str
    vat_id: str = ""
    vat_percent: Decimal | None = None
    reverse_charge: bool = False
    iban: str = ""
    endpoint: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Tax:
    """The tax of a whole invoice; `note`: why none is charged."""

    category: Category
    percent: Decimal
    note: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """Lines of one cause, rule and unit together. `cents` as the invoice counts (a credit note: what is given back).
    `corrects`: numbers of the invoices that billed what these lines correct."""

    number: int
    text: str
    cause: Cause
    unit: str
    quantity: Decimal
    measure: Measure
    cents: int
    lines: int
    corrects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice or credit note with every line it stands on. All cents as the document counts, net never negative."""

    number: str
    kind: Kind
    seller: Details
    customer: Details
    period: str
    issued: date
    due: date
    positions: tuple[Position, ...]
    net_cents: int
    tax: Tax
    tax_cents: int
    gross_cents: int
    lines: tuple[Line, ...]

    @property
    def sign(self) -> int:
        """+1 for an invoice, -1 for a credit note: line cents times this are the document's."""
        return 1 if self.kind is Kind.INVOICE else -1

    @property
    def corrects(self) -> tuple[str, ...]:
        """The invoices that this one corrects."""
        return tuple(sorted({number for one in self.positions for number in one.corrects}))


@dataclass(frozen=True, slots=True)
class Terms:
    """What issuing needs to know beside the lines: the date, and the days until payment."""

    issued: date
    due_days: int = 30


@dataclass(frozen=True, slots=True)
class Issued:
    """The invoices of a run, and the number that each seller gives next."""

    invoices: tuple[Invoice, ...]
    next_numbers: Mapping[str, int]


TEXTS = {
    Cause.ACTIVATION: "Energy delivered",
    Cause.PENALTY: "Penalty for energy not delivered as ordered",
    Cause.FEE: "Platform fee",
    Cause.AVAILABILITY: "Capacity held ready",
    Cause.CLAW_BACK: "Claw-back of capacity not ready or not delivered",
    Cause.OWNER: "Owner's share",
    Cause.COMPENSATION: "Compensation for transferred energy",
}


def issue(
    lines: Iterable[Line],
    parties: Mapping[str, Details],
    period: str,
    terms: Terms,
    next_numbers: Mapping[str, int],
    billed: Mapping[str, str] | None = None,
) -> Issued:
    """One invoice or credit note for each seller and customer with anything but zeros between them.

    next_numbers: the number that each seller gives next, 1 for one not named. billed: the invoice on which each charge
    (by its root) was billed before, so that corrections refer to it: see `billed_on`.
    Guarantees: numbers of a seller follow each other without a gap, by customer; any order of the lines gives the same.
    Raises Refused with every party that lacks what its invoices need.
    """
    pairs: dict[tuple[str, str], list[Line]] = {}
    for line in sorted(lines, key=lambda one: (one.charge.start, one.charge.id)):
        if is_billed(line):
            pairs.setdefault((line.charge.seller, line.charge.customer), []).append(line)
    wanted = {pair: mine for pair, mine in sorted(pairs.items()) if any(line.cents for line in mine)}
    refuse("Invoices", _faults(wanted, parties))
    numbers = dict(next_numbers)
    invoices = []
    for (seller, customer), mine in wanted.items():
        number = numbers.get(seller, 1)
        numbers[seller] = number + 1
        named = f"{parties[seller].prefix or seller}-{number:06d}"
        blank = _blank(named, parties[seller], parties[customer], period, terms)
        invoices.append(_filled(blank, mine, billed or {}))
    return Issued(tuple(invoices), dict(sorted(numbers.items())))


def days_of(period: str) -> tuple[date, date] | None:
    """First and last day of a period with the name of a month, 2026-07, or of a day, 2026-07-05; None of any other."""
    found = _DAYS(period)
    try:
        if found is None:
            return None
        first = date(int(found[1]), int(found[2]), int(found[3] or 1))
        return first, first if found[3] else (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(1)
    except (ValueError, OverflowError):
        return None


def is_billed(line: Line) -> bool:
    """Whether a line stands on an invoice: none of roundings, and none that a party owes itself."""
    return line.charge.cause is not Cause.ROUNDING and line.charge.seller != line.charge.customer


def misformed(one: Details) -> Iterator[tuple[str, str, str]]:
    """What of a party's details no electronic invoice takes: field, code, and why."""
    if one.vat_id and not _VAT_ID(one.vat_id):
        yield "vat_id", "vat_id", "A VAT number begins with the two capital letters of its country, as IT01234567890."
    if one.endpoint and not _ENDPOINT(one.endpoint):
        yield "endpoint", "endpoint", "An electronic address has its scheme before it, as 0211:IT01234567890."


def billed_on(invoices: Iterable[Invoice]) -> dict[str, str]:
    """The invoice on which each charge was billed first, by the charge's root."""
    found: dict[str, str] = {}
    for invoice in sorted(invoices, key=lambda one: (one.issued, one.number)):
        for line in invoice.lines:
            found.setdefault(line.charge.root, invoice.number)
    return found


def tax_of(seller: Details, customer: Details) -> Tax:
    """How the tax treats what a seller bills a customer; the same for all lines of an invoice."""
    if seller.vat_percent is None:
        return Tax(Category.OUTSIDE, Decimal(0), "Not subject to value added tax")
    if customer.reverse_charge:
        note = "Reverse charge: the customer owes the tax (Directive 2006/112/EC, articles 194 to 199b)"
        return Tax(Category.REVERSE, Decimal(0), note)
    return Tax(Category.STANDARD if seller.vat_percent else Category.ZERO, seller.vat_percent)


def tax_cents(net_cents: int, tax: Tax) -> int:
    """The tax on a net sum, rounded once, half up (EN 16931, BR-CO-17)."""
    return int((net_cents * tax.percent / 100).quantize(Decimal(1), ROUND_HALF_UP))


def misadded(invoice: Invoice) -> Iterator[Finding]:
    """Every sum of an invoice that does not re-add to the cent, and what of it is not that of its lines."""
    place = f"invoice {invoice.number}"
    sums = (
        ("lines", invoice.sign * sum(line.cents for line in invoice.lines), invoice.net_cents),
        ("positions", sum(one.cents for one in invoice.positions), invoice.net_cents),
        ("tax", tax_cents(invoice.net_cents, invoice.tax), invoice.tax_cents),
        ("net and tax", invoice.net_cents + invoice.tax_cents, invoice.gross_cents),
    )
    for name, found, told in sums:
        if found != told:
            yield Finding(place, "misadded", f"Its {name} come to {found}, and it says {told}; have it issued anew.")
    made = _positions(invoice.lines, invoice.sign, {})
    if made != tuple(replace(one, corrects=()) for one in invoice.positions):
        yield Finding(place, "misadded", "Its positions are not the sums of its lines; have it issued anew.")
    if not all(line.booking.startswith(f"{invoice.period} | ") for line in invoice.lines):
        yield Finding(place, "wrong_period", "Its lines are booked in another period; have it issued anew.")
    if invoice.tax != tax_of(invoice.seller, invoice.customer):
        yield Finding(place, "wrong_tax", "Its tax is not that of its seller and customer; have it issued anew.")


def _blank(number: str, seller: Details, customer: Details, period: str, terms: Terms) -> Invoice:
    due = terms.issued + timedelta(days=terms.due_days)
    tax = tax_of(seller, customer)
    return Invoice(number, Kind.INVOICE, seller, customer, period, terms.issued, due, (), 0, tax, 0, 0, ())


def _filled(blank: Invoice, lines: Sequence[Line], billed: Mapping[str, str]) -> Invoice:
    net = sum(line.cents for line in lines)
    kind = Kind.INVOICE if net >= 0 else Kind.CREDIT_NOTE
    sign = 1 if net >= 0 else -1
    tax = tax_cents(sign * net, blank.tax)
    return replace(
        blank,
        kind=kind,
        positions=_positions(lines, sign, billed),
        net_cents=sign * net,
        tax_cents=tax,
        gross_cents=sign * net + tax,
        lines=tuple(lines),
    )


def _positions(lines: Sequence[Line], sign: int, billed: Mapping[str, str]) -> tuple[Position, ...]:
    """Lines together by cause, rule, unit, measure, and whether they correct others."""
    groups: dict[tuple[str, str, str, str, bool], list[Line]] = {}
    for line in lines:
        one = line.charge
        groups.setdefault((one.cause, one.rule, one.unit, one.measure, bool(one.corrects)), []).append(line)
    return tuple(_position(number, groups[key], sign, billed) for number, key in enumerate(sorted(groups), start=1))


def _position(number: int, lines: Sequence[Line], sign: int, billed: Mapping[str, str]) -> Position:
    first = lines[0].charge
    parts = [TEXTS[first.cause], *((f"unit {first.unit}",) if first.unit else ()), f"rule {first.rule}"]
    text = ", ".join(parts)
    corrected = {billed[line.charge.corrects] for line in lines if line.charge.corrects in billed}
    return Position(
        number=number,
        text=f"Correction: {text}" if first.corrects else text,
        cause=first.cause,
        unit=first.unit,
        quantity=sum((line.charge.quantity for line in lines), Decimal(0)),
        measure=first.measure,
        cents=sign * sum(line.cents for line in lines),
        lines=len(lines),
        corrects=tuple(sorted(corrected)),
    )


def _faults(pairs: Mapping[tuple[str, str], object], parties: Mapping[str, Details]) -> Iterator[Finding]:
    for party in sorted({party for pair in pairs for party in pair}):
        place = f"party {party}"
        if party not in parties:
            yield Finding(place, "unknown_party", "Its name and address are not given; add them.")
        elif not all((parties[party].name, parties[party].city, parties[party].country)):
            yield Finding(place, "incomplete", "Name, city and country stand on every invoice; add them.")
        else:
            yield from (Finding(place, code, message) for _, code, message in misformed(parties[party]))
            texts = {name: getattr(parties[party], name) for name in ("name", "street", "city", "postcode", "iban")}
            for name in (name for name, text in texts.items() if not text.isprintable()):
                yield Finding(
                    place, "text", f"'{name}' holds what is no letter on a line; no XML takes it, correct it."
                )
    yield from _prefix_faults({seller for seller, _ in pairs if seller in parties}, parties)
    for seller, customer in pairs:
        if seller not in parties or customer not in parties:
            continue
        category = tax_of(parties[seller], parties[customer]).category
        if category is not Category.OUTSIDE and not parties[seller].vat_id:
            yield Finding(f"party {seller}", "no_vat_id", "It charges value added tax; add its 'vat_id'.")
        if category is Category.REVERSE and not parties[customer].vat_id:
            yield Finding(f"party {customer}", "no_vat_id", "Reverse charge names the customer's 'vat_id'; add it.")


def _prefix_faults(sellers: Iterable[str], parties: Mapping[str, Details]) -> Iterator[Finding]:
    """Two sellers whose numbers would be the same."""
    known: dict[str, str] = {}
    for seller in sorted(sellers):
        prefix = parties[seller].prefix or seller
        if prefix in known:
            message = f"{known[prefix]} numbers its invoices '{prefix}' too; give one of the two another 'prefix'."
            yield Finding(f"party {seller}", "taken", message)
        known[prefix] = seller
