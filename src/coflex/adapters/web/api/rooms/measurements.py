"""Measurements: messages of devices in, what became of them, and what may be seen of them out (ACT-02, CERT-01, 02).

Messages are signed by the devices; who sends them is a party all the same, and brings those of its own units and of
units it is the provider of. Values and certificates are for whoever may see a unit's data (`service.field.may_see`);
checkpoints, keys and proofs tell nothing of it and are for everybody.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.endpoints import PRIVATE
from coflex.adapters.web.api.incoming import (
    JSON,
    MOST_BYTES_AT_ONCE,
    caller,
    json_body,
    media_type,
    only_parameters,
    whole_body,
)
from coflex.adapters.web.api.operations import Parameter, Room, Special
from coflex.adapters.web.api.paging import bad_parameter
from coflex.adapters.web.api.problems import Malformed, WrongMediaType
from coflex.adapters.web.measurements import MEDIA_TYPE, Proofs, numbers
from coflex.adapters.web.measurements import Room as LogRoom
from coflex.domain.errors import Finding, Forbidden, NotFound
from coflex.domain.party import Role
from coflex.evidence.certificate import Certificate
from coflex.register.access import ClientScope
from coflex.register.activations import Regulation
from coflex.register.devices import DataScope
from coflex.register.market import SessionEntry
from coflex.service.field import may_see, seen_points, signed_for
from coflex.service.machine import decode, encode
from coflex.service.reading import record
from coflex.service.sequencer import Unavailable
from coflex.service.state import State
from coflex.service.who import Who

MOST_KW = 10_000_000
_SENDERS = frozenset({Role.ASSET_OWNER, Role.SERVICE_PROVIDER})


# ---------------------------------------------------------------- what is told


class Messages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed messages in base64, each as docs/measurements.md writes it; at most 8 MiB together."""

    messages: tuple[str, ...]


class RefusedMessage(msgspec.Struct, frozen=True):
    """A message that was not taken. `place`: which of the batch, from 0; `point`, `sequence`: as it told itself."""

    place: int
    code: str
    message: str
    point: int
    sequence: int


class Brought(msgspec.Struct, frozen=True):
    """What became of a batch; what is taken is durable and under the checkpoint.

    `through`: by point, the highest sequence known of it. `open`: by point, first and last of the sequences up to there
    that have not come. `gaps`: those that this batch opened. `log`: name of the log, numbers of the batch's leaves.
    `at`: the tenant's time, ms since the epoch. `set_points`: by point, signed set points that it has not acknowledged,
    in base64, oldest first.
    """

    received: int
    accepted: int
    duplicates: int
    refused: tuple[RefusedMessage, ...]
    gaps: tuple[dict[str, int], ...]
    through: dict[str, int]
    open: dict[str, tuple[tuple[int, int], ...]]
    at: int
    log: dict[str, Any]
    checkpoint: str
    set_points: dict[str, tuple[str, ...]]


class LiveReading(msgspec.Struct, frozen=True):
    """The last value of a quantity (number as docs/measurements.md lists them) at a point, in the quantity's unit;
    powers with injection positive. `at`: start of its interval."""

    point: int
    quantity: int
    at: datetime
    value: float


class LiveReadings(msgspec.Struct, frozen=True):
    """Last values of a unit."""

    items: tuple[LiveReading, ...]


class FieldSettings(msgspec.Struct, frozen=True):
    """What a device has to know of the platform. `signer`, `key`: whose signature set points bear, Ed25519 in 64
    hexadecimal digits. `origin`: of the tenant's log. `mqtt`: whether a broker is connected to this platform."""

    tenant: str
    signer: int
    key: str
    origin: str
    mqtt: bool


class Signal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a regulated group from now on, kW, injection positive. It holds for `seconds`."""

    kw: float
    seconds: float = 12.0


class Signalled(msgspec.Struct, frozen=True):
    """The signal that left. `group`: number of the stream; `sequence`: of the signed message; `kw`: as it was cut to
    the band."""

    group: int
    sequence: int
    kw: float


# ---------------------------------------------------------------- the port


class Field(Protocol):
    """The field of each tenant, as far as this door needs it."""

    async def room(self, tenant: str) -> LogRoom:
        """The tenant's log, opened when it is not. Raises Unavailable where it cannot be."""
        ...

    async def take(self, tenant: str, payload: bytes, party: str) -> dict[str, Any]:
        """Take a batch; what its sender is told (see `Brought`). Raises Unavailable."""
        ...

    async def certificate(
        self,
        tenant: str,
        points: Sequence[int],
        orders: Sequence[int],
        start: datetime,
        end: datetime,
        older: Sequence[int],
    ) -> bytes:
        """Certificate of the messages that these points signed in [start, end), and of set points of these sequences,
        with proofs from these sizes of the log. Raises NotFound, Refused (too many)."""
        ...

    async def outcome(self, tenant: str, session: str, older: Sequence[int]) -> bytes:
        """Certificate of a session's published result, with proofs from these sizes of the log. Raises NotFound."""
        ...

    async def signal(self, tenant: str, regulation: Regulation, kw: float, seconds: float) -> tuple[int, int, float]:
        """Send a regulation signal: group, sequence, kW as cut. Raises Unavailable where no broker is connected."""
        ...

    def platform(self, tenant: str) -> FieldSettings: ...


class NoField:
    """A platform that takes no measurements."""

    async def room(self, tenant: str) -> LogRoom:
        raise _nothing()

    async def take(self, tenant: str, payload: bytes, party: str) -> dict[str, Any]:
        raise _nothing()

    async def certificate(
        self,
        tenant: str,
        points: Sequence[int],
        orders: Sequence[int],
        start: datetime,
        end: datetime,
        older: Sequence[int],
    ) -> bytes:
        raise _nothing()

    async def outcome(self, tenant: str, session: str, older: Sequence[int]) -> bytes:
        raise _nothing()

    async def signal(self, tenant: str, regulation: Regulation, kw: float, seconds: float) -> tuple[int, int, float]:
        raise _nothing()

    def platform(self, tenant: str) -> FieldSettings:
        raise _nothing()


def _nothing() -> Unavailable:
    return Unavailable("This platform takes no measurements.", "Ask its operator.")


# ---------------------------------------------------------------- in


async def _take(field: Field, desk: Desk, request: Request) -> Response:
    who = await caller(desk, request, ClientScope.WRITE)
    only_parameters(request, ())
    if not who.roles & _SENDERS:
        raise Forbidden("Owners and providers bring measurements.", "Ask as one of them.")
    payload = await _batch(request)
    told = await field.take(who.tenant, payload, who.party)
    return Response(encode(told), media_type=JSON, headers={"Cache-Control": "no-store"})


async def _batch(request: Request) -> bytes:
    """The bytes of the messages. Raises Malformed, WrongMediaType, TooLarge."""
    media = media_type(request)
    if media == MEDIA_TYPE:
        return await whole_body(request, MOST_BYTES_AT_ONCE)
    if media != JSON:
        raise WrongMediaType(f"The body is of the type '{media}'.", f"Send {MEDIA_TYPE} or {JSON}.")
    form = decode(await json_body(request, most=MOST_BYTES_AT_ONCE), Messages)
    try:
        return b"".join(b64decode(one, validate=True) for one in form.messages)
    except ValueError:
        fault = Finding("messages", "base64", "A message is not in base64; write the bytes of each as RFC 4648 does.")
        raise Malformed("The request", [fault]) from None


async def _signal(field: Field, desk: Desk, request: Request) -> Response:
    who = await caller(desk, request, ClientScope.WRITE)
    only_parameters(request, ())
    form = decode(await json_body(request), Signal)
    regulation = record(desk.state(who.tenant), who, Regulation, request.path_params["regulation"])
    if regulation.buyer != who.party:
        raise Forbidden("The buyer of the regulation sends its signal.", "Ask as its buyer.")
    faults = []
    if not abs(form.kw) <= MOST_KW:
        faults.append(Finding("kw", "out_of_range", f"Give kW between -{MOST_KW} and {MOST_KW}."))
    if not 1 <= form.seconds <= 900:
        faults.append(Finding("seconds", "out_of_range", "A signal holds for 1 to 900 s; give that."))
    if faults:
        raise Malformed("The signal", faults)
    group, sequence, kw = await field.signal(who.tenant, regulation, form.kw, form.seconds)
    return Response(encode(Signalled(group, sequence, kw)), media_type=JSON, headers={"Cache-Control": "no-store"})


# ---------------------------------------------------------------- out


async def _settings(field: Field, desk: Desk, request: Request) -> Response:
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ())
    return Response(encode(field.platform(who.tenant)), media_type=JSON, headers=PRIVATE)


async def _live(field: Field, desk: Desk, request: Request) -> Response:
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ())
    state, now = desk.state(who.tenant), desk.now(who.tenant)
    unit = _seen(state, who, request, DataScope.LIVE, (now, now + datetime.resolution), now)
    numbers = seen_points(state, unit)
    values = (await field.room(who.tenant)).live(numbers, None) if numbers else []
    items = (LiveReading(one.point, one.quantity, _instant(one.at), one.value) for one in values)
    # A right that begins now shows nothing of before, though it may be the last value there is.
    seen = [
        one
        for one in items
        if may_see(state, who.party, unit, DataScope.LIVE, one.at, one.at + datetime.resolution, now)
    ]
    return Response(encode(LiveReadings(tuple(seen))), media_type=JSON, headers={"Cache-Control": "no-store"})


async def _certificate(field: Field, desk: Desk, request: Request) -> Response:
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ("from", "to", "older"))
    start, end = _time(request, "from"), _time(request, "to")
    if end <= start:
        raise bad_parameter("to", "It is not after 'from'; give a later one.")
    state, now = desk.state(who.tenant), desk.now(who.tenant)
    unit = _seen(state, who, request, DataScope.CERTIFIED, (start, end), now)
    orders = signed_for(state, unit, start, end)
    made = await field.certificate(who.tenant, seen_points(state, unit), orders, start, end, numbers(request, "older"))
    return Response(made, media_type=JSON, headers={"Cache-Control": "no-store"})


async def _outcome(field: Field, desk: Desk, request: Request) -> Response:
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ("older",))
    entry = record(desk.state(who.tenant), who, SessionEntry, request.path_params["session"])
    made = await field.outcome(who.tenant, entry.id, numbers(request, "older"))
    return Response(made, media_type=JSON, headers={"Cache-Control": "no-store"})


def _seen(
    state: State, who: Who, request: Request, scope: DataScope, of: tuple[datetime, datetime], now: datetime
) -> str:
    """The unit that is asked about. Raises NotFound where the caller may not see its data of that time."""
    unit = str(request.path_params["unit"])
    if not may_see(state, who.party, unit, scope, *of, now):
        raise NotFound(f"There is no unit '{unit}'.", "Check the id.")
    return unit


def _instant(ms: int) -> datetime:
    return datetime.fromisoformat("1970-01-01T00:00:00+00:00") + ms * (datetime.resolution * 1000)


def _time(request: Request, name: str) -> datetime:
    text = request.query_params.get(name, "")
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise bad_parameter(name, "It is no instant with an offset from UTC, as 2026-07-05T10:00:00Z; give one.")
    return at


async def _proofs(field: Field, what: str, desk: Desk, request: Request) -> Response:
    tenant = request.path_params["tenant"]
    if "authorization" in request.headers or "x-api-key" in request.headers:  # who says who it is must be it
        await caller(desk, request, ClientScope.READ)
    desk.state(tenant)
    only_parameters(request, _PARAMETERS.get(what, ()))
    proofs = Proofs(await field.room(tenant))
    answer: Callable[[Request], Awaitable[Response]] = getattr(proofs, what)
    return await answer(request)


_PARAMETERS = {"proof": ("leaf", "point", "sequence", "size", "from", "to"), "checkpoint": ("cosigned",)}
_NUMBER = {"type": "integer", "minimum": 0}
_INSTANT = {"type": "string", "format": "date-time"}


class Proof(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hashes in base64 (RFC 9162): of inclusion of `leaf` in `size`, or of consistency of the sizes `from` and `to`."""

    origin: str
    proof: tuple[str, ...]
    leaf: int | None = None
    size: int | None = None
    old: int | None = msgspec.field(default=None, name="from")
    new: int | None = msgspec.field(default=None, name="to")


def room(field: Field) -> Room:
    """The operations on the field of each tenant."""
    parameters = (
        Parameter("leaf", "Number of a message in the log, from 0.", _NUMBER),
        Parameter("point", "Or the point that signed it,", _NUMBER),
        Parameter("sequence", "and its sequence.", _NUMBER),
        Parameter("size", "Size of the log that the proof is for; the present one where it is left out.", _NUMBER),
        Parameter("from", "For a proof of consistency: the older size,", _NUMBER),
        Parameter("to", "and the newer one.", _NUMBER),
    )
    span = (
        Parameter("from", "Messages that were signed from here on", _INSTANT, required=True),
        Parameter("to", "until before here; at most 10,000.", _INSTANT, required=True),
    )
    older = Parameter(
        "older", "Size of a checkpoint that you kept: with a proof that the log goes on from it.", _NUMBER
    )
    cosigned = Parameter("cosigned", "1: the newest one that all witnesses cosigned.", {"enum": ["0", "1"]})
    return Room(
        "measurements",
        "Signed messages of devices, the log that they stand in, and what may be seen of them.",
        (
            Special(
                "POST", "/measurements", partial(_take, field),
                "Bring signed messages of devices; answered when they are durable and under a checkpoint.",
                "measurements_bring", {200: Brought}, body=Messages, also=(MEDIA_TYPE,), scope=ClientScope.WRITE,
                problems=(413, 415, 422),
            ),
            Special(
                "GET", "/measurements/checkpoint", partial(_proofs, field, "checkpoint"),
                "The last signed checkpoint of the log (C2SP tlog-checkpoint).", "get_checkpoint",
                {200: "text/plain"}, (cosigned,), public=True,
            ),
            Special(
                "GET", "/measurements/key", partial(_proofs, field, "key"),
                "The log's public key (C2SP signed-note).", "get_log_key", {200: "text/plain"}, public=True,
            ),
            Special(
                "GET", "/measurements/proof", partial(_proofs, field, "proof"),
                "A proof of inclusion or of consistency.", "get_proof", {200: Proof}, parameters, public=True,
            ),
            Special(
                "GET", "/field", partial(_settings, field), "What a device has to know of the platform.", "get_field",
                {200: FieldSettings},
            ),
            Special(
                "GET", "/units/{unit}/live", partial(_live, field), "Last values of a unit.", "get_live",
                {200: LiveReadings},
            ),
            Special(
                "GET", "/units/{unit}/certificate", partial(_certificate, field),
                "What a unit's devices signed and were ordered, with its proofs: the file that coflex verify reads.",
                "get_certificate", {200: Certificate}, (*span, older), problems=(422,),
            ),
            Special(
                "GET", "/sessions/{session}/certificate", partial(_outcome, field),
                "The published result of a session as it stands in the log: of each party's awards their digest.",
                "get_outcome_certificate", {200: Certificate}, (older,),
            ),
            Special(
                "POST", "/regulations/{regulation}/signal", partial(_signal, field),
                "Say what is asked of a regulated group from now on; to be sent again every 4 s.",
                "regulation_signal", {200: Signalled}, body=Signal, scope=ClientScope.WRITE, problems=(413, 415, 422),
            ),
        ),
    )  # fmt: skip
