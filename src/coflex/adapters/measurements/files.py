"""Files that survive: written beside, synced and put in place at once; and the lock that lets one process write."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from coflex.domain.errors import CoflexError
from coflex.locks import try_lock

# The data and the file's size; not the time of change, which nobody reads here.
sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class InUse(CoflexError):
    """Another process writes to this folder."""

    code = "IN_USE"


class Lock:
    """The right to write to a folder, gone with the process. Raises InUse when another one has it."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        if not try_lock(self._file):
            os.close(self._file)
            raise InUse(
                f"Another ingest writes to {folder}.", "Stop it, or give this one a folder of its own with --data."
            )

    def release(self) -> None:
        os.close(self._file)


def write_at(file: int, data: bytes, place: int) -> None:
    """Write all of it at a place of an open file: the system may take less at a time. Raises OSError."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, place)
        view, place = view[done:], place + done


def put(path: Path, write: Callable[[BinaryIO], None], mode: int = 0o644) -> None:
    """Write a file whole or not at all, and sync it; also beside another process that writes the same."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Take away what `put` had begun before a kill. For the one process that writes to the folder."""
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if sys.platform == "win32":
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
