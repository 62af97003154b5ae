"""What happened, told to everyone concerned: the feed to poll and the stream to listen to (MKT-02).

A place in the feed is "<entry>.<position>". A client keeps the last one it has seen and gets everything after it, in
order, each event once, however often the connection broke in between.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.incoming import JSON, caller, only_parameters
from coflex.adapters.web.api.paging import MOST_PER_PAGE, PER_PAGE, bad_parameter, whole_number
from coflex.adapters.web.api.problems import Malformed, TooMany
from coflex.domain.errors import CoflexError, Finding
from coflex.domain.party import Role
from coflex.register.access import ClientScope
from coflex.service.machine import EVERYBODY, encode
from coflex.service.ports import Entry, FeedItem
from coflex.service.who import Who

HEARTBEAT_S = 15.0
_PLACE = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")
_AFTER_ALL_OF_AN_ENTRY = 999_999_999

Place = tuple[int, int]


class Event(msgspec.Struct, frozen=True):
    """An event of the feed. `id`: its place, a cursor to go on from. `at`: the server's instant. `kind`: as
    "session.published". `subject`: id of the record it is about. `data`: what the kind tells beside."""

    id: str
    at: datetime
    kind: str
    subject: str
    data: msgspec.Raw


class Events(msgspec.Struct, frozen=True):
    """Events after a place, oldest first. `next`: where to go on, also when nothing is new. `more`: whether there are
    more."""

    items: tuple[Event, ...]
    next: str
    more: bool


class Bell:
    """Wakes the streams of a party when an entry that concerns it is on the disk. `heartbeat_s`: how often a stream
    shows that it is alive, and looks whether its client still is."""

    def __init__(self, desk: Desk, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.heartbeat_s = heartbeat_s
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        self.ended = False
        desk.sequencer.listeners.append(self._ring)

    def end(self) -> None:
        """The server stops: wake every stream, so that it ends."""
        self.ended = True
        for events in self._waiting.values():
            _set(events)

    def count(self) -> int:
        """How many listen."""
        return sum(len(events) for events in self._waiting.values())

    def _ring(self, entry: Entry) -> None:
        tenant = entry.command.tenant
        for note in entry.notes:
            if EVERYBODY[0] in note.audience:
                for key, events in self._waiting.items():
                    if key[0] == tenant:
                        _set(events)
            else:
                for party in note.audience:
                    _set(self._waiting.get((tenant, party), ()))

    def listen(self, tenant: str, party: str) -> tuple[asyncio.Event, Callable[[], None]]:
        """An event that is set when something is new for a party, and what ends the listening."""
        event = asyncio.Event()
        of_party = self._waiting.setdefault((tenant, party), set())
        of_party.add(event)

        def end() -> None:
            of_party.discard(event)
            if not of_party and self._waiting.get((tenant, party)) is of_party:
                del self._waiting[tenant, party]

        return event, end


def _set(events: set[asyncio.Event] | tuple[()]) -> None:
    for event in events:
        event.set()


def place_of(text: str, where: str) -> Place:
    """A place in the feed from its text. Raises Malformed."""
    found = _PLACE.fullmatch(text)
    if found is None:
        message = 'Give an event\'s id as it was told, as "1234.0".'
        raise Malformed("The request", [Finding(where, "cursor", message)])
    return int(found[1]), int(found[2])


def _told(place: Place) -> str:
    return f"{place[0]}.{place[1]}"


def event_of(item: FeedItem) -> Event:
    note = item.note
    return Event(_told((item.number, item.position)), item.at, note.kind, note.subject, msgspec.Raw(note.body))


def heard(items: Iterable[FeedItem], party: str, roles: Collection[Role]) -> list[FeedItem]:
    """Those that a party with these roles is told. What is for everybody is for those who take part: a party that was
    not approved, or is suspended, hears of itself alone."""
    return [one for one in items if roles or party in one.note.audience]


async def poll(desk: Desk, request: Request) -> Response:
    """GET events: those after a place, at once."""
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ("after", "limit"))
    limit = whole_number(request, "limit", PER_PAGE, 1, MOST_PER_PAGE)
    after = place_of(request.query_params.get("after", "0.0"), "query parameter after")
    _known(desk, after, "after")
    items = await asyncio.to_thread(desk.journal.feed, who.tenant, who.party, after, limit + 1)
    page = items[:limit]
    last = _told((page[-1].number, page[-1].position) if page else after)
    events = tuple(event_of(item) for item in heard(page, who.party, desk.machine.roles(who.tenant, who.party)))
    return Response(encode(Events(events, last, len(items) > limit)), media_type=JSON)


async def stream(desk: Desk, bell: Bell, request: Request) -> Response:
    """GET events as they happen (text/event-stream), after Last-Event-ID or `after`; from now on without either."""
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ("after",))
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    if text is None:
        after = (desk.sequencer.durable_number, _AFTER_ALL_OF_AN_ENTRY)
    else:
        after = place_of(text, "Last-Event-ID or query parameter after")
        _known(desk, after, "after")

    async def still_known() -> bool:
        """Whether the caller may still listen: its client may be revoked while it does."""
        try:
            again = await caller(desk, request, ClientScope.READ)
        except TooMany:
            return True
        except CoflexError:
            return False
        return (again.tenant, again.party) == (who.tenant, who.party)

    lines = _lines(desk, bell, who, after, still_known)
    return StreamingResponse(
        lines, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


def _known(desk: Desk, place: Place, name: str) -> None:
    """A place beyond the end is of another platform, or of a time that a restored backup does not know."""
    if place[0] > desk.sequencer.number:
        raise bad_parameter(name, "This platform has no such event yet; read the feed anew, from its beginning.")


async def _lines(
    desk: Desk, bell: Bell, who: Who, after: Place, still_known: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    ring, end = bell.listen(who.tenant, who.party)
    clock = asyncio.get_running_loop().time
    looked = clock()
    try:
        yield b"retry: 1000\n\n"
        while not bell.ended:
            if clock() - looked >= bell.heartbeat_s:
                if not await still_known():
                    return
                looked = clock()
                yield b": still here\n\n"
            ring.clear()  # before looking, so that nothing that comes meanwhile is slept over
            items = await asyncio.to_thread(desk.journal.feed, who.tenant, who.party, after, MOST_PER_PAGE)
            for item in heard(items, who.party, desk.machine.roles(who.tenant, who.party)):
                event = event_of(item)
                yield b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.kind.encode(), encode(event))
            if items:
                after = items[-1].number, items[-1].position
            if len(items) == MOST_PER_PAGE:
                continue
            # Not wait_for: before Python 3.12 it forgets to be cancelled where the bell rings in the same moment.
            with suppress(TimeoutError):
                async with asyncio.timeout(bell.heartbeat_s):
                    await ring.wait()
    finally:
        end()
