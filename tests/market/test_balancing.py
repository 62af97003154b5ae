"""Rounding that keeps balances: every case small enough to be told by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coflex.domain.quantity import Direction, Floats
from coflex.market.balancing import held
from coflex.market.book import Place
from coflex.market.model import Demand, assemble
from support.books import DOWN, UP, book, offer

Line = tuple[str, Direction, str, int, float]


def balance(zones: list[int], kw: list[int]) -> Demand:
    sign = np.where(np.array(kw) < 0, -1, 1).astype(np.int64)
    period = np.zeros(len(kw), dtype=np.int64)
    return Demand(sign, period, np.abs(kw) / 1000.0, np.full(len(kw), np.inf), True, np.array(zones))


def settled(
    lines: list[Line],
    asked: Demand,
    *,
    terms: Mapping[int, dict[str, Any]] | None = None,
    places: Mapping[str, Place] | None = None,
    lights: Mapping[tuple[str, int], Floats] | None = None,
    missing_kw: tuple[float, ...] = (),
    reactive: tuple[int, ...] = (),
) -> list[int]:
    """Whole kW of lines (unit, direction, price, offered kW, linear kW), in their order; lines numbered in `reactive`,
    from 1, are of reactive power."""
    offers = [
        offer(i, unit, way, (price, [kw]), **(terms or {}).get(i, {}))
        for i, (unit, way, price, kw, _) in enumerate(lines, start=1)
    ]
    b = book(offers, 1, places)
    of_reactive = np.isin(b.offer + 1, reactive)
    b = replace(b, p_share=np.where(of_reactive, 0.0, 1.0), tan_phi=np.where(of_reactive, 1.0, b.tan_phi))
    model = assemble(b, np.arange(len(b)), asked, lights)
    x = np.zeros(len(model.fixed.cost))
    linear = np.array([lines[int(o)][4] for o in b.offer])
    x[: len(b)] = linear / 1000
    x[len(b) : len(b) + len(missing_kw)] = np.array(missing_kw) / 1000
    award = held(model, x, np.floor(linear).astype(np.int64))
    return [int(award[b.offer == i].sum()) for i in range(len(lines))]


@pytest.mark.spec("MKT-06")
def test_the_kw_goes_to_the_award_that_lost_most() -> None:
    lines: list[Line] = [("a", UP, "10", 99, 10.4), ("b", UP, "90", 99, 20.6), ("c", DOWN, "-99", 31, 31.0)]
    assert settled(lines, balance([-1], [0])) == [10, 21, 31]
    # A fraction of a kW that is asked for is no kW.
    assert settled(lines, Demand(np.ones(1, int), np.zeros(1, int), np.array([5e-4]), np.ones(1), True)) == [10, 21, 31]


@pytest.mark.spec("MKT-06")
def test_what_two_buyers_lost_goes_to_the_one_who_pays_more() -> None:
    lines: list[Line] = [("a", UP, "10", 30, 30.0), ("b", DOWN, "-50", 99, 10.5), ("c", DOWN, "-60", 99, 19.5)]
    assert settled(lines, balance([-1], [0])) == [30, 10, 20]


@pytest.mark.spec("MKT-06")
def test_offers_with_terms_stay_and_the_cheapest_partly_bought_gives_way() -> None:
    lines: list[Line] = [
        ("a", UP, "10", 99, 10.5),
        ("b", UP, "20", 99, 9.5),
        ("c", UP, "50", 40, 10.0),
        ("d", DOWN, "-60", 99, 30.0),
    ]
    terms = {1: {"min_quantity_kw": 10}, 2: {"energy_limit_kwh": 30}}
    # One more of c costs 50, one less for d 60.
    assert settled(lines, balance([-1], [0]), terms=terms) == [10, 9, 11, 30]
    lines[2] = ("c", UP, "70", 40, 10.0)
    assert settled(lines, balance([-1], [0]), terms=terms) == [10, 9, 10, 29]
    everyone = {i: {"min_quantity_kw": 1} for i in range(1, 5)}
    assert settled(lines, balance([-1], [0]), terms=everyone) == [10, 9, 10, 30]


@pytest.mark.spec("MKT-06")
def test_a_full_light_and_a_unit_that_sells_the_other_way_keep_their_kw() -> None:
    lines: list[Line] = [("a", UP, "10", 99, 10.9), ("b", UP, "20", 99, 20.1), ("c", DOWN, "-99", 31, 31.0)]
    places = {"a": Place(-1, "F", 0.0)}
    assert settled(lines, balance([-1], [0]), places=places) == [11, 20, 31]
    assert settled(lines, balance([-1], [0]), places=places, lights={("F", 1): np.array([0.0105])}) == [10, 21, 31]
    lines = [("a", UP, "10", 99, 10.9), ("b", UP, "20", 99, 20.1), ("a", DOWN, "-99", 31, 31.0)]
    assert settled(lines, balance([-1], [0])) == [10, 21, 31]


@pytest.mark.spec("MKT-06")
def test_zones_come_first_and_one_for_all_moves_what_no_zone_holds() -> None:
    lines: list[Line] = [
        ("a", UP, "10", 99, 10.5),
        ("b", DOWN, "-20", 99, 10.5),
        ("c", UP, "10", 99, 7.4),
        ("d", UP, "10", 99, 7.6),
        ("e", UP, "10", 99, 20.9),
        ("f", DOWN, "-90", 99, 16.0),
    ]
    places = {unit: Place(-1, "", 0.0, zone) for unit, zone in zip("abcdef", (0, 0, 1, 1, -1, -1), strict=True)}
    # Zone 0 stands at 0 as it is; zone 1 lacks one of 15; all lack then 20 of which e has 20.9 and f takes 16.
    asked = balance([-1, 0, 1], [20, 0, 15])
    assert settled(lines, asked, places=places) == [10, 10, 7, 8, 21, 16]
    # What the linear answer leaves uncovered is not held: zone 1 misses 5, and its kW serve the request for all.
    asked = balance([-1, 0, 1], [19, 0, 20])
    assert settled(lines, asked, places=places, missing_kw=(0, 0, 5.0)) == [10, 10, 7, 7, 21, 16]


@pytest.mark.spec("MKT-06")
def test_balances_of_kvar_and_of_kw_are_held_apart() -> None:
    lines: list[Line] = [
        ("a", UP, "10", 99, 10.9),
        ("b", UP, "20", 99, 20.1),
        ("c", DOWN, "-99", 31, 31.0),
        ("d", UP, "10", 99, 7.6),
        ("e", UP, "10", 99, 7.4),
        ("f", DOWN, "-90", 99, 10.0),
    ]
    both = replace(balance([-1, -1], [0, 5]), reactive=np.array([True, False]))
    # The kvar goes to a, the kW to d; in any order of the requests.
    assert settled(lines, both, reactive=(1, 2, 3)) == [11, 20, 31, 8, 7, 10]
    assert settled(lines, both.part(np.array([1, 0])), reactive=(1, 2, 3)) == [11, 20, 31, 8, 7, 10]
    # A light that is full of kW leaves kvar alone, and so does what the unit sells of active power.
    lines = [("a", UP, "10", 99, 10.9), ("b", UP, "20", 99, 20.1), ("c", DOWN, "-99", 31, 31.0)]
    lines += [("a", DOWN, "5", 99, 9.0), ("d", UP, "5", 99, 8.0)]
    kvar = replace(balance([-1], [0]), reactive=np.array([True]))
    places = {unit: Place(-1, "F", 0.0) for unit in "ad"}
    lights = {("F", 1): np.array([0.008])}
    assert settled(lines, kvar, places=places, lights=lights, reactive=(1, 2, 3)) == [11, 20, 31, 9, 8]
    # Of the same kind, the unit that sells the other way keeps its award.
    assert settled([*lines[:2], ("a", DOWN, "-99", 31, 31.0)], kvar, reactive=(1, 2, 3)) == [10, 21, 31]
