"""The HTTP door of the ingest: batches in, checkpoints and proofs out.

    POST /v1/{tenant}/measurements   a batch of messages; answered when it is durable and under a checkpoint
    GET  /checkpoint, /key           the last signed checkpoint (?cosigned=1: by witnesses too); the log's public key
    GET  /proof?leaf= [&size=]       inclusion of a leaf; or of ?point= &sequence=
    GET  /proof?from= &to=           consistency of two sizes
    GET  /certificate?point= &sequence=   (or ?leaf=, several times) the file that `coflex verify` reads
    GET  /v1/{tenant}/live?point=    last values (several times)
    GET  /ready, /healthz, /metrics

Who may send and see is told by bearer tokens, where the operator gave a table of them; without it anybody may send, as
messages are signed, and only this machine may read what was measured. A checkpoint and a proof tell nothing of that.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coflex.adapters.web.api.problems import Malformed, NotSignedIn, WrongMediaType, answer, install
from coflex.adapters.web.metrics import from_here
from coflex.domain.errors import CoflexError, Finding, Forbidden, NotFound
from coflex.metering.admission import REFUSALS, Answer, Outcome, Part
from coflex.service.sequencer import Unavailable

MEDIA_TYPE = "application/vnd.coflex.messages"
_MOST_ASKED = 1_000
Owners = frozenset[str] | None


class Counted(Protocol):
    """What the ingest counts."""

    messages: Mapping[str, int]
    gaps: int
    values: int
    commits: int
    waits: list[int]
    seconds: float


class Room(Protocol):
    """The ingest, as far as this door needs it; leaves are numbered from 0."""

    @property
    def origin(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def buckets(self) -> Sequence[float]: ...
    @property
    def counts(self) -> Counted: ...
    def submit(self, parts: Sequence[Part]) -> Future[Answer]: ...
    def now(self) -> int:
        """The ingest's clock, ms since the epoch."""
        ...

    def note(self) -> str: ...
    def cosigned(self) -> str:
        """The newest checkpoint that all witnesses cosigned, empty where there is none."""
        ...

    def key(self) -> str: ...
    def size(self) -> int: ...
    def waiting(self) -> int: ...
    def trouble(self) -> str:
        """Why nothing is taken, empty where all is well."""
        ...

    def find(self, point: int, sequence: int) -> int | None: ...
    def owner(self, leaf: int) -> str:
        """Whose message it is. Raises NotFound."""
        ...

    def inclusion(self, leaf: int, size: int) -> list[bytes]: ...
    def consistency(self, old: int, new: int) -> list[bytes]: ...
    def certificate(self, leaves: Sequence[int], older: Sequence[int]) -> bytes: ...
    def live(self, points: Sequence[int], owners: Owners) -> list[Any]: ...


class Senders:
    """Who sends and reads, by bearer token: SHA-256 of the token, hexadecimal, to the owners it speaks for.

    An owner "*" is all of them. Without a table everybody is nobody in particular.
    """

    def __init__(self, owners: Mapping[str, frozenset[str]] | None = None) -> None:
        self._owners = owners

    def sending(self, request: Request) -> Owners:
        """Whose points a request may bring, None for all. Raises NotSignedIn."""
        return None if self._owners is None else self._known(request)

    def reading(self, request: Request) -> Owners:
        """Whose measurements a request may see, None for all. Raises NotSignedIn, Forbidden."""
        if self._owners is not None:
            return self._known(request)
        if not from_here(request):
            raise Forbidden("What was measured is told on this machine alone.", "Ask the operator for a token.")
        return None

    def _known(self, request: Request) -> Owners:
        assert self._owners is not None
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        owners = self._owners.get(hashlib.sha256(token.strip().encode()).hexdigest())
        if kind.lower() != "bearer" or owners is None:
            raise NotSignedIn("The token is missing or unknown.", "Send Authorization: Bearer with your token.")
        return None if "*" in owners else owners


def application(room: Room, senders: Senders) -> Starlette:
    """The door as an ASGI application."""
    door = _Door(room, senders)
    app = Starlette(
        routes=[
            Route("/v1/{tenant}/measurements", door.take, methods=["POST"]),
            Route("/v1/{tenant}/live", door.live),
            Route("/checkpoint", door.checkpoint),
            Route("/key", door.key),
            Route("/proof", door.proof),
            Route("/certificate", door.certificate),
            Route("/ready", door.ready),
            Route("/healthz", door.alive),
            Route("/metrics", door.metrics),
        ]
    )
    install(app)
    return app


class Proofs:
    """What a log tells everybody: its checkpoint, its key, and proofs of both kinds."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def checkpoint(self, request: Request) -> Response:
        """The last one, or with `cosigned=1` the newest one that the witnesses cosigned. Raises NotFound."""
        note = self._room.cosigned() if request.query_params.get("cosigned") == "1" else self._room.note()
        if not note:
            raise NotFound("No witness has cosigned the log yet.", "Ask without 'cosigned', or later.")
        return PlainTextResponse(note, headers={"Cache-Control": "no-store"})

    async def key(self, _: Request) -> Response:
        return PlainTextResponse(self._room.key() + "\n")

    async def proof(self, request: Request) -> Response:
        """Of inclusion (`leaf`, or `point` and `sequence`; in `size`) or of consistency (`from`, `to`). Raises
        Malformed, NotFound."""
        if "from" in request.query_params:
            old, new = _number(request, "from"), _number(request, "to")
            proof = await self._proved(lambda: self._room.consistency(old, new), new)
            return _json({"origin": self._room.origin, "from": old, "to": new, "proof": proof})
        leaf = await self._leaf(request)
        size = _number(request, "size") if "size" in request.query_params else self._room.size()
        proof = await self._proved(lambda: self._room.inclusion(leaf, size), size)
        return _json({"origin": self._room.origin, "leaf": leaf, "size": size, "proof": proof})

    async def _leaf(self, request: Request) -> int:
        if "leaf" in request.query_params:
            return _number(request, "leaf")
        point, sequence = _number(request, "point"), _number(request, "sequence")
        leaf = await run_in_threadpool(self._room.find, point, sequence)
        if leaf is None:
            raise NotFound(f"Point {point} has no message {sequence} in the log.", "Ask for one that was acknowledged.")
        return leaf

    async def _proved(self, prove: Callable[[], list[bytes]], size: int) -> list[str]:
        if size > self._room.size():
            raise NotFound(f"The log has no size {size} yet.", "Ask for a size that a checkpoint has told.")
        try:
            return [b64encode(one).decode() for one in await run_in_threadpool(prove)]
        except ValueError:
            raise NotFound("The log of that size does not hold this.", "Ask for an earlier leaf or size.") from None


class _Door(Proofs):
    def __init__(self, room: Room, senders: Senders) -> None:
        super().__init__(room)
        self._senders = senders
        self._registry = CollectorRegistry()
        self._registry.register(IngestCounts(lambda: [room]))

    # ---------------------------------------------------------------- in

    async def take(self, request: Request) -> Response:
        self._here(request)
        owners = self._senders.sending(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != MEDIA_TYPE:
            raise WrongMediaType(f"A batch of messages is {MEDIA_TYPE}.", "Send it with that Content-Type.")
        future = self._room.submit([Part(await request.body(), owners)])
        told = await asyncio.wrap_future(future)
        body = told_of(self._room, told.outcomes[0], told.note)
        return Response(msgspec.json.encode(body), media_type="application/json", headers={"Cache-Control": "no-store"})

    # ---------------------------------------------------------------- out

    async def live(self, request: Request) -> Response:
        self._here(request)
        owners = self._senders.reading(request)
        values = self._room.live(numbers(request, "point"), owners)
        return _json([value._asdict() for value in values])

    async def certificate(self, request: Request) -> Response:
        owners = self._senders.reading(request)
        leaves = numbers(request, "leaf") or [await self._leaf(request)]
        older = numbers(request, "older")

        def made() -> bytes:
            if owners is not None and any(self._room.owner(leaf) not in owners for leaf in leaves):
                raise NotFound("There is no such message here.", "Ask with the token of the point's owner.")
            return self._room.certificate(leaves, older)

        return Response(await run_in_threadpool(made), media_type="application/json")

    async def ready(self, _: Request) -> Response:
        trouble = self._room.trouble()
        if trouble:
            return answer(Unavailable(trouble, "Ask again in a second; the operator's log says more when it lasts."))
        return _json({"status": "ok", "size": self._room.size()})

    async def alive(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        if not from_here(request):
            return answer(Forbidden("The metrics are for this machine alone.", "Scrape them here, or by a tunnel."))
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    # ---------------------------------------------------------------- helpers

    def _here(self, request: Request) -> None:
        if request.path_params["tenant"] != self._room.tenant:
            raise NotFound("There is no such tenant here.", "Send to the tenant that this log is of.")


def told_of(room: Room, outcome: Outcome, note: str) -> dict[str, Any]:
    """What the sender of a batch is told."""
    refused = [
        {"place": one.place, "code": one.code, "message": one.message, "point": one.signer, "sequence": one.sequence}
        for one in outcome.refused
    ]
    return {
        "received": outcome.received,
        "accepted": outcome.accepted,
        "duplicates": outcome.duplicates,
        "refused": refused,
        "gaps": [{"point": gap.point, "from": gap.first, "to": gap.last} for gap in outcome.gaps],
        "through": {str(signer): sequence for signer, sequence in outcome.through.items()},
        "open": {str(signer): [list(gap) for gap in gaps] for signer, gaps in outcome.open.items()},
        "at": room.now(),
        "log": {"origin": room.origin, "first": outcome.first, "last": outcome.last},
        "checkpoint": note,
    }


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers={"Cache-Control": "no-store"})


def _number(request: Request, name: str) -> int:
    """Raises Malformed where it is missing or no number."""
    return _numbered(name, request.query_params.get(name, ""))


def numbers(request: Request, name: str) -> list[int]:
    """Raises Malformed where one is no number, or they are too many."""
    given = request.query_params.getlist(name)
    if len(given) > _MOST_ASKED:
        raise Malformed("The request", [Finding(name, "too_many", f"Give {name} at most {_MOST_ASKED} times.")])
    return [_numbered(name, one) for one in given]


def _numbered(name: str, given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise Malformed("The request", [Finding(name, "no_number", f"Give {name} as a number of at most 18 digits.")])
    return int(given)


class IngestCounts(Collector):
    """What is counted of each log, by tenant, read when somebody asks. `rooms`: those that are open then."""

    def __init__(self, rooms: Callable[[], Sequence[Room]]) -> None:
        self._rooms = rooms

    def collect(self) -> Iterator[Metric]:
        rooms = self._rooms()
        refused = CounterMetricFamily(
            "coflex_ingest_refused", "Messages refused, by reason.", labels=["tenant", "code"]
        )
        for room in rooms:
            for code in REFUSALS:
                refused.add_metric([room.tenant, code], room.counts.messages.get(code, 0))
        yield refused
        of_room: tuple[tuple[type[Metric], str, str, Callable[[Room], float]], ...] = (
            (CounterMetricFamily, "accepted", "Messages taken, durable and under a checkpoint.", _accepted),
            (CounterMetricFamily, "readings", "Values in them.", lambda room: room.counts.values),
            (CounterMetricFamily, "gaps", "Gaps in sequences that were named.", lambda room: room.counts.gaps),
            (
                CounterMetricFamily,
                "commits",
                "Commits, each a sync and a checkpoint.",
                lambda room: room.counts.commits,
            ),
            (GaugeMetricFamily, "log_size", "Leaves of the log.", lambda room: room.size()),
            (GaugeMetricFamily, "waiting_bytes", "Bytes not durable yet.", lambda room: room.waiting()),
            (GaugeMetricFamily, "alarm", "1 while nothing is taken.", lambda room: bool(room.trouble())),
        )
        for kind, name, what, value in of_room:
            family: Any = kind(f"coflex_ingest_{name}", what, labels=["tenant"])  # type: ignore[call-arg]
            for room in rooms:
                family.add_metric([room.tenant], value(room))
            yield family
        waits = HistogramMetricFamily(
            "coflex_ingest_seconds", "From receipt of a message to its checkpoint.", labels=["tenant"]
        )
        for room in rooms:
            total, buckets = 0, []
            for bound, many in zip([*map(str, room.buckets), "+Inf"], list(room.counts.waits), strict=True):
                total += many
                buckets.append((bound, total))
            waits.add_metric([room.tenant], buckets, room.counts.seconds)
        yield waits


def _accepted(room: Room) -> float:
    return room.counts.messages.get("accepted", 0)


def of_file(rows: Sequence[Sequence[str]]) -> Senders:
    """A table of senders from rows of (SHA-256 of a token, owner). Raises CoflexError where a row is none."""
    owners: dict[str, set[str]] = {}
    for row in rows:
        if len(row) != 2 or len(row[0]) != 64:
            raise CoflexError("A row of the senders is none.", "Write the SHA-256 of a token and an owner in each row.")
        owners.setdefault(row[0].lower(), set()).add(row[1])
    return Senders({digest: frozenset(some) for digest, some in owners.items()})
