"""Grids as folders of tables."""

from __future__ import annotations

from pathlib import Path

from coflex.adapters.exchange.tables.grid_folder import GRID, IF_ANY
from coflex.adapters.exchange.tables.records import write_records
from coflex.grid.tables import GridTables


def write_folder(folder: Path, tables: GridTables, *profiles: str) -> Path:
    """A new folder of a grid's tables, and the lines of its profiles if there are any."""
    folder.mkdir()
    for name, kind in GRID.items():
        if getattr(tables, name) or name not in IF_ANY:
            write_records(folder / f"{name}.csv", kind, getattr(tables, name))
    if profiles:
        (folder / "profiles.csv").write_text("\n".join(profiles) + "\n", encoding="utf-8")
    return folder
