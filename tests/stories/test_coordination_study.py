"""What docs/coordination-study.md says of its numbers, on a small part of the study that it tells of."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from types import ModuleType

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


def _numbers(start: str) -> list[float]:
    """The numbers of the page's one row that starts so."""
    (line,) = (one for one in PAGE.read_text(encoding="utf-8").splitlines() if one.startswith(start))
    return [float(one.replace(",", "")) for one in re.findall(r"[-+]?[\d,]+\.?\d*", line.removeprefix(start))]


@pytest.mark.slow
def test_the_page_has_the_numbers_that_the_study_gives() -> None:
    means = {name: fmean(totals(0.65, seed)[name] for seed in study.SEEDS) for name in (A, B, C, D)}
    common, *others = _numbers("| 0 | 0.65 |")[1:5]
    assert common == pytest.approx(means[D], abs=1)
    assert others == pytest.approx([means[name] - means[D] for name in (A, B, C)], abs=1.5)


@pytest.mark.slow
def test_the_page_has_the_numbers_with_wrong_forecasts_and_of_a_sequential_market() -> None:
    found = [one for seed in study.SEEDS for one in study.schemes(study.Place(0.65, 1.0, seed), (A, D))]
    central, common = (fmean(one.bought + one.limits for one in found if one.design == name) for name in (A, D))
    together = fmean((1 if one.design == A else -1) * (one.bought + one.mended) for one in found) * 2
    told = _numbers("| 1 | 0.65 |")
    assert told[1:3] == pytest.approx([common, central - common], abs=1)
    assert told[-1] == pytest.approx(together, abs=1)
    worlds = [study.Place(0.8, 0.0, seed).world() for seed in study.SEEDS]
    design = study.sequence(study.FRAGMENTED, "free", "netted")
    cost = fmean(sum(held.cost_eur for held in run(design, world).held) for world in worlds)
    assert _numbers(f"| {study.FRAGMENTED}: free, netted |")[0] == pytest.approx(cost, abs=1)
