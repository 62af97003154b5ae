"""Devices on a real broker: TLS, lost links, killed brokers, killed devices; what was signed arrives, once a number."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from gmqtt import Client

from coflex.adapters.field.author import Acknowledged, Courier
from coflex.adapters.field.buffer import Outbox
from coflex.adapters.field.clock import SystemClock
from coflex.adapters.field.disk import FolderCopy
from coflex.adapters.field.enrolment import enrol, read_key
from coflex.adapters.field.http_link import Door as HttpDoor
from coflex.adapters.field.http_link import HttpLink, answers
from coflex.device import run, show
from coflex.domain.errors import CoflexError
from coflex.evidence.keys import public_of, sign, verify
from coflex.evidence.message import Hop, Kind, SetPoint, Verdict, decode, decode_acknowledgement, seal, split
from support.command import coflex
from support.field import NOON, Bench, set_point
from support.forked import Forked
from support.mosquitto import PASSWORD, USER, Mosquitto, mosquitto

TENANT, POINT, PLATFORM_SEED = "city", 7, bytes(range(32, 64))


class Platform:
    """The other end: keeps what it gets, and acknowledges what is there. Only what tests ask of an ingest.

    `got`: by number. `clashes`: numbers that came with other bytes. `quiet`: nothing is acknowledged.
    """

    def __init__(self, port: int, public: bytes) -> None:
        self._port, self._public = port, public
        self.got: dict[int, bytes] = {}
        self.clashes: list[int] = []
        self.arrivals = 0
        self.quiet = False
        self.notices: list[dict[str, Any]] = []
        self.client: Any = None

    async def open(self) -> None:
        self.client = Client("platform", clean_session=True)
        self.client.set_config({"reconnect_delay": 0.1})
        self.client.on_message = self._heard
        self.client.on_connect = lambda client, *_: client.subscribe(f"coflex/{TENANT}/#", qos=1)
        await self.client.connect("127.0.0.1", self._port)

    async def close(self) -> None:
        await self.client.disconnect()

    def _heard(self, _client: object, topic: str, payload: bytes, *_: object) -> None:
        kind = topic.split("/")[2]
        if kind == "n":
            self.notices.append(json.loads(payload))
        if kind != "m":
            return
        messages, end = split(payload)
        assert end == len(payload)
        for raw in messages:
            one = decode(raw)
            assert verify(self._public, one.signed, one.signature) and one.signer == POINT
            self.arrivals += 1
            if self.got.setdefault(one.sequence, raw) != raw:
                self.clashes.append(one.sequence)
        if not self.quiet:
            self.acknowledge()

    @property
    def through(self) -> int:
        return max(self.got, default=0)

    def acknowledge(self) -> None:
        missing = [[number, number] for number in range(1, self.through) if number not in self.got]
        told = {"through": self.through, "refused": [], "missing": missing}
        self.client.publish(f"coflex/{TENANT}/a/{POINT}", json.dumps(told), qos=1)

    def order(
        self, sequence: int, starts: int, ends: int, power_w: int, seed: bytes = PLATFORM_SEED, stops: bool = False
    ) -> None:
        body = SetPoint(POINT, bytes(16), starts, ends, power_w, 0, stops).encode()
        raw = seal(lambda data: sign(seed, data), Kind.SET_POINT, 1, sequence, starts, body)
        self.client.publish(f"coflex/{TENANT}/s/{POINT}", raw, qos=1)

    @property
    def acknowledged(self) -> list[tuple[int, Hop, Verdict]]:
        kinds = [decode(raw) for _, raw in sorted(self.got.items())]
        told = [decode_acknowledgement(one.body) for one in kinds if one.kind is Kind.ACKNOWLEDGEMENT]
        return [(one.of_sequence, one.hop, one.verdict) for one in told]


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    for _ in range(round(seconds / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not happen")


def configured(folder: Path, broker: Mosquitto, **more: Any) -> Path:
    """A device's configuration: a message of two readings every 0.2 s."""
    if not (folder / "state" / "key").exists():
        enrol(folder / "state", POINT, "unit", "owner")
    (folder / "password").write_text(PASSWORD)
    certificate, key = broker.authority.issue("device")
    tls = {"ca": str(broker.authority.ca), "certificate": str(certificate), "key": str(key)}
    told = {
        "tenant": TENANT,
        "point": POINT,
        "unit": "unit",
        "owner": "owner",
        "state": "state",
        "platform": {"signer": 1, "key": public_of(PLATFORM_SEED).hex()},
        "link": {"mqtt": {"host": "127.0.0.1", "port": broker.tls_port, "tls": tls,
                          "username": USER, "password_file": "password", "longest_wait_s": 0.2}},
        "meter": {"simulated": {"base_kw": 3.0, "ramp_kw_per_s": 100.0}},
        "limits": {"min_kw": -10, "max_kw": 10},
        "series": [{"quantity": "active_power", "step_s": 0.1, "count": 2}],
        "sample_s": 0.1,
    }  # fmt: skip
    path = folder / "device.yaml"
    path.write_text(yaml.safe_dump(told | more))
    return path


def run_device(tell: Any, config: str) -> None:
    """A device in a process of its own."""

    def said(code: str, text: str) -> None:
        tell((code, text))

    run(Path(config), said)


def with_broker(folder: Path, act: Callable[[Mosquitto, Platform, Path], Awaitable[None]], **more: Any) -> None:
    """A broker, a platform on it, and the configuration of a device."""

    async def on(broker: Mosquitto) -> None:
        config = configured(folder, broker, **more)
        platform = Platform(broker.port, public_of(read_key(folder / "state")))
        await platform.open()
        try:
            await asyncio.wait_for(act(broker, platform, config), 300)
        finally:
            await platform.close()

    with mosquitto(folder / "broker") as broker:
        asyncio.run(on(broker))


def complete(platform: Platform) -> bool:
    return sorted(platform.got) == list(range(1, platform.through + 1))


def buffered(state: Path) -> dict[int, bytes]:
    """What is on the disk of a device that does not run."""
    outbox = Outbox(FolderCopy(state / "buffer"), 1 << 30)
    assert outbox.damaged == 0 and outbox.lost == ()
    return dict(outbox._pending)


# ---------------------------------------------------------------- one device


@pytest.mark.spec("ACT-01", "ACT-02", "CERT-01")
def test_a_device_measures_follows_and_acknowledges_over_tls(tmp_path: Path) -> None:
    async def act(broker: Mosquitto, platform: Platform, config: Path) -> None:
        with Forked(run_device, str(config)) as device:
            await until(lambda: len(platform.got) >= 4)
            with pytest.raises(CoflexError, match="Another process runs from"):
                await asyncio.to_thread(run, config, lambda code, text: None)
            shown = await asyncio.to_thread(show, tmp_path / "state")
            assert (shown.running, shown.point) == (True, POINT) and shown.last_sequence >= shown.acknowledged > 0
            now = decode(platform.got[1]).signed_at
            platform.order(11, now, now + 60_000, -2_000, seed=bytes(32))
            platform.order(12, now, now + 3_600_000, 5_000)
            await until(lambda: (12, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.TAKEN) in platform.acknowledged)
            platform.order(13, now, now, 0, stops=True)
            await until(lambda: (12, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.DONE) in platform.acknowledged)
            await asyncio.to_thread(device.signal, signal.SIGTERM)
            assert await asyncio.to_thread(device.ended) == 0
        await until(lambda: platform.notices[-1] == {"online": False}, 5.0)
        assert platform.acknowledged == [
            (12, Hop.LIGHT_NODE, Verdict.TAKEN),
            (12, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.TAKEN),
            (13, Hop.LIGHT_NODE, Verdict.TAKEN),
            (12, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.DONE),
        ]
        assert complete(platform) and not platform.clashes and buffered(tmp_path / "state") == {}
        notes = [one["code"] for notice in platform.notices for one in notice.get("told", ())]
        assert platform.notices[0]["online"] is True and "set_point_left_out" in notes
        assert show(tmp_path / "state").running is False

    with_broker(tmp_path, act)


def test_who_is_not_allowed_or_does_not_trust_the_broker_is_told_and_keeps_its_readings(tmp_path: Path) -> None:
    async def act(broker: Mosquitto, platform: Platform, config: Path) -> None:
        told = yaml.safe_load(config.read_text())
        (tmp_path / "password").write_text("another")
        with Forked(run_device, str(config)) as device:
            said = [await asyncio.to_thread(device.hear) for _ in range(2)]
            assert "Not authorized" in dict(said)["not_connected"] or "Bad User" in dict(said)["not_connected"]
        told["link"]["mqtt"]["tls"] = {}  # the machine's authorities do not know the broker's
        config.write_text(yaml.safe_dump(told))
        with Forked(run_device, str(config)) as device:
            said = [await asyncio.to_thread(device.hear) for _ in range(2)]
            assert "certificate verify failed" in dict(said)["not_connected"]
        told["link"]["mqtt"]["tls"] = {"ca": str(broker.authority.ca)}  # the broker asks for a certificate
        config.write_text(yaml.safe_dump(told))
        with Forked(run_device, str(config)) as device:
            said = [await asyncio.to_thread(device.hear) for _ in range(2)]
            assert "not_connected" in dict(said)
        assert platform.got == {}

    with_broker(tmp_path, act)


@pytest.mark.spec("ACT-02")
def test_the_brokers_word_is_not_enough_and_a_killed_broker_costs_nothing(tmp_path: Path) -> None:
    async def act(broker: Mosquitto, platform: Platform, config: Path) -> None:
        platform.quiet = True
        with Forked(run_device, str(config)) as device:
            await until(lambda: len(platform.got) >= 3)
            taken = dict(platform.got)
            device.kill()
        kept = await asyncio.to_thread(buffered, tmp_path / "state")
        assert taken.items() <= kept.items()  # the broker has confirmed them, the platform has not
        with Forked(run_device, str(config)) as device:
            platform.quiet = False
            await until(lambda: len(platform.got) > len(taken) + 3)
            broker.kill()
            before = platform.through
            await asyncio.sleep(0.5)
            broker.start()
            await until(lambda: platform.through > before + 3)
            device.signal(signal.SIGTERM)
            await asyncio.to_thread(device.ended)
        assert complete(platform) and not platform.clashes and buffered(tmp_path / "state") == {}

    with_broker(tmp_path, act)


@pytest.mark.spec("ACT-02", "CERT-01")
@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_a_device_killed_in_mid_stream_loses_nothing_and_uses_no_number_twice(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)

    async def act(broker: Mosquitto, platform: Platform, config: Path) -> None:
        seen: dict[int, bytes] = {}
        for number in range(kills):
            platform.quiet = number % 3 == 1
            with Forked(run_device, str(config)) as device:
                before, through = platform.arrivals, platform.through
                await until(lambda before=before: platform.arrivals > before)  # type: ignore[misc]
                if number % 3 == 2:  # new messages leave again
                    await until(lambda through=through: platform.through > through)  # type: ignore[misc]
                await asyncio.sleep(chance.uniform(0, 1.0))
                device.kill()
            for sequence, raw in (await asyncio.to_thread(buffered, tmp_path / "state")).items():
                assert platform.got.get(sequence, raw) == raw
                seen[sequence] = raw
        platform.quiet, through = False, platform.through
        with Forked(run_device, str(config)) as device:
            # Not before new messages leave: one that is stopped while it starts leaves all as it was.
            await until(lambda: seen.items() <= platform.got.items() and platform.through > max([through, *seen]))
            device.signal(signal.SIGTERM)
            await asyncio.to_thread(device.ended)
        assert complete(platform) and not platform.clashes and buffered(tmp_path / "state") == {}
        assert len(platform.got) > 2 * kills

    with_broker(tmp_path, act)


def test_the_command_makes_a_key_and_refuses_a_bad_configuration(tmp_path: Path) -> None:
    made = coflex("device", "enrol", tmp_path / "d", "--point", 7, "--unit", "u", "--owner", "o", "--json")
    assert json.loads(made.stdout)["public_key"] == public_of(read_key(tmp_path / "d")).hex()
    shown = coflex("device", "show", tmp_path / "d", "--json")
    assert json.loads(shown.stdout)["last_sequence"] == 0
    (tmp_path / "d" / "status.json").write_text("")  # as a power cut may leave it
    assert coflex("device", "show", tmp_path / "d").exit_code == 0
    (tmp_path / "device.yaml").write_text("point: 7\n")
    refused = coflex("device", "run", "--config", tmp_path / "device.yaml")
    assert refused.exit_code == 1 and "It is needed; give it." in refused.stderr
    assert "There is no key" in coflex("device", "show", tmp_path / "nowhere").stderr


# ---------------------------------------------------------------- HTTP


def test_an_answer_over_http_is_told_to_each_point() -> None:
    def raw(point: int, sequence: int) -> bytes:
        return seal(lambda data: bytes(64), Kind.DOCUMENT, point, sequence, 1, b"")

    batch = [raw(1, 5), raw(1, 6), raw(2, 9)]
    told = {"refused": [{"place": 1, "code": "bad_value", "message": ""}], "gaps": [{"point": 2, "from": 3, "to": 4}]}
    assert answers(batch, told, None) == {
        1: Acknowledged(6, ((6, "bad_value"),)),
        2: Acknowledged(9, missing=((3, 4),)),
    }
    found = answers(batch, {"through": {"1": 12}, "at": 77, "open": {"1": [[3, 4]]}}, None)
    assert found == {1: Acknowledged(12, at=77, open=((3, 4),)), 2: Acknowledged(0, at=77)}
    for bad in (
        None, [], {"refused": 5}, {"through": {"1": 1 << 63}}, {"through": {"1": -1}}, {"through": [1]},
        {"gaps": [1]}, {"gaps": [{"point": 1}]}, {"gaps": 5}, {"open": []}, {"open": {"1": 5}}, {"open": {"1": [[3]]}},
        {"refused": ["x"]}, {"gaps": [{"point": [], "from": 1, "to": 2}]},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            answers(batch, bad, None)
    assert answers(batch, {"at": 10**400}, None)[1].at is None
    assert answers(batch, {}, "Mon, 99 Zzz 0000")[1].at is None


class Door:
    """A server that answers posts of messages; `ways`: what it does with the next ones, then it takes them."""

    def __init__(self, ways: list[str]) -> None:
        self.ways = ways
        self.got: list[int] = []
        self.heads: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                body = await reader.readexactly(int(head.partition("content-length: ")[2].split("\r")[0]))
                self.heads.append(head)
                way = self.ways.pop(0) if self.ways else "take"
                messages = split(body)[0]
                if way in ("take", "lost answer"):
                    self.got += [decode(raw).sequence for raw in messages]
                if way in ("cut", "lost answer"):
                    break
                told = json.dumps({"received": len(messages), "refused": [], "gaps": []}).encode()
                status = {"busy": "503 Service Unavailable", "noise": "200 OK"}.get(way, "200 OK")
                told = b"<html>" if way == "noise" else told
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(told)}\r\n\r\n".encode() + told)
                await writer.drain()
        writer.close()


@dataclass
class Posting:
    """A device that only sends."""

    bench: Bench
    courier: Courier
    point: int = 7
    group: int | None = None

    def order(self, raw: bytes) -> None: ...

    def signal(self, raw: bytes) -> None: ...

    def notice(self) -> dict[str, Any]:
        return {}


def test_a_link_that_is_woken_and_stopped_in_the_same_moment_stops() -> None:
    async def act() -> None:
        posting = Posting(bench := Bench(), Courier(bench.node.author, settle_ms=0))
        place = HttpDoor("http://127.0.0.1:9")
        link = HttpLink(place, TENANT, [posting], SystemClock(), random.Random(1), lambda code, text: None)
        task = asyncio.create_task(link.run())
        await asyncio.sleep(0.3)
        link.poke(posting.point)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=3)
        assert done and task.cancelled()

    asyncio.run(act())


@pytest.mark.spec("ACT-02")
def test_over_http_set_points_come_with_the_answers() -> None:
    class Led(Posting):
        def order(self, raw: bytes) -> None:
            self.bench.node.order(raw)

    async def act() -> None:
        bench, told = Bench(), []
        bench.run(60)
        order = set_point(1, NOON + 60_000, NOON + 600_000, -1_000)
        answer = {"received": 1, "refused": [], "through": {"7": 1}, "open": {}, "at": NOON,
                  "set_points": {"7": [b64encode(order).decode()], "8": ["AAAA"]}}  # fmt: skip
        replies = [answer, {"through": {}, "set_points": "none"}]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                    await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))
                    body = json.dumps(replies.pop(0) if replies else {"through": {}}).encode()
                    writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        led = Led(bench, Courier(bench.node.author, settle_ms=0))
        place = HttpDoor(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", longest_wait_s=0.05)
        link = HttpLink(place, TENANT, [led], SystemClock(), random.Random(1), lambda code, text: told.append(code))
        task = asyncio.create_task(link.run())
        try:
            await until(lambda: bench.node.set_points.held)
            assert bench.node.target().power_w == -1_000
            link.poke(led.point)
            await until(lambda: "unreadable" in told)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()

    asyncio.run(asyncio.wait_for(act(), 20))


@pytest.mark.spec("ACT-02")
def test_over_http_everything_is_posted_again_until_it_is_answered() -> None:
    async def act() -> None:
        door = Door(["busy", "cut", "noise", "lost answer"])
        server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        bench, told = Bench(), []
        bench.run(300)
        posting = Posting(bench, Courier(bench.node.author, settle_ms=0))
        place = HttpDoor(f"http://127.0.0.1:{port}", token="t", longest_wait_s=0.05)
        link = HttpLink(place, TENANT, [posting], SystemClock(), random.Random(1), lambda code, text: told.append(text))
        task = asyncio.create_task(link.run())
        try:
            await until(lambda: not len(bench.node.outbox))
            bench.run(60)
            link.poke(posting.point)
            await until(lambda: not len(bench.node.outbox))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()
            await server.wait_closed()
        assert door.got == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]
        assert "503" in told[0] and any("cannot be read" in one for one in told)
        assert all(one.startswith(f"post /v1/{TENANT}/measurements ") for one in door.heads)
        assert all("application/vnd.coflex.messages" in one and "bearer t" in one for one in door.heads)

    asyncio.run(asyncio.wait_for(act(), 60))
