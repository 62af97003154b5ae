"""State estimation from field sensors, with bad data named (GRID-11).

Weighted least squares over the state x (angles and magnitudes of all nodes, the source's angle zero):

    min (z - h(x))' R^-1 (z - h(x))    s.t. nodes without any element inject nothing

by Gauss-Newton on Hachtel's augmented system, in which an exact equation is a measurement of variance zero:

    [ R  H ] [ lambda ]   [ z - h(x) ]
    [ H' 0 ] [ dx     ] = [ 0        ]

With K the upper left block of its inverse, lambda_i / sqrt(K_ii) is the normalised residual of measurement i; where
K_ii vanishes nothing else tells of what it measures, and it cannot be judged. The largest normalised residual beyond
`BAD` is taken for bad data, left out, and the rest estimated anew. A. Abur and A. Gomez Exposito, "Power System State
Estimation" (2004), sections 3.5 and 5.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from coflex.domain.errors import Finding, GridFailure, refuse
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.network import Complexes, Network
from coflex.grid.powerflow import GridState, solve, state_of

# Normalised residuals are standard normal: beyond four lies 1 in 16,000.
BAD = 4.0
STEPS = 30
# pu and rad between two steps at which the state counts as found.
SETTLED = 1e-10
# Share of a measurement's weight below which nothing else tells of what it measures.
ALONE = 1e-6


class SensorKind(StrEnum):
    """What a sensor reads, with its unit."""

    VOLTAGE = "vm_pu"
    ACTIVE = "p_mw"
    REACTIVE = "q_mvar"
    CURRENT = "i_a"


class Verdict(StrEnum):
    """`alone`: no other measurement tells of the same quantity, so it cannot be judged."""

    GOOD = "good"
    BAD = "bad"
    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One reading. `element`: a bus (voltage; injection, positive into the grid) or a branch with `end` from or to
    (power flowing into the branch there, and current). `sigma`: standard deviation in the unit of `value`."""

    sensor: str
    kind: SensorKind
    element: str
    end: str
    value: float
    sigma: float


@dataclass(frozen=True, slots=True)
class Judged:
    """A measurement beside the estimate. `normalised`: residual in its own standard deviations, 0 where alone."""

    sensor: str
    kind: SensorKind
    element: str
    end: str
    measured: float
    estimated: float
    normalised: float
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Estimate:
    """The most likely state of one period; `measurements` in the order given, then forecasts of injection that the
    sensors contradict. `objective`: sum of squared weighted residuals that were kept, `redundancy` its degrees of
    freedom."""

    state: GridState
    measurements: tuple[Judged, ...]
    objective: float
    redundancy: int


@dataclass(frozen=True, eq=False)
class _Readings:
    """All that is known, in pu of 1 MVA: k entries. `kind`, `at` (node, or branch), `end` (0 from, 1 to, -1 bus),
    `value`, `sigma` (0 for an exact equation)."""

    kind: tuple[SensorKind, ...]
    at: Ints
    end: Ints
    value: Floats
    sigma: Floats


def estimate(
    network: Network, measurements: Sequence[Measurement], p_mw: Floats, q_mvar: Floats, sigma_mw: Floats
) -> Estimate:
    """The state of one period from measurements and a forecast of injections.

    `p_mw`, `q_mvar` (n,): forecast injections, `sigma_mw` (n,) their standard deviation, active and reactive; nodes
    without elements inject nothing, whatever stands there. Raises Refused with every fault of the measurements, and
    GridFailure when they do not determine a state.
    """
    refuse("The measurements", check(network, measurements))
    readings = _readings(network, measurements, p_mw, q_mvar, sigma_mw)
    start = solve(network, p_mw[None, :], q_mvar[None, :]).u[0]
    kept = np.ones(len(readings.value), dtype=np.bool_)
    normalised = np.zeros(len(kept))
    alone = np.zeros(len(kept), dtype=np.bool_)
    while True:
        u, factor, weight = _fit(network, readings, kept, start)
        here = np.flatnonzero(kept)
        normalised[here], alone[here] = _normalised(factor, weight, readings.sigma[here])
        worst = here[np.argmax(np.where(alone[here], 0.0, normalised[here]))]
        if alone[worst] or normalised[worst] <= BAD:
            break
        kept[worst] = False
    residual = (readings.value - _values(network, readings, u))[kept & (readings.sigma > 0)]
    weighted = residual / readings.sigma[kept & (readings.sigma > 0)]
    return Estimate(
        state=state_of(network, u[None, :], *_injected(network, u)),
        measurements=_judged(network, measurements, readings, u, kept, normalised, alone),
        objective=float(weighted @ weighted),
        redundancy=int(kept.sum()) - 2 * network.n + 1,
    )


def check(network: Network, measurements: Sequence[Measurement]) -> tuple[Finding, ...]:
    """All faults of measurements: unknown elements, ends that do not fit, values and deviations that cannot be."""
    findings: list[Finding] = []
    buses, branches = set(network.bus_names), set(network.branch_names)
    seen: set[str] = set()
    for m in measurements:
        place = f"measurements.csv: {m.sensor}"
        if m.sensor in seen:
            findings.append(Finding(place, "named_twice", "Two sensors bear this name; give each its own."))
        seen.add(m.sensor)
        if m.end not in ("", "from", "to") or (m.kind is SensorKind.CURRENT and not m.end):
            message = "A current is read at the from or to end of a branch, and no other end is known."
            findings.append(Finding(place, "unknown_end", message))
        if m.end and m.kind is SensorKind.VOLTAGE:
            findings.append(Finding(place, "unknown_end", "A voltage is read at a bus; leave its end empty."))
        if m.element not in (branches if m.end else buses):
            what = "branch" if m.end else "bus"
            message = f"The grid has no {what} '{m.element}'; correct the name."
            findings.append(Finding(place, f"unknown_{what}", message))
        lowest = 0.0 if m.kind in (SensorKind.VOLTAGE, SensorKind.CURRENT) else -np.inf
        if not (np.isfinite(m.value) and m.value >= lowest and np.isfinite(m.sigma) and m.sigma > 0):
            message = "The value must be a number (a voltage or current not negative) and sigma above 0."
            findings.append(Finding(place, "impossible_value", message))
    if not any(m.kind is SensorKind.VOLTAGE for m in measurements):
        message = "No voltage is measured anywhere; the state needs at least one."
        findings.append(Finding("measurements.csv", "no_voltage", message))
    return tuple(findings)


def _readings(
    network: Network, measurements: Sequence[Measurement], p_mw: Floats, q_mvar: Floats, sigma_mw: Floats
) -> _Readings:
    """Measurements in the order given, then the active and the reactive injection of every node but the source's."""
    branch = {name: i for i, name in enumerate(network.branch_names)}
    ends = {"": -1, "from": 0, "to": 1}
    kind, at, end, value, sigma = [], [], [], [], []
    for m in measurements:
        place = branch[m.element] if m.end else network.node_of(m.element)
        vn_kv = network.vn_kv[(network.to_node if m.end == "to" else network.from_node)[place]] if m.end else 1.0
        unit = np.sqrt(3) * vn_kv / 1000 if m.kind is SensorKind.CURRENT else 1.0
        kind.append(m.kind)
        at.append(place)
        end.append(ends[m.end])
        value.append(m.value * unit)
        sigma.append(m.sigma * unit)
    nodes = network.not_slack
    idle = np.isin(nodes, network.element_node, invert=True)
    for of, forecast in ((SensorKind.ACTIVE, p_mw), (SensorKind.REACTIVE, q_mvar)):
        kind += [of] * len(nodes)
        at += nodes.tolist()
        end += [-1] * len(nodes)
        value += np.where(idle, 0.0, forecast[nodes]).tolist()
        sigma += np.where(idle, 0.0, sigma_mw[nodes]).tolist()
    return _Readings(tuple(kind), np.array(at), np.array(end), np.array(value), np.array(sigma))


def _fit(network: Network, readings: _Readings, kept: Bools, start: Complexes) -> tuple[Complexes, SuperLU, Floats]:
    """Gauss-Newton on the kept readings: voltages, the factors of the last augmented matrix, and lambda."""
    u = start
    here = np.flatnonzero(kept)
    angles = network.not_slack
    for _ in range(STEPS):
        jacobian = _jacobian(network, readings, u)[here]
        count, width = jacobian.shape
        # Columns are scaled to one, lest stiff lines hide what slack ones tell.
        scale = 1.0 / np.maximum(np.abs(jacobian).max(axis=0).toarray().ravel(), 1e-12)
        scaled = jacobian @ sparse.diags_array(scale)
        corner = sparse.diags_array(readings.sigma[here] ** 2)
        augmented = sparse.block_array([[corner, scaled], [scaled.T, None]], format="csc")
        missing = (readings.value - _values(network, readings, u))[here]
        try:
            factor = splu(augmented)
            found = factor.solve(np.r_[missing, np.zeros(width)])
        except RuntimeError as failure:
            raise _undetermined() from failure
        step = found[count:] * scale
        if not np.isfinite(step).all():
            raise _undetermined()
        angle, magnitude = np.angle(u), np.abs(u)
        angle[angles] += step[: len(angles)]
        magnitude = magnitude + step[len(angles) :]
        u = magnitude * np.exp(1j * angle)
        if np.abs(step).max() < SETTLED:
            return u, factor, found[:count]
    raise GridFailure(
        f"The state estimation does not settle within {STEPS} steps.",
        "Look for measurements that contradict each other by orders of magnitude (units, signs).",
    )


def _undetermined() -> GridFailure:
    return GridFailure(
        "The measurements and forecasts do not determine the state.",
        "Give a voltage and, for every bus with elements, a forecast or a measurement of its injection.",
    )


def _normalised(factor: SuperLU, weight: Floats, sigma: Floats) -> tuple[Floats, Bools]:
    """|lambda_i| / sqrt(K_ii) of every kept reading, and which stand alone."""
    count = len(weight)
    own = np.empty(count)
    for begin in range(0, count, 256):
        part = np.arange(begin, min(begin + 256, count))
        unit = np.zeros((factor.shape[0], len(part)))
        unit[part, np.arange(len(part))] = 1.0
        own[part] = factor.solve(unit)[part, np.arange(len(part))]
    alone = own * np.where(sigma > 0, sigma**2, 1.0) < ALONE
    # An exact equation is the network's own; it is never in doubt.
    alone |= sigma == 0
    return np.where(alone, 0.0, np.abs(weight) / np.sqrt(np.where(alone, 1.0, own))), alone


def _injected(network: Network, u: Complexes) -> tuple[Floats, Floats]:
    power = u * np.conj(network.admittance @ u)
    return power.real[None, :], power.imag[None, :]


def _values(network: Network, readings: _Readings, u: Complexes) -> Floats:
    """h(x) of every reading, pu of 1 MVA."""
    at_bus = readings.end < 0
    y_from, y_to = network.terminal_admittance
    current = np.stack([y_from @ u, y_to @ u])
    ends = np.stack([u[network.from_node], u[network.to_node]])
    injected = u * np.conj(network.admittance @ u)
    branch = np.where(at_bus, 0, readings.at)
    node = np.where(at_bus, readings.at, 0)
    flow = (ends * np.conj(current))[readings.end, branch] if network.m else np.zeros(len(branch), complex)
    amount = np.abs(current)[readings.end, branch] if network.m else np.zeros(len(branch))
    power = np.where(at_bus, injected[node], flow)
    kind = np.array(readings.kind)
    value: Floats = np.select(
        [kind == SensorKind.VOLTAGE, kind == SensorKind.ACTIVE, kind == SensorKind.REACTIVE],
        [np.abs(u)[node], power.real, power.imag],
        amount,
    )
    return value


def _jacobian(network: Network, readings: _Readings, u: Complexes) -> sparse.csr_array:
    """dh/dx: rows are readings, columns the angles of all nodes but the source's, then all magnitudes."""
    n, m = network.n, network.m
    one = sparse.diags_array(np.ones(n), format="csr")
    rows = np.arange(m)
    y_from, y_to = network.terminal_admittance
    sides = [(one, network.admittance)]
    for node, admittance in ((network.from_node, y_from), (network.to_node, y_to)):
        sides.append((sparse.csr_array((np.ones(m), (rows, node)), shape=(m, n)), admittance))
    blocks: list[sparse.csr_array] = []
    # Every quantity of every place, to choose from: magnitudes, then P, Q and I of buses, from ends and to ends.
    blocks.append(sparse.hstack([sparse.csr_array((n, n)), one], format="csr"))
    unit = sparse.diags_array(u / np.abs(u))
    for place, admittance in sides:
        current, voltage = admittance @ u, place @ u
        by_angle = 1j * (
            sparse.diags_array(np.conj(current)) @ place @ sparse.diags_array(u)
            - sparse.diags_array(voltage) @ (admittance @ sparse.diags_array(u)).conj()
        )
        by_magnitude = (
            sparse.diags_array(np.conj(current)) @ place @ unit
            + sparse.diags_array(voltage) @ (admittance @ unit).conj()
        )
        power = sparse.hstack([by_angle, by_magnitude], format="csr")
        towards = sparse.diags_array(np.conj(current) / np.maximum(np.abs(current), 1e-9))
        amount = sparse.hstack([1j * towards @ admittance @ sparse.diags_array(u), towards @ admittance @ unit])
        blocks += [power.real, power.imag, sparse.csr_array(amount).real]
    sizes = np.cumsum([0, *(block.shape[0] for block in blocks)])
    which = {SensorKind.ACTIVE: 1, SensorKind.REACTIVE: 2, SensorKind.CURRENT: 3}
    at = [
        sizes[0 if kind is SensorKind.VOLTAGE else which[kind] + 3 * (int(end) + 1)] + int(place)
        for kind, place, end in zip(readings.kind, readings.at, readings.end, strict=True)
    ]
    columns = np.r_[network.not_slack, n + np.arange(n)]
    return sparse.csr_array(sparse.vstack(blocks, format="csr")[at][:, columns])


def _judged(
    network: Network,
    measurements: Sequence[Measurement],
    readings: _Readings,
    u: Complexes,
    kept: Bools,
    normalised: Floats,
    alone: Bools,
) -> tuple[Judged, ...]:
    """Every sensor, and every forecast that was left out, in the units they came in."""
    value = _values(network, readings, u)
    named = list(measurements)
    for i in np.flatnonzero(~kept[len(named) :]).tolist():
        k = i + len(measurements)
        bus = network.node_names[readings.at[k]]
        kind = readings.kind[k]
        named.append(Measurement(f"forecast {bus}", kind, bus, "", readings.value[k], readings.sigma[k]))
    places = [*range(len(measurements)), *(np.flatnonzero(~kept[len(measurements) :]) + len(measurements)).tolist()]
    judged = []
    for k, m in zip(places, named, strict=True):
        verdict = Verdict.BAD if not kept[k] else Verdict.ALONE if alone[k] else Verdict.GOOD
        unit = m.sigma / readings.sigma[k]
        judged.append(
            Judged(m.sensor, m.kind, m.element, m.end, m.value, float(value[k] * unit), float(normalised[k]), verdict)
        )
    return tuple(judged)
