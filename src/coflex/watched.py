"""What units do against what they were told (ACT-03): last values of devices beside the set points that were signed.

A set point says the power that a point is to hold and the change in it, so the change that flows is the measured power
less what the set point took as the baseline. The state of each unit is `coflex.activation.monitor`'s and lives in
memory; when an alarm begins or ends the machine is told (`set_point.watched`), and a restart goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from coflex.activation.monitor import Alarm, Sample, Watch, follow
from coflex.adapters.web.api.desk import Desk
from coflex.evidence.message import HEADER, SIGNATURE_BYTES, Quantity, SetPoint, decode_set_point
from coflex.ingest import Running
from coflex.register.activations import SetPointEntry
from coflex.service.machine import encode
from coflex.service.ports import Command
from coflex.service.state import State
from coflex.service.verbs.devices import MOST_AT_ONCE, AlarmWord, Watched
from coflex.service.watching import Expected, alarmed, expected

LOOK_S = 1.0
# In a sandbox whose clock runs fast, nobody is called silent for the time that messages take to come.
SILENT_REAL_S = 15.0
ACTOR = "field"
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MS = timedelta(milliseconds=1)
_WATT = Decimal("0.001")


@dataclass(slots=True)
class _Unit:
    """A unit that is watched: against which versions of set points, and what these say. `heard_at`: when its last new
    value was seen, by the loop's clock."""

    versions: tuple[tuple[str, int], ...]
    told: tuple[SetPoint, ...]
    watch: Watch
    heard_at: float


@dataclass(eq=False)
class Watcher:
    """Watches the units of one tenant. On the running loop."""

    tenant: str
    desk: Desk
    running: Running
    platform: int
    """The number under which the platform signs set points."""
    _units: dict[str, _Unit] = field(default_factory=dict)
    _looked: float = -LOOK_S

    async def turn(self) -> None:
        """Look at every unit that was told to move, and tell which alarms began or ended. Raises CoflexError."""
        clock = asyncio.get_running_loop().time()
        if clock - self._looked < LOOK_S:
            return
        self._looked = clock
        state, now = self.desk.state(self.tenant), self.desk.now(self.tenant)
        words = self._words(state, now, clock)
        if words:
            form = Watched(tuple(words[:MOST_AT_ONCE]))
            await self.desk.submit(Command(self.tenant, "set_point.watched", "", "", "", ACTOR, encode(form)))

    def _words(self, state: State, now: datetime, clock: float) -> list[AlarmWord]:
        """What the machine does not know yet of the alarms at `now`."""
        units: dict[str, _Unit] = {}
        found: list[AlarmWord] = []
        watched: set[str] = set()
        for one in expected(state, now):
            unit = units[one.unit] = self._unit(one, clock)
            self._look(unit, one, now, clock)
            watched |= {told.id for told in one.set_points}
            found += [_word(told, unit.watch, now) for told in one.set_points if told.alarm is not unit.watch.alarm]
        self._units = units
        # The set point is over, or has no device any more: nobody can say that the alarm still holds.
        return found + [_word(told, Watch(), now) for told in alarmed(state, now) if told.id not in watched]

    def _unit(self, one: Expected, clock: float) -> _Unit:
        versions = tuple((told.id, told.version) for told in one.set_points)
        known = self._units.get(one.unit)
        if known is not None and known.versions == versions:
            return known
        since = min((told.alarm_since for told in one.set_points if told.alarm_since is not None), default=None)
        begun = Watch(alarm=one.alarm, since=since)
        watch = replace(known.watch, leaning_since=None) if known is not None else begun
        return _Unit(versions, self._told(one.set_points), watch, clock if known is None else known.heard_at)

    def _told(self, set_points: Sequence[SetPointEntry]) -> tuple[SetPoint, ...]:
        """What the signed messages say, in the order in which they left."""
        log, found = self.running.intake.log, []
        for sequence in sorted(sequence for one in set_points for sequence in one.sequences):
            leaf = log.find(self.platform, sequence, True)
            if leaf is not None:
                found.append(decode_set_point(log.read(leaf, 1)[0][HEADER.size : -SIGNATURE_BYTES]))
        return tuple(found)

    def _look(self, unit: _Unit, one: Expected, now: datetime, clock: float) -> None:
        """Take in the last value of a unit, or that none came."""
        values = self.running.live([one.point], None)
        last = max(values, key=lambda value: (value.at, value.quantity == Quantity.ACTIVE_POWER_W), default=None)
        at = None if last is None else _EPOCH + last.at * _MS
        if last is None or at is None or (unit.watch.heard is not None and at <= unit.watch.heard):
            if clock - unit.heard_at >= SILENT_REAL_S or unit.watch.heard is None:
                unit.watch = follow(unit.watch, Sample(now, 0.0, None), one.limits)
            return
        unit.heard_at = clock
        power = last.quantity == Quantity.ACTIVE_POWER_W
        standing = [told for told in unit.told if power and told.starts <= last.at < told.ends]
        if at < one.counts_from or not standing:  # on its way, or no power of this time; it speaks all the same
            silent = unit.watch.alarm is Alarm.SILENT
            alarm = Alarm.NONE if silent else unit.watch.alarm
            unit.watch = replace(unit.watch, heard=at, alarm=alarm, since=None if silent else unit.watch.since)
            return
        change = sum(told.change_w for told in standing)
        baseline = standing[-1].power_w - change  # the last one says the power with all that stands
        unit.watch = follow(unit.watch, Sample(at, change / 1000, (last.value - baseline) / 1000), one.limits)


def _word(told: SetPointEntry, watch: Watch, now: datetime) -> AlarmWord:
    deviation = None if watch.alarm in (Alarm.NONE, Alarm.SILENT) else Decimal(repr(watch.deviation_kw)).quantize(_WATT)
    return AlarmWord(told.id, told.version, watch.alarm, watch.since, deviation, now)
