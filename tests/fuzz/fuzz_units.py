"""Tables of units: the same cells as CSV and as a workbook give the same units or the same faults; nothing is lost."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

import msgspec

from coflex.adapters.exchange.tables.units_import import COLUMNS, read_units
from coflex.adapters.web.api.problems import answer
from coflex.domain.errors import Refused
from coflex.service.verbs.units_import import UnitRow

_SPACE = "http://schemas.openxmlformats.org/"
_MAIN, _PACKAGE = f"{_SPACE}spreadsheetml/2006/main", f"{_SPACE}package/2006"
_OFFICE, _RELATED = f"{_SPACE}officeDocument/2006/relationships", f"{_PACKAGE}/relationships"
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"><Override PartName="/xl/workbook.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_RELATED}"><Relationship Id="a" Type="{_OFFICE}/officeDocument"'
    ' Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets><sheet name="units" sheetId="1" r:id="b"'
    "/></sheets></workbook>",
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_RELATED}"><Relationship Id="b" Type="{_OFFICE}'
    '/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}
MOST_CELLS = 100
Cells = list[list[str]]


# ---------------------------------------------------------------- the same cells in two formats


def cells_of(text: str, with_header: bool) -> Cells:
    """Lines with semicolons between cells, made as wide as the header; no sign that XML cannot hold."""
    # _x0041_ is an escape in workbooks.
    plain = "".join(sign for sign in text if _in_xml(ord(sign))).replace("_x", "x")
    rows = [line.split(";")[:MOST_CELLS] for line in plain.split("\n")]
    if with_header:
        rows.insert(0, list(COLUMNS))
    width = max([len(COLUMNS), *(len(row) for row in rows)])
    rows[0] = [cell.replace(",", "") for cell in rows[0]]
    return [row + [""] * (width - len(row)) for row in rows]


def _in_xml(sign: int) -> bool:
    """Whether XML and both formats hold a sign in a cell, or it ends a line."""
    return sign == 10 or 32 <= sign < 0xD800 or 0xE000 <= sign < 0xFEFF or sign > 0xFFFF


def as_csv(rows: Cells, delimiter: str = ";") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def as_workbook(rows: Sequence[Sequence[str]], dimension: str = "") -> bytes:
    """A workbook with these texts. `dimension`: what it says of its size, right or wrong."""
    return workbook(sheet(rows, dimension))


def sheet(rows: Sequence[Sequence[str]], dimension: str = "") -> str:
    lines = []
    for number, row in enumerate(rows, start=1):
        texts = (f'<c t="inlineStr"><is><t xml:space="preserve">{escape(cell)}</t></is></c>' for cell in row)
        lines.append(f'<row r="{number}">{"".join(texts)}</row>')
    said = f'<dimension ref="{dimension}"/>' if dimension else ""
    return f'<worksheet xmlns="{_MAIN}">{said}<sheetData>{"".join(lines)}</sheetData></worksheet>'


def workbook(sheet: str) -> bytes:
    """The smallest workbook that a reader opens, around a sheet."""
    contents = io.BytesIO()
    with zipfile.ZipFile(contents, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in (*_PARTS.items(), ("xl/worksheets/sheet1.xml", sheet)):
            archive.writestr(name, part)
    return contents.getvalue()


# ---------------------------------------------------------------- what must hold


def outcome(name: str, data: bytes) -> Any:
    """The units without their places, or the findings without the file's name."""
    try:
        rows = read_units(name, data)
    except Refused as fault:
        assert fault.findings and all(one.place.startswith(name) and one.message for one in fault.findings)
        assert answer(fault).status_code == 422
        return [(one.place.removeprefix(name), one.code, one.message) for one in fault.findings]
    return [msgspec.structs.replace(row, place="") for row in rows]


def check(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    if kind == b"x":
        outcome("units.xlsx", rest)
    elif kind == b"c":
        taken = outcome("units.csv", rest)
        if isinstance(taken[0], UnitRow):
            again = as_csv([list(COLUMNS), *(written(row) for row in taken)], ",")
            assert outcome("units.csv", again) == taken, "what was read and is written again reads otherwise"
    else:
        rows = cells_of(rest.decode(errors="ignore"), kind == b"h")
        if not any(cell.strip() for row in rows for cell in row):
            return
        dimension = {b"d": "A1:B2", b"e": "A1"}.get(kind, "")
        told, booked = outcome("units.csv", as_csv(rows)), outcome("units.xlsx", as_workbook(rows, dimension))
        assert told == booked, f"as CSV {told}, as a workbook {booked}"
        if isinstance(told[0], UnitRow):
            header, *units = [row for row in rows if any(cell.strip() for cell in row)]
            place = [name.strip() for name in header].index("id")
            assert [row.id for row in told] == [row[place].strip() for row in units], "a line is lost"


def written(row: UnitRow) -> list[str]:
    """The cells of a unit."""
    cells = []
    for name in COLUMNS:
        value = getattr(row, name)
        cells.append("|".join(value) if isinstance(value, tuple) else "" if value is None else str(value))
    return cells


_UNIT = (
    "u1;storage;battery;p1;own-1;brp-1;100;80;60;120;300;60;1;100;900;7200;0;;;0.3;;500;B1;distribution;20.5;dso;44.4;"
    "7.5;;tso|dso-2"
)
_HEADER = ";".join(COLUMNS)
SEEDS = (
    f"c{_HEADER}\n{_UNIT}\n".encode(),
    f"c\ufeff{_HEADER}\r\n\r\n{_UNIT.replace('.', ',')}\r\n".encode(),
    f'c{_HEADER.replace(";", ",")}\n"{_UNIT.replace(";", chr(34) + "," + chr(34))}"\n'.encode(),
    b'cid,category\n"a\nb,1\n',
    b"c\xff\xfe",
    f"h{_UNIT}\n{_UNIT.replace('u1', 'u2').replace('20.5', '20,5')}".encode(),
    f"h{_UNIT}\n\n{_UNIT}".encode(),
    f"h{_UNIT.replace('100', '=A1')};beyond".encode(),
    f"h{_UNIT.replace('100', '1e3').replace('80', '#N/A').replace('60', '-0')}".encode(),
    f"n{_HEADER}\n{_UNIT}".encode(),
    b"nid;id;up_kW\n1;2;3",
    b"x" + as_workbook([["id"], ["u1"]]),
    b"xPK\x05\x06" + b"\0" * 18,
)

if __name__ == "__main__":
    from harness import run

    run(__file__)
