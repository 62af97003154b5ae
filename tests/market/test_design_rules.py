"""What a design may not say: each rule broken once in a document that is sound without it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from random_designs import placed, written

import coflex.market.design.rules as rules
from coflex.domain.errors import Refused
from coflex.market.design import read_design

Document = dict[str, Any]

# A yearly tender, a local market, a central one that takes what is left, reactive power, rounds every 15 minutes.
SOUND: Document = yaml.safe_load("""
id: sound
title: One of each
source: {document: O, section: "3"}
sessions:
- id: year
  buyers: [dso]
  sellers: {levels: [distribution]}
  trades: active_capacity
  services: [congestion]
  gate: {opens: D-40T08:00, closes: D-30T12:00}
  horizon: {starts: D, ends: D+1, firm: rest}
  needs: requests
  grid: {distribution: none, transmission: none}
  interface: free
  pricing: pay_as_bid
  validation: static
  tender: {lasts: P1Y, windows: ["17:00/21:00"]}
- id: local
  buyers: [dso]
  sellers: {levels: [distribution]}
  sequence: day
  gate: {opens: D-1T08:00, closes: D-1T10:00}
  horizon: {starts: D, ends: D+1, firm: rest}
  needs: assessment
  grid: {distribution: ac, transmission: none, compare: [linear]}
  interface: fixed
  pricing: pay_as_bid
  validation: static
  admits: [year]
  forward: {to: central, offers: unused, carry: filter}
- id: central
  buyers: [tso, brp]
  priority: none
  sellers: {levels: [distribution, transmission]}
  gate: {opens: D-1T10:30, closes: D-1T12:00}
  horizon: {starts: D, ends: D+1, firm: rest}
  needs: requests
  grid: {distribution: capability, transmission: none}
  interface: netted
  pricing: pay_as_clear
  validation: traffic_light
- id: voltage
  buyers: [dso]
  sellers: {levels: [distribution]}
  trades: reactive_energy
  gate: {opens: D-1T13:00, closes: D-1T14:00}
  horizon: {starts: D, ends: D+1, firm: rest}
  needs: assessment
  grid: {distribution: linear, transmission: none}
  interface: free
  pricing: nodal
  validation: none
- id: near
  buyers: [tso]
  sellers: {levels: [distribution, transmission]}
  gate: {opens: D-1T23:30, closes: D-1T23:45}
  horizon: {starts: D, ends: D+PT7H, firm: PT15M}
  repeat: {every: PT15M, times: 96}
  needs: requests
  grid: {distribution: none, transmission: none}
  interface: netted
  pricing: marginal
  validation: merit_order
- id: last
  buyers: [dso, tso]
  sellers: {levels: [distribution]}
  scope: local
  gate: {opens: D-1T23:45, closes: D-1T23:50}
  horizon: {starts: D, ends: D+1, firm: rest}
  needs: both
  grid: {distribution: ac, transmission: ac}
  interface: free
  pricing: nodal
  validation: none
iterate: {sessions: [local, central]}
""")

YEAR, LOCAL, CENTRAL, VOLTAGE, NEAR, LAST = range(6)
SESSION = {"year": YEAR, "local": LOCAL, "central": CENTRAL, "voltage": VOLTAGE, "near": NEAR, "last": LAST}

# code, place, and what is said otherwise than in the sound document: path to value
BROKEN: list[tuple[str, str, Document]] = [
    ("repeated_id", "last.id", {"last.id": "near"}),
    ("repeated_buyer", "central.buyers", {"central.buyers": ["tso", "tso"]}),
    ("priority_of_one", "near.priority", {"near.priority": "none"}),
    ("turn_without_dso", "last.priority", {"last.buyers": ["tso", "dso"]}),
    ("repeated_level", "near.sellers.levels", {"near.sellers.levels": ["distribution", "distribution"]}),
    ("repeated_word", "year.services", {"year.services": ["congestion", "congestion"]}),
    ("needs_without_dso", "voltage.needs", {"voltage.buyers": ["tso"]}),
    ("needs_without_requests", "local.needs", {"local.buyers": ["dso", "brp"]}),
    ("bilateral_in_one", "central.priority", {"central.matching": "bilateral"}),
    ("groups_without_place", "voltage.grid.distribution", {"voltage.scope": "global"}),
    ("light_without_capability", "near.validation", {"near.validation": "traffic_light"}),
    ("validated_twice", "last.validation", {"last.validation": "merit_order"}),
    ("needs_without_grid", "voltage.grid.distribution", {"voltage.grid.distribution": "capability"}),
    ("two_physics", "last.grid.transmission", {"last.grid.transmission": "dc"}),
    ("compare_without_grid", "near.grid.compare", {"near.grid.compare": ["dc"]}),
    ("capability_without_lights", "local.grid.compare", {"local.grid.compare": ["capability"]}),
    ("repeated_model", "local.grid.compare", {"local.grid.compare": ["dc", "dc"]}),
    ("compare_with_means", "local.grid.compare", {"local.own_means": ["taps"]}),
    ("means_without_assessment", "near.own_means", {"near.own_means": ["taps"]}),
    ("means_without_ac", "voltage.own_means", {"voltage.own_means": ["capacitors"]}),
    ("nodal_without_grid", "near.pricing", {"near.pricing": "nodal"}),
    ("clear_without_requests", "local.pricing", {"local.pricing": "marginal"}),
    ("netted_without_requests", "local.interface", {"local.interface": "netted"}),
    ("interface_without_grid", "near.interface", {"near.interface": "fixed"}),
    ("priced_with_requests", "last.interface", {"last.interface": "priced"}),
    ("fixed_with_requests", "last.interface", {"last.interface": "fixed", "last.priority": "none"}),
    ("capacity_without_requests", "local.needs", {"local.trades": "active_capacity"}),
    ("capacity_in_flow", "year.grid.distribution", {"year.grid.distribution": "ac"}),
    ("reactive_without_voltage", "voltage.grid.distribution", {"voltage.grid.distribution": "dc"}),
    ("reactive_requested", "last.needs", {"last.trades": "reactive_energy", "last.buyers": ["brp"]}),
    ("phases_requested", "last.needs", {"last.trades": "phase_balancing"}),
    ("tender_without_capacity", "near.tender", {"near.tender": {"lasts": "P3M"}}),
    ("window_empty", "year.tender.windows[0]", {"year.tender.windows": ["22:00/06:00"]}),
    ("share_without_request", "local.request_share", {"local.request_share": 0.5}),
    ("contracts_without_admits", "near.sellers.resources", {"near.sellers.resources": ["contracts"]}),
    ("reserve_of_capacity", "year.reserve_share", {"year.reserve_share": 0.1}),
    ("scenarios_without_grid", "voltage.scenarios", {"voltage.scenarios": {"count": 5}}),
    (
        "reduction_without_request",
        "local.sellers.resources",
        {"local.sellers.resources": ["units", "voltage_reduction"]},
    ),
    ("unknown_session", "local.forward.to", {"local.forward.to": "central-2"}),
    ("unknown_session", "local.admits[0]", {"local.admits": ["years"]}),
    ("unknown_session", "near.exclusion.session", {"near.exclusion": {"session": "last", "first": "near"}}),
    (
        "unknown_session",
        "voltage.exclusion.first",
        {
            "voltage.gate.closes": "D-1T12:00",
            "voltage.gate.opens": "D-1T10:30",
            "voltage.exclusion": {"session": "central", "first": "year"},
        },
    ),
    ("excluded_apart", "near.exclusion.session", {"near.exclusion": {"session": "local", "first": "near"}}),
    ("excluded_apart", "voltage.exclusion.session", {"voltage.exclusion": {"session": "central", "first": "central"}}),
    ("never_decided", "voltage.horizon.firm", {"voltage.horizon.firm": "PT4H"}),
    ("never_decided", "year.horizon.firm", {"year.horizon.firm": "none"}),
    ("unknown_session", "iterate.sessions[1]", {"iterate.sessions": ["local", "centre"]}),
    ("admits_later", "year.admits[0]", {"year.admits": ["local"]}),
    ("admits_later", "local.admits[0]", {"local.admits": ["local"]}),
    ("admits_energy", "near.admits[0]", {"near.admits": ["local"]}),
    ("forward_back", "near.forward.to", {"near.forward": {"to": "local", "offers": "unused", "carry": "none"}}),
    ("forward_same", "local.forward.to", {"central.sequence": "day"}),
    ("carry_without_offers", "local.forward.carry", {"local.forward.offers": "none"}),
    (
        "aggregate_in_network",
        "local.forward.offers",
        {"local.forward": {"to": "voltage", "offers": "aggregated", "carry": "none"}},
    ),
    (
        "aggregate_of_reactive",
        "voltage.forward.offers",
        {"voltage.forward": {"to": "near", "offers": "aggregated", "carry": "none"}},
    ),
    ("sequence_is_session", "voltage.sequence", {"voltage.sequence": "central"}),
    ("reduction_of_capacity", "year.sellers.resources", {"year.sellers.resources": ["voltage_reduction"]}),
    ("bilateral_fixed", "local.interface", {"local.matching": "bilateral"}),
    ("scenarios_alone", "voltage.scenarios", {"voltage.grid.distribution": "ac", "voltage.scenarios": {"count": 5}}),
    ("iterate_apart", "iterate.sessions[1]", {"iterate.sessions": ["central", "local"]}),
    ("iterate_repeat", "iterate.sessions[1]", {"iterate.sessions": ["local", "near"]}),
    ("iterate_repeat", "iterate.sessions[0]", {"iterate.sessions": ["year", "local"]}),
    ("repeated_id", "iterate.sessions[2]", {"iterate.sessions": ["local", "central", "local"]}),
    ("mixed_products", "local.product", {"local.scope": "local", "last.product": "evening"}),
    ("gate_empty", "central.gate.closes", {"central.gate.opens": "D-1T12:00"}),
    ("gate_late", "near.gate.closes", {"near.gate.closes": "D"}),
    ("gate_late", "last.gate.closes", {"last.gate.closes": "D+PT1H"}),
    ("gate_order", "central.gate.closes", {"local.gate.closes": "D-1T12:30"}),
    ("horizon_empty", "central.horizon.ends", {"central.horizon.ends": "D"}),
    ("firm_too_long", "central.horizon.firm", {"central.horizon": {"starts": "D", "ends": "D+PT2H", "firm": "PT3H"}}),
    ("off_quarter_hour", "central.horizon.ends", {"central.horizon.ends": "D+PT20H10M"}),
    ("outside_day", "central.horizon.ends", {"central.horizon.ends": "D+2"}),
    ("sold_at_once", "last.gate.closes", {"last.gate.closes": "D-1T23:45", "last.gate.opens": "D-1T23:00"}),
    ("firm_hole", "sessions", {"last.horizon.starts": "D+PT1H"}),
    ("firm_hole", "near.horizon.firm", {"near.repeat": {"every": "PT1H", "times": 24}}),
    ("firm_overlap", "near.horizon.firm", {"near.horizon.firm": "PT30M"}),
    ("firm_overlap", "near.horizon.firm", {"near.horizon.firm": "rest"}),
    ("firm_overlap", "near.horizon.firm", {"near.sequence": "day"}),
    (
        "horizon_settled",
        "voltage.horizon",
        {
            "central.sequence": "afternoon",
            "central.horizon": {"starts": "D+PT12H", "ends": "D+1", "firm": "rest"},
            "voltage.sequence": "afternoon",
            "voltage.horizon.firm": "PT12H",
        },
    ),
]


def full(place: str) -> str:
    """local.gate.closes as sessions[1].gate.closes."""
    name, dot, rest = place.partition(".")
    return f"sessions[{SESSION[name]}]{dot}{rest}" if name in SESSION else place


def changed(changes: Document) -> Document:
    document = copy.deepcopy(SOUND)
    for place, value in changes.items():
        name, *steps, last = place.split(".")
        target = document["sessions"][SESSION[name]] if name in SESSION else document[name]
        for step in steps:
            target = target[step]
        target[last] = value
    return document


def test_the_document_is_sound_before_it_is_broken() -> None:
    assert len(read_design(written(SOUND)[0], "mine.yaml").sessions) == 6


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize(
    ("code", "place", "changes"), BROKEN, ids=[f"{code}-{i}" for i, (code, _, _) in enumerate(BROKEN)]
)
def test_what_breaks_a_rule_is_refused_with_its_place_its_line_and_the_remedy(
    code: str, place: str, changes: Document
) -> None:
    document = changed(changes)
    with pytest.raises(Refused) as refused:
        read_design(written(document)[0], "mine.yaml")
    (message,) = {
        found.message
        for found in refused.value.findings
        if (found.place, found.code) == (placed(document, full(place)), code)
    }
    # A sentence with the reason, and what to do.
    assert re.fullmatch(r".+[;.] .+\.", message)


def test_no_rule_is_without_a_document_that_breaks_it() -> None:
    source = Path(rules.__file__).read_text(encoding="utf-8")
    codes = set(re.findall(r'yield f?(?:"[^"]*"|\w+), "(\w+)"', source))
    assert len(codes) > 45
    assert codes == {code for code, _, _ in BROKEN}


@pytest.mark.spec("MKT-01")
def test_two_gates_that_close_at_once_are_sound_where_it_is_said_who_keeps_what_both_select() -> None:
    at_once = {"last.gate": {"opens": "D-1T23:00", "closes": "D-1T23:45"}}
    at_once |= {"near.repeat": None, "near.horizon.firm": "rest"}
    with pytest.raises(Refused):
        read_design(written(changed(at_once))[0], "mine.yaml")
    agreed = changed(at_once | {"last.exclusion": {"session": "near", "first": "last"}})
    assert read_design(written(agreed)[0], "mine.yaml").sessions[LAST].exclusion is not None


@pytest.mark.parametrize(
    "apart",
    [
        {"last.sellers.levels": ["transmission"], "near.sellers.levels": ["distribution"]},
        {"near.horizon.ends": "D+PT15M", "near.repeat": None, "last.horizon.starts": "D+PT15M", "last.scope": None},
        {"last.trades": "reactive_energy", "last.needs": "assessment"},
        {"near.trades": "active_capacity"},
        {"near.sellers.resources": ["voltage_reduction"]},
    ],
)
def test_gates_that_close_at_once_for_other_things_need_no_word_on_it(apart: Document) -> None:
    at_once = {"last.gate": {"opens": "D-1T23:00", "closes": "D-1T23:45"}}
    assert read_design(written(changed(at_once | apart))[0], "mine.yaml")


def test_rounds_that_meet_another_session_s_gate_later_in_the_day_are_found() -> None:
    document = changed(
        {
            "last.gate": {"opens": "D+PT1H", "closes": "D+PT5H"},
            "last.scope": None,
            "last.horizon": {"starts": "D+PT6H", "ends": "D+1", "firm": "rest"},
        }
    )
    with pytest.raises(Refused) as refused:
        read_design(written(document)[0], "mine.yaml")
    (found,) = refused.value.findings
    assert (found.code, found.place) == ("sold_at_once", placed(document, "sessions[5].gate.closes"))
