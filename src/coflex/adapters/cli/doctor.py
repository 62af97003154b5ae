"""`coflex doctor`: what a service needs of its machine and its store, each line ok, warn or fail with a next step."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import stat
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from coflex.adapters.cli import screen
from coflex.adapters.cli.command import EXIT_REFUSED, Json
from coflex.adapters.cli.serve import DATA, Data, DatabaseUrl, Probe, Service, service
from coflex.domain.errors import CoflexError

LEAST_PYTHON = (3, 11)
LEAST_POSTGRESQL, LEAST_SQLITE = (14,), (3, 37)
GIB = 1 << 30
FEW_BYTES, TOO_FEW_BYTES = 5 * GIB, GIB // 2
# A commit waits for one sync; above this it is the disk that sets the pace. Faster than any disk: nothing is synced.
SLOW_SYNC, NO_SYNC = 0.02, 5e-6
# Ages of a certificate's rest and steps of the clock that are told.
SOON = timedelta(days=30)
CLOCK_STEP = timedelta(seconds=2)
_SYNCS = 40
_SECRETS = ("keys.json", "*.key", "*.pem")


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, what was found, and the next step where something is to be done."""

    name: str
    verdict: Verdict
    found: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What is looked at."""

    data: Path
    host: str
    port: int
    tls_cert: Path | None = None
    tls_key: Path | None = None


def doctor(
    ctx: typer.Context,
    data: Data = DATA,
    database_url: DatabaseUrl = None,
    host: Annotated[str, typer.Option(envvar="COFLEX_HOST", help="Address that will be listened on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, envvar="COFLEX_PORT", help="Port that will be used.")] = 8080,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate that will be used.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the certificate.")] = None,
    as_json: Json = False,
) -> None:
    """Look at the machine and the store before, or while, the platform serves; ends with 1 where something fails.

    Example: coflex doctor --data /var/lib/coflex
    """
    place = Place(data, host, port, tls_cert, tls_key)
    with service(ctx, as_json) as here:
        found = [*of_machine(place), *of_store(here, here.Settings(data=data, database_url=database_url))]
    if as_json:
        screen.put_json({"checks": [_row(one) for one in found], "verdict": worst(found).value})
    else:
        for one in found:
            step = f" {one.next_step}" if one.next_step else ""
            screen.put_line(f"{one.verdict.value:4}  {one.name:12}  {one.found}{step}")
    if worst(found) is Verdict.FAIL:
        raise typer.Exit(EXIT_REFUSED)


def _row(check: Check) -> dict[str, str]:
    return {
        "name": check.name,
        "verdict": check.verdict.value,
        "found": check.found,
        "next_step": check.next_step,
    }


def worst(found: Iterable[Check]) -> Verdict:
    order = list(Verdict)
    return max((one.verdict for one in found), key=order.index, default=Verdict.OK)


# ---------------------------------------------------------------- the machine


def of_machine(place: Place) -> Iterator[Check]:
    """What the machine gives, nothing of it changed."""
    yield python(sys.version_info[:3])
    yield packages(_required())
    folder = data_folder(place.data)
    yield folder
    if folder.verdict is not Verdict.FAIL:
        there = _existing(place.data)
        yield room(shutil.disk_usage(there).free)
        yield _sync(there)
    yield secrets(place)
    if place.tls_cert is not None:
        yield certificate(place.tls_cert, datetime.now(UTC))
    yield port(place.host, place.port)


def python(version: tuple[int, ...]) -> Check:
    text = ".".join(map(str, version))
    if version < LEAST_PYTHON:
        return Check("python", Verdict.FAIL, f"Python {text}.", "Install Python 3.11 or later.")
    return Check("python", Verdict.OK, f"Python {text} on {platform.system()}.")


def packages(required: list[str] | None) -> Check:
    """`required`: as in a package's metadata ("uvicorn>=0.35"); None where coflex is not installed as a package."""
    name = "packages"
    if required is None:
        return Check(name, Verdict.WARN, "coflex runs from its sources.", "Install it with pip to have this checked.")
    missing = []
    for line in required:
        wanted = re.match(r"[\w.-]+", line)
        least = re.search(r">=\s*([\d.]+)", line)
        if wanted is None or "extra ==" in line or ("sys_platform" in line and sys.platform == "win32"):
            continue
        try:
            there = importlib.metadata.version(wanted[0])
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{wanted[0]} is not there")
            continue
        if least is not None and numbers(there) < numbers(least[1]):
            missing.append(f"{wanted[0]} is {there}, at least {least[1]} is needed")
    if missing:
        return Check(
            name, Verdict.FAIL, f"{'; '.join(missing)}.", "Install coflex again: pip install --upgrade coflex."
        )
    return Check(name, Verdict.OK, f"{len(required)} requirements are there.")


def _required() -> list[str] | None:
    try:
        return importlib.metadata.requires("coflex") or []
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "17.2 (Debian)" is (17, 2)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def data_folder(folder: Path) -> Check:
    """Whether the service may write there, and nobody else may read."""
    name, there = "data folder", _existing(folder)
    if not there.is_dir():
        return Check(name, Verdict.FAIL, f"{there} is no folder.", "Give --data a folder.")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        step = f"Give it to the service's user: chown {_user()} {there}."
        return Check(name, Verdict.FAIL, f"This user may not write to {there}.", step)
    if not folder.exists():
        return Check(name, Verdict.OK, f"{folder} will be made at the first start.")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return Check(name, Verdict.WARN, f"Others may look into {folder}.", f"Close it: chmod 700 {folder}.")
    return Check(name, Verdict.OK, f"{folder} is this user's alone.")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _user() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return "coflex"


def room(free: int) -> Check:
    """`free`: bytes."""
    name, found = "free space", f"{free / GIB:.1f} GiB are free."
    if free < TOO_FEW_BYTES:
        return Check(name, Verdict.FAIL, found, "Make room, or give --data a folder on a larger disk.")
    if free < FEW_BYTES:
        return Check(name, Verdict.WARN, found, "Make room soon; a full disk takes no orders.")
    return Check(name, Verdict.OK, found)


def _sync(folder: Path) -> Check:
    """Write and sync a few blocks in the folder, and take the file away again."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            seconds = list(_timed_syncs(file.fileno()))
    except OSError as fault:
        return Check("disk sync", Verdict.FAIL, f"The disk does not sync: {fault.strerror}.", "Use another disk.")
    return sync(seconds)


def _timed_syncs(file: int) -> Iterator[float]:
    flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
    for _ in range(_SYNCS):
        os.write(file, b"\0" * 4096)
        began = perf_counter()
        flush(file)
        yield perf_counter() - began


def sync(seconds: list[float]) -> Check:
    """`seconds` of each of some syncs of 4 KiB."""
    name, middle = "disk sync", statistics.median(seconds)
    found = f"A sync takes {1000 * middle:.2f} ms, {1000 * max(seconds):.2f} ms at most."
    if middle < NO_SYNC:
        return Check(name, Verdict.WARN, found, "That is memory, no disk: what is kept there is lost without power.")
    if middle > SLOW_SYNC:
        return Check(name, Verdict.WARN, found, "Every order waits for that; use a faster disk, best an SSD.")
    return Check(name, Verdict.OK, found)


def secrets(place: Place) -> Check:
    """Whether keys are readable by the service's user alone."""
    name = "key files"
    files = [file for pattern in _SECRETS for file in sorted(place.data.glob(pattern))] if place.data.is_dir() else []
    if place.tls_key is not None:
        files.append(place.tls_key)
        if not place.tls_key.is_file():
            return Check(name, Verdict.FAIL, f"There is no file {place.tls_key}.", "Give --tls-key a file.")
    open_ones = [str(file) for file in files if file.is_file() and stat.S_IMODE(file.stat().st_mode) & 0o077]
    if os.name == "posix" and open_ones:
        step = f"Close them, and make new ones if somebody could have read them: chmod 600 {' '.join(open_ones)}."
        return Check(name, Verdict.FAIL, f"Others may read {', '.join(open_ones)}.", step)
    return Check(name, Verdict.OK, f"{len(files)} are this user's alone." if files else "There are none yet.")


def certificate(file: Path, now: datetime) -> Check:
    """Whether the server's certificate holds, and for how long."""
    from cryptography import x509

    name = "certificate"
    try:
        read = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        return Check(name, Verdict.FAIL, f"{file} is no certificate that can be read.", "Give --tls-cert a PEM file.")
    first, last = read.not_valid_before_utc, read.not_valid_after_utc
    if not first <= now <= last:
        found = f"It holds from {first:%Y-%m-%d} to {last:%Y-%m-%d}, not now."
        return Check(name, Verdict.FAIL, found, "Get a new one, and restart the service.")
    if last - now < SOON:
        return Check(name, Verdict.WARN, f"It ends on {last:%Y-%m-%d}.", "Renew it, and restart the service.")
    return Check(name, Verdict.OK, f"It holds until {last:%Y-%m-%d}.")


def port(host: str, number: int) -> Check:
    """Whether the port is free. Nothing listens on it, not for an instant."""
    name = "port"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
    except socket.gaierror:
        return Check(name, Verdict.FAIL, f"There is no address '{host}'.", "Give --host one of this machine.")
    except PermissionError:
        return Check(name, Verdict.FAIL, f"This user may not listen on {number}.", "Give a --port above 1023.")
    except OSError:
        found = f"Port {number} of {host} is in use."
        return Check(name, Verdict.WARN, found, "If that is not this service itself, stop it or give another --port.")
    return Check(name, Verdict.OK, f"Port {number} of {host} is free.")


# ---------------------------------------------------------------- the store


def of_store(here: Service, settings: Any) -> Iterator[Check]:
    """What the store says of itself."""
    try:
        probe = here.probe(settings)
    except CoflexError as fault:
        yield Check("database", Verdict.FAIL, fault.message, fault.remedy or "Start it, and check its address.")
        return
    yield database(probe)
    yield shape(probe)
    yield clock(probe, datetime.now(UTC))
    yield lock(probe)


def database(probe: Probe) -> Check:
    least = LEAST_SQLITE if probe.kind == "SQLite" else LEAST_POSTGRESQL
    found = f"{probe.kind} {probe.version} answers, with {probe.entries} entries."
    if numbers(probe.version) < least:
        step = f"Upgrade it to {'.'.join(map(str, least))} or later."
        return Check("database", Verdict.FAIL, found, step)
    return Check("database", Verdict.OK, found)


def shape(probe: Probe) -> Check:
    """Whether the tables are those that this coflex writes."""
    if not probe.shape:
        return Check("tables", Verdict.OK, "They will be made at the first start.")
    if probe.shape != probe.newest_shape:
        found = f"They have version {probe.shape}, this coflex writes {probe.newest_shape}."
        return Check("tables", Verdict.FAIL, found, "Make a backup, then run coflex store migrate.")
    return Check("tables", Verdict.OK, f"They have version {probe.shape}.")


def clock(probe: Probe, now: datetime) -> Check:
    """Whether this machine's clock goes on from the last entry: an earlier one would hold all gates back."""
    name, last = "clock", probe.last_at
    if last is None:
        return Check(name, Verdict.OK, f"It is {now:%Y-%m-%d %H:%M:%S} UTC; nothing is to be compared with yet.")
    if last - now > CLOCK_STEP:
        found = f"It is {now:%Y-%m-%d %H:%M:%S} UTC, {last - now} before the last entry."
        return Check(name, Verdict.FAIL, found, "Set the clock (timedatectl); until then the platform's time stands.")
    return Check(name, Verdict.OK, f"It is {now:%Y-%m-%d %H:%M:%S} UTC, after the last entry.")


def lock(probe: Probe) -> Check:
    """Whether somebody writes to the store."""
    if probe.writer:
        step = "Only one may: if it is not the service that is meant, stop it."
        return Check("writer", Verdict.WARN, f"{probe.writer} writes to the store now.", step)
    return Check("writer", Verdict.OK, "Nobody writes to the store now.")
