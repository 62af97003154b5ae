"""Bodies of requests against a slow reader of strict JSON, written from RFC 8259 and the limits that are documented."""

from __future__ import annotations

import json
import re
from typing import Any

from coflex.adapters.web.api.body import MOST_DIGITS, MOST_LEVELS, MOST_NUMBER, read_body
from coflex.adapters.web.api.problems import Malformed, TooLarge, answer

LITTLE = 40
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_CONSTANTS = {"true": True, "false": False, "null": None}
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class _No(Exception):
    """The reference does not take the text."""


class Reference:
    """Reads a text character by character. `whole()` is its value, or raises _No."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def whole(self) -> Any:
        value = self._value(1)
        self._blanks()
        if self._at != len(self._text):
            raise _No
        return value

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _blanks(self) -> None:
        while self._next() and self._next() in " \t\n\r":
            self._at += 1

    def _takes(self, sign: str) -> bool:
        self._blanks()
        if self._next() != sign:
            return False
        self._at += 1
        return True

    def _value(self, level: int) -> Any:
        self._blanks()
        if self._takes("{"):
            return self._object(level)
        if self._takes("["):
            return self._list(level)
        if self._takes('"'):
            return self._string()
        for name, value in _CONSTANTS.items():
            if self._text.startswith(name, self._at):
                self._at += len(name)
                return value
        return self._number()

    def _object(self, level: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if level > MOST_LEVELS:
            raise _No
        if self._takes("}"):
            return found
        while True:
            if not self._takes('"'):
                raise _No
            key = self._string()
            if key in found or not self._takes(":"):
                raise _No
            found[key] = self._value(level + 1)
            if self._takes("}"):
                return found
            if not self._takes(","):
                raise _No

    def _list(self, level: int) -> list[Any]:
        found: list[Any] = []
        if level > MOST_LEVELS:
            raise _No
        if self._takes("]"):
            return found
        while True:
            found.append(self._value(level + 1))
            if self._takes("]"):
                return found
            if not self._takes(","):
                raise _No

    def _string(self) -> str:
        """The rest of a string, as UTF-16, so that halves of pairs that are written apart come together."""
        units = bytearray()
        while (sign := self._next()) != '"':
            self._at += 1
            if sign < " ":  # also the end of the text
                raise _No
            units += self._escaped() if sign == "\\" else sign.encode("utf-16-be")
        self._at += 1
        try:
            text = units.decode("utf-16-be")
        except UnicodeDecodeError:
            raise _No from None
        if "\0" in text:
            raise _No
        return text

    def _escaped(self) -> bytes:
        sign = self._next()
        self._at += 1
        if sign != "u":
            if sign not in _ESCAPES:
                raise _No
            return _ESCAPES[sign].encode("utf-16-be")
        digits = self._text[self._at : self._at + 4]
        if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
            raise _No
        self._at += 4
        return int(digits, 16).to_bytes(2, "big")

    def _number(self) -> int | float:
        found = _NUMBER.match(self._text, self._at)
        if found is None:
            raise _No
        text = found[0]
        self._at = found.end()
        if sum(sign.isdigit() for sign in text) > MOST_DIGITS:
            raise _No
        value = float(text) if set(text) & set(".eE") else int(text)
        if abs(value) > MOST_NUMBER:
            raise _No
        return value


def expected(data: bytes) -> tuple[bool, Any]:
    """Whether the bytes are to be taken, and their value."""
    try:
        return True, Reference(data.decode()).whole()
    except (_No, UnicodeDecodeError):
        return False, None


def check(data: bytes) -> None:
    sound, value = expected(data)
    try:
        taken = read_body(data)
    except Malformed as fault:
        assert not sound, f"{data!r} is refused: {fault.findings}"
        assert fault.findings and all(one.place and one.message.endswith(".") for one in fault.findings)
        assert answer(fault).status_code == 400
    else:
        assert sound, f"{data!r} is taken"
        assert taken is data
        assert _told(json.loads(data)) == _told(value), f"{data!r} has another value"
    if len(data) > LITTLE:
        try:
            read_body(data, LITTLE)
        except TooLarge as fault:
            assert answer(fault).status_code == 413
        else:
            raise AssertionError(f"{len(data)} bytes pass for {LITTLE}")


def _told(value: Any) -> str:
    """With the kinds of numbers, and the order of keys."""
    return repr(value)


SEEDS = (
    b"{}",
    b"",
    b'{"id": "o-1", "steps": [{"start": "2016-07-05T10:00:00Z", "quantity_kw": [100, -50], "p": 1.5e3}], "x": null}',
    b'["\\u00e9\\ud83d\\ude00\\n\\/", "\xc3\xa9", true, false, -0, 0.5E-3]',
    b'{"a": 1, "\\u0061": 2}',
    b'{"a": {"b": 1, "b": 2}}',
    b'["\\ud83d", "\\ude00\\ud83d", "\\u0000"]',
    b"[1000000000000000, 1000000000000001, 123456789012345.123456789012345, 123456789012345.1234567890123456]",
    b"[1e15, 1e16, 1e-400, 1E+0000000000000000000000000000000, NaN, Infinity, -Infinity]",
    b"[" * 32 + b"]" * 32,
    b'{"a":' * 33 + b"0" + b"}" * 33,
    b"[" * 2000,
    b'\xef\xbb\xbf{"a": "\xff"}',
    b" [1,2 , 3 ]\r\n\t ",
)

if __name__ == "__main__":
    from harness import run

    run(__file__)
