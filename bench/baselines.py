"""How long the baselines of a city take: high 5 of 10 and others for every connection point, over 45 days of history.

    python bench/baselines.py                      # 580,000 points: 9.5 GB of float32, about 7 GB of Parquet
    python bench/baselines.py --points 58000       # a tenth of it
    python bench/baselines.py --keep FOLDER        # keep the history there, and take it from there the next time

The history is drawn: a daily shape of each point's own size, noise, days of higher and lower use, one reading in ten
thousand missing; 45 days and the event day in files of the format that `coflex baseline compute` reads. Timed is what
that command does in this process: files read, days judged, all 96 quarter-hours of every baseline written to Parquet.
"As few days as needed" reads back until every point has its days; "all days held" reads every eligible day of the 45,
and every one of the 45 where the method takes any day type. Beside it stands the bare reading of the same files
without a sum being taken. The peak of memory is that of this process.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import perf_counter, process_time
from zoneinfo import ZoneInfo

import numpy as np
from table import Line, asks_for_lines, give, load

from coflex.adapters.exchange.tables.day_files import (
    POINTS_AT_ONCE,
    DayFile,
    DayWriter,
    baselines_of_all,
    held_days,
    write_baselines,
)
from coflex.metering.baselines.compute import Asked
from coflex.metering.baselines.days import day_average
from coflex.metering.baselines.document import MethodDocument, load_method, read_method
from coflex.metering.eligibility import NO_CALENDAR, judge_days, may_stand

ROME = ZoneInfo("Europe/Rome")
DAY, DAYS, POINTS, GIB = date(2016, 7, 5), 45, 580_000, 2**30
EVENT = (72, 80)
ASKED = Asked("", datetime(2016, 7, 5, 16, tzinfo=UTC), datetime(2016, 7, 5, 18, tzinfo=UTC),
              datetime(2016, 7, 5, 14, tzinfo=UTC))  # fmt: skip
ALL_45 = "{id: all_45, version: 1, title: t, source: s, days: {like: any}, kind: all_days, parameters: {most: 45}}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--keep", type=Path, help="folder of the history; a temporary one without it")
    asks_for_lines(parser)
    given = parser.parse_args()
    load("before")
    with tempfile.TemporaryDirectory() as room:
        folder = given.keep or Path(room) / "history"
        if len(held_days(folder)) < DAYS + 1:
            _draw(folder, given.points)
        lines = measured(folder, Path(room) / "out", given.points)
    load("after")
    give(lines, given.lines)


def measured(folder: Path, out: Path, points: int) -> list[Line]:
    """The lines of the table."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{points} points, {DAYS} days and the day itself: {size / GIB:.2f} GiB in {DAYS + 1} files", flush=True)
    bare = _bare(folder)
    lines = [Line(f"bare reading of the {DAYS} days, one thread", f"{bare:.1f} s", 1.0, "itself")]
    for document, every in (
        (load_method("high_5_of_10_additive"), False),
        (load_method("last_4_alike_additive"), False),
        (load_method("high_5_of_10_additive"), True),
        (read_method(ALL_45, "all_45"), True),
    ):
        seconds, days = _timed(folder, out, document, every)
        _agree(folder, document)
        what = f"{document.method.label}: {days} days read"
        lines.append(Line(what, f"{seconds:.1f} s", seconds / bare, "the bare reading"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines.append(Line("peak memory", f"{peak / GIB:.2f} GiB", peak / (8 * GIB), "8 GiB", at_most=1.0))
    return lines


def _timed(folder: Path, out: Path, document: MethodDocument, every: bool) -> tuple[float, int]:
    began, used = perf_counter(), process_time()
    points, without, days, _ = write_baselines(folder, ASKED, document, ROME, out, every)
    seconds = perf_counter() - began
    used = process_time() - used
    print(
        f"{document.id}: {points} points, {days} days read, in {seconds:.1f} s, {used:.1f} s of processor time; "
        f"{without} without a baseline",
        flush=True,
    )
    return seconds, days


def _bare(folder: Path) -> float:
    """Seconds to read and decode the powers of all past days, piece by piece, into arrays."""
    began = perf_counter()
    total = 0.0
    for day in held_days(folder)[:-1]:
        file = DayFile.open(folder / f"{day}.parquet", 96).file
        for k in range(file.num_row_groups):
            total += float(file.read_row_group(k, columns=["kw"], use_threads=False)["kw"].to_numpy()[0])
    if not np.isfinite(total):
        print("a first reading is missing; the sum says nothing", file=sys.stderr)
    return perf_counter() - began


def _agree(folder: Path, document: MethodDocument) -> None:
    """The first piece is, point by point, what the function for one unit says: to the last bit, on a sample."""
    piece = next(baselines_of_all(folder, DAY, EVENT, 64, document, NO_CALENDAR, ROME))
    days = [day for day in held_days(folder) if day < DAY]
    kw = np.stack([DayFile.open(folder / f"{day}.parquet", 96).read(piece.points) for day in days]).astype(np.float64)
    today = DayFile.open(folder / f"{DAY}.parquet", 96).read(piece.points).astype(np.float64)
    eligible = may_stand(judge_days(days, DAY, document.days, NO_CALENDAR))
    sold = np.isin(np.arange(96), np.arange(*EVENT))
    for i in range(0, len(piece.points), 499):
        one = day_average(kw[:, i], eligible, sold, today[i], 64, document.method)
        if not np.array_equal(one.values, piece.result.values[i], equal_nan=True):
            sys.exit(f"{document.id}: point {piece.points[i]} has another baseline alone than among all.")


def _draw(folder: Path, points: int) -> None:
    """Write the history, a day at a time."""
    clock = np.arange(96) / 96 * 2 * np.pi
    shape = (1 + 0.5 * np.sin(clock - 2) + 0.25 * np.sin(2 * clock)).astype(np.float32)
    for back in range(DAYS, -1, -1):
        day = DAY - timedelta(days=back)
        weekend = np.float32(0.8 if day.weekday() >= 5 else 1.0)
        with DayWriter(folder, day) as writer:
            for first in range(0, points, POINTS_AT_ONCE):
                rng = np.random.default_rng([back, first])
                count = min(POINTS_AT_ONCE, points - first)
                numbers = np.arange(first, first + count, dtype=np.uint32)
                size = 0.2 + 2 * ((numbers * np.uint32(2654435761)) % np.uint32(1000)).astype(np.float32) / 1000
                level = size * weekend * rng.normal(1, 0.2, count).astype(np.float32)
                kw = -level[:, None] * shape * (1 + 0.3 * rng.standard_normal((count, 96), dtype=np.float32))
                kw = np.round(kw * 1000) / 1000
                kw[rng.random((count, 96), dtype=np.float32) < 1e-4] = np.nan
                writer.add(numbers, kw)
    print(f"drawn: {DAYS + 1} days of {points} points", flush=True)


if __name__ == "__main__":
    main()
