"""Folders of grid tables: what a case folder writes of its grid reads by itself, and each fault has its place."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from coflex.adapters.exchange.tables.case_folder import write_case
from coflex.adapters.exchange.tables.grid_folder import read_grid_folder
from coflex.domain.errors import Refused
from coflex.domain.time import Axis
from coflex.grid.tables import Branch, CostPoint, Dispatch, GridTables, Load, Shunt
from support.grid_files import write_folder
from support.small_case import small_case
from support.small_grids import radial

FULL = replace(
    radial(),
    branches=(Branch("far", "H", "M0", 0.0, 0.1, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 100.0),),
    shunts=(Shunt("bank", "A3", 0.0, 0.2, 1, 2),),
    dispatches=(Dispatch("pv A3", 0.0, 1.0, -0.3, 0.3, 0.0, 5.0, 0.0),),
    cost_points=(CostPoint("corner", "above", 0.0, 0.0),),
)


def faults(folder: Path) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as refused:
        read_grid_folder(folder)
    return [(finding.place, finding.code) for finding in refused.value.findings]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize("tables", [radial(), FULL])
def test_tables_read_back_as_they_were_written(tables: GridTables, tmp_path: Path) -> None:
    assert read_grid_folder(write_folder(tmp_path / "grid", tables)) == (tables, None)


@pytest.mark.spec("GRID-01")
def test_a_case_folder_is_a_folder_of_its_grid_too(tmp_path: Path) -> None:
    case = small_case()
    write_case(tmp_path / "case", case)
    tables, profiles = read_grid_folder(tmp_path / "case")
    assert tables == case.grid and profiles is not None
    assert profiles.names == case.profiles.names and profiles.axis == case.profiles.axis
    assert np.array_equal(profiles.values, case.profiles.values)


@pytest.mark.spec("GRID-01")
def test_profiles_may_start_and_end_anywhere_and_cross_the_repeated_hour(tmp_path: Path) -> None:
    stamps = ["02:45+02:00", "02:00+01:00", "02:15+01:00"]
    rows = ["time,sun", *(f"2016-10-30T{stamp},{k / 4}" for k, stamp in enumerate(stamps))]
    _, profiles = read_grid_folder(write_folder(tmp_path / "grid", radial(), *rows))
    assert profiles is not None and profiles.axis == Axis(datetime(2016, 10, 30, 0, 45, tzinfo=UTC), 3)
    assert profiles.axis.step == timedelta(minutes=15)
    assert profiles.row("sun").tolist() == [0.0, 0.25, 0.5]


@pytest.mark.spec("GRID-01")
@pytest.mark.parametrize(
    ("stamps", "place", "code"),
    [
        (["2016-01-01T00:00+00:00", "2016-01-01T00:30+00:00"], "profiles.csv, line 3, column time", "out_of_order"),
        (["2016-01-01T00:00+00:00", "noon"], "profiles.csv, line 3, column time", "wrong_stamp"),
        (["2016-01-01T00:00", "2016-01-01T00:15"], "profiles.csv, line 2, column time", "wrong_stamp"),
        ([], "profiles.csv, line 2, column time", "wrong_stamp"),
    ],
)
def test_stamps_that_are_no_run_of_quarter_hours_are_refused(
    stamps: list[str], place: str, code: str, tmp_path: Path
) -> None:
    assert faults(write_folder(tmp_path / "grid", radial(), "time,sun", *(f"{s},1.0" for s in stamps))) == [
        (place, code)
    ]


@pytest.mark.spec("GRID-01")
def test_faults_of_all_files_are_named_at_once(tmp_path: Path) -> None:
    wrong = replace(FULL, loads=(*FULL.loads, Load("l", "A9", 1.0, 0.0, "moon", "")))
    folder = write_folder(tmp_path / "grid", wrong, "time,sun", "2016-01-01T00:00+00:00,much")
    text = (folder / "lines.csv").read_text(encoding="utf-8").splitlines()
    (folder / "lines.csv").write_text("\n".join([*text[:2], text[2].replace("A1,A2", "A1,A7"), *text[3:], text[1]]))
    (folder / "storages.csv").unlink()
    assert faults(folder) == [
        ("lines.csv: A1-A2", "unknown_bus"),
        ("lines.csv: M1-A1", "named_twice"),
        ("loads.csv: l", "unknown_bus"),
        ("profiles.csv, line 2, column sun", "not_a_number"),
        ("storages.csv", "missing_file"),
    ]
    (folder / "profiles.csv").write_text("time,sun\n2016-01-01T00:00+00:00,1\n", encoding="utf-8")
    assert ("loads.csv: l", "unknown_profile") in faults(folder)
