"""What the API says when it says no: problem documents (RFC 9457) with stable codes.

A document holds nothing that differs between equal requests (no time, no request id), so a repeated request gets the
same bytes. `TABLE` is the one list of codes and statuses; the OpenAPI document and docs/api.md are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from coflex.domain.errors import CoflexError, Finding, NotFound, Refused
from coflex.service.ports import StoreBroken, StoreFull, StoreLost
from coflex.service.sequencer import Unavailable

MEDIA_TYPE = "application/problem+json"


# ---------------------------------------------------------------- errors of the door itself


class Malformed(Refused):
    """The request cannot be read: a body that is no JSON, or a header or parameter of the wrong form."""

    code = "MALFORMED"


class NotSignedIn(CoflexError):
    """No credentials, or such as do not hold. `challenge`: for the header WWW-Authenticate (RFC 6750)."""

    code = "NOT_SIGNED_IN"
    challenge = "Bearer"


class KeyMissing(CoflexError):
    """A write without an idempotency key."""

    code = "KEY_MISSING"


class MatchMissing(CoflexError):
    """A change of an existing record without the version it was read in."""

    code = "MATCH_MISSING"


class NotAllowed(CoflexError):
    """A method that the address does not know."""

    code = "METHOD_NOT_ALLOWED"


class WrongMediaType(CoflexError):
    """A body of a media type that the operation does not read."""

    code = "WRONG_MEDIA_TYPE"


class TooLarge(CoflexError):
    """A body above the limit."""

    code = "TOO_LARGE"


class TooMany(CoflexError):
    """More requests than the caller may send; `after_s`: seconds until the next is taken."""

    code = "TOO_MANY"

    def __init__(self, message: str, remedy: str = "", after_s: int = 1) -> None:
        super().__init__(message, remedy)
        self.after_s = after_s


class OutcomeUnknown(CoflexError):
    """The store did not answer in time: the command may have been taken or not."""

    code = "OUTCOME_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Kind:
    """How an error is told. `title`: the same for every problem of the code. `retry`: the same request may help."""

    status: int
    title: str
    retry: bool = False


TABLE: dict[str, Kind] = {
    Malformed.code: Kind(400, "The request cannot be read"),
    KeyMissing.code: Kind(400, "A write needs an idempotency key"),
    NotSignedIn.code: Kind(401, "Valid credentials are needed"),
    "FORBIDDEN": Kind(403, "The caller may not do this"),
    "NOT_FOUND": Kind(404, "There is no such thing here"),
    NotAllowed.code: Kind(405, "The address does not know this method"),
    "CONFLICT": Kind(409, "The state does not allow the step"),
    "GATE_CLOSED": Kind(409, "The session takes no offers now"),
    "NOT_READY": Kind(409, "An earlier step is missing"),
    "SOLD_TWICE": Kind(409, "The unit is held already"),
    "OUTDATED": Kind(412, "The record was changed since it was read"),
    TooLarge.code: Kind(413, "The body is too large"),
    WrongMediaType.code: Kind(415, "The body has another media type"),
    "REFUSED": Kind(422, "The data has faults"),
    "KEY_REUSED": Kind(422, "The idempotency key belongs to another request"),
    "OUTSIDE_AXIS": Kind(422, "An instant outside the time axis"),
    MatchMissing.code: Kind(428, "A change needs the version that was read"),
    TooMany.code: Kind(429, "Too many requests", retry=True),
    "INTERNAL": Kind(500, "The platform failed"),
    Unavailable.code: Kind(503, "No commands are taken now", retry=True),
    OutcomeUnknown.code: Kind(503, "The outcome is not known", retry=True),
    StoreLost.code: Kind(503, "The store does not answer", retry=True),
    StoreBroken.code: Kind(503, "The store cannot be trusted"),
    StoreFull.code: Kind(507, "The store has no room", retry=True),
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document. `findings`: every fault of the given data, each with its place and a stable code."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str = ""
    findings: tuple[Finding, ...] = ()


def problem(error: Exception) -> Problem:
    """The document of an error; one that is not in the table is the platform's own failure and tells nothing of it."""
    code = getattr(error, "code", "INTERNAL")
    if not isinstance(error, CoflexError) or code not in TABLE:
        return Problem(
            "urn:coflex:problem:internal",
            TABLE["INTERNAL"].title,
            500,
            "Something failed inside the platform.",
            "INTERNAL",
            "Ask again with the same idempotency key; if it stays, tell the market operator.",
        )
    kind = TABLE[code]
    findings = error.findings if isinstance(error, Refused) else ()
    urn = f"urn:coflex:problem:{code.lower().replace('_', '-')}"
    return Problem(urn, kind.title, kind.status, error.message, code, error.remedy, findings)


def answer(error: Exception) -> Response:
    """The response of an error: the document, and the headers that its status asks for."""
    told = problem(error)
    headers: dict[str, str] = {"Cache-Control": "no-store"}
    if told.status == 401:
        headers["WWW-Authenticate"] = error.challenge if isinstance(error, NotSignedIn) else "Bearer"
    if TABLE[told.code].retry:
        headers["Retry-After"] = str(error.after_s if isinstance(error, TooMany) else 1)
    return Response(msgspec.json.encode(told), told.status, headers, MEDIA_TYPE)


def of_framework(error: HTTPException) -> CoflexError:
    """An error of the web framework in the words of the table."""
    if error.status_code == 404:
        return NotFound("There is nothing at this address.", "See the OpenAPI document for the addresses.")
    if error.status_code == 405:
        return NotAllowed("The address is known, the method is not.", "See the OpenAPI document for its methods.")
    if error.status_code == 413:
        return TooLarge("The body is too large.", "Send less at once.")
    return Malformed("The request", [Finding("request", "malformed", f"{error.detail}; correct it.")])


async def _known(request: Request, error: Exception) -> Response:
    return answer(error)


async def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = answer(of_framework(error))
    headers: Mapping[str, str] = error.headers or {}
    if "Allow" in headers:
        response.headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    return response


def install(app: Starlette) -> None:
    """Let an application answer every error with a problem document."""
    app.add_exception_handler(CoflexError, _known)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _known)
