"""Events: the feed to poll, and the stream to listen to."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.document import LIMIT
from coflex.adapters.web.api.events import Bell, Events, poll, stream
from coflex.adapters.web.api.operations import Parameter, Room, Special

_PLACE = {"type": "string", "pattern": "^[0-9]{1,18}\\.[0-9]{1,9}$"}
_AFTER = Parameter("after", "Id of the last event that was seen.", _PLACE)
_LAST = Parameter("Last-Event-ID", "Id of the last event that was seen, as browsers send it.", _PLACE, "header")


def room(bell: Bell) -> Room:
    """The operations, with streams woken by a bell."""
    return Room(
        "events",
        "What happened, for everyone concerned: polled from a place on, or streamed.",
        (
            Special(
                "GET", "/events", poll, "Events after a place, oldest first; from the beginning without one.",
                "list_event", {200: Events}, (_AFTER, LIMIT),
            ),
            Special(
                "GET", "/events/stream", partial(_stream, bell),
                "Events as they happen (server-sent events), after a place; from now on without one.",
                "stream_event", {200: "text/event-stream"}, (_AFTER, _LAST),
            ),
        ),
    )  # fmt: skip


async def _stream(bell: Bell, desk: Desk, request: Request) -> Response:
    return await stream(desk, bell, request)
