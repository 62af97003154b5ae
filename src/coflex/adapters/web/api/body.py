"""Bodies of requests, read strictly before anything is made of them.

JSON leaves open what a repeated key, a huge number or a value a million levels deep means; here each of them is a
fault with its own code and place. What passes is the bytes as they came: the journal keeps them so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from coflex.adapters.web.api.problems import Malformed, TooLarge
from coflex.domain.errors import Finding
from coflex.json_text import too_deep

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
# Without these in it, every quotation mark of a text begins or ends a string, and a colon stands right behind its key:
# then the text has as many keys as it has marks with a colon behind them, or more of these where a string begins with
# a colon. Decoded, a key that stood twice counts once.
_ODD = (b"\\", b" :", b"\t:", b"\n:", b"\r:")
_NO_BRACKETS = bytes(byte for byte in range(256) if chr(byte) not in "[]{}")
_decode = msgspec.json.Decoder().decode


def read_body(raw: bytes, most: int = MOST_BYTES) -> bytes:
    """The same bytes, when they are one JSON text within the limits.

    At most `most` bytes, 32 levels, and numbers of at most 30 digits and 10^15; UTF-8; no key twice in an object, no
    NaN or infinity, no NUL character and no half of a surrogate pair. Raises TooLarge; Malformed with the places.
    """
    if len(raw) > most:
        raise TooLarge(f"The body has {len(raw)} bytes, at most {most} are taken.", "Send it in smaller parts.")
    text, shape = _text(raw), raw.translate(_SHAPE)
    if _LONG in shape or _EXPONENT in shape or any(mark in raw for mark in _ODD) or not _plain(raw):
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


def _plain(raw: bytes) -> bool:
    """Whether a text without what `_ODD` names is JSON that nests within the limit, with every key once."""
    if not _shallow(raw):
        return False
    try:
        keys, levels = _counted(_decode(raw))
    except msgspec.MsgspecError:
        return False
    return levels <= MOST_LEVELS and keys == raw.count(b'":')


def _shallow(raw: bytes) -> bool:
    """Whether brackets pair off within a few levels: decoders in C are not to be given more, their stack is finite."""
    brackets = raw.translate(None, _NO_BRACKETS)
    for _ in range(MOST_LEVELS):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return not brackets


def _counted(value: Any) -> tuple[int, int]:
    """How many keys a value has, and how deep it nests, counted no further than one level beyond the limit."""
    level, keys, levels = [value], 0, 0
    while levels <= MOST_LEVELS:
        objects = [one for one in level if one.__class__ is dict]
        lists = [one for one in level if one.__class__ is list]
        if not objects and not lists:
            break
        levels += 1
        level = [inner for one in lists for inner in one]
        for one in objects:
            keys += len(one)
            level += one.values()
    return keys, levels


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
    if too_deep(text):
        raise _malformed("body", "too_deep", f"It nests deeper than {MOST_LEVELS} levels; flatten it.")
    try:
        value = _CAREFUL.decode(text)
    except json.JSONDecodeError as fault:
        place = f"line {fault.lineno}, column {fault.colno}"
        raise _malformed(place, "not_json", f"{fault.msg}; send one JSON text.") from None
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
