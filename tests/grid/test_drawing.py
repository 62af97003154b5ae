"""Drawings of perimeters: against every cut of small trees, against figure 12, and by power flow."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats, Ints
from coflex.grid.drawing import Drawing, Field, Flexible, Tree, bound_kw, curve, draw, inherited, nodal_count, refine
from coflex.grid.light import Agents, capability
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from support.light_attack import breaks
from support.small_grids import injections, meshed, radial, solved

NODES = 8
OWN = np.arange(1, NODES)
UP = np.zeros(NODES - 1, dtype=np.int64)
WHOLE = np.zeros(NODES, dtype=np.int64)


@st.composite
def trees(draw_: st.DrawFn) -> tuple[Tree, Field]:
    """A tree of eight nodes with a unit at each but the root; a current row for each edge and a voltage row for each
    node, whose effects are the path that two nodes share."""
    rng = np.random.default_rng(draw_(st.integers(0, 2**32 - 1)))
    parent = np.array([-1, *(rng.integers(0, i) for i in range(1, NODES))], dtype=np.int64)
    tree = Tree(parent, np.arange(NODES, dtype=np.int64))
    below = tree.below[1:, 1:].astype(float)
    shared_path = below.T @ np.diag(rng.uniform(0.2, 1.0, NODES - 1)) @ below
    room = 100 * np.r_[rng.uniform(0.5, 6, NODES - 1), rng.uniform(1, 8, NODES - 1)]
    return tree, Field(room, np.concatenate([below, shared_path]), 100 * rng.uniform(0.5, 5, NODES - 1))


def alone(field: Field) -> Floats:
    return field.best(2 * WHOLE[OWN], 2, np.zeros(2), 8)


def cut_once(tree: Tree, field: Field, perimeter: Ints, kw: Floats) -> tuple[Ints, Floats]:
    cut = refine(tree, [field], OWN, UP, perimeter, kw[:, None])
    before, after, parts = 2 * perimeter[OWN], 2 * cut[OWN], 2 * int(cut.max()) + 2
    return cut, field.best(after, parts, inherited(field.potential, before, after, parts, kw), 8)


def every_drawing(tree: Tree, field: Field, count: int) -> list[float]:
    """The total of every way to cut the tree into `count` parts."""
    found = []
    for cuts in combinations(range(1, NODES), count - 1):
        perimeter = WHOLE.copy()
        for i, node in enumerate(cuts, start=1):
            perimeter[tree.below[node]] = i
        found.append(field.best(2 * perimeter[OWN], 2 * count, np.zeros(2 * count), 8).sum())
    return found


@pytest.mark.spec("GRID-07")
@settings(max_examples=12, deadline=None, derandomize=True)
@given(trees())
def test_one_cut_is_the_best_of_all_cuts_and_further_ones_never_lose(given_: tuple[Tree, Field]) -> None:
    tree, field = given_
    perimeter, kw = WHOLE, alone(field)
    for count in range(2, NODES):
        cut, more = cut_once(tree, field, perimeter, kw)
        assert more.sum() >= kw.sum() - 1e-6
        assert (field.used(2 * cut[OWN], more) <= 1 + 1e-6).all()
        if count == 2:
            # The inherited start may find a better allocation than the one from nothing, never a worse.
            assert more.sum() >= max(every_drawing(tree, field, 2)) - 1.0
        if count == 3:
            assert more.sum() >= 0.5 * max(every_drawing(tree, field, 3))
        perimeter, kw = cut, more
    assert len(np.unique(perimeter[OWN])) == NODES - 1
    assert kw.sum() == pytest.approx(upper_end(field), rel=1e-6)


def upper_end(field: Field) -> float:
    """max sum y, A+ y <= h, 0 <= y <= Y."""
    bounds = list(zip(np.zeros(len(field.potential)), field.potential, strict=True))
    return -float(linprog(-np.ones(len(bounds)), np.maximum(field.effect, 0), field.room, bounds=bounds).fun)


@pytest.mark.spec("GRID-07")
def test_figure_12_one_perimeter_is_held_by_its_full_substation_two_are_not() -> None:
    """Downward power only, in MW. The flow of +4 goes half to SS_1, half to SS_2. SS_1 takes 3 and carries 2: 1 is
    left. SS_2 takes 5 and carries 2: 3 are left. Adjustable power: 3 below SS_1, 4 below SS_2.

    P1 over both: all of C could go below SS_1, so C = 1. Cut into P1* and P2*: 1 below SS_1 and 3 below SS_2, 4 in
    all, and the full one limits only itself.
    """
    # Nodes: 0 the primary substation, 1 and 2 the secondary ones, units at 3, 4 (below 1) and 5, 6 (below 2).
    tree = Tree(np.array([-1, 0, 0, 1, 1, 2, 2]), np.arange(7))
    node, down = np.array([3, 4, 5, 6]), np.ones(4, dtype=np.int64)
    room = 1000 * np.array([3.0 - 2.0, 5.0 - 2.0])
    field = Field(room, np.array([[1.0, 1, 0, 0], [0, 0, 1.0, 1]]), np.array([1500.0, 1500, 2000, 2000]))
    whole = np.zeros(7, dtype=np.int64)
    one = field.best(2 * whole[node] + down, 2, np.zeros(2), 8)
    assert one == pytest.approx([0, 1000])
    cut = refine(tree, [field], node, down, whole, one[:, None])
    assert len(set(cut[[3, 4]])) == 1 and len(set(cut[[5, 6]])) == 1 and cut[3] != cut[5]
    floor = inherited(field.potential, 2 * whole[node] + down, 2 * cut[node] + down, 4, one)
    two = field.best(2 * cut[node] + down, 4, floor, 8)
    assert two[2 * cut[3] + 1] == pytest.approx(1000) and two[2 * cut[5] + 1] == pytest.approx(3000)
    assert two.sum() == pytest.approx(4000)


def small(mesh: bool) -> tuple[Network, GridState, Flexible, Floats]:
    tables = (meshed if mesh else radial)(i_max_a=150.0)
    network, _ = solved(tables)
    p, q = injections(tables, network)
    scale = np.array([[0.3], [1.0]])
    state = solve(network, p * scale, q * scale)
    node = np.array([network.node_of(bus) for bus in ("A1", "A3", "A4", "B1", "B2", "B3")] * 2)
    units = Flexible(node, np.full(12, 0.2), np.repeat([1, -1], 6))
    potential = np.random.default_rng(4).uniform(1000, 5000, (12, 2))
    return network, state, units, potential


@pytest.mark.spec("GRID-07")
@pytest.mark.parametrize("mesh", [False, True])
def test_the_curve_rises_from_one_perimeter_to_one_per_node_and_all_are_safe_at_once(mesh: bool) -> None:
    network, state, units, potential = small(mesh)
    assert nodal_count(units, potential) == 6
    drawings = curve(network, state, units, potential, range(1, 7))
    totals = [one.total_kw for one in drawings]
    assert all(b >= a for a, b in pairwise(totals)) and totals[-1] > 1.3 * totals[0]
    single = capability(network, state, drawings[0].agents, potential_of(drawings[0], units, potential)).kw.sum()
    assert totals[0] >= single - 1e-6
    assert bound_kw(network, state, units, potential) >= 0.98 * totals[-1]
    for one in drawings:
        assert len(np.unique(one.perimeter[units.node])) <= one.count
        assert is_connected(network, one.perimeter)
        for t in range(2):
            given_ = potential_of(one, units, potential)[:, t]
            assert breaks(network, state.part(np.array([t])), one.agents, given_, one.light.kw[:, t], 200) <= 1e-6


def potential_of(drawing: Drawing, units: Flexible, potential: Floats) -> Floats:
    """Potential in the order of the drawing's merged units."""
    agents = drawing.agents
    of = {(n, s): i for i, (n, s) in enumerate(zip(agents.node.tolist(), agents.sign.tolist(), strict=True))}
    found = np.zeros((len(agents.node), potential.shape[1]))
    for u, key in enumerate(zip(units.node.tolist(), units.sign.tolist(), strict=True)):
        found[of[key]] += potential[u]
    return found


def is_connected(network: Network, perimeter: Ints) -> bool:
    both = network.from_on & network.to_on
    edges = list(zip(network.from_node[both].tolist(), network.to_node[both].tolist(), strict=True))
    for label in np.unique(perimeter[perimeter >= 0]):
        mine = set(np.flatnonzero(perimeter == label).tolist())
        seen = {min(mine)}
        while True:
            more = {b for a, b in edges + [(b, a) for a, b in edges] if a in seen and b in mine} - seen
            if not more:
                break
            seen |= more
        if seen != mine:
            return False
    return True


@pytest.mark.spec("GRID-07")
@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_redrawing_never_lowers_the_total_of_the_perimeters_in_force(seed: int) -> None:
    network, state, units, potential = small(seed % 2 == 1)
    rng = np.random.default_rng(seed)
    feeders = np.array([{"A": 0, "B": 1}.get(name, -1) for name in network.node_perimeter])
    # The DSO's perimeters: the feeders, one of them with a node taken out of it.
    standing = np.where(np.arange(network.n) == network.node_of(rng.choice(["A4", "B3"])), 2, feeders)
    potential = potential * rng.uniform(0.3, 1.5, potential.shape)
    part = 2 * standing[units.node] + (units.sign < 0)
    kept = curve(network, state, units, potential, [3], standing)[0]
    agents = Agents(units.node, units.tan_phi, units.sign, part, 6)
    assert kept.total_kw >= capability(network, state, agents, potential).kw.sum() - 1e-6
    assert kept.count <= 3


@pytest.mark.spec("GRID-07")
def test_counts_that_do_not_rise_from_one_are_refused() -> None:
    network, state, units, potential = small(False)
    for counts in ([], [0], [2, 1]):
        with pytest.raises(CoflexError, match="rising order"):
            curve(network, state, units, potential, counts)
    assert draw(network, state, units, potential, 1).count == 1


@pytest.mark.spec("GRID-07")
@pytest.mark.parametrize("seed", range(4))
def test_finer_parts_share_out_what_their_parent_has_and_rise_from_there(seed: int) -> None:
    network, state, units, potential = small(seed % 2 == 1)
    rng = np.random.default_rng(seed)
    coarse, fine = (units.sign < 0).astype(np.int64), 2 * rng.integers(0, 3, len(units.node)) + (units.sign < 0)
    of = [Agents(units.node, units.tan_phi, units.sign, part, parts) for part, parts in ((coarse, 2), (fine, 6))]
    first = capability(network, state, of[0], potential)
    floor = np.array([inherited(potential[:, t], coarse, fine, 6, first.kw[:, t]) for t in range(2)]).T
    for direction in range(2):
        assert floor[direction::2].sum(axis=0) == pytest.approx(first.kw[direction])
    second = capability(network, state, of[1], potential, floor)
    assert (second.kw >= floor - 1e-9).all()
    for t in range(2):
        assert breaks(network, state.part(np.array([t])), of[1], potential[:, t], second.kw[:, t], 200) <= 1e-6
