"""Runs, statements, invoices and disputes: money adds to zero, later runs post differences, two persons where it takes
two (SET-03, SET-05, SET-06)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Conflict, Forbidden, NotFound, NotReady, Refused
from coflex.domain.party import Role
from coflex.register.parties import PartyEntry
from coflex.register.products import ProductEntry
from coflex.register.resources import PointEntry
from coflex.register.settlement import (
    BillingDetails,
    DisputeEntry,
    InvoiceEntry,
    Kept,
    OwnerContract,
    SettlementRun,
    SettlementTerms,
    StatementEntry,
    lines_in,
)
from coflex.service.deliveries import contents
from coflex.service.machine import Machine
from coflex.service.posting import invoice_of, kept_by, propose, runs_of
from coflex.service.reading import records
from coflex.service.replay import fingerprint, replay
from coflex.service.settling import period_of, rule_in
from coflex.settlement.books import correct
from coflex.settlement.charges import settle
from coflex.settlement.invoice import misadded
from coflex.settlement.shelf import rule_text
from support.platform import DAY, TEST_VERBS, put
from support.settled import PERIOD, QUARTERS, UNITS, Settled, cents, details

FIRST, SECOND = f"{PERIOD}.1", f"{PERIOD}.2"
ISSUED = {"issued": "2016-07-10"}
FEE = """
id: with_fee
version: 1
title: Metered, a fifth for the platform
source: {document: here, section: tests}
delivered: {by: metered, tolerance: 0.1}
pricing: pay_as_bid
penalty: {kind: share, share: 0.5}
payers: {tso_balancing: tso}
fee: {share: 0.2}
"""


@pytest.fixture
def world() -> Settled:
    """Everything delivered as ordered: 4 + 2 EUR."""
    made = Settled()
    made.bring_all(u0001="-25", u0003="-37.5")
    return made


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


def digest(world: Settled) -> str:
    return propose(world.state, period_of(world.state, PERIOD)).digest


def rerun(world: Settled) -> Any:
    return world.by_two("settlement.rerun", PERIOD, inputs=digest(world), reason="Readings were corrected.")


def invoices(world: Settled) -> list[InvoiceEntry]:
    return sorted(world.state.all(InvoiceEntry), key=lambda one: (one.run, one.id))


# ---------------------------------------------------------------- runs


@pytest.mark.spec("SET-05", "SET-06")
def test_a_run_keeps_what_it_was_made_of_and_gives_each_party_its_statement(world: Settled) -> None:
    run = world.settle()
    assert (run.paid_cents, run.received_cents, run.fee_cents, run.lines, run.unmetered) == (600, 600, 0, 8, 0)
    balances = {one.party: one.balance_cents for one in world.state.all(StatementEntry)}
    assert balances == {"tso": -600, "sp-1": 600}
    kept = kept_by(world.state, run)
    assert sha256(contents(kept.inputs, kept.documents)).hexdigest() == run.inputs
    assert correct((), settle(kept.inputs, kept.rules), PERIOD).lines == tuple(world.lines())
    (told,) = world.notes("sp-1", "statement.issued")
    assert told == {"period": PERIOD, "balance_cents": 600} and world.notes("sp-2", "statement.issued") == []


@pytest.mark.spec("SET-05")
def test_a_period_is_settled_when_it_is_over_and_read_or_when_one_says_so() -> None:
    early = Settled(minutes=24 * 60 - 1)
    with pytest.raises(NotReady, match="ends at"):
        early.settle()
    early.to(24 * 60)
    with pytest.raises(NotReady, match="8 deliveries"):
        early.settle()
    assert early.settle(incomplete=True).unmetered == 8
    with pytest.raises(Conflict, match="is settled"):
        early.settle(incomplete=True)
    with pytest.raises(NotReady, match="ends at"):
        early.settle("2016-07")
    early.to(30 * 24 * 60)
    for period, why in (("2016-07", "are settled in the period 2016-07-05"), ("2016-07-06", "Nothing was ordered")):
        with pytest.raises(Conflict, match=why):
            early.settle(period)


@pytest.mark.spec("PLAT-07", "SET-05")
def test_settling_again_takes_two_persons_who_mean_the_same_inputs(world: Settled) -> None:
    run = world.settle()
    with pytest.raises(Conflict, match="Nothing of 2016-07-05 has changed"):
        rerun(world)
    world.bring({("cu-0003", QUARTERS[0]): "-45"}, log_size=200)
    with pytest.raises(Conflict, match="The inputs of"):
        world.by_two("settlement.rerun", PERIOD, inputs=run.inputs, reason="again")
    with pytest.raises(Forbidden):
        world.do("settlement.rerun", "mo", PERIOD, inputs=digest(world), reason="a client, and no person")
    for party in ("tso", "sp-1"):
        with pytest.raises(Forbidden):
            world.do("settlement.run", party, PERIOD)
    assert len(runs_of(world.state, PERIOD)) == 1
    assert rerun(world)["id"] == SECOND


@pytest.mark.spec("SET-05", "SET-06")
def test_a_correction_posts_the_difference_and_names_what_it_corrects(world: Settled) -> None:
    """5 of 12.5 kWh: 0.20 for 0.50 EUR, and 0.125 EUR of penalty: 0.425 EUR less, 42 cents of a booking of 2 EUR."""
    world.settle()
    before = world.lines()
    world.bring({("cu-0003", QUARTERS[0]): "-45"}, log_size=200)
    run = rerun(world)
    posted = world.lines()[len(before) :]
    assert {line.charge.cause.value: line.charge.amount_eur for line in posted} == {
        "activation": Decimal("-0.3"), "penalty": Decimal("-0.125")
    }  # fmt: skip
    assert run["corrected"] == 1 and world.lines()[: len(before)] == before
    kept = kept_by(world.state, world.state.get(SettlementRun, SECOND))
    whole = correct((), settle(kept.inputs, kept.rules), PERIOD)
    assert cents(world.lines()) == cents(whole.lines) and world.statement("sp-1", SECOND).balance_cents == -42


@pytest.mark.spec("SET-03")
def test_terms_of_the_operator_bring_their_own_rule_and_fee(world: Settled) -> None:
    """6 EUR, a fifth of it for the platform: the TSO pays 7.20."""
    form = {"from_day": DAY, "document": FEE, "methods": ["nominated"]}
    world.by_two("settlement_terms.set", "global_energy", **form)
    run = world.settle()
    assert (run.paid_cents, run.received_cents, run.fee_cents) == (720, 600, 120)
    assert {one.party: one.balance_cents for one in world.state.all(StatementEntry)} == {
        "tso": -720, "sp-1": 600, "mo": 120
    }  # fmt: skip
    assert {line.charge.rule for line in world.lines()} == {"with_fee@1"}


@pytest.mark.spec("SET-03", "PLAT-07")
def test_terms_are_sound_new_and_for_days_that_are_not_settled(world: Settled) -> None:
    with pytest.raises(Forbidden):
        world.do("settlement_terms.set", "mo", "global_energy", from_day=DAY, document="mfrr")
    made = world.by_two("settlement_terms.set", "global_energy", from_day="2016-08-01", document="mfrr")
    assert made["terms"][0]["document"] == rule_text("mfrr") and made["terms"][0]["methods"][0] == "nominated"
    world.by_two("settlement_terms.set", "global_energy", from_day="2016-07-06", document=FEE)
    held = world.state.get(SettlementTerms, "global_energy").terms
    assert [(one.from_day.isoformat(), one.rule) for one in held] == [
        ("2016-07-06", "with_fee"),
        ("2016-08-01", "mfrr"),
    ]
    world.settle()
    with pytest.raises(Refused) as caught:  # or days before would be settled by it too
        form = {"from_day": "2016-07-06", "document": FEE.replace("with_fee", "catalogue-global_energy")}
        world.by_two("settlement_terms.set", "global_energy", **form)
    assert codes(caught) == {"rule_id"}
    changed = FEE.replace("0.2", "0.3")
    bad = {"from_day": DAY, "document": changed, "methods": ["rolling", "rolling", "none"]}
    with pytest.raises(Refused) as caught:
        world.by_two("settlement_terms.set", "global_energy", **bad)
    assert codes(caught) == {"settled", "rule_id", "methods", "unknown_method", "not_allowed"}
    with pytest.raises(Refused) as caught:
        world.by_two("settlement_terms.set", "global_energy", from_day="2016-08-01", document="id: x\nfee: 3\n")
    assert "missing_key" in codes(caught)


def _on_one_bus(world: Settled) -> None:
    """Let groups keep the register's own rules, so that products may change."""
    points = world.state.all(PointEntry)
    world.sequencer.submit(put([replace(one, point=replace(one.point, bus="B0")) for one in points]))


@pytest.mark.spec("SET-02", "REG-06")
def test_what_is_sold_is_settled_by_the_catalogue_as_it_was_when_it_was_sold(world: Settled) -> None:
    """The buyer alone changes penalty, tolerance and service after the delivery: they hold for days after it."""
    _on_one_bus(world)
    product = world.state.get(ProductEntry, "global_energy").product
    before = digest(world)
    world.do("product.change", "tso", "global_energy", penalty_share="100", tolerance="0")
    world.do("product_procedure.set", "tso", "global_energy", service="congestion_management", signals=["step"])
    assert digest(world) == before
    old, new = world.state.get(SettlementTerms, "global_energy").terms
    assert (old.rule, new.from_day) == ("catalogue-global_energy", DAY + timedelta(days=2))
    rule = rule_in(new.document)
    assert (rule.id, rule.penalty.share, rule.delivered.tolerance) == (new.rule, 100, 0)
    assert rule_in(old.document).penalty.share == product.penalty_share and old.methods[0] == "nominated"
    assert new.methods[0] == "last_4_alike" and new.rule != old.rule


@pytest.mark.spec("SET-02", "REG-06")
def test_a_change_of_the_catalogue_leaves_the_operators_own_terms_alone(world: Settled) -> None:
    _on_one_bus(world)
    world.by_two("settlement_terms.set", "global_energy", from_day="2016-07-06", document=FEE)
    world.do("product.change", "tso", "global_energy", penalty_share="100")
    terms = world.state.get(SettlementTerms, "global_energy").terms
    assert [(one.from_day, one.rule) for one in terms[1:]] == [(date(2016, 7, 6), terms[1].rule)]
    assert terms[0].rule == "catalogue-global_energy"
    world.do("product.change", "tso", "global_energy", min_duration_s=0)
    assert world.state.get(SettlementTerms, "global_energy").terms == terms


@pytest.mark.spec("SET-03")
def test_what_was_settled_by_the_catalogue_is_settled_by_it_as_it_was(world: Settled) -> None:
    """The penalty of the product is doubled after the first run: the correction goes by the old one."""
    world.settle()
    entry = world.state.get(ProductEntry, "global_energy")
    world.sequencer.submit(put([replace(entry, product=replace(entry.product, penalty_share=Decimal(1)))]))
    with pytest.raises(Conflict, match="has changed"):
        rerun(world)
    world.bring({("cu-0003", QUARTERS[0]): "-45"}, log_size=200)
    rerun(world)
    assert world.statement("sp-1", SECOND).balance_cents == -42


# ---------------------------------------------------------------- invoices


@pytest.mark.spec("SET-05")
def test_invoices_of_a_run_are_issued_once_numbered_without_a_gap_and_re_add(world: Settled) -> None:
    world.settle()
    told = world.do("invoice.issue", "mo", FIRST, **ISSUED)
    assert told == {"run": FIRST, "invoices": ["sp-1-000001"]}
    (one,) = invoices(world)
    assert (one.seller, one.customer, one.net_cents, one.gross_cents, one.run) == ("sp-1", "tso", 600, 600, FIRST)
    whole = invoice_of(world.state, one)
    assert list(misadded(whole)) == [] and whole.lines == tuple(world.lines())
    for party in ("sp-1", "tso"):
        assert len(world.notes(party, "invoice.issued")) == 1
    assert [each.id for each, _ in records(world.state, world.who("tso"), InvoiceEntry)] == ["sp-1-000001"]
    assert records(world.state, world.who("sp-2"), InvoiceEntry) == []
    with pytest.raises(Conflict, match="were issued"):
        world.do("invoice.issue", "mo", FIRST, **ISSUED)


@pytest.mark.spec("SET-05")
def test_a_credit_note_follows_its_invoice_and_names_it(world: Settled) -> None:
    world.settle()
    world.bring({("cu-0003", QUARTERS[0]): "-45"}, log_size=200)
    rerun(world)
    with pytest.raises(Conflict, match="comes first"):
        world.do("invoice.issue", "mo", SECOND, **ISSUED)
    world.do("invoice.issue", "mo", FIRST, **ISSUED)
    with pytest.raises(Refused) as caught:
        world.do("invoice.issue", "mo", SECOND, issued="2016-07-09")
    assert codes(caught) == {"out_of_order"}
    world.do("invoice.issue", "mo", SECOND, issued="2016-07-11")
    first, second = invoices(world)
    assert (second.id, second.kind.value, second.net_cents) == ("sp-1-000002", "credit_note", 42)
    assert second.corrects == (first.id,)


@pytest.mark.spec("SET-05")
def test_invoices_need_a_date_after_the_period_and_all_addresses(world: Settled) -> None:
    world.settle()
    world.sequencer.submit(put([details("tso", prefix="x")]))
    for form in ({"issued": "2016-07-05"}, {"issued": "2099-01-01"}, ISSUED | {"due_days": -1}):
        with pytest.raises(Refused):
            world.do("invoice.issue", "mo", FIRST, **form)
    without = replace(world.state.get(BillingDetails, "tso").details, city="")
    world.sequencer.submit(put([BillingDetails("tso", without)]))
    with pytest.raises(Refused) as caught:
        world.do("invoice.issue", "mo", FIRST, **ISSUED)
    assert codes(caught) == {"incomplete"} and world.state.get(SettlementRun, FIRST).billed is None


@pytest.mark.spec("SET-05")
def test_an_invoice_is_dated_a_week_ahead_at_the_most(world: Settled) -> None:
    """Numbers follow the dates: one of a far day would keep back every other one of its seller until then."""
    world.settle()
    with pytest.raises(Refused) as caught:
        world.do("invoice.issue", "mo", FIRST, issued="2016-07-14")
    assert codes(caught) == {"too_late"}
    assert world.do("invoice.issue", "mo", FIRST, issued="2016-07-13")["invoices"]


@pytest.mark.spec("SET-05", "SET-06")
def test_an_operator_of_the_market_that_buys_in_it_owes_itself_a_fee_and_no_invoice(world: Settled) -> None:
    """6 EUR, and a fifth of it from the TSO to itself."""
    world.by_two("settlement_terms.set", "global_energy", from_day=DAY, document=FEE, methods=["nominated"])
    both = [(name, world.state.get(PartyEntry, name)) for name in ("mo", "tso")]
    roles = {"mo": (Role.REGISTER_OPERATOR,), "tso": (Role.TSO, Role.MARKET_OPERATOR)}
    world.sequencer.submit(put([replace(one, party=replace(one.party, roles=roles[name])) for name, one in both]))
    run = world.do("settlement.run", "tso", PERIOD)
    assert (run["paid_cents"], run["received_cents"], run["fee_cents"]) == (600, 600, 0)
    assert world.statement("tso").balance_cents == -600
    assert world.do("invoice.issue", "tso", FIRST, **ISSUED)["invoices"] == ["sp-1-000001"]


@pytest.mark.spec("SET-05")
def test_no_statement_takes_the_place_of_an_invoice(world: Settled) -> None:
    like_a_run = {"name": "SP-1", "city": "Rome", "country": "IT", "prefix": f"{SECOND}.sp"}
    with pytest.raises(Refused) as caught:
        world.do("billing_details.set", "sp-1", "sp-1", **like_a_run)
    assert codes(caught) == {"like_a_period"}
    # and one that was given before keeps its invoices apart from statements
    world.sequencer.submit(put([details("sp-1", prefix=f"{SECOND}.tso")]))
    world.settle()
    (number,) = world.do("invoice.issue", "mo", FIRST, **ISSUED)["invoices"]
    whole = invoice_of(world.state, world.state.get(InvoiceEntry, number))
    world.sequencer.submit(put([Kept(number, lines="a statement of that name")]))
    assert invoice_of(world.state, world.state.get(InvoiceEntry, number)) == whole


@pytest.mark.spec("SET-05")
def test_a_party_says_how_its_invoices_name_it_and_nobody_elses(world: Settled) -> None:
    form = {"name": "Flex", "city": "Rome", "country": "IT", "vat_id": "IT1", "vat_percent": "22", "prefix": "F"}
    assert world.do("billing_details.set", "sp-1", "sp-1", **form)["details"]["prefix"] == "F"
    world.do("billing_details.set", "mo", "sp-2", **(form | {"prefix": ""}))
    for subject in ("sp-2", "nobody"):
        with pytest.raises(NotFound, match=f"There are no billing details '{subject}'"):
            world.do("billing_details.set", "sp-1", subject, **form)
    bad = form | {"name": " ", "country": "Italy", "vat_percent": "101", "vat_id": "", "prefix": "tso"}
    with pytest.raises(Refused) as caught:
        world.do("billing_details.set", "sp-1", "sp-1", **bad)
    assert codes(caught) == {"empty", "country", "out_of_range", "no_vat_id", "taken"}
    with pytest.raises(Refused) as caught:
        world.do("billing_details.set", "sp-1", "sp-1", **(form | {"vat_id": "01234567890", "endpoint": "mine"}))
    assert codes(caught) == {"vat_id", "endpoint"}
    person = replace(world.state.get(PartyEntry, "sp-2"), personal_commitment="ab" * 32)
    world.sequencer.submit(put([person]))
    with pytest.raises(Conflict, match="natural person"):
        world.do("billing_details.set", "mo", "sp-2", **form)
    world.settle()
    world.do("invoice.issue", "mo", FIRST, **ISSUED)
    (one,) = invoices(world)
    assert (one.id, one.net_cents, one.tax_cents, one.gross_cents) == ("F-000001", 600, 132, 732)


# ---------------------------------------------------------------- disputes


def contest(world: Settled, party: str = "sp-1", place: int = 0) -> Any:
    line = world.lines()[place].charge.id
    return world.do("dispute.open", party, period=PERIOD, line=line, reason="The meter was changed.")


READ_ANEW = {"field": "measured_kwh", "value": "-30", "source": "protocol-12"}


@pytest.mark.spec("SET-05")
def test_a_decision_settles_the_line_anew_keeps_both_and_posts_the_difference(world: Settled) -> None:
    """cu-0001 gave 20 of 25 kWh: 0.80 for 1.00 EUR, and 0.5 x 0.040 x 2.5 = 0.05 EUR of penalty."""
    world.settle()
    opened = contest(world, "tso")
    assert (opened["seller"], opened["customer"], opened["state"]) == ("sp-1", "tso", "opened")
    told = world.by_two("dispute.decide", opened["id"], reason="It was.", changes=[READ_ANEW])
    assert (told["state"], told["posted"]) == ("changed", SECOND)
    assert [one["amount_eur"] for one in told["old"]] == ["1.000000000"]
    assert [one["amount_eur"] for one in told["new"]] == ["0.800000000", "-0.050000000"]
    run = world.state.get(SettlementRun, SECOND)
    assert run.dispute == opened["id"] and world.statement("tso", SECOND).balance_cents == 25
    proofs = {line.charge.evidence.certificates for line in world.lines()[8:]}
    assert proofs == {("protocol-12",)}
    for party in ("sp-1", "tso", "mo"):
        assert [one["state"] for one in world.notes(party, "dispute.decided")] == ["changed"]
    with pytest.raises(Conflict, match="changed already"):
        world.by_two("dispute.decide", opened["id"], reason="Again.")


@pytest.mark.spec("SET-05")
def test_a_dispute_shows_each_side_what_is_between_the_two_and_no_contract_with_an_owner(world: Settled) -> None:
    contract(world, share="0.6")
    world.settle()
    opened = contest(world, "tso")
    world.by_two("dispute.decide", opened["id"], reason="It was.", changes=[READ_ANEW])
    entry = world.state.get(DisputeEntry, opened["id"])
    assert {(one.seller, one.customer) for one in (*entry.old, *entry.new)} == {("sp-1", "tso")}
    # what the owner is paid of it is posted all the same
    assert world.statement("owner", SECOND).balance_cents < 0


@pytest.mark.spec("SET-05")
def test_a_reading_that_a_decision_gives_is_known_from_then_on() -> None:
    world = Settled()
    world.bring_all(u0001=None, u0003="-37.5")
    world.settle(incomplete=True)
    line = next(one.charge.id for one in world.lines() if one.charge.unit == "cu-0001")
    opened = world.do("dispute.open", "sp-1", period=PERIOD, line=line, reason="Here is the protocol.")
    told = world.by_two("dispute.decide", opened["id"], reason="It counts.", changes=[READ_ANEW | {"value": "-25"}])
    assert (told["state"], [one["amount_eur"] for one in told["new"]]) == ("changed", ["1.000000000"])


@pytest.mark.spec("SET-05")
def test_what_was_decided_holds_in_later_runs(world: Settled) -> None:
    world.settle()
    world.by_two("dispute.decide", contest(world)["id"], reason="It was.", changes=[READ_ANEW])
    with pytest.raises(Conflict, match="has changed"):
        rerun(world)
    world.bring({("cu-0001", QUARTERS[0]): "-26"}, log_size=300)
    with pytest.raises(Conflict, match="has changed"):
        rerun(world)
    world.bring({("cu-0001", QUARTERS[1]): "-30"}, log_size=300)
    rerun(world)
    assert world.statement("sp-1", f"{PERIOD}.3").balance_cents == -25


@pytest.mark.spec("SET-05", "PLAT-07")
def test_a_line_is_upheld_or_the_dispute_taken_back_and_nothing_is_posted(world: Settled) -> None:
    world.settle()
    first = contest(world)
    with pytest.raises(Conflict, match="is contested"):
        contest(world, "tso")
    with pytest.raises(Forbidden):
        world.do("dispute.decide", "mo", first["id"], reason="one client")
    assert world.by_two("dispute.decide", first["id"], reason="The reading stands.")["state"] == "upheld"
    second = contest(world, "tso")
    with pytest.raises(Forbidden):
        world.do("dispute.withdraw", "sp-1", second["id"])
    assert world.do("dispute.withdraw", "tso", second["id"], reason="ours")["state"] == "withdrawn"
    assert [one.state.value for one in world.state.all(DisputeEntry)] == ["upheld", "withdrawn"]
    assert len(runs_of(world.state, PERIOD)) == 1


@pytest.mark.spec("SET-05")
def test_nobody_contests_or_sees_the_lines_of_others(world: Settled) -> None:
    world.settle()
    for party in ("sp-2", "dso", "owner", "mo"):
        with pytest.raises(NotFound, match="There is no line"):
            contest(world, party)
    opened = contest(world)
    for party in ("sp-2", "dso", "owner"):
        assert records(world.state, world.who(party), DisputeEntry) == []
        with pytest.raises(NotFound, match="There is no dispute"):
            world.do("dispute.withdraw", party, opened["id"])
    with pytest.raises(Refused) as caught:
        world.by_two("dispute.decide", opened["id"], reason="x", changes=[{"field": "buyer", "source": "me"}])
    assert codes(caught) == {"not_offered"}


# ---------------------------------------------------------------- owners


def contract(world: Settled, unit: str = "cu-0001", from_day: Any = DAY, **form: Any) -> str:
    """A contract that the owner agreed to."""
    id: str = world.do("owner_contract.offer", "sp-1", unit=unit, from_day=from_day, **form)["id"]
    world.do("owner_contract.agree", "owner", id)
    return id


@pytest.mark.spec("SET-05")
def test_the_owners_share_is_paid_on_by_its_provider(world: Settled) -> None:
    """cu-0001 earns 4 EUR: 60 % and 5 EUR/MWh for 0.1 MWh are 2.90 EUR for its owner."""
    contract(world, share="0.6", eur_mwh="5")
    contract(world, "cu-0003", from_day="2016-07-06", share="0.6")
    world.settle()
    balances = {one.party: one.balance_cents for one in world.state.all(StatementEntry)}
    assert balances == {"tso": -600, "sp-1": 310, "owner": 290}
    assert [one.id for one, _ in records(world.state, world.who("owner"), StatementEntry)] == [f"{FIRST}.owner"]
    # the owner bills nobody: it is paid by its statement
    assert world.do("invoice.issue", "mo", FIRST, **ISSUED)["invoices"] == ["sp-1-000001"]


@pytest.mark.spec("SET-05")
def test_a_contract_with_somebody_who_did_not_own_the_unit_then_pays_nothing(world: Settled) -> None:
    contract(world, share="0.6")
    (held,) = world.state.all(OwnerContract)
    world.sequencer.submit(put([replace(held, owner="brp")]))
    world.settle()
    assert {one.party for one in world.state.all(StatementEntry)} == {"tso", "sp-1"}


@pytest.mark.spec("SET-05")
def test_an_owner_that_bills_has_an_invoice_and_may_contest_its_line(world: Settled) -> None:
    world.sequencer.submit(put([details("owner")]))
    contract(world, share="0.6")
    world.settle()
    assert world.do("invoice.issue", "mo", FIRST, **ISSUED)["invoices"] == ["owner-000001", "sp-1-000001"]
    line = next(one.charge.id for one in world.lines() if one.charge.seller == "owner")
    opened = world.do("dispute.open", "owner", period=PERIOD, line=line, reason="It gave more.")
    assert (opened["seller"], opened["customer"]) == ("owner", "sp-1")
    assert records(world.state, world.who("tso"), DisputeEntry) == []


@pytest.mark.spec("SET-05")
def test_a_contract_takes_both_sides_and_leaves_settled_days_alone(world: Settled) -> None:
    first = contract(world, share="0.6")
    with pytest.raises(Conflict, match="is agreed since"):
        world.do("owner_contract.agree", "owner", first)
    offered = world.do("owner_contract.offer", "sp-1", unit="cu-0001", from_day="2016-07-20", share="0.7")["id"]
    with pytest.raises(Conflict, match="covers days of it"):
        world.do("owner_contract.agree", "owner", offered)
    world.do("owner_contract.end", "owner", first, until_day="2016-07-19")
    world.do("owner_contract.agree", "owner", offered)
    with pytest.raises(Conflict, match="only shortened"):
        world.do("owner_contract.end", "sp-1", first, until_day="2016-07-20")
    for party, subject, kind in (("sp-1", first, Forbidden), ("mo", first, Forbidden), ("sp-2", first, Forbidden)):
        with pytest.raises(kind):
            world.do("owner_contract.agree", party, subject)
    with pytest.raises(NotFound):
        world.do("owner_contract.end", "sp-2", first, until_day="2016-07-10")
    world.settle()
    with pytest.raises(Refused) as caught:
        world.do("owner_contract.end", "sp-1", first, until_day="2016-07-04")
    assert codes(caught) == {"settled"}
    bad = {"unit": "cu-0003", "from_day": DAY, "until_day": "2016-07-01", "share": "1.1", "eur_mwh": "-1"}
    with pytest.raises(Refused) as caught:
        world.do("owner_contract.offer", "sp-1", **bad)
    assert codes(caught) == {"settled", "ends_first", "out_of_range"}


@pytest.mark.spec("SET-05")
def test_nobody_ends_an_agreed_contract_before_what_was_delivered_under_it(world: Settled) -> None:
    """It is the morning after the next day's midnight: 6 July, and nothing is settled yet."""
    held = contract(world, share="0.6")
    for day in ("2016-07-04", "2016-07-05"):
        with pytest.raises(Refused) as caught:
            world.do("owner_contract.end", "sp-1", held, until_day=day)
        assert codes(caught) == {"past"}
    assert world.do("owner_contract.end", "sp-1", held, until_day="2016-07-06")["until_day"] == "2016-07-06"
    coming = contract(world, "cu-0003", from_day="2016-07-20", share="0.6")
    with pytest.raises(Refused) as caught:
        world.do("owner_contract.end", "sp-1", coming, until_day="2016-07-19")
    assert codes(caught) == {"past"}


@pytest.mark.spec("SET-05")
def test_an_offer_of_a_contract_is_taken_back_before_it_is_agreed(world: Settled) -> None:
    offered = world.do("owner_contract.offer", "sp-1", unit="cu-0003", from_day="2016-08-01", share="0.7")["id"]
    world.do("owner_contract.end", "sp-1", offered, until_day="2016-07-31")
    with pytest.raises(Conflict, match="ended before it began"):
        world.do("owner_contract.agree", "owner", offered)


# ---------------------------------------------------------------- laws

readings = st.lists(
    st.tuples(
        st.sampled_from(UNITS), st.integers(0, 3), st.integers(-60_000, 5_000).map(lambda w: str(Decimal(w).scaleb(-3)))
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.spec("SET-05", "SET-06", "PLAT-05")
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(readings, readings, st.booleans(), st.booleans(), st.booleans())
def test_whatever_was_read_money_adds_to_zero_and_runs_together_are_one_run(
    first: list[Any], second: list[Any], fee: bool, contested: bool, shared: bool
) -> None:
    world = Settled()
    if shared:
        world.sequencer.submit(put([details("owner")]))
        contract(world, share="0.37", eur_mwh="1.11", penalty_share="0.5")
    if fee:
        world.by_two("settlement_terms.set", "global_energy", from_day=DAY, document=FEE, methods=["nominated"])
    world.bring({(unit, QUARTERS[place]): kwh for unit, place, kwh in first}, log_size=1)
    world.settle(incomplete=True)
    if contested and world.lines():
        decided = world.by_two("dispute.decide", contest(world)["id"], reason="read", changes=[READ_ANEW])
        assert decided["state"] in ("changed", "upheld")
    world.bring({(unit, QUARTERS[place]): kwh for unit, place, kwh in second}, log_size=2)
    changed = propose(world.state, period_of(world.state, PERIOD)).run.lines
    if changed:
        rerun(world)
    with pytest.raises(Conflict, match="has changed"):
        rerun(world)
    _adds_up(world)
    for run in runs_of(world.state, PERIOD):
        world.do("invoice.issue", "mo", run.id, **ISSUED)
    _billed(world)
    machine = Machine(TEST_VERBS)
    assert list(replay(world.journal.entries(0, 10_000), machine)) == []
    assert fingerprint(machine) == fingerprint(world.machine)


def _adds_up(world: Settled) -> None:
    """All statements of a run add to zero; all runs post what one over the last inputs would."""
    runs = runs_of(world.state, PERIOD)
    for run in runs:
        mine = [one for one in world.state.all(StatementEntry) if one.run == run.id]
        assert sum(one.balance_cents for one in mine) == 0
        assert run.paid_cents == run.received_cents + run.fee_cents + run.rounding_cents
        for one in mine:
            lines = lines_in(world.state.get(Kept, one.id))
            assert len(lines) == one.lines
            assert all(one.party in (line.charge.seller, line.charge.customer) for line in lines)
    last = kept_by(world.state, runs[-1])
    whole = correct((), settle(last.inputs, last.rules), PERIOD).lines
    assert Counter(_booked(world.lines())) == Counter(_booked(whole))


def _booked(lines: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in lines:
        found[line.booking] = found.get(line.booking, 0) + line.cents
    return {booking: total for booking, total in found.items() if total}


def _billed(world: Settled) -> None:
    """Every invoice re-adds, numbers have no gap, and invoices come to the statements."""
    balance: Counter[str] = Counter()
    numbers: dict[str, list[str]] = {}
    for one in invoices(world):
        whole = invoice_of(world.state, one)
        assert list(misadded(whole)) == []
        balance[one.seller] += whole.sign * one.net_cents
        balance[one.customer] -= whole.sign * one.net_cents
        numbers.setdefault(one.seller, []).append(one.id)
    for seller, mine in numbers.items():
        assert sorted(mine) == [f"{seller}-{k + 1:06d}" for k in range(len(mine))]
    told: Counter[str] = Counter()
    for entry in world.state.all(StatementEntry):
        told[entry.party] += entry.balance_cents
    assert {party: sum_ for party, sum_ in balance.items() if sum_} == {p: c for p, c in told.items() if c}


def test_a_date_is_kept_on_the_run_that_was_billed(world: Settled) -> None:
    world.settle()
    world.do("invoice.issue", "mo", FIRST, **ISSUED)
    assert world.state.get(SettlementRun, FIRST).billed == date(2016, 7, 10)
