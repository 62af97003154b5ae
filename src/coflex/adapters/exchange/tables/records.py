"""CSV tables of frozen dataclasses: a column a field, a row a record, every fault with its line and column.

Cells: text as it is (the first column, which names the row, is never empty), whole numbers, numbers with a
point, true or false, ISO dates, ISO instants with their offset, the values of an enumeration, lists joined by
semicolons, and an empty cell for None. Bytes written depend on the records alone; UTF-8, line feeds.
"""

from __future__ import annotations

import csv
import io
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from coflex.domain.errors import CoflexError, Finding

R = TypeVar("R")

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"[+-]?(s?nan|inf|infinity)", re.IGNORECASE)


class BadCell(Exception):
    """A cell that is no value of its column's kind. `code` for machines, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Codec:
    """The two ways of one kind of cell. `read` raises BadCell, `write` CoflexError."""

    read: Callable[[str], Any]
    write: Callable[[Any], str]


def read_records(path: Path, kind: type[R]) -> tuple[tuple[R, ...], tuple[Finding, ...]]:
    """The records of a CSV file in its order, and every fault with its line and column.

    A row with a fault is left out of the records. Columns may stand in any order. Never raises for what stands
    in the file, nor for a file that is not there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return (), (Finding(path.name, "missing_file", "There is no such file; add it, with its header at least."),)
    except UnicodeDecodeError:
        return (), (Finding(path.name, "not_utf8", "The file is not UTF-8; save it in that encoding."),)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    codecs = codecs_of(kind)
    findings: list[Finding] = []
    records: list[R] = []
    try:
        header = next(reader, [])
        faults = _check_header(path.name, header, codecs, set(_defaults(kind)))
        if faults:
            return (), faults
        for cells in reader:
            if cells:
                values = _read_row(f"{path.name}, line {reader.line_num}", header, cells, codecs, findings)
                records.extend(() if values is None else (kind(**values),))
    except csv.Error as error:
        place = f"{path.name}, line {reader.line_num}"
        findings.append(Finding(place, "not_csv", f"The line is no CSV ({error}); check its quotes."))
    return tuple(records), tuple(findings)


def write_records(path: Path, kind: type[R], records: Iterable[R]) -> None:
    """Write records in the order given, one a row, fields as columns. A column of nothing but its default is left out.

    Numbers are written so that reading gives the same bits. Raises CoflexError on a value that no cell can
    hold: a number that is not finite, text with a line break, a list item with a semicolon.
    """
    records = tuple(records)
    idle = {
        name for name, value in _defaults(kind).items() if all(getattr(record, name) == value for record in records)
    }
    codecs = {name: codec for name, codec in codecs_of(kind).items() if name not in idle}
    rows = [[codec.write(getattr(record, name)) for name, codec in codecs.items()] for record in records]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(codecs)
        writer.writerows(rows)


def codecs_of(kind: type[Any]) -> dict[str, Codec]:
    """Field names of a dataclass in their order, each with the codec of its type. The first is never empty."""
    hints = get_type_hints(kind)
    codecs = {field.name: codec_of(hints[field.name]) for field in fields(kind)}
    key = next(iter(codecs))
    codecs[key] = _required(codecs[key])
    return codecs


def codec_of(hint: Any) -> Codec:
    """The codec of a type. Raises CoflexError on a type that cells do not carry."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and len(arguments) == 2 and types.NoneType in arguments:
        return _optional(codec_of(next(argument for argument in arguments if argument is not types.NoneType)))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _listed(codec_of(arguments[0]))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enumerated(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    raise CoflexError(f"A table has no cell for the type {hint}.", "Use text, numbers, dates, choices or lists.")


def _defaults(kind: type[Any]) -> dict[str, Any]:
    """Fields that need no column, with the value that stands for them."""
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}


def _check_header(
    file: str, header: Sequence[str], expected: Mapping[str, Codec], optional: set[str]
) -> tuple[Finding, ...]:
    place = f"{file}, line 1"
    if not header:
        return (Finding(place, "no_header", f"The file has no header; write {','.join(expected)}."),)
    missing = [name for name in expected if name not in header and name not in optional]
    unknown = sorted(set(header) - set(expected))
    repeated = sorted({name for name in header if header.count(name) > 1})
    return (
        *(Finding(f"{place}, column {n}", "missing_column", f"The column '{n}' is missing; add it.") for n in missing),
        *(Finding(f"{place}, column {n}", "unknown_column", f"'{n}' is no column here; remove it.") for n in unknown),
        *(Finding(f"{place}, column {n}", "repeated_column", f"'{n}' stands twice; remove one.") for n in repeated),
    )


def _read_row(
    place: str, header: Sequence[str], cells: Sequence[str], codecs: Mapping[str, Codec], findings: list[Finding]
) -> dict[str, Any] | None:
    """The values of a row by field, or None after its faults have been added to the findings."""
    if len(cells) != len(header):
        message = f"The line has {len(cells)} cells, the header {len(header)}; add or remove cells."
        findings.append(Finding(place, "wrong_cell_count", message))
        return None
    values = {}
    for name, cell in zip(header, cells, strict=True):
        try:
            values[name] = codecs[name].read(cell)
        except BadCell as fault:
            findings.append(Finding(f"{place}, column {name}", fault.code, fault.message))
    return values if len(values) == len(header) else None


def _required(codec: Codec) -> Codec:
    def read(cell: str) -> Any:
        if not cell.strip():
            raise BadCell("empty_cell", "The cell names the row and must not be empty; fill it.")
        return codec.read(cell)

    def write(value: Any) -> str:
        cell = codec.write(value)
        if not cell.strip():
            raise CoflexError("A record has no name in its first field.", "Name it; it is how rows are found.")
        return cell

    return Codec(read, write)


def _optional(codec: Codec) -> Codec:
    return Codec(
        lambda cell: codec.read(cell) if cell else None, lambda value: "" if value is None else codec.write(value)
    )


def _listed(item: Codec) -> Codec:
    def read(cell: str) -> tuple[Any, ...]:
        parts = cell.split(";") if cell else []
        if "" in parts:
            raise BadCell("empty_item", f"The list '{cell}' has an empty item; remove the semicolon.")
        return tuple(item.read(part) for part in parts)

    def write(values: Sequence[Any]) -> str:
        cells = [item.write(value) for value in values]
        for cell in cells:
            if not cell or ";" in cell:
                raise CoflexError(f"The list item '{cell}' cannot stand in a cell.", "Use items without semicolons.")
        return ";".join(cells)

    return Codec(read, write)


def _enumerated(kind: type[StrEnum]) -> Codec:
    def read(cell: str) -> StrEnum:
        try:
            return kind(cell)
        except ValueError:
            message = f"'{cell}' is not known; write one of {', '.join(kind)}."
            raise BadCell("unknown_value" if cell else "empty_cell", message) from None

    return Codec(read, str)


def _read_text(cell: str) -> str:
    if "\r" in cell or "\n" in cell:
        raise BadCell("line_break", "The text has a line break; write it on one line.")
    return cell


def _write_text(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise CoflexError(f"The text {value!r} has a line break.", "Write it on one line.")
    return value


def _read_whole(cell: str) -> int:
    if not _WHOLE.fullmatch(cell):
        raise _not_number(cell, "a whole number")
    return int(cell)


def _read_decimal(cell: str) -> Decimal:
    if not _NUMBER.fullmatch(cell):
        raise _not_number(cell, "a number with a point, such as 12.5")
    try:
        return Decimal(cell)
    except InvalidOperation:
        raise _not_number(cell, "a number of usual size") from None


def _read_float(cell: str) -> float:
    if not _NUMBER.fullmatch(cell):
        raise _not_number(cell, "a number with a point, such as 12.5")
    value = float(cell)
    if not math.isfinite(value):
        raise BadCell("not_finite", f"'{cell}' is too large; write a finite number.")
    return value


def _not_number(cell: str, wanted: str) -> BadCell:
    if not cell:
        return BadCell("empty_cell", f"The cell is empty; write {wanted}.")
    if _NOT_A_NUMBER.fullmatch(cell):
        return BadCell("not_finite", f"'{cell}' is not finite; write {wanted}.")
    return BadCell("not_a_number", f"'{cell}' is not {wanted}; write one.")


def _write_number(value: float | Decimal) -> str:
    if not math.isfinite(value):
        raise CoflexError(f"The number {value} is not finite.", "Tables hold finite numbers only.")
    return str(value) if isinstance(value, Decimal) else repr(float(value))


def _read_bool(cell: str) -> bool:
    try:
        return {"true": True, "false": False}[cell.lower()]
    except KeyError:
        message = f"'{cell}' is neither true nor false; write one of them."
        raise BadCell("unknown_value" if cell else "empty_cell", message) from None


def _read_date(cell: str) -> date:
    try:
        return date.fromisoformat(cell)
    except ValueError:
        raise BadCell("not_a_date" if cell else "empty_cell", f"'{cell}' is no date; write it as 2016-10-30.") from None


def _read_instant(cell: str) -> datetime:
    message = f"'{cell}' is no instant; write it with its offset, as 2016-10-30T02:15+01:00."
    try:
        value = datetime.fromisoformat(cell)
    except ValueError:
        raise BadCell("not_an_instant" if cell else "empty_cell", message) from None
    if value.tzinfo is None:
        raise BadCell("no_offset", message)
    return value.astimezone(UTC)


def _write_instant(value: datetime) -> str:
    if value.tzinfo is None:
        raise CoflexError(f"The instant {value} has no time zone.", "Give one; UTC is kept inside.")
    return value.astimezone(UTC).isoformat()


_PLAIN: Mapping[Any, Codec] = {
    str: Codec(_read_text, _write_text),
    int: Codec(_read_whole, lambda value: str(int(value))),
    float: Codec(_read_float, _write_number),
    bool: Codec(_read_bool, lambda value: "true" if value else "false"),
    Decimal: Codec(_read_decimal, _write_number),
    date: Codec(_read_date, lambda value: value.isoformat()),
    datetime: Codec(_read_instant, _write_instant),
}
