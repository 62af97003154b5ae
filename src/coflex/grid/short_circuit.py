"""Short-circuit currents and powers by IEC 60909-0:2016, from power-grid-model's short-circuit calculation.

The engine puts the voltage at the source. The standard puts c Un at the fault, so each current is scaled by c over
the voltage that stands there before the fault; the network is linear. Line capacitances, shunts, magnetising and
loads are left out, as the standard has it. Far from generators; converters feed in as current sources (9.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from power_grid_model import (
    ComponentType,
    DatasetType,
    FaultPhase,
    FaultType,
    PowerGridModel,
    ShortCircuitVoltageScaling,
    initialize_array,
)
from power_grid_model.errors import PowerGridError  # type: ignore[attr-defined]

from coflex.domain.errors import Finding, GridFailure, refuse
from coflex.domain.quantity import Floats, Ints
from coflex.grid import powerflow, unbalanced
from coflex.grid.network import FREQUENCY_HZ, Complexes, Network
from coflex.grid.tables import GridTables, Source

LOW_VOLTAGE_KV = 1.0
# Temperature coefficient of conductors, 1/K (equation 32).
ALPHA = 0.004
# R/X of a feeder where it is not known (6.2).
FEEDER_RX = 0.1
# Faults solved at once.
BATCH = 512


class Case(StrEnum):
    """Largest currents (what breakers must bear) or smallest ones (what protection must see)."""

    MAXIMUM = "maximum"
    MINIMUM = "minimum"


class Fault(StrEnum):
    THREE_PHASE = "three_phase"
    SINGLE_PHASE = "single_phase"


@dataclass(frozen=True)
class Conditions:
    """What the standard leaves to the user. `low_voltage_tolerance`: 0.06 or 0.10, of the rated low voltage;
    `end_celsius`: temperature of conductors at the end of a smallest current; `converter_factor`: current that a
    generator behind a converter adds to a largest three-phase one, over its rated current (0: none)."""

    low_voltage_tolerance: float = 0.10
    end_celsius: float = 80.0
    converter_factor: float = 0.0


@dataclass(frozen=True, eq=False)
class ShortCircuits:
    """Initial symmetrical short-circuit currents at `node` (numbers of a network's nodes). `current_ka`: I''k;
    `power_mva`: S''k = sqrt(3) Un I''k; `assumed`: what the tables do not say and was taken as usual."""

    node: Ints
    current_ka: Floats
    power_mva: Floats
    assumed: tuple[Finding, ...]


def short_circuits(
    tables: GridTables,
    network: Network,
    at: Ints | None = None,
    case: Case = Case.MAXIMUM,
    fault: Fault = Fault.THREE_PHASE,
    conditions: Conditions | None = None,
) -> ShortCircuits:
    """Short circuits at some nodes (all of them without `at`), one after the other.

    A single-phase fault has no such current where no star point is earthed: 0. Raises Refused where the source's
    short-circuit power is not known or phases are not described (see `unbalanced.build`), GridFailure where the engine
    finds no current.
    """
    conditions = conditions or Conditions()
    node = np.arange(network.n, dtype=np.int64) if at is None else at
    refuse("The short-circuit calculation", _faults(tables, conditions))
    c = _voltage_factor(network.vn_kv, case, conditions)
    bare = _bare(tables, network, case, c, conditions)
    feeders = _feeders(tables, network, c[network.slack])
    assumed = list(_assumptions(tables))
    if fault is Fault.SINGLE_PHASE:
        grid = unbalanced.build(tables, network)
        assumed += grid.assumed
        inputs = _of_phases(tables, network, bare, grid.neutral)
        earthed = grid.neutral[node]
    else:
        inputs = powerflow.components(bare)
        del inputs[ComponentType.sym_load]
        earthed = np.ones(len(node), dtype=np.bool_)
    inputs[ComponentType.source] = feeders
    sources = _converters(tables, network, conditions) if case is Case.MAXIMUM and fault is Fault.THREE_PHASE else None
    current_pu = _currents(inputs, network, node, fault, c[node], sources)
    base_ka = 1 / (np.sqrt(3) * network.vn_kv[node])
    current_ka = np.where(earthed, current_pu * base_ka, 0.0)
    return ShortCircuits(node, current_ka, np.sqrt(3) * network.vn_kv[node] * current_ka, tuple(assumed))


def _currents(
    inputs: dict[ComponentType, np.ndarray],
    network: Network,
    node: Ints,
    fault: Fault,
    c: Floats,
    converters: Floats | None,
) -> Floats:
    """I''k in pu of 1 MVA for c Un at each fault; `converters[n]`: pu currents fed in at each node."""
    spot = initialize_array(DatasetType.input, ComponentType.fault, 1)
    single = fault is Fault.SINGLE_PHASE
    spot["id"], spot["status"], spot["fault_object"] = (
        1 + max(int(x["id"].max(initial=0)) for x in inputs.values()),
        0,
        0,
    )
    spot["fault_type"] = FaultType.single_phase_to_ground if single else FaultType.three_phase
    spot["fault_phase"] = FaultPhase.a if single else FaultPhase.abc
    model = PowerGridModel({**inputs, ComponentType.fault: spot}, system_frequency=FREQUENCY_HZ)
    whole = _calculate(model, None, node=True)
    before = _phase_a(whole[ComponentType.node])
    found = np.empty(len(node))
    for start in range(0, len(node), BATCH):
        part = node[start : start + BATCH]
        update = {"fault_object": part[:, None].astype(np.int32), "status": np.ones((len(part), 1), dtype=np.int8)}
        result = _calculate(model, {ComponentType.fault: update}, node=converters is not None)
        base_a = powerflow.BASE_VA / (np.sqrt(3) * network.vn_kv[part] * 1e3)
        i = result[ComponentType.fault]["i_f"].reshape(len(part), 3)[:, 0] / base_a
        found[start : start + BATCH] = c[start : start + BATCH] * i / np.abs(before[part])
        if converters is not None:
            # |Z_ij| / |Z_ii|: by how much a fault at i lowers the voltage at j.
            lowered = np.abs(before - _phase_a(result[ComponentType.node])) / np.abs(before[part])[:, None]
            found[start : start + BATCH] += lowered @ converters
    return found


def _calculate(model: PowerGridModel, update: Any, node: bool) -> Any:
    """The engine's faults and, if wanted, its voltages; one state as it stands where `update` is None."""
    voltages = {ComponentType.node: ["u_pu", "u_angle"]} if node else {}
    try:
        return model.calculate_short_circuit(
            update_data=update,
            output_component_types={ComponentType.fault: ["i_f"], **voltages},
            short_circuit_voltage_scaling=ShortCircuitVoltageScaling.maximum,
            threading=0,
        )
    except PowerGridError as failure:
        raise GridFailure(
            f"The short-circuit calculation failed: {str(failure).splitlines()[0]}",
            "Look for branches without impedance and parts of the grid without a source.",
        ) from failure


def _phase_a(node: dict[str, np.ndarray]) -> Complexes:
    voltage: Complexes = node["u_pu"][..., 0] * np.exp(1j * node["u_angle"][..., 0])
    return voltage


def _voltage_factor(vn_kv: Floats, case: Case, conditions: Conditions) -> Floats:
    """c of each node (table 1)."""
    narrow = conditions.low_voltage_tolerance <= 0.06
    low, other = ((1.05 if narrow else 1.10), 1.10) if case is Case.MAXIMUM else ((0.95 if narrow else 0.90), 1.00)
    return np.where(vn_kv <= LOW_VOLTAGE_KV, low, other)


def _bare(tables: GridTables, network: Network, case: Case, c: Floats, conditions: Conditions) -> Network:
    """Series impedances only: transformers corrected by K_T for largest currents (6.3.3), lines warm for smallest."""
    z = 1 / network.y_series
    lines = len(tables.lines)
    if case is Case.MINIMUM:
        z[:lines] = z[:lines].real * (1 + ALPHA * (conditions.end_celsius - 20)) + 1j * z[:lines].imag
    else:
        for b, row in enumerate(tables.transformers, start=lines):
            x = np.sqrt(row.vk_percent**2 - row.vkr_percent**2) / 100
            z[b] *= 0.95 * c[network.to_node[b]] / (1 + 0.6 * x)
    nothing = np.zeros(network.m, dtype=np.complex128)
    return replace(network, y_series=1 / z, y_shunt=nothing, node_shunt=np.zeros(network.n, dtype=np.complex128))


def _of_phases(
    tables: GridTables, network: Network, bare: Network, neutral: np.ndarray
) -> dict[ComponentType, np.ndarray]:
    """The engine's input of three sequences with the same corrections."""
    inputs = unbalanced.components(tables, replace(network, node_shunt=bare.node_shunt), neutral)
    del inputs[ComponentType.asym_load]
    line, transformer = inputs[ComponentType.line], inputs[ComponentType.transformer]
    correction = network.y_series / bare.y_series
    first = len(tables.lines)
    base = network.vn_kv[network.to_node[:first]] ** 2
    warm = (base / bare.y_series[:first]).real / np.where(line["r1"] > 0, line["r1"], 1.0)
    line["r1"], line["r0"] = line["r1"] * warm, line["r0"] * np.where(line["r1"] > 0, warm, 1.0)
    line["c1"] = line["c0"] = 0.0
    transformer["i0"] = transformer["p0"] = 0.0
    for name in ("uk", "pk", "r_grounding_from", "x_grounding_from", "r_grounding_to", "x_grounding_to"):
        transformer[name] *= correction[first:].real
    return inputs


def _feeders(tables: GridTables, network: Network, c: float) -> np.ndarray:
    """Sources with Z = c Un^2 / S''kQ (equation 7)."""
    first = 2 * network.n + network.m
    feeder = initialize_array(DatasetType.input, ComponentType.source, len(tables.sources))
    # Shunts are numbered from the network's own source on.
    feeder["id"] = first + network.n + 1 + np.arange(len(tables.sources))
    feeder["node"], feeder["status"], feeder["u_ref"] = network.slack, 1, 1.0
    feeder["sk"] = [row.s_sc_mva * 1e6 / c for row in tables.sources]
    feeder["rx_ratio"] = [row.rx or FEEDER_RX for row in tables.sources]
    feeder["z01_ratio"] = 1.0
    return feeder


def _converters(tables: GridTables, network: Network, conditions: Conditions) -> Floats | None:
    """Current in pu that converters feed into each node; their rated power is the generator's."""
    if not conditions.converter_factor:
        return None
    current = np.zeros(network.n)
    for row in tables.generators:
        current[network.node_of(row.bus)] += conditions.converter_factor * abs(complex(row.p_mw, row.q_mvar))
    return current


def _faults(tables: GridTables, conditions: Conditions) -> list[Finding]:
    found = []
    for row in tables.sources:
        if row.s_sc_mva <= 0 or row.rx < 0:
            message = "Its short-circuit power is not known; give s_sc_mva above 0, and rx if it is known."
            found.append(Finding(f"sources.csv: {row.source}", "no_short_circuit_power", message))
    if not 0 < conditions.low_voltage_tolerance <= 0.10 or conditions.converter_factor < 0:
        message = "The tolerance of low voltage is up to 0.10 and the converters' factor 0 or more."
        found.append(Finding("short-circuit conditions", "impossible_value", message))
    return found


def _assumptions(tables: GridTables) -> list[Finding]:
    def unknown(rows: list[Source], code: str, message: str) -> list[Finding]:
        return [Finding(f"sources.csv: {row.source}", code, message) for row in rows]

    without_rx = [row for row in tables.sources if not row.rx]
    return unknown(without_rx, "rx_assumed", f"R/X is not given and taken as {FEEDER_RX:g}; fill the column rx.")
