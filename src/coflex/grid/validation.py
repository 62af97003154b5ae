"""Technical validation of a list of activations, called from the top (GRID-08).

The list is walked in its order, from the base state on. On the linearisation at the point reached, whole lines are
taken while every limit that they load has room; what relieves a limit gives room to those after it. Every beginning so
taken goes through AC power flow. The first line that does not fit, or breaks a limit there, is taken as far as AC
power flows on the way to it hold; there the limits are linearised anew and the walk goes on.

A line that is limited leaves `SPARE` of every limit, so that lines elsewhere that load it by a trace still fit; what
the base state breaks may not be broken further by more than that. A list called in this order keeps every limit at
each of its steps; lines called alone, out of their order, are another list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import GridFailure
from coflex.domain.light import Colour
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid import assess
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Linearisation, Quantities

# A line that must be limited is tried at so many steps, so many times, each time between the last that holds and the
# next.
STEPS, REFINED = 16, 4
# What loads a limit less per kW is within the power flow's own accuracy and is not stopped by it.
FELT = 1e-9
# pu or share of a rating: what the voltage drop of one feeder does to the currents of the next.
SPARE = 5e-4
# kW below which a line is not worth calling.
LEAST = 0.5


@dataclass(frozen=True, eq=False)
class Activations:
    """Lines in the order in which they would be called, l of them: `node[l]`, `signed_kw[l]` (up positive),
    `tan_phi[l]` kvar per kW, `period[l]`."""

    node: Ints
    signed_kw: Floats
    tan_phi: Floats
    period: Ints


@dataclass(frozen=True, eq=False)
class Validation:
    """`allowed_kw[l]`: how much of each line may be called, not negative; `reason[l]`: the limit that stops it, empty
    where nothing does. Every beginning of the list so limited keeps every limit by AC power flow."""

    allowed_kw: Floats
    colour: tuple[Colour, ...]
    reason: tuple[str, ...]


def validate(network: Network, state: GridState, lines: Activations) -> Validation:
    """Validate lines against a solved state of all periods they name."""
    asked = np.abs(lines.signed_kw)
    allowed = np.zeros(len(asked))
    reason = [""] * len(asked)
    limits = _Limits.of(network)
    for t in np.unique(lines.period).tolist():
        mine = np.flatnonzero(lines.period == t)
        taken, names = _period(network, state, limits, lines, mine, t)
        allowed[mine] = taken
        for line, name in zip(mine.tolist(), names, strict=True):
            reason[line] = name
    whole = allowed >= asked - LEAST
    colour = tuple(
        Colour.GREEN if whole[i] else Colour.YELLOW if allowed[i] >= LEAST else Colour.RED for i in range(len(asked))
    )
    stopped_by = tuple("" if whole[i] else reason[i] for i in range(len(asked)))
    return Validation(np.where(whole, asked, allowed), colour, stopped_by)


@dataclass
class _Walk:
    """The walk through one period's list: the limits, their bounds, and the state reached."""

    network: Network
    limits: _Limits
    bound: Floats
    reached: GridState
    lines: Activations

    def fitting(self, rest: Ints) -> tuple[Ints, float, int]:
        """How many of the rest fit whole on the linearisation at the state reached; of the next one, how much (kW),
        and the limit that stops it (-1 when all fit)."""
        linear = Linearisation(self.network, self.reached.u)
        lines = self.lines
        effect = self.limits.effects(linear, 0, lines.node[rest], lines.tan_phi[rest]) * np.sign(lines.signed_kw[rest])
        left = self.bound - self.limits.values(self.reached)[0]
        for count, line in enumerate(rest.tolist()):
            own = effect[:, count]
            fits = np.where(own > FELT, left / np.where(own > FELT, own, 1.0), np.inf)
            r = int(np.argmin(fits))
            if fits[r] < abs(lines.signed_kw[line]):
                return rest[:count], max(0.0, float(fits[r])), r
            left = left - own * abs(lines.signed_kw[line])
        return rest, 0.0, -1

    def states(self, kw: Floats, lines: Ints, spare: float = 0.0) -> tuple[GridState, Bools]:
        """States from the one reached with (states, lines) kW of some lines, unsigned and growing; which limits, less
        what is to be spared, each passes. From the first one without a state on (or a little before) all are passed."""
        change_p, change_q = (np.zeros((len(kw), self.network.n)) for _ in range(2))
        signed = kw * np.sign(self.lines.signed_kw[lines]) / 1000.0
        np.add.at(change_p.T, self.lines.node[lines], signed.T)
        np.add.at(change_q.T, self.lines.node[lines], (signed * self.lines.tan_phi[lines]).T)
        p, q = self.reached.p_mw[0] + change_p, self.reached.q_mvar[0] + change_q
        passed = np.ones((len(kw), len(self.bound)), dtype=np.bool_)
        count = len(kw)
        while True:
            try:
                there = solve(self.network, p[:count], q[:count])
                break
            except GridFailure:
                count //= 2
        passed[:count] = self.limits.values(there) > self.bound - spare + assess.TOLERANCE / 2
        return there, passed

    def furthest(self, line: int) -> tuple[float, int]:
        """How far (kW) one line may go, every power flow on the way holding, and the limit that it meets then."""
        low, high, met = 0.0, abs(float(self.lines.signed_kw[line])), -1
        for _ in range(REFINED):
            steps = np.linspace(low, high, STEPS + 1)[1:]
            _, over = self.states(steps[:, None], np.array([line]), SPARE)
            first = np.flatnonzero(over.any(axis=1))
            if not len(first):
                return high, met
            met = int(np.argmax(over[first[0]]))
            low, high = (steps[first[0] - 1] if first[0] else low), steps[first[0]]
        return low, met


def _period(
    network: Network, state: GridState, limits: _Limits, lines: Activations, mine: Ints, t: int
) -> tuple[Floats, list[str]]:
    base = state.part(np.array([t]))
    walk = _Walk(network, limits, np.maximum(limits.bound, limits.values(base)[0] + SPARE), base, lines)
    asked = np.abs(lines.signed_kw)
    taken: dict[int, float] = {}
    reason = dict.fromkeys(mine.tolist(), "")
    rest = mine
    while len(rest):
        fitting, part, stop = walk.fitting(rest)
        if len(fitting):
            begun, passed = walk.states(np.tri(len(fitting)) * asked[fitting], fitting)
            over = passed.any(axis=1)
            # What the power flow does not bear is limited in its turn.
            fitting, stop = (fitting[: int(np.argmax(over))], -1) if over.any() else (fitting, stop)
            taken |= {line: float(asked[line]) for line in fitting.tolist()}
            if len(fitting):
                walk.reached = begun.part(np.array([len(fitting) - 1]))
        rest = rest[len(fitting) :]
        if not len(rest):
            break
        line = int(rest[0])
        taken[line], met = (0.0, stop) if stop >= 0 and part < LEAST else walk.furthest(line)
        reason[line] = limits.names[met] if met >= 0 else ""
        if taken[line] > 0:
            walk.reached, _ = walk.states(np.array([[taken[line]]]), np.array([line]))
        rest = rest[1:]
    return np.array([taken[line] for line in mine.tolist()]), [reason[line] for line in mine.tolist()]


@dataclass(frozen=True, eq=False)
class _Limits:
    """Every limit as value <= bound: high and low voltages of the nodes whose voltage is free, currents at both ends of
    the branches with a rating."""

    network: Network
    branch: Ints
    names: tuple[str, ...]
    bound: Floats

    @staticmethod
    def of(network: Network) -> _Limits:
        nodes = network.pq
        branch = np.flatnonzero(np.isfinite(network.rating_from))
        voltage = [network.node_names[i] for i in nodes]
        loading = [f"loading {network.branch_names[k]}" for k in branch]
        return _Limits(
            network,
            branch,
            (*(f"voltage_high {n}" for n in voltage), *(f"voltage_low {n}" for n in voltage), *loading, *loading),
            np.concatenate(
                [network.v_max[nodes], -network.v_min[nodes], network.loading_max[branch], network.loading_max[branch]]
            ),
        )

    def values(self, state: GridState) -> Floats:
        """Values (t, limits) of solved states."""
        vm = state.vm[:, self.network.pq]
        ends = [state.loading_from[:, self.branch], state.loading_to[:, self.branch]]
        return np.concatenate([vm, -vm, *ends], axis=1)

    def effects(self, linear: Linearisation, t: int, node: Ints, tan_phi: Floats) -> Floats:
        """Change of every value per kW injected at each line's place, (limits, lines)."""
        nodes, count = self.network.pq, len(self.branch)
        index = np.concatenate([nodes, self.branch, self.branch])
        kind = np.repeat([VOLTAGE, FROM_END, TO_END], [len(nodes), count, count])
        dp, dq = linear.sensitivities(Quantities(np.full(len(index), t, dtype=np.int64), kind, index))
        per_kw = (dp[:, node] + dq[:, node] * tan_phi) / 1000.0
        return np.concatenate([per_kw[: len(nodes)], -per_kw[: len(nodes)], per_kw[len(nodes) :]])
