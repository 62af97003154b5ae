"""Charges: cases worked by hand, and random ones against a second implementation with fractions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta, timezone
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.domain.statement import Cause, Evidence
from coflex.settlement.books import balance, book, correct
from coflex.settlement.charges import settle
from coflex.settlement.dispute import Change, change
from coflex.settlement.document import Availability, Need, Payer
from coflex.settlement.inputs import Bought, Contract, Held, Inputs
from coflex.settlement.records import read
from coflex.settlement.transfer import adjustments
from support.settling import PURCHASES, RULES, D, delivery, periods, second, settled_inputs

GOLDEN = Path(__file__).parents[1] / "golden" / "settlement"
CASES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())


def case(name: str) -> tuple[Inputs, dict[str, Any]]:
    inputs = read(Inputs, (GOLDEN / name / "inputs.json").read_text(encoding="utf-8"), name)
    expected = yaml.load((GOLDEN / name / "expected.yaml").read_text(encoding="utf-8"), yaml.BaseLoader)
    return inputs, expected


def balances(accounts: Any) -> dict[str, int]:
    return {one.party: one.balance_cents for one in accounts if one.balance_cents}


def whole(numbers: dict[str, str]) -> dict[str, int]:
    return {name: int(number) for name, number in numbers.items()}


@pytest.mark.spec("SET-02", "SET-03", "SET-04", "SET-05", "SET-06")
@pytest.mark.parametrize("name", CASES)
def test_a_case_worked_by_hand_comes_out_to_the_cent(name: str) -> None:
    inputs, expected = case(name)
    charges = settle(inputs, RULES)
    assert {one.id: one.amount_eur for one in charges} == {
        key: Decimal(amount) for key, amount in expected["charges"].items()
    }
    run = book(charges, inputs.period)
    assert balances(run.accounts) == whole(expected["balances"])
    assert balance(run.accounts).difference == 0
    if "adjustments" in expected:
        assert {one.party: one.energy_kwh for one in adjustments(inputs, RULES)} == whole(expected["adjustments"])
    if "corrected" in expected:
        after = expected["corrected"]
        fields = [Change(field, value, "by hand") for field, value in after["changes"].items()]
        changed = tuple(change(one, fields) if one.id == after["delivery"] else one for one in inputs.deliveries)
        later = correct(run.lines, settle(replace(inputs, deliveries=changed), RULES), inputs.period)
        assert balances(later.accounts) == whole(after["balances"])
        assert all(line.charge.corrects for line in later.lines if line.charge.cause is not Cause.ROUNDING)


def test_every_rule_that_comes_with_coflex_has_a_case() -> None:
    used = {one.rule for name in CASES for one in case(name)[0].deliveries}
    assert used | {"afrr"} == set(RULES)  # aFRR is metered response as uftp, with readiness as mfrr


@pytest.mark.spec("SET-02", "SET-03")
@settings(max_examples=80, deadline=None)
@given(periods())
def test_amounts_are_those_of_a_second_implementation(inputs: Inputs) -> None:
    charges = settle(inputs, RULES)
    sums: dict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    for one in charges:
        if one.cause in (Cause.ACTIVATION, Cause.PENALTY, Cause.AVAILABILITY, Cause.CLAW_BACK) and one.amount_eur:
            _, name, award, _, _, _ = one.id.split("|")
            sums[name, award, one.cause] += Fraction(one.amount_eur)
    expected = {
        (one.id, *key): amount for one in inputs.deliveries for key, amount in second(one, RULES[one.rule]).items()
    }
    assert {key: value for key, value in sums.items() if value} == expected


@pytest.mark.spec("SET-03", "SET-05")
@settings(max_examples=40, deadline=None)
@given(periods(most=3))
def test_fees_and_owners_shares_follow_from_what_is_paid(inputs: Inputs) -> None:
    charges = settle(inputs, RULES)
    for one in inputs.deliveries:
        rule = RULES[one.rule]
        mine = [charge for charge in charges if charge.id.split("|")[1] == one.id]
        awards = {charge.evidence.award for charge in mine if charge.cause is not Cause.COMPENSATION}
        nets = {
            award: sum(
                charge.amount_eur
                for charge in mine
                if charge.evidence.award == award
                and charge.cause in (Cause.ACTIVATION, Cause.AVAILABILITY, Cause.CLAW_BACK)
            )
            for award in awards
        }
        mwh: dict[str, Decimal] = defaultdict(Decimal)
        for charge in mine:
            if charge.cause is Cause.ACTIVATION:
                mwh[charge.evidence.award] += charge.quantity
        fee = sum(rule.fee.share * abs(net) for net in nets.values()) + rule.fee.eur_mwh * sum(mwh.values())
        told = sum(charge.amount_eur for charge in mine if charge.cause is Cause.FEE)
        assert abs(told - fee) < D("1e-7")
        fined = sum(charge.amount_eur for charge in mine if charge.cause is Cause.PENALTY)
        owed = sum(
            contract.share * sum(nets.values()) + contract.eur_mwh * sum(mwh.values()) + contract.penalty_share * fined
            for contract in inputs.contracts
            if (contract.unit, contract.provider) == (one.unit, one.provider)
        )
        assert abs(sum(charge.amount_eur for charge in mine if charge.cause is Cause.OWNER) - owed) < D("1e-6")


@settings(max_examples=30, deadline=None)
@given(periods(), st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_and_the_callers_arithmetic_change_nothing(inputs: Inputs, luck: Any) -> None:
    shuffled = replace(
        inputs,
        deliveries=tuple(
            replace(one, bought=tuple(luck.sample(one.bought, len(one.bought))), held=one.held[::-1])
            for one in luck.sample(inputs.deliveries, len(inputs.deliveries))
        ),
        contracts=inputs.contracts[::-1],
        purchases=inputs.purchases[::-1],
    )
    with localcontext() as context:
        context.prec = 7
        assert settle(shuffled, RULES) == settle(inputs, RULES)


@settings(max_examples=30, deadline=None)
@given(periods())
def test_a_charge_is_its_quantity_times_its_price_up_to_the_grain(inputs: Inputs) -> None:
    for one in settle(inputs, RULES):
        grain = D("1e-9") * (2 + abs(one.price_eur) + abs(one.quantity))
        assert abs(one.quantity * one.price_eur - one.amount_eur) <= grain, one


def test_a_charge_says_on_what_it_stands_and_why() -> None:
    evidence = Evidence("offer-3", "", "sp-9", "base-4", "coflex/rome/measurements", 812, ("one.json",))
    paid, fee, fined = settle(settled_inputs(delivery(measured_kwh=D(-18), evidence=evidence)), RULES)
    assert (paid.cause, fee.cause, fined.cause) == (Cause.ACTIVATION, Cause.FEE, Cause.PENALTY)
    said = "delivered 88 % of the order; 12 % short, penalised beyond the tolerance of 10 %"
    assert paid.remark == fined.remark == said
    assert fee.remark == "2 % of 1.76 EUR"
    assert {one.rule for one in (paid, fee, fined)} == {"local_congestion@1"}
    assert {one.evidence for one in (paid, fee, fined)} == {replace(evidence, award="a1")}


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"rule": "unknown"}, "unknown_rule"),
    ({"id": "a|b"}, "malformed"),
    ({"unit": ""}, "malformed"),
    ({"start": delivery().start.replace(tzinfo=None)}, "not_utc"),
    ({"start": delivery().start.astimezone(timezone(timedelta(hours=1)))}, "not_utc"),
    ({"minutes": 0}, "out_of_range"),
    ({"ordered_kwh": D(26)}, "beyond_awards"),
    ({"ordered_kwh": D(-1)}, "negative"),
    ({"measured_kwh": D("NaN")}, "no_number"),
    ({"measured_kwh": D("1e60")}, "no_number"),
    ({"minutes": 10**70}, "out_of_range"),
    ({"bought": (Bought("a1", D(25), D("-1e60")),)}, "no_number"),
    ({"bought": (Bought("a1", D(25)),)}, "no_price"),
    ({"bought": (Bought("a1", D(25), D(1)), Bought("a1", D(1), D(1)))}, "awards"),
    ({"held": (Held("c1", D(1), D(1)),)}, "no_availability"),
    ({"rule": "mfrr", "need": Need.TSO_BALANCING, "held": (Held("c1", D(1), D(1), D(2)),)}, "out_of_range"),
    ({"rule": "mfrr", "need": Need.TSO_BALANCING, "held": (Held("c1", D(-1), D(1)),)}, "negative"),
    ({"need": Need.TSO_BALANCING}, "no_payer"),
    ({"roles": {}}, "no_payer"),
    ({"provider": "dso"}, "own_account"),
    ({"provider": "rounding"}, "reserved"),
    ({"unit": "u\x01"}, "malformed"),
    ({"need": Need.SHARED, "purchase": "nothing"}, "unknown_purchase"),
    ({"need": Need.SHARED, "purchase": "need", "roles": {Payer.DSO: "dso"}}, "no_payer"),
    ({"need": Need.SHARED, "purchase": "need", "provider": "tso"}, "own_account"),
    ({"need": Need.SHARED, "purchase": "game", "rule": "reactive_interface",
      "roles": {Payer.DSO: "dso"}, "bought": (Bought("a1", D(25), nodal_eur_mwh=D(1)),)}, "no_payer"),
    ({"unit_brp": "b1"}, "half_transfer"),
    ({"unit_brp": "b1", "provider_brp": "b2"}, "no_price"),
    ({"rule": "drop_to", "limit_kwh": None}, "no_limit"),
    ({"rule": "fcr", "need": Need.TSO_BALANCING}, "no_energy"),
    ({"rule": "uftp"}, "no_price"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "code"), FAULTS, ids=[f"{i}-{code}" for i, (_, code) in enumerate(FAULTS)])
def test_inputs_that_cannot_be_settled_are_refused_with_the_place(changes: dict[str, Any], code: str) -> None:
    faulty = delivery(**({"id": "d1"} | changes)) if "id" not in changes else replace(delivery(), **changes)
    with pytest.raises(Refused) as refused:
        settle(settled_inputs(faulty, delivery("good"), purchases=PURCHASES), RULES)
    assert code in {one.code for one in refused.value.findings}
    assert all("good" not in one.place for one in refused.value.findings)


@pytest.mark.spec("SET-03", "SET-06")
def test_capacity_below_the_grain_is_paid_and_taken_back_to_the_grain_of_money() -> None:
    """1e-6 kW for a quarter-hour are 2.5e-10 MW h; at 1e6 EUR/MW/h 0.00025 EUR, of which half is kept."""
    held = (Held("c1", D("1e-6"), D("1e6"), D("0.5")),)
    one = delivery(rule="fcr", need=Need.TSO_BALANCING, bought=(), ordered_kwh=D(0), held=held)
    rule = RULES["fcr"].model_copy(update={"availability": Availability(by_readiness=((D(0), D(0)), (D(1), D(1))))})
    sums = {charge.cause: charge.amount_eur for charge in settle(settled_inputs(one), {"fcr": rule})}
    assert (sums[Cause.AVAILABILITY], sums[Cause.CLAW_BACK]) == (D("0.00025"), D("-0.000125"))


def test_all_faults_are_told_at_once() -> None:
    contract = Contract("u1", "sp", "sp", D(2))
    with pytest.raises(Refused) as refused:
        settle(settled_inputs(delivery(minutes=0), delivery(rule="x"), contracts=(contract, contract)), RULES)
    assert {one.code for one in refused.value.findings} == {
        "repeated", "out_of_range", "own_account", "unknown_rule",
    }  # fmt: skip


@pytest.mark.parametrize(("rest", "paid"), [(D("0.0005"), 0), (D("0.0006"), 1), (D("-0.0006"), -1)])
def test_half_a_grain_goes_to_the_even_one(rest: Decimal, paid: int) -> None:
    one = delivery(bought=(Bought("a1", D(25), bid_eur_mwh=rest * D("4e-5")),))
    activation = next(charge for charge in settle(settled_inputs(one), RULES) if charge.cause is Cause.ACTIVATION)
    assert activation.amount_eur == paid * D("1e-9")
