"""What docs/coordination-study.md says of its numbers, on a small part of the study that it tells of."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import lru_cache
from pathlib import Path
from statistics import fmean, median
from types import ModuleType
from typing import Any

import pytest

from coflex.market.coordination.run import run
from coflex.market.design import Design, load_design, read_design

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/coordination-study.md"


def _study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coordination_study", ROOT / "tools/coordination_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


study = _study()
A, B, C, D = "smartnet_a", "smartnet_b", "smartnet_c", "smartnet_d_one"


@lru_cache
def totals(congestion: float, seed: int = 1) -> dict[str, float]:
    found = study.schemes(study.Place(congestion, 0.0, seed), (A, B, C, D))
    return {one.design: one.total for one in found}


@lru_cache
def wrong(congestion: float, seed: int = 1) -> dict[str, Any]:
    """Rows of A, B and D where forecasts are wrong."""
    return {one.design: one for one in study.schemes(study.Place(congestion, 1.0, seed), (A, B, D))}


@lru_cache
def fragmented() -> dict[str, float]:
    """Totals of the fragmented market by its interfaces, and of the common one, where congestions are few."""
    rows = study.sequential(study.Place(0.8, 0.0, 1), (study.FRAGMENTED,), rounds=False)
    return {one.design.removeprefix(f"{study.FRAGMENTED}: "): one.total for one in rows}


def without_margin(name: str) -> Design:
    document = load_design(name).model_dump(mode="json")
    for session in document["sessions"]:
        session["security_margin"] = None
    return read_design(json.dumps(document), name)


# ---------------------------------------------------------------- few and many congestions


@pytest.mark.spec("PLAT-03")
def test_few_congestions_favour_the_centralised_scheme_by_little() -> None:
    cost = totals(0.65)
    assert cost[A] < min(cost[B], cost[D])
    assert max(cost[B], cost[D]) < 1.01 * cost[A]


@pytest.mark.spec("PLAT-03")
def test_many_congestions_favour_local_and_common() -> None:
    cost = totals(1.0)
    assert cost[A] > 1.2 * max(cost[B], cost[D])
    assert cost[D] < cost[B] < 1.01 * cost[D]


def test_balancing_each_grid_by_itself_is_the_dearest_with_few_and_with_many() -> None:
    for congestion in (0.65, 1.0):
        cost = totals(congestion)
        assert max(cost, key=lambda name: cost[name]) == C


def test_what_the_centralised_scheme_saves_is_the_margin_to_limits() -> None:
    place = study.Place(0.65, 0.0, 1)
    world = place.world()
    central, common = (study.row(x, place, world, run(without_margin(x), world)).total for x in (A, D))
    assert central == pytest.approx(common, abs=0.5)


def test_with_wrong_forecasts_and_few_congestions_it_depends_on_the_day_and_with_many_it_does_not() -> None:
    fine, dear, many = wrong(0.65), wrong(0.65, 2), wrong(1.0)
    assert fine[A].foreseen < min(fine[B].foreseen, fine[D].foreseen)
    assert dear[A].foreseen > max(dear[B].foreseen, dear[D].foreseen)
    assert many[A].foreseen > 1.2 * max(many[B].foreseen, many[D].foreseen)
    # Nothing was broken without a market: what A leaves broken, it has broken itself.
    assert (dear[A].without, dear[D].left) == (0, 0)
    assert dear[A].left > 0


def test_energy_that_forecasts_miss_is_the_same_for_all() -> None:
    missed = {round(one.balance, 2) for one in wrong(0.65).values()}
    assert len(missed) == 1
    assert missed.pop() > 10_000


# ---------------------------------------------------------------- sequential markets


@pytest.mark.spec("PLAT-03")
def test_a_good_price_at_the_interface_brings_the_fragmented_market_near_the_common_one() -> None:
    cost = fragmented()
    common = cost[study.COMMON]
    assert common < cost[study.AT_COMMON_PRICE] < 1.03 * common
    assert cost["free, netted"] > 1.15 * common


def test_a_bad_price_at_the_interface_is_worse_than_none_and_not_telling_than_telling() -> None:
    cost = fragmented()
    assert cost["priced, netted"] > 2 * cost["free, netted"]
    assert cost["free, netted"] < cost["fixed, netted"] < cost["free, free"]


@pytest.mark.slow
def test_what_is_left_over_brings_the_multi_level_market_near_the_common_one() -> None:
    place = study.Place(0.8, 0.0, 1)
    world = place.world()
    common = run(load_design(study.COMMON), world)
    designs = study.sequence(study.MULTI_LEVEL, "free", "netted"), study.iterated(study.MULTI_LEVEL)
    cost = study.row("common", place, world, common).total
    for design in designs:
        assert study.row(design.id, place, world, run(design, world)).total == pytest.approx(cost, rel=0.002)


@pytest.mark.slow
def test_markets_that_answer_each_other_come_to_the_common_one_on_the_same_grid_model() -> None:
    place = study.Place(1.0, 0.0, 1)
    world = place.world()
    answering, together = run(study.competitive_on_ac(), world), run(load_design(study.COOPERATIVE), world)
    assert answering.ending == "converged"
    cost = [study.row("", place, world, found).total for found in (answering, together)]
    assert cost[0] == pytest.approx(cost[1], rel=0.005)


# ---------------------------------------------------------------- the page


def _numbers(start: str, table: int = 0) -> list[float]:
    """The numbers of the page's row that starts so, in the first table that has one, or a later one."""
    line = [one for one in PAGE.read_text(encoding="utf-8").splitlines() if one.startswith(start)][table]
    return [float(one.replace(",", "")) for one in re.findall(r"[-+]?[\d,]+\.?\d*", line.removeprefix(start))]


@pytest.mark.slow
def test_the_page_has_the_numbers_that_the_study_gives() -> None:
    means = {name: fmean(totals(0.65, seed)[name] for seed in study.SEEDS) for name in (A, B, C, D)}
    common, *others = _numbers("| 0 | 0.65 |")[1:5]
    assert common == pytest.approx(means[D], abs=1)
    assert others == pytest.approx([means[name] - means[D] for name in (A, B, C)], abs=1.5)


@pytest.mark.slow
def test_the_page_has_the_numbers_with_wrong_forecasts_and_of_a_sequential_market() -> None:
    found = [wrong(0.65, seed) for seed in study.SEEDS]
    central, local, common = (fmean(one[name].foreseen for one in found) for name in (A, B, D))
    told = _numbers("| 1 | 0.65 |")
    assert told[1] == pytest.approx(common, abs=1)
    assert told[2:4] == pytest.approx([central - common, local - common], abs=1.5)
    assert told[-1] == pytest.approx(fmean(one[A].left for one in found), abs=0.5)
    worlds = [study.Place(0.8, 0.0, seed).world() for seed in study.SEEDS]
    design = study.sequence(study.FRAGMENTED, "free", "netted")
    cost = fmean(sum(held.cost_eur for held in run(design, world).held) for world in worlds)
    assert _numbers(f"| {study.FRAGMENTED}: free, netted |")[0] == pytest.approx(cost, abs=1)


@pytest.mark.slow
def test_the_page_has_the_numbers_of_ten_days_with_wrong_forecasts() -> None:
    days = [wrong(0.65, day) for day in study.DAYS]
    central, local = ([one[name].foreseen - one[D].foreseen for one in days] for name in (A, B))
    least = sum(a < min(0, b) - 0.5 for a, b in zip(central, local, strict=True))
    told = _numbers("| 1 | 0.65 |", table=1)
    numbers = [fmean(central), median(central), max(central), fmean(local), median(local)]
    assert told[:5] == pytest.approx(numbers, abs=1)
    assert told[5:] == [least, len(days) - least]
