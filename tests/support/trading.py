"""A platform that takes offers over HTTP, in a process of its own, and clients of it: for tests that kill it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

from sqlalchemy import create_engine
from starlette.applications import Starlette

from coflex.adapters.store.journal import SqlJournal
from coflex.adapters.store.journal_writer import JOURNAL_LOCK
from coflex.adapters.web.api import problems
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.orders import Orders
from coflex.adapters.web.identity import Identity, Keys
from coflex.adapters.web.logs import logs
from coflex.adapters.web.metrics import Metrics
from coflex.adapters.web.server import Listening, Stopping, dressed, run
from coflex.market.design import design_text
from coflex.service.gates import TenantGates, design_of
from coflex.service.machine import Machine
from coflex.service.ports import Entry
from coflex.service.replay import restore
from coflex.service.sequencer import Sequencer
from support.crash import Answer, Order, Written, read_journal, read_sqlite
from support.forked import Forked, Tell
from support.platform import FIRST, TENANT, TEST_VERBS, key_of, offer, ready

# Read once, before the fork server forks.
design_of(design_text("beflexible_six"))
QUARTER_HOURS = 96
PATH = f"/v1/{TENANT}/sessions/{FIRST}/offers"


class SlowJournal(SqlJournal):
    """A journal on a disk that takes its time."""

    pause_s = 0.04

    def append(self, entries: Sequence[Entry]) -> None:
        sleep(self.pause_s)
        super().append(entries)


def serve(
    tell: Tell, store: str, folder: Path, port: int, units: int, providers: int, journals: type[SqlJournal] = SqlJournal
) -> None:
    """Serve the register of `support.platform` with its first session open, from a store that may hold it already."""

    @asynccontextmanager
    async def platform(stopping: Stopping) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        journal = journals(store)
        machine = Machine(TEST_VERBS)
        restore(machine, journal)
        gates = TenantGates(machine)
        sequencer = Sequencer(machine, journal, clock, gates, loop.call_soon_threadsafe, loop.call_soon)
        keys = Keys(folder / "keys.json", clock())
        identity = Identity(machine, clock, keys, "http://127.0.0.1")
        desk = Desk(machine, sequencer, journal, clock, identity.authenticate)
        if not machine.tenants:
            for command in ready(units, providers):
                await desk.submit(command)
        app, counts = Starlette(), Metrics()
        problems.install(app)
        rest = dressed(app, listening, logs("json", (folder / "log").open("a")), counts, machine.tenants)
        try:
            yield Orders(rest, desk, counts.request)
        finally:
            await asyncio.to_thread(sequencer.close)
            journal.close()

    listening = Listening(port=port)
    run(listening, platform, tell)


def clock() -> datetime:
    return datetime.now(UTC)


# ---------------------------------------------------------------- a client


class Wire:
    """HTTP/1.1 on a connection that is kept open: one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def to(port: int) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and body. Raises OSError or EOFError when the server is gone."""
        lines = [f"{method} {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head[9:12])
        length = next(int(row[15:]) for row in head.lower().split("\r\n") if row.startswith("content-length:"))
        return status, await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def authorised(party: str, key: str | None = None) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {key_of(party)}", "Content-Type": "application/json"}
    return headers if key is None else headers | {"Idempotency-Key": key}


# ---------------------------------------------------------------- the platform that is killed


class Trading:
    """A platform for `support.crash`: every client is a provider, and offers each of its quarter-hours once."""

    def __init__(
        self,
        folder: Path,
        port: int,
        clients: int,
        units: int = 60,
        url: str | None = None,
        journals: type[SqlJournal] = SqlJournal,
    ) -> None:
        self._folder, self.port, self._clients, self._units = folder, port, clients, units
        self._journals = journals
        self._url, self._file = url, folder / "store.db"
        self._server: Forked | None = None
        self._digest = bytes(32)

    def prepare(self) -> None:
        """Fill the register and open the session."""
        self.start()
        assert self._server is not None
        self._server.hear()
        self.kill()

    def start(self) -> None:
        words = self._url or str(self._file), self._folder, self.port, self._units * self._clients, self._clients
        self._server = Forked(serve, *words, self._journals)

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server = None

    async def connect(self, client: int) -> TradingLine:
        return TradingLine(await Wire.to(self.port), client, self._clients)

    def written(self, after: int) -> Iterator[Written]:
        found = (
            read_sqlite(self._file, after, self._digest)
            if self._url is None
            else read_server(self._url, after, self._digest)
        )
        for entry, digest in found:
            self._digest = digest
            yield entry


def read_server(url: str, after: int, before: bytes) -> Iterator[tuple[Written, bytes]]:
    """Entries of a journal in PostgreSQL, as `read_journal`. What the killed server's session still does is waited for:
    its lock goes with it."""
    engine = create_engine(url)
    with closing(engine.raw_connection()) as connection:
        wait_for_lock = connection.cursor()
        wait_for_lock.execute(f"SELECT pg_advisory_lock({JOURNAL_LOCK})")
        yield from read_journal(connection, after, before)
        wait_for_lock.execute(f"SELECT pg_advisory_unlock({JOURNAL_LOCK})")
    engine.dispose()


class TradingLine:
    """A provider's connection."""

    def __init__(self, wire: Wire, client: int, clients: int) -> None:
        self._wire, self._client, self._clients = wire, client, clients

    async def submit(self, order: Order) -> Answer:
        body = json.dumps(parcel(order, self._clients)).encode()
        status, reply = await self._wire.ask("POST", PATH, authorised(f"sp-{self._client + 1}", order.key), body)
        return Answer(status, json.loads(reply)["entry"] if status == 201 else 0, reply)

    async def book(self, client: int) -> list[str]:
        found: list[str] = []
        path = f"{PATH}?limit=1000"
        while True:
            status, body = await self._wire.ask("GET", path, authorised(f"sp-{client + 1}"))
            assert status == 200, body
            page = json.loads(body)
            found += [one["offer"]["id"] for one in page["items"]]
            if page["next"] is None:
                return found
            path = f"{PATH}?limit=1000&cursor={page['next']}"

    def close(self) -> None:
        self._wire.close()


def parcel(order: Order, clients: int) -> Any:
    """The offers of an order; one alone is sent as an object. Each has a quarter-hour of a unit that no other has."""
    made = [_offer(name, order.client, order.first + i, clients) for i, name in enumerate(order.offers)]
    return made[0] if len(made) == 1 else made


def _offer(name: str, client: int, place: int, clients: int) -> Any:
    """The offer at a client's n-th place: units `sp-<client>` has are every so many-th one."""
    unit, rest = divmod(place, 2 * QUARTER_HOURS)
    way, first = divmod(rest, QUARTER_HOURS)
    number = unit * clients + client + 1
    return offer(name, number, first, (10,), direction="up" if way == 0 else "down")
