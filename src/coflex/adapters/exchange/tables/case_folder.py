"""A case as a folder: one page of settings, one CSV table a kind, one table of profiles.

    case.yaml   buses.csv lines.csv transformers.csv switches.csv sources.csv loads.csv generators.csv storages.csv
    profiles.csv   parties.csv connection_points.csv units.csv groups.csv products.csv
    branches.csv shunts.csv dispatches.csv cost_points.csv   where there are any

A folder is read whole or refused with every fault of every file. It is written beside its place and moved there,
so that a reader sees all of it or nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from coflex.adapters.exchange.tables.grid_folder import (
    GRID,
    IF_ANY,
    NAMED_IN,
    Names,
    check_grid,
    check_unique,
    elements_of,
    known_names,
    read_grid_tables,
)
from coflex.adapters.exchange.tables.profiles import read_profiles, write_profiles
from coflex.adapters.exchange.tables.records import BadCell, codec_of, read_records, write_records
from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.party import Party
from coflex.domain.product import Product
from coflex.domain.register import check_register
from coflex.domain.series import Series
from coflex.domain.time import delivery_day
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.grid.tables import (
    GridTables,
)
from coflex.process.ports import Case, CaseSettings

_REGISTER: dict[str, type[Any]] = {
    "parties": Party,
    "points": ConnectionPoint,
    "units": Unit,
    "groups": Group,
    "products": Product,
}
# A reference into a table that has faults of its own is not judged: the name may stand in a row that did not read.
_NAMED_IN: Mapping[str, tuple[str, ...]] = {
    **NAMED_IN,
    "unknown_party": ("parties",),
    "unknown_point": ("points",),
    "unknown_unit": ("units",),
    "unknown_product": ("products",),
}


# Keys that pages had, and what to do where one still stands.
_GONE = {
    "fee_share": "The settlement rules say the fee; remove the key, or draw the case again by coflex case make.",
}


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
        for name, kind in GRID.items():
            if name not in IF_ANY or getattr(case.grid, name):
                write_records(fresh / _file(name), kind, getattr(case.grid, name))
        for name, kind in _REGISTER.items():
            write_records(fresh / _file(name), kind, getattr(case, name))
        write_profiles(fresh / "profiles.csv", case.profiles, case.zone)
        if folder.exists():
            folder.rename(Path(room) / "replaced")
        fresh.rename(folder)


def read_case(folder: Path) -> Case:
    """Read a case folder. Raises Refused with every fault of every file, each with its file and line or row."""
    if not folder.is_dir():
        place = str(folder)
        refuse("The case", [Finding(place, "missing_folder", "There is no such folder; make the case first.")])
    faults: dict[str, tuple[Finding, ...]] = {}
    settings, zone, faults["settings"] = _read_page(folder / "case.yaml")
    tables, found = read_grid_tables(folder)
    faults |= found
    for name, kind in _REGISTER.items():
        tables[name], faults[name] = read_records(folder / _file(name), kind)
    profiles, faults["profiles"] = read_profiles(folder / "profiles.csv", zone)
    grid = GridTables(**{name: tables[name] for name in GRID})
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


def _check_tables(
    grid: GridTables,
    profiles: Sequence[str],
    parties: Sequence[Party],
    points: Sequence[ConnectionPoint],
    units: Sequence[Unit],
    groups: Sequence[Group],
    products: Sequence[Product],
) -> tuple[Finding, ...]:
    names = known_names(grid, profiles)
    register_tables = {"parties": parties, "points": points, "units": units, "groups": groups, "products": products}
    tables = {name: getattr(grid, name) for name in GRID} | register_tables
    perimeter_of_bus = {bus.bus: bus.perimeter for bus in grid.buses}
    register = check_register(parties, points, units, groups, products, perimeter_of_bus)
    return (
        *check_unique({_file(name): rows for name, rows in tables.items()}),
        *check_grid(names, grid),
        *_check_connections(names, grid, points, units),
        *(Finding(_register_place(f.place), f.code, f.message) for f in register),
    )


def _register_place(place: str) -> str:
    """The rules of the register speak of rows; a folder adds the file."""
    kind = next(kind for kind in ("connection point", "unit", "group") if place.startswith(f"{kind} "))
    return f"{kind.replace(' ', '_')}s.csv: {place}"


def _check_connections(
    names: Names, grid: GridTables, points: Sequence[ConnectionPoint], units: Sequence[Unit]
) -> Iterator[Finding]:
    """Points at buses; units that are elements, one each, where they are connected."""
    for point in points:
        if point.bus:
            yield from names.check("unknown_bus", f"connection_points.csv: {point.id}", "bus", point.bus)
    elements, bus_of = elements_of(grid), {point.id: point.bus for point in points}
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
            message = _GONE.get(f"{above}{name}", f"'{name}' is no key here; remove it.")
            findings.append(Finding(place, "unknown_key", message))
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
