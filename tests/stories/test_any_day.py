"""What holds on every day, tried on a small grid."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.adapters.store.memory import MemoryStore
from coflex.domain.activation import SetPoint
from coflex.domain.clearing import Award, Holding, Status, Uncovered
from coflex.domain.offer import Offer
from coflex.domain.quantity import Direction
from coflex.domain.statement import Posting
from coflex.market.design import load_design
from coflex.process.clear import clear
from coflex.process.day import Day
from coflex.process.offer import collect
from coflex.process.plan import plan
from coflex.process.qualify import qualify
from coflex.process.register import register
from coflex.simulation.providers import SimulatedProviders
from coflex.simulation.tso import SimulatedTso
from support.command import coflex, contents
from support.days import cleared_day, nominations, settled_day
from support.small_case import small_case, small_folder


def awards(store: MemoryStore) -> list[tuple]:
    with store.transaction() as t:
        return [
            (a.session, a.offer, a.step, a.unit, a.group, a.start, a.quantity_kw, a.price_eur_mwh, a.status)
            for a in t.all(Award)
        ]


@pytest.mark.spec("MKT-19")
def test_offers_that_arrive_shuffled_get_the_same_awards_and_prices() -> None:
    case = small_case()
    as_sent, shuffled, reversed_ = (MemoryStore(case.zone) for _ in range(3))
    cleared_day(case, as_sent)
    cleared_day(case, shuffled, lambda offers: random.Random(5).sample(list(offers), len(offers)))
    cleared_day(case, reversed_, lambda offers: list(reversed(offers)))
    assert awards(as_sent) == awards(shuffled) == awards(reversed_)
    assert awards(as_sent)


@pytest.mark.spec("MKT-19")
def test_the_same_case_gives_the_same_bytes_in_another_process_with_another_hash_seed(tmp_path: Path) -> None:
    folder = small_folder(tmp_path)
    outcomes = []
    for seed in ("1", "4711"):
        out = tmp_path / f"out-{seed}"
        command = [sys.executable, "-m", "coflex", "run", str(folder), "--out", str(out)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        skipped = ("coflex.db", "timings.json")
        files = {f.name: f.read_bytes() for f in (out / "small").iterdir() if f.is_file() and f.name not in skipped}
        outcomes.append(files)
    assert outcomes[0].keys() == outcomes[1].keys()
    assert {"report.html", "awards.csv", "statements.csv", "planned_state.csv"} <= outcomes[0].keys()
    assert [name for name in outcomes[0] if outcomes[0][name] != outcomes[1][name]] == []


@pytest.mark.parametrize(
    ("on", "quarters"), [(date(2016, 3, 27), 92), (date(2016, 7, 5), 96), (date(2016, 10, 30), 100)]
)
@pytest.mark.spec("MKT-10")
def test_delivery_days_of_92_96_and_100_quarter_hours_run_to_the_money(on: date, quarters: int) -> None:
    day, store, settled = settled_day(small_case(day=on))
    assert len(day.case.axis) == quarters
    covered = sorted(start for plan in day.plans if plan.session.scope == "local" for start in plan.firm)
    assert covered == list(day.case.axis)
    with store.transaction() as t:
        assert {p.start for p in t.all(SetPoint)} <= set(day.case.axis)
        assert all(len(t.document(f"violations/{name}") or {}) for name in ("planned", "actual"))
    assert settled.paid_cents == settled.received_cents + settled.fee_cents


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
@pytest.mark.spec("MKT-09", "SET-06")
def test_on_any_seed_no_unit_is_sold_twice_and_the_money_balances(seed: int) -> None:
    case = small_case(seed)
    _, store, settled = settled_day(case)
    with store.transaction() as t:
        holdings = t.all(Holding)
        postings = t.all(Posting)
        points = t.all(SetPoint)
    assert len({(h.unit, h.start) for h in holdings}) == len(holdings)
    assert len({(p.unit, p.start) for p in points}) == len(points)
    assert sum(p.cents for p in postings) == 0
    booked = Counter(p.booking for p in postings)
    assert all(sum(p.cents for p in postings if p.booking == booking) == 0 for booking in booked)
    assert settled.paid_cents == settled.received_cents + settled.fee_cents


def test_needs_that_nobody_can_meet_leave_a_best_result_and_name_what_stays_uncovered() -> None:
    case = small_case()
    weak = replace(case, grid=replace(case.grid, buses=tuple(replace(b, v_max_pu=1.021) for b in case.grid.buses)))
    store = MemoryStore(weak.zone)
    cleared = cleared_day(weak, store)
    assert any(one.uncovered for one in cleared)
    with store.transaction() as t:
        short = t.all(Uncovered, session="local-1")
        bought = t.all(Award, buyer="dso")
    assert bought
    assert short
    assert all(one.amount > 0 and one.binding for one in short)


@pytest.mark.spec("MKT-01", "MKT-10")
def test_session_k_is_definitive_for_its_four_hours_and_nothing_stays_preliminary() -> None:
    case = small_case()
    store = MemoryStore(case.zone)
    cleared_day(case, store)
    day = Day(case, load_design("beflexible_six"))
    with store.transaction() as t:
        for award in t.all(Award):
            plan = day.plan(award.session)
            assert (award.status is Status.DEFINITIVE) == plan.firm.covers(award.start)
        assert not t.all(Award, status=Status.PRELIMINARY)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
@pytest.mark.spec("MKT-03", "MKT-09")
def test_no_unit_gives_more_energy_than_it_has_whoever_buys_it_and_what_is_local_only_stays_local(seed: int) -> None:
    day, store, _ = settled_day(small_case(seed))
    with store.transaction() as t:
        holdings, offers = t.all(Holding), t.all(Offer)
    given_kwh: Counter = Counter()
    for holding in holdings:
        given_kwh[(holding.unit, holding.direction)] += holding.quantity_kw * 0.25
    for (name, direction), kwh in given_kwh.items():
        unit = day.unit_by_id[name]
        most = unit.energy_up_kwh if direction is Direction.UP else unit.energy_down_kwh
        assert most is None or kwh <= most + 1e-6
    kept = {(offer.session, offer.unit) for offer in offers if offer.local_only}
    for holding in holdings:
        if holding.buyer == "tso":
            local = day.forwarder(day.plan(holding.session)).id
            assert (local, holding.unit) not in kept


def test_a_day_on_which_nothing_is_bought_is_still_measured_and_settled() -> None:
    case = small_case()
    calm = replace(
        case,
        grid=replace(case.grid, buses=tuple(replace(b, v_min_pu=0.8, v_max_pu=1.2) for b in case.grid.buses)),
        settings=replace(case.settings, tso=replace(case.settings.tso, up_mw=0.0, down_mw=0.0)),
    )
    _, store, settled = settled_day(calm)
    assert (settled.lines, settled.paid_cents) == (0, 0)
    with store.transaction() as t:
        assert t.document("violations/actual") == {"violations": []}


@pytest.mark.spec("PLAT-05")
def test_a_clearing_that_was_interrupted_after_its_offers_goes_on() -> None:
    case = small_case()
    whole, broken = MemoryStore(case.zone), MemoryStore(case.zone)
    cleared_day(case, whole)
    day = Day(case, load_design("beflexible_six"))
    first = day.plans[0]
    register(day, broken, first.opens)
    qualify(day, broken, first.opens)
    tso = SimulatedTso(case.settings.tso, case.settings.seed, case.zone)
    providers = SimulatedProviders(case.settings.seed, case.zone)
    plan(day, broken, first, first.opens, nominations(day), tso)
    collect(day, broken, first, providers)
    assert collect(day, broken, first, providers) == ()
    clear(day, broken, first, first.closes)
    with broken.transaction() as t, whole.transaction() as w:
        assert t.all(Offer, session=first.id) == w.all(Offer, session=first.id)


def test_the_state_of_a_day_never_lies_in_the_case_folder(tmp_path: Path) -> None:
    folder = small_folder(tmp_path)
    before = contents(folder)
    for out in (tmp_path, folder):
        done = coflex("run", folder, "--out", out)
        assert done.exit_code == 1
        assert "own folder" in done.stderr
    assert contents(folder) == before
