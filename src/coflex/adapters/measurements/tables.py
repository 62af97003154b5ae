"""Measurements as tables: Parquet of the sealed segments, and one view with what is newer, read by DuckDB.

A row is a reading: `point`, `quantity`, `at` (start of its interval, UTC), `step_ms`, `value` (an integer; null
where it is missing) times 10^`scale` in the quantity's unit, `revision`, `leaf` (its message's number in the log). Rows
are sorted by quantity, point and time within row groups of bounded size. Nothing is overwritten: a correction is
another row, and readers take the highest revision that the log held at the size they name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coflex.adapters.measurements.files import put, sweep
from coflex.adapters.measurements.log import Log
from coflex.adapters.measurements.segment import Segment, commits
from coflex.evidence.message import Kind, decode_readings, scaled
from coflex.metering.quarters import Columns

MESSAGES_A_GROUP = 1 << 16
# From this size on a segment is written by a process of its own: it would hold the interpreter for seconds, in which
# nobody is answered.
APART_BYTES = 8 << 20
SCHEMA = pa.schema(
    [
        ("point", pa.uint32()),
        ("quantity", pa.uint8()),
        ("at", pa.timestamp("ms", tz="UTC")),
        ("step_ms", pa.uint32()),
        ("value", pa.int32()),
        ("scale", pa.int8()),
        ("revision", pa.uint8()),
        ("leaf", pa.int64()),
    ]
)
_ENCODINGS = {"point": "DELTA_BINARY_PACKED", "at": "DELTA_BINARY_PACKED", "leaf": "DELTA_BINARY_PACKED",
              "value": "DELTA_BINARY_PACKED"}  # fmt: skip
_DICTIONARIES = ["quantity", "step_ms", "scale", "revision"]
_CURRENT = """
    select * from {rows}
    where leaf < {size} and quantity = {quantity} {points}
      and "at" >= make_timestamptz({start} * 1000) and "at" < make_timestamptz({end} * 1000)
    qualify row_number() over (partition by point, quantity, "at" order by revision desc, leaf desc) = 1
    order by point, "at"
"""


def table(raws: Sequence[bytes], leaves: np.ndarray[Any, Any]) -> pa.Table:
    """The readings of measurement messages, sorted; `leaves`: each one's number in the log."""
    found = decode_readings(raws)
    order = np.lexsort((found.revision, found.at, found.point, found.quantity))
    columns: tuple[np.ndarray[Any, Any], ...] = (
        found.point, found.quantity, found.at, found.step, found.integer, found.scale, found.revision,
        leaves[found.message],
    )  # fmt: skip
    gaps = found.missing[order]
    arrays = [
        pa.array(column[order], mask=gaps if field.name == "value" else None).cast(field.type)
        for field, column in zip(SCHEMA, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def write_file(segment: Segment, path: Path) -> None:
    """Write the readings of an ended segment as Parquet, whole or not at all."""

    def write(file: Any) -> None:
        with pq.ParquetWriter(
            file, SCHEMA, compression="zstd", compression_level=3, use_dictionary=_DICTIONARIES,
            column_encoding=_ENCODINGS, version="2.6", store_schema=False,
        ) as writer:  # fmt: skip
            for group in groups(segment):
                writer.write_table(group, row_group_size=len(group))

    put(path, write)


def groups(segment: Segment) -> Iterator[pa.Table]:
    """The readings of a segment in tables of bounded size."""
    raws: list[bytes] = []
    numbers: list[int] = []
    leaf = segment.first
    for commit in commits(segment.data()):
        for raw in commit.messages:
            if raw[1] == Kind.MEASUREMENT:
                raws.append(raw)
                numbers.append(leaf)
            leaf += 1
        if len(raws) >= MESSAGES_A_GROUP:
            yield table(raws, np.array(numbers, np.int64))
            raws, numbers = [], []
    if raws:
        yield table(raws, np.array(numbers, np.int64))


class Tables:
    """The tables of a log: a folder of Parquet files, each of one segment, and what has no file yet."""

    def __init__(self, folder: Path, log: Log) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        self.folder, self._log = folder, log

    def path(self, segment: Segment) -> Path:
        """Where the rows of a sealed segment are; named by its first leaf, and the first one after it."""
        return self.folder / f"{segment.first:020d}-{segment.first + len(segment):020d}.parquet"

    def write(self, segment: Segment) -> Path:
        """Write the file of an ended segment; it is there whole or not at all."""
        path = self.path(segment)
        if path.exists():
            return path
        if segment.bytes >= APART_BYTES:
            command = [sys.executable, "-m", __name__, str(segment.path.parent), str(segment.first), str(path)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode == 0 and path.exists():
                return path
        write_file(segment, path)
        return path

    def missing(self) -> list[Segment]:
        """Ended segments without a file: after a kill."""
        return [segment for segment in self._log.sealed() if not self.path(segment).exists()]

    def files(self) -> list[Path]:
        """All files that are whole, oldest first."""
        return sorted(self.folder.glob("*.parquet"))

    def newer(self, points: Iterable[int] | None = None) -> pa.Table:
        """The readings that are in no file yet, of these points or of all."""
        wanted = None if points is None else list(points)
        parts = [SCHEMA.empty_table()]
        for segment in self._log.since(0):
            if self.path(segment).exists():
                continue
            leaves = range(len(segment)) if wanted is None else segment.of(wanted)
            for some in _runs(leaves):
                raws = segment.read(some.start, len(some))
                kept = [i for i, raw in enumerate(raws) if raw[1] == Kind.MEASUREMENT]
                if kept:
                    numbers = np.array([segment.first + some.start + i for i in kept], np.int64)
                    parts.append(table([raws[i] for i in kept], numbers))
        return pa.concat_tables(parts)

    def read(
        self,
        quantity: int,
        start: datetime,
        end: datetime,
        points: Iterable[int] | None = None,
        size: int | None = None,
    ) -> pa.Table:
        """Readings that start in [start, end), in their highest revision as of a log of `size` (now, if None).

        Columns as above, ordered by point and time. DuckDB reads the files; nothing is held between calls.
        """
        import duckdb

        wanted = None if points is None else sorted(set(points))
        with duckdb.connect() as connection:
            connection.execute("set timezone = 'UTC'")
            # Newer rows first: a segment whose file appears in between is then read twice and not missed.
            connection.register("newer", self.newer(wanted))
            files = [str(path) for path in self.files()]
            rows = "newer"
            if files:
                names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
                rows = f"(select * from read_parquet([{names}]) union all select * from newer)"
            chosen = "" if wanted is None else f"and point in ({', '.join(map(str, wanted)) or 'null'})"
            query = _CURRENT.format(
                rows=rows, size=self._log.size if size is None else int(size), quantity=int(quantity), points=chosen,
                start=_ms(start), end=_ms(end),
            )  # fmt: skip
            return connection.execute(query).to_arrow_table().cast(SCHEMA)


def columns_of(rows: pa.Table) -> Columns:
    """Rows of `read` as the columns that quarter-hours are made of, values in the quantity's unit."""
    found = {name: rows.column(name).to_numpy() for name in ("point", "step_ms", "revision", "leaf")}
    value = scaled(rows.column("value").cast("float64").to_numpy(), rows.column("scale").to_numpy().astype(np.int64))
    at = rows.column("at").cast("int64").to_numpy()
    return Columns(found["point"], at, found["step_ms"], value, found["revision"], found["leaf"].astype(np.int64))


def _runs(leaves: Iterable[int]) -> Iterator[range]:
    """Ascending numbers as ranges of at most a row group."""
    start = end = -1
    for leaf in leaves:
        if leaf != end or end - start >= MESSAGES_A_GROUP:
            if end > start:
                yield range(start, end)
            start = leaf
        end = leaf + 1
    if end > start:
        yield range(start, end)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


if __name__ == "__main__":  # `Tables.write` calls it: folder of the segment, its first leaf, the file to write
    os.nice(10)
    write_file(Segment.ended(Path(sys.argv[1]), int(sys.argv[2])), Path(sys.argv[3]))
