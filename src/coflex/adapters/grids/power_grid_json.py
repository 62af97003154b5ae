"""power-grid-model's JSON files (format 1.0, data sets of type input) as coflex tables.

A source there is a voltage behind an impedance; here it is a bus of its own behind a branch, so that both find the
same state. A three-winding transformer is a star of three branches. Source: power-grid-model's user manual, sections
"Components" and "JSON serialization format specification", https://power-grid-model.readthedocs.io (MPL-2.0).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, inf, isfinite, pi, sqrt
from pathlib import Path
from typing import Any

from coflex.domain.errors import Finding, refuse
from coflex.grid.network import FREQUENCY_HZ
from coflex.grid.tables import Branch, Bus, Generator, GridTables, Line, Load, Shunt, Source, Switch, Transformer

# The format knows no limits of voltage; these are EN 50160's.
V_MIN_PU, V_MAX_PU = 0.9, 1.1
# Of buses that stand for no place where a voltage is limited: star points, and what lies behind a source's impedance.
FREE = (0.01, 10.0)
# A source's short-circuit power behind its impedance, MVA.
IDEAL_MVA = 1e14
SK_VA, RX_RATIO = 1e10, 0.1  # power-grid-model's own values where a source gives none

_NEEDED = {
    "node": "u_rated",
    "line": "from_node to_node r1 x1 c1 tan1",
    "link": "from_node to_node",
    "generic_branch": "from_node to_node r1 x1 g1 b1",
    "transformer": "from_node to_node u1 u2 sn uk pk i0 p0 winding_from winding_to clock",
    "three_winding_transformer": "node_1 node_2 node_3 u1 u2 u3 sn_1 sn_2 sn_3 uk_12 uk_13 uk_23 pk_12 pk_13 pk_23"
    " i0 p0 clock_12 clock_13",
    "shunt": "node g1 b1",
    "source": "node u_ref",
    **dict.fromkeys(("sym_load", "sym_gen", "asym_load", "asym_gen"), "node type p_specified q_specified"),
}
_REQUIRED: Mapping[str, tuple[str, ...]] = {kind: tuple(words.split()) for kind, words in _NEEDED.items()}
_IF_GIVEN = (
    "from_status to_status status status_1 status_2 status_3 i_n sn r0 x0 c0 k theta sk rx_ratio u_ref_angle"
    " tap_side tap_pos tap_min tap_max tap_nom tap_size uk_min uk_max pk_min pk_max"
)
_OPTIONAL = frozenset(_IF_GIVEN.split()) | {
    f"{name}_{pair}_{end}" for name in ("uk", "pk") for pair in (12, 13, 23) for end in ("min", "max")
}
_NOT_USED = frozenset(
    {f"{phases}_{kind}_sensor" for phases in ("sym", "asym") for kind in ("power", "voltage", "current")}
    | {"fault", "transformer_tap_regulator"}
)
_UNBOUNDED = frozenset({"i_n", "sn", "sk"})
_WINDINGS = ("Y", "YN", "D", "Z", "ZN")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Parts:
    """What the tables are made of, in the order of the file."""

    file: str
    kv: dict[int, float] = field(default_factory=dict)
    buses: list[Bus] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    transformers: list[Transformer] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    generators: list[Generator] = field(default_factory=list)
    shunts: list[Shunt] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    remarks: list[Finding] = field(default_factory=list)

    def fault(self, kind: str, row: Row, code: str, message: str) -> None:
        self.faults.append(Finding(f"{self.file}, {kind} {row['id']}", code, message))

    def tables(self) -> GridTables:
        return GridTables(
            buses=tuple(self.buses),
            lines=tuple(self.lines),
            transformers=tuple(self.transformers),
            switches=tuple(self.switches),
            sources=tuple(self.sources),
            loads=tuple(self.loads),
            generators=tuple(self.generators),
            storages=(),
            branches=tuple(self.branches),
            shunts=tuple(self.shunts),
        )


def read_power_grid_json(path: Path) -> tuple[GridTables, tuple[Finding, ...]]:
    """The grid of a power-grid-model JSON file, and remarks on what was not taken over as it stands.

    Buses are named by the ids of their nodes, elements "line 4", "transformer 5", "load 6", "gen 7", "source 8".
    Raises Refused with every fault, each with its component and id.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        refuse("The grid", [Finding(path.name, "missing_file", "There is no such file; correct the name.")])
    except UnicodeDecodeError:
        refuse("The grid", [Finding(path.name, "not_utf8", "The file is not UTF-8; save it in that encoding.")])
    return parse_power_grid_json(text, path.name)


def parse_power_grid_json(text: str, file: str) -> tuple[GridTables, tuple[Finding, ...]]:
    """As `read_power_grid_json`, from a file's text."""
    what = f"The power-grid-model file {file}"
    try:
        root = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"The file is no JSON from here on ({error.msg}); correct it."
        refuse(what, [Finding(f"{file}, line {error.lineno}", "not_json", message)])
    refuse(what, _unfit(root, file))
    parts = _Parts(file)
    rows = {kind: _rows(kind, root, parts) for kind in root["data"] if kind in _REQUIRED}
    _check_ids(rows, parts)
    _remark_on_rest(root["data"], parts)
    refuse(what, parts.faults)
    _fill(rows, parts)
    refuse(what, parts.faults)
    return parts.tables(), tuple(parts.remarks)


# ---- reading rows


def _unfit(root: Any, file: str) -> Iterator[Finding]:
    """What keeps a file from being an input data set at all."""
    if not isinstance(root, dict) or not isinstance(root.get("data"), dict | list):
        message = "The file has no 'data'; write it with power-grid-model's json_serialize_to_file."
        yield Finding(file, "not_a_dataset", message)
        return
    if root.get("version") != "1.0":
        yield Finding(f"{file}, version", "unknown_version", f"Version {root.get('version')!r} is not read; 1.0 is.")
    if root.get("type") != "input" or root.get("is_batch") or isinstance(root["data"], list):
        message = "The file holds no single data set of type input; give the grid itself, not updates or results."
        yield Finding(f"{file}, type", "not_an_input", message)
        return
    announced = root.get("attributes") or {}
    if not (isinstance(announced, dict) and all(isinstance(names, list) for names in announced.values())):
        message = "'attributes' does not list names by component; write it as json_serialize does."
        yield Finding(f"{file}, attributes", "not_a_dataset", message)
    for kind, rows in root["data"].items():
        if not isinstance(rows, list):
            yield Finding(f"{file}, {kind}", "not_a_dataset", "The component is no list of rows; write one.")
    if not root["data"].get("node"):
        yield Finding(f"{file}, node", "missing_table", "The file has no nodes; a grid has at least one.")


def _rows(kind: str, root: Mapping[str, Any], parts: _Parts) -> list[Row]:
    """Rows of a component as names to values, whether they stand as lists or as objects; those with faults left out."""
    attributes = (root.get("attributes") or {}).get(kind, [])
    kept: list[Row] = []
    for number, given in enumerate(root["data"][kind], start=1):
        place = f"{parts.file}, {kind}, row {number}"
        if isinstance(given, list) and len(given) == len(attributes):
            row = dict(zip(attributes, given, strict=True))
        elif isinstance(given, dict):
            row = dict(given)
        else:
            message = f"The row is no object, nor a list of the {len(attributes)} attributes announced; correct it."
            parts.faults.append(Finding(place, "wrong_cell_count", message))
            continue
        row = {name: value for name, value in row.items() if value is not None}
        if not isinstance(row.get("id"), int) or isinstance(row.get("id"), bool):
            parts.faults.append(Finding(place, "missing_value", "The row has no whole number as id; give it one."))
        elif _able(kind, row, parts):
            kept.append(row)
    return kept


def _able(kind: str, row: dict[str, Any], parts: _Parts) -> bool:
    """Whether all numbers that are needed stand in a row; turns the words for infinity into numbers."""
    before = len(parts.faults)
    for name in _REQUIRED[kind]:
        if name not in row:
            parts.fault(kind, row, "missing_value", f"'{name}' is missing; give it.")
    for name, value in list(row.items()):
        if value in ("inf", "+inf", "-inf"):
            row[name] = value = float(value)
        phases = kind.startswith("asym_") and name.endswith("_specified")
        if phases and not (isinstance(value, list) and len(value) == 3):
            parts.fault(kind, row, "not_a_number", f"'{name}' needs a value for each of three phases; write [a, b, c].")
            continue
        if name not in _REQUIRED[kind] and name not in _OPTIONAL and isinstance(value, str | list | dict):
            continue  # information of the user's own
        for one in value if phases else [value]:
            if isinstance(one, bool) or not isinstance(one, int | float):
                parts.fault(kind, row, "not_a_number", f"'{name}' is no number; write one.")
            elif not isfinite(one) and not (one == inf and name in _UNBOUNDED):
                parts.fault(kind, row, "not_finite", f"'{name}' is not finite; write a finite number.")
    return len(parts.faults) == before


def _check_ids(rows: Mapping[str, list[Row]], parts: _Parts) -> None:
    counts = Counter(row["id"] for some in rows.values() for row in some)
    nodes = {row["id"] for row in rows.get("node", ())}
    for kind, some in rows.items():
        for row in some:
            if counts[row["id"]] > 1:
                parts.fault(
                    kind, row, "named_twice", f"The id {row['id']} is given {counts[row['id']]} times; once is right."
                )
            for name in ("node", "from_node", "to_node", "node_1", "node_2", "node_3"):
                if name in row and row[name] not in nodes:
                    parts.fault(kind, row, "unknown_bus", f"There is no node {row[name]} ('{name}'); correct the id.")


def _remark_on_rest(data: Mapping[str, Sequence[Any]], parts: _Parts) -> None:
    for kind in data:
        if kind in _NOT_USED and data[kind]:
            message = f"{len(data[kind])} rows are left out; only what makes the grid and its injections is read."
            parts.remarks.append(Finding(f"{parts.file}, {kind}", "component_not_taken", message))
        elif kind not in _REQUIRED and kind not in _NOT_USED and data[kind]:
            message = "This component is not read, and the grid would be another without it; take it out or replace it."
            parts.faults.append(Finding(f"{parts.file}, {kind}", "component_not_read", message))


# ---- tables


def _fill(rows: Mapping[str, list[Row]], parts: _Parts) -> None:
    for row in rows.get("node", ()):
        if row["u_rated"] <= 0:
            parts.fault("node", row, "impossible_value", "u_rated must be above 0.")
    refuse(f"The power-grid-model file {parts.file}", parts.faults)
    for row in rows.get("node", ()):
        parts.kv[row["id"]] = row["u_rated"] / 1e3
        parts.buses.append(_bus(str(row["id"]), row["u_rated"] / 1e3, (V_MIN_PU, V_MAX_PU)))
    message = f"The format has no limits of voltage; {V_MIN_PU:g} to {V_MAX_PU:g} pu stand at every node."
    parts.remarks.append(Finding(parts.file, "voltage_limits_assumed", message))
    for kind, add in (
        ("line", _add_line),
        ("link", _add_link),
        ("generic_branch", _add_generic),
        ("transformer", _add_transformer),
        ("three_winding_transformer", _add_star),
        ("source", _add_source),
        ("shunt", _add_shunt),
    ):
        for row in rows.get(kind, ()):
            add(row, parts)
    for kind in ("sym_load", "asym_load", "sym_gen", "asym_gen"):
        for row in rows.get(kind, ()):
            _add_injection(kind, row, parts)
    angles = {row.get("u_ref_angle", 0.0) for row in rows.get("source", ()) if row.get("status", 1)}
    if len(angles) > 1:
        message = "Sources of several angles are not solved together; keep one, or give them one angle."
        parts.faults.append(Finding(f"{parts.file}, source", "several_sources", message))


def _bus(name: str, kv: float, limits: tuple[float, float]) -> Bus:
    return Bus(name, kv, *limits, 0.0, 0.0, "")


def _ends(row: Row) -> tuple[str, str]:
    return str(row["from_node"]), str(row["to_node"])


def _open_ends(kind: str, name: str, row: Row, parts: _Parts) -> None:
    """Switches at the ends whose status is 0."""
    for side, bus in zip(("from", "to"), _ends(row), strict=True):
        if not row.get(f"{side}_status", 1):
            parts.switches.append(Switch(f"{name} {side}", kind, bus, name, False))


def _add_line(row: Row, parts: _Parts) -> None:
    name, ends = f"line {row['id']}", _ends(row)
    kv, other = parts.kv[row["from_node"]], parts.kv[row["to_node"]]
    if kv != other:
        message = f"A line joins nodes of {kv:g} and {other:g} kV; that takes a transformer."
        parts.fault("line", row, "voltages_joined", message)
        return
    r, x, c = row["r1"], row["x1"], row["c1"]
    rating = _finite(row.get("i_n", 0.0))
    if min(r, x, c) >= 0 and r + x > 0 and not row["tan1"] * c:
        zero = row.get("r0", 0.0), row.get("x0", 0.0), row.get("c0", 0.0) * 1e9
        parts.lines.append(Line(name, *ends, 0.0, r, x, c * 1e9, rating, 100.0, *zero))
        _open_ends("line", name, row, parts)
        return
    # A line that has a conductance too, or a series capacitor, is more than our line.
    charging = 2 * pi * FREQUENCY_HZ * c * kv**2
    apparent = rating * sqrt(3) * kv / 1e3
    pu = r / kv**2, x / kv**2, charging * row["tan1"], charging
    parts.branches.append(Branch(name, *ends, *pu, 1.0, 0.0, 1.0, apparent, 100.0))
    _open_ends("branch", name, row, parts)


def _add_link(row: Row, parts: _Parts) -> None:
    closed = bool(row.get("from_status", 1) and row.get("to_status", 1))
    parts.switches.append(Switch(f"link {row['id']}", "bus", *_ends(row), closed))


def _add_generic(row: Row, parts: _Parts) -> None:
    name, kv = f"branch {row['id']}", parts.kv[row["to_node"]]
    pu = row["r1"] / kv**2, row["x1"] / kv**2, row["g1"] * kv**2, row["b1"] * kv**2
    ratio, shift = row.get("k", 1.0), row.get("theta", 0.0) * 180 / pi
    rating = _finite(row.get("sn", 0.0)) / 1e6
    parts.branches.append(Branch(name, *_ends(row), *pu, ratio, shift, 1.0, rating, 100.0))
    _open_ends("branch", name, row, parts)


def _add_transformer(row: Row, parts: _Parts) -> None:
    name, sn = f"transformer {row['id']}", row["sn"]
    tap = _tap(row)
    # A side whose number of turns falls as the position rises has its steps counted from the other end.
    turned = row["u1"] if tap.side == 0 else row["u2"]
    uk, pk = (_at_tap(row, tap, quantity, parts) for quantity in ("uk", "pk"))
    windings = tuple(int(row[f"winding_{side}"]) for side in ("from", "to"))
    if not all(0 <= winding < len(_WINDINGS) for winding in windings) or tap.side not in (0, 1):
        message = "A kind of winding lies outside 0 to 4, or the side of the tap outside 0 and 1; correct it."
        parts.fault("transformer", row, "unknown_value", message)
        return
    if min(row["u1"], row["u2"], sn) <= 0:
        parts.fault("transformer", row, "impossible_value", "Voltages and power must be above 0.")
        return
    if uk <= 0 or not 0 <= pk <= uk * sn:
        parts.fault("transformer", row, "impossible_value", "uk must be above 0 and pk lie between 0 and uk * sn.")
        return
    clock = int(row["clock"]) % 12
    parts.transformers.append(
        Transformer(
            transformer=name,
            hv_bus=str(row["from_node"]),
            lv_bus=str(row["to_node"]),
            sn_mva=sn / 1e6,
            vn_hv_kv=row["u1"] / 1e3,
            vn_lv_kv=row["u2"] / 1e3,
            vk_percent=100 * uk,
            vkr_percent=100 * pk / sn,
            pfe_kw=row["p0"] / 1e3,
            i0_percent=100 * row["i0"],
            shift_degree=30.0 * clock,
            tap_side=("hv", "lv")[tap.side],
            tap_neutral=tap.nominal,
            tap_min=min(tap.low, tap.high),
            tap_max=max(tap.low, tap.high),
            tap_step_percent=100 * tap.direction * tap.size / turned,
            tap_pos=tap.position,
            loading_max_percent=100.0,
            vector_group=f"{_WINDINGS[windings[0]]}{_WINDINGS[windings[1]].lower()}{clock}",
        )
    )
    _open_ends("transformer", name, row, parts)


@dataclass(frozen=True)
class _Tap:
    side: int
    position: int
    low: int
    high: int
    nominal: int
    size: float

    @property
    def direction(self) -> int:
        return 1 if self.high > self.low else -1

    @property
    def change(self) -> float:
        """Volts that the turned side has more than its rated voltage."""
        return self.direction * (self.position - self.nominal) * self.size


def _tap(row: Row) -> _Tap:
    low, high, nominal = (int(row.get(f"tap_{name}", 0)) for name in ("min", "max", "nom"))
    position = int(row.get("tap_pos", nominal))
    position = max(min(low, high), min(max(low, high), position))
    return _Tap(int(row.get("tap_side", 0)), position, low, high, nominal, float(row.get("tap_size", 0.0)))


def _at_tap(row: Row, tap: _Tap, name: str, parts: _Parts) -> float:
    """A quantity at the tap's position, interpolated between nominal position and the end of the range."""
    value = float(row[name])
    upper = min(tap.nominal, tap.high) <= tap.position <= max(tap.nominal, tap.high)
    end, far = (tap.high, row.get(f"{name}_max", value)) if upper else (tap.low, row.get(f"{name}_min", value))
    if any(row.get(f"{name}_{side}", value) != value for side in ("min", "max")):
        message = f"{name} changes with the tap; it is taken at position {tap.position} and holds for others too."
        parts.remarks.append(Finding(f"{parts.file}, transformer {row['id']}", "impedance_at_one_tap", message))
    return value if end == tap.nominal else value + (tap.position - tap.nominal) * (far - value) / (end - tap.nominal)


def _add_star(row: Row, parts: _Parts) -> None:
    """Three branches to a star point whose rated voltage is that of node 1 (delta to star: uk and pk on sn_1)."""
    tap = _tap(row)
    u = [row[f"u{k}"] + (tap.change if tap.side == k - 1 else 0.0) for k in (1, 2, 3)]
    sn = [row[f"sn_{k}"] for k in (1, 2, 3)]
    name, pairs = f"transformer {row['id']}", ((1, 2), (1, 3), (2, 3))
    if min(*u, *sn) <= 0:
        parts.fault("three_winding_transformer", row, "impossible_value", "Voltages and powers must be above 0.")
        return
    scale = {(a, b): sn[0] / min(sn[a - 1], sn[b - 1]) for a, b in pairs}
    uk = _star([_at_tap(row, tap, f"uk_{a}{b}", parts) * scale[a, b] for a, b in pairs])
    pk = _star([_at_tap(row, tap, f"pk_{a}{b}", parts) * scale[a, b] ** 2 for a, b in pairs])
    star, kv = f"{name} star", parts.kv[row["node_1"]]
    parts.buses.append(_bus(star, kv, FREE))
    base = (u[0] / 1e3 / kv) ** 2 / (sn[0] / 1e6)
    for k in (1, 2, 3):
        r = pk[k - 1] / sn[0]
        x = sqrt(max(0.0, uk[k - 1] ** 2 - r**2)) * (1 if uk[k - 1] >= 0 else -1)
        iron = row["p0"] / sn[0] if k == 1 else 0.0
        magnetising = sqrt(max(0.0, row["i0"] ** 2 - iron**2)) if k == 1 else 0.0
        clock = 0 if k == 1 else (12 - int(row[f"clock_1{k}"])) % 12
        ratio = (u[k - 1] / u[0]) / (parts.kv[row[f"node_{k}"]] / kv)
        pu = r * base, x * base, iron / base, -magnetising / base
        if r == x == 0:
            message = f"Winding {k} has no impedance in the star; make its uk a little larger."
            parts.fault("three_winding_transformer", row, "impossible_value", message)
            continue
        bus, winding = str(row[f"node_{k}"]), f"{name} winding {k}"
        parts.branches.append(Branch(winding, bus, star, *pu, ratio, 30.0 * clock, 1.0, sn[k - 1] / 1e6, 100.0))
        if not row.get(f"status_{k}", 1):
            parts.switches.append(Switch(f"{winding} from", "branch", bus, winding, False))


def _star(delta: Sequence[float]) -> tuple[float, float, float]:
    """Values between 1-2, 1-3, 2-3 to values between each and the star point."""
    d12, d13, d23 = delta
    return (d12 + d13 - d23) / 2, (d12 + d23 - d13) / 2, (d13 + d23 - d12) / 2


def _add_source(row: Row, parts: _Parts) -> None:
    if not row.get("status", 1):
        return
    name, sk, rx = f"source {row['id']}", row.get("sk", SK_VA), row.get("rx_ratio", RX_RATIO)
    if not sk > 0 or rx < 0:
        parts.fault("source", row, "impossible_value", "sk must be above 0 and rx_ratio 0 or more.")
        return
    above = f"{name} above"
    parts.buses.append(_bus(above, parts.kv[row["node"]], FREE))
    parts.sources.append(Source(name, above, row["u_ref"], IDEAL_MVA))
    if sk == inf:
        parts.switches.append(Switch(name, "bus", above, str(row["node"]), True))
        return
    x = 1e6 / sk / hypot(1.0, rx)
    parts.branches.append(Branch(name, above, str(row["node"]), rx * x, x, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 100.0))


def _add_shunt(row: Row, parts: _Parts) -> None:
    square = parts.kv[row["node"]] ** 2
    on = 1 if row.get("status", 1) else 0
    parts.shunts.append(Shunt(f"shunt {row['id']}", str(row["node"]), row["g1"] * square, row["b1"] * square, on, 1))


def _add_injection(kind: str, row: Row, parts: _Parts) -> None:
    """A load or a generator, one for each phase where it has phases."""
    if not row.get("status", 1):
        return
    phases = kind.startswith("asym_")
    produces = kind.endswith("_gen")
    name, bus = f"{'gen' if produces else 'load'} {row['id']}", str(row["node"])
    if row["type"] == 1 and not phases:
        sign = -1 if produces else 1
        parts.shunts.append(Shunt(name, bus, sign * row["p_specified"] / 1e6, -sign * row["q_specified"] / 1e6, 1, 1))
        return
    if row["type"] != 0:
        what = {1: "constant impedance in single phases", 2: "constant current"}.get(row["type"], "an unknown law")
        message = f"The {name} keeps {what}, which is not read; make it constant power (type 0)."
        parts.fault(kind, row, "law_not_read", message)
        return
    p, q = (_by_phase(row[f"{quantity}_specified"], phases) for quantity in ("p", "q"))
    for phase, p_w, q_var in zip("abc" if phases else ("",), p, q, strict=True):
        one = f"{name} {phase}".strip()
        if produces:
            parts.generators.append(Generator(one, bus, p_w / 1e6, q_var / 1e6, "", "", 0.0, phase))
        else:
            parts.loads.append(Load(one, bus, p_w / 1e6, q_var / 1e6, "", "", phase))


def _by_phase(value: Any, phases: bool) -> Iterable[float]:
    return value if phases else (value,)


def _finite(rating: float) -> float:
    """0 stands for a rating that is not known."""
    return rating if isfinite(rating) else 0.0
