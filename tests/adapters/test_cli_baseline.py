"""`coflex baseline ...`, and the tables and files that it reads."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coflex.adapters.exchange.tables import day_files
from coflex.adapters.exchange.tables.day_files import DayFile, baselines_of_all, held_days, write_day
from coflex.adapters.exchange.tables.readings import Readings, read_readings, write_readings
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day, midnight
from coflex.metering.alignment import align_rows
from coflex.metering.baselines import XofY, day_average
from coflex.metering.baselines.document import allowed_methods, load_method, methods
from coflex.metering.eligibility import NO_CALENDAR, judge_days, may_stand
from support.command import coflex

ROME = ZoneInfo("Europe/Rome")
DAY = date(2016, 7, 5)
EVENT = ("--from", "2016-07-05T18:00+02:00", "--to", "2016-07-05T20:00+02:00", "--notice", "2016-07-05T16:00+02:00")


def metered(days: int = 40, units: int = 2) -> Readings:
    axis = Axis(midnight(DAY - timedelta(days=days), ROME), 96 * (days + 1))
    rng = np.random.default_rng(1)
    values = -np.repeat(rng.normal(5, 1, (units, days + 1, 1)), 96, axis=2).reshape(units, -1).round(3)
    values[0, 100] = np.nan
    names = tuple(f"unit {i}" for i in range(units))
    return Readings(Series(names, axis, values), dict.fromkeys(names, "plant"))


@pytest.fixture(params=["csv", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / f"readings.{request.param}"
    write_readings(file, metered())
    return file


def say(*words: Any) -> Any:
    told = coflex("baseline", *words, "--json")
    assert told.exit_code == 0, told.stderr
    return json.loads(told.stdout)


# ---------------------------------------------------------------- the command


@pytest.mark.spec("SET-01")
def test_the_list_names_every_method_or_those_that_a_service_allows() -> None:
    assert [one["id"] for one in say("list")["methods"]] == list(methods())
    allowed = say("list", "--service", "congestion_management")
    assert [one["id"] for one in allowed["methods"]] == list(allowed_methods("congestion_management"))
    assert "high 5 of 10" in coflex("baseline", "list").stdout


@pytest.mark.spec("SET-01")
def test_a_baseline_is_computed_with_its_evidence(table: Path, tmp_path: Path) -> None:
    answer = say("compute", table, *EVENT, "--unit", "unit 0", "--method", "last_10", "--event", "2016-07-04")
    assert answer["method"] == "last_10" and len(answer["days"]) == 10 and answer["ex_ante"]
    assert dict(answer["passed"])["2016-07-04"] == "event"
    past = metered().series.row("unit 0")
    axis = metered().series.axis
    mean = np.mean([past[axis.position(midnight(date.fromisoformat(day), ROME))] for day in answer["days"]])
    assert answer["values_kw"] == pytest.approx([mean] * 96)
    text = coflex("baseline", "compute", table, *EVENT, "--unit", "unit 0", "--method", "last_10")
    assert "days passed over" in text.stdout and "hour 18" in text.stdout
    own = tmp_path / "mine.yaml"
    own.write_text("{id: mine, version: 2, title: t, source: s, kind: zero}", encoding="utf-8")
    assert say("compute", table, *EVENT, "--unit", "unit 1", "--method", own)["version"] == 2


def test_what_cannot_be_computed_is_told(table: Path, tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    for words, told in (
        ((*EVENT, "--unit", "unit 0", "--method", binary), "is no text in UTF-8"),
        ((*EVENT, "--unit", "nobody"), "There is no series 'nobody'"),
        ((*EVENT, "--unit", "unit 0", "--method", "high_9"), "There is no baseline method"),
        ((*EVENT, "--unit", "unit 0", "--zone", "Europe/Nowhere"), "There is no zone"),
        ((*EVENT, "--unit", "unit 0", "--event", "yesterday"), "no date"),
    ):
        answer = coflex("baseline", "compute", table, *words)
        assert answer.exit_code == 1 and told in answer.stderr
    naive = coflex("baseline", "compute", table, "--from", "2016-07-05T18:00", "--to", "2016-07-05T20:00")
    assert naive.exit_code == 2 and "offset" in naive.stderr
    (tmp_path / "days").mkdir()
    assert "--out" in coflex("baseline", "compute", tmp_path / "days", *EVENT).stderr


@pytest.mark.spec("SET-01")
def test_methods_are_checked_on_ones_own_readings(tmp_path: Path) -> None:
    file = tmp_path / "readings.parquet"
    write_readings(file, metered(60, 3))
    answer = say("check", file, "--method", "high_5_of_10", "--method", "last_10", "--every", "3", "--gaming")
    bias = {row["method"]: row["bias_percent"] for row in answer["accuracy"]}
    assert bias["high_5_of_10"] > bias["last_10"] + 5
    assert (answer["units"], answer["kinds"]) == (3, 1)
    tricks = {(row["method"], row["trick"]): row["gained_percent"] for row in answer["gains"]}
    assert tricks["last_10", "more use after notice"] == 0
    assert tricks["last_10", "more use at the hours of events on the days before"] > 0
    shown = coflex("baseline", "check", file, "--method", "zero", "--every", "9")
    assert "plant" in shown.stdout and "-100" in shown.stdout
    short = tmp_path / "short.csv"
    write_readings(short, metered(10))
    assert "no placebo day" in coflex("baseline", "check", short).stderr
    assert "nothing to check" in coflex("baseline", "check").stderr


# ---------------------------------------------------------------- tables


def test_readings_come_back_as_they_were_written(table: Path) -> None:
    read = read_readings(table)
    assert np.array_equal(read.series.values, metered().series.values, equal_nan=True)
    assert read.series.names == ("unit 0", "unit 1") and read.series.axis == metered().series.axis
    assert read.kinds == {"unit 0": "plant", "unit 1": "plant"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("unit,start\na,2016-01-01T00:00:00Z", "missing_column"),
        ("unit,start,kw\na,2016-01-01T00:07:00Z,1", "off_the_quarter"),
        ("unit,start,kw\na,2016-01-01T00:00:00Z,inf", "not_finite"),
        ("unit,start,kw\n,2016-01-01T00:00:00Z,1\nb,2016-01-01T00:00:00Z,1", "no_unit"),
        ("unit,start,kw\na,,1", "no_instant"),
        ("unit,start,kw\na,2016-01-01T00:00:00Z,1\na,2016-01-01T01:00:00+01:00,2", "repeated"),
        ("unit,start,kw\na,2016-01-01T00:00:00Z,much", "not_a_table"),
        ("unit,start,kw\na,yesterday,1", "not_a_table"),
        ("unit,start,kw\n", "empty"),
    ],
)
def test_faults_of_a_table_are_told_with_their_place(tmp_path: Path, text: str, code: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(Refused) as refused:
        read_readings(file)
    assert code in {one.code for one in refused.value.findings}
    assert all(one.place.startswith("bad.csv") for one in refused.value.findings)


def test_weather_is_held_for_the_hour_it_stands_for(tmp_path: Path) -> None:
    file, weather = tmp_path / "readings.csv", tmp_path / "weather.csv"
    rows = [f"a,2016-01-01T0{k // 4}:{k % 4 * 15:02}:00Z,1" for k in range(16)]
    file.write_text("\n".join(["unit,start,kw", *rows]) + "\n", encoding="utf-8")
    text = "start,temperature_c\n2016-01-01T01:00:00Z,5.5\n2016-01-01T02:00:00Z,6\n"
    weather.write_text(text, encoding="utf-8")
    read = read_readings(file, weather).temperature
    assert read is not None
    assert np.array_equal(read, [np.nan] * 4 + [5.5] * 4 + [6.0] * 4 + [np.nan] * 4, equal_nan=True)


# ---------------------------------------------------------------- folders of days


def fill(folder: Path, last: date, days: int, points: int) -> None:
    """Days up to `last`; odd points come later, and now and then a reading is missing."""
    for back in range(days, -1, -1):
        day = last - timedelta(days=back)
        rng = np.random.default_rng(back)
        there = np.array([p for p in range(points) if p % 2 == 0 or back < 14], dtype=np.uint32)
        kw = -rng.random((len(there), len(delivery_day(day, ROME)))).astype(np.float32)
        kw[rng.random(kw.shape) < 0.001] = np.nan
        write_day(folder, day, there, kw)


@pytest.mark.spec("SET-01")
@pytest.mark.parametrize("last", [DAY, date(2016, 10, 30), date(2016, 11, 2)])
@pytest.mark.parametrize("every", [False, True])
def test_all_points_of_a_folder_get_the_baseline_that_each_would_get_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: date, every: bool
) -> None:
    monkeypatch.setattr(day_files, "POINTS_AT_ONCE", 7)
    fill(tmp_path, last, 20, 20)
    document = load_method("high_5_of_10_additive")
    quarters = len(delivery_day(last, ROME))
    sold = np.isin(np.arange(quarters), range(60, 70))
    pieces = list(baselines_of_all(tmp_path, last, (60, 70), 50, document, NO_CALENDAR, ROME, every))
    assert [len(piece.points) for piece in pieces] == [7, 7, 6]
    past = [day for day in held_days(tmp_path) if day < last]
    axes = [delivery_day(day, ROME) for day in past]
    files = {day: DayFile.open(tmp_path / f"{day}.parquet", len(delivery_day(day, ROME))) for day in [*past, last]}
    eligible = may_stand(judge_days(past, last, document.days, NO_CALENDAR))
    assert isinstance(document.method, XofY)
    for piece in pieces:
        for i, point in enumerate(piece.points):
            wanted = np.array([point], dtype=np.uint32)
            row = np.concatenate([files[day].read(wanted)[0] for day in past]).astype(np.float64)
            history = align_rows(row[None], Axis(axes[0].start, len(row)), axes, delivery_day(last, ROME), ROME)[0]
            today = files[last].read(wanted)[0].astype(np.float64)
            alone = day_average(history, eligible, sold, today, 50, document.method)
            assert np.array_equal(piece.result.values[i], alone.values, equal_nan=True)


def test_the_baselines_of_a_folder_are_written_as_a_day(tmp_path: Path) -> None:
    fill(tmp_path / "days", DAY, 20, 12)
    out = tmp_path / "baselines"
    answer = say("compute", tmp_path / "days", *EVENT, "--method", "last_10", "--out", out)
    assert (answer["points"], answer["method"]) == (12, "last_10")
    written = DayFile.open(out / "2016-07-05.parquet", 96).read(np.arange(12, dtype=np.uint32))
    (piece,) = baselines_of_all(tmp_path / "days", DAY, (72, 80), 64, load_method("last_10"), NO_CALENDAR, ROME)
    assert np.array_equal(written, piece.result.values.astype(np.float32), equal_nan=True)
    assert answer["without"] == int((~piece.result.enough).sum()) == 6  # those that came too late
    refused = coflex("baseline", "compute", tmp_path / "days", *EVENT, "--out", tmp_path / "days")
    assert refused.exit_code == 1 and "place of readings" in refused.stderr
    wrong = coflex("baseline", "compute", tmp_path / "days", *EVENT, "--method", "zero", "--out", out)
    assert "averages no days" in wrong.stderr
    assert "holds no day" in coflex("baseline", "compute", out, *EVENT, "--out", tmp_path / "x").stderr


def test_files_of_days_that_are_not_in_order_are_refused(tmp_path: Path) -> None:
    def file(points: list[int], clock: list[int], kw: list[float]) -> DayFile:
        path = tmp_path / f"{DAY}.parquet"
        columns = {"point": pa.array(points, pa.uint32()), "quarter": pa.array(clock, pa.uint8()), "kw": kw}
        pq.write_table(pa.table(columns), path)
        return DayFile.open(path, 2)

    wanted = np.array([1, 2], dtype=np.uint32)
    assert file([1, 1, 2, 2], [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0]).read(wanted).tolist() == [[1, 2], [3, 4]]
    gone = file([1, 1, 3, 3], [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0]).read(wanted)
    assert gone[0].tolist() == [1, 2] and np.isnan(gone[1]).all()
    for points, clock in (([2, 2, 1, 1], [0, 1, 0, 1]), ([1, 1, 2, 2], [1, 0, 0, 1]), ([1, 2, 1, 2], [0, 0, 1, 1])):
        with pytest.raises(CoflexError, match="sorted"):
            file(points, clock, [0.0] * 4).read(wanted)
    with pytest.raises(CoflexError, match="sorted"):
        file([1, 1, 2], [0, 1, 0], [0.0] * 3).read(wanted)
    pq.write_table(pa.table({"point": [1]}), tmp_path / "x.parquet")
    with pytest.raises(CoflexError, match="no column"):
        DayFile.open(tmp_path / "x.parquet", 2)
    (tmp_path / "y.parquet").write_text("no")
    with pytest.raises(CoflexError, match="Parquet"):
        DayFile.open(tmp_path / "y.parquet", 2)
