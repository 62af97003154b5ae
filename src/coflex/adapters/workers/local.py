"""Work done by processes of this machine, each with one thread."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import Self, TypeVar

from coflex.domain.errors import CoflexError

J = TypeVar("J")
R = TypeVar("R")

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalWorkers:
    """`count` processes, started as there is work for them and ended with it; within `with`, kept for the work that
    follows, and ended when it is left.

    No more jobs are handed out than there are processes. So when one dies, killed by the system for its memory, the
    jobs under way are few: each of them is tried once more by itself, and the one that ends its process is known.
    """

    def __init__(self, count: int) -> None:
        """Raises CoflexError when `count` is not positive."""
        if count < 1:
            raise CoflexError("Work needs one process at least.", "Ask for one worker or more.")
        self.count = count
        self._kept = False
        self._pool: ProcessPoolExecutor | None = None
        self._others: set[BaseProcess] = set()

    def __enter__(self) -> Self:
        self._kept = True
        return self

    def __exit__(self, *_: object) -> None:
        self._kept = False
        self._end()

    def run(self, work: Callable[[J], R], jobs: Sequence[J]) -> Iterator[tuple[int, R | CoflexError]]:
        """Yield (position, answer) as jobs end; see the package. Where it is left early, also by an interrupt, its
        processes are ended."""
        waiting, alone = deque(range(len(jobs))), deque[int]()
        while waiting or alone:
            turn = waiting or deque([alone.popleft()])
            lost = yield from self._through(work, jobs, turn)
            if len(lost) == 1:
                yield lost[0], _died()
            else:
                alone.extend(lost)

    def _through(
        self, work: Callable[[J], R], jobs: Sequence[J], waiting: deque[int]
    ) -> Generator[tuple[int, R | CoflexError], None, list[int]]:
        """Work through `waiting`; when a process dies, leave it there and return the jobs that were under way."""
        under_way: dict[Future[R], int] = {}
        ended = False
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self.count:
                    # A process starts when a job finds none idle, with the settings that hold then.
                    with one_thread_each():
                        under_way[self._open().submit(work, jobs[waiting[0]])] = waiting[0]
                    waiting.popleft()
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    answer = _answer(future)
                    yield under_way.pop(future), answer
            ended = True
        except BrokenProcessPool:
            # Of several that ended together some may have an answer.
            for future in [one for one in under_way if one.done() and one.exception() is None]:
                yield under_way.pop(future), future.result()
            return sorted(under_way.values())
        finally:
            if not ended:
                self._end(at_once=True)
            elif not self._kept:
                self._end()
        return []

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._others = set(active_children())
            self._pool = ProcessPoolExecutor(self.count, get_context("spawn"), _deaf)
        return self._pool

    def _end(self, at_once: bool = False) -> None:
        """End the processes: when they have done their work, or now."""
        if self._pool is not None:
            for process in set(active_children()) - self._others if at_once else ():
                process.terminate()
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _answer(future: Future[R]) -> R | CoflexError:
    """What a job gave, or what it raised as one of our errors. Raises BrokenProcessPool when its process died."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except CoflexError as error:
        return error
    except Exception as error:
        return CoflexError(f"This could not be done ({type(error).__name__}: {error}).", "Report it.")


def _died() -> CoflexError:
    return CoflexError(
        "The process that worked on this ended without an answer.",
        "It may have run out of memory; ask for fewer workers, or a smaller case.",
    )


def _deaf() -> None:
    """An interrupt from the keyboard reaches all processes; who gave the work decides what becomes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that begin in here compute with one thread each: matrices this small lose more by waiting for each
    other's threads than they gain, and the processes share the processors already."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
