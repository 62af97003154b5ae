"""What every request brings beside its address: who asks, the idempotency key, the version it read, and the body."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.requests import ClientDisconnect, Request

from coflex.adapters.web.api.body import MOST_BYTES, read_body
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.paging import bad_parameter
from coflex.adapters.web.api.problems import KeyMissing, Malformed, MatchMissing, TooLarge, WrongMediaType
from coflex.domain.errors import Finding, Forbidden
from coflex.register.access import ClientScope
from coflex.service.who import Who

JSON = "application/json"
# Where many things come at once: imports, measured answers.
MOST_BYTES_AT_ONCE = 8 << 20
MOST_KEY = 200
_KEY = re.compile(rf"[!-~]{{1,{MOST_KEY}}}")
_TAG = re.compile(r'"([0-9]{1,18})"')


async def caller(desk: Desk, request: Request, scope: ClientScope) -> Who:
    """Who asks. Raises NotSignedIn, NotFound; Forbidden when the client has not got the scope."""
    who = await desk.authenticate(request, request.path_params["tenant"])
    request.scope.setdefault("state", {})["who"] = who  # for the log
    if scope not in who.scopes:
        raise Forbidden(f"This client has not got the scope '{scope}'.", "Use a client that has it.")
    return who


def idempotency_key(request: Request) -> str:
    """The key under which a write is taken once. Raises KeyMissing."""
    key = request.headers.get("idempotency-key", "")
    if not _KEY.fullmatch(key):
        raise KeyMissing(
            f"A write needs the header Idempotency-Key: 1 to {MOST_KEY} visible ASCII characters.",
            "Send a new key with every new request, and the same key when you ask again.",
        )
    return key


def version_read(request: Request, needed: bool) -> int | None:
    """The number of the entry that the caller read, from If-Match; None for "*" and where there is none.

    Raises MatchMissing where one is needed, Malformed for what no ETag of this API looks like.
    """
    text = request.headers.get("if-match")
    if text is None:
        if needed:
            raise MatchMissing(
                "A change needs the header If-Match with the ETag of what was read.",
                "Read the record, then send its ETag; '*' changes whatever is there.",
            )
        return None
    if text.strip() == "*":
        return None
    tag = _TAG.fullmatch(text.strip())
    if tag is None:
        message = 'Give one ETag as it was read, as "1234", or "*".'
        raise Malformed("The request", [Finding("header If-Match", "header", message)])
    return int(tag[1])


def only_parameters(request: Request, known: Iterable[str]) -> None:
    """Refuse query parameters that the operation does not know: a typo would change the answer silently."""
    allowed = frozenset(known)
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        place = name[:40].encode(errors="replace").decode()
        if name not in allowed:
            listed = ", ".join(sorted(allowed)) or "none"
            raise bad_parameter(place, f"The operation does not know it, but: {listed}; correct it.")
        if name in seen:
            raise bad_parameter(place, "It is given twice; give it once.")
        seen.add(name)


async def json_body(request: Request, empty: bytes = b"", most: int = MOST_BYTES) -> bytes:
    """The body as it came; `empty` where there is none. Raises TooLarge, WrongMediaType, Malformed."""
    raw = await whole_body(request, most)
    if not raw and empty:
        return empty
    media = media_type(request)
    if media != JSON:
        raise WrongMediaType(f"The body is of the type '{media}'.", f"Send {JSON}.")
    return read_body(raw, most)


async def whole_body(request: Request, most: int) -> bytes:
    """The bytes of the body, never more than `most` of them in memory. Raises TooLarge."""
    parts, size, more = [], 0, True
    while more:
        # What Request.stream() does, without a generator: offers come by the thousand.
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > most:
            raise TooLarge(f"The body has more than {most} bytes.", "Send it in smaller parts.")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def media_type(request: Request) -> str:
    """The media type of the body without its parameters; JSON where none is said."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower()[:100]
