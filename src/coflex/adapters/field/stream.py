"""The JetStream door of the ingest: messages in from a stream of NATS, the step up from one broker.

Gateways publish on `coflex.<tenant>.m.<point>` and have the stream's word (PubAck) that a message is stored: with
`sync_interval: always` in the server's settings (NATS 2.10) on its disk, with replicas on several. The ingest takes
from the stream what is new and acknowledges it when it is durable in its own log or refused, so what a killed ingest
had not written comes again. Devices are told on `coflex.<tenant>.a.<point>`, in the words of `broker`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from coflex.adapters.field.passing import Passing, Taking, point_of, utc_ms
from coflex.domain.errors import CoflexError

BATCH, MOST_PENDING = 2_048, 8_192
WAIT_S, ACK_WAIT_S, AGAIN_S, CONNECT_S = 1.0, 60.0, 0.5, 10.0
DURABLE = "ingest"


class StreamDoor:
    """The door on the running loop. `url`: nats://user:password@host:4222, or tls://. `failed`: told of faults."""

    def __init__(
        self,
        intake: Taking,
        tenant: str,
        url: str,
        owner_of: Callable[[int], str | None],
        failed: Callable[[BaseException], None] = lambda fault: None,
        now: Callable[[], int] = utc_ms,
    ) -> None:
        self._passing = Passing(intake, owner_of, failed, now)
        self._tenant, self._url, self._failed = tenant, check_url(url), failed
        self._task: asyncio.Task[None] | None = None
        self.connected = False
        self.strangers = 0
        """Messages on subjects that are no point's; they are dropped."""

    @property
    def name(self) -> str:
        """Of the stream."""
        return f"coflex-{self._tenant}"

    async def open(self) -> None:
        """Begin; the server may come later."""
        self._task = asyncio.create_task(self._stay())

    async def close(self) -> None:
        """Stop taking messages. What is not acknowledged to the stream yet, it keeps for the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _stay(self) -> None:
        """Connected, again and again."""
        import nats

        while True:
            client = None
            try:
                async with asyncio.timeout(CONNECT_S):
                    client = await nats.connect(self._url, allow_reconnect=False, error_cb=self._told)
                await self._take(client)
            except asyncio.CancelledError:
                raise
            except Exception as fault:
                self._failed(fault)
            finally:
                self.connected = False
                if client is not None:
                    with suppress(Exception):
                        async with asyncio.timeout(2.0):
                            await client.close()
            await asyncio.sleep(AGAIN_S)

    async def _told(self, fault: Exception) -> None:
        self._failed(fault)

    async def _take(self, client: Any) -> None:
        """Take from the stream until the connection is lost. Raises what the client raises."""
        from nats.errors import TimeoutError as NothingNew
        from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
        from nats.js.errors import NotFoundError

        subjects, stream = f"coflex.{self._tenant}.m.*", client.jetstream()
        try:
            await stream.stream_info(self.name)
        except NotFoundError:
            await stream.add_stream(
                StreamConfig(
                    self.name, subjects=[subjects], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE
                )
            )
        config = ConsumerConfig(
            ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT_S, max_deliver=-1, max_ack_pending=MOST_PENDING
        )
        # What an ingest that was killed had taken comes again at once to a consumer made anew, else after ACK_WAIT_S.
        with suppress(NotFoundError):
            await stream.delete_consumer(self.name, DURABLE)
        taking = await stream.pull_subscribe(subjects, durable=DURABLE, stream=self.name, config=config)
        self.connected = True
        while client.is_connected:
            try:
                brought = await taking.fetch(BATCH, timeout=WAIT_S)
            except (NothingNew, TimeoutError):
                continue
            await self._pass_on(client, brought)

    async def _pass_on(self, client: Any, brought: Sequence[Any]) -> None:
        held = []
        for one in brought:
            point = point_of(one.subject.rpartition(".")[2])
            if point is None:
                self.strangers += 1
            else:
                held.append((point, bytes(one.data)))
        told = await self._passing.taken(held)
        for one in brought:
            await one.ack()
        for point, body in self._passing.answers(told):
            await client.publish(f"coflex.{self._tenant}.a.{point}", body)


def check_url(url: str) -> str:
    """The address of a NATS server. Raises CoflexError when it is none."""
    if not url.startswith(("nats://", "tls://")) or not url.partition("://")[2]:
        raise CoflexError("This is no address of a NATS server.", "Give --nats as nats://host:4222 or tls://host:4222.")
    return url
