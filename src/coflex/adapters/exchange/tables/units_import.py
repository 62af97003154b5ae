"""Many units from a table: CSV (UTF-8, comma or semicolon) or an Excel workbook, every fault with its line and column.

A column has the name of a field of `UnitRow`, in any order; one that a unit can do without may be missing, and an empty
cell of it is the field's default. Numbers have a point or a comma before the decimals and nothing between thousands; a
list of impacted operators is joined by |. Formulas are not computed but refused, as is what Excel took for a date.
Places are told as "units.csv, line 7, column up_kw", in workbooks too.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from difflib import get_close_matches
from typing import Any, get_type_hints

import msgspec

from coflex.adapters.exchange.tables.records import BadCell, codec_of
from coflex.domain.errors import Finding, refuse
from coflex.service.verbs.units_import import MOST_ROWS, UnitRow

MOST_BYTES = 20_000_000
# A workbook is a compressed archive; what it may unfold to, and how many columns a table may have.
MOST_UNFOLDED, MOST_COLUMNS = 100_000_000, 200
# Lines and cells, also empty ones: each costs the reader some microseconds, and a small file can claim millions.
MOST_LINES, MOST_CELLS = 2 * MOST_ROWS + 1_000, 60 * MOST_ROWS
LIST_SIGN = "|"
SHEET = "units"
Cells = tuple[int, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class _Column:
    """A field as a column: how its cell is read, and whether it may be missing or empty."""

    read: Callable[[str], Any]
    optional: bool


def read_units(name: str, data: bytes) -> tuple[UnitRow, ...]:
    """The units of a table, by the ending of its name: .csv or .xlsx; each row with its place.

    Raises Refused with every fault; nothing of the table is taken then.
    """
    findings: list[Finding] = []
    rows: list[UnitRow] = []
    if len(data) > MOST_BYTES:
        message = f"The file has more than {MOST_BYTES // 1_000_000} MB; split it."
        refuse("The table of units", [Finding(name, "too_large", message)])
    if name.lower().endswith(".csv"):
        lines = _csv_lines(name, data, findings)
    elif name.lower().endswith(".xlsx"):
        lines = _workbook_lines(name, data, findings)
    else:
        lines = iter(())
        findings.append(Finding(name, "unknown_format", "It is neither .csv nor .xlsx; save it as one of them."))
    _read(name, lines, rows, findings)
    refuse("The table of units", findings)
    return tuple(rows)


def template_csv() -> bytes:
    """A table without a unit: the header alone, with semicolons, as spreadsheet programs of most of Europe save it."""
    return (";".join(COLUMNS) + "\r\n").encode()


def template_workbook() -> bytes:
    """The same as a workbook; its second sheet says which columns are needed and what stands in them."""
    from openpyxl import Workbook  # type: ignore[import-untyped]  # a server starts without

    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = SHEET
    sheet.append(list(COLUMNS))
    sheet.freeze_panes = "A2"
    words = book.create_sheet("columns")
    words.append(["column", "needed", "what stands in it"])
    for name, column in COLUMNS.items():
        words.append([name, "no" if column.optional else "yes", _kind_of(name)])
    contents = io.BytesIO()
    book.save(contents)
    return contents.getvalue()


# ---------------------------------------------------------------- from a file to cells


def _csv_lines(name: str, data: bytes, findings: list[Finding]) -> Iterator[Cells]:
    """Number and cells of each line that is not empty. The delimiter is what the header has more of."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        place = f"{name}, line {line}"
        findings.append(Finding(place, "not_utf8", "The line is not UTF-8; save the file in that encoding."))
        return
    if data.count(b"\n") > MOST_LINES:
        findings.append(_too_long(name))
        return
    header = text.partition("\n")[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    before = 0
    try:
        for cells in reader:
            first, before = before + 1, reader.line_num
            if any(cell.strip() for cell in cells):
                yield first, cells
    except csv.Error as fault:
        place = f"{name}, line {reader.line_num}"
        findings.append(Finding(place, "not_csv", f"The line is no CSV ({fault}); check its quotes."))


def _too_long(name: str) -> Finding:
    return Finding(name, "too_long", f"It has more than {MOST_LINES} lines, empty ones included; send it in parts.")


def _crowded(archive: zipfile.ZipFile) -> bool:
    """Whether a sheet has more rows or cells than a table of units can."""
    sheets = (archive.read(part) for part in archive.infolist() if part.filename.startswith("xl/worksheets/"))
    return any(sheet.count(b"<row") > MOST_LINES or sheet.count(b"<c") > MOST_CELLS for sheet in sheets)


def _workbook_lines(name: str, data: bytes, findings: list[Finding]) -> Iterator[Cells]:
    """Number and cells of each row of the sheet "units", or of the first, that is not empty."""
    from openpyxl import load_workbook  # a server starts without

    message = "It is no workbook that can be read; save it anew as .xlsx, or as CSV."
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(part.file_size for part in archive.infolist()) > MOST_UNFOLDED or _crowded(archive):
                findings.append(Finding(name, "too_large", "The workbook unfolds to too much; leave only the table."))
                return
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=False, keep_links=False)
        try:
            sheet = book[SHEET] if SHEET in book.sheetnames else book.worksheets[0]
            sheet.reset_dimensions()  # what a workbook says of its size need not be so
            for number, cells in enumerate(sheet.iter_rows(values_only=True, max_col=MOST_COLUMNS), start=1):
                if number > MOST_LINES:
                    findings.append(_too_long(name))
                    return
                if any(cell is not None and str(cell).strip() for cell in cells):
                    yield number, cells
        finally:
            book.close()
    except Exception:  # the reader has no error of its own: a broken workbook shows as any of Python's
        findings.append(Finding(name, "not_a_workbook", message))


# ---------------------------------------------------------------- from cells to units


def _read(name: str, lines: Iterator[Cells], rows: list[UnitRow], findings: list[Finding]) -> None:
    """Fill in the rows, or the findings."""
    top = next(lines, None)
    if top is None:
        if not findings:
            findings.append(Finding(name, "no_header", "The table is empty; begin with the template."))
        return
    number, header = top[0], _header(top[1])
    faults = list(_header_faults(f"{name}, line {number}", header))
    findings += faults
    ids: dict[str, int] = {}
    count = 0
    for number, cells in () if faults else lines:
        count += 1
        if count > MOST_ROWS:
            message = f"There are more than {MOST_ROWS} units; split the table."
            findings.append(Finding(f"{name}, line {number}", "row_count", message))
            break
        row = _row(f"{name}, line {number}", header, cells, findings)
        if row is not None:
            first = ids.setdefault(row.id, number)
            if first != number:
                message = f"The unit '{row.id}' stands in line {first} too; leave one of them."
                findings.append(Finding(f"{name}, line {number}, column id", "id_repeated", message))
            rows.append(row)
    if not count and not findings:
        findings.append(Finding(name, "row_count", "The table has no unit; add one below the header."))


def _header(cells: Sequence[Any]) -> list[str]:
    """Names of the columns; empty ones behind the last are none."""
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    return names


def _header_faults(place: str, header: Sequence[str]) -> Iterator[Finding]:
    for name, column in COLUMNS.items():
        if name not in header and not column.optional:
            yield Finding(f"{place}, column {name}", "missing_column", f"The column '{name}' is missing; add it.")
    for number, name in enumerate(header, start=1):
        if not name:
            yield Finding(f"{place}, column {number}", "unnamed_column", "The column has no name; name or remove it.")
        elif name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, n=1)
            advice = f"perhaps it is '{near[0]}'" if near else "remove it"
            yield Finding(f"{place}, column {name}", "unknown_column", f"'{name}' is no column here; {advice}.")
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        yield Finding(f"{place}, column {name}", "repeated_column", f"'{name}' stands twice; remove one.")


def _row(place: str, header: Sequence[str], cells: Sequence[Any], findings: list[Finding]) -> UnitRow | None:
    """The unit of a row, or None after its faults have been added to the findings."""
    beyond = [cell for cell in cells[len(header) :] if cell is not None and str(cell).strip()]
    if beyond or len(cells) < len(header):
        there = len(header) + len(beyond) if beyond else len(cells)
        message = f"The line has {there} cells, the header {len(header)}; add or remove cells."
        findings.append(Finding(place, "wrong_cell_count", message))
        return None
    values: dict[str, Any] = {}
    sound = True
    for name, cell in zip(header, cells, strict=False):
        column = COLUMNS[name]
        try:
            text = _text(cell)
            if text or not column.optional:
                values[name] = column.read(text)
        except BadCell as fault:
            sound = False
            findings.append(Finding(f"{place}, column {name}", fault.code, fault.message))
    return UnitRow(**values, place=place) if sound else None


def _text(cell: Any) -> str:
    """A cell as text, a number of a workbook as one would type it. Raises BadCell on what is no value."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        raise BadCell("not_a_value", "The cell is true or false; write a text or a number.")
    if isinstance(cell, (datetime, date, time, timedelta)):
        raise BadCell("date", f"The cell is a date ({cell}); format it as text and write it anew.")
    if isinstance(cell, float):
        if not math.isfinite(cell):
            raise BadCell("not_finite", f"'{cell}' is not finite; write a number.")
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    text = str(cell).strip()
    if text.startswith(("=", "@")):
        raise BadCell("formula", "The cell is a formula; write its value.")
    if text.startswith("#") and text.endswith(("!", "?", "A")):
        raise BadCell("formula", f"The cell is the error {text} of a formula; write a value.")
    return text


# ---------------------------------------------------------------- the columns


def _columns() -> Mapping[str, _Column]:
    """Every field of a row but its place, in order."""
    hints = get_type_hints(UnitRow)
    found = {}
    for one in msgspec.structs.fields(UnitRow):
        if one.name != "place":
            optional = one.default is not msgspec.NODEFAULT or one.default_factory is not msgspec.NODEFAULT
            found[one.name] = _Column(_reader(hints[one.name]), optional)
    return found


def _reader(hint: Any) -> Callable[[str], Any]:
    """How a cell of a type is read: as in every table of ours, but with a decimal comma and | in lists."""
    plain = codec_of(hint).read
    if hint in (float, float | None):
        return lambda text: plain(_point_for_comma(text))
    if hint == tuple[str, ...]:
        return _names
    if hint is str:
        return _needed(plain)
    return plain


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(LIST_SIGN)) if text else ()
    if "" in names:
        raise BadCell("empty_item", f"The list '{text}' has an empty item; remove the sign {LIST_SIGN}.")
    return names


def _needed(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def of(text: str) -> Any:
        if not text:
            raise BadCell("empty_cell", "The cell is empty; fill it.")
        return read(text)

    return of


def _point_for_comma(text: str) -> str:
    """12,5 is 12.5; where points or several commas stand too, nobody knows which separates what."""
    if "," not in text:
        return text
    if "." in text or text.count(",") > 1:
        raise BadCell("not_a_number", f"'{text}' has signs between thousands; write it without them.")
    return text.replace(",", ".")


def _kind_of(name: str) -> str:
    """What stands in a column, in a few words."""
    hint = get_type_hints(UnitRow)[name]
    whole = next((part for part in _parts(hint) if isinstance(part, type) and part is not type(None)), str)
    if issubclass(whole, str) and whole is not str:
        return "one of " + ", ".join(str(member) for member in whole)  # type: ignore[attr-defined]
    if hint == tuple[str, ...]:
        return f"names joined by {LIST_SIGN}"
    return {int: "a whole number", float: "a number"}.get(whole, "text")


def _parts(hint: Any) -> Iterable[Any]:
    return getattr(hint, "__args__", (hint,))


COLUMNS: Mapping[str, _Column] = _columns()
