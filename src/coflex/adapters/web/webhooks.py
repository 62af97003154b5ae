"""Webhooks: notes of the feed sent to where a party wants them; at least once, in order, each webhook by itself.

A delivery is a POST of up to a hundred notes, oldest first:

    {"webhook": "webhook-00000012", "tenant": "spain", "notes": [{"id": "57.0", "at": ..., "kind": ..., "subject": ...,
     "data": {...}}]}
    Coflex-Signature: t=<seconds since 1970>,v1=<hexadecimal HMAC-SHA256 of "<t>.<body>" under the webhook's secret>

Any answer from 200 to 299 takes it. Anything else is tried again after 1, 2, 4, ... seconds, each cut by chance by up
to a half so that receivers that come back are not all called at once; after 24 hours of failures the webhook is
disabled, and its party told in the feed. A receiver knows a note it has seen by its id.

How far each webhook is goes into the journal once a minute and at the end, in one entry for a tenant; after a crash up
to a minute of notes comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import httpx
import msgspec

from coflex.adapters.web.api.events import heard
from coflex.adapters.web.identity.accounts import webhook_secret
from coflex.adapters.web.identity.keys import Keys
from coflex.adapters.web.identity.platform import Platform
from coflex.domain.errors import CoflexError
from coflex.register.access import Webhook, WebhookProgress, public_address, url_fault
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.service.machine import encode
from coflex.service.ports import Command, Entry, FeedItem
from coflex.service.verbs.webhooks import Delivered, Disabling, Progress

MOST_NOTES, MOST_BYTES = 100, 1 << 18
TIMEOUT_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 900.0
GIVEN_UP_AFTER = timedelta(hours=24)
KEPT_EVERY_S = 60.0
OLD_SECRET_SIGNS = timedelta(days=1)
GONE = 410
EVERYBODY = "*"
# Of one name that are tried in a delivery.
MOST_ADDRESSES = 3

Place = tuple[int, int]
Sleep = Callable[[float], Awaitable[None]]
Resolve = Callable[[str, int], Awaitable[list[str]]]


class Feed(Protocol):
    """Where notes are read; called from another thread."""

    def feed(self, tenant: str, party: str, after: Place, limit: int) -> list[FeedItem]: ...


class Sent(msgspec.Struct, frozen=True):
    """A note as it is sent. `id`: its place in the feed. `at`: the server's instant."""

    id: str
    at: datetime
    kind: str
    subject: str
    data: msgspec.Raw


class Delivery(msgspec.Struct, frozen=True):
    """What is posted: notes of the feed, oldest first."""

    webhook: str
    tenant: str
    notes: tuple[Sent, ...]


class Refused(Exception):
    """A delivery was not taken. `gone`: the receiver wants nothing more."""

    def __init__(self, reason: str, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


@dataclass(eq=False)
class _Running:
    """One webhook's own task. `place`: the last note that was taken; `kept`: what of that the journal knows;
    `waiting_since`: when the first note came that may be after it."""

    tenant: str
    id: str
    party: str
    place: Place
    kept: tuple[Place, datetime | None]
    failing_since: datetime | None
    waiting_since: datetime | None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


async def resolved(host: str, port: int) -> list[str]:
    """IP addresses of a host. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


class Webhooks:
    """Delivers; used on the machine's thread. `sleep`, `chance` (0 to 1) and `resolve` are given, so that tests pass
    through a day in a moment. `trusted`: whose certificates are believed, the world's usual ones where it is not given.
    `private`: whether addresses of private networks are called, and this machine without TLS; never on a server that
    companies of different owners share, for whoever names an address could reach what stands beside it.

    `told` is to be called with every entry that is on the disk; `run` goes on until it is cancelled.
    """

    def __init__(
        self,
        platform: Platform,
        feed: Feed,
        keys: Keys,
        sleep: Sleep = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        resolve: Resolve = resolved,
        timeout_s: float = TIMEOUT_S,
        trusted: ssl.SSLContext | None = None,
        kept_every_s: float = KEPT_EVERY_S,
        private: bool = False,
    ) -> None:
        self._platform, self._feed, self._keys = platform, feed, keys
        self._sleep, self._chance, self._resolve = sleep, chance, resolve
        self._timeout_s, self._kept_every_s, self._private = timeout_s, kept_every_s, private
        self._running: dict[tuple[str, str], _Running] = {}
        # Whom a note for a party wakes; under "*" all of a tenant.
        self._of_party: dict[tuple[str, str], dict[str, _Running]] = {}
        # Never a proxy from the environment: it would look up names by itself, behind the check of addresses.
        limits = httpx.Limits(max_connections=1_000, max_keepalive_connections=200, keepalive_expiry=60.0)
        self._client = httpx.AsyncClient(
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=False,
            limits=limits,
            headers={"User-Agent": "coflex"},
            verify=trusted or True,
        )

    def told(self, entry: Entry) -> None:
        """An entry is on the disk: wake the webhooks it may concern, begin and end with their records."""
        tenant = entry.command.tenant
        for change in entry.changes:
            if change.kind == "webhook":
                self._follow(tenant, change.id)
        for note in entry.notes:
            for party in note.audience:
                for running in self._of_party.get((tenant, party), {}).values():
                    running.waiting_since = running.waiting_since or entry.at
                    running.wake.set()

    def lag(self) -> float | None:
        """Seconds that the oldest note which is not yet delivered has waited; None where none waits."""
        waiting = [one.waiting_since for one in self._running.values() if one.waiting_since is not None]
        return max(0.0, (self._platform.clock() - min(waiting)).total_seconds()) if waiting else None

    async def run(self) -> None:
        """Deliver until cancelled; then what was reached is kept and the connections close."""
        for tenant, state in self._platform.machine.tenants.items():
            for webhook in state.all(Webhook):
                self._follow(tenant, webhook.id)
        try:
            while True:
                await self._sleep(self._kept_every_s)
                await self._keep()
        finally:
            tasks = [one.task for one in self._running.values() if one.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._keep()
            await self._client.aclose()

    def _follow(self, tenant: str, id: str) -> None:
        """Begin or end a webhook's task as its record is now."""
        key, state = (tenant, id), self._platform.machine.state(tenant)
        webhook, at = state.find(Webhook, id), state.find(WebhookProgress, id)
        running = self._running.get(key)
        if webhook is None or not webhook.enabled or at is None:
            if running is not None and running.task is not None and running.task is not asyncio.current_task():
                running.task.cancel()
            self._running.pop(key, None)
            for party in (EVERYBODY, running.party) if running is not None else ():
                self._of_party[tenant, party].pop(id, None)
            return
        if running is not None:
            running.changed.set()
            running.wake.set()
            return
        place = at.number, at.position
        kept = place, at.failing_since
        began = self._running[key] = _Running(
            tenant, id, webhook.party, place, kept, at.failing_since, at.failing_since or self._platform.clock()
        )
        for party in (EVERYBODY, webhook.party):
            self._of_party.setdefault((tenant, party), {})[id] = began
        began.task = asyncio.get_running_loop().create_task(self._deliver_on(began), name=f"webhook {tenant} {id}")

    def _webhook(self, running: _Running) -> Webhook | None:
        return self._platform.machine.state(running.tenant).find(Webhook, running.id)

    # ---------------------------------------------------------------- one webhook

    async def _deliver_on(self, running: _Running) -> None:
        """Everything after the webhook's place, then what comes; a failure is tried again until it is given up."""
        failures = 0
        while True:
            running.wake.clear()
            webhook = self._webhook(running)
            if webhook is None or self._has_left(running.tenant, webhook.party):
                return
            try:
                more = await self._deliver(running, webhook)
            except Refused as fault:
                if await self._failed(running, fault):
                    return
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 20))
                failures += 1
                if await self._paused(running, pause * (1 - 0.5 * self._chance())):
                    failures, running.failing_since = 0, None
                continue
            except CoflexError:
                # The store does not answer; the feed is still there when it does.
                await self._sleep(FIRST_PAUSE_S)
                continue
            failures, running.failing_since = 0, None
            if not more:
                if not running.wake.is_set():
                    running.waiting_since = None
                await running.wake.wait()

    async def _paused(self, running: _Running, seconds: float) -> bool:
        """Wait, but no longer than until the webhook is changed; whether it was."""
        running.changed.clear()
        waiting = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(running.changed.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        return running.changed.is_set()

    def _has_left(self, tenant: str, party: str) -> bool:
        entry = self._platform.machine.state(tenant).find(PartyEntry, party)
        return entry is None or entry.status is PartyStatus.ENDED

    async def _deliver(self, running: _Running, webhook: Webhook) -> bool:
        """Read on and send what is wanted; whether there may be more. Raises Refused."""
        items = await asyncio.to_thread(self._feed.feed, running.tenant, webhook.party, running.place, MOST_NOTES)
        machine = self._platform.machine
        told = heard(items, webhook.party, machine.roles(running.tenant, webhook.party))
        wanted = [one for one in told if webhook.wants(one.note.kind)]
        while wanted:
            count, body = packed(running.tenant, webhook.id, wanted)
            await self._post(running.tenant, webhook, body)
            last = wanted[count - 1]
            running.place, running.failing_since = (last.number, last.position), None
            wanted = wanted[count:]
        if items:
            running.place = items[-1].number, items[-1].position
        return len(items) == MOST_NOTES

    async def _failed(self, running: _Running, fault: Refused) -> bool:
        """Whether the webhook is given up; then it is disabled and its party told."""
        at = self._platform.clock()
        running.failing_since = running.failing_since or at
        if not fault.gone and at - running.failing_since < GIVEN_UP_AFTER:
            return False
        webhook = self._webhook(running)
        if webhook is None:
            return True
        await self._keep([running])
        reason = "The receiver answered 410 Gone." if fault.gone else f"It failed for 24 hours: {fault}"[:200]
        form = Disabling(reason)
        command = Command(
            running.tenant,
            "webhook.disable",
            webhook.id,
            webhook.party,
            webhook.party,
            "engine",
            encode(form),
            form=form,
        )
        with contextlib.suppress(CoflexError):  # it was disabled or removed meanwhile; or asked again after the pause
            await self._platform.submit(command)
            return True
        return False

    async def _keep(self, which: Iterable[_Running] | None = None) -> None:
        """Write down how far webhooks are, those that moved, in one entry for a tenant."""
        moved: dict[str, list[_Running]] = {}
        for one in self._running.values() if which is None else which:
            if (one.place, one.failing_since) != one.kept:
                moved.setdefault(one.tenant, []).append(one)
        for tenant, those in sorted(moved.items()):
            now = {one.id: (one.place, one.failing_since) for one in those}
            form = Delivered(tuple(Progress(id, *place, since) for id, (place, since) in sorted(now.items())))
            with contextlib.suppress(CoflexError):  # the store does not answer: kept a minute later
                await self._platform.submit(
                    Command(tenant, "webhook.delivered", "", "", "", "engine", encode(form), form=form)
                )
                for one in those:
                    one.kept = now[one.id]

    # ---------------------------------------------------------------- one request

    async def _post(self, tenant: str, webhook: Webhook, body: bytes) -> None:
        """Raises Refused unless the receiver takes it. Nothing of its answer is read but the status."""
        at = self._platform.clock()
        headers = {
            "Content-Type": "application/json",
            "Coflex-Signature": self._signature(tenant, webhook, body, at),
            "Host": httpx.URL(webhook.url).netloc.decode("ascii"),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                urls, host = await self._checked(webhook.url)
                status = await self._posted(urls, body, headers, host)
        except TimeoutError:
            raise Refused(f"It did not answer within {self._timeout_s:g} s.") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as fault:
            raise Refused(f"It could not be reached ({type(fault).__name__}).") from None
        if not 200 <= status < 300:
            raise Refused(f"It answered {status}.", gone=status == GONE)

    async def _posted(self, urls: list[httpx.URL], body: bytes, headers: dict[str, str], host: str) -> int:
        """The status from the first address that takes a connection; TLS is with the name, not the address."""
        for position, url in enumerate(urls):
            try:
                async with self._client.stream(
                    "POST", url, content=body, headers=headers, extensions={"sni_hostname": host}
                ) as response:
                    return response.status_code
            except httpx.ConnectError:
                if position == len(urls) - 1:
                    raise
        raise OSError("no address")

    async def _checked(self, url: str) -> tuple[list[httpx.URL], str]:
        """The address with its name resolved, so that what was checked is what is called; and the name.

        Raises Refused for an address that may not be called, OSError for a name that nobody knows.
        """
        fault = url_fault(url, self._private)
        if fault:
            raise Refused(fault)
        parsed = httpx.URL(url)
        addresses = await self._resolve(parsed.host, parsed.port or (443 if parsed.scheme == "https" else 80))
        if not self._private and not all(public_address(one.partition("%")[0]) for one in addresses):
            raise Refused("Its name leads into a private network.")
        return [parsed.copy_with(host=one) for one in dict.fromkeys(addresses)][:MOST_ADDRESSES], parsed.host

    def _signature(self, tenant: str, webhook: Webhook, body: bytes, at: datetime) -> str:
        generations = [webhook.generation]
        if webhook.rotated is not None and at < webhook.rotated + OLD_SECRET_SIGNS:
            generations.append(webhook.generation - 1)
        secrets = [webhook_secret(self._keys, tenant, webhook.id, one) for one in generations]
        return signature(secrets, int(at.timestamp()), body)


def signature(secrets: Iterable[str], at: int, body: bytes) -> str:
    """The header of a delivery: HMAC-SHA256 of "<at>.<body>" under each secret."""
    signed = str(at).encode() + b"." + body
    return ",".join([f"t={at}", *(f"v1={hmac.digest(one.encode(), signed, 'sha256').hex()}" for one in secrets)])


def packed(tenant: str, webhook: str, items: list[FeedItem]) -> tuple[int, bytes]:
    """How many of the items go into one delivery, at least one, and its body."""
    notes: list[Sent] = []
    size = 0
    for one in items:
        size += len(one.note.body) + 200
        if notes and size > MOST_BYTES:
            break
        place, note = f"{one.number}.{one.position}", one.note
        notes.append(Sent(place, one.at, note.kind, note.subject, msgspec.Raw(note.body)))
    return len(notes), msgspec.json.encode(Delivery(webhook, tenant, tuple(notes)))
