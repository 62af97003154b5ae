"""Readings of some units as one table, CSV or Parquet: what `coflex baseline` reads.

Columns: `unit` (text), `start` (instant with its offset, on a quarter-hour), `kw` (mean power of the quarter-hour,
injection positive; empty where not metered) and, if one likes, `kind` (text, the same in all rows of a unit). A
quarter-hour without a row is not metered either. Weather beside it: `start` and `temperature_c`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from coflex.domain.errors import Finding, Refused, refuse
from coflex.domain.quantity import Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis

_INSTANT = pa.timestamp("ms", tz="UTC")
_QUARTER_MS = 900_000
_TOLD = 10


@dataclass(frozen=True, eq=False)
class Readings:
    """Power of units in kW, injection positive, NaN where not metered; kinds by unit; temperature in degrees Celsius
    on the same axis where there is one."""

    series: Series
    kinds: dict[str, str]
    temperature: Floats | None = None


def read_readings(path: Path, weather: Path | None = None) -> Readings:
    """The readings of a file. Raises Refused with its faults, each with its place."""
    table = _table(path, {"unit": pa.string(), "start": _INSTANT, "kw": pa.float64(), "kind": pa.string()}, {"kind"})
    names = pc.unique(table["unit"]).to_pylist()
    units = tuple(sorted(name for name in names if name))
    at = _milliseconds(table)
    findings = _faults(path, table, at, "kw")
    if not units:
        findings.append(Finding(path.name, "empty", "The file holds no reading; give some."))
    refuse(path.name, findings)
    row = pc.index_in(table["unit"], value_set=pa.array(units)).to_numpy().astype(np.int64)
    refuse(path.name, _repeated(path, table, row, at))
    axis = _axis(at)
    values = np.full((len(units), len(axis)), np.nan)
    place = (at - at.min()) // _QUARTER_MS
    values[row, place] = table["kw"].to_numpy(zero_copy_only=False)
    kinds: dict[str, str] = {}
    if "kind" in table.column_names:
        pairs = table.group_by(["unit", "kind"]).aggregate([]).to_pylist()
        kinds = {pair["unit"]: pair["kind"] for pair in pairs if pair["kind"]}
    return Readings(Series(units, axis, values), kinds, None if weather is None else _weather(weather, axis))


def write_readings(path: Path, readings: Readings) -> None:
    """Write readings as CSV or Parquet, by the file's ending; quarter-hours that are not metered are left out."""
    row, place = np.nonzero(np.isfinite(readings.series.values))
    start = int(readings.series.axis.start.timestamp()) * 1000
    names = np.array(readings.series.names, dtype=object)
    kinds = np.array([readings.kinds.get(name, "unit") for name in readings.series.names], dtype=object)
    table = pa.table({
        "unit": pa.array(names[row], pa.string()),
        "start": pa.array(start + place * _QUARTER_MS, pa.int64()).cast(_INSTANT),
        "kw": pa.array(readings.series.values[row, place]),
        "kind": pa.array(kinds[row], pa.string()),
    })  # fmt: skip
    if path.suffix == ".parquet":
        pq.write_table(table, path, compression="zstd")
    else:
        pyarrow.csv.write_csv(table, path)


def _table(path: Path, columns: dict[str, Any], optional: set[str]) -> pa.Table:
    """The columns of a file in their types. Raises Refused."""
    try:
        if path.suffix == ".parquet":
            read = pq.read_table(path)
        else:
            options = pyarrow.csv.ConvertOptions(column_types=columns, strings_can_be_null=True)
            read = pyarrow.csv.read_csv(path, convert_options=options)
    except FileNotFoundError:
        raise Refused(
            path.name, [Finding(path.name, "missing_file", "There is no such file; check its name.")]
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        message = f"The file cannot be read ({str(error).splitlines()[0]}); correct it there."
        raise Refused(path.name, [Finding(path.name, "not_a_table", message)]) from None
    wanted = [name for name in columns if name not in optional]
    missing = [name for name in wanted if name not in read.column_names]
    message = f"Columns are {', '.join(wanted)}; add those that are missing."
    refuse(path.name, [Finding(f"{path.name}: {name}", "missing_column", message) for name in missing])
    there = [name for name in columns if name in read.column_names]
    try:
        return pa.table({name: read[name].cast(columns[name]) for name in there})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"A column is of another type ({str(error).splitlines()[0]}); write text, instants and numbers."
        raise Refused(path.name, [Finding(path.name, "wrong_type", message)]) from None


def _milliseconds(table: pa.Table) -> Ints:
    values: Ints = table["start"].cast(pa.int64()).fill_null(1).to_numpy()
    return values


def _faults(path: Path, table: pa.Table, at: Ints, value: str) -> list[Finding]:
    """Rows without unit or instant, instants off the quarter-hour, infinite values; the first ten of each."""
    numbers = table[value].to_numpy(zero_copy_only=False)
    checks = [
        ("no_instant", pc.is_null(table["start"]).to_numpy(), "The row has no instant; write one with its offset."),
        ("off_the_quarter", (at % _QUARTER_MS != 0) & (at != 1), "A row begins on a quarter-hour; move or average it."),
        ("not_finite", np.isinf(numbers), "The power is infinite; leave the cell empty where nothing is metered."),
    ]
    if "unit" in table.column_names:
        checks.append(("no_unit", pc.is_null(table["unit"]).to_numpy(), "The row names no unit; write its name."))
    return [
        Finding(f"{path.name}, row {int(k) + 1}", code, message)
        for code, wrong, message in checks
        for k in np.flatnonzero(wrong)[:_TOLD]
    ]


def _repeated(path: Path, table: pa.Table, row: Ints, at: Ints) -> list[Finding]:
    """Rows that tell a quarter-hour of a unit again."""
    order = np.lexsort((np.arange(len(at)), at, row))
    again = order[1:][(row[order][1:] == row[order][:-1]) & (at[order][1:] == at[order][:-1])]
    message = "The quarter-hour of this unit stands in an earlier row too; keep one of them."
    return [Finding(f"{path.name}, row {int(k) + 1}", "repeated", message) for k in np.sort(again)[:_TOLD]]


def _axis(at: Ints) -> Axis:
    first, last = int(at.min()), int(at.max())
    return Axis(datetime.fromtimestamp(first / 1000, UTC), (last - first) // _QUARTER_MS + 1, QUARTER)


def _weather(path: Path, axis: Axis) -> Floats:
    """Temperature on an axis, held from each value to the next (hourly values serve four quarters), NaN before the
    first and an hour or more after the last."""
    table = _table(path, {"start": _INSTANT, "temperature_c": pa.float64()}, set())
    at = _milliseconds(table)
    refuse(path.name, _faults(path, table, at, "temperature_c"))
    if not len(at):
        raise Refused(path.name, [Finding(path.name, "empty", "The file holds no temperature; give some.")])
    order = np.argsort(at, kind="stable")
    at, values = at[order], table["temperature_c"].to_numpy(zero_copy_only=False)[order]
    instants = int(axis.start.timestamp()) * 1000 + np.arange(len(axis)) * _QUARTER_MS
    before = np.searchsorted(at, instants, side="right") - 1
    known = (before >= 0) & (instants - at[np.maximum(before, 0)] < 4 * _QUARTER_MS)
    return np.where(known, values[np.maximum(before, 0)], np.nan)
