"""Thousands of devices in one process, each with its own key, numbers and buffer, over a few connections or one each.

A device here is the real light node (`Node`, `Author`, `Courier`) over memory in the place of a disk and a simulated
unit in the place of a meter. What one process used is told by `last`; the next one must start above it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from coflex.adapters.field.author import Author, Courier
from coflex.adapters.field.buffer import LEAST_BYTES, Outbox
from coflex.adapters.field.clock import Clock, Watch
from coflex.adapters.field.disk import NoDisk
from coflex.adapters.field.gateway import Link
from coflex.adapters.field.node import Node, Tellings
from coflex.adapters.field.sampling import packed
from coflex.adapters.field.setpoints import Owner, Pinned
from coflex.domain.errors import Finding, refuse
from coflex.evidence.keys import Signer
from coflex.evidence.message import Kind, Quantity

FAILURES = {
    "offline": "says nothing for a quarter of an hour, then sends what it kept",
    "missing": "has no readings half of the time",
    "deaf": "takes set points and does not follow them",
    "clock": "has a clock that is an hour ahead",
    "forged": "signs with a key that is not registered",
}
_OFFLINE_MS = 900_000
_CLOCK_MS = 3_600_000


class Unit(Protocol):
    """What a device is at: `coflex.simulation.fleet.SimulatedUnit`."""

    plan_w: float
    remaining: float

    def hold(self, power_w: float | None, at_s: float) -> None: ...

    def advance(self, at_s: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Readings of `step_ms`, `count` in a message; devices sign spread over `spread_ms` after a window's end."""

    step_ms: int = 4_000
    count: int = 15
    spread_ms: int = 50_000

    @property
    def window_ms(self) -> int:
        return self.step_ms * self.count


@dataclass(frozen=True, slots=True)
class ScaledClock:
    """A clock that runs `speed` times as fast as another from an instant on."""

    clock: Clock
    speed: float = 1.0
    begins_utc_ms: int = 0
    began_ms: int = 0

    def utc_ms(self) -> int:
        return self.begins_utc_ms + round(self.speed * (self.clock.monotonic_ms() - self.began_ms))

    def monotonic_ms(self) -> int:
        return self.utc_ms()


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A clock that is wrong."""

    clock: Clock

    def utc_ms(self) -> int:
        return self.clock.utc_ms() + _CLOCK_MS

    def monotonic_ms(self) -> int:
        return self.clock.monotonic_ms()


class _Silent(Courier):
    """A courier that gives nothing out for a while. `until`: ms of the monotonic clock."""

    until = 0

    def next(self, now: int) -> bytes:
        return b"" if now < self.until else super().next(now)


@dataclass(eq=False)
class FleetDevice:
    """One of the fleet, as a station of a link."""

    node: Node
    courier: Courier
    unit: Unit
    failure: str = ""
    late_ms: int = 0
    _values: list[float | None] = field(default_factory=list)
    _first: int = 0
    _waiting: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def point(self) -> int:
        return self.node.author.point

    @property
    def group(self) -> int | None:
        return self.node.group

    def order(self, raw: bytes) -> object:
        return self.node.order(raw)

    def signal(self, raw: bytes) -> object:
        return self.node.signal(raw)

    def notice(self) -> dict[str, Any]:
        outbox = self.node.outbox
        return {"last_sequence": outbox.last, "acknowledged": outbox.acknowledged, "buffered": len(outbox)}

    def step(self, at: int, plan_w: float, seen: bool, rhythm: Rhythm) -> bool:
        """One reading: the interval that ends at `at`, ms since the epoch. Whether there is something to send.

        `seen`: the meter gave a value.
        """
        node, before = self.node, self.node.outbox.last
        self.unit.plan_w = plan_w
        if node.set_points.held:
            node.tick()
            target = node.target()
            self.unit.hold(target.power_w, at / 1000)
            node.reached(target.sequence, True)
        power = self.unit.advance(at / 1000)
        if not self._values:
            self._first = at - rhythm.step_ms
        self._values.append(power if seen else None)
        if at % rhythm.window_ms == 0:
            body = packed(Quantity.ACTIVE_POWER_W, self._first, rhythm.step_ms, self._values).encode()
            self._waiting.append((at + self.late_ms, body))
            self._values = []
        while self._waiting and self._waiting[0][0] <= at:
            node.author.write(Kind.MEASUREMENT, self._waiting.pop(0)[1])
        return node.outbox.last > before


@dataclass(frozen=True, slots=True)
class Member:
    """What a device is made of. `group`: of its regulation signal."""

    point: int
    signer: Signer
    unit: Unit
    owner: Owner
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """The fleet at an instant. `told`: by code, what devices said."""

    devices: int
    connected: int
    signed: int
    acknowledged: int
    buffered: int
    lost: int
    set_points: int
    refused: dict[str, int]
    told: dict[str, int]


class Fleet:
    """All devices. `plans(utc_ms)`: what each unit would do by itself, W, in their order; `first`: the number of the
    first message of each; `failing`: share of devices by the names of `FAILURES`."""

    def __init__(
        self,
        members: Sequence[Member],
        plans: Callable[[int], Sequence[float]],
        platform: Pinned,
        clock: Clock,
        chance: Random,
        rhythm: Rhythm,
        first: int,
        failing: dict[str, float],
    ) -> None:
        check_failing(failing)
        self.clock, self.rhythm = clock, rhythm
        self._plans, self._chance, self._first = plans, chance, first
        self.told: Counter[str] = Counter()
        failures = _draw(len(members), failing, chance)
        self.devices = [self._device(one, platform, failure) for one, failure in zip(members, failures, strict=True)]

    def _device(self, member: Member, platform: Pinned, failure: str) -> FleetDevice:
        clock: Clock = _Ahead(self.clock) if failure == "clock" else self.clock
        outbox = Outbox(NoDisk(), 2 * LEAST_BYTES)
        if self._first > 1:
            outbox.raise_above(self._first - 1, lambda raw, _: raw)
        tellings = Tellings(clock.utc_ms, self._hear)
        signer = Signer(bytes(self._chance.randbytes(32))) if failure == "forged" else member.signer
        author = Author(member.point, signer, outbox, Watch(clock, 0, 2_000), tellings)
        node = Node(author, (), platform, member.owner, tellings, group=member.group)
        courier = _Silent(author) if failure == "offline" else Courier(author)
        if failure == "deaf":
            member.unit.remaining = 0.0
        late = self._chance.randrange(max(1, self.rhythm.spread_ms))
        return FleetDevice(node, courier, member.unit, failure, late)

    def _hear(self, code: str, _sentence: str) -> None:
        self.told[code] += 1

    async def run(self, links: Sequence[Link], ending: asyncio.Event, speed: float = 1.0) -> None:
        """Until `ending` is set, then until all is acknowledged or a few seconds are over."""
        of = {one.point: links[place % len(links)] for place, one in enumerate(self.devices)}
        tasks = [asyncio.create_task(one.run()) for one in links]
        tasks += [asyncio.create_task(self._step(of, speed)), asyncio.create_task(_wait(ending))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            for _ in range(60):
                if not any(len(one.node.outbox) for one in self.devices):
                    break
                await asyncio.sleep(0.05)
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _step(self, of: dict[int, Link], speed: float) -> None:
        step = self.rhythm.step_ms
        at = self.clock.utc_ms() // step * step + step
        for one in self.devices:
            if isinstance(one.courier, _Silent):
                one.courier.until = self.clock.monotonic_ms() + _OFFLINE_MS
        while True:
            await asyncio.sleep(max(0.0, (at - self.clock.utc_ms()) / 1000 / speed))
            for one, plan_w in zip(self.devices, self._plans(at), strict=True):
                seen = one.failure != "missing" or self._chance.random() < 0.5
                ahead = _CLOCK_MS if one.failure == "clock" else 0
                if one.step(at + ahead, plan_w, seen, self.rhythm):
                    of[one.point].poke(one.point)
            at += step

    @property
    def last(self) -> int:
        """The highest number that any device used."""
        return max((one.node.outbox.last for one in self.devices), default=0)

    def counted(self, links: Sequence[Link]) -> Counted:
        """How the fleet is."""
        refused: Counter[str] = Counter()
        for one in self.devices:
            refused.update(one.node.author.refused)
        boxes = [one.node.outbox for one in self.devices]
        return Counted(
            devices=len(boxes),
            connected=sum(one.connected for one in links),
            signed=sum(one.last - self._first + 1 for one in boxes),
            acknowledged=sum(one.acknowledged - self._first + 1 for one in boxes),
            buffered=sum(map(len, boxes)),
            lost=sum(last - first + 1 for one in boxes for first, last in one.lost),
            set_points=sum(len(one.node.set_points.held) for one in self.devices),
            refused=dict(refused),
            told=dict(self.told),
        )


async def _wait(ending: asyncio.Event) -> None:
    await ending.wait()


def check_failing(failing: dict[str, float]) -> None:
    """Raises Refused when a failure is not known or the shares are none."""
    faults = [
        Finding(name, "unknown_failure", f"There is no such failure; use one of {', '.join(FAILURES)}.")
        for name in failing
        if name not in FAILURES
    ]
    faults += [
        Finding(name, "bad_share", "A share lies between 0 and 1; correct it.")
        for name, share in failing.items()
        if not 0 <= share <= 1
    ]
    if sum(failing.values()) > 1:
        faults.append(Finding("failures", "bad_share", "The shares add up to more than 1; lower them."))
    refuse("The fleet's failures", faults)


def _draw(count: int, failing: dict[str, float], chance: Random) -> list[str]:
    """The failure of each device, empty for most."""
    failures = [name for name, share in sorted(failing.items()) for _ in range(round(share * count))][:count]
    failures += [""] * (count - len(failures))
    chance.shuffle(failures)
    return failures
