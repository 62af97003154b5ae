"""SimBench grids as coflex tables.

Source: S. Meinecke et al., "SimBench - A Benchmark Dataset of Electric Power Systems to Compare Innovative
Solutions Based on Power Flow Analysis", Energies 13 (2020) 3290, DOI 10.3390/en13123290. SimBench stamps its year
2016 in German local time: 35,136 quarter-hours, with a missing hour in March and a repeated one in October.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any, get_args, get_type_hints
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, midnight
from coflex.grid.tables import Bus, Generator, GridTables, Line, Load, Source, Storage, Switch, Transformer

CACHE_VERSION = 2
ZONE = ZoneInfo("Europe/Berlin")
YEAR = Axis(
    midnight(date(2016, 1, 1), ZONE), (midnight(date(2017, 1, 1), ZONE) - midnight(date(2016, 1, 1), ZONE)) // QUARTER
)

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KINDS = {"b": "bus", "l": "line", "t": "transformer"}
_TECHNOLOGIES = (("hydro", "hydro"), ("wind", "wind"), ("biomass", "biomass"), ("pv", "pv"), ("res", "pv"))


@dataclass(frozen=True, eq=False)
class SimbenchGrid:
    """A grid and the profiles of its year: shares of each element's power, on the UTC axis of the year."""

    grid: GridTables
    profiles: Series


def load_grid(code: str, cache: Path) -> SimbenchGrid:
    """The grid of a SimBench code, converted once and kept in `cache/<code>` as Parquet tables.

    The first call reads SimBench (seconds); later ones do not import it. A cache of another version is replaced
    as a whole, never in part.
    """
    if not _CODE.fullmatch(code):
        raise _unknown(code)
    folder = cache / code
    if _version(folder) == CACHE_VERSION:
        return _read_cache(folder)
    converted = read_simbench(code)
    _write_cache(folder, converted)
    return converted


def read_simbench(code: str) -> SimbenchGrid:
    """Read a SimBench grid, such as "1-MV-urban--0-sw", with the profiles of its year.

    Devices keep SimBench's names; what is out of service stays outside. Storages lose their SimBench profile:
    here they rest until called. Raises Refused, naming the row, when the stamps of SimBench are not the local
    labels of the year 2016; CoflexError when there is no such grid.
    """
    from simbench import collect_all_simbench_codes, get_simbench_net

    if code not in collect_all_simbench_codes():
        raise _unknown(code)
    net = get_simbench_net(code)
    return SimbenchGrid(_tables(net), _profiles(net.profiles))


def pandapower_of(code: str) -> Any:
    """The pandapower net of a SimBench code, for comparison.

    SimBench names a tap step without the kind of tap changer, which pandapower then leaves out of its power
    flow; here it is set to "Ratio" wherever a step is given, as our tables count it.
    """
    from simbench import get_simbench_net

    net = get_simbench_net(code)
    stepped = net.trafo.tap_step_percent.fillna(0) != 0
    net.trafo.loc[stepped, "tap_changer_type"] = "Ratio"
    return net


def _unknown(code: str) -> CoflexError:
    return CoflexError(f"There is no SimBench grid '{code}'.", "Write a code such as 1-MV-urban--0-sw.")


def feeders(grid: GridTables) -> dict[str, str]:
    """The feeder of each bus: F01, F02, ... in the order of their smallest bus name; empty for the substation's.

    The substation's busbars are all buses joined to a side of a transformer through closed bus switches.
    Feeders are the connected parts of the rest, along closed switches and lines closed at both ends.
    """
    joined = [(s.bus, s.element) for s in grid.switches if s.kind == "bus" and s.closed]
    opened = {s.element for s in grid.switches if s.kind == "line" and not s.closed}
    buses = {bus.bus for bus in grid.buses}
    ends = {bus for transformer in grid.transformers for bus in (transformer.hv_bus, transformer.lv_bus)}
    substation = {bus for part in _parts(buses, joined) if ends & set(part) for bus in part}
    edges = joined + [(line.from_bus, line.to_bus) for line in grid.lines if line.line not in opened]
    outside = buses - substation
    parts = _parts(outside, [edge for edge in edges if outside.issuperset(edge)])
    names = {bus: f"F{number:02d}" for number, part in enumerate(parts, start=1) for bus in part}
    return {bus: names.get(bus, "") for bus in sorted(buses)}


def _parts(nodes: Iterable[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Connected parts of a graph, each sorted by name, in the order of their smallest names."""
    neighbours: dict[str, list[str]] = {node: [] for node in nodes}
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    seen: set[str] = set()
    parts = []
    for node in sorted(neighbours, key=_natural):
        part, front = [], [node]
        while front:
            current = front.pop()
            if current not in seen:
                seen.add(current)
                part.append(current)
                front.extend(neighbours[current])
        if part:
            parts.append(sorted(part, key=_natural))
    return parts


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """Sorting key that counts numbers as numbers: bus 9 comes before bus 10."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name))


def _tables(net: Any) -> GridTables:
    bus_of = dict(zip(net.bus.index, _names(net.bus), strict=True))
    used: Counter[str] = Counter()
    grid = GridTables(
        buses=tuple(_bus(row, bus_of[row.Index]) for row in _rows(net.bus)),
        lines=tuple(_line(row, name, bus_of) for row, name in _named(net.line)),
        transformers=tuple(_transformer(row, name, bus_of) for row, name in _named(net.trafo)),
        switches=_switches(net, bus_of),
        sources=tuple(Source(name, bus_of[row.bus], float(row.vm_pu)) for row, name in _named(net.ext_grid)),
        loads=tuple(_load(row, name, bus_of) for row, name in _named(net.load, used)),
        generators=tuple(_generator(row, name, bus_of) for row, name in _named(net.sgen, used)),
        storages=tuple(_storage(row, name, bus_of) for row, name in _named(net.storage, used)),
    )
    perimeter = feeders(grid)
    return replace(grid, buses=tuple(replace(bus, perimeter=perimeter[bus.bus]) for bus in grid.buses))


def _rows(frame: Any) -> list[Any]:
    """The rows in service, as named tuples."""
    return (
        list(frame[frame.in_service.astype(bool)].itertuples()) if "in_service" in frame else list(frame.itertuples())
    )


def _names(frame: Any, used: Counter[str] | None = None) -> list[str]:
    """The names of all rows; the second of a name gets " (2)", and so on. `used`: names given out before."""
    counts = Counter() if used is None else used
    names = []
    for name in frame.name.astype(str):
        counts[name] += 1
        names.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return names


def _named(frame: Any, used: Counter[str] | None = None) -> list[tuple[Any, str]]:
    names = dict(zip(frame.index, _names(frame, used), strict=True))
    return [(row, names[row.Index]) for row in _rows(frame)]


def _bus(row: Any, name: str) -> Bus:
    longitude, latitude = json.loads(row.geo)["coordinates"][:2]
    limits = float(row.min_vm_pu), float(row.max_vm_pu)
    return Bus(name, float(row.vn_kv), *limits, float(longitude), float(latitude), perimeter="")


def _line(row: Any, name: str, bus_of: Mapping[int, str]) -> Line:
    return Line(
        line=name,
        from_bus=bus_of[row.from_bus],
        to_bus=bus_of[row.to_bus],
        length_km=float(row.length_km),
        r_ohm=float(row.r_ohm_per_km * row.length_km / row.parallel),
        x_ohm=float(row.x_ohm_per_km * row.length_km / row.parallel),
        c_nf=float(row.c_nf_per_km * row.length_km * row.parallel),
        i_max_a=float(row.max_i_ka * 1000 * row.df * row.parallel),
        loading_max_percent=float(row.max_loading_percent),
    )


def _transformer(row: Any, name: str, bus_of: Mapping[int, str]) -> Transformer:
    stepped = row.tap_side in ("hv", "lv") and row.tap_step_percent == row.tap_step_percent
    return Transformer(
        transformer=name,
        hv_bus=bus_of[row.hv_bus],
        lv_bus=bus_of[row.lv_bus],
        sn_mva=float(row.sn_mva * row.parallel),
        vn_hv_kv=float(row.vn_hv_kv),
        vn_lv_kv=float(row.vn_lv_kv),
        vk_percent=float(row.vk_percent),
        vkr_percent=float(row.vkr_percent),
        pfe_kw=float(row.pfe_kw * row.parallel),
        i0_percent=float(row.i0_percent),
        shift_degree=float(row.shift_degree),
        tap_side=row.tap_side if stepped else "hv",
        tap_neutral=int(row.tap_neutral) if stepped else 0,
        tap_min=int(row.tap_min) if stepped else 0,
        tap_max=int(row.tap_max) if stepped else 0,
        tap_step_percent=float(row.tap_step_percent) if stepped else 0.0,
        tap_pos=int(row.tap_pos) if stepped else 0,
        loading_max_percent=float(row.max_loading_percent * row.df),
    )


def _switches(net: Any, bus_of: Mapping[int, str]) -> tuple[Switch, ...]:
    """Switches whose bus and element are in service."""
    elements = {
        "b": {row.Index: bus_of[row.Index] for row in _rows(net.bus)},
        "l": {row.Index: name for row, name in _named(net.line)},
        "t": {row.Index: name for row, name in _named(net.trafo)},
    }
    return tuple(
        Switch(name, _KINDS[row.et], bus_of[row.bus], elements[row.et][row.element], bool(row.closed))
        for row, name in _named(net.switch)
        if row.bus in elements["b"] and row.element in elements[row.et]
    )


def _load(row: Any, name: str, bus_of: Mapping[int, str]) -> Load:
    p, q = float(row.p_mw * row.scaling), float(row.q_mvar * row.scaling)
    return Load(name, bus_of[row.bus], p, q, f"{row.profile}_pload", f"{row.profile}_qload")


def _generator(row: Any, name: str, bus_of: Mapping[int, str]) -> Generator:
    kind = str(row.type).lower()
    technology = next((word for part, word in _TECHNOLOGIES if part in kind), kind)
    p, q = float(row.p_mw * row.scaling), float(row.q_mvar * row.scaling)
    return Generator(name, bus_of[row.bus], p, q, technology, f"{row.profile}_res")


def _storage(row: Any, name: str, bus_of: Mapping[int, str]) -> Storage:
    efficiency = float(row.efficiency_percent)
    # SimBench fills this column with a share although its name says percent.
    share = efficiency if efficiency <= 1 else efficiency / 100
    return Storage(name, bus_of[row.bus], float(row.sn_mva), float(row.max_e_mwh), share, float(row.soc_percent) / 100)


def _profiles(frames: Mapping[str, Any]) -> Series:
    """Load profiles under their own names, those of generators with "_res" behind."""
    columns: dict[str, Any] = {}
    findings: list[Finding] = []
    labels = [instant.astimezone(ZONE).strftime("%d.%m.%Y %H:%M") for instant in YEAR]
    for kind, suffix in (("load", ""), ("renewables", "_res"), ("powerplants", "_res")):
        frame = frames[kind]
        findings.extend(_check_stamps(f"SimBench profiles, {kind}", list(frame["time"]), labels))
        columns.update({f"{name}{suffix}": frame[name] for name in frame.columns if name != "time"})
    refuse("The SimBench profiles", findings)
    names = tuple(sorted(columns))
    return Series(names, YEAR, np.array([columns[name].to_numpy(dtype=np.float64) for name in names]))


def _check_stamps(place: str, stamps: Sequence[str], labels: Sequence[str]) -> list[Finding]:
    if len(stamps) != len(labels):
        message = f"There are {len(stamps)} rows instead of {len(labels)}; use a grid with the profiles of 2016."
        return [Finding(place, "wrong_row_count", message)]
    wrong = [row for row, pair in enumerate(zip(stamps, labels, strict=True)) if pair[0] != pair[1]]
    return [
        Finding(f"{place}, row {row}", "wrong_stamp", f"'{stamps[row]}' stands where {labels[row]} belongs.")
        for row in wrong[:10]
    ]


def _version(folder: Path) -> int | None:
    try:
        return int((folder / "version").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write_cache(folder: Path, converted: SimbenchGrid) -> None:
    """Write a folder beside its place and move it there whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as room:
        fresh = Path(room) / "fresh"
        fresh.mkdir()
        for field in fields(GridTables):
            rows = [asdict(row) for row in getattr(converted.grid, field.name)]
            pq.write_table(pa.Table.from_pylist(rows), fresh / f"{field.name}.parquet")
        series = converted.profiles
        pq.write_table(pa.table(dict(zip(series.names, series.values, strict=True))), fresh / "profiles.parquet")
        (fresh / "version").write_text(f"{CACHE_VERSION}\n", encoding="utf-8")
        if folder.exists():
            folder.rename(Path(room) / "outdated")
        fresh.rename(folder)


def _read_cache(folder: Path) -> SimbenchGrid:
    tables = {}
    for name, hint in get_type_hints(GridTables).items():
        kind = get_args(hint)[0]
        tables[name] = tuple(kind(**row) for row in pq.read_table(folder / f"{name}.parquet").to_pylist())
    columns = pq.read_table(folder / "profiles.parquet")
    values = np.array([column.to_numpy() for column in columns.itercolumns()])
    return SimbenchGrid(GridTables(**tables), Series(tuple(columns.column_names), YEAR, values))
