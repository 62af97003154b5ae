"""From book, requests, lights and grid rows to a program.

    min   sum_i h c_i q_i + M (sum_k s_k + sum_r s_r)
    s.t.  sum_{i in k} q_i + s_k  = D_k                       each request k (period, direction)
          sum_{i in l} q_i       <= C_l                       each light l (perimeter, direction, period)
          sum_i a_ri d_i q_i - s_r w_r <= room_r              each grid row r
          h sum_{i in o} q_i     <= E_o                       offers with an energy limit
          blocks, minimum quantities, run lengths, exclusive labels: binaries
          0 <= q_i <= Q_i

q in MW, h hours a period, c in EUR/MWh, a_ri effect of one MW (with the reactive power that follows), d_i = +1 up,
-1 down. s are the uncovered parts: w_r, the largest effect in the row, makes s_r a power too, so that one penalty M
serves; M lies far above any price, so nothing stays uncovered that an admissible block could cover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.rows import GridRows
from coflex.market.book import OrderBook, seller
from coflex.solver.program import Program

# EUR per MWh of uncovered need: a thousand times a price cap of 1,000 EUR/MWh, divided by what a less effective
# unit loses (effects below a thousandth of the row's largest are not worth activating).
PENALTY = 1e6
# EUR/MWh between the first and the last of equal prices: far below a price's smallest step of 0.01.
TIE_BREAK = 1e-5


@dataclass(frozen=True, eq=False)
class Demand:
    """Requests of a session: k entries. `sign[k]`, `period[k]`, `quantity_mw[k]`, `price_limit[k]` EUR/MWh.

    `net`: the request is for the balance of all awards of its quarter-hour, up less down, as when one market serves
    every need; otherwise for awards in its own direction, and nothing else may be bought in a quarter-hour.
    """

    sign: Ints
    period: Ints
    quantity_mw: Floats
    price_limit: Floats
    net: bool = False

    @staticmethod
    def none() -> Demand:
        empty, none = np.zeros(0), np.zeros(0, dtype=np.int64)
        return Demand(none, none, empty, empty)

    def __len__(self) -> int:
        return len(self.period)

    @property
    def slacks(self) -> int:
        """Columns for what stays uncovered: one a request, two where it may be missed either way."""
        return len(self) * (2 if self.net else 1)


@dataclass
class _Triples:
    """A sparse matrix and its row bounds under construction."""

    rows: list[Ints] = field(default_factory=list)
    columns: list[Ints] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    lower: list[Floats] = field(default_factory=list)
    upper: list[Floats] = field(default_factory=list)
    count: int = 0

    def add(self, rows: Ints, columns: Ints, values: Floats, lower: Floats, upper: Floats) -> None:
        """Append len(lower) rows; `rows` counts within them."""
        self.rows.append(rows + self.count)
        self.columns.append(columns)
        self.values.append(values)
        self.lower.append(lower)
        self.upper.append(upper)
        self.count += len(lower)

    def entries(self, row: int, columns: Ints, values: Floats) -> None:
        """More entries of the row `row` (absolute)."""
        self.rows.append(np.full(len(columns), row, dtype=np.int64))
        self.columns.append(columns)
        self.values.append(values)

    def matrix(self, width: int) -> sparse.csr_array:
        if not self.rows:
            return sparse.csr_array((0, width))
        data = np.concatenate(self.values)
        index = (np.concatenate(self.rows), np.concatenate(self.columns))
        return sparse.csr_array((data, index), shape=(self.count, width))


@dataclass(frozen=True, eq=False)
class Model:
    """The part of a program that does not change between passes, and where its pieces stand.

    `blocks`: book indices of the award columns, which come first; then the request slacks, then the binaries;
    grid slacks are appended with the grid rows. Rows: requests, lights, couplings, then grid rows.
    """

    book: OrderBook
    blocks: Ints
    demand: Demand
    light_rows: dict[int, tuple[int, int, int]]
    first_light: int
    first_coupling: int
    coupling_names: tuple[str, ...]
    fixed: Program

    @property
    def rows(self) -> int:
        return len(self.fixed.row_lower)


def assemble(
    book: OrderBook,
    blocks: Ints,
    demand: Demand,
    capability_mw: Mapping[tuple[str, int], Floats] | None,
) -> Model:
    """The model over the blocks `blocks` (sorted book indices).

    `capability_mw[(perimeter, sign)]`: capability per period; None means no light limits. A perimeter that has
    no entry is not limited.
    """
    hours = book.axis.hours
    rows = _Triples()
    columns = len(blocks)
    (_balance_rows if demand.net else _request_rows)(rows, book, blocks, demand, columns)
    first_light = rows.count
    light_rows = _light_rows(rows, book, blocks, capability_mw or {})
    first_coupling = rows.count
    binaries = _Binaries(columns + demand.slacks)
    names = _coupling_rows(rows, book, blocks, binaries)
    width = binaries.next
    cost = np.zeros(width)
    price = book.price[blocks]
    if not len(demand):
        price = _never_gainful(price)
    rank = np.argsort(np.argsort(book.offer[blocks], kind="stable"), kind="stable")
    cost[:columns] = hours * (price + TIE_BREAK * rank / max(1, columns))
    cost[columns : columns + demand.slacks] = hours * PENALTY
    most = np.full(demand.slacks, np.inf) if demand.net else demand.quantity_mw
    upper = np.concatenate([book.quantity_mw[blocks], most, np.ones(binaries.count)])
    integer = np.arange(width) >= columns + demand.slacks
    program = Program(
        cost, rows.matrix(width), _joined(rows.lower), _joined(rows.upper), np.zeros(width), upper, integer
    )
    return Model(book, blocks, demand, light_rows, first_light, first_coupling, names, program)


def _never_gainful(price: Floats) -> Floats:
    """Prices at which nothing is worth buying beyond a need: those below a cent are squeezed, in their order, between
    half a cent and a cent. A local need must not be met beyond itself because a provider pays for it."""
    lowest = float(price.min(initial=0.01))
    if lowest >= 0.01:
        return price
    return np.where(price < 0.01, 0.005 + 0.005 * (price - lowest) / (0.01 - lowest), price)


def with_grid(model: Model, grid: GridRows) -> tuple[Program, Floats]:
    """The program with the grid's rows appended, and the scale w_r of each (m,)."""
    book, blocks, fixed = model.book, model.blocks, model.fixed
    order = np.argsort(book.period[blocks], kind="stable")
    period = book.period[blocks][order]
    begin, end = np.searchsorted(period, grid.period), np.searchsorted(period, grid.period, side="right")
    count = end - begin
    row = np.repeat(np.arange(len(grid)), count)
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    column = order[np.repeat(begin, count) + within]
    block = blocks[column]
    node = book.node[block]
    effect = book.sign[block] * (grid.dp[row, node] + book.tan_phi[block] * grid.dq[row, node])
    effect = np.where(node >= 0, effect, 0.0)
    scale = np.zeros(len(grid))
    np.maximum.at(scale, row, np.abs(effect))
    scale = np.where(scale > 0, scale, 1.0)
    value = effect / scale[row]
    # Effects below a thousandth of the strongest only slow the solver; the next pass sees what they leave out.
    keep = np.abs(value) > 1e-6
    width = len(fixed.cost)
    slack = width + np.arange(len(grid))
    index = (np.r_[row[keep], np.arange(len(grid))], np.r_[column[keep], slack])
    matrix = sparse.csr_array((np.r_[value[keep], -np.ones(len(grid))], index), shape=(len(grid), width + len(grid)))
    wide = sparse.csr_array(
        (fixed.matrix.data, fixed.matrix.indices, fixed.matrix.indptr), shape=(model.rows, width + len(grid))
    )
    program = Program(
        cost=np.r_[fixed.cost, np.full(len(grid), book.axis.hours * PENALTY)],
        matrix=sparse.csr_array(sparse.vstack([wide, matrix], format="csr")),
        row_lower=np.r_[fixed.row_lower, np.full(len(grid), -np.inf)],
        row_upper=np.r_[fixed.row_upper, grid.room / scale],
        lower=np.zeros(width + len(grid)),
        upper=np.r_[fixed.upper, np.full(len(grid), np.inf)],
        integer=np.r_[fixed.integer, np.zeros(len(grid), dtype=np.bool_)],
    )
    return program, scale


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)


def _request_rows(rows: _Triples, book: OrderBook, blocks: Ints, demand: Demand, first_slack: int) -> None:
    if not len(demand):
        return
    # Requests of several buyers for one quarter-hour and direction share a row; each keeps its own slack.
    code = 2 * demand.period + (demand.sign > 0)
    asked_codes, row_of = np.unique(code, return_inverse=True)
    wanted: Floats = np.bincount(row_of, weights=demand.quantity_mw).astype(np.float64)
    of_block = 2 * book.period[blocks] + (book.sign[blocks] > 0)
    place = np.searchsorted(asked_codes, of_block)
    at = np.where(asked_codes[np.minimum(place, len(asked_codes) - 1)] == of_block, place, -1)
    asked = np.flatnonzero(at >= 0)
    rows.add(
        np.r_[at[asked], row_of].astype(np.int64),
        np.r_[asked, first_slack + np.arange(len(demand))].astype(np.int64),
        np.ones(len(asked) + len(demand)),
        wanted,
        wanted,
    )
    unasked = np.flatnonzero(at < 0)
    if len(unasked):
        # A whole-day block must not be bought in a quarter-hour that asks for nothing.
        rows.add(unasked * 0, unasked, np.ones(len(unasked)), np.zeros(1), np.zeros(1))


def _balance_rows(rows: _Triples, book: OrderBook, blocks: Ints, demand: Demand, first_slack: int) -> None:
    """sum_i d_i q_i + s_up - s_down = D for each quarter-hour that is asked for; one request each."""
    row_of = np.full(len(book.axis), -1, dtype=np.int64)
    row_of[demand.period] = np.arange(len(demand))
    at = row_of[book.period[blocks]]
    inside = np.flatnonzero(at >= 0)
    slack = np.arange(len(demand))
    signed = demand.sign * demand.quantity_mw
    rows.add(
        np.concatenate([at[inside], slack, slack]),
        np.concatenate([inside, first_slack + slack, first_slack + len(demand) + slack]),
        np.concatenate([book.sign[blocks[inside]], np.ones(len(demand)), -np.ones(len(demand))]),
        signed,
        signed,
    )


def _light_rows(
    rows: _Triples, book: OrderBook, blocks: Ints, capability_mw: Mapping[tuple[str, int], Floats]
) -> dict[int, tuple[int, int, int]]:
    """One row for each light that could bind; returns what each row is: (perimeter, sign, period)."""
    names: dict[int, tuple[int, int, int]] = {}
    for (perimeter, sign), capability in sorted(capability_mw.items()):
        if perimeter not in book.perimeters:
            continue
        p = book.perimeters.index(perimeter)
        mine = np.flatnonzero((book.perimeter[blocks] == p) & (book.sign[blocks] == sign))
        if not len(mine):
            continue
        period = book.period[blocks[mine]]
        offered = np.bincount(period, weights=book.quantity_mw[blocks[mine]], minlength=len(book.axis))
        binding = np.flatnonzero(offered > capability)
        row_of = np.full(len(book.axis), -1, dtype=np.int64)
        row_of[binding] = np.arange(len(binding))
        inside = row_of[period] >= 0
        for k, t in enumerate(binding):
            names[rows.count + k] = (p, sign, int(t))
        bound = capability[binding]
        rows.add(row_of[period[inside]], mine[inside], np.ones(inside.sum()), np.full(len(bound), -np.inf), bound)
    return names


@dataclass
class _Binaries:
    next: int
    count: int = 0

    def take(self) -> int:
        column = self.next
        self.next += 1
        self.count += 1
        return column


def _coupling_rows(rows: _Triples, book: OrderBook, blocks: Ints, binaries: _Binaries) -> tuple[str, ...]:
    """Rows that couple periods or offers, for the few offers that have such terms; the name of each row."""
    names: list[str] = []
    labels: dict[tuple[str, str], list[int]] = {}
    both = _both_ways(book, blocks)
    by_offer = np.argsort(book.offer[blocks], kind="stable")
    offer_of = book.offer[blocks][by_offer]
    for o, offer in enumerate(book.offers):
        first, last = np.searchsorted(offer_of, [o, o + 1])
        mine = by_offer[first:last]
        if not len(mine):
            continue
        quantity = book.quantity_mw[blocks[mine]]
        if offer.energy_limit_kwh is not None:
            energy = np.array([offer.energy_limit_kwh / 1000 / book.axis.hours])
            rows.add(mine * 0, mine, np.ones(len(mine)), np.array([-np.inf]), energy)
            names.append(f"energy limit of {offer.id}")
        if offer.block or offer.exclusive is not None:
            whole = binaries.take()
            _all_or_nothing(rows, mine, quantity, whole, offer.block)
            names += [f"{'block' if offer.block else 'choice'} {offer.id}"] * len(mine)
            if offer.exclusive is not None:
                labels.setdefault((offer.provider, offer.exclusive), []).append(whole)
        if offer.min_quantity_kw > 0 or offer.max_periods is not None:
            names += _runs(rows, book, blocks, mine, binaries, offer)
    for (provider, label), columns in sorted(labels.items()):
        _at_most_one(rows, np.array(columns, dtype=np.int64))
        names.append(f"exclusive {provider} {label}")
    for up, down in both:
        names += _one_way(rows, book, blocks, up, down, binaries)
    return tuple(names)


def _all_or_nothing(rows: _Triples, mine: Ints, quantity: Floats, whole: int, block: bool) -> None:
    """q_i - Q_i z <= 0, and equal to 0 for a block."""
    count = np.arange(len(mine))
    zero = np.zeros(len(mine))
    rows.add(
        np.r_[count, count],
        np.r_[mine, np.full(len(mine), whole)],
        np.r_[np.ones(len(mine)), -quantity],
        zero if block else np.full(len(mine), -np.inf),
        zero,
    )


def _runs(rows: _Triples, book: OrderBook, blocks: Ints, mine: Ints, binaries: _Binaries, offer: Offer) -> list[str]:
    """Minimum quantity and longest run: z_t = 1 when the offer is used in quarter-hour t."""
    names: list[str] = []
    used: dict[int, int] = {}
    over, zero, under = np.array([-np.inf]), np.zeros(1), np.array([np.inf])
    for t in np.unique(book.period[blocks[mine]]):
        here = mine[book.period[blocks[mine]] == t]
        used[int(t)] = z = binaries.take()
        total = float(book.quantity_mw[blocks[here]].sum())
        least = offer.min_quantity_kw / 1000
        columns = np.r_[here, z]
        rows.add(columns * 0, columns, np.r_[np.ones(len(here)), -total], over, zero)
        rows.add(columns * 0, columns, np.r_[np.ones(len(here)), -least], zero, under)
        names += [f"minimum quantity of {offer.id}"] * 2
    longest = offer.max_periods
    if longest is not None:
        for t in used:
            window = [used[s] for s in range(t, t + longest + 1) if s in used]
            if len(window) == longest + 1:
                columns = np.array(window, dtype=np.int64)
                rows.add(columns * 0, columns, np.ones(len(window)), over, np.array([float(longest)]))
                names.append(f"longest run of {offer.id}")
    return names


def _at_most_one(rows: _Triples, columns: Ints) -> None:
    rows.add(columns * 0, columns, np.ones(len(columns)), np.array([-np.inf]), np.ones(1))


def _both_ways(book: OrderBook, blocks: Ints) -> list[tuple[Ints, Ints]]:
    """Columns (up, down) of a seller in a quarter-hour in which buying both would earn: prices that add below zero."""
    cheap = np.flatnonzero(book.price[blocks] < 0)
    sellers = sorted({seller(book.offers[o]) for o in book.offer[blocks[cheap]]})
    if not sellers:
        return []
    pairs: list[tuple[Ints, Ints]] = []
    names = np.array([seller(offer) for offer in book.offers])
    of_block = names[book.offer[blocks]]
    for name in sellers:
        mine = np.flatnonzero(of_block == name)
        for t in np.unique(book.period[blocks[mine]]):
            here = mine[book.period[blocks[mine]] == t]
            up, down = here[book.sign[blocks[here]] > 0], here[book.sign[blocks[here]] < 0]
            if len(up) and len(down) and book.price[blocks[up]].min() + book.price[blocks[down]].min() < 0:
                pairs.append((up, down))
    return pairs


def _one_way(rows: _Triples, book: OrderBook, blocks: Ints, up: Ints, down: Ints, binaries: _Binaries) -> list[str]:
    """A seller goes up or down in a quarter-hour, never both."""
    z = binaries.take()
    up_mw, down_mw = float(book.quantity_mw[blocks[up]].sum()), float(book.quantity_mw[blocks[down]].sum())
    over = np.array([-np.inf])
    rows.add(np.r_[up, z] * 0, np.r_[up, z], np.r_[np.ones(len(up)), -up_mw], over, np.zeros(1))
    rows.add(np.r_[down, z] * 0, np.r_[down, z], np.r_[np.ones(len(down)), down_mw], over, np.array([down_mw]))
    return ["one direction"] * 2


def undecided(model: Model, x: Floats) -> Bools:
    """Binaries that must still be decided, as a mask over the fixed part's columns: those in rows that no raising of
    used offers' binaries to one can satisfy.

    Binaries cost nothing, so where raising them does, the linear answer is optimal as it stands.
    """
    fixed = model.fixed
    part = x[: len(fixed.cost)]
    raised = np.where(fixed.integer, np.ceil(part - 1e-9), part)
    activity = fixed.matrix @ raised
    broken = (activity > fixed.row_upper + 1e-7) | (activity < fixed.row_lower - 1e-7)
    if not broken.any():
        return np.zeros_like(fixed.integer)
    touched = np.zeros_like(fixed.integer)
    touched[fixed.matrix[np.flatnonzero(broken)].indices] = True
    mask: Bools = touched & fixed.integer
    return mask
