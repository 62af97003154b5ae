"""Market monitoring: concentration, pivotal providers, gaming of baselines, withholding, the competitive benchmark.

Everything here is a signal that a person looks into, not a verdict: each result names its place, its number, the limit
it is held against and where that limit is from. Source: document F, section 4.1, which names market power and the
inc-dec game as open questions of flexibility markets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import groupby
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.clearing import Award, Holding
from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.light import DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Direction, Floats, Ints, energy_mwh
from coflex.domain.time import Axis
from coflex.market.book import OrderBook, direction_of, seller
from coflex.market.clearing import Answer
from coflex.market.design import Pricing
from coflex.market.pricing import prices

# Herfindahl-Hirschman index above which a market is called moderately and highly concentrated: U.S. Department of
# Justice and Federal Trade Commission, Merger Guidelines (2023), section 2.1.
MODERATE, HIGH = 1000.0, 1800.0
# Residual supply index below which a provider can move the price, and the share of time it may be lower: A. Sheffrin,
# California ISO (2002).
RSI_SAFE, RSI_MOST = 1.1, 0.05
# Conduct that is looked into: New York ISO, Market Services Tariff, attachment H, section 23.3.1. Prices above the
# reference by three times it or 100 a MWh, whichever is less, if above 25 a MWh; 10 % of what is available not offered.
PRICE_SHARE, PRICE_MORE, PRICE_LEAST = Decimal(3), Decimal(100), Decimal(25)
NOT_OFFERED = 0.10
# Relative, what arithmetic may lose.
_SLACK = 1e-9

# (place, quarter-hour, direction)
Cell = tuple[str, datetime, Direction]
_Series = dict[datetime, float]
# An offer, a quarter-hour, kW
_Lot = tuple[Offer, datetime, int]
# A clearing of a book with everything else as it was: demand, grid, lights, tolls.
Clearing = Callable[[OrderBook, Bools], Answer]


@dataclass(frozen=True, slots=True, order=True)
class Signal:
    """One thing to look into: where, what kind, whose, and why."""

    place: str
    code: str
    provider: str
    message: str


# ---------------------------------------------------------------- concentration


class Level(StrEnum):
    LOW = "low"
    MODERATE = "moderate"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class MarketShare:
    """A provider's part of a market: energy, kWh, and percent of all."""

    provider: str
    kwh: float
    percent: float


@dataclass(frozen=True, slots=True)
class Concentration:
    """Of a product, perimeter and direction. `hhi`: the sum of squared percentages, up to 10,000 for a monopoly.
    `shares`: the largest first, ties by name."""

    product: str
    perimeter: str
    direction: Direction
    hhi: float
    level: Level
    shares: tuple[MarketShare, ...]


def concentration_offered(
    offers: Sequence[Offer], axis: Axis, perimeter_of: Mapping[str, str]
) -> tuple[Concentration, ...]:
    """Concentration of what is offered inside the horizon, by product, perimeter and direction.

    `perimeter_of` by seller (unit or group). Of a provider's offers that exclude each other the largest of a
    quarter-hour counts; other terms (blocks, energy limits) do not. Raises Refused with every seller without a
    perimeter.
    """
    _placed({seller(offer) for offer in offers}, perimeter_of)
    kw: dict[tuple[str, str, Direction, str], int] = defaultdict(int)
    lots = _offered(offers, axis)
    for offer, _, power in _one_of_each(lots, lambda lot: ((lot[0].product, perimeter_of[seller(lot[0])]), lot[2])):
        kw[(offer.product, perimeter_of[seller(offer)], offer.direction, offer.provider)] += power
    return _concentrations(kw, axis)


def concentration_bought(
    awards: Sequence[Award], axis: Axis, perimeter_of: Mapping[str, str]
) -> tuple[Concentration, ...]:
    """Concentration of what is bought inside the horizon; as for what is offered."""
    _placed({award.unit or award.group or "" for award in awards}, perimeter_of)
    kw: dict[tuple[str, str, Direction, str], int] = defaultdict(int)
    for award in awards:
        if axis.covers(award.start):
            place = perimeter_of[award.unit or award.group or ""]
            kw[(award.product, place, award.direction, award.provider)] += award.quantity_kw
    return _concentrations(kw, axis)


def _placed(sellers: Collection[str], perimeter_of: Mapping[str, str]) -> None:
    message = "Say in which perimeter it is; a market needs a place."
    unknown = set(sellers) - set(perimeter_of)
    refuse("Sellers to monitor", (Finding(f"seller {name}", "no_perimeter", message) for name in unknown))


def _offered(offers: Sequence[Offer], axis: Axis) -> list[_Lot]:
    """kW of each offer in each quarter-hour, all steps together."""
    found = []
    for offer in offers:
        kw: dict[datetime, int] = defaultdict(int)
        for step in offer.steps:
            for i, power in enumerate(step.quantity_kw):
                start = step.start + i * axis.step
                if power > 0 and axis.covers(start):
                    kw[start] += power
        found += [(offer, start, power) for start, power in kw.items()]
    return found


def _one_of_each(lots: Sequence[_Lot], worth: Callable[[_Lot], tuple[object, float]]) -> list[_Lot]:
    """The lots without those that another of the same exclusive label beats. `worth` of a lot: the market it competes
    in, and how much it counts there; ties by receipt."""
    best: dict[object, tuple[float, int, str]] = {}
    kept, bound = [], []
    for lot in lots:
        offer, start, _ = lot
        if offer.exclusive is None:
            kept.append(lot)
            continue
        market, value = worth(lot)
        key = (offer.provider, offer.exclusive, start, offer.direction, market)
        mine = (-value, offer.receipt, offer.id)
        best[key] = min(best.get(key, mine), mine)
        bound.append((key, mine, lot))
    return kept + [lot for key, mine, lot in bound if best[key] == mine]


def _concentrations(kw: Mapping[tuple[str, str, Direction, str], int], axis: Axis) -> tuple[Concentration, ...]:
    found = []
    hours = Fraction(axis.step.total_seconds()) / 3600
    named = sorted(key for key, power in kw.items() if power > 0)
    for (product, perimeter, direction), run in groupby(named, key=lambda key: key[:3]):
        parts = {key[3]: kw[key] for key in run}
        total = sum(parts.values())
        hhi = float(Fraction(10_000 * sum(part * part for part in parts.values()), total * total))
        shares = tuple(
            MarketShare(name, float(part * hours), float(Fraction(100 * part, total)))
            for name, part in sorted(parts.items(), key=lambda one: (-one[1], one[0]))
        )
        level = Level.HIGH if hhi > HIGH else Level.MODERATE if hhi >= MODERATE else Level.LOW
        found.append(Concentration(product, perimeter, direction, hhi, level, shares))
    return tuple(found)


# ---------------------------------------------------------------- pivotal providers


@dataclass(frozen=True, eq=False)
class Required:
    """A need at a place in one quarter-hour: `amount` of `unit`, positive, by power in `direction`. `effect`: what one
    kW of a seller adds to it; sellers that are not named do not act. None: one kW of anybody is one."""

    place: str
    start: datetime
    direction: Direction
    amount: float
    unit: str
    effect: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Residual:
    """What a need has without one provider. `required`, `offered` by all, `others` by all but this one, in `unit`.

    `rsi`: residual supply index, others over required. `pivotal`: the others cannot cover the need, and less is
    covered without this provider.
    """

    place: str
    start: datetime
    direction: Direction
    provider: str
    required: float
    offered: float
    others: float
    unit: str
    rsi: float
    pivotal: bool


@dataclass(frozen=True, slots=True)
class Screen:
    """A place and direction over its quarter-hours with a need: the share of them with a pivotal provider, the share
    in which the lowest index lies below 1.1, and whether that is at most 5 %."""

    place: str
    direction: Direction
    quarters: int
    pivotal_share: float
    below_share: float
    passes: bool


def required(need: LocalNeed, groups: Mapping[str, Sequence[str]] | None = None) -> Required:
    """A need of the local grid: the excess over its limit, and what sellers take off it by the sensitivities.

    A group counts with its least effective unit, since any of them may deliver.
    """
    effect = {unit.unit: unit.effect_per_kw for unit in need.acting}
    by_group = {
        name: min((effect.get(unit, 0.0) for unit in units), default=0.0) for name, units in (groups or {}).items()
    }
    excess = abs(need.value - need.bound)
    unit = "pu" if need.kind.value.startswith("voltage") else "share of rating"
    return Required(need.element, need.start, need.direction, excess, unit, effect | by_group)


def requested(request: Request, place: str = "system") -> Required:
    """A request for power, which anybody's fills."""
    return Required(place, request.start, request.direction, float(request.quantity_kw), "kW")


def residual_supply(
    needs: Sequence[Required],
    offers: Sequence[Offer],
    axis: Axis,
    perimeter_of: Mapping[str, str] | None = None,
    lights: Iterable[DynamicLight] = (),
) -> tuple[Residual, ...]:
    """The residual supply index of every provider that acts on a need, by place, quarter-hour, direction, provider.

    `lights` cap what a perimeter gives in all; the most that is then covered fills each light with its most effective
    offers, so a provider behind a full light is not pivotal where another one's power takes its place. Offers count by
    quantity, whatever they cost, and as if energy limits, blocks and run lengths did not bind, so an index is rather
    too high than too low. Of offers that exclude each other the one that does most for the need counts.
    Guarantees: any order of needs and offers gives the same; where no offers exclude each other, less on offer never
    raises an index.
    """
    where = perimeter_of or {}
    allowed: dict[Cell, int] = {}
    for light in lights:
        key = (light.perimeter, light.start, light.direction)
        allowed[key] = min(light.capability_kw, allowed.get(key, light.capability_kw))
    at: dict[tuple[datetime, Direction], list[_Lot]] = defaultdict(list)
    for lot in _offered(offers, axis):
        at[(lot[1], lot[0].direction)].append(lot)
    found: list[Residual] = []
    for need in needs:
        if need.amount > 0:
            found += _residuals(need, at[(need.start, need.direction)], where, allowed)
    return tuple(sorted(found, key=lambda r: (r.place, r.start, r.direction, r.provider, r.required)))


def _residuals(
    need: Required, lots: Sequence[_Lot], where: Mapping[str, str], allowed: Mapping[Cell, int]
) -> list[Residual]:
    def effect(lot: _Lot) -> float:
        return 1.0 if need.effect is None else max(0.0, need.effect.get(seller(lot[0]), 0.0))

    acting = sorted(
        (-effect(lot), lot[2], where.get(seller(lot[0]), ""), lot[0].provider)
        for lot in _one_of_each(lots, lambda lot: (None, effect(lot) * lot[2]))
        if effect(lot) > 0
    )
    offered = _covered(need, acting, allowed, "")
    found = []
    for provider in sorted({one[3] for one in acting}):
        others = _covered(need, acting, allowed, provider)
        pivotal = others < min(need.amount, offered) * (1 - _SLACK)
        at, numbers = (need.place, need.start, need.direction, provider), (need.amount, offered, others, need.unit)
        found.append(Residual(*at, *numbers, others / need.amount, pivotal))
    return found


def _covered(
    need: Required, acting: Sequence[tuple[float, int, str, str]], allowed: Mapping[Cell, int], without: str
) -> float:
    """The most that the offers but one provider's give, inside the lights. `acting`: effect with its sign turned, kW,
    perimeter, provider, sorted, so that the most effective come first."""
    left: dict[str, int] = {}
    total = 0.0
    for less, power, perimeter, provider in acting:
        if provider == without:
            continue
        lit, lamp = power, (perimeter, need.start, need.direction)
        if lamp in allowed:
            lit = min(power, left.get(perimeter, max(0, allowed[lamp])))
            left[perimeter] = left.get(perimeter, max(0, allowed[lamp])) - lit
        total -= less * lit
    return total


def screens(residuals: Sequence[Residual]) -> tuple[Screen, ...]:
    """Residual supply over time, by place and direction; of each quarter-hour the provider with the lowest index."""
    lowest: dict[tuple[str, Direction], dict[datetime, tuple[float, bool]]] = defaultdict(dict)
    for one in residuals:
        at = lowest[(one.place, one.direction)]
        rsi, pivotal = at.get(one.start, (np.inf, False))
        at[one.start] = (min(rsi, one.rsi), pivotal or one.pivotal)
    found = []
    for (place, direction), cells in sorted(lowest.items()):
        count = len(cells)
        below = sum(rsi < RSI_SAFE for rsi, _ in cells.values()) / count
        pivotal_share = sum(pivotal for _, pivotal in cells.values()) / count
        found.append(Screen(place, direction, count, pivotal_share, below, below <= RSI_MOST))
    return tuple(found)


# ---------------------------------------------------------------- the inc-dec game


@dataclass(frozen=True, slots=True)
class Nominated:
    """What a provider nominated for its units at a place in one quarter-hour, what an independent forecast expected of
    them, and what a market called later, kW: injection positive, up positive."""

    provider: str
    place: str
    start: datetime
    nominated_kw: float
    forecast_kw: float
    activated_kw: float = 0.0


@dataclass(frozen=True, slots=True)
class Congestion:
    """A quarter-hour for which a place was foreseen to be congested before nominations, and the direction of power
    that relieves it."""

    place: str
    start: datetime
    direction: Direction


@dataclass(frozen=True, slots=True)
class IncDec:
    """Whether a provider's nominations lean against what is later called of it when a place is congested.

    `days` with congestion, `pairs` of them with a day to compare; `mean_kw`: by how much more the nominations of
    congested quarter-hours worsened the congestion, positive is worse; `p_value`: how often chance alone does as much;
    `limit`: the p-value to undercut; `activated_kwh` called of the provider in those quarter-hours in the direction of
    relief.
    """

    provider: str
    place: str
    direction: Direction
    days: int
    pairs: int
    mean_kw: float
    p_value: float
    limit: float
    activated_kwh: float
    flagged: bool


def inc_dec(
    nominated: Sequence[Nominated],
    congested: Iterable[Congestion],
    zone: ZoneInfo,
    false_positives: float = 0.01,
    material_kw: float = 1.0,
    hours: float = 0.25,
) -> tuple[IncDec, ...]:
    """The inc-dec game, by provider, place and direction, sorted: nominate against the relief, then sell the relief.

    A day with congestion is paired with the nearest free day of the same kind (working day or not) at the same place
    without any, each used once, and compared at the same clock times (`zone`) by nominated less forecast. If
    congestion has no bearing on a provider's errors, both days of a pair could as well be exchanged; so the sum of
    ranks of the pairs that lean towards worse has a known distribution (Wilcoxon's signed ranks, exact also with ties),
    whatever the errors' own distribution and their dependence within a day.
    `flagged`: below its `limit`, by at least `material_kw` on average, and with relief called. The limits follow Holm
    (1979): if nobody games, the chance that anybody at all is flagged is at most `false_positives`.
    Congestion must be what was foreseen without the nominations: a surprise in load leads to errors and congestion
    alike. `hours`: length of a period. Raises CoflexError on a share of false positives outside 0 to 1.
    """
    if not 0 < false_positives < 1:
        raise CoflexError(f"{false_positives} is no share of false positives.", "Give one between 0 and 1, as 0.01.")
    errors, called = _nominations(nominated)
    at: dict[tuple[str, Direction], set[datetime]] = defaultdict(set)
    busy: dict[str, set[date]] = defaultdict(set)
    for one in congested:
        at[(one.place, one.direction)].add(one.start)
        busy[one.place].add(one.start.astimezone(zone).date())
    found = []
    for (provider, place), mine in sorted(errors.items()):
        days = _by_day(mine, zone)
        free = [day for day in days if day not in busy[place]]
        for direction in Direction:
            cases = {start for start in at[(place, direction)] if start in mine}
            if cases:
                leans = [
                    -direction.sign * lean for lean in _paired(days, _by_day(dict.fromkeys(cases, 0.0), zone), free)
                ]
                relief = sum(max(0.0, direction.sign * called[(provider, place)][start]) for start in sorted(cases))
                count = len({start.astimezone(zone).date() for start in cases})
                found.append(_tested(provider, place, direction, count, leans, relief * hours))
    return _holm(found, false_positives, material_kw)


def _nominations(
    nominated: Sequence[Nominated],
) -> tuple[dict[tuple[str, str], _Series], dict[tuple[str, str], _Series]]:
    """Nominated less forecast, and what was called, by provider and place; sums over the provider's units."""
    errors: dict[tuple[str, str], _Series] = defaultdict(dict)
    called: dict[tuple[str, str], _Series] = defaultdict(dict)
    # In a fixed order, for sums of floats depend on it.
    ordered = sorted(nominated, key=lambda n: (n.start, n.nominated_kw, n.forecast_kw, n.activated_kw))
    for one in ordered:
        key = (one.provider, one.place)
        errors[key][one.start] = errors[key].get(one.start, 0.0) + one.nominated_kw - one.forecast_kw
        called[key][one.start] = called[key].get(one.start, 0.0) + one.activated_kw
    return errors, called


def _by_day(series: _Series, zone: ZoneInfo) -> dict[date, dict[tuple[int, int], float]]:
    """Values by local day and clock time; of an hour that a day repeats the first counts."""
    days: dict[date, dict[tuple[int, int], float]] = defaultdict(dict)
    for start, value in sorted(series.items()):
        at = start.astimezone(zone)
        days[at.date()].setdefault((at.hour, at.minute), value)
    return days


def _paired(
    days: Mapping[date, Mapping[tuple[int, int], float]],
    cases: Mapping[date, Mapping[tuple[int, int], float]],
    free: Sequence[date],
) -> list[float]:
    """Mean difference of each case day to the free day it is paired with, at the case's clock times."""
    left, found = set(free), []
    for day in sorted(cases):
        clock = sorted(cases[day])
        fits = [d for d in left if (d.weekday() < 5) == (day.weekday() < 5) and all(time in days[d] for time in clock)]
        if fits:
            other = min(fits, key=lambda d: (abs((d - day).days), d))
            left.remove(other)
            found.append(float(np.mean([days[day][time] - days[other][time] for time in clock])))
    return found


def _tested(
    provider: str, place: str, direction: Direction, days: int, leans: Sequence[float], relief_kwh: float
) -> IncDec:
    mean = float(np.mean(leans)) if leans else 0.0
    return IncDec(provider, place, direction, days, len(leans), mean, signed_rank(leans), 0.0, relief_kwh, False)


def signed_rank(differences: Sequence[float]) -> float:
    """The chance of a sum of positive ranks as large as this or larger if each difference could have had either sign.

    Exact for any count and with ties, which share their mean rank; differences of nothing are left out. 1 without any.
    """
    exact = np.round(np.array(differences, dtype=np.float64), 9)
    exact = exact[exact != 0]
    if not len(exact):
        return 1.0
    _, place, count = np.unique(np.abs(exact), return_inverse=True, return_counts=True)
    # Twice the mean rank, a whole number.
    ranks = (2 * np.cumsum(count) - count + 1)[place]
    chance: Floats = np.zeros(int(ranks.sum()) + 1)
    chance[0] = 1.0
    for rank in ranks.tolist():
        chance[rank:] = chance[rank:] + chance[: len(chance) - rank]
        chance /= 2.0
    return min(1.0, float(chance[int(ranks[exact > 0].sum()) :].sum()))


def _holm(tests: Sequence[IncDec], false_positives: float, material_kw: float) -> tuple[IncDec, ...]:
    """Each test with its limit: the k-th smallest p-value of m is held against the whole share over m - k + 1, and none
    after the first that is not below."""
    able = [test for test in tests if test.pairs]
    order = sorted(able, key=lambda test: (test.p_value, test.provider, test.place, test.direction))
    limits: dict[tuple[str, str, Direction], tuple[float, bool]] = {}
    still = True
    for k, test in enumerate(order):
        limit = false_positives / (len(order) - k)
        still = still and test.p_value <= limit
        limits[(test.provider, test.place, test.direction)] = (limit, still)
    found = []
    for test in tests:
        limit, below = limits.get((test.provider, test.place, test.direction), (0.0, False))
        flagged = below and test.mean_kw >= material_kw and test.activated_kwh > 0
        found.append(replace(test, limit=limit, flagged=flagged))
    return tuple(sorted(found, key=lambda test: (test.place, test.provider, test.direction)))


# ---------------------------------------------------------------- withholding


class Kind(StrEnum):
    PHYSICAL = "physical"
    ECONOMIC = "economic"


@dataclass(frozen=True, slots=True)
class Available:
    """What a seller could do in one quarter-hour and direction, kW, as register, forecast and outages say."""

    seller: str
    provider: str
    place: str
    start: datetime
    direction: Direction
    kw: int


@dataclass(frozen=True, slots=True)
class Withheld:
    """Power that is kept from a market: not offered (`physical`), or at a price far above its reference (`economic`).

    `kw` concerned; of prices the one asked and the limit, EUR/MWh, None for physical.
    """

    kind: Kind
    provider: str
    seller: str
    place: str
    start: datetime
    direction: Direction
    kw: int
    price_eur_mwh: Decimal | None
    limit_eur_mwh: Decimal | None
    reason: str


def withheld_power(
    available: Sequence[Available],
    offers: Sequence[Offer],
    axis: Axis,
    holdings: Sequence[Holding] = (),
    cells: Collection[Cell] | None = None,
    share: float = NOT_OFFERED,
) -> tuple[Withheld, ...]:
    """Sellers that offer less than is available by more than `share` of it, sorted.

    One kW offered in several products counts once: the product with the most. A seller that another session holds in
    the quarter-hour offers all it may. `cells`: only these (place, quarter-hour, direction), as where something was
    needed.
    """
    by_product: dict[tuple[str, datetime, Direction, str], int] = defaultdict(int)
    lots = _offered(offers, axis)
    for offer, start, power in _one_of_each(lots, lambda lot: ((lot[0].product, seller(lot[0])), lot[2])):
        by_product[(seller(offer), start, offer.direction, offer.product)] += power
    most: dict[tuple[str, datetime, Direction], int] = defaultdict(int)
    for (name, start, direction, _), power in by_product.items():
        most[(name, start, direction)] = max(most[(name, start, direction)], power)
    held = {(holding.unit, holding.start) for holding in holdings}
    found = []
    for one in available:
        outside = cells is not None and (one.place, one.start, one.direction) not in cells
        if outside or (one.seller, one.start) in held:
            continue
        missing = one.kw - most[(one.seller, one.start, one.direction)]
        if missing > share * one.kw:
            reason = f"{one.kw - missing} of {one.kw} kW offered, more than {share:.0%} is missing"
            at = (one.provider, one.seller, one.place, one.start, one.direction)
            found.append(Withheld(Kind.PHYSICAL, *at, missing, None, None, reason))
    return tuple(sorted(found, key=_of_withheld))


def withheld_by_price(
    offers: Sequence[Offer],
    axis: Axis,
    place_of: Mapping[str, str],
    reference: Mapping[str, Decimal],
    cells: Collection[Cell] | None = None,
) -> tuple[Withheld, ...]:
    """Steps of offers whose price lies above the limit of their seller's reference, for each quarter-hour, sorted.

    `reference` by seller, EUR/MWh in the offer's direction; a seller without one is not judged. Limit: the reference
    and three times its size or 100, whichever is less, but at least 25.
    """
    found = []
    for offer in offers:
        name = seller(offer)
        if name not in reference:
            continue
        level = reference[name]
        limit = max(PRICE_LEAST, level + min(PRICE_SHARE * abs(level), PRICE_MORE))
        for step in offer.steps:
            if step.price_eur_mwh <= limit:
                continue
            for i, power in enumerate(step.quantity_kw):
                start, place = step.start + i * axis.step, place_of.get(name, "")
                if power <= 0 or not axis.covers(start):
                    continue
                if cells is None or (place, start, offer.direction) in cells:
                    reason = f"{step.price_eur_mwh} asked in offer {offer.id}, reference {level}, limit {limit}"
                    at = (offer.provider, name, place, start, offer.direction)
                    found.append(Withheld(Kind.ECONOMIC, *at, power, step.price_eur_mwh, limit, reason))
    return tuple(sorted(found, key=_of_withheld))


def _of_withheld(one: Withheld) -> tuple[str, datetime, str, str, str, int, str]:
    return one.place, one.start, one.provider, one.seller, one.direction, one.kw, one.reason


# ---------------------------------------------------------------- the competitive benchmark


@dataclass(frozen=True, slots=True)
class MarkUp:
    """What was paid in a quarter-hour and direction, EUR, and what would have been if every offer had asked its
    provider's reference cost. `lerner`: the difference over what was paid, None where nothing positive was."""

    start: datetime
    direction: Direction
    paid_eur: Decimal
    competitive_eur: Decimal
    lerner: float | None


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A clearing against the competitive one. `markup_eur`: paid beyond it. `inefficiency_eur`: what the awards cost at
    reference beyond what the best awards cost; the rest of the mark-up only changes hands."""

    cells: tuple[MarkUp, ...]
    paid_eur: Decimal
    competitive_eur: Decimal
    lerner: float | None
    inefficiency_eur: Decimal

    @property
    def markup_eur(self) -> Decimal:
        return self.paid_eur - self.competitive_eur


def benchmark(
    book: OrderBook,
    admissible: Bools,
    answer: Answer,
    reference: Mapping[str, Decimal],
    rule: Pricing,
    again: Clearing,
) -> Benchmark:
    """The clearing `answer` of a book against the one with every price replaced by its seller's reference cost.

    `reference` by seller, EUR/MWh in the offer's direction. `again` clears a book with its admissible blocks and
    everything else as it was. Both are paid by the same rule. Raises Refused with every seller that has no reference.
    """
    unknown = {seller(offer) for offer in book.offers} - set(reference)
    message = "Give its reference cost in EUR/MWh."
    refuse("Reference costs", (Finding(f"seller {name}", "no_reference", message) for name in unknown))
    fair, order = at_reference(book, reference)
    best = again(fair, admissible[order])
    paid, would = _paid(book, answer, rule), _paid(fair, best, rule)
    cells = []
    for start, direction in sorted(set(paid) | set(would)):
        actual, competitive = paid[(start, direction)], would[(start, direction)]
        cells.append(MarkUp(start, direction, actual, competitive, _lerner(actual, competitive)))
    total, least = sum(paid.values(), Decimal(0)), sum(would.values(), Decimal(0))
    actual_award = replace(answer, award_kw=answer.award_kw[order])
    own = sum(_paid(fair, actual_award, Pricing.PAY_AS_BID).values(), Decimal(0))
    lowest = sum(_paid(fair, best, Pricing.PAY_AS_BID).values(), Decimal(0))
    return Benchmark(tuple(cells), total, least, _lerner(total, least), own - lowest)


def at_reference(book: OrderBook, reference: Mapping[str, Decimal]) -> tuple[OrderBook, Ints]:
    """The book with every step at its seller's reference price, in canonical order, and where its blocks stood."""
    offers = tuple(
        replace(o, steps=tuple(replace(step, price_eur_mwh=reference[seller(o)]) for step in o.steps))
        for o in book.offers
    )
    price = np.array([float(reference[seller(o)]) for o in book.offers], dtype=np.float64)[book.offer]
    order: Ints = np.lexsort((book.step, book.offer, price, -book.sign, book.period))
    columns = {
        f.name: getattr(book, f.name)[order] for f in fields(book) if isinstance(getattr(book, f.name), np.ndarray)
    }
    return replace(book, **(columns | {"offers": offers, "price": price[order]})), order


def _paid(book: OrderBook, answer: Answer, rule: Pricing) -> dict[tuple[datetime, Direction], Decimal]:
    """EUR of each quarter-hour and direction, exact."""
    hours = Fraction(book.axis.step.total_seconds()) / 3600
    starts = tuple(book.axis)
    found: dict[tuple[datetime, Direction], Decimal] = defaultdict(Decimal)
    for i, price in prices(book, answer, rule).items():
        cell = (starts[int(book.period[i])], direction_of(int(book.sign[i])))
        found[cell] += price * energy_mwh(int(answer.award_kw[i]), hours)
    return found


def _lerner(paid: Decimal, competitive: Decimal) -> float | None:
    return float((paid - competitive) / paid) if paid > 0 else None


def signals(
    concentrations: Iterable[Concentration] = (),
    residuals: Iterable[Residual] = (),
    games: Iterable[IncDec] = (),
    withheld: Iterable[Withheld] = (),
) -> tuple[Signal, ...]:
    """What of these results a person should look into, sorted by place, kind and provider."""
    found = []
    for market in concentrations:
        if market.level is Level.HIGH:
            place, first = f"{market.product}, {market.perimeter} {market.direction.value}", market.shares[0]
            why = f"HHI {market.hhi:.0f}, above {HIGH:.0f}; the largest share is {first.percent:.1f} %"
            found.append(Signal(place, "concentrated", first.provider, why))
    for supply in residuals:
        if supply.pivotal:
            why = f"others cover {supply.rsi:.0%} of {supply.required:.6g} {supply.unit}"
            found.append(Signal(_where(supply), "pivotal", supply.provider, why))
    for game in games:
        if game.flagged:
            why = (
                f"nominations worsen congestion by {game.mean_kw:.1f} kW more than on {game.pairs} days without "
                f"(p = {game.p_value:.2g}, limit {game.limit:.2g}); {game.activated_kwh:.0f} kWh of relief sold"
            )
            found.append(Signal(f"{game.place} {game.direction.value}", "inc_dec", game.provider, why))
    for power in withheld:
        why = f"{power.seller}, {power.kw} kW: {power.reason}"
        found.append(Signal(_where(power), f"withheld_{power.kind.value}", power.provider, why))
    return tuple(sorted(found))


def _where(one: Residual | Withheld) -> str:
    return f"{one.place} {one.direction.value}, {one.start.isoformat()}"
