"""The ingest composed: the log and its tables, the doors for HTTP and MQTT, and what runs between them."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from starlette.types import ASGIApp

from coflex.adapters.field.broker import Address, Door
from coflex.adapters.field.stream import StreamDoor, check_url
from coflex.adapters.measurements.certify import certificate
from coflex.adapters.measurements.check import Verify, here
from coflex.adapters.measurements.cosigning import Cosigning, Witness, read_witnesses
from coflex.adapters.measurements.intake import BUCKETS, Intake
from coflex.adapters.measurements.log import SEGMENT_BYTES, Log
from coflex.adapters.measurements.points import load
from coflex.adapters.measurements.tables import Tables
from coflex.adapters.measurements.verifying import Verifiers
from coflex.adapters.web.logs import Log as Lines
from coflex.adapters.web.logs import logs, places
from coflex.adapters.web.measurements import Senders, application, of_file
from coflex.adapters.web.server import Limited, Listening, Stopping, address, bind, run
from coflex.domain.errors import CoflexError, NotFound
from coflex.evidence.certificate import encode
from coflex.evidence.message import HEADER
from coflex.metering.admission import Answer, Part, Signers

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How the ingest is run. `data`: its folder. `points`: the table of registered keys, CSV or Parquet. `origin`: the
    log's name, coflex/<tenant>/<log>. `senders`: CSV of SHA-256 of a token and owner, None: anybody may send. `mqtt`:
    URL of a broker, `nats`: of a NATS server with JetStream. `witnesses`: table of those whose cosignatures are asked
    for. `segment_bytes`: when a segment of the log becomes tables."""

    data: Path
    points: Path
    origin: str = "coflex/city/measurements"
    host: str = "127.0.0.1"
    port: int = 8090
    tls_cert: Path | None = None
    tls_key: Path | None = None
    senders: Path | None = None
    mqtt: str | None = None
    nats: str | None = None
    witnesses: Path | None = None
    log_format: Literal["json", "text"] | None = None
    segment_bytes: int = SEGMENT_BYTES

    @property
    def tenant(self) -> str:
        """Raises CoflexError when the origin names none."""
        parts = self.origin.split("/")
        plain = self.origin.isascii() and not any(one.isspace() or one in "+#" for one in self.origin)
        if not (plain and len(parts) == 3 and parts[0] == "coflex" and all(parts)):
            fault = "Give --origin as coflex/<tenant>/<log>, without blanks, + and #."
            raise CoflexError(f"{self.origin} is no name of a log.", fault)
        return parts[1]


def clock() -> int:
    """The server's clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


def ingest(settings: Settings, tell: Tell) -> None:
    """Take measurements until SIGTERM or SIGINT. Raises CoflexError, with what to do, where it cannot begin."""
    tenant = settings.tenant
    broker = None if settings.mqtt is None else Address.parse(settings.mqtt)
    signers, senders = load(settings.points), Senders()
    if settings.senders is not None:
        try:
            with settings.senders.open(newline="", encoding="utf-8") as file:
                senders = of_file(list(csv.reader(file)))
        except (UnicodeDecodeError, csv.Error):
            raise CoflexError(f"{settings.senders} is no CSV in UTF-8.", "Save it as such.") from None
    if settings.nats is not None:
        check_url(settings.nats)
    witnesses = () if settings.witnesses is None else read_witnesses(settings.witnesses)
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    listening = Listening(settings.host, settings.port, settings.tls_cert, settings.tls_key)
    listener = bind(listening)
    url = address(listener, listening)
    tell(f"Measurements: POST {url}/v1/{tenant}/measurements, checkpoint: {url}/checkpoint, health: {url}/ready")
    with Verifiers() as verify:
        platform = partial(_platform, settings, tenant, signers, senders, broker, witnesses, verify, listening, tell)
        run(listening, platform, tell, listener)


@asynccontextmanager
async def _platform(
    settings: Settings,
    tenant: str,
    signers: Signers,
    senders: Senders,
    broker: Address | None,
    witnesses: Sequence[Witness],
    verify: Verify,
    listening: Listening,
    tell: Tell,
    _: Stopping,
) -> AsyncIterator[ASGIApp]:
    lines = logs(settings.log_format)
    running = open_ingest(settings.data, settings.origin, signers, clock, lines, settings.segment_bytes, verify)
    running.witnessed(witnesses)
    asking = asyncio.create_task(running.cosigning.run()) if witnesses else None
    doors: list[Door | StreamDoor] = []
    try:
        if running.intake.log.torn:
            tell(
                f"{running.intake.log.torn} bytes of an unfinished commit were cut off; nobody was answered about them"
            )
        tell(f"{len(signers)} keys, log {settings.origin} of size {running.size()}, key {running.key()}")
        if broker is not None:
            name = f"ingest/{settings.origin}"
            doors.append(Door(running.intake, tenant, broker, running.owner_of, name, running.failed))
        if settings.nats is not None:
            doors.append(StreamDoor(running.intake, tenant, settings.nats, running.owner_of, running.failed))
        for door in doors:
            await door.open()
        yield Limited(application(running, senders), listening.most_body)
    finally:
        for door in doors:
            await door.close()
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await asyncio.to_thread(running.close)


def open_ingest(
    data: Path,
    origin: str,
    signers: Signers,
    clock: Callable[[], int] = clock,
    lines: Lines | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    verify: Verify = here,
) -> Running:
    """The ingest over a folder, without doors: for `coflex ingest`, and for whoever has points and doors of its own.

    `signers` may grow while it runs. `verify`: who checks signatures. Raises InUse, LogBroken.
    """
    log = Log(data, origin, segment_bytes)
    try:
        tables = Tables(data / "tables", log)
        running = Running(origin, lines)
        running.intake = Intake(log, tables, signers, clock, running.failed, verify)
        running.now = clock
        running.witnessed(())
    except BaseException:
        log.close()
        raise
    return running


class Running:
    """A running ingest, as its doors see it."""

    intake: Intake
    now: Callable[[], int]
    cosigning: Cosigning

    def __init__(self, origin: str, lines: Lines | None) -> None:
        self.origin, self.tenant = origin, origin.split("/")[1]
        self.buckets = BUCKETS
        self._lines = lines

    @property
    def counts(self) -> Any:
        return self.intake.counts

    def failed(self, fault: BaseException) -> None:
        if self._lines is not None:
            self._lines.error("fault", error=type(fault).__name__, where=places(fault))

    def witnessed(self, witnesses: Sequence[Witness]) -> None:
        """Whose cosignatures are asked for, once `cosigning` runs."""
        self.cosigning = Cosigning(self.intake.log, witnesses, self.failed)

    def submit(self, parts: Sequence[Part]) -> Future[Answer]:
        return self.intake.submit(parts)

    def note(self) -> str:
        return self.intake.log.note

    def cosigned(self) -> str:
        return self.cosigning.note

    def key(self) -> str:
        return str(self.intake.log.key)

    def size(self) -> int:
        return self.intake.log.size

    def waiting(self) -> int:
        return self.intake.waiting

    def trouble(self) -> str:
        return self.intake.alarm or ("" if self.intake.ready else "The ingest is stopping.")

    def find(self, point: int, sequence: int) -> int | None:
        return self.intake.log.find(point, sequence)

    def owner_of(self, point: int) -> str | None:
        row = self.intake.signers.row(point)
        return None if row is None else self.intake.signers.owners[row]

    def owner(self, leaf: int) -> str:
        found = self.intake.log.read(leaf, 1) if leaf < self.size() else []
        if not found:
            raise NotFound("There is no such message here.", "Ask for one that was acknowledged.")
        _, kind, _, signer, _, _ = HEADER.unpack_from(found[0])
        row = self.intake.signers.row(signer, kind in (2, 4))
        return "" if row is None else self.intake.signers.owners[row]

    def inclusion(self, leaf: int, size: int) -> list[bytes]:
        return self.intake.log.inclusion(leaf, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        return self.intake.log.consistency(old, new)

    def certificate(self, leaves: Sequence[int], older: Sequence[int]) -> bytes:
        """Under the newest checkpoint that all witnesses cosigned, where it covers these, else under the last one."""
        cosigning, covered = self.cosigning, max(leaves, default=-1)
        note, keys = (
            (cosigning.note, [one.key for one in cosigning.witnesses]) if cosigning.size > covered else (None, ())
        )
        return encode(certificate(self.intake.log, self.intake.signers, leaves, older, note, keys))

    def live(self, points: Sequence[int], owners: frozenset[str] | None) -> list[Any]:
        return self.intake.live.last(points, owners)

    def close(self) -> None:
        self.intake.close()
