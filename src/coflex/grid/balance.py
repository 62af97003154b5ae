"""Phase balancing: from what an unbalanced state breaks to what must change, in which phase, and who acts on it.

Effects are central differences of the unbalanced power flow, all units and violations of a pass in one batch. The
volume fills from the strongest effect down (least power on the linearisation), is put into the power flow, and fills
again until the limit holds there: the negative sequence is a modulus, so one linear step falls short of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from coflex.domain.phase import ActingPhaseUnit, PhaseLimit, PhaseNeed, PhaseViolation, PhaseVolume
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.time import Axis
from coflex.grid.network import Network
from coflex.grid.unbalanced import PHASES, PhaseState, solve

# Half the step of a central difference: small beside a household, large beside the power flow's accuracy.
STEP_KW = 0.1
PASSES = 12
# A limit counts as kept when it is kept to the accuracy of an assessment.
KEPT = 1e-7
# Units with less than this share of the strongest effect do not act on a need.
ACTS = 0.02
NAMED = 12
# States solved at once.
BATCH = 4096


@dataclass(frozen=True, eq=False)
class PhaseReach:
    """Units that could act: names, `node[u]`, `share[u, 3]` of their power on the phases, `tan_phi[u]`, and what they
    can do, `up_kw[u, t]`, `down_kw[u, t]`."""

    names: tuple[str, ...]
    node: Ints
    share: Floats
    tan_phi: Floats
    up_kw: Floats
    down_kw: Floats


def gravest(broken: Sequence[PhaseViolation]) -> tuple[PhaseViolation, ...]:
    """The largest excess of each quarter-hour and kind: what a bus breaks, the buses behind it mostly break too."""
    worst: dict[tuple[object, PhaseLimit], PhaseViolation] = {}
    for violation in broken:
        key = violation.start, violation.kind
        if key not in worst or violation.excess > worst[key].excess:
            worst[key] = violation
    return tuple(worst.values())


def phase_needs(
    session: str, state: PhaseState, axis: Axis, broken: Sequence[PhaseViolation], reach: PhaseReach
) -> tuple[PhaseNeed, ...]:
    """One need for each violation of the state, in the order given.

    The volumes are what must change at the need's bus itself: the violated one, or a branch's end away from the source.
    """
    if not broken:
        return ()
    network = state.grid.network
    bus = _buses(network, broken)
    when = np.array([axis.position(violation.start) for violation in broken])
    count = len(broken)
    # At the bus itself: one slot a phase, without a limit of power.
    unlimited = np.full((count, 3), np.inf)
    phases = np.tile(np.eye(3), (count, 1, 1))
    own = _Fill(state, broken, when, np.tile(bus[:, None], (1, 3)), phases, np.zeros((count, 3)), unlimited, unlimited)
    moved, _, _ = own.run()
    node, tan_phi = np.tile(reach.node, (count, 1)), np.tile(reach.tan_phi, (count, 1))
    share = np.tile(reach.share, (count, 1, 1))
    units = _Fill(state, broken, when, node, share, tan_phi, reach.up_kw[:, when].T, reach.down_kw[:, when].T)
    _, kept, worsening = units.run()
    return tuple(
        PhaseNeed(
            session,
            violation.start,
            violation.element,
            violation.kind,
            violation.phase,
            network.node_names[bus[v]],
            round(violation.value, 6),
            round(violation.bound, 6),
            _volumes(moved[v]),
            bool(kept[v]),
            _acting(reach, worsening[v], reach.up_kw[:, when[v]], reach.down_kw[:, when[v]]),
        )
        for v, violation in enumerate(broken)
    )


@dataclass(frozen=True, eq=False)
class _Fill:
    """For each of v violations the least change over its s slots that removes it. `node[v, s]`, `share[v, s, 3]`,
    `tan_phi[v, s]`, `up_kw`, `down_kw` [v, s]; `when[v]`: period of the state."""

    state: PhaseState
    broken: Sequence[PhaseViolation]
    when: Ints
    node: Ints
    share: Floats
    tan_phi: Floats
    up_kw: Floats
    down_kw: Floats

    def run(self) -> tuple[Floats, Bools, Floats]:
        """Changes in kW [v, s] (up positive), whether they remove the violation [v], and how much one kW up worsens
        it at the start [v, s]."""
        moved = np.zeros(self.node.shape)
        kept = np.zeros(len(moved), dtype=np.bool_)
        first = np.zeros(self.node.shape)
        waiting = np.arange(len(moved))
        for turn in range(PASSES):
            excess, slope = self._differences(waiting, moved[waiting])
            if turn == 0:
                first = slope
            kept[waiting] = excess <= KEPT
            step = np.array(
                [
                    self._step(v, *at)
                    for v, *at in zip(waiting.tolist(), excess.tolist(), slope, moved[waiting], strict=True)
                ]
            )
            able = step.any(axis=1)
            waiting = waiting[able]
            if not len(waiting):
                break
            moved[waiting] += step[able]
        else:
            kept[waiting] = self._differences(waiting, moved[waiting])[0] <= KEPT
        return moved, kept, first

    def _step(self, v: int, excess: float, slope: Floats, moved: Floats) -> Floats:
        """Least further change that removes `excess` on the linearisation; all there is where that is not enough."""
        up = slope < 0
        room = np.where(up, self.up_kw[v] - moved, self.down_kw[v] + moved)
        relief = np.abs(slope)
        step = np.zeros(len(slope))
        if excess <= KEPT:
            return step
        for s in np.lexsort((np.arange(len(slope)), -relief)).tolist():
            if excess <= 0 or relief[s] <= ACTS * relief.max() or relief[s] == 0:
                break
            if room[s] > 0:
                size = min(room[s], excess / relief[s])
                step[s] = size if up[s] else -size
                excess -= size * relief[s]
        return step

    def _differences(self, rows: Ints, moved: Floats) -> tuple[Floats, Floats]:
        """Excess of each violation [r] after the changes, and its slope in pu or share per kW up [r, s]."""
        slots = self.node.shape[1]
        excess, slope = np.zeros(len(rows)), np.zeros((len(rows), slots))
        size = max(1, BATCH // (2 * slots + 1))
        steps = np.concatenate([np.zeros((1, slots)), STEP_KW * np.eye(slots), -STEP_KW * np.eye(slots)])
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            change = moved[start : start + size, None, :] + steps
            found = self._solved(part, change)
            for i, v in enumerate(part.tolist()):
                states = np.arange(i * len(steps), (i + 1) * len(steps))
                value = _excess(found, states, self.broken[v])
                excess[start + i] = value[0]
                slope[start + i] = (value[1 : slots + 1] - value[slots + 1 :]) / (2 * STEP_KW)
        return excess, slope

    def _solved(self, rows: Ints, change: Floats) -> PhaseState:
        """The states of some violations with changes in kW [r, j, s], r times j of them."""
        at = np.arange(len(rows))[:, None, None], np.arange(change.shape[1])[:, None], self.node[rows][:, None, :]
        p_kw = change[..., None] * self.share[rows][:, None]
        q_kvar = p_kw * self.tan_phi[rows][:, None, :, None]
        moved = []
        for base, kw in ((self.state.p_mw, p_kw), (self.state.q_mvar, q_kvar)):
            total = np.repeat(base[self.when[rows]][:, None], change.shape[1], axis=1)
            np.add.at(total, at, kw / 1000)
            moved.append(total.reshape(-1, *base.shape[1:]))
        return solve(self.state.grid, *moved)


def _excess(state: PhaseState, periods: Ints, violation: PhaseViolation) -> Floats:
    """By how much some periods of a state break what the violation names, negative where they keep it."""
    network = state.grid.network
    names = network.branch_names if violation.kind in _OF_BRANCHES else network.node_names
    i = names.index(violation.element)
    f = PHASES.index(violation.phase) if violation.phase else 0
    side = -1.0 if violation.kind is PhaseLimit.VOLTAGE_LOW else 1.0
    if violation.kind is PhaseLimit.LOADING:
        value = state.loading[periods, i, f]
    elif violation.kind is PhaseLimit.NEUTRAL:
        value = state.neutral_loading[periods, i]
    elif violation.kind is PhaseLimit.UNBALANCE:
        value = state.unbalance[periods, i]
    else:
        value = state.vm[periods, i, f]
    beyond: Floats = side * (value - violation.bound)
    return beyond


_OF_BRANCHES = (PhaseLimit.LOADING, PhaseLimit.NEUTRAL)


def _buses(network: Network, broken: Sequence[PhaseViolation]) -> Ints:
    """The node of each violation: its own, or a branch's end away from the source."""
    closed = network.from_on & network.to_on
    ends = network.from_node[closed], network.to_node[closed]
    graph = sparse.coo_array((np.ones(closed.sum()), ends), shape=(network.n, network.n))
    away = csgraph.shortest_path(graph.tocsr(), directed=False, unweighted=True, indices=network.slack)
    nodes = {name: i for i, name in enumerate(network.node_names)}
    branches = {name: b for b, name in enumerate(network.branch_names)}
    found = []
    for violation in broken:
        if violation.kind in _OF_BRANCHES:
            b = branches[violation.element]
            found.append(max(network.from_node[b], network.to_node[b], key=lambda node: away[node]))
        else:
            found.append(nodes[violation.element])
    return np.array(found, dtype=np.int64)


def _volumes(moved: Floats) -> tuple[PhaseVolume, ...]:
    """Whole kW, rounded up: a need is never stated too small."""
    return tuple(
        PhaseVolume(phase, Direction.UP if kw > 0 else Direction.DOWN, int(np.ceil(abs(kw))))
        for phase, kw in zip(PHASES, moved.tolist(), strict=True)
        if kw
    )


def _acting(reach: PhaseReach, worsening: Floats, up_kw: Floats, down_kw: Floats) -> tuple[ActingPhaseUnit, ...]:
    """The units that relieve and can move that way, by falling effect."""
    able = np.where(worsening < 0, up_kw, down_kw) > 0
    relief = np.abs(worsening)
    acting = np.flatnonzero(able & (relief > ACTS * max(float(relief.max(initial=0.0)), 1e-12)))
    named = acting[np.lexsort((acting, -relief[acting]))][:NAMED]
    return tuple(
        ActingPhaseUnit(
            reach.names[u],
            PHASES[int(np.argmax(reach.share[u]))] if reach.share[u].max() == 1 else None,
            Direction.UP if worsening[u] < 0 else Direction.DOWN,
            round(float(relief[u]), 9),
        )
        for u in named.tolist()
    )
