"""CSV tables: what is written reads back, and each fault is named with its line and column."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.adapters.exchange.tables.records import read_records, write_records
from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Direction


@dataclass(frozen=True)
class Row:
    id: str
    note: str
    count: int
    ratio: float
    open: bool
    price: Decimal
    day: date
    start: datetime
    direction: Direction
    both: tuple[Direction, ...]
    names: tuple[str, ...]
    limit: int | None
    share: float | None


TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\n"))
ITEM = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\n;"), min_size=1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    Row,
    id=TEXT.filter(lambda text: bool(text.strip())),
    note=TEXT,
    count=st.integers(-(10**17), 10**17),
    ratio=FLOAT,
    open=st.booleans(),
    price=st.decimals(allow_nan=False, allow_infinity=False, places=4),
    day=st.dates(),
    start=st.datetimes(timezones=st.just(UTC)),
    direction=st.sampled_from(Direction),
    both=st.lists(st.sampled_from(Direction)).map(tuple),
    names=st.lists(ITEM).map(tuple),
    limit=st.none() | st.integers(0, 10**6),
    share=st.none() | FLOAT,
)
GOOD = "a,,3,0.5,true,1.10,2016-10-30,2016-10-30T02:15+01:00,up,up;down,x;y,,"


@pytest.mark.spec("XCH-04")
@given(st.lists(ROWS, max_size=4))
def test_records_read_back_as_they_were_written(rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        write_records(path, Row, rows)
        first = path.read_bytes()
        records, findings = read_records(path, Row)
        assert (records, findings) == (tuple(rows), ())
        write_records(path, Row, records)
        assert path.read_bytes() == first


def read(path: Path, *lines: str, header: str | None = None) -> tuple[tuple[Row, ...], list[tuple[str, str]]]:
    head = ",".join(field.name for field in fields(Row)) if header is None else header
    path.write_text("\n".join((head, *lines)) + "\n", encoding="utf-8")
    records, findings = read_records(path, Row)
    return records, [(finding.place, finding.code) for finding in findings]


@pytest.mark.spec("XCH-04")
def test_a_table_saved_by_a_spreadsheet_reads_the_same(tmp_path: Path) -> None:
    plain, _ = read(tmp_path / "plain.csv", GOOD)
    lines = (tmp_path / "plain.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines]
    turned = "\r\n".join(",".join(reversed(row)) for row in cells).replace("true", "TRUE")
    (tmp_path / "saved.csv").write_bytes(b"\xef\xbb\xbf" + turned.encode() + b"\r\n\r\n")
    assert read_records(tmp_path / "saved.csv", Row) == (plain, ())
    assert plain[0].start == datetime(2016, 10, 30, 1, 15, tzinfo=UTC)
    assert plain[0].limit is None and plain[0].both == (Direction.UP, Direction.DOWN)


@pytest.mark.spec("XCH-04")
def test_every_faulty_cell_is_named_with_its_line_and_column(tmp_path: Path) -> None:
    bad = ",,3.0,nan,yes,1e,30.10.2016,2016-10-30T02:15,sideways,up;over,x;,x,-inf"
    records, findings = read(tmp_path / "rows.csv", GOOD, bad, GOOD)
    assert len(records) == 2
    assert findings == [
        ("rows.csv, line 3, column id", "empty_cell"),
        ("rows.csv, line 3, column count", "not_a_number"),
        ("rows.csv, line 3, column ratio", "not_finite"),
        ("rows.csv, line 3, column open", "unknown_value"),
        ("rows.csv, line 3, column price", "not_a_number"),
        ("rows.csv, line 3, column day", "not_a_date"),
        ("rows.csv, line 3, column start", "no_offset"),
        ("rows.csv, line 3, column direction", "unknown_value"),
        ("rows.csv, line 3, column both", "unknown_value"),
        ("rows.csv, line 3, column names", "empty_item"),
        ("rows.csv, line 3, column limit", "not_a_number"),
        ("rows.csv, line 3, column share", "not_finite"),
    ]


@pytest.mark.parametrize("cell", ["1_000", "1,5", " 1", "0x10", "1e999", "\u0661"])
def test_a_number_that_people_would_read_otherwise_is_refused(tmp_path: Path, cell: str) -> None:
    line = GOOD.replace("0.5", f'"{cell}"')
    assert read(tmp_path / "rows.csv", line)[1][0][0] == "rows.csv, line 2, column ratio"


def test_missing_unknown_and_repeated_columns_are_found_together(tmp_path: Path) -> None:
    header = ",".join(field.name for field in fields(Row)).replace("count", "cuont").replace("note", "id")
    assert set(read(tmp_path / "rows.csv", GOOD, header=header)[1]) == {
        ("rows.csv, line 1, column note", "missing_column"),
        ("rows.csv, line 1, column count", "missing_column"),
        ("rows.csv, line 1, column cuont", "unknown_column"),
        ("rows.csv, line 1, column id", "repeated_column"),
    }


def test_a_line_with_too_many_cells_and_an_open_quote_are_found(tmp_path: Path) -> None:
    assert read(tmp_path / "rows.csv", GOOD + ",", GOOD.replace("a,", '"a', 1))[1] == [
        ("rows.csv, line 2", "wrong_cell_count"),
        ("rows.csv, line 3", "not_csv"),
    ]


def test_files_that_are_missing_empty_or_not_utf8_are_findings(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "latin.csv").write_bytes("id\nTür\n".encode("latin-1"))
    codes = [read_records(tmp_path / f"{name}.csv", Row)[1][0].code for name in ("none", "empty", "latin")]
    assert codes == ["missing_file", "no_header", "not_utf8"]


@given(st.text())
def test_no_text_whatever_makes_reading_fail(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes((",".join(field.name for field in fields(Row)) + "\n" + text).encode("utf-8", "surrogatepass"))
        records, findings = read_records(path, Row)
        assert not records
        assert findings or not text.strip("\r\n")


def test_values_that_no_cell_can_hold_are_not_written(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Small:
        id: str
        value: float = 0.0
        items: tuple[str, ...] = ()

    for row in (Small("a\nb"), Small(""), Small("a", float("nan")), Small("a", 0.0, ("x;y",)), Small("a", 0.0, ("",))):
        with pytest.raises(CoflexError):
            write_records(tmp_path / "small.csv", Small, [row])
        assert not (tmp_path / "small.csv").exists()
