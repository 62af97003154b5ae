"""AC power flow of many states at once (constant power, balanced phases).

Newton-Raphson by power-grid-model; or, where speed counts, the iterative current method of `grid.current`. The
latter's states are proved: whatever leaves an injection unmet is solved again by Newton-Raphson.

The engine sees one generic branch a branch and one load a node, straight from the network's arrays. It knows no node
that holds its voltage; networks with such nodes go to `grid.newton`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
from power_grid_model import (
    CalculationMethod,
    ComponentAttributeFilterOptions,
    ComponentType,
    DatasetType,
    LoadGenType,
    PowerGridModel,
    initialize_array,
)

from coflex.domain.errors import GridFailure
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid import current, newton
from coflex.grid.network import Complexes, Network

BASE_VA = 1e6
# An ideal source: large enough that its own impedance is below 1e-9 pu, small enough for the factorisation.
SOURCE_VA = 1e20


# Largest change of a voltage in pu at which the engine stops, and how often it tries.
CHANGE = 1e-9
STEPS = 30
_VOLTAGES: ComponentAttributeFilterOptions | list[str] = ["u_pu", "u_angle"]


class Method(StrEnum):
    """How a state is found; the answers agree. NEWTON converges wherever there is a state to be found nearby;
    CURRENT takes a fifth of the time where voltages stay near their rated value."""

    NEWTON = "newton_raphson"
    CURRENT = "iterative_current"


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

    @cached_property
    def vm(self) -> Floats:
        """Voltage magnitudes in pu, shape (t, n), read only."""
        return _kept(np.abs(self.u))

    @cached_property
    def loading(self) -> Floats:
        """The larger terminal's loading as a share of the rating, shape (t, m), read only."""
        return _kept(np.maximum(self.loading_from, self.loading_to))

    @property
    def losses_mw(self) -> Floats:
        """What is delivered and injected and not withdrawn, shape (t,): losses in branches, and the power of shunts,
        which `branch_losses_mw` takes off."""
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


def branch_losses_mw(network: Network, state: GridState) -> Floats:
    """Active losses in branches alone, shape (t,): what shunts withdraw is consumption."""
    losses: Floats = state.losses_mw - state.vm**2 @ network.node_shunt.real
    return losses


def solve(network: Network, p_mw: Floats, q_mvar: Floats, method: Method = Method.NEWTON) -> GridState:
    """AC power flow for injections of shape (t, n) in MW and Mvar, injection positive; the slack's own are ignored.

    Networks with nodes of held voltage are solved by Newton's method whatever `method` says. Raises GridFailure
    naming the first period that has no solution, or an injection that is not a number.
    """
    if not len(p_mw):
        empty = np.zeros((0, network.m))
        return GridState(np.zeros((0, network.n), complex), p_mw, q_mvar, empty, empty, np.zeros(0), np.zeros(0))
    _finite(network, p_mw, q_mvar)
    if len(network.held):
        u = newton.solve(network, p_mw, q_mvar)
    elif method is Method.CURRENT:
        u = _by_current(network, p_mw, q_mvar)
    else:
        u, failed = _by_newton(network, p_mw, q_mvar)
        _refuse_failed(np.flatnonzero(failed), len(p_mw))
    return state_of(network, u, p_mw, q_mvar)


def state_of(network: Network, u: Complexes, p_mw: Floats, q_mvar: Floats) -> GridState:
    """The state that voltages `u` (t, n) belong to; what nodes of held voltage inject in Mvar is read off it."""
    y_from, y_to = network.terminal_admittance
    by_node = np.ascontiguousarray(u.T)
    interface = u[:, network.slack] * np.conj((network.admittance[[network.slack]] @ by_node)[0])
    own_p, own_q = p_mw.copy(), q_mvar.copy()
    own_p[:, network.slack] = own_q[:, network.slack] = 0.0
    if len(network.held):
        own_q[:, network.held] = (u[:, network.held] * np.conj((network.admittance[network.held] @ by_node).T)).imag
    return GridState(
        u,
        own_p,
        own_q,
        np.abs(y_from @ by_node).T / network.rating_from,
        np.abs(y_to @ by_node).T / network.rating_to,
        interface.real,
        interface.imag,
    )


def mismatch(network: Network, u: Complexes, p_mw: Floats, q_mvar: Floats) -> Floats:
    """Largest power in MVA by which voltages `u` (t, n) miss an injection of any node but the slack, shape (t,)."""
    with np.errstate(all="ignore"):
        missing = u * np.conj((network.admittance @ np.ascontiguousarray(u.T)).T) - (p_mw + 1j * q_mvar)
        missing[:, network.slack] = 0.0
        largest: Floats = np.abs(missing).max(axis=1)
    return largest


def _by_current(network: Network, p_mw: Floats, q_mvar: Floats) -> Complexes:
    """Voltages by iterative current; by Newton-Raphson where those leave an injection unmet."""
    u = current.solve(network, p_mw, q_mvar)
    # A state that ran away is nan or infinite.
    again = np.flatnonzero(~(mismatch(network, u, p_mw, q_mvar) < newton.ACCURACY))
    if len(again):
        u[again], failed = _by_newton(network, p_mw[again], q_mvar[again])
        _refuse_failed(again[failed], len(p_mw))
    return u


def _by_newton(network: Network, p_mw: Floats, q_mvar: Floats) -> tuple[Complexes, Bools]:
    """Voltages (t, n) in pu, and the periods (t,) in which there are none."""
    model = _engine(network)
    inner = network.not_slack
    column = {"p_specified": p_mw[:, inner] * -BASE_VA, "q_specified": q_mvar[:, inner] * -BASE_VA}
    result = model.calculate_power_flow(
        update_data={ComponentType.sym_load: column},
        calculation_method=CalculationMethod.newton_raphson,
        output_component_types={ComponentType.node: _VOLTAGES},
        error_tolerance=CHANGE,
        max_iterations=STEPS,
        threading=0,
        continue_on_batch_error=True,
    )
    failed = np.zeros(len(p_mw), dtype=np.bool_)
    if model.batch_error is not None:
        failed[model.batch_error.failed_scenarios] = True
    node = result[ComponentType.node]
    u = np.empty(p_mw.shape, dtype=np.complex128)
    np.cos(node["u_angle"], out=u.real)
    np.sin(node["u_angle"], out=u.imag)
    u *= node["u_pu"]
    return u, failed


def _finite(network: Network, p_mw: Floats, q_mvar: Floats) -> None:
    """The engine takes an injection that is not a number for one that stays as it was."""
    known = np.isfinite(p_mw) & np.isfinite(q_mvar)
    known[:, network.slack] = True
    if not known.all():
        t, node = np.argwhere(~known)[0]
        raise GridFailure(
            f"The injection at {network.node_names[node]} in period {t} is not a number.",
            "Fill the gap in the series that it comes from.",
        )


def _refuse_failed(failed: Ints, count: int) -> None:
    if len(failed):
        raise GridFailure(
            f"The power flow of period {int(failed[0])} has no solution ({len(failed)} of {count} periods fail).",
            "The grid cannot carry these injections; look at loads and generation scaled too far.",
        )


def _kept(values: Floats) -> Floats:
    values.flags.writeable = False
    return values


# An engine lives as long as its network, which is compared by identity.
_ENGINES: WeakKeyDictionary[Network, PowerGridModel] = WeakKeyDictionary()


def _engine(network: Network) -> PowerGridModel:
    if network not in _ENGINES:
        _ENGINES[network] = PowerGridModel(components(network))
    return _ENGINES[network]


def components(network: Network) -> dict[ComponentType, np.ndarray]:
    """The engine's input with one load at each of `not_slack`, in that order. Ids are: nodes, branches, loads, the
    source, shunts."""
    n, m = network.n, network.m
    branch = initialize_array(DatasetType.input, ComponentType.generic_branch, m)
    branch["id"] = n + np.arange(m)
    branch["from_node"], branch["to_node"] = network.from_node, network.to_node
    branch["from_status"], branch["to_status"] = network.from_on, network.to_on
    base_ohm = network.vn_kv[network.to_node] ** 2
    z, shunt = base_ohm / network.y_series, network.y_shunt / base_ohm
    branch["r1"], branch["x1"], branch["g1"], branch["b1"] = z.real, z.imag, shunt.real, shunt.imag
    branch["k"], branch["theta"] = np.abs(network.tap), np.angle(network.tap)
    return {
        ComponentType.node: nodes(network),
        ComponentType.generic_branch: branch,
        ComponentType.sym_load: loads(network, ComponentType.sym_load),
        ComponentType.source: source(network),
        ComponentType.shunt: shunts(network, np.flatnonzero(network.node_shunt)),
    }


def nodes(network: Network) -> np.ndarray:
    """The engine's nodes, numbered as the network's."""
    node = initialize_array(DatasetType.input, ComponentType.node, network.n)
    node["id"], node["u_rated"] = np.arange(network.n), network.vn_kv * 1e3
    return node


def loads(network: Network, kind: ComponentType) -> np.ndarray:
    """Loads of constant power, one at each of `not_slack`, at zero."""
    load = initialize_array(DatasetType.input, kind, network.n - 1)
    load["id"] = network.n + network.m + np.arange(network.n - 1)
    load["node"], load["status"], load["type"] = network.not_slack, 1, LoadGenType.const_power
    load["p_specified"] = load["q_specified"] = 0.0
    return load


def source(network: Network) -> np.ndarray:
    """The ideal source at the slack."""
    found = initialize_array(DatasetType.input, ComponentType.source, 1)
    found["id"], found["node"], found["status"] = 2 * network.n + network.m, network.slack, 1
    found["u_ref"], found["sk"], found["z01_ratio"] = network.slack_vm_pu, SOURCE_VA, 1.0
    return found


def shunts(network: Network, at: Ints) -> np.ndarray:
    """What stands between some nodes and earth."""
    shunt = initialize_array(DatasetType.input, ComponentType.shunt, len(at))
    shunt["id"], shunt["node"], shunt["status"] = 2 * network.n + network.m + 1 + np.arange(len(at)), at, 1
    to_earth = network.node_shunt[at] / network.vn_kv[at] ** 2
    shunt["g1"], shunt["b1"], shunt["g0"], shunt["b0"] = to_earth.real, to_earth.imag, 0.0, 0.0
    return shunt
