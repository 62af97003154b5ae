"""Clearing: the cheapest blocks that meet every need inside the grid's rows, standing under full AC power flow.

Successive linear programs: linearise the limits at risk where the last answer ended, solve, check by power flow, add
what is newly broken, repeat until the answer stands. Integers are decided once the linear answer stands, and the
passes go on with them fixed. What no admissible block covers is left as a slack with its row: never zeros in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.rows import GridModel, GridRows, RowKeys
from coflex.market.balancing import held
from coflex.market.book import OrderBook
from coflex.market.model import Demand, Model, assemble, has_terms
from coflex.market.passes import Passes
from coflex.market.passes import injections as injections

# How often quarter-hours that rounding spoils are cleared again.
GUARDS = 8


@dataclass(frozen=True, eq=False)
class Answer:
    """What a clearing decided, in the book's columns (n blocks).

    `award_kw[n]`: whole kW (kvar of a reactive block). `worth[n]`: EUR/MWh (EUR/Mvarh of a reactive block) that the
    needs would pay for one more MWh of the block, less its toll, before lights and couplings; `light[n]`, `grid[n]`,
    `coupling[n]`: what each of those takes off (negative) or adds. `considered[n]`: the block was in the program.
    `uncovered_mw[k]`: of each request, in Mvar of one of reactive power; `short[r]`: of each grid row, in the row's own
    unit. `rows`, `row_price` the last linearisation with EUR per unit of room. `passes`: linear programs with a power
    flow. `gap`: by how much the choice among indivisible offers may miss the best, relative to what the awards cost; 0
    where proved. `award_mw[n]`: the optimum that whole kW come near to. `paradoxical`: offers (places in the book's
    `offers`) refused for a term of their own although they would earn at these prices.
    """

    award_kw: Ints
    considered: Bools
    request_worth: Floats
    grid_worth: Floats
    light_worth: Floats
    coupling_worth: Floats
    uncovered_mw: Floats
    rows: GridRows | None
    short: Floats
    row_price: Floats
    passes: int
    gap: float
    solver_seconds: float
    award_mw: Floats = field(default_factory=lambda: np.zeros(0))
    paradoxical: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def worth(self) -> Floats:
        """EUR/MWh that one more MWh of a block is worth, all told."""
        return self.request_worth + self.grid_worth + self.light_worth + self.coupling_worth


def clear(
    book: OrderBook,
    admissible: Bools,
    demand: Demand,
    grid: GridModel | None = None,
    capability_mw: Mapping[tuple[str, int], Floats] | None = None,
    toll: Floats | None = None,
) -> Answer:
    """Clear the admissible blocks of a book against requests, grid limits and lights, whichever are given.

    `toll` (n,): EUR/MWh of each block on top of its price in the choice, not in what is paid, as the price of energy
    where a local market meets the one above: an up block that sells there at 50 has a toll of -50, a down block one of
    50. Blocks that cost less than nothing with their toll are then bought as far as limits and requests let them.

    Guarantees: award <= offer in whole kW; nothing bought beyond a request that is not net, save reactive power in
    quarter-hours with a limit of the grid at risk, or tied to one; a net request that the linear answer meets is met to
    the whole kW where enough blocks without terms can give way; the same book in any order gives the same answer; with
    a grid, every limit holds to 1e-6 by AC power flow where `short` is zero.
    Raises GridFailure when a state has no power flow, SolverFailure when the solver gives up, CoflexError on a toll
    that does not fit the book.
    """
    periods = demand.period if toll is None else np.concatenate([demand.period, _gainful(book, admissible, toll)])
    first = None
    if grid is not None:
        nothing = np.zeros((len(book.axis), grid.network.n))
        first = grid.look(nothing, nothing, np.arange(len(book.axis), dtype=np.int64), RowKeys.none())
        periods = np.concatenate([first.broken.period, periods])
    periods = np.unique(periods)
    model = assemble(book, _blocks(book, admissible, periods), demand, capability_mw, toll)
    passes = Passes(model, grid)
    passes.begin(periods, first)
    passes.settle()
    optimum, award_kw = model.awarded(passes.x), _rounded(model, passes)
    for _ in range(GUARDS):
        if not passes.guard(award_kw):
            break
        passes.settle()
        award_kw = _rounded(model, passes)
    passes.reprice()
    return _answer(model, passes, award_kw, optimum)


def _gainful(book: OrderBook, admissible: Bools, toll: Floats) -> Ints:
    """Quarter-hours of the blocks that cost less than nothing with their toll. Raises CoflexError on a toll that does
    not fit the book."""
    if toll.shape != (len(book),) or not np.isfinite(toll).all():
        raise CoflexError(
            f"A toll of shape {toll.shape} does not fit a book of {len(book)} blocks.",
            "Give one finite number for each block.",
        )
    return book.period[admissible & (book.price + toll < 0)]


def _rounded(model: Model, passes: Passes) -> Ints:
    book = model.book
    awarded = model.awarded(passes.x)
    considered = np.zeros(len(book), dtype=np.bool_)
    considered[model.blocks] = True
    whole = _whole_kw(book, awarded, model.demand, passes.grid is not None, model.toll)
    if not model.demand.asks_active or model.demand.net:
        # One unit may fill requests of both directions; what balances and limits alone ask for goes one way.
        filling = book.reactive & np.isin(book.period, model.demand.period) & (not model.demand.net)
        whole = np.where(filling, whole, _one_way(book, np.where(filling, 0, whole)))
    if model.demand.net:
        whole = held(model, passes.x, whole)
    return _by_receipt(book, whole, considered, model.toll)


def _blocks(book: OrderBook, admissible: Bools, periods: Ints) -> Ints:
    """Admissible blocks of the periods that matter; indivisible offers with all their periods, or not at all."""
    wanted = admissible & np.isin(book.period, periods)
    whole = np.array([offer.block for offer in book.offers], dtype=np.bool_)
    if whole.any():
        count = len(book.offers)
        touched = np.bincount(book.offer[wanted], minlength=count) > 0
        spoiled = np.bincount(book.offer[~admissible], minlength=count) > 0
        keep = (whole & touched & ~spoiled)[book.offer]
        wanted = (wanted & ~whole[book.offer]) | keep
    return np.flatnonzero(wanted)


def _answer(model: Model, passes: Passes, award_kw: Ints, optimum: Floats) -> Answer:
    book, blocks, hours, table = model.book, model.blocks, model.book.axis.hours, passes.table
    k, n = len(blocks), len(book)
    price, count = passes.row_price, len(model.demand)
    worth = {
        "request": _worth(model, price, 0, model.first_light),
        "light": _worth(model, price, model.first_light, model.first_coupling),
        "coupling": _worth(model, price, model.first_coupling, model.rows),
        "grid": np.zeros(n),
    }
    if model.toll is not None:
        worth["request"][blocks] -= model.toll[blocks]
    if model.shift is not None:
        worth["request"][blocks] -= model.shift
    if table is not None:
        worth["grid"][blocks] = table.worth(model) / hours
    need = worth["request"] + worth["light"] + worth["grid"]
    worth["coupling"] = _shared(model, passes.active, need, worth["coupling"])
    considered = np.zeros(n, dtype=np.bool_)
    considered[blocks] = True
    return Answer(
        award_kw=award_kw,
        considered=considered,
        request_worth=worth["request"],
        grid_worth=worth["grid"],
        light_worth=worth["light"],
        coupling_worth=worth["coupling"],
        uncovered_mw=passes.x[k : k + model.demand.slacks].reshape(-1, max(1, count)).sum(axis=0),
        rows=None if table is None else table.told(),
        short=np.zeros(0) if table is None else passes.short(award_kw),
        row_price=np.zeros(0) if table is None else table.price / hours,
        passes=max(1, passes.count),
        gap=passes.gap,
        solver_seconds=passes.seconds,
        award_mw=optimum,
        paradoxical=_paradoxical(model, award_kw, need),
    )


def _worth(model: Model, price: Floats, first: int, last: int) -> Floats:
    """EUR/MWh that rows of the model from `first` to before `last` give to each block of the book."""
    worth = np.zeros(len(model.book))
    if last > first:
        columns = model.fixed.matrix[first:last].T @ price[first:last]
        worth[model.blocks] = columns[: len(model.blocks)] / model.book.axis.hours
    return worth


def _shared(model: Model, active: Bools, need: Floats, coupling: Floats) -> Floats:
    """What couplings add: a block offer earns the same in each of its quarter-hours, so its surplus is shared out."""
    book, offer = model.book, model.book.offer[model.blocks]
    whole = np.flatnonzero((model.whole >= 0) & (active[model.column_group[model.whole]] if len(active) else False))
    if not len(whole):
        return coupling
    mine = model.blocks[whole]
    surplus = np.bincount(offer[whole], weights=book.quantity_mw[mine] * (need[mine] - book.price[mine]))
    quantity = np.bincount(offer[whole], weights=book.quantity_mw[mine])
    shared = coupling.copy()
    shared[mine] = book.price[mine] + (surplus / np.maximum(quantity, 1e-12))[offer[whole]] - need[mine]
    return shared


def _paradoxical(model: Model, award_kw: Ints, need: Floats) -> Ints:
    """Offers refused although worth more than their price: of a block nothing, of a least quantity nothing in a
    quarter-hour."""
    book, mine = model.book, model.blocks
    terms = np.array([offer.block or offer.min_quantity_kw > 0 for offer in book.offers], dtype=np.bool_)
    mine = mine[terms[book.offer[mine]]] if len(mine) else mine
    if not len(mine):
        return np.zeros(0, dtype=np.int64)
    block = np.array([offer.block for offer in book.offers], dtype=np.bool_)[book.offer[mine]]
    # A block is one thing over its quarter-hours; a least quantity is a matter of each.
    thing = book.offer[mine] * (len(book.axis) + 1) + np.where(block, len(book.axis), book.period[mine])
    named, at = np.unique(thing, return_inverse=True)
    surplus = book.quantity_mw[mine] * (need[mine] - book.price[mine])
    earned = np.bincount(at, weights=np.where(block, surplus, np.maximum(surplus, 0.0)))
    size = np.bincount(at, weights=book.quantity_mw[mine])
    bought = np.bincount(at, weights=award_kw[mine])
    refused = (bought == 0) & (earned > 1e-3 * size)
    return np.unique(named[refused] // (len(book.axis) + 1))


def _whole_kw(book: OrderBook, award_mw: Floats, demand: Demand, relief: bool, toll: Floats | None = None) -> Ints:
    """Round to whole kW towards feasibility: up where awards only relieve a grid, down where they fill a request, are
    a gain with their toll, or where an energy limit stands."""
    kw = award_mw * 1000.0
    requested = _requested(book, award_mw, demand)
    if toll is not None:
        requested |= book.price + toll < 0
    above = np.ceil(kw - 1e-6)
    used = np.bincount(book.offer, weights=above, minlength=len(book.offers)) * book.axis.hours
    limit = np.array([np.inf if o.energy_limit_kwh is None else o.energy_limit_kwh for o in book.offers])
    down = (used > limit)[book.offer] | requested if relief else np.ones(len(book), dtype=np.bool_)
    whole = np.where(down, np.floor(kw + 1e-6), above).astype(np.int64)
    offered: Ints = np.round(book.quantity_mw * 1000).astype(np.int64)
    return np.minimum(whole, offered)


def _requested(book: OrderBook, award_mw: Floats, demand: Demand) -> Bools:
    """Whether each block fills a request, (n,); reactive power of which more is bought than is asked for in a
    quarter-hour and direction is there for limits of the grid."""
    code, asked, reactive = book.period, demand.period, demand.is_reactive
    if not demand.net:
        code, asked = 2 * book.period + (book.sign > 0), 2 * demand.period + (demand.sign > 0)
    found = np.where(book.reactive, np.isin(code, asked[reactive]), np.isin(code, asked[~reactive]))
    if not demand.net and reactive.any():
        cells = 2 * len(book.axis)
        bought = np.bincount(code, weights=np.where(book.reactive, award_mw, 0.0), minlength=cells)
        wanted = np.bincount(asked[reactive], weights=demand.quantity_mw[reactive], minlength=cells)
        found &= ~book.reactive | (bought <= wanted + 1e-6)[code]
    return found


def _one_way(book: OrderBook, award_kw: Ints) -> Ints:
    """Awards of a unit both ways in a quarter-hour less what they cancel of each other: where passes end before they
    agree, a unit may be on its way from one direction to the other.

    The smaller way goes, or the one without an indivisible offer; the other gives up as much where its offers can be
    cut, the dearest first. What that changes in the grid is looked at with the rounding. Two indivisible ways stay.
    """
    settled = award_kw.copy()
    for mine in _both_ways(book, award_kw):
        ways = [[i for i in mine if book.sign[i] == way] for way in (1, -1)]
        if not all(ways):
            continue
        loose = [way for way in ways if not any(book.offers[int(book.offer[i])].block for i in way)]
        if not loose:
            continue
        gone = min(loose, key=lambda way: int(award_kw[way].sum()))
        kept = ways[1] if gone is ways[0] else ways[0]
        left = int(award_kw[gone].sum())
        settled[gone] = 0
        for i in sorted(kept, key=lambda i: -book.price[i]):
            offer = book.offers[int(book.offer[i])]
            if not offer.block and not offer.min_quantity_kw:
                off = min(left, int(settled[i]))
                settled[i] -= off
                left -= off
    return settled


def _both_ways(book: OrderBook, award_kw: Ints) -> list[list[int]]:
    """The awarded blocks of each unit and quarter-hour that sells both ways. Active and reactive power are two things:
    a unit may go up in the one and down in the other."""
    code: dict[str, int] = {}
    of_offer = np.array([code.setdefault(offer.unit, len(code)) if offer.unit else -1 for offer in book.offers])
    sold = np.flatnonzero(award_kw > 0)
    sold = sold[of_offer[book.offer[sold]] >= 0] if len(sold) else sold
    if not len(sold):
        return []
    cell = (of_offer[book.offer[sold]] * len(book.axis) + book.period[sold]) * 2 + (book.p_share[sold] == 0.0)
    up = book.sign[sold] > 0
    return [sold[cell == both].tolist() for both in np.intersect1d(cell[up], cell[~up])]


def _by_receipt(book: OrderBook, award_kw: Ints, considered: Bools, toll: Floats | None = None) -> Ints:
    """Among blocks that are alike in all but their receipt, the earlier receipt is served first.

    Alike: quarter-hour, direction, price with toll, place, zone and reactive power, of offers without terms that couple
    periods.
    """
    free = np.array([not has_terms(offer) for offer in book.offers], dtype=np.bool_)
    mine = np.flatnonzero(considered & free[book.offer]) if len(book) else np.zeros(0, dtype=np.int64)
    if not len(mine):
        return award_kw
    keys: tuple[Floats | Ints, ...] = (book.tan_phi, book.perimeter, book.node, book.price, book.sign, book.period)
    # What tells no two blocks of the book apart need not be sorted by.
    further = (book.p_share, book.zone) if toll is None else (book.p_share, book.zone, toll)
    keys = (*(key for key in further if key.min() < key.max()), *keys)
    order = mine[np.lexsort((book.step[mine], book.offer[mine], *(key[mine] for key in keys)))]
    same = np.ones(len(order), dtype=np.bool_)
    same[0] = False
    for key in keys:
        same[1:] &= key[order][1:] == key[order][:-1]
    run = np.cumsum(~same) - 1
    offered: Ints = np.round(book.quantity_mw[order] * 1000).astype(np.int64)
    before = np.cumsum(offered) - offered
    before -= np.maximum.accumulate(np.where(same, 0, before))
    total = np.bincount(run, weights=award_kw[order]).astype(np.int64)
    settled = award_kw.copy()
    settled[order] = np.clip(total[run] - before, 0, offered)
    return settled
