"""MATPOWER cases (`.m`), and files in that form such as those of PGLib-OPF, as coflex tables.

Code that stands in a file, such as the change from ohm and kW at the end of radial feeders, is computed
(`adapters.grids.matlab`) or refused with its line. Money is taken as it stands. Source: R. D. Zimmerman,
C. E. Murillo-Sánchez, "MATPOWER User's Manual", appendix B, DOI 10.5281/zenodo.3251118; S. Babaeinejadsarookolaee
et al., "The Power Grid Library for Benchmarking AC Optimal Power Flow Algorithms", arXiv 1908.02788.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coflex.adapters.grids.matlab import Cell, Outcome, evaluate
from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Floats
from coflex.grid.tables import (
    Branch,
    Bus,
    CostPoint,
    Dispatch,
    Generator,
    GridTables,
    Load,
    Shunt,
    Source,
    Switch,
)

# What MATPOWER takes for unlimited power, MW and Mvar; our tables hold finite numbers.
UNLIMITED = 1e10
# Limits of a voltage that has none.
LOWEST_PU, HIGHEST_PU = 0.01, 10.0
PQ, PV, REFERENCE, ISOLATED = 1, 2, 3, 4

_NEEDED = {"bus": 13, "gen": 10, "branch": 11}
# Columns, counted from 0, that must be finite for an element in service.
_FINITE = {"bus": (0, 1, 2, 3, 4, 5, 9), "gen": (0, 1, 2, 5, 7), "branch": (0, 1, 2, 3, 4, 8, 9, 10)}
_READ = frozenset({"version", "baseMVA", "bus", "gen", "branch", "gencost", "bus_name", "genfuel", "dcline"})
# Descriptions that no computation uses.
_IDLE = frozenset({"areas", "gentype", "gen_name", "branch_name", "name", "casename", "comment"})
_TECHNOLOGIES = {"solar": "pv"}


@dataclass(frozen=True)
class _Case:
    """The matrices of a case, and its faults and remarks as they come up. `row` of a finding counts from 1."""

    file: str
    values: Mapping[str, Any]
    base_mva: float
    bus: Floats
    gen: Floats
    branch: Floats
    names: Mapping[int, str]
    remarks: list[Finding] = field(default_factory=list)

    def place(self, matrix: str, row: int) -> str:
        return f"{self.file}, {matrix}, row {row + 1}"

    def remark(self, code: str, message: str, place: str = "") -> None:
        self.remarks.append(Finding(place or self.file, code, message))

    def name(self, number: float) -> str:
        return self.names[int(number)]


def read_matpower(path: Path) -> tuple[GridTables, tuple[Finding, ...]]:
    """The grid of a MATPOWER case file, and remarks on what was not taken over as it stands.

    Elements are named by their rows: "gen 1", "branch 3"; loads and shunts by their bus: "load 18". The first
    generator at a reference bus is the source. Raises Refused with every fault, each with its line or row.
    """
    try:
        data = path.read_bytes()
    except OSError:
        refuse("The grid", [Finding(path.name, "missing_file", "There is no such file; correct the name.")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # authors' names in comments of older files
    return parse_matpower(text, path.name)


def parse_matpower(text: str, file: str) -> tuple[GridTables, tuple[Finding, ...]]:
    """As `read_matpower`, from a file's text."""
    outcome, faults = evaluate(text, file)
    refuse(f"The MATPOWER case {file}", faults)
    values = _fields(outcome)
    refuse(f"The MATPOWER case {file}", _unfit(values, file))
    bus, gen, branch = (np.asarray(values[name], dtype=np.float64) for name in _NEEDED)
    branch = branch if branch.size else np.zeros((0, _NEEDED["branch"]))
    base = float(values["baseMVA"][0, 0])
    names, remark = _bus_names(bus, values.get("bus_name"), file)
    case = _Case(file, values, base, bus, gen, branch, names)
    refuse(f"The MATPOWER case {file}", _row_faults(case))
    case.remarks.extend(remark)
    live = _without_isolated(case)
    tables = _tables(live)
    _remark_on_rest(live)
    return tables, tuple(live.remarks)


# ---- what must be there


def _fields(outcome: Outcome) -> dict[str, Any]:
    """Fields of the case by name: of the structure that the function gives out, or its outputs in the old form."""
    if len(outcome.outputs) > 1:
        return {name: outcome.values[name] for name in outcome.outputs if name in outcome.values}
    roots = outcome.outputs or tuple(name[: -len(".bus")] for name in outcome.values if name.endswith(".bus"))
    prefix = f"{roots[0]}." if roots else ""
    return {name[len(prefix) :]: value for name, value in outcome.values.items() if prefix and name.startswith(prefix)}


def _unfit(values: Mapping[str, Any], file: str) -> Iterator[Finding]:
    """What keeps a file from being a case at all."""
    if "bus3p" in values:
        message = "The case has three-phase tables (bus3p); only balanced ones are read. Give a balanced model."
        yield Finding(file, "three_phase_case", message)
        return
    base = values.get("baseMVA")
    if not (isinstance(base, np.ndarray) and base.size == 1 and 0 < base[0, 0] < np.inf):
        yield Finding(f"{file}, baseMVA", "no_base_power", "The base power is missing or no number above 0; set it.")
    for name, width in _NEEDED.items():
        matrix = values.get(name)
        if not isinstance(matrix, np.ndarray) or (not matrix.size and name != "branch"):
            message = f"The matrix '{name}' is missing or empty; a MATPOWER case has baseMVA, bus, gen and branch."
            yield Finding(f"{file}, {name}", "not_a_case", message)
        elif matrix.size and matrix.shape[1] < width:
            message = f"The matrix has {matrix.shape[1]} columns and needs {width} at least; add what is missing."
            yield Finding(f"{file}, {name}", "missing_column", message)
    gen, cost = values.get("gen"), values.get("gencost")
    if isinstance(gen, np.ndarray) and isinstance(cost, np.ndarray) and cost.size:
        if len(cost) not in (len(gen), 2 * len(gen)):
            message = f"There are {len(cost)} rows for {len(gen)} generators; give each one row, or one for P and Q."
            yield Finding(f"{file}, gencost", "wrong_row_count", message)
        elif cost.shape[1] < 5:
            yield Finding(f"{file}, gencost", "missing_column", "A cost has at least five columns; add them.")


def _bus_names(bus: Floats, given: Any, file: str) -> tuple[dict[int, str], list[Finding]]:
    """Names of the buses: the case's own where each bus has one of its own, else the numbers."""
    numbers = [int(number) if np.isfinite(number) else 0 for number in bus[:, 0]]
    texts = [str(text).strip() for text in given.values] if isinstance(given, Cell) else []
    if texts and len(texts) == len(numbers) == len(set(texts)) and all(texts):
        return dict(zip(numbers, texts, strict=True)), []
    remark = Finding(
        f"{file}, bus_name", "names_not_used", "The buses' names repeat or are not whole; numbers are used."
    )
    return {number: str(number) for number in numbers}, [remark] if texts else []


def _row_faults(case: _Case) -> Iterator[Finding]:
    """Faults of single rows, and references that lead nowhere."""
    for name, columns in _FINITE.items():
        wrong = ~np.isfinite(getattr(case, name)[:, columns]).all(axis=1)
        for row in np.flatnonzero(wrong).tolist():
            yield Finding(case.place(name, row), "not_a_number", "A value is missing or infinite; give a number.")
    yield from _bus_faults(case)
    for name, width in (("gen", 1), ("branch", 2)):
        ends = getattr(case, name)[:, :width]
        for row, place in np.argwhere(~np.isin(ends, case.bus[:, 0])).tolist():
            message = f"The {name} {row + 1} is at bus {ends[row, place]:g}, which is not there; correct the number."
            yield Finding(case.place(name, row), "unknown_bus", message)
    for row in np.flatnonzero(~(case.branch[:, 5] >= 0) | (case.branch[:, 8] < 0)).tolist():
        message = f"The rating or the ratio of branch {row + 1} is negative or missing; correct it."
        yield Finding(case.place("branch", row), "impossible_value", message)
    for row in np.flatnonzero(np.isnan(case.gen[:, [3, 4, 8, 9]]).any(axis=1)).tolist():
        message = f"A limit of gen {row + 1} is not a number; write it, or Inf."
        yield Finding(case.place("gen", row), "not_a_number", message)


def _bus_faults(case: _Case) -> Iterator[Finding]:
    counts = Counter(case.bus[:, 0].tolist())
    for row, (number, kind, v_max, v_min) in enumerate(case.bus[:, [0, 1, 11, 12]].tolist()):
        place = case.place("bus", row)
        if number != np.floor(number) or number < 1:
            yield Finding(place, "not_a_number", f"The bus number {number:g} is no whole number from 1; correct it.")
        elif counts[number] > 1:
            message = f"The bus {number:g} stands {counts[number]} times; give each bus its own number."
            yield Finding(place, "named_twice", message)
        if kind not in (PQ, PV, REFERENCE, ISOLATED):
            message = f"The bus {number:g} is of type {kind:g}; write 1 (PQ), 2 (PV), 3 (reference) or 4 (isolated)."
            yield Finding(place, "unknown_value", message)
        if not v_min <= v_max:
            message = f"The limits of bus {number:g} are no numbers, or the lower lies above the upper; correct them."
            yield Finding(place, "impossible_value", message)


def _without_isolated(case: _Case) -> _Case:
    """The case without buses of type 4; what is connected there is out of service."""
    alone = case.bus[:, 1] == ISOLATED
    numbers = case.bus[alone, 0]
    if not numbers.size:
        return case
    shown = ", ".join(case.name(number) for number in numbers[:8]) + (" ..." if len(numbers) > 8 else "")
    case.remark("isolated_bus", f"Isolated buses are left out with all that is connected there: {shown}.")
    gen, branch = case.gen.copy(), case.branch.copy()
    gen[np.isin(gen[:, 0], numbers), 7] = 0
    branch[np.isin(branch[:, :2], numbers).any(axis=1), 10] = np.nan  # rows keep their numbers
    return _Case(case.file, case.values, case.base_mva, case.bus[~alone], gen, branch, case.names, case.remarks)


# ---- tables


def _tables(case: _Case) -> GridTables:
    generators, sources, dispatched = _generators(case)
    dispatches, cost_points = _costs(case, dispatched)
    branches, switches, shunts = _branches(case)
    return GridTables(
        buses=_buses(case),
        lines=(),
        transformers=(),
        switches=switches,
        sources=sources,
        loads=tuple(
            Load(f"load {case.name(row[0])}", case.name(row[0]), float(row[2]), float(row[3]), "", "")
            for row in case.bus
            if row[2] or row[3]
        ),
        generators=generators,
        storages=(),
        branches=branches,
        shunts=(
            *(
                Shunt(f"shunt {case.name(row[0])}", case.name(row[0]), float(row[4]), float(row[5]), 1, 1)
                for row in case.bus
                if row[4] or row[5]
            ),
            *shunts,
        ),
        dispatches=dispatches,
        cost_points=cost_points,
    )


def _buses(case: _Case) -> tuple[Bus, ...]:
    kv, v_max, v_min = (case.bus[:, column].copy() for column in (9, 11, 12))
    if (kv <= 0).any():
        count = int((kv <= 0).sum())
        case.remark(
            "no_rated_voltage", f"{count} buses have no rated voltage; 1 kV stands for it, in per unit all holds."
        )
        kv[kv <= 0] = 1.0
    free = (v_min <= 0) | (v_max >= HIGHEST_PU)
    if free.any():
        case.remark("no_voltage_limit", f"{int(free.sum())} buses have no upper or no lower limit of voltage.")
    limits = np.clip(v_min, LOWEST_PU, None), np.clip(v_max, None, HIGHEST_PU)
    return tuple(
        Bus(case.name(row[0]), float(kv[i]), float(limits[0][i]), float(limits[1][i]), 0.0, 0.0, "")
        for i, row in enumerate(case.bus)
    )


def _generators(case: _Case) -> tuple[tuple[Generator, ...], tuple[Source, ...], list[int]]:
    """Generators, sources, and the rows in service. Voltages are held as MATPOWER holds them."""
    on = [int(row) for row in np.flatnonzero(case.gen[:, 7] > 0)]
    kind = {float(row[0]): int(row[1]) for row in case.bus}
    held = _held_voltages(case, on, kind)
    references = _references(case, on, kind, held)
    technology = case.values.get("genfuel")
    fuels = technology.values if isinstance(technology, Cell) and len(technology.values) == len(case.gen) else ()
    sources: dict[float, Source] = {}
    generators = []
    for row in on:
        bus, p, q = (float(value) for value in case.gen[row, :3])
        name = f"gen {row + 1}"
        if bus in references and bus not in sources:
            sources[bus] = Source(name, case.name(bus), held[bus])
            continue
        fuel = str(fuels[row]).strip().lower() if fuels else ""
        holds = held[bus] if kind[bus] in (PV, REFERENCE) else 0.0
        generators.append(Generator(name, case.name(bus), p, q, _TECHNOLOGIES.get(fuel, fuel), "", holds))
    return tuple(generators), tuple(sources.values()), on


def _held_voltages(case: _Case, on: list[int], kind: Mapping[float, int]) -> dict[float, float]:
    """The voltage held at each bus with generators: the last one's, where they differ."""
    held: dict[float, float] = {}
    for row in on:
        bus, vm = float(case.gen[row, 0]), float(case.gen[row, 5])
        if held.get(bus, vm) != vm and kind[bus] in (PV, REFERENCE):
            message = (
                f"The generators at bus {case.name(bus)} are to hold {held[bus]:g} and {vm:g} pu; {vm:g} is taken."
            )
            case.remark("several_voltages", message, case.place("gen", row))
        held[bus] = vm
    return held


def _references(case: _Case, on: list[int], kind: Mapping[float, int], held: Mapping[float, float]) -> list[float]:
    """Buses whose voltage and angle are given. Raises Refused if there is none, or if they differ."""
    at = {float(case.gen[row, 0]) for row in on}
    named = [float(row[0]) for row in case.bus if row[1] == REFERENCE]
    for bus in named:
        if bus not in at:
            message = f"The reference bus {case.name(bus)} has no generator in service and counts as a load's bus."
            case.remark("reference_without_source", message)
    found = [bus for bus in named if bus in at]
    if not found:
        found = [float(row[0]) for row in case.bus if row[1] == PV and row[0] in at][:1]
        if not found:
            message = "No reference bus has a generator in service; give one, it feeds the grid."
            refuse(f"The MATPOWER case {case.file}", [Finding(f"{case.file}, bus", "no_source", message)])
        case.remark(
            "reference_moved", f"Bus {case.name(found[0])}, the first that holds its voltage, is the reference."
        )
    angle = {float(row[0]): float(row[8]) for row in case.bus}
    if len({(held[bus], angle[bus]) for bus in found}) > 1:
        shown = ", ".join(f"{case.name(bus)} ({held[bus]:g} pu at {angle[bus]:g} degrees)" for bus in found)
        message = f"The reference buses differ in voltage or angle: {shown}; keep one, or make them equal."
        refuse(f"The MATPOWER case {case.file}", [Finding(f"{case.file}, bus", "several_sources", message)])
    return found


def _branches(case: _Case) -> tuple[tuple[Branch, ...], tuple[Switch, ...], tuple[Shunt, ...]]:
    """Branches; a switch at each end of those out of service, and in place of those without impedance."""
    branches, switches, shunts = [], [], []
    for i, row in enumerate(case.branch):
        if np.isnan(row[10]):
            continue
        name, ends, on = f"branch {i + 1}", (case.name(row[0]), case.name(row[1])), bool(row[10] > 0)
        r, x, b, rating, ratio, shift = (float(row[k]) for k in (2, 3, 4, 5, 8, 9))
        if r == x == 0:
            if ratio not in (0, 1) or shift:
                message = f"The {name} turns the voltage without any impedance; give it one."
                refuse(
                    f"The MATPOWER case {case.file}", [Finding(case.place("branch", i), "impossible_value", message)]
                )
            message = f"The {name} has no impedance and is a switch; its rating is not watched."
            case.remark("branch_as_switch", message, case.place("branch", i))
            switches.append(Switch(name, "bus", *ends, on))
            if b and on:
                shunts.append(Shunt(name, ends[0], 0.0, b * case.base_mva, 1, 1))
            continue
        rating = 0.0 if rating >= UNLIMITED else rating
        branches.append(Branch(name, *ends, r, x, 0.0, b, ratio or 1.0, shift, case.base_mva, rating, 100.0))
        if not on:
            switches += [
                Switch(f"{name} {end}", "branch", bus, name, False)
                for end, bus in zip(("from", "to"), ends, strict=True)
            ]
    return tuple(branches), tuple(switches), tuple(shunts)


# ---- limits and costs of dispatch


def _costs(case: _Case, rows: list[int]) -> tuple[tuple[Dispatch, ...], tuple[CostPoint, ...]]:
    cost = case.values.get("gencost")
    given = np.asarray(cost, dtype=np.float64) if isinstance(cost, np.ndarray) and cost.size else None
    dispatches: list[Dispatch] = []
    points: list[CostPoint] = []
    faults: list[Finding] = []
    for row in rows:
        name = f"gen {row + 1}"
        q_max, q_min, p_max, p_min = np.clip(case.gen[row, [3, 4, 8, 9]], -UNLIMITED, UNLIMITED).tolist()
        try:
            c2, c1, c0, corners = (0.0, 0.0, 0.0, ()) if given is None else _curve(given[row], p_min, p_max)
        except _BadCost as bad:
            finding = Finding(case.place("gencost", row), bad.code, f"The cost of {name} {bad}")
            (faults if bad.code != "cost_not_taken" else case.remarks).append(finding)
            continue
        dispatches.append(Dispatch(name, p_min, p_max, q_min, q_max, c2, c1, c0))
        points += [CostPoint(f"{name} corner {k}", name, p, value) for k, (p, value) in enumerate(corners, start=1)]
    refuse(f"The MATPOWER case {case.file}", faults)
    return tuple(dispatches), tuple(points)


class _BadCost(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


_Corners = tuple[tuple[float, float], ...]


def _curve(row: Floats, p_min: float, p_max: float) -> tuple[float, float, float, _Corners]:
    """c2, c1, c0, or the corners of a curve in pieces. Raises _BadCost."""
    count = int(row[3]) if np.isfinite(row[3]) else 0
    per = {1: 2, 2: 1}.get(int(row[0]) if np.isfinite(row[0]) else 0)
    if per is None:
        raise _BadCost("unknown_value", f"is of model {row[0]:g}; write 1 (in pieces) or 2 (polynomial).")
    values = row[4 : 4 + per * count]
    if count < (2 if per == 2 else 0) or len(values) < per * count or not np.isfinite(values).all():
        raise _BadCost("wrong_cell_count", f"announces {row[3]:g} terms that do not stand in its row; add them.")
    if per == 2:
        return 0.0, 0.0, 0.0, _corners(values[::2], values[1::2], p_min, p_max)
    if values[:-3].any():
        raise _BadCost("cost_not_taken", "is of a higher order than two; it is left out, and the power stays as it is.")
    c2, c1, c0 = np.r_[np.zeros(3), values][-3:].tolist()
    if c2 < 0:
        raise _BadCost("cost_not_taken", "falls off (c2 < 0); it is left out, and the power stays as it is.")
    return c2, c1, c0, ()


def _corners(p: Floats, value: Floats, p_min: float, p_max: float) -> _Corners:
    """Corners of a convex curve; its outer pieces go on to the limits of power, as MATPOWER has it."""
    if (np.diff(p) <= 0).any():
        raise _BadCost("impossible_value", "has corners that do not rise in power; sort them.")
    slope = np.diff(value) / np.diff(p)
    # Data round their costs; what is no less than that is a curve that is not convex.
    if (np.diff(slope) < -1e-4 * np.maximum(1.0, np.abs(slope[1:]))).any():
        raise _BadCost("cost_not_taken", "is not convex; it is left out, and the power stays as it is.")
    if -UNLIMITED < p_min < p[0]:
        p, value = np.r_[p_min, p], np.r_[value[0] - slope[0] * (p[0] - p_min), value]
    if p[-1] < p_max < UNLIMITED:
        p, value = np.r_[p, p_max], np.r_[value, value[-1] + slope[-1] * (p_max - p[-1])]
    return tuple(zip(p.tolist(), value.tolist(), strict=True))


# ---- what stays behind


def _remark_on_rest(case: _Case) -> None:
    gen, branch, values = case.gen, case.branch, case.values
    on = gen[:, 7] > 0
    if branch.shape[1] > 12:
        low, high = branch[:, 11], branch[:, 12]
        count = int(((low != 0) & (low > -360) | (high != 0) & (high < 360)).sum())
        if count:
            case.remark(
                "angle_limits_not_used", f"{count} branches limit the angle between their ends; it is not watched."
            )
    curves = on & (gen[:, 10:16] != 0).any(axis=1) if gen.shape[1] > 15 else np.zeros(len(gen), dtype=np.bool_)
    if curves.any():
        message = f"{int(curves.sum())} generators have a P-Q capability curve; only its box is taken."
        case.remark("capability_curve_not_taken", message)
    elastic = on & (gen[:, 9] < 0) & (gen[:, 8] == 0) & ((gen[:, 3] != 0) | (gen[:, 4] != 0))
    if elastic.any():
        message = f"{int(elastic.sum())} dispatchable loads keep no power factor when they are called."
        case.remark("power_factor_not_kept", message)
    cost = values.get("gencost")
    if isinstance(cost, np.ndarray) and len(cost) == 2 * len(gen) and cost[len(gen) :, 4:].any():
        case.remark("reactive_cost_not_taken", "Costs of reactive power are left out.")
    links = values.get("dcline")
    if isinstance(links, np.ndarray) and links.size and (links[:, 2] > 0).any():
        named = ", ".join(f"{int(row[0])} to {int(row[1])}" for row in links if row[2] > 0)
        message = f"DC lines are left out, as MATPOWER's power flow leaves them out unless told otherwise: {named}."
        case.remark("dc_line_not_taken", message)
    rest = sorted({name.split(".")[0] for name in values} - _READ - _IDLE)
    if rest:
        case.remark("field_not_read", f"Fields that are not read: {', '.join(rest)}.")
