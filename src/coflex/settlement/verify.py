"""Verification: an invoice against the evidence it was made from, recomputed to the cent by anyone who has it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from coflex.domain.errors import Finding
from coflex.domain.statement import Cause, Charge, Line
from coflex.settlement.invoice import Invoice, is_billed, misadded

REMEDY = "ask the seller for its evidence, or dispute the line"


def differences(invoice: Invoice, lines: Iterable[Line]) -> Iterator[Finding]:
    """In what an invoice differs from the lines that its run recomputes to, the first line first.

    lines: all of the recomputed run. Each finding names the line and the first thing of it that differs, and the money
    in both; after the lines come the sums that do not re-add.
    """
    pair = invoice.seller.id, invoice.customer.id
    expected = {line.charge.id: line for line in lines if _pair(line) == pair}
    told = {line.charge.id: line for line in invoice.lines}
    place = f"invoice {invoice.number}"
    if len(told) < len(invoice.lines):
        yield Finding(place, "repeated", f"It has a line twice; {REMEDY}.")
    yield from _line_differences(place, told, expected)
    yield from misadded(invoice)


def _line_differences(place: str, told: Mapping[str, Line], expected: Mapping[str, Line]) -> Iterator[Finding]:
    keys = {name: (line.charge.start, name) for many in (expected, told) for name, line in many.items()}
    for name in sorted(keys, key=lambda one: keys[one]):
        if name not in told:
            cents = expected[name].cents
            yield Finding(f"{place}: {name}", "line_missing", f"The evidence gives {cents} cents; {REMEDY}.")
        elif name not in expected:
            cents = told[name].cents
            yield Finding(f"{place}: {name}", "line_without_evidence", f"It bills {cents} cents for it; {REMEDY}.")
        elif told[name] != expected[name]:
            field, mine, theirs = _first_difference(told[name], expected[name])
            message = f"Its '{field}' is {mine}, and the evidence gives {theirs}; {REMEDY}."
            yield Finding(f"{place}: {name}", "line_differs", message)


def billed_twice(invoices: Iterable[Invoice]) -> Iterator[Finding]:
    """Invoices with a line that another one before them has."""
    known: dict[str, str] = {}
    for one in invoices:
        earlier = {known[line.charge.id] for line in one.lines if line.charge.id in known}
        if earlier:
            message = f"Its lines stand on {', '.join(sorted(earlier))} too; pay one of them, and {REMEDY}."
            yield Finding(f"invoice {one.number}", "billed_twice", message)
        known |= {line.charge.id: one.number for line in one.lines}


def not_billed(
    invoices: Iterable[Invoice], lines: Iterable[Line], billing: Container[str] | None = None
) -> Iterator[Finding]:
    """Sellers and customers with money between them that none of the invoices is about.

    billing: who bills, everybody if None; an owner that does not is paid its share by its statement.
    """
    known = {(one.seller.id, one.customer.id) for one in invoices}
    cents: dict[tuple[str, str], int] = {}
    for line in lines:
        by_statement = line.charge.cause is Cause.OWNER and billing is not None and line.charge.seller not in billing
        if line.cents and is_billed(line) and not by_statement:
            pair = _pair(line)
            cents[pair] = cents.get(pair, 0) + line.cents
    for (seller, customer), owed in sorted(cents.items()):
        if (seller, customer) not in known:
            message = f"The evidence gives {owed} cents, and there is no invoice; give it too, or have it issued."
            yield Finding(f"{seller} to {customer}", "not_billed", message)


def _pair(line: Line) -> tuple[str, str]:
    return line.charge.seller, line.charge.customer


def _first_difference(told: Line, expected: Line) -> tuple[str, Any, Any]:
    """The first field that differs, money before the rest."""
    if told.charge.amount_eur != expected.charge.amount_eur:
        return "amount_eur", told.charge.amount_eur, expected.charge.amount_eur
    if told.cents != expected.cents:
        return "cents", told.cents, expected.cents
    for one in fields(Charge):
        mine, theirs = getattr(told.charge, one.name), getattr(expected.charge, one.name)
        if mine != theirs:
            return one.name, mine, theirs
    return "booking", told.booking, expected.booking


def run_differences(place: str, kept: Iterable[Line], recomputed: Iterable[Line]) -> Iterator[Finding]:
    """In what the lines that a run kept differ from those that its inputs and rules give, the first line first."""
    told = {line.charge.id: line for line in kept}
    expected = {line.charge.id: line for line in recomputed}
    yield from _line_differences(place, told, expected)
