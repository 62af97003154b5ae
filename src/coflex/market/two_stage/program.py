"""The two-stage program in its extensive form.

    min   sum_g P_g h (sum_i c_i x_gi + sum_j a_j r_gj) + sum_s pi_s h (sum_j u_j y_sj + V (sum_t e_st + sum_m z_m))
    s.t.  y_sj <= r_g(s)j                                                      activation within the reservation
          sum_{i in k} x_gi + sum_{j in k} r_gj <= Q_k                         a seller's kW are sold once
          sum_i d_i x_g(s)i + sum_j d_j y_sj + e+_st - e-_st = D_st            need of scenario s
          sum_i a_mi d_i x_g(s)i + sum_j a_mj d_j y_sj - w_m z_m <= room_m     grid row m of scenario s
          terms of offers on x_g and r_g; h sum_{j in o} y_sj <= E_o
          0 <= x <= Q,  0 <= r <= R,  y, e, z >= 0

First stage x (awards) and r (reservations) once for each group g of scenarios that knows no better: one group is the
two-stage program, a group for each scenario is perfect foresight. Powers in MW, h hours a period, V in EUR/MWh.
Columns: first stage by group (x, r, binaries), y by scenario, e+ by scenario, e- by scenario, then z.
Rows: activations, energy, needs, first stage by group, then grid rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from coflex.domain.offer import Offer
from coflex.domain.quantity import Floats, Ints
from coflex.grid.rows import GridRows
from coflex.market.book import OrderBook, seller
from coflex.market.two_stage.inputs import Outlook, ReserveBook
from coflex.solver.program import Program

# EUR/MWh between the first and the last of equal prices: far below a price's smallest step of 0.01.
TIE_BREAK = 1e-5


@dataclass(frozen=True, eq=False)
class Blocks:
    """The awards' blocks, then the capacity blocks that a program is about; n of them, `awards` the first many.

    `at[n]`: place in their own book; the rest as in `OrderBook`; `cost[n]`: first-stage EUR/MWh (energy or
    availability) and `use[n]`: second-stage EUR/MWh, both as the program values them.
    """

    offers: tuple[Offer, ...]
    awards: int
    at: Ints
    offer: Ints
    period: Ints
    sign: Ints
    quantity_mw: Floats
    node: Ints
    tan_phi: Floats
    p_share: Floats
    cost: Floats
    use: Floats

    def __len__(self) -> int:
        return len(self.at)

    def within(self, periods: Ints) -> Blocks:
        """The blocks in some periods (sorted), which are counted from zero then."""
        mine = np.flatnonzero(np.isin(self.period, periods))
        return Blocks(
            offers=self.offers,
            awards=int((mine < self.awards).sum()),
            at=self.at[mine],
            offer=self.offer[mine],
            period=np.searchsorted(periods, self.period[mine]),
            sign=self.sign[mine],
            quantity_mw=self.quantity_mw[mine],
            node=self.node[mine],
            tan_phi=self.tan_phi[mine],
            p_share=self.p_share[mine],
            cost=self.cost[mine],
            use=self.use[mine],
        )


def blocks_of(awards: OrderBook, reserve: ReserveBook, x: Ints, r: Ints, squeeze: bool) -> Blocks:
    """The blocks `x` of the awards' book and `r` of the reserve book. `squeeze`: no price is worth having for
    itself, as where only the grid has needs."""
    book = reserve.book
    lowest = float(min(awards.price.min(initial=0.01), book.price.min(initial=0.01)))

    def valued(price: Floats) -> Floats:
        if not squeeze or lowest >= 0.01:
            return price
        return np.where(price < 0.01, 0.005 + 0.005 * (price - lowest) / (0.01 - lowest), price)

    def joined(a: Floats | Ints, b: Floats | Ints) -> Floats:
        return np.concatenate([a[x], b[r]])

    return Blocks(
        offers=awards.offers + book.offers,
        awards=len(x),
        at=np.concatenate([x, r]),
        offer=np.concatenate([awards.offer[x], book.offer[r] + len(awards.offers)]),
        period=np.concatenate([awards.period[x], book.period[r]]),
        sign=np.concatenate([awards.sign[x], book.sign[r]]),
        quantity_mw=joined(awards.quantity_mw, book.quantity_mw),
        node=np.concatenate([awards.node[x], book.node[r]]),
        tan_phi=joined(awards.tan_phi, book.tan_phi),
        p_share=joined(awards.p_share, book.p_share),
        cost=joined(valued(awards.price), reserve.availability),
        use=joined(np.zeros(len(awards)), valued(book.price)),
    )


@dataclass(frozen=True, eq=False)
class Form:
    """The part of a program that does not change between passes. `group[s]`: the group of each scenario;
    `first`: columns of one group's first stage; `second`: first column of y; `width`: all but grid slacks."""

    blocks: Blocks
    periods: int
    hours: float
    probability: Floats
    group: Ints
    first: int
    second: int
    short: int
    program: Program

    @property
    def scenarios(self) -> int:
        return len(self.probability)

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    @property
    def held(self) -> int:
        """How many capacity blocks there are."""
        return len(self.blocks) - self.blocks.awards

    @property
    def reach(self) -> Floats:
        """How far each first-stage column and each activation could move, (short,)."""
        most = self.program.upper[: self.second]
        return np.concatenate([most, np.tile(self.blocks.quantity_mw[self.blocks.awards :], self.scenarios)])

    @property
    def width(self) -> int:
        return len(self.program.cost)

    def bought(self, x: Floats) -> Floats:
        """What moves in each scenario (s, blocks): awards, then activations, in MW."""
        awards = self.first_stage(x)[self.group, : self.blocks.awards]
        return np.hstack([awards, x[self.second : self.short].reshape(self.scenarios, -1)])

    def first_stage(self, x: Floats) -> Floats:
        """Awards, then reservations of each group (g, blocks), in MW."""
        stage: Floats = x[: self.second].reshape(self.groups, self.first)[:, : len(self.blocks)]
        return stage


def assemble(blocks: Blocks, hours: float, outlook: Outlook, group: Ints, penalty: float, free: bool) -> Form:
    """The program over `blocks` and all periods of the outlook, without grid rows. `free`: the first stage is to be
    chosen, and so the rows on it matter."""
    scenarios, groups, n = len(outlook), int(group.max()) + 1, len(blocks)
    stage = first_stage_rows(blocks, hours) if free else Stage(len(blocks))
    need = np.zeros(0) if outlook.need_mw is None else outlook.need_mw.ravel()
    scenarios, groups, n = len(outlook), int(group.max()) + 1, len(blocks)
    stage = first_stage_rows(blocks, hours) if free else Stage(len(blocks))
    held, asked, first = n - blocks.awards, len(need) // scenarios, n + stage.binaries
    second = groups * first
    short = second + scenarios * held
    width = short + 2 * scenarios * asked
    energy, limit = _energy(blocks, hours)
    weight = np.bincount(group, weights=outlook.probability)
    once = np.concatenate([blocks.cost + _ties(blocks), np.zeros(stage.binaries)])
    called = blocks.use[blocks.awards :] + _ties(blocks)[blocks.awards :]
    missed = penalty * np.tile(np.repeat(outlook.probability, asked), 2)
    most = np.tile(np.concatenate([blocks.quantity_mw, np.ones(stage.binaries)]), groups)
    open_below = np.full(scenarios * (held + len(limit)), -np.inf)
    program = Program(
        cost=hours
        * np.concatenate([np.outer(weight, once).ravel(), np.outer(outlook.probability, called).ravel(), missed]),
        matrix=_matrix(blocks, stage, energy, group, asked),
        row_lower=np.concatenate([open_below, need, np.tile(stage.lower, groups)]),
        row_upper=np.concatenate(
            [np.zeros(scenarios * held), np.tile(limit, scenarios), need, np.tile(stage.upper, groups)]
        ),
        lower=np.zeros(width),
        upper=np.concatenate([most, np.full(width - second, np.inf)]),
        integer=np.concatenate([np.tile(np.arange(first) >= n, groups), np.zeros(width - second, dtype=np.bool_)]),
    )
    return Form(blocks, outlook.periods, hours, outlook.probability, group, first, second, short, program)


def _matrix(blocks: Blocks, stage: Stage, energy: sparse.csr_array, group: Ints, asked: int) -> sparse.csr_array:
    """The rows of a form, `asked` of them needs of each scenario."""
    scenarios, groups, n, k = len(group), int(group.max()) + 1, len(blocks), blocks.awards
    held, first = n - k, n + stage.binaries
    of_group = sparse.csr_array((np.ones(scenarios), (np.arange(scenarios), group)), shape=(scenarios, groups))
    each = sparse.eye_array(scenarios, format="csr")
    hold = sparse.csr_array((np.ones(held), (np.arange(held), k + np.arange(held))), shape=(held, first))
    here = np.arange(n if asked else 0)
    active = blocks.sign[here] * blocks.p_share[here]
    signed = sparse.csr_array((active, (blocks.period[here], here)), shape=(asked, n))
    awarded = sparse.hstack([signed[:, :k], sparse.csr_array((asked, first - k))])
    miss = sparse.eye_array(scenarios * asked)
    rows = [
        [sparse.kron(of_group, -hold), sparse.kron(each, sparse.eye_array(held)), None, None],
        [None, sparse.kron(each, energy), None, None],
        [sparse.kron(of_group, awarded), sparse.kron(each, signed[:, k:]), miss, -miss],
        [sparse.kron(sparse.eye_array(groups), stage.matrix(first)), None, None, None],
    ]
    return sparse.csr_array(sparse.block_array(rows, format="csr"))


def with_grid(form: Form, grid: GridRows, penalty: float) -> tuple[Program, Floats, Ints]:
    """The program with grid rows appended (their period counts scenario by scenario), what one MW of slack gives in
    each row (the effect of one MW at the node where it is largest), and the column of each row's slack.

    Both ends of a branch are one limit and share a slack, which is paid once."""
    fixed, blocks = form.program, form.blocks
    scenario, period = grid.period // form.periods, grid.period % form.periods
    row, block = _pairs(blocks, period)
    node = blocks.node[block]
    per_mw = blocks.p_share[block] * grid.dp[row, node] + blocks.tan_phi[block] * grid.dq[row, node]
    effect = blocks.sign[block] * per_mw
    scale = np.abs(grid.dp).max(axis=1, initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    value = np.where(node >= 0, effect, 0.0) / scale[row]
    at = scenario[row]
    column = np.where(
        block < blocks.awards,
        form.group[at] * form.first + block,
        form.second + at * form.held + block - blocks.awards,
    )
    keep = np.abs(value) > 1e-6
    own, of_limit = _limits(grid)
    slacks = len(of_limit)
    index = np.r_[row[keep], np.arange(len(grid))], np.r_[column[keep], form.width + own]
    rows = sparse.csr_array((np.r_[value[keep], -np.ones(len(grid))], index), shape=(len(grid), form.width + slacks))
    wide = sparse.csr_array(
        (fixed.matrix.data, fixed.matrix.indices, fixed.matrix.indptr), shape=(fixed.matrix.shape[0], rows.shape[1])
    )
    program = Program(
        cost=np.r_[fixed.cost, form.hours * penalty * form.probability[scenario[of_limit]]],
        matrix=sparse.csr_array(sparse.vstack([wide, rows], format="csr")),
        row_lower=np.r_[fixed.row_lower, np.full(len(grid), -np.inf)],
        row_upper=np.r_[fixed.row_upper, grid.room / scale],
        lower=np.r_[fixed.lower, np.zeros(slacks)],
        upper=np.r_[fixed.upper, np.full(slacks, np.inf)],
        integer=np.r_[fixed.integer, np.zeros(slacks, dtype=np.bool_)],
    )
    return program, scale, form.width + own


def _pairs(blocks: Blocks, period: Ints) -> tuple[Ints, Ints]:
    """Every row with each block of its period: (rows, blocks)."""
    order = np.argsort(blocks.period, kind="stable")
    begin = np.searchsorted(blocks.period[order], period)
    count = np.searchsorted(blocks.period[order], period, side="right") - begin
    row = np.repeat(np.arange(len(period)), count)
    return row, order[np.repeat(begin - np.cumsum(count) + count, count) + np.arange(len(row))]


def _limits(grid: GridRows) -> tuple[Ints, Ints]:
    """The limit that each row belongs to, and the first row of each limit, in the order in which they came."""
    seen: dict[tuple[int, str], int] = {}
    own = [seen.setdefault(key, len(seen)) for key in zip(grid.period.tolist(), grid.names, strict=True)]
    first: Ints = np.zeros(len(seen), dtype=np.int64)
    first[own[::-1]] = np.arange(len(own))[::-1]
    return np.array(own, dtype=np.int64), first


def _ties(blocks: Blocks) -> Floats:
    rank = np.argsort(np.argsort(blocks.offer, kind="stable"), kind="stable")
    # The first is not free either: capacity that asks nothing is not held for nothing.
    return TIE_BREAK * (rank + 1) / max(1, len(blocks))


def _energy(blocks: Blocks, hours: float) -> tuple[sparse.csr_array, Floats]:
    """Energy called of each capacity offer that has a limit, over the capacity blocks, in MW summed over periods."""
    offer = blocks.offer[blocks.awards :]
    limited = [o for o in np.unique(offer).tolist() if blocks.offers[o].energy_limit_kwh is not None]
    matrix = sparse.csr_array((offer[None] == np.array(limited, dtype=np.int64)[:, None]).astype(float))
    return matrix, np.array([(blocks.offers[o].energy_limit_kwh or 0) / 1000 / hours for o in limited], dtype=float)


@dataclass
class Stage:
    """Rows on one group's first stage under construction; binaries stand after the n blocks."""

    blocks: int
    binaries: int = 0
    entries: list[tuple[int, int, float]] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def row(self, columns: Ints | list[int], values: Floats | list[float], low: float, high: float) -> None:
        """low <= sum of values times columns <= high."""
        self.entries += [(len(self.low), int(c), float(v)) for c, v in zip(columns, values, strict=True)]
        self.low.append(low)
        self.high.append(high)

    def binary(self) -> int:
        self.binaries += 1
        return self.blocks + self.binaries - 1

    def matrix(self, width: int) -> sparse.csr_array:
        rows, columns, values = np.array(self.entries, dtype=float).reshape(-1, 3).T
        index = rows.astype(np.int64), columns.astype(np.int64)
        return sparse.csr_array((values, index), shape=(len(self.low), width))

    @property
    def lower(self) -> Floats:
        return np.array(self.low, dtype=float)

    @property
    def upper(self) -> Floats:
        return np.array(self.high, dtype=float)


def first_stage_rows(blocks: Blocks, hours: float) -> Stage:
    """What couples awards and reservations: kW sold once, and the terms of offers."""
    stage = Stage(len(blocks))
    for mine, most in shared(blocks):
        stage.row(mine, np.ones(len(mine)), -np.inf, most)
    labels: dict[tuple[str, str], list[int]] = {}
    for o in np.unique(blocks.offer).tolist():
        offer = blocks.offers[o]
        mine = np.flatnonzero(blocks.offer == o)
        if offer.energy_limit_kwh is not None and mine[0] < blocks.awards:
            stage.row(mine, np.ones(len(mine)), -np.inf, offer.energy_limit_kwh / 1000 / hours)
        if offer.block or offer.exclusive is not None:
            whole = stage.binary()
            for i in mine.tolist():
                least = 0.0 if offer.block else -np.inf
                stage.row([i, whole], [1.0, -float(blocks.quantity_mw[i])], least, 0.0)
            if offer.exclusive is not None:
                labels.setdefault((offer.provider, offer.exclusive), []).append(whole)
        if offer.min_quantity_kw > 0 or offer.max_periods is not None:
            _runs(stage, blocks, mine, offer)
    for _, columns in sorted(labels.items()):
        stage.row(columns, [1.0] * len(columns), -np.inf, 1.0)
    return stage


def shared(blocks: Blocks) -> list[tuple[Ints, float]]:
    """Blocks that are two uses of the same kW, and the most of both together (MW): a seller's awards and reservations
    of active power (or of reactive) in one direction and period, at most the larger of what it offers as the one and
    as the other."""
    cells: dict[tuple[str, int, int, bool], list[int]] = {}
    columns = zip(blocks.offer, blocks.period, blocks.sign, blocks.p_share, strict=True)
    for i, (o, t, sign, active) in enumerate(columns):
        cells.setdefault((seller(blocks.offers[o]), int(t), int(sign), bool(active)), []).append(i)
    found = []
    for _, places in sorted(cells.items()):
        mine = np.array(places, dtype=np.int64)
        sold, held = mine[mine < blocks.awards], mine[mine >= blocks.awards]
        if len(sold) and len(held):
            most = max(float(blocks.quantity_mw[sold].sum()), float(blocks.quantity_mw[held].sum()))
            found.append((mine, most))
    return found


def _runs(stage: Stage, blocks: Blocks, mine: Ints, offer: Offer) -> None:
    """Minimum quantity and longest run of an offer, with a binary for each period in which it is used."""
    used: dict[int, int] = {}
    for t in np.unique(blocks.period[mine]).tolist():
        here = mine[blocks.period[mine] == t].tolist()
        used[t] = stage.binary()
        total, least = float(blocks.quantity_mw[here].sum()), offer.min_quantity_kw / 1000
        stage.row([*here, used[t]], [1.0] * len(here) + [-total], -np.inf, 0.0)
        stage.row([*here, used[t]], [1.0] * len(here) + [-least], 0.0, np.inf)
    longest = offer.max_periods
    if longest is None:
        return
    for t in used:
        window = [used[s] for s in range(t, t + longest + 1) if s in used]
        if len(window) == longest + 1:
            stage.row(window, [1.0] * len(window), -np.inf, float(longest))
