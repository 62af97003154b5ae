"""Static lights: the limit is safe, one kW more is not."""

from __future__ import annotations

import numpy as np
import pytest

from coflex.domain.qualification import LimitKind, StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Direction, Floats
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.qualify import Candidates, static_lights
from coflex.grid.tables import GridTables
from support.small_grids import meshed, radial, solved, worst_margin

BUSES = ("A3", "A4", "B3", "B1")


def candidates(network: Network, kw: int, tan_phi: float = 0.2) -> Candidates:
    node = np.array([network.node_of(bus) for bus in BUSES])
    power = np.full(len(BUSES), kw, dtype=np.int64)
    return Candidates(BUSES, node, np.full(len(BUSES), tan_phi), power, power)


def after(network: Network, state: GridState, units: Candidates, signed_kw: Floats) -> float:
    """The worst margin after changes of each unit, (k, units), by power flow."""
    change = np.zeros((2, len(signed_kw), network.n))
    for u, node in enumerate(units.node):
        change[0, :, node] += signed_kw[:, u] / 1000
        change[1, :, node] += signed_kw[:, u] / 1000 * units.tan_phi[u]
    return worst_margin(network, solve(network, state.p_mw + change[0], state.q_mvar + change[1]))


def of(lights: tuple[StaticLight, ...], mode: StaticMode, direction: Direction) -> dict[str, StaticLight]:
    return {x.unit: x for x in lights if x.mode is mode and x.direction is direction}


@pytest.mark.spec("REG-04")
@pytest.mark.parametrize("tables", [radial(130.0), meshed(130.0)], ids=["open ring", "closed ring"])
@pytest.mark.parametrize("direction", list(Direction))
def test_alone_each_unit_is_safe_at_its_limit_and_one_kilowatt_more_is_not(
    tables: GridTables, direction: Direction
) -> None:
    network, state = solved(tables)
    units = candidates(network, 6000)
    lights = of(static_lights(network, state, ["now"], units), StaticMode.ONE_BY_ONE, direction)
    verdicts = {light.verdict for light in lights.values()}
    assert Verdict.LIMITED in verdicts
    for u, name in enumerate(BUSES):
        light = lights[name]
        alone = np.zeros((1, len(BUSES)))
        alone[0, u] = direction.sign * light.limit_kw
        assert after(network, state, units, alone) <= 1e-8
        if light.verdict is not Verdict.CONFIRMED:
            alone[0, u] = direction.sign * (light.limit_kw + 1)
            assert after(network, state, units, alone) > 0
            assert (light.value > light.bound) == (light.kind is not LimitKind.VOLTAGE_LOW)


@pytest.mark.spec("REG-04")
@pytest.mark.parametrize("tables", [radial(130.0), meshed(130.0)], ids=["open ring", "closed ring"])
@pytest.mark.parametrize("direction", list(Direction))
def test_together_all_units_and_any_set_of_them_are_safe_at_their_limits(
    tables: GridTables, direction: Direction
) -> None:
    network, state = solved(tables)
    units = candidates(network, 6000)
    lights = of(static_lights(network, state, ["now"], units), StaticMode.ALL_TOGETHER, direction)
    limits = np.array([lights[name].limit_kw for name in BUSES], dtype=np.float64)
    assert 0 < limits.sum() < 24_000
    rng = np.random.default_rng(6)
    some = limits * np.concatenate([np.ones((1, 4)), np.eye(4), rng.random((60, 4)) < 0.5, rng.random((60, 4))])
    assert after(network, state, units, direction.sign * some) <= 1e-6


@pytest.mark.spec("REG-04")
def test_a_small_unit_is_confirmed_and_the_proof_names_the_nearest_limit() -> None:
    network, state = solved(radial())
    lights = static_lights(network, state, ["now"], candidates(network, 5))
    assert len(lights) == len(BUSES) * 4
    assert {light.verdict for light in lights} == {Verdict.CONFIRMED}
    assert all(light.limit_kw == 5 and light.element and light.state == "now" for light in lights)


@pytest.mark.spec("REG-04")
def test_a_limit_broken_before_rejects_who_worsens_it_and_spares_who_relieves_it() -> None:
    network, state = solved(radial(80.0))
    assert worst_margin(network, state) > 0
    lights = static_lights(network, state, ["now"], candidates(network, 500))
    down = of(lights, StaticMode.ONE_BY_ONE, Direction.DOWN)["A3"]
    assert down.verdict is Verdict.LIMITED or down.verdict is Verdict.REJECTED
    assert down.element == "M1-A1" and down.kind is LimitKind.LOADING and down.value > down.bound
    assert of(lights, StaticMode.ONE_BY_ONE, Direction.UP)["A3"].verdict is Verdict.CONFIRMED


@pytest.mark.spec("REG-04")
def test_the_worst_of_several_reference_states_decides_and_is_named() -> None:
    network, light_load = solved(radial(130.0), load=0.3)
    _, heavy = solved(radial(130.0))
    both = solve(network, np.vstack([light_load.p_mw, heavy.p_mw]), np.vstack([light_load.q_mvar, heavy.q_mvar]))
    units = candidates(network, 6000)
    together = static_lights(network, both, ["light", "heavy"], units)
    alone = static_lights(network, heavy, ["heavy"], units)
    down = of(together, StaticMode.ONE_BY_ONE, Direction.DOWN)
    assert {n: x.limit_kw for n, x in down.items()} == {
        n: x.limit_kw for n, x in of(alone, StaticMode.ONE_BY_ONE, Direction.DOWN).items()
    }
    assert {x.state for x in down.values()} == {"heavy"}
