"""State estimation of a grid as tables (GRID-11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import Finding
from coflex.grid.estimate import Judged, Measurement, Verdict, estimate
from coflex.grid.powerflow import branch_losses_mw
from coflex.reporting.study.case import GridCase

# A forecast of injection is trusted to half of its size, and never better than this.
FORECAST_SHARE, FORECAST_MW = 0.5, 0.01


@dataclass(frozen=True, slots=True)
class EstimatedBus:
    bus: str
    vm_pu: float
    va_degree: float
    p_mw: float
    q_mvar: float


@dataclass(frozen=True, slots=True)
class EstimateAnswer:
    """The most likely state and what it says of each sensor. `bad`: those it leaves out; `objective` is to be compared
    with `redundancy`, its mean when all errors are as stated."""

    grid: str
    bad: tuple[str, ...]
    objective: float
    redundancy: int
    losses_kw: float
    lowest_voltage_pu: float
    lowest_voltage_bus: str
    buses: tuple[EstimatedBus, ...]
    measurements: tuple[Judged, ...]
    findings: tuple[Finding, ...]


def estimation(case: GridCase, measurements: Sequence[Measurement]) -> EstimateAnswer:
    """The state of the first period from measurements, with the powers of the case as a forecast.

    Raises Refused with every fault of the measurements, GridFailure when they determine no state.
    """
    p, q = (one[0] for one in case.injections)
    network = case.network
    sigma = np.maximum(FORECAST_SHARE * np.hypot(p, q), FORECAST_MW)
    found = estimate(network, measurements, p, q, sigma)
    state = found.state
    vm, angle = state.vm[0], np.degrees(np.angle(state.u[0]))
    lowest = int(vm.argmin())
    return EstimateAnswer(
        grid=case.name,
        bad=tuple(judged.sensor for judged in found.measurements if judged.verdict is Verdict.BAD),
        objective=found.objective,
        redundancy=found.redundancy,
        losses_kw=float(branch_losses_mw(network, state)[0] * 1000),
        lowest_voltage_pu=float(vm[lowest]),
        lowest_voltage_bus=network.node_names[lowest],
        buses=tuple(
            EstimatedBus(bus, float(vm[i]), float(angle[i]), float(state.p_mw[0, i]), float(state.q_mvar[0, i]))
            for bus, i in zip(network.bus_names, network.node_of_bus.tolist(), strict=True)
        ),
        measurements=found.measurements,
        findings=case.findings,
    )
