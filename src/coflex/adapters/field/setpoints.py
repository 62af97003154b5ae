"""Set points as a device takes or refuses them, and which one is in force; no clock and no wire of its own.

The platform's key is pinned. A set point is taken when it is signed with that key, newer than every one before it, for
this point, not over, and allowed by the owner at least for a while. The newest that covers an instant is in force. One
that stops its order ends the order's earlier ones where it starts, and holds its own power when it has a length. After
the last end the unit follows its own plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from coflex.evidence.keys import verify
from coflex.evidence.message import Kind, Malformed, Message, SetPoint, decode, decode_set_point

MOST_HELD = 500
_LOOK_MS = 60_000
_DAY_MS = 86_400_000


class Reason(StrEnum):
    """Why a set point is refused."""

    BAD_FORMAT = "bad_format"
    WRONG_SIGNATURE = "wrong_signature"
    WRONG_POINT = "wrong_point"
    OLDER = "older"
    EXPIRED = "expired"
    TOO_FAR_AHEAD = "too_far_ahead"
    NOT_AVAILABLE = "not_available"
    TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class Pinned:
    """Who may send set points: the number and public key of the platform."""

    signer: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """When the owner keeps the unit for itself: every day from `begin` to `end`, over midnight where the end is
    earlier, on `weekdays` (0 Monday, by the day it begins), in the owner's zone; or once, in ms since the epoch."""

    begin: time = time()
    end: time = time()
    weekdays: frozenset[int] = frozenset(range(7))
    once: tuple[int, int] | None = None

    def covers(self, at_ms: int, zone: ZoneInfo) -> bool:
        if self.once is not None:
            return self.once[0] <= at_ms < self.once[1]
        local = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone)
        clock, today = local.time(), local.weekday()
        if self.begin < self.end:
            return today in self.weekdays and self.begin <= clock < self.end
        late = today in self.weekdays and clock >= self.begin
        return late or ((today - 1) % 7 in self.weekdays and clock < self.end)


@dataclass(frozen=True, slots=True)
class Owner:
    """What the owner allows (ACT-07). Powers in W, injection positive; they hold for whatever the platform orders."""

    min_w: float
    max_w: float
    closed: tuple[Closed, ...] = ()
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))

    def available(self, at_ms: int) -> bool:
        """Whether the platform may use the unit at an instant."""
        return not any(one.covers(at_ms, self.zone) for one in self.closed)

    def ever_available(self, starts: int, ends: int) -> bool:
        """Whether it may in some minute of [starts, ends)."""
        return not self.closed or any(self.available(at) for at in range(starts, ends, _LOOK_MS))

    def cut(self, power_w: float) -> float:
        """The power within the limits that is nearest."""
        return min(max(power_w, self.min_w), self.max_w)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a message: `reason` is None when it was taken. `again`: it was judged before, as the same bytes.
    `sequence`: the number it gives itself, 0 when it is no message."""

    sequence: int
    reason: Reason | None = None
    again: bool = False
    set_point: SetPoint | None = None


class SetPoints:
    """Those of one point. `kept`: what `to_keep` gave before the last stop."""

    def __init__(self, point: int, platform: Pinned, owner: Owner, kept: Mapping[str, Any]) -> None:
        self.point, self.platform, self.owner = point, platform, owner
        self.last = int(kept.get("last", 0))
        self._last_raw = bytes.fromhex(kept.get("last_raw", ""))
        self._last_reason = Reason(kept["last_reason"]) if kept.get("last_reason") else None
        self.started: set[int] = set(kept.get("started", ()))
        self.held: dict[int, SetPoint] = {
            int(sequence): decode_set_point(bytes.fromhex(body)) for sequence, body in kept.get("held", {}).items()
        }

    def to_keep(self) -> dict[str, Any]:
        """As JSON, for the next start."""
        return {
            "last": self.last,
            "last_raw": self._last_raw.hex(),
            "last_reason": self._last_reason,
            "started": sorted(self.started),
            "held": {str(sequence): one.encode().hex() for sequence, one in self.held.items()},
        }

    def judge(self, raw: bytes, now_ms: int) -> Answer:
        """Take or refuse the message of a set point. One that is not signed by the platform leaves no trace."""
        try:
            message = decode(raw)
        except Malformed:
            return Answer(0, Reason.BAD_FORMAT)
        if not signed_by(self.platform, message):
            return Answer(message.sequence, Reason.WRONG_SIGNATURE)
        if raw == self._last_raw:
            return Answer(message.sequence, self._last_reason, again=True)
        try:
            one = decode_set_point(message.body)
        except Malformed:
            return Answer(message.sequence, Reason.BAD_FORMAT)
        if one.point != self.point:
            return Answer(message.sequence, Reason.WRONG_POINT)
        if message.sequence <= self.last:
            return Answer(message.sequence, Reason.OLDER)
        self.last, self._last_raw = message.sequence, raw
        self._last_reason = self._refusal(one, now_ms)
        if self._last_reason is None:
            self.held[message.sequence] = one
        return Answer(message.sequence, self._last_reason, set_point=one)

    def _refusal(self, one: SetPoint, now_ms: int) -> Reason | None:
        if one.stops:
            return None
        if one.ends <= max(now_ms, one.starts):
            return Reason.EXPIRED
        if one.ends - now_ms > 8 * _DAY_MS:
            return Reason.TOO_FAR_AHEAD
        if not self.owner.ever_available(max(one.starts, now_ms), one.ends):
            return Reason.NOT_AVAILABLE
        return Reason.TOO_MANY if len(self.held) >= MOST_HELD else None

    # ------------------------------------------------------------ which holds

    def in_force(self, at_ms: int, continuous: bool = False, way: int = 0) -> tuple[int, SetPoint] | None:
        """The newest that covers an instant and is not stopped; of set points to hold, or of regulation. `way`: 1 or
        -1 for a share of regulation up or down."""
        stops = [(sequence, one) for sequence, one in self.held.items() if one.stops and one.starts <= at_ms]
        for sequence in sorted(self.held, reverse=True):
            one = self.held[sequence]
            covers = one.starts <= at_ms < one.ends and one.continuous == continuous and way * one.change_w >= 0
            if covers and not any(later > sequence and stop.order == one.order for later, stop in stops):
                return sequence, one
        return None

    def over(self, at_ms: int) -> list[int]:
        """Those that are over at an instant: ended, stopped, or behind a newer one of their order, as long."""
        stops = [(sequence, one) for sequence, one in self.held.items() if one.stops and one.starts <= at_ms]
        gone = []
        for sequence, one in self.held.items():
            newer = [other for later, other in self.held.items() if later > sequence and other.starts <= at_ms]
            stopped = any(later > sequence and stop.order == one.order for later, stop in stops)
            behind = any(
                other.order == one.order
                and other.ends >= one.ends
                and other.continuous == one.continuous
                and (not one.continuous or (other.change_w < 0) == (one.change_w < 0))
                for other in newer
            )
            if max(one.starts, one.ends) <= at_ms or stopped or behind:
                gone.append(sequence)
        return gone

    def forget(self, sequence: int) -> None:
        """It is over and acknowledged."""
        self.held.pop(sequence, None)
        self.started.discard(sequence)

    def next_change(self, at_ms: int) -> int | None:
        """The next instant at which another one may be in force, ms since the epoch."""
        edges = (edge for one in self.held.values() for edge in (one.starts, one.ends) if edge > at_ms)
        return min(edges, default=None)


def signed_by(platform: Pinned, message: Message) -> bool:
    """Whether a message is a set point signed by the pinned key."""
    known = message.kind == Kind.SET_POINT and message.signer == platform.signer
    return known and verify(platform.key, message.signed, message.signature)
