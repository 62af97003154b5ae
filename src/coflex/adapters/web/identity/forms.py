"""Forms of browsers and of OAuth: read whole within bounds, no field twice; and what OAuth answers."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response

FORM = "application/x-www-form-urlencoded"
MOST_FORM, MOST_FIELDS = 16_384, 40
NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class OAuthError(Exception):
    """What OAuth calls an error (RFC 6749, 5.2): a code of its list and a sentence."""

    def __init__(
        self, error: str, description: str, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(description)
        self.error, self.description, self.status, self.headers = error, description, status, dict(headers or {})


def told(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer that nobody keeps."""
    return Response(msgspec.json.encode(body), status, {**NOT_KEPT, **(headers or {})}, "application/json")


def refusal(fault: OAuthError) -> Response:
    return told({"error": fault.error, "error_description": fault.description}, fault.status, fault.headers)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises OAuthError for one that is too long, no form, or says a field twice."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != FORM:
        raise OAuthError("invalid_request", f"Send the fields as {FORM}.")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_FORM:
            raise OAuthError("invalid_request", f"A form has at most {MOST_FORM} bytes.", 413)
        parts.append(part)
    try:
        return fields(b"".join(parts).decode())
    except UnicodeDecodeError:
        raise OAuthError("invalid_request", "The form is no UTF-8 text.") from None


def fields(text: str) -> dict[str, str]:
    """Fields of a query or form, those without a value left out (RFC 6749, 3.1). Raises OAuthError."""
    try:
        pairs = parse_qsl(text, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise OAuthError("invalid_request", "The fields cannot be read.") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise OAuthError("invalid_request", "A field is there twice.")
    return found
