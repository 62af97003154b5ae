"""A device that runs: meter read, unit led, messages sent, each in a task of its own; nothing waits for the network."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from coflex.adapters.field.author import Courier, Tell
from coflex.adapters.field.clock import Clock
from coflex.adapters.field.meter import Management, Source
from coflex.adapters.field.modbus import NotReachable
from coflex.adapters.field.node import Node, Target

LEAD_S = 1.0
_STATUS_S = 10.0
_LONGEST_PAUSE_S = 30.0
STATUS = "status.json"


class Link(Protocol):
    def poke(self, point: int) -> None: ...

    async def run(self) -> None: ...

    @property
    def connected(self) -> bool: ...


class Gateway:
    """One node with its meter and its energy management system (None: set points are measured, not led).

    `repeat_s`: how often a power that has not changed is told again, 0 for never.
    """

    def __init__(
        self,
        node: Node,
        courier: Courier,
        source: Source,
        management: Management | None,
        tell: Tell,
        sample_s: float = 1.0,
        repeat_s: float = 0.0,
    ) -> None:
        self.node, self.courier = node, courier
        self._source, self._management, self._tell = source, management, tell
        self._sample_s, self._repeat_s = sample_s, repeat_s
        self._clock: Clock = node.watch.clock
        self._poke: Callable[[], None] = lambda: None
        self._told: float | None = None  # the power the management system holds
        self._told_at = 0
        self._released = False  # not known at a start, so it is told
        self._trying_again = 0
        self._lead_now = asyncio.Event()
        self._measuring = self._leading = True

    # ------------------------------------------------------------ as a station of a link

    @property
    def point(self) -> int:
        return self.node.author.point

    @property
    def group(self) -> int | None:
        return self.node.group

    def order(self, raw: bytes) -> object:
        answer = self.node.order(raw)
        self._lead_now.set()
        return answer

    def signal(self, raw: bytes) -> object:
        counts = self.node.signal(raw)
        self._lead_now.set()
        return counts

    def notice(self) -> dict[str, Any]:
        """Its state in short, for the platform."""
        status = self.node.status()
        names = ("at", "last_sequence", "acknowledged", "buffered", "lost", "clock_offset_ms", "doubtful", "set_point")
        short = {name: status[name] for name in names}
        return short | {"cut": status["cut"], "told": status["told"][-5:]}

    # ------------------------------------------------------------ tasks

    async def run(self, link: Link, state: Path | None, ending: asyncio.Event) -> None:
        """Until `ending` is set; then what was measured is signed and, where there is a connection, sent.

        Raises CoflexError when the buffer's disk fails.
        """
        self._poke = lambda: link.poke(self.point)
        tasks = [
            asyncio.create_task(one)
            for one in (link.run(), self._measure(), self._lead(), self._show(link, state), ending.wait())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            self.node.stop()
            await self._drain(link)
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._write_status(link, state)
            await self._source.close()
            if self._management is not None:
                await self._management.close()

    async def _drain(self, link: Link, seconds: float = 3.0) -> None:
        """Wait a little for the platform to have it all."""
        link.poke(self.point)
        end = self._clock.monotonic_ms() + round(1000 * seconds)
        while link.connected and len(self.node.outbox) and self._clock.monotonic_ms() < end:
            await asyncio.sleep(0.05)

    async def _measure(self) -> None:
        """Read the meter at whole multiples of the pace on the clock, so that intervals have their samples alike."""
        pace = round(1000 * self._sample_s)
        while True:
            await asyncio.sleep((pace - self._clock.utc_ms() % pace) / 1000)
            before = self.node.outbox.last
            self.node.sample(await self._read())
            self.node.tick()
            if self.node.outbox.last != before:
                self._poke()

    async def _read(self) -> dict[Any, float | None]:
        """What the meter says; nothing where it cannot be reached, which is told once."""
        try:
            found = await self._source.read()
        except NotReachable as fault:
            if self._measuring:
                self._tell("no_reading", f"{fault} Readings are sent as missing.")
            self._measuring = False
            return {}
        if not self._measuring:
            self._tell("reading", "The meter answers again.")
        self._measuring = True
        return found

    async def _lead(self) -> None:
        """Tell the unit what holds, whenever that changes."""
        while True:
            now = self._clock.utc_ms()
            before = self.node.outbox.last
            self.node.tick()
            if self.node.outbox.last != before:
                self._poke()
            await self._follow(self.node.target())
            change = self.node.set_points.next_change(now)
            pause = LEAD_S if change is None else min(LEAD_S, max(0.0, (change - self._clock.utc_ms()) / 1000))
            self._lead_now.clear()
            # Not wait_for: before Python 3.12 it forgets to be cancelled where the event comes in the same moment.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._lead_now.wait()

    async def _follow(self, target: Target) -> None:
        if self._management is None:
            self.node.reached(target.sequence, False)
            return
        now = self._clock.monotonic_ms()
        repeats = self._repeat_s and now - self._told_at >= 1000 * self._repeat_s
        same = self._released if target.power_w is None else self._told == target.power_w
        if (same and not repeats) or (not same and self._trying_again > now):
            if same:
                self._reached(target, True)
            return
        try:
            if target.power_w is None:
                await self._management.release()
            else:
                await self._management.hold(target.power_w)
        except NotReachable as fault:
            self._told, self._released = None, False
            self._trying_again = now + round(1000 * LEAD_S)
            if self._leading:
                self._tell("not_led", f"{fault} It is tried again every second.")
            self._leading = False
            self._reached(target, False)
            return
        if not self._leading:
            self._tell("led", "The energy management system answers again.")
        self._leading = True
        self._told, self._released, self._told_at = target.power_w, target.power_w is None, now
        self._reached(target, True)

    def _reached(self, target: Target, reached: bool) -> None:
        before = self.node.outbox.last
        self.node.reached(target.sequence, reached)
        if self.node.outbox.last != before:
            self._poke()

    async def _show(self, link: Link, state: Path | None) -> None:
        while True:
            self._write_status(link, state)
            await asyncio.sleep(_STATUS_S)

    def _write_status(self, link: Link, state: Path | None) -> None:
        if state is None:
            return
        told = json.dumps(self.node.status() | {"connected": link.connected}, indent=1)
        fresh = state / f"{STATUS}.new"
        try:
            fresh.write_text(told, encoding="utf-8")
            os.replace(fresh, state / STATUS)
        except OSError as fault:
            self._tell("no_status", f"The status cannot be written: {fault}.")
