"""Records as rows: every conversion between a frozen dataclass and plain column values, derived from its type hints.

Columns are converted whole, one prepared function a column, so that 30,000 records cost no look at their type.
The stored form of a field follows from its hint:

    str, int, float, bool     themselves (NaN, the float that is not there, is kept as NULL)
    Decimal                   its text, so that every digit comes back
    datetime                  whole seconds since 1970-01-01T00:00Z
    StrEnum                   its value
    tuple[X, ...]             canonical JSON of the stored forms; a dataclass in it is an object
    X | None                  NULL; inside a key, where databases know no NULL, the empty text

A value that its column cannot give back unchanged is refused with the record's type and field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from operator import attrgetter, index, itemgetter
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from coflex.domain.activation import Limitation, Replacement, SetPoint
from coflex.domain.clearing import Award, Holding, MeritLine, Uncovered
from coflex.domain.errors import CoflexError
from coflex.domain.light import DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.domain.offer import Offer
from coflex.domain.party import Party
from coflex.domain.product import Product
from coflex.domain.qualification import StaticLight
from coflex.domain.reading import Reading
from coflex.domain.statement import Posting, SettlementLine, Statement
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.process.ports import Event

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MISFITS = (TypeError, ValueError, KeyError, ArithmeticError)
MOST_VALUES = 30_000  # in one filter: below what SQLite and PostgreSQL bind to one statement

Form: TypeAlias = Literal["text", "integer", "real", "boolean", "bytes"]
Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Codec:
    """How one kind of value is kept. `filterable`: equal values have equal stored forms, so a filter may compare."""

    form: Form
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    nullable: bool = False
    filterable: bool = True


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces. Raises TypeError or ValueError on what JSON cannot carry exactly."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("it is no text")
    if not value.isascii():
        value.encode()  # a lone half of a surrogate pair has no bytes, in no database
    if "\0" in value:
        raise ValueError("PostgreSQL keeps no zero character")
    return str(value)


def _key_text(value: Any) -> str:
    if value == "":
        raise ValueError("in a key the empty text stands for None")
    return "" if value is None else _text(value)


def _integer(value: Any) -> int:
    number = index(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError("it needs more than 64 bits")
    return number


def _real(value: Any) -> float | None:
    number = float(value) + 0.0  # SQLite keeps no sign of zero
    return number if number == number else None


def _boolean(value: Any) -> bool:
    if value not in (False, True):
        raise TypeError("it is neither true nor false")
    return bool(value)


def _decimal(value: Any) -> str:
    if not isinstance(value, Decimal):
        raise TypeError("it is no Decimal")
    return str(value)


def _seconds(value: Any) -> int:
    since: timedelta = value - EPOCH
    if since.microseconds:
        raise ValueError("instants are kept in whole seconds")
    return since.days * 86_400 + since.seconds


SCALARS: dict[object, Codec] = {
    str: Codec("text", _text, _same),
    int: Codec("integer", _integer, _same),
    float: Codec("real", _real, lambda kept: float("nan") if kept is None else kept, nullable=True),
    bool: Codec("boolean", _boolean, bool),
    bytes: Codec("bytes", bytes, bytes, filterable=False),
    Decimal: Codec("text", _decimal, Decimal, filterable=False),
    datetime: Codec("integer", _seconds, lambda kept: EPOCH + timedelta(seconds=kept)),
}


def _optional(inner: Codec) -> Codec:
    """None beside the values of `inner`. Raises TypeError where NULL already means something: a float."""
    if inner.nullable:
        raise TypeError("An optional float would not tell None from NaN.")
    encode, decode = inner.encode, inner.decode
    return Codec(
        inner.form,
        lambda value: None if value is None else encode(value),
        lambda kept: None if kept is None else decode(kept),
        nullable=True,
        filterable=inner.filterable,
    )


def _plain(hint: Any) -> Codec:
    """The codec of a hint whose stored form JSON can carry; raises TypeError on a hint without one."""
    if hint in SCALARS:
        return SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Codec("text", {member: member.value for member in hint}.__getitem__, hint)
    arguments = get_args(hint)
    if get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        encode, decode = _plain(arguments[0]).encode, _plain(arguments[0]).decode
        return Codec("text", lambda value: list(map(encode, value)), lambda kept: tuple(map(decode, kept)))
    if get_origin(hint) in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        return _optional(_plain(next(argument for argument in arguments if argument is not NoneType)))
    if isinstance(hint, type) and is_dataclass(hint):
        return _object(hint)
    raise TypeError(f"{hint} has no stored form.")


def _object(kind: type[Any]) -> Codec:
    """A nested dataclass as an object of its fields."""
    hints = get_type_hints(kind)
    inside = {field.name: _plain(hints[field.name]) for field in fields(kind)}
    return Codec(
        "text",
        lambda value: {name: codec.encode(getattr(value, name)) for name, codec in inside.items()},
        lambda kept: kind(**{name: codec.decode(kept[name]) for name, codec in inside.items()}),
    )


def _column(hint: Any, key: bool) -> Codec:
    """The codec of a whole column: lists and objects become JSON text, an optional text in a key is never NULL."""
    codec = _plain(hint)
    if get_origin(hint) is tuple or (isinstance(hint, type) and is_dataclass(hint)):
        encode, decode = codec.encode, codec.decode
        return Codec(
            "text", lambda value: canonical(encode(value)), lambda kept: decode(json.loads(kept)), filterable=False
        )
    if key and codec.nullable:
        if codec.form != "text":
            raise TypeError(f"{hint} cannot be part of a key.")
        return Codec("text", _key_text, lambda kept: kept or None)
    return codec


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a record type and how it is kept. `key`: part of the primary key."""

    name: str
    codec: Codec
    key: bool


@dataclass(frozen=True)
class Layout:
    """The table of one record type. Rows are tuples of stored forms in the order of `columns`."""

    kind: type[Any]
    table: str
    columns: tuple[Column, ...]

    @cached_property
    def key(self) -> Callable[[Row], Any]:
        """The primary key of a row; rows sort by it, and it is hashable."""
        return itemgetter(*(i for i, column in enumerate(self.columns) if column.key))

    def rows(self, records: Sequence[object]) -> list[Row]:
        """Stored forms of records. Raises CoflexError, naming the field, on a value the column cannot keep."""
        kept = [self._convert(c, c.codec.encode, list(map(attrgetter(c.name), records))) for c in self.columns]
        return list(zip(*kept, strict=True))

    def records(self, rows: Iterable[Row]) -> tuple[Any, ...]:
        """Records of rows, in their order. Raises CoflexError on a stored form that is not the column's."""
        values = zip(*rows, strict=True)
        read = [self._convert(c, c.codec.decode, kept) for c, kept in zip(self.columns, values, strict=False)]
        return tuple(map(self.kind, *read)) if read else ()

    def filters(self, where: dict[str, object]) -> tuple[tuple[int, frozenset[Any]], ...]:
        """The positions of the columns asked for, each with the stored forms that match.

        A list, tuple or set means: one of these. Raises CoflexError on an unknown field, or one without a
        comparable form, or too many values for one statement.
        """
        position = {column.name: i for i, column in enumerate(self.columns) if column.codec.filterable}
        asked = []
        for name, value in where.items():
            if name not in position:
                raise CoflexError(
                    f"{self.kind.__name__} cannot be looked up by '{name}'.", f"Use one of {', '.join(position)}."
                )
            several = list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
            column = self.columns[position[name]]
            asked.append((position[name], frozenset(self._convert(column, column.codec.encode, several))))
        if sum(len(kept) for _, kept in asked) > MOST_VALUES:
            raise CoflexError(f"One look-up takes {MOST_VALUES} values at most.", "Ask in parts, or for all records.")
        return tuple(asked)

    def _convert(self, column: Column, convert: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        try:
            return list(map(convert, values))
        except MISFITS:
            raise self._misfit(column, convert, values) from None

    def _misfit(self, column: Column, convert: Callable[[Any], Any], values: Sequence[Any]) -> CoflexError:
        """The error that names the first value its column cannot take."""
        for value in values:
            try:
                convert(value)
            except MISFITS as fault:
                why = "no such value" if isinstance(fault, KeyError) else fault
                what = f"{self.kind.__name__}.{column.name} cannot be {value!r}: {why}."
                return CoflexError(what, "Give a value that the field's type can hold exactly.")
        raise AssertionError("a conversion that failed once fails again")


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def layout(kind: type[Any], table: str, *key: str) -> Layout:
    """Derive the table of a dataclass from its fields; `key` names the fields of its primary key."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    if not key or not set(key) <= set(names):
        raise TypeError(f"The key {key} of {kind.__name__} is not made of its fields.")
    return Layout(kind, table, tuple(Column(name, _column(hints[name], name in key), name in key) for name in names))


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A named document as canonical JSON."""

    name: str
    body: str


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """Named series: `contents` are float64, little-endian, one series after the other."""

    name: str
    names: tuple[str, ...]
    start: datetime
    count: int
    step_s: int
    contents: bytes


# What makes a record the same record. Order of the fields, not of this list, is the order of records read.
KEYS: dict[type[Any], tuple[str, ...]] = {
    Party: ("id",),
    ConnectionPoint: ("id",),
    Unit: ("id",),
    Group: ("id",),
    Product: ("id",),
    StaticLight: ("unit", "direction", "mode"),
    LocalNeed: ("session", "start", "element", "kind", "perimeter", "direction"),
    Request: ("session", "buyer", "product", "direction", "start"),
    DynamicLight: ("session", "perimeter", "direction", "start"),
    Offer: ("id",),
    Award: ("session", "offer", "step", "unit", "group", "start"),
    MeritLine: ("session", "product", "direction", "start", "rank", "offer", "step"),
    Holding: ("unit", "start"),  # the last wall: no unit is ever held twice in a quarter-hour
    Uncovered: ("session", "start", "what"),
    SetPoint: ("unit", "start"),
    Limitation: ("start", "unit", "element"),
    Replacement: ("start", "session", "offer", "step", "unit"),
    Reading: ("unit", "start"),
    SettlementLine: ("unit", "start", "session", "award"),
    Posting: ("booking", "account", "cause", "session"),
    Statement: ("party",),
    Event: ("number",),
}

LAYOUTS: dict[type[Any], Layout] = {
    **{kind: layout(kind, _snake(kind.__name__), *key) for kind, key in KEYS.items()},
    StoredDocument: layout(StoredDocument, "document", "name"),
    StoredSeries: layout(StoredSeries, "series", "name"),
}
