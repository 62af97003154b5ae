"""A list of activations validated line by line: every beginning of it holds, and no line is limited without need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.light import Colour
from coflex.domain.quantity import Floats
from coflex.grid.assess import TOLERANCE, margins
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.validation import SPARE, Activations, validate
from support.small_grids import LOADS, meshed, radial, solved


def activations(network: Network, *lines: tuple[str, float], period: int = 0, tan_phi: float = 0.2) -> Activations:
    count = len(lines)
    return Activations(
        np.array([network.node_of(bus) for bus, _ in lines]),
        np.array([kw for _, kw in lines], dtype=np.float64),
        np.full(count, tan_phi),
        np.full(count, period, dtype=np.int64),
    )


def worse(network: Network, before: GridState, after: GridState) -> float:
    """By how much the worst limit is passed, or passed further than it was and may be."""
    inner = network.pq
    found = -np.inf
    for k, (a, b) in enumerate(zip(margins(network, after), margins(network, before), strict=True)):
        places = inner if k < 2 else np.arange(network.m)
        allowed = np.where(b > 0, b + SPARE, 0.0)
        found = max(found, float((a - allowed)[:, places].max()))
    return found


def begun(network: Network, state: GridState, lines: Activations, kw: Floats, count: int) -> GridState:
    p, q = state.p_mw[:1].copy(), state.q_mvar[:1].copy()
    signed = (np.sign(lines.signed_kw) * kw / 1000.0)[:count]
    np.add.at(p[0], lines.node[:count], signed)
    np.add.at(q[0], lines.node[:count], signed * lines.tan_phi[:count])
    return solve(network, p, q)


@pytest.mark.spec("GRID-08")
@settings(max_examples=25, deadline=None)
@given(
    lines=st.lists(st.tuples(st.sampled_from(list(LOADS)), st.floats(-4000, 4000)), min_size=1, max_size=8),
    ring=st.booleans(),
    load=st.sampled_from([0.2, 1.0, 1.3]),
    i_max_a=st.sampled_from([80.0, 120.0, 300.0]),
)
def test_every_beginning_of_a_validated_list_keeps_every_limit(
    lines: list[tuple[str, float]], ring: bool, load: float, i_max_a: float
) -> None:
    network, state = solved((meshed if ring else radial)(i_max_a=i_max_a, v_min=0.96, v_max=1.04), load=load)
    listed = activations(network, *lines)
    found = validate(network, state, listed)
    assert (found.allowed_kw >= 0).all() and (found.allowed_kw <= np.abs(listed.signed_kw) + 1e-9).all()
    for count in range(1, len(lines) + 1):
        assert worse(network, state, begun(network, state, listed, found.allowed_kw, count)) <= TOLERANCE
    for kw, colour, reason, (_, asked) in zip(found.allowed_kw, found.colour, found.reason, lines, strict=True):
        assert (colour is Colour.GREEN) == (reason == "") == (kw == abs(asked))


@pytest.mark.spec("GRID-08")
@pytest.mark.parametrize(("bus", "kw"), [("A3", -5000.0), ("B3", -4000.0), ("A3", 9000.0), ("A4", 12000.0)])
def test_a_limited_line_gets_all_that_the_power_flow_bears_but_for_what_is_spared(bus: str, kw: float) -> None:
    network, state = solved(radial(i_max_a=160.0, v_min=0.955, v_max=1.04))
    listed = activations(network, (bus, kw))
    found = validate(network, state, listed)
    assert found.colour == (Colour.YELLOW,)
    low, high = 0.0, abs(kw)
    for _ in range(40):
        middle = (low + high) / 2
        holds = worse(network, state, begun(network, state, listed, np.array([middle]), 1)) <= -SPARE
        low, high = (middle, high) if holds else (low, middle)
    assert found.allowed_kw[0] == pytest.approx(low, rel=5e-3)


@pytest.mark.spec("GRID-08")
def test_what_fits_is_green_what_fits_in_part_is_yellow_and_what_does_not_is_red_by_name() -> None:
    network, state = solved(radial(i_max_a=130.0, v_min=0.9, v_max=1.1), generation=0.0)
    listed = activations(network, ("A1", -200.0), ("A2", -5000.0), ("A3", -500.0), ("B1", -100.0))
    found = validate(network, state, listed)
    assert found.colour == (Colour.GREEN, Colour.YELLOW, Colour.RED, Colour.GREEN)
    assert found.reason[1] == found.reason[2] == "loading M1-A1"


@pytest.mark.spec("GRID-08")
def test_a_line_that_relieves_gives_room_to_those_after_it_only() -> None:
    network, state = solved(radial(i_max_a=110.0, v_min=0.9, v_max=1.1), generation=0.0)
    more, less = ("A2", -3000.0), ("A3", 2500.0)
    first = validate(network, state, activations(network, less, more)).allowed_kw[1]
    last = validate(network, state, activations(network, more, less)).allowed_kw[0]
    assert first > last + 2000


@pytest.mark.spec("GRID-08")
def test_periods_are_validated_each_on_its_own_state() -> None:
    network, light = solved(radial(i_max_a=110.0, v_min=0.9, v_max=1.1), load=0.3)
    _, heavy = solved(radial(i_max_a=110.0, v_min=0.9, v_max=1.1), load=1.2, generation=0.0)
    both = solve(network, np.concatenate([light.p_mw, heavy.p_mw]), np.concatenate([light.q_mvar, heavy.q_mvar]))
    one, other = (activations(network, ("A3", -1500.0), period=t) for t in (0, 1))
    joint = Activations(*(np.concatenate([getattr(one, k), getattr(other, k)]) for k in one.__dataclass_fields__))
    found = validate(network, both, joint)
    assert found.allowed_kw[0] > found.allowed_kw[1]
    assert found.allowed_kw[0] == validate(network, light, one).allowed_kw[0]


@pytest.mark.spec("GRID-08")
def test_a_line_that_no_state_could_bear_is_limited_like_any_other() -> None:
    network, state = solved(radial(i_max_a=300.0, v_min=0.8, v_max=1.1))
    found = validate(network, state, activations(network, ("A3", -300_000.0)))
    assert found.colour == (Colour.YELLOW,) and found.reason[0]


@pytest.mark.spec("GRID-08")
def test_a_limit_that_is_broken_already_refuses_what_breaks_it_further_and_takes_what_relieves_it() -> None:
    network, state = solved(radial(i_max_a=80.0, v_min=0.9, v_max=1.1), generation=0.0)
    found = validate(network, state, activations(network, ("A3", -300.0), ("A3", 300.0)))
    assert found.colour == (Colour.RED, Colour.GREEN)
