"""Lists in pages: never cut silently. Every page tells how many there are in all, and how to go on.

A cursor names the last id that was shown and the question it was shown for; it is refused for another question.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from coflex.adapters.web.api.problems import Malformed
from coflex.domain.errors import Finding

PER_PAGE, MOST_PER_PAGE = 100, 1_000
CONTROLS = ("limit", "cursor")
_MARK = 8

T = TypeVar("T")


class Page(msgspec.Struct, frozen=True):
    """A part of a list, by id. `total`: how many the whole list has. `next`: the cursor of the page that follows, null
    on the last one."""

    items: list[Any]
    next: str | None
    total: int


def page_of(request: Request, rows: Sequence[tuple[str, T]], show: Callable[[T], Any] | None = None) -> Page:
    """The page that a request asks for, of all rows of its list: (id, value), ids ascending and distinct.

    `show` makes what the reader sees, of the rows of the page alone. Raises Malformed on `limit` and `cursor`.
    """
    limit = whole_number(request, "limit", PER_PAGE, 1, MOST_PER_PAGE)
    question = _question(request)
    first = 0
    if "cursor" in request.query_params:
        after = _read(request.query_params["cursor"], question)
        first = bisect_right(rows, after, key=lambda row: row[0])
    shown = rows[first : first + limit]
    more = first + limit < len(rows)
    items = [value if show is None else show(value) for _, value in shown]
    return Page(items, _write(shown[-1][0], question) if more else None, len(rows))


def whole_number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A query parameter that is a whole number. Raises Malformed."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise bad_parameter(name, f"'{text[:40]}' is no whole number from {least} to {most}; correct it.")
    return int(text)


def bad_parameter(name: str, message: str) -> Malformed:
    """A fault of a query parameter."""
    return Malformed("The request", [Finding(f"query parameter {name}", "parameter", message)])


def _question(request: Request) -> bytes:
    """What the list was asked for, apart from the place in it."""
    asked = sorted((name, value) for name, value in request.query_params.multi_items() if name not in CONTROLS)
    text = repr((request.url.path, asked)).encode(errors="surrogatepass")
    return sha256(text).digest()[:_MARK]


def _write(last: str, question: bytes) -> str:
    return urlsafe_b64encode(question + last.encode()).decode().rstrip("=")


def _read(cursor: str, question: bytes) -> str:
    try:
        kept = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        last = kept[_MARK:].decode()
    except (binascii.Error, UnicodeError):
        kept, last = b"", ""
    if kept[:_MARK] != question:
        raise bad_parameter("cursor", "The cursor is of another list or filter; start without one.")
    return last
