"""A day whose products cannot be settled by their rules is refused before it begins; a case may have its own rules."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from coflex.adapters.store.memory import MemoryStore
from coflex.domain.clearing import award_name
from coflex.domain.errors import Refused
from coflex.domain.statement import Posting, SettlementLine
from coflex.market.design import load_design, read_design
from coflex.process.day import Day
from coflex.process.settle import settle
from coflex.settlement.shelf import rule_text, rulebook
from support.command import coflex
from support.small_case import small_folder
from support.verbs import before, small_day


def refused(**texts: str) -> set[tuple[str, str]]:
    """Place and code of each fault of the small day under rules of its own."""
    case = small_day().case
    with pytest.raises(Refused) as told:
        Day(case, small_day().design, rulebook(texts)).check_terms()
    return {(one.place, one.code) for one in told.value.findings}


@pytest.mark.spec("SET-03")
@pytest.mark.parametrize(
    ("rule", "old", "new", "codes"),
    [
        ("local_congestion", "tolerance: 0.1", "tolerance: 0.2", {"other_terms"}),
        ("local_congestion", "share: 0.5}", "share: 0.4}", {"other_terms"}),
        ("local_congestion", "{kind: share, share: 0.5}", "{kind: none}", {"other_terms"}),
        ("local_congestion", "{kind: share, share: 0.5}", "{kind: agreed}", {"not_held"}),
        ("local_congestion", "by: metered", "by: drop_to", {"not_held"}),
        ("local_congestion", "pricing: pay_as_bid", "pricing: nodal", {"other_pricing"}),
        ("local_congestion", "dso_congestion: dso, ", "", {"no_payer"}),
        ("local_congestion", "dso_congestion: dso, ", "dso_congestion: tso, ", {"no_payer"}),
    ],
)
def test_a_rule_that_does_not_fit_what_is_sold_is_named_with_the_reason(
    rule: str, old: str, new: str, codes: set[str]
) -> None:
    text = rule_text(rule)
    assert old in text
    assert refused(**{rule: text.replace(old, new)}) == {("product local-energy", code) for code in codes}


def test_a_product_without_a_rule_is_named() -> None:
    said = "version: 1\nscopes: {local: local_congestion, global: mfrr}\nproducts: {global-energy: nothing}\n"
    assert refused(products=said) == {("product global-energy", "unknown_rule")}


def test_a_product_sold_at_the_marginal_price_needs_a_rule_that_pays_it() -> None:
    case, document = small_day().case, load_design("beflexible_six").model_dump(mode="json")
    for session in document["sessions"]:
        if session["scope"] == "global":
            session["pricing"] = "marginal"
    design = read_design(json.dumps(document), "mine.yaml")
    with pytest.raises(Refused) as told:
        Day(case, design).check_terms()
    (fault,) = told.value.findings  # one for all its sessions
    assert (fault.place, fault.code) == ("product global-energy", "other_pricing")
    Day(case, design, rulebook({"mfrr": rule_text("mfrr").replace("pay_as_bid", "marginal")})).check_terms()


@pytest.mark.spec("SET-02", "SET-03")
def test_a_case_is_settled_by_a_rule_of_its_own() -> None:
    own = rule_text("local_congestion").replace("share: 0.02", "share: 0.04").replace("version: 1", "version: 2")
    day, plain, mine = small_day(), before("settle"), before("settle")
    first, second = settle(day, plain), settle(Day(day.case, day.design, rulebook({"local_congestion": own})), mine)
    assert (second.lines, second.received_cents) == (first.lines, first.received_cents)
    fees = _fees(plain), _fees(mine)
    assert abs(fees[1]["dso"] - 2 * fees[0]["dso"]) <= 6 and fees[1]["tso"] == fees[0]["tso"]
    with mine.transaction() as t:
        assert {line.rule for line in t.all(SettlementLine)} == {"local_congestion@2", "mfrr@1"}


def _fees(store: MemoryStore) -> dict[str, int]:
    """What each buyer paid the platform."""
    found = {"dso": 0, "tso": 0}
    with store.transaction() as t:
        for posting in t.all(Posting, cause="fee"):
            if posting.account in found:
                found[posting.account] -= posting.cents
    return found


def test_a_product_that_promises_other_terms_than_its_rule_is_refused() -> None:
    case = small_day().case
    kinder = tuple(replace(one, tolerance=Decimal("0.3")) for one in case.products)
    with pytest.raises(Refused) as told:
        Day(replace(case, products=kinder), small_day().design).check_terms()
    assert {one.place for one in told.value.findings} == {"product local-energy", "product global-energy"}


def test_ids_of_which_no_charge_can_be_named_are_told_and_offers_may_have_any() -> None:
    case = small_day().case
    first, *others = case.units
    with pytest.raises(Refused) as told:
        Day(replace(case, units=(replace(first, id="a|b"), *others)), small_day().design).check_terms()
    assert [(one.place, one.code) for one in told.value.findings] == [("unit a|b", "malformed")]
    assert award_name("mine|7#2", 1) == "mine%7C7%232 step 1"


@pytest.mark.spec("SET-03")
def test_rules_in_the_folder_of_a_case_are_read_with_it_and_their_faults_told(tmp_path: Path) -> None:
    folder = small_folder(tmp_path)
    (folder / "rules").mkdir()
    mine = folder / "rules" / "local_congestion.yaml"
    mine.write_text(rule_text("local_congestion").replace("cap: 1", "cap: none"))
    answer = coflex("register", folder, "--out", tmp_path / "out")
    assert answer.exit_code == 1
    assert "local_congestion.yaml, line 6: payment.cap" in answer.stderr
    mine.write_text(rule_text("local_congestion").replace("tolerance: 0.1", "tolerance: 0.2"))
    answer = coflex("register", folder, "--out", tmp_path / "out")
    assert (answer.exit_code, (tmp_path / "out").exists()) == (1, False)
    assert "Its tolerance is 0.10, its rule local_congestion@1 has 0.2" in answer.stderr
    mine.write_text(rule_text("local_congestion").replace("version: 1", "version: 2"))
    assert coflex("register", folder, "--out", tmp_path / "out").exit_code == 0
