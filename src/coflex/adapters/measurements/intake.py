"""The way of a batch: checked on any thread, admitted and written on one, answered when it is durable.

Batches are admitted in the order in which they came. The writer takes all that are checked by then, appends what is
new with one sync and one signed checkpoint, and only then answers; so the more comes, the more a sync carries. What
waits is bounded: beyond it senders are asked to come again. Ended segments become tables on a thread of their own.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

from coflex.adapters.measurements.check import Checked, Verify, check, here, read
from coflex.adapters.measurements.live import Live
from coflex.adapters.measurements.log import Columns, Log, LogBroken
from coflex.adapters.measurements.segment import Segment
from coflex.adapters.measurements.tables import Tables
from coflex.domain.errors import CoflexError
from coflex.evidence.message import HEADER, Kind
from coflex.metering.admission import (
    CLOCK_OFF,
    MEASUREMENT,
    NOT_ASKED,
    Admission,
    Answer,
    Candidate,
    Gap,
    Outcome,
    Part,
    Refusal,
    Signers,
)

# What was measured so long ago may have been settled already, ms.
LATE = 6 * 3_600_000
MOST_WAITING = 64 << 20
MOST_A_COMMIT = 20_000
# What the writer may spend in one commit on looking old messages up.
MOST_LOOKING_S = 0.05
CHECKERS = max(2, os.cpu_count() or 1)
BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Busy(CoflexError):
    """More waits than may; the same batch is taken a moment later."""

    code = "UNAVAILABLE"


@dataclass(eq=False)
class Counts:
    """What is counted. `waits`: messages by the bucket of their time from receipt to checkpoint, and beyond; their
    `seconds` in sum."""

    messages: Counter[str] = field(default_factory=Counter)
    """By refusal code, and "accepted"."""
    gaps: int = 0
    values: int = 0
    commits: int = 0
    waits: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0


class Committed(NamedTuple):
    """What a commit brought beside new readings: acknowledgements of set points, and measurements that came late
    (`LATE`) or correct others, as point, begin and end in ms. `size`: of the log with it."""

    acknowledgements: list[bytes]
    late: list[tuple[int, int, int]]
    size: int


class _Waiting(NamedTuple):
    parts: Sequence[Part]
    bytes: int
    received: int
    began: float
    checked: Future[list[list[Checked]]]
    answer: Future[Answer]


class Intake:
    """The running ingest over an open log. `clock`: ms since the epoch. Raises LogBroken where the log is damaged."""

    def __init__(
        self,
        log: Log,
        tables: Tables,
        signers: Signers,
        clock: Callable[[], int],
        failed: Callable[[BaseException], None] = lambda fault: None,
        verify: Verify = here,
    ) -> None:
        self.log, self.tables, self.signers = log, tables, signers
        self.live, self.counts, self.alarm = Live(signers), Counts(), ""
        self._clock, self._failed, self._verify = clock, failed, verify
        self._admission = Admission(signers, self._known)
        self.committed: Callable[[Committed], None] = _nobody
        """Told of each commit, on the writer's thread."""
        self._new: list[Checked] = []
        """What the commit under way adds."""
        self._looking_s = MOST_LOOKING_S
        """What is left of it in the commit under way."""
        log.recover(self._admission.restore, self._replay)
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._closing = False
        self._wake = threading.Condition()
        self._checkers = ThreadPoolExecutor(CHECKERS, "check")
        self._keeper = ThreadPoolExecutor(1, "keep")
        self._left: deque[Segment] = deque()
        """Ended segments that have no table or arrays yet, oldest first."""
        self._keep_old()
        self._writer = threading.Thread(target=self._write, name="write", daemon=True)
        self._writer.start()

    # ---------------------------------------------------------------- asked from outside

    def submit(self, parts: Sequence[Part]) -> Future[Answer]:
        """Take batches in; the answer comes when they are durable. Raises Busy, or LogBroken after a failed write."""
        size = sum(len(part.payload) for part in parts)
        with self._wake:
            if self.alarm:
                raise LogBroken(self.alarm, "Its operator has to start it again.")
            if self._closing:
                raise Busy("The ingest is stopping.", "Send it again in a moment.")
            if self._queue and self._bytes + size > MOST_WAITING:
                raise Busy("More waits to be written than may.", "Send it again in a moment.")
            checked = self._checkers.submit(self._check, parts)
            answer: Future[Answer] = Future()
            self._queue.append(_Waiting(parts, size, self._clock(), perf_counter(), checked, answer))
            self._bytes += size
            self._wake.notify()
        return answer

    def standing(self, number: int, party: bool = False) -> tuple[int, int]:
        """The highest sequence known of a signer and when that was signed, ms; zeros before its first message."""
        row = self.signers.row(number, party)
        return (0, 0) if row is None else self._admission.standing(row)

    @property
    def ready(self) -> bool:
        return not (self._closing or self.alarm)

    @property
    def waiting(self) -> int:
        """Bytes that are not durable yet."""
        return self._bytes

    def close(self) -> None:
        """Write what waits, answer it, finish the tables under way, and let go of the log."""
        with self._wake:
            closed, self._closing = self._closing, True
            self._wake.notify()
        if closed:
            return
        self._writer.join()
        self._checkers.shutdown()
        self._keeper.shutdown()
        self.log.close()

    # ---------------------------------------------------------------- the writer

    def _check(self, parts: Sequence[Part]) -> list[list[Checked]]:
        return check((part.payload for part in parts), self.signers, self._verify)

    def _write(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if not self._queue:
                    return
            taken: list[tuple[_Waiting, list[list[Checked]]]] = []
            try:
                self._take(taken)
                self._commit(taken)
            except BaseException as fault:
                self._break(taken, fault)
                return

    def _take(self, taken: list[tuple[_Waiting, list[list[Checked]]]]) -> None:
        """Add the next batch when it is checked, and those behind it that are checked by then."""
        many = 0
        while self._queue and many < MOST_A_COMMIT:
            head = self._queue[0]
            if taken and not head.checked.done():
                break
            checked = head.checked.result()
            many += sum(map(len, checked))
            taken.append((head, checked))
            self._queue.popleft()

    def _commit(self, taken: list[tuple[_Waiting, list[list[Checked]]]]) -> None:
        new = self._new = []
        self._looking_s = MOST_LOOKING_S
        told = []
        for waiting, checked in taken:
            outcomes = []
            for part, messages in zip(waiting.parts, checked, strict=True):
                outcomes.append(self._admit(part, messages, waiting.received, new))
            told.append(outcomes)
        now = self._clock()
        if new:
            self.log.append([one.raw for one in new], [one.leaf for one in new], now)
        self._count(taken, new, told)
        self.live.put(
            (one.candidate.row, one.candidate.quantity, one.at, one.value)
            for one in new
            if one.candidate is not None and one.candidate.kind == MEASUREMENT
        )
        if new:
            self.committed(committed([one.candidate for one in new], [one.raw for one in new], self.log.size, now))
        # Who is answered finds its values among the live ones.
        for (waiting, _), outcomes in zip(taken, told, strict=True):
            with suppress(Exception):  # who asked has gone
                waiting.answer.set_result(Answer(outcomes, self.log.note))
        if self.log.full:
            self._roll()

    def _admit(self, part: Part, messages: list[Checked], now: int, new: list[Checked]) -> Outcome:
        """Decide on a batch; what is taken is added to `new`."""
        refused: list[Refusal] = []
        gaps: list[Gap] = []
        rows: dict[int, int] = {}
        first, duplicates, admission = self.log.size + len(new), 0, self._admission
        before = len(new)
        for place, one in enumerate(messages):
            code, candidate = one.code, one.candidate
            if candidate is not None:
                if not code:
                    code, gap = admission.admit(candidate, part.owners, now)
                    if code == "clock_off" and _followed(messages, place, now):
                        code, gap = admission.admit(candidate, part.owners, now, True)
                    if gap is not None:
                        gaps.append(gap)
                    if code != "wrong_owner":
                        rows[one.signer] = candidate.row
                if not code:
                    new.append(one)
                elif code == "duplicate":
                    duplicates += 1
            if code and code != "duplicate":
                refused.append(Refusal(place, code, one.signer, one.sequence))
        accepted = len(new) - before
        open_gaps = {signer: tuple(admission.gaps[row]) for signer, row in rows.items() if row in admission.gaps}
        return Outcome(
            received=len(messages),
            accepted=accepted,
            duplicates=duplicates,
            refused=tuple(refused),
            gaps=tuple(gaps),
            through={signer: admission.last(row) for signer, row in rows.items()},
            open=open_gaps,
            first=first if accepted else None,
            last=first + accepted - 1 if accepted else None,
        )

    def _count(
        self,
        taken: list[tuple[_Waiting, list[list[Checked]]]],
        new: list[Checked],
        told: list[list[Outcome]],
    ) -> None:
        counts, now = self.counts, perf_counter()
        counts.commits += bool(new)
        counts.values += sum(one.candidate.intervals for one in new if one.candidate is not None)
        for (waiting, _), outcomes in zip(taken, told, strict=True):
            wait, received = now - waiting.began, 0
            for outcome in outcomes:
                received += outcome.received
                counts.messages["accepted"] += outcome.accepted
                counts.messages["duplicate"] += outcome.duplicates
                counts.gaps += len(outcome.gaps)
                for refusal in outcome.refused:
                    counts.messages[refusal.code] += 1
            counts.waits[next((i for i, bound in enumerate(BUCKETS) if wait <= bound), len(BUCKETS))] += received
            counts.seconds += wait * received
            with self._wake:
                self._bytes -= waiting.bytes

    def _break(self, taken: list[tuple[_Waiting, list[list[Checked]]]], fault: BaseException) -> None:
        """Nothing more is taken, and nobody who waits is left waiting."""
        known = isinstance(fault, CoflexError)
        error = fault if known else LogBroken(f"The ingest failed: {fault!r}.", "Start it again.")
        with self._wake:
            self.alarm = str(error)
            left = [waiting for waiting, _ in taken] + list(self._queue)
            self._queue.clear()
        for waiting in left:
            with suppress(Exception):
                waiting.answer.set_exception(error)
        self._failed(fault)

    # ---------------------------------------------------------------- segments, tables, states

    def _roll(self) -> None:
        state: dict[str, Any] = self._admission.columns()
        ended, tree = self.log.roll()
        self._keeper.submit(self._keep, ended, state | tree)

    def _keep(self, ended: Segment, state: Columns) -> None:
        """Whatever failed before comes first: below a kept state all is sealed."""
        self._left.append(ended)
        try:
            while self._left:
                self.tables.write(self._left[0])
                self._left[0].seal()
                self._left.popleft()
            self.log.keep(ended, state)
        except BaseException as fault:  # the rows stay readable from the log; the next segment or start tries again
            self._failed(fault)

    def _keep_old(self) -> None:
        """Finish what a kill left of ended segments: first their tables, then all of them by one kept state."""
        for segment in self.tables.missing():
            self.tables.write(segment)
        for segment in self.log.unsealed():
            segment.seal()

    # ---------------------------------------------------------------- what was there before

    def _known(self, row: int, sequence: int) -> int | None:
        """The digest of a signer's message in the log. Whoever sends old ones again holds up nobody: when the time of a
        commit is spent, others are asked to come again; what all of it does not find is too far back to be found."""
        number, party, began = self.signers.numbers[row], bool(self.signers.parties[row]), perf_counter()
        try:
            leaf = self.log.find(number, sequence, party, began + self._looking_s)
        except TimeoutError:
            return None if self._looking_s == MOST_LOOKING_S else NOT_ASKED
        else:
            if leaf is None:
                mine = (one.candidate for one in self._new if one.candidate is not None)
                return next((one.digest for one in mine if (one.row, one.sequence) == (row, sequence)), None)
            return int.from_bytes(self.log.hashes(0, leaf, 1)[0][:8], "little")
        finally:
            self._looking_s -= perf_counter() - began

    def _replay(self, raws: Sequence[bytes], at: int) -> None:
        for raw in raws:
            _, kind, _, number, _, _ = HEADER.unpack_from(raw)
            row = self.signers.row(number, kind in (2, 4))
            if row is None:
                row = self._admission.stranger(number, kind in (2, 4))
            candidate = read(raw, row).candidate
            if candidate is not None:
                self._admission.replay(candidate, at)


def committed(candidates: Iterable[Candidate | None], raws: Sequence[bytes], size: int, now: int) -> Committed:
    """What a commit at `now` (ms) tells, after which the log has `size` messages."""
    before = now - LATE
    late = [
        (HEADER.unpack_from(raw)[3], one.first, one.first + one.step * one.intervals)
        for raw, one in zip(raws, candidates, strict=True)
        if one is not None and one.kind == MEASUREMENT and (one.revision or one.first < before)
    ]
    return Committed([raw for raw in raws if raw[1] == Kind.ACKNOWLEDGEMENT], late, size)


def _nobody(told: Committed) -> None:
    """Nobody listens."""


def _followed(messages: Sequence[Checked], place: int, now: int) -> bool:
    """Whether a message of the same signer that was signed just now is further on in the batch."""
    signer = messages[place].signer
    later = (one.candidate for one in messages[place + 1 :] if one.signer == signer and not one.code)
    return any(abs(now - one.signed_at) <= CLOCK_OFF for one in later if one is not None)
