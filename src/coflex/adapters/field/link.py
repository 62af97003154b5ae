"""MQTT 5 between devices and the platform's broker: one connection for one device, or for many behind a concentrator.

The library is gmqtt, kept to what can be relied on. It can leave a lost connection for good when its own reconnect
fails (its issue 114), so every connection here is a client of its own and the loop here connects again, with a wait
that doubles and is drawn by chance, lest a city comes back in the same second. It confirms a message to the broker
before it was dealt with, unless told otherwise: here a set point is on the device's disk first.

    coflex/<tenant>/m/<point>  up    messages            coflex/<tenant>/s/<point>  down  set points
    coflex/<tenant>/n/<point>  up    state, retained     coflex/<tenant>/a/<point>  down  durable acknowledgements
                                                         coflex/<tenant>/r/<group>  down  regulation signal
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from coflex.adapters.field.author import Acknowledged, Courier, Tell, is_number
from coflex.adapters.field.buffer import NoRoom
from coflex.adapters.field.clock import Clock
from coflex.domain.errors import CoflexError
from coflex.json_text import loads

if TYPE_CHECKING:
    from gmqtt import Client

# Publications that the broker has not confirmed; brokers allow 20 by default.
_IN_FLIGHT = 8
_CONNECT_S = 15.0
_FIRST_WAIT_S = 1.0
_SUBSCRIBED_AT_ONCE = 100
_LOOK_S = 1.0
_NOTICE_MS = 60_000
# What a notice says that is told as soon as it changes.
_CHANGES = ("told", "lost", "doubtful", "set_point", "cut")
_NEVER_AGAIN = -2  # reconnects of gmqtt itself; -1 is for ever
# MQTT 5, 3.14.2.1: who leaves like this lets the broker say so by the will.
_WITH_WILL = 4

_silent = logging.getLogger("coflex.gmqtt")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and who we are there. `tls`: None for a connection in the clear."""

    host: str
    port: int
    client_id: str
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = None
    session_expiry_s: int = 86_400
    keepalive_s: int = 30
    longest_wait_s: float = 60.0


class Station(Protocol):
    """A device behind the connection."""

    @property
    def point(self) -> int: ...

    @property
    def group(self) -> int | None: ...

    @property
    def courier(self) -> Courier: ...

    def order(self, raw: bytes) -> object:
        """A message on its channel of set points came. What is raised leaves it unconfirmed."""
        ...

    def signal(self, raw: bytes) -> object: ...

    def notice(self) -> dict[str, Any]:
        """Its state, for the platform; short."""
        ...


class MqttLink:
    """Keeps stations connected until it is cancelled. `chance`: what the waits are drawn from."""

    def __init__(
        self, broker: Broker, tenant: str, stations: Sequence[Station], clock: Clock, chance: Random, tell: Tell
    ) -> None:
        self._broker, self._tenant, self._clock = broker, tenant, clock
        self._chance, self._tell = chance, tell
        self._stations = {one.point: one for one in stations}
        self._groups: dict[int, list[Station]] = {}
        for one in stations:
            if one.group is not None:
                self._groups.setdefault(one.group, []).append(one)
        self._ready = dict.fromkeys(self._stations)
        self._wake = asyncio.Event()
        self._lost = asyncio.Event()
        self._fault: CoflexError | None = None
        self._most = _IN_FLIGHT
        self._unconfirmed: Callable[[], int] = int
        self._noticed: dict[str, Any] = {}
        self._noticed_at = 0
        self.connections = 0
        self.connected = False

    def poke(self, point: int) -> None:
        """A device has something new to send."""
        self._ready[point] = None
        self._wake.set()

    async def run(self) -> None:
        """Connect, send and listen, again and again. Raises CoflexError when a device's disk fails."""
        tries = 0
        while True:
            try:
                client = await self._connect()
            except (OSError, TimeoutError, ssl.SSLError, ConnectionError, CoflexError) as fault:
                self._tell(
                    "not_connected", f"No connection to {self._broker.host}:{self._broker.port}: {_told(fault)}."
                )
            else:
                tries = 0
                try:
                    await self._serve(client)
                finally:
                    self.connected = False
                    await self._leave(client)
                self._tell("connection_lost", f"The connection to {self._broker.host} is lost; it is tried again.")
            wait = min(self._broker.longest_wait_s, _FIRST_WAIT_S * 2**tries) * self._chance.uniform(0.5, 1.0)
            tries = min(tries + 1, 16)
            await asyncio.sleep(wait)

    # ------------------------------------------------------------ a connection

    async def _connect(self) -> Client:
        from gmqtt import Client, Message
        from gmqtt.mqtt.handler import MQTTConnectError
        from gmqtt.storage import PersistentStorage

        broker = self._broker
        points = list(self._stations)
        will = Message(self._topic("n", points[0]), {"online": False}, qos=1, retain=True) if len(points) == 1 else None
        client = Client(
            broker.client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            will_message=will,
            persistent_storage=(storage := PersistentStorage()),
            logger=_silent,
            session_expiry_interval=broker.session_expiry_s,
        )
        client.set_config({"reconnect_retries": _NEVER_AGAIN})
        if broker.username is not None:
            client.set_auth_credentials(broker.username, broker.password)
        self._lost = asyncio.Event()
        lost = self._lost
        client.on_disconnect = lambda *_: lost.set()
        client.on_message = self._heard
        client.on_subscribe = self._subscribed
        self._unconfirmed = lambda: len(storage.get_all())
        client.on_connect = self._allowed
        try:
            await self._signed_in(client)
        except MQTTConnectError as fault:
            await self._leave(client)
            raise CoflexError(str(fault), "Look at user, password and rights.") from fault
        except BaseException:
            await self._leave(client)
            raise
        return client

    async def _signed_in(self, client: Client) -> None:
        """Wait for the broker's word. gmqtt waits for ever when the connection is closed before it comes."""
        broker = self._broker
        signing = asyncio.create_task(
            client.connect(broker.host, broker.port, ssl=broker.tls or False, keepalive=broker.keepalive_s)
        )
        lost = asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({signing, lost}, timeout=_CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():  # a refusal and the end of the connection come together
                await asyncio.wait({signing}, timeout=0.2)
            if not signing.done():
                raise ConnectionError("the broker closed it" if lost.done() else "the broker does not answer")
            signing.result()
        finally:
            for one in (signing, lost):
                one.cancel()
            await asyncio.gather(signing, lost, return_exceptions=True)

    async def _serve(self, client: Client) -> None:
        """Send what is ready until the connection is lost."""
        self._subscribe(client)
        now = self._clock.monotonic_ms()
        for one in self._stations.values():
            one.courier.connected(now)
            self._ready[one.point] = None
        self.connections += 1
        self.connected = True
        self._tell("connected", f"Connected to {self._broker.host}:{self._broker.port}.")
        for one in self._stations.values():
            self._notice(client, one.point, one.notice())
        while not self._lost.is_set() and self._fault is None:
            self._wake.clear()
            self._send(client)
            self._tell_changes(client)
            await self._pause()
        if self._fault is not None:
            raise self._fault

    async def _pause(self) -> None:
        """Until there is something to do."""
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._lost.wait())]
        try:
            await asyncio.wait(waits, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if not self._wake.is_set():
            self._ready.update(dict.fromkeys(self._stations))  # patience may have ended

    def _send(self, client: Client) -> None:
        """Give the connection as much as the broker confirms at once; the rest waits for its confirmations."""
        while self._ready:
            if self._unconfirmed() >= self._most:
                asyncio.get_running_loop().call_later(0.02, self._wake.set)
                return
            point = next(iter(self._ready))
            batch = self._stations[point].courier.next(self._clock.monotonic_ms())
            if batch:
                client.publish(self._topic("m", point), batch, qos=1)
            else:
                del self._ready[point]

    def _notice(self, client: Client, point: int, told: dict[str, Any]) -> bool:
        free = self._unconfirmed() < self._most
        if free:
            body = json.dumps({"online": True, **told}, separators=(",", ":"))
            client.publish(self._topic("n", point), body, qos=1, retain=True)
        return free

    def _tell_changes(self, client: Client) -> None:
        """A device of its own connection says at once what has changed, else how it is once a minute."""
        if len(self._stations) > 1:
            return
        (one,), now = self._stations.values(), self._clock.monotonic_ms()
        told = one.notice()
        changes = {name: told.get(name) for name in _CHANGES}
        due = changes != self._noticed or now - self._noticed_at >= _NOTICE_MS
        if due and self._notice(client, one.point, told):
            self._noticed, self._noticed_at = changes, now

    async def _leave(self, client: Client) -> None:
        """End a connection, whatever state it is in."""
        with suppress(Exception):
            async with asyncio.timeout(2.0):
                await client.disconnect(reason_code=_WITH_WILL)

    # ------------------------------------------------------------ what comes down

    def _subscribe(self, client: Client) -> None:
        from gmqtt import Subscription

        topics = [self._topic(kind, point) for kind in ("a", "s") for point in self._stations]
        topics += [self._topic("r", group) for group in self._groups]
        for first in range(0, len(topics), _SUBSCRIBED_AT_ONCE):
            client.subscribe([Subscription(one, qos=1) for one in topics[first : first + _SUBSCRIBED_AT_ONCE]])

    def _allowed(self, _client: Client, _flags: int, _code: int, properties: dict[str, Any]) -> None:
        most = properties.get("receive_maximum", [65_535])[0]
        self._most = max(1, min(_IN_FLIGHT, most // 2))

    def _subscribed(self, _client: Client, _mid: int, granted: Sequence[int], _properties: object) -> None:
        refused = sum(one >= 128 for one in granted)
        if refused:
            self._tell("not_allowed", f"The broker refuses {refused} subscriptions; give this user the right to them.")

    async def _heard(self, _client: Client, topic: str, payload: bytes, _qos: int, _properties: object) -> int:
        """A message from the broker. It is confirmed once this has returned."""
        kind, _, number = topic.removeprefix(f"coflex/{self._tenant}/").partition("/")
        try:
            self._take(kind, int(number), bytes(payload))
        except (ValueError, TypeError):
            self._tell("unreadable", f"What came on {topic} cannot be read; it is left out.")
        except NoRoom as fault:
            self._tell("no_room", str(fault))
            raise
        except CoflexError as fault:
            self._fault = fault
            self._wake.set()
            raise
        return 0

    def _take(self, kind: str, number: int, payload: bytes) -> None:
        if kind == "r":
            for one in self._groups.get(number, ()):
                one.signal(payload)
            return
        station = self._stations.get(number)
        if station is None:
            return
        if kind == "a":
            station.courier.answered(read_answer(payload), self._clock.monotonic_ms())
        elif kind == "s":
            station.order(payload)
        self.poke(number)

    def _topic(self, kind: str, number: int) -> str:
        return f"coflex/{self._tenant}/{kind}/{number}"


def read_answer(payload: bytes) -> Acknowledged:
    """A durable acknowledgement, as the ingest's door writes it:

        {"through": 17, "refused": [{"sequence": 16, "code": "bad_value"}], "missing": [[12, 13]], "at": ms}

    With `open` in the place of `missing`: all that has not come, and not what is newly missing alone. Raises ValueError
    on anything else.
    """
    told = loads(payload)
    if not isinstance(told, dict) or not is_number(told.get("through")):
        raise ValueError("no acknowledgement")
    refused = []
    for one in told.get("refused") or ():
        sequence, code = (one.get("sequence"), one.get("code")) if isinstance(one, dict) else (None, None)
        if isinstance(sequence, int) and isinstance(code, str):
            refused.append((sequence, code))
    gaps = None if "open" not in told else _gaps(told["open"])
    return Acknowledged(told["through"], tuple(refused), read_time(told.get("at")), _gaps(told.get("missing")), gaps)


def read_time(told: object) -> int | None:
    """A time in ms since the epoch, None where it is none that a message could bear."""
    return told if is_number(told) else None


def _gaps(told: Any) -> tuple[tuple[int, int], ...]:
    edges = [tuple(one) for one in told or ()]
    if any(len(one) != 2 or not all(isinstance(edge, int) for edge in one) for one in edges):
        raise ValueError("no list of first and last numbers")
    return tuple((int(first), int(last)) for first, last in edges)


def tls_context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, the broker's name checked. Raises CoflexError when a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as fault:
        raise CoflexError(f"The files of TLS cannot be used: {fault}.", "Give certificates and key as PEM.") from fault
    return context


def _told(fault: BaseException) -> str:
    return str(fault) or type(fault).__name__
