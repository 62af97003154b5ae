"""Dynamic lights: exact on linear rows, and safe by power flow for every split that one can think of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coflex.adapters.grids.simbench import SimbenchGrid
from coflex.domain.quantity import Floats, Ints
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.knapsack import fill, worst_split
from coflex.grid.light import Agents, capability
from coflex.grid.network import Network, build
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, VOLTAGE, Linearisation, Quantities
from support.small_grids import LOADS, injections, meshed, radial, solved, worst_margin

# Above the accuracy of a power flow, far below what a limit means.
KEPT = 1e-6


def most(effect: Floats, potential: Floats, part: Ints, allowed: Floats) -> float:
    """The largest load of one row over all splits, by a linear program."""
    parts = len(allowed)
    membership = (part[None, :] == np.arange(parts)[:, None]).astype(float)
    bounds = list(zip(np.zeros(len(potential)), potential, strict=True))
    return -float(linprog(-effect, A_ub=membership, b_ub=allowed, bounds=bounds).fun)


@st.composite
def fillings(draw: st.DrawFn) -> tuple[Floats, Floats, Floats, Ints, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, units, parts = draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 3))
    effect = np.round(rng.normal(0, 1, (rows, units)), 2)
    potential = np.round(rng.uniform(0, 10, units) * (rng.random(units) < 0.9), 1)
    room = np.round(rng.uniform(-1, 12, rows), 2)
    return room, effect, potential, rng.integers(0, parts, units), parts


@pytest.mark.spec("GRID-06")
@settings(max_examples=80, deadline=None, derandomize=True)
@given(fillings())
def test_no_split_of_the_filled_shares_breaks_a_row_and_one_percent_more_of_a_stopped_part_does(
    given_: tuple[Floats, Floats, Floats, Ints, int],
) -> None:
    room, effect, potential, part, parts = given_
    share, stopped = fill(room, effect, potential, part, parts)
    total = np.bincount(part, weights=potential, minlength=parts)
    allowed = share * total
    for r in range(len(room)):
        loads = ((effect[r] > 0) & (potential > 0) & (allowed[part] > 0)).any()
        if loads:
            assert most(effect[r], potential, part, allowed) <= room[r] + 1e-7
    for p in range(parts):
        if stopped[p] < 0:
            assert share[p] == 1.0
            continue
        more = allowed.copy()
        more[p] += 0.01 * total[p]
        r = stopped[p]
        # Once its units with an effect are used up, more of a part no longer loads the row; such a part never stops.
        assert most(effect[r], potential, part, more) > room[r]


@pytest.mark.spec("GRID-06")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(fillings(), st.floats(0.0, 3.0))
def test_more_room_in_every_row_never_gives_any_part_less_than_the_common_level(
    given_: tuple[Floats, Floats, Floats, Ints, int], extra: float
) -> None:
    room, effect, potential, part, parts = given_
    before, _ = fill(room, effect, potential, part, parts)
    after, _ = fill(room + extra, effect, potential, part, parts)
    # Parts rise together: the lowest level cannot fall, and with one part that is the light itself.
    assert after.min() >= before.min() - 1e-12


@pytest.mark.spec("GRID-06")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(fillings())
def test_the_worst_split_is_the_linear_programs(given_: tuple[Floats, Floats, Floats, Ints, int]) -> None:
    _, effect, potential, part, parts = given_
    allowed = 0.6 * np.bincount(part, weights=potential, minlength=parts)
    split = worst_split(effect[0], potential, part, allowed)
    assert (split <= potential + 1e-12).all()
    assert (np.bincount(part, weights=split, minlength=parts) <= allowed + 1e-9).all()
    assert np.isclose(effect[0] @ split, most(effect[0], potential, part, allowed), atol=1e-7)


@pytest.mark.spec("GRID-07")
def test_a_perimeter_cut_at_its_bottleneck_gives_each_part_its_own_rest() -> None:
    """Two secondary substations: the first takes 3 and has 2 in use; the second takes 5 and has 2 in use (MW)."""
    room = np.array([3.0 - 2.0, 5.0 - 2.0]) * 1000
    effect = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    potential = np.array([1500.0, 1500.0, 2000.0, 2000.0])
    one, limiting = fill(room, effect, potential, np.zeros(4, dtype=np.int64), 1)
    assert one[0] * 7000 == pytest.approx(1000) and limiting[0] == 0
    two, _ = fill(room, effect, potential, np.array([0, 0, 1, 1]), 2)
    assert two * [3000, 4000] == pytest.approx([1000, 3000])


@pytest.mark.spec("GRID-07")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(fillings())
def test_one_perimeter_cut_in_two_never_has_less_in_total_where_each_row_belongs_to_one_half(
    given_: tuple[Floats, Floats, Floats, Ints, int],
) -> None:
    room, effect, potential, _, _ = given_
    half = np.arange(len(potential)) % 2
    mine = (np.arange(len(room)) % 2)[:, None] == half[None, :]
    local, whole = np.maximum(room, 0.0), np.zeros(len(half), dtype=np.int64)
    undivided, _ = fill(local, np.abs(effect) * mine, potential, whole, 1)
    divided, _ = fill(local, np.abs(effect) * mine, potential, half, 2)
    total = np.bincount(half, weights=potential, minlength=2)
    assert divided @ total >= undivided[0] * potential.sum() - 1e-9


def splits(rng: np.random.Generator, potential: Floats, part: Ints, allowed: Floats, count: int) -> Floats:
    """Greedy splits in random order (the vertices of the allowed set), and random points inside."""
    units = len(potential)
    found = np.zeros((count, units))
    for k in range(count):
        left = allowed.copy()
        for u in rng.permutation(units):
            found[k, u] = min(potential[u], left[part[u]])
            left[part[u]] -= found[k, u]
    found[::3] *= rng.random((len(found[::3]), units))
    found[1::3] *= rng.random((len(found[1::3]), units)) < 0.5
    return found


def adversarial(network: Network, state: GridState, agents: Agents, potential: Floats, allowed: Floats) -> Floats:
    """The worst split of every limit in both senses, found anew from the linearisation at several states."""
    nodes, branches = network.pq, np.arange(network.m)
    kinds = np.concatenate([np.full(len(nodes), VOLTAGE), np.full(network.m, FROM_END)])
    wanted = Quantities(np.zeros(len(kinds), dtype=np.int64), kinds, np.concatenate([nodes, branches]))
    found = [np.where(agents.sign == sign, 1.0, 0.0) for sign in (1, -1)]
    where = state
    for _ in range(3):
        dp, dq = Linearisation(network, where.u).sensitivities(wanted)
        per_kw = agents.sign * (dp[:, agents.node] + agents.tan_phi * dq[:, agents.node])
        found += [*per_kw, *-per_kw]
        some = worst_split(found[-1], potential, agents.part, allowed)
        where = moved(network, state, agents, some[None])
    return np.array([worst_split(effect, potential, agents.part, allowed) for effect in found])


def moved(network: Network, state: GridState, agents: Agents, kw: Floats) -> GridState:
    """States after each split (k, units) from the first period."""
    change = np.zeros((2, len(kw), network.n))
    for u, node in enumerate(agents.node):
        signed = agents.sign[u] * kw[:, u] / 1000
        change[0, :, node] += signed
        change[1, :, node] += signed * agents.tan_phi[u]
    return solve(network, state.p_mw[[0]] + change[0], state.q_mvar[[0]] + change[1])


def is_safe(network: Network, state: GridState, agents: Agents, potential: Floats, allowed: Floats, count: int) -> None:
    rng = np.random.default_rng(int(potential.sum()))
    tried = np.concatenate(
        [
            splits(rng, potential, agents.part, allowed, count),
            adversarial(network, state, agents, potential, allowed),
        ]
    )
    assert worst_margin(network, moved(network, state, agents, tried)) <= KEPT


@st.composite
def cases(draw: st.DrawFn) -> tuple[Network, GridState, Agents, Floats]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    make = meshed if draw(st.booleans()) else radial
    tables = make(rng.uniform(60, 300), rng.uniform(0.9, 0.97), rng.uniform(1.02, 1.06))
    network = build(tables)
    load = rng.uniform(0.2, 1.0)
    while True:  # lighter and lighter until the start itself keeps every limit
        state = solve(network, *injections(tables, network, load, rng.uniform(0, 1)))
        if worst_margin(network, state) <= 0:
            break
        load /= 2
        assert load > 1e-3
    units = draw(st.integers(2, 8))
    buses = rng.choice(sorted(LOADS), units)
    sign = rng.choice([1, -1], units) if draw(st.booleans()) else np.full(units, rng.choice([1, -1]))
    keys = [(bus[0], int(s)) for bus, s in zip(buses, sign, strict=True)]
    names = sorted(set(keys))
    part = np.array([names.index(key) for key in keys])
    node = np.array([network.node_of(bus) for bus in buses])
    agents = Agents(node, rng.choice([0.0, 0.3, -0.3], units), sign.astype(np.int64), part, len(names))
    return network, state, agents, rng.uniform(200, 6000, units)


@pytest.mark.spec("GRID-06")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases())
def test_no_split_breaks_a_limit_by_power_flow(case: tuple[Network, GridState, Agents, Floats]) -> None:
    network, state, agents, potential = case
    answer = capability(network, state, agents, potential[:, None])
    is_safe(network, state, agents, potential, answer.kw[:, 0], 150)


@pytest.mark.spec("GRID-06")
@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases())
def test_a_grid_with_room_everywhere_gives_every_part_something(
    case: tuple[Network, GridState, Agents, Floats],
) -> None:
    network, state, agents, potential = case
    if worst_margin(network, state) < -0.005:
        assert (capability(network, state, agents, potential[:, None]).kw > 0).all()


@pytest.mark.spec("GRID-06")
@pytest.mark.parametrize(
    ("first", "second", "tan_phi"),
    [("A2", "B2", 0.0), ("A4", "A3", 0.0), ("A1", "B2", -0.3), ("A2", "A3", -0.3)],
)
def test_a_current_that_turns_round_is_bounded_too(first: str, second: str, tan_phi: float) -> None:
    network, state = solved(radial(i_max_a=150.0))
    node = np.array([network.node_of(first), network.node_of(second)])
    agents = Agents(node, np.array([0.0, tan_phi]), np.ones(2, dtype=np.int64), np.zeros(2, dtype=np.int64), 1)
    potential = np.array([8000.0, 8000.0])
    allowed = capability(network, state, agents, potential[:, None]).kw[:, 0]
    assert allowed[0] > 1000
    is_safe(network, state, agents, potential, allowed, 30)


@pytest.mark.spec("GRID-06")
def test_the_light_is_nearly_the_largest_safe_power_where_one_line_limits() -> None:
    network, state = solved(radial(i_max_a=120.0), generation=0.0)
    node = np.array([network.node_of("B3"), network.node_of("B2")])
    agents = Agents(node, np.zeros(2), np.full(2, -1), np.zeros(2, dtype=np.int64), 1)
    potential = np.array([5000.0, 5000.0])
    answer = capability(network, state, agents, potential[:, None])
    allowed = float(answer.kw[0, 0])
    assert answer.element[0][0].startswith("loading")
    beyond = np.array([[min(5000.0, 1.02 * allowed), max(0.0, 1.02 * allowed - 5000.0)]])
    assert worst_margin(network, moved(network, state, agents, beyond)) > 0


@pytest.mark.spec("GRID-06")
def test_green_when_everything_fits_and_red_where_the_grid_is_full_already() -> None:
    network, state = solved(radial())
    node = np.array([network.node_of("A3")])
    agents = Agents(node, np.zeros(1), np.array([-1]), np.zeros(1, dtype=np.int64), 1)
    green = capability(network, state, agents, np.array([[50.0]]))
    assert green.kw[0, 0] == 50.0 and green.element == (("",),)
    full, over = solved(radial(i_max_a=80.0))
    assert worst_margin(full, over) > 0
    red = capability(full, over, agents, np.array([[50.0]]))
    assert red.kw[0, 0] == 0.0 and red.element[0][0].startswith("loading")


@pytest.mark.spec("GRID-06")
def test_the_periods_of_a_day_are_each_their_own_light() -> None:
    tables = radial(i_max_a=120.0)
    network = build(tables)
    p, q = injections(tables, network)
    scale = np.array([[0.2], [0.6], [1.0]])
    state = solve(network, p * scale, q * scale)
    node = np.array([network.node_of(bus) for bus in ("A3", "A4", "B3")])
    agents = Agents(node, np.full(3, 0.3), np.full(3, -1), np.array([0, 0, 1]), 2)
    potential = np.tile(np.array([[3000.0], [2000.0], [4000.0]]), (1, 3))
    together = capability(network, state, agents, potential)
    for t in range(3):
        alone = capability(network, state.part(np.array([t])), agents, potential[:, [t]])
        assert together.kw[:, t] == pytest.approx(alone.kw[:, 0], rel=1e-9)
    assert (np.diff(together.kw.sum(axis=0)) < 0).all()


@pytest.mark.spec("GRID-06")
@pytest.mark.parametrize("direction", [1, -1])
def test_lights_of_all_feeders_of_a_real_grid_hold_together_for_every_split(
    urban: SimbenchGrid, direction: int
) -> None:
    network = build(urban.grid)
    p, q = (node_injections(network, x)[[17_760]] for x in element_powers(urban.grid, urban.profiles))
    state = solve(network, 1.5 * p, 1.5 * q)
    assert worst_margin(network, state) <= 0
    where: list[Any] = [(i, name) for i, name in enumerate(network.node_perimeter) if name]
    names = sorted({name for _, name in where})
    count = len(where)
    agents = Agents(
        np.array([i for i, _ in where]),
        np.full(count, 0.2),
        np.full(count, direction),
        np.array([names.index(name) for _, name in where]),
        len(names),
    )
    potential = np.random.default_rng(5).uniform(100, 2500, count)
    answer = capability(network, state, agents, potential[:, None])
    assert 0 < answer.kw.sum() < potential.sum()
    is_safe(network, state, agents, potential, answer.kw[:, 0], 600)


@pytest.mark.spec("GRID-06")
@pytest.mark.parametrize("where", [0, 3])
def test_a_part_with_nothing_to_offer_changes_no_other_light(where: int) -> None:
    network, state = solved(radial(i_max_a=120.0), generation=0.0)
    node = np.array([network.node_of(bus) for bus in ("A3", "A4", "B3", "A1", "B1")])
    part = np.array([0, 0, 1, 2, 2])
    tan_phi, sign = np.full(5, 0.2), np.full(5, -1)
    kw = np.array([[900.0], [700.0], [2500.0], [800.0], [600.0]])
    plain = capability(network, state, Agents(node, tan_phi, sign, part, 3), kw)
    assert plain.kw.min() < kw.max()
    # An idle unit of a part of its own, before or among the others.
    idle = Agents(
        np.insert(node, where, network.node_of("A2")),
        np.full(6, 0.2),
        np.full(6, -1),
        np.insert(part + 1, where, 0),
        4,
    )
    with_idle = capability(network, state, idle, np.insert(kw, where, [[0.0]], axis=0))
    assert with_idle.kw[0, 0] == 0
    assert with_idle.kw[1:, 0] == pytest.approx(plain.kw[:, 0], abs=1e-6)
