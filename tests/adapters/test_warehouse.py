"""One expression, any engine: the same rows on DuckDB, PostgreSQL and Spark; and what a city's commands answer."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from coflex.adapters.warehouse import city as runs
from coflex.adapters.warehouse.city import City, Way
from coflex.adapters.warehouse.duck import direct
from coflex.adapters.warehouse.engine import Warehouse, open_warehouse
from coflex.domain.activation import Hop, Limitation, SetPoint
from coflex.domain.clearing import Reason
from coflex.domain.errors import Conflict, NotFound, NotReady, Refused
from coflex.domain.quantity import Direction
from coflex.reporting import kpi, kpi_columns
from coflex.settlement import column_books, columns
from coflex.settlement.column_rules import rule_row
from coflex.settlement.rules import Response, SettlementRule
from support.command import coflex
from support.warehouse import put, told

D = Decimal
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
POINTS, QUARTERS, ACTIVATED = 30, 8, 90
Rows = list[dict[str, Any]]


def drawn_city(seed: int = 6) -> dict[str, Rows]:
    """A small city, with a corrected reading, a missing one, price steps, and every kind of rule."""
    draw = random.Random(seed)
    slots = [(point, MIDNIGHT + q * timedelta(minutes=15)) for point in range(1, POINTS + 1) for q in range(QUARTERS)]
    readings = [
        {"point": p, "start": at, "wh": draw.randint(-9000, 9000), "quality": draw.choice([0] * 9 + [2]), "version": 0}
        for p, at in slots
    ]
    readings += [
        row | {"version": 1, "wh": row["wh"] + draw.randint(-5_000, 5_000), "quality": 0} for row in readings[::3]
    ]
    activations = []
    for offer in range(ACTIVATED):
        booking = draw.randint(1, 4)
        point, start = draw.choice(slots)
        activations.append(
            {
                "point": point,
                "start": start,
                "booking": booking,
                "offer": offer,
                "rule": booking,
                "sign": 1 if booking % 2 else -1,
                "ordered_wh": 250 * draw.randint(0, 30),
                "price": draw.randint(-9_000, 30_000),
            }
        )
    rules = (
        SettlementRule(Response.METERED, D("0.1"), D("0.5")),
        SettlementRule(Response.REQUESTED, D("0.05"), D(1), two_sided=True),
        SettlementRule(
            Response.METERED, payment=((D("0.5"), D(0)), (D("0.95"), D(1)), (D("1.2"), D("1.2"))), cap=D("1.2")
        ),
        SettlementRule(Response.METERED, penalty_eur_mwh=D("11.07"), opposite_counts=True),
    )
    return {
        "readings": readings,
        "baselines": [{"point": p, "start": at, "wh": draw.randint(-9000, 9000)} for p, at in slots],
        "activations": activations,
        "rules": [rule_row(n, rule, D("0.02"), ("delivered", "ordered")[n % 2]) for n, rule in enumerate(rules, 1)],
        "bookings": [
            {"booking": n, "session": f"s-{n % 2}", "buyer": ("dso", "tso")[n % 2], "provider": f"sp-{n % 3}"}
            for n in range(1, 5)
        ],
        "points": [
            {
                "point": p,
                "owner": f"owner-{p % 11}",
                "provider": f"sp-{p % 3}",
                "brp": f"brp-{p % 2}",
                "owner_share": 6_667,
                "owner_penalty_share": 3_333,
            }
            for p in range(1, POINTS + 1)
        ],
    }


def put_city(folder: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        put(folder, name, {**runs.TABLES, **runs.KPI_TABLES}[name], rows)
    return folder


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_city(tmp_path_factory.mktemp("city") / "tables", drawn_city())


def everything(
    house: Warehouse, folder: Path, ways: Sequence[Way] = (Way.ACTIVATED,)
) -> dict[str, list[tuple[Any, ...]]]:
    """All that a settlement says, by way."""
    found = {}
    city = City.of(house, folder)
    for way in ways:
        city.settle(way)
        city.pay_owners()
        for name in ("lines", "totals", "postings", "owner_postings"):
            found[f"{way.value} {name}"] = told(house, city.table(name))
        found[f"{way.value} perimeters"] = told(house, city.perimeters())
        found[f"{way.value} balances"] = told(house, city.balances())
        if way is Way.ALL:
            found["points"] = told(house, city.point_sums())
    return found


@pytest.fixture(scope="module")
def on_duckdb(tables: Path) -> dict[str, list[tuple[Any, ...]]]:
    with open_warehouse("duckdb:", threads=1) as house:
        return everything(house, tables, (Way.ACTIVATED, Way.ALL))


# ---------------------------------------------------------------- engines and ways


@pytest.mark.spec("SET-02", "SET-06")
def test_from_all_rows_and_from_the_activations_outward_every_line_and_every_cent_is_the_same(
    on_duckdb: dict[str, list[tuple[Any, ...]]],
) -> None:
    assert len(on_duckdb["activated lines"]) == ACTIVATED
    for name in ("lines", "totals", "postings", "owner_postings", "perimeters", "balances"):
        assert on_duckdb[f"activated {name}"] == on_duckdb[f"all {name}"] != []


def test_the_sums_of_every_point_are_those_of_its_readings(
    tables: Path, on_duckdb: dict[str, list[tuple[Any, ...]]]
) -> None:
    city = drawn_city()
    standing = {(row["point"], row["start"]): row for row in sorted(city["readings"], key=lambda row: row["version"])}
    planned = {(row["point"], row["start"]): row["wh"] for row in city["baselines"]}
    expected = []
    for point in range(1, POINTS + 1):
        seen = [(row["wh"], planned[key]) for key, row in standing.items() if key[0] == point and row["quality"] != 2]
        measured, baseline = (sum(column) for column in zip(*seen, strict=True))
        expected.append((point, len(seen), measured, baseline, measured - baseline))
    assert on_duckdb["points"] == expected


@pytest.mark.spec("SET-06")
@pytest.mark.parametrize("sliced", [True, False])
def test_points_and_starts_as_far_apart_as_tables_hold_them_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sliced: bool
) -> None:
    monkeypatch.setattr(runs, "SLICE", 2)
    points = (0, 1, 2, 3, 2**30, 2**31 - 2, 2**31 - 1)
    second = timedelta(seconds=1)
    starts = (
        datetime(1970, 1, 1, tzinfo=UTC),
        MIDNIGHT - second,
        MIDNIGHT,
        datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC),
    )
    slots = [(point, start) for point in points for start in starts]
    for name in ("bookings", "rules", "activations"):
        put(tmp_path, name, runs.TABLES[name], drawn_city()[name])
    put(
        tmp_path,
        "points",
        columns.POINTS,
        [row | {"point": p} for p, row in zip(points, drawn_city()["points"], strict=False)],
    )
    rows = [{"point": p, "start": at, "wh": 2**k, "quality": 0, "version": 0} for k, (p, at) in enumerate(slots)]
    put(tmp_path, "readings", columns.READINGS, rows)
    put(tmp_path, "baselines", columns.BASELINES, [row | {"wh": -row["wh"]} for row in rows])
    with open_warehouse("duckdb:") as house:
        city = City.of(house, tmp_path)
        city.settle(Way.ALL, sliced=sliced)
        found = {row["point"]: row for row in house.rows(city.point_sums()).to_pylist()}
    assert found.keys() == set(points)
    for point, row in found.items():
        ours = sum(one["wh"] for one in rows if one["point"] == point)
        assert (row["quarters"], row["measured_wh"], row["baseline_wh"]) == (len(starts), ours, -ours)


def test_duckdb_finds_seconds_of_instants_without_a_calendar(tables: Path) -> None:
    """What Ibis writes goes through the zone, which takes longer than the whole join; the rewriting must still fit."""
    with open_warehouse("duckdb:") as house:
        city = City.of(house, tables)
        asked = columns.energies_of_all(*(city.table(name) for name in ("readings", "baselines", "activations")))
        sql = direct(house.sql(asked))
    assert sql.count("EPOCH(") == 3
    assert "AS TIMESTAMP)" not in sql


@pytest.mark.spec("SET-02", "SET-06")
def test_postgresql_settles_the_same_expressions_to_the_same_rows(
    postgresql: str, tables: Path, on_duckdb: dict[str, list[tuple[Any, ...]]]
) -> None:
    with open_warehouse(postgresql) as house:
        assert everything(house, tables, (Way.ACTIVATED, Way.ALL)) == on_duckdb


@pytest.mark.slow
@pytest.mark.spec("SET-02", "SET-06")
def test_spark_settles_the_same_expressions_to_the_same_rows(
    tables: Path, tmp_path: Path, on_duckdb: dict[str, list[tuple[Any, ...]]]
) -> None:
    pytest.importorskip("pyspark", reason="Spark is left out: the extra 'spark' is not installed")
    with open_warehouse("spark:local[2]", memory_gib=2, room=tmp_path) as house:
        assert everything(house, tables, (Way.ACTIVATED, Way.ALL)) == on_duckdb


# ---------------------------------------------------------------- books


@pytest.mark.spec("SET-06")
def test_postings_add_to_zero_and_lines_to_postings_and_owners_to_their_share(
    on_duckdb: dict[str, list[tuple[Any, ...]]],
) -> None:
    for name in ("postings", "owner_postings"):
        by_booking: dict[str, int] = {}
        for booking, *_, cents in on_duckdb[f"activated {name}"]:
            by_booking[booking] = by_booking.get(booking, 0) + cents
        assert by_booking
        assert set(by_booking.values()) == {0}
    received = sum(row[-3] for row in on_duckdb["activated balances"])
    paid = sum(row[-2] for row in on_duckdb["activated balances"])
    assert received == paid > 0


@pytest.mark.spec("SET-05")
def test_owners_receive_their_share_of_the_exact_amounts_rounded_once(
    on_duckdb: dict[str, list[tuple[Any, ...]]],
) -> None:
    city = drawn_city()
    owned = {row["point"]: row for row in city["points"]}
    booked = {row["booking"]: row for row in city["bookings"]}
    names = [*columns.LINES, *(f"{kind}_{part}" for kind in columns.KINDS for part in ("cents", "rest"))]
    exact: dict[tuple[str, str, str], Decimal] = {}
    for row in on_duckdb["activated lines"]:
        line = dict(zip(names, row[: len(names)], strict=True))
        point, booking = owned[line["point"]], booked[line["booking"]]
        if point["provider"] != booking["provider"]:
            continue
        amount, penalty = (
            D(line[f"{kind}_cents"]) + D(line[f"{kind}_rest"]) / 10**14 for kind in ("amount", "penalty")
        )
        key = (booking["session"], booking["provider"], point["owner"])
        exact[key] = (
            exact.get(key, D(0)) + (amount * point["owner_share"] - penalty * point["owner_penalty_share"]) / 10**4
        )
    expected = {f"{' | '.join(key)}": int(cents.to_integral_value()) for key, cents in exact.items()}
    found = {row[0]: row[-1] for row in on_duckdb["activated owner_postings"] if row[1].startswith("owner")}
    assert found == {name: cents for name, cents in expected.items() if cents}
    assert len(found) > 5


# ---------------------------------------------------------------- corrections


@pytest.mark.spec("SET-05", "SET-06")
def test_a_second_run_posts_the_differences_alone_and_both_together_are_the_new_books(tmp_path: Path) -> None:
    city = drawn_city()
    first = city | {"readings": [row for row in city["readings"] if row["version"] == 0]}
    folders = [put_city(tmp_path / name, given) for name, given in (("first", first), ("second", city))]
    answers = [
        runs.settle_city(folder, tmp_path / f"{folder.name} out", "duckdb:", False, "platform", 1) for folder in folders
    ]
    assert answers[0].accounts != answers[1].accounts
    outs = [tmp_path / f"{folder.name} out" for folder in folders]
    corrected = runs.correct_city(*outs, tmp_path / "difference", "duckdb:")
    books = [_cents(place / "postings.parquet") for place in (*outs, tmp_path / "difference")]
    assert {key: books[0].get(key, 0) + books[2].get(key, 0) for key in books[0] | books[2]} == {
        key: books[1].get(key, 0) for key in books[0] | books[1] | books[2]
    }
    assert sum(books[2].values()) == 0
    assert 0 < corrected.lines_changed < ACTIVATED
    changed = pq.read_table(tmp_path / "difference" / "lines.parquet").to_pylist()
    owed = sum(row["new_amount"] - row["old_amount"] for row in changed)
    assert owed == sum(-row["cents"] for row in _rows(tmp_path / "difference") if _of_buyer(row))
    assert runs.correct_city(outs[1], outs[1], None, "duckdb:").postings == 0
    with pytest.raises(Conflict, match="already"):
        runs.settle_city(folders[0], outs[0], "duckdb:", False, "platform")


def _rows(folder: Path) -> Rows:
    rows: Rows = pq.read_table(folder / "postings.parquet").to_pylist()
    return rows


def _of_buyer(row: dict[str, Any]) -> bool:
    return bool(row["cause"] == "activation" and row["account"] in ("dso", "tso"))


def _cents(file: Path) -> dict[tuple[str, ...], int]:
    return {
        (row["booking"], row["account"], row["cause"], row["session"]): row["cents"]
        for row in pq.read_table(file).to_pylist()
    }


# ---------------------------------------------------------------- indicators


@pytest.mark.spec("KPI-01")
def test_indicators_are_those_of_the_day_s_report(tmp_path: Path) -> None:
    draw = random.Random(3)
    points = [
        SetPoint(
            f"u{k % 7}", MIDNIGHT + (k % 4) * timedelta(minutes=15), "tso", "s-1", Direction.UP, 9, k % 6, 0.0, 0.0, hop
        )
        for k, hop in enumerate(draw.choices(list(Hop), k=40))
    ]
    limits = [Limitation(MIDNIGHT, "u1", "tso", 9, 3, "line", 1.1, 1.0)] * 3
    reasons = draw.choices([None, Reason.RED_LIGHT, Reason.YELLOW_LIGHT], k=20)
    by_report = {one.id: one.value for one in (*kpi.messages(25, points), *kpi.activated(points, []))}
    given = drawn_city() | {
        "messages": [
            {"sent": MIDNIGHT, "kind": "bid", "sender": "sp", "receiver": ("tso", "dso")[k % 5 == 0]} for k in range(25)
        ],
        "set_points": [
            {"point": 1, "start": one.start, "ordered_kw": one.ordered_kw, "hop": 1 + list(Hop).index(one.acknowledged)}
            for one in points
        ],
        "merit": [
            {"session": "s", "start": MIDNIGHT, "offer": k, "whole_system": k < 15, "limited": reason in kpi.BY_LIGHT}
            for k, reason in enumerate(reasons)
        ],
        "lights": [{"perimeter": "p", "start": MIDNIGHT, "sign": 1, "colour": c} for c in ("green", "red", "yellow")],
        "limitations": [{"point": 1, "start": one.start, "from_kw": one.from_kw, "to_kw": one.to_kw} for one in limits],
    }
    folder = put_city(tmp_path / "city", given)
    answer = runs.city_indicators(folder, "duckdb:")
    found = {one.id: one.value for one in answer.indicators}
    assert set(found) == set(kpi_columns.MEANINGS)
    for name in ("messages_exchanged", "set_points_sent", "set_points_delivered", "activated_peak", "activated_mean"):
        assert found[name] == pytest.approx(by_report[name], abs=1e-6)
    assert found["messages_dso"] == 20.0
    assert found["lines_limited_by_lights"] == pytest.approx(100 * sum(r is not None for r in reasons[:15]) / 15)
    assert (found["lights_not_green"], found["limitations"]) == (2, 3)
    assert found["activated_offers"] == len({row["offer"] for row in given["activations"] if row["ordered_wh"]})
    settled = runs.settle_city(folder, None, "duckdb:", False, "platform", 1)
    paid = -sum(one.balance for one in settled.accounts if one.account in ("dso", "tso") and one.cause != "fee")
    assert found["paid"] == paid / 100


def test_indicators_of_nothing_are_zero() -> None:
    assert [kpi_columns.value(name, 0, 0) for name in kpi_columns.MEANINGS] == [0.0] * len(kpi_columns.MEANINGS)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("url", ["", "mysql://localhost/x", "duck", "sparkling:water"])
def test_a_url_of_no_engine_is_refused_with_examples(url: str) -> None:
    with pytest.raises(Refused) as refused:
        open_warehouse(url)
    assert "spark:local[2]" in str(refused.value.findings[0])


def test_a_postgresql_that_does_not_answer_is_told_in_a_sentence() -> None:
    with pytest.raises(NotReady, match="PostgreSQL does not answer"):
        open_warehouse("postgresql://nobody@127.0.0.1:1/nothing")


def test_files_that_do_not_fit_are_refused_column_by_column(tmp_path: Path) -> None:
    file = put(tmp_path, "readings", {"point": "int64", "start": "string", "wh": "int32", "quality": "int8"}, [])
    with open_warehouse("duckdb:") as house:
        with pytest.raises(Refused) as refused:
            house.take("readings", columns.READINGS, file)
        codes = {finding.place.rpartition(" ")[2]: finding.code for finding in refused.value.findings}
        assert codes == {"point": "wrong_type", "start": "wrong_type", "version": "missing"}
        with pytest.raises(NotFound):
            house.take("readings", columns.READINGS, tmp_path / "nowhere.parquet")
        (tmp_path / "text.parquet").write_text("no table")
        with pytest.raises(Refused, match="1 fault"):
            house.take("readings", columns.READINGS, tmp_path / "text.parquet")


def test_activations_that_stand_twice_or_know_no_rule_are_refused_before_anything_is_settled(tmp_path: Path) -> None:
    city = drawn_city()
    stray = city["activations"][0] | {"booking": 77, "rule": 78, "offer": 1000}
    folder = put_city(tmp_path / "city", city | {"activations": [*city["activations"], city["activations"][1], stray]})
    with pytest.raises(Refused) as refused:
        runs.settle_city(folder, tmp_path / "out", "duckdb:", False, "platform")
    assert {finding.code for finding in refused.value.findings} == {"repeated", "unknown_booking", "unknown_rule"}
    assert not (tmp_path / "out").exists()


def test_a_sum_beyond_64_bits_is_an_error_and_no_wrong_number(tmp_path: Path) -> None:
    rows = [{"value": 2**62}] * 4
    with open_warehouse("duckdb:") as house:
        table = house.take("big", {"value": "int64"}, put(tmp_path, "big", {"value": "int64"}, rows))
        with pytest.raises(Exception, match=r"(?i)range|overflow|cast"):
            house.rows(table.aggregate(total=table.value.sum()))


def test_neither_ibis_nor_an_engine_is_imported_before_a_city_is_settled() -> None:
    heavy = "{'ibis', 'duckdb', 'pyspark', 'pyarrow'}"
    said = f"import coflex.__main__, coflex.adapters.warehouse.city, sys; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_corrections_through_an_older_version_see_what_was_known_then(tables: Path) -> None:
    with open_warehouse("duckdb:", threads=1) as house:
        readings = house.take("readings", columns.READINGS, tables / "readings.parquet")
        now, then = (house.rows(columns.latest(readings, through)).num_rows for through in (None, 0))
        assert now == then == POINTS * QUARTERS
        assert told(house, columns.latest(readings)) != told(house, columns.latest(readings, 0))
        assert (
            told(house, column_books.repeated_points(house.take("points", columns.POINTS, tables / "points.parquet")))
            == []
        )


# ---------------------------------------------------------------- the commands


@pytest.mark.spec("SET-02", "SET-06", "KPI-01")
def test_a_city_is_settled_looked_at_and_corrected_by_commands(tables: Path, tmp_path: Path) -> None:
    def said(*words: object) -> Any:
        done = coflex("city", *words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    outward = said("settle", tables, "--out", tmp_path / "first")
    whole = said("settle", tables, "--all-rows", "--out", tmp_path / "second", "--memory", 2, "--threads", 1)
    assert outward["lines"] == whole["lines"] == ACTIVATED and outward["accounts"] == whole["accounts"]
    assert sum(one["received"] - one["paid"] for one in outward["accounts"]) == 0
    lines = pq.read_table(tmp_path / "first" / "lines.parquet")
    assert lines.num_rows == ACTIVATED and (tmp_path / "second" / "points.parquet").exists()

    again = coflex("city", "settle", tables, "--out", tmp_path / "first")
    assert again.exit_code == 1 and "holds" in again.stderr and "Traceback" not in again.output
    nothing = said("correct", tmp_path / "first", tmp_path / "second", "--out", tmp_path / "difference")
    assert nothing["postings"] == 0
    shown = coflex("city", "settle", tables)
    assert shown.exit_code == 0 and str(ACTIVATED) in shown.stdout
    wrong = coflex("city", "settle", tables, "--engine", "oracle:")
    assert wrong.exit_code == 1 and "duckdb:" in wrong.output
