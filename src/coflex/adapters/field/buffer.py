"""What a device has signed and the platform has not yet acknowledged, on disk, and the number of the last message.

An append-only log in segments. A record is its length, a CRC-32 over the rest, its type, and what it says; a segment
starts with a snapshot of all that the segments before it say besides their messages, so a segment whose messages are
acknowledged can be removed. A new segment is begun at every start, and nothing is ever changed in place: what a kill
or a power cut left torn is at the end of a segment, was never synced, and so never left the device.

Why no sequence number is ever used for two messages:

- A message leaves only after it was synced, with its number, and the next one has the next number.
- What is on disk may be a copy of an earlier state (a restored image, a swapped card). So after every start nothing
  new leaves until the platform said through which number it knows this device: messages are `held`. When it knows more
  than the disk does, the held ones, which nobody has seen, are signed anew above that (`raise_above`).
- A number that left is free again only where the platform can not have taken it: its message was signed in a time that
  has not come (`replace`).
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from struct import Struct
from typing import Any

from coflex.adapters.field.disk import Disk
from coflex.domain.errors import CoflexError
from coflex.evidence.message import HEADER, split

SEGMENTS = 16
LEAST_BYTES = 64 * 1024
LIMIT_BYTES = 16 * 1024 * 1024
_HEAD = Struct("<IIB")
_NUMBER = Struct("<Q")
_REPLACING = Struct("<QQQ")
_SNAPSHOT, _MESSAGE, _HELD, _RAISED, _OPENED, _ACKNOWLEDGED, _NOTES, _REPLACED, _GIVEN_UP = range(9)
# Ranges of lost messages that are remembered one by one; beyond that the oldest two become one.
_LOST_RANGES = 200


class DiskBroken(CoflexError):
    """A sync of the buffer failed: what is on the disk is not known any more, and nothing more is signed."""

    code = "DISK_BROKEN"


class NoRoom(CoflexError):
    """The buffer's disk takes nothing more at present."""

    code = "NO_ROOM"


@dataclass
class _State:
    """What a snapshot holds. `held_from`: the first message that may not leave. `hello`: the last acknowledged one.
    `skipped`: numbers above the acknowledged ones that this disk never used, because the platform knew them."""

    last: int = 0
    signed_at: int = 0
    acknowledged: int = 0
    held_from: int | None = None
    lost: list[list[int]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    hello: bytes = b""
    skipped: list[list[int]] = field(default_factory=list)

    def write(self) -> bytes:
        told = asdict(self) | {"hello": b64encode(self.hello).decode()}
        return json.dumps(told, separators=(",", ":")).encode()

    @staticmethod
    def read(data: bytes) -> _State:
        told = json.loads(data)
        return _State(**(told | {"hello": b64decode(told["hello"])}))


def sequence_of(message: bytes) -> int:
    """The number in a message's header."""
    return int(HEADER.unpack_from(message)[4])


def signed_at_of(message: bytes) -> int:
    """The time in a message's header, ms since the epoch."""
    return int(HEADER.unpack_from(message)[5])


class Outbox:
    """The buffer. `limit_bytes`: what it may take on disk, and one segment more; beyond it the oldest messages go, and
    `lost` says which. Every change but an acknowledgement is on the disk when it returns; an acknowledgement that a
    power cut took back is one message sent twice.

    Raises CoflexError when the limit is too small, NoRoom when the disk is full, DiskBroken when a sync fails.
    """

    def __init__(self, disk: Disk, limit_bytes: int = LIMIT_BYTES) -> None:
        if limit_bytes < LEAST_BYTES:
            raise CoflexError(f"A buffer of {limit_bytes} bytes is too small.", f"Give it {LEAST_BYTES} or more.")
        self._disk, self._limit = disk, limit_bytes
        self._state = _State()
        self._pending: OrderedDict[int, bytes] = OrderedDict()
        self._ends: dict[int, int] = {}  # highest message in each segment
        self._sizes: dict[int, int] = {}
        self._torn = self._broken = False
        self.damaged = 0
        self._recover()
        with suppress(NoRoom):  # what is acknowledged makes room; the next write begins the segment
            self._rotate()

    # ------------------------------------------------------------ what there is

    @property
    def last(self) -> int:
        """The highest number ever used, as far as this disk and the platform know."""
        return self._state.last

    @property
    def signed_at(self) -> int:
        """The latest time in a message, ms since the epoch; 0 before the first."""
        return self._state.signed_at

    @property
    def acknowledged(self) -> int:
        """The platform has all messages through this one, or has refused or never got those that are named lost."""
        return self._state.acknowledged

    @property
    def lost(self) -> tuple[tuple[int, int], ...]:
        """First and last number of messages that were never acknowledged and are gone."""
        return tuple((first, last) for first, last in self._state.lost)

    @property
    def held(self) -> int:
        """How many messages may not leave yet."""
        first = self._state.held_from
        return 0 if first is None else sum(sequence >= first for sequence in self._pending)

    @property
    def size_bytes(self) -> int:
        """On disk."""
        return sum(self._sizes.values())

    @property
    def notes(self) -> dict[str, Any]:
        """What `note` keeps."""
        return self._state.notes

    def __len__(self) -> int:
        return len(self._pending)

    def pending(self, after: int, most_bytes: int) -> list[bytes]:
        """The messages that may leave above a number, in their order; one, or as many as the bytes allow."""
        chosen: list[bytes] = []
        held, size = self._state.held_from, 0
        for sequence, message in self._pending.items():
            if held is not None and sequence >= held:
                break
            if sequence > after:
                size += len(message)
                if chosen and size > most_bytes:
                    break
                chosen.append(message)
        return chosen

    def hello(self) -> bytes:
        """A message that the platform knows or may know: what it answers says how far it knows this device.

        Empty on a device that has never sent any.
        """
        first = self.pending(0, 1)
        return first[0] if first else self._state.hello

    def questions(self) -> list[bytes]:
        """Messages to ask with, the best first: the platform may refuse to hear of one, as it was signed before the
        device was registered. Held ones are among them, lest a device that has nothing else be silent for ever."""
        held = self._state.held_from
        left = [one for sequence, one in self._pending.items() if held is None or sequence < held]
        waiting = list(self._pending.values())[len(left) :]
        some = [self.hello(), *left[-1:], *waiting[:1], *waiting[-1:]]
        return list(dict.fromkeys(one for one in some if one))

    def signed_before(self, number: int) -> int:
        """The latest time of the messages below a number that are known; 0 where there is none."""
        earlier = [one for sequence, one in self._pending.items() if sequence < number] or [self._state.hello]
        return signed_at_of(earlier[-1]) if earlier[-1] else 0

    # ------------------------------------------------------------ changes

    def append(self, message: bytes, held: bool) -> None:
        """Keep a message; its number is one above the last. `held`: it may not leave before `release`."""
        sequence = sequence_of(message)
        if sequence != self._state.last + 1:
            raise CoflexError(f"Message {sequence} does not follow {self._state.last}.", "Number them without a gap.")
        self._write(_HELD if held else _MESSAGE, message)
        self._keep(sequence, message, held)

    def release(self) -> None:
        """Held messages may leave from now on."""
        if self._state.held_from is not None:
            with suppress(NoRoom):  # they leave all the same: what is acknowledged is what makes room
                self._write(_OPENED, b"")
            self._state.held_from = None

    def raise_above(self, number: int, sign_anew: Callable[[bytes, int], bytes], first: int | None = None) -> None:
        """The platform knows messages of this device up to `number`, above all that this disk knows.

        What is held, or all from `first` on, is signed anew with numbers above it, by `sign_anew(message, number)`.
        What is not stays as it is: the platform is asked about it again.
        """
        first = first or self._state.held_from or self._state.last + 1
        waiting = [one for sequence, one in self._pending.items() if sequence >= first]
        anew = [sign_anew(one, number + place) for place, one in enumerate(waiting, start=1)]
        self.replace(first, number, self._state.signed_at, anew)

    def replace(self, first: int, number: int, signed_at: int, anew: list[bytes]) -> None:
        """All messages from `first` on give way to others, whose numbers go on above `number` and whose times go on
        above `signed_at`, in one record: it happens whole or not at all."""
        self._write(_REPLACED, _REPLACING.pack(first, number, signed_at) + b"".join(anew))
        self._replaced(first, number, signed_at, anew)
        self._ends[max(self._sizes)] = self._state.last

    def give_up(self, numbers: Iterable[int]) -> None:
        """The platform will never take these messages: they are lost."""
        gone = [one for one in numbers if one in self._pending]
        if gone:
            self._write(_GIVEN_UP, json.dumps(gone).encode())
            self._given_up(gone)

    def acknowledge(self, through: int) -> None:
        """The platform has everything up to a number, which is none above the last."""
        if through <= self._state.acknowledged:
            return
        written = False
        with suppress(NoRoom):  # on a full disk what is acknowledged is what makes room
            self._write(_ACKNOWLEDGED, _NUMBER.pack(through), sync=False)
            written = True
        self._acknowledged(through)
        self._sweep()
        if not written:
            with suppress(NoRoom):
                self._write(_ACKNOWLEDGED, _NUMBER.pack(through))

    def note(self, **values: Any) -> None:
        """Keep small things by name, as JSON; what was there under other names stays."""
        self._write(_NOTES, json.dumps(values, separators=(",", ":")).encode())
        self._state.notes.update(values)

    def close(self) -> None:
        """Let go of the files."""
        self._disk.close()

    # ------------------------------------------------------------ what a record says

    def _keep(self, sequence: int, message: bytes, held: bool) -> None:
        self._pending[sequence] = message
        self._state.last = max(self._state.last, sequence)
        self._state.signed_at = max(self._state.signed_at, signed_at_of(message))
        if held and self._state.held_from is None:
            self._state.held_from = sequence

    def _replaced(self, first: int, number: int, signed_at: int, anew: list[bytes]) -> None:
        state = self._state
        while self._pending and next(reversed(self._pending)) >= first:
            self._pending.popitem()
        if number >= first:
            state.skipped.append([first, number])
        if not self._pending:
            self._acknowledged(number)
        # After a start messages that were replaced since may be gone already, and what seemed acknowledged is not.
        state.acknowledged = min(state.acknowledged, number)
        state.last, state.signed_at, state.held_from = number, signed_at, None
        for segment, end in self._ends.items():
            self._ends[segment] = min(end, first - 1)
        for message in anew:
            self._keep(sequence_of(message), message, False)

    def _given_up(self, gone: list[int]) -> None:
        for sequence in gone:
            self._pending.pop(sequence, None)
            self._lose(sequence, sequence)

    def _acknowledged(self, through: int) -> None:
        state = self._state
        while self._pending and next(iter(self._pending)) <= through:
            state.hello = self._pending.popitem(last=False)[1]
        state.acknowledged = max(state.acknowledged, through)
        state.skipped = [one for one in state.skipped if one[1] > state.acknowledged]

    def _lose(self, first: int, last: int) -> None:
        lost: list[list[int]] = []
        for begin, end in sorted([*self._state.lost, [first, last]]):
            if lost and begin <= lost[-1][1] + 1:
                lost[-1][1] = max(lost[-1][1], end)
            else:
                lost.append([begin, end])
        if len(lost) > _LOST_RANGES and next(iter(self._pending), lost[1][0]) >= lost[1][0]:
            lost[:2] = [[lost[0][0], lost[1][1]]]
        self._state.lost = lost

    # ------------------------------------------------------------ the disk

    def _write(self, kind: int, payload: bytes, sync: bool = True) -> None:
        if self._torn or self._sizes[max(self._sizes)] > self._limit // SEGMENTS:
            self._rotate()
        self._put(max(self._sizes), kind, payload, sync)
        if kind in (_MESSAGE, _HELD):
            self._ends[max(self._sizes)] = sequence_of(payload)

    def _put(self, segment: int, kind: int, payload: bytes, sync: bool) -> None:
        if self._broken:
            raise DiskBroken("The buffer's disk has failed before.", "Look at the disk, then start the device again.")
        body = bytes([kind]) + payload
        record = _HEAD.pack(len(payload), zlib.crc32(body), kind) + payload
        try:
            self._disk.append(_name(segment), record)
        except OSError as fault:
            self._torn = True
            if kind == _SNAPSHOT:
                with suppress(OSError):
                    self._disk.remove(_name(segment))
            raise NoRoom(f"The buffer cannot be written: {fault}.", "Make room on its disk.") from fault
        self._sizes[segment] = self._sizes.get(segment, 0) + len(record)
        if sync:
            self._sync(segment)

    def _sync(self, segment: int, names: bool = False) -> None:
        try:
            self._disk.sync(_name(segment))
            if names:
                self._disk.sync_names()
        except OSError as fault:
            self._broken = True
            raise DiskBroken(f"The buffer cannot be synced: {fault}.", "Look at the disk, then start again.") from fault

    def _rotate(self) -> None:
        """Begin a segment; then remove what is acknowledged, and what is too much. Where that is not messages but what
        was noted again and again, the messages are written anew, and all before is removed."""
        full = self.size_bytes > self._limit - self._limit // SEGMENTS
        anew = self._pending if full and 2 * sum(map(len, self._pending.values())) < self._limit else {}
        over = sorted(self._sizes) if anew else self._over()
        segment = self._next
        self._next += 1
        self._put(segment, _SNAPSHOT, self._state.write(), sync=False)
        self._ends[segment] = self._state.last
        for sequence, message in anew.items():
            held = self._state.held_from is not None and sequence >= self._state.held_from
            self._put(segment, _HELD if held else _MESSAGE, message, sync=False)
        self._sync(segment, names=True)
        self._torn = False
        for number in over:
            self._remove(number)
        self._sweep()

    def _over(self) -> list[int]:
        """The oldest segments that are too much; their messages are lost, which the next snapshot says."""
        over, size = [], self.size_bytes
        for segment in sorted(self._sizes):
            if size <= self._limit - self._limit // SEGMENTS:
                break
            size -= self._sizes[segment]
            over.append(segment)
            gone = [sequence for sequence in self._pending if sequence <= self._ends[segment]]
            for sequence in gone:
                del self._pending[sequence]
            if gone:
                self._lose(gone[0], gone[-1])
        return over

    def _sweep(self) -> None:
        """Remove segments before the last whose messages are all acknowledged, once that is on the disk: a message that
        is gone while its acknowledgement is not would be told as lost."""
        oldest = next(iter(self._pending), self._state.last + 1)
        done = list(takewhile(lambda segment: self._ends[segment] < oldest, sorted(self._sizes)[:-1]))
        if done:
            self._sync(max(self._sizes))
        for segment in done:
            self._remove(segment)

    def _remove(self, segment: int) -> None:
        """For sure before the next one goes: an old segment that came back without those after it would bring back
        what they replaced."""
        self._disk.remove(_name(segment))
        del self._sizes[segment], self._ends[segment]
        self._sync(max(self._sizes), names=True)

    # ------------------------------------------------------------ after a start

    def _recover(self) -> None:
        self._next = 1
        for name in self._disk.names():
            if not name.endswith(_SUFFIX):
                continue
            number = int(name.removesuffix(_SUFFIX))
            self._next = number + 1
            content = self._disk.read(name)
            records = list(_records(content))
            if not records or records[0][0] != _SNAPSHOT:
                self._disk.remove(name)
                continue
            for kind, payload in records:
                self._take(kind, payload)
            self._sizes[number] = len(content)
            self._ends[number] = self._state.last
        self._name_damage()

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == _SNAPSHOT:
            known, self._state = self._state, _State.read(payload)
            # An acknowledgement may have reached the disk only after this was written; it is true all the same.
            if known.acknowledged > self._state.acknowledged:
                self._state.acknowledged, self._state.hello = known.acknowledged, known.hello
            self._acknowledged_by_snapshot()
        elif kind in (_MESSAGE, _HELD):
            self._keep(sequence_of(payload), payload, kind == _HELD)
        elif kind == _RAISED:
            first = self._state.held_from or self._state.last + 1
            self._replaced(
                first, _NUMBER.unpack_from(payload)[0], self._state.signed_at, split(payload[_NUMBER.size :])[0]
            )
        elif kind == _OPENED:
            self._state.held_from = None
        elif kind == _ACKNOWLEDGED:
            self._acknowledged(_NUMBER.unpack(payload)[0])
        elif kind == _NOTES:
            self._state.notes.update(json.loads(payload))
        elif kind == _REPLACED:
            first, number, signed_at = _REPLACING.unpack_from(payload)
            self._replaced(first, number, signed_at, split(payload[_REPLACING.size :])[0])
        elif kind == _GIVEN_UP:
            self._given_up(json.loads(payload))

    def _acknowledged_by_snapshot(self) -> None:
        state = self._state
        self._pending = OrderedDict(
            (sequence, message)
            for sequence, message in self._pending.items()
            if state.acknowledged < sequence <= state.last
            and not any(first <= sequence <= last for first, last in state.lost)
        )

    def _name_damage(self) -> None:
        """Numbers between the last acknowledged and the last one that are nowhere: a record that rotted."""
        expected = self._state.acknowledged + 1
        elsewhere = [tuple(one) for one in self._state.lost + self._state.skipped]
        known = sorted([(one, one) for one in self._pending] + elsewhere)
        gaps = []
        for first, last in [*known, (self._state.last + 1, self._state.last + 1)]:
            if first > expected:
                gaps.append((expected, first - 1))
            expected = max(expected, last + 1)
        for first, last in gaps:
            self.damaged += last - first + 1
            self._lose(first, last)


_SUFFIX = ".log"


def _name(segment: int) -> str:
    return f"{segment:010d}{_SUFFIX}"


def _records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of a segment as far as they are whole."""
    at = 0
    while at + _HEAD.size <= len(content):
        length, crc, kind = _HEAD.unpack_from(content, at)
        payload = content[at + _HEAD.size : at + _HEAD.size + length]
        if len(payload) < length or kind > _GIVEN_UP or zlib.crc32(bytes([kind]) + payload) != crc:
            return
        yield kind, payload
        at += _HEAD.size + length
