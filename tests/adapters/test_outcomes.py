"""The outcome folder is whole, the same to the byte, or untouched; offers from a table come in whole or not at all."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.adapters.exchange.tables.outcomes import OfferLine, OutcomeFolder, read_offers
from coflex.adapters.exchange.tables.records import read_records, write_records
from coflex.domain.errors import CoflexError, Refused
from coflex.domain.offer import OfferStep
from coflex.domain.quantity import Direction
from coflex.domain.time import QUARTER
from coflex.process.ports import Table

START = datetime(2016, 7, 5, 10, tzinfo=UTC)
HEADER = (
    "offer,provider,product,direction,unit,group,step,start,end,quantity_kw,price_eur_mwh,min_quantity_kw,block,"
    "max_periods,energy_limit_kwh,exclusive,local_only,received_at"
)


@dataclass(frozen=True)
class Row:
    id: str
    kw: int


def page(report: dict[str, Any]) -> str:
    return f"<p>{report['title']}</p>\n"


TABLES = {"rows": Table(Row, (Row("a", 1), Row("b", 2))), "none": Table(Row, ())}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.spec("XCH-04")
def test_a_folder_holds_tables_documents_and_the_page(tmp_path: Path) -> None:
    made = OutcomeFolder(tmp_path / "out", page).publish(TABLES, {"kpis": {"b": 1, "a": [0.5]}}, {"title": "Día"}, {})
    assert made == tmp_path / "out" / "report.html"
    assert contents(tmp_path / "out") == {
        "rows.csv": b"id,kw\na,1\nb,2\n",
        "none.csv": b"id,kw\n",
        "kpis.json": b'{\n "a": [\n  0.5\n ],\n "b": 1\n}\n',
        "report.json": '{\n "title": "Día"\n}\n'.encode(),
        "report.html": "<p>Día</p>\n".encode(),
    }
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == {"title": "Día"}


def test_publishing_again_replaces_the_files_and_leaves_others_alone(tmp_path: Path) -> None:
    (tmp_path / "coflex.db").write_bytes(b"store")
    folder = OutcomeFolder(tmp_path, page)
    folder.publish(TABLES, {}, {"title": "old"}, {})
    folder.publish({"rows": Table(Row, (Row("c", 3),))}, {}, {"title": "new"}, {})
    found = contents(tmp_path)
    assert (found["rows.csv"], found["report.html"], found["coflex.db"]) == (b"id,kw\nc,3\n", b"<p>new</p>\n", b"store")
    assert not [name for name in found if name.startswith(".")]


def test_what_cannot_be_written_leaves_every_file_as_it_was(tmp_path: Path) -> None:
    folder = OutcomeFolder(tmp_path, page)
    folder.publish(TABLES, {"kpis": {"a": 1}}, {"title": "old"}, {})
    before = contents(tmp_path)
    changed = {"rows": Table(Row, (Row("z", 9),))}
    with pytest.raises(CoflexError, match="'kpis' is no JSON"):
        folder.publish(changed, {"kpis": {"a": float("nan")}}, {"title": "new"}, {})
    with pytest.raises(KeyError):
        folder.publish(changed, {}, {"no title": "the page cannot be drawn"}, {})
    with pytest.raises(CoflexError):
        folder.publish({"rows": Table(Row, (Row("", 9),))}, {}, {"title": "new"}, {})
    assert contents(tmp_path) == before


# ---------------------------------------------------------------- offers


def row(**cells: str) -> str:
    usual = {
        "offer": "o1",
        "provider": "sp-1",
        "product": "local-energy",
        "direction": "up",
        "unit": "cu-1",
        "group": "",
        "step": "1",
        "start": "2016-07-05T12:00+02:00",
        "end": "2016-07-05T13:00+02:00",
        "quantity_kw": "100",
        "price_eur_mwh": "45.50",
        "min_quantity_kw": "0",
        "block": "false",
        "max_periods": "",
        "energy_limit_kwh": "",
        "exclusive": "",
        "local_only": "false",
        "received_at": "2016-07-05T09:00+02:00",
    }
    return ",".join((usual | cells)[name] for name in HEADER.split(","))


def table(folder: Path, *rows: str) -> Path:
    path = folder / "offers.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


def faults(path: Path) -> set[tuple[str, str]]:
    with pytest.raises(Refused) as refused:
        read_offers(path, "local-1")
    return {(finding.place, finding.code) for finding in refused.value.findings}


@pytest.mark.spec("XCH-04")
def test_spans_become_steps_and_offers_are_ranked_by_receipt(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        row(block="true", max_periods="8", energy_limit_kwh="90", exclusive="x", min_quantity_kw="5"),
        row(offer="o0", unit="", group="lg-1", received_at="2016-07-05T08:59:59+02:00", local_only="true"),
        row(
            step="2",
            price_eur_mwh="60",
            block="true",
            max_periods="8",
            energy_limit_kwh="90",
            exclusive="x",
            min_quantity_kw="5",
        ),
        row(
            start="2016-07-05T13:00+02:00",
            end="2016-07-05T13:30+02:00",
            quantity_kw="70",
            block="true",
            max_periods="8",
            energy_limit_kwh="90",
            exclusive="x",
            min_quantity_kw="5",
        ),
    )
    first, second = read_offers(path, "local-1")
    assert (first.id, first.receipt, first.group, first.unit, first.local_only) == ("o0", 1, "lg-1", None, True)
    assert (second.id, second.receipt, second.session, second.direction) == ("o1", 2, "local-1", Direction.UP)
    assert (second.block, second.max_periods, second.energy_limit_kwh, second.exclusive) == (True, 8, 90, "x")
    assert second.received_at == datetime(2016, 7, 5, 7, tzinfo=UTC)
    assert second.steps == (
        OfferStep(1, START, Decimal("45.50"), (100, 100, 100, 100, 70, 70)),
        OfferStep(2, START, Decimal(60), (100, 100, 100, 100)),
    )


@pytest.mark.spec("XCH-04")
def test_every_fault_of_a_file_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        row(),
        row(offer="o2", quantity_kw="many", price_eur_mwh=""),
        "",
        row(offer="o3", end="2016-07-05T12:00+02:00"),
        row(provider="sp-2", direction="down", start="2016-07-05T13:00+02:00", end="2016-07-05T14:00+02:00"),
        row(start="2016-07-05T12:45+02:00", end="2016-07-05T13:00+02:00"),
        row(offer="o4", unit="", start="2016-07-05T12:05+02:00", step="0", quantity_kw="-5"),
        row(offer="o5", start="2016-07-05T12:00"),
        row(offer="o6", group="lg-1"),
    )
    assert faults(path) == {
        ("offers.csv, line 3, column quantity_kw", "not_a_number"),
        ("offers.csv, line 3, column price_eur_mwh", "empty_cell"),
        ("offers.csv, line 5, column end", "ends_before_start"),
        ("offers.csv, line 6, column provider", "lines_disagree"),
        ("offers.csv, line 6, column direction", "lines_disagree"),
        ("offers.csv, line 7, column start", "spans_overlap"),
        ("offers.csv, line 8, column unit", "unit_or_group"),
        ("offers.csv, line 8, column start", "off_quarter_hour"),
        ("offers.csv, line 8, column step", "step_number"),
        ("offers.csv, line 8, column quantity_kw", "negative"),
        ("offers.csv, line 9, column start", "no_offset"),
        ("offers.csv, line 10, column unit", "unit_or_group"),
    }


def test_a_span_inside_an_earlier_longer_one_overlaps_it(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        row(end="2016-07-05T16:00+02:00"),
        row(start="2016-07-05T12:15+02:00", end="2016-07-05T12:30+02:00"),
        row(start="2016-07-05T14:00+02:00", end="2016-07-05T14:15+02:00"),
    )
    assert faults(path) == {
        ("offers.csv, line 3, column start", "spans_overlap"),
        ("offers.csv, line 4, column start", "spans_overlap"),
    }


def test_columns_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    path = tmp_path / "offers.csv"
    path.write_text(HEADER.replace("provider,", "supplier,") + "\n" + row() + "\n", encoding="utf-8")
    assert faults(path) == {
        ("offers.csv, line 1, column provider", "missing_column"),
        ("offers.csv, line 1, column supplier", "unknown_column"),
    }


def test_a_file_that_is_not_there_or_breaks_off_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path / "no.csv") == {("no.csv", "missing_file")}
    path = table(tmp_path, row(), '"o2,never closed')
    assert ("offers.csv, line 3", "not_csv") in faults(path)
    path.write_text("", encoding="utf-8")
    assert faults(path) == {("offers.csv, line 1", "no_header")}


def test_a_table_without_lines_has_no_offers(tmp_path: Path) -> None:
    assert read_offers(table(tmp_path), "local-1") == ()


SPANS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 50)), min_size=1, max_size=6)


@given(st.dictionaries(st.integers(1, 3), SPANS, min_size=1), st.randoms(use_true_random=False))
def test_quantities_do_not_depend_on_the_order_of_the_lines(
    steps: dict[int, list[tuple[int, int, int]]], shuffle: Any
) -> None:
    wanted: dict[tuple[int, datetime], int] = {}
    lines = []
    for number, spans in steps.items():
        start = START
        for gap, length, kw in spans:
            start += gap * QUARTER
            end = start + length * QUARTER
            lines.append(line(number, start, end, kw))
            wanted |= {(number, start + i * QUARTER): kw for i in range(length)}
            start = end
    shuffle.shuffle(lines)
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "offers.csv"
        write_records(path, OfferLine, lines)
        assert read_records(path, OfferLine) == (tuple(lines), ())
        (offer,) = read_offers(path, "local-1")
    found = {
        (step.number, step.start + i * QUARTER): kw for step in offer.steps for i, kw in enumerate(step.quantity_kw)
    }
    assert found == wanted
    ends = [(step.number, step.start + len(step.quantity_kw) * QUARTER) for step in offer.steps]
    assert not set(ends) & {(step.number, step.start) for step in offer.steps}


def line(step: int, start: datetime, end: datetime, kw: int) -> OfferLine:
    price = Decimal(10 * step)
    received = START - timedelta(hours=3)
    return OfferLine(
        "o1",
        "sp",
        "p",
        Direction.UP,
        "cu",
        None,
        step,
        start,
        end,
        kw,
        price,
        0,
        False,
        None,
        None,
        None,
        False,
        received,
    )
