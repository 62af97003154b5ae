"""Case folders: read whole, or refused with every fault of every file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from coflex.adapters.exchange.tables.case_folder import check_case, read_case, write_case
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, delivery_day, midnight
from coflex.grid.tables import Bus, Generator, GridTables, Line, Load, Source, Switch, Transformer
from coflex.process.ports import Case, CaseSettings, DeviceSettings, TsoSettings
from coflex.simulation.cases import draw_case

ZONE = ZoneInfo("Europe/Berlin")
FEEDERS, BUSES = 2, 8


def small_grid() -> GridTables:
    """Two feeders of eight buses behind one transformer."""
    places = [f"{feeder}.{number}" for feeder in range(1, FEEDERS + 1) for number in range(1, BUSES + 1)]
    buses = [Bus("HV", 110.0, 0.9, 1.1, 11.0, 53.0, ""), Bus("MV", 10.0, 0.95, 1.05, 11.0, 53.0, "")]
    buses += [Bus(place, 10.0, 0.95, 1.05, 11.0, 53.0 + i / 100, f"F0{place[0]}") for i, place in enumerate(places)]
    above = {place: "MV" if place.endswith(".1") else f"{place[:2]}{int(place[2:]) - 1}" for place in places}
    return GridTables(
        buses=tuple(buses),
        lines=tuple(Line(f"L{p}", above[p], p, 0.5, 0.1, 0.05, 150.0, 300.0, 100.0) for p in places),
        transformers=(
            Transformer(
                "T", "HV", "MV", 40.0, 110.0, 10.0, 16.0, 0.3, 20.0, 0.04, 150.0, "hv", 0, -9, 9, 1.5, -1, 60.0
            ),
        ),
        switches=(
            Switch("S1", "line", "MV", "L1.1", True),
            Switch("S2", "transformer", "MV", "T", True),
            Switch("S3", "bus", "1.8", "2.8", False),
        ),
        sources=(Source("above", "HV", 1.02),),
        loads=tuple(Load(f"load {p}", p, 0.4, 0.15, "house_p", "house_q") for p in places),
        generators=tuple(Generator(f"roof {p}", p, 0.02, 0.0, "pv", "sun_res") for p in places),
        storages=(),
    )


def small_case(first: date = date(2016, 10, 29), days: int = 3) -> Case:
    start = midnight(first, ZONE)
    axis = Axis(start, (midnight(first + timedelta(days=days), ZONE) - start) // QUARTER)
    values = np.random.default_rng(1).random((3, len(axis)))
    settings = CaseSettings(
        id="small",
        title="Zwei Abgänge: klein",
        grid="own",
        day=first + timedelta(days=1),
        zone="Europe/Berlin",
        seed=3,
        design="beflexible_six",
        load_scale=0.9,
        pv_scale=1.1,
        tso=TsoSettings(5.0, 4.0, Decimal("400")),
        devices=DeviceSettings(0.02, 0.03),
    )
    return draw_case(small_grid(), Series(("house_p", "house_q", "sun_res"), axis, values), settings, 30, 4)


@pytest.fixture(scope="module")
def case() -> Case:
    return small_case()


@pytest.fixture
def folder(case: Case, tmp_path: Path) -> Path:
    write_case(tmp_path / "small", case)
    return tmp_path / "small"


def assert_equal(one: Case, other: Case) -> None:
    for name in ("settings", "grid", "parties", "points", "units", "groups", "products"):
        assert getattr(one, name) == getattr(other, name)
    assert (one.profiles.names, one.profiles.axis) == (other.profiles.names, other.profiles.axis)
    assert one.profiles.values.tobytes() == other.profiles.values.tobytes()


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")


def swap(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def faults(folder: Path) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as refused:
        read_case(folder)
    return [(finding.place, finding.code) for finding in refused.value.findings]


@pytest.mark.spec("XCH-04")
def test_a_case_reads_back_to_the_bit(case: Case, folder: Path) -> None:
    assert check_case(case) == ()
    assert_equal(read_case(folder), case)


@pytest.mark.spec("XCH-04")
def test_writing_a_case_that_was_read_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_case(tmp_path / "again", read_case(folder))
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 15
    assert [(folder / n).read_bytes() for n in names] == [(tmp_path / "again" / n).read_bytes() for n in names]


@pytest.mark.parametrize(
    ("first", "rows"), [(date(2016, 3, 27), 92), (date(2016, 7, 5), 96), (date(2016, 10, 30), 100)]
)
def test_days_of_92_96_and_100_quarter_hours_read_back(first: date, rows: int, tmp_path: Path) -> None:
    case = small_case(first - timedelta(days=1), 2)
    write_case(tmp_path / "day", case)
    read = read_case(tmp_path / "day")
    assert len(read.axis) == rows == len(delivery_day(first, ZONE))
    assert_equal(read, case)
    lines = (tmp_path / "day" / "profiles.csv").read_text().splitlines()
    stamps = [line.split(",")[0] for line in lines if line.startswith(f"{first.isoformat()}T")]
    assert len(stamps) == len(set(stamps)) == rows
    twos = [stamp[11:] for stamp in stamps if stamp[11:13] == "02"]
    summer, winter = ([f"02:{minute:02d}{offset}" for minute in (0, 15, 30, 45)] for offset in ("+02:00", "+01:00"))
    assert twos == {92: [], 96: summer, 100: summer + winter}[rows]


@pytest.mark.spec("XCH-04")
def test_faults_of_several_files_are_reported_together(folder: Path) -> None:
    edit(folder / "loads.csv", lambda rows: [rows[0].replace("q_mvar", "q"), *rows[1:]])
    edit(folder / "buses.csv", lambda rows: [*rows, rows[-1]])
    rows = (folder / "groups.csv").read_text().splitlines()
    first_group = next(row.split(",")[0] for row in rows if "cu-0001" in row)
    swap(folder / "groups.csv", "cu-0001", "cu-9999")
    swap(folder / "lines.csv", ",0.1,", ",nan,")
    swap(folder / "case.yaml", "  up_mw: 5.0", "  up_mw: five\n  spare: 1")
    swap(folder / "profiles.csv", "T00:15+02:00", "T00:16+02:00")
    assert faults(folder) == [
        ("buses.csv: 2.8", "named_twice"),
        ("case.yaml, line 11, key tso.up_mw", "not_a_number"),
        ("case.yaml, line 12, key tso.spare", "unknown_key"),
        (f"groups.csv: group {first_group}", "unknown_unit"),
        ("lines.csv, line 2, column r_ohm", "not_finite"),
        ("loads.csv, line 1, column q", "unknown_column"),
        ("loads.csv, line 1, column q_mvar", "missing_column"),
        ("profiles.csv, line 3, column time", "missing_stamp"),
        ("profiles.csv, line 3, column time", "wrong_stamp"),
    ]


@pytest.mark.parametrize(
    ("file", "old", "new", "place", "code"),
    [
        ("case.yaml", "seed: 3", "seed: 3\nseed: 4", "case.yaml, line 7, key seed", "repeated_key"),
        ("case.yaml", "seed: 3\n", "", "case.yaml, key seed", "missing_key"),
        ("case.yaml", "seed: 3", "seed: [3]", "case.yaml, line 6, key seed", "not_a_value"),
        ("case.yaml", "seed: 3", "seed: -3", "case.yaml, key seed", "negative"),
        (
            "case.yaml",
            "failure_share: 0.02",
            "failure_share: 1.5",
            "case.yaml, key devices.failure_share",
            "not_a_share",
        ),
        ("case.yaml", "seed: 3", "seed: 3\nfee_share: 0.02", "case.yaml, line 7, key fee_share", "unknown_key"),
        ("case.yaml", "2016-10-30", "2017-10-30", "case.yaml, key day", "day_outside_profiles"),
        ("case.yaml", "Europe/Berlin", "Europe/Atlantis", "case.yaml, key zone", "unknown_zone"),
        ("case.yaml", "seed: 3", "seed: [3", "case.yaml, line 7", "not_yaml"),
        ("case.yaml", "devices:\n  failure_share: 0.02\n ", "devices: 1\n#", "case.yaml, key devices", "not_a_mapping"),
        ("switches.csv", "S1,line,MV", "S1,line,HV", "switches.csv: S1", "switch_off_its_element"),
        ("switches.csv", "S1,line", "S1,cable", "switches.csv: S1", "unknown_kind"),
        ("switches.csv", "L1.1", "L9", "switches.csv: S1", "unknown_line"),
        ("sources.csv", "HV", "EHV", "sources.csv: above", "unknown_bus"),
        ("generators.csv", "sun_res", "moon_res", "generators.csv: roof 1.1", "unknown_profile"),
        ("generators.csv", "roof 1.1,", "load 1.1,", "loads.csv: load 1.1", "named_twice"),
    ],
)
def test_a_fault_is_named_with_its_place(folder: Path, file: str, old: str, new: str, place: str, code: str) -> None:
    swap(folder / file, old, new)
    assert (place, code) in faults(folder)


@pytest.mark.parametrize("page", ["", "urban", "- id\n- title", "? [id, title]\n: 1", "zone: [Europe/Berlin]"])
def test_a_page_that_is_no_list_of_settings_is_refused(folder: Path, page: str) -> None:
    (folder / "case.yaml").write_text(page)
    assert {place.split(",")[0] for place, _ in faults(folder)} == {"case.yaml"}


def test_a_unit_is_one_element_at_its_own_connection_point(case: Case) -> None:
    first, second = case.units[:2]
    moved = replace(case, units=(replace(first, element=second.element), *case.units[1:]))
    elsewhere = {element for element in ("load 1.1", "load 2.1") if element[5] != case.groups[0].perimeter[-1]}
    far = replace(case, units=(replace(first, element=elsewhere.pop()), *case.units[1:]))
    none = replace(case, units=(replace(first, element=""), *case.units[1:]))
    assert "element_taken" in {finding.code for finding in check_case(moved)}
    assert [finding.code for finding in check_case(far)] == ["element_elsewhere"]
    assert [finding.code for finding in check_case(none)] == ["no_element"]


def test_profiles_name_the_line_of_a_missing_repeated_strange_or_displaced_stamp(folder: Path) -> None:
    path, whole = folder / "profiles.csv", (folder / "profiles.csv").read_text()

    def found(change: Callable[[list[str]], list[str]]) -> list[tuple[str, str]]:
        path.write_text(whole)
        edit(path, change)
        return faults(folder)

    # Lines 2 to 97 are 29 October; the repeated hour starts on line 106 in summer time, on line 110 in winter time.
    assert found(lambda rows: rows[:6] + rows[7:]) == [("profiles.csv, line 7, column time", "missing_stamp")]
    assert found(lambda rows: rows[:1] + rows[2:]) == [("profiles.csv, line 2, column time", "missing_stamp")]
    assert found(lambda rows: rows[:-1]) == [("profiles.csv, line 293, column time", "missing_stamp")]
    assert found(lambda rows: [*rows[:7], rows[6], *rows[7:]]) == [
        ("profiles.csv, line 8, column time", "repeated_stamp")
    ]
    assert found(lambda rows: [*rows[:6], rows[7], rows[6], *rows[8:]]) == [
        ("profiles.csv, line 7, column time", "out_of_order")
    ]
    assert found(lambda rows: [row.replace("30T02:00+01:00", "30T02:00+02:00") for row in rows]) == [
        ("profiles.csv, line 110, column time", "missing_stamp"),
        ("profiles.csv, line 110, column time", "repeated_stamp"),
    ]
    assert found(lambda rows: [row.replace("30T05:00+01:00", "30T05:00+02:00") for row in rows]) == [
        ("profiles.csv, line 122, column time", "missing_stamp"),
        ("profiles.csv, line 122, column time", "wrong_stamp"),
    ]
    assert found(lambda rows: [rows[0], "yesterday" + rows[1][22:], *rows[2:]]) == [
        ("profiles.csv, line 2, column time", "wrong_stamp")
    ]


@pytest.mark.parametrize("cell", ["nan", "inf", "", "x", "0,5"])
def test_a_profile_value_that_is_no_number_is_named(folder: Path, cell: str) -> None:
    def change(rows: list[str]) -> list[str]:
        for line in (9, 12):
            cells = rows[line - 1].split(",")
            rows[line - 1] = ",".join([cells[0], f'"{cell}"', *cells[2:]])
        return rows

    edit(folder / "profiles.csv", change)
    with pytest.raises(Refused) as refused:
        read_case(folder)
    (finding,) = refused.value.findings
    assert (finding.place, finding.code) == ("profiles.csv, line 9, column house_p", "not_a_number")
    assert "Lines 9, 12 have" in finding.message


def test_profile_lines_of_another_length_and_headers_without_time_are_found(folder: Path) -> None:
    path, whole = folder / "profiles.csv", (folder / "profiles.csv").read_text()
    edit(path, lambda rows: [*rows[:3], rows[3] + ",1", *rows[4:]])
    assert faults(folder) == [("profiles.csv, line 4", "wrong_cell_count")]
    path.write_text(whole.replace("time,house_p,house_q", "when,house_p,house_q"))
    assert faults(folder) == [("profiles.csv, line 1", "missing_column")]
    path.write_text(whole.replace("time,house_p,house_q", "time,house_p,house_p"))
    assert faults(folder) == [("profiles.csv, line 1, column house_p", "repeated_column")]
    path.write_text("time,house_p\n")
    assert faults(folder) == [("profiles.csv, column time", "wrong_stamp")]


def test_a_folder_that_is_not_there_and_files_that_are_missing_are_refused(folder: Path) -> None:
    assert faults(folder / "none")[0][1] == "missing_folder"
    for path in folder.iterdir():
        path.unlink()
    assert [code for _, code in faults(folder)] == ["missing_file"] * 15


def test_a_case_is_written_whole_or_not_at_all(case: Case, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CoflexError, match="there already"):
        write_case(folder, case)
    unwritable = replace(case, products=(replace(case.products[0], tolerance=Decimal("NaN")),))
    for target in (folder, folder.parent / "other"):
        with pytest.raises(CoflexError, match="not finite"):
            write_case(target, unwritable, replace=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["small"]
    write_case(folder, replace(case, groups=()), replace=True)
    assert read_case(folder).groups == ()
    assert [path.name for path in folder.parent.iterdir()] == ["small"]
