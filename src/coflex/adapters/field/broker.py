"""The MQTT door of the ingest: messages in on `coflex/<tenant>/m/<point>`, acknowledgements out on `.../a/<point>`.

MQTT 5. Messages come with QoS 1. The broker gets its own acknowledgement of a message only when the message is durable
or refused, so what a killed ingest had not written is brought to it again; and as it sends no more than `WINDOW`
messages ahead, a slow disk holds up the broker and nothing here grows. The device is told on its own topic:

    {"through": 17, "refused": [{"sequence": 16, "code": "bad_value", "message": "..."}], "open": [[12, 13]], "at": ms}

`through`: the highest sequence known of it. All up to there is durable or refused, but for what is `open`: sequences
that have not come, every time all of them. `at`: the ingest's clock.

gmqtt can leave a lost connection for good when its own reconnect fails (its issue 114): so each connection is a client
of its own, and the loop here connects again.
Acknowledgements go out with QoS 0: a device that misses one sends again, and is told again; so nothing is kept for
devices that are away, and the few messages in flight that brokers allow with QoS 1 do not hold up a city.
The sender is the point in the topic: it may bring messages of points of its own owner alone.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from coflex.adapters.field.passing import Passing, Taking, point_of, utc_ms
from coflex.domain.errors import CoflexError

WINDOW = 8_192
GATHER_S, RECONNECT_S, CONNECT_S, CONFIRM_S = 0.005, 0.5, 10.0, 10.0
# Brokers let 20 wait unless they say otherwise.
_MOST_UNCONFIRMED = 8
# As many tries to connect again as gmqtt is to make by itself: it makes one where it is told 0.
NEVER = -2
SESSION_S = 86_400


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is: `mqtt://user:password@host:port`, or `mqtts://` for TLS."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises CoflexError when the URL is none of a broker."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise CoflexError("This is no address of a broker.", "Give it as mqtt://host:1883 or mqtts://host:8883.")
        tls = parts.scheme == "mqtts"
        user, password = (None if one is None else unquote(one) for one in (parts.username, parts.password))
        return cls(parts.hostname, port or (8883 if tls else 1883), tls, user, password)


class Door:
    """The door on the running loop. `owner_of`: the owner of a point, None where it is not registered. `now`: the
    ingest's clock, ms since the epoch.

    `client`: the name under which the broker keeps the session while this is away.
    """

    def __init__(
        self,
        intake: Taking,
        tenant: str,
        address: Address,
        owner_of: Callable[[int], str | None],
        client: str,
        failed: Callable[[BaseException], None] = lambda fault: None,
        now: Callable[[], int] = utc_ms,
    ) -> None:
        self._passing = Passing(intake, owner_of, failed, now)
        self._tenant, self._address, self._failed = tenant, address, failed
        self._name = client
        self._context = ssl.create_default_context() if address.tls else False
        self._client: Any = None
        self._sent: Any = None
        """What the broker has not confirmed, of the connection there is."""
        self._held: list[tuple[int, bytes]] = []
        self._written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._some = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.strangers = 0
        """Messages on topics that are no point's; they are dropped."""

    @property
    def connected(self) -> bool:
        return self._client is not None and bool(self._client.is_connected)

    async def open(self) -> None:
        """Begin; the broker may come later."""
        self._tasks = [asyncio.create_task(self._stay()), asyncio.create_task(self._pass_on())]

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Hand over (end of the topic, as "s/4711"; message) in their order, QoS 1, until the broker has confirmed all.

        Raises ConnectionError when it did not: then some may have left, and what is sent again comes twice.
        """
        for kind, body in messages:
            await self._room_for(_MOST_UNCONFIRMED)
            self._client.publish(f"coflex/{self._tenant}/{kind}", body, qos=1)
        await self._room_for(1)

    async def _room_for(self, most: int) -> None:
        """Wait until fewer than so many of ours are unconfirmed."""
        client, end = self._client, asyncio.get_running_loop().time() + CONFIRM_S
        while self.connected and client is self._client and len(self._sent.get_all()) >= most:
            if asyncio.get_running_loop().time() > end:
                break
            await asyncio.sleep(0.005)
        if not self.connected or client is not self._client or len(self._sent.get_all()) >= most:
            raise ConnectionError("the broker did not confirm what was sent")

    async def close(self) -> None:
        """Stop taking messages. What is not acknowledged to the broker yet, it keeps for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._written.cancel()

    # ---------------------------------------------------------------- the broker

    async def _stay(self) -> None:
        """Connected, again and again."""
        while True:
            lost = asyncio.Event()
            client = self._made(lost)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await client.connect(self._address.host, self._address.port, ssl=self._context)
                await lost.wait()
            except asyncio.CancelledError:
                raise
            except Exception as fault:
                self._failed(fault)
            finally:
                with suppress(Exception):
                    await client.disconnect()
            await asyncio.sleep(RECONNECT_S)

    def _made(self, lost: asyncio.Event) -> Any:
        from gmqtt import Client
        from gmqtt.storage import PersistentStorage

        self._sent = PersistentStorage()
        client = Client(
            self._name,
            clean_session=False,
            optimistic_acknowledgement=False,
            persistent_storage=self._sent,
            session_expiry_interval=SESSION_S,
            receive_maximum=WINDOW,
        )
        client.set_config({"reconnect_retries": NEVER})
        if self._address.user is not None:
            client.set_auth_credentials(self._address.user, self._address.password)
        client.on_connect, client.on_message = self._connected, self._message
        client.on_disconnect = lambda *_: lost.set()
        self._client = client
        return client

    def _connected(self, client: Any, *_: Any) -> None:
        client.subscribe(f"coflex/{self._tenant}/m/+", qos=1)

    async def _message(self, _: Any, topic: str, payload: bytes, *__: Any) -> int:
        """Its end is what the broker's acknowledgement waits for."""
        point = point_of(topic.rpartition("/")[2])
        if point is None:
            self.strangers += 1
            return 0
        self._held.append((point, bytes(payload)))
        self._some.set()
        await asyncio.shield(self._written)
        return 0

    # ---------------------------------------------------------------- to the ingest and back

    async def _pass_on(self) -> None:
        """Hand over what came together, in jobs that the ingest checks side by side and admits in this order."""
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            held, written = self._held, self._written
            self._held, self._written = [], asyncio.get_running_loop().create_future()
            self._some.clear()
            try:
                self._acknowledge(await self._passing.taken(held))
            except Exception as fault:  # the ingest broke: the broker keeps these, and brings them again
                self._failed(fault)
            else:
                written.set_result(None)

    def _acknowledge(self, told: dict[int, dict[str, Any]]) -> None:
        for point, body in self._passing.answers(told):
            try:
                self._client.publish(f"coflex/{self._tenant}/a/{point}", body, qos=0)
            except Exception as fault:  # not connected: the device sends again, and is told then
                self._failed(fault)
