"""Any grid that coflex reads, told by what stands in it: a file, a folder, or the code of a SimBench grid."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coflex.adapters.grids.parts import with_feeders, without_dead
from coflex.domain.errors import Finding, Refused
from coflex.domain.series import Series
from coflex.grid.tables import GridTables

# Reads a folder of CSV tables; they belong to another door, so whoever opens this one brings it along.
FolderReader = Callable[[Path], tuple[GridTables, Series | None]]

READABLE = "MATPOWER (.m), pandapower (.json), power-grid-model (.json), CGMES (.zip, .xml or a folder of them)"

_BEGINNING = 65_536  # bytes that tell what a file is
_SIMBENCH = re.compile(r"[01]-[A-Za-z0-9._-]+-(no_)?sw")
_MATPOWER = re.compile(r"^\s*(mpc\.\w+\s*=|function\s+(mpc|\[\s*baseMVA)\b)", re.MULTILINE)
_PANDAPOWER = re.compile(r"pandapowerNet")
_POWER_GRID_MODEL = re.compile(r'"(is_batch|u_rated)"|"type"\s*:\s*"(input|update|sym_output)"')
_CIM = re.compile(r"CIM-schema-cim|iec\.ch/TC57|ucaiug\.org", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class ImportedGrid:
    """A grid as tables, profiles of its powers if it has any, and remarks on what was not taken over as it stands."""

    tables: GridTables
    profiles: Series | None
    findings: tuple[Finding, ...]


def read_grid(source: str | Path, cache: Path, read_folder: FolderReader) -> ImportedGrid:
    """The grid of a file, a folder or a SimBench code.

    `cache`: where converted SimBench grids are kept. Where no bus names a perimeter, feeders become perimeters (a
    folder of tables stays as it is). Raises Refused with every fault of the data, each with its place; CoflexError
    where a reader cannot open its file at all.
    """
    path = Path(source)
    if not str(source).strip() or not path.exists():
        return _by_code(str(source), cache)
    if path.is_dir() and (path / "buses.csv").is_file():
        tables, profiles = read_folder(path)
        return ImportedGrid(tables, profiles, ())
    kind = _kind_of(path)
    if kind == "cgmes":
        from coflex.adapters.grids.cgmes import read_cgmes

        tables, remarks = read_cgmes(path)
    elif kind == "pandapower":
        from coflex.adapters.grids.pandapower_json import read_pandapower

        tables, remarks = read_pandapower(path)
    else:
        tables, remarks = _plain(kind, path)
    return ImportedGrid(_with_perimeters(tables), None, remarks)


def _by_code(code: str, cache: Path) -> ImportedGrid:
    if not _SIMBENCH.fullmatch(code):
        message = "There is no such file or folder, and it is no SimBench code such as 1-MV-urban--0-sw; correct it."
        raise Refused("The grid", [Finding(code, "missing_file", message)])
    from coflex.adapters.grids.simbench import load_grid

    found = load_grid(code, cache)
    return ImportedGrid(found.grid, found.profiles, ())


def _plain(kind: str, path: Path) -> tuple[GridTables, tuple[Finding, ...]]:
    """Formats that need no reader but ours. What no source reaches and carries no power is left out, and told."""
    from coflex.adapters.grids.matpower import read_matpower
    from coflex.adapters.grids.power_grid_json import read_power_grid_json

    tables, remarks = read_matpower(path) if kind == "matpower" else read_power_grid_json(path)
    fed, notes = without_dead(tables)
    return fed, (*remarks, *notes)


def _with_perimeters(tables: GridTables) -> GridTables:
    return tables if any(bus.perimeter for bus in tables.buses) else with_feeders(tables)


def _kind_of(path: Path) -> str:
    """What a file is by its content; a name alone is not believed. Raises Refused with what is readable."""
    if path.is_dir():
        if any(file.suffix.lower() in (".xml", ".zip") for file in path.rglob("*")):
            return "cgmes"
        message = "The folder holds neither buses.csv nor CGMES files; name a grid's folder."
        raise Refused("The grid", [Finding(str(path), "unknown_format", message)])
    with path.open("rb") as file:
        data = file.read(_BEGINNING)
    if zipfile.is_zipfile(path):
        names = zipfile.ZipFile(path).namelist()
        if any(name.lower().endswith((".xml", ".zip")) for name in names):
            return "cgmes"
    text = data.decode("utf-8", errors="replace")
    signs = (("pandapower", _PANDAPOWER), ("power_grid_model", _POWER_GRID_MODEL), ("cgmes", _CIM))
    start = text.lstrip("\ufeff \t\r\n")[:1]
    for kind, sign in signs:
        if start in ("<" if kind == "cgmes" else "{[") and start and sign.search(text):
            return kind
    if path.suffix.lower() == ".m" or _MATPOWER.search(text):
        return "matpower"
    hint = _HINTS.get(path.suffix.lower(), "")
    message = f"The file is none that can be read: {READABLE}, or a folder of CSV tables.{hint}"
    raise Refused("The grid", [Finding(path.name, "unknown_format", message)])


_HINTS = {
    ".p": " Save the net with pandapower.to_json; pickles can run code.",
    ".pkl": " Save the net with pandapower.to_json; pickles can run code.",
    ".mat": " Save the case as text with MATPOWER's savecase.",
    ".xlsx": " Save the net with pandapower.to_json.",
}
