"""What the field brings for settlement: due until it is there, taken once, superseded and never written over (SET-01,
SET-02)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.domain.activation import Piece
from coflex.domain.errors import Forbidden, Refused
from coflex.domain.reading import Quality
from coflex.domain.series import Series
from coflex.domain.time import Axis, midnight
from coflex.metering.baselines.compute import Asked, compute
from coflex.metering.baselines.document import load_method
from coflex.metering.delivery import energy_kwh
from coflex.register.activations import OrderKind, OrderState, SetPointEntry
from coflex.register.devices import DataGrant, DataScope, Device
from coflex.register.products import ProductEntry
from coflex.register.settlement import BaselineDay, MeteredDay, SettlementTerms, Terms
from coflex.service.machine import Machine
from coflex.service.reading import records
from coflex.service.replay import fingerprint, replay
from coflex.service.settling import Due, due, period_of, rule_of_catalogue, usual_methods, zone_of
from coflex.service.verbs.metered import form_of
from coflex.settlement.document import By, Payer
from coflex.settlement.shelf import rule_text
from support.ordered import BEGIN, QUARTER, at
from support.platform import DAY, LONG_AGO, LONG_AHEAD, TEST_VERBS, put
from support.settled import LOG, PERIOD, QUARTERS, UNITS, Settled

WHOLE = [f"{-50 - k}.5" for k in range(96)]


def wanted(world: Settled, **more: Any) -> dict[str, Due]:
    return {one.unit: one for one in due(world.state, world.now, **more)}


def codes(caught: pytest.ExceptionInfo[Refused]) -> set[str]:
    return {finding.code for finding in caught.value.findings}


# ---------------------------------------------------------------- what is due


@pytest.mark.spec("SET-02")
def test_a_day_is_due_once_it_is_over_and_until_it_is_brought() -> None:
    world = Settled(minutes=24 * 60 - 1)
    assert wanted(world) == {}
    world.to(24 * 60)
    found = wanted(world)
    assert {unit: one.quarters for unit, one in found.items()} == dict.fromkeys(UNITS, QUARTERS)
    assert all(one.baseline is None and one.day == DAY and len(one.axis) == 96 for one in found.values())
    world.bring({("cu-0001", start): "-25" for start in QUARTERS[:3]})
    assert wanted(world)["cu-0001"].quarters == QUARTERS[3:]
    world.bring_all(u0001="-25", u0003="-37.5")
    assert wanted(world) == {}


@pytest.mark.spec("SET-02")
def test_what_is_estimated_from_a_part_of_its_quarter_hour_stays_due_until_it_is_whole() -> None:
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")
    estimated = {"unit": "cu-0001", "start": QUARTERS[1], "kwh": "-26", "quality": "estimated", "leaf": 0}
    world.do("metered.bring", actor="field", log=LOG, log_size=101, metered=[estimated])
    assert {name: one.quarters for name, one in wanted(world).items()} == {"cu-0001": (QUARTERS[1],)}
    whole = estimated | {"kwh": "-24", "quality": "measured"}
    world.do("metered.bring", actor="field", log=LOG, log_size=102, metered=[whole])
    assert wanted(world) == {}


@pytest.mark.spec("SET-02")
def test_what_is_known_to_be_missing_stays_due_for_forty_five_days() -> None:
    world = Settled()
    world.bring_all(u0001=None, u0003="-37.5")
    assert list(wanted(world)) == ["cu-0001"]
    world.to(24 * 60 * 31)
    assert wanted(world)["cu-0001"].quarters == QUARTERS
    world.to(24 * 60 * 46)
    assert wanted(world) == {}


def test_the_list_goes_on_behind_what_was_seen() -> None:
    world = Settled()
    (first,) = due(world.state, world.now, limit=1)
    (second,) = due(world.state, world.now, after=(first.day, first.unit))
    assert (first.unit, second.unit) == UNITS
    assert due(world.state, world.now, after=(second.day, second.unit)) == ()


@pytest.mark.spec("SET-01")
def test_without_a_nomination_a_baseline_is_due_with_all_that_computing_it_needs() -> None:
    world = Settled(foreseen=None)
    world.do("device.enrol", "owner", unit="cu-0001", public_key=f"{1:064x}")
    asked = wanted(world)["cu-0001"].baseline
    assert asked is not None and asked.event == QUARTERS and asked.notice == world.order.ordered_at
    # products.yaml, manual_restoration, without zero, which has to be agreed; last_4_alike looks back 45 days
    assert asked.methods == ("nominated", "last_4_alike", "meter_before", "control_difference")
    assert DAY - asked.oldest >= timedelta(days=45) and asked.nomination == ()
    assert wanted(world)["cu-0001"].points == (world.state.all(Device)[0].point,)


@pytest.mark.spec("SET-01")
def test_of_two_products_on_a_day_a_baseline_is_due_that_serves_both() -> None:
    """The first one has its nomination; the other is settled on past days alone."""
    world = Settled()
    pieces = (Piece(at(120), at(135), 40),)
    other = replace(
        world.order, id="activation-x", kind=OrderKind.SUCCESSION, product="local_energy", offer="sp-1/x",
        unit="cu-0001", group=None, awarded=pieces, profile=pieces, ordered_at=at(1), state=OrderState.SPLIT,
    )  # fmt: skip
    point = world.state.get(SetPointEntry, f"{world.order.id}.cu-0001")
    told = replace(point, id="activation-x.cu-0001", order="activation-x", profile=pieces)
    document = rule_of_catalogue(world.state.get(ProductEntry, "local_energy").product).model_dump_json()
    own = SettlementTerms("local_energy", (Terms(DAY, "own", document, ("last_4_alike", "last_4_alike_additive")),))
    world.sequencer.submit(put([other, told, own]))
    asked = wanted(world)["cu-0001"].baseline
    assert asked is not None and asked.methods == ("last_4_alike", "last_4_alike_additive")
    assert asked.event == (*QUARTERS, at(120)) and asked.notice == world.order.ordered_at
    world.bring_all(u0001="-25", u0003="-37.5")
    world.bring({("cu-0001", at(120)): "-40"}, baselines=[world.baseline("cu-0001", WHOLE)])
    assert wanted(world) == {}
    # where the first needs one too, it is one of those that both allow
    world.foresee({"cu-0003": -200.0, "cu-0005": -200.0})
    assert wanted(world) == {}
    brought = world.state.all(BaselineDay)[0]
    world.sequencer.submit(put([replace(brought, method="meter_before")]))
    asked = wanted(world)["cu-0001"].baseline
    assert asked is not None and asked.methods == ("last_4_alike",)


@pytest.mark.spec("SET-01")
def test_a_baseline_that_was_brought_is_due_no_more_even_one_that_could_not_be_made() -> None:
    world = Settled(foreseen=None)
    world.bring_all(u0001="-25", u0003="-37.5")
    none = world.baseline("cu-0003", []) | {"note": "3 days instead of 4"}
    told = world.bring({}, baselines=[world.baseline("cu-0001", WHOLE), none])
    assert told == {"taken": 2, "same": 0, "stale": [], "unknown": []} and wanted(world) == {}
    assert world.state.get(BaselineDay, f"cu-0001@{PERIOD}").kwh[:2] == (Decimal("-50.5"), Decimal("-51.5"))


@pytest.mark.spec("SET-01")
def test_other_terms_ask_for_their_own_baseline() -> None:
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")
    assert wanted(world) == {}
    terms = Terms(DAY, "mfrr", rule_text("mfrr"), ("last_4_alike", "nominated"))
    world.sequencer.submit(put([SettlementTerms("global_energy", (terms,))]))
    asked = wanted(world)["cu-0001"].baseline
    assert asked is not None and asked.methods == ("last_4_alike", "nominated")
    assert asked.nomination == (-200.0,) * 96


# ---------------------------------------------------------------- what is taken


@pytest.mark.spec("SET-02")
def test_the_same_again_changes_nothing() -> None:
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")
    world.bring({}, baselines=[world.baseline("cu-0001", WHOLE)])
    before, notes = fingerprint(world.machine), len(world.notes("owner", "metered.brought"))
    assert world.bring_all(u0001="-25.000", u0003="-37.5")["same"] == 8
    assert world.bring({}, baselines=[world.baseline("cu-0001", WHOLE)])["same"] == 1
    assert fingerprint(world.machine) == before and len(world.notes("owner", "metered.brought")) == notes


@pytest.mark.spec("SET-02")
def test_a_larger_log_supersedes_a_smaller_one_is_stale_and_the_journal_keeps_both() -> None:
    world, first = Settled(), ("cu-0001", QUARTERS[0])
    world.bring({first: "-25"}, log_size=100)
    assert world.bring({first: "-26"}, log_size=99)["stale"] == [f"cu-0001@{BEGIN.isoformat()}"]
    assert world.bring({first: "-27.125"}, log_size=200)["taken"] == 1
    (now,) = world.state.get(MeteredDay, f"cu-0001@{PERIOD}").quantities
    assert (now.kwh, now.version, now.log_size) == (Decimal("-27.125"), 2, 200)
    versions = world.journal.history("demo", "metered_day", f"cu-0001@{PERIOD}")
    assert [b'"kwh":"-25.000"' in (one.body or b"") for one in versions] == [True, False]
    assert [one["corrected"] for one in world.notes("mo", "metered.brought")] == [True]


@pytest.mark.spec("SET-02")
def test_the_platform_keeps_no_reading_that_settlement_does_not_need() -> None:
    world = Settled()
    told = world.bring({("cu-0001", at(60)): "-25", ("cu-0002", BEGIN): "-25", ("cu-0001", at(7)): "1"})
    assert told["taken"] == 0 and len(told["unknown"]) == 3 and world.state.all(MeteredDay) == ()
    told = world.bring({}, baselines=[world.baseline("cu-0002", WHOLE), world.baseline("cu-0001", WHOLE, "rolling")])
    assert told["unknown"] == [f"cu-0001@{PERIOD}", f"cu-0002@{PERIOD}"] and world.state.all(BaselineDay) == ()


@pytest.mark.spec("SET-02")
def test_what_is_not_sound_is_refused_with_every_fault() -> None:
    world = Settled()
    rows = [
        {"unit": "cu-0001", "start": BEGIN, "quality": "missing", "kwh": "1"},
        {"unit": "cu-0001", "start": BEGIN, "quality": "measured", "kwh": "1.0001"},
        {"unit": "cu-0003", "start": BEGIN, "quality": "measured", "kwh": "1", "leaf": 5},
    ]
    wrong = world.baseline("cu-0001", WHOLE[:92]) | {"fingerprint": "0" * 64, "record": "x"}
    with pytest.raises(Refused) as caught:
        world.do("metered.bring", actor="field", log="a\nb", log_size=5, metered=rows, baselines=[wrong, wrong])
    assert codes(caught) == {"text", "quality", "repeated", "grain", "leaf", "method", "digest", "count"}
    for party in ("mo", "sp-1", "owner"):
        with pytest.raises(Forbidden):
            world.do("metered.bring", party, log="l", log_size=1)


@pytest.mark.spec("SET-02", "REG-11")
def test_owner_provider_and_whom_the_owner_lets_see_know_what_was_metered() -> None:
    world = Settled()
    world.bring_all(u0001="-25", u0003="-37.5")

    def seen(party: str) -> list[str]:
        return [one.unit for one, _ in records(world.state, world.who(party), MeteredDay)]

    assert seen("owner") == seen("sp-1") == seen("mo") == list(UNITS)
    assert seen("sp-2") == seen("tso") == seen("dso") == []
    scope = (DataScope.CERTIFIED,)
    world.sequencer.submit(put([DataGrant("g", "owner", "cu-0003", "dso", scope, LONG_AGO, LONG_AHEAD)]))
    assert seen("dso") == ["cu-0003"] and seen("tso") == []
    world.do("data_grant.withdraw", "owner", "g")
    assert seen("dso") == []


@pytest.mark.spec("SET-01", "SET-02")
def test_what_is_due_is_enough_to_compute_it_from_readings() -> None:
    """A worker, by hand: cu-0001 drew 200 kW on the days before and 100 kW in its hour, cu-0003 has no past."""
    world = Settled(foreseen=None)
    zone = zone_of(world.state)
    for one in due(world.state, world.now):
        asked = one.baseline
        assert asked is not None
        axis = Axis(midnight(asked.oldest, zone), (one.axis.end - midnight(asked.oldest, zone)) // QUARTER)
        kw = np.full((1, len(axis)), -200.0 if one.unit == "cu-0001" else np.nan)
        kw[0, [axis.position(start) for start in one.quarters]] = -100.0
        ask = Asked(one.unit, asked.event[0], asked.event[-1] + QUARTER, asked.notice)
        tried = (compute(Series((one.unit,), axis, kw), zone, ask, load_method(name)) for name in asked.methods[:2])
        made = next((record for record in tried if record.values_kw), None)
        made = made or compute(Series((one.unit,), axis, kw), zone, ask, load_method(asked.methods[0]))
        rows = {(one.unit, start): str(energy_kwh(-100.0)) for start in one.quarters}
        assert world.bring(rows, baselines=[form_of(made)])["taken"] == 5
    assert due(world.state, world.now) == ()
    first, second = (world.state.get(BaselineDay, f"{unit}@{PERIOD}") for unit in UNITS)
    assert (first.method, set(first.kwh)) == ("last_4_alike", {Decimal("-50.000")})
    assert (second.method, second.kwh, second.note) == ("nominated", (), "nothing was nominated")
    run = world.settle(incomplete=True)
    assert (run.unmetered, run.received_cents) == (4, 400)


QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
brought = st.lists(
    st.tuples(st.sampled_from(UNITS), st.integers(0, 5), st.sampled_from(["-25", "-30.5", None]), st.integers(1, 4)),
    max_size=12,
)


@pytest.mark.spec("SET-02", "PLAT-05")
@settings(max_examples=10, **QUIET)
@given(brought)
def test_what_stands_is_the_last_word_of_a_log_no_smaller_than_the_one_before(rows: list[Any]) -> None:
    """Against a model of three lines; `due` and the records agree after each command, and the journal alone gives the
    same."""
    world = Settled(minutes=24 * 60)
    model: dict[Any, tuple[Decimal | None, int, int]] = {}
    for unit, place, kwh, size in rows:
        start = at(15 * place)
        world.bring({(unit, start): kwh}, log_size=size)
        said = None if kwh is None else Decimal(kwh)
        stood, top, version = model.get((unit, start), (Decimal("NaN"), 0, 0))
        if place < 4 and size >= top and said != stood:
            model[unit, start] = said, size, version + 1
        day = world.state.find(MeteredDay, f"{unit}@{PERIOD}")
        known = {one.start: one for one in day.quantities} if day is not None else {}
        assert {(start, one.kwh, one.log_size, one.version) for start, one in known.items()} == {
            (at, *one) for (whose, at), one in model.items() if whose == unit
        }
        lacking = wanted(world)
        done = {one.start for one in known.values() if one.quality is not Quality.MISSING}
        assert set(lacking[unit].quarters if unit in lacking else ()) == set(QUARTERS) - done
    machine = Machine(TEST_VERBS)
    assert list(replay(world.journal.entries(0, 10_000), machine)) == []
    assert fingerprint(machine) == fingerprint(world.machine)


# ---------------------------------------------------------------- periods and the catalogue


def test_a_period_is_a_month_or_a_day_of_the_market() -> None:
    world = Settled(minutes=0)
    month, day = period_of(world.state, "2016-07"), period_of(world.state, PERIOD)
    assert (month.first.day, month.last.day, day.first) == (1, 31, DAY) and day.starts == BEGIN
    assert (month.ends - month.starts, day.ends - day.starts) == (timedelta(days=31), timedelta(days=1))
    march = period_of(world.state, "2016-03-27")
    assert march.ends - march.starts == timedelta(hours=23)
    for name in ("2016", "2016-13", "2016-02-30", "july", "2016-07-05x", "0000-01", "9999-12"):
        with pytest.raises(Refused):
            period_of(world.state, name)


@pytest.mark.spec("SET-02")
def test_a_baseline_that_has_to_be_agreed_is_taken_only_where_terms_name_it() -> None:
    """Of zero, whoever feeds in all day would be paid for it."""
    for service in ("congestion_management", "manual_restoration", "frequency_containment", "heat"):
        assert not {"zero", "contracted"} & set(usual_methods(service, "global_energy"))
    assert usual_methods("automatic_restoration", "p")[0] == "nominated"


@pytest.mark.spec("SET-02", "REG-06")
def test_a_product_whose_terms_make_no_rule_is_refused_with_its_fault() -> None:
    product = Settled().state.get(ProductEntry, "global_energy").product
    with pytest.raises(Refused) as caught:
        rule_of_catalogue(replace(product, tolerance=Decimal(1)))
    assert [(one.place, one.code) for one in caught.value.findings] == [("tolerance", "rule")]


@pytest.mark.spec("SET-03")
def test_the_catalogue_alone_makes_a_rule_with_its_tolerance_and_penalty() -> None:
    world = Settled(minutes=0)
    products = {one.id: one.product for one in world.state.all(ProductEntry)}
    rules = {name: rule_of_catalogue(one) for name, one in products.items()}
    assert rules["global_energy"].delivered.by is By.REQUESTED and rules["local_energy"].delivered.by is By.METERED
    for one in rules.values():
        assert (one.delivered.tolerance, one.penalty.share) == (Decimal("0.1"), Decimal("0.5"))
        assert set(one.payers.values()) == {Payer.BUYER} and list(one.faults()) == []
