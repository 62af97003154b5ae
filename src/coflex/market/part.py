"""The program over some quarter-hours of a day: those that still move, and whatever is tied to them.

Couplings enter once an answer breaks them, a group at a time: without them quarter-hours stand alone, and an answer
that keeps a coupling without being asked to is the best with it too. An indivisible offer whose group has entered is
one column, its quarter-hours in fixed shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.powerflow import GridState
from coflex.grid.rows import LOW, GridModel, GridRows, Guard, RowKeys
from coflex.market.model import PENALTY, Model
from coflex.solver.program import Program, Solution

# Effects below a millionth of the strongest only slow the solver; the next pass sees what they leave out.
NEGLIGIBLE = 1e-6
# Share of the effect of a limit's strongest place below which a place has none.
TRACE = 1e-5
# MW below which an award is nothing, and by which a coupling may be missed.
NOTHING = 1e-7


class Table:
    """The grid rows known so far, each as it was last made. m rows over the model's agents: nodes, the share of active
    power and the reactive power beside it, of which the blocks of a day share few."""

    def __init__(self, model: Model, nodes: int) -> None:
        book, blocks = model.book, model.blocks
        tan_phi, follows = np.unique(book.tan_phi[blocks], return_inverse=True)
        # What one unit of a block is: active power with each tan_phi, then reactive power with each.
        kinds = max(1, 2 * len(tan_phi))
        kind = follows + len(tan_phi) * book.reactive[blocks]
        agents, self.agent = np.unique(book.node[blocks] * kinds + kind, return_inverse=True)
        self.node, kind = agents // kinds, agents % kinds
        self.p_share = np.where(kind < len(tan_phi), 1.0, 0.0)
        self.tan_phi = tan_phi[kind % max(1, len(tan_phi))]
        self.keys = RowKeys.none()
        self.names: list[str] = []
        self.dp, self.dq = np.zeros((0, nodes)), np.zeros((0, nodes))
        self.effect = np.zeros((0, len(self.node)))
        self.room, self.short, self.price = (np.zeros(0) for _ in range(3))

    def __len__(self) -> int:
        return len(self.names)

    def add(self, keys: RowKeys) -> None:
        """Further rows, to be made before they are used."""
        more = len(keys)
        self.keys = self.keys.then(keys)
        self.names += [""] * more
        self.dp, self.dq, self.effect = (
            np.concatenate([known, np.zeros((more, known.shape[1]))]) for known in (self.dp, self.dq, self.effect)
        )
        self.room, self.short, self.price = (
            np.concatenate([known, np.zeros(more)]) for known in (self.room, self.short, self.price)
        )

    def within(self, periods: Bools) -> Ints:
        """The rows of some quarter-hours."""
        return np.flatnonzero(periods[self.keys.period])

    def part(self, rows: Ints) -> RowKeys:
        return RowKeys(self.keys.period[rows], self.keys.form[rows], self.keys.index[rows])

    def make(self, rows: Ints, grid: GridModel, state: GridState, periods: Ints, change: tuple[Floats, Floats]) -> None:
        """Make rows anew at a state that solves `periods` under the changes."""
        made = grid.rows(state, periods, self.part(rows), *change)
        self.dp[rows], self.dq[rows], self.room[rows] = made.dp, made.dq, made.room
        effect = self.p_share * made.dp[:, self.node] + self.tan_phi * made.dq[:, self.node]
        self.effect[rows] = np.where(self.node >= 0, effect, 0.0)
        for row, name in zip(rows.tolist(), made.names, strict=True):
            self.names[row] = name

    def guard(self, guard: Guard, level: Floats) -> Floats:
        """By how much each row is tightened in its own unit, `level[t]` times the guard."""
        unit = np.where(self.keys.form <= LOW, guard.voltage_pu, guard.loading_share)
        tight: Floats = level[self.keys.period] * unit
        return tight

    def worth(self, model: Model) -> Floats:
        """EUR per MW that the rows give to each award column."""
        pressed = np.flatnonzero(self.price)
        of_agent = np.zeros((len(model.book.axis), len(self.node)))
        np.add.at(of_agent, self.keys.period[pressed], self.price[pressed, None] * self.effect[pressed])
        at = model.column_period[: len(self.agent)]
        worth: Floats = model.book.sign[model.blocks] * of_agent[at, self.agent]
        return worth

    def told(self) -> GridRows:
        return GridRows(tuple(self.names), self.keys.period, self.dp, self.dq, self.room)


@dataclass(frozen=True, eq=False)
class Part:
    """A program over some quarter-hours. `column[j]`, `share[j]`: the program's column that the model's column j
    follows, and how much of it that is; -1 where it is not in the part. The program's rows are the model's `rows`, then
    the grid's `keys` in units of `scale`; its columns end with their slacks."""

    program: Program
    column: Ints
    share: Floats
    rows: Ints
    keys: Ints
    scale: Floats

    def spread(self, solution: Solution, x: Floats) -> None:
        """Write a solution into the model's columns."""
        mine = np.flatnonzero(self.column >= 0)
        x[mine] = self.share[mine] * solution.x[self.column[mine]]

    def slack(self, solution: Solution) -> Floats:
        """What each grid row lacks, in its own unit."""
        lacking: Floats = solution.x[len(solution.x) - len(self.keys) :] * self.scale
        return lacking


def narrowed(
    model: Model,
    periods: Bools,
    active: Bools,
    wanted: Bools,
    bounds: tuple[Floats, Floats],
    table: Table | None,
    tight: Floats,
    risk: Bools,
) -> Part:
    """The linear program over the quarter-hours `periods` (a mask closed under the groups that are active).

    `bounds`: lower and upper bound of every column of the model; `tight[m]`: what is taken off each grid row's room;
    `risk`: quarter-hours (a mask) where reactive power is open beyond its requests, for the limits of the grid.
    """
    fixed = model.fixed
    entered = active & _touched(model, periods)
    on, target, share = _columns(model, entered, periods, wanted)
    present = on & (target == np.arange(len(on)))
    local = np.where(on, (np.cumsum(present) - 1)[target], -1)
    mine, width = np.flatnonzero(on), int(present.sum())
    coupled = _of(entered, model.row_group) & ~model.row_whole
    rows = np.flatnonzero(np.where(model.row_group >= 0, coupled, _of(periods, model.row_period)))
    keys = np.zeros(0, dtype=np.int64) if table is None else table.within(periods)
    entries = [_entries(fixed.matrix, rows, local)]
    scale, room = np.ones(len(keys)), np.zeros(len(keys))
    if table is not None and len(keys):
        row, column, value, scale = _grid_entries(model, table, keys, wanted)
        entries.append((len(rows) + row, column, value))
        room = (table.room[keys] - tight[keys]) / scale
    row, column, data = (np.concatenate([entry[at] for entry in entries]) for at in range(3))
    # Each grid row has a slack of its own, behind all other columns.
    slack, each = np.arange(len(keys)), np.ones(len(keys))
    at = np.concatenate([row, len(rows) + slack]), np.concatenate([local[column], width + slack])
    most = np.where(model.opens[rows] & _of(risk, model.row_period[rows]), np.inf, fixed.row_upper[rows])
    cost = np.bincount(local[mine], weights=fixed.cost[mine] * share[mine], minlength=width)
    program = Program(
        cost=np.concatenate([cost, model.book.axis.hours * PENALTY * each]),
        matrix=sparse.csr_array(
            (np.concatenate([data * share[column], -each]), at), shape=(len(rows) + len(keys), width + len(keys))
        ),
        row_lower=np.concatenate([fixed.row_lower[rows], -np.inf * each]),
        row_upper=np.concatenate([most, room]),
        lower=np.concatenate([bounds[0][present], 0.0 * each]),
        upper=np.concatenate([bounds[1][present], np.inf * each]),
        integer=np.zeros(width + len(keys), dtype=np.bool_),
    )
    return Part(program, local, share, rows, keys, scale)


def _entries(matrix: sparse.csr_array, rows: Ints, local: Ints) -> tuple[Ints, Ints, Floats]:
    """(row, column, value) of some rows of a matrix, rows counted anew, in the columns that have a place in `local`."""
    begin = matrix.indptr[rows].astype(np.int64)
    count = matrix.indptr[rows + 1] - begin
    at = np.arange(count.sum()) + np.repeat(begin - (np.cumsum(count) - count), count)
    column = matrix.indices[at]
    inside = local[column] >= 0
    return np.repeat(np.arange(len(rows)), count)[inside], column[inside], matrix.data[at[inside]]


def _columns(model: Model, entered: Bools, periods: Bools, wanted: Bools) -> tuple[Bools, Ints, Floats]:
    """Of the model's columns: whether each is in the part, the column it follows (itself, or the binary of its block)
    and its share of that."""
    on = np.where(model.column_group >= 0, _of(entered, model.column_group), _of(periods, model.column_period))
    on[: len(wanted)] &= wanted
    target, share = np.arange(len(on)), np.ones(len(on))
    whole = np.flatnonzero(model.whole >= 0)
    follows = whole[entered[model.column_group[model.whole[whole]]]]
    target[follows] = model.whole[follows]
    share[follows] = model.fixed.upper[follows]
    return on, target, share


def _of(mask: Bools, index: Ints) -> Bools:
    """The mask at an index, false where the index is -1."""
    found = np.zeros(len(index), dtype=np.bool_)
    has = index >= 0
    found[has] = mask[index[has]]
    return found


def _touched(model: Model, periods: Bools) -> Bools:
    """The groups with an award in one of the quarter-hours."""
    touched = np.zeros(model.groups, dtype=np.bool_)
    group, when = model.group_link
    touched[group[periods[when]]] = True
    return touched


def _grid_entries(model: Model, table: Table, keys: Ints, wanted: Bools) -> tuple[Ints, Ints, Floats, Floats]:
    """(row, column, value) of the grid rows `keys` over the wanted awards of their quarter-hours, in units of the
    strongest effect of any place in each row, which comes last (len(keys),)."""
    book = model.book
    block = np.flatnonzero(wanted)
    when = model.column_period[block]
    begin = np.searchsorted(when, table.keys.period[keys])
    count = np.searchsorted(when, table.keys.period[keys], side="right") - begin
    row = np.repeat(np.arange(len(keys)), count)
    column = block[np.arange(len(row)) + np.repeat(begin - (np.cumsum(count) - count), count)]
    scale = np.abs(table.effect[keys]).max(axis=1, initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    value = table.effect[keys[row], table.agent[column]] * (book.sign[model.blocks[column]] / scale[row])
    # What loads a limit by a trace of what the best place could do does not relieve it, whatever is on offer.
    strongest = np.abs(table.dp[keys]).max(axis=1, initial=0.0)
    trace = np.abs(value) * scale[row] < TRACE * strongest[row]
    keep = np.flatnonzero((np.abs(value) > NEGLIGIBLE) & ~trace)
    return row[keep], column[keep], value[keep], scale


def labels(model: Model, active: Bools, periods: int) -> Ints:
    """The part that each quarter-hour belongs to: those that active groups tie together bear one number."""
    group, when = model.group_link
    tied = active[group] if len(group) else np.zeros(0, dtype=np.bool_)
    size = periods + model.groups
    graph = sparse.coo_array((np.ones(int(tied.sum())), (when[tied], periods + group[tied])), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    return np.asarray(label[:periods], dtype=np.int64)


class Couplings:
    """The rows that tie quarter-hours and offers together, ready to be asked."""

    def __init__(self, model: Model) -> None:
        first, k = model.first_coupling, len(model.blocks)
        self.model = model
        rows = model.fixed.matrix[first:]
        self.awards = rows[:, :k]
        self.binaries = sparse.coo_array(rows[:, k + model.demand.slacks :])
        self.lower, self.upper = model.fixed.row_lower[first:], model.fixed.row_upper[first:]
        self.raising = (self.binaries.data < 0) & (self.upper[self.binaries.row] == 0)
        self.transposed = sparse.csr_array(model.fixed.matrix[:, :k].T)

    def worth(self, row_price: Floats) -> Floats:
        """EUR per MW that the model's rows give to each award column."""
        worth: Floats = self.transposed @ row_price
        return worth

    def members(self, groups: Bools) -> Bools:
        """The award columns that share a row with a binary of the groups."""
        found = np.zeros(len(self.model.blocks), dtype=np.bool_)
        chosen = np.zeros_like(groups)
        chosen[self.model.column_group[self.model.column_group >= 0]] = True
        rows = np.flatnonzero((groups & chosen)[self.model.row_group[self.model.first_coupling :]])
        found[self.awards[rows].indices] = True
        return found

    def broken(self, x: Floats) -> Bools:
        """The groups that the awards in x break, whatever their binaries: each is taken at the least value that the
        awards allow."""
        found = np.zeros(self.model.groups, dtype=np.bool_)
        if not len(found):
            return found
        used = self.awards @ x[: len(self.model.blocks)]
        raised = np.zeros(self.binaries.shape[1])
        raised[self.binaries.col[self.raising & (used[self.binaries.row] > NOTHING)]] = 1.0
        activity = used + self.binaries @ raised
        over = (activity > self.upper + NOTHING) | (activity < self.lower - NOTHING)
        found[self.model.row_group[self.model.first_coupling :][over]] = True
        return found
