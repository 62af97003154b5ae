"""How fast a session with the grid is cleared, beside its floor and beside other ways to the same end.

    python bench/clearing.py cases/1-MV-urban--0-sw-2016-07-05

The floor is what no bookkeeping can save: the power flows, sensitivities and solver runs of the same clearing, timed
inside it. The others get the same quarter-hours, those that break a limit, and the same offers without terms that
tie quarter-hours together: Clarabel the conic relaxation of all of them as one program; PyPSA, where it is installed,
its linear optimal power flow, which sees active power and thermal limits alone, and a power flow of what that buys.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import Any

import highspy
import numpy as np
from table import Line, asks_for_lines, give, load

from coflex.app import begin_day
from coflex.domain.quantity import Floats, Ints
from coflex.grid import rows as grid_rows
from coflex.grid.rows import AcGrid, RowKeys
from coflex.grid.sensitivity import Linearisation
from coflex.market import clearing
from coflex.market.book import OrderBook
from coflex.market.model import Demand
from coflex.market.relaxed import clear_conic
from coflex.process import clear as clear_verb
from coflex.process.offer import collect
from coflex.simulation.providers import SimulatedProviders

# The most that a clearing may take of its floor; how many times as fast as the others it must be.
MOST_OF_FLOOR, LEAST_OF_CLARABEL, LEAST_OF_PYPSA = 1.3, 2.0, 10.0


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="folder of the case")
    parser.add_argument("--repeats", type=int, default=5)
    asks_for_lines(parser)
    given = parser.parse_args()
    load("before")
    book, admissible, demand, grid, lights = first_session(given.case)
    lines = [beside_floor(book, admissible, demand, grid, lights, given.repeats)]
    free, periods = congested(book, grid)
    print(f"{len(free)} blocks of {len(periods)} quarter-hours that break a limit, without terms")
    lines += beside_others(free, grid, given.repeats)
    load("after")
    give(lines, given.lines)


def first_session(case: Path) -> tuple[Any, ...]:
    """What the clearing of the first local session is called with: book, admissible, demand, grid, lights."""
    heard: list[tuple[Any, ...]] = []

    class Enough(Exception):
        pass

    def listen(_: Any, *words: Any) -> Any:
        heard.append(words)
        raise Enough

    with tempfile.TemporaryDirectory() as out, begin_day(case, Path(out), False) as here:
        here.register()
        here.qualify()
        local = here.plan().session
        plan = here.day.plan(local)
        collect(here.day, here.store, plan, SimulatedProviders(here.day.case.settings.seed, here.day.case.zone))
        with _instead(clear_verb, "clear_on", listen), suppress(Enough):
            clear_verb.clear(here.day, here.store, plan, plan.closes)
    return heard[0]


# ---------------------------------------------------------------- the floor


def beside_floor(book: OrderBook, admissible: Any, demand: Demand, grid: Any, lights: Any, repeats: int) -> Line:
    """The clearing, and in the same run what of it are power flows, sensitivities and runs of the solver."""
    totals, floors, ratios = [], [], []
    passes = 0
    for _ in range(repeats):
        spent = [0.0]
        with (
            _timed(grid_rows, "solve", spent),
            _timed(Linearisation, "__init__", spent),
            _timed(Linearisation, "sensitivities", spent),
            _timed(highspy.Highs, "run", spent),
        ):
            began = perf_counter()
            answer = clearing.clear(book, admissible, demand, grid, lights)
            totals.append(perf_counter() - began)
        floors.append(spent[0])
        ratios.append(totals[-1] / spent[0])
        passes = answer.passes
    what = f"clearing of {len(book.axis)} periods, {len(book.offers)} offers, {passes} passes"
    floor = f"its floor, {1000 * statistics.median(floors):.0f} ms"
    return Line(what, _ms(statistics.median(totals)), statistics.median(ratios), floor, at_most=MOST_OF_FLOOR)


@contextmanager
def _timed(owner: Any, name: str, spent: list[float]) -> Iterator[None]:
    whole = getattr(owner, name)

    def timed(*words: Any, **more: Any) -> Any:
        began = perf_counter()
        try:
            return whole(*words, **more)
        finally:
            spent[0] += perf_counter() - began

    with _instead(owner, name, timed):
        yield


@contextmanager
def _instead(owner: Any, name: str, other: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


# ---------------------------------------------------------------- the others


def congested(book: OrderBook, grid: Any) -> tuple[OrderBook, Ints]:
    """The blocks of the quarter-hours that break a limit, of offers without terms."""
    change = np.zeros((len(book.axis), grid.network.n))
    broken = grid.look(change, change, np.arange(len(book.axis)), RowKeys.none()).broken
    periods = np.unique(broken.period)
    none: dict[str, Any] = {"block": False, "min_quantity_kw": 0, "max_periods": None}
    offers = tuple(replace(o, **none, energy_limit_kwh=None, exclusive=None) for o in book.offers)
    keep = np.flatnonzero(np.isin(book.period, periods) & (book.price > 0))
    columns = (
        "offer",
        "step",
        "period",
        "sign",
        "quantity_mw",
        "price",
        "node",
        "perimeter",
        "tan_phi",
        "p_share",
        "zone",
    )
    return replace(book, offers=offers, **{name: getattr(book, name)[keep] for name in columns}), periods


def beside_others(book: OrderBook, grid: Any, repeats: int) -> list[Line]:
    everything = np.ones(len(book), dtype=np.bool_)
    plain = AcGrid(grid.network, grid.p_mw, grid.q_mvar, grid.guard)
    cost: list[float] = []

    def ours() -> None:
        cost[:] = [_eur(book, clearing.clear(book, everything, Demand.none(), plain).award_kw)]

    def conic() -> None:
        cost[:] = [_eur(book, clear_conic(book, everything, Demand.none(), plain).award_kw)]

    own = _median(ours, repeats)
    lines = [Line(f"clearing of these alone, {cost[0]:.2f} EUR", _ms(own), 1.0, "itself")]
    other = _median(conic, max(1, repeats // 2))
    what = f"Clarabel, {cost[0]:.2f} EUR in its relaxation"
    lines.append(Line(what, _ms(other), other / own, "the clearing", at_least=LEAST_OF_CLARABEL))
    if importlib.util.find_spec("pypsa") is None:
        print("PyPSA is not installed: no comparison with it.")
        return lines
    other = _median(lambda: cost.__setitem__(0, _by_pypsa(book, plain)), max(1, repeats // 2))
    what = f"PyPSA, {cost[0]:.2f} EUR by active power"
    lines.append(Line(what, _ms(other), other / own, "the clearing", at_least=LEAST_OF_PYPSA))
    return lines


def _by_pypsa(book: OrderBook, grid: AcGrid) -> float:
    """PyPSA from its tables to its power flow; EUR of what its linear optimal power flow buys."""
    import pandas as pd
    import pypsa

    logging.disable(logging.WARNING)
    network, periods = grid.network, np.unique(book.period)
    net = pypsa.Network()
    net.set_snapshots(range(len(periods)))
    names = [str(i) for i in range(network.n)]
    net.add("Bus", names, v_nom=1.0)
    z = 1 / network.y_series
    on = np.flatnonzero(network.from_on & network.to_on)
    rating = np.minimum(network.rating_from, network.rating_to) * network.loading_max
    net.add(
        "Line",
        [f"l{i}" for i in on],
        bus0=[names[i] for i in network.from_node[on]],
        bus1=[names[i] for i in network.to_node[on]],
        r=z.real[on],
        x=z.imag[on],
        s_nom=np.minimum(rating, 1e4)[on],
    )
    given = pd.DataFrame(-grid.p_mw[periods], columns=names)
    reactive = pd.DataFrame(-grid.q_mvar[periods], columns=names)
    net.add("Load", names, bus=names, p_set=given, q_set=reactive)
    net.add("Generator", "above", bus=names[network.slack], p_nom=1e4, p_min_pu=-1.0, control="Slack")
    _add_offers(net, book, periods, names)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        net.optimize(solver_name="highs", log_to_console=False)
        net.generators_t.p_set = net.generators_t.p
        net.pf()
    return float(net.objective) * book.axis.hours


def _add_offers(net: Any, book: OrderBook, periods: Ints, names: list[str]) -> None:
    """A generator for each step of an offer, with its quantity in each quarter-hour."""
    import pandas as pd

    code = book.offer * (1 + int(book.step.max(initial=0))) + book.step
    steps, first, at = np.unique(code, return_index=True, return_inverse=True)
    quantity: Floats = np.zeros((len(periods), len(steps)))
    quantity[np.searchsorted(periods, book.period), at] = book.quantity_mw
    label = [f"o{i}" for i in steps]
    net.add(
        "Generator",
        label,
        bus=[names[i] for i in book.node[first]],
        p_nom=1.0,
        sign=book.sign[first].astype(float),
        marginal_cost=book.price[first],
        p_max_pu=pd.DataFrame(quantity, columns=label),
    )


def _eur(book: OrderBook, award_kw: Ints) -> float:
    return float(book.price @ award_kw) / 1000 * book.axis.hours


def _median(act: Callable[[], Any], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = perf_counter()
        act()
        taken.append(perf_counter() - began)
    return statistics.median(taken)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


if __name__ == "__main__":
    main()
