"""The merit order list: complete, in order, and each reason for a situation made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.clearing import MeritLine, Reason, Status
from coflex.domain.quantity import Direction, Floats
from coflex.grid.rows import AcGrid
from coflex.market.book import OrderBook, Place
from coflex.market.clearing import Answer, clear
from coflex.market.merit import merit_order, uncovered
from support.books import DOWN, START, UP, book, cleared, demand, offer, places_of
from support.small_grids import radial, solved


def listed(
    b: OrderBook,
    answer: Answer,
    shut: Mapping[int, tuple[Reason, str]] | None = None,
    capability_mw: Mapping[tuple[str, int], Floats] | None = None,
) -> tuple[MeritLine, ...]:
    return merit_order("session", b, answer, shut or {}, capability_mw or {}, lambda _: Status.DEFINITIVE)


def reasons(lines: tuple[MeritLine, ...]) -> dict[tuple[str, int], Reason]:
    """Reason by offer and quarter-hour (offers here have one step)."""
    return {(x.offer, int((x.start - START).total_seconds()) // 900): x.reason for x in lines}


def requested(*offers: Any, asked: Any, places: dict[str, Place] | None = None, lights: Any = None) -> Any:
    periods = len(offers[0].steps[0].quantity_kw)
    b = book(list(offers), periods, places)
    answer = cleared(b, demand(*asked), None, lights)
    return reasons(listed(b, answer, None, lights))


@pytest.mark.spec("MKT-05")
def test_accepted_marginal_out_of_merit_and_no_need() -> None:
    found = requested(
        offer(1, "a", UP, ("10.00", [100])),
        offer(2, "b", UP, ("20.00", [100])),
        offer(3, "c", UP, ("30.00", [100])),
        offer(4, "d", DOWN, ("5.00", [100])),
        asked=[(UP, 0, 150)],
    )
    assert found == {
        ("offer 1", 0): Reason.ACCEPTED,
        ("offer 2", 0): Reason.MARGINAL,
        ("offer 3", 0): Reason.OUT_OF_MERIT,
        ("offer 4", 0): Reason.NO_NEED,
    }


@pytest.mark.spec("MKT-05")
def test_red_and_yellow_lights() -> None:
    found = requested(
        offer(1, "a", UP, ("10.00", [100])),
        offer(2, "b", UP, ("11.00", [100])),
        offer(3, "c", UP, ("30.00", [500])),
        asked=[(UP, 0, 150)],
        places={"a": Place(-1, "red", 0.0), "b": Place(-1, "yellow", 0.0), "c": Place(-1, "free", 0.0)},
        lights={("red", 1): np.array([0.0]), ("yellow", 1): np.array([0.04])},
    )
    assert found[("offer 1", 0)] is Reason.RED_LIGHT
    assert found[("offer 2", 0)] is Reason.YELLOW_LIGHT
    assert found[("offer 3", 0)] is Reason.MARGINAL


@pytest.mark.spec("MKT-05")
@pytest.mark.parametrize(
    ("terms", "kw", "asked", "reason"),
    [
        ({"block": True}, [200], [(UP, 0, 150)], Reason.BLOCK_REFUSED),
        ({"min_quantity_kw": 180}, [200], [(UP, 0, 150)], Reason.MIN_QUANTITY),
    ],
)
def test_an_indivisible_offer_refused_although_its_price_was_good(
    terms: Any, kw: list[int], asked: Any, reason: Reason
) -> None:
    found = requested(offer(1, "a", UP, ("10.00", kw), **terms), offer(2, "b", UP, ("30.00", [500])), asked=asked)
    assert found[("offer 1", 0)] is reason and found[("offer 2", 0)] is Reason.MARGINAL


@pytest.mark.spec("MKT-05")
def test_energy_limit_run_length_and_exclusive() -> None:
    dear = offer(9, "z", UP, ("90.00", [500, 500, 500]))
    asked = [(UP, t, 150) for t in range(3)]
    energy = requested(offer(1, "a", UP, ("10.00", [100] * 3), energy_limit_kwh=50), dear, asked=asked)
    assert sorted(energy[("offer 1", t)] for t in range(3)) == [Reason.ACCEPTED] * 2 + [Reason.ENERGY_LIMIT]
    run = requested(offer(1, "a", UP, ("10.00", [100] * 3), max_periods=2), dear, asked=asked)
    assert sorted(run[("offer 1", t)] for t in range(3)) == [Reason.ACCEPTED] * 2 + [Reason.RUN_LENGTH]
    choice = requested(
        offer(1, "a", UP, ("10.00", [100] * 3), exclusive="x"),
        offer(2, "b", UP, ("12.00", [100] * 3), exclusive="x"),
        dear,
        asked=asked,
    )
    assert {choice[("offer 1", t)] for t in range(3)} == {Reason.ACCEPTED}
    assert {choice[("offer 2", t)] for t in range(3)} == {Reason.EXCLUSIVE}


@pytest.mark.spec("MKT-05")
def test_a_block_kept_out_beforehand_carries_the_reason_it_was_given() -> None:
    b = book([offer(1, "a", UP, ("10.00", [100])), offer(2, "b", UP, ("30.00", [100]))], 1)
    answer = clear(b, np.array([False, True]), demand((UP, 0, 50)))
    lines = listed(b, answer, {0: (Reason.HELD_ELSEWHERE, "held by another buyer")})
    assert (lines[0].reason, lines[0].detail) == (Reason.HELD_ELSEWHERE, "held by another buyer")
    assert reasons(lines)[("offer 2", 0)] is Reason.MARGINAL


@pytest.mark.spec("MKT-05")
def test_on_the_grid_no_effect_and_a_grid_limit_are_told_apart() -> None:
    network, state = solved(radial(i_max_a=98.0, v_min=0.9), load=1.3)
    places = places_of(network) | {"far": Place(-1, "", 0.0)}
    b = book(
        [
            offer(1, "A3", UP, ("30.00", [2500])),
            offer(2, "A2", DOWN, ("1.00", [500])),
            offer(3, "far", UP, ("1.00", [500])),
            offer(4, "A1", UP, ("95.00", [500])),
        ],
        1,
        places,
    )
    answer = cleared(b, None, AcGrid(network, state.p_mw, state.q_mvar))
    lines = {x.offer: x for x in listed(b, answer)}
    assert lines["offer 1"].reason is Reason.MARGINAL
    assert lines["offer 2"].reason is Reason.GRID_LIMIT
    assert lines["offer 3"].reason is Reason.NO_EFFECT
    assert lines["offer 4"].reason is Reason.OUT_OF_MERIT


@pytest.mark.spec("MKT-05")
def test_a_request_that_the_grid_holds_back_names_the_row() -> None:
    network, state = solved(radial(i_max_a=60.0, v_max=1.2), load=0.1, generation=0.0)
    b = book([offer(1, "A4", UP, ("10.00", [9000])), offer(2, "M0", UP, ("50.00", [9000]))], 1, places_of(network))
    answer = cleared(b, demand((UP, 0, 6000)), AcGrid(network, state.p_mw, state.q_mvar))
    lines = {x.offer: x for x in listed(b, answer)}
    assert lines["offer 1"].reason is Reason.GRID_LIMIT and lines["offer 1"].detail.startswith("loading ")
    assert 0 < lines["offer 1"].accepted_kw < 6000 and lines["offer 2"].accepted_kw > 0


@pytest.mark.spec("MKT-05")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_every_block_of_an_asking_quarter_hour_has_one_line_and_the_lines_add_to_the_awards(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offers = [
        offer(
            i + 1,
            f"unit {i}",
            UP if rng.random() < 0.5 else DOWN,
            *[(f"{rng.integers(100, 9000) / 100:.2f}", rng.integers(0, 200, 3).tolist()) for _ in range(2)],
        )
        for i in range(6)
    ]
    b = book(offers, 3)
    asked: list[tuple[Direction, int, int]] = [(UP, 0, int(rng.integers(1, 900))), (DOWN, 2, 50)]
    answer = cleared(b, demand(*asked))
    lines = listed(b, answer)
    seen = {(x.offer, x.step, x.start) for x in lines}
    assert len(seen) == len(lines) and sum(x.accepted_kw for x in lines) == answer.award_kw.sum()
    instants = tuple(b.axis)
    for d, t, _ in asked:
        here = [x for x in lines if x.start == instants[t] and x.direction is d]
        offered = (b.period == t) & (b.sign == d.sign)
        if offered.any():
            assert len(here) == offered.sum()
        assert [x.rank for x in here] == list(range(1, len(here) + 1))
        assert [x.price_eur_mwh for x in here] == sorted(x.price_eur_mwh for x in here)
        for x in here:
            whole = x.accepted_kw == x.offered_kw
            assert whole == (x.reason is Reason.ACCEPTED) and x.accepted_kw <= x.offered_kw
            assert x.reason in (Reason.ACCEPTED, Reason.MARGINAL, Reason.OUT_OF_MERIT)


@pytest.mark.spec("MKT-05")
def test_what_stays_uncovered_names_what_binds() -> None:
    lights = {("yellow", 1): np.array([0.03])}
    b = book([offer(1, "a", UP, ("10.00", [100]))], 1, {"a": Place(-1, "yellow", 0.0)})
    asked = demand((UP, 0, 80), (DOWN, 0, 20))
    found = {x.what: x for x in uncovered("session", b, asked, cleared(b, asked, None, lights))}
    assert found["request up"].amount == 50 and found["request up"].binding == ("light of yellow",)
    assert found["request down"].amount == 20 and found["request down"].binding == ("nothing more is offered",)
    network, state = solved(radial(i_max_a=70.0, v_min=0.9), load=1.3)
    small = book([offer(1, "A3", UP, ("10.00", [100]))], 1, places_of(network))
    answer = cleared(small, None, AcGrid(network, state.p_mw, state.q_mvar))
    left = uncovered("session", small, demand(), answer)
    assert "loading M1-A1" in {x.what for x in left}
    assert all(x.unit == "share of rating" and x.what in x.binding and x.amount > 0 for x in left)
