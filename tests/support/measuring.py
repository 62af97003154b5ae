"""Devices with keys, the table of their points, and `coflex ingest` as a process."""

from __future__ import annotations

import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from coflex.evidence import keys, message
from coflex.evidence.message import Kind, Quantity
from coflex.ingest import Settings, ingest
from coflex.metering.admission import Signer, Signers
from support.forked import Forked, Tell

ORIGIN, TENANT = "coflex/test/measurements", "test"
STEP, COUNT = 4_000, 15
# A minute on the grid of 4 s, so that quarter-hours come out even.
NOW = 1_782_900_000_000


@dataclass
class Device:
    """A point that measures. `start`: of its first interval, ms; message n begins `every` ms after the one before."""

    point: int
    start: int = NOW
    owner: str = "owner"
    secret: bytes = field(default=b"", repr=False)
    last: int = 0
    every: int = STEP * COUNT

    def __post_init__(self) -> None:
        self.secret = self.secret or sha256(b"device %d" % self.point).digest()

    @property
    def public(self) -> bytes:
        return keys.public_of(self.secret)

    def signer(self, **more: Any) -> Signer:
        return Signer(self.point, self.public, self.owner, f"unit-{self.point}", **more)

    def next(self, **more: Any) -> bytes:
        """The message after the last one."""
        self.last += 1
        return self.message(self.last, **more)

    def message(
        self,
        sequence: int,
        *,
        first: int | None = None,
        at: int | None = None,
        values: Sequence[int | None] | None = None,
        quantity: int = Quantity.ACTIVE_POWER_W,
        step: int = STEP,
        revision: int = 0,
        scale: int = 0,
        width: int | None = None,
        secret: bytes | None = None,
        signer: int | None = None,
    ) -> bytes:
        """A signed measurement; what is not given is that of a device in good order."""
        first = self.start + (sequence - 1) * self.every if first is None else first
        values = [100 * self.point + sequence] * COUNT if values is None else values
        body = message.measurement(first, step, quantity, values, scale, revision, width)  # type: ignore[arg-type]
        return self.seal(body, sequence, first + step * len(values) if at is None else at, secret, signer)

    def seal(
        self,
        body: bytes,
        sequence: int,
        at: int,
        secret: bytes | None = None,
        signer: int | None = None,
        kind: Kind = Kind.MEASUREMENT,
    ) -> bytes:
        """Any body, signed."""
        key = self.secret if secret is None else secret
        point = self.point if signer is None else signer
        return message.seal(lambda data: keys.sign(key, data), kind, point, sequence, at, body)


def signers(devices: Sequence[Device]) -> Signers:
    return Signers(device.signer() for device in devices)


def write_points(devices: Sequence[Device], path: Path) -> Path:
    """The table of their points, CSV."""
    rows = [f"{one.point},{one.public.hex()},{one.owner},unit-{one.point}" for one in devices]
    path.write_text("\n".join(["point,public_key,owner,unit", *rows]) + "\n", encoding="utf-8")
    return path


# ---------------------------------------------------------------- the process


@dataclass
class Ingest:
    """A running `coflex ingest`."""

    url: str
    process: Forked
    told: list[str]

    def post(self, batch: bytes, token: str = "", tenant: str = TENANT, kind: str = "") -> dict[str, Any]:
        """Send a batch; raises what urllib raises."""
        headers = {"Content-Type": kind or "application/vnd.coflex.messages"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(f"{self.url}/v1/{tenant}/measurements", batch, headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            told: dict[str, Any] = json.load(answer)
            return told

    def get(self, path: str, token: str = "") -> bytes:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, None, headers), timeout=20) as answer:
            data: bytes = answer.read()
            return data

    def status(self, path: str, token: str = "") -> int:
        try:
            self.get(path, token)
        except urllib.error.HTTPError as fault:
            return fault.code
        return 200

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.signal(signal.SIGTERM)
        return self.process.ended()


def command(points: Path, data: Path) -> list[str]:
    """The command line of the same."""
    given = ["--points", str(points), "--data", str(data), "--origin", ORIGIN, "--port", "0"]
    return [sys.executable, "-m", "coflex", "ingest", *given]


def start(points: Path, data: Path, **more: Any) -> Ingest:
    """Start it, as settings say, and wait until it listens."""
    settings = Settings(data, points, ORIGIN, port=more.pop("port", 0), **more)
    process = Forked(_ingest, settings)
    told = []
    while "listens on " not in (line := process.hear()):
        told.append(line)
    return Ingest(line.rpartition("listens on ")[2].strip(), process, told)


def _ingest(tell: Tell, settings: Settings) -> None:
    ingest(settings, tell)


@contextmanager
def running(points: Path, data: Path, **more: Any) -> Iterator[Ingest]:
    here = start(points, data, **more)
    with here.process:
        yield here
