"""Records as plain values that JSON can hold, and back: what a run left behind is kept in a file and read again.

A dataclass becomes a mapping by field names; a mapping a list of [key, value]; arrays lists of numbers with their
shape; instants, decimals, words of an enum and floats that are not finite become texts. `kept(type, plain(value))`
equals the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from math import isfinite
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")


def plain(value: Any) -> Any:
    """The value as JSON can hold it. Raises TypeError on what is none of the kinds named above."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "values": plain(value.ravel().tolist())}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, float) and not isfinite(value):
        return repr(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return [[plain(key), plain(item)] for key, item in value.items()]
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no plain form")


def kept(kind: type[T], data: Any) -> T:
    """The value of a type from its plain form. Raises TypeError, KeyError or ValueError when it is none of it."""
    found: T = _kept(kind, data)
    return found


def _kept(kind: Any, data: Any) -> Any:
    origin, words = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if data is None else _kept(next(word for word in words if word is not NoneType), data)
    if origin is np.ndarray:
        # Floats, Ints and Bools are arrays of one kind of number, the second word's.
        return np.array(data["values"], dtype=get_args(words[1])[0]).reshape(data["shape"])
    if origin is tuple:
        inner = [words[0]] * len(data) if words[-1] is Ellipsis else words
        return tuple(_kept(word, item) for word, item in zip(inner, data, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {_kept(words[0], key): _kept(words[1], item) for key, item in data}
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _kept(hint, data[name]) for name, hint in hints.items() if name in data})
    if kind is datetime:
        return datetime.fromisoformat(data)
    if kind is float and isinstance(data, int | str):
        return float(data)
    if isinstance(kind, type) and issubclass(kind, Enum | Decimal):
        return kind(data)
    if isinstance(kind, type) and isinstance(data, kind):
        return data
    raise TypeError(f"{data!r} is no {kind}")


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}
