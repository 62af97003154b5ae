"""Bodies of requests, read strictly before anything is made of them.

JSON leaves open what a repeated key, a huge number or a value a million levels deep means; here each of them is a
fault with its own code and place. What passes is the bytes as they came: the journal keeps them so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from coflex.adapters.web.api.problems import Malformed, TooLarge
from coflex.domain.errors import Finding

MOST_BYTES = 1 << 20
MOST_LEVELS = 32
MOST_DIGITS = 30
MOST_NUMBER = 1e15
# More faults than this are not told at once: an answer must not be larger than what was sent.
MOST_FINDINGS = 100

# Every digit as "0" and every "e" of an exponent as "e": a number that could be too large or too long shows as one of
# two short texts, so that plain bodies (nearly all) never meet the careful reader below.
_SHAPE = bytes(
    ord("0") if chr(byte) in "0123456789" else ord("e") if chr(byte) in "eE" else byte for byte in range(256)
)
_LONG, _EXPONENT = b"0" * 16, b"0e"


class _Odd(Exception):
    """Something that the careful reader has to look at."""


def read_body(raw: bytes, most: int = MOST_BYTES) -> bytes:
    """The same bytes, when they are one JSON text within the limits.

    At most `most` bytes, 32 levels, and numbers of at most 30 digits and 10^15; UTF-8; no key twice in an object, no
    NaN or infinity, no NUL character and no half of a surrogate pair. Raises TooLarge; Malformed with the places.
    """
    if len(raw) > most:
        raise TooLarge(f"The body has {len(raw)} bytes, at most {most} are taken.", "Send it in smaller parts.")
    text = _text(raw)
    shape = raw.translate(_SHAPE)
    if _LONG in shape or _EXPONENT in shape or b"\\u" in raw:
        _carefully(text)
        return raw
    try:
        value = _FAST.decode(text)
    except (_Odd, ValueError, RecursionError):
        _carefully(text)
        raise AssertionError("the careful reader takes what the fast one refuses") from None
    if raw.count(b"{") + raw.count(b"[") > MOST_LEVELS and _levels(value) > MOST_LEVELS:
        _carefully(text)
    return raw


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as fault:
        raise _malformed(f"byte {fault.start + 1}", "not_utf8", "The body is not UTF-8 text; encode it so.") from None


def _malformed(place: str, code: str, message: str) -> Malformed:
    return Malformed("The body", [Finding(place, code, message)])


# ---------------------------------------------------------------- the fast reader


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Odd
    return value


def _odd(text: str) -> Any:
    raise _Odd


_FAST = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_odd)


def _levels(value: Any) -> int:
    """How deep a value nests, counted no further than one level beyond the limit."""
    level, count = [value], 0
    while count <= MOST_LEVELS:
        level = [one for one in level if one.__class__ is dict or one.__class__ is list]
        if not level:
            break
        count += 1
        level = [inner for one in level for inner in (one.values() if one.__class__ is dict else one)]
    return count


# ---------------------------------------------------------------- the careful reader


class _Fault:
    """Stands where a number or constant that is not taken stood."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written, with keys that repeat."""


def _number(text: str, make: type[int] | type[float]) -> Any:
    digits = sum(character.isdigit() for character in text)
    if digits > MOST_DIGITS:
        return _Fault("number_too_long", f"The number has {digits} digits; give at most {MOST_DIGITS}.")
    value = make(text)
    if abs(value) > MOST_NUMBER:
        return _Fault("number_too_large", "The number is beyond 10^15; check its unit.")
    return value


def _constant(text: str) -> _Fault:
    return _Fault("not_a_number", f"{text} is no number of JSON; give a number or leave the field out.")


_CAREFUL = json.JSONDecoder(
    object_pairs_hook=_Pairs,
    parse_int=lambda text: _number(text, int),
    parse_float=lambda text: _number(text, float),
    parse_constant=_constant,
)


def _carefully(text: str) -> None:
    """Raise Malformed with the faults of a text, each with its place."""
    try:
        value = _CAREFUL.decode(text)
    except json.JSONDecodeError as fault:
        place = f"line {fault.lineno}, column {fault.colno}"
        raise _malformed(place, "not_json", f"{fault.msg}; send one JSON text.") from None
    except RecursionError:
        raise _malformed("body", "too_deep", f"It nests deeper than {MOST_LEVELS} levels; flatten it.") from None
    findings = tuple(islice(_faults(value, "", 1), MOST_FINDINGS))
    if findings:
        raise Malformed("The body", findings)


def _faults(value: Any, place: str, level: int) -> Iterator[Finding]:
    if isinstance(value, _Fault):
        yield Finding(place or "body", value.code, value.message)
    elif isinstance(value, str):
        yield from _character(value, place or "body")
    elif isinstance(value, list) and level > MOST_LEVELS:
        yield Finding(place, "too_deep", f"It nests deeper than {MOST_LEVELS} levels; flatten it.")
    elif isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, inner in value:
            where = f"{place}.{key}" if place else key
            if key in seen:
                yield Finding(_printable(where), "key_twice", "The key stands twice in its object; keep one.")
            seen.add(key)
            yield from _character(key, _printable(where))
            yield from _faults(inner, _printable(where), level + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _faults(inner, f"{place}[{index}]", level + 1)


def _character(text: str, place: str) -> Iterator[Finding]:
    if "\0" in text:
        yield Finding(place, "null_character", "The text holds a NUL character; leave it out.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        yield Finding(place, "half_surrogate", "The text holds half of a surrogate pair; write the whole character.")


def _printable(place: str) -> str:
    """A place as it can be written in an answer: at most 200 characters, none that UTF-8 cannot hold."""
    return place[:200].encode(errors="replace").decode() or "body"
