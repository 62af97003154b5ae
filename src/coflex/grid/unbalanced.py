"""Unbalanced power flow of three phases with their neutral, by power-grid-model's asymmetric calculation.

Lines and transformers are described by symmetrical components (zero, positive, negative sequence). A node has a
neutral where zero sequence current finds its way to an earthed star point; phase currents there return through it.
Elsewhere loads are joined between phases: their zero sequence circulates inside them, which an earth at the node
stands for (exact to first order for constant power). Constant power, ideal source.

Sources: C. L. Fortescue, "Method of symmetrical co-ordinates", Trans. AIEE 37 (1918) 1027,
DOI 10.1109/T-AIEE.1918.4765570; IEC TR 60909-2:2008 for zero sequence impedances; EN 50160:2010, 4.2.4 and
IEC 61000-2-2:2002, 4.6: negative sequence up to 2 % of the positive one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from power_grid_model import ComponentType, DatasetType, PowerGridModel, WindingType, initialize_array
from power_grid_model.errors import PowerGridError  # type: ignore[attr-defined]
from scipy import sparse
from scipy.sparse import csgraph

from coflex.domain.errors import Finding, GridFailure, refuse
from coflex.domain.phase import Phase, PhaseLimit, PhaseViolation
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.domain.time import Axis
from coflex.grid import powerflow
from coflex.grid.network import FREQUENCY_HZ, Complexes, Network
from coflex.grid.powerflow import BASE_VA, CHANGE
from coflex.grid.tables import GridTables, Line, Transformer

_TURN = np.exp(2j * np.pi / 3)
# Columns: zero, positive, negative sequence; rows: phases a, b, c.
TO_PHASES = np.array([[1, 1, 1], [1, _TURN**2, _TURN], [1, _TURN, _TURN**2]])
TO_SEQUENCES = np.conj(TO_PHASES) / 3
PHASES = tuple(Phase)
# A neutral like the phases: its current returns the zero sequence of all three, r + 3 r = 4 r.
ZERO_SEQUENCE_RATIO = 4.0
# An earth that leaves no zero sequence voltage, in pu.
EARTH = 1e6
# Zero sequence leakage of a zigzag winding over the positive one.
ZIGZAG = 0.1
LOW_VOLTAGE_KV = 1.0

_GROUP = re.compile(r"(YN|Y|D|ZN|Z)(yn|y|d|zn|z)(\d{0,2})")
_WINDINGS = {
    "y": WindingType.wye,
    "yn": WindingType.wye_n,
    "d": WindingType.delta,
    "z": WindingType.zigzag,
    "zn": WindingType.zigzag_n,
}


@dataclass(frozen=True)
class PhaseLimits:
    """Limits beside those of the network: negative sequence as a share of the positive one (EN 50160), and the
    neutral's current as a share of the phases' rating (1: a neutral like the phases)."""

    unbalance: float = 0.02
    neutral: float = 1.0


@dataclass(frozen=True, eq=False)
class PhaseGrid:
    """A network with its phases and its zero sequence. n nodes, m branches, k elements.

    `share[k, 3]`: how an element's power stands on the phases. `zero`: terminal admittances of zero sequence, each
    (m, n). `neutral[n]`: where single-phase loads can be. `assumed`: what the tables do not say and was taken as
    usual, each with its place. `tables`: what it was built of.
    """

    network: Network
    share: Floats
    zero: tuple[sparse.csr_array, sparse.csr_array]
    neutral: Bools
    assumed: tuple[Finding, ...]
    tables: GridTables
    engine: PowerGridModel

    def __reduce__(self) -> tuple[Callable[..., PhaseGrid], tuple[GridTables, Network]]:
        """A copy is built anew: the engine is memory of its own, which a copied pointer would free twice."""
        return build, (self.tables, self.network)

    @cached_property
    def terminal_admittances(self) -> tuple[tuple[sparse.csr_array, sparse.csr_array], ...]:
        """(Y_from, Y_to) of zero, positive and negative sequence. The last turns the other way."""
        turned = replace(self.network, tap=np.conj(self.network.tap))
        return self.zero, self.network.terminal_admittance, turned.terminal_admittance


@dataclass(frozen=True, eq=False)
class PhaseState:
    """Solved unbalanced states. t periods, n nodes, m branches; the last axis is the phases a, b, c.

    `u[t, n, 3]`: voltage to neutral in pu of the rated one; `p_mw`, `q_mvar` [t, n, 3]: injections that led to it
    (the slack's are free).
    """

    grid: PhaseGrid
    u: Complexes
    p_mw: Floats
    q_mvar: Floats

    @cached_property
    def vm(self) -> Floats:
        """Voltage of each phase to neutral in pu, shape (t, n, 3)."""
        magnitude: Floats = np.abs(self.u)
        return magnitude

    @cached_property
    def sequences(self) -> Complexes:
        """Voltages of zero, positive and negative sequence in pu, shape (t, n, 3)."""
        voltages: Complexes = self.u @ TO_SEQUENCES.T
        return voltages

    @cached_property
    def unbalance(self) -> Floats:
        """Voltage unbalance factor: negative over positive sequence, shape (t, n)."""
        factor: Floats = np.abs(self.sequences[..., 2]) / np.abs(self.sequences[..., 1])
        return factor

    @cached_property
    def currents(self) -> tuple[Complexes, Complexes]:
        """Currents into each branch at its from and its to end in pu of 1 MVA on three phases, each (t, m, 3)."""
        ends = []
        for end in (0, 1):
            pairs = zip(self.grid.terminal_admittances, np.moveaxis(self.sequences, 2, 0), strict=True)
            by_sequence = [(y[end] @ np.ascontiguousarray(u.T)).T for y, u in pairs]
            ends.append(np.stack(by_sequence, axis=-1) @ TO_PHASES.T)
        return ends[0], ends[1]

    @cached_property
    def loading(self) -> Floats:
        """The larger end's current in each phase as a share of the rating, shape (t, m, 3)."""
        (at_from, at_to), (first, second) = self.currents, _ratings(self.grid.network)
        share: Floats = np.maximum(np.abs(at_from) / first[:, None], np.abs(at_to) / second[:, None])
        return share

    @cached_property
    def neutral_loading(self) -> Floats:
        """The larger end's neutral current as a share of the phases' rating, shape (t, m)."""
        (at_from, at_to), (first, second) = self.currents, _ratings(self.grid.network)
        share: Floats = np.maximum(np.abs(at_from.sum(axis=2)) / first, np.abs(at_to.sum(axis=2)) / second)
        return share

    @cached_property
    def delivered(self) -> Complexes:
        """Power into all branches and shunts at each node by phase in MW and Mvar, shape (t, n, 3): what is injected
        there, and at the slack what the grid above delivers."""
        network = self.grid.network
        drawn = np.zeros(self.u.shape, dtype=np.complex128)
        for f in range(3):
            onto = zip((network.from_node, network.to_node), self.currents, strict=True)
            drawn[..., f] = sum((_incidence(node, network.n) @ i[..., f].T).T for node, i in onto)
        to_earth = self.sequences.copy()
        to_earth[..., 0] *= np.where(self.grid.neutral, 0, EARTH)
        to_earth[..., 1:] *= network.node_shunt[:, None]
        power: Complexes = self.u * np.conj(drawn + to_earth @ TO_PHASES.T) / 3
        return power

    @property
    def interface(self) -> Complexes:
        """What the grid above delivers in each phase in MW and Mvar, positive into this grid, shape (t, 3)."""
        return self.delivered[:, self.grid.network.slack]

    @property
    def losses_mw(self) -> Floats:
        """Active losses of the whole grid, shape (t,)."""
        losses: Floats = self.interface.real.sum(axis=1) + self.p_mw.sum(axis=(1, 2))
        return losses


def build(tables: GridTables, network: Network) -> PhaseGrid:
    """The phases of a network that `grid.network.build` made of the same tables.

    Zero sequence impedances that are not given are taken as usual: 4 r and 4 x of a line (a neutral like the phases,
    IEC TR 60909-2), c of a line, and vk of a transformer. Raises Refused with every fault at once: what has no zero
    sequence at all, vector groups that cannot be, single-phase elements without a neutral.
    """
    refuse("The unbalanced grid", [*_unfit(tables), *_wrong_groups(tables.transformers)])
    neutral, zero = _zero_sequence(tables, network, _groups(tables))
    refuse("The unbalanced grid", _without_neutral(tables, network, neutral))
    phases = (
        [row.phase for row in tables.loads] + [row.phase for row in tables.generators] + [""] * len(tables.storages)
    )
    share = np.array([_share(phase) for phase in phases], dtype=np.float64).reshape(-1, 3)
    engine = PowerGridModel(components(tables, network, neutral), system_frequency=FREQUENCY_HZ)
    return PhaseGrid(network, share, zero, neutral, tuple(_assumptions(tables)), tables, engine)


def injections(grid: PhaseGrid, elements: Floats) -> Floats:
    """Element powers (elements, periods) summed to nodes and phases, shape (periods, nodes, 3)."""
    onto = grid.network.element_incidence.T
    return np.stack([(onto @ (elements * grid.share[:, [f]])).T for f in range(3)], axis=-1)


def solve(grid: PhaseGrid, p_mw: Floats, q_mvar: Floats) -> PhaseState:
    """Unbalanced power flow for injections of shape (t, n, 3) in MW and Mvar; the slack's own are ignored.

    Raises GridFailure naming the first period that has no solution, or an injection that is not a number.
    """
    network = grid.network
    own_p, own_q = p_mw.copy(), q_mvar.copy()
    own_p[:, network.slack] = own_q[:, network.slack] = 0.0
    if not len(p_mw):
        return PhaseState(grid, np.zeros(p_mw.shape, dtype=np.complex128), own_p, own_q)
    if not (np.isfinite(own_p).all() and np.isfinite(own_q).all()):
        t, node, _ = np.argwhere(~(np.isfinite(own_p) & np.isfinite(own_q)))[0]
        raise GridFailure(
            f"An injection at {network.node_names[node]} in period {t} is not a number.",
            "Fill the gap in the series that it comes from.",
        )
    inner = network.not_slack
    column = {"p_specified": own_p[:, inner] * -BASE_VA, "q_specified": own_q[:, inner] * -BASE_VA}
    try:
        result = grid.engine.calculate_power_flow(
            symmetric=False,
            update_data={ComponentType.asym_load: column},
            output_component_types={ComponentType.node: ["u_pu", "u_angle"]},
            error_tolerance=CHANGE,
            max_iterations=50,
            threading=0,
        )
    except PowerGridError as failure:
        failed = getattr(failure, "failed_scenarios", np.zeros(1, int))
        raise GridFailure(
            f"The unbalanced power flow of period {int(failed[0])} has no solution.",
            "The grid cannot carry these injections; look at loads and generation scaled too far on one phase.",
        ) from failure
    node = result[ComponentType.node]
    return PhaseState(grid, node["u_pu"] * np.exp(1j * node["u_angle"]), own_p, own_q)


def violations(
    state: PhaseState, axis: Axis, limits: PhaseLimits | None = None, tolerance: float = 1e-6
) -> tuple[PhaseViolation, ...]:
    """Every limit that a phase, a neutral or a node's balance breaks, in the order of time, kind, element and phase."""
    network, limits = state.grid.network, limits or PhaseLimits()
    inner = (np.arange(network.n) != network.slack)[:, None]
    high, low, loading = network.v_max[:, None], network.v_min[:, None], network.loading_max[:, None]
    nodes, branches = network.node_names, network.branch_names
    unbalance, neutral = state.unbalance[..., None], state.neutral_loading[..., None]
    tests = (
        (PhaseLimit.VOLTAGE_HIGH, nodes, state.vm, high, inner & (state.vm > high + tolerance)),
        (PhaseLimit.VOLTAGE_LOW, nodes, state.vm, low, inner & (state.vm < low - tolerance)),
        (PhaseLimit.LOADING, branches, state.loading, loading, state.loading > loading + tolerance),
        (PhaseLimit.NEUTRAL, branches, neutral, limits.neutral, neutral > limits.neutral + tolerance),
        (PhaseLimit.UNBALANCE, nodes, unbalance, limits.unbalance, inner & (unbalance > limits.unbalance + tolerance)),
    )
    instants, found = tuple(axis), []
    for kind, names, value, bound, broken in tests:
        bounds = np.broadcast_to(bound, value.shape[1:])
        for t, i, f in np.argwhere(broken).tolist():
            phase = PHASES[f] if value.shape[2] == 3 else None
            found.append(PhaseViolation(instants[t], names[i], kind, phase, float(value[t, i, f]), float(bounds[i, f])))
    return tuple(sorted(found, key=lambda v: (v.start, v.kind, v.element, v.phase or "")))


# ---------------------------------------------------------------- what the tables say, and what they do not


def _ratings(network: Network) -> tuple[Floats, Floats]:
    return network.rating_from, network.rating_to


def _incidence(node: Ints, n: int) -> sparse.csr_array:
    """Shape (n, branches): sums what enters the branches at one end to nodes."""
    return sparse.csr_array((np.ones(len(node)), (node, np.arange(len(node)))), shape=(n, len(node)))


def _share(phase: str) -> list[float]:
    return [1.0 if phase == one else 0.0 for one in PHASES] if phase else [1 / 3] * 3


def _windings(row: Transformer) -> tuple[str, str] | None:
    """Windings at the hv and the lv side, lower case; None where the group is no group. A group that is not given is
    the usual one."""
    if not row.vector_group:
        odd = round(row.shift_degree / 30) % 2 == 1
        return (("d", "yn") if row.vn_lv_kv <= LOW_VOLTAGE_KV else ("yn", "d")) if odd else ("yn", "yn")
    match = _GROUP.fullmatch(row.vector_group)
    return (match[1].lower(), match[2]) if match else None


def _unfit(tables: GridTables) -> Iterator[Finding]:
    for branch in tables.branches:
        message = "A branch in per unit has no zero sequence; give it as a line or a transformer."
        yield Finding(f"branches.csv: {branch.branch}", "no_zero_sequence", message)
    for generator in tables.generators:
        if generator.vm_pu:
            message = "Voltages are not held in unbalanced states; set vm_pu to 0."
            yield Finding(f"generators.csv: {generator.generator}", "voltage_held", message)
    phased = [(f"loads.csv: {row.load}", row.phase) for row in tables.loads]
    phased += [(f"generators.csv: {row.generator}", row.phase) for row in tables.generators]
    for place, phase in phased:
        if phase and phase not in PHASES:
            yield Finding(place, "unknown_phase", f"There is no phase '{phase}'; write a, b or c, or nothing.")
    for line in tables.lines:
        if min(line.r0_ohm, line.x0_ohm, line.c0_nf) < 0:
            message = "Zero sequence r0, x0 and c0 are 0 (not known) or more."
            yield Finding(f"lines.csv: {line.line}", "impossible_value", message)
    for row in tables.transformers:
        if row.vk0_percent and not 0 <= row.vkr0_percent <= row.vk0_percent:
            message = "Zero sequence needs 0 <= vkr0 <= vk0."
            yield Finding(f"transformers.csv: {row.transformer}", "impossible_value", message)


def _groups(tables: GridTables) -> list[tuple[str, str]]:
    return [group for group in map(_windings, tables.transformers) if group is not None]


def _wrong_groups(rows: tuple[Transformer, ...]) -> Iterator[Finding]:
    for row in rows:
        group = _windings(row)
        place, clock = f"transformers.csv: {row.transformer}", round(row.shift_degree / 30)
        if group is None:
            message = f"'{row.vector_group}' is no vector group; write one as Dyn5 or YNyn0."
            yield Finding(place, "unknown_vector_group", message)
            continue
        odd = (group[0][0] == "y") != (group[1][0] == "y")
        given = re.sub(r"\D", "", row.vector_group)
        if abs(row.shift_degree - 30 * clock) > 1e-6 or (clock % 2 == 1) != odd:
            message = (
                f"Windings {group[0].upper()}{group[1]} turn by {'odd' if odd else 'even'} multiples of 30 degrees, "
            )
            yield Finding(place, "vector_group_turn", f"{message}not by {row.shift_degree:g}; correct shift_degree.")
        elif given and int(given) % 12 != clock % 12:
            message = f"{row.vector_group} turns by {30 * int(given)} degrees, shift_degree says {row.shift_degree:g}."
            yield Finding(place, "vector_group_turn", message)


def _assumptions(tables: GridTables) -> Iterator[Finding]:
    lines = [row.line for row in tables.lines if not (row.r0_ohm and row.x0_ohm)]
    groups = [row.transformer for row in tables.transformers if not row.vector_group]
    leakage = [row.transformer for row in tables.transformers if not row.vk0_percent]
    usual = (
        ("lines.csv", "zero_sequence_assumed", lines, "zero sequence impedance is 4 times the positive one"),
        ("transformers.csv", "vector_group_assumed", groups, "vector group is Dyn at low voltage, else YNd or YNyn"),
        ("transformers.csv", "zero_sequence_assumed", leakage, "zero sequence impedance is the positive one"),
    )
    for place, code, names, what in usual:
        if names:
            some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            yield Finding(place, code, f"Not given for {some}: the {what}; fill the columns if it is known.")


def _without_neutral(tables: GridTables, network: Network, neutral: Bools) -> Iterator[Finding]:
    phased = [(f"loads.csv: {row.load}", row.bus) for row in tables.loads if row.phase]
    phased += [(f"generators.csv: {row.generator}", row.bus) for row in tables.generators if row.phase]
    for place, bus in phased:
        if not neutral[network.node_of(bus)]:
            message = (
                f"Bus {bus} has no neutral for a single-phase element; its transformer earths no star point there."
            )
            yield Finding(place, "no_neutral", message)


# ---------------------------------------------------------------- zero sequence


def _zero_sequence(
    tables: GridTables, network: Network, groups: list[tuple[str, str]]
) -> tuple[Bools, tuple[sparse.csr_array, sparse.csr_array]]:
    """Where there is a neutral, and the terminal admittances of zero sequence.

    A transformer lets zero sequence through if both star points are earthed, and leads it to earth at an earthed star
    point opposite a delta, or at an earthed zigzag winding.
    """
    passes = [group == ("yn", "yn") for group in groups]
    through = np.array([True] * len(tables.lines) + passes, dtype=np.bool_)
    series, shunt, tap = _zero_branches(tables, network, groups)
    earth_from, earth_to = np.zeros(network.m, dtype=np.complex128), np.zeros(network.m, dtype=np.complex128)
    for b, (hv, lv) in enumerate(groups, start=len(tables.lines)):
        if network.from_on[b] and (hv == "zn" or (hv, lv) == ("yn", "d")):
            earth_from[b] = series[b] / abs(tap[b]) ** 2
        if network.to_on[b] and (lv == "zn" or (hv, lv) == ("d", "yn")):
            earth_to[b] = series[b]
    from_on, to_on = network.from_on & through, network.to_on & through
    passing = replace(network, y_series=series, y_shunt=shunt, tap=tap, from_on=from_on, to_on=to_on)
    rows, shape = np.arange(network.m), (network.m, network.n)
    y_from = passing.terminal_admittance[0] + sparse.csr_array((earth_from, (rows, network.from_node)), shape=shape)
    y_to = passing.terminal_admittance[1] + sparse.csr_array((earth_to, (rows, network.to_node)), shape=shape)
    live = np.flatnonzero(from_on & to_on)
    edges = (network.from_node[live], network.to_node[live])
    joined = sparse.coo_array((np.ones(len(live)), edges), shape=(network.n, network.n))
    _, part = csgraph.connected_components(joined, directed=False)
    feet = np.r_[network.slack, network.from_node[earth_from != 0], network.to_node[earth_to != 0]]
    return np.isin(part, part[feet]), (sparse.csr_array(y_from), sparse.csr_array(y_to))


def _zero_branches(
    tables: GridTables, network: Network, groups: list[tuple[str, str]]
) -> tuple[Complexes, Complexes, Complexes]:
    """Series and shunt admittance and ratio of zero sequence of each branch, in pu as the network's."""
    lines = len(tables.lines)
    base = network.vn_kv[network.to_node[:lines]] ** 2
    ohm = np.array([_zero_ohm(row) for row in tables.lines], dtype=np.complex128)
    nano_farad = np.array([row.c0_nf or row.c_nf for row in tables.lines], dtype=np.float64)
    ratio = [_zero_ratio(*pair) for pair in zip(tables.transformers, groups, strict=True)]
    series = np.r_[base / ohm, network.y_series[lines:] / np.array(ratio, dtype=np.complex128)]
    shunt = np.zeros(network.m, dtype=np.complex128)
    shunt[:lines] = 2j * np.pi * FREQUENCY_HZ * 1e-9 * base * nano_farad
    reversed_ = [round(row.shift_degree / 30) % 12 in (2, 6, 10) for row in tables.transformers]
    tap = np.abs(network.tap) * np.where(np.array([False] * lines + reversed_, dtype=np.bool_), -1, 1)
    return series, shunt, tap.astype(np.complex128)


def _zero_ohm(row: Line) -> complex:
    return complex(row.r0_ohm or ZERO_SEQUENCE_RATIO * row.r_ohm, row.x0_ohm or ZERO_SEQUENCE_RATIO * row.x_ohm)


def _zero_ratio(row: Transformer, group: tuple[str, str]) -> complex:
    """Zero sequence impedance over the positive one. That of a zigzag winding is a tenth where it is not given."""
    if not row.vk0_percent:
        return ZIGZAG if "zn" in group else 1.0
    return _leakage(row.vk0_percent, row.vkr0_percent) / _leakage(row.vk_percent, row.vkr_percent)


def _leakage(vk: float, vkr: float) -> complex:
    return complex(vkr, np.sqrt(vk**2 - vkr**2))


# ---------------------------------------------------------------- the engine


def components(tables: GridTables, network: Network, neutral: Bools) -> dict[ComponentType, np.ndarray]:
    """The engine's input with lines and transformers of three sequences and an asymmetric load at each node but the
    slack; ids as in `powerflow.components`."""
    earthed = np.flatnonzero((network.node_shunt != 0) | ~neutral)
    shunt = powerflow.shunts(network, earthed)
    shunt["g0"] = np.where(neutral[earthed], 0.0, EARTH / network.vn_kv[earthed] ** 2)
    return {
        ComponentType.node: powerflow.nodes(network),
        ComponentType.line: _lines(tables, network),
        ComponentType.transformer: _transformers(tables, network, _groups(tables)),
        ComponentType.asym_load: powerflow.loads(network, ComponentType.asym_load),
        ComponentType.source: powerflow.source(network),
        ComponentType.shunt: shunt,
    }


def _lines(tables: GridTables, network: Network) -> np.ndarray:
    rows, count = tables.lines, len(tables.lines)
    line = initialize_array(DatasetType.input, ComponentType.line, count)
    line["id"] = network.n + np.arange(count)
    _ends(line, network, slice(count))
    line["r1"], line["x1"] = [row.r_ohm for row in rows], [row.x_ohm for row in rows]
    line["c1"], line["c0"] = [row.c_nf * 1e-9 for row in rows], [(row.c0_nf or row.c_nf) * 1e-9 for row in rows]
    line["tan1"] = line["tan0"] = 0.0
    line["r0"], line["x0"] = [_zero_ohm(row).real for row in rows], [_zero_ohm(row).imag for row in rows]
    return line


def _transformers(tables: GridTables, network: Network, groups: list[tuple[str, str]]) -> np.ndarray:
    """Taps are in the rated voltages. The engine takes the leakage of zero sequence for that of positive sequence (a
    tenth of it at a zigzag winding) and three times what stands between star point and earth."""
    rows, first = tables.transformers, len(tables.lines)
    found = initialize_array(DatasetType.input, ComponentType.transformer, len(rows))
    found["id"] = network.n + first + np.arange(len(rows))
    _ends(found, network, slice(first, first + len(rows)))
    for i, (row, (hv, lv)) in enumerate(zip(rows, groups, strict=True)):
        one, b = found[i : i + 1], first + i
        step = 1 + (row.tap_pos - row.tap_neutral) * row.tap_step_percent / 100
        one["u1"] = row.vn_hv_kv * 1e3 * (step if row.tap_side == "hv" else 1)
        one["u2"] = row.vn_lv_kv * 1e3 * (step if row.tap_side == "lv" else 1)
        one["sn"], one["uk"], one["pk"] = row.sn_mva * 1e6, row.vk_percent / 100, row.vkr_percent * row.sn_mva * 1e4
        one["i0"], one["p0"] = row.i0_percent / 100, row.pfe_kw * 1e3
        one["winding_from"], one["winding_to"] = _WINDINGS[hv], _WINDINGS[lv]
        one["clock"] = round(row.shift_degree / 30) % 12
        one["tap_side"], one["tap_pos"], one["tap_min"], one["tap_max"], one["tap_size"] = 0, 0, 0, 0, 0.0
        one["i0_zero_sequence"] = one["p0_zero_sequence"] = 0.0
        beyond = (_zero_ratio(row, (hv, lv)) - (ZIGZAG if "zn" in (hv, lv) else 1)) / network.y_series[b] / 3
        if lv in ("yn", "zn"):
            to_earth = beyond * network.vn_kv[network.to_node[b]] ** 2
            one["r_grounding_to"], one["x_grounding_to"] = to_earth.real, to_earth.imag
        else:
            to_earth = beyond * abs(network.tap[b]) ** 2 * network.vn_kv[network.from_node[b]] ** 2
            one["r_grounding_from"], one["x_grounding_from"] = to_earth.real, to_earth.imag
    return found


def _ends(branch: np.ndarray, network: Network, part: slice) -> None:
    branch["from_node"], branch["to_node"] = network.from_node[part], network.to_node[part]
    branch["from_status"], branch["to_status"] = network.from_on[part], network.to_on[part]
