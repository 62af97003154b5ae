"""`coflex baseline ...`: methods, baselines computed by them, and how well they tell on days when nobody was called."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import Json, application, instant_of
from coflex.domain.errors import CoflexError

if TYPE_CHECKING:
    from coflex.metering.baselines.compute import Asked
    from coflex.metering.baselines.document import MethodDocument
    from coflex.metering.baselines.record import BaselineRecord
    from coflex.metering.eligibility import UnitCalendar

# What a history alone can tell; nominations and contracts are not in it, and weather is given beside it.
CHECKED = (
    "last_4_alike", "last_4_alike_additive", "last_10", "mid_4_of_6", "mid_8_of_10_additive", "high_5_of_10",
    "high_5_of_10_additive", "low_5_of_10", "all_days", "rolling", "meter_before", "meter_before_after", "meter_linear",
)  # fmt: skip

Readings = Annotated[
    Path, typer.Argument(exists=True, metavar="READINGS", help="CSV or Parquet table of readings, or a folder of days.")
]
Own = Annotated[
    Path | None,
    typer.Argument(exists=True, dir_okay=False, metavar="READINGS", help="CSV or Parquet table of readings."),
]
Zone = Annotated[str, typer.Option(help="Zone of the local days.")]
MethodName = Annotated[str, typer.Option("--method", metavar="METHOD", help="Id of a method, or a YAML file.")]
Weather = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, metavar="FILE", help="Table of start and temperature_c."),
]
Events = Annotated[list[str] | None, typer.Option("--event", metavar="DATE", help="Day of an earlier event.")]
Holidays = Annotated[list[str] | None, typer.Option("--holiday", metavar="DATE", help="Public holiday.")]

baselines = typer.Typer(help="Baselines: methods, computing them, and checking them.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Listed:
    """A method on the list."""

    id: str
    version: int
    known: str
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The methods that come with coflex, or those that a product allows."""

    count: int
    methods: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class AllComputed:
    """Baselines of all points of a folder: how many, how many without, how many days were read, and where they are."""

    points: int
    without: int
    days_read: int
    method: str
    file: Path


@baselines.command("list", short_help="The baseline methods there are.")
def list_(
    ctx: typer.Context,
    service: Annotated[str, typer.Option(help="Only those that products of this service allow.")] = "",
    as_json: Json = False,
) -> None:
    """The baseline methods that come with coflex, and when each can be known.

    Example: coflex baseline list --service congestion_management
    """
    with application(ctx, as_json):
        from coflex.metering.baselines.document import allowed_methods, load_method, methods
        from coflex.metering.baselines.method import known

        read = [load_method(name) for name in (allowed_methods(service) if service else methods())]
        listed = tuple(Listed(one.id, one.version, known(one.method), one.method.label, one.title) for one in read)
        if as_json:
            screen.put_json(Listing(len(listed), listed))
        else:
            screen.put_answer("baseline list", Listing(len(listed), listed), len(listed))


@baselines.command(short_help="The baseline of a unit, or of all points.")
def compute(
    ctx: typer.Context,
    readings: Readings,
    start: Annotated[datetime, typer.Option("--from", parser=instant_of, metavar="INSTANT", help="Start.")],
    end: Annotated[datetime, typer.Option("--to", parser=instant_of, metavar="INSTANT", help="End.")],
    notice: Annotated[
        datetime | None,
        typer.Option(parser=instant_of, metavar="INSTANT", help="When the order was known; else the start."),
    ] = None,
    method: MethodName = "last_4_alike",
    unit: Annotated[str, typer.Option(help="The unit; of a folder of days, all points are taken.")] = "",
    peers: Annotated[list[str] | None, typer.Option(metavar="UNIT", help="Control group; several times.")] = None,
    events: Events = None,
    holidays: Holidays = None,
    outages: Annotated[list[str] | None, typer.Option("--outage", metavar="DATE", help="Day of an outage.")] = None,
    weather: Weather = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the baselines of all points go.")] = None,
    zone: Zone = "Europe/Rome",
    as_json: Json = False,
) -> None:
    """The baseline of a unit with its evidence: days used, days passed over and why, adjustment, what was read.

    Of a folder of days (DATE.parquet: point, quarter, kw), the baselines of all points are written to --out.

    Example: coflex baseline compute readings.csv --unit plant --from 2016-07-05T18:00+02:00 --to 2016-07-05T20:00+02:00
    """
    with application(ctx, as_json) as world:
        from coflex.metering.baselines.compute import Asked

        where, document = _zone(zone), _method(method)
        calendar = _calendar(events, holidays, outages)
        asked = Asked(unit, start, end, notice or start, calendar, peers=tuple(peers or ()))
        if readings.is_dir():
            made = _of_all(world, readings, asked, document, where, out)
            screen.put_json(made) if as_json else screen.put_table("baseline compute", screen.facts(made))
            return
        record = world.baseline(readings, weather, asked, document, where)
        screen.put_json(asdict(record)) if as_json else _show(record)


def _of_all(
    world: Any, folder: Path, asked: Asked, document: MethodDocument, zone: ZoneInfo, out: Path | None
) -> AllComputed:
    if out is None:
        raise CoflexError("Baselines of all points need a place to go.", "Add --out FOLDER.")
    points, without, days, file = world.baselines_of_all(folder, asked, document, zone, out)
    return AllComputed(points, without, days, document.id, file)


def _show(record: BaselineRecord) -> None:
    """The evidence, then the baseline of the event day, an hour a line."""
    begin = "ex ante" if record.ex_ante else "ex post"
    rows = [
        ("unit", record.unit),
        ("method", f"{record.label} ({record.method}, version {record.version}, {record.fingerprint[:12]})"),
        ("days used", ", ".join(map(str, record.days)) or "none"),
        ("adjustment", "none" if record.adjustment is None else f"{record.adjustment:.6g}"),
        ("known", f"{record.known_at.isoformat(timespec='minutes')}, {begin}"),
        *((("note", record.note),) if record.note else ()),
    ]
    screen.put_table("baseline compute", rows)
    why: dict[str, list[str]] = {}
    for day, reason in record.passed:
        why.setdefault(reason.value, []).append(str(day))
    if why:
        screen.put_line("")
        screen.put_table("days passed over", [(reason, ", ".join(days)) for reason, days in why.items()])
    if record.values_kw:
        screen.put_line("")
        hours = range(0, len(record.values_kw), 4)
        screen.put_table(
            "baseline, kW a quarter-hour",
            [(f"hour {at // 4:2}", "  ".join(f"{kw:10.3f}" for kw in record.values_kw[at : at + 4])) for at in hours],
        )


@baselines.command(short_help="How well methods tell, and what gaming brings.")
def check(
    ctx: typer.Context,
    readings: Own = None,
    grid: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Profiles of a SimBench grid in place of readings.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Ids or YAML files; several times.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Placebo events on every so many days; not 7.")] = 1,
    gaming: Annotated[bool, typer.Option("--gaming", help="Also what steering the baseline would bring.")] = False,
    holidays: Holidays = None,
    events: Events = None,
    weather: Weather = None,
    zone: Zone = "Europe/Rome",
    as_json: Json = False,
) -> None:
    """Accuracy and bias of methods on placebo days, on which nobody was called, and what gaming them would bring.

    Of one's own readings, or of the profiles of SimBench grids (a year, German time and holidays).

    Example: coflex baseline check --grid 1-MV-urban--0-sw --method last_10 --method high_5_of_10
    """
    with application(ctx, as_json) as world:
        from coflex.metering.accuracy import Placebo
        from coflex.metering.check import check as check_all
        from coflex.metering.gaming import Attempt

        if (readings is None) == (not grid):
            raise CoflexError("There is nothing to check, or two things.", "Give a table of readings, or --grid CODE.")
        documents = [_method(name) for name in method or CHECKED]
        calendar = _calendar(events, holidays, None)
        with screen.progress() as progress:
            progress("read")
            history = (
                world.history_of_grids(tuple(grid))
                if grid
                else world.history_of_readings(readings, weather, _zone(zone), calendar)
            )
            attempt = Attempt() if gaming else None
            found = check_all(history, documents, Placebo(every=every), attempt, progress)
        most = max(len(found.accuracy), len(found.gains))
        screen.put_json(found) if as_json else screen.put_answer("baseline check", found, most)


# ---------------------------------------------------------------- what is typed


def _method(given: str) -> MethodDocument:
    """A method by its id, or of a file. Raises CoflexError on an unknown id, Refused on a faulty document."""
    from coflex.metering.baselines.document import load_method, read_method

    file = Path(given)
    if file.suffix in (".yaml", ".yml", ".json"):
        try:
            return read_method(file.read_text(encoding="utf-8"), given)
        except UnicodeDecodeError:
            raise CoflexError(f"{file} is no text in UTF-8.", "Give a method as YAML or JSON.") from None
    return load_method(given)


def _calendar(events: list[str] | None, holidays: list[str] | None, outages: list[str] | None) -> UnitCalendar:
    from coflex.metering.eligibility import UnitCalendar

    return UnitCalendar(_dates(events), _dates(outages), _dates(holidays))


def _dates(given: list[str] | None) -> frozenset[date]:
    try:
        return frozenset(date.fromisoformat(text) for text in given or ())
    except ValueError as error:
        raise CoflexError(f"That is no date: {error}.", "Write dates as 2016-05-12.") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise CoflexError(f"There is no zone '{name}'.", "Write one such as Europe/Rome.") from None
