"""Spark, local or by the URL of its master: the engine for what has outgrown one machine. An optional extra."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coflex.adapters.warehouse.driver import Columns, parquet_files
from coflex.domain.errors import NotReady

if TYPE_CHECKING:
    import pyarrow as pa

PARTITIONS = 8


class SparkDriver:
    """A session. Rows go in and out as Parquet files, which lose nothing; on a cluster `room` is on a shared disk."""

    dialect = "pyspark"
    quote = "`"
    text = "string"

    def __init__(self, master: str, memory_gib: float | None, room: Path | None) -> None:
        self._session = _session(master, memory_gib)
        self._room = Path(tempfile.mkdtemp(prefix="coflex-spark-", dir=room))
        self._number = 0

    def take(self, name: str, columns: Columns, files: Path) -> None:
        frame = self._session.read.parquet(*(str(file) for file in parquet_files(files))).select(*columns)
        frame.createOrReplaceTempView(name)

    def keep(self, name: str, columns: Columns, queries: Iterable[str]) -> None:
        self.take(name, columns, self._written(queries))

    def view(self, name: str, query: str) -> None:
        self._session.sql(f"CREATE OR REPLACE TEMPORARY VIEW `{name}` AS {query}")

    def drop(self, name: str) -> None:
        self._session.catalog.dropTempView(name)

    def rows(self, columns: Columns, sql: str) -> pa.Table:
        return _read(self._written([sql]))

    def close(self) -> None:
        self._session.stop()
        shutil.rmtree(self._room, ignore_errors=True)

    def _written(self, queries: Iterable[str]) -> Path:
        self._number += 1
        place = self._room / str(self._number)
        for sql in queries:
            self._session.sql(sql).write.mode("append").parquet(str(place))
        return place


def _read(place: Path) -> pa.Table:
    """All rows of a folder that Spark has written; one that has none has a file with columns alone."""
    import pyarrow.parquet as pq

    return pq.read_table(place, partitioning=None)


def _session(master: str, memory_gib: float | None) -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise NotReady(
            "Spark is not installed.", 'Install it: pip install "coflex[spark]" (it needs Java 17).'
        ) from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.sql.session.timeZone": "UTC",
        # What does not fit is an error, as on every other engine, and a timestamp keeps its microseconds.
        "spark.sql.ansi.enabled": "true",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.shuffle.partitions": str(PARTITIONS),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if master.startswith("local"):
        settings |= {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    if memory_gib is not None:
        settings["spark.driver.memory"] = f"{max(1, int(memory_gib))}g"
    builder = SparkSession.builder.master(master).appName("coflex")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as fault:  # whatever Java or the network says
        said = " ".join(str(fault).split())
        raise NotReady(f"Spark does not start: {said[:200]}", "Check that Java 17 is installed, and the URL.") from None
