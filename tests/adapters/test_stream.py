"""The JetStream door: what a stream has stored reaches the log once, whatever is killed in between."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest

from coflex.adapters.field.stream import check_url
from coflex.adapters.measurements.log import Log
from coflex.domain.errors import CoflexError
from support.measuring import ORIGIN, TENANT, Device, Ingest, start, write_points
from support.nats_server import NatsServer, nats_server


class Gateway:
    """Publishes what devices say until the stream has it, and hears what they are told."""

    def __init__(self, devices: list[Device], url: str) -> None:
        self.devices, self._url = devices, url
        self.sent: list[bytes] = []
        self.told: list[tuple[int, dict[str, Any]]] = []
        self._client: Any = None

    async def open(self) -> None:
        self._client = await nats.connect(self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
        await self._client.subscribe(f"coflex.{TENANT}.a.*", cb=self._hear)
        await self._client.flush()

    async def _hear(self, one: Any) -> None:
        self.told.append((int(one.subject.rpartition(".")[2]), json.loads(one.data)))

    async def say(self, device: Device, raw: bytes | None = None) -> None:
        """Publish a message; what the stream has not confirmed is published again."""
        raw = device.next(values=[1, 2], step=50) if raw is None else raw
        for _ in range(600):
            try:
                await self._client.jetstream().publish(f"coflex.{TENANT}.m.{device.point}", raw, timeout=1)
                break
            except Exception:  # the server is away
                await asyncio.sleep(0.02)
        self.sent.append(raw)

    async def close(self) -> None:
        await self._client.close()


async def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    for _ in range(round(seconds / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come")


def messages(folder: Path) -> list[bytes]:
    """All that a log holds."""
    log = Log(folder, ORIGIN)
    try:
        log.recover(lambda columns: None, lambda raws, at: None)
        return log.read(0, log.size)
    finally:
        log.close()


def fleet(count: int) -> list[Device]:
    from time import time_ns

    return [Device(point, start=time_ns() // 1_000_000 - 60_000, every=100) for point in range(1, count + 1)]


@pytest.mark.spec("CERT-01", "ACT-02")
def test_what_the_stream_stored_is_in_the_log_once_over_kills_of_ingest_and_server(
    tmp_path: Path,
) -> None:
    devices = fleet(5)
    points = write_points(devices, tmp_path / "points.csv")

    async def act(server: NatsServer, ingest: Ingest) -> Ingest:
        gateway = Gateway(devices, server.url)
        await gateway.open()
        stream = gateway._client.jetstream()
        for _ in range(500):  # the ingest makes it
            try:
                await stream.stream_info(f"coflex-{TENANT}")
                break
            except Exception:
                await asyncio.sleep(0.02)
        for round in range(4):
            for device in devices:
                for _ in range(4):
                    await gateway.say(device)
            if round == 1:
                ingest.kill()
                for device in devices:
                    await gateway.say(device)
                ingest = await asyncio.to_thread(start, points, tmp_path / "data", nats=server.url)
            if round == 2:
                server.kill()
                await asyncio.to_thread(server.start)
        forged = devices[0].next(secret=bytes(32))
        await gateway.say(devices[0], forged)
        last = {device.point: device.last for device in devices} | {1: devices[0].last - 1}
        await until(lambda: all(any(p == point and words["through"] >= sequence and not words["open"]
                                    for p, words in gateway.told) for point, sequence in last.items()))  # fmt: skip
        await until(lambda: any(one for _, words in gateway.told for one in words["refused"]))
        refused = {one["code"] for _, words in gateway.told for one in words["refused"]}
        assert refused == {"wrong_signature"}
        await gateway.close()
        found = Counter(messages_after(ingest))
        assert set(found) == set(gateway.sent) - {forged} and set(found.values()) == {1}
        return ingest

    def messages_after(ingest: Ingest) -> list[bytes]:
        assert ingest.stop() == 0
        return messages(tmp_path / "data")

    with nats_server(tmp_path / "stream") as server:
        ingest = start(points, tmp_path / "data", nats=server.url)
        try:
            ingest = asyncio.run(act(server, ingest))
        finally:
            ingest.kill()


def test_what_is_no_address_of_a_server_is_refused_with_a_next_step() -> None:
    with pytest.raises(CoflexError, match="--nats"):
        check_url("http://127.0.0.1")
