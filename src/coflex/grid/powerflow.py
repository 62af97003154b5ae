"""AC power flow of many states at once, by power-grid-model (Newton-Raphson, constant power).

The engine sees one generic branch a branch and one load a node, straight from the network's arrays. It knows no node
that holds its voltage; networks with such nodes go to `grid.newton`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from power_grid_model import (
    CalculationMethod,
    ComponentType,
    DatasetType,
    LoadGenType,
    PowerGridModel,
    initialize_array,
)
from power_grid_model.errors import PowerGridError  # type: ignore[attr-defined]

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Floats, Ints
from coflex.grid import newton
from coflex.grid.network import Complexes, Network

BASE_VA = 1e6
# An ideal source: large enough that its own impedance is below 1e-9 pu, small enough for the factorisation.
SOURCE_VA = 1e20


@dataclass(frozen=True, eq=False)
class GridState:
    """Solved states of a network. t periods, n nodes, m branches.

    `u[t, n]`: complex voltage in pu; `p_mw`, `q_mvar` [t, n]: injections that led to it (the slack's are free);
    `loading_from`, `loading_to` [t, m]: terminal current as a share of its rating.
    `interface_p_mw`, `interface_q_mvar` [t]: what the grid above delivers, positive into this grid.
    """

    u: Complexes
    p_mw: Floats
    q_mvar: Floats
    loading_from: Floats
    loading_to: Floats
    interface_p_mw: Floats
    interface_q_mvar: Floats

    @property
    def vm(self) -> Floats:
        """Voltage magnitudes in pu, shape (t, n)."""
        magnitude: Floats = np.abs(self.u)
        return magnitude

    @property
    def loading(self) -> Floats:
        """The larger terminal's loading as a share of the rating, shape (t, m)."""
        return np.maximum(self.loading_from, self.loading_to)

    @property
    def losses_mw(self) -> Floats:
        """Active losses of the whole grid, shape (t,)."""
        losses: Floats = self.interface_p_mw + self.p_mw.sum(axis=1)
        return losses

    def part(self, periods: Ints) -> GridState:
        """The same states at some periods only."""
        return GridState(
            self.u[periods],
            self.p_mw[periods],
            self.q_mvar[periods],
            self.loading_from[periods],
            self.loading_to[periods],
            self.interface_p_mw[periods],
            self.interface_q_mvar[periods],
        )


def solve(network: Network, p_mw: Floats, q_mvar: Floats) -> GridState:
    """AC power flow for injections of shape (t, n) in MW and Mvar, injection positive; the slack's own are ignored.

    Raises GridFailure naming the first period that has no solution.
    """
    if not len(p_mw):
        empty = np.zeros((0, network.m))
        return GridState(np.zeros((0, network.n), complex), p_mw, q_mvar, empty, empty, np.zeros(0), np.zeros(0))
    if len(network.held):
        return state_of(network, newton.solve(network, p_mw, q_mvar), p_mw, q_mvar)
    model, order = _model(network)
    update = initialize_array(DatasetType.update, ComponentType.sym_load, (len(p_mw), network.n - 1))
    update["id"] = order
    update["p_specified"] = -p_mw[:, network.not_slack] * BASE_VA
    update["q_specified"] = -q_mvar[:, network.not_slack] * BASE_VA
    try:
        result = model.calculate_power_flow(
            update_data={ComponentType.sym_load: update},
            calculation_method=CalculationMethod.newton_raphson,
            output_component_types=[ComponentType.node],
            error_tolerance=1e-9,
            max_iterations=30,
        )
    except PowerGridError as failure:
        failed = getattr(failure, "failed_scenarios", np.zeros(1, int))
        raise GridFailure(
            f"The power flow of period {int(failed[0])} has no solution ({len(failed)} of {len(p_mw)} periods fail).",
            "The grid cannot carry these injections; look at loads and generation scaled too far.",
        ) from failure
    node = result[ComponentType.node]
    u = node["u_pu"] * np.exp(1j * node["u_angle"])
    return state_of(network, u, p_mw, q_mvar)


def state_of(network: Network, u: Complexes, p_mw: Floats, q_mvar: Floats) -> GridState:
    """The state that voltages `u` (t, n) belong to; what nodes of held voltage inject in Mvar is read off it."""
    y_from, y_to = network.terminal_admittance
    interface = u[:, network.slack] * np.conj((network.admittance[[network.slack]] @ u.T)[0])
    own_p, own_q = p_mw.copy(), q_mvar.copy()
    own_p[:, network.slack] = own_q[:, network.slack] = 0.0
    if len(network.held):
        own_q[:, network.held] = (u[:, network.held] * np.conj((network.admittance[network.held] @ u.T).T)).imag
    return GridState(
        u,
        own_p,
        own_q,
        np.abs(y_from @ u.T).T / network.rating_from,
        np.abs(y_to @ u.T).T / network.rating_to,
        interface.real,
        interface.imag,
    )


@lru_cache(maxsize=8)
def _model(network: Network) -> tuple[PowerGridModel, np.ndarray]:
    """The engine's model and the ids of its loads, one for each of `not_slack`. Networks are compared by identity."""
    n, m = network.n, network.m
    node = initialize_array(DatasetType.input, ComponentType.node, n)
    node["id"] = np.arange(n)
    node["u_rated"] = network.vn_kv * 1e3
    branch = initialize_array(DatasetType.input, ComponentType.generic_branch, m)
    branch["id"] = n + np.arange(m)
    branch["from_node"], branch["to_node"] = network.from_node, network.to_node
    branch["from_status"], branch["to_status"] = network.from_on, network.to_on
    base_ohm = network.vn_kv[network.to_node] ** 2
    z, shunt = base_ohm / network.y_series, network.y_shunt / base_ohm
    branch["r1"], branch["x1"], branch["g1"], branch["b1"] = z.real, z.imag, shunt.real, shunt.imag
    branch["k"], branch["theta"] = np.abs(network.tap), np.angle(network.tap)
    load = initialize_array(DatasetType.input, ComponentType.sym_load, n - 1)
    load["id"] = n + m + np.arange(n - 1)
    load["node"], load["status"], load["type"] = network.not_slack, 1, LoadGenType.const_power
    load["p_specified"] = load["q_specified"] = 0.0
    earthed = np.flatnonzero(network.node_shunt)
    to_earth = network.node_shunt[earthed] / network.vn_kv[earthed] ** 2
    shunts = initialize_array(DatasetType.input, ComponentType.shunt, len(earthed))
    shunts["id"], shunts["node"], shunts["status"] = 2 * n + m + 1 + np.arange(len(earthed)), earthed, 1
    shunts["g1"], shunts["b1"] = to_earth.real, to_earth.imag
    source = initialize_array(DatasetType.input, ComponentType.source, 1)
    source["id"], source["node"], source["status"] = 2 * n + m, network.slack, 1
    source["u_ref"], source["sk"] = network.slack_vm_pu, SOURCE_VA
    model = PowerGridModel(
        {
            ComponentType.node: node,
            ComponentType.generic_branch: branch,
            ComponentType.sym_load: load,
            ComponentType.shunt: shunts,
            ComponentType.source: source,
        }
    )
    return model, load["id"]
