"""A case as a folder: one page of settings, one CSV table a kind, one table of profiles.

    case.yaml   buses.csv lines.csv transformers.csv switches.csv sources.csv loads.csv generators.csv storages.csv
    profiles.csv   parties.csv connection_points.csv units.csv groups.csv products.csv
    branches.csv shunts.csv dispatches.csv cost_points.csv   where there are any

A folder is read whole or refused with every fault of every file. It is written beside its place and moved there,
so that a reader sees all of it or nothing.
"""

from __future__ import annotations

import csv
import io
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import yaml

from coflex.adapters.exchange.tables.records import BadCell, codec_of, read_records, write_records
from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.party import Party
from coflex.domain.product import Product
from coflex.domain.quantity import Floats
from coflex.domain.register import check_register
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, delivery_day, local_label, midnight
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.grid.tables import (
    Branch,
    Bus,
    CostPoint,
    Dispatch,
    Generator,
    GridTables,
    Line,
    Load,
    Shunt,
    Source,
    Storage,
    Switch,
    Transformer,
)
from coflex.process.ports import Case, CaseSettings

_GRID: dict[str, type[Any]] = {
    "buses": Bus,
    "lines": Line,
    "transformers": Transformer,
    "switches": Switch,
    "sources": Source,
    "loads": Load,
    "generators": Generator,
    "storages": Storage,
    "branches": Branch,
    "shunts": Shunt,
    "dispatches": Dispatch,
    "cost_points": CostPoint,
}
# Tables that a grid without such things does without.
_IF_ANY = ("branches", "shunts", "dispatches", "cost_points")
_REGISTER: dict[str, type[Any]] = {
    "parties": Party,
    "points": ConnectionPoint,
    "units": Unit,
    "groups": Group,
    "products": Product,
}
# A reference into a table that has faults of its own is not judged: the name may stand in a row that did not read.
_NAMED_IN: Mapping[str, tuple[str, ...]] = {
    "unknown_bus": ("buses",),
    "unknown_line": ("lines",),
    "unknown_transformer": ("transformers",),
    "unknown_branch": ("branches",),
    "unknown_element": ("loads", "generators", "storages"),
    "unknown_called": ("loads", "generators", "storages", "sources"),
    "unknown_profile": ("profiles",),
    "unknown_party": ("parties",),
    "unknown_point": ("points",),
    "unknown_unit": ("units",),
    "unknown_product": ("products",),
}
_LISTED = 10
_LONGEST = timedelta(days=3660)


def write_case(folder: Path, case: Case, *, replace: bool = False) -> None:
    """Write a case folder, whole or not at all.

    Raises CoflexError when the folder is there already, unless `replace`, and when a value cannot stand in a table.
    """
    if folder.exists() and not replace:
        raise CoflexError(f"The folder {folder} is there already.", "Choose another name, or ask to replace it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as room:
        fresh = Path(room) / "fresh"
        fresh.mkdir()
        _write_page(fresh / "case.yaml", case.settings)
        for name, kind in _GRID.items():
            if name not in _IF_ANY or getattr(case.grid, name):
                write_records(fresh / _file(name), kind, getattr(case.grid, name))
        for name, kind in _REGISTER.items():
            write_records(fresh / _file(name), kind, getattr(case, name))
        _write_profiles(fresh / "profiles.csv", case.profiles, case.zone)
        if folder.exists():
            folder.rename(Path(room) / "replaced")
        fresh.rename(folder)


def read_case(folder: Path) -> Case:
    """Read a case folder. Raises Refused with every fault of every file, each with its file and line or row."""
    if not folder.is_dir():
        place = str(folder)
        refuse("The case", [Finding(place, "missing_folder", "There is no such folder; make the case first.")])
    faults: dict[str, tuple[Finding, ...]] = {}
    tables: dict[str, tuple[Any, ...]] = {}
    settings, zone, faults["settings"] = _read_page(folder / "case.yaml")
    for name, kind in (_GRID | _REGISTER).items():
        absent = name in _IF_ANY and not (folder / _file(name)).exists()
        tables[name], faults[name] = ((), ()) if absent else read_records(folder / _file(name), kind)
    profiles, faults["profiles"] = _read_profiles(folder / "profiles.csv", zone)
    grid = GridTables(**{name: tables[name] for name in _GRID})
    register = {name: tables[name] for name in _REGISTER}
    faulty = {name for name, found in faults.items() if found} | (set() if profiles else {"profiles"})
    crossed = _check_tables(grid, profiles.names if profiles else (), **register)
    findings = [finding for found in faults.values() for finding in found]
    findings.extend(f for f in crossed if faulty.isdisjoint(_NAMED_IN.get(f.code, ())))
    if settings is not None:
        findings.extend(_check_settings(settings, profiles))
    refuse(f"The case {folder.name}", findings)
    assert settings is not None and profiles is not None  # each is None only with a finding
    return Case(settings, grid, profiles, **register)


def check_case(case: Case) -> tuple[Finding, ...]:
    """Every fault of a case beyond its single cells, sorted; empty when there is none.

    Names stand once in their table; buses, elements, profiles, parties, units and products that are referred to
    exist; a unit is an element at its own connection point, and no other unit is; the delivery day lies inside
    the profiles; and the rules of the register hold (`coflex.domain.register`).
    """
    register = {name: getattr(case, name) for name in _REGISTER}
    tables = _check_tables(case.grid, case.profiles.names, **register)
    return tuple(sorted({*tables, *_check_settings(case.settings, case.profiles)}))


def _file(table: str) -> str:
    return "connection_points.csv" if table == "points" else f"{table}.csv"


# ---- checks over several tables


@dataclass(frozen=True)
class _Names:
    """What is there to be referred to, by the code of the finding when it is not."""

    known: Mapping[str, frozenset[str]]

    def check(self, code: str, place: str, what: str, *names: str) -> Iterator[Finding]:
        for name in sorted(set(names) - self.known[code]):
            yield Finding(place, code, f"The {what} '{name}' is not in the case; add it or correct the name.")


def _check_tables(
    grid: GridTables,
    profiles: Sequence[str],
    parties: Sequence[Party],
    points: Sequence[ConnectionPoint],
    units: Sequence[Unit],
    groups: Sequence[Group],
    products: Sequence[Product],
) -> tuple[Finding, ...]:
    names = _Names(
        {
            "unknown_bus": frozenset(bus.bus for bus in grid.buses),
            "unknown_line": frozenset(line.line for line in grid.lines),
            "unknown_transformer": frozenset(item.transformer for item in grid.transformers),
            "unknown_profile": frozenset(profiles) | {""},
            "unknown_branch": frozenset(branch.branch for branch in grid.branches),
            "unknown_element": frozenset(_elements(grid)),
            "unknown_called": frozenset(_elements(grid)) | {source.source for source in grid.sources},
        }
    )
    tables = {name: getattr(grid, name) for name in _GRID} | {
        "parties": parties,
        "points": points,
        "units": units,
        "groups": groups,
        "products": products,
    }
    perimeter_of_bus = {bus.bus: bus.perimeter for bus in grid.buses}
    register = check_register(parties, points, units, groups, products, perimeter_of_bus)
    return (
        *_check_unique(tables),
        *_check_branches(names, grid),
        *_check_injections(names, grid),
        *_check_connections(names, grid, points, units),
        *(Finding(_register_place(f.place), f.code, f.message) for f in register),
    )


def _elements(grid: GridTables) -> dict[str, str]:
    """Bus of each load, generator and storage."""
    return (
        {load.load: load.bus for load in grid.loads}
        | {generator.generator: generator.bus for generator in grid.generators}
        | {storage.storage: storage.bus for storage in grid.storages}
    )


def _register_place(place: str) -> str:
    """The rules of the register speak of rows; a folder adds the file."""
    kind = next(kind for kind in ("connection point", "unit", "group") if place.startswith(f"{kind} "))
    return f"{kind.replace(' ', '_')}s.csv: {place}"


def _check_unique(tables: Mapping[str, Sequence[Any]]) -> Iterator[Finding]:
    kinds: Mapping[str, type[Any]] = {**_GRID, **_REGISTER}
    for table, rows in tables.items():
        key = fields(kinds[table])[0].name
        for name, count in sorted(Counter(getattr(row, key) for row in rows).items()):
            if count > 1:
                message = f"'{name}' is named {count} times; give each row its own name."
                yield Finding(f"{_file(table)}: {name}", "named_twice", message)
    where: dict[str, list[str]] = {}
    for table in ("loads", "generators", "storages"):
        for name in sorted({getattr(row, fields(kinds[table])[0].name) for row in tables[table]}):
            where.setdefault(name, []).append(_file(table))
    for name, files in where.items():
        if len(files) > 1:
            message = f"'{name}' stands in {' and '.join(files)}; a unit could not tell which one it is, so rename one."
            yield Finding(f"{files[0]}: {name}", "named_twice", message)


def _check_branches(names: _Names, grid: GridTables) -> Iterator[Finding]:
    for line in grid.lines:
        yield from names.check("unknown_bus", f"lines.csv: {line.line}", "bus", line.from_bus, line.to_bus)
    for item in grid.transformers:
        place = f"transformers.csv: {item.transformer}"
        yield from names.check("unknown_bus", place, "bus", item.hv_bus, item.lv_bus)
    ends = {("line", line.line): (line.from_bus, line.to_bus) for line in grid.lines}
    ends |= {("transformer", item.transformer): (item.hv_bus, item.lv_bus) for item in grid.transformers}
    ends |= {("branch", item.branch): (item.from_bus, item.to_bus) for item in grid.branches}
    for branch in grid.branches:
        place = f"branches.csv: {branch.branch}"
        yield from names.check("unknown_bus", place, "bus", branch.from_bus, branch.to_bus)
    for switch in grid.switches:
        yield from _check_switch(names, switch, ends)


def _check_switch(names: _Names, switch: Switch, ends: Mapping[tuple[str, str], tuple[str, str]]) -> Iterator[Finding]:
    place = f"switches.csv: {switch.switch}"
    yield from names.check("unknown_bus", place, "bus", switch.bus)
    if switch.kind not in ("bus", "line", "transformer", "branch"):
        message = f"'{switch.kind}' is nothing a switch acts on; write bus, line, transformer or branch."
        yield Finding(place, "unknown_kind", message)
        return
    yield from names.check(f"unknown_{switch.kind}", place, switch.kind, switch.element)
    both = ends.get((switch.kind, switch.element))
    if both is not None and switch.bus not in both:
        message = f"The {switch.kind} '{switch.element}' does not end at '{switch.bus}'; name one of its ends."
        yield Finding(place, "switch_off_its_element", message)


def _check_injections(names: _Names, grid: GridTables) -> Iterator[Finding]:
    for source in grid.sources:
        yield from names.check("unknown_bus", f"sources.csv: {source.source}", "bus", source.bus)
    for load in grid.loads:
        place = f"loads.csv: {load.load}"
        yield from names.check("unknown_bus", place, "bus", load.bus)
        yield from names.check("unknown_profile", place, "profile", load.profile_p, load.profile_q)
    for generator in grid.generators:
        place = f"generators.csv: {generator.generator}"
        yield from names.check("unknown_bus", place, "bus", generator.bus)
        yield from names.check("unknown_profile", place, "profile", generator.profile)
    for storage in grid.storages:
        yield from names.check("unknown_bus", f"storages.csv: {storage.storage}", "bus", storage.bus)
    for shunt in grid.shunts:
        yield from names.check("unknown_bus", f"shunts.csv: {shunt.shunt}", "bus", shunt.bus)
    for row in grid.dispatches:
        yield from names.check("unknown_called", f"dispatches.csv: {row.element}", "element", row.element)
    for point in grid.cost_points:
        yield from names.check("unknown_called", f"cost_points.csv: {point.point}", "element", point.element)


def _check_connections(
    names: _Names, grid: GridTables, points: Sequence[ConnectionPoint], units: Sequence[Unit]
) -> Iterator[Finding]:
    """Points at buses; units that are elements, one each, where they are connected."""
    for point in points:
        if point.bus:
            yield from names.check("unknown_bus", f"connection_points.csv: {point.id}", "bus", point.bus)
    elements, bus_of = _elements(grid), {point.id: point.bus for point in points}
    taken: dict[str, str] = {}
    for unit in sorted(units, key=lambda unit: unit.id):
        place, bus = f"units.csv: {unit.id}", bus_of.get(unit.connection_point)
        if not unit.element:
            if bus:
                message = f"The unit is connected at bus '{bus}' but is no element there; name its element."
                yield Finding(place, "no_element", message)
            continue
        yield from names.check("unknown_element", place, "element", unit.element)
        at = elements.get(unit.element, bus)
        if bus is not None and at != bus:
            message = f"The element '{unit.element}' is at bus '{at}', the connection point at '{bus}'; correct one."
            yield Finding(place, "element_elsewhere", message)
        first = taken.setdefault(unit.element, unit.id)
        if first != unit.id:
            message = f"The element '{unit.element}' is the unit '{first}' already; one element is one unit."
            yield Finding(place, "element_taken", message)


def _check_settings(settings: CaseSettings, profiles: Series | None) -> Iterator[Finding]:
    """Values of the page that a type alone does not bound."""
    zone = _zone(settings.zone)
    if zone is None:
        message = f"'{settings.zone}' is no time zone; write one such as Europe/Berlin."
        yield Finding("case.yaml, key zone", "unknown_zone", message)
    elif profiles is not None:
        day = delivery_day(settings.day, zone)
        if day.start < profiles.axis.start or day.end > profiles.axis.end:
            message = f"The profiles do not hold the day {settings.day}; choose one of theirs."
            yield Finding("case.yaml, key day", "day_outside_profiles", message)
    shares: dict[str, float | Decimal] = {
        "fee_share": settings.fee_share,
        "devices.failure_share": settings.devices.failure_share,
        "devices.noise_share": settings.devices.noise_share,
    }
    for key, share in shares.items():
        if not 0 <= share <= 1:
            yield Finding(f"case.yaml, key {key}", "not_a_share", f"{share} is no share; write 0 to 1.")
    sizes = {
        "seed": settings.seed,
        "load_scale": settings.load_scale,
        "pv_scale": settings.pv_scale,
        "tso.up_mw": settings.tso.up_mw,
        "tso.down_mw": settings.tso.down_mw,
    }
    for key, size in sizes.items():
        if size < 0:
            yield Finding(f"case.yaml, key {key}", "negative", f"{size} is negative; write zero or more.")


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


# ---- the page of settings


class _Page(yaml.SafeDumper):
    """YAML that keeps a decimal number's digits."""


def _decimal_node(page: _Page, value: Decimal) -> yaml.ScalarNode:
    text = str(value)
    return page.represent_scalar(f"tag:yaml.org,2002:{'int' if text.lstrip('-').isdigit() else 'float'}", text)


_Page.add_representer(Decimal, _decimal_node)


def _write_page(path: Path, settings: CaseSettings) -> None:
    body = yaml.dump(_mapping(settings), Dumper=_Page, sort_keys=False, allow_unicode=True)
    path.write_text(body, encoding="utf-8", newline="\n")


def _mapping(record: Any) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: _mapping(value) if is_dataclass(value) else value for name, value in values.items()}


def _read_page(path: Path) -> tuple[CaseSettings | None, ZoneInfo | None, tuple[Finding, ...]]:
    """The page, its zone even when other keys have faults, and every fault."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        return None, None, (Finding(path.name, "missing_file", "There is no such file; a case needs its page."),)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path.name}, line {mark.line + 1}" if mark else path.name
        message = "The page is no YAML from here on; check indentation and quotes."
        return None, None, (Finding(place, "not_yaml", message),)
    findings: list[Finding] = []
    settings = _read_mapping(root, CaseSettings, path.name, "", findings)
    keys = root.value if isinstance(root, yaml.MappingNode) else ()
    zone = next((str(value.value) for key, value in keys if key.value == "zone"), "")
    return settings, _zone(zone), tuple(findings)


def _read_mapping(node: Any, kind: type[Any], file: str, above: str, findings: list[Finding]) -> Any:
    """A dataclass from a YAML mapping; None after its faults have been added. `above`: the keys that lead here."""
    if not isinstance(node, yaml.MappingNode):
        message = f"Here stands no list of keys; write {', '.join(field.name for field in fields(kind))}."
        findings.append(Finding(f"{file}, key {above.rstrip('.')}" if above else file, "not_a_mapping", message))
        return None
    hints, values, before = get_type_hints(kind), {}, len(findings)
    for key, value in node.value:
        name = str(key.value)
        place = f"{file}, line {key.start_mark.line + 1}, key {above}{name}"
        if name not in hints:
            findings.append(Finding(place, "unknown_key", f"'{name}' is no key here; remove it."))
        elif name in values:
            findings.append(Finding(place, "repeated_key", f"'{name}' stands twice; remove one."))
        elif is_dataclass(hints[name]):
            values[name] = _read_mapping(value, hints[name], file, f"{above}{name}.", findings)
        else:
            values[name] = _read_scalar(value, hints[name], place, findings)
    for name in hints:
        if name not in values:
            place = f"{file}, key {above}{name}"
            findings.append(Finding(place, "missing_key", f"The key '{name}' is missing; add it."))
    return kind(**values) if len(findings) == before else None


def _read_scalar(node: Any, hint: Any, place: str, findings: list[Finding]) -> Any:
    """The value of a YAML scalar; None after its fault has been added."""
    if not isinstance(node, yaml.ScalarNode):
        findings.append(Finding(place, "not_a_value", "Here belongs one value; write it behind the colon."))
        return None
    try:
        return codec_of(hint).read(node.value)
    except BadCell as fault:
        findings.append(Finding(place, fault.code, fault.message))
        return None


# ---- profiles


def _write_profiles(path: Path, profiles: Series, zone: ZoneInfo) -> None:
    columns: dict[str, Any] = {"time": [local_label(instant, zone) for instant in profiles.axis]}
    columns.update(zip(profiles.names, profiles.values, strict=True))
    if len(columns) != len(profiles.names) + 1 or not np.isfinite(profiles.values).all():
        raise CoflexError("The profiles have a name twice or a number that is not finite.", "Correct them first.")
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(columns)
    with path.open("wb") as file:
        file.write(header.getvalue().encode())
        pacsv.write_csv(pa.table(columns), file, pacsv.WriteOptions(include_header=False, quoting_style="none"))


def _read_profiles(path: Path, zone: ZoneInfo | None) -> tuple[Series | None, tuple[Finding, ...]]:
    """The profiles and every fault of their table. Without a zone their stamps cannot be judged: None."""
    header, faults = _read_profile_header(path)
    if faults:
        return None, faults
    table, faults = _read_profile_table(path, header)
    if table is None:
        return None, faults
    values, faults = _read_profile_values(path.name, table, header[1:])
    stamps = ["" if stamp is None else str(stamp) for stamp in table.column("time").to_pylist()]
    if zone is None:
        return None, faults
    axis, wrong = _read_stamps(path.name, stamps, zone)
    findings = (*faults, *wrong)
    return (None if axis is None or findings else Series(tuple(header[1:]), axis, values)), findings


def _read_profile_header(path: Path) -> tuple[list[str], tuple[Finding, ...]]:
    place = f"{path.name}, line 1"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except FileNotFoundError:
        return [], (Finding(path.name, "missing_file", "There is no such file; add it, with its header at least."),)
    except (UnicodeDecodeError, csv.Error):
        return [], (Finding(place, "no_header", "The header does not read as UTF-8 text; save the file so."),)
    if header[:1] != ["time"]:
        return [], (Finding(place, "missing_column", "The first column is not 'time'; put the stamps there."),)
    repeated = sorted(name for name, count in Counter(header).items() if count > 1 or not name)
    return header, tuple(
        Finding(f"{place}, column {name}", "repeated_column", f"'{name}' is empty or stands twice; name it once.")
        for name in repeated
    )


def _read_profile_table(path: Path, header: Sequence[str]) -> tuple[pa.Table | None, tuple[Finding, ...]]:
    """The table with numbers as numbers; as text where one of them is none."""
    uneven: list[int] = []

    def skip(row: pacsv.InvalidRow) -> str:
        uneven.append(row.number)
        return "skip"

    read = pacsv.ReadOptions(use_threads=False, column_names=header, skip_rows=1)
    parse = pacsv.ParseOptions(invalid_row_handler=skip)
    for kind in (pa.float64(), pa.string()):
        uneven.clear()
        kinds = dict.fromkeys(header, kind) | {"time": pa.string()}
        try:
            table = pacsv.read_csv(path, read, parse, pacsv.ConvertOptions(column_types=kinds))
        except pa.ArrowInvalid:
            continue
        if uneven:
            message = f"{_lines(uneven)} not as many cells as the header; add or remove cells."
            return None, (Finding(f"{path.name}, line {uneven[0]}", "wrong_cell_count", message),)
        return table, ()
    return None, (Finding(path.name, "not_csv", "The file does not read as UTF-8 CSV; save it in that form."),)


def _read_profile_values(file: str, table: pa.Table, names: Sequence[str]) -> tuple[Floats, tuple[Finding, ...]]:
    values = np.empty((len(names), table.num_rows))
    findings = []
    for i, name in enumerate(names):
        column = table.column(name)
        if column.type == pa.string():
            values[i] = [_float_or_nan(cell) for cell in column.to_pylist()]
        else:
            values[i] = column.to_numpy()
        bad = np.flatnonzero(~np.isfinite(values[i])) + 2
        if bad.size:
            message = f"{_lines(bad.tolist())} no finite number; write one with a point, such as 0.25."
            findings.append(Finding(f"{file}, line {bad[0]}, column {name}", "not_a_number", message))
    return values, tuple(findings)


def _float_or_nan(cell: str | None) -> float:
    try:
        return float(codec_of(float).read(cell or ""))
    except BadCell:
        return math.nan


def _read_stamps(file: str, stamps: Sequence[str], zone: ZoneInfo) -> tuple[Axis | None, tuple[Finding, ...]]:
    """The axis of whole local days from the first stamp's to the last one's, and every stamp that is not its."""
    days = []
    for line, stamp in ((2, stamps[0]), (len(stamps) + 1, stamps[-1])) if stamps else ():
        try:
            days.append(datetime.fromisoformat(stamp).date())
        except ValueError:
            message = f"'{stamp}' is no stamp; write local time with its offset, as 2016-10-30T02:15+01:00."
            return None, (Finding(f"{file}, line {line}, column time", "wrong_stamp", message),)
    if not days or not timedelta(0) <= days[1] - days[0] <= _LONGEST:
        return None, (Finding(f"{file}, column time", "wrong_stamp", "There is no run of days; write whole days."),)
    start = midnight(days[0], zone)
    axis = Axis(start, (midnight(days[1] + timedelta(days=1), zone) - start) // QUARTER)
    labels = [local_label(instant, zone) for instant in axis]
    return axis, () if stamps == labels else tuple(_judge_stamps(f"{file}, line", stamps, labels))


def _judge_stamps(place: str, stamps: Sequence[str], labels: Sequence[str]) -> Iterator[Finding]:
    """What makes stamps differ from the labels: strangers, repetitions, gaps, or their order."""
    order = {label: i for i, label in enumerate(labels)}
    first: dict[str, int] = {}
    for line, stamp in enumerate(stamps, start=2):
        first.setdefault(stamp, line)
    strange = [line for line, stamp in enumerate(stamps, start=2) if stamp not in order]
    repeated = [line for line, stamp in enumerate(stamps, start=2) if first[stamp] != line and stamp in order]
    missing = [label for label in labels if label not in first]
    if strange:
        message = f"{_lines(strange)} no stamp of the local quarter-hours; write them as 2016-10-30T02:15+01:00."
        yield Finding(f"{place} {strange[0]}, column time", "wrong_stamp", message)
    if repeated:
        message = f"{_lines(repeated)} a stamp that stood before; the repeated hour differs in its offset."
        yield Finding(f"{place} {repeated[0]}, column time", "repeated_stamp", message)
    if missing:
        # The line where the first missing stamp belongs: behind the last of those before it.
        before = [first[label] for label in labels[: order[missing[0]]] if label in first]
        line = max(before, default=1) + 1
        message = f"{len(missing)} stamps are missing, the first is {missing[0]}; every quarter-hour has its line."
        yield Finding(f"{place} {line}, column time", "missing_stamp", message)
    if not (strange or repeated or missing):
        line = next(i for i, (stamp, label) in enumerate(zip(stamps, labels, strict=True), start=2) if stamp != label)
        message = f"'{stamps[line - 2]}' stands where {labels[line - 2]} belongs; sort the lines by time."
        yield Finding(f"{place} {line}, column time", "out_of_order", message)


def _lines(numbers: Sequence[int]) -> str:
    """'Line 7 has', 'Lines 7, 9 and 12 more have'."""
    if len(numbers) == 1:
        return f"Line {numbers[0]} has"
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return f"Lines {', '.join(str(number) for number in numbers[:_LISTED])}{more} have"
