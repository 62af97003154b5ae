"""A file that one process has locked for as long as it has it open: one place that knows how each system does it."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import msvcrt
    import os

    def try_lock(file: int, at: int = 0) -> bool:
        """Lock an open file if nobody has; whether it is locked now. `at`: the byte that stands for the file where a
        locked one cannot be read."""
        os.lseek(file, at, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def try_lock(file: int, at: int = 0) -> bool:
        """Lock an open file if nobody has; whether it is locked now. `at`: the byte that stands for the file where a
        locked one cannot be read."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
