"""From book, requests, lights and grid rows to a program.

    min   sum_i h (c_i + g_i) q_i + M (sum_k s_k + sum_r s_r)
    s.t.  sum_{i in k} q_i + s_k  = D_k                       each request k (period, direction, zone)
          sum_{i in l} q_i       <= C_l                       each light l (perimeter, direction, period)
          sum_i a_ri d_i q_i - s_r w_r <= room_r              each grid row r (p_i dp + tan_phi_i dq = a_ri)
          h sum_{i in o} q_i     <= E_o                       offers with an energy limit
          blocks, minimum quantities, run lengths, exclusive labels: binaries
          0 <= q_i <= Q_i

q in MW, h hours a period, c price and g toll in EUR/MWh, a_ri effect of one MW (with the reactive power that follows),
d_i = +1 up, -1 down. Blocks of reactive power (q in Mvar) stand in no light and in requests of reactive power alone,
which blocks of active power do not fill. s are the uncovered parts: w_r, the largest effect in the row, makes s_r a
power too, so that one penalty M serves; M lies far above any price, so nothing stays uncovered that an admissible
block could cover.
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
# EUR/Mvarh that a block of reactive power costs at least where a request of reactive power stands.
LEAST_COST = 0.02


@dataclass(frozen=True, eq=False)
class Demand:
    """Requests of a session: k entries. `sign[k]`, `period[k]`, `quantity_mw[k]`, `price_limit[k]` EUR/MWh. `zone[k]`:
    only blocks of that zone fill the request; -1, or no zones at all: every block does. `reactive[k]`: the request is
    for reactive power, up more injection, its quantity in Mvar and its limit in EUR/Mvarh; None: all are for active.

    `net`: the request is for the balance of all awards of its quarter-hour and zone, up less down, as when one market
    serves every need (a quantity of 0 holds the schedule of a zone), one request for each; blocks that pay are bought
    beyond it. Otherwise it is for awards in its own direction, and no other active power may be bought in a
    quarter-hour. Beside requests of zones, one for all is filled by what those leave.

    Active power fills requests of active power, reactive power those of reactive power. Requests of reactive power say
    nothing about active power: alone, they leave it to the limits of a grid, as no requests at all do. One that is not
    net closes reactive power beyond it, but for limits of the grid and in its own quarter-hour alone.
    """

    sign: Ints
    period: Ints
    quantity_mw: Floats
    price_limit: Floats
    net: bool = False
    zone: Ints | None = None
    reactive: Bools | None = None

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

    @property
    def zones(self) -> Ints:
        """The zone of each request, -1 where every block fills it, (k,)."""
        return np.full(len(self), -1, dtype=np.int64) if self.zone is None else self.zone

    @property
    def is_reactive(self) -> Bools:
        """Whether each request is one of reactive power, (k,)."""
        return np.zeros(len(self), dtype=np.bool_) if self.reactive is None else self.reactive

    @property
    def asks_active(self) -> bool:
        """Whether any request is one of active power."""
        return not self.is_reactive.all()

    def part(self, mine: Ints) -> Demand:
        """The requests at the places `mine` alone."""
        quantity, limit, zone = self.quantity_mw[mine], self.price_limit[mine], self.zones[mine]
        return Demand(self.sign[mine], self.period[mine], quantity, limit, self.net, zone, self.is_reactive[mine])


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
    indivisible offer follows, or -1; `row_whole`: the rows that say so. `toll`: EUR/MWh on top of each block's price,
    shape of the book, or None. `opens`: the rows that bound reactive power from above only where no limit of the grid
    asks for more. `shift[i]`: EUR/MWh by which award column i stands dearer in the program than it is, or None.
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
    toll: Floats | None
    opens: Bools
    shift: Floats | None

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
    toll: Floats | None = None,
) -> Model:
    """The model over the blocks `blocks` (sorted book indices).

    `capability_mw[(perimeter, sign)]`: capability per period; None means no light limits. A perimeter that has
    no entry is not limited. `toll[n]`: EUR/MWh on top of each block's price.
    """
    value = book.price[blocks] if toll is None else book.price[blocks] + toll[blocks]
    rows = _Triples()
    columns = len(blocks)
    when, opens = (_balance_rows if demand.net else _request_rows)(rows, book, blocks, demand, columns)
    first_light = rows.count
    light_rows = _light_rows(rows, book, blocks, capability_mw or {})
    first_coupling = rows.count
    lit = np.array([light_rows[row][2] for row in range(first_light, first_coupling)], dtype=np.int64)
    couplings = _Couplings(rows, book, blocks, columns + demand.slacks, value, _one_sided(book, blocks, demand))
    couplings.add_all()
    width = columns + demand.slacks + len(couplings.binary_group)
    most = np.full(demand.slacks, np.inf) if demand.net else demand.quantity_mw
    upper = np.concatenate([book.quantity_mw[blocks], most, np.ones(width - columns - demand.slacks)])
    shift = _shift(book, blocks, demand, value)
    cost = _costs(book, blocks, demand, width, None if toll is None else value, shift)
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
        toll,
        np.concatenate([opens, np.zeros(len(lit) + len(coupled), dtype=np.bool_)]),
        shift,
    )


def _shift(book: OrderBook, blocks: Ints, demand: Demand, value: Floats) -> Floats | None:
    """EUR/Mvarh (blocks,) that raise the reactive blocks of a quarter-hour to a cost of LEAST_COST or more, where a
    request of reactive power that is not net stands there; None where there is none.

    All blocks of a quarter-hour rise alike, so that a request costs as much more whoever fills it, and what limits of
    the grid take beyond it goes in the order of prices and is never a gain. `value`: prices with their toll."""
    mine = book.reactive[blocks] & np.isin(book.period[blocks], demand.period[demand.is_reactive])
    if demand.net or not mine.any():
        return None
    period = book.period[blocks]
    lowest = _least(period, np.where(mine, value, np.inf))[period]
    return np.where(mine, np.maximum(LEAST_COST - lowest, 0.0), 0.0)


def _costs(
    book: OrderBook, blocks: Ints, demand: Demand, width: int, tolled: Floats | None, shift: Floats | None
) -> Floats:
    """EUR per MW of every column; equal prices of a quarter-hour and direction rise with the receipt. `tolled`: prices
    of the blocks with their toll, which are as they are, be they gains; None without one. `shift`: see _shift."""
    over = 0.0 if shift is None else shift
    if tolled is None:
        price = book.price[blocks]
        # Blocks stand in the order of period, direction, price, receipt.
        rank = _ranks(price, 2 * book.period[blocks] + book.sign[blocks])
        # What no request is about is there for limits of the grid alone, unless a market for all serves its need too.
        local = np.where(book.reactive[blocks], not (demand.net and len(demand)), not demand.asks_active)
        price = price + over
        price = np.where(local, _never_gainful(price), price)
    else:
        # Sums of prices and tolls are equal to a ten-thousandth of a cent.
        price, alike = tolled + over, np.round(tolled, 6)
        order = np.lexsort((book.offer[blocks], alike, -book.sign[blocks], book.period[blocks]))
        rank = np.empty(len(blocks), dtype=np.int64)
        rank[order] = _ranks(alike[order], (2 * book.period[blocks] + book.sign[blocks])[order])
    cost = np.zeros(width)
    cost[: len(blocks)] = book.axis.hours * (price + np.minimum(TIE_BREAK * rank, TIE_MOST))
    cost[len(blocks) : len(blocks) + demand.slacks] = book.axis.hours * PENALTY
    return cost


def _ranks(price: Floats, cell: Ints) -> Ints:
    """The place of each block in its run of equal price and cell (both (n,), equals side by side)."""
    same = np.zeros(len(price), dtype=np.bool_)
    same[1:] = (np.diff(price) == 0) & (np.diff(cell) == 0)
    place = np.arange(len(price))
    rank: Ints = place - np.maximum.accumulate(np.where(same, 0, place))
    return rank


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


def _request_rows(
    rows: _Triples, book: OrderBook, blocks: Ints, demand: Demand, first_slack: int
) -> tuple[Ints, Bools]:
    """Rows (2) of the requests, those of active power first; returns the quarter-hour of each, and whether it opens
    where limits of the grid ask for more."""
    reactive, when = demand.is_reactive, [np.zeros(0, dtype=np.int64)] * 2
    for kind in (0, 1):
        mine = np.flatnonzero(reactive == bool(kind))
        if not len(mine):
            continue
        able = book.reactive[blocks] == bool(kind)
        if kind:
            able &= np.isin(book.period[blocks], demand.period[mine])
        when[kind] = _kind_rows(rows, book, blocks, demand.part(mine), first_slack + mine, able)
    return np.concatenate(when), np.repeat([False, True], [len(part) for part in when])


def _kind_rows(rows: _Triples, book: OrderBook, blocks: Ints, demand: Demand, slack: Ints, able: Bools) -> Ints:
    """Rows (2) of requests of one kind, active or reactive power, with the columns `slack` of what they miss; nothing
    else is bought of the blocks `able`. Returns the quarter-hour of each."""
    # Requests of several buyers for one quarter-hour and direction share a row; each keeps its own slack.
    code, zone = 2 * demand.period + (demand.sign > 0), demand.zones
    of_block = 2 * book.period[blocks] + (book.sign[blocks] > 0)
    asked_codes = np.unique(code[zone < 0])
    at = np.where(able, _found(asked_codes, of_block), -1)
    asked = np.flatnonzero(at >= 0)
    # Where one asks of all, what zones ask counts there too, and each zone gives at least its own.
    row_of = _found(asked_codes, code)
    shared = np.flatnonzero(row_of >= 0)
    wanted = _summed(row_of[shared], demand.quantity_mw[shared], len(asked_codes))
    rows.add(
        np.r_[at[asked], row_of[shared]].astype(np.int64),
        np.r_[asked, slack[shared]].astype(np.int64),
        np.ones(len(asked) + len(shared)),
        wanted,
        wanted,
    )
    when = [asked_codes // 2]
    if (zone >= 0).any():
        in_zone, zoned = _zone_rows(rows, book, blocks, demand, slack, able, asked_codes)
        at = np.maximum(at, in_zone)
        when.append(zoned)
    # A whole-day block must not be bought in a quarter-hour that asks for nothing.
    unasked = np.flatnonzero((at < 0) & able)
    closed, row_of = np.unique(book.period[blocks[unasked]], return_inverse=True)
    zero = np.zeros(len(closed))
    rows.add(row_of.astype(np.int64), unasked, np.ones(len(unasked)), zero, zero)
    return np.concatenate([*when, closed]).astype(np.int64)


def _zone_rows(
    rows: _Triples, book: OrderBook, blocks: Ints, demand: Demand, slack: Ints, able: Bools, of_all: Ints
) -> tuple[Ints, Ints]:
    """One row for each quarter-hour, direction and zone that is asked for: met exactly, or at least met where
    something is asked of all (codes `of_all`) too. Returns the row of each block (-1 for none) and the quarter-hour of
    each row."""
    wide = int(max(book.zone.max(initial=-1), demand.zones.max())) + 1
    mine = np.flatnonzero(demand.zones >= 0)
    code = 2 * demand.period[mine] + (demand.sign[mine] > 0)
    keys, row_of = np.unique(code * wide + demand.zones[mine], return_inverse=True)
    wanted = _summed(row_of, demand.quantity_mw[mine], len(keys))
    able = able & (book.zone[blocks] >= 0)
    of_block = (2 * book.period[blocks] + (book.sign[blocks] > 0)) * wide + book.zone[blocks]
    at = np.where(able, _found(keys, of_block), -1)
    inside = np.flatnonzero(at >= 0)
    rows.add(
        np.r_[at[inside], row_of].astype(np.int64),
        np.r_[inside, slack[mine]].astype(np.int64),
        np.ones(len(inside) + len(mine)),
        wanted,
        np.where(np.isin(keys // wide, of_all), np.inf, wanted),
    )
    return at, keys // wide // 2


def _found(keys: Ints, values: Ints) -> Ints:
    """The place of each value among the keys (sorted), -1 where it is none of them."""
    if not len(keys):
        return np.full(len(values), -1, dtype=np.int64)
    place = np.searchsorted(keys, values)
    return np.where(keys[np.minimum(place, len(keys) - 1)] == values, place, -1)


def _summed(row: Ints, values: Floats, count: int) -> Floats:
    """The sum of the values of each of `count` rows."""
    return np.bincount(row, weights=values, minlength=count).astype(np.float64)


def balance_members(book: OrderBook, blocks: Ints, demand: Demand) -> tuple[Ints, Ints]:
    """Which net request each of `blocks` counts in, (row of the request, place in `blocks`): all blocks of its
    quarter-hour and kind, active or reactive power, or those of its zone. A block can count in one for all and in one
    of its zone."""
    zone, t = demand.zones, len(book.axis)
    cell, asked = book.period[blocks] + t * book.reactive[blocks], demand.period + t * demand.is_reactive
    row_of = np.full(2 * t, -1, dtype=np.int64)
    of_all = np.flatnonzero(zone < 0)
    row_of[asked[of_all]] = of_all
    at = row_of[cell]
    inside = np.flatnonzero(at >= 0)
    if len(of_all) == len(demand):
        return at[inside], inside
    wide = int(max(book.zone.max(initial=-1), zone.max())) + 1
    in_zone = np.flatnonzero(zone >= 0)
    in_zone = in_zone[np.argsort(asked[in_zone] * wide + zone[in_zone], kind="stable")]
    found = _found(asked[in_zone] * wide + zone[in_zone], cell * wide + book.zone[blocks])
    more = np.flatnonzero((found >= 0) & (book.zone[blocks] >= 0))
    return np.r_[at[inside], in_zone[found[more]]], np.r_[inside, more]


def _balance_rows(
    rows: _Triples, book: OrderBook, blocks: Ints, demand: Demand, first_slack: int
) -> tuple[Ints, Bools]:
    """sum_i d_i q_i + s_up - s_down = D for each quarter-hour, zone and kind of power that is asked for; one request
    each. Returns the quarter-hour of each row, and that none opens."""
    row, inside = balance_members(book, blocks, demand)
    slack = np.arange(len(demand))
    signed = demand.sign * demand.quantity_mw
    rows.add(
        np.concatenate([row, slack, slack]),
        np.concatenate([inside, first_slack + slack, first_slack + len(demand) + slack]),
        np.concatenate([book.sign[blocks[inside]], np.ones(len(demand)), -np.ones(len(demand))]),
        signed,
        signed,
    )
    return demand.period, np.zeros(len(demand), dtype=np.bool_)


def _light_rows(
    rows: _Triples, book: OrderBook, blocks: Ints, capability_mw: Mapping[tuple[str, int], Floats]
) -> dict[int, tuple[int, int, int]]:
    """One row for each light that could bind, over active power; returns what each row is: (perimeter, sign,
    period)."""
    names: dict[int, tuple[int, int, int]] = {}
    active = ~book.reactive[blocks]
    for (perimeter, sign), capability in sorted(capability_mw.items()):
        if perimeter not in book.perimeters:
            continue
        p = book.perimeters.index(perimeter)
        mine = np.flatnonzero((book.perimeter[blocks] == p) & (book.sign[blocks] == sign) & active)
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

    def __init__(
        self, rows: _Triples, book: OrderBook, blocks: Ints, first_binary: int, value: Floats, one_sided: Bools
    ) -> None:
        """`value[i]`: price of block `blocks[i]` with its toll; `one_sided[i]`: whether its seller goes one way."""
        self.rows, self.book, self.blocks, self.first_binary = rows, book, blocks, first_binary
        self.value, self.one_sided = value, one_sided
        self.names: list[str] = []
        self.row_group: list[int] = []
        self.row_whole: list[bool] = []
        self.binary_group: list[int] = []
        self.whole = np.full(len(blocks), -1, dtype=np.int64)
        self.groups = 0

    def add_all(self) -> None:
        book, blocks = self.book, self.blocks
        choices: dict[tuple[str, str], tuple[int, list[int]]] = {}
        both = _both_ways(book, blocks, self.value, self.one_sided)
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


def _one_sided(book: OrderBook, blocks: Ints, demand: Demand) -> Bools:
    """Blocks of reactive power in quarter-hours where requests that are not net ask for one direction alone: a seller
    that fills them must not be bought the other way to make up for it in the grid."""
    asked, t = demand.is_reactive & (not demand.net), len(book.axis)
    up, down = (np.bincount(demand.period[asked & (demand.sign == way)], minlength=t) > 0 for way in (1, -1))
    mine: Bools = book.reactive[blocks] & (up != down)[book.period[blocks]]
    return mine


def _both_ways(book: OrderBook, blocks: Ints, value: Floats, one_sided: Bools) -> list[tuple[Ints, Ints]]:
    """Columns (up, down) of a seller in a quarter-hour, of active or of reactive power, in which buying both would
    earn: prices (`value` of each block, toll included) that add below zero; or which are `one_sided`."""
    if not (value < 0).any() and not one_sided.any():
        return []
    _, of_offer = np.unique([seller(offer) for offer in book.offers], return_inverse=True)
    who = 2 * of_offer[book.offer[blocks]] + book.reactive[blocks]
    _, cell = np.unique(who * len(book.axis) + book.period[blocks], return_inverse=True)
    up, down = (_least(cell, np.where(book.sign[blocks] == way, value, np.inf)) for way in (1, -1))
    held = np.bincount(cell[one_sided], minlength=len(up)) > 0
    gainful = np.flatnonzero((up + down < 0) | (held & np.isfinite(up + down)))
    order = np.argsort(cell, kind="stable")
    begin, end = (np.searchsorted(cell[order], gainful, side=side) for side in ("left", "right"))
    pairs: list[tuple[Ints, Ints]] = []
    for first, last in zip(begin.tolist(), end.tolist(), strict=True):
        here = order[first:last]
        pairs.append((here[book.sign[blocks[here]] > 0], here[book.sign[blocks[here]] < 0]))
    return pairs


def _least(cell: Ints, value: Floats) -> Floats:
    """The least value of each cell, (cells,)."""
    least = np.full(int(cell.max(initial=-1)) + 1, np.inf)
    np.minimum.at(least, cell, value)
    return least


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
