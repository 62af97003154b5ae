"""A grid as a folder: one CSV table a kind of device, and profiles where there are any.

    buses.csv lines.csv transformers.csv switches.csv sources.csv loads.csv generators.csv storages.csv
    branches.csv shunts.csv dispatches.csv cost_points.csv profiles.csv   where there are any

These are the tables of a case (`case_folder`); the rules that hold for a grid by itself stand here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from coflex.adapters.exchange.tables.profiles import read_timed_profiles
from coflex.adapters.exchange.tables.records import read_records
from coflex.domain.errors import Finding, refuse
from coflex.domain.series import Series
from coflex.grid.tables import GridTables, Switch

# Tables by name, and the type of their rows.
GRID: Mapping[str, type[Any]] = {name: get_args(hint)[0] for name, hint in get_type_hints(GridTables).items()}
# Tables that a grid without such things does without.
IF_ANY = ("branches", "shunts", "dispatches", "cost_points")
# Tables that a reference leads into, by the code of the finding when it leads nowhere.
NAMED_IN: Mapping[str, tuple[str, ...]] = {
    "unknown_bus": ("buses",),
    "unknown_line": ("lines",),
    "unknown_transformer": ("transformers",),
    "unknown_branch": ("branches",),
    "unknown_element": ("loads", "generators", "storages"),
    "unknown_called": ("loads", "generators", "storages", "sources"),
    "unknown_profile": ("profiles",),
}


def read_grid_folder(folder: Path) -> tuple[GridTables, Series | None]:
    """The grid of a folder, and its profiles if it has any.

    Raises Refused with every fault of every file, each with its file and line or row. What the network itself forbids
    (islands, impossible values) is found where it is built.
    """
    tables, faults = read_grid_tables(folder)
    profiles: Series | None = None
    if (folder / "profiles.csv").exists():
        profiles, faults["profiles"] = read_timed_profiles(folder / "profiles.csv")
    grid = GridTables(**tables)
    crossed = [
        *check_unique({f"{name}.csv": rows for name, rows in tables.items()}),
        *check_grid(known_names(grid, profiles.names if profiles else ()), grid),
    ]
    faulty = {name for name, found in faults.items() if found}
    findings = [finding for found in faults.values() for finding in found]
    findings.extend(finding for finding in crossed if faulty.isdisjoint(NAMED_IN.get(finding.code, ())))
    refuse(f"The grid {folder.name}", findings)
    return grid, profiles


def read_grid_tables(folder: Path) -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[Finding, ...]]]:
    """The rows of each table that did read, and the faults of each, by the table's name."""
    tables: dict[str, tuple[Any, ...]] = {}
    faults: dict[str, tuple[Finding, ...]] = {}
    for name, kind in GRID.items():
        path = folder / f"{name}.csv"
        absent = name in IF_ANY and not path.exists()
        tables[name], faults[name] = ((), ()) if absent else read_records(path, kind)
    return tables, faults


@dataclass(frozen=True)
class Names:
    """What is there to be referred to, by the code of the finding when it is not."""

    known: Mapping[str, frozenset[str]]

    def check(self, code: str, place: str, what: str, *names: str) -> Iterator[Finding]:
        for name in sorted(set(names) - self.known[code]):
            yield Finding(place, code, f"The {what} '{name}' is not there; add it or correct the name.")


def known_names(grid: GridTables, profiles: Sequence[str]) -> Names:
    """Everything in a grid that others refer to."""
    elements = frozenset(elements_of(grid))
    return Names(
        {
            "unknown_bus": frozenset(bus.bus for bus in grid.buses),
            "unknown_line": frozenset(line.line for line in grid.lines),
            "unknown_transformer": frozenset(item.transformer for item in grid.transformers),
            "unknown_profile": frozenset(profiles) | {""},
            "unknown_branch": frozenset(branch.branch for branch in grid.branches),
            "unknown_element": elements,
            "unknown_called": elements | {source.source for source in grid.sources},
        }
    )


def elements_of(grid: GridTables) -> dict[str, str]:
    """Bus of each load, generator and storage."""
    return (
        {load.load: load.bus for load in grid.loads}
        | {generator.generator: generator.bus for generator in grid.generators}
        | {storage.storage: storage.bus for storage in grid.storages}
    )


def check_unique(tables: Mapping[str, Sequence[Any]]) -> Iterator[Finding]:
    """Names that stand twice in a table (by the name of its file), or in two tables of elements."""
    for file, rows in tables.items():
        for name, count in sorted(Counter(map(_name, rows)).items()):
            if count > 1:
                message = f"'{name}' is named {count} times; give each row its own name."
                yield Finding(f"{file}: {name}", "named_twice", message)
    where: dict[str, list[str]] = {}
    for file in ("loads.csv", "generators.csv", "storages.csv"):
        for name in sorted(set(map(_name, tables[file]))):
            where.setdefault(name, []).append(file)
    for name, files in where.items():
        if len(files) > 1:
            message = f"'{name}' stands in {' and '.join(files)}; a unit could not tell which one it is, so rename one."
            yield Finding(f"{files[0]}: {name}", "named_twice", message)


def _name(row: Any) -> str:
    return str(getattr(row, fields(row)[0].name))


def check_grid(names: Names, grid: GridTables) -> Iterator[Finding]:
    """References of a grid's tables that lead nowhere."""
    yield from _check_branches(names, grid)
    yield from _check_injections(names, grid)


def _check_branches(names: Names, grid: GridTables) -> Iterator[Finding]:
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


def _check_switch(names: Names, switch: Switch, ends: Mapping[tuple[str, str], tuple[str, str]]) -> Iterator[Finding]:
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


def _check_injections(names: Names, grid: GridTables) -> Iterator[Finding]:
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
