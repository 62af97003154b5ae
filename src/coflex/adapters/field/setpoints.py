"""Set points as a device takes or refuses them, and which one is in force; no clock and no wire of its own.

The platform's key is pinned. A set point is taken when it is signed with that key, newer than every one before it, for
this point, not over, and allowed by the owner at least for a while. The newest that covers an instant is in force. One
that stops its order ends the order's earlier ones where it starts, and holds its own power when it has a length. After
the last end the unit follows its own plan. One that comes again is given the same word again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from enum import StrEnum
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from coflex.evidence.keys import verify
from coflex.evidence.message import Kind, Malformed, Message, SetPoint, decode, decode_set_point

MOST_HELD = 500
# The last that were judged, whose word is known beside those that are held.
_MOST_JUDGED = 50
_LOOK_MS = 60_000
_DAY_MS = 86_400_000


class Reason(StrEnum):
    """Why a set point is refused. `older`: it came for the first time after a newer one. `number_used`: its number was
    judged before for other bytes, or is so old that it may have been."""

    BAD_FORMAT = "bad_format"
    WRONG_SIGNATURE = "wrong_signature"
    WRONG_POINT = "wrong_point"
    OLDER = "older"
    NUMBER_USED = "number_used"
    EXPIRED = "expired"
    TOO_FAR_AHEAD = "too_far_ahead"
    NOT_AVAILABLE = "not_available"
    TOO_MANY = "too_many"


# What nobody has to be told: anybody can write on the channel, and no set point of the platform is judged by it.
UNANSWERED = frozenset({Reason.BAD_FORMAT, Reason.WRONG_SIGNATURE, Reason.WRONG_POINT, Reason.NUMBER_USED})


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
        self._judged: dict[int, tuple[str, Reason | None]] = {
            int(sequence): (digest, Reason(reason) if reason else None)
            for sequence, (digest, reason) in kept.get("judged", {}).items()
        }
        self._forgotten = int(kept.get("forgotten", self.last))  # up to here one may have been judged
        self.started: set[int] = set(kept.get("started", ()))
        self.held: dict[int, SetPoint] = {
            int(sequence): decode_set_point(bytes.fromhex(body)) for sequence, body in kept.get("held", {}).items()
        }

    def to_keep(self) -> dict[str, Any]:
        """As JSON, for the next start."""
        return {
            "last": self.last,
            "judged": {str(sequence): list(one) for sequence, one in self._judged.items()},
            "forgotten": self._forgotten,
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
        try:
            one = decode_set_point(message.body)
        except Malformed:
            return Answer(message.sequence, Reason.BAD_FORMAT)
        if one.point != self.point:
            return Answer(message.sequence, Reason.WRONG_POINT)
        if message.sequence <= self.last:
            return self._before(message.sequence, _digest(raw), one)
        reason = self._refusal(one, now_ms)
        self.last = message.sequence
        self._judged[message.sequence] = _digest(raw), reason
        if len(self._judged) > _MOST_JUDGED:
            self._forgotten = next(iter(self._judged))
            del self._judged[self._forgotten]
        if reason is None:
            self.held[message.sequence] = one
        return Answer(message.sequence, reason, set_point=one)

    def _before(self, sequence: int, digest: str, one: SetPoint) -> Answer:
        """One that is not newer than the last: as it was judged, or refused where it never was."""
        if self.held.get(sequence) == one:
            return Answer(sequence, again=True)
        if sequence in self._judged and sequence not in self.held:
            known, reason = self._judged[sequence]
            return Answer(sequence, reason, again=True) if known == digest else Answer(sequence, Reason.NUMBER_USED)
        used = sequence in self.held or sequence <= self._forgotten
        return Answer(sequence, Reason.NUMBER_USED if used else Reason.OLDER)

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
                and (not one.continuous or _way(other) == _way(one))
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


def _way(one: SetPoint) -> int:
    return (one.change_w > 0) - (one.change_w < 0)


def _digest(raw: bytes) -> str:
    return sha256(raw).hexdigest()[:16]


def signed_by(platform: Pinned, message: Message) -> bool:
    """Whether a message is a set point signed by the pinned key."""
    known = message.kind == Kind.SET_POINT and message.signer == platform.signer
    return known and verify(platform.key, message.signed, message.signature)
