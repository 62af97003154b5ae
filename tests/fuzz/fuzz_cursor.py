"""Queries of lists: whatever the cursor and the limit say, a page is a part of the list or a refusal of a parameter."""

from __future__ import annotations

from starlette.requests import Request

from coflex.adapters.web.api.incoming import only_parameters
from coflex.adapters.web.api.paging import CONTROLS, MOST_PER_PAGE, PER_PAGE, page_of
from coflex.adapters.web.api.problems import Malformed, answer

ROWS = [(f"unit-{number:03d}", number) for number in range(0, 300, 2)] + [("é", 1000), ("\U0001f642", 1001)]
NAMES = [name for name, _ in ROWS]


def request(query: bytes, path: str = "/v1/demo/units") -> Request:
    """A request for a list, as the server hands it on."""
    return Request({"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []})


def check(data: bytes) -> None:
    # What is behind the question mark of an address line is ASCII without blanks, whatever a client sends.
    asked = request(bytes(byte for byte in data if 33 <= byte < 127))
    try:
        only_parameters(asked, (*CONTROLS, "status"))
        page = page_of(asked, ROWS)
    except Malformed as fault:
        assert [one.code for one in fault.findings] == ["parameter"]
        assert answer(fault).status_code == 400
        return
    limit = int(asked.query_params.get("limit", PER_PAGE))
    assert 1 <= limit <= MOST_PER_PAGE
    assert page.total == len(ROWS)
    assert len(page.items) <= limit
    values = [value for _, value in ROWS]
    first = values.index(page.items[0]) if page.items else len(ROWS)
    assert page.items == values[first : first + limit]
    assert (page.next is None) == (first + limit >= len(ROWS))
    if "cursor" not in asked.query_params:
        assert first == 0
    if page.next is not None:
        _goes_on(asked, page.next, values[first + limit :])


def _goes_on(asked: Request, cursor: str, rest: list[int]) -> None:
    """The cursor of a page leads on to the next one, and is refused with another question."""
    kept = [pair for pair in asked.scope["query_string"].decode().split("&") if not _is_cursor(pair)]
    query = "&".join([*kept, f"cursor={cursor}"]).encode()
    following = page_of(request(query), ROWS)
    assert following.items and following.items == rest[: len(following.items)]
    for other in (request(query + b"&other=1"), request(query, "/v1/demo/groups")):
        try:
            page_of(other, ROWS)
        except Malformed:
            continue
        raise AssertionError("a cursor is taken with another question")


def _is_cursor(pair: str) -> bool:
    return "cursor" in request(pair.encode()).query_params


def _cursor(query: bytes) -> bytes:
    found = page_of(request(query), ROWS).next
    assert found is not None
    return b"cursor=" + found.encode()


SEEDS = (
    b"",
    b"limit=10",
    b"limit=1000",
    b"limit=0010&status=active",
    b"limit=10&" + _cursor(b"limit=10"),
    b"status=active&limit=7&" + _cursor(b"limit=7&status=active"),
    b"cursor=&limit=%31",
    b"cursor=AAAA____",
    b"cursor=%C3%A9",
    b"cursor=a&cursor=b",
    b"limit=-1",
    b"limit=%D9%A3",
    b"status=%ED%A0%80",
)

if __name__ == "__main__":
    from harness import run

    run(__file__)
