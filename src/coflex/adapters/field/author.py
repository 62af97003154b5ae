"""What a device says: every message signed, numbered, on the disk before it leaves, and sent until it is acknowledged.

`Author` signs. `Courier` decides what is to be sent when; it opens no connection, so the same rules hold for MQTT and
for HTTP. Both follow the platform's durable acknowledgements alone: what a broker confirms is not yet in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from coflex.adapters.field.buffer import NoRoom, Outbox, sequence_of, signed_at_of
from coflex.adapters.field.clock import Watch
from coflex.evidence.keys import Signer
from coflex.evidence.message import Kind, decode, seal

# Bodies that wait in memory while the disk is full: two hours of one a minute.
MOST_DRAFTS = 120
MOST_BYTES = 16 * 1024
WINDOW = 512
_LONGEST_PATIENCE_MS = 300_000
# Refusals of a message that say nothing about how far the platform knows this device.
_STRANGER = frozenset({"bad_format", "unknown_point", "wrong_signature", "not_active", "wrong_owner"})

Tell = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The platform's durable acknowledgement. `through`: the highest number it knows; it has every message up to there,
    or has refused it, or names it in `missing`, now or earlier. `open`: all that has not come, where it is told.
    `refused`: number and code of messages it did not take. `at`: its clock, ms since the epoch, where told."""

    through: int
    refused: tuple[tuple[int, str], ...] = ()
    at: int | None = None
    missing: tuple[tuple[int, int], ...] = ()
    open: tuple[tuple[int, int], ...] | None = None


class Author:
    """Signs for one point. `tell(code, sentence)`: what a person should know."""

    def __init__(self, point: int, signer: Signer, outbox: Outbox, watch: Watch, tell: Tell) -> None:
        self.point, self.outbox, self.watch = point, outbox, watch
        self._signer, self._tell = signer, tell
        self._drafts: deque[tuple[Kind, bytes]] = deque()
        self.opened = not outbox.hello() and not outbox.held
        self.refused: dict[str, int] = {}
        self.unwritten = 0

    def write(self, kind: Kind, body: bytes) -> int | None:
        """Sign and keep. The number it got; None while the disk is full: then it is tried again with the next one."""
        self._drafts.append((kind, body))
        written = None
        try:
            while self._drafts:
                written = self._keep(*self._drafts[0])
                self._drafts.popleft()
        except NoRoom as fault:
            self._tell("no_room", str(fault))
            while len(self._drafts) > MOST_DRAFTS:
                self._drafts.popleft()
                self.unwritten += 1
            return None
        return written

    def _keep(self, kind: Kind, body: bytes) -> int:
        sequence = self.outbox.last + 1
        raw = seal(self._signer.sign, kind, self.point, sequence, self.watch.stamp(), body)
        self.outbox.append(raw, held=not self.opened)
        return sequence

    def _anew(self, raw: bytes, sequence: int) -> bytes:
        """The same body at the time it was first signed, under another number."""
        old = decode(raw)
        return seal(self._signer.sign, old.kind, self.point, sequence, signed_at_of(raw), old.body)

    def open(self, through: int) -> None:
        """After a start: the platform knows this device up to `through`, so what is held may leave."""
        left = self.outbox.last - self.outbox.held
        try:
            if through > left:
                self._tell(
                    "restored",
                    f"The platform knows message {through} of this device, its disk only {left}: the disk is an older "
                    "copy. Numbers go on above; look why the disk went back.",
                )
                self.outbox.raise_above(through, self._anew)
            self.outbox.release()
        except NoRoom as fault:
            self._tell("no_room", str(fault))
            return
        self.opened = True

    def acknowledged(self, answer: Acknowledged, sent_again: bool = False) -> None:
        """Let go of what the platform has; sign anew what it refused because the number was used before.

        `sent_again`: the answer is to something that was first sent after all that was missing was sent again.
        """
        outbox = self.outbox
        again = self._refusals(answer.refused)
        if answer.through > outbox.last:
            self._surpassed(answer.through)
        self._remember(answer, sent_again)
        outbox.acknowledge(min(self._whole(answer.through), outbox.last))
        for kind, body in again:
            self.write(kind, body)

    def _surpassed(self, through: int) -> None:
        """The platform knows numbers that this device never used: it goes on above them."""
        self._tell(
            "foreign",
            f"The platform knows message {through} of this device, which never signed it: another device "
            "holds its key, or its disk was lost. Enrol a new key unless you know why.",
        )
        try:
            self.outbox.raise_above(through, self._anew)
        except NoRoom as fault:
            self._tell("no_room", str(fault))

    def _remember(self, answer: Acknowledged, sent_again: bool) -> None:
        """What the platform said is missing, until it has come; also over a restart."""
        before = [tuple(one) for one in self.outbox.notes.get("missing", ())]
        if answer.open is not None:
            now = list(answer.open)
        else:
            now = list(answer.missing) + ([] if sent_again else [one for one in before if one not in answer.missing])
        here = [one for one in now if self._here(one)]
        if here != before:
            with suppress(NoRoom):
                self.outbox.note(missing=here)

    def _here(self, gap: tuple[int, ...]) -> list[bytes]:
        """The first message of a gap that is still in the buffer, if any."""
        found = self.outbox.pending(gap[0] - 1, 1)
        return [one for one in found if sequence_of(one) <= gap[1]]

    def _whole(self, through: int) -> int:
        """Through which number nothing is missing that is still here."""
        firsts = [sequence_of(one) for gap in self.outbox.notes.get("missing", ()) for one in self._here(gap)]
        return min([through, *(first - 1 for first in firsts)])

    def _refusals(self, refused: Sequence[tuple[int, str]]) -> list[tuple[Kind, bytes]]:
        """Count them; what they said of those whose number was used before."""
        again = []
        for sequence, code in refused:
            self.refused[code] = self.refused.get(code, 0) + 1
            self._tell("refused", f"The platform refused message {sequence}: {code}.")
            waiting = self.outbox.pending(sequence - 1, 1)
            if code == "replayed" and waiting and decode(waiting[0]).sequence == sequence:
                old = decode(waiting[0])
                again.append((old.kind, old.body))
        return again


class Courier:
    """What is sent when. All instants are of the monotonic clock, in ms.

    After a start a message that the platform knows is sent first, again: its answer says how far the platform is, and
    opens the rest. `settle_ms`: how long after that the highest answer counts, where older answers may still be on
    their way (a broker's queue); 0 where an answer belongs to its question. What is not acknowledged within the
    patience is sent again, from the oldest on; the patience doubles up to five minutes.
    """

    def __init__(self, author: Author, patience_ms: int = 10_000, settle_ms: int = 2_000) -> None:
        self._author, self._outbox = author, author.outbox
        self._first_patience = self._patience = patience_ms
        self._settle = settle_ms
        self._sent = self._progress_at = 0
        self._ever = author.outbox.last - author.outbox.held  # the highest that may have been sent
        self._fence = self._ever + 1
        self._hello_at: int | None = None
        self._sent_at: deque[tuple[int, int]] = deque()  # last number of a batch, when it was sent
        self._last: Acknowledged | None = None

    def connected(self, now: int) -> None:
        """A new connection: everything that is not acknowledged is sent again."""
        self._again(now)
        self._hello_at = self._last = None

    def _again(self, now: int) -> None:
        """Begin with the oldest again. A message that was never sent before, once answered, says that all before it
        was judged: a broker keeps the order."""
        self._sent, self._progress_at = self._outbox.acknowledged, now
        self._fence = self._ever + 1
        self._sent_at.clear()

    def next(self, now: int) -> bytes:
        """The batch to send now; empty when there is none."""
        if not self._author.opened:
            self._open(now)
        if not self._author.opened:
            return self._hello(now)
        waiting = self._sent > self._outbox.acknowledged
        if waiting and now - self._progress_at > self._patience:
            self._again(now)
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE_MS)
        if self._sent - self._outbox.acknowledged >= WINDOW:
            return b""
        batch = self._outbox.pending(max(self._sent, self._outbox.acknowledged), MOST_BYTES)
        if not batch:
            return b""
        if self._sent <= self._outbox.acknowledged:
            self._progress_at = now
        self._sent = decode(batch[-1]).sequence
        self._ever = max(self._ever, self._sent)
        self._sent_at.append((self._sent, now))
        return b"".join(batch)

    def _hello(self, now: int) -> bytes:
        if self._hello_at is not None and now - self._hello_at <= self._patience:
            return b""
        if self._hello_at is not None:
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE_MS)
        self._hello_at = now
        return self._outbox.hello()

    def _open(self, now: int) -> None:
        if self._last is not None and self._hello_at is not None and now - self._hello_at >= self._settle:
            self._author.open(self._last.through)
            self._patience = self._first_patience
            self._author.acknowledged(self._last)
            self._again(now)

    def answered(self, answer: Acknowledged, now: int) -> None:
        """An acknowledgement came."""
        sent_at = self._hello_at
        while self._sent_at and self._sent_at[0][0] <= answer.through:
            sent_at = self._sent_at.popleft()[1]
        if answer.at is not None and sent_at is not None:
            self._author.watch.heard(answer.at, sent_at)
        if not self._author.opened:
            if self._hello_at is not None and not self._stranger(answer):
                if answer.through >= (0 if self._last is None else self._last.through):
                    self._last = answer
                self._open(now)
            return
        if answer.through > self._outbox.acknowledged:
            self._progress_at, self._patience = now, self._first_patience
        self._author.acknowledged(answer, answer.through >= self._fence)
        if answer.missing and self._outbox.notes.get("missing"):
            self._again(now)

    def _stranger(self, answer: Acknowledged) -> bool:
        """Whether the platform refused to know this device."""
        return any(code in _STRANGER for _, code in answer.refused)

    def wait_ms(self, now: int) -> int:
        """How long nothing is to be done unless something new comes: until a settling or a patience ends."""
        if not self._author.opened and self._last is not None and self._hello_at is not None:
            return max(1, self._hello_at + self._settle - now)
        since = self._hello_at if self._hello_at is not None and not self._author.opened else self._progress_at
        return max(1, since + self._patience + 1 - now)
