"""Which signed messages are taken: each key's own series of sequences, its clock, and what it has covered already.

Everything here is about messages whose bytes were read and whose signatures were checked. All state is columns, one
row a signer, some 60 bytes each, so that a city's points fit into tens of megabytes. A message is taken, or refused
with one of the codes of `REFUSALS`; what was refused changes nothing but, for an authentic one, what is known of its
signer's sequence, so that a refusal is no gap.

Times are whole milliseconds since the Unix epoch (UTC), intervals half-open.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coflex.domain.errors import Finding, refuse

REFUSALS: Mapping[str, str] = MappingProxyType({
    "bad_format": "The bytes are no message; write them as docs/measurements.md says.",
    "unknown_point": "No key is registered under this number; register the device first.",
    "wrong_signature": "The signature is not of the registered key; sign with the device's own key.",
    "not_active": "The key was not valid when the message was signed; register a valid one.",
    "replayed": "The sequence was used before for other bytes; count on from the last one.",
    "duplicate": "The same message is there already; nothing more is to be done.",
    "not_now": "More old messages came at once than are looked up; send it again in a moment to learn what it was.",
    "sequence_jump": "The sequence is too far ahead of the last one; count on by one.",
    "clock_off": "The clock that signed is not the time of day, or it went back; set the clock.",
    "bad_interval": "The time measured is in the future, empty or too long; correct start, step and count.",
    "bad_value": "A value is outside what can be at this point; check the meter and the scale.",
    "wrong_unit": "The point is not registered for this quantity; register it or send another.",
    "wrong_owner": "The sender may not bring messages of this point; send them by the owner's own connection.",
    "overlaps": "The time was delivered before; send a correction with a higher revision and the same steps.",
})  # fmt: skip

SECOND, MINUTE, DAY = 1_000, 60_000, 86_400_000
CLOCK_OFF = 10 * MINUTE
FARTHEST_JUMP = 1_000_000
LONGEST, OLDEST, FARTHEST_PLAN = 32 * DAY, 400 * DAY, 40 * DAY
"""Most time in one message, most age of its start, and how far ahead a plan may reach."""
REMEMBERED = 4
"""Last sequences of a signer whose bytes are known without asking the log."""
FARTHEST_BACK = 100_000
"""Sequences before the last one that the log is asked about: more than two months of messages, one a minute."""
MOST_GAPS = 64
PACED = 3
MEASUREMENT, PLAN = 1, 7
_RANGES = {3: (0.0, 1e6), 4: (0.0, 100.0), 6: (0.0, 1e12)}
FOREVER = (1 << 63) - 1


# ---------------------------------------------------------------- who signs


@dataclass(frozen=True, slots=True)
class Signer:
    """A registered key. `number`: of the point, or of the platform's or a party's key when `party`.

    Valid in [`since`, `until`). `quantities`: what the point may measure, numbers 1 to 7. `most_w`: largest power that
    can flow there, either way.
    """

    number: int
    public_key: bytes
    owner: str = ""
    unit: str = ""
    since: int = 0
    until: int = FOREVER
    quantities: frozenset[int] = frozenset(range(1, 8))
    most_w: float = 1e9
    party: bool = False


class Signers:
    """All registered keys, in columns; a number may have had several keys, one after another."""

    def __init__(self, signers: Iterable[Signer] = ()) -> None:
        self.numbers, self.parties = array("I"), bytearray()
        self.owners: list[str] = []
        self.units: list[str] = []
        self._rows: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._keys = bytearray()
        self._since, self._until = array("q"), array("q")
        self._quantities, self._most = bytearray(), array("d")
        self._earlier: dict[int, list[tuple[int, int, bytes]]] = {}
        for signer in signers:
            self.put(signer)

    def __len__(self) -> int:
        return len(self.numbers)

    def put(self, signer: Signer) -> int:
        """Register a key; a later one of the same number ends the one before at its own start. Returns the row.

        Raises Refused when the key has not 32 bytes or is valid at no time.
        """
        _check(signer)
        row = self._rows[signer.party].get(signer.number)
        if row is None:
            row = len(self.numbers)
            self.numbers.append(signer.number)
            self.parties.append(signer.party)
            self.owners.append(signer.owner)
            self.units.append(signer.unit)
            self._keys += signer.public_key
            self._since.append(signer.since)
            self._until.append(signer.until)
            self._quantities.append(_mask(signer.quantities))
            self._most.append(signer.most_w)
            # Last, so that who reads meanwhile finds all of it or nothing.
            self._rows[signer.party][signer.number] = row
            return row
        key = bytes(self._keys[32 * row : 32 * row + 32])
        if key != signer.public_key:
            ended = (self._since[row], min(self._until[row], signer.since), key)
            self._earlier.setdefault(row, []).insert(0, ended)
            self._keys[32 * row : 32 * row + 32] = signer.public_key
        self.owners[row], self.units[row] = signer.owner, signer.unit
        self._since[row], self._until[row] = signer.since, signer.until
        self._quantities[row], self._most[row] = _mask(signer.quantities), signer.most_w
        return row

    def row(self, number: int, party: bool = False) -> int | None:
        return self._rows[party].get(number)

    def key(self, row: int, at: int) -> bytes | None:
        """The key that was valid at a time, None where there was none."""
        if self._since[row] <= at < self._until[row]:
            return bytes(self._keys[32 * row : 32 * row + 32])
        held = self.validity(row, at)
        return None if held is None else held[2]

    def validity(self, row: int, at: int) -> tuple[int, int, bytes] | None:
        """From when, until when, and which key was valid at a time."""
        current = (self._since[row], self._until[row], bytes(self._keys[32 * row : 32 * row + 32]))
        every = (current, *self._earlier.get(row, ()))
        return next((one for one in every if one[0] <= at < one[1]), None)

    def measures(self, row: int, quantity: int) -> bool:
        return bool(self._quantities[row] >> quantity & 1)

    def most_w(self, row: int) -> float:
        return self._most[row]


def _mask(quantities: Iterable[int]) -> int:
    return sum(1 << one for one in quantities if 1 <= one <= 7)


def _check(signer: Signer) -> None:
    place, faults = f"signer {signer.number}", []
    if len(signer.public_key) != 32:
        faults.append(Finding(place, "bad_key", "A public key has 32 bytes; give it as 64 hexadecimal digits."))
    if not 0 <= signer.number < 1 << 32:
        faults.append(Finding(place, "bad_number", "A number has 32 bits; give one from 0 to 4294967295."))
    if signer.since >= signer.until:
        faults.append(Finding(place, "bad_validity", "The key is valid at no time; give an end after the start."))
    refuse("Registered keys", faults)


# ---------------------------------------------------------------- what is asked and answered


class Candidate(NamedTuple):
    """An authentic message as admission sees it. `row`: its signer's; `digest`: first 8 bytes of its leaf hash.

    Of a measurement also its intervals [first, first + intervals * step), and its lowest and highest value in the
    quantity's unit (0 where all are missing); kinds other than 1 leave these at 0.
    """

    row: int
    kind: int
    sequence: int
    signed_at: int
    digest: int
    first: int = 0
    step: int = 0
    intervals: int = 0
    quantity: int = 0
    revision: int = 0
    low: float = 0.0
    high: float = 0.0


class Gap(NamedTuple):
    """Sequences of a point that did not come, both ends included; what comes late fills it."""

    point: int
    first: int
    last: int


class Refusal(NamedTuple):
    """A message that was not taken. `place`: which of the batch, from 0; `signer` and `sequence`: as it told itself,
    0 where it could not be read."""

    place: int
    code: str
    signer: int
    sequence: int

    @property
    def message(self) -> str:
        return REFUSALS[self.code]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch. `through`: by signer, the highest sequence known of it; `open`: by signer, first and
    last of the sequences up to there that have not come; `first`, `last`: numbers of its leaves, None where there are
    none."""

    received: int
    accepted: int
    duplicates: int
    refused: tuple[Refusal, ...]
    gaps: tuple[Gap, ...]
    through: Mapping[int, int]
    open: Mapping[int, tuple[tuple[int, int], ...]]
    first: int | None
    last: int | None


class Part(NamedTuple):
    """A batch as it came. `owners`: whose points its sender may bring, None for all."""

    payload: bytes
    owners: frozenset[str] | None = None


class Answer(NamedTuple):
    """Outcomes of batches, in their order, and the signed checkpoint that covers what they brought."""

    outcomes: list[Outcome]
    note: str


# Asked for a row and a sequence that is known no more: the digest of the message that stands in the log, None if none
# was found, NOT_ASKED where the log cannot be asked now.
Known = Callable[[int, int], int | None]
NOT_ASKED = -1


def _nothing_known(row: int, sequence: int) -> int | None:
    return None


# ---------------------------------------------------------------- the state


class Admission:
    """The state of all signers, and the decision on each message in the order of arrival."""

    def __init__(self, signers: Signers, known: Known = _nothing_known) -> None:
        self.signers = signers
        self.known = known
        self.gaps: dict[int, list[tuple[int, int]]] = {}
        """Open gaps of a row: sequences from, to (both included), ascending."""
        self._last, self._signed, self._received = array("Q"), array("q"), array("q")
        self._paced = bytearray()
        self._recent = array("Q")
        self._coverage = Coverage()
        self.grow()

    def grow(self) -> None:
        """Make room for signers that were registered since."""
        more = len(self.signers) - len(self._last)
        if more > 0:
            for column, each in ((self._last, 1), (self._signed, 1), (self._received, 1), (self._recent, REMEMBERED)):
                column.frombytes(bytes(8 * each * more))
            self._paced += bytes(more)

    def stranger(self, number: int, party: bool) -> int:
        """A row for a signer that is registered no more, under a key that is valid at no time since 1970."""
        return self.signers.put(Signer(number, bytes(32), since=-1, until=0, party=party))

    def last(self, row: int) -> int:
        """The highest sequence known of a signer, 0 before its first."""
        return self._last[row] if row < len(self._last) else 0

    def standing(self, row: int) -> tuple[int, int]:
        """The highest sequence known of a signer and when that was signed, zeros before its first."""
        return (self._last[row], self._signed[row]) if row < len(self._last) else (0, 0)

    def admit(
        self, one: Candidate, owners: frozenset[str] | None, now: int, buffered: bool = False
    ) -> tuple[str, Gap | None]:
        """Take a message or refuse it: the refusal's code, empty when taken, and the gap it opens.

        `owners`: whose points the sender may bring, None for all. `now`: when it was received. `buffered`: a message
        that its signer signed just now came with it, so an old one is late, whatever its clock was.
        """
        row = one.row
        if row >= len(self._last):
            self.grow()
        if owners is not None and self.signers.owners[row] not in owners:
            return "wrong_owner", None
        code = self._sequence(one) or self._clock(one, now, buffered)
        if code:
            return code, None
        code = self._measured(one, now) if one.kind == MEASUREMENT else ""
        gap = self._advance(one, now, code)
        return code, gap

    def replay(self, one: Candidate, received: int) -> None:
        """Bring in a message that was taken before, as the log tells it."""
        self.grow()
        self._advance(one, received, "")
        if one.kind == MEASUREMENT:
            self._coverage.put(one, received)

    # ---- sequence

    def _sequence(self, one: Candidate) -> str:
        last = self._last[one.row]
        if one.sequence > last:
            return "sequence_jump" if one.sequence > last + FARTHEST_JUMP else ""
        if any(first <= one.sequence <= end for first, end in self.gaps.get(one.row, ())):
            return ""
        if one.sequence > last - REMEMBERED:
            there: int | None = self._recent[one.row * REMEMBERED + one.sequence % REMEMBERED]
        elif one.sequence > last - FARTHEST_BACK:
            there = self.known(one.row, one.sequence)
        else:
            return "replayed"
        if there == NOT_ASKED:
            return "not_now"
        return "duplicate" if there == one.digest else "replayed"

    def _advance(self, one: Candidate, now: int, code: str) -> Gap | None:
        """Note the sequence of an authentic message; a refused one (`code`) leaves no digest to be known by."""
        row, last, gap = one.row, self._last[one.row], None
        if one.sequence > last:
            self._forget(row, last, one.sequence)
            if one.sequence > last + 1:
                gap = Gap(self.signers.numbers[row], last + 1, one.sequence - 1)
                gaps = self.gaps.setdefault(row, [])
                gaps.append((last + 1, one.sequence - 1))
                del gaps[:-MOST_GAPS]
            self._last[row], self._signed[row], self._received[row] = one.sequence, one.signed_at, now
        else:
            self._fill(row, one.sequence)
        if one.sequence > self._last[row] - REMEMBERED:
            self._recent[row * REMEMBERED + one.sequence % REMEMBERED] = 0 if code else one.digest
        return gap

    def _forget(self, row: int, last: int, sequence: int) -> None:
        """Sequences that were jumped over have no bytes: what stood in their places was of older ones."""
        for jumped in range(max(last + 1, sequence - REMEMBERED + 1), sequence):
            self._recent[row * REMEMBERED + jumped % REMEMBERED] = 0

    def _fill(self, row: int, sequence: int) -> None:
        left = []
        for first, end in self.gaps.get(row, ()):
            if first <= sequence <= end:
                left += [(a, b) for a, b in ((first, sequence - 1), (sequence + 1, end)) if a <= b]
            else:
                left.append((first, end))
        if left:
            self.gaps[row] = left
        else:
            self.gaps.pop(row, None)

    # ---- clock

    def _clock(self, one: Candidate, now: int, buffered: bool) -> str:
        """A clock ahead, or one that went back, is off. One that is behind may be a buffer that is sent late: it is off
        when it is the signer's first word and alone, or when it stays behind at the pace of time, again and again."""
        row, lag = one.row, now - one.signed_at
        if lag < -CLOCK_OFF:
            return "clock_off"
        if one.sequence <= self._last[row]:
            return "" if one.signed_at <= self._signed[row] else "clock_off"
        if not self._last[row]:
            return "clock_off" if lag > CLOCK_OFF and not buffered else ""
        passed, told = now - self._received[row], one.signed_at - self._signed[row]
        if told <= 0:
            return "clock_off"
        before = self._received[row] - self._signed[row]
        paced = lag > CLOCK_OFF and before > CLOCK_OFF and 0.9 * told <= passed <= 1.1 * told + SECOND
        self._paced[row] = min(self._paced[row] + 1, PACED) if paced else 0
        if self._paced[row] < PACED:
            return ""
        # Its clock is judged by the next one again, which needs the time of this one.
        self._received[row], self._signed[row] = now, one.signed_at
        return "clock_off"

    # ---- measurement

    def _measured(self, one: Candidate, now: int) -> str:
        end = one.first + one.intervals * one.step
        ahead = now + FARTHEST_PLAN if one.quantity == PLAN else min(now + CLOCK_OFF, one.signed_at + one.step)
        if one.first < now - OLDEST or end > ahead or end - one.first > LONGEST:
            return "bad_interval"
        if not self.signers.measures(one.row, one.quantity):
            return "wrong_unit"
        low, high = _RANGES.get(one.quantity, (0.0, 0.0))
        if not low < high:
            most = self.signers.most_w(one.row)
            # Energy over an interval is at most that of the largest power.
            high = most * one.step / (60 * MINUTE) if one.quantity == 5 else most
            low = -high
        if one.low < low or one.high > high:
            return "bad_value"
        return "" if self._coverage.put(one, now) else "overlaps"

    # ---- to keep and to bring back

    def columns(self) -> dict[str, NDArray[Any]]:
        """A copy of all state as arrays, by signer number, for `restore`."""
        rows = len(self._last)
        gaps = [(row, first, last) for row, some in sorted(self.gaps.items()) for first, last in some]
        return {
            "numbers": np.array(self.signers.numbers[:rows], np.uint32),
            "parties": np.frombuffer(bytes(self.signers.parties[:rows]), np.uint8),
            "last": np.array(self._last, np.uint64),
            "signed": np.array(self._signed, np.int64),
            "received": np.array(self._received, np.int64),
            "paced": np.frombuffer(bytes(self._paced), np.uint8),
            "recent": np.array(self._recent, np.uint64),
            "gaps": np.array(gaps, np.uint64).reshape(-1, 3),
            **self._coverage.columns(),
        }

    def restore(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state of `columns`; a signer that is registered no more is registered without a key.

        Raises KeyError when a column is missing.
        """
        rows = []
        for number, party in zip(columns["numbers"].tolist(), columns["parties"].tolist(), strict=True):
            row = self.signers.row(number, bool(party))
            rows.append(self.stranger(number, bool(party)) if row is None else row)
        self.grow()
        to = np.array(rows, np.int64)
        for mine, name in ((self._last, "last"), (self._signed, "signed"), (self._received, "received")):
            np.frombuffer(mine, dtype=columns[name].dtype)[to] = columns[name]
        np.frombuffer(self._paced, np.uint8)[to] = columns["paced"]
        recent = np.frombuffer(self._recent, np.uint64).reshape(-1, REMEMBERED)
        recent[to] = columns["recent"].reshape(-1, REMEMBERED)
        for row, first, last in columns["gaps"].tolist():
            self.gaps.setdefault(rows[row], []).append((first, last))
        self._coverage.restore(columns, to)


# ---------------------------------------------------------------- what is covered


# Revision, begin, end and step of what was delivered.
_Span = tuple[int, int, int, int]


class Coverage:
    """Which time of each series (signer and quantity) was delivered, in which revision.

    A series that goes on where it ended takes 24 bytes. What is irregular (gaps in time, corrections) is kept beside
    it as spans, joined where they touch.
    """

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._begin, self._end, self._step = array("q"), array("q"), array("q")
        self._spans: dict[int, list[_Span]] = {}
        """Of a slot, beside its current run, in their order; those of one revision do not overlap."""

    def put(self, one: Candidate, now: int) -> bool:
        """Cover the message's time; False, and nothing covered, when it was covered in that revision or a higher one,
        or in other steps. `now`: nothing older than OLDEST comes after it."""
        key, end = one.row << 3 | one.quantity, one.first + one.intervals * one.step
        slot = self._slots.get(key)
        if slot is None:
            self._slots[key] = len(self._begin)
            slot = len(self._begin)
            for column, value in ((self._begin, one.first), (self._end, one.first), (self._step, one.step)):
                column.append(value)
        begin, until = self._begin[slot], self._end[slot]
        spans = self._spans.get(slot)
        # A correction may have come before what it corrects.
        if spans and not _fits(spans, one, end):
            return False
        if not one.revision and one.first >= until:
            if one.first > until or one.step != self._step[slot]:
                if begin < until:
                    self._keep(slot, (0, begin, until, self._step[slot]), now)
                self._begin[slot], self._step[slot] = one.first, one.step
            self._end[slot] = end
            return True
        if begin < until and not _fits([(0, begin, until, self._step[slot])], one, end):
            return False
        self._keep(slot, (one.revision, one.first, end, one.step), now)
        return True

    def _keep(self, slot: int, span: _Span, now: int) -> None:
        """Add a span; those of its revision that ended too long ago to be measured again are dropped."""
        spans = self._spans.setdefault(slot, [])
        revision, begin, end, step = span
        place = bisect_left(spans, span)
        if place < len(spans) and (spans[place][:2], spans[place][3]) == ((revision, end), step):
            end = spans.pop(place)[2]
        if place and (spans[place - 1][0], *spans[place - 1][2:]) == (revision, begin, step):
            place -= 1
            begin = spans.pop(place)[1]
        spans.insert(place, (revision, begin, end, step))
        oldest = gone = bisect_left(spans, (revision,))
        while gone < len(spans) and spans[gone][0] == revision and spans[gone][2] <= now - OLDEST:
            gone += 1
        del spans[oldest:gone]

    def columns(self) -> dict[str, NDArray[Any]]:
        spans = [
            (slot, begin, end, step, revision)
            for slot, some in sorted(self._spans.items())
            for revision, begin, end, step in some
        ]
        return {
            "slots": np.fromiter(self._slots, np.int64, len(self._slots)),
            "begin": np.array(self._begin, np.int64),
            "end": np.array(self._end, np.int64),
            "step": np.array(self._step, np.int64),
            "spans": np.array(spans, np.int64).reshape(-1, 5),
        }

    def restore(self, columns: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> None:
        """`rows`: where the signers of the kept rows stand now."""
        kept = columns["slots"]
        keys = rows[kept >> 3] << 3 | kept & 7 if len(kept) else kept
        self._slots = dict(zip(keys.tolist(), range(len(kept)), strict=True))
        for column, name in ((self._begin, "begin"), (self._end, "end"), (self._step, "step")):
            column.frombytes(columns[name].astype(np.int64).tobytes())
        for slot, begin, end, step, revision in columns["spans"].tolist():
            self._spans.setdefault(slot, []).append((revision, begin, end, step))
        for spans in self._spans.values():
            spans.sort()


def _fits(spans: Sequence[_Span], one: Candidate, end: int) -> bool:
    """Whether a message that ends at `end` meets nothing of its revision or a higher one, nor other steps below it."""
    place = 0
    while place < len(spans):
        revision = spans[place][0]
        at = bisect_left(spans, (revision, end))
        while at > place and spans[at - 1][2] > one.first:
            at -= 1
            _, begin, _, step = spans[at]
            if revision >= one.revision or step != one.step or (one.first - begin) % step:
                return False
        place = bisect_left(spans, (revision + 1,), at)
    return True
