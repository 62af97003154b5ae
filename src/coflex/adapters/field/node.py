"""The light node: what a gateway does with readings, set points and answers. No wire, no wait, no clock of its own.

It is told what happened (`sample`, `order`, `signal`, `answered` by its courier) and when to look (`tick`), and says
what the unit is to do now (`target`). Whoever drives it does the rest: see `coflex.device`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coflex.activation.droop import Droop, droop_power
from coflex.adapters.field.author import Author, Tell
from coflex.adapters.field.buffer import NoRoom
from coflex.adapters.field.sampling import Sampler
from coflex.adapters.field.setpoints import UNANSWERED, Answer, Owner, Pinned, SetPoints, signed_by
from coflex.evidence.message import (
    Acknowledgement,
    Hop,
    Kind,
    Malformed,
    Quantity,
    SetPoint,
    Verdict,
    decode,
    decode_set_point,
)

# Refusals, and answers to what was answered before, that are acknowledged in a minute; the rest is counted.
_MOST_REFUSALS = 20
_MINUTE_MS = 60_000
_TOLD = 20


class Tellings:
    """The last things a person should know, and where they go at once."""

    def __init__(self, now_ms: Callable[[], int], tell: Tell) -> None:
        self._now, self._tell = now_ms, tell
        self.last: deque[dict[str, Any]] = deque(maxlen=_TOLD)
        self.counts: dict[str, int] = {}

    def __call__(self, code: str, sentence: str) -> None:
        self.counts[code] = self.counts.get(code, 0) + 1
        self.last.append({"at": _instant(self._now()), "code": code, "message": sentence})
        self._tell(code, sentence)


@dataclass(frozen=True, slots=True)
class Target:
    """What the unit is to do: hold `power_w`, or follow its own plan where that is None. `sequence`: of the set point
    that says so. `asked_w`: before the owner's limits."""

    power_w: float | None
    sequence: int | None = None
    asked_w: float | None = None


@dataclass(frozen=True, slots=True)
class Containment:
    """FCR: the droop, and the power around which it works where no set point and no plan says another."""

    droop: Droop
    base_w: float | None = None


class Node:
    """One point. `platform`: the pinned key. `kept`: set points and counters are in the outbox's notes."""

    def __init__(
        self,
        author: Author,
        samplers: Iterable[Sampler],
        platform: Pinned,
        owner: Owner,
        tell: Tellings,
        containment: Containment | None = None,
        group: int | None = None,
    ) -> None:
        self.author, self.watch, self.outbox = author, author.watch, author.outbox
        self.samplers = tuple(samplers)
        self.set_points = SetPoints(author.point, platform, owner, self.outbox.notes.get("set_points", {}))
        self.tell, self.containment, self.group = tell, containment, group
        self.latest: dict[Quantity, float | None] = {}
        self._regulation: SetPoint | None = None
        self._regulated = 0
        self._refusals = deque[int](maxlen=_MOST_REFUSALS)
        self._cut: tuple[int | None, float] | None = None
        self._ems: dict[int, Verdict] = {}
        self._was_off = any(end is None for _, end in self.outbox.notes.get("doubtful", []))
        author.set_back = self._set_back
        self.beside: Callable[[], dict[str, Any]] = dict
        """What a meter keeps with its counters, by the names of notes."""
        self._before_start()

    def _before_start(self) -> None:
        """What was delivered before the last stop is not delivered again; counters go on where they were read."""
        counters = self.outbox.notes.get("counters", {})
        for one in self.samplers:
            one.delivered = self.outbox.signed_at - self.outbox.signed_at % one.step_ms
            one.readings = {int(at): value for at, value in counters.get(str(int(one.quantity)), {}).items()}
        if self.outbox.damaged:
            self.tell("damaged", f"The buffer has lost {self.outbox.damaged} messages to its disk; look at the disk.")

    # ------------------------------------------------------------ measuring

    def sample(self, readings: Mapping[Quantity, float | None]) -> None:
        """What the meter says now; a quantity that is not in it, or None, was asked for in vain."""
        now = self.watch.clock.utc_ms()
        for sampler in self.samplers:
            value = readings.get(sampler.quantity)
            known = dict(sampler.readings)
            sampler.sample(now, value)
            if sampler.readings != known:
                self._keep_counters()
        self.latest = dict(readings)

    def _keep_counters(self) -> None:
        kept = {
            str(int(one.quantity)): {str(at): value for at, value in one.readings.items()}
            for one in self.samplers
            if one.from_counter
        }
        self._note(counters=kept, **self.beside())

    def tick(self) -> None:
        """Look at the clock, and sign what is complete."""
        self._look_at_clock()
        now = self.watch.clock.utc_ms()
        for sampler in self.samplers:
            for measured in sampler.due(now):
                self.author.write(Kind.MEASUREMENT, measured.encode())
        self._end(now)

    def stop(self) -> None:
        """Sign what was measured in the windows that did not end."""
        now = self.watch.clock.utc_ms()
        for sampler in self.samplers:
            for measured in [] if sampler.from_counter else sampler.rest(now):
                self.author.write(Kind.MEASUREMENT, measured.encode())

    def _look_at_clock(self) -> None:
        step = self.watch.look()
        if step:
            self.tell("clock_step", f"The clock was set by {step / 1000:+.3f} s; look at its time service.")
        # Before the platform has told its time, nothing is known but what was before the last stop.
        off = self._was_off if self.watch.offset_ms is None else self.watch.off
        if off != self._was_off:
            doubtful = [list(one) for one in self.outbox.notes.get("doubtful", [])]
            if off:
                doubtful = [*doubtful, [self.outbox.last + 1, None]][-_TOLD:]
            elif doubtful and doubtful[-1][1] is None:
                doubtful[-1][1] = self.outbox.last
            self._note(doubtful=doubtful)
            told = f"The clock is {(self.watch.offset_ms or 0) / 1000:+.3f} s from the platform's"
            ending = "; set it: readings are marked doubtful." if off else " again, which is within its bound."
            self.tell("clock_off" if off else "clock_good", told + ending)
            self._was_off = off

    def _set_back(self, first: int) -> None:
        """Messages from a number on were signed by a clock that was ahead, and are no more."""
        now = self.watch.clock.utc_ms()
        for sampler in self.samplers:
            sampler.set_back(now)
        self._keep_counters()
        ranges = [(begin, end) for begin, end in self.outbox.notes.get("doubtful", []) if end is None or begin < first]
        self._note(
            doubtful=[[min(begin, first), None if end is None else min(end, first - 1)] for begin, end in ranges]
        )

    # ------------------------------------------------------------ set points

    def order(self, raw: bytes) -> Answer:
        """A message on the channel of set points: judge it, keep it if it is taken, and acknowledge. What is not
        signed by the platform for this point is counted and told here, and never answered.

        Raises NoRoom when it cannot be kept: then nothing is acknowledged.
        """
        answer = self.set_points.judge(raw, self.watch.clock.utc_ms())
        if answer.reason in UNANSWERED:
            self.tell("set_point_left_out", f"A message on the channel of set points is left out: {answer.reason}.")
            return answer
        kept = self.set_points.to_keep()
        if kept != self.outbox.notes.get("set_points"):
            self.outbox.note(set_points=kept)
        verdict = Verdict.TAKEN if answer.reason is None else Verdict.REFUSED
        if verdict is Verdict.REFUSED and not answer.again:
            self.tell("set_point_refused", f"Set point {answer.sequence} is refused: {answer.reason}.")
        if (verdict is Verdict.TAKEN and not answer.again) or self._may_answer():
            self._acknowledge(answer.sequence, Hop.LIGHT_NODE, verdict)
        return answer

    def _may_answer(self) -> bool:
        """Whether one more refusal is acknowledged: who floods the channel shall not fill the buffer."""
        now = self.watch.clock.monotonic_ms()
        full = len(self._refusals) == _MOST_REFUSALS and now - self._refusals[0] < _MINUTE_MS
        if not full:
            self._refusals.append(now)
        return not full

    def signal(self, raw: bytes) -> bool:
        """A regulation signal of the group (aFRR): whether it counts. `change_w` of it is what is asked of the whole
        group, `power_w` the group's whole band."""
        try:
            message = decode(raw)
            one = decode_set_point(message.body)
        except Malformed:
            return False
        known = signed_by(self.set_points.platform, message) and one.continuous and one.point == self.group
        if not known or message.sequence <= self._regulated or one.power_w <= 0:
            return False
        self._regulated, self._regulation = message.sequence, one
        return True

    def _keep(self) -> None:
        self._note(set_points=self.set_points.to_keep())

    def _note(self, **values: Any) -> None:
        """Keep what may be kept a little later: on a full disk the device goes on."""
        try:
            self.outbox.note(**values)
        except NoRoom as fault:
            self.tell("no_room", str(fault))

    def _acknowledge(self, sequence: int, hop: Hop, verdict: Verdict) -> None:
        self.author.write(Kind.ACKNOWLEDGEMENT, Acknowledgement(sequence, hop, verdict).encode())

    def _end(self, now: int) -> None:
        """Set points that are over: what followed is done, what was never reached is said."""
        over = self.set_points.over(now)
        for sequence in over:
            one = self.set_points.held[sequence]
            if sequence in self.set_points.started:
                self._acknowledge(sequence, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.DONE)
            elif one.ends > one.starts and one.ends <= now:
                self._acknowledge(sequence, Hop.ENERGY_MANAGEMENT_SYSTEM, Verdict.NOT_REACHABLE)
            self.set_points.forget(sequence)
            self._ems.pop(sequence, None)
        if over:
            self._keep()

    # ------------------------------------------------------------ what the unit is to do

    def target(self) -> Target:
        """What holds now: the set point in force, regulation and containment on top, inside the owner's limits."""
        now = self.watch.clock.utc_ms()
        owner = self.set_points.owner
        if not owner.available(now):
            return Target(None)
        force = self.set_points.in_force(now)
        regulation = self._share(now)
        sequence, asked = (force[0], float(force[1].power_w)) if force else (None, None)
        if regulation is not None:
            sequence = regulation[0] if sequence is None else sequence
            base = float(regulation[1].power_w) if asked is None else asked
            asked = base + self._regulation_w(regulation[1], now)
        if self.containment is not None:
            asked = self._contained(asked)
        if asked is None:
            return Target(None)
        power = owner.cut(asked)
        self._say_cut(sequence, asked, power)
        return Target(power, sequence, asked)

    def _share(self, now: int) -> tuple[int, SetPoint] | None:
        """The unit's share of what is asked now: the one of that way where there are two."""
        signal = self._regulation
        way = 0 if signal is None else (signal.change_w > 0) - (signal.change_w < 0)
        ours = self.set_points.in_force(now, continuous=True, way=way)
        return ours or self.set_points.in_force(now, continuous=True)

    def _regulation_w(self, share: SetPoint, now: int) -> float:
        """This unit's part of the group's change: as its band (`change_w`) is to the group's; 0 without a signal."""
        signal = self._regulation
        if signal is None or not signal.starts <= now < signal.ends:
            return 0.0
        return max(-1.0, min(1.0, signal.change_w / signal.power_w)) * abs(share.change_w)

    def _contained(self, asked: float | None) -> float | None:
        assert self.containment is not None
        frequency = self.latest.get(Quantity.FREQUENCY_HZ)
        plan = self.latest.get(Quantity.BASELINE_W)
        base = next((one for one in (asked, plan, self.containment.base_w) if one is not None), None)
        if frequency is None or base is None:
            return asked
        return base + float(droop_power(frequency, self.containment.droop))

    def _say_cut(self, sequence: int | None, asked: float, power: float) -> None:
        cut = (sequence, power) if power != asked else None
        if cut is not None and self._cut is None:
            told = f"{asked / 1000:g} kW are beyond the owner's limits: {power / 1000:g} kW are held"
            self.tell("cut", f"{told} for set point {sequence}." if sequence is not None else told + ".")
        self._cut = cut

    def reached(self, sequence: int | None, reached: bool) -> None:
        """Whether the energy management system took what the set point asks for; the first of each is acknowledged."""
        if sequence is None or sequence not in self.set_points.held:
            return
        verdict = Verdict.TAKEN if reached else Verdict.NOT_REACHABLE
        if self._ems.get(sequence) == verdict or (reached and sequence in self.set_points.started):
            return
        self._ems[sequence] = verdict
        if reached:
            self.set_points.started.add(sequence)
            self._keep()
        self._acknowledge(sequence, Hop.ENERGY_MANAGEMENT_SYSTEM, verdict)

    # ------------------------------------------------------------ what it shows

    def status(self) -> dict[str, Any]:
        """What a person or the platform may want to know, as JSON."""
        outbox, now = self.outbox, self.watch.clock.utc_ms()
        target = self.target()
        return {
            "point": self.author.point,
            "at": _instant(now),
            "last_sequence": outbox.last,
            "acknowledged": outbox.acknowledged,
            "buffered": len(outbox),
            "held": outbox.held,
            "buffer_bytes": outbox.size_bytes,
            "lost": [list(one) for one in outbox.lost],
            "unwritten": self.author.unwritten,
            "refused": dict(self.author.refused),
            "clock_offset_ms": self.watch.offset_ms,
            "clock_uncertainty_ms": self.watch.uncertainty_ms,
            "clock_steps": self.watch.steps,
            "doubtful": outbox.notes.get("doubtful", []),
            "dropped_samples": sum(one.dropped for one in self.samplers),
            "set_point": target.sequence,
            "power_w": target.power_w,
            "cut": target.asked_w != target.power_w,
            "set_points": len(self.set_points.held),
            "told": list(self.tell.last),
            "counts": dict(self.tell.counts),
        }


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
