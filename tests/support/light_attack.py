"""An attack on lights that shares nothing with them but the power flow: random splits and local ascent."""

from __future__ import annotations

import numpy as np

from coflex.domain.quantity import Floats, Ints
from coflex.grid.light import Agents
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Linearisation, Quantities

STEPS = 4
STARTS = 6
BATCH = 2000


def random_splits(rng: np.random.Generator, potential: Floats, part: Ints, allowed: Floats, count: int) -> Floats:
    """A fifth each: greedy in random order (vertices), greedy among few units, uniform, sparse, and greedy but with
    some parts idle."""
    found = np.zeros((count, len(potential)))
    for k in range(count):
        left = allowed.copy()
        order = rng.permutation(len(potential))
        if k % 5 == 1:
            order = order[: max(1, len(order) // 4)]
        if k % 5 == 4:
            left *= rng.random(len(left)) < 0.5
        for u in order.tolist():
            found[k, u] = min(potential[u], left[part[u]])
            left[part[u]] -= found[k, u]
    found[2::5] *= rng.random(found[2::5].shape)
    found[3::5] *= rng.random(found[3::5].shape) < 0.3
    return found


def moved(network: Network, state: GridState, agents: Agents, kw: Floats) -> GridState:
    """States after each split (k, units) of a state of one period."""
    change = np.zeros((2, network.n, len(kw)))
    signed = (agents.sign * kw / 1000).T
    np.add.at(change[0], agents.node, signed)
    np.add.at(change[1], agents.node, signed * agents.tan_phi[:, None])
    return solve(network, state.p_mw[[0]] + change[0].T, state.q_mvar[[0]] + change[1].T)


def margins(network: Network, before: GridState, after: GridState) -> Floats:
    """By how much each limit is broken, or worse than it was where the start breaks it, shape (k, limits)."""
    pq = network.pq
    values = [np.concatenate([s.vm[:, pq], -s.vm[:, pq], s.loading], axis=1) for s in (before, after)]
    bound = np.concatenate([network.v_max[pq], -network.v_min[pq], network.loading_max])
    broken: Floats = values[1] - np.maximum(bound, values[0][[0]])
    return broken


def greedy(effect: Floats, potential: Floats, part: Ints, allowed: Floats) -> Floats:
    """The split that one effect calls worst, written a second time."""
    split, left = np.zeros(len(effect)), allowed.copy()
    for u in np.argsort(-effect, kind="stable").tolist():
        if effect[u] > 0:
            split[u] = min(potential[u], left[part[u]])
            left[part[u]] -= split[u]
    return split


def effects(network: Network, agents: Agents, there: GridState, k: int, limits: Ints) -> Floats:
    """Effect of each unit on some limits (high voltages, low voltages, loadings) at state k, per MW."""
    pq = network.pq
    volts = limits < 2 * len(pq)
    index = np.where(volts, pq[limits % len(pq)], limits - 2 * len(pq))
    from_end = there.loading_from[k] >= there.loading_to[k]
    kind = np.where(volts, VOLTAGE, np.where(from_end[np.where(volts, 0, index)], FROM_END, TO_END))
    wanted = Quantities(np.zeros(len(limits), dtype=np.int64), kind, index)
    dp, dq = Linearisation(network, there.u[[k]]).sensitivities(wanted)
    side = np.where((limits >= len(pq)) & volts, -1.0, 1.0)[:, None]
    effect: Floats = side * agents.sign * (dp[:, agents.node] + agents.tan_phi * dq[:, agents.node])
    return effect


def ascend(
    network: Network, state: GridState, agents: Agents, potential: Floats, allowed: Floats, starts: Floats
) -> float:
    """The largest break found: from each start, the limits that are nearest to broken, the splits that their effects
    there call worst, half of the way to them too, and again from the best."""
    first_loading = 2 * len(network.pq)
    worst, here = -np.inf, starts
    for _ in range(STEPS):
        there = moved(network, state, agents, here)
        broken = margins(network, state, there)
        worst = max(worst, float(broken.max()))
        best = np.argsort(-broken.max(axis=1), kind="stable")[:STARTS]
        found = [here[best]]
        for k in best.tolist():
            loadings = np.argsort(-broken[k, first_loading:])[:3] + first_loading
            near = np.unique(np.r_[np.argsort(-broken[k])[:4], loadings])
            effect = effects(network, agents, there, k, near)
            target = np.array([greedy(row, potential, agents.part, allowed) for row in effect])
            found += [target, (target + here[k]) / 2]
        here = np.concatenate(found)
    return max(worst, float(margins(network, state, moved(network, state, agents, here)).max()))


def breaks(network: Network, state: GridState, agents: Agents, potential: Floats, allowed: Floats, count: int) -> float:
    """The largest break of a limit that `count` random splits, the splits that the start calls worst for each limit,
    and an ascent from the worst of all these find; `state` of one period, `potential[u]` and `allowed[p]` in kW."""
    rng = np.random.default_rng(int(potential.sum()) % 2**32)
    effect = effects(network, agents, state, 0, np.arange(2 * len(network.pq) + network.m))
    called = np.unique([greedy(row, potential, agents.part, allowed) for row in effect], axis=0)
    splits = np.concatenate([called, random_splits(rng, potential, agents.part, allowed, count)])
    worst, candidates = -np.inf, []
    for begin in range(0, len(splits), BATCH):
        some = splits[begin : begin + BATCH]
        broken = margins(network, state, moved(network, state, agents, some)).max(axis=1)
        worst = max(worst, float(broken.max()))
        candidates.append(some[np.argsort(-broken)[:STARTS]])
    return max(worst, ascend(network, state, agents, potential, allowed, np.concatenate(candidates)))
