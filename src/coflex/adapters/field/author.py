"""What a device says: every message signed, numbered, on the disk before it leaves, and sent until it is acknowledged.

`Author` signs. `Courier` decides what is to be sent when; it opens no connection, so the same rules hold for MQTT and
for HTTP. Both follow the platform's durable acknowledgements alone: what a broker confirms is not yet in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeGuard

from coflex.adapters.field.buffer import NoRoom, Outbox, sequence_of, signed_at_of
from coflex.adapters.field.clock import Watch
from coflex.evidence.keys import Signer
from coflex.evidence.message import Kind, decode, decode_measurement, seal

# Bodies that wait in memory while the disk is full: two hours of one a minute.
MOST_DRAFTS = 120
MOST_BYTES = 16 * 1024
WINDOW = 512
_LONGEST_PATIENCE_MS = 300_000
# Refusals of a message that will never be taken as it is.
_FINAL = frozenset({"bad_format", "wrong_signature", "not_active"})
# Refusals of a message that say nothing about how far the platform knows this device.
_STRANGER = _FINAL | {"unknown_point", "wrong_owner"}
# How far above its own numbers a device follows the platform's word: an acknowledgement is not signed, and the platform
# refuses a number that is further above the last one.
_FARTHEST = 1_000_000
# The platform takes what is signed ten minutes ahead of its clock; what is signed later than this it has not taken.
_AHEAD_MS = 660_000

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


def is_number(told: object) -> TypeGuard[int]:
    """Whether it can be the number of a message, or 0 for none."""
    return isinstance(told, int) and 0 <= told < 1 << 63


class Author:
    """Signs for one point. `tell(code, sentence)`: what a person should know."""

    def __init__(self, point: int, signer: Signer, outbox: Outbox, watch: Watch, tell: Tell) -> None:
        self.point, self.outbox, self.watch = point, outbox, watch
        self._signer, self._tell = signer, tell
        self._drafts: deque[tuple[Kind, bytes]] = deque()
        self.opened = not outbox.hello() and not outbox.held
        self.refused: dict[str, int] = {}
        self.unwritten = 0
        self.turned_down: set[int] = set()
        """Numbers that wait and were refused for good: they are lost once the platform takes later ones."""
        self.set_back: Callable[[int], None] = lambda first: None
        """Told when messages from a number on were signed by a clock that was ahead, and are no more."""

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

    def plausible(self, through: int) -> bool:
        """Whether the platform may know this device up to a number; told where it may not."""
        good = through - (self.outbox.last - self.outbox.held) < _FARTHEST
        if not good:
            self._implausible(through)
        return good

    def _implausible(self, through: int) -> None:
        self._tell(
            "implausible",
            f"An acknowledgement speaks of message {through} of this device, which never signed it; it is left out. "
            "Look who may write on its topic.",
        )

    def open(self, through: int, sent: int) -> None:
        """After a start: the platform knows this device up to `through`, so what is held may leave. `sent`: the highest
        number that may have left."""
        left = max(self.outbox.last - self.outbox.held, sent)
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

    def acknowledged(self, answer: Acknowledged, sent: int, sent_again: bool = False) -> int | None:
        """Let go of what the platform has; sign anew what it refused because the number was used before.

        `sent`: the highest number that may have left: no word can be about more. `sent_again`: the answer is to
        something that was first sent after all that was missing was sent again. Returns the first number that now
        stands for another message, if any.
        """
        outbox = self.outbox
        answer = replace(answer, refused=tuple(one for one in answer.refused if one[0] <= sent))
        again = self._refusals(answer.refused)
        if answer.through > outbox.last:
            # Nobody asked: it counts where a number of ours was used before, as on a disk that lost all it had.
            if again and self.plausible(answer.through):
                return self._surpassed(answer.through)
            self._implausible(answer.through)
            return None
        free = self._free(answer)
        self._give_up(answer)
        self._remember(answer, sent_again)
        outbox.acknowledge(min(self._whole(answer.through), sent, outbox.last))
        for kind, body in again:
            self.write(kind, body)
        return free

    def _surpassed(self, through: int) -> int | None:
        """The platform knows numbers that this device never used: all that waits goes on above them. What of it the
        platform has already, it refuses as delivered before."""
        self._tell(
            "foreign",
            f"The platform knows message {through} of this device, which never signed it: another device "
            "holds its key, or its disk was lost. Enrol a new key unless you know why.",
        )
        try:
            self.outbox.raise_above(through, self._now, first=1)
        except NoRoom as fault:
            self._tell("no_room", str(fault))
            return None
        self.turned_down.clear()
        return through + 1

    def _now(self, raw: bytes, sequence: int) -> bytes:
        """The same body under another number, signed now."""
        old = decode(raw)
        return seal(self._signer.sign, old.kind, self.point, sequence, self.watch.stamp(), old.body)

    def _free(self, answer: Acknowledged) -> int | None:
        """Messages of a clock that was ahead, once it is right: the platform did not take them, so their numbers and
        their times are free. What they measured in a time that has not come is dropped, the rest is signed now."""
        now, outbox = self.watch.clock.utc_ms(), self.outbox
        first = min((one for one, code in answer.refused if self._is_ahead(one, code, answer, now)), default=None)
        if first is None:
            return None
        waiting = outbox.pending(first - 1, outbox.size_bytes)
        before, last = outbox.signed_before(first), self.watch.last
        self.watch.last = before
        good = [raw for raw in waiting if not _measured_after(raw, now)]
        anew = [self._now(raw, sequence) for sequence, raw in enumerate(good, start=first)]
        try:
            outbox.replace(first, first - 1, before, anew)
        except NoRoom as fault:
            self.watch.last = last
            self._tell("no_room", str(fault))
            return None
        self._tell(
            "clock_was_ahead",
            f"{len(waiting)} messages from {first} on were signed by a clock that was ahead, and refused; "
            f"{len(anew)} are signed anew, the others measured a time that has not come and are dropped.",
        )
        self.turned_down = {one for one in self.turned_down if one < first}
        self.set_back(first)
        return first

    def _is_ahead(self, sequence: int, code: str, answer: Acknowledged, now: int) -> bool:
        """Whether a refused message is signed in a time that neither the platform's clock nor this one has reached."""
        raw = self._waiting(sequence)
        if code != "clock_off" or answer.at is None or raw is None or sequence <= answer.through:
            return False
        return signed_at_of(raw) - max(answer.at, now) > _AHEAD_MS

    def _give_up(self, answer: Acknowledged) -> None:
        """What was refused for good is lost where the platform took later ones, for it knows the device by then; but
        not what it took since, because its register was put right."""
        now = {sequence for sequence, _ in answer.refused}
        judged = {one for one in self.turned_down if one <= answer.through}
        gone = sorted(
            one
            for one in judged
            if one in now or answer.open is None or any(first <= one <= last for first, last in answer.open)
        )
        with suppress(NoRoom):
            self.outbox.give_up(gone)
            self.turned_down -= judged
            if gone:
                self._tell("given_up", f"{len(gone)} messages from {gone[0]} on will never be taken; they are lost.")

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

    def _waiting(self, sequence: int) -> bytes | None:
        """The message of a number, where it waits."""
        found = self.outbox.pending(sequence - 1, 1)
        return found[0] if found and sequence_of(found[0]) == sequence else None

    def _refusals(self, refused: Sequence[tuple[int, str]]) -> list[tuple[Kind, bytes]]:
        """Count them; what they said of those whose number was used before."""
        again = []
        for sequence, code in refused:
            self.refused[code] = self.refused.get(code, 0) + 1
            self._tell("refused", f"The platform refused message {sequence}: {code}.")
            waiting = self._waiting(sequence)
            if waiting is not None and code in _FINAL:
                self.turned_down.add(sequence)
            if waiting is not None and code == "replayed":
                old = decode(waiting)
                again.append((old.kind, old.body))
        return again


def _measured_after(raw: bytes, now: int) -> bool:
    """Whether a message measures a time that is not over."""
    message = decode(raw)
    return message.kind is Kind.MEASUREMENT and decode_measurement(message.body).end > now


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
        self._question = 0
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
        # What was refused for good takes no place: later ones are to be heard.
        if self._sent - self._outbox.acknowledged >= WINDOW + len(self._author.turned_down):
            return b""
        batch = self._outbox.pending(max(self._sent, self._outbox.acknowledged), MOST_BYTES)
        if not batch:
            return b""
        if self._sent <= self._outbox.acknowledged:
            self._progress_at = now
        self._sent = sequence_of(batch[-1])
        self._ever = max(self._ever, self._sent)
        self._sent_at.append((self._sent, now))
        return b"".join(batch)

    def _hello(self, now: int) -> bytes:
        if self._hello_at is not None and now - self._hello_at <= self._patience:
            return b""
        if self._hello_at is not None:
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE_MS)
        questions = self._outbox.questions()
        if not questions:
            return b""
        self._hello_at = now
        hello = questions[self._question % len(questions)]
        self._ever = max(self._ever, sequence_of(hello))
        return hello

    def _open(self, now: int) -> None:
        if self._last is not None and self._hello_at is not None and now - self._hello_at >= self._settle:
            self._author.open(self._last.through, self._ever)
            self._patience = self._first_patience
            if self._author.opened:
                self._heed(self._last)
            self._again(now)

    def _heed(self, answer: Acknowledged, sent_again: bool = False) -> bool:
        """Whether numbers now stand for other messages, which have not left."""
        changed = self._author.acknowledged(answer, self._ever, sent_again)
        if changed is not None:
            self._ever = min(self._ever, changed - 1)
        return changed is not None

    def answered(self, answer: Acknowledged, now: int) -> None:
        """An acknowledgement came."""
        sent_at = None if self._author.opened else self._hello_at
        while self._sent_at and self._sent_at[0][0] <= answer.through:
            sent_at = self._sent_at.popleft()[1]
        if answer.at is not None and sent_at is not None:
            self._author.watch.heard(answer.at, sent_at)
        if not self._author.opened:
            if self._hello_at is None:
                return
            if self._stranger(answer):
                self._question += any(code in _FINAL for _, code in answer.refused)
            elif self._author.plausible(answer.through):
                if answer.through >= (0 if self._last is None else self._last.through):
                    self._last = answer
                self._open(now)
            return
        before = self._outbox.acknowledged, len(self._author.turned_down)
        changed = self._heed(answer, answer.through >= self._fence)
        if min(answer.through, self._ever) > before[0] or len(self._author.turned_down) > before[1]:
            self._progress_at, self._patience = now, self._first_patience
        if changed or (answer.missing and self._outbox.notes.get("missing")):
            self._again(now)

    def _stranger(self, answer: Acknowledged) -> bool:
        """Whether the platform refused to know this device: it has not taken a later message."""
        return any(code in _STRANGER and sequence >= answer.through for sequence, code in answer.refused)

    def wait_ms(self, now: int) -> int:
        """How long nothing is to be done unless something new comes: until a settling or a patience ends."""
        if not self._author.opened and self._last is not None and self._hello_at is not None:
            return max(1, self._hello_at + self._settle - now)
        since = self._hello_at if self._hello_at is not None and not self._author.opened else self._progress_at
        return max(1, since + self._patience + 1 - now)
