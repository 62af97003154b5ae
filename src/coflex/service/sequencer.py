"""The sequencer: every command gets a number and a time from one place, and is acknowledged when it is on the disk.

Two threads meet here. The machine's thread takes commands, one by one: it gives the number and the instant, lets the
machine decide, and goes on with the next command at once. The writer's thread gets all entries that wait, one batch at
a time, and writes them with one sync (group commit). Whoever asked waits for its number to be durable; readers wait for
it too, so nobody is told what a crash could take back. All state is the machine's thread's alone: no locks.

When a write fails, what is known decides:

    nothing was written (disk full)     the commands are undone and refused; the next one is tried again
    not known (link lost)               no answer until the store says what it holds: then acknowledged, or written
                                        again, as the same entries with the same numbers; never twice
    the store cannot be trusted         everything not yet durable is undone; nothing is acknowledged until a restart
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from heapq import heappop, heappush
from typing import Protocol, TypeAlias

from coflex.domain.errors import CoflexError, KeyReused
from coflex.service import chain
from coflex.service.machine import END_OF_TIME, Machine, Taken
from coflex.service.ports import (
    Clock,
    Command,
    Entry,
    Head,
    Journal,
    KeysTaken,
    StoreBroken,
    StoreFull,
    StoreLost,
)

log = logging.getLogger("coflex.sequencer")
MOST_IN_A_BATCH = 2_000
MOST_WAITING = 20_000
# Idempotency keys are known for this many writes with one at least, for twice as many at most.
KEYS = 500_000
# Between attempts to reach a lost store, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0


class Unavailable(CoflexError):
    """The platform takes no commands now; reads go on."""

    code = "UNAVAILABLE"


class Gates(Protocol):
    """What is due by the clock, read off the records of the machine."""

    def next_at(self) -> datetime | None:
        """The server's instant from which a gate is due; None when none is left."""
        ...

    def due(self, at: datetime) -> Command | None:
        """The first gate that is due at an instant and was not yet taken."""
        ...

    def put_aside(self, tenant: str) -> None:
        """Leave out the gates of a tenant whose next one failed, until something of it changes."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a command was answered; to be told once `number` is durable. `again`: it had been taken before."""

    number: int
    at: datetime
    status: int
    reply: bytes
    again: bool = False


_Scope: TypeAlias = tuple[str, str, str]  # tenant, party of the caller, key
_Known: TypeAlias = tuple[bytes, int, datetime, int, bytes]
_ON_DISK: _Known = b"", 0, END_OF_TIME, 0, b""  # a key that was taken before the start: the journal has the rest


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: Entry
    taken: Taken


class _Keys:
    """What each idempotency key stands for: SHA-256 of the request, number, instant, status, reply.

    Two generations, so that forgetting costs nothing; plain tuples, which the collector of garbage leaves alone.
    """

    def __init__(self) -> None:
        self._young: dict[_Scope, _Known] = {}
        self._old: dict[_Scope, _Known] = {}

    def get(self, scope: _Scope) -> _Known | None:
        return self._young.get(scope) or self._old.get(scope)

    def put(self, scope: _Scope, known: _Known) -> None:
        if len(self._young) >= KEYS:
            self._young, self._old = {}, self._young
        self._young[scope] = known

    def forget(self, scope: _Scope) -> None:
        self._young.pop(scope, None)
        self._old.pop(scope, None)


class Sequencer:
    """One for a process. Everything but `close` is for the machine's thread alone.

    `deliver(act)` runs `act` soon on the machine's thread and may be called from any (an event loop's
    `call_soon_threadsafe`); `soon(act)` the same from the machine's thread itself (`call_soon`). Without them there is
    no writer's thread and `submit` returns when the entry is durable: for tools and tests.
    """

    def __init__(
        self,
        machine: Machine,
        journal: Journal,
        clock: Clock,
        gates: Gates | None = None,
        deliver: Callable[[Callable[[], object]], object] | None = None,
        soon: Callable[[Callable[[], object]], object] | None = None,
    ) -> None:
        self.machine, self.journal = machine, journal
        self._clock, self._gates = clock, gates
        self._deliver, self._soon = deliver, soon or deliver
        self._head = journal.head()
        self._number, self._digest, self._at = self._head.number, self._head.digest, self._head.at
        self._waiting: list[_Waiting] = []
        self._writing: list[_Waiting] = []
        self._waiters: list[tuple[int, int, Callable[[Exception | None], None]]] = []
        self._told = 0
        self._keys = _Keys()
        self._batches: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._end = self._head.number, self._head.digest  # what the writer knows to be durable
        self._gate_at: datetime | None = None
        self._gate_as_of = -1
        self._called = self._closing = False
        self.alarm = ""
        self.listeners: list[Callable[[Entry], None]] = []
        self._read_keys()
        self._thread: threading.Thread | None = None
        if deliver is not None:
            self._thread = threading.Thread(target=self._write_on, name="coflex-writer", daemon=True)
            self._thread.start()

    # ---------------------------------------------------------------- taking commands

    @property
    def number(self) -> int:
        """Number of the last entry taken, durable or not: what a reader of the state has seen."""
        return self._number

    @property
    def durable_number(self) -> int:
        return self._head.number

    @property
    def ready(self) -> bool:
        """Whether commands are taken."""
        return not self.alarm and not self._closing

    @property
    def waiting(self) -> int:
        """How many entries are not yet durable."""
        return len(self._waiting) + len(self._writing)

    def submit(self, command: Command) -> Receipt:
        """Take a command, after every gate that is due before it.

        Raises what the verb raises, KeyReused, Unavailable; without a writer's thread also what the journal raises.
        """
        if self.alarm or self._closing:
            raise Unavailable(self.alarm or "The platform is stopping.", "Try again later with the same key.")
        if len(self._waiting) >= MOST_WAITING:
            raise Unavailable("More commands wait than can be written.", "Try again in a second with the same key.")
        at = self.pass_gates()
        if command.key is None:
            return self._take(command, at)
        scope, asked = (command.tenant, command.by, command.key), key_digest(command)
        known = self._keys.get(scope)
        if known is _ON_DISK:
            known = self._recall(scope)
        if known is not None:
            if known[0] != asked:
                raise KeyReused(
                    f"The idempotency key '{command.key}' belongs to another request.", "Use a new key for a new one."
                )
            return Receipt(*known[1:], again=True)
        receipt = self._take(command, at)
        self._keys.put(scope, (asked, receipt.number, receipt.at, receipt.status, receipt.reply))
        return receipt

    def pass_gates(self) -> datetime:
        """Take every gate that is due; the instant of now, which never goes back."""
        at = self._clock()
        if self._at is not None and at < self._at:
            at = self._at
        if self._gates is None or not self.ready:
            return at
        while (due := self._next_gate(self._gates)) is not None and due <= at:
            gate = self._gates.due(at)
            if gate is None:
                break
            self._pass(self._gates, gate, at)
        return at

    def _pass(self, gates: Gates, gate: Command, at: datetime) -> None:
        """Take a gate. One that fails is its tenant's trouble: it is told, and nobody else waits for it."""
        try:
            self._take(gate, at)
        except (StoreFull, StoreLost, StoreBroken):  # without a writer's thread
            raise
        except Exception as fault:
            log.error("the gate %s %s failed: %s", gate.verb, gate.subject, type(fault).__name__)
            gates.put_aside(gate.tenant)
            self._gate_as_of = -1

    def _next_gate(self, gates: Gates) -> datetime | None:
        """When the next gate is due: it hangs on records alone, so it is asked again once one was written."""
        if self._gate_as_of != self.machine.writes:
            self._gate_at, self._gate_as_of = gates.next_at(), self.machine.writes
        return self._gate_at

    def when_durable(self, number: int, tell: Callable[[Exception | None], None]) -> None:
        """Call `tell(None)` once the entry is on the disk, or `tell(fault)` when it was undone."""
        if number <= self._head.number:
            tell(None)
        else:
            self._told += 1
            heappush(self._waiters, (number, self._told, tell))

    def _take(self, command: Command, at: datetime) -> Receipt:
        number = self._number + 1
        taken = self.machine.apply(command, number, at)
        digest = chain.digest(self._digest, number, at, command, taken.status, taken.reply, taken.changes, taken.notes)
        entry = Entry(number, at, command, taken.status, taken.reply, taken.changes, taken.notes, digest)
        try:
            chain.fit(entry)
        except ValueError:
            self.machine.take_back(command.tenant, taken)
            raise
        self._number, self._digest, self._at = number, digest, at
        self._waiting.append(_Waiting(entry, taken))
        if self._soon is None:
            self._write_now()
        elif not self._writing and not self._called:
            # At the end of the loop's round, so that all commands of the round share a sync.
            self._called = True
            self._soon(self._hand_over)
        return Receipt(number, at, taken.status, taken.reply)

    def _read_keys(self) -> None:
        for scope in self.journal.recent_keys(KEYS):
            self._keys.put(scope, _ON_DISK)

    def _recall(self, scope: _Scope) -> _Known | None:
        """What the journal says of a key, kept from now on. Raises what the journal raises."""
        found = self.journal.key(*scope)
        if found is None:
            return None
        *_, number, digest, status, reply = found
        known = digest, number, self._head.at or self._clock(), status, reply
        self._keys.put(scope, known)
        return known

    # ---------------------------------------------------------------- what became of them

    def _hand_over(self) -> None:
        """Give the writer what waits, unless it is at work."""
        self._called = False
        if self._waiting and not self._writing:
            self._writing, self._waiting = self._waiting[:MOST_IN_A_BATCH], self._waiting[MOST_IN_A_BATCH:]
            self._batches.put(self._writing)

    def _write_now(self) -> None:
        self._writing, self._waiting = self._waiting, []
        try:
            self.journal.append([one.entry for one in self._writing])
        except Exception as fault:
            self._undo(fault)
            raise
        self._written(self._writing)

    def _written(self, batch: list[_Waiting]) -> None:
        if self._writing is batch:
            self._writing = []
        last = batch[-1].entry
        self._head = Head(last.number, last.at, last.digest)
        while self._waiters and self._waiters[0][0] <= last.number:
            heappop(self._waiters)[2](None)
        for listener in self.listeners:
            for one in batch:
                listener(one.entry)
        self._hand_over()

    def _undo(self, fault: Exception) -> None:
        """Take back all that is not durable, the newest first. Unless there was no room, that ends all writing."""
        if not isinstance(fault, StoreFull | KeysTaken):
            self.alarm = str(fault)
        undone, self._writing, self._waiting = [*self._writing, *self._waiting], [], []
        for one in reversed(undone):
            command = one.entry.command
            self.machine.take_back(command.tenant, one.taken)
            if command.key is not None:
                self._keys.forget((command.tenant, command.by, command.key))
        self._number, self._digest = self._head.number, self._head.digest
        if isinstance(fault, KeysTaken):
            self._remember(fault)
        waiters, self._waiters = self._waiters, []
        told = Unavailable(fault.message, fault.remedy) if isinstance(fault, KeysTaken) else fault
        for number, _, tell in waiters:
            tell(None if number <= self._head.number else told)

    def _remember(self, fault: KeysTaken) -> None:
        """Know keys again that had been forgotten: whoever asks once more gets the old answer, or is told."""
        for scope in fault.keys:
            self._recall(scope)

    def close(self) -> None:
        """Take nothing more, write what waits, let the writer's thread end."""
        self._closing = True
        if self._thread is None:
            return
        self._batches.put(None)
        self._thread.join(timeout=30)

    # ---------------------------------------------------------------- the writer's thread

    def _write_on(self) -> None:
        """Write batch after batch; at the end also what was never handed over."""
        while True:
            batch = self._batches.get()
            last = batch is None
            if batch is None:
                batch, self._waiting = self._waiting, []
            if not batch:
                return
            try:
                self._write([one.entry for one in batch])
            except Exception as fault:
                told = fault if isinstance(fault, CoflexError) else StoreBroken(f"The journal failed: {fault!r}.")
                self._tell(partial(self._undo, told))
                last = last or not isinstance(told, StoreFull | KeysTaken)
            else:
                self._tell(partial(self._written, batch))
            if last:
                return

    def _tell(self, act: Callable[[], object]) -> None:
        assert self._deliver is not None
        # A loop that has ended has nobody left to tell.
        with suppress(RuntimeError):
            self._deliver(act)

    def _write(self, entries: list[Entry]) -> None:
        before, head = self._end, (entries[-1].number, entries[-1].digest)
        pause = 0.0
        while True:
            try:
                self.journal.append(entries)
            except StoreLost as fault:
                # A store that answers and yet loses every append is not asked without a rest.
                time.sleep(pause)
                pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * pause))
                there = self._found_again(fault)
                if (there.number, there.digest) == head:
                    break
                if (there.number, there.digest) != before:
                    raise StoreBroken(
                        f"The store's last entry is {there.number}, not {before[0]}: somebody else wrote to it.",
                        "Let one server write to a store; then restart this one.",
                    ) from fault
            else:
                break
        self._end = head

    def _found_again(self, fault: StoreLost) -> Head:
        """The head of the store once it answers again; no commands are taken until then."""
        pause = FIRST_PAUSE
        self.alarm = str(fault)
        while True:
            if self._closing:
                raise fault
            try:
                head = self.journal.recover()
            except StoreLost as again:
                fault = again
                time.sleep(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
            else:
                self.alarm = ""
                return head


def key_digest(command: Command) -> bytes:
    """What makes a request the same: SHA-256 of verb, subject, party, and body, each ended by a zero byte."""
    parts = (command.verb.encode(), command.subject.encode(), command.party.encode(), command.body)
    return sha256(b"\0".join(parts)).digest()
