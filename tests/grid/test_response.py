"""First and second derivatives by controls against differences of Newton's power flow itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coflex.domain.quantity import Floats
from coflex.grid import newton
from coflex.grid.network import Complexes, Network, build
from coflex.grid.response import MAGNITUDE, REACTIVE, REAL, Point, Ports
from coflex.grid.rows import FROM, HIGH, LOW, TO
from support.transmission import injections, solved_net, tables_of

FORM = np.array([HIGH, LOW, FROM, TO, FROM])
INDEX = np.array([7, 8, 3, 4, 10])
WEIGHT = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
# Price of power at the slack, EUR/MWh + j EUR/Mvarh.
AT_SLACK = 2.0 + 0.7j


class Case:
    """Thirty buses, some of held voltage; five ports of every kind."""

    def __init__(self, apparent: bool) -> None:
        tables = tables_of(solved_net("case30"))
        rated = tuple(replace(branch, rating_mva=50.0) for branch in tables.branches)
        self.network = build(replace(tables, branches=rated))
        self.p, self.q = injections(tables, self.network)
        self.apparent = apparent
        held, slack = self.network.held, self.network.slack
        kind = np.array([REAL, REACTIVE, MAGNITUDE, MAGNITUDE, REAL])
        self.ports = Ports(kind, np.array([5, 9, held[0], slack, held[1]]))

    def moved(self, step: Floats) -> Complexes:
        """Voltages after a step of the ports, by Newton's method."""
        p, q, held = self.p.copy(), self.q.copy(), self.network.held_vm.copy()
        slack_vm = self.network.slack_vm_pu
        for kind, node, by in zip(self.ports.kind, self.ports.node, step, strict=True):
            if kind == REAL:
                p[0, node] += by
            elif kind == REACTIVE:
                q[0, node] += by
            elif node == self.network.slack:
                slack_vm += by
            else:
                held[self.network.held == node] += by
        other: Network = replace(self.network, held_vm=held, slack_vm_pu=slack_vm)
        return newton.solve(other, p, q)[0]

    def point(self, step: Floats) -> Point:
        return Point(self.network, self.moved(step), self.apparent)

    def limits(self, step: Floats) -> Floats:
        values = self.point(step).values
        return np.array([values[form][index] for form, index in zip(FORM, INDEX, strict=True)])

    def total(self, step: Floats) -> float:
        power = self.point(step).injected[self.network.slack]
        return float(WEIGHT @ self.limits(step) + AT_SLACK.real * power.real + AT_SLACK.imag * power.imag)


@pytest.fixture(params=[False, True], ids=["current", "apparent"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.mark.spec("MKT-06")
def test_voltages_and_limits_answer_to_every_port_as_the_power_flow_says(case: Case) -> None:
    point = case.point(np.zeros(5))
    z = point.responses(case.ports)
    slopes = (point.gradients(FORM, INDEX) @ z).real
    for k, size in enumerate((1e-3, 1e-3, 1e-5, 1e-5, 1e-3)):
        step = size * np.eye(5)[k]
        assert np.abs((case.moved(step) - case.moved(-step)) / (2 * size) - z[:, k]).max() < 1e-8
        assert (case.limits(step) - case.limits(-step)) / (2 * size) == pytest.approx(slopes[:, k], abs=1e-6)


@pytest.mark.spec("MKT-06")
def test_the_adjoint_and_the_response_tell_the_same_slope(case: Case) -> None:
    point = case.point(np.zeros(5))
    real, reactive = point.power_gradients(np.array([case.network.slack]))
    gradient = WEIGHT @ point.gradients(FORM, INDEX) + (real.toarray() + reactive.toarray())[0]
    dp, dq = point.adjoint(gradient[:, None])
    slopes = (gradient @ point.responses(case.ports)).real
    assert dp[case.ports.node[[0, 4]], 0] == pytest.approx(slopes[[0, 4]], rel=1e-9)
    assert dq[case.ports.node[[1, 2]], 0] == pytest.approx(slopes[[1, 2]], rel=1e-9)


@pytest.mark.spec("MKT-06")
def test_curvature_along_the_ports_is_that_of_the_power_flow(case: Case) -> None:
    network, point = case.network, case.point(np.zeros(5))
    z = point.responses(case.ports)
    real, reactive = point.power_gradients(np.array([network.slack]))
    gradient = WEIGHT @ point.gradients(FORM, INDEX)
    gradient = gradient + (AT_SLACK.real * real.toarray() + AT_SLACK.imag * reactive.toarray())[0]
    dp, dq = (part[:, 0] for part in point.adjoint(gradient[:, None]))
    weight = -(dp + 1j * dq)
    weight[network.held] = weight[network.held].real
    weight[network.slack] = AT_SLACK
    held = np.full(len(network.held), HIGH), network.held, -dq[network.held]
    exact = point.power_curvature(weight, z) + point.limit_curvature(FORM, INDEX, WEIGHT, z)
    exact += point.limit_curvature(*held, z)
    size = np.array([0.3, 0.3, 1e-3, 1e-3, 0.3])
    steps = size * np.eye(5)
    measured = np.array(
        [
            [
                case.total(a + b) - case.total(a - b) - case.total(b - a) + case.total(-a - b)
                for b in steps
            ]
            for a in steps
        ]
    ) / (4 * np.outer(size, size))  # fmt: skip
    scale = np.sqrt(np.abs(np.diag(exact)))
    assert (np.abs(measured - exact) / np.outer(scale, scale)).max() < 1e-3
    assert np.abs(exact).min() > 0
