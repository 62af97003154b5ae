"""Traffic lights: how much a part of the grid may do, safe for every split over its units.

A part is a perimeter in one direction (or a unit by itself) that may use C_p kW. Each limit is a row, linear in what
the units do; `knapsack` has its worst split and fills the rows. The room is shared by one rule: all parts rise by the
same share of their potential; a row that is full stops those that load it, the others rise on. Then the AC power flow
has the word: rows are fitted to what it says at their worst splits, and what still breaks a limit is shrunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.knapsack import Knapsacks, rise
from coflex.grid.network import Complexes, Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Linearisation, Quantities

# A limit that the base state breaks may get worse by this much in all, whatever the parts do: 0.0005 pu, or 0.05 % of
# a rating, a quarter of the error of a class 0.2 measuring transformer. As for the static light.
MATTERS = 5e-4
# Part of a row's room that may be set aside for parts that load it little, so that they need not stop for it.
SET_ASIDE = 0.02
# Part of every room kept back for splits that no search finds: what one part does to the effects of another.
KEPT_BACK = 2e-3
# Rows aim at this much less than that, so that the power flow seldom has to shrink the answer.
AIM = 1e-4
# A current is bounded in this many directions of the complex plane; what the corners between them hide (up to 0.9 %)
# the power flow finds.
DIRECTIONS = 24
# Rows whose worst split uses at least this share of their room are tried by power flow.
TRIED = 0.85
# A limit whose room is used to this share at a corner is looked at again with the effects that hold there.
NEAR = 0.97
# Rows count as fitted when those that stop a part use all but this share of their room by power flow.
FITTED = 1e-3
FIT_ROUNDS = 5
AC_ROUNDS = 12
BISECTIONS = 12
# Ways from the worst split known towards the one that its own effects call worst.
BLENDS = (1 / 3, 2 / 3)
# Rows that join the filling at a time.
WORST = 16
# Currents that fill a limit at angles of different sectors are different worst cases.
SECTORS = 12
# Difference of effects within which the farthest unit is tried first too.
TILT = 0.03
# Corners of a limit and sector whose effects are looked at.
STARTS = 3
# Corners that use less of every room than this are not tried again.
IDLE = 0.9
# Complex numbers of one chunk of periods at most, to bound the memory.
CHUNK = 20_000_000


@dataclass(frozen=True, eq=False)
class Agents:
    """Units that act, and the part each belongs to. u entries: `node[u]`, `tan_phi[u]` (kvar per kW), `sign[u]`
    (+1 up, -1 down), `part[u]`: index of the part (a perimeter in one direction, or a unit by itself)."""

    node: Ints
    tan_phi: Floats
    sign: Ints
    part: Ints
    parts: int


@dataclass(frozen=True, eq=False)
class Capability:
    """`kw[p, t]`: what part p may use in period t, safe with all others; `element[p][t]`: what limits it, empty if
    nothing does."""

    kw: Floats
    element: tuple[tuple[str, ...], ...]


def capability(
    network: Network,
    state: GridState,
    agents: Agents,
    potential_kw: Floats,
    floor_kw: Floats | None = None,
    goal_kw: Floats | None = None,
) -> Capability:
    """Capabilities of all parts over the periods of a solved state; `potential_kw[u, t]` non-negative.

    Safe for every split: limits that `state` keeps stay kept by AC power flow, limits that it breaks get worse by at
    most `MATTERS` in all. `floor_kw[p, t]`: what the parts have to begin with, known to be safe; no part gets less.
    `goal_kw[p, t]`: what they rise towards in equal shares, by default their whole potential; the DSO's weights, if
    it has any.
    """
    periods = potential_kw.shape[1]
    kw = np.zeros((agents.parts, periods))
    names = [[""] * periods for _ in range(agents.parts)]
    chunk = max(1, CHUNK // max(1, network.n * len(np.unique(agents.node))))
    for begin in range(0, periods, chunk):
        those = np.arange(begin, min(begin + chunk, periods))
        floor = None if floor_kw is None else floor_kw[:, those]
        goal = None if goal_kw is None else goal_kw[:, those]
        lights = _Lights(network, state.part(those), agents, potential_kw[:, those], floor, goal)
        lights.fit()
        lights.accept()
        kw[:, those] = lights.kw
        for t, period in enumerate(lights.named):
            for p, name in period.items():
                names[p][begin + t] = name
    return Capability(kw, tuple(tuple(row) for row in names))


@dataclass(frozen=True, eq=False)
class Rows:
    """Limits of one period that the units could fill. `form[r]` is HIGH, LOW, FROM or TO, `index[r]` node or branch,
    `turn[r]` the direction in which a current is bounded; `room[r]` and `effect[r, u]` per kW in pu or share of the
    rating; `broken[r]`: the base state breaks it (its room is then what may be added). `scale[r]`: how the effects
    compare with the power flow at the row's worst split. `follows[r]`: its direction goes with the current's."""

    form: Ints
    index: Ints
    turn: Complexes
    room: Floats
    effect: Floats
    broken: Bools
    scale: Floats
    follows: Bools

    def __len__(self) -> int:
        return len(self.form)

    def take(self, rows: Ints) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, name)[rows] for name in Rows.__dataclass_fields__))

    @staticmethod
    def joined(several: list[Rows]) -> Rows:
        """Rows of several sets, one after the other."""
        return Rows(*(np.concatenate([getattr(rows, name) for rows in several]) for name in Rows.__dataclass_fields__))


HIGH, LOW, FROM, TO = range(4)
_QUANTITY = np.array([VOLTAGE, VOLTAGE, FROM_END, TO_END])


def merged(agents: Agents, potential_kw: Floats) -> tuple[Agents, Floats]:
    """Units of the same part, direction, node and reactive power as one: a split cannot tell them apart."""
    keys = np.column_stack([agents.part, agents.sign, agents.node, agents.tan_phi])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    total = np.zeros((len(first), potential_kw.shape[1]))
    np.add.at(total, group.ravel(), potential_kw)
    one = Agents(agents.node[first], agents.tan_phi[first], agents.sign[first], agents.part[first], agents.parts)
    return one, total


class Linear:
    """The limits of a grid around solved states, as rows over units."""

    def __init__(self, network: Network, state: GridState, agents: Agents) -> None:
        self.network, self.state, self.agents = network, state, agents
        self.linear = Linearisation(network, state.u)
        places = np.column_stack([agents.node, agents.tan_phi])
        _, self._first, column = np.unique(places, axis=0, return_index=True, return_inverse=True)
        self._column = column.ravel()

    def rows(self, potential: Floats, t: int) -> tuple[Rows, dict[tuple[int, int], tuple[complex, Complexes]]]:
        """Rows of period t that `potential[u]` kW could come near to filling; and of each branch's end among them
        the current and its change per kW of each unit, in shares of the rating.

        A voltage is one row each way. A current is bounded in several directions of the complex plane, where it is
        all but linear in the injections, while its magnitude is not: |I| turns where a flow turns round.
        """
        agents, first = self.agents, self._first
        du = self.linear.responses(t, agents.node[first], agents.tan_phi[first]) / 1000.0
        most = np.zeros((2, len(first)))
        np.add.at(most, (np.where(agents.sign > 0, 0, 1), self._column), potential)
        found = self._voltages(du, most, t)
        ends = {}
        for form in (FROM, TO):
            branch, current, bare = self._currents(du, most.sum(axis=0), form, t)
            if not len(branch):
                continue
            change = np.asarray(self._effect(bare), dtype=np.complex128)
            found += self._directions(form, branch, current, bare, change, most)
            for b, i, di in zip(branch.tolist(), current.tolist(), change, strict=True):
                ends[form, b] = i, di
        return Rows.joined(found), ends

    def remoteness(self) -> Floats:
        """How much each unit moves its own voltage, in shares of the most that one does."""
        node = self.agents.node[self._first]
        own = np.abs(self.linear.responses(0, node, np.zeros(len(node)))[node, np.arange(len(node))])
        share: Floats = (own / max(float(own.max(initial=0.0)), 1e-12))[self._column]
        return share

    def _effect(self, change: Floats | Complexes) -> Floats | Complexes:
        return change[:, self._column] * self.agents.sign

    def _voltages(self, du: Complexes, most: Floats, t: int) -> list[Rows]:
        network = self.network
        nodes = network.pq
        u = self.state.u[t, nodes]
        vm = np.abs(u)
        dv = (np.conj(u / vm)[:, None] * du[nodes]).real
        up = np.maximum(dv, 0.0) @ most[0] + np.maximum(-dv, 0.0) @ most[1]
        down = np.abs(dv) @ most.sum(axis=0) - up
        rows = []
        for form, side, load, left in (
            (HIGH, 1.0, up, network.v_max[nodes] - vm),
            (LOW, -1.0, down, vm - network.v_min[nodes]),
        ):
            room = np.where(left < 0, MATTERS, left) * (1 - KEPT_BACK)
            near = np.flatnonzero(load > TRIED * room)
            effect = np.asarray(self._effect(side * dv[near]), dtype=np.float64)
            rows.append(_rows(form, nodes[near], np.ones(len(near), complex), room[near], effect, left[near] < 0))
        return rows

    def _currents(self, du: Complexes, most: Floats, form: int, t: int) -> tuple[Ints, Complexes, Complexes]:
        """Branches whose end `form` could come near to its limit: their current and its change per kW brought up at
        each of the units' places. The end that is loaded more speaks for a branch."""
        network, state = self.network, self.state
        from_end = state.loading_from[t] >= state.loading_to[t]
        y = network.terminal_admittance[0 if form == FROM else 1]
        rating = network.rating_from if form == FROM else network.rating_to
        branch = np.flatnonzero(from_end if form == FROM else ~from_end)
        current = (y @ state.u[t])[branch] / rating[branch]
        change = (y @ du)[branch] / rating[branch, None]
        size, bound = np.abs(current), network.loading_max[branch]
        room = np.where(size > bound, MATTERS, bound - size) * (1 - KEPT_BACK)
        near = np.flatnonzero(np.abs(change) @ most > TRIED * room)
        return branch[near], current[near], change[near]

    def _directions(
        self, form: int, branch: Ints, current: Complexes, bare: Complexes, change: Complexes, most: Floats
    ) -> list[Rows]:
        """Rows of currents (b,) in the directions in which they could come near to their bound. `bare[b, c]`: their
        change per kW brought up at each place, of which `most[0, c]` kW could go up and `most[1, c]` down;
        `change[b, u]`: per kW of each unit."""
        bound = self.network.loading_max[branch]
        over = np.flatnonzero(np.abs(current) > bound)
        # What is over its limit already must not grow in its own direction.
        turn = current[over] / np.abs(current[over])
        effect = (np.conj(turn)[:, None] * change[over]).real
        room = np.full(len(over), MATTERS * (1 - KEPT_BACK))
        found = [_rows(form, branch[over], turn, room, effect, np.ones(len(over), np.bool_))]
        turns = np.conj(np.exp(2j * np.pi * np.arange(DIRECTIONS) / DIRECTIONS))
        room = (bound - (turns[:, None] * current).real) * (1 - KEPT_BACK)
        turned = np.stack([turns.real, -turns.imag], axis=1) @ np.stack([bare.real, bare.imag]).reshape(2, -1)
        turned = turned.reshape(DIRECTIONS, *bare.shape)
        raised = np.maximum(turned, 0.0)
        load = raised @ most[0] + (raised - turned) @ most[1]
        way, near = np.nonzero((load > TRIED * room) & (room > 0))
        effect = (turns[way, None] * change[near]).real
        no = np.zeros(len(near), np.bool_)
        found.append(_rows(form, branch[near], np.conj(turns[way]), room[way, near], effect, no))
        return found


def _marks(splits: Floats) -> Floats:
    """A number for each split (kW per unit) that tells it from others: a sum with weights that have no pattern."""
    weights = 1.0 + np.modf(np.sqrt(np.arange(2.0, 2.0 + splits.shape[1])) * np.pi)[0]
    marks: Floats = np.round(splits @ weights, 5)
    return marks


def _distinct(splits: Floats) -> tuple[Ints, Ints]:
    """The first of each distinct split, and of all splits which of the distinct ones they are."""
    _, first, which = np.unique(_marks(splits), return_index=True, return_inverse=True)
    return first, which


def _rows(form: int, index: Ints, turn: Complexes, room: Floats, effect: Floats, broken: Bools) -> Rows:
    count = len(index)
    no = np.zeros(count, dtype=np.bool_)
    return Rows(np.full(count, form), index, turn, room, effect, broken, np.ones(count), no)


def shared(rows: Rows, curves: Knapsacks) -> tuple[Floats, Knapsacks]:
    """Room and curves of the rows as they are filled: scaled, with a little kept back, and without the parts that load
    a row too little to stop for it.

    Of the parts in the order of what their whole potential adds to a row, the least first, those are set aside that
    together take at most `SET_ASIDE` of its room; their whole load is taken off the room, so the row holds as
    before. On a row that the base state breaks, those who together add at most `MATTERS`; all others have no room.
    """
    top = (curves.load(curves.total)) * rows.scale[:, None]
    order = np.argsort(top, axis=1, kind="stable")
    together = np.cumsum(np.take_along_axis(top, order, axis=1), axis=1)
    able = np.where(rows.broken, 1.0, SET_ASIDE) * rows.room * (1 - AIM)
    aside = np.zeros(top.shape, dtype=np.bool_)
    np.put_along_axis(aside, order, together <= able[:, None], axis=1)
    room = np.where(rows.broken, 0.0, rows.room * (1 - AIM) - (top * aside).sum(axis=1))
    return room, curves.weighted(np.where(aside, 0.0, rows.scale[:, None]))


@dataclass(eq=False)
class _Period:
    """One period on its way to an answer: its rows and their curves (first those whose direction is
    fixed), the currents behind them, which rows take part
    in filling (the others have room to spare), and which were near to full when they were filled last."""

    t: int
    potential: Floats
    rows: Rows
    fixed: Knapsacks
    curves: Knapsacks
    ends: dict[tuple[int, int], tuple[complex, Complexes]]
    active: Bools
    near: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


class _Lights:
    """Lights of some periods: linear first, then fitted to the power flow, then accepted by it."""

    def __init__(
        self,
        network: Network,
        state: GridState,
        agents: Agents,
        potential_kw: Floats,
        floor_kw: Floats | None = None,
        goal_kw: Floats | None = None,
    ) -> None:
        self.network, self.state = network, state
        self.agents, self.potential = merged(agents, potential_kw)
        self.part, self.parts = self.agents.part, agents.parts
        self.total = np.zeros((self.parts, potential_kw.shape[1]))
        np.add.at(self.total, self.part, self.potential)
        self.floor = np.zeros(self.total.shape) if floor_kw is None else np.minimum(floor_kw, self.total)
        self.goal = self.total if goal_kw is None else np.clip(goal_kw, self.floor, self.total)
        self.kw = self.goal.copy()
        self.named: list[dict[int, str]] = [{} for _ in range(self.total.shape[1])]
        pq = network.pq
        vm = state.vm[:, pq]
        self.begin = np.concatenate([vm, -vm, state.loading], axis=1)
        bound = np.concatenate([network.v_max[pq], -network.v_min[pq], network.loading_max])
        bound = np.where(self.begin > bound, self.begin + MATTERS, bound)
        self.bound = bound - KEPT_BACK * (bound - self.begin)
        self.linear = Linear(network, state, self.agents)
        self.work: list[_Period] = []
        for t in range(len(self.named)):
            rows, ends = self.linear.rows(self.potential[:, t], t)
            if len(rows):
                curves = Knapsacks(rows.effect, self.potential[:, t], self.part, self.parts)
                self.work.append(_Period(t, self.potential[:, t], rows, curves, curves, ends, rows.broken.copy()))

    def fit(self) -> None:
        """Fill, look by power flow at the worst splits of the rows that are nearly full, fit the rows, fill again."""
        waiting = self.work
        for fresh in (True, *[False] * (FIT_ROUNDS - 1)):
            tried = [(one, *self._fill(one, TRIED if fresh else NEAR)) for one in waiting]
            distinct = [_distinct(split) for _, split, _ in tried]
            splits = [split[first] for (_, split, _), (first, _) in zip(tried, distinct, strict=True)]
            _, _, there = self._solve([one.t for one in waiting], splits)
            begin = np.cumsum([0, *(len(split) for split in splits)])
            waiting = [
                one
                for (one, split, stops), (_, which), at in zip(tried, distinct, begin[:-1], strict=True)
                if not self._fitted(one, split, there.u[at + which], stops)
            ]
            if not waiting:
                return
        for one in waiting:
            self._fill(one, NEAR)

    def _fill(self, one: _Period, tried: float) -> tuple[Floats, Bools]:
        """Fill one period; the worst splits of the rows near to full, and which of these rows stop a part."""
        rows, t = one.rows, one.t
        room, curves = shared(rows, one.curves)
        stopped = self._rise(one, room, curves)
        halted = np.flatnonzero((stopped >= 0) & (self.total[:, t] > 0))
        self.named[t] = {
            p: self._name(int(rows.form[r]), int(rows.index[r]))
            for p, r in zip(halted.tolist(), stopped[halted].tolist(), strict=True)
        }
        used = one.curves.load(self.kw[:, t]).sum(axis=1) * rows.scale
        one.near = np.flatnonzero(used >= tried * rows.room)
        splits = one.curves.only(one.near, self.total[:, t] > 0).split(self.kw[:, t])
        stops = np.zeros(len(rows), dtype=np.bool_)
        stops[stopped[halted]] = True
        return splits, stops[one.near]

    def _rise(self, one: _Period, room: Floats, curves: Knapsacks) -> Ints:
        """Fill the rows that matter: those that turn out too full without them join, until none does."""
        t, everyone = one.t, np.ones(self.parts, np.bool_)
        while True:
            active = np.flatnonzero(one.active)
            share, stopped = rise(curves.only(active, everyone), room[active], self.floor[:, t], self.goal[:, t])
            stopped = np.where(stopped >= 0, active[stopped], -1) if len(active) else stopped
            self.kw[:, t] = np.maximum(share * self.goal[:, t], self.floor[:, t])
            over = curves.load(self.kw[:, t]).sum(axis=1) - room
            over = np.where(one.active, -np.inf, over / np.maximum(room, 1e-9))
            if over.max(initial=-np.inf) <= 1e-9:
                return stopped
            one.active |= over >= np.partition(over, -WORST)[-WORST] if (over > 1e-9).sum() > WORST else over > 1e-9

    def _fitted(self, one: _Period, split: Floats, u: Complexes, stops: Bools) -> bool:
        """Fit a period's rows near to full to the states `u` at their splits; whether they fitted before."""
        rows, near = one.rows, one.near
        form, index, turn = rows.form[near], rows.index[near], rows.turn[near]
        base = self.state.u[one.t]
        k = np.arange(len(near))
        grown = np.zeros(len(near))
        for kind, side in ((HIGH, 1.0), (LOW, -1.0)):
            mine = form == kind
            grown[mine] = side * (np.abs(u[k[mine], index[mine]]) - np.abs(base[index[mine]]))
        more = []
        for kind in (FROM, TO):
            for r in np.flatnonzero(form == kind).tolist():
                there = self._current(kind, int(index[r]), u[r])
                before, change = one.ends[kind, int(index[r])]
                grown[r] = (np.conj(turn[r]) * (there - before)).real
                angle = there / max(abs(there), 1e-12)
                limit = self.network.loading_max[index[r]]
                if rows.broken[near[r]] or abs(there) < NEAR * limit or abs(angle - turn[r]) < 0.01:
                    continue
                effect = (np.conj(angle) * change).real
                own = (np.conj(angle) * (there - before)).real
                scale = own / max(float(effect @ split[r]), 1e-12)
                turned = Rows(
                    np.array([kind]),
                    index[[r]],
                    np.array([angle]),
                    np.array([(limit - (np.conj(angle) * before).real) * (1 - KEPT_BACK)]),
                    effect[None],
                    np.zeros(1, np.bool_),
                    np.array([scale]),
                    np.ones(1, np.bool_),
                )
                more.append((int(near[r]), abs(there) > limit, turned))
        said = np.einsum("ru,ru->r", rows.effect[near], split)
        scale = np.where(said > 0, grown / np.where(said > 0, said, 1.0), 1.0)
        rows.scale[near] = np.where(rows.broken[near], 1.0, np.clip(scale, 0.5, 2.0))
        used = grown / np.maximum(rows.room[near], 1e-12)
        tight = (used <= 1.0) & (~stops | rows.broken[near] | (used >= 1 - AIM - FITTED))
        return self._turn(one, more) and bool(tight.all())

    def _turn(self, one: _Period, more: list[tuple[int, bool, Rows]]) -> bool:
        """Take in rows in the directions that currents have at their corners; whether none of them mattered."""
        rows, fine, added = one.rows, True, []
        for r, over, turned in more:
            fine &= not over
            same = rows.follows & (rows.form == turned.form[0]) & (rows.index == turned.index[0])
            close = np.flatnonzero(same & (np.abs(rows.turn - turned.turn[0]) < 0.1))
            if rows.follows[r] or len(close):
                at = np.array([r if rows.follows[r] else close[0]])
                for name in ("turn", "room", "effect", "scale"):
                    getattr(rows, name)[at] = getattr(turned, name)
            else:
                added.append(turned)
        if more:
            one.rows = Rows.joined([rows, *added])
            turning = one.rows.effect[len(one.fixed) :]
            one.curves = one.fixed.then(Knapsacks(turning, one.potential, self.part, self.parts))
            one.active = np.r_[one.active, np.ones(len(added), np.bool_)]
        return fine

    def _current(self, form: int, branch: int, u: Complexes) -> complex:
        y = self.network.terminal_admittance[0 if form == FROM else 1]
        rating = self.network.rating_from if form == FROM else self.network.rating_to
        where = slice(y.indptr[branch], y.indptr[branch + 1])
        return complex(y.data[where] @ u[y.indices[where]] / rating[branch])

    def _solve(self, periods: list[int], splits: list[Floats]) -> tuple[Ints, Floats, GridState]:
        """AC power flow at splits (kW per unit) of some periods: the period and split of each state, and the states."""
        network, agents = self.network, self.agents
        period = np.repeat(np.array(periods, dtype=np.int64), [len(split) for split in splits])
        split = np.concatenate([np.zeros((0, len(self.part))), *splits])
        signed = split * agents.sign / 1000.0
        place = sparse.csr_array(
            (np.ones(len(agents.node)), (np.arange(len(agents.node)), agents.node)), shape=(len(agents.node), network.n)
        )
        p, q = signed @ place, (signed * agents.tan_phi) @ place
        return period, split, solve(network, self.state.p_mw[period] + p, self.state.q_mvar[period] + q)

    def accept(self) -> None:
        """Shrink `kw` until every corner keeps every limit by AC power flow: the worst splits of rows near to full,
        all of one direction at once, and the worst splits by the effects that hold where a limit is all but met.

        A corner's split changes with what its parts may use, so after a shrink all corners of the period are tried
        anew.
        """
        corners = self._first_corners()
        waiting = dict(corners)
        known: dict[int, set[float]] = {t: set() for t in corners}
        for _ in range(AC_ROUNDS):
            if not waiting:
                return
            tried = self._try(waiting)
            for t, mark in zip(tried.period.tolist(), _marks(tried.split).tolist(), strict=True):
                known[t].add(mark)
            looked = [np.bincount(tried.source[t], ~mine.looked) == 0 for t, mine in waiting.items()]
            fresh = self._sharper(tried, np.concatenate(looked), known)
            busy = tried.used.max(axis=1) > IDLE
            shrunk = self._shrink(tried)
            for t, mine in waiting.items():
                if corners[t] is mine:
                    corners[t] = mine.take(busy[tried.period == t][tried.source[t]])
                corners[t] = corners[t].seen()
                if t in fresh:
                    corners[t] = corners[t].then(fresh[t])
            for t in shrunk:
                known[t] = set()
            waiting = {t: corners[t] if t in shrunk else fresh[t] for t in sorted(shrunk | fresh.keys())}
        self._shrink_all({t: corners[t] for t in waiting})

    def _first_corners(self) -> dict[int, _Corners]:
        none = np.zeros((0, len(self.part)))
        everything = np.array([self.agents.sign == sign for sign in (1, -1)], dtype=np.float64)
        first = _Corners.new(everything, none)
        # Losses grow with the square of what far units do: of units with all but the same effect the farthest too.
        tilt = 1 + TILT * self.linear.remoteness()
        corners = dict.fromkeys(np.flatnonzero(self.potential.any(axis=0)).tolist(), first)
        for one in self.work:
            used = one.curves.load(self.kw[:, one.t]).sum(axis=1)
            effect = one.rows.effect[used > TRIED * one.rows.room]
            corners[one.t] = first.then(_Corners.new(np.concatenate([effect, effect * tilt]), none))
        return corners

    def _curves(self, corners: _Corners, t: int) -> Knapsacks:
        return Knapsacks(corners.effect, self.potential[:, t], self.part, self.parts)

    def _splits(self, corners: _Corners, curves: Knapsacks, t: int) -> Floats:
        """The splits of a period's corners under what the parts may use now."""
        return np.concatenate([curves.split(self.kw[:, t]), corners.share * self.kw[self.part, t]])

    def _try(self, corners: dict[int, _Corners], curves: dict[int, Knapsacks] | None = None) -> _Tried:
        """The corners of some periods under AC power flow, each split once. `curves` of their effects, if known."""
        curves = curves or {t: self._curves(mine, t) for t, mine in corners.items()}
        splits = {t: self._splits(mine, curves[t], t) for t, mine in corners.items()}
        distinct = {t: _distinct(split) for t, split in splits.items()}
        period, split, there = self._solve(list(corners), [splits[t][distinct[t][0]] for t in corners])
        vm = there.vm[:, self.network.pq]
        begin, bound = self.begin[period], self.bound[period]
        end = np.concatenate([vm, -vm, there.loading], axis=1)
        grown = end - begin
        over = (end > bound) & (grown > 1e-9)
        way = np.where(over, (bound - begin) / np.where(over, grown, 1.0), np.inf)
        used = np.where(grown > 1e-9, grown / np.maximum(bound - begin, 1e-9), 0.0)
        source = {t: which for t, (_, which) in distinct.items()}
        return _Tried(period, split, source, way.min(axis=1), way.argmin(axis=1), used, there)

    def _shrink(self, tried: _Tried) -> set[int]:
        """Shrink the parts of corners that break a limit, each to where on its way the limit is met."""
        shrunk = set()
        for k in np.flatnonzero(tried.share < 1.0).tolist():
            t, split = int(tried.period[k]), tried.split[k]
            used = np.bincount(self.part, weights=split, minlength=self.parts)
            # Another corner of this round may have shrunk a part further already.
            kept = np.maximum(self.floor[:, t], used * max(0.0, tried.share[k] * (1 - AIM)))
            less = (used > 0) & (kept < self.kw[:, t])
            self.kw[less, t] = kept[less]
            self.named[t].update(dict.fromkeys(np.flatnonzero(less).tolist(), self._limit(int(tried.first[k]))))
            shrunk.add(t)
        return shrunk

    def _sharper(self, tried: _Tried, looked: Bools, known: dict[int, set[float]]) -> dict[int, _Corners]:
        """New corners, where a limit is all but met and could be broken by the effects that hold there: the split
        that is worst by them, and some on the way to it. Where the limit is concave between the splits, what the
        effects promise is the most that any split can do, as in the method of Frank and Wolfe."""
        k, limit = self._most_used(tried, looked)
        t = tried.period[k]
        effect = self._effects_at(tried, k, limit)
        room = (self.bound - self.begin)[t, limit]
        found = {}
        for period in np.unique(t).tolist():
            mine = np.flatnonzero(t == period)
            kw, here = self.kw[:, period], tried.split[k[mine]]
            worst = Knapsacks(effect[mine], self.potential[:, period], self.part, self.parts).split(kw)
            gain = np.einsum("ru,ru->r", effect[mine], worst - here)
            able = tried.used[k[mine], limit[mine]] * room[mine] + gain > room[mine] * (1 + KEPT_BACK / 2)
            able = np.flatnonzero(able)
            able = able[_distinct(worst[able])[0]] if len(able) else able
            tried_before = np.isin(_marks(worst[able]), list(known[period]))
            fresh, passed = able[~tried_before], able[tried_before]
            ways = np.concatenate([here[passed] + way * (worst[passed] - here[passed]) for way in BLENDS])
            ways = ways[~np.isin(_marks(ways), list(known[period]))]
            if len(fresh) or len(ways):
                found[period] = _Corners.new(effect[mine[fresh]], ways / np.maximum(kw, 1e-9)[self.part])
        return found

    def _most_used(self, tried: _Tried, looked: Bools) -> tuple[Ints, Ints]:
        """Corners and limits all but met there: of each limit in each period those that use it most; of a
        current, which may be full in several ways, those of each sector of its angle."""
        k, limit = np.nonzero(tried.used > NEAR)
        t = tried.period[k]
        first = FROM * len(self.network.pq)
        branch = np.flatnonzero(np.bincount(np.maximum(limit - first, -1) + 1, minlength=1)[1:])
        sector = np.zeros(len(k), dtype=np.int64)
        if len(branch):
            y = self.network.terminal_admittance[0][branch]
            angle = np.zeros((len(tried.period), self.network.m))
            angle[:, branch] = np.angle((y @ tried.there.u.T).T)
            current = limit >= first
            sector[current] = np.round(angle[k[current], limit[current] - first] * SECTORS / (2 * np.pi)) % SECTORS
        order = np.lexsort((-tried.used[k, limit], sector, limit, t))
        k, limit, t, sector = k[order], limit[order], t[order], sector[order]
        same = (t[1:] == t[:-1]) & (limit[1:] == limit[:-1]) & (sector[1:] == sector[:-1])
        begin = np.flatnonzero(np.r_[True, ~same][: len(k)])
        rank = np.arange(len(k)) - np.repeat(begin, np.diff(np.r_[begin, len(k)]))
        best = (rank < STARTS) & ~looked[k]
        return k[best], limit[best]

    def _effects_at(self, tried: _Tried, corners: Ints, limits: Ints) -> Floats:
        """Effect of each unit per kW on some limits at corners' own states, shape (limits, units)."""
        pq, there = self.network.pq, tried.there
        form = np.minimum(limits // len(pq), FROM)
        index = np.where(form < FROM, pq[limits % len(pq)], limits - FROM * len(pq))
        at = np.where(form < FROM, 0, index)
        form = np.where((form == FROM) & (there.loading_from[corners, at] < there.loading_to[corners, at]), TO, form)
        states, which = np.unique(corners, return_inverse=True)
        wanted = Quantities(which, _QUANTITY[form], index)
        dp, dq = Linearisation(self.network, there.u[states]).sensitivities(wanted)
        node = self.agents.node
        per_kw = self.agents.sign / 1000.0 * (dp[:, node] + dq[:, node] * self.agents.tan_phi)
        effect: Floats = np.where(form == LOW, -1.0, 1.0)[:, None] * per_kw
        return effect

    def _shrink_all(self, corners: dict[int, _Corners]) -> None:
        """What does not settle: the largest common share of what the parts have above their floor at which all
        corners hold, by bisection; at last the floor."""
        periods = list(corners)
        if not periods:
            return
        high, low = self.kw[:, periods].copy(), self.floor[:, periods]
        curves = {t: self._curves(mine, t) for t, mine in corners.items()}
        safe, unsafe = np.zeros(len(periods)), np.ones(len(periods))
        for _ in range(BISECTIONS):
            share = (safe + unsafe) / 2
            self.kw[:, periods] = low + share * (high - low)
            tried = self._try(corners, curves)
            broken = np.isin(periods, tried.period[tried.share < 1.0])
            safe, unsafe = np.where(broken, safe, share), np.where(broken, share, unsafe)
        self.kw[:, periods] = low + safe * (high - low)

    def _limit(self, number: int) -> str:
        """Name of a limit by its place in the order in which corners are tried."""
        pq = self.network.pq
        form = min(number // len(pq), FROM)
        return self._name(form, int(pq[number % len(pq)]) if form < FROM else number - FROM * len(pq))

    def _name(self, form: int, index: int) -> str:
        if form < FROM:
            return f"{('voltage_high', 'voltage_low')[form]} {self.network.node_names[index]}"
        return f"loading {self.network.branch_names[index]}"


@dataclass(frozen=True, eq=False)
class _Corners:
    """Splits to try in one period: the worst by `effect[k, u]`, and those that give each unit `share[l, u]` of what
    its part may use. `looked[k + l]`: its own effects are known; after a shrink they hardly change."""

    effect: Floats
    share: Floats
    looked: Bools

    @staticmethod
    def new(effect: Floats, share: Floats) -> _Corners:
        """Corners whose own effects nobody has looked at."""
        return _Corners(effect, share, np.zeros(len(effect) + len(share), dtype=np.bool_))

    def take(self, chosen: Bools) -> _Corners:
        """Some of the corners."""
        count = len(self.effect)
        return _Corners(self.effect[chosen[:count]], self.share[chosen[count:]], self.looked[chosen])

    def seen(self) -> _Corners:
        """The same corners, looked at."""
        return _Corners(self.effect, self.share, np.ones(len(self.looked), dtype=np.bool_))

    def then(self, more: _Corners) -> _Corners:
        """These corners, then others."""
        i, j = len(self.effect), len(more.effect)
        looked = np.concatenate([self.looked[:i], more.looked[:j], self.looked[i:], more.looked[j:]])
        return _Corners(np.concatenate([self.effect, more.effect]), np.concatenate([self.share, more.share]), looked)


@dataclass(frozen=True, eq=False)
class _Tried:
    """k splits under AC power flow: the share of the way at which the first limit is met (infinity if none is), that
    limit's number, how much of the room of each limit is used `[k, limits]`, and the states. `source[t]`: of each
    corner of a period its split among those of the period."""

    period: Ints
    split: Floats
    source: dict[int, Ints]
    share: Floats
    first: Ints
    used: Floats
    there: GridState
