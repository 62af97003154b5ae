"""Settlement data as JSON and back: exact numbers as texts, unknown keys refused, all faults at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from coflex.domain.errors import Finding, Refused
from coflex.domain.statement import Line
from coflex.json_text import loads
from coflex.settlement.books import Run
from coflex.settlement.invoice import Details

T = TypeVar("T")
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}  # one a kind: making one takes longer than reading with it
_HINTS: dict[Any, dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a run as they are kept."""

    period: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Parties:
    """The parties that invoices name, and the number each gives next."""

    parties: tuple[Details, ...]
    next_numbers: Mapping[str, int]


def write(value: Any) -> str:
    """A value of dataclasses as JSON with sorted keys; what has its default value is left out."""
    return json.dumps(plain(value), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def lines_of(run: Run) -> Lines:
    """A run's lines as they are kept."""
    return Lines(run.period, run.lines)


def read(kind: type[T], text: str, place: str) -> T:
    """The value that a JSON text holds. Raises Refused with every fault, each with its path in the text."""
    try:
        data = loads(text, parse_float=str, parse_constant=str)
    except ValueError as error:
        raise Refused(place, [Finding(place, "not_json", f"This is no JSON: {error}.")]) from None
    unknown = list(_unknown(data, kind, "", place))
    try:
        value: T = _adapter(kind).validate_json(json.dumps(data))
    except ValidationError as error:
        raise Refused(place, [*unknown, *(_finding(place, detail) for detail in error.errors())]) from None
    if unknown:
        raise Refused(place, unknown)
    return value


def plain(value: Any) -> Any:
    """A value as JSON knows it: decimals and instants as texts, dataclasses as mappings."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {one.name: getattr(value, one.name) for one in fields(value)}
        defaults = {one.name: one.default for one in fields(value)}
        return {name: plain(one) for name, one in own.items() if one != defaults[name]}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind)
    return _HINTS[kind]


def _unknown(data: Any, kind: Any, path: str, place: str) -> Iterator[Finding]:
    """Keys that no dataclass of the kind has."""
    origin = get_origin(kind)
    if is_dataclass(kind) and isinstance(data, dict):
        hints = _hints(kind)
        for name, value in data.items():
            inner = f"{path}.{name}".removeprefix(".")
            if name not in hints:
                message = f"The key '{name}' is not known; known here are {', '.join(hints)}."
                yield Finding(f"{place}: {inner}", "unknown_key", message)
            else:
                yield from _unknown(value, hints[name], inner, place)
    elif origin in (UnionType, Union):
        for one in get_args(kind):
            yield from _unknown(data, one, path, place)
    elif isinstance(data, list) and origin in (tuple, list):
        for i, value in enumerate(data):
            yield from _unknown(value, get_args(kind)[0], f"{path}[{i}]", place)


def _finding(place: str, detail: Mapping[str, Any]) -> Finding:
    location: Sequence[str | int] = detail["loc"]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")
    where = f"{place}: {path}" if path else place
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return Finding(where, "missing_key", f"The key '{location[-1]}' is missing; add it.")
    return Finding(where, "malformed", f"{detail['msg']}; given is {detail['input']!r}.")
