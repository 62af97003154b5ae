"""One writer a store: the lock on a file beside a SQLite store, and on the session of a PostgreSQL database."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from coflex.domain.errors import CoflexError
from coflex.locks import try_lock

_LOCKED_BYTE = 1 << 30  # on Windows a locked byte cannot be read; the writer's process number stands before it
PAUSE_S = 0.05


class InUse(CoflexError):
    """Another server writes to this store."""

    code = "IN_USE"


class FileLock:
    """The right to write to a SQLite store: a lock of the operating system on a file beside it, gone with the process.

    Raises InUse, naming the other process, when it is not free within `wait_s`.
    """

    def __init__(self, store: Path, wait_s: float) -> None:
        self._file = -1
        try:
            self.path = _path(store)
            locked = within(wait_s, self._take)
        except OSError as fault:
            raise CoflexError(
                f"The store {store} cannot be locked: {fault.strerror}.", "Check the place and its rights."
            ) from fault
        if not locked:
            raise InUse(
                f"The store {store} is in use by another server (process {holder(store)}).",
                "Let one server write to a store: stop the other one, or give this one a store of its own.",
            )

    def release(self) -> None:
        """Let go; the file goes first, while nobody else can hold it."""
        if self._file >= 0:
            if sys.platform != "win32":
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def _take(self) -> bool:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            if not try_lock(file, _LOCKED_BYTE) or not self._is_there(file):
                os.close(file)
                return False
            with suppress(OSError):  # on a full disk the lock holds without the number
                os.ftruncate(file, 0)
                os.write(file, b"%d\n" % os.getpid())
        except BaseException:
            os.close(file)
            raise
        self._file = file
        _HELD.add(self)
        return True

    def _forget(self) -> None:
        """In a forked child: the lock stays with its parent, and ends with it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _is_there(self, file: int) -> bool:
        """Whether the locked file is still the one at the path: who had it may have taken it away."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False


_HELD: WeakSet[FileLock] = WeakSet()


def _forget_all() -> None:
    for lock in list(_HELD):
        lock._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _path(store: Path) -> Path:
    """One lock for a file, whichever links lead to it."""
    real = store.resolve()
    return real.with_name(real.name + ".lock")


def holder(store: Path) -> str:
    """The process that holds the lock of a store, as it wrote it itself."""
    try:
        return _path(store).read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def in_use(store: Path) -> bool:
    """Whether a process holds the lock of a store; nothing is left behind by the question."""
    if not _path(store).exists():
        return False
    try:
        FileLock(store, 0).release()
    except CoflexError:
        return True
    return False


@contextmanager
def locked(store: Path, wait_s: float) -> Iterator[None]:
    """Hold the right to write to a SQLite store."""
    lock = FileLock(store, wait_s)
    try:
        yield
    finally:
        lock.release()


def within(seconds: float, act: Callable[[], bool]) -> bool:
    """Try again until it is true or the time is over."""
    deadline = time.monotonic() + seconds
    while not act():
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE_S)
    return True
