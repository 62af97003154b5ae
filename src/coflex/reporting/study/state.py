"""Power flow and assessment of a grid as tables (GRID-02, GRID-03)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import Finding
from coflex.grid import assess
from coflex.grid.powerflow import GridState, branch_losses_mw
from coflex.reporting.study.case import GridCase


@dataclass(frozen=True, slots=True)
class BusState:
    """A bus in one period, or the range over several. Injection positive, with the source's own at its bus."""

    bus: str
    vm_pu: float
    vm_max_pu: float
    va_degree: float
    p_mw: float
    q_mvar: float


@dataclass(frozen=True, slots=True)
class BranchState:
    """The highest loading of a branch over the periods, as a share of its rating (none where none is known), and the
    power that flows into it at its from end in the first period."""

    branch: str
    from_bus: str
    to_bus: str
    loading: float | None
    p_from_mw: float
    q_from_mvar: float
    losses_kw: float


@dataclass(frozen=True, slots=True)
class PowerFlowAnswer:
    """`losses_kw`, `interface_p_mw`, `interface_q_mvar`: means over the periods; all else is the worst of them.
    Loadings are shares of the rating."""

    grid: str
    periods: int
    losses_kw: float
    lowest_voltage_pu: float
    lowest_voltage_bus: str
    highest_voltage_pu: float
    highest_voltage_bus: str
    highest_loading: float | None
    highest_loading_branch: str
    interface_p_mw: float
    interface_q_mvar: float
    buses: tuple[BusState, ...]
    branches: tuple[BranchState, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class BrokenLimit:
    """A broken limit in one period; voltages in pu, loadings as a share of the rating."""

    start: str
    element: str
    kind: str
    value: float
    bound: float
    excess: float


@dataclass(frozen=True, slots=True)
class AssessAnswer:
    """How many limits are broken in how many periods, which come nearest, and every one."""

    grid: str
    periods: int
    broken: int
    elements: int
    periods_with_broken: int
    nearest: str
    nearest_value: float
    nearest_bound: float
    violations: tuple[BrokenLimit, ...]
    findings: tuple[Finding, ...]


def power_flow(case: GridCase) -> PowerFlowAnswer:
    """The states of all periods. Raises GridFailure when one has none."""
    network, state = case.network, case.solve()
    vm = state.vm
    low, high = (np.unravel_index(int(f(vm)), vm.shape) for f in (np.argmin, np.argmax))
    rated = np.isfinite(network.rating_from) | np.isfinite(network.rating_to)
    loading = np.where(rated, state.loading, -1.0)
    top = np.unravel_index(int(np.argmax(loading)), loading.shape) if network.m else None
    loaded = top is not None and loading[top] >= 0
    return PowerFlowAnswer(
        grid=case.name,
        periods=len(vm),
        losses_kw=float(branch_losses_mw(network, state).mean() * 1000),
        lowest_voltage_pu=float(vm[low]),
        lowest_voltage_bus=network.node_names[low[1]],
        highest_voltage_pu=float(vm[high]),
        highest_voltage_bus=network.node_names[high[1]],
        highest_loading=float(loading[top]) if top is not None and loaded else None,
        highest_loading_branch=network.branch_names[top[1]] if top is not None and loaded else "",
        interface_p_mw=float(state.interface_p_mw.mean()),
        interface_q_mvar=float(state.interface_q_mvar.mean()),
        buses=_buses(case, state),
        branches=_branches(case, state),
        findings=(*case.findings, *case.beyond(state)),
    )


def _buses(case: GridCase, state: GridState) -> tuple[BusState, ...]:
    network, vm = case.network, state.vm
    p, q = state.p_mw[0].copy(), state.q_mvar[0].copy()
    p[network.slack], q[network.slack] = state.interface_p_mw[0], state.interface_q_mvar[0]
    angle = np.degrees(np.angle(state.u[0]))
    return tuple(
        BusState(bus, float(vm[:, i].min()), float(vm[:, i].max()), float(angle[i]), float(p[i]), float(q[i]))
        for bus, i in zip(network.bus_names, network.node_of_bus.tolist(), strict=True)
    )


def _branches(case: GridCase, state: GridState) -> tuple[BranchState, ...]:
    network, u = case.network, state.u[0]
    y_from, y_to = network.terminal_admittance
    flow = u[network.from_node] * np.conj(y_from @ u)
    losses = (flow + u[network.to_node] * np.conj(y_to @ u)).real * 1000
    rated = np.isfinite(network.rating_from) | np.isfinite(network.rating_to)
    loading = state.loading.max(axis=0)
    return tuple(
        BranchState(
            name,
            network.node_names[network.from_node[k]],
            network.node_names[network.to_node[k]],
            float(loading[k]) if rated[k] else None,
            float(flow[k].real),
            float(flow[k].imag),
            float(losses[k]),
        )
        for k, name in enumerate(network.branch_names)
    )


def assessment(case: GridCase) -> AssessAnswer:
    """Every broken limit of every period. Raises GridFailure when a period has no state."""
    state = case.solve()
    found = assess.violations(case.network, state, case.axis)
    kind, element, value, bound = assess.worst(case.network, state)
    label = dict(zip(case.axis, case.labels, strict=True))
    return AssessAnswer(
        grid=case.name,
        periods=len(case.labels),
        broken=len(found),
        elements=len({(one.kind, one.element) for one in found}),
        periods_with_broken=len({one.start for one in found}),
        nearest=f"{kind.value} {element}",
        nearest_value=value,
        nearest_bound=bound,
        violations=tuple(
            BrokenLimit(label[one.start], one.element, one.kind.value, one.value, one.bound, one.excess)
            for one in found
        ),
        findings=(*case.findings, *case.beyond(state)),
    )
