"""The MQTT door: durable acknowledgements, refusals told to whom they concern, and kills of broker and ingest."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from gmqtt import Client

from coflex.adapters.field.broker import Address, Door
from coflex.adapters.measurements.log import Log
from coflex.domain.errors import CoflexError
from coflex.metering.admission import Answer, Outcome, Part
from support.measuring import ORIGIN, TENANT, Device, Ingest, start, write_points
from support.mosquitto import Mosquitto, mosquitto

PATIENCE_S = 20.0


def soon() -> int:
    return time.time_ns() // 1_000_000


class Gateway:
    """Devices on one connection. A message is kept until it is acknowledged on its device's own topic; after every
    connection all that is kept is sent again, in order."""

    def __init__(self, devices: list[Device], port: int) -> None:
        self.devices = {device.point: device for device in devices}
        self.kept: dict[int, list[tuple[int, bytes]]] = {point: [] for point in self.devices}
        self.sent: list[bytes] = []
        self.told: list[tuple[int, dict[str, Any]]] = []
        self.connections = 0
        self._port = port
        self._client: Any = None

    async def open(self) -> None:
        self._client = Client(f"gateway-{next(iter(self.devices))}", clean_session=True)
        self._client.set_config({"reconnect_retries": -1, "reconnect_delay": 0.05})
        self._client.on_connect, self._client.on_message = self._connected, self._message
        await self._client.connect("127.0.0.1", self._port)

    async def close(self) -> None:
        await self._client.disconnect()

    def send(self, point: int, raw: bytes, topic: int | None = None) -> None:
        """Publish, where there is a connection."""
        if self._client.is_connected:
            name = point if topic is None else topic
            self._client.publish(f"coflex/{TENANT}/m/{name}", raw, qos=0)

    def measure(self, point: int) -> None:
        raw = self.devices[point].next(step=50, values=[3, 4])
        self.kept[point].append((self.devices[point].last, raw))
        self.sent.append(raw)
        self.send(point, raw)

    def again(self) -> None:
        for point, kept in self.kept.items():
            for _, raw in kept:
                self.send(point, raw)

    def _connected(self, client: Any, *_: Any) -> None:
        self.connections += 1
        for point in self.devices:
            client.subscribe(f"coflex/{TENANT}/a/{point}", qos=1)
        self.again()

    def _message(self, _: Any, topic: str, payload: bytes, *__: Any) -> int:
        point, words = int(topic.rpartition("/")[2]), json.loads(payload)
        self.told.append((point, words))
        missing = words.get("open", ())
        self.kept[point] = [
            (sequence, raw)
            for sequence, raw in self.kept[point]
            if sequence > words["through"] or any(first <= sequence <= last for first, last in missing)
        ]
        return 0

    async def until(self, what: Callable[[], bool], again: float = 3.0) -> None:
        """Wait; now and then send again what is kept."""
        last = began = time.monotonic()
        while not what():
            assert time.monotonic() - began < PATIENCE_S, (self.told[-5:], {p: len(k) for p, k in self.kept.items()})
            await asyncio.sleep(0.01)
            if time.monotonic() - last > again:
                last = time.monotonic()
                self.again()


def run(act: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await asyncio.wait_for(act(), 120)

    asyncio.run(whole())


def prepared(room: Path, count: int) -> tuple[list[Device], Path]:
    begin = soon() - 9 * 60_000
    devices = [Device(point, begin, owner=f"owner-{point % 2}", every=100) for point in range(1, count + 1)]
    return devices, write_points(devices, room / "points.csv")


def logged(data: Path) -> list[bytes]:
    log = Log(data, ORIGIN)
    log.recover(lambda state: None, lambda raws, at: None)
    try:
        return log.read(0, log.size)
    finally:
        log.close()


@pytest.mark.spec("CERT-01")
def test_messages_are_acknowledged_on_their_devices_topics_once_they_are_durable(tmp_path: Path) -> None:
    devices, points = prepared(tmp_path, 4)
    with mosquitto(tmp_path / "broker") as broker:
        here = start(points, tmp_path / "data", mqtt=f"mqtt://127.0.0.1:{broker.port}")

        async def act() -> None:
            gateway = Gateway(devices, broker.port)
            await gateway.open()
            for _ in range(20):
                for point in gateway.devices:
                    gateway.measure(point)
            await gateway.until(lambda: not any(gateway.kept.values()))
            del gateway.told[:]
            one, two, three = devices[:3]
            fourth = one.message(24, step=50, values=[1, 2])
            gateway.send(1, one.message(21, values=[10**9 + 1], step=50) + fourth)
            gateway.send(3, two.message(21, step=50, values=[1, 2]), topic=1)
            gateway.send(3, three.message(21, step=50, values=[1, 2], secret=bytes(32)))
            gateway.send(3, three.next(step=50, values=[1, 2]), topic=1)  # of the same owner: it may
            gateway.send(2, b"no message", topic=2)
            await gateway.until(lambda: len(_refused(gateway)) == 4 and _through(gateway, 3) == 21, again=1e9)
            found = {point: _of(gateway, point) for point in gateway.devices}
            assert _refused(gateway) == {
                (1, None, 21, "bad_value"),
                (1, 2, 21, "wrong_owner"),
                (3, None, 21, "wrong_signature"),
                (2, 0, 0, "bad_format"),
            }
            assert {words["through"] for words in found[1]} >= {24}
            # What names no signer is told to who sent it, by itself where it was handed over by itself.
            assert {str(words["open"]) for words in found[1] if words["through"]} == {"[[22, 23]]"}
            assert all(words["at"] >= devices[0].start for _, words in gateway.told)
            await gateway.close()

        with here.process:
            run(act)
            assert here.stop() == 0
        assert len(logged(tmp_path / "data")) == 82


def _of(gateway: Gateway, point: int) -> list[dict[str, Any]]:
    return [words for one, words in gateway.told if one == point]


def _through(gateway: Gateway, point: int) -> int:
    return max((words["through"] for words in _of(gateway, point)), default=0)


def _refused(gateway: Gateway) -> set[tuple[Any, ...]]:
    return {
        (point, one.get("signer"), one["sequence"], one["code"])
        for point, words in gateway.told
        for one in words["refused"]
    }


def test_a_fault_on_the_way_to_the_ingest_is_told_and_the_door_goes_on() -> None:
    class Taken:
        def submit(self, parts: Sequence[Part]) -> Future[Answer]:
            if parts[0].payload == b"bad":
                raise RuntimeError("a fault of the program")
            done: Future[Answer] = Future()
            done.set_result(Answer([Outcome(1, 1, 0, (), (), {}, {}, 0, 0)], ""))
            return done

    async def act() -> None:
        told: list[BaseException] = []
        door = Door(Taken(), TENANT, Address("nowhere", 1, False), str, "door", told.append)
        passing = asyncio.create_task(door._pass_on())
        bad = asyncio.create_task(door._message(None, f"coflex/{TENANT}/m/1", b"bad"))
        while not told:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(door._message(None, f"coflex/{TENANT}/m/1", b"good"), PATIENCE_S)
        assert [type(one) for one in told] == [RuntimeError]
        assert not bad.done(), "the broker has no word of it, and brings it again"
        for task in (bad, passing):
            task.cancel()
        await asyncio.gather(bad, passing, return_exceptions=True)

    run(act)


@pytest.mark.spec("CERT-01")
@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_kills_of_broker_and_ingest_lose_nothing_that_was_acknowledged(tmp_path: Path, kills: int) -> None:
    devices, points = prepared(tmp_path, 6)
    data, chance = tmp_path / "data", random.Random(kills)
    with mosquitto(tmp_path / "broker") as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        here = start(points, data, mqtt=url)

        async def act() -> None:
            gateway = Gateway(devices, broker.port)
            await gateway.open()
            stop = asyncio.Event()
            measuring = asyncio.create_task(_measure(gateway, stop))
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.1, 0.4))
                await asyncio.to_thread(_again, broker)
                await asyncio.sleep(chance.uniform(0.1, 0.4))
                await asyncio.to_thread(_restart, here, points, data, url)
            await asyncio.sleep(0.2)
            stop.set()
            await measuring
            await gateway.until(lambda: not any(gateway.kept.values()), again=0.5)
            assert gateway.connections > kills
            assert not any(words["refused"] for _, words in gateway.told)
            found.extend(gateway.sent)
            await gateway.close()

        found: list[bytes] = []
        try:
            run(act)
            assert here.stop() == 0
        finally:
            here.kill()
        assert len(found) > 50
        assert sorted(logged(data)) == sorted(found)


async def _measure(gateway: Gateway, stop: asyncio.Event) -> None:
    while not stop.is_set():
        for point in gateway.devices:
            gateway.measure(point)
        await asyncio.sleep(0.02)


def _again(broker: Mosquitto) -> None:
    broker.kill()
    broker.start()


def _restart(here: Ingest, points: Path, data: Path, url: str) -> None:
    here.kill()
    here.process = start(points, data, mqtt=url).process


def test_the_ingest_waits_for_a_broker_that_is_not_there_yet(tmp_path: Path) -> None:
    devices, points = prepared(tmp_path, 1)
    broker = Mosquitto(tmp_path / "broker")
    here = start(points, tmp_path / "data", mqtt=f"mqtt://127.0.0.1:{broker.port}")
    with here.process:
        assert here.post(devices[0].next())["accepted"] == 1, "the other door is open"
        broker.start()
        try:

            async def act() -> None:
                gateway = Gateway(devices, broker.port)
                await gateway.open()
                gateway.measure(1)
                await gateway.until(lambda: not any(gateway.kept.values()), again=0.5)
                await gateway.close()

            devices[0].start += 60_000
            run(act)
        finally:
            broker.kill()
        assert here.stop() == 0


def test_a_topic_with_a_number_that_is_none_is_left_out() -> None:
    async def act() -> None:
        door = Door(object(), TENANT, Address("nowhere", 1, False), str, "door")  # type: ignore[arg-type]
        for name in ("", "x", "٣", "-1", "9" * 5_000, "9" * 20, str(1 << 32)):
            assert await door._message(None, f"coflex/{TENANT}/m/{name}", b"") == 0
        assert door.strangers == 7

    asyncio.run(asyncio.wait_for(act(), 5))


def test_addresses_of_brokers() -> None:
    assert Address.parse("mqtt://here") == Address("here", 1883, False)
    assert Address.parse("mqtts://me:p%40ss@here:99") == Address("here", 99, True, "me", "p@ss")
    for url in ("http://here", "mqtt://", "here:1883", "mqtt://here:x"):
        with pytest.raises(CoflexError) as fault:
            Address.parse(url)
        assert "p@ss" not in str(fault.value)
