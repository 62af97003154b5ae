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
from coflex.market.book import OrderBook, seller
from coflex.solver.program import Program

# EUR per MWh of uncovered need: a thousand times a price cap of 1,000 EUR/MWh, divided by what a less effective
# unit loses (effects below a thousandth of the row's largest are not worth activating).
PENALTY = 1e6
# EUR/MWh from one receipt to the next among equal prices: a hundred times what the solver tells apart, and all of
# them together below half of a price's smallest step of 0.01.
TIE_BREAK, TIE_MOST = 1e-7, 4e-3


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

    `blocks`: book indices of the award columns, which come first; then the request slacks, then the binaries. Rows:
    requests, lights, couplings. `column_period` and `row_period`: quarter-hour of each column and row, -1 for binaries
    and couplings. Couplings come in groups, the rows that enter a program together: `row_group`, `column_group`, -1
    elsewhere; `group_link` holds (group, quarter-hour) pairs. `whole[i]`: the binary that award column i of an
    indivisible offer follows, or -1; `row_whole`: the rows that say so.
    """

    book: OrderBook
    blocks: Ints
    demand: Demand
    light_rows: dict[int, tuple[int, int, int]]
    first_light: int
    first_coupling: int
    coupling_names: tuple[str, ...]
    fixed: Program
    column_period: Ints
    row_period: Ints
    column_group: Ints
    row_group: Ints
    group_link: tuple[Ints, Ints]
    whole: Ints
    row_whole: Bools

    @property
    def rows(self) -> int:
        return len(self.fixed.row_lower)

    def awarded(self, x: Floats) -> Floats:
        """MW of every block of the book, from the columns."""
        award = np.zeros(len(self.book))
        award[self.blocks] = x[: len(self.blocks)]
        return award

    @property
    def groups(self) -> int:
        """How many groups of couplings there are."""
        return int(self.row_group.max(initial=-1)) + 1


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
    rows = _Triples()
    columns = len(blocks)
    when = (_balance_rows if demand.net else _request_rows)(rows, book, blocks, demand, columns)
    first_light = rows.count
    light_rows = _light_rows(rows, book, blocks, capability_mw or {})
    first_coupling = rows.count
    lit = np.array([light_rows[row][2] for row in range(first_light, first_coupling)], dtype=np.int64)
    couplings = _Couplings(rows, book, blocks, columns + demand.slacks)
    couplings.add_all()
    width = columns + demand.slacks + len(couplings.binary_group)
    most = np.full(demand.slacks, np.inf) if demand.net else demand.quantity_mw
    upper = np.concatenate([book.quantity_mw[blocks], most, np.ones(width - columns - demand.slacks)])
    cost = _costs(book, blocks, demand, width)
    integer = np.arange(width) >= columns + demand.slacks
    program = Program(
        cost, rows.matrix(width), _joined(rows.lower), _joined(rows.upper), np.zeros(width), upper, integer
    )
    asked = np.tile(demand.period, demand.slacks // max(1, len(demand)))
    binary = np.full(width - columns - demand.slacks, -1, dtype=np.int64)
    coupled = np.array(couplings.row_group, dtype=np.int64)
    row_group = np.concatenate([np.full(first_coupling, -1, dtype=np.int64), coupled])
    return Model(
        book,
        blocks,
        demand,
        light_rows,
        first_light,
        first_coupling,
        tuple(couplings.names),
        program,
        np.concatenate([book.period[blocks], asked, binary]),
        np.concatenate([when, lit, np.full(len(coupled), -1, dtype=np.int64)]),
        np.concatenate([np.full(columns + demand.slacks, -1), couplings.binary_group]).astype(np.int64),
        row_group,
        _links(program.matrix, row_group, book.period[blocks]),
        couplings.whole,
        np.concatenate([np.zeros(first_coupling, dtype=np.bool_), np.array(couplings.row_whole, dtype=np.bool_)]),
    )


def _costs(book: OrderBook, blocks: Ints, demand: Demand, width: int) -> Floats:
    """EUR per MW of every column; equal prices of a quarter-hour and direction rise with the receipt."""
    price = book.price[blocks]
    same = np.zeros(len(blocks), dtype=np.bool_)
    same[1:] = (np.diff(price) == 0) & (np.diff(2 * book.period[blocks] + book.sign[blocks]) == 0)
    # Blocks stand in the order of period, direction, price, receipt, so the place in a run of equals is the rank.
    place = np.arange(len(blocks))
    rank = place - np.maximum.accumulate(np.where(same, 0, place))
    if not len(demand):
        price = _never_gainful(price)
    cost = np.zeros(width)
    cost[: len(blocks)] = book.axis.hours * (price + np.minimum(TIE_BREAK * rank, TIE_MOST))
    cost[len(blocks) : len(blocks) + demand.slacks] = book.axis.hours * PENALTY
    return cost


def _links(matrix: sparse.csr_array, row_group: Ints, period: Ints) -> tuple[Ints, Ints]:
    """Pairs (group, quarter-hour) of the groups' rows and the awards in them."""
    entries = sparse.coo_array(matrix)
    group = row_group[entries.row]
    mine = (group >= 0) & (entries.col < len(period))
    top = int(period.max(initial=0)) + 1
    pairs = np.unique(group[mine] * top + period[entries.col[mine]])
    return pairs // top, pairs % top


def _never_gainful(price: Floats) -> Floats:
    """Prices at which nothing is worth buying beyond a need: those below a cent are squeezed, in their order, between
    half a cent and a cent. A local need must not be met beyond itself because a provider pays for it."""
    lowest = float(price.min(initial=0.01))
    if lowest >= 0.01:
        return price
    return np.where(price < 0.01, 0.005 + 0.005 * (price - lowest) / (0.01 - lowest), price)


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)


def _request_rows(rows: _Triples, book: OrderBook, blocks: Ints, demand: Demand, first_slack: int) -> Ints:
    """Rows (2) of the requests; returns the quarter-hour of each."""
    if not len(demand):
        return np.zeros(0, dtype=np.int64)
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
    # A whole-day block must not be bought in a quarter-hour that asks for nothing.
    unasked = np.flatnonzero(at < 0)
    closed, row_of = np.unique(book.period[blocks[unasked]], return_inverse=True)
    zero = np.zeros(len(closed))
    rows.add(row_of.astype(np.int64), unasked, np.ones(len(unasked)), zero, zero)
    return np.concatenate([asked_codes // 2, closed]).astype(np.int64)


def _balance_rows(rows: _Triples, book: OrderBook, blocks: Ints, demand: Demand, first_slack: int) -> Ints:
    """sum_i d_i q_i + s_up - s_down = D for each quarter-hour that is asked for; one request each. Returns the
    quarter-hour of each row."""
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
    return demand.period


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


class _Couplings:
    """Rows that couple periods or offers, for the few offers that have such terms."""

    def __init__(self, rows: _Triples, book: OrderBook, blocks: Ints, first_binary: int) -> None:
        self.rows, self.book, self.blocks, self.first_binary = rows, book, blocks, first_binary
        self.names: list[str] = []
        self.row_group: list[int] = []
        self.row_whole: list[bool] = []
        self.binary_group: list[int] = []
        self.whole = np.full(len(blocks), -1, dtype=np.int64)
        self.groups = 0

    def add_all(self) -> None:
        book, blocks = self.book, self.blocks
        choices: dict[tuple[str, str], tuple[int, list[int]]] = {}
        both = _both_ways(book, blocks)
        by_offer = np.argsort(book.offer[blocks], kind="stable")
        begin = np.searchsorted(book.offer[blocks][by_offer], np.arange(len(book.offers) + 1))
        for o, offer in enumerate(book.offers):
            mine = by_offer[begin[o] : begin[o + 1]]
            if not len(mine) or not has_terms(offer):
                continue
            if offer.energy_limit_kwh is not None:
                energy = np.array([offer.energy_limit_kwh / 1000 / book.axis.hours])
                self._row(self._group(), f"energy limit of {offer.id}", mine, np.ones(len(mine)), _OVER, energy)
            if offer.exclusive is not None:
                label = offer.provider, offer.exclusive
                group, columns = choices.setdefault(label, (self._group() if label not in choices else -1, []))
                columns.append(self._all_or_nothing(offer, mine, group))
            elif offer.block:
                self._all_or_nothing(offer, mine, self._group())
            if offer.min_quantity_kw > 0 or offer.max_periods is not None:
                self._runs(offer, mine)
        for (provider, name), (group, columns) in sorted(choices.items()):
            ones = np.ones(len(columns))
            self._row(group, f"exclusive {provider} {name}", np.array(columns, dtype=np.int64), ones, _OVER, np.ones(1))
        for up, down in both:
            self._one_way(up, down)

    def _group(self) -> int:
        self.groups += 1
        return self.groups - 1

    def _take(self, groups: Sequence[int]) -> Ints:
        """New binaries, one of each group named."""
        first = self.first_binary + len(self.binary_group)
        self.binary_group += groups
        return first + np.arange(len(groups))

    def _row(self, group: int, name: str, columns: Ints, values: Floats, lower: Floats, upper: Floats) -> None:
        self._rows([group], [name], columns * 0, columns, values, lower, upper)

    def _rows(
        self,
        groups: Sequence[int],
        names: Sequence[str],
        at: Ints,
        columns: Ints,
        values: Floats,
        lower: Floats,
        upper: Floats,
        whole: bool = False,
    ) -> None:
        self.rows.add(at, columns, values, lower, upper)
        self.row_whole += [whole] * len(groups)
        self.row_group += groups
        self.names += names

    def _all_or_nothing(self, offer: Offer, mine: Ints, group: int) -> int:
        """q_i - Q_i z <= 0, and equal to 0 for a block; returns z."""
        z = int(self._take([group])[0])
        count, zero = np.arange(len(mine)), np.zeros(len(mine))
        self._rows(
            [group] * len(mine),
            [f"{'block' if offer.block else 'choice'} {offer.id}"] * len(mine),
            np.r_[count, count],
            np.r_[mine, np.full(len(mine), z)],
            np.r_[np.ones(len(mine)), -self.book.quantity_mw[self.blocks[mine]]],
            zero if offer.block else np.full(len(mine), -np.inf),
            zero,
            offer.block,
        )
        if offer.block:
            self.whole[mine] = z
        return z

    def _runs(self, offer: Offer, mine: Ints) -> None:
        """Minimum quantity and longest run: z_t = 1 when the offer is used in quarter-hour t. Quarter-hours that no
        longest run ties together are groups of their own."""
        period, at = np.unique(self.book.period[self.blocks[mine]], return_inverse=True)
        count, longest = len(period), offer.max_periods
        groups = [self._group()] * count if longest is not None else [self._group() for _ in range(count)]
        z = self._take(groups)
        total = np.bincount(at, weights=self.book.quantity_mw[self.blocks[mine]], minlength=count)
        columns, one = np.r_[mine, z], np.ones(len(mine))
        place = np.r_[at, np.arange(count)].astype(np.int64)
        least, free, zero = np.full(count, offer.min_quantity_kw / 1000), np.full(count, np.inf), np.zeros(count)
        names = [f"minimum quantity of {offer.id}"] * count
        self._rows(groups, names, place, columns, np.r_[one, -total], -free, zero)
        if offer.min_quantity_kw > 0:
            self._rows(groups, names, place, columns, np.r_[one, -least], zero, free)
        if longest is None:
            return
        most = np.array([float(longest)])
        # Periods that follow each other without a gap, one more than the longest run.
        for first in np.flatnonzero(period[longest:] - period[: count - min(longest, count)] == longest).tolist():
            window = z[first : first + longest + 1]
            self._row(groups[0], f"longest run of {offer.id}", window, np.ones(len(window)), _OVER, most)

    def _one_way(self, up: Ints, down: Ints) -> None:
        """A seller goes up or down in a quarter-hour, never both."""
        group = self._group()
        z = self._take([group])
        quantity = self.book.quantity_mw[self.blocks]
        up_mw, down_mw = float(quantity[up].sum()), float(quantity[down].sum())
        name, of_up, of_down = "one direction", np.r_[np.ones(len(up)), -up_mw], np.r_[np.ones(len(down)), down_mw]
        self._row(group, name, np.r_[up, z], of_up, _OVER, np.zeros(1))
        self._row(group, name, np.r_[down, z], of_down, _OVER, np.array([down_mw]))


_OVER = np.array([-np.inf])


def has_terms(offer: Offer) -> bool:
    """Whether something ties the quantities of an offer together, or to another offer's."""
    coupled = offer.block or offer.min_quantity_kw or offer.max_periods is not None
    return bool(coupled) or offer.energy_limit_kwh is not None or offer.exclusive is not None


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
