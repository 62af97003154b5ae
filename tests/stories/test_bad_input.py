"""Faulty input at the front door: every fault named with its place, and nothing half-done."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from support.command import coflex, contents
from support.small_case import small_folder

GOOD = {
    "offer": "mine",
    "provider": "sp-02",
    "product": "local-energy",
    "direction": "down",
    "unit": "cu-0001",
    "group": "",
    "step": "1",
    "start": "2016-07-05T10:00:00+00:00",
    "end": "2016-07-05T11:00:00+00:00",
    "quantity_kw": "20",
    "price_eur_mwh": "50",
    "min_quantity_kw": "0",
    "block": "false",
    "max_periods": "",
    "energy_limit_kwh": "",
    "exclusive": "",
    "local_only": "false",
    "received_at": "2016-07-04T07:00:00+00:00",
}


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the small case and its day, whose first session is open."""
    place = tmp_path_factory.mktemp("morning")
    folder = small_folder(place)
    for verb in ("register", "qualify", "plan"):
        assert coflex(verb, folder, "--out", place / "out").exit_code == 0
    return place


@pytest.fixture
def place(morning: Path, tmp_path: Path) -> Path:
    """A copy of it for one story."""
    return shutil.copytree(morning, tmp_path / "place")


def offers(place: Path, *rows: dict[str, str]) -> Path:
    """A table of offers next to the case, each like the good one but for what is given."""
    table = place.parent / "offers.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, GOOD, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**GOOD, **row} for row in rows)
    return table


def refused(place: Path, *words: object) -> list[dict[str, str]]:
    """The findings of a command that must be refused, told to people and to machines, leaving all as it was."""
    before = contents(place)
    told = coflex(*words, "--out", place / "out")
    told_json = coflex(*words, "--out", place / "out", "--json")
    assert (told.exit_code, told_json.exit_code) == (1, 1), told.output
    assert contents(place) == before
    assert told.stdout == ""
    assert "Traceback" not in told.stderr + told_json.stderr
    answer = json.loads(told_json.stdout)
    assert answer["error"] == "REFUSED"
    assert told.stderr.splitlines() == [
        f"{answer['message']} {answer['remedy']}",
        *(f"  {one['place']}: {one['message']} [{one['code']}]" for one in answer["findings"]),
    ]
    return list(answer["findings"])


def named(findings: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(one["place"], one["code"]) for one in findings}


# ---------------------------------------------------------------- offers


def test_a_good_offer_is_taken(place: Path) -> None:
    told = coflex("offer", place / "small", offers(place, {}), "--out", place / "out", "--json")
    assert (told.exit_code, json.loads(told.stdout)) == (0, {"offers": 1, "session": "local-1"})


@pytest.mark.parametrize(
    ("row", "where", "code"),
    [
        ({"unit": "cu-9999"}, "offer mine", "unknown_unit"),
        ({"quantity_kw": "99999"}, "offer mine, step 1, 2016-07-05", "above_qualified"),
        ({"quantity_kw": "-20"}, "offers.csv, line 3, column quantity_kw", "negative"),
        ({"received_at": "2016-07-04T08:00:00+00:00"}, "offer mine", "after_gate"),
    ],
    ids=["of an unknown unit", "above the qualified quantity", "of a negative quantity", "after the gate"],
)
def test_an_offer_is_refused_with_its_fault_and_the_good_one_beside_it_is_not_taken(
    place: Path, row: dict[str, str], where: str, code: str
) -> None:
    findings = refused(place, "offer", place / "small", offers(place, {"offer": "good"}, row))
    assert {one["code"] for one in findings} == {code}
    assert all(one["place"].startswith(where) for one in findings)


def test_periods_of_one_offer_that_overlap_are_refused_with_the_line_of_the_second(place: Path) -> None:
    second = {"start": "2016-07-05T10:45:00+00:00", "end": "2016-07-05T12:00:00+00:00"}
    findings = refused(place, "offer", place / "small", offers(place, {}, second))
    assert named(findings) == {("offers.csv, line 3, column start", "spans_overlap")}


def test_faults_of_several_lines_of_a_table_are_told_in_one_go(place: Path) -> None:
    table = offers(
        place,
        {"quantity_kw": "-1"},
        {"offer": "other", "end": "2016-07-05T09:00:00+00:00"},
        {"offer": "third", "unit": "", "step": "0"},
    )
    assert named(refused(place, "offer", place / "small", table)) == {
        ("offers.csv, line 2, column quantity_kw", "negative"),
        ("offers.csv, line 3, column end", "ends_before_start"),
        ("offers.csv, line 4, column step", "step_number"),
        ("offers.csv, line 4, column unit", "unit_or_group"),
    }


def test_faults_of_several_offers_are_told_in_one_go(place: Path) -> None:
    late = {"received_at": "2016-07-04T09:30:00+00:00"}
    table = offers(
        place,
        {"offer": "a", "unit": "cu-9999", **late},
        {"offer": "b", "quantity_kw": "99999", "end": "2016-07-05T10:15:00+00:00"},
        {"offer": "c", "unit": "cu-0002", "product": "gold"},
    )
    assert named(refused(place, "offer", place / "small", table)) == {
        ("offer a", "after_gate"),
        ("offer a", "unknown_unit"),
        ("offer b, step 1, 2016-07-05T12:00+02:00", "above_qualified"),
        ("offer c", "unknown_product"),
    }


# ---------------------------------------------------------------- the case


def drop_column(case: Path) -> None:
    rows = list(csv.reader((case / "units.csv").open()))
    gone = rows[0].index("up_kw")
    with (case / "units.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(row[:gone] + row[gone + 1 :] for row in rows)


def cut_a_line(case: Path) -> None:
    lines = (case / "lines.csv").read_text().splitlines(keepends=True)
    (case / "lines.csv").write_text("".join(line for line in lines if not line.startswith("A2-A4,")))


def name_a_bus_twice(case: Path) -> None:
    lines = (case / "buses.csv").read_text().splitlines(keepends=True)
    (case / "buses.csv").write_text("".join([*lines, lines[-1]]))


def add_an_unknown_key(case: Path) -> None:
    shipped = resources.files("coflex.market").joinpath("designs", "beflexible_six.yaml").read_text()
    (case / "mine.yaml").write_text(f"tittle: Mine\n{shipped}")
    page = (case / "case.yaml").read_text()
    (case / "case.yaml").write_text(page.replace("design: beflexible_six", "design: mine"))


# The fault, where it is told, and its code.
FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a missing column": (drop_column, "units.csv, line 1, column up_kw", "missing_column"),
    "an island": (cut_a_line, "buses.csv: bus A4", "island"),
    "a bus named twice": (name_a_bus_twice, "buses.csv: B3", "named_twice"),
    "an unknown key in its design": (add_an_unknown_key, "mine.yaml, line 1: tittle", "unknown_key"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", ["run", "clear"])
def test_a_case_is_refused_with_its_fault_and_the_day_stays_as_it_was(place: Path, verb: str, fault: str) -> None:
    spoil, where, code = FAULTS[fault]
    spoil(place / "small")
    assert named(refused(place, verb, place / "small")) == {(where, code)}


@pytest.mark.parametrize(
    "together",
    [("a missing column", "a bus named twice"), ("an island", "an unknown key in its design")],
    ids=["in its tables", "in its grid and its design"],
)
def test_several_faults_of_a_case_are_told_in_one_go(place: Path, together: tuple[str, ...]) -> None:
    for fault in together:
        FAULTS[fault][0](place / "small")
    assert named(refused(place, "run", place / "small")) == {FAULTS[fault][1:] for fault in together}


def test_a_case_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    assert named(refused(tmp_path, "run", tmp_path / "nowhere")) == {(str(tmp_path / "nowhere"), "missing_folder")}
    assert list(tmp_path.iterdir()) == []
