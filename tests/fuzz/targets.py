"""What is fuzzed: bytes in, and a failed assertion or an unforeseen exception where the platform breaks its word.

A target is told by what must hold, not by examples; where it can, a second reading (the standard library's) says what
the answer should have been. `tests/adapters/test_fuzzed.py` runs all of them on what was found before.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request

from coflex.adapters.exchange.tables.units_import import COLUMNS, read_units
from coflex.adapters.web.api.body import MOST_BYTES, MOST_LEVELS, MOST_NUMBER, read_body
from coflex.adapters.web.api.paging import Page, page_of
from coflex.adapters.web.api.problems import Malformed, TooLarge, problem
from coflex.domain.errors import Refused
from coflex.service.machine import decode, encode
from coflex.service.verbs.offers import SUBMIT

# ---------------------------------------------------------------- bodies


def body(data: bytes) -> None:
    """A body is the same bytes again, and JSON without a second meaning; or it is refused with its faults."""
    try:
        read = read_body(data)
    except TooLarge:
        assert len(data) > MOST_BYTES
        return
    except Malformed as fault:
        _told(fault)
        return
    assert read == data
    value = json.loads(data, object_pairs_hook=_once, parse_constant=_never, parse_int=_integer, parse_float=_decimal)
    assert _levels(value) <= MOST_LEVELS
    try:
        form = decode(data, SUBMIT.form)
    except Refused as fault:
        _told(fault)
        return
    assert decode(encode(form), SUBMIT.form) == form


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
    return dict(pairs)


def _never(text: str) -> Any:
    raise AssertionError(f"{text} is no JSON")


def _integer(text: str) -> int:
    assert len(text.lstrip("-")) <= 30
    assert abs(int(text)) <= MOST_NUMBER
    return int(text)


def _decimal(text: str) -> float:
    value = float(text)
    assert math.isfinite(value)
    assert abs(value) <= MOST_NUMBER
    return value


def _levels(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_levels(one) for one in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_levels(one) for one in value), default=0)
    return 0


# ---------------------------------------------------------------- tables of units


def table(data: bytes) -> None:
    """A CSV table gives units or findings, each with its place."""
    _units("units.csv", data)


def columns(data: bytes) -> None:
    """The same under a header that is right, so that cells are reached."""
    _units("units.csv", ";".join(COLUMNS).encode() + b"\n" + data)


def workbook(data: bytes) -> None:
    """A workbook gives units or findings: of any bytes, and of an archive with these bytes as its sheet."""
    _units("units.xlsx", data)
    _units("units.xlsx", _archive(data))


def _units(name: str, data: bytes) -> None:
    try:
        rows = read_units(name, data)
    except Refused as fault:
        _told(fault)
        assert all(finding.place.startswith(name) for finding in fault.findings)
        return
    for row in rows:
        encode(row)


def _archive(sheet: bytes) -> bytes:
    """The smallest workbook that a reader opens, around a sheet."""
    parts = {
        "[Content_Types].xml": b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        b'<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        b'spreadsheetml.sheet.main+xml"/></Types>',
        "_rels/.rels": b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        b'<Relationship Id="a" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
        b'officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": b'<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r='
        b'"http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="units" '
        b'sheetId="1" r:id="b"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": b'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
        b'relationships"><Relationship Id="b" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
        b'relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        b"<sheetData>" + sheet + b"</sheetData></worksheet>",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


# ---------------------------------------------------------------- cursors

_ROWS = [(f"unit-{number:03d}", number) for number in range(50)]


def cursor(data: bytes) -> None:
    """A query gives a page of the list or is refused. The server lets only ASCII come so far."""
    if not data.isascii():
        return
    try:
        page = page_of(_request(data), _ROWS)
    except Malformed as fault:
        _told(fault)
        return
    assert page.total == len(_ROWS)
    first = page.items[0] if page.items else len(_ROWS)
    assert page.items == list(range(first, first + len(page.items)))
    assert (page.next is None) == (first + len(page.items) >= len(_ROWS))


def _request(query: bytes) -> Request:
    return Request(
        {"type": "http", "method": "GET", "path": "/v1/north/units", "query_string": query, "headers": [],
         "server": ("here", 80), "scheme": "http", "root_path": ""}
    )  # fmt: skip


def followed(limit: int) -> list[int]:
    """The whole list, page by page."""
    found: list[int] = []
    query = b"limit=%d" % limit
    while True:
        page: Page = page_of(_request(query), _ROWS)
        found += page.items
        if page.next is None:
            return found
        query = b"limit=%d&cursor=%s" % (limit, page.next.encode())


def _told(fault: Refused) -> None:
    """A refusal has faults, each with a place and a sentence, and can be sent."""
    assert fault.findings
    for finding in fault.findings:
        assert finding.place and finding.code and finding.message.endswith(".")
    msgspec.json.encode(problem(fault))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "body": body,
    "table": table,
    "columns": columns,
    "workbook": workbook,
    "cursor": cursor,
}
SEEDS: dict[str, tuple[bytes, ...]] = {
    "body": (
        b'{"id":"a","product":"p","direction":"up","unit":"u","steps":[{"start":"2026-01-01T00:00:00Z",'
        b'"price_eur_mwh":"1.5","quantity_kw":[1,2]}]}',
        b'[{"a":1e3,"b":[null,true,"\\u00fc"]}]',
        b'{"a":1,"a":2}',
        b'{"n":123456789012345678901234567890123}',
    ),
    "table": (";".join(COLUMNS).encode() + b"\n", b"id,category\n1,load\n"),
    "columns": (b"cu-1;load;battery;pod-1;;sp;owner;brp;10;10\n", b'"a""b";1,5;2.5;01.02.2026\n'),
    "workbook": (
        b'<row r="1"><c r="A1" t="inlineStr"><is><t>id</t></is></c><c r="B1"><v>1.5</v></c></row>',
        b'<row r="2"><c r="A2"><f>1+1</f><v>2</v></c></row>',
    ),
    "cursor": (b"limit=10", b"limit=5&cursor=abc", b"cursor=%00%ff&limit=1e3"),
}
