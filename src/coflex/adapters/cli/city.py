"""`coflex city ...`: settle all connection points of a city from Parquet tables, on the engine that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application

cities = typer.Typer(help="A whole city: settled at once, with its indicators and corrections.", no_args_is_help=True)

Tables = Annotated[
    Path,
    typer.Argument(exists=True, file_okay=False, metavar="TABLES", help="Folder of the Parquet tables."),
]
Engine = Annotated[
    str,
    typer.Option(metavar="URL", help="duckdb:, duckdb:FILE, postgresql://... or spark:local[2], spark://..."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of DuckDB; all processors if not given.")]
Memory = Annotated[float | None, typer.Option("--memory", min=0.5, metavar="GIB", help="Most memory that it may take.")]

Out = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Where the Parquet answers go.")]

Before = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, metavar="BEFORE", help="What the older run wrote.")
]
After = Annotated[Path, typer.Argument(exists=True, file_okay=False, metavar="AFTER", help="What the newer run wrote.")]


class Warehouse(Protocol):
    """What is asked of tables."""

    def settle_city(
        self,
        tables: Path,
        out: Path | None,
        engine: str,
        all_rows: bool,
        platform: str,
        threads: int | None,
        memory: Any,
    ) -> Any: ...
    def city_indicators(self, tables: Path, engine: str) -> Any: ...
    def correct_city(self, before: Path, after: Path, out: Path | None, engine: str) -> Any: ...


class KeepingWorld(Protocol):
    """An application that also keeps tables of a city."""

    def warehouse(self) -> Warehouse: ...


@cities.command(short_help="Turn a day of all points into money.")
def settle(
    ctx: typer.Context,
    tables: Tables,
    out: Out = None,
    engine: Engine = "duckdb:",
    all_rows: Annotated[
        bool,
        typer.Option("--all-rows", help="From all readings, with the sums of every point; the same money."),
    ] = False,
    platform: Annotated[str, typer.Option(help="Account that fees go to.")] = "platform",
    threads: Threads = None,
    memory: Memory = None,
    rows: Annotated[int, typer.Option(min=0, help="Longest table shown; --json always holds all of it.")] = 10,
    as_json: Json = False,
) -> None:
    """Settle every activation of a city: lines with their cents, postings in balance, owners' shares, corrected
    perimeters. From the activated points outward, or with --all-rows from all readings; the money is the same.

    Example: coflex city settle tables/2026-11-20 --out settled/2026-11-20
    """
    with application(ctx, as_json) as world:
        with screen.progress() as progress:
            progress("settle the city")
            answer = _warehouse(world).settle_city(tables, out, engine, all_rows, platform, threads, memory)
        _show("city settle", answer, rows, as_json)


@cities.command(short_help="Indicators of delivery and participation.")
def kpi(
    ctx: typer.Context,
    tables: Tables,
    engine: Engine = "duckdb:",
    as_json: Json = False,
) -> None:
    """Say what was exchanged, activated, delivered and paid, and what part the distribution operator had (KPI-01).

    Example: coflex city kpi tables/2026-11-20
    """
    with application(ctx, as_json) as world:
        _show("city kpi", _warehouse(world).city_indicators(tables, engine), 50, as_json)


@cities.command(short_help="Book the difference of two runs.")
def correct(
    ctx: typer.Context,
    before: Before,
    after: After,
    out: Out = None,
    engine: Engine = "duckdb:",
    as_json: Json = False,
) -> None:
    """Compare two runs of one day, and post what the newer one changes: the differences alone, in balance.

    Example: coflex city correct settled/first settled/second --out settled/difference
    """
    with application(ctx, as_json) as world:
        _show("city correct", _warehouse(world).correct_city(before, after, out, engine), 50, as_json)


def _warehouse(world: object) -> Warehouse:
    return cast("KeepingWorld", world).warehouse()


def _show(title: str, answer: Any, rows: int, as_json: bool) -> None:
    if as_json:
        screen.put_json(answer)
    else:
        screen.put_answer(title, answer, rows)
