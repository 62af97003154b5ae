"""Units from tables: what spreadsheet programs make of them, and every fault with its line and column (REG-02)."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook

from coflex.adapters.exchange.tables.units_import import (
    COLUMNS,
    read_units,
    template_csv,
    template_workbook,
)
from coflex.domain.errors import Refused
from coflex.domain.unit import Level, Technology
from coflex.service.machine import encode
from coflex.service.verbs.units_import import MOST_ROWS
from support.registers import populated

UNIT: dict[str, Any] = {
    "id": "u1", "category": "storage", "technology": "battery", "connection_point": "p1", "owner": "own-1",
    "balance_responsible_party": "brp-1", "up_kw": 100, "down_kw": 80, "preparation_period_s": 60,
    "ramping_period_s": 120, "full_activation_time_s": 300, "deactivation_period_s": 60, "min_quantity_kw": 1,
    "max_quantity_kw": 100, "min_duration_s": 900, "max_duration_s": 7200, "recovery_time_s": 0,
}  # fmt: skip
POINT: dict[str, Any] = {
    "bus": "B1", "level": "distribution", "voltage_kv": 20.5, "system_operator": "dso", "latitude": 44.4,
    "longitude": 7.5, "impacted": "tso|dso-2",
}  # fmt: skip


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",", comma: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({k: str(v).replace(".", ",") if comma and isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue().encode()


def as_workbook(rows: list[dict[str, Any]], title: str = "units") -> bytes:
    book = Workbook()
    sheet = book.active
    sheet.title = title
    sheet.append(list(rows[0]))
    for row in rows:
        sheet.append(list(row.values()))
    contents = io.BytesIO()
    book.save(contents)
    return contents.getvalue()


def faults(name: str, data: bytes) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as caught:
        read_units(name, data)
    return [(finding.place, finding.code) for finding in caught.value.findings]


@pytest.mark.spec("REG-02")
def test_every_way_to_write_a_table_reads_the_same() -> None:
    rows = [UNIT | POINT, UNIT | POINT | {"id": "u2", "energy_up_kwh": 500}]
    rows[0]["energy_up_kwh"] = None
    plain = read_units("units.csv", as_csv(rows))
    assert plain[0].technology is Technology.BATTERY and plain[0].level is Level.DISTRIBUTION
    assert (plain[0].voltage_kv, plain[0].impacted, plain[0].place) == (20.5, ("tso", "dso-2"), "units.csv, line 2")
    assert (plain[0].energy_up_kwh, plain[1].energy_up_kwh) == (None, 500)
    assert read_units("units.csv", as_csv(rows, ";")) == plain
    assert read_units("units.csv", as_csv(rows, ";", comma=True)) == plain
    assert read_units("units.csv", b"\xef\xbb\xbf" + as_csv(rows, ";")) == plain
    assert read_units("units.csv", as_csv(rows).replace(b"\r\n", b"\n")) == plain
    turned = [dict(reversed(row.items())) for row in rows]
    assert read_units("units.csv", as_csv(turned)) == plain
    booked = read_units("units.xlsx", as_workbook(rows))
    assert [one.place for one in booked] == ["units.xlsx, line 2", "units.xlsx, line 3"]
    assert encode(booked).replace(b"xlsx", b"csv") == encode(plain)


@pytest.mark.spec("REG-02")
def test_a_table_goes_through_the_register_and_its_faults_come_back_with_their_lines() -> None:
    world = populated()
    rows = [UNIT | POINT | {"impacted": "tso"}, UNIT | POINT | {"id": "u2", "impacted": "tso", "down_kw": -3}]
    sent = read_units("units.csv", as_csv(rows))
    with pytest.raises(Refused) as caught:
        world.do("units.import", "sp-1", rows=sent)
    assert [(f.place, f.code) for f in caught.value.findings] == [("units.csv, line 3: unit u2", "negative")]
    reply = world.do("units.import", "sp-1", rows=sent[:1])
    assert (reply["units"], reply["connection_points"]) == (1, 1)


@pytest.mark.spec("REG-02")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"up_kw": "12,5"}, "not_a_number"),
        ({"up_kw": ""}, "empty_cell"),
        ({"up_kw": "=A1+1"}, "formula"),
        ({"category": "@SUM(A1)"}, "formula"),
        ({"category": "#REF!"}, "formula"),
        ({"category": ""}, "empty_cell"),
        ({"technology": "Battery"}, "unknown_value"),
        ({"tan_phi": "1.234,5"}, "not_a_number"),
        ({"tan_phi": "1,234,5"}, "not_a_number"),
        ({"tan_phi": "nan"}, "not_finite"),
        ({"impacted": "tso||dso"}, "empty_item"),
        ({"level": "low"}, "unknown_value"),
        ({"id": ""}, "empty_cell"),
    ],
)
def test_each_bad_cell_is_told_with_file_line_and_column(change: dict[str, str], code: str) -> None:
    (column,) = change
    rows = [UNIT | POINT | {"tan_phi": 0}, UNIT | POINT | {"tan_phi": 0, "id": "u2"} | change]
    assert faults("units.csv", as_csv(rows)) == [(f"units.csv, line 3, column {column}", code)]
    if change[column]:
        assert faults("u.xlsx", as_workbook(rows)) == [(f"u.xlsx, line 3, column {column}", code)]


@pytest.mark.spec("REG-02")
def test_what_a_workbook_took_for_something_else_is_told() -> None:
    rows = [UNIT | {"id": datetime(2026, 7, 1), "category": True, "tan_phi": 0.25}]  # noqa: DTZ001
    assert faults("u.xlsx", as_workbook(rows)) == [
        ("u.xlsx, line 2, column category", "not_a_value"), ("u.xlsx, line 2, column id", "date"),
    ]  # fmt: skip
    (row,) = read_units("u.xlsx", as_workbook([UNIT | {"id": 12345, "up_kw": 100.0, "tan_phi": 0.25}]))
    assert (row.id, row.up_kw, row.tan_phi) == ("12345", 100, 0.25)


@pytest.mark.spec("REG-02")
def test_unknown_missing_and_repeated_columns_are_told_together() -> None:
    header = [name for name in COLUMNS if name != "down_kw"]
    data = (",".join([*header, "up_KW", "id", ""]) + ",x\n").encode()
    assert faults("units.csv", data) == [
        ("units.csv, line 1, column 32", "unnamed_column"),
        ("units.csv, line 1, column down_kw", "missing_column"),
        ("units.csv, line 1, column id", "repeated_column"),
        ("units.csv, line 1, column up_KW", "unknown_column"),
        ("units.csv, line 1, column x", "unknown_column"),
    ]


@pytest.mark.spec("REG-02")
def test_empty_rows_are_passed_over_and_repeated_ids_told_with_both_lines() -> None:
    text = as_csv([UNIT, UNIT | {"id": "u2"}, UNIT]).decode().splitlines()
    text.insert(2, "," * (len(UNIT) - 1))
    text.insert(3, "")
    data = "\r\n".join(text).encode()
    with pytest.raises(Refused) as caught:
        read_units("units.csv", data)
    (finding,) = caught.value.findings
    assert (finding.place, finding.code) == ("units.csv, line 6, column id", "id_repeated")
    assert "line 2" in finding.message
    assert len(read_units("units.csv", "\r\n".join(text[:-1]).encode())) == 2


@pytest.mark.spec("REG-02")
@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("units.csv", b"", [("units.csv", "no_header")]),
        ("units.csv", template_csv(), [("units.csv", "row_count")]),
        ("units.xlsx", template_workbook(), [("units.xlsx", "row_count")]),
        ("units.csv", template_csv() + b"\xff\xfe", [("units.csv, line 2", "not_utf8")]),
        ("units.csv", template_csv() + b'a;"b', [("units.csv, line 2", "not_csv")]),
        ("units.csv", template_csv() + b"a;b\r\n", [("units.csv, line 2", "wrong_cell_count")]),
        ("units.xlsx", b"PK no workbook", [("units.xlsx", "not_a_workbook")]),
        ("units.pdf", b"", [("units.pdf", "unknown_format")]),
        ("units.csv", b"x" * 20_000_001, [("units.csv", "too_large")]),
    ],
)
def test_files_that_are_no_tables_are_told_so(name: str, data: bytes, found: list[tuple[str, str]]) -> None:
    assert [one for one in faults(name, data) if one[1] != "x"][-len(found) :] == found


@pytest.mark.spec("REG-02")
def test_a_table_of_too_many_units_is_refused_at_the_first_too_much() -> None:
    head, line = as_csv([UNIT]).split(b"\r\n")[:2]
    data = head + b"\n" + b"\n".join(line.replace(b"u1", b"u%d" % k) for k in range(MOST_ROWS + 1))
    assert faults("units.csv", data) == [(f"units.csv, line {MOST_ROWS + 2}", "row_count")]


@pytest.mark.spec("REG-02")
def test_the_templates_have_every_column_and_say_what_is_needed() -> None:
    assert template_csv().decode().strip().split(";") == list(COLUMNS)
    book = load_workbook(io.BytesIO(template_workbook()))
    assert book.sheetnames == ["units", "columns"]
    assert [cell.value for cell in book["units"][1]] == list(COLUMNS)
    words = {row[0]: row[1:] for row in book["columns"].iter_rows(min_row=2, values_only=True)}
    assert words["up_kw"] == ("yes", "a whole number") and words["tan_phi"] == ("no", "a number")
    assert words["level"] == ("no", "one of distribution, transmission")
    needed = [name for name, (is_needed, _) in words.items() if is_needed == "yes"]
    assert set(needed) == set(UNIT)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_bytes_come_the_answer_is_units_or_findings(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["csv", "xlsx"]))
    sound = as_csv([UNIT | POINT]) if kind == "csv" else WORKBOOK
    place = data.draw(st.integers(0, len(sound)))
    end = data.draw(st.integers(place, min(len(sound), place + 40)))
    broken = sound[:place] + data.draw(st.binary(max_size=20)) + sound[end:]
    try:
        assert read_units(f"units.{kind}", broken)
    except Refused as fault:
        assert all(finding.message and finding.place.startswith("units.") for finding in fault.findings)


WORKBOOK = as_workbook([UNIT | POINT])
