"""Unbalanced power flow of a grid as tables (GRID-02)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import Finding
from coflex.domain.quantity import Floats
from coflex.grid.unbalanced import build, injections, solve, violations
from coflex.reporting.study.case import GridCase


@dataclass(frozen=True, slots=True)
class PhaseBus:
    """Voltages to neutral of a bus in pu, each phase's lowest over the periods, and the largest unbalance: negative
    sequence as a share of the positive one."""

    bus: str
    a_pu: float
    b_pu: float
    c_pu: float
    unbalance: float


@dataclass(frozen=True, slots=True)
class PhaseBranch:
    """Highest loadings of a branch as shares of its rating, by phase and in the neutral; none where no rating is
    known."""

    branch: str
    a: float | None
    b: float | None
    c: float | None
    neutral: float | None


@dataclass(frozen=True, slots=True)
class PhaseBroken:
    """A limit that a phase breaks in one period; no phase where it is of all three."""

    start: str
    element: str
    kind: str
    phase: str
    value: float
    bound: float


@dataclass(frozen=True, slots=True)
class PhaseAnswer:
    """`losses_kw`: mean over the periods; all else is the worst of them and of the phases. Loadings are shares of the
    rating."""

    grid: str
    periods: int
    losses_kw: float
    lowest_voltage_pu: float
    lowest_voltage_bus: str
    highest_voltage_pu: float
    highest_voltage_bus: str
    highest_loading: float | None
    highest_loading_branch: str
    highest_unbalance: float
    highest_unbalance_bus: str
    buses: tuple[PhaseBus, ...]
    branches: tuple[PhaseBranch, ...]
    violations: tuple[PhaseBroken, ...]
    findings: tuple[Finding, ...]


def three_phase_flow(case: GridCase) -> PhaseAnswer:
    """The states of all periods by phase. Raises Refused on what has no zero sequence, GridFailure without a state."""
    network = case.network
    grid = build(case.tables, network)
    state = solve(grid, injections(grid, case.p_mw), injections(grid, case.q_mvar))
    vm, unbalance = state.vm, state.unbalance
    low, high = (np.unravel_index(int(f(vm)), vm.shape) for f in (np.argmin, np.argmax))
    loading, neutral = state.loading.max(axis=0), state.neutral_loading.max(axis=0)
    top, uneven = int(loading.max(axis=1).argmax()), int(unbalance.max(axis=0).argmax())
    rated = np.isfinite(network.rating_from) | np.isfinite(network.rating_to)
    label = dict(zip(case.axis, case.labels, strict=True))
    lowest = vm.min(axis=0)
    # Shunts withdraw with the square of each phase's voltage: a third of their rated power a phase.
    shunted = (vm**2).mean(axis=2) @ network.node_shunt.real
    return PhaseAnswer(
        grid=case.name,
        periods=len(vm),
        losses_kw=float((state.losses_mw - shunted).mean() * 1000),
        lowest_voltage_pu=float(vm[low]),
        lowest_voltage_bus=network.node_names[low[1]],
        highest_voltage_pu=float(vm[high]),
        highest_voltage_bus=network.node_names[high[1]],
        highest_loading=float(loading[top].max()) if rated.any() else None,
        highest_loading_branch=network.branch_names[top] if rated.any() else "",
        highest_unbalance=float(unbalance[:, uneven].max()),
        highest_unbalance_bus=network.node_names[uneven],
        buses=tuple(
            PhaseBus(bus, *_three(lowest[i]), float(unbalance[:, i].max()))
            for bus, i in zip(network.bus_names, network.node_of_bus.tolist(), strict=True)
        ),
        branches=tuple(
            PhaseBranch(name, *_three(loading[k]), float(neutral[k]))
            if rated[k]
            else PhaseBranch(name, None, None, None, None)
            for k, name in enumerate(network.branch_names)
        ),
        violations=tuple(
            PhaseBroken(label[one.start], one.element, one.kind.value, one.phase or "", one.value, one.bound)
            for one in violations(state, case.axis)
        ),
        findings=(*case.findings, *grid.assumed),
    )


def _three(values: Floats) -> tuple[float, float, float]:
    a, b, c = (float(value) for value in values)
    return a, b, c
