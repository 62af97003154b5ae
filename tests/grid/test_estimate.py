"""State estimation: against the truth it was measured from, and against power-grid-model's own estimator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import power_grid_model as pgm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import GridFailure, Refused
from coflex.domain.quantity import Floats
from coflex.grid.estimate import Estimate, Measurement, SensorKind, Verdict, estimate
from coflex.grid.network import Network, build
from coflex.grid.powerflow import SOURCE_VA, GridState, solve
from coflex.grid.tables import Bus
from support.small_grids import injections, line, meshed, radial, solved

V, P, Q, AMPERES = SensorKind.VOLTAGE, SensorKind.ACTIVE, SensorKind.REACTIVE, SensorKind.CURRENT


def flows(network: Network, state: GridState, branch: int, end: str) -> complex:
    side = 0 if end == "from" else 1
    node = (network.from_node, network.to_node)[side][branch]
    current = (network.terminal_admittance[side] @ state.u[0])[branch]
    return complex(state.u[0, node] * np.conj(current))


def amperes(network: Network, state: GridState, branch: int, end: str) -> float:
    rating_a = (network.rating_from if end == "from" else network.rating_to)[branch] * 1000
    node = (network.from_node if end == "from" else network.to_node)[branch]
    share = (state.loading_from if end == "from" else state.loading_to)[0, branch]
    return float(share * rating_a / np.sqrt(3) / network.vn_kv[node])


def sensors(network: Network, state: GridState) -> list[Measurement]:
    """Voltages at three buses, powers at both feeder heads, a current on the ring and powers at two buses: exact."""
    found = [Measurement(f"v {b}", V, b, "", float(state.vm[0, network.node_of(b)]), 0.001) for b in ("M0", "A3", "B2")]
    for name in ("M1-A1", "M0-B1"):
        power = flows(network, state, network.branch_names.index(name), "from")
        found += [
            Measurement(f"p {name}", P, name, "from", power.real, 0.02),
            Measurement(f"q {name}", Q, name, "from", power.imag, 0.02),
        ]
    branch = network.branch_names.index("B1-B2")
    found.append(Measurement("i B1-B2", AMPERES, "B1-B2", "to", amperes(network, state, branch, "to"), 1.0))
    for bus in ("A2", "B3"):
        node = network.node_of(bus)
        found += [
            Measurement(f"p {bus}", P, bus, "", float(state.p_mw[0, node]), 0.02),
            Measurement(f"q {bus}", Q, bus, "", float(state.q_mvar[0, node]), 0.02),
        ]
    return found


def forecast(network: Network, state: GridState, off: float = 1.0, sigma: float = 0.5) -> tuple[Floats, Floats, Floats]:
    return state.p_mw[0] * off, state.q_mvar[0] * off, np.full(network.n, sigma)


def verdicts(found: Estimate) -> dict[str, Verdict]:
    return {judged.sensor: judged.verdict for judged in found.measurements}


@pytest.mark.spec("GRID-11")
@pytest.mark.parametrize("tables", [radial(), meshed()])
def test_exact_readings_of_every_kind_give_back_the_state_they_were_read_from(tables) -> None:
    network, state = solved(tables)
    found = estimate(network, sensors(network, state), *forecast(network, state))
    assert np.abs(found.state.u - state.u).max() < 1e-8
    assert found.objective < 1e-10 and set(verdicts(found).values()) == {Verdict.GOOD}
    assert found.redundancy == 12 + 2 * (network.n - 1) - (2 * network.n - 1)


@pytest.mark.spec("GRID-11")
def test_sensors_correct_a_forecast_that_is_off_by_a_third() -> None:
    network, state = solved(meshed())
    guess = forecast(network, state, off=0.67, sigma=0.4)
    believed = solve(network, guess[0][None], guess[1][None])
    found = estimate(network, sensors(network, state), *guess)
    before, after = (np.abs(s.vm - state.vm).max() for s in (believed, found.state))
    assert after < before / 3


@pytest.mark.spec("GRID-11")
@pytest.mark.parametrize("sensor", ["v A3", "p M1-A1", "i B1-B2", "q B3"])
def test_one_gross_error_is_named_and_does_not_reach_the_state(sensor: str) -> None:
    network, state = solved(meshed())
    readings = sensors(network, state)
    spoiled = [replace(m, value=m.value + 30 * m.sigma) if m.sensor == sensor else m for m in readings]
    found = estimate(network, spoiled, *forecast(network, state, sigma=0.05))
    assert {name for name, verdict in verdicts(found).items() if verdict is Verdict.BAD} == {sensor}
    assert np.abs(found.state.u - state.u).max() < 1e-8


@pytest.mark.spec("GRID-11")
def test_two_gross_errors_are_both_named() -> None:
    network, state = solved(meshed())
    wrong = {"v B2": 0.05, "p A2": -1.0}
    spoiled = [replace(m, value=m.value + wrong.get(m.sensor, 0.0)) for m in sensors(network, state)]
    found = estimate(network, spoiled, *forecast(network, state, sigma=0.05))
    assert {name for name, verdict in verdicts(found).items() if verdict is Verdict.BAD} == set(wrong)


@pytest.mark.spec("GRID-11")
def test_a_forecast_that_the_sensors_contradict_is_named_as_one() -> None:
    network, state = solved(meshed())
    p, q, sigma = forecast(network, state, sigma=0.05)
    p[network.node_of("A2")] += 2.0
    found = estimate(network, sensors(network, state), p, q, sigma)
    assert {name for name, verdict in verdicts(found).items() if verdict is Verdict.BAD} == {"forecast A2"}


@pytest.mark.spec("GRID-11")
def test_a_lone_voltage_cannot_be_judged_and_is_said_to_stand_alone() -> None:
    network, state = solved(radial())
    one = [Measurement("v", V, "M0", "", float(state.vm[0, network.node_of("M0")]) + 0.2, 0.001)]
    found = estimate(network, one, *forecast(network, state))
    assert verdicts(found) == {"v": Verdict.ALONE}


@pytest.mark.spec("GRID-11")
def test_a_bus_without_elements_injects_nothing_whatever_the_sensors_say() -> None:
    tables = radial()
    joint = Bus("J", 20.0, 0.9, 1.1, 0.0, 0.0, "A")
    network, state = solved(
        replace(tables, buses=(*tables.buses, joint), lines=(*tables.lines, line("A2", "J", 1.0, 300.0)))
    )
    readings = [replace(m, value=m.value * 1.01) for m in sensors(network, state)]
    found = estimate(network, readings, *forecast(network, state, sigma=0.1))
    node = network.node_of("J")
    assert abs(found.state.p_mw[0, node]) < 1e-9 and abs(found.state.q_mvar[0, node]) < 1e-9


@pytest.mark.spec("GRID-11")
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), ring=st.booleans())
def test_power_grid_model_finds_the_same_most_likely_state(seed: int, ring: bool) -> None:
    network, state = solved(meshed() if ring else radial())
    rng = np.random.default_rng(seed)
    readings = [
        replace(m, value=m.value + 2 * m.sigma * float(rng.uniform(-1, 1)))
        for m in sensors(network, state)
        if m.kind is not AMPERES
    ]
    p, q, sigma = forecast(network, state, off=float(rng.uniform(0.8, 1.2)))
    found = estimate(network, readings, p, q, sigma)
    assert set(verdicts(found).values()) == {Verdict.GOOD}
    assert np.abs(np.abs(found.state.u[0]) - other_engine(network, readings, p, q, sigma)).max() < 1e-7


def other_engine(network: Network, readings: list[Measurement], p: Floats, q: Floats, sigma: Floats) -> Floats:
    """Voltage magnitudes by power-grid-model's Newton-Raphson estimator; power sensors in pairs of P and Q."""
    n, m = network.n, network.m
    make = pgm.initialize_array
    node = make("input", "node", n)
    node["id"], node["u_rated"] = np.arange(n), network.vn_kv * 1e3
    branch = make("input", "generic_branch", m)
    branch["id"], branch["from_node"], branch["to_node"] = n + np.arange(m), network.from_node, network.to_node
    branch["from_status"], branch["to_status"] = network.from_on, network.to_on
    base = network.vn_kv[network.to_node] ** 2
    z, shunt = base / network.y_series, network.y_shunt / base
    branch["r1"], branch["x1"], branch["g1"], branch["b1"] = z.real, z.imag, shunt.real, shunt.imag
    branch["k"], branch["theta"] = np.abs(network.tap), np.angle(network.tap)
    at = np.intersect1d(network.not_slack, network.element_node)
    load = make("input", "sym_load", len(at))
    load["id"], load["node"], load["status"], load["type"] = n + m + np.arange(len(at)), at, 1, 0
    load["p_specified"] = load["q_specified"] = 0.0
    source = make("input", "source", 1)
    source["id"], source["node"], source["status"] = n + m + n, network.slack, 1
    source["u_ref"], source["sk"] = 1.0, SOURCE_VA
    volts = [r for r in readings if r.kind is V]
    voltage = make("input", "sym_voltage_sensor", len(volts))
    voltage["id"] = 1000 + np.arange(len(volts))
    voltage["measured_object"] = [network.node_of(r.element) for r in volts]
    rated = network.vn_kv[voltage["measured_object"]] * 1e3
    voltage["u_measured"], voltage["u_sigma"] = (rated * [getattr(r, k) for r in volts] for k in ("value", "sigma"))
    pairs = list(zip(readings[len(volts) :: 2], readings[len(volts) + 1 :: 2], strict=True))
    power = make("input", "sym_power_sensor", len(pairs) + len(at))
    power["id"] = 2000 + np.arange(len(power))
    types = pgm.MeasuredTerminalType
    for k, (active, reactive) in enumerate(pairs):
        assert active.element == reactive.element
        inside = n + network.branch_names.index(active.element) if active.end else network.node_of(active.element)
        power["measured_object"][k] = inside
        power["measured_terminal_type"][k] = types.branch_from if active.end else types.node
        power["p_measured"][k], power["q_measured"][k] = active.value * 1e6, reactive.value * 1e6
        power["p_sigma"][k], power["q_sigma"][k] = active.sigma * 1e6, reactive.sigma * 1e6
    rest = slice(len(pairs), None)
    power["measured_object"][rest], power["measured_terminal_type"][rest] = load["id"], types.load
    power["p_measured"][rest], power["q_measured"][rest] = -p[at] * 1e6, -q[at] * 1e6
    power["p_sigma"][rest] = power["q_sigma"][rest] = sigma[at] * 1e6
    model = pgm.PowerGridModel(
        {
            "node": node,
            "generic_branch": branch,
            "sym_load": load,
            "source": source,
            "sym_voltage_sensor": voltage,
            "sym_power_sensor": power,
        }
    )
    found = model.calculate_state_estimation(
        calculation_method=pgm.CalculationMethod.newton_raphson, error_tolerance=1e-10, max_iterations=50
    )
    return np.asarray(found["node"]["u_pu"])


@pytest.mark.spec("GRID-11")
def test_normalised_residuals_of_honest_noise_are_standard_normal() -> None:
    network, state = solved(meshed())
    rng = np.random.default_rng(1)
    exact = sensors(network, state)
    values = []
    for _ in range(150):
        noisy = [replace(m, value=m.value + m.sigma * float(rng.normal())) for m in exact]
        p, q, sigma = forecast(network, state, sigma=0.1)
        p, q = p + sigma * rng.normal(size=network.n), q + sigma * rng.normal(size=network.n)
        values += [judged.normalised for judged in estimate(network, noisy, p, q, sigma).measurements]
    assert np.mean(np.square(values)) == pytest.approx(1.0, abs=0.1)


@pytest.mark.spec("GRID-11")
def test_every_fault_of_the_measurements_is_named_at_once() -> None:
    network, state = solved(radial())
    p, q, sigma = forecast(network, state)
    faulty = [
        Measurement("a", P, "nowhere", "", 1.0, 0.1),
        Measurement("b", AMPERES, "M0", "", 1.0, 0.1),
        Measurement("c", P, "no line", "from", 1.0, 0.1),
        Measurement("d", Q, "A1", "", float("nan"), 0.1),
        Measurement("d", Q, "A1", "", 1.0, 0.0),
    ]
    with pytest.raises(Refused) as refused:
        estimate(network, faulty, p, q, sigma)
    assert sorted((f.place.split()[-1], f.code) for f in refused.value.findings) == [
        ("a", "unknown_bus"),
        ("b", "unknown_end"),
        ("c", "unknown_branch"),
        ("d", "impossible_value"),
        ("d", "named_twice"),
        ("measurements.csv", "no_voltage"),
    ]


@pytest.mark.spec("GRID-11")
def test_readings_that_no_state_explains_are_an_error_with_a_next_step() -> None:
    network, state = solved(radial())
    p, q, sigma = forecast(network, state)
    with pytest.raises(GridFailure) as failure:
        estimate(network, [Measurement("v", V, "M0", "", 0.0, 1e-6)], p, q, sigma)
    assert failure.value.remedy


def test_the_order_of_sensors_does_not_change_the_state() -> None:
    tables = meshed()
    network = build(tables)
    state = solve(network, *injections(tables, network))
    readings = sensors(network, state)
    guess = forecast(network, state, off=0.9)
    there, back = (estimate(network, r, *guess).state.u for r in (readings, readings[::-1]))
    assert np.abs(there - back).max() < 1e-10
