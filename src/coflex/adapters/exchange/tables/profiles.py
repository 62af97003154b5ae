"""Profiles as a CSV table: a column `time` of local quarter-hours with their offsets, then a column a series."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from coflex.adapters.exchange.tables.records import BadCell, codec_of
from coflex.domain.errors import CoflexError, Finding
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, local_label, midnight

_LISTED = 10
_LONGEST = timedelta(days=3660)


def write_profiles(path: Path, profiles: Series, zone: ZoneInfo) -> None:
    """Write profiles. Raises CoflexError when a name stands twice or a number is not finite."""
    columns: dict[str, Any] = {"time": [local_label(instant, zone) for instant in profiles.axis]}
    columns.update(zip(profiles.names, profiles.values, strict=True))
    if len(columns) != len(profiles.names) + 1 or not np.isfinite(profiles.values).all():
        raise CoflexError("The profiles have a name twice or a number that is not finite.", "Correct them first.")
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(columns)
    with path.open("wb") as file:
        file.write(header.getvalue().encode())
        pacsv.write_csv(pa.table(columns), file, pacsv.WriteOptions(include_header=False, quoting_style="none"))


def read_profiles(path: Path, zone: ZoneInfo | None) -> tuple[Series | None, tuple[Finding, ...]]:
    """The profiles of whole local days, and every fault of their table. Without a zone their stamps cannot be judged:
    None."""
    return _read(path, lambda file, stamps: _read_stamps(file, stamps, zone) if zone else (None, ()))


def read_timed_profiles(path: Path) -> tuple[Series | None, tuple[Finding, ...]]:
    """The profiles of any run of quarter-hours, told by their offsets alone, and every fault of their table."""
    return _read(path, _read_instants)


_AxisOf = Callable[[str, Sequence[str]], tuple[Axis | None, tuple[Finding, ...]]]


def _read(path: Path, axis_of: _AxisOf) -> tuple[Series | None, tuple[Finding, ...]]:
    header, faults = _read_profile_header(path)
    if faults:
        return None, faults
    table, faults = _read_profile_table(path, header)
    if table is None:
        return None, faults
    values, faults = _read_profile_values(path.name, table, header[1:])
    stamps = ["" if stamp is None else str(stamp) for stamp in table.column("time").to_pylist()]
    axis, wrong = axis_of(path.name, stamps)
    findings = (*faults, *wrong)
    return (None if axis is None or findings else Series(tuple(header[1:]), axis, values)), findings


def _read_instants(file: str, stamps: Sequence[str]) -> tuple[Axis | None, tuple[Finding, ...]]:
    """The axis of quarter-hours from the first stamp on, and the stamps that are not its."""
    instants: list[datetime | None] = []
    for stamp in stamps:
        try:
            instants.append(codec_of(datetime).read(stamp))
        except BadCell:
            instants.append(None)
    wrong = [line for line, instant in enumerate(instants, start=2) if instant is None]
    if wrong or not instants or instants[0] is None:
        message = f"{_lines(wrong)} no stamp with its offset; write one as 2016-10-30T02:15+01:00." if wrong else ""
        place = f"{file}, line {wrong[0] if wrong else 2}, column time"
        return None, (Finding(place, "wrong_stamp", message or "There is no quarter-hour; write one a line."),)
    axis = Axis(instants[0], len(instants))
    for line, (found, expected) in enumerate(zip(instants, axis, strict=True), start=2):
        if found != expected:
            message = f"'{stamps[line - 2]}' does not follow the line before by a quarter-hour; correct it."
            return None, (Finding(f"{file}, line {line}, column time", "out_of_order", message),)
    return axis, ()


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
