"""The service composed: store, machine, sequencer, doors, and what runs beside them; and the care of its store."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.types import ASGIApp, Scope

from coflex.adapters.exchange.tables.units_import import read_units
from coflex.adapters.field.broker import Address
from coflex.adapters.measurements.cosigning import Witness, read_witnesses
from coflex.adapters.store import backup as copies
from coflex.adapters.store.journal import SqlJournal
from coflex.adapters.store.journal_reader import JournalReader
from coflex.adapters.store.journal_verify import verify as check_chain
from coflex.adapters.web.api.app import create_app
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.orders import Orders
from coflex.adapters.web.api.rooms.offers import Offers
from coflex.adapters.web.api.rooms.resources import CSV, WORKBOOK
from coflex.adapters.web.identity import Accounts, Identity, Keys, Passwords, identity_routes
from coflex.adapters.web.logs import Log, logs, places, template
from coflex.adapters.web.measurements import IngestCounts
from coflex.adapters.web.metrics import Metrics, Watched, routes
from coflex.adapters.web.server import Listening, Stopping, address, bind, dressed, run
from coflex.adapters.web.webhooks import Webhooks
from coflex.computing import case_of, compute
from coflex.domain.errors import CoflexError
from coflex.field import Fields
from coflex.register.access import Client
from coflex.service import engine
from coflex.service.gates import TenantGates
from coflex.service.machine import Machine
from coflex.service.ports import Entry, Journal
from coflex.service.replay import fingerprint
from coflex.service.replay import replay as decide_anew
from coflex.service.replay import restore as bring_to_head
from coflex.service.sequencer import Sequencer, Unavailable
from coflex.service.verbs import VERBS
from coflex.simulation import demo

STORE, KEYS, FIELD = "coflex.db", "keys.json", "measurements"
# How often what is due by the clock is looked for; a command looks first in any case.
TICK_S = 0.2
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service is run. `data`: its folder. `database_url`: PostgreSQL in the place of a file there. `speed`,
    `case`: of the sandbox that is made at the first start when `demo`. `private_webhooks`: whether webhooks may go to
    addresses of this machine and its networks. `mqtt`: URL of the broker behind which devices are.
    `witnesses`: table of those that cosign the logs of measurements."""

    data: Path
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_format: Literal["json", "text"] | None = None
    speed: int = 1
    demo: bool = True
    case: Path | None = None
    private_webhooks: bool = False
    mqtt: str | None = None
    witnesses: Path | None = None

    @property
    def store(self) -> str | Path:
        return self.database_url or self.data / STORE


def clock() -> datetime:
    """The server's clock."""
    return datetime.now(UTC)


# ---------------------------------------------------------------- serving


def serve(settings: Settings, tell: Tell) -> None:
    """Serve until SIGTERM or SIGINT. Raises CoflexError, with what to do, where it cannot begin."""
    broker = None if settings.mqtt is None else Address.parse(settings.mqtt)
    witnesses = () if settings.witnesses is None else read_witnesses(settings.witnesses)
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    listening = Listening(settings.host, settings.port, settings.tls_cert, settings.tls_key)
    listener = bind(listening)
    platform = partial(_platform, settings, broker, witnesses, listening, address(listener, listening), tell)
    run(listening, platform, tell, listener)


@dataclass(eq=False)
class Running:
    """The parts of a running platform."""

    machine: Machine
    sequencer: Sequencer
    journal: Journal
    keys: Keys
    metrics: Metrics
    log: Log
    desk: Desk
    identity: Identity


@asynccontextmanager
async def _platform(
    settings: Settings,
    broker: Address | None,
    witnesses: Sequence[Witness],
    listening: Listening,
    here: str,
    tell: Tell,
    stopping: Stopping,
) -> AsyncIterator[ASGIApp]:
    """The platform on the running loop, from its store to its last entry."""
    log = logs(settings.log_format)
    journal = SqlJournal(settings.store)
    running = _running(journal, Keys(settings.data / KEYS, clock()), here, log)
    worker = engine.Worker(compute)
    webhooks = Webhooks(running.desk, journal, running.keys, private=settings.private_webhooks)
    fields = Fields(running.desk, running.keys, settings.data / FIELD, log, broker, witnesses)
    running.sequencer.listeners.append(webhooks.told)
    tasks: list[asyncio.Task[None]] = []
    try:
        if settings.demo:
            await _open_demo(running, settings, here, tell)
        players = demo.Counterparts(case_of(demo.TENANT)) if settings.demo and settings.case is None else None
        work = (engine.Engine(running.sequencer, worker).run(), webhooks.run(), fields.run(), _tick(running, players))
        tasks = [asyncio.create_task(one) for one in work]
        offers = Offers(running.identity.items)
        app = _app(running, webhooks, offers, fields, settings.private_webhooks)
        tasks.append(asyncio.create_task(_ending(stopping, app)))
        tell(f"API: {here}/v1, its document: {here}/openapi.json, its pages: {here}/docs, health: {here}/readyz")
        rest = dressed(app, listening, log, running.metrics, running.machine.tenants)
        yield Orders(rest, running.desk, running.metrics.request, offers, partial(_failed, log))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await fields.close()
        worker.close()
        await asyncio.to_thread(running.sequencer.close)
        journal.close()


def _running(journal: SqlJournal, keys: Keys, here: str, log: Log) -> Running:
    loop, metrics = asyncio.get_running_loop(), Metrics()
    machine = Machine(VERBS)
    bring_to_head(machine, journal)
    measured = metrics.measured(journal)
    sequencer = Sequencer(
        machine, measured, clock, TenantGates(machine), deliver=loop.call_soon_threadsafe, soon=loop.call_soon
    )
    identity = Identity(machine, clock, keys, here)
    desk = Desk(machine, sequencer, journal, clock, identity.authenticate)
    return Running(machine, sequencer, measured, keys, metrics, log, desk, identity)


def _app(running: Running, webhooks: Webhooks, offers: Offers, fields: Fields, private: bool) -> Starlette:
    passwords = Passwords()
    app = create_app(
        running.desk,
        Accounts(running.keys, passwords, private_webhooks=private),
        readers={CSV: partial(read_units, "units.csv"), WORKBOOK: partial(read_units, "units.xlsx")},
        extra_routes=[
            *identity_routes(running.desk, running.identity, passwords),
            *routes(running.metrics, running.sequencer, running.journal.head),
        ],
        offers=offers,
        field=fields,
    )
    watched = Watched(webhook_lag=webhooks.lag, listeners=app.state.bell.count)
    running.metrics.watch(running.sequencer, running.machine.tenants, watched)
    running.metrics.registry.register(IngestCounts(fields.open_rooms))
    return app


def _failed(log: Log, scope: Scope, fault: Exception) -> None:
    log.error("fault", route=template(scope), error=type(fault).__name__, where=places(fault))


async def _ending(stopping: Stopping, app: Starlette) -> None:
    """End the streams of events when the server stops: they would never end by themselves."""
    await stopping.wait()
    app.state.bell.end()


async def _tick(running: Running, players: demo.Counterparts | None) -> None:
    """Pass gates when nobody asks for anything, and let the demo's counterparts play."""
    while True:
        try:
            running.sequencer.pass_gates()
            running.keys.tend(clock())
            if players is not None and running.sequencer.ready:
                _play(running, players)
        except CoflexError as fault:
            running.log.warning("tick", error=type(fault).__name__, code=fault.code)
        except Exception as fault:  # a fault of the program is told, and the clock goes on
            running.log.error("fault", error=type(fault).__name__, where=places(fault))
        await asyncio.sleep(TICK_S)


def _play(running: Running, players: demo.Counterparts) -> None:
    state = running.machine.tenants.get(demo.TENANT)
    due = () if state is None else players.commands(state, running.desk.now(demo.TENANT))
    for command in due:
        try:
            running.sequencer.submit(command)
        except Unavailable:
            raise
        except CoflexError as fault:
            running.log.warning("counterpart", tenant=demo.TENANT, verb=command.verb, code=fault.code)


# ---------------------------------------------------------------- the demo


async def _open_demo(running: Running, settings: Settings, here: str, tell: Tell) -> None:
    """Open the demo's tenant at the first start, and tell the keys with which to try it."""
    name = demo.TENANT if settings.case is None else str(settings.case.resolve())
    case, there = case_of(name), running.machine.tenants.get(demo.TENANT)
    if there is None or not demo.seeded(case, there):
        for command in demo.seed(case, name, settings.speed):
            running.sequencer.submit(command)
        await running.desk.settled()
    for party, what in demo.visitors(running.machine.state(demo.TENANT)):
        if _visitor(running, party) is None:
            hashed = sha256(_secret(running.keys, party).encode()).hexdigest()
            await running.desk.submit(demo.first_client(party, hashed))
        client = _visitor(running, party)
        if client is not None and client.live(clock()):
            tell(f"Key of the demo's {what} {party}: cf_{client.id}_{_secret(running.keys, party)}")
    tell(f"Try: curl -H 'Authorization: Bearer KEY' {here}/v1/{demo.TENANT}/sessions")


def _visitor(running: Running, party: str) -> Client | None:
    """The client with which to try the demo as a party."""
    clients = running.machine.state(demo.TENANT).all(Client)
    return next((one for one in clients if (one.party, one.name) == (party, demo.CLIENT)), None)


def _secret(keys: Keys, party: str) -> str:
    """The secret of a demo client: always the same for this server, and kept nowhere."""
    return urlsafe_b64encode(keys.derived("demo client", party)).decode().rstrip("=")


# ---------------------------------------------------------------- the care of the store


def probe(settings: Settings) -> Any:
    """A look at the store, nothing of it changed. Raises CoflexError where it cannot be reached."""
    return copies.probe(settings.store)


def backup(settings: Settings, to: Path) -> Any:
    """Copy the store as it is at one instant, also while it serves."""
    return copies.backup(settings.store, to)


def restore(settings: Settings, source: Path, replace: bool) -> Any:
    """Bring a copy back, whole or not at all."""
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return copies.restore(source, settings.store, replace)


def migrate(settings: Settings) -> Any:
    """Bring the tables to the version of this coflex."""
    return copies.migrate(settings.store)


@dataclass(frozen=True, slots=True)
class Proved:
    """What a proof of the journal found. `head`: digest of the last entry, hexadecimal: noted elsewhere, it shows a
    journal that was cut off. `differences`: entry and reason, in words; empty when all is as it was acknowledged."""

    entries: int
    versions: int
    notes: int
    head: str
    differences: tuple[str, ...]


def verify(settings: Settings, progress: Tell) -> Proved:
    """Compute every digest anew, also while it serves."""
    found = check_chain(settings.store, progress)
    return Proved(found.entries, found.versions, found.notes, found.head.hex(), tuple(map(str, found.faults)))


@dataclass(frozen=True, slots=True)
class Replayed:
    """What deciding everything anew found. `computed`: results of the engine that were computed anew. `state`: digest
    of all records and open books at the end. `differences`: in words; empty when all is as it was."""

    entries: int
    computed: int
    state: str
    differences: tuple[str, ...]


def replay(settings: Settings, progress: Tell) -> Replayed:
    """Decide every command anew in an empty machine, and compute every result of the engine anew."""
    journal, machine = JournalReader(settings.store), Machine(VERBS)
    try:
        last = journal.head().number
        anew = _Anew(_entries(journal, last, progress))
        found = decide_anew(_entries(journal, last, progress), machine, anew)
        told = tuple(f"entry {one.number}: {one.what}" for one in found)
    finally:
        journal.close()
    return Replayed(last, anew.computed, fingerprint(machine), told)


class _Anew:
    """The engine of a replay: makes each job when the engine made it, and gives the body of its answer of today."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.computed = 0
        self._asked: dict[int, list[tuple[str, str, int]]] = {}
        self._bodies: dict[int, bytes] = {}
        for entry in entries:
            seen = engine.seen_by(entry)
            if seen is not None:
                at = (entry.command.tenant, entry.command.subject, entry.number)
                self._asked.setdefault(seen, []).append(at)

    def reached(self, machine: Machine, number: int) -> None:
        for tenant, subject, brought in self._asked.pop(number, ()):
            waiting = engine.pending(machine)
            work = next((one for one in waiting if (one.tenant, one.subject) == (tenant, subject)), None)
            if work is not None:
                made = engine.job(machine, work)
                self._bodies[brought] = engine.command(work, made, compute(made)).body
                self.computed += 1

    def body(self, entry: Entry) -> bytes | None:
        return self._bodies.pop(entry.number, None)


def _entries(journal: JournalReader, last: int, progress: Tell) -> Iterator[Entry]:
    after = 0
    while after < last and (batch := journal.entries(after, min(1000, last - after))):
        yield from batch
        after = batch[-1].number
        progress(f"{after} of {last} entries")
