"""What a DSO tells the TSO for operational planning (GRID-09, GRID-12): profiles of its substations, planned outages
and what they do, load that could be moved between substations, and aggregates by technology.

A substation here is what hangs from the grid above by itself: a component of the network once the source's node is
taken away, named by its feeding branches. Short-circuit power is in `grid.short_circuit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from coflex.domain.errors import Finding, GridFailure, refuse
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid import assess
from coflex.grid.means import Operation, on_the_loop
from coflex.grid.network import Network, moved
from coflex.grid.powerflow import GridState, solve
from coflex.grid.tables import GridTables, Switch


@dataclass(frozen=True, eq=False)
class SubstationProfile:
    """Power into one substation from the grid above, `p_mw[t]`, `q_mvar[t]`, positive into the distribution grid."""

    substation: str
    p_mw: Floats
    q_mvar: Floats


@dataclass(frozen=True, slots=True)
class Outage:
    """A branch that is planned to be out of service in the periods [`begin`, `end`) of the horizon."""

    branch: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class OutageEffect:
    """What an outage does while it lasts: buses without supply and the most power (MW withdrawn) they miss, or the
    limits that are broken beyond those that were broken anyway, and the worst excess in pu or share of a rating."""

    branch: str
    buses_unfed: tuple[str, ...]
    unfed_mw: float
    broken: tuple[str, ...]
    worst_excess: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """Load that moves from one substation to another when `close` closes and `open` opens: MW withdrawn in the period
    in which it is least, with all limits kept in every period."""

    from_substation: str
    to_substation: str
    close: str
    open: str
    p_mw: float


@dataclass(frozen=True, eq=False)
class Aggregate:
    """Sum over one substation: of loads (withdrawal positive) or of generation of one technology, `p_mw[t]`."""

    substation: str
    kind: str
    p_mw: Floats


def substations(network: Network) -> tuple[Ints, tuple[str, ...]]:
    """The substation of every node (-1 for the source's own), and their names: feeding branches joined by '+'."""
    live = network.from_on & network.to_on
    inner = live & (network.from_node != network.slack) & (network.to_node != network.slack)
    edges = network.from_node[inner], network.to_node[inner]
    graph = sparse.csr_array((np.ones(inner.sum()), edges), shape=(network.n, network.n))
    _, component = csgraph.connected_components(graph, directed=False)
    heads: dict[int, list[str]] = {}
    for k in np.flatnonzero(live & ~inner).tolist():
        below = network.to_node[k] if network.from_node[k] == network.slack else network.from_node[k]
        heads.setdefault(int(component[below]), []).append(network.branch_names[k])
    order = sorted(heads, key=lambda c: heads[c])
    place = {c: i for i, c in enumerate(order)}
    of_node = np.array([place.get(int(c), -1) for c in component], dtype=np.int64)
    of_node[network.slack] = -1
    return of_node, tuple("+".join(heads[c]) for c in order)


def profiles(network: Network, state: GridState) -> tuple[SubstationProfile, ...]:
    """Profile of every substation over the periods of a solved state; they sum to the interface."""
    of_node, names = substations(network)
    y_from, y_to = network.terminal_admittance
    p, q = np.zeros((len(names), len(state.u))), np.zeros((len(names), len(state.u)))
    for node, other, admittance in (
        (network.from_node, network.to_node, y_from),
        (network.to_node, network.from_node, y_to),
    ):
        heads = np.flatnonzero((node == network.slack) & network.from_on & network.to_on)
        power = state.u[:, [network.slack]] * np.conj((admittance[heads] @ state.u.T).T)
        for k, branch in enumerate(heads.tolist()):
            p[of_node[other[branch]]] += power[:, k].real
            q[of_node[other[branch]]] += power[:, k].imag
    return tuple(SubstationProfile(name, p[i], q[i]) for i, name in enumerate(names))


def profiles_over(runs: Operation, state: GridState) -> tuple[SubstationProfile, ...]:
    """As `profiles`, each period with the network that holds in it, in the order of names. A substation that switching
    makes in some periods alone takes nothing in the others."""
    found: dict[str, SubstationProfile] = {}
    periods = len(state.u)
    for network, at in runs.parts():
        for one in profiles(network, state.part(at)):
            empty = SubstationProfile(one.substation, np.zeros(periods), np.zeros(periods))
            whole = found.setdefault(one.substation, empty)
            whole.p_mw[at], whole.q_mvar[at] = one.p_mw, one.q_mvar
    return tuple(found[name] for name in sorted(found))


def changed(
    before: Sequence[SubstationProfile], now: Sequence[SubstationProfile], least_mw: float = 0.001
) -> tuple[SubstationProfile, ...]:
    """The profiles that are to be sent again: those that moved by at least `least_mw` (or Mvar) in some period, or of
    which some period is not known yet (nan), and zeros for substations that are no more."""
    known = {one.substation: one for one in before}
    current = {one.substation: one for one in now}
    for name, one in known.items():
        current.setdefault(name, SubstationProfile(name, np.zeros_like(one.p_mw), np.zeros_like(one.q_mvar)))
    return tuple(one for name, one in current.items() if _moved(known.get(name), one, least_mw))


def _moved(before: SubstationProfile | None, now: SubstationProfile, least_mw: float) -> bool:
    if before is None or before.p_mw.shape != now.p_mw.shape:
        return True
    apart = np.abs(np.concatenate([before.p_mw - now.p_mw, before.q_mvar - now.q_mvar])).max(initial=0.0)
    return not apart < least_mw


def outages(network: Network, p_mw: Floats, q_mvar: Floats, planned: Sequence[Outage]) -> tuple[OutageEffect, ...]:
    """What each planned outage does by itself, for injections (t, n) in MW and Mvar. Raises Refused on an unknown
    branch or periods outside the horizon, GridFailure when the grid has no state even without it."""
    refuse("The planned outages", _check_outages(network, len(p_mw), planned))
    return tuple(
        _outage(network, p_mw[one.begin : one.end], q_mvar[one.begin : one.end], one.branch) for one in planned
    )


def _check_outages(network: Network, periods: int, planned: Sequence[Outage]) -> list[Finding]:
    findings = []
    for one in planned:
        place = f"outages.csv: {one.branch}"
        if one.branch not in network.branch_names:
            findings.append(Finding(place, "unknown_branch", f"The grid has no branch '{one.branch}'; correct it."))
        if not 0 <= one.begin < one.end <= periods:
            message = f"An outage lasts from a period on to a later one, between 0 and {periods}."
            findings.append(Finding(place, "outside_horizon", message))
    return findings


def _outage(network: Network, p: Floats, q: Floats, branch: str) -> OutageEffect:
    out = network.branch_names.index(branch)
    off = np.arange(network.m) == out
    without = replace(network, from_on=network.from_on & ~off, to_on=network.to_on & ~off)
    unfed = _unfed(without)
    if unfed.any():
        buses = tuple(b for b, i in zip(network.bus_names, network.node_of_bus.tolist(), strict=True) if unfed[i])
        missing = float(np.maximum(-p[:, unfed], 0.0).sum(axis=1).max(initial=0.0))
        return OutageEffect(branch, buses, missing, (), 0.0)
    before = _excess(network, solve(network, p, q))
    try:
        after = _excess(without, solve(without, p, q))
    except GridFailure:
        return OutageEffect(branch, (), 0.0, ("no state: the grid collapses",), float("inf"))
    worse = after > np.maximum(before, 0.0) + assess.TOLERANCE
    worst = float(np.where(worse, after, 0.0).max(initial=0.0))
    ever: Bools = np.asarray(worse.any(axis=0))
    return OutageEffect(branch, (), 0.0, tuple(_names(network, ever)), worst)


def _unfed(network: Network) -> Bools:
    live = network.from_on & network.to_on
    graph = sparse.csr_array(
        (np.ones(live.sum()), (network.from_node[live], network.to_node[live])), shape=(network.n, network.n)
    )
    _, component = csgraph.connected_components(graph, directed=False)
    unfed: Bools = component != component[network.slack]
    return unfed


def _excess(network: Network, state: GridState) -> Floats:
    """How far every limit is broken, (t, limits): high and low voltages of all nodes, then loadings."""
    high, low, loading = assess.margins(network, state)
    high[:, network.slack] = low[:, network.slack] = -np.inf
    return np.concatenate([high, low, loading], axis=1)


def _names(network: Network, broken: Bools) -> list[str]:
    n = network.n
    told = [f"voltage_high {name}" for name in network.node_names]
    told += [f"voltage_low {name}" for name in network.node_names]
    told += [f"loading {name}" for name in network.branch_names]
    assert len(told) == 2 * n + network.m == len(broken)
    return [name for name, worse in zip(told, broken.tolist(), strict=True) if worse]


def transfers(tables: GridTables, network: Network, p_mw: Floats, q_mvar: Floats) -> tuple[Transfer, ...]:
    """For each pair of substations, the single exchange of open point that moves most load with every limit kept, by
    AC power flow in all periods. None where no tie joins them, or every exchange breaks a limit anew."""
    of_node, names = substations(network)
    before = _excess(network, solve(network, p_mw, q_mvar))
    best: dict[tuple[int, int], Transfer] = {}
    switches = {row.switch: row for row in tables.switches}
    for tie in tables.switches:
        if tie.closed or tie.kind == "bus":
            continue
        for opening in on_the_loop(network, tables, tie):
            there = moved(network, _exchanged(tables, switches[opening], tie))
            found = _transfer(network, there, of_node, names, p_mw, q_mvar, before)
            if found is None:
                continue
            giving, taking, mw = found
            known = best.get((giving, taking))
            if mw > 0 and (known is None or mw > known.p_mw):
                best[giving, taking] = Transfer(names[giving], names[taking], tie.switch, opening, mw)
    return tuple(best[key] for key in sorted(best))


def _exchanged(tables: GridTables, opening: Switch, closing: Switch) -> GridTables:
    return replace(
        tables,
        switches=tuple(
            replace(row, closed=row.switch == closing.switch) if row.switch in (opening.switch, closing.switch) else row
            for row in tables.switches
        ),
    )


def _transfer(
    network: Network,
    there: Network,
    of_node: Ints,
    names: tuple[str, ...],
    p: Floats,
    q: Floats,
    before: Floats,
) -> tuple[int, int, float] | None:
    """Who gives load to whom at another setting, and the most of it; None when a limit breaks or nothing moves."""
    after_of_node, after_names = substations(there)
    if after_names != names:
        return None
    went = np.flatnonzero(of_node != after_of_node)
    if not len(went):
        return None
    try:
        after = _excess(there, solve(there, p, q))
    except GridFailure:
        return None
    if (after > np.maximum(before, 0.0) + assess.TOLERANCE).any():
        return None
    mw = float(-p[:, went].sum(axis=1).min())
    return int(of_node[went[0]]), int(after_of_node[went[0]]), mw


def aggregates(
    network: Network, tables: GridTables, p_mw: Floats, technology: Mapping[str, str] | None = None
) -> tuple[Aggregate, ...]:
    """Load and generation by technology of each substation from element powers (elements, t) in MW, injection positive.

    `technology` of generators by name, where it is not the tables' own. Storages count as the technology "storage".
    """
    of_node, names = substations(network)
    kinds = ["load"] * len(tables.loads)
    kinds += [(technology or {}).get(row.generator, row.technology) or "other" for row in tables.generators]
    kinds += ["storage"] * len(tables.storages)
    place = of_node[network.element_node]
    found = []
    for s, name in enumerate(names):
        for kind in sorted(set(kinds)):
            mine = (place == s) & np.array([k == kind for k in kinds])
            if mine.any():
                total = p_mw[mine].sum(axis=0)
                found.append(Aggregate(name, kind, -total if kind == "load" else total))
    return tuple(found)
