"""Settlement rules as documents: those that come with coflex, and what is said of faulty ones."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError, Refused
from coflex.domain.statement import Measure
from coflex.settlement.document import By, Rule, Volume, kept
from coflex.settlement.reading import read_rule
from coflex.settlement.rules import Response
from coflex.settlement.shelf import load_rule, rule_text, rules

D = Decimal
SMALL = """\
id: mine
version: 3
title: Mine
source: {document: own, section: "1"}
delivered: {by: metered}
payers: {dso_congestion: dso}
"""


def codes(text: str) -> dict[str, str]:
    """Code of each fault by its place."""
    with pytest.raises(Refused) as refused:
        read_rule(text, "mine.yaml")
    return {one.place.removeprefix("mine.yaml"): one.code for one in refused.value.findings}


@pytest.mark.spec("SET-02", "SET-03")
def test_the_rules_that_come_with_coflex_cover_every_way_to_count_a_delivery() -> None:
    known = [load_rule(name) for name in rules()]
    assert [one.id for one in known] == list(rules())
    assert {one.delivered.by for one in known} == set(By)
    assert all(one.source.document and one.source.section for one in known)
    assert load_rule("mfrr").terms().response is Response.REQUESTED
    assert load_rule("afrr").terms().response is Response.METERED
    assert load_rule("reactive_interface").measure is Measure.MVARH


def test_a_document_without_the_optional_parts_pays_what_is_delivered_and_punishes_nothing() -> None:
    rule = read_rule(SMALL, "mine.yaml")
    assert rule.name == "mine@3"
    terms = rule.terms()
    assert (terms.penalty_share, terms.penalty_eur_mwh, terms.tolerance, terms.cap) == (0, None, 0, 1)
    assert rule.fee.share == rule.fee.eur_mwh == 0
    assert rule.availability is None and rule.transfer is None


def test_numbers_are_read_as_they_are_written() -> None:
    rule = read_rule(SMALL + "fee: {share: 0.1, eur_mwh: '0.30'}\n", "mine.yaml")
    assert rule.fee.share == D("0.1") and rule.fee.eur_mwh == D("0.3")


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("penalty: {kind: fixed, eur_mwh: 1e70}", "penalty.eur_mwh"),
        ("penalty: {kind: share, share: 1e70}", "penalty.share"),
        ("fee: {eur_mwh: 1e70}", "fee.eur_mwh"),
        ("transfer: {compensation: fixed, eur_mwh: -1e70}", "transfer.eur_mwh"),
        ("payment: {curve: [[0, 0], [1, 1e70]]}", "payment.curve"),
        ("payment: {cap: 1e70}", "payment.cap"),
        ("availability: {by_readiness: [[0, -1e70], [1, 1]]}", "availability.by_readiness"),
    ],
)
def test_a_number_beyond_all_measure_is_a_slip(part: str, place: str) -> None:
    (found,) = codes(f"{SMALL}{part}\n")
    assert found.partition(": ")[2].startswith(place)


def test_every_fault_is_told_at_once_with_line_and_path() -> None:
    found = codes(
        """\
id: Not a name
version: 0
titel: x
delivered: {by: metred, tolerance: 1}
payment:
  curve: [[0.5, 1], [0.2, 0]]
  cap: 0
penalty: {kind: share}
payers:
  dso_congestion: nobody
  unknown: dso
sharing: {by: fixed, shares: {dso: 0.7}}
"""
    )
    assert found == {
        ", line 1: id": "malformed",
        ", line 2: version": "malformed",
        ", line 3: titel": "unknown_key",
        ", line 4: delivered.by": "not_offered",
        ", line 4: delivered.tolerance": "malformed",
        ", line 7: payment.cap": "malformed",
        ", line 8: penalty.share": "missing_key",
        ", line 10: payers.dso_congestion": "not_offered",
        ", line 11: payers.unknown": "not_offered",
        ", line 12: sharing.shares": "not_whole",
        ": title": "missing_key",
        ": source": "missing_key",
    }


@pytest.mark.parametrize(
    ("more", "place", "code"),
    [
        ("payment: {curve: [[0.5, 1], [0.2, 0]]}", ", line 7: payment.curve", "unordered"),
        ("payment: {curve: [[0, 1], [1, 0.5]]}", ", line 7: payment.curve", "unordered"),
        ("payment: {curve: [[0, -1], [1, 1]]}", ", line 7: payment.curve", "negative"),
        ("penalty: {kind: none, share: 1}", ", line 7: penalty.share", "not_used"),
        ("penalty: {kind: fixed}", ", line 7: penalty.eur_mwh", "missing_key"),
        ("penalty: {kind: share, share: -1}", ", line 7: penalty.share", "malformed"),
        ("availability: {by_month: [[0, 0], [1, 2]]}", ", line 7: availability.by_month", "out_of_range"),
        ("sharing: {by: equal}", ", line 7: sharing", "not_used"),
        ("transfer: {compensation: fixed}", ", line 7: transfer.eur_mwh", "missing_key"),
        ("transfer: {volume: all}", ", line 7: transfer.volume", "not_offered"),
        ("fee: {share: 1.5}", ", line 7: fee.share", "malformed"),
        ("fee: {share: .nan}", "", "not_a_document"),
        ("id: again", ", line 7", "repeated_key"),
        ("penalty: &p {kind: none}\nfee: *p", ", line 8: fee.kind", "unknown_key"),
        ("x: [", ", line 8", "not_yaml"),
    ],
)
def test_a_fault_has_its_line_and_its_code(more: str, place: str, code: str) -> None:
    assert codes(SMALL + more + "\n") == {place: code}


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("{dso_congestion: dso}", "{shared: shared}", "no_sharing"),
        ("{dso_congestion: dso}", "{dso_congestion: shared}", "no_sharing"),
        ("{dso_congestion: dso}", "{}", "malformed"),
        ("by: metered", "by: availability", "no_availability"),
        ("by: metered", "by: metered, tolerance: '1.0'", "malformed"),
        (SMALL, "[]", "not_a_document"),
        (SMALL, "&a [*a]", "not_a_document"),
    ],
)
def test_faults_between_parts(old: str, new: str, code: str) -> None:
    assert code in codes(SMALL.replace(old, new)).values()


def test_what_settles_no_energy_transfers_none() -> None:
    for name in ("fcr", "reactive_interface"):
        text = rule_text(name) + "transfer: {compensation: none}\n"
        with pytest.raises(Refused, match="1 fault"):
            read_rule(text, name)
    assert read_rule(SMALL + "transfer: {volume: ordered}\n", "x").transfer.volume is Volume.ORDERED  # type: ignore[union-attr]


def test_an_unknown_rule_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(CoflexError, match="afrr, demand_flexibility"):
        load_rule("nothing")


points = st.lists(
    st.tuples(st.decimals(0, 2, places=3), st.decimals(-2, 1, places=3)),
    min_size=1,
    max_size=5,
    unique_by=lambda p: p[0],
).map(lambda found: tuple(zip(sorted(x for x, _ in found), sorted(y for _, y in found), strict=True)))


@given(points, st.decimals(0, 3, places=4))
def test_a_curve_goes_through_its_points_and_never_falls(
    curve: tuple[tuple[Decimal, Decimal], ...], at: Decimal
) -> None:
    assert [kept(curve, x) for x, _ in curve] == pytest.approx([y for _, y in curve], abs=D("1e-20"))
    assert curve[0][1] <= kept(curve, at) <= curve[-1][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        assert kept(curve, (x0 + x1) / 2) == pytest.approx((y0 + y1) / 2, abs=D("1e-20"))


def test_without_a_curve_or_a_share_all_is_kept() -> None:
    assert kept((), D("0.3")) == 1
    assert kept(((D(0), D(0)), (D(1), D(1))), None) == 1


def test_a_rule_never_changes_once_it_is_read() -> None:
    rule = load_rule("mfrr")
    with pytest.raises(ValueError, match="frozen"):
        rule.version = 2  # type: ignore[misc]
    assert Rule.model_validate_json(rule.model_dump_json()) == rule
