"""From operations to what answers: authentication, scope, key, version, body, the machine, the disk, the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coflex.adapters.web.api.body import MOST_BYTES
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.incoming import (
    JSON,
    MOST_BYTES_AT_ONCE,
    caller,
    idempotency_key,
    json_body,
    only_parameters,
    version_read,
)
from coflex.adapters.web.api.operations import PREFIX, History, Operation, Read, Room, Special, Write, names_in
from coflex.adapters.web.api.paging import CONTROLS, bad_parameter, page_of
from coflex.domain.errors import NotFound
from coflex.register.records import KIND_OF, Record
from coflex.service import reading
from coflex.service.machine import CREATED, decode, encode
from coflex.service.ports import Command, Personal
from coflex.service.sequencer import Receipt
from coflex.service.who import Who

Endpoint = Callable[[Request], Awaitable[Response]]

# Reads are for one caller alone, and asked again each time: the ETag makes that cheap.
PRIVATE = {"Cache-Control": "private, no-cache", "Vary": "Authorization, On-Behalf-Of"}
NOT_MODIFIED = 304


class PastVersion(msgspec.Struct, frozen=True):
    """A record as an entry wrote it, as far as the caller may read it. `number`: of the entry, as in an ETag. `at`: the
    server's instant. `record`: null where it ended."""

    number: int
    at: datetime
    record: Any


def routes_of(desk: Desk, rooms: tuple[Room, ...]) -> list[Route]:
    """A route for each path, with the methods of all operations there; what comes first in the rooms is tried first."""
    methods: dict[str, dict[str, Endpoint]] = {}
    for room in rooms:
        for operation in room.operations:
            of_path = methods.setdefault(PREFIX + operation.path, {})
            if operation.method in of_path:
                raise ValueError(f"{operation.method} {operation.path} is written down twice")
            of_path[operation.method] = endpoint_of(desk, operation)
    return [Route(path, _by_method(found), methods=list(found)) for path, found in methods.items()]


def _by_method(found: Mapping[str, Endpoint]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await found["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def endpoint_of(desk: Desk, operation: Operation) -> Endpoint:
    """What answers an operation."""
    if isinstance(operation, Special):
        return partial(operation.handler, desk)
    if isinstance(operation, Write):
        return _write(desk, operation)
    if isinstance(operation, History):
        return _history(desk, operation)
    return _one(desk, operation) if operation.is_of_one else _list(desk, operation)


def subject_of(request: Request, path: str) -> str:
    """What the last name in a path stands for; empty where it has none."""
    names = names_in(path)
    return str(request.path_params[names[-1]]) if names else ""


# ---------------------------------------------------------------- writes


def _write(desk: Desk, operation: Write) -> Endpoint:
    verb = desk.machine.verbs[operation.verb]

    async def endpoint(request: Request) -> Response:
        who = await caller(desk, request, operation.scope)
        only_parameters(request, ())
        key = idempotency_key(request)
        expects = version_read(request, operation.needs_match)
        raw = await json_body(request, b"{}", MOST_BYTES_AT_ONCE if operation.large else MOST_BYTES)
        if operation.form is not None:
            decode(raw, operation.form)
        form = decode(raw, verb.form)
        subject = operation.subject or subject_of(request, operation.path)
        if operation.match:
            expects = version_known(desk, who, verb.kind, subject, expects)
        receipt = await desk.submit(command_of(who, operation.verb, subject, raw, key, expects, form))
        return written(receipt, who.tenant, operation.made_at)

    return endpoint


def version_known(desk: Desk, who: Who, kind: type[Record] | None, subject: str, expects: int | None) -> int | None:
    """The version that a caller insists on, None where it may not know the record or there is none: then the verb says
    that it is not there, and no mismatch of versions tells that it is."""
    if expects is None or kind is None:
        return expects
    try:
        reading.record(desk.state(who.tenant), who, kind, subject)
    except NotFound:
        return None
    return expects


def command_of(
    who: Who,
    verb: str,
    subject: str,
    body: bytes,
    key: str,
    expects: int | None = None,
    form: Any = None,
    private: tuple[Personal, ...] = (),
) -> Command:
    """A caller's command."""
    return Command(who.tenant, verb, subject, who.party, who.by, who.actor, body, key, expects, form, private)


def written(receipt: Receipt, tenant: str, made_at: str = "", body: bytes | None = None) -> Response:
    """What a write is answered: the reply as the journal keeps it (or another body made of it), the ETag of what it
    wrote, and where that is."""
    headers = {"ETag": f'"{receipt.number}"', "Cache-Control": "no-store"}
    if receipt.status == CREATED and made_at:
        headers["Location"] = PREFIX.format(tenant=tenant) + made_at.format(id=_id_of(receipt.reply))
    elif receipt.status == 202:
        headers["Location"] = f"{PREFIX.format(tenant=tenant)}/proposals/{_id_of(receipt.reply)}"
    if receipt.again:
        headers["Idempotency-Replayed"] = "true"
    return Response(receipt.reply if body is None else body, receipt.status, headers, JSON)


class _Named(msgspec.Struct):
    id: str


_named = msgspec.json.Decoder(_Named).decode


def _id_of(reply: bytes) -> str:
    return _named(reply).id


# ---------------------------------------------------------------- reads


def _list(desk: Desk, operation: Read) -> Endpoint:
    kind = operation.kind

    async def endpoint(request: Request) -> Response:
        who = await caller(desk, request, operation.scope)
        only_parameters(request, (*CONTROLS, "as_of", *operation.filters))
        asked = {path: request.query_params[name] for name, path in operation.filters.items()
                 if name in request.query_params}  # fmt: skip
        at = _as_of(desk, request)
        state = desk.state(who.tenant)
        if at is None:
            found: list[Any] = reading.where(state, who, kind, asked, partial(_meets, asked=asked))
            page = page_of(request, [(one.id, one) for one in found], partial(reading.shown, state, who))
        else:
            versions = await asyncio.to_thread(desk.journal.as_of, who.tenant, KIND_OF[kind], at)
            past = reading.as_of(state, who, versions)
            page = page_of(request, [(one.id, one.record) for one in past if _meets(one.record, asked)])
        await desk.settled()
        return tagged(request, encode(page))

    return endpoint


def _one(desk: Desk, operation: Read) -> Endpoint:
    kind = operation.kind

    async def endpoint(request: Request) -> Response:
        who = await caller(desk, request, operation.scope)
        only_parameters(request, ("as_of",))
        id = operation.subject or subject_of(request, operation.path)
        at = _as_of(desk, request)
        state = desk.state(who.tenant)
        if at is None:
            async with desk.looking():
                body = encode(reading.shown(state, who, reading.record(state, who, kind, id)))
            number = state.number(kind, id)
        else:
            versions = await asyncio.to_thread(desk.journal.history, who.tenant, KIND_OF[kind], id)
            before = [one for one in versions if one.at <= at]
            past = reading.as_of(state, who, before[-1:])
            if not past:
                raise NotFound(f"There was no {KIND_OF[kind].replace('_', ' ')} '{id}' then.", "Check the id.")
            body, number = encode(past[0].record), past[0].number
        await desk.settled()
        return tagged(request, body, f'"{number}"')

    return endpoint


def _history(desk: Desk, operation: History) -> Endpoint:
    kind = operation.kind

    async def endpoint(request: Request) -> Response:
        who = await caller(desk, request, operation.scope)
        only_parameters(request, CONTROLS)
        id = operation.subject or subject_of(request, operation.path)
        versions = await asyncio.to_thread(desk.journal.history, who.tenant, KIND_OF[kind], id)
        try:
            seen = reading.history(desk.state(who.tenant), who, versions)
        except NotFound:
            # In the words of a record that never was, so that nobody learns of one that is another party's.
            raise NotFound(f"There is no {KIND_OF[kind].replace('_', ' ')} '{id}'.", "Check the id.") from None
        rows = [(f"{one.number:018d}", PastVersion(one.number, one.at, one.record)) for one in seen]
        page = page_of(request, rows)
        await desk.settled()
        return tagged(request, encode(page))

    return endpoint


def _meets(record: Any, asked: Mapping[str, str]) -> bool:
    """Whether fields of a record, or of what is shown of it, have the texts asked for."""
    return all(_text(record, path) == text for path, text in asked.items())


def _text(value: Any, path: str) -> str | None:
    """A field as text, through dataclasses and dictionaries; None where it is not there."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
        if value is None:
            return None
    return str(value if isinstance(value, str) else msgspec.to_builtins(value))


def _as_of(desk: Desk, request: Request) -> datetime | None:
    """The instant of the server that a read is about; None: now. Raises Malformed."""
    text = request.query_params.get("as_of")
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise bad_parameter("as_of", "It is no instant with an offset from UTC, as 2026-07-05T10:00:00Z; correct it.")
    if at > desk.clock():
        raise bad_parameter("as_of", "The instant lies ahead; name one that has passed.")
    return at


def tagged(request: Request, body: bytes, tag: str | None = None) -> Response:
    """A body with its ETag, or 304 without it when the caller has it. The tag is of the bytes where none is given."""
    own = tag if tag is not None else f'"{sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": own, **PRIVATE}
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or own in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(status_code=NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers, media_type=JSON)
