"""Webhooks deliver at least once and in order, whatever the receiver does, and call no address they must not."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.adapters.web.identity.accounts import webhook_secret
from coflex.adapters.web.identity.keys import Keys
from coflex.adapters.web.webhooks import MOST_BYTES, Webhooks, packed, signature
from coflex.register.access import Webhook, WebhookProgress
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.service.ports import FeedItem, Note
from support.access import AT, TENANT, Bench
from support.receiver import Got, Receiver


class Time:
    """A clock and sleeps that a test moves on."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._sleeping = bench, list[tuple[float, asyncio.Future[None]]]()
        self.now, self.asked = 0.0, list[float]()

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.now + seconds, woken))
        self.asked.append(seconds)
        await woken

    async def on(self, seconds: float) -> None:
        """Let time pass; whoever sleeps until then wakes, one instant after the other."""
        until = self.now + seconds
        while True:
            await settle()
            due = sorted((at for at, woken in self._sleeping if not woken.done() and at <= until))
            self.now = due[0] if due else until
            self._bench.clock.at = AT + timedelta(seconds=self.now)
            if not due:
                return
            for at, woken in self._sleeping:
                if at <= self.now and not woken.done():
                    woken.set_result(None)


async def settle() -> None:
    """Let everything that can go on go on: other threads and sockets of this machine too."""
    for _ in range(6):
        await asyncio.sleep(0.005)


class World:
    """A platform with webhooks that run."""

    def __init__(self, folder: Path, bench: Bench | None = None, **more: Any) -> None:
        self.bench = bench or Bench()
        self.time = Time(self.bench)
        self.keys = Keys(folder / "keys.json", AT)
        # Receivers of tests are on this machine.
        given: dict[str, Any] = {"timeout_s": 0.3, "private": True} | more
        self.hooks = Webhooks(self.bench, self.bench.journal, self.keys, self.time.sleep, lambda: 0.0, **given)

    async def __aenter__(self) -> World:
        self.bench.sequencer.listeners.append(self.hooks.told)
        self._task = asyncio.create_task(self.hooks.run())
        await settle()
        return self

    async def __aexit__(self, *fault: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        if self.hooks.told in self.bench.sequencer.listeners:
            self.bench.sequencer.listeners.remove(self.hooks.told)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def hook(self, url: str, party: str = "sp-1", kinds: tuple[str, ...] = ("*",)) -> str:
        """A webhook made; it does not want to hear of itself unless a test says so."""
        form = {"url": url, "kinds": kinds}
        return str(self.bench.take("webhook.create", form, party=party, actor=f"client-{party}")["id"])

    def entries(self, verb: str) -> int:
        return sum(entry.command.verb == verb for entry in self.bench.journal.entries(limit=10**6))


def run(act: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 30))  # type: ignore[arg-type]


def subjects(receiver: Receiver) -> list[str]:
    """What was received, each delivery's notes in turn."""
    return [note["subject"] for got in receiver.got for note in json.loads(got.body)["notes"]]


ALL = ("told.*",)


def note(subject: str, party: str = "sp-1", kind: str = "told.once") -> tuple[str, str, tuple[str, ...]]:
    return kind, subject, (party,)


# ---------------------------------------------------------------- what arrives


@pytest.mark.spec("PLAT-01")
def test_notes_arrive_in_order_signed_and_only_those_that_concern_the_party(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver() as receiver, World(tmp_path) as world:
            hook = world.hook(receiver.url, kinds=("told.*",))
            world.bench.tell(note("a"), note("b", "sp-2"), note("c", "*"), note("d", kind="other.kind"))
            world.bench.tell(note("e"))
            await settle()
            assert subjects(receiver) == ["a", "c", "e"]
            first = json.loads(receiver.got[0].body)
            assert (first["webhook"], first["tenant"]) == (hook, TENANT)
            assert first["notes"][0] == {
                "id": f"{world.bench.sequencer.number - 1}.0",
                "at": "2026-01-01T00:00:00Z",
                "kind": "told.once",
                "subject": "a",
                "data": {"of": "test"},
            }
            secret = webhook_secret(world.keys, TENANT, hook, 1)
            for got in receiver.got:
                assert verified(got, secret)
                assert not verified(got, webhook_secret(world.keys, TENANT, hook, 2))
                assert not verified(replace(got, body=got.body + b" "), secret)

    run(act)


def verified(got: Got, secret: str) -> bool:
    """As a receiver does it, with the standard library."""
    parts = [part.split("=", 1) for part in got.headers["coflex-signature"].split(",")]
    at = dict(parts)["t"]
    ours = hmac.new(secret.encode(), f"{at}.".encode() + got.body, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(ours, value) for name, value in parts if name == "v1")


def test_the_signature_is_that_of_a_published_vector() -> None:
    """RFC 4231, test case 2, has no timestamp; with the key "Jefe" the message here is the one after "<t>."."""
    ours = signature(["Jefe"], 1, b"what do ya want for nothing?")
    by_hand = hmac.new(b"Jefe", b"1.what do ya want for nothing?", "sha256").hexdigest()
    assert ours == f"t=1,v1={by_hand}"
    vector = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hmac.new(b"Jefe", b"what do ya want for nothing?", "sha256").hexdigest() == vector


def test_a_rotated_secret_signs_beside_the_new_one_for_a_day(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver() as receiver, World(tmp_path) as world:
            hook = world.hook(receiver.url, kinds=ALL)
            world.bench.take("webhook.rotate", None, hook, actor="client-sp-1")
            old, new = (webhook_secret(world.keys, TENANT, hook, one) for one in (1, 2))
            world.bench.tell(note("a"))
            await settle()
            assert verified(receiver.got[0], old)
            assert verified(receiver.got[0], new)
            world.bench.clock.at += timedelta(days=1)
            world.bench.tell(note("b"))
            await settle()
            assert not verified(receiver.got[1], old)
            assert verified(receiver.got[1], new)

    run(act)


def test_many_notes_go_in_few_deliveries_and_one_entry_of_the_journal_a_minute(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver() as receiver, World(tmp_path) as world:
            world.hook(receiver.url, kinds=ALL)
            world.hook(receiver.url, "sp-2", kinds=ALL)
            for k in range(50):
                world.bench.tell(*(note(f"{10 * k + j}", "*") for j in range(10)))
            for _ in range(40):
                await settle()
                if len(subjects(receiver)) == 1_000:
                    break
            for hook in {json.loads(got.body)["webhook"] for got in receiver.got}:
                mine = [got for got in receiver.got if json.loads(got.body)["webhook"] == hook]
                assert [int(one["subject"]) for got in mine for one in json.loads(got.body)["notes"]] == list(
                    range(500)
                )
            assert len(receiver.got) < 100
            assert world.entries("webhook.delivered") == 0
            await world.time.on(60)
            assert world.entries("webhook.delivered") == 1
            await world.time.on(600)
            assert world.entries("webhook.delivered") == 1

    run(act)


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=8))
def test_a_delivery_holds_as_many_notes_as_fit_and_never_none(sizes: list[int]) -> None:
    items = [FeedItem(k + 1, 0, AT, Note("k", str(k), ("*",), b'"%s"' % (b"x" * size))) for k, size in enumerate(sizes)]
    seen: list[str] = []
    while items:
        count, body = packed("t", "w", items)
        assert count >= 1
        assert count == 1 or len(body) <= MOST_BYTES + 1_000
        seen += [one["subject"] for one in json.loads(body)["notes"]]
        items = items[count:]
    assert seen == [str(k) for k in range(len(sizes))]


# ---------------------------------------------------------------- receivers that fail


def test_what_was_not_taken_comes_again_first_after_longer_and_longer_pauses(tmp_path: Path) -> None:
    async def act() -> None:
        async with (
            Receiver(lambda number, got: (500 if number < 4 else 200, {}, b"")) as receiver,
            World(tmp_path) as world,
        ):
            world.hook(receiver.url, kinds=ALL)
            world.bench.tell(note("a"))
            world.bench.tell(note("b"))
            await world.time.on(14.9)
            assert subjects(receiver)[:1] == ["a"]
            assert len(receiver.got) == 4
            await world.time.on(1)
            assert subjects(receiver)[-2:] == ["a", "b"]
            pauses = [one for one in world.time.asked if one != 60.0]
            assert pauses == [1.0, 2.0, 4.0, 8.0]
            assert len({got.headers["coflex-signature"] for got in receiver.got}) == 5

    run(act)


def test_chance_cuts_the_pauses_by_up_to_a_half(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver(lambda number, got: (500, {}, b"")) as receiver, World(tmp_path) as world:
            world.hooks._chance = lambda: 1.0
            world.hook(receiver.url, kinds=ALL)
            world.bench.tell(note("a"))
            await world.time.on(3)
            assert [one for one in world.time.asked if one != 60.0] == [0.5, 1.0, 2.0]

    run(act)


@pytest.mark.parametrize("answer", [None, (302, {"Location": "/elsewhere"}, b""), (400, {}, b""), (199, {}, b"")])
def test_one_receiver_that_hangs_redirects_or_refuses_holds_no_other(tmp_path: Path, answer: Any) -> None:
    async def act() -> None:
        async with Receiver(lambda number, got: answer) as bad, Receiver() as good, World(tmp_path) as world:
            world.hook(bad.url, kinds=ALL)
            world.hook(good.url, kinds=ALL)
            world.bench.tell(note("a"))
            await settle()
            assert subjects(good) == ["a"]
            await asyncio.sleep(0.4)
            await world.time.on(5)
            world.bench.tell(note("b"))
            await settle()
            assert subjects(good) == ["a", "b"]
            assert set(subjects(bad)) == {"a"} or subjects(bad)[0] == "a"
            assert {got.path for got in bad.got} == {"/in"}

    run(act)


def test_an_answer_without_end_is_not_read(tmp_path: Path) -> None:
    async def act() -> None:
        endless = (200, {"Content-Length": str(10**12)}, b"x" * 10_000)
        async with Receiver(lambda number, got: endless) as receiver, World(tmp_path) as world:
            world.hook(receiver.url, kinds=ALL)
            world.bench.tell(note("a"))
            await settle()
            world.bench.tell(note("b"))
            await settle()
            assert subjects(receiver) == ["a", "b"]

    run(act)


def test_the_lag_is_how_long_the_oldest_note_waits(tmp_path: Path) -> None:
    async def act() -> None:
        answers = Receiver(lambda number, got: (500 if number < 4 else 200, {}, b""))
        async with answers as receiver, World(tmp_path) as world:
            world.hook(receiver.url, kinds=ALL)
            await settle()
            assert world.hooks.lag() is None
            world.bench.tell(note("a"))
            await world.time.on(5)
            world.bench.tell(note("b"))
            assert world.hooks.lag() == 5.0
            await world.time.on(10)
            assert world.hooks.lag() is None

    run(act)


def test_nobody_there_is_tried_again(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver() as gone:
            url = gone.url
        async with World(tmp_path) as world:
            hook = world.hook(url, kinds=ALL)
            world.bench.tell(note("a"))
            await world.time.on(61)
            assert world.bench.state.get(Webhook, hook).enabled
            assert world.bench.state.get(WebhookProgress, hook).failing_since == AT

    run(act)


@pytest.mark.spec("PLAT-01")
def test_after_a_day_of_failures_it_is_disabled_told_and_goes_on_from_there_when_enabled(tmp_path: Path) -> None:
    broken = True

    async def act() -> None:
        nonlocal broken
        async with (
            Receiver(lambda number, got: (503 if broken else 200, {}, b"")) as receiver,
            Receiver() as other,
            World(tmp_path, kept_every_s=10_000.0) as world,
        ):
            hook = world.hook(receiver.url, kinds=ALL)
            world.hook(other.url, kinds=("webhook.*",))
            world.bench.tell(note("a"))
            world.bench.tell(note("b"))
            await world.time.on(86_400 - 1)
            assert world.bench.state.get(Webhook, hook).enabled
            await world.time.on(1_000)
            assert not world.bench.state.get(Webhook, hook).enabled
            assert "503" in world.bench.state.get(Webhook, hook).reason
            assert hook in subjects(other)
            tried = len(receiver.got)
            assert 95 <= tried <= 115  # a quarter of an hour between tries, but for the first ones
            world.bench.tell(note("c"))
            await world.time.on(10_000)
            assert len(receiver.got) == tried
            broken = False
            receiver.got.clear()
            world.bench.take("webhook.enable", None, hook, actor="client-sp-1")
            await settle()
            assert subjects(receiver) == ["a", "b", "c"]

    run(act)


def test_a_receiver_that_is_gone_is_disabled_at_once(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver(lambda number, got: (410, {}, b"")) as receiver, World(tmp_path) as world:
            hook = world.hook(receiver.url, kinds=ALL)
            world.bench.tell(note("a"))
            await settle()
            assert not world.bench.state.get(Webhook, hook).enabled
            assert len(receiver.got) == 1

    run(act)


def test_a_changed_address_is_tried_at_once_and_a_removed_webhook_no_more(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver(lambda number, got: (500, {}, b"")) as old, Receiver() as new, World(tmp_path) as world:
            hook = world.hook(old.url, kinds=ALL)
            world.bench.tell(note("a"))
            await world.time.on(100)
            form = {"url": new.url, "kinds": list(ALL)}
            world.bench.take("webhook.change", form, hook, actor="client-sp-1")
            await settle()
            assert subjects(new) == ["a"]
            world.bench.take("webhook.remove", None, hook, actor="client-sp-1")
            world.bench.tell(note("b"))
            await world.time.on(1_000)
            assert subjects(new) == ["a"]

    run(act)


def test_a_party_that_left_is_sent_nothing(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver() as receiver, World(tmp_path) as world:
            world.hook(receiver.url, kinds=ALL)
            entry = world.bench.state.get(PartyEntry, "sp-1")
            world.bench.put(replace(entry, status=PartyStatus.ENDED))
            world.bench.tell(note("a"))
            await settle()
            assert receiver.got == []

    run(act)


def test_what_is_for_everybody_is_sent_to_parties_that_take_part_alone(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver() as receiver, World(tmp_path) as world:
            world.hook(receiver.url, kinds=ALL)
            entry = world.bench.state.get(PartyEntry, "sp-1")
            for status in (PartyStatus.SUSPENDED, PartyStatus.APPROVED):
                world.bench.put(replace(entry, status=status))
                world.bench.tell(note(f"own, {status}"), note(f"public, {status}", "*"))
                await settle()
            assert subjects(receiver) == ["own, suspended", "own, approved", "public, approved"]

    run(act)


# ---------------------------------------------------------------- restarts


@pytest.mark.parametrize("orderly", [True, False])
def test_a_restart_goes_on_where_it_was_and_after_a_crash_some_come_again_and_none_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orderly: bool
) -> None:
    async def act() -> None:
        async with Receiver() as receiver:
            world = World(tmp_path)
            async with world:
                world.hook(receiver.url, kinds=ALL)
                world.bench.tell(note("a"), note("b"))
                await settle()
                told_at = world.bench.sequencer.number
                if not orderly:
                    monkeypatch.setattr(world.hooks, "_keep", _never)
            bench = world.bench
            assert (bench.state.all(WebhookProgress)[0].number == told_at) is orderly
            before = subjects(receiver)
            async with World(tmp_path, bench):
                await settle()
                assert subjects(receiver)[len(before) :] == ([] if orderly else ["a", "b"])

    run(act)


async def _never(*which: Any) -> None:
    """A crash comes first."""


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from(["tell", "ok", "fail", "restart", "wait"]), max_size=10))
def test_whatever_happens_every_note_arrives_and_the_first_arrivals_are_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder, healthy, told = tmp_path_factory.mktemp("any"), [True], [0]

    async def act() -> None:
        async with Receiver(lambda number, got: (200 if healthy[0] else 500, {}, b"")) as receiver:
            taken: list[str] = []
            receiver.answers = lambda number, got: _taking(got, healthy[0], taken)
            world = World(folder)
            await world.__aenter__()
            world.hook(receiver.url, kinds=ALL)
            for step in [*steps, "ok", "wait", "wait"]:
                if step == "tell":
                    told[0] += 1
                    world.bench.tell(note(str(told[0])))
                elif step in ("ok", "fail"):
                    healthy[0] = step == "ok"
                elif step == "restart":
                    await world.stop()
                    world = World(folder, world.bench)
                    await world.__aenter__()
                else:
                    await world.time.on(100)
            await world.stop()
            assert list(dict.fromkeys(taken)) == [str(k + 1) for k in range(told[0])]

    run(act)


def _taking(got: Got, healthy: bool, taken: list[str]) -> tuple[int, dict[str, str], bytes]:
    if healthy:
        taken += [one["subject"] for one in json.loads(got.body)["notes"]]
    return (200 if healthy else 500), {}, b""


# ---------------------------------------------------------------- where it may go


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.0.0.1"], ["8.8.8.8", "192.168.0.1"], ["::1"], ["fe80::1%eth0"], ["169.254.169.254"]],
)
def test_a_name_that_leads_into_a_private_network_is_not_called(tmp_path: Path, addresses: list[str]) -> None:
    async def act() -> None:
        async with Receiver() as receiver:

            async def resolve(host: str, port: int) -> list[str]:
                return addresses

            async with World(tmp_path, resolve=resolve, private=False) as world:
                hook = world.hook(f"https://receiver.example:{receiver.port}/in", kinds=ALL)
                world.bench.tell(note("a"))
                await world.time.on(61)
                assert receiver.got == []
                assert world.bench.state.get(WebhookProgress, hook).failing_since is not None
                assert world.bench.state.get(Webhook, hook).enabled

    run(act)


@pytest.mark.spec("PLAT-01")
def test_a_server_that_was_not_told_to_calls_no_private_address_not_even_for_a_sandbox(tmp_path: Path) -> None:
    async def act() -> None:
        async with Receiver() as receiver:
            hooks = Webhooks(Bench(), Bench().journal, Keys(tmp_path / "other.json", AT))
            assert not hooks._private  # what `serve` gets unless it is asked for the contrary
            async with World(tmp_path, Bench(sandbox=True), private=False) as world:
                world.hook(receiver.url, kinds=ALL)
                world.bench.tell(note("a"))
                await world.time.on(5)
                assert receiver.got == []

    run(act)


def test_the_address_that_was_looked_at_is_the_one_that_is_called_whatever_the_name_says_next(tmp_path: Path) -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["203.0.113.1"]

    async def act() -> None:
        async with Receiver() as receiver, World(tmp_path, resolve=resolve) as world:
            world.hook(f"http://localhost:{receiver.port}/in", kinds=ALL)
            world.bench.tell(note("a"))
            await settle()
            assert asked == ["localhost"]
            assert receiver.got[0].headers["host"] == f"localhost:{receiver.port}"

    run(act)


def test_tls_is_with_the_name_and_with_whom_is_trusted(tmp_path: Path) -> None:
    server, trusted = certificates(tmp_path, "receiver.example")

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def act(name: str, trust: ssl.SSLContext | None) -> int:
        async with (
            Receiver(tls=server) as receiver,
            World(tmp_path, resolve=resolve, trusted=trust, timeout_s=2.0) as world,
        ):
            world.hook(f"https://{name}:{receiver.port}/in", kinds=ALL)
            world.bench.tell(note("a"))
            await settle()
            await settle()
            return len(receiver.got)

    assert asyncio.run(act("receiver.example", trusted)) == 1
    assert asyncio.run(act("another.example", trusted)) == 0
    assert asyncio.run(act("receiver.example", None)) == 0


def certificates(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for a name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, own = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    own.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, own)
    return server, ssl.create_default_context(cafile=str(pem))
