"""Invoices, their records, and their verification against the evidence."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.domain.statement import Cause, Measure
from coflex.settlement.books import Run, balance, book, correct
from coflex.settlement.charges import settle
from coflex.settlement.inputs import Contract, Inputs
from coflex.settlement.invoice import Category, Invoice, Kind, Tax, Terms, billed_on, issue, misadded, tax_cents
from coflex.settlement.records import Lines, Parties, lines_of, read, write
from coflex.settlement.trail import gaps, trail
from coflex.settlement.verify import billed_twice, differences, not_billed
from support.settling import RULES, D, delivery, periods, settled_inputs
from support.settling_parties import PARTIES

TERMS = Terms(date(2026, 12, 5))
RUN = book(settle(settled_inputs(delivery("d1", measured_kwh=D(-20)), delivery("d2")), RULES), "2026-11")


def issued(run: Run, **others: Any) -> list[Invoice]:
    return list(issue(run.lines, PARTIES, "2026-11", TERMS, others.pop("numbers", {}), **others).invoices)


@pytest.mark.spec("SET-05", "SET-06")
@settings(max_examples=20, deadline=None)
@given(periods(), st.randoms(use_true_random=False))
def test_invoices_re_add_to_the_cent_and_to_the_accounts(inputs: Inputs, luck: Any) -> None:
    run = book(settle(inputs, RULES), "2026-11")
    made = issued(run)
    assert [fault for one in made for fault in misadded(one)] == []
    assert issued(replace(run, lines=tuple(luck.sample(run.lines, len(run.lines))))) == made
    sums: dict[str, int] = defaultdict(int)
    for one in made:
        assert one.net_cents >= 0
        sums[one.seller.id] += one.sign * one.net_cents
        sums[one.customer.id] -= one.sign * one.net_cents
    for line in run.lines:  # cents of roundings are on accounts alone
        if line.charge.cause is Cause.ROUNDING:
            sums[line.charge.seller] += line.cents
            sums[line.charge.customer] -= line.cents
    assert {name: cents for name, cents in sums.items() if cents} == {
        one.party: one.balance_cents for one in run.accounts if one.balance_cents
    }


@pytest.mark.spec("SET-05")
@settings(max_examples=20, deadline=None)
@given(periods(), st.dictionaries(st.sampled_from(sorted(PARTIES)), st.integers(1, 900)))
def test_numbers_of_a_seller_follow_each_other_without_a_gap(inputs: Inputs, numbers: dict[str, int]) -> None:
    run = book(settle(inputs, RULES), "2026-11")
    first = issue(run.lines, PARTIES, "2026-11", TERMS, numbers)
    second = issue(run.lines, PARTIES, "2026-11", TERMS, first.next_numbers)
    for seller in {one.seller.id for one in first.invoices}:
        found = [one.number for one in (*first.invoices, *second.invoices) if one.seller.id == seller]
        start = numbers.get(seller, 1)
        assert found == [f"{seller}-{start + i:06d}" for i in range(len(found))]


def test_an_invoice_says_what_for_and_a_credit_note_what_is_given_back() -> None:
    fee, invoice = issued(RUN, numbers={"sp": 12})
    assert (invoice.number, invoice.kind, invoice.customer.id, invoice.due) == (
        "sp-000012", Kind.INVOICE, "dso", date(2027, 1, 4),
    )  # fmt: skip
    assert [(one.number, one.text, one.cents, one.lines) for one in invoice.positions] == [
        (1, "Energy delivered, unit u1, rule local_congestion@1", 360, 2),
        (2, "Penalty for energy not delivered as ordered, unit u1, rule local_congestion@1", -10, 1),
    ]
    assert (invoice.net_cents, invoice.tax_cents, invoice.gross_cents) == (350, 77, 427)
    assert (fee.seller.id, fee.net_cents) == ("platform", 7)
    back = replace(RUN, lines=tuple(replace(line, cents=-line.cents) for line in RUN.lines))
    note = issued(back)[1]  # the first is the platform's
    assert (note.kind, note.net_cents, [one.cents for one in note.positions]) == (Kind.CREDIT_NOTE, 350, [360, -10])
    assert list(misadded(note)) == []


@pytest.mark.parametrize(
    ("seller", "customer", "category", "percent"),
    [("sp", "dso", Category.STANDARD, 22), ("sp", "tso", Category.REVERSE, 0), ("owner", "sp", Category.OUTSIDE, 0)],
)
def test_the_tax_hangs_on_who_sells_and_who_buys(seller: str, customer: str, category: str, percent: int) -> None:
    lines = [
        replace(line, charge=replace(line.charge, seller=seller, customer=customer))
        for line in RUN.lines
        if line.charge.seller == "sp"
    ]
    (one,) = issue(lines, PARTIES, "2026-11", TERMS, {}).invoices
    assert (one.tax.category, one.tax.percent) == (category, percent)
    assert one.tax_cents == tax_cents(one.net_cents, one.tax)
    assert bool(one.tax.note) == (category is not Category.STANDARD)


@pytest.mark.parametrize(("net", "tax"), [(0, 0), (2, 0), (3, 1), (250, 55), (25, 6), (75, 17)])
def test_half_a_cent_of_tax_is_rounded_up(net: int, tax: int) -> None:
    assert tax_cents(net, Tax(Category.STANDARD, D(22))) == tax


def test_a_correction_refers_to_the_invoice_it_corrects() -> None:
    first = issued(RUN)
    later = correct(RUN.lines, settle(settled_inputs(delivery("d1"), delivery("d2")), RULES), "2026-11")
    fee, invoice = issued(later, billed=billed_on(first), numbers={"sp": 2, "platform": 2})
    assert invoice.corrects == ("sp-000001",) and fee.corrects == ("platform-000001",)
    assert all(one.text.startswith("Correction: ") for one in invoice.positions)
    assert invoice.net_cents == 50


def test_parties_that_cannot_be_invoiced_are_all_named() -> None:
    lacking = {
        "sp": replace(PARTIES["sp"], vat_id=""),
        "dso": replace(PARTIES["dso"], city=""),
    }
    with pytest.raises(Refused) as refused:
        issue(RUN.lines, lacking, "2026-11", TERMS, {})
    assert {(one.place, one.code) for one in refused.value.findings} == {
        ("party sp", "no_vat_id"), ("party dso", "incomplete"), ("party platform", "unknown_party"),
    }  # fmt: skip
    reverse = PARTIES | {"dso": replace(PARTIES["dso"], reverse_charge=True, vat_id="")}
    with pytest.raises(Refused, match="1 fault"):
        issue(RUN.lines, reverse, "2026-11", TERMS, {})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"vat_id": "01234567890"}, "vat_id"), ({"vat_id": "it01234567890"}, "vat_id"), ({"vat_id": "IT"}, "vat_id"),
        ({"endpoint": "01234567890"}, "endpoint"), ({"endpoint": "0211:"}, "endpoint"),
        ({"endpoint": "211:IT1"}, "endpoint"), ({"name": "A\x01B"}, "text"), ({"street": "Via\nRoma"}, "text"),
    ],
)  # fmt: skip
def test_what_the_norm_wants_of_numbers_and_addresses_is_asked_for_before(changes: Any, code: str) -> None:
    """EN 16931: BR-CO-09, a country before each VAT number; BR-62, a scheme with each electronic address."""
    with pytest.raises(Refused) as refused:
        issue(RUN.lines, PARTIES | {"sp": replace(PARTIES["sp"], **changes)}, "2026-11", TERMS, {})
    assert [(one.place, one.code) for one in refused.value.findings] == [("party sp", code)]
    sound = replace(PARTIES["sp"], vat_id="EL123456789", endpoint="EM:bills@sp.example")
    assert issue(RUN.lines, PARTIES | {"sp": sound}, "2026-11", TERMS, {}).invoices


def test_two_sellers_do_not_give_the_same_numbers() -> None:
    with pytest.raises(Refused) as refused:
        issue(RUN.lines, PARTIES | {"platform": replace(PARTIES["platform"], prefix="sp")}, "2026-11", TERMS, {})
    assert [(one.place, one.code) for one in refused.value.findings] == [("party sp", "taken")]


@pytest.mark.spec("SET-05", "SET-06")
def test_who_operates_the_market_and_buys_in_it_sends_itself_no_bill() -> None:
    run = book(settle(settled_inputs(delivery("d1"), platform="dso"), RULES), "2026-11")
    assert [(one.seller.id, one.customer.id, one.net_cents) for one in issued(run)] == [("sp", "dso", 200)]
    assert list(not_billed(issued(run), run.lines)) == []
    money = balance(run.accounts, "dso")
    assert (money.paid, money.received, money.fees, money.difference) == (200, 200, 0, 0)


# ---------------------------------------------------------------- verification


@pytest.mark.spec("SET-05", "SET-06")
def test_an_invoice_that_is_right_has_no_difference_to_its_evidence() -> None:
    made = issued(RUN)
    assert [fault for one in made for fault in differences(one, RUN.lines)] == []
    assert list(not_billed(made, RUN.lines)) == []
    assert [one.place for one in not_billed(made[:1], RUN.lines)] == ["sp to dso"]
    assert [(one.place, one.code) for one in billed_twice([*made, replace(made[1], number="sp-000002")])] == [
        ("invoice sp-000002", "billed_twice")
    ]
    assert list(billed_twice(made)) == []


@pytest.mark.spec("SET-05")
def test_an_owner_without_details_is_paid_by_its_statement_and_lacks_no_invoice() -> None:
    run = book(
        settle(settled_inputs(delivery(), contracts=(Contract("u1", "sp", "owner", D("0.5")),)), RULES), "2026-11"
    )
    made = [one for one in issued(run) if one.seller.id != "owner"]
    assert [one.place for one in not_billed(made, run.lines)] == ["owner to sp"]
    assert list(not_billed(made, run.lines, {"sp", "platform"})) == []
    assert [one.place for one in not_billed(made[:1], run.lines, {"platform"})] == ["sp to dso"]


def tampered(one: Invoice) -> list[tuple[str, Invoice]]:
    line, *others = one.lines
    dearer = replace(line, cents=line.cents + 1)
    other_price = replace(line, charge=replace(line.charge, price_eur=D(81)))
    other_amount = replace(line, charge=replace(line.charge, amount_eur=line.charge.amount_eur + D("1e-9")))
    other_remark = replace(line, charge=replace(line.charge, remark="delivered"))
    invented = replace(line, charge=replace(line.charge, id="s1|d9|a1|activation|sp|dso"))
    wider = replace(one.positions[0], quantity=D(1))
    return [
        ("line_differs", replace(one, lines=(dearer, *others))),
        ("line_differs", replace(one, lines=(other_price, *others))),
        ("line_differs", replace(one, lines=(other_amount, *others))),
        ("line_differs", replace(one, lines=(other_remark, *others))),
        ("line_without_evidence", replace(one, lines=(invented, *one.lines))),
        ("line_missing", replace(one, lines=tuple(others))),
        ("repeated", replace(one, lines=(*one.lines, line))),
        ("misadded", replace(one, net_cents=one.net_cents + 1)),
        ("misadded", replace(one, gross_cents=one.gross_cents + 1)),
        ("misadded", replace(one, tax_cents=one.tax_cents - 1)),
        ("misadded", replace(one, positions=(wider, *one.positions[1:]))),
        ("misadded", replace(one, positions=(replace(one.positions[0], unit="u9"), *one.positions[1:]))),
        ("misadded", replace(one, positions=(replace(one.positions[0], measure=Measure.MVARH), *one.positions[1:]))),
        ("wrong_period", replace(one, period="2026-12")),
        ("wrong_tax", replace(one, tax=Tax(Category.STANDARD, D(10)))),
    ]


@pytest.mark.spec("SET-05", "SET-06")
@pytest.mark.parametrize("number", range(15))
def test_whatever_is_altered_on_an_invoice_is_found(number: int) -> None:
    code, altered = tampered(issued(RUN)[1])[number]
    assert code in {one.code for one in differences(altered, RUN.lines)}


# ---------------------------------------------------------------- records and trails


@settings(max_examples=20, deadline=None)
@given(periods())
def test_what_is_written_is_read_again(inputs: Inputs) -> None:
    assert read(Inputs, write(inputs), "inputs.json") == inputs
    run = book(settle(inputs, RULES), "2026-11")
    assert read(Lines, write(lines_of(run)), "lines.json").lines == run.lines
    for one in issued(run):
        assert read(Invoice, write(one), "invoice.json") == one
    parties = Parties(tuple(PARTIES.values()), {"sp": 3})
    assert read(Parties, write(parties), "parties.json") == parties


def test_every_fault_of_a_record_is_told_at_once_with_its_path() -> None:
    data = json.loads(write(settled_inputs(delivery())))
    one = data["deliveries"][0]
    one["ordered"] = one.pop("ordered_kwh")
    one["minutes"] = "soon"
    one["bought"][0]["energy_kwh"] = "NaN"
    one["evidence"] = {"awards": "a"}
    del one["unit"]
    with pytest.raises(Refused) as refused:
        read(Inputs, json.dumps(data), "inputs.json")
    assert {(one.place, one.code) for one in refused.value.findings} == {
        ("inputs.json: deliveries[0].ordered", "unknown_key"),
        ("inputs.json: deliveries[0].evidence.awards", "unknown_key"),
        ("inputs.json: deliveries[0].minutes", "malformed"),
        ("inputs.json: deliveries[0].bought[0].energy_kwh", "malformed"),
        ("inputs.json: deliveries[0].unit", "missing_key"),
    }


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"period": NaN}', "null"])
def test_a_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        read(Inputs, text, "inputs.json")


def test_numbers_keep_every_digit() -> None:
    text = write(settled_inputs(delivery())).replace('"-15"', "0.1000000000000000000000000001")
    assert read(Inputs, text, "x").deliveries[0].measured_kwh == D("0.1000000000000000000000000001")


def test_the_trail_of_a_line_tells_its_gaps() -> None:
    line = RUN.lines[0]
    steps = trail(line, "sp-000001")
    assert [one.step for one in steps] == [
        "offer", "award", "set point", "baseline", "measurement", "certificate", "rule", "charge", "booking", "invoice",
    ]  # fmt: skip
    assert steps[-1].name == "sp-000001"
    assert gaps(line) == ("offer", "set point", "baseline", "measurement", "certificate")
