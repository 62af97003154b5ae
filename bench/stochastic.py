"""How long a day's two-stage clearing takes, beside one clearing of the same offers on the mean of its scenarios.

    python bench/stochastic.py cases/1-MV-urban--0-sw-2016-07-05

Scenarios are drawn from the case's own day-ahead forecast and its past errors; every unit offers energy and capacity
in each of its directions. Ratios of medians taken in the same minutes, as in `bench/run.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from table import Line, asks_for_lines, give, load

from coflex.adapters.exchange.tables.case_folder import read_case
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction
from coflex.domain.reserve import CapacityOffer
from coflex.forecast.backtest import forecast, past_errors
from coflex.forecast.scenarios import Scenarios, draw, reduce
from coflex.grid.rows import RowKeys
from coflex.market.book import OrderBook, Place, build
from coflex.market.clearing import clear
from coflex.market.design import load_design
from coflex.market.model import Demand
from coflex.market.stochastic import (
    Outlook,
    ReserveBook,
    Surroundings,
    build_reserve,
    clear_two_stage,
    value_of,
)
from coflex.process.day import Day

COUNTS = (10, 25, 50)
PENALTY = 3000.0
# Seconds after which a part is not begun once more.
PART_S = 20.0


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="folder of the case")
    parser.add_argument("--repeats", type=int, default=3, help="most repeats of each part")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of scenarios")
    asks_for_lines(parser)
    given = parser.parse_args()
    case = read_case(given.case)
    day = Day(case, load_design(case.settings.design))
    load("before")
    awards, reserve = books(day)
    print(f"{len(awards)} blocks of energy and {len(reserve)} of capacity, {day.network.n} nodes\n")
    print(f"{'scenarios':>9} {'drawn':>7} {'limits':>7} {'one clearing':>13} {'two stages':>11} {'ratio':>6}"
          f" {'solver':>7} {'passes':>6} {'value':>8} {'RP EUR':>9} {'VSS EUR':>9} {'EVPI EUR':>9}")  # fmt: skip
    lines = [line(day, awards, reserve, count, given.repeats) for count in given.counts]
    reduced(day, awards, reserve)
    load("after")
    give(lines, given.lines)


def line(day: Day, awards: OrderBook, reserve: ReserveBook, count: int, repeats: int) -> Line:
    """One row of the table, printed in all its columns."""
    drawn_s, drawn = _timed(lambda: scenarios(day, count), 1)
    outlook = surroundings(day, drawn)
    grid = outlook.grid
    assert grid is not None
    stacked = grid.model(0.0)
    nothing = np.zeros((grid.p_mw.shape[0] * grid.p_mw.shape[1], grid.network.n))
    broken = len(stacked.look(nothing, nothing, np.arange(len(nothing)), RowKeys.none()).broken)
    # A clearing that has something to do: the scenario of the most broken limits, not the calm mean.
    worst = outlook.part(np.array([_worst(outlook)]))
    assert worst.grid is not None
    alone = worst.grid
    everything = np.ones(len(awards), dtype=np.bool_)
    once_s, _ = _timed(lambda: clear(awards, everything, Demand.none(), alone.model(0.0)), repeats)
    two_s, found = _timed(lambda: clear_two_stage(awards, reserve, outlook, PENALTY), repeats)
    value_s, value = _timed(lambda: value_of(awards, reserve, outlook, PENALTY), 1)
    print(
        f"{count:9d} {drawn_s:6.2f}s {broken:7d} {1000 * once_s:10.0f} ms {two_s:10.2f}s {two_s / once_s:6.1f}"
        f" {found.solver_seconds:6.2f}s {found.passes:6d} {value_s:7.2f}s {value.recourse:9.2f}"
        f" {value.of_stochastic_solution:9.2f} {value.of_perfect_information:9.2f}",
        flush=True,
    )
    beside = f"one clearing of the worst of them, {1000 * once_s:.0f} ms"
    return Line(f"two-stage clearing over {count} scenarios", f"{two_s:.2f} s", two_s / once_s, beside)


def reduced(day: Day, awards: OrderBook, reserve: ReserveBook) -> None:
    """What 25 scenarios chosen of 500 say, beside 25 drawn, when both are judged by 100 others."""
    judges = surroundings(day, scenarios(day, 100, seed=99))
    for name, few in (("drawn", scenarios(day, 25)), ("chosen of 500", reduce(scenarios(day, 500), 25))):
        plan = clear_two_stage(awards, reserve, surroundings(day, few), PENALTY)
        held = replace(
            reserve,
            availability=np.zeros(len(reserve)),
            book=replace(reserve.book, quantity_mw=plan.reserved_kw / 1000.0),
        )
        sold = replace(awards, quantity_mw=plan.award_kw / 1000.0, price=np.zeros(len(awards)))
        judged = clear_two_stage(sold, held, judges, PENALTY)
        print(
            f"25 scenarios {name}: {plan.cost_eur:.2f} EUR expected, {plan.first_eur + judged.cost_eur:.2f} EUR judged"
        )


def scenarios(day: Day, count: int, seed: int = 0) -> Scenarios:
    """Scenarios of all profiles, made at eight on the day before."""
    case = day.case
    issued = case.axis.start - timedelta(hours=16)
    made = forecast(case.profiles, issued, case.axis, case.zone, backtest_days=60)
    errors = past_errors(case.profiles, issued, case.axis, case.zone, made.methods, 60)
    lowest = case.profiles.values.min(axis=1)
    return draw(made, errors, count, seed=seed, floor=np.where(lowest >= 0, 0.0, -np.inf).tolist())


def surroundings(day: Day, drawn: Scenarios) -> Outlook:
    """The grid of every scenario."""
    p, q = zip(*(day.injections(drawn.series(s)) for s in range(len(drawn))), strict=True)
    return Outlook(drawn.probability, None, Surroundings(day.network, np.stack(p), np.stack(q)))


def books(day: Day) -> tuple[OrderBook, ReserveBook]:
    """Energy and capacity of every unit in each direction it has, at prices that rise with its place."""
    places, energy, held = {}, [], []
    for u, unit in enumerate(day.units):
        node, perimeter = int(day.unit_node[u]), day.unit_perimeter[u]
        places[unit.id] = Place(node, perimeter, unit.tan_phi)
        for direction, kw in ((Direction.UP, unit.up_kw), (Direction.DOWN, unit.down_kw)):
            if node < 0 or not kw:
                continue
            receipt, price = 2 * u + (direction is Direction.UP), 40 + 37 * u % 50
            energy.append(_offer(day, f"energy {receipt}", receipt, unit.id, direction, price, kw))
            ready = _offer(day, f"capacity {receipt}", 10**6 + receipt, unit.id, direction, price + 20, kw)
            held.append(CapacityOffer(ready, (Decimal(2 + u % 7),)))
    return build(energy, day.case.axis, places), build_reserve(held, day.case.axis, places)


def _offer(day: Day, name: str, receipt: int, unit: str, direction: Direction, price: int, kw: int) -> Offer:
    axis = day.case.axis
    step = OfferStep(1, axis.start, Decimal(price), (kw,) * len(axis))
    return Offer(name, receipt, axis.start, "", unit, "", direction, unit, None, (step,))


def _worst(outlook: Outlook) -> int:
    """The scenario with the most quarter-hours in which a limit is broken."""
    grid = outlook.grid
    assert grid is not None
    count, periods, nodes = grid.p_mw.shape
    nothing = np.zeros((count * periods, nodes))
    broken = grid.model(0.0).look(nothing, nothing, np.arange(count * periods), RowKeys.none()).broken
    return int(np.bincount(np.unique(broken.period) // periods, minlength=count).argmax())


def _timed(act: Callable[[], Any], most: int) -> tuple[float, Any]:
    """Median seconds of at least one and at most so many repeats, and the last answer."""
    taken: list[float] = []
    while not taken or (len(taken) < most and sum(taken) < PART_S):
        began = perf_counter()
        last = act()
        taken.append(perf_counter() - began)
    return median(taken), last


if __name__ == "__main__":
    main()
