"""What one operator bought and several pay: offered by its buyer, agreed by all, settled by shares (SET-03, SET-06)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Conflict, Forbidden, NotFound, Refused
from coflex.domain.statement import Cause
from coflex.register.activations import ActivationOrder
from coflex.register.market import SessionEntry
from coflex.register.settlement import DisputeEntry, InvoiceEntry, SharedPurchase, StatementEntry
from coflex.service.deliveries import prepare
from coflex.service.machine import Machine
from coflex.service.posting import invoice_of, kept_by, propose, runs_of
from coflex.service.reading import records
from coflex.service.replay import fingerprint, replay
from coflex.service.settling import period_of
from coflex.settlement.books import correct
from coflex.settlement.charges import settle
from coflex.settlement.invoice import misadded
from support.ordered import GLOBAL
from support.platform import DAY, TEST_VERBS, put
from support.settled import PERIOD, QUARTERS, UNITS, Settled, cents

RULE = """
id: shared
version: 1
title: What was requested, by need
source: {document: here, section: tests}
delivered: {by: requested, tolerance: 0.1}
pricing: pay_as_bid
penalty: {kind: share, share: 0.5}
payers: {tso_balancing: tso, shared: shared}
sharing: {by: need}
fee: {share: 0.1}
"""
SHARERS = [{"role": "tso", "party": "tso", "need": "3"}, {"role": "dso", "party": "dso", "need": "1"}]


@pytest.fixture
def world() -> Settled:
    """6 EUR of energy, all of it delivered, by a rule that shares; the platform takes a tenth of it beside."""
    made = Settled()
    made.bring_all(u0001="-25", u0003="-37.5")
    made.by_two("settlement_terms.set", "global_energy", from_day=DAY, document=RULE, methods=["nominated"])
    return made


def offered(world: Settled, by: str = "tso", **more: Any) -> Any:
    return world.do("shared_purchase.offer", by, **({"session": GLOBAL, "sharers": SHARERS} | more))


def shared(world: Settled) -> str:
    id: str = offered(world)["id"]
    world.do("shared_purchase.agree", "dso", id)
    return id


def balances(world: Settled) -> dict[str, int]:
    return {one.party: one.balance_cents for one in world.state.all(StatementEntry)}


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


@pytest.mark.spec("SET-03", "SET-06")
def test_what_all_agreed_to_share_is_paid_by_all(world: Settled) -> None:
    """The TSO needed three parts of four: 4.50 of 6 EUR and 0.45 of 0.60 EUR, the DSO 1.50 and 0.15 EUR."""
    id = shared(world)
    run = world.settle()
    assert balances(world) == {"tso": -495, "dso": -165, "sp-1": 600, "mo": 60}
    assert (run.paid_cents, run.received_cents, run.fee_cents, run.rounding_cents) == (660, 600, 60, 0)
    (purchase,) = propose(world.state, period_of(world.state, PERIOD)).prepared.inputs.purchases
    assert (purchase.id, purchase.needs) == (id, {"dso": 1, "tso": 3})
    assert {line.charge.joint for line in world.lines()} == {True}
    told = world.do("invoice.issue", "mo", f"{PERIOD}.1", issued="2016-07-10")["invoices"]
    assert told == ["mo-000001", "mo-000002", "sp-1-000001", "sp-1-000002"]
    machine = Machine(TEST_VERBS)
    assert list(replay(world.journal.entries(0, 10_000), machine)) == []
    assert fingerprint(machine) == fingerprint(world.machine)


@pytest.mark.spec("SET-03", "SET-06")
def test_a_correction_is_shared_alike_and_the_cent_that_is_left_has_its_account(world: Settled) -> None:
    """One quarter-hour of cu-0003 is short: 5 of 12.5 kWh are 0.20 EUR for 0.50, and 0.5 x 0.040 x 6.25 = 0.125 EUR are
    owed. Both pay halves: energy 2.85 EUR each, fees 0.285, penalties 0.0625 back: 28 and 6 cents. The fee in all is
    57 and the penalty 12 cents (half to even), so the platform is left one cent, and the provider none."""
    halves = [one | {"need": "1"} for one in SHARERS]
    world.do("shared_purchase.agree", "dso", offered(world, sharers=halves)["id"])
    world.settle()
    assert balances(world) == {"tso": -330, "dso": -330, "sp-1": 600, "mo": 60}
    world.bring({("cu-0003", QUARTERS[0]): "-45"}, log_size=200)
    digest = propose(world.state, period_of(world.state, PERIOD)).digest
    run = world.by_two("settlement.rerun", PERIOD, inputs=digest, reason="Readings were corrected.")
    sums = {one.party: one.balance_cents for one in world.state.all(StatementEntry) if one.run == run["id"]}
    assert sums == {"tso": 23, "dso": 23, "sp-1": -42, "mo": -3, "rounding": -1}
    assert run["paid_cents"] == run["received_cents"] + run["fee_cents"] + run["rounding_cents"]
    (left,) = [line for line in world.lines() if line.charge.cause is Cause.ROUNDING]
    assert (left.charge.seller, left.cents) == ("mo", 1)
    with pytest.raises(Conflict, match="has changed"):
        world.by_two("settlement.rerun", PERIOD, inputs=digest, reason="Again.")


@pytest.mark.spec("SET-03")
def test_before_all_agreed_the_buyer_pays_and_each_may_decline(world: Settled) -> None:
    first = offered(world)
    assert [one["agreed"] is not None for one in first["sharers"]] == [False, True]
    whole = {"tso": -660, "sp-1": 600, "mo": 60}
    assert {one.party: one.balance_cents for one in proposal(world)} == whole
    with pytest.raises(Conflict, match="shares what"):
        offered(world)
    assert world.do("shared_purchase.decline", "dso", first["id"])["ended"]
    for verb, by in (("agree", "dso"), ("decline", "tso")):
        with pytest.raises(Conflict, match="was declined"):
            world.do(f"shared_purchase.{verb}", by, first["id"])
    assert {one.party: one.balance_cents for one in proposal(world)} == whole
    second = shared(world)
    with pytest.raises(Conflict, match="nothing to agree"):
        world.do("shared_purchase.agree", "tso", second)
    with pytest.raises(Conflict, match="All agreed"):
        world.do("shared_purchase.decline", "tso", second)
    assert [one["agreed"] for one in world.notes("dso", "shared_purchase.agreed")] == [True]


def proposal(world: Settled) -> Any:
    return propose(world.state, period_of(world.state, PERIOD)).run.accounts


@pytest.mark.spec("SET-03", "REG-11")
def test_the_buyer_offers_its_sharers_agree_and_others_know_nothing_of_it(world: Settled) -> None:
    for by in ("dso", "brp"):
        with pytest.raises(Forbidden, match="bought for tso"):
            offered(world, by)
    with pytest.raises(Forbidden):
        offered(world, "sp-1")
    id = offered(world)["id"]
    for party in ("brp", "mo", "sp-1"):
        with pytest.raises((NotFound, Forbidden)):
            world.do("shared_purchase.agree", party, id)
    seen = {party: len(records(world.state, world.who(party), SharedPurchase)) for party in ("tso", "dso", "mo", "brp")}
    assert seen == {"tso": 1, "dso": 1, "mo": 1, "brp": 0}


FAULTS: list[tuple[dict[str, Any], set[str]]] = [
    ({"sharers": SHARERS[:1]}, {"sharers"}),
    ({"sharers": [*SHARERS, SHARERS[1]]}, {"sharers"}),
    ({"sharers": [SHARERS[1], {"role": "brp", "party": "brp", "need": "1"}]}, {"buyer"}),
    ({"sharers": [SHARERS[0], SHARERS[1] | {"party": "brp"}]}, {"unknown_party"}),
    ({"sharers": [SHARERS[0], SHARERS[1] | {"party": "sp-1"}]}, {"unknown_party", "own_account"}),
    ({"sharers": [SHARERS[0], SHARERS[1] | {"need": "-1"}]}, {"number"}),
    ({"sharers": [one | {"need": "0"} for one in SHARERS]}, {"needs"}),
    ({"costs": [{"group": "dso", "eur": "1"}] * 2}, {"repeated"}),
]


@pytest.mark.parametrize(("form", "found"), FAULTS)
def test_a_sharing_that_cannot_be_settled_is_refused(world: Settled, form: dict[str, Any], found: set[str]) -> None:
    with pytest.raises(Refused) as caught:
        offered(world, **form)
    assert codes(caught) == found


@pytest.mark.spec("SET-03")
def test_a_purchase_is_shared_by_rules_that_say_how_and_before_its_day_is_settled(world: Settled) -> None:
    plain = Settled()
    with pytest.raises(Refused) as caught:
        offered(plain)
    assert codes(caught) == {"no_sharing"}
    with pytest.raises(Conflict, match="no result"):
        offered(world, session=next(one.id for one in world.state.all(SessionEntry) if not one.outcome))
    id = offered(world)["id"]
    with pytest.raises(Refused) as caught:
        world.by_two("settlement_terms.set", "global_energy", from_day=DAY, document="mfrr", methods=["nominated"])
    assert codes(caught) == {"no_sharing"}
    world.by_two("settlement_terms.set", "local_energy", from_day=DAY, document="uftp", methods=["nominated"])
    world.by_two("settlement_terms.set", "global_energy", from_day="2016-07-06", document="mfrr", methods=["nominated"])
    world.settle()
    with pytest.raises(Refused) as caught:
        world.do("shared_purchase.agree", "dso", id)
    assert codes(caught) == {"settled"}


@pytest.mark.spec("SET-03")
def test_by_the_shapley_value_each_bears_what_its_joining_added(world: Settled) -> None:
    """Alone the TSO had paid 8 and the DSO 4 EUR, together 6: 5 and 1 of 6 parts."""
    rule = RULE.replace("id: shared", "id: shapley").replace("{by: need}", "{by: shapley}")
    world.by_two("settlement_terms.set", "global_energy", from_day=DAY, document=rule, methods=["nominated"])
    alone = [{"group": group, "eur": eur} for group, eur in (("tso", "8"), ("dso", "4"), ("dso+tso", "6"))]
    for costs, code in ((alone[:2], "costs"), ([*alone[:2], {"group": "dso+tso", "eur": "1"}], "costs")):
        with pytest.raises(Refused) as caught:
            offered(world, costs=costs)
        assert codes(caught) == {code}
    world.do("shared_purchase.agree", "dso", offered(world, costs=alone)["id"])
    world.settle()
    assert balances(world) == {"tso": -550, "dso": -110, "sp-1": 600, "mo": 60}


@pytest.mark.spec("SET-06")
def test_what_a_sharer_itself_delivered_is_left_out_and_named(world: Settled) -> None:
    shared(world)
    before = prepare(world.state, period_of(world.state, PERIOD)).inputs
    world.sequencer.submit(put([replace(world.order, id="other", provider="dso", unit="cu-0005", group=None)]))
    made = prepare(world.state, period_of(world.state, PERIOD))
    assert world.state.get(ActivationOrder, "other").provider == "dso" and made.inputs == before
    assert [(one.set_point, "itself" in one.reason) for one in made.left_out] == [("other", True)]
    assert sum((one.ordered_kwh for one in before.deliveries), Decimal(0)) == 150


@pytest.mark.spec("SET-03", "SET-05")
def test_a_line_that_one_sharer_contests_is_settled_anew_for_all_and_shown_for_its_own_two(world: Settled) -> None:
    """cu-0001 gave 20 of 25 kWh once: 0.20 EUR less, 0.05 EUR of penalty, 0.02 EUR less of fee; a quarter of the first
    two, 5 and 1.25 cents, to the DSO, and of the fee 0.5 cents, which leaves it at 14.5: 14 to the even one."""
    shared(world)
    world.settle()
    line = next(one.charge.id for one in world.lines() if (one.charge.customer, one.charge.seller) == ("dso", "sp-1"))
    opened = world.do("dispute.open", "dso", period=PERIOD, line=line, reason="The meter was changed.")
    change = {"field": "measured_kwh", "value": "-30", "source": "protocol-12"}
    world.by_two("dispute.decide", opened["id"], reason="It was.", changes=[change])
    entry = world.state.get(DisputeEntry, opened["id"])
    assert {(one.seller, one.customer) for one in (*entry.old, *entry.new)} == {("sp-1", "dso")}
    sums = {one.party: one.balance_cents for one in world.state.all(StatementEntry) if one.run == entry.posted}
    assert (sums["dso"], sum(sums.values())) == (7, 0)
    with pytest.raises(Conflict, match="has changed"):
        digest = propose(world.state, period_of(world.state, PERIOD)).digest
        world.by_two("settlement.rerun", PERIOD, inputs=digest, reason="Again.")


needs = st.integers(1, 97)
readings = st.lists(st.tuples(st.sampled_from(UNITS), st.integers(0, 3), st.integers(-60_000, 5_000)), max_size=4)


@pytest.mark.spec("SET-03", "SET-05", "SET-06")
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(needs, needs, readings, readings)
def test_however_it_is_shared_money_adds_to_zero_and_runs_together_are_one_run(
    mine: int, other: int, first: list[Any], second: list[Any]
) -> None:
    world = Settled()
    world.by_two("settlement_terms.set", "global_energy", from_day=DAY, document=RULE, methods=["nominated"])
    parts = [one | {"need": str(need)} for one, need in zip(SHARERS, (mine, other), strict=True)]
    world.do("shared_purchase.agree", "dso", offered(world, sharers=parts)["id"])
    for size, read in enumerate((first, second), start=1):
        kwh = {(unit, QUARTERS[place]): str(Decimal(wh).scaleb(-3)) for unit, place, wh in read}
        world.bring(kwh, log_size=size)
        if size == 1:
            world.settle(incomplete=True)
        elif propose(world.state, period_of(world.state, PERIOD)).run.lines:
            digest = propose(world.state, period_of(world.state, PERIOD)).digest
            world.by_two("settlement.rerun", PERIOD, inputs=digest, reason="Readings were corrected.")
    for run in runs_of(world.state, PERIOD):
        assert sum(one.balance_cents for one in world.state.all(StatementEntry) if one.run == run.id) == 0
        assert run.paid_cents == run.received_cents + run.fee_cents + run.rounding_cents
        world.do("invoice.issue", "mo", run.id, issued="2016-07-10")
    assert [fault for one in world.state.all(InvoiceEntry) for fault in misadded(invoice_of(world.state, one))] == []
    last = kept_by(world.state, runs_of(world.state, PERIOD)[-1])
    whole = correct((), settle(last.inputs, last.rules), PERIOD).lines
    for seller in ("sp-1", "mo"):
        mine_of = [[one for one in lines if one.charge.seller == seller] for lines in (world.lines(), whole)]
        assert cents(mine_of[0]) == cents(mine_of[1])
