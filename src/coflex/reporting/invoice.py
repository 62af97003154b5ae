"""Invoices as people and machines take them: a page of HTML, and CSV with every line; PDF and UBL are modules beside.

All forms say the same; sums are those of the invoice, never added up anew.
"""

from __future__ import annotations

import csv
import io
from datetime import date, datetime
from decimal import Decimal
from importlib import resources
from typing import Any

from coflex.settlement.invoice import Category, Details, Invoice, Kind, Position
from coflex.settlement.trail import trail

MINUS, THIN = "\u2212", "\u202f"
TITLES = {Kind.INVOICE: "Invoice", Kind.CREDIT_NOTE: "Credit note"}
COLUMNS = (
    "invoice", "position", "line", "cause", "unit", "session", "start", "minutes", "quantity", "measure", "price_eur",
    "amount_eur", "cents", "rule", "remark", "corrects", "offer", "award", "set_point", "baseline", "measurements",
    "log_size", "certificates",
)  # fmt: skip


def money(cents: int) -> str:
    """Cents as euros with groups of three: 1 234.50, and a minus sign that is one."""
    whole, rest = divmod(abs(cents), 100)
    return (MINUS if cents < 0 else "") + f"{whole:,}.{rest:02}".replace(",", THIN)


def quantity(position: Position) -> str:
    """A quantity with its measure, to three decimals; nothing for a share of money."""
    if position.measure == "EUR":
        return ""
    told = f"{position.quantity.quantize(Decimal('0.001')):,}".replace(",", THIN).replace("-", MINUS)
    return f"{told} {position.measure.value}"


def address(party: Details) -> tuple[str, ...]:
    """The lines of a party's address, without those that are empty."""
    town = " ".join(part for part in (party.country, party.postcode, party.city) if part)
    vat = f"VAT {party.vat_id}" if party.vat_id else ""
    return tuple(line for line in (party.name, party.street, town, vat) if line)


def facts(invoice: Invoice) -> tuple[tuple[str, str], ...]:
    """What stands at the head of an invoice."""
    found = [
        ("Number", invoice.number),
        ("Issued", invoice.issued.isoformat()),
        ("Settlement period", invoice.period),
        ("Due" if invoice.kind is Kind.INVOICE else "To be paid back by", invoice.due.isoformat()),
    ]
    if invoice.corrects:
        found.append(("Corrects", ", ".join(invoice.corrects)))
    payee = invoice.seller if invoice.kind is Kind.INVOICE else invoice.customer
    if payee.iban:
        found.append(("To account", payee.iban))
    return tuple(found)


def sums(invoice: Invoice) -> tuple[tuple[str, str], ...]:
    """What stands at the foot of an invoice."""
    tax = invoice.tax
    rate = f"VAT {tax.percent.normalize():f} %" if tax.category in (Category.STANDARD, Category.ZERO) else "VAT"
    total = "Total due" if invoice.kind is Kind.INVOICE else "Total credited"
    return (
        ("Net", money(invoice.net_cents)),
        (rate, money(invoice.tax_cents)),
        (f"{total}, EUR", money(invoice.gross_cents)),
    )


def invoice_html(invoice: Invoice) -> str:
    """One page without scripts or anything from outside, for the screen and for paper. Same invoice, same bytes."""
    from jinja2 import Environment, StrictUndefined

    shelf = resources.files("coflex.reporting")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(shelf.joinpath("invoice.html.j2").read_text(encoding="utf-8"))
    return template.render(
        invoice=invoice,
        title=TITLES[invoice.kind],
        seller=address(invoice.seller),
        customer=address(invoice.customer),
        facts=facts(invoice),
        sums=sums(invoice),
        positions=[_row(one) for one in invoice.positions],
        example=_example(invoice),
    )


def invoice_csv(invoice: Invoice) -> str:
    """Every line of the invoice with its exact amount, its cents and its evidence (RFC 4180, one header line).

    The cents of a credit note's lines are as booked: what the customer owes, so below zero in sum.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for position, line in _numbered(invoice):
        charge, evidence = line.charge, line.charge.evidence
        row = (
            invoice.number, position, charge.id, charge.cause, charge.unit, charge.session, charge.start,
            charge.minutes, charge.quantity, charge.measure, charge.price_eur, charge.amount_eur, line.cents,
            charge.rule, charge.remark, charge.corrects, evidence.offer, evidence.award, evidence.set_point,
            evidence.baseline, evidence.measurements, evidence.log_size, " ".join(evidence.certificates),
        )  # fmt: skip
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _numbered(invoice: Invoice) -> list[tuple[int, Any]]:
    """Each line with the number of its position."""
    keys = {(one.cause, one.text, one.unit, one.measure): one.number for one in invoice.positions}
    found = []
    for line in invoice.lines:
        charge = line.charge
        fits = [
            number
            for (cause, text, unit, measure), number in keys.items()
            if (cause, unit, measure) == (charge.cause, charge.unit, charge.measure)
            and text.startswith("Correction: ") == bool(charge.corrects)
            and text.endswith(f"rule {charge.rule}")
        ]
        found.append((fits[0], line))
    return found


def _cell(value: Any) -> str:
    """A value as text; what a spreadsheet would take for a formula begins with an apostrophe."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | int):
        return str(value)
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _row(position: Position) -> dict[str, str]:
    corrected = f" (billed on {', '.join(position.corrects)})" if position.corrects else ""
    return {
        "number": str(position.number),
        "text": position.text + corrected,
        "lines": str(position.lines),
        "quantity": quantity(position),
        "amount": money(position.cents),
    }


def _example(invoice: Invoice) -> tuple[tuple[str, str], ...]:
    """The trail of the line with the most money, for a reader who wants to see what lines stand on."""
    if not invoice.lines:
        return ()
    line = max(invoice.lines, key=lambda one: (abs(one.cents), one.charge.id))
    return tuple((one.step, one.name) for one in trail(line, invoice.number) if one.name)
