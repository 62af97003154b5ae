"""The drawing of perimeters: at most k connected parts of a grid that give the largest capability in all.

What a wide perimeter loses to its worst split, finer ones win back: a full element limits only the part it lies in. A
drawing cuts a spanning tree of the grid, so every perimeter is connected in the grid too. It is refined cut by cut;
each cut is the one that gives most after the parts have risen again. Two parts that share out what their parent had
are safe where it was (whatever they do together, it could do), so a further perimeter never costs capability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.knapsack import Knapsacks, rise
from coflex.grid.light import Agents, Capability, Linear, capability, merged
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState
from coflex.solver import highs
from coflex.solver.program import Ending, Program

# Rows that the last filling used to this share take part in the choice of the next cut.
NEAR = 0.8
# Share of its room by which a row may be overdrawn before it counts, in the choice of a cut.
SPILT = 1e-6
# Tangent programs per period at most, in an answer and in the choice of a cut; the gain in kW below which they stop.
TANGENTS = 8
GLANCES = 2
ENOUGH_KW = 0.1


@dataclass(frozen=True, eq=False)
class Flexible:
    """Units that may act: `node[u]`, `tan_phi[u]` (kvar per kW that follows), `sign[u]` (+1 up, -1 down)."""

    node: Ints
    tan_phi: Floats
    sign: Ints


@dataclass(frozen=True, eq=False)
class Drawing:
    """`perimeter[n]`: 0..count-1, the perimeter of each node, -1 where none reaches. `agents`: the units in parts,
    part 2 j is perimeter j up and 2 j + 1 down; `light`: their capabilities (kW, parts by periods) and what limits
    them; `total_kw`: the sum over parts and periods, which the drawing makes large."""

    perimeter: Ints
    count: int
    agents: Agents
    light: Capability

    @property
    def total_kw(self) -> float:
        return float(self.light.kw.sum())


def draw(
    network: Network,
    state: GridState,
    units: Flexible,
    potential_kw: Floats,
    count: int,
    standing: Ints | None = None,
) -> Drawing:
    """The best drawing found of at most `count` perimeters over the periods of a solved state, both directions of the
    units together; `potential_kw[u, t]`.

    Its capabilities are lights: safe for every split and with all perimeters used at once, by AC power flow. It is
    never below the single perimeter, nor below `standing[n]` (the perimeters in force, numbered from 0, -1 for none)
    where these are at most `count`.
    """
    return curve(network, state, units, potential_kw, [count], standing)[0]


def curve(
    network: Network,
    state: GridState,
    units: Flexible,
    potential_kw: Floats,
    counts: Sequence[int],
    standing: Ints | None = None,
) -> tuple[Drawing, ...]:
    """Drawings of at most `counts[i]` perimeters (rising), each at least as large in total as the one before.

    Raises CoflexError when no count is given, one is below 1, or they do not rise.
    """
    if not counts or min(counts) < 1 or list(counts) != sorted(counts):
        raise CoflexError("Perimeters are counted from 1, in rising order.", "Give counts such as 1, 2, 4.")
    site = _Site(network, state, units, potential_kw)
    first = site.drawn(np.zeros(network.n, dtype=np.int64), None)
    lines = [first]
    if standing is not None and len(np.unique(standing[standing >= 0])) <= max(counts):
        lines.append(site.drawn(_renumbered(standing), None))
    found: list[Drawing] = []
    for count in counts:
        lines = [site.refined(one, count) for one in lines]
        able = [one for one in lines if one.count <= count] + found[-1:]
        found.append(max(able, key=lambda one: one.total_kw))
    return tuple(found)


def bound_kw(network: Network, state: GridState, units: Flexible, potential_kw: Floats) -> float:
    """What all units may have in total if each were a perimeter by itself, on the linearisation at `state`: the
    linear program `max sum y, A+ y <= h` of every period. An upper end for the drawings as far as the rows hold."""
    site = _Site(network, state, units, potential_kw)
    return sum(_program(np.maximum(f.effect, 0.0), f.room, f.potential) for f in site.fields)


def nodal_count(units: Flexible, potential_kw: Floats) -> int:
    """The number of nodes with something to offer: the finest drawing."""
    return len(np.unique(units.node[potential_kw.any(axis=1)]))


@dataclass(frozen=True, eq=False)
class Field:
    """One period on the linearisation: `room[r]`, `effect[r, u]` per kW, `potential[u]` kW."""

    room: Floats
    effect: Floats
    potential: Floats

    def of(self, rows: Bools) -> Field:
        """The same with some of the rows."""
        return Field(self.room[rows], self.effect[rows], self.potential)

    def used(self, part: Ints, kw: Floats) -> Floats:
        """How much of its room each row uses when the parts may use `kw[p]`."""
        load: Floats = Knapsacks(self.effect, self.potential, part, len(kw)).load(kw).sum(axis=1)
        used: Floats = load / np.maximum(self.room, 1e-9)
        return used

    def best(self, part: Ints, parts: int, floor: Floats, tangents: int) -> Floats:
        """kW of each part with a large total, safe on the rows: the better of what rises from the floor and what
        rises from nothing, both enlarged by programs on the tangents of the rows' curves.

        W is concave, so a tangent lies above it and a program on tangents is safe; from a safe point its total never
        falls (the concave-convex procedure, Yuille and Rangarajan 2003, doi:10.1162/08997660360581958).
        """
        curves = Knapsacks(self.effect, self.potential, part, parts)
        share, _ = rise(curves, self.room, floor)
        risen = np.maximum(share * curves.total, floor)
        return max((self._enlarged(curves, kw, tangents) for kw in (risen, np.zeros(parts))), key=np.sum)

    def _enlarged(self, curves: Knapsacks, kw: Floats, tangents: int) -> Floats:
        for _ in range(tangents):
            load, slope = curves.load(kw).sum(axis=1), curves.slope(kw)
            better = _largest(slope, np.maximum(self.room - load, 0.0) + slope @ kw, curves.total)
            if better.sum() <= kw.sum() + ENOUGH_KW:
                break
            kw = better
        return kw


class Tree:
    """Cuts of a spanning tree: `parent[n]` (-1 at the root), every parent before its children in `order`."""

    def __init__(self, parent: Ints, order: Ints) -> None:
        self.parent, self.order = parent, order
        below = np.eye(len(parent), dtype=np.bool_)
        for node in order[:0:-1].tolist():
            below[parent[node]] |= below[node]
        self.below: Bools = below

    def cuts(self, perimeter: Ints, part: int, busy: Bools) -> list[Bools]:
        """Ways to cut a perimeter in two: the nodes below each cut. `busy[n]`: nodes with something to offer, of
        which both sides must have some; of cuts that part them alike, the one nearest to the root."""
        mine = perimeter == part
        found: dict[bytes, Bools] = {}
        for node in np.flatnonzero(mine).tolist():
            side = self.below[node] & mine
            inside = side & busy
            if inside.any() and (mine & busy & ~side).any():
                key = inside.tobytes()
                if key not in found or side.sum() > found[key].sum():
                    found[key] = side
        return list(found.values())


def refine(tree: Tree, fields: Sequence[Field], node: Ints, direction: Ints, perimeter: Ints, kw: Floats) -> Ints:
    """The perimeters with the one further cut that gives the largest total on the linearisation, unchanged where no
    cut is left. `node[u]` and `direction[u]` (0 up, 1 down) of the units; `kw[2 j + d, t]`: what perimeter j may use
    in direction d, which both sides of a cut inherit in proportion to their potential.

    Cuts are judged by the rows that are nearly full; the best is judged again with the rows that it breaks, until the
    best breaks none.
    """
    count = int(perimeter.max()) + 1
    before = 2 * perimeter[node] + direction
    parts = 2 * count + 2
    busy = np.zeros(len(perimeter), dtype=np.bool_)
    for one in fields:
        busy[node[one.potential > 0]] = True
    active = [one.used(before, kw[:, t]) > NEAR for t, one in enumerate(fields)]

    def judged(cut: Ints) -> list[Floats]:
        after = 2 * cut[node] + direction
        floors = [inherited(one.potential, before, after, parts, kw[:, t]) for t, one in enumerate(fields)]
        return [
            one.of(rows).best(after, parts, floor, GLANCES)
            for one, rows, floor in zip(fields, active, floors, strict=True)
        ]

    cuts = [np.where(side, count, perimeter) for part in range(count) for side in tree.cuts(perimeter, part, busy)]
    answers = [judged(cut) for cut in cuts]
    thorough: set[int] = set()
    while cuts:
        first = int(np.argmax([sum(float(one.sum()) for one in answer) for answer in answers]))
        after = 2 * cuts[first][node] + direction
        full = [one.used(after, answer) > 1 + SPILT for one, answer in zip(fields, answers[first], strict=True)]
        if first in thorough or not any(more.any() for more in full):
            return cuts[first]
        if not any((more & ~rows).any() for more, rows in zip(full, active, strict=True)):
            thorough.add(first)
        active = [rows | more for rows, more in zip(active, full, strict=True)]
        answers[first] = judged(cuts[first])
    return perimeter


def inherited(potential: Floats, before: Ints, after: Ints, parts: int, kw: Floats) -> Floats:
    """What finer parts have to begin with: their parent's kW in proportion to their potential."""
    share = kw / np.maximum(_sums(potential, before, len(kw)), 1e-12)
    return _sums(potential * np.minimum(share, 1.0)[before], after, parts)


def _sums(values: Floats, part: Ints, parts: int) -> Floats:
    return np.bincount(part, weights=values, minlength=parts).astype(np.float64)


def _renumbered(perimeter: Ints) -> Ints:
    """Perimeters 0..count-1 in the order of their numbers; nodes of none join the first."""
    _, number = np.unique(np.maximum(perimeter, perimeter[perimeter >= 0].min()), return_inverse=True)
    return number.astype(np.int64)


def _largest(matrix: Floats, room: Floats, most: Floats) -> Floats:
    """max sum x, matrix x <= room, 0 <= x <= most."""
    count = len(most)
    program = Program(
        cost=-np.ones(count),
        matrix=sparse.csr_array(matrix),
        row_lower=np.full(len(room), -np.inf),
        row_upper=room,
        lower=np.zeros(count),
        upper=most,
        integer=np.zeros(count, dtype=np.bool_),
    )
    solution = highs.solve(program)
    if solution.ending is not Ending.OPTIMAL:
        raise CoflexError("The tangent program of a drawing has no optimum.", "Report it with the case.")
    return np.clip(solution.x, 0.0, most)


def _program(matrix: Floats, room: Floats, most: Floats) -> float:
    return float(_largest(matrix, np.maximum(room, 0.0), most).sum())


class _Site:
    """A grid, its units merged, and its linear fields, for several drawings."""

    def __init__(self, network: Network, state: GridState, units: Flexible, potential_kw: Floats) -> None:
        self.network, self.state = network, state
        nowhere = np.zeros(len(units.node), dtype=np.int64)
        one = Agents(units.node, units.tan_phi, units.sign, nowhere, 1)
        self.units, self.potential = merged(one, potential_kw)
        self.direction = np.where(self.units.sign > 0, 0, 1)
        linear = Linear(network, state, self.units)
        self.fields = []
        for t in range(self.potential.shape[1]):
            rows, _ = linear.rows(self.potential[:, t], t)
            self.fields.append(Field(rows.room, rows.effect, self.potential[:, t]))
        self.tree = Tree(*spanning(network))
        self.nodes = np.unique(self.units.node[self.potential.any(axis=1)])

    def drawn(self, perimeter: Ints, parent: Drawing | None) -> Drawing:
        """Lights of a drawing; a finer one rises from what its parent has."""
        count = int(perimeter.max()) + 1
        label = 2 * perimeter[self.units.node] + self.direction
        agents = Agents(self.units.node, self.units.tan_phi, self.units.sign, label, 2 * count)
        floor = np.zeros((2 * count, len(self.fields)))
        if parent is not None:
            before = 2 * parent.perimeter[self.units.node] + self.direction
            floor = np.array(
                [
                    inherited(self.potential[:, t], before, label, 2 * count, parent.light.kw[:, t])
                    for t in range(len(self.fields))
                ]
            ).T
        goal = np.array([one.best(label, 2 * count, floor[:, t], TANGENTS) for t, one in enumerate(self.fields)]).T
        # From what is inherited (the light itself where nothing is), and towards the sizes found from there or nothing.
        able = [capability(self.network, self.state, agents, self.potential, floor)]
        for least in [floor] if parent is None else [np.zeros_like(floor), floor]:
            towards = capability(self.network, self.state, agents, self.potential, least, np.maximum(goal, least))
            able.append(capability(self.network, self.state, agents, self.potential, towards.kw))
        light = max(able, key=lambda one: float(one.kw.sum()))
        return Drawing(perimeter, count, agents, light)

    def refined(self, drawing: Drawing, count: int) -> Drawing:
        """The drawing with further cuts up to `count` perimeters, as long as there is something to win."""
        if count >= len(self.nodes):
            return self.drawn(self._nodal(), drawing)
        perimeter, kw = drawing.perimeter, drawing.light.kw
        for _ in range(count - drawing.count):
            cut = refine(self.tree, self.fields, self.units.node, self.direction, perimeter, kw)
            if cut is perimeter:
                break
            kw = self._risen(perimeter, cut, kw)
            perimeter = cut
        return drawing if perimeter is drawing.perimeter else self.drawn(perimeter, drawing)

    def _risen(self, before: Ints, after: Ints, kw: Floats) -> Floats:
        """What finer perimeters have on the linearisation."""
        old, new = (2 * one[self.units.node] + self.direction for one in (before, after))
        parts = 2 * int(after.max()) + 2
        found = [
            one.best(new, parts, inherited(one.potential, old, new, parts, kw[:, t]), GLANCES)
            for t, one in enumerate(self.fields)
        ]
        return np.array(found).T

    def _nodal(self) -> Ints:
        """One perimeter a node that has something to offer; the others join the nearest such node above them."""
        perimeter = np.full(self.network.n, -1, dtype=np.int64)
        perimeter[self.nodes] = np.arange(len(self.nodes))
        for node in self.tree.order[1:].tolist():
            if perimeter[node] < 0:
                perimeter[node] = perimeter[self.tree.parent[node]]
        return perimeter


def spanning(network: Network) -> tuple[Ints, Ints]:
    """Parent of each node in a breadth-first tree from the source (-1 at the source), and the order of finding."""
    both = network.from_on & network.to_on
    ends = network.from_node[both], network.to_node[both]
    graph = sparse.csr_array((np.ones(len(ends[0])), ends), shape=(network.n, network.n))
    order, before = csgraph.breadth_first_order(graph, network.slack, directed=False)
    return np.where(before < 0, -1, before).astype(np.int64), np.asarray(order, dtype=np.int64)
