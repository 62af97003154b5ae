from __future__ import annotations

import pytest

from coflex.market.design import designs, load_design, read_design
from coflex.market.design.operating import unheld


def test_the_operating_day_holds_the_design_it_was_built_for() -> None:
    assert list(unheld(load_design("beflexible_six"))) == []


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize("name", [name for name in designs() if name != "beflexible_six"])
def test_a_design_it_does_not_hold_is_refused_with_place_and_reason(name: str) -> None:
    findings = list(unheld(load_design(name)))
    assert findings, name
    assert all(one.code == "not_held" and one.place.startswith(f"{name}: ") for one in findings)
    assert all("coflex compare" in one.message for one in findings)


def test_each_key_is_named_where_it_stands() -> None:
    found = {one.place.removeprefix("platone_real_time: ") for one in unheld(load_design("platone_real_time"))}
    assert "sessions[0].scope" in found
    assert any(place.endswith(".validation") for place in found)
    document = """
id: two_at_once
title: Two buyers at once
source: {document: own, section: none}
sessions:
- id: one
  buyers: [dso, tso]
  priority: none
  scope: local
  sellers: {levels: [distribution]}
  gate: {opens: "D-1T08:00", closes: "D-1T10:00"}
  horizon: {starts: "D", ends: "D+1", firm: rest}
  needs: both
  grid: {distribution: ac, transmission: ac}
  interface: netted
  pricing: pay_as_bid
  validation: static
  reserve_share: 0.1
"""
    found = {one.place.removeprefix("two_at_once: sessions[0].") for one in unheld(read_design(document, "mine.yaml"))}
    assert found == {"buyers", "needs", "grid.transmission", "reserve_share"}
