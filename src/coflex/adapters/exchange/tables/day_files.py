"""Quarter-hours of very many points, one Parquet file a local day: `2016-05-12.parquet`.

Columns: `point` (uint32), `quarter` (uint8, from 0, 92 to 100 of them), `kw` (float32, mean power, injection positive;
NaN or null where not metered). Rows are sorted by point, then by quarter, and every point has all quarters of the day.
Points may come and go from day to day. Any SQL engine reads and writes them:

    COPY (SELECT point, quarter, kw FROM metered ORDER BY point, quarter) TO '2016-05-12.parquet'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Bools, Ints
from coflex.domain.time import delivery_day
from coflex.metering.alignment import positions
from coflex.metering.baselines.columns import ColumnsResult, day_averages
from coflex.metering.baselines.compute import Asked
from coflex.metering.baselines.days import DayAverage
from coflex.metering.baselines.document import MethodDocument
from coflex.metering.eligibility import UnitCalendar, judge_days, may_stand

Powers = NDArray[np.float32]
Points = NDArray[np.uint32]

POINTS_AT_ONCE = 16_384
READERS = 2
_SCHEMA = pa.schema([("point", pa.uint32()), ("quarter", pa.uint8()), ("kw", pa.float32())])


def write_day(folder: Path, day: date, points: Points, kw: Powers) -> Path:
    """Write the file of a day: points ascending, kw (points, quarters). It appears whole or not at all."""
    with DayWriter(folder, day) as writer:
        writer.add(points, kw)
    return writer.path


class DayWriter:
    """Writes the file of a day piece by piece, points ascending; the file appears when all of it is there."""

    def __init__(self, folder: Path, day: date) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{day.isoformat()}.parquet"
        self._part = self.path.with_suffix(".part")
        self._file = pq.ParquetWriter(
            self._part,
            _SCHEMA,
            compression="zstd",
            use_dictionary=["point", "quarter"],
            column_encoding={"kw": "BYTE_STREAM_SPLIT"},
        )

    def add(self, points: Points, kw: Powers) -> None:
        """The next points and their powers."""
        quarters = kw.shape[1]
        columns = [
            pa.array(np.repeat(points.astype(np.uint32), quarters)),
            pa.array(np.tile(np.arange(quarters, dtype=np.uint8), len(points))),
            pa.array(np.ascontiguousarray(kw, dtype=np.float32).ravel()),
        ]
        self._file.write_table(pa.table(columns, schema=_SCHEMA), row_group_size=POINTS_AT_ONCE * quarters)

    def __enter__(self) -> DayWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink()


@dataclass(frozen=True, eq=False)
class DayFile:
    """A day's file, opened: its row groups with their first and last point."""

    path: Path
    quarters: int
    groups: tuple[tuple[int, int], ...]
    file: pq.ParquetFile = field(repr=False)

    @classmethod
    def open(cls, path: Path, quarters: int) -> DayFile:
        """Raises CoflexError on a file that is none of ours."""
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise CoflexError(f"{path.name} is no Parquet file that can be read ({error}).", "Write it anew.") from None
        names = file.schema_arrow.names
        if missing := [name for name in _SCHEMA.names if name not in names]:
            raise CoflexError(f"{path.name} has no column {', '.join(missing)}.", "Write point, quarter and kw.")
        groups = []
        for k in range(file.num_row_groups):
            told = file.metadata.row_group(k).column(names.index("point")).statistics
            if told is None or not told.has_min_max:
                raise CoflexError(f"{path.name} does not tell its points.", "Write it with statistics.")
            groups.append((int(told.min), int(told.max)))
        return cls(path, quarters, tuple(groups), file)

    def points(self) -> Points:
        """All points, ascending."""
        column = self.file.read(columns=["point"], use_threads=False)["point"].to_numpy()
        mine: Points = column[:: self.quarters]
        return mine

    def read(self, wanted: Points) -> Powers:
        """The powers of points, shape (points, quarters), NaN for points that the day does not have.

        Raises CoflexError when the rows are not in order.
        """
        low, high = int(wanted[0]), int(wanted[-1])
        groups = [k for k, (first, last) in enumerate(self.groups) if first <= high and low <= last]
        if not groups:
            return np.full((len(wanted), self.quarters), np.nan, dtype=np.float32)
        table = self.file.read_row_groups(groups, columns=list(_SCHEMA.names), use_threads=False)
        points = self._in_order(table)
        kw = table["kw"].to_numpy().astype(np.float32, copy=False).reshape(-1, self.quarters)
        if np.array_equal(points, wanted):
            whole: Powers = kw
            return whole
        at = np.minimum(np.searchsorted(points, wanted), len(points) - 1)
        found: Powers = np.where((points[at] == wanted)[:, None], kw[at], np.float32(np.nan))
        return found

    def _in_order(self, table: pa.Table) -> Points:
        """The points of a piece, each once. Every row is looked at."""
        rows = len(table)
        if rows % self.quarters == 0:
            points = table["point"].to_numpy().reshape(-1, self.quarters)
            clock = table["quarter"].to_numpy().reshape(-1, self.quarters)
            each: Points = points[:, 0]
            if (
                (points == each[:, None]).all()
                and (clock == np.arange(self.quarters)).all()
                and (each[1:] > each[:-1]).all()
            ):
                return each
        raise CoflexError(
            f"{self.path.name} is not sorted by point and quarter, or lacks a quarter-hour.",
            f"Write {self.quarters} rows a point, in order.",
        )


@dataclass(frozen=True, eq=False)
class Piece:
    """Baselines of some points: `result.values[i, t]` is that of points[i]. days_read: files that were opened."""

    points: Points
    result: ColumnsResult
    days_read: int


def held_days(folder: Path) -> tuple[date, ...]:
    """The days that a folder holds, ascending."""
    found = []
    for path in folder.glob("*.parquet"):
        try:
            found.append(date.fromisoformat(path.stem))
        except ValueError:
            continue
    return tuple(sorted(found))


def baselines_of_all(
    folder: Path,
    target: date,
    event: tuple[int, int],
    notice: int,
    document: MethodDocument,
    calendar: UnitCalendar,
    zone: ZoneInfo,
    every_day: bool = False,
) -> Iterator[Piece]:
    """The baselines of all points of the last day held before a day (or of the day itself), piece by piece.

    event: its quarters of the target day, half-open; notice: the quarter in which the order was known. Days are read
    from the latest back until every point of a piece has as many as the method looks at; with `every_day` all that
    the document allows are read. Raises CoflexError when the method averages no days or no day is held.
    """
    if not isinstance(document.method, DayAverage):
        raise CoflexError(f"The method {document.id} averages no days.", "Choose one of X of Y, all days or rolling.")
    method: DayAverage = document.method
    axis = delivery_day(target, zone)
    held = held_days(folder)
    past = [day for day in held if day < target]
    verdicts = may_stand(judge_days(past, target, document.days, calendar))
    days = [day for day, may in zip(past, verdicts, strict=True) if may]
    if not days:
        raise CoflexError(
            f"The folder {folder} holds no day that may stand for {target}.", "Add days, or see --method."
        )
    files = {day: DayFile.open(folder / f"{day}.parquet", len(delivery_day(day, zone))) for day in days}
    clock = {day: positions(delivery_day(day, zone), axis, zone) for day in days}
    today = DayFile.open(folder / f"{target}.parquet", len(axis)) if target in held else None
    sold = np.zeros(len(axis), dtype=np.bool_)
    sold[slice(*event)] = True
    points = (today or files[days[-1]]).points()
    with ThreadPoolExecutor(READERS) as readers:
        for first in range(0, len(points), POINTS_AT_ONCE):
            wanted = points[first : first + POINTS_AT_ONCE]
            now = None if today is None or method.adjustment is None else today.read(wanted)
            history, able = _history(files, clock, wanted, method.most, every_day, readers)
            result = day_averages(history, able, sold, now, notice, method)
            yield Piece(wanted, result, len(history))


def _history(
    files: dict[date, DayFile],
    clock: dict[date, Ints],
    wanted: Points,
    most: int,
    every_day: bool,
    readers: ThreadPoolExecutor,
) -> tuple[Powers, Bools]:
    """The latest days of some points, (days, points, quarters) ascending, and that all of them may be used."""

    def read(day: date) -> Powers:
        kw = files[day].read(wanted)
        same = len(clock[day]) == files[day].quarters and (clock[day] == np.arange(files[day].quarters)).all()
        return kw if same else kw[:, clock[day]]

    waiting: Sequence[date] = sorted(files, reverse=True)
    kept: list[Powers] = []
    whole = np.zeros(len(wanted), dtype=np.int64)
    while waiting and (every_day or whole.min() < most):
        count = len(waiting) if every_day else max(1, most - int(whole.min()))
        for kw in readers.map(read, waiting[:count]):
            kept.append(kw)
            whole += np.isfinite(kw).all(axis=1)
        waiting = waiting[count:]
    return np.stack(kept[::-1]), np.ones(len(kept), dtype=np.bool_)


def write_baselines(
    folder: Path, asked: Asked, document: MethodDocument, zone: ZoneInfo, out: Path, every_day: bool = False
) -> tuple[int, int, int, Path]:
    """The baselines of all points for an event, written as the file of its day in another folder, NaN where there is
    none: how many points, how many without, the most days that were read for a piece, and the file.

    Raises CoflexError on an event that is no part of one local day, or when `out` is the folder of the readings.
    """
    day = asked.start.astimezone(zone).date()
    axis = delivery_day(day, zone)
    if not axis.start <= asked.start < asked.end <= axis.end:
        raise CoflexError("The event is no part of one local day.", "Give start and end inside a day, start first.")
    if out.resolve() == folder.resolve():
        raise CoflexError("The baselines would take the place of readings.", "Choose another --out.")
    event = (asked.start - axis.start) // axis.step, -((axis.start - asked.end) // axis.step)
    notice = (asked.notice - axis.start) // axis.step
    points = without = days = 0
    pieces = baselines_of_all(folder, day, event, notice, document, asked.calendar, zone, every_day)
    first = next(pieces)  # what is wrong with the folder shows before anything is written
    with DayWriter(out, day) as writer:
        for piece in chain([first], pieces):
            writer.add(piece.points, piece.result.values.astype(np.float32))
            points += len(piece.points)
            without += int((~piece.result.enough).sum())
            days = max(days, piece.days_read)
    return points, without, days, writer.path
