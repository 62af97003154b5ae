"""The study of docs/coordination-study.md: coordination schemes where congestions are few and many, and sequential
markets by what they do about the interface.

`python tools/coordination_study.py` runs all of it on two processes (eight minutes) and prints the tables of the page.
Each line on stderr is one run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import fmean, median

import numpy as np

from coflex.domain.quantity import Floats
from coflex.market.coordination.outcome import Run
from coflex.market.coordination.run import run
from coflex.market.coordination.world import World
from coflex.market.design import Design, load_design, read_design
from coflex.reporting.coordination.kpis import kpis
from coflex.simulation.coordination import case

SEEDS = (1, 2, 3)
CONGESTIONS = (0.0, 0.6, 0.65, 0.7, 0.8, 1.0, 1.2)
ERRORS = (0.0, 0.3, 1.0)
SCHEMES = {
    "smartnet_d_one": "D one",
    "smartnet_a": "A",
    "smartnet_b": "B",
    "smartnet_c": "C",
    "smartnet_d_two": "D two",
}
# More days, where it depends on the day which scheme costs least.
DAYS = tuple(range(1, 11))
DAYS_AT, DAYS_ERRORS = (0.6, 0.65, 0.7, 0.8), (0.0, 1.0)
CENTRAL, LOCAL, ONE = "smartnet_a", "smartnet_b", "smartnet_d_one"
# Where sequential markets are compared: a few congestions, and many.
SEQUENTIAL_AT = (0.8, 1.0)
COMMON, FRAGMENTED, MULTI_LEVEL = "coordinet_common", "coordinet_fragmented", "coordinet_multi_level"
# What the DSO's session and the TSO's do about the interface.
INTERFACES = (
    ("free", "free"),
    ("free", "netted"),
    ("fixed", "netted"),
    ("balanced", "netted"),
    ("priced", "netted"),
)
AT_COMMON_PRICE, ITERATED = "priced at the common price, netted", "priced, netted, answering each other"
COOPERATIVE, COMPETITIVE = "flexgrid_welfare_cooperative", "flexgrid_welfare_competitive"


@dataclass(frozen=True, slots=True)
class Place:
    """The reference case at its levers."""

    congestion: float
    forecast_error: float
    seed: int

    def world(self) -> World:
        return case("reference", congestion=self.congestion, forecast_error=self.forecast_error, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Row:
    """What a design cost at a place, in EUR: `bought`, at bids; `limits`, the mending of limits; `balance`, energy that
    is not balanced, on top. `without`, `left`: distribution limits broken without a market, and before mending.
    `rounds` and `ending` of sessions that answer each other."""

    design: str
    place: Place
    bought: float
    limits: float
    balance: float
    without: int
    left: int
    rounds: int
    ending: str

    @property
    def foreseen(self) -> float:
        """Without the energy that forecasts miss."""
        return self.bought + self.limits

    @property
    def total(self) -> float:
        """What `coflex compare` gives as Total where bids are paid."""
        return self.bought + self.limits + self.balance


def row(name: str, place: Place, world: World, found: Run) -> Row:
    """A run's costs. At bids, so that designs of different pricing can stand in one table."""
    told, end = kpis(found, world, None), found.final
    bought = float(told.cost_resource_eur - told.cost_mending_eur)
    limits, balance = (kwh * world.emergency_eur_mwh / 1000 for kwh in (end.limits_kwh, end.unbalanced_kwh))
    broken = end.before_distribution, end.violations_distribution
    return Row(name, place, bought, limits, balance, *broken, found.rounds, found.ending)


# ---------------------------------------------------------------- few and many congestions


def few(place: Place) -> list[Row]:
    """The centralised, the local and the common scheme at a place."""
    return schemes(place, (CENTRAL, LOCAL, ONE))


def schemes(place: Place, designs: Iterable[str] = SCHEMES) -> list[Row]:
    """The schemes at a place."""
    world = place.world()
    return [row(name, place, world, run(load_design(name), world)) for name in designs]


# ---------------------------------------------------------------- sequential markets


def sequence(base: str, local: str, central: str) -> Design:
    """A design of two sessions with other interfaces: a document that differs in these two words and its id."""
    document = load_design(base).model_dump(mode="json")
    first, second = document["sessions"]
    first["interface"], second["interface"] = local, central
    return read_design(json.dumps(document | {"id": f"{base}_{local}_{central}", "same_as": None}), base)


def iterated(base: str) -> Design:
    """The same with a priced interface, the two sessions answering each other until neither moves; the price starts
    at the case's and goes half way to each new one of the TSO's clearing."""
    document = sequence(base, "priced", "netted").model_dump(mode="json")
    stop = {"sessions": [one["id"] for one in document["sessions"]], "until_mw": 0.01, "at_most": 30}
    return read_design(json.dumps(document | {"id": f"{base}_iterated", "iterate": stop}), base)


def competitive_on_ac() -> Design:
    """FLEXGRID's markets that answer each other, the wholesale one on the full power flow as the common one is."""
    document = load_design(COMPETITIVE).model_dump(mode="json")
    document["sessions"][0]["grid"]["transmission"] = "ac"
    return read_design(json.dumps(document | {"id": f"{COMPETITIVE}_ac"}), COMPETITIVE)


def at_price(world: World, price: Floats) -> World:
    """The case with another price of energy at the interfaces, EUR/MWh (t,); 0 where it is NaN."""
    return replace(world, energy_eur_mwh=np.nan_to_num(price))


def common_price(found: Run) -> Floats:
    """EUR/MWh (t,): what a MWh more is worth in the balance of a market of one session."""
    (held,) = found.held
    return held.energy_eur_mwh


def sequential(place: Place, bases: Sequence[str] = (FRAGMENTED, MULTI_LEVEL), rounds: bool = True) -> list[Row]:
    """The common market and the sequential ones at a place; `rounds`: also those whose sessions answer each other."""
    world = place.world()
    common = run(load_design(COMMON), world)
    found = [row(COMMON, place, world, common)]
    for base in bases:
        for local, central in INTERFACES:
            name = f"{base}: {local}, {central}"
            found.append(row(name, place, world, run(sequence(base, local, central), world)))
        good = at_price(world, common_price(common))
        answer = run(sequence(base, "priced", "netted"), good)
        found.append(row(f"{base}: {AT_COMMON_PRICE}", place, good, answer))
    if rounds:
        found += [row(f"{base}: {ITERATED}", place, world, run(iterated(base), world)) for base in bases]
        found += [row(name, place, world, run(load_design(name), world)) for name in (COOPERATIVE, COMPETITIVE)]
        found.append(row(f"{COMPETITIVE}, transmission: ac", place, world, run(competitive_on_ac(), world)))
    return found


# ---------------------------------------------------------------- tables


def scheme_table(rows: Sequence[Row]) -> Iterator[str]:
    """Means over seeds: cost of the common market, energy that forecasts miss left out, and by how much the others are
    dearer."""
    first, *others = SCHEMES
    names = ["error", "congestion", "broken before", *SCHEMES.values(), "A leaves broken"]
    yield "| " + " | ".join(names) + " |"
    yield "|" + " ---: |" * len(names)
    for error, congestion in product(ERRORS, CONGESTIONS):
        here = [r for r in rows if (r.place.forecast_error, r.place.congestion) == (error, congestion)]
        mean = {name: fmean(r.foreseen for r in here if r.design == name) for name in SCHEMES}
        cells = [f"{mean[first]:,.0f}", *(f"{mean[name] - mean[first]:+,.0f}" for name in others)]
        cells += [f"{fmean(r.left for r in here if r.design == 'smartnet_a'):.0f}"]
        yield f"| {error:g} | {congestion:g} | {here[0].without} | " + " | ".join(cells) + " |"


def days_table(rows: Sequence[Row]) -> Iterator[str]:
    """By how much A and B are dearer than the common market in one step: mean and median of the days, A's dearest day;
    and the days on which A, and on which B or D, costs least by more than half a euro."""
    names = ["error", "congestion", "A mean", "median", "dearest day", "B mean", "median", "A least", "B or D least"]
    yield "| " + " | ".join(names) + " |"
    yield "|" + " ---: |" * len(names)
    for error, congestion in product(DAYS_ERRORS, DAYS_AT):
        here = [r for r in rows if (r.place.forecast_error, r.place.congestion) == (error, congestion)]
        cost = {(r.design, r.place.seed): r.foreseen for r in here}
        a, b = ([cost[name, day] - cost[ONE, day] for day in DAYS] for name in (CENTRAL, LOCAL))
        ahead = [min(0.0, other) - mine for mine, other in zip(a, b, strict=True)]
        cells = [f"{x:+,.0f}" for x in (fmean(a), median(a), max(a), fmean(b), median(b))]
        cells += [str(sum(x > 0.5 for x in ahead)), str(sum(x < -0.5 for x in ahead))]
        yield f"| {error:g} | {congestion:g} | " + " | ".join(cells) + " |"


def sequential_table(rows: Sequence[Row]) -> Iterator[str]:
    """Means over seeds: total, what of it is mending, and how much dearer than the common market in percent."""
    names = list(dict.fromkeys(r.design for r in rows))
    heads = (f"total at {at:g} | mending | against common" for at in SEQUENTIAL_AT)
    yield "| design: interface of the DSO's session, of the TSO's | " + " | ".join(heads) + " |"
    yield "| --- |" + " ---: |" * (3 * len(SEQUENTIAL_AT))
    for name in names:
        cells = []
        for at in SEQUENTIAL_AT:
            here = [r for r in rows if r.place.congestion == at]
            mine, common = ([r for r in here if r.design == one] for one in (name, COMMON))
            total = fmean(r.total for r in mine)
            share = total / fmean(r.total for r in common) - 1
            cells += [f"{total:,.0f}", f"{fmean(r.limits + r.balance for r in mine):,.0f}", f"{100 * share:+.1f} %"]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _through(pool: ProcessPoolExecutor, of: Callable[[Place], list[Row]], places: Iterable[Place]) -> list[Row]:
    found = []
    for rows in pool.map(of, places):
        for one in rows:
            print(json.dumps(asdict(one) | {"total": one.total}), file=sys.stderr, flush=True)
        found += rows
    return found


def main() -> None:
    with ProcessPoolExecutor(2) as pool:
        of_interfaces = _through(pool, sequential, [Place(at, 0.0, seed) for at in SEQUENTIAL_AT for seed in SEEDS])
        levers = product(ERRORS, CONGESTIONS, SEEDS)
        of_schemes = _through(pool, schemes, [Place(congestion, error, seed) for error, congestion, seed in levers])
        levers = product(DAYS_ERRORS, DAYS_AT, DAYS)
        of_days = _through(pool, few, [Place(congestion, error, seed) for error, congestion, seed in levers])
    print("\n".join([*scheme_table(of_schemes), "", *days_table(of_days), "", *sequential_table(of_interfaces)]))


if __name__ == "__main__":
    main()
