"""Servers as processes of their own, forked from one that has imported everything: they start in milliseconds.

A process that imports a web framework and a database by itself takes a second to start; tests that kill servers by the
hundred cannot wait for that. Python's fork server imports once and forks on demand.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

PRELOAD = ("pytest", "coflex.adapters.web.server", "support.trading", "coflex.serve", "coflex.ingest", "coflex.device")
# Longer than anything a test waits for; a process that says nothing for so long is a failure.
PATIENCE = 30.0

Tell = Callable[[Any], None]


class Forked:
    """A process that runs `target(tell, *words)`; what it tells is `heard` here."""

    def __init__(self, target: Callable[..., None], *words: Any) -> None:
        here, there = multiprocessing.Pipe(duplex=False)
        self._pipe: Connection = here
        # A daemon of multiprocessing may have no processes of its own; `_run` sees to it that none outlives the tests.
        self._process = _context().Process(target=_run, args=(target, there, words), daemon=False)
        self._process.start()
        there.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def hear(self, seconds: float = PATIENCE) -> Any:
        """The next thing it tells. Raises EOFError when it ended first, TimeoutError when it says nothing."""
        if not self._pipe.poll(seconds):
            raise TimeoutError(f"process {self.pid} says nothing")
        return self._pipe.recv()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word (SIGKILL), and wait until it is gone."""
        self._process.kill()
        self.ended()

    def ended(self, seconds: float = PATIENCE) -> int:
        """Its exit code, once it ended; minus the number of the signal that ended it."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(f"process {self.pid} does not end")
        return code

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(PATIENCE)
        self._pipe.close()


@cache
def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    # The fork server looks for modules where it is told by the environment alone.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _run(target: Callable[..., None], pipe: Connection, words: tuple[Any, ...]) -> None:
    if sys.platform == "linux":
        end_with_parent = 1  # PR_SET_PDEATHSIG: when the fork server is gone, and it goes with the tests
        ctypes.CDLL(None).prctl(end_with_parent, signal.SIGKILL)
    target(pipe.send, *words)
