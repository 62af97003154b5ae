"""A pandapower net as rows that can be read: names for everything, missing values as None, what is in service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coflex.domain.errors import Finding

# Devices of one pool share one space of names, as the tables they end in do.
POOLS: tuple[tuple[str, ...], ...] = (
    ("bus",),
    ("line", "trafo", "trafo3w", "impedance"),
    ("switch",),
    (
        *("load", "sgen", "gen", "ext_grid", "storage", "motor", "ward", "xward", "asymmetric_load"),
        *("asymmetric_sgen", "dcline", "shunt"),
    ),
)


@dataclass(frozen=True, eq=False)
class Reading:
    """A net under way to tables.

    `buses`, `vn_kv`: name and rated voltage of each bus in service by its index. `names[table][index]`. `joins`:
    (kind, name) of what a switch of pandapower's kind joins: ("l", index) of a line, ("t", index) of a transformer,
    ("t3", index, bus) of a winding. `notes`: what is worth knowing about the tables; `faults`: what keeps the net
    from becoming tables.
    """

    net: Any
    buses: Mapping[int, str]
    vn_kv: Mapping[int, float]
    names: Mapping[str, Mapping[int, str]]
    joins: dict[tuple[Any, ...], tuple[str, str]] = field(default_factory=dict)
    notes: list[Finding] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)

    def rows(self, table: str) -> list[tuple[Any, str]]:
        """Rows in service with their names; `row.Index` is pandapower's index. Empty where there is no such table."""
        return [(row, self.names[table][row.Index]) for row in _rows(self.net, table)]

    def injections(self, table: str) -> list[tuple[Any, str, str]]:
        """Rows of a device at one bus, with their names and the names of their buses. What stands at a bus that is
        out of service is so itself."""
        found = []
        for row, name in self.rows(table):
            if row.bus in self.buses:
                found.append((row, name, self.buses[row.bus]))
            else:
                self.note(table, name, "bus_out_of_service", "Its bus is out of service, and so is it; set one right.")
        return found

    def note(self, table: str, name: str, code: str, message: str) -> None:
        self.notes.append(Finding(f"net.{table}: {name}", code, message))

    def fault(self, table: str, name: str, code: str, message: str) -> None:
        self.faults.append(Finding(f"net.{table}: {name}", code, message))


def reading(net: Any) -> Reading:
    """Start reading a net."""
    in_service = _rows(net, "bus")
    names = {table: given for pool in POOLS for table, given in _names(net, pool).items()}
    return Reading(
        net,
        {row.Index: names["bus"][row.Index] for row in in_service},
        {row.Index: number(row, "vn_kv") for row in in_service},
        names,
    )


def number(row: Any, column: str, default: float = float("nan")) -> float:
    """A value of a row; the default where it is missing or there is no such column."""
    value = getattr(row, column, None)
    return default if value is None else float(value)


def word(row: Any, column: str) -> str:
    """A text of a row; empty where it is missing."""
    value = getattr(row, column, None)
    return "" if value is None else str(value)


def _rows(net: Any, table: str) -> list[Any]:
    """The rows in service as named tuples, None where a value is missing."""
    frame = net.get(table)
    if frame is None or not len(frame):
        return []
    frame = frame.astype(object).where(frame.notna(), None)
    return [row for row in frame.itertuples() if getattr(row, "in_service", True)]


def _names(net: Any, pool: Sequence[str]) -> dict[str, dict[int, str]]:
    """Names of all rows of a pool: their own where it is given once, else the table and the index."""
    rows: list[tuple[str, int, str]] = []
    for table in pool:
        frame = net.get(table)
        if frame is not None and len(frame):
            given = frame["name"] if "name" in frame else [None] * len(frame)
            rows += [
                (table, index, "" if name is None or name != name else str(name).strip())
                for index, name in zip(frame.index, given, strict=True)
            ]
    count = Counter(name for *_, name in rows)
    count.update(f"{table} {index}" for table, index, name in rows if name != f"{table} {index}")
    names: dict[str, dict[int, str]] = {table: {} for table in pool}
    for table, index, name in rows:
        names[table][index] = name if name and count[name] == 1 else f"{table} {index}"
    return names
