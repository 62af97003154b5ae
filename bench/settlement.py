"""How long it takes to settle a city: 580,000 connection points by 96 quarter-hours, on DuckDB in the process.

    python bench/settlement.py
    python bench/settlement.py --points 58000 --repeats 1

The city is drawn once, by a seed, into Parquet files of a temporary folder: readings and baselines of every point and
quarter-hour, and 8 activated quarter-hours of every tenth point. What stands beside the settlement is written by hand,
in SQL: the same join of all readings with all baselines and the same four sums of each point, without activations,
rules or money. Every run is a process of its own, so that its highest memory can be told; settlement and bare join take
turns. Importing and connecting is told apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from table import Line, asks_for_lines, give, load

POINTS, QUARTERS, SEED, THREADS = 580_000, 96, 6, 2
MEMORY_GIB = 6.0
GIB = 2**30
PARTS = ("checked", "energies", "judged", "rounded", "booked")
BARE = """
CREATE TABLE bare AS SELECT r.point, count(*) AS quarters, sum(r.wh) AS measured_wh, sum(b.wh) AS baseline_wh,
    sum(r.wh - b.wh) AS deviation_wh
FROM readings r JOIN baselines b ON r.point = b.point AND r.start = b.start GROUP BY r.point
"""
TRUTH = """
SELECT count(DISTINCT r.point), count(*), sum(r.wh - b.wh)
FROM readings r JOIN baselines b ON r.point = b.point AND r.start = b.start WHERE r.quality <> 2
"""


def main() -> None:
    """Draw the city, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; the median counts")
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    asks_for_lines(parser)
    given = parser.parse_args()
    if given.one:
        what, folder = given.one[0], Path(given.one[1])
        others = {"draw": lambda folder: draw(folder, given.points), "truth": truth_of}
        print(json.dumps({**others, **RUNS}[what](folder)))
        return
    load("before")
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        drawn = apart("draw", folder, given.points)
        print(f"{given.points:,} points drawn in {drawn['seconds']:.0f} s, {drawn['mib']:.0f} MiB", flush=True)
        truth = apart("truth", folder)["sums"]
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
        for _ in range(given.repeats):
            for name in RUNS:
                found[name].append(apart(name, folder))
                print(f"  {name}: {_told(found[name][-1])}", flush=True)
    load("after")
    check(found, truth)
    give(measured(found), given.lines)


def measured(found: dict[str, list[dict[str, Any]]]) -> list[Line]:
    """The lines of the table."""

    def seconds(name: str, part: str = "seconds") -> float:
        return float(median(one[part] for one in found[name]))

    def peak(name: str) -> float:
        return max(one["peak_bytes"] for one in found[name]) / GIB

    bare, outward = seconds("bare"), seconds("outward")
    lines = found["outward"][0]["lines"]
    return [
        Line("bare join and sums of all rows", f"{bare:.2f} s", 1.0, "itself"),
        Line(
            "  the same, a slice of points at a time",
            f"{seconds('bare_slices'):.2f} s",
            seconds("bare_slices") / bare,
            "in one",
        ),
        Line(
            "settled from all rows", f"{seconds('all'):.2f} s", seconds("all") / bare, "bare join and sums", at_most=1.3
        ),
        Line("  in one slice", f"{seconds('whole'):.2f} s", seconds("whole") / bare, "bare join and sums"),
        Line(
            f"settled from the activations outward, {lines:,} lines",
            f"{outward:.2f} s",
            outward / 3,
            "3 s",
            at_most=1.0,
        ),
        Line("  from all rows beside it", f"{seconds('all'):.2f} s", seconds("all") / outward, "outward"),
        *(
            Line(
                f"    of it {part}", f"{seconds('outward', part):.2f} s", seconds("outward", part) / outward, "outward"
            )
            for part in PARTS
        ),
        Line(
            "peak memory, all rows",
            f"{peak('all'):.2f} GiB",
            peak("all") / peak("bare"),
            f"bare, {peak('bare'):.2f} GiB",
        ),
        Line("peak memory, outward", f"{peak('outward'):.2f} GiB", peak("outward") / peak("bare"), "bare"),
        Line(
            "importing DuckDB and Ibis, connecting", f"{seconds('outward', 'opening'):.2f} s", 0.0, "not counted above"
        ),
    ]


def check(found: dict[str, list[dict[str, Any]]], truth: list[int]) -> None:
    """Both ways give the same money, and all rows the sums that plain SQL gives."""
    if len({json.dumps(one["books"]) for runs in found.values() for one in runs if "books" in one}) != 1:
        sys.exit("The two ways do not give the same postings.")
    if any(one["sums"] != truth for runs in found.values() for one in runs if "sums" in one):
        sys.exit("The sums of the points are not those of plain SQL.")


def _told(one: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {took:.2f}" for name, took in one.items() if name in PARTS)
    return (
        f"{one['seconds']:.2f} s, {one['processor']:.1f} s of processor in all, peak {one['peak_bytes'] / GIB:.2f} GiB"
        + (f" ({parts})" if parts else "")
    )


def apart(name: str, folder: Path, points: int = POINTS) -> dict[str, Any]:
    """One run in a process of its own."""
    script = [sys.executable, __file__, "--one", name, str(folder), "--points", str(points)]
    return dict(json.loads(subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout))


# ---------------------------------------------------------------- what is measured


def bare(folder: Path, slices: bool = False) -> dict[str, Any]:
    """The join and the sums alone, by DuckDB's own interface."""
    connection = _connected(folder)
    began = perf_counter()
    if slices:
        _bare_slices(connection)
    else:
        connection.execute(BARE)
    seconds = perf_counter() - began
    return _peaked(seconds=seconds)


def truth_of(folder: Path) -> dict[str, Any]:
    """What the points' sums add to, asked for in plain SQL."""
    connection = _connected(folder)
    return {"sums": [int(one) for one in connection.execute(TRUTH).fetchone()]}


def _connected(folder: Path) -> Any:
    import duckdb

    settings = {"threads": THREADS, "memory_limit": f"{MEMORY_GIB}GiB", "temp_directory": str(folder)}
    connection = duckdb.connect(config=settings)
    connection.execute("SET preserve_insertion_order = false")
    for name in ("readings", "baselines"):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM '{folder / name}.parquet'")
    return connection


def _bare_slices(connection: Any) -> None:
    from coflex.adapters.warehouse.city import SLICE

    (most,) = connection.execute("SELECT max(point) FROM readings").fetchone()
    head, query = BARE.split(" AS SELECT", 1)
    for first in range(0, most + 1, SLICE):
        within = (
            f"WHERE r.point BETWEEN {first} AND {first + SLICE - 1} AND b.point BETWEEN {first} AND {first + SLICE - 1}"
        )
        chosen = "SELECT" + query.replace("GROUP BY", within + " GROUP BY")
        connection.execute(f"{head} AS {chosen}" if first == 0 else f"INSERT INTO bare {chosen}")


def settled(folder: Path, way: str, slices: bool = True) -> dict[str, Any]:
    """A whole settlement: energies, lines, cents, postings and both sides' check."""
    began = perf_counter()
    from coflex.adapters.warehouse.city import City, Way
    from coflex.adapters.warehouse.engine import open_warehouse

    with open_warehouse("duckdb:", threads=THREADS, memory_gib=MEMORY_GIB, room=folder) as house:
        opening = perf_counter() - began
        began = perf_counter()
        city = City.of(house, folder)
        took = city.settle(Way(way), sliced=slices)
        seconds = perf_counter() - began
        answer = _peaked(seconds=seconds, opening=opening, **took)
        answer["books"] = city.proof()
        answer["lines"] = city.count("lines")
        if way == "all":
            sums = house.rows(city.point_sums()).to_pydict()
            answer["sums"] = [len(sums["point"]), sum(sums["quarters"]), sum(sums["deviation_wh"])]
    return answer


def _peaked(**told: Any) -> dict[str, Any]:
    unit = 1024 if sys.platform == "linux" else 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {**told, "processor": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * unit}


RUNS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "bare": bare,
    "all": lambda folder: settled(folder, "all"),
    "outward": lambda folder: settled(folder, "activated"),
    "whole": lambda folder: settled(folder, "all", slices=False),
    "bare_slices": lambda folder: bare(folder, slices=True),
}


# ---------------------------------------------------------------- the city


def draw(folder: Path, points: int) -> dict[str, Any]:
    """The city's tables as Parquet files, the same for the same seed. Rows lie by point and start, so that a reader
    skips what it does not need, and neighbours compress."""
    import duckdb

    began = perf_counter()
    connection = duckdb.connect(config={"threads": THREADS})
    connection.execute("SET TimeZone = 'UTC'")
    for name, query in _tables(points).items():
        given = "FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd"
        connection.execute(f"COPY ({query}) TO '{folder / name}.parquet' ({given})")
    size = sum(file.stat().st_size for file in folder.glob("*.parquet")) / 2**20
    return {"seconds": perf_counter() - began, "mib": size}


def _tables(points: int) -> dict[str, str]:
    """Each table as a query: a load that follows the day, readings near it, and an order of every tenth point."""
    noise = f"(((p * 7919 + q * 104729 + {SEED}) * 48271) & 1023)"
    base = "(((p * 31) & 511) * (4 + abs(48 - q)) // 52)"
    sign, ordered = "(CASE WHEN p % 20 = 3 THEN 1 ELSE -1 END)", "(250 * (1 + (p // 10) % 8))"
    event = "p % 10 = 3 AND q BETWEEN 72 AND 79"
    came = f"CASE WHEN {event} THEN {sign} * {ordered} * (70 + {noise} % 50) // 100 ELSE 0 END"
    at = "p::INTEGER AS point, (TIMESTAMPTZ '2026-11-20 00:00:00+00' + q * INTERVAL 15 MINUTE) AS start"
    every = f"(SELECT 1 + i // {QUARTERS} AS p, i % {QUARTERS} AS q FROM range({points * QUARTERS}) t(i))"
    called = f"(SELECT 3 + 10 * (i // 8) AS p, 72 + i % 8 AS q FROM range({points // 10 * 8}) t(i))"
    kind = "(p % 20 = 3)::INTEGER"
    numbers = f"(SELECT unnest(range(1, {points + 1})) AS p)"
    return {
        "baselines": f"SELECT {at}, (-{base})::INTEGER AS wh FROM {every}",
        "readings": f"SELECT {at}, ({noise} % 61 - 30 - {base} + {came})::INTEGER AS wh, "
        f"(CASE WHEN {noise} = 7 THEN 2 ELSE 0 END)::TINYINT AS quality, 0::SMALLINT AS version FROM {every}",
        "activations": f"SELECT {at}, (1 + {kind} + 2 * (p % 17))::INTEGER AS booking, p::INTEGER AS offer, "
        f"(1 + {kind})::INTEGER AS rule, {sign}::TINYINT AS sign, {ordered}::INTEGER AS ordered_wh, "
        f"(4000 + {noise} * 11)::INTEGER AS price FROM {called}",
        "points": "SELECT p::INTEGER AS point, 'owner-' || p AS owner, 'sp-' || (p % 17) AS provider, "
        "'brp-' || (p % 9) AS brp, 7000::INTEGER AS owner_share, 2500::INTEGER AS owner_penalty_share "
        f"FROM {numbers}",
        "bookings": "SELECT b::INTEGER AS booking, CASE WHEN b % 2 = 0 THEN 'local-1' ELSE 'global-1' END AS session, "
        "CASE WHEN b % 2 = 0 THEN 'dso' ELSE 'tso' END AS buyer, 'sp-' || ((b - 1) // 2) AS provider "
        "FROM (SELECT unnest(range(1, 35)) AS b)",
        "rules": _rules(),
    }


def _rules() -> str:
    """A metered rule with a payment curve, and a requested one."""
    corners = {1: (5000, 0), 2: (9500, 10000), 3: (12000, 12000)}
    points = ", ".join(
        f"{corners.get(place, (12000, 12000))['xy'.index(axis)]} AS {axis}{place}"
        for place in range(1, 7)
        for axis in "xy"
    )
    kinds = (
        "(VALUES (1, true, 1000, 10000, 0), (2, false, 1000, 5000, 3)) AS t(rule, requested, tolerance, share, curve)"
    )
    return (
        "SELECT rule::INTEGER AS rule, requested, tolerance::INTEGER AS tolerance, share::INTEGER AS penalty_share, "
        "NULL::INTEGER AS penalty_price, 12000::INTEGER AS cap, false AS opposite_counts, false AS two_sided, "
        f"200::INTEGER AS fee_share, 'delivered' AS transfer, curve::INTEGER AS curve, {points} FROM {kinds}"
    )


if __name__ == "__main__":
    main()
