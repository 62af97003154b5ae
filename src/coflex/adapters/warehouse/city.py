"""A city's settlement on a warehouse: its tables from a folder, its energies one of two ways, its lines and books."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from coflex.adapters.warehouse.engine import Expression, Warehouse, open_warehouse
from coflex.domain.errors import Conflict, Finding, Unbalanced, refuse
from coflex.reporting import kpi_columns
from coflex.settlement import column_books as books
from coflex.settlement import columns

if TYPE_CHECKING:
    import pyarrow as pa

SLICE = 32_768
"""Points settled at a time from all rows: what is joined then fits into the processor's caches."""

TABLES = {
    "readings": columns.READINGS,
    "baselines": columns.BASELINES,
    "activations": columns.ACTIVATIONS,
    "bookings": columns.BOOKINGS,
    "rules": columns.RULES,
    "points": columns.POINTS,
}
NARROWED = ("readings", "baselines", "activations")
SLICED = " of a slice"
KPI_TABLES = {
    "messages": kpi_columns.MESSAGES,
    "set_points": kpi_columns.SET_POINTS,
    "merit": kpi_columns.MERIT,
    "lights": kpi_columns.LIGHTS,
    "limitations": kpi_columns.LIMITATIONS,
}


class Way(StrEnum):
    """`activated`: from the activated points outward. `all`: from all rows, with the sums of every point besides."""

    ACTIVATED = "activated"
    ALL = "all"


class City:
    """The tables of one city on one warehouse."""

    def __init__(self, house: Warehouse) -> None:
        self._house = house

    @classmethod
    def of(cls, house: Warehouse, folder: Path) -> City:
        """The tables of a folder, each a Parquet file or a folder of them by its name. Raises NotFound, Refused."""
        for name, kinds in TABLES.items():
            house.take(name, kinds, _place(folder, name))
        return cls(house)

    def table(self, name: str) -> Expression:
        """A table of the city, or one that `settle` has kept: energies, lines, totals, postings."""
        return self._house.table(name)

    def settle(self, way: Way = Way.ACTIVATED, platform: str = "platform", sliced: bool = True) -> dict[str, float]:
        """Settle all activations; keeps `energies`, `lines` with their cents, `totals` and `postings`; seconds of each.

        `sliced`: from all rows, some points at a time; the answer is the same. Raises Refused with every fault of the
        activations, Unbalanced should the books not add to zero.
        """
        clock: dict[str, float] = {}
        with _timed(clock, "checked"):
            self._check()
            corrected = self._corrected()
        with _timed(clock, "energies"):
            if way is Way.ALL and sliced:
                self._narrow()
                self._house.keep("energies", self._energies(way, corrected, SLICED), self._slices())
            else:
                self._house.keep("energies", self._energies(way, corrected))
        with _timed(clock, "judged"):
            self._house.keep(
                "exact", columns.lines(self.table("activations"), self.table("energies"), self.table("rules"))
            )
        with _timed(clock, "rounded"):
            totals = self._house.keep("totals", books.totals(self.table("exact")))
            self._house.keep("lines", books.rounded(self.table("exact"), totals))
            self._house.drop("exact")
        with _timed(clock, "booked"):
            self._house.keep("postings", books.postings(totals, self.table("bookings"), platform))
            self._balanced("postings")
        return clock

    def pay_owners(self) -> Expression:
        """What providers pay on to owners, from the lines settled: keeps `owner_postings`."""
        owed = books.owner_postings(self.table("lines"), self.table("points"), self.table("bookings"))
        kept = self._house.keep("owner_postings", owed)
        self._balanced("owner_postings")
        return kept

    def perimeters(self) -> Expression:
        """The energies by which balance responsible parties are corrected."""
        return books.perimeters(self.table("lines"), self.table("points"))

    def point_sums(self) -> Expression:
        """The sums of every point, after settling from all rows."""
        return columns.point_sums(self.table("energies"))

    def balances(self) -> Expression:
        """What every account of the postings received and paid."""
        return books.balances(self.table("postings"))

    def count(self, name: str) -> int:
        """Rows of a table."""
        return _count(self._house, self.table(name))

    def proof(self) -> list[list[object]]:
        """The postings in one order: what two runs are compared by."""
        return _sorted(self._house.rows(self.table("postings")))

    # ---------------------------------------------------------------- inside

    def _check(self) -> None:
        """Refuse what would be settled twice, or not at all."""
        activations = self.table("activations")
        found = []
        for row in self._house.rows(books.repeated(activations).limit(20)).to_pylist():
            place = f"activations: point {row['point']}, {row['start'].isoformat()}, offer {row['offer']}"
            found.append(Finding(place, "repeated", f"It stands there {row['rows']} times; keep one."))
        for key, table in (("booking", "bookings"), ("rule", "rules")):
            for row in self._house.rows(books.unknown(activations, self.table(table), key).limit(20)).to_pylist():
                place = f"activations: {key} {row[key]}"
                found.append(Finding(place, f"unknown_{key}", f"It is not among the {table}; add it there."))
        refuse("Activations", found)

    def _corrected(self) -> bool:
        """Whether any reading was corrected, which a file's statistics tell at once."""
        readings = self.table("readings")
        return bool(self._house.rows(readings.aggregate(newest=readings.version.max()))["newest"][0].as_py())

    def _energies(self, way: Way, corrected: bool, of: str = "") -> Expression:
        """The energies of the tables by these names: their own, or with `of` those of a slice."""
        readings, baselines, activations = (self.table(name + of) for name in NARROWED)
        standing = columns.latest(readings) if corrected else readings
        made = columns.energies_of_activated if way is Way.ACTIVATED else columns.energies_of_all
        return made(standing, baselines, activations)

    def _slices(self) -> Iterator[None]:
        """Narrow the tables to one range of points after another, with `SLICE` of the table `points` in each."""
        import numpy as np

        points = self.table("points").select("point").distinct()
        known = np.sort(self._house.rows(points)["point"].to_numpy())
        for first, end in pairwise([None, *known[SLICE::SLICE].tolist(), None]):
            self._narrow(first, end)
            yield

    def _narrow(self, first: int | None = None, end: int | None = None) -> None:
        for name in NARROWED:
            self._house.narrow(name + SLICED, name, "point", first, end)

    def _balanced(self, name: str) -> None:
        off = self._house.rows(books.unbalanced(self.table(name)).limit(1)).to_pylist()
        if off:
            said = f"The booking '{off[0]['booking']}' is off by {off[0]['off_by']} cents."
            raise Unbalanced(said, "Book both sides of every amount.")


def _sorted(rows: pa.Table) -> list[list[object]]:
    keys = [(name, "ascending") for name in rows.column_names]
    return [list(row.values()) for row in rows.sort_by(keys).to_pylist()]


@contextmanager
def _timed(clock: dict[str, float], part: str) -> Iterator[None]:
    began = perf_counter()
    yield
    clock[part] = perf_counter() - began


# ---------------------------------------------------------------- whole runs, as commands ask for them


@dataclass(frozen=True, slots=True)
class Account:
    """What one account received and paid for one cause, cents."""

    account: str
    cause: str
    received: int
    paid: int
    balance: int


@dataclass(frozen=True, slots=True)
class CitySettled:
    """A run: its lines, what of them no reading came for, and the accounts. `points`: 0 unless from all rows."""

    engine: str
    way: str
    points: int
    lines: int
    lines_without_reading: int
    bookings: int
    owners_paid: int
    perimeters_corrected: int
    seconds: dict[str, float]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class Indicator:
    """An indicator and what it says."""

    id: str
    value: float
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class CityIndicators:
    indicators: tuple[Indicator, ...]


@dataclass(frozen=True, slots=True)
class CityCorrected:
    """The difference of two runs: lines that changed, and what each account receives (negative: pays) for it, cents."""

    lines_changed: int
    postings: int
    accounts: tuple[Account, ...]


def settle_city(
    tables: Path,
    out: Path | None,
    engine: str,
    all_rows: bool,
    platform: str,
    threads: int | None = None,
    memory_gib: float | None = None,
) -> CitySettled:
    """Settle the tables of a folder. With `out`, lines, totals, postings, owner_postings, perimeters and,
    from all rows, points are written there. Raises Refused, NotFound, NotReady, and Conflict
    when `out` holds a run already."""
    way = Way.ALL if all_rows else Way.ACTIVATED
    _free(out, ("lines", "postings"))
    with open_warehouse(engine, threads, memory_gib) as house:
        city = City.of(house, tables)
        clock = city.settle(way, platform, sliced=engine.startswith("duckdb"))
        owners = city.pay_owners()
        perimeters = house.keep("perimeters", city.perimeters())
        points = house.keep("point_sums", city.point_sums()) if all_rows else None
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            written = {
                name: city.table(name) for name in ("lines", "totals", "postings", "owner_postings", "perimeters")
            }
            for name, expression in (written | ({"points": points} if points is not None else {})).items():
                house.write(expression, out / f"{name}.parquet")
        lines = city.table("lines")
        return CitySettled(
            engine=engine.partition(":")[0],
            way=way.value,
            points=_count(house, points) if points is not None else 0,
            lines=city.count("lines"),
            lines_without_reading=_count(house, lines.filter(lines.missing)),
            bookings=city.count("totals"),
            owners_paid=_count(house, owners) // 2,
            perimeters_corrected=_count(house, perimeters),
            seconds={name: round(took, 3) for name, took in clock.items()},
            accounts=_accounts(house, city.balances()),
        )


def city_indicators(tables: Path, engine: str) -> CityIndicators:
    """The indicators of KPI-01 over a folder of tables; its activations are settled on the way."""
    with open_warehouse(engine) as house:
        city = City.of(house, tables)
        city.settle()
        taken = {name: house.take(name, kinds, _place(tables, name)) for name, kinds in KPI_TABLES.items()}
        asked = kpi_columns.participation(
            taken["messages"], taken["set_points"], city.table("activations"), taken["merit"], taken["lights"],
            taken["limitations"],
        )  # fmt: skip
        found = {
            row["id"]: (row["part"], row["whole"])
            for expression in (asked, kpi_columns.delivery(city.table("lines")))
            for row in house.rows(expression).to_pylist()
        }
    return CityIndicators(
        tuple(
            Indicator(name, kpi_columns.value(name, *found[name]), *meaning)
            for name, meaning in kpi_columns.MEANINGS.items()
        )
    )


def correct_city(before: Path, after: Path, out: Path | None, engine: str) -> CityCorrected:
    """Post the difference of two runs that `settle_city` wrote. Raises Refused, NotFound, Conflict, Unbalanced."""
    _free(out, ("lines", "postings"))
    with open_warehouse(engine) as house:
        runs = {
            f"{name}_{run}": house.take(f"{name}_{run}", kinds, folder / f"{name}.parquet")
            for run, folder in (("before", before), ("after", after))
            for name, kinds in (("lines", books.SETTLED_LINES), ("postings", books.POSTINGS))
        }
        posted = house.keep("postings", books.correction(runs["postings_before"], runs["postings_after"]))
        changed = house.keep("lines", books.changed(runs["lines_before"], runs["lines_after"]))
        if off := house.rows(books.unbalanced(posted).limit(1)).to_pylist():
            raise Unbalanced(
                f"The booking '{off[0]['booking']}' is off by {off[0]['off_by']} cents.", "Settle both again."
            )
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            house.write(changed, out / "lines.parquet")
            house.write(posted, out / "postings.parquet")
        return CityCorrected(_count(house, changed), _count(house, posted), _accounts(house, books.balances(posted)))


def _place(folder: Path, name: str) -> Path:
    whole = folder / name
    return whole if whole.is_dir() else folder / f"{name}.parquet"


def _free(out: Path | None, names: tuple[str, ...]) -> None:
    """Nothing that was written is overwritten."""
    there = [name for name in names if out is not None and (out / f"{name}.parquet").exists()]
    if there:
        raise Conflict(f"{out} holds a run already.", "Name another folder: a later run stands beside an older one.")


def _count(house: Warehouse, rows: Expression) -> int:
    import ibis

    return int(house.rows(rows.aggregate(rows=ibis._.count()))["rows"][0].as_py())


def _accounts(house: Warehouse, balances: Expression) -> tuple[Account, ...]:
    found = (Account(**row) for row in house.rows(balances).to_pylist())
    return tuple(sorted(found, key=lambda one: (one.account, one.cause)))
