"""Conservation voltage reduction: less load by a lower tap (document T, scenario II).

A load follows the voltage at its node, from what it draws at the voltage V0 that it has at the normal tap,

    exponential   P = P0 (V/V0)^kp                    Q = Q0 (V/V0)^kq
    ZIP           P = P0 (z (V/V0)^2 + i (V/V0) + 1 - z - i),   Q alike with shares of its own

kp and kq are its exponents: 0 constant power, 1 constant current, 2 constant impedance (IEEE Task Force on Load
Representation, IEEE Trans. Power Systems 8 (1993) 472, DOI 10.1109/59.260837). Power flow and loads are brought into
agreement by turns: powers at the last voltages, voltages at the last powers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from coflex.domain.errors import Finding, GridFailure, refuse
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid import assess
from coflex.grid.network import Network, build, moved
from coflex.grid.powerflow import GridState, Method, solve
from coflex.grid.tables import GridTables, Transformer

# Power in MVA by which powers and voltages may disagree, and how often they are brought nearer.
AGREED = 1e-8
TURNS = 60
# A load reduction is told in whole kW, rounded down but for a watt that computing may have cost.
WATT = 1e-3


class LoadModel(Protocol):
    """How k loads follow the voltage: factors of active and of reactive power (t, k) at voltages (t, k) as shares of
    those at the normal tap."""

    def factors(self, ratio: Floats) -> tuple[Floats, Floats]: ...

    def faults(self) -> Iterator[Finding]: ...


@dataclass(frozen=True, eq=False)
class Exponential:
    """Exponents `kp[k]`, `kq[k]` of each load, not negative."""

    kp: Floats
    kq: Floats

    def factors(self, ratio: Floats) -> tuple[Floats, Floats]:
        return ratio**self.kp, ratio**self.kq

    def faults(self) -> Iterator[Finding]:
        for k in np.flatnonzero(~((self.kp >= 0) & (self.kq >= 0))).tolist():
            yield Finding(f"load {k}", "impossible_value", "An exponent is a number of 0 or more; correct it.")


@dataclass(frozen=True, eq=False)
class Zip:
    """Shares of each load (k,) that are constant impedance (z) and constant current (i), of active and of reactive
    power; the rest is constant power. Not negative, together at most 1."""

    z_p: Floats
    i_p: Floats
    z_q: Floats
    i_q: Floats

    def factors(self, ratio: Floats) -> tuple[Floats, Floats]:
        p: Floats = self.z_p * ratio**2 + self.i_p * ratio + (1 - self.z_p - self.i_p)
        q: Floats = self.z_q * ratio**2 + self.i_q * ratio + (1 - self.z_q - self.i_q)
        return p, q

    def faults(self) -> Iterator[Finding]:
        shares = np.array([self.z_p, self.i_p, self.z_q, self.i_q])
        able = (shares >= 0).all(axis=0) & (shares[0] + shares[1] <= 1 + 1e-9) & (shares[2] + shares[3] <= 1 + 1e-9)
        for k in np.flatnonzero(~able).tolist():
            message = "Shares of impedance and current lie between 0 and 1 and add to at most 1; correct them."
            yield Finding(f"load {k}", "impossible_value", message)


@dataclass(frozen=True, eq=False)
class VoltageLoads:
    """Loads that follow the voltage: `node[k]`, withdrawals `p_mw[t, k]`, `q_mvar[t, k]` at the normal tap (parts of
    the injections there), and their model."""

    node: Ints
    p_mw: Floats
    q_mvar: Floats
    model: LoadModel


@dataclass(frozen=True, eq=False)
class Reduction:
    """What each of s steps does by itself once those before it are taken, in t periods at n nodes.

    `kw[s, t]`: less load in whole kW, never negative; `change_p_mw`, `change_q_mvar` [s, t, n]: change of the
    injections, positive where less is drawn; `interface_kw[s, t]`: less power from the grid above, in which losses
    count; `lowest_pu[s, t]`: lowest voltage of a node after the step. All but the last are 0 where the step, or one
    before it, would break a limit.
    """

    kw: Ints
    change_p_mw: Floats
    change_q_mvar: Floats
    interface_kw: Floats
    lowest_pu: Floats


def reduce_voltage(
    tables: GridTables,
    transformers: Sequence[str],
    p_mw: Floats,
    q_mvar: Floats,
    loads: VoltageLoads,
    steps: int,
    own: tuple[Bools, Bools] | None = None,
) -> Reduction:
    """What `steps` steps of the taps of `transformers`, moved together towards a lower voltage, take off the loads.

    `p_mw`, `q_mvar` (t, n): injections at the normal tap, loads included. A step is given up in every period in which
    a node would fall below its limit, or a branch go beyond its rating, by more than it did before; so are those that
    follow it. `own`: nodes (n,) and branches (m,) whose limits count, all where it is not given. Raises Refused on
    unknown transformers, too few taps, or loads that cannot be; GridFailure when a period has no solution.
    """
    refuse("The voltage reduction", _check(tables, transformers, loads, steps))
    network = build(tables)
    normal = solve(network, p_mw, q_mvar, Method.CURRENT)
    lowered = [moved(network, _lowered(tables, set(transformers), s)) for s in range(1, steps + 1)]
    able = np.ones(len(p_mw), dtype=np.bool_)
    before = _Setting(normal, np.zeros_like(p_mw), np.zeros_like(q_mvar))
    found = []
    nodes, branches = own or (np.ones(network.n, dtype=np.bool_), np.ones(network.m, dtype=np.bool_))
    for there in lowered:
        after = _settled(there, normal, p_mw, q_mvar, loads)
        able &= ~_breaks(network, before.state, after.state, nodes, branches)
        found.append(_step(network, before, after, able))
        before = after
    if not found:
        return _nothing(*p_mw.shape)
    kw, p, q, interface, lowest = (np.array(part) for part in zip(*found, strict=True))
    return Reduction(kw, p, q, interface, lowest)


@dataclass(frozen=True, eq=False)
class _Setting:
    """The state at a setting of the taps, and by how much injections (t, n) differ from those at the normal one."""

    state: GridState
    p_mw: Floats
    q_mvar: Floats

    @property
    def whole_kw(self) -> Ints:
        """Less load at all nodes, whole kW."""
        whole: Ints = np.floor(1000 * self.p_mw.sum(axis=1) + WATT).astype(np.int64)
        return whole


def _step(
    network: Network, before: _Setting, after: _Setting, able: Bools
) -> tuple[Ints, Floats, Floats, Floats, Floats]:
    """One step's row of each field of a `Reduction`."""
    kw: Ints = np.where(able, np.maximum(after.whole_kw - before.whole_kw, 0), 0)
    p: Floats = np.where(able[:, None], after.p_mw - before.p_mw, 0.0)
    q: Floats = np.where(able[:, None], after.q_mvar - before.q_mvar, 0.0)
    interface: Floats = np.where(able, 1000 * (before.state.interface_p_mw - after.state.interface_p_mw), 0.0)
    lowest: Floats = after.state.vm[:, network.not_slack].min(axis=1, initial=np.inf)
    return kw, p, q, interface, lowest


def _settled(network: Network, normal: GridState, p: Floats, q: Floats, loads: VoltageLoads) -> _Setting:
    """The state at a setting of the taps in which loads and voltages agree, and by how much injections changed."""
    place = np.zeros((len(loads.node), network.n))
    place[np.arange(len(loads.node)), loads.node] = 1.0
    reference = normal.vm[:, loads.node]
    change_p, change_q = np.zeros_like(p), np.zeros_like(q)
    for _ in range(TURNS):
        state = solve(network, p + change_p, q + change_q, Method.CURRENT)
        factor_p, factor_q = loads.model.factors(state.vm[:, loads.node] / reference)
        next_p, next_q = (loads.p_mw * (1 - factor_p)) @ place, (loads.q_mvar * (1 - factor_q)) @ place
        apart = max(np.abs(next_p - change_p).max(initial=0.0), np.abs(next_q - change_q).max(initial=0.0))
        change_p, change_q = next_p, next_q
        if apart < AGREED:
            return _Setting(state, change_p, change_q)
    raise GridFailure(
        f"Loads and voltages do not settle within {TURNS} turns.",
        "The grid is close to collapse; look at loads scaled too far.",
    )


def _breaks(network: Network, before: GridState, after: GridState, nodes: Bools, branches: Bools) -> Bools:
    """Periods (t,) in which a lower limit of these nodes or a rating of these branches is broken more than before."""
    _, low, loading = assess.margins(network, after)
    _, low_before, loading_before = assess.margins(network, before)
    low[:, network.slack] = -np.inf
    with np.errstate(invalid="ignore"):
        worse = (low > assess.TOLERANCE) & (low > low_before + assess.TOLERANCE)
        fuller = (loading > assess.TOLERANCE) & (loading > loading_before + assess.TOLERANCE)
    broken: Bools = np.logical_or((worse & nodes).any(axis=1), (fuller & branches).any(axis=1))
    return broken


def _lowered(tables: GridTables, names: set[str], steps: int) -> GridTables:
    """The tables with some transformers' taps so many steps towards a lower voltage on the lv side."""
    rows = (
        replace(row, tap_pos=_position(row, steps)) if row.transformer in names else row for row in tables.transformers
    )
    return replace(tables, transformers=tuple(rows))


def _position(row: Transformer, steps: int) -> int:
    """More turns on the hv side, or fewer on the lv side, lower the lv voltage."""
    lowers = 1 if (row.tap_side == "hv") == (row.tap_step_percent > 0) else -1
    return row.tap_pos + lowers * steps


def _check(tables: GridTables, transformers: Sequence[str], loads: VoltageLoads, steps: int) -> Iterator[Finding]:
    rows = {row.transformer: row for row in tables.transformers}
    for name in transformers:
        place = f"transformers.csv: {name}"
        if name not in rows:
            yield Finding(place, "unknown_transformer", f"The grid has no transformer '{name}'; correct the name.")
            continue
        row = rows[name]
        last = _position(row, steps)
        if steps < 0 or not row.tap_step_percent or not row.tap_min <= last <= row.tap_max:
            message = f"Its tap cannot be moved {steps} steps from {row.tap_pos}; ask for fewer."
            yield Finding(place, "impossible_tap", message)
    if not transformers:
        yield Finding("transformers", "missing", "Name at least one transformer whose tap is lowered.")
    negative = (loads.p_mw < 0).any(axis=0)
    for k in np.flatnonzero(negative).tolist():
        yield Finding(f"load {k}", "impossible_value", "A load that follows the voltage withdraws; give 0 or more.")
    yield from loads.model.faults()


def _nothing(periods: int, nodes: int) -> Reduction:
    none = np.zeros((0, periods, nodes))
    rows = np.zeros((0, periods))
    return Reduction(rows.astype(np.int64), none, none, rows, rows)
