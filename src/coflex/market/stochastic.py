"""Two-stage day-ahead clearing: awards and reserve bought together over what the day could bring, and the real-time
market that calls the reserve.

First stage: awards (firm in every scenario) and reservations (capacity held, paid by availability). Second stage: in
each scenario the cheapest activations within the reservations, on that scenario's own grid rows, made again at its
own operating point until its AC power flow agrees. See docs/mathematics/two-stage.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.clearing import Status
from coflex.domain.errors import CoflexError, refuse
from coflex.domain.quantity import Floats, Ints
from coflex.domain.reserve import CapacityOffer, Reservation
from coflex.grid.rows import GridModel
from coflex.market.book import OrderBook, direction_of
from coflex.market.clearing import Answer, clear
from coflex.market.model import Demand
from coflex.market.two_stage.inputs import Outlook, ReserveBook, Surroundings, build_reserve, gainful_pairs
from coflex.market.two_stage.passes import Offered, Plan, blocks_in_books, optimise
from coflex.market.two_stage.program import shared

__all__ = [
    "Outlook",
    "Plan",
    "ReserveBook",
    "Surroundings",
    "TwoStage",
    "Value",
    "build_reserve",
    "clear_two_stage",
    "redispatch",
    "reservations",
    "value_of",
]


@dataclass(frozen=True, eq=False)
class TwoStage:
    """What a two-stage clearing decided, in the books' columns; s scenarios over t periods, in the order given.

    `award_kw[n]`, `reserved_kw[n]`: whole kW. `called_mw[s, n]`: what scenario s would call of each capacity block.
    `lacking_mw`, `surplus_mw` [s, t]: of the need to be balanced. `short[s]`: limits that stay broken in scenario s,
    as (name, period, by how much in pu or share of rating). `worth[n]`: EUR that one more MW and hour of a capacity
    block would save, which is its price where capacity is paid as cleared. `first_eur`: awards and reservations;
    `second_eur[s]`: activations and shortfalls of each scenario; `cost_eur`: expected, of the published whole kW.
    `ideal`: the plan before rounding. `gap`: relative, what indivisible offers may have missed.
    """

    award_kw: Ints
    reserved_kw: Ints
    called_mw: Floats
    lacking_mw: Floats
    surplus_mw: Floats
    short: tuple[tuple[tuple[str, int, float], ...], ...]
    worth: Floats
    first_eur: float
    second_eur: Floats
    cost_eur: float
    ideal: Plan
    passes: int
    gap: float
    solver_seconds: float


@dataclass(frozen=True, slots=True)
class Value:
    """What looking at scenarios is worth, expected EUR (Birge and Louveaux, Introduction to Stochastic Programming,
    2nd ed., chapter 4). `recourse` RP; `mean_value` EEV: the first stage that the mean scenario asks for, met by
    every scenario; `foresight` WS: as if the scenario were known when buying."""

    recourse: float
    mean_value: float
    foresight: float

    @property
    def of_stochastic_solution(self) -> float:
        """VSS = EEV - RP: what it costs to plan for the mean only."""
        return self.mean_value - self.recourse

    @property
    def of_perfect_information(self) -> float:
        """EVPI = RP - WS: the most that a perfect forecast could save."""
        return self.recourse - self.foresight


def clear_two_stage(awards: OrderBook, reserve: ReserveBook, outlook: Outlook, penalty_eur_mwh: float) -> TwoStage:
    """Buy awards and reservations at the least expected cost over the scenarios.

    `penalty_eur_mwh`: value of lost flexibility, what a MWh of need that stays uncovered costs; for each grid limit,
    a MWh at the node that would free it best. What is dearer than this is not bought.
    Guarantees: awards and reservations within offers, a seller's kW sold once; every scenario's grid limits hold to
    1e-6 by its power flow where `short` is empty; the order of offers and of scenarios decides nothing.
    Raises Refused with sellers who would pay for going both ways, CoflexError on data that do not fit, GridFailure
    when a scenario has no power flow, SolverFailure when the solver or the passes give up.
    """
    offered = _checked(awards, reserve, outlook, penalty_eur_mwh)
    order = outlook.canonical()
    ordered = outlook.part(order)
    one = np.zeros(len(outlook), dtype=np.int64)
    seconds = 0.0
    for tighter in (0.0, 1.0, 2.0, 4.0):
        ideal = optimise(offered, ordered, one, tighter=tighter)
        award_kw, reserved_kw = _whole_kw(offered, ideal)
        told = optimise(offered, ordered, one, fixed=(award_kw / 1000.0, reserved_kw / 1000.0))
        seconds += ideal.seconds + told.seconds
        # A limit that only rounding breaks is met with a margin for rounding.
        if not told.short or ideal.short:
            break
    return _answer(ideal, told, award_kw, reserved_kw, np.argsort(order), seconds)


def value_of(awards: OrderBook, reserve: ReserveBook, outlook: Outlook, penalty_eur_mwh: float) -> Value:
    """The value of the stochastic solution and of perfect information, from programs in kW not rounded.

    Raises as `clear_two_stage`.
    """
    offered = _checked(awards, reserve, outlook, penalty_eur_mwh)
    ordered = outlook.part(outlook.canonical())
    one, own = np.zeros(len(outlook), dtype=np.int64), np.arange(len(outlook), dtype=np.int64)
    mean = optimise(offered, ordered.mean(), np.zeros(1, dtype=np.int64))
    return Value(
        recourse=optimise(offered, ordered, one).cost_eur,
        mean_value=optimise(offered, ordered, one, fixed=(mean.award_mw[0], mean.reserved_mw[0])).cost_eur,
        foresight=optimise(offered, ordered, own).cost_eur,
    )


def redispatch(
    reserve: ReserveBook,
    reserved_kw: Ints,
    grid: GridModel | None = None,
    need_mw: Floats | None = None,
    penalty_eur_mwh: float = np.inf,
) -> Answer:
    """The real-time market: the cheapest activation of what is reserved in the state that came.

    `reserved_kw[n]`: of each capacity block. `grid`: the state with the awards in it; `need_mw[t]`: what is left to
    be balanced after the awards, up positive. Blocks dearer in use than the penalty are not called. The answer is in
    the columns of `reserve.book`. Raises as `clearing.clear`.
    """
    book = reserve.book
    offers = tuple(
        replace(offer, block=False, min_quantity_kw=0, max_periods=None, exclusive=None) for offer in book.offers
    )
    held = replace(book, offers=offers, quantity_mw=reserved_kw / 1000.0)
    asked = np.zeros(0, dtype=np.int64) if need_mw is None else np.arange(len(need_mw), dtype=np.int64)
    need = np.zeros(0) if need_mw is None else need_mw
    sign: Ints = np.where(need < 0, -1, 1).astype(np.int64)
    demand = Demand(sign, asked, np.abs(need), np.full(len(asked), penalty_eur_mwh), net=need_mw is not None)
    return clear(held, (reserved_kw > 0) & (book.price <= penalty_eur_mwh), demand, grid)


def reservations(
    reserve: ReserveBook,
    offers: Sequence[CapacityOffer],
    reserved_kw: Ints,
    session: str,
    buyer: str,
    status: Status = Status.DEFINITIVE,
) -> tuple[Reservation, ...]:
    """The record of every block that is held, in the book's order."""
    asked = {offer.offer.id: offer for offer in offers}
    book, found = reserve.book, []
    for i in np.flatnonzero(reserved_kw > 0).tolist():
        offer, s = book.offers[int(book.offer[i])], int(book.step[i])
        found.append(
            Reservation(
                session=session,
                offer=offer.id,
                step=offer.steps[s].number,
                provider=offer.provider,
                buyer=buyer,
                product=offer.product,
                unit=offer.unit,
                group=offer.group,
                direction=direction_of(int(book.sign[i])),
                start=book.axis[int(book.period[i])],
                quantity_kw=int(reserved_kw[i]),
                availability_eur_mw_h=asked[offer.id].availability_eur_mw_h[s],
                use_eur_mwh=offer.steps[s].price_eur_mwh,
                status=status,
            )
        )
    return tuple(found)


def _checked(awards: OrderBook, reserve: ReserveBook, outlook: Outlook, penalty: float) -> Offered:
    if awards.axis != reserve.book.axis:
        raise CoflexError("Awards and reserve are offered for different horizons.", "Build both books on one axis.")
    if not 0 < penalty < np.inf:
        raise CoflexError(f"{penalty} EUR/MWh is no value of lost flexibility.", "Give a positive price.")
    outlook.check(len(awards.axis))
    if outlook.need_mw is not None:
        refuse("Offers", gainful_pairs(awards, reserve.book))
    return Offered(awards, reserve, penalty)


def _whole_kw(offered: Offered, ideal: Plan) -> tuple[Ints, Ints]:
    """Whole kW, up, where offers, energy limits and what a seller has leave room: more in hand never does harm that
    the second stage cannot undo but for a kW that it would pay for."""
    blocks = blocks_in_books(offered)
    kw = 1000.0 * np.concatenate([ideal.award_mw[0], ideal.reserved_mw[0]])
    limited = np.array([offer.energy_limit_kwh is not None for offer in blocks.offers], dtype=np.bool_)[blocks.offer]
    limited &= np.arange(len(blocks)) < blocks.awards
    offered_kw: Ints = np.round(1000.0 * blocks.quantity_mw).astype(np.int64)
    whole = np.where(limited, np.floor(kw + 1e-6), np.ceil(kw - 1e-6)).astype(np.int64)
    whole = np.clip(whole, 0, offered_kw)
    for mine, most in shared(blocks):
        over = int(whole[mine].sum()) - round(1000.0 * most)
        for i in mine[::-1]:
            # Never below the floor: each block was rounded up by less than one kW.
            if over > 0 and whole[i] > kw[i]:
                whole[i], over = whole[i] - 1, over - 1
    return whole[: blocks.awards], whole[blocks.awards :]


def _answer(ideal: Plan, told: Plan, award_kw: Ints, reserved_kw: Ints, back: Ints, seconds: float) -> TwoStage:
    """The plan of whole kW, its scenarios in the order given; of the two ends of a branch the worse is told."""
    short: list[dict[tuple[str, int], float]] = [{} for _ in back]
    for s, t, name, lacks in told.short:
        short[s][name, t] = max(short[s].get((name, t), 0.0), lacks)
    return TwoStage(
        award_kw=award_kw,
        reserved_kw=reserved_kw,
        called_mw=told.called_mw[back],
        lacking_mw=told.lacking_mw[back],
        surplus_mw=told.surplus_mw[back],
        short=tuple(tuple((name, t, lacks) for (name, t), lacks in sorted(short[s].items())) for s in back.tolist()),
        worth=ideal.worth,
        first_eur=float(told.first_eur[0]),
        second_eur=told.second_eur[back],
        cost_eur=told.cost_eur,
        ideal=ideal,
        passes=ideal.passes + told.passes,
        gap=ideal.gap,
        solver_seconds=seconds,
    )
