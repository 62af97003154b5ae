"""Signatures checked by processes of their own, which leave the interpreter to the rest of the ingest.

A signature takes some 50 us outside the interpreter's lock, and coming back to the lock behind busy threads takes as
long again. So a thread hands the signatures of a whole batch to a process through a pipe and comes back once. A process
that fails, or does not answer in time, costs nothing but that: its batch is checked here, and the next one finds a new
process.

A request is the number of messages and their bytes in sum (two 32-bit integers), the keys, and the messages one after
another; the answer is a byte a message, 1 where its signature is its key's.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import LifoQueue
from struct import Struct
from time import monotonic
from typing import BinaryIO, Self

from coflex.adapters.measurements.check import here
from coflex.evidence import message
from coflex.evidence.keys import PUBLIC_BYTES

_HEAD = Struct("<II")
# Fewer signatures take less time than the way there and back.
FEW = 4
# One writer admits no more messages than as many processes check.
MOST = 4
# A process may take so long for a batch, and so long more for each signature: some twenty times what it needs.
PATIENCE_S, EACH_S = 10.0, 0.001


class Verifiers:
    """So many processes, which any thread may ask: a `check.Verify`. To be closed, best by `with`."""

    def __init__(self, count: int = min(MOST, os.cpu_count() or 1)) -> None:
        self._idle: LifoQueue[_Helper] = LifoQueue()
        # Pipes cannot be waited for with an end everywhere; there each batch is checked on its own thread.
        self._all = [_Helper() for _ in range(count)] if hasattr(select, "poll") else []
        for helper in self._all:
            self._idle.put(helper)

    def __call__(self, publics: Sequence[bytes], raws: Sequence[bytes]) -> Sequence[bool]:
        if len(raws) < FEW or not self._all:
            return here(publics, raws)
        helper = self._idle.get()
        try:
            return helper.ask(publics, raws)
        finally:
            self._idle.put(helper)

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [helper.process.pid for helper in self._all if helper.process is not None]

    def close(self) -> None:
        """End the processes; who asks later is served on its own thread."""
        ended, self._all = self._all, []
        for helper in ended:
            helper.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Helper:
    """One process, one asker at a time."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._asked = threading.Lock()
        self._ended = False
        self._begin()

    def ask(self, publics: Sequence[bytes], raws: Sequence[bytes]) -> Sequence[bool]:
        with self._asked:
            if self.process is None and not self._ended:
                self._begin()
            told = self._exchange(publics, raws)
            if told is None:
                self._kill()
        return here(publics, raws) if told is None else told

    def end(self) -> None:
        """When who asks is answered; no process begins after that."""
        with self._asked:
            self._ended = True
            self._kill()

    def _begin(self) -> None:
        # In a group of its own, where Ctrl-C does not reach it: it ends when the ingest has written what waits.
        with suppress(OSError):  # no more processes may be had: the next batch tries again
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,
            )
            assert self.process.stdin is not None
            os.set_blocking(self.process.stdin.fileno(), False)

    def _exchange(self, publics: Sequence[bytes], raws: Sequence[bytes]) -> list[bool] | None:
        """None where the process is not there any more, or does not answer as it should."""
        if self.process is None:
            return None
        assert self.process.stdin is not None and self.process.stdout is not None
        asking, answering = self.process.stdin.fileno(), self.process.stdout.fileno()
        until = monotonic() + PATIENCE_S + EACH_S * len(raws)
        left = memoryview(b"".join((_HEAD.pack(len(raws), sum(map(len, raws))), *publics, *raws)))
        told = b""
        try:
            while left:
                if not _ready(asking, select.POLLOUT, until):
                    return None
                left = left[os.write(asking, left) :]
            while len(told) < len(raws):
                if not _ready(answering, select.POLLIN, until) or not (some := os.read(answering, len(raws))):
                    return None
                told += some
        except OSError:
            return None
        return [one == 1 for one in told]

    def _kill(self) -> None:
        """It keeps nothing that it would have to put in order."""
        process, self.process = self.process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # where the system holds it, it ends when the system lets it go
            process.wait(5)


def _ready(file: int, event: int, until: float) -> bool:
    """Whether a pipe can be read or written before a time."""
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(max(0.0, until - monotonic()) * 1000))


def answer(asked: BinaryIO, told: BinaryIO) -> None:
    """Check what is asked until nothing more comes."""
    while len(head := asked.read(_HEAD.size)) == _HEAD.size:
        count, size = _HEAD.unpack(head)
        publics = asked.read(count * PUBLIC_BYTES)
        raws, _ = message.split(asked.read(size))
        if len(raws) != count:  # whoever asked has gone in the middle
            return
        own = [publics[at : at + PUBLIC_BYTES] for at in range(0, len(publics), PUBLIC_BYTES)]
        told.write(bytes(here(own, raws)))
        told.flush()


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        answer(sys.stdin.buffer, sys.stdout.buffer)
