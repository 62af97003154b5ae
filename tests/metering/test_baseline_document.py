"""Methods as documents: the shelf, one's own, every fault at once, and what products allow."""

from __future__ import annotations

import json

import pytest

from coflex.domain.errors import CoflexError, Refused
from coflex.domain.unit import Technology
from coflex.metering.baselines import Adjust, Pick, SameDay, XofY
from coflex.metering.baselines.document import (
    KINDS,
    allowed_methods,
    check_allowed,
    load_method,
    methods,
    methods_of,
    read_method,
)
from coflex.metering.eligibility import DayRule, Like

MINE = """
id: mine
version: 3
title: Mine
source: A contract
days: {like: three, oldest: 60}
kind: x_of_y
parameters:
  x: 4
  y: 6
  pick: mid
  adjustment: {kind: scalar, quarters: 8, gap: 6, cap: 0.1}
"""


@pytest.mark.spec("SET-01")
def test_a_document_is_read_into_its_method() -> None:
    read = read_method(MINE, "mine.yaml")
    assert (read.id, read.version, read.kind) == ("mine", 3, "x_of_y")
    assert read.days == DayRule(Like.THREE, 60)
    assert read.method == XofY(4, 6, Pick.MID, SameDay(Adjust.SCALAR, 8, 6, 0.1))


@pytest.mark.spec("SET-01")
def test_the_shelf_holds_a_method_of_every_kind_under_its_own_name() -> None:
    shelf = [load_method(name) for name in methods()]
    assert [one.id for one in shelf] == list(methods())
    assert {one.kind for one in shelf} == set(KINDS)
    assert len({one.fingerprint for one in shelf}) == len(shelf)
    with pytest.raises(CoflexError, match="last_10"):
        load_method("last_11")


def test_json_reads_like_yaml_and_whole_numbers_stand_for_numbers() -> None:
    rolling = {"id": "r", "version": 1, "title": "t", "source": "s", "kind": "rolling", "parameters": {"weight": 0}}
    assert read_method(json.dumps(rolling), "r.json").method == KINDS["rolling"](weight=0.0)


def test_a_fingerprint_hangs_on_what_is_computed_alone() -> None:
    print_of = read_method(MINE, "mine").fingerprint
    assert read_method(MINE.replace("A contract", "Another"), "mine").fingerprint == print_of
    for change in (("x: 4", "x: 2"), ("version: 3", "version: 4"), ("three", "two"), ("0.1}", "0.2}"), ("60", "45")):
        assert read_method(MINE.replace(*change), "mine").fingerprint != print_of


@pytest.mark.parametrize(
    ("old", "new", "code", "place"),
    [
        ("version: 3", "version: 0", "malformed", "mine: version"),
        ("version: 3", "version: true", "malformed", "mine: version"),
        ("id: mine\n", "", "missing_key", "mine: id"),
        ("title: Mine", "title: Mine\nowner: me", "unknown_key", "mine: owner"),
        ("like: three", "like: four", "malformed", "mine: days.like"),
        ("oldest: 60", "oldest: .nan", "malformed", "mine: days.oldest"),
        ("oldest: 60", "oldest: 0", "out_of_range", "mine: days, days: oldest"),
        ("oldest: 60", "oldest: 800000", "out_of_range", "mine: days, days: oldest"),
        ("x: 4", "x: 4.5", "malformed", "mine: parameters.x"),
        ("x: 4", "x: 7", "out_of_range", "mine: parameters, x_of_y: x"),
        ("  x: 4\n", "", "missing_key", "mine: parameters.x"),
        ("gap: 6", "gap: 3", "too_near", "mine: parameters.adjustment, same_day: gap"),
        ("cap: 0.1", "cap: .inf", "malformed", "mine: parameters.adjustment.cap"),
        ("cap: 0.1", f"cap: 1{'0' * 400}", "malformed", "mine: parameters.adjustment.cap"),
        ("cap: 0.1", "caps: 0.1", "unknown_key", "mine: parameters.adjustment.caps"),
        ("x_of_y", "y_of_x", "not_offered", "mine: kind"),
        ("kind: x_of_y", "kind: x_of_y\nkind: zero", "repeated_key", "mine, line 8"),
        ("days: {like: three, oldest: 60}", "days: [1]", "malformed", "mine: days"),
        ("id: mine", "id: {", "not_yaml", "mine, line"),
    ],
)
def test_each_fault_is_told_with_its_place(old: str, new: str, code: str, place: str) -> None:
    assert old in MINE
    with pytest.raises(Refused) as refused:
        read_method(MINE.replace(old, new, 1), "mine")
    assert any(one.code == code and one.place.startswith(place) for one in refused.value.findings)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(Refused) as refused:
        read_method("version: none\nkind: rolling\nparameters: {weight: 1.5, most: x}\ndays: {oldest: old}", "bad")
    assert {one.code for one in refused.value.findings} >= {"missing_key", "malformed"}
    assert len(refused.value.findings) >= 6
    with pytest.raises(Refused):
        read_method("- a list", "bad")


@pytest.mark.spec("SET-01")
def test_what_a_product_allows_is_data() -> None:
    own = "{default: [zero], services: {heat: [last_10, zero]}, products: {p1: [nominated]}}"
    assert allowed_methods("heat", "p1", own) == ("nominated",)
    assert allowed_methods("heat", "p2", own) == ("last_10", "zero")
    assert allowed_methods("cold", "", own) == ("zero",)
    assert check_allowed("zero", "heat", "", own) == ()
    (finding,) = check_allowed("high_5_of_10", "heat", "", own)
    assert finding.code == "not_allowed" and "last_10, zero" in finding.message
    for service in ("congestion_management", "automatic_restoration", "frequency_containment", "anything"):
        assert set(allowed_methods(service)) <= set(methods())
    for bad in ("{default: []}", "{default: [1]}", "{}", "{default: [zero], services: [a]}", "["):
        with pytest.raises(Refused):
            allowed_methods("heat", "", bad)


@pytest.mark.spec("SET-01")
def test_loads_are_settled_by_their_own_days_and_all_else_by_what_was_agreed() -> None:
    history, agreed = (methods_of(one) for one in (Technology.HEAT_PUMP, Technology.BATTERY))
    assert [one.id for one in history] == ["last_4_alike", "last_4_alike_additive", "nominated"]
    assert [one.id for one in agreed] == ["nominated"]
    own = "{default: [zero, last_10], products: {p1: [nominated, last_10]}, by_history: [pv]}"
    for technology, ids in ((Technology.PV, ["nominated", "last_10"]), (Technology.HEAT_PUMP, ["nominated"])):
        assert [one.id for one in methods_of(technology, "", "p1", own)] == ids
    assert all(any(one.agreed for one in methods_of(technology)) for technology in Technology)
    with pytest.raises(Refused):
        methods_of(Technology.PV, text="{default: [zero], by_history: [wind_mill]}")
