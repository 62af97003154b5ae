"""A device and a fleet of simulated ones, put together from their parts: what `coflex device` runs."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from coflex.activation.droop import Droop
from coflex.adapters.field.author import Author, Courier
from coflex.adapters.field.broker import Address
from coflex.adapters.field.buffer import Outbox
from coflex.adapters.field.clock import Clock, SystemClock, Watch
from coflex.adapters.field.disk import Disk, FolderCopy, FolderDisk
from coflex.adapters.field.enrolment import enrol, read_key
from coflex.adapters.field.fleet import Counted, Fleet, Member, Rhythm, ScaledClock, check_failing
from coflex.adapters.field.gateway import STATUS, Gateway, Link
from coflex.adapters.field.http_link import Door, HttpLink
from coflex.adapters.field.link import Broker, MqttLink, Station, tls_context
from coflex.adapters.field.meter import (
    QUANTITIES,
    CallbackManagement,
    CallbackSource,
    CommandManagement,
    CommandSource,
    Management,
    ModbusManagement,
    ModbusSource,
    Readings,
    Source,
    function,
)
from coflex.adapters.field.modbus import Modbus
from coflex.adapters.field.node import Containment, Node, Tellings
from coflex.adapters.field.sampling import Sampler
from coflex.adapters.field.setpoints import Owner, Pinned
from coflex.adapters.field.settings import Control, Http, Mqtt, Settings, Simulated, read_settings
from coflex.domain.errors import CoflexError
from coflex.evidence.keys import fingerprint, public_of, signer
from coflex.evidence.message import Quantity
from coflex.locks import try_lock
from coflex.simulation.fleet import SEED_BYTES, Device, SimulatedUnit, daily_kw, devices

Tell = Callable[[str, str], None]

__all__ = ["FleetOrder", "enrol", "fleet", "run", "show"]


# ---------------------------------------------------------------- one device


def run(config: Path, tell: Tell) -> None:
    """Run the device of a configuration until SIGTERM or SIGINT. `tell(code, sentence)`: what a person should know.

    Raises Refused with every fault of the configuration, CoflexError where the device cannot run.
    """
    settings = read_settings(config)
    with held(settings.state):
        asyncio.run(_run(settings, tell))


async def _run(settings: Settings, tell: Tell) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    disk = FolderDisk(settings.state / "buffer")
    clock = SystemClock() if settings.sandbox is None else await asyncio.to_thread(sandbox_clock, settings)
    gateway = make(settings, clock, disk, tell)
    link = link_of(settings, gateway, clock, Random(), gateway.node.tell)
    tell(
        "started", f"Point {settings.point} of {settings.tenant} runs; message {gateway.node.outbox.last} was the last."
    )
    try:
        await gateway.run(link, settings.state, ending)
    finally:
        gateway.node.outbox.close()
    tell("stopped", f"Stopped after message {gateway.node.outbox.last}; {len(gateway.node.outbox)} wait in the buffer.")


def sandbox_clock(settings: Settings) -> Clock:
    """A clock that goes with that of the tenant in a sandbox. Raises CoflexError where the platform does not tell it,
    or where it does not run at the pace of time."""
    import httpx

    assert settings.sandbox is not None
    door, machine = door_of(settings.sandbox), SystemClock()
    headers = {} if door.token is None else {"authorization": f"Bearer {door.token}"}
    place = f"{door.url.rstrip('/')}/v1/{settings.tenant}/time"
    try:
        answer = httpx.get(place, headers=headers, verify=door.tls or True, timeout=door.timeout_s)
        answer.raise_for_status()
        told = answer.json()
        now, speed = datetime.fromisoformat(told["now"]), told["speed"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as fault:
        message = f"The time of the sandbox is not told by {place}: {fault or type(fault).__name__}."
        raise CoflexError(message, "Look at url and token of 'sandbox', and at the tenant.") from None
    if speed != 1:
        raise CoflexError(
            f"The clock of the sandbox runs at {speed} times the pace of time.",
            "Set its speed to 1 (POST /sandbox/clock) and start the device again.",
        )
    return ScaledClock(machine, 1.0, round(1000 * now.timestamp()), machine.monotonic_ms())


def make(settings: Settings, clock: Clock, disk: Disk, tell: Tell) -> Gateway:
    """The device of a configuration over a clock and a disk."""
    outbox = Outbox(disk, round(settings.buffer_mb * (1 << 20)))
    watch = Watch(clock, outbox.signed_at, round(1000 * settings.clock_bound_s))
    tellings = Tellings(clock.utc_ms, tell)
    author = Author(settings.point, signer(read_key(settings.state)), outbox, watch, tellings)
    node = Node(
        author,
        [
            Sampler(
                QUANTITIES[one.quantity], round(1000 * one.step_s), one.count, from_counter=one.quantity == "energy"
            )
            for one in settings.series
        ],
        Pinned(settings.platform.signer, bytes.fromhex(settings.platform.key)),
        settings.limits.owner(),
        tellings,
        _containment(settings),
        None if settings.afrr is None else settings.afrr.group,
    )
    source, management = _field(settings, clock)
    if isinstance(source, ModbusSource):  # a meter that was exchanged while the device was off began anew
        source.before = outbox.notes.get("meter", {})
        node.beside = lambda: {"meter": source.before}
    # Acknowledgements are not kept by the broker for who is away; half a second lets those on their way pass.
    settle_ms = 500 if settings.link.mqtt is not None else 0
    courier = Courier(author, settle_ms=settle_ms)
    return Gateway(node, courier, source, management, tellings, settings.sample_s, settings.control.repeat_s)


def _containment(settings: Settings) -> Containment | None:
    fcr = settings.fcr
    if fcr is None:
        return None
    droop = Droop(1000 * fcr.reserve_kw, fcr.full_mhz, fcr.dead_band_mhz, fcr.nominal_hz, fcr.full_activation_s)
    return Containment(droop, None if fcr.base_kw is None else 1000 * fcr.base_kw)


def _field(settings: Settings, clock: Clock) -> tuple[Source, Management | None]:
    """Where readings come from, and where set points go."""
    meter, control = settings.meter, settings.control
    if meter.simulated is not None:
        unit = Simulation(meter.simulated, clock)
        return unit, unit
    if meter.modbus is not None:
        registers = {name: one.register() for name, one in meter.modbus.registers.items()}
        modbus = Modbus(meter.modbus.place())
        # Many devices bear one connection alone: where both are one device, they share it.
        shared = modbus if control.modbus is not None and control.modbus.place() == meter.modbus.place() else None
        return ModbusSource(modbus, registers), _management(control, shared)
    if meter.callback is not None:
        return CallbackSource(function(meter.callback)), _management(control)
    assert meter.command is not None
    return CommandSource(meter.command, meter.stale_s), _management(control)


def _management(control: Control, shared: Modbus | None = None) -> Management | None:
    if control.modbus is not None:
        place = control.modbus
        enable = None if place.enable is None else place.enable.register()
        return ModbusManagement(
            shared or Modbus(place.place()), place.power.register(), enable, place.on, place.off, 1000 * place.rest_kw
        )
    if control.callback is not None:
        return CallbackManagement(function(control.callback))
    if control.command is not None:
        return CommandManagement(control.command, control.timeout_s)
    return None


class Simulation:
    """A simulated unit as meter and energy management system at once, on a device's clock."""

    def __init__(self, settings: Simulated, clock: Clock) -> None:
        ramp = 1000 * settings.ramp_kw_per_s
        self._unit = SimulatedUnit(1000 * settings.base_kw, ramp, settings.preparation_s)
        self._clock, self._waver, self._chance = clock, settings.waver, Random(settings.seed)
        self._exported = 0.0
        self._at = self._now

    async def read(self) -> Readings:
        now, plan = self._now, self._unit.plan_w
        power = self._unit.advance(now) * (1 + self._waver * self._chance.uniform(-1, 1))
        self._exported += power * (now - self._at) / 3600
        self._at = now
        return {
            Quantity.ACTIVE_POWER_W: power,
            Quantity.ACTIVE_ENERGY_WH: self._exported,
            Quantity.BASELINE_W: plan,
            Quantity.FREQUENCY_HZ: 50.0 + 0.02 * self._chance.uniform(-1, 1),
        }

    async def hold(self, power_w: float) -> None:
        self._unit.hold(power_w, self._now)

    async def release(self) -> None:
        self._unit.hold(None, self._now)

    async def close(self) -> None:
        """There is nothing to close."""

    @property
    def _now(self) -> float:
        return self._clock.monotonic_ms() / 1000


def link_of(settings: Settings, station: Station, clock: Clock, chance: Random, tell: Tell) -> Link:
    """The way to the platform that the configuration asks for."""
    if settings.link.mqtt is not None:
        broker = broker_of(settings.link.mqtt, f"coflex-{settings.tenant}-{settings.point}")
        return MqttLink(broker, settings.tenant, [station], clock, chance, tell)
    assert settings.link.http is not None
    return HttpLink(door_of(settings.link.http), settings.tenant, [station], clock, chance, tell)


def broker_of(mqtt: Mqtt, client_id: str) -> Broker:
    """Raises CoflexError when a file of TLS or of the password cannot be used."""
    tls = None
    if mqtt.tls is not None:
        tls = tls_context(
            *(None if one is None else str(one) for one in (mqtt.tls.ca, mqtt.tls.certificate, mqtt.tls.key))
        )
    return Broker(
        mqtt.host, mqtt.port, client_id, tls, mqtt.username, _secret(mqtt.password_file),
        mqtt.session_expiry_s, mqtt.keepalive_s, mqtt.longest_wait_s,
    )  # fmt: skip


def door_of(http: Http) -> Door:
    """Raises CoflexError when the file of the token cannot be read."""
    tls = None if http.ca is None else tls_context(str(http.ca), None, None)
    return Door(http.url, _secret(http.token_file), tls, http.timeout_s, http.longest_wait_s)


def _secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as fault:
        raise CoflexError(f"The secret in {path} cannot be read: {fault}.", "Correct the path or its rights.") from None


def _locked(file: int, tries: int = 5) -> bool:
    """Whether the lock is ours; who only looks whether a device runs has it for a moment."""
    for again in range(tries):
        if try_lock(file):
            return True
        time.sleep(0.02 if again < tries - 1 else 0)
    return False


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder for one process alone: two would use the same numbers. Raises CoflexError when another has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _locked(lock):
            raise CoflexError(f"Another process runs from {folder}.", "Stop it, or give each its own folder.")
        yield
    finally:
        os.close(lock)


# ---------------------------------------------------------------- what it shows


@dataclass(frozen=True, slots=True)
class Shown:
    """The state of a device. `buffered`: messages without acknowledgement; `held`: of them, those that wait for the
    platform's word after a start. `set_point`: the number of the one in force. `lost`: messages that are gone."""

    point: int | None
    fingerprint: str
    running: bool
    connected: bool | None
    last_sequence: int
    acknowledged: int
    buffered: int
    held: int
    lost: int
    set_points: int
    set_point: int | None
    power_w: float | None
    clock_offset_ms: int | None
    at: str | None
    findings: tuple[str, ...]


def show(folder: Path) -> Shown:
    """The state in a device's folder, nothing of it changed. Raises CoflexError when there is none."""
    public = public_of(read_key(folder))
    outbox = Outbox(FolderCopy(folder / "buffer"), 1 << 40)
    told: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # a power cut may leave it empty
        told = json.loads((folder / STATUS).read_text(encoding="utf-8"))
    held_points = outbox.notes.get("set_points", {}).get("held", {})
    return Shown(
        point=told.get("point"),
        fingerprint=fingerprint(public),
        running=(running := _running(folder)),
        connected=told.get("connected") if running else None,
        last_sequence=outbox.last,
        acknowledged=outbox.acknowledged,
        buffered=len(outbox),
        held=outbox.held,
        lost=sum(last - first + 1 for first, last in outbox.lost),
        set_points=len(held_points),
        set_point=told.get("set_point") if running else None,
        power_w=told.get("power_w") if running else None,
        clock_offset_ms=told.get("clock_offset_ms"),
        at=told.get("at"),
        findings=tuple(f"{one['at']} {one['message']}" for one in told.get("told", ())),
    )


def _running(folder: Path) -> bool:
    try:
        with held(folder):
            return False
    except CoflexError:
        return True


# ---------------------------------------------------------------- a fleet


@dataclass(frozen=True, slots=True)
class FleetOrder:
    """A fleet to run. `folder`: of its seed, its numbers and its table of points. One of `broker` and `url`.

    `begins`: UTC, where its clock starts; now if not given. `seconds`: how long, until a signal if not given.
    """

    folder: Path
    count: int
    tenant: str = "city"
    broker: str | None = None
    url: str | None = None
    ca: Path | None = None
    token_file: Path | None = None
    connections: int = 0
    speed: float = 1.0
    begins: datetime | None = None
    seconds: float | None = None
    first_point: int = 1
    platform: str | None = None
    platform_signer: int = 1
    group: int | None = None
    spread_s: float = 50.0
    failing: dict[str, float] = field(default_factory=dict)
    seed: int = 0


_RESERVED = 10_000
SEED, NUMBERS, POINTS = "fleet.seed", "numbers.json", "points.csv"


def prepare_fleet(order: FleetOrder) -> tuple[tuple[Device, ...], Path]:
    """The devices of a fleet, and the table of their points for `coflex ingest --points`; made where missing."""
    order.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = order.folder / SEED
    if not path.exists():
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as seed:
            seed.write(secrets.token_bytes(SEED_BYTES))
    names = [f"unit-{point}" for point in range(order.first_point, order.first_point + order.count)]
    fleet = devices(names, path.read_bytes(), order.first_point)
    points = order.folder / POINTS
    write_points(points, fleet, order.platform, order.platform_signer)
    return fleet, points


def write_points(path: Path, fleet: Sequence[Device], platform: str | None = None, platform_signer: int = 1) -> None:
    """The table of registered keys of a fleet: one owner a device, valid always."""
    rows = [(one.point, public_of(one.seed).hex(), one.unit, f"owner-{one.point}", "", "", "point") for one in fleet]
    if platform is not None:
        rows.append((platform_signer, platform, "", "platform", "", "", "party"))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("point", "public_key", "unit", "owner", "from", "until", "kind"))
        table.writerows(rows)


def fleet(order: FleetOrder, tell: Callable[[str], None]) -> Counted:
    """Run a fleet until SIGTERM, SIGINT or its time is over. `tell`: a line every ten seconds.

    Raises CoflexError when neither or both of broker and url are given, or another process runs this fleet.
    """
    if (order.broker is None) == (order.url is None):
        raise CoflexError("A fleet needs a broker or a URL.", "Give --broker or --url, one of the two.")
    check_failing(order.failing)
    order.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(order.folder):
        made, points = prepare_fleet(order)
        tell(f"{len(made)} devices, their points in {points}.")
        return asyncio.run(_fleet(order, made, tell))


async def _fleet(order: FleetOrder, made: Sequence[Device], tell: Callable[[str], None]) -> Counted:
    real = SystemClock()
    begins = real.utc_ms() if order.begins is None else round(order.begins.timestamp() * 1000)
    clock = ScaledClock(real, order.speed, begins, real.monotonic_ms())
    chance = Random(order.seed)
    first = _first_number(order.folder)
    pinned = Pinned(order.platform_signer, bytes.fromhex(order.platform or "00" * 32))
    rhythm = Rhythm(spread_ms=round(1000 * order.spread_s))
    plans = Plans(len(made), chance)
    fleet = Fleet(members(made, plans, order.group), plans, pinned, clock, chance, rhythm, first, order.failing)
    links = _links(order, fleet, clock, chance)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    if order.seconds is not None:
        loop.call_later(order.seconds, ending.set)
    reporter = asyncio.create_task(_report(order, fleet, links, first, tell))
    try:
        await fleet.run(links, ending, order.speed)
    finally:
        reporter.cancel()
        _keep_number(order.folder, fleet.last + 1)
    return fleet.counted(links)


def members(made: Sequence[Device], plans: Plans, group: int | None = None) -> list[Member]:
    """The parts of each device: a unit that can move by its own size within five minutes."""
    return [
        Member(
            one.point,
            signer(one.seed),
            SimulatedUnit(0.0, 1000 * size / 300, preparation_s=30.0),
            Owner(-30_000 * size, 30_000 * size),
            group,
        )
        for one, size in zip(made, plans.sizes, strict=True)
    ]


class Plans:
    """What each unit of a fleet would do by itself, W: plain days of four kinds, each at its own size."""

    def __init__(self, count: int, chance: Random) -> None:
        self.sizes = [chance.uniform(0.5, 2.0) for _ in range(count)]
        self._kinds = np.array([chance.choices(range(4), (70, 10, 12, 8))[0] for _ in range(count)], dtype=np.int64)
        self._scale = 1000 * np.array(self.sizes)
        self._chance = np.random.default_rng(chance.randrange(1 << 32))

    def __call__(self, utc_ms: int) -> Sequence[float]:
        second = np.array(utc_ms / 1000 % 86_400)
        curves = np.array([float(daily_kw(kind, second)) for kind in range(4)])
        waver = self._chance.normal(1.0, 0.03, len(self._scale))
        power: list[float] = (self._scale * curves[self._kinds] * waver).tolist()
        return power


def _links(order: FleetOrder, fleet: Fleet, clock: Clock, chance: Random) -> list[Link]:
    count = min(order.connections or len(fleet.devices), len(fleet.devices))
    parts = [fleet.devices[place::count] for place in range(count)]
    hear = fleet.told

    def say(code: str, _sentence: str) -> None:
        hear[code] += 1

    if order.url is not None:
        door = door_of(Http(url=order.url, ca=order.ca, token_file=order.token_file))
        return [HttpLink(door, order.tenant, part, clock, chance, say) for part in parts]
    assert order.broker is not None
    address = Address.parse(order.broker)
    tls = tls_context(None if order.ca is None else str(order.ca), None, None) if address.tls else None
    return [
        MqttLink(
            Broker(address.host, address.port, f"coflex-fleet-{order.tenant}-{part[0].point}", tls, address.user,
                   address.password),
            order.tenant, part, clock, chance, say,
        )
        for part in parts
    ]  # fmt: skip


async def _report(
    order: FleetOrder, fleet: Fleet, links: Sequence[Link], first: int, tell: Callable[[str], None]
) -> None:
    """Say how it goes, and keep numbers reserved ahead of their use."""
    reserved = first + _RESERVED
    while True:
        if fleet.last > reserved - _RESERVED // 2:
            reserved += _RESERVED
            _keep_number(order.folder, reserved)
        await asyncio.sleep(10)
        now = fleet.counted(links)
        refused = sum(now.refused.values())
        tell(
            f"{now.connected} of {len(links)} connections, {now.signed} messages signed, {now.acknowledged} "
            f"acknowledged, {now.buffered} waiting, {now.lost} lost, {refused} refused"
        )


def _first_number(folder: Path) -> int:
    """Above all that any earlier run may have used; as many again are reserved before one of them is."""
    path = folder / NUMBERS
    first = int(json.loads(path.read_text(encoding="utf-8"))["next"]) if path.exists() else 1
    _keep_number(folder, first + _RESERVED)
    return first


def _keep_number(folder: Path, number: int) -> None:
    """Durably: it is there before a number below it is used."""
    fresh = folder / f"{NUMBERS}.new"
    with fresh.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"next": number}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / NUMBERS)
    disk = FolderDisk(folder)
    disk.sync_names()
