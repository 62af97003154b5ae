"""What a disk may hold after its power was cut, from the calls that a process made of it.

Synced bytes are there. Of everything written since, each write may be there, or not, or in part; a file that was made
or taken away is so for sure once its folder was synced. That is what a disk promises, and all that it promises.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Options of strace that write down what `calls` reads.
TRACE = ["-y", "-xx", "-s", "1000000", "-e", "trace=pwrite64,fdatasync,fsync,ftruncate,unlink,write"]

_CALL = re.compile(
    r'^(?P<name>\w+)\((?:\d+<(?P<path>[^>]*)>|"(?P<named>[^"]*)")'
    r'(?:, "(?P<data>[^"]*)", \d+)?(?:, (?P<at>\d+))?\)\s+= (?P<result>-?\d+)',
    re.M,
)


@dataclass(frozen=True)
class Call:
    """A call that went well. `at`: the position of a write, or the size of a truncation."""

    name: str
    path: str
    data: bytes
    at: int


def calls(log: str) -> Iterator[Call]:
    """The calls in a log of strace, in order."""
    for found in _CALL.finditer(log):
        if int(found["result"]) >= 0:
            path = _bytes(found["path"] or found["named"] or "").decode()
            yield Call(found["name"], path, _bytes(found["data"] or ""), int(found["at"] or 0))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class _File:
    synced: bytes = b""
    pending: list[Call] = field(default_factory=list)
    made: bool = True  # for sure
    gone: bool = False  # taken away, not for sure


class Disk:
    """The files of a folder, as they are on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._files = {str(path): _File(path.read_bytes()) for path in folder.iterdir()}

    def take(self, call: Call) -> None:
        """Let a call happen."""
        if call.path == self._folder:
            for path, file in list(self._files.items()):
                file.made = True
                if file.gone:
                    del self._files[path]
            return
        if not call.path.startswith(self._folder):
            return
        file = self._files.setdefault(call.path, _File(made=False))
        if call.name in ("pwrite64", "ftruncate"):
            file.gone = False
            file.pending.append(call)
        elif call.name == "unlink":
            file.gone = True
        else:
            file.synced, file.pending = _after(file.synced, file.pending), []

    def after_a_cut(self, chance: random.Random | None) -> dict[str, bytes]:
        """Names and contents after a cut now: nothing of what was not synced without `chance`, else any part of it."""
        left = {}
        for path, file in self._files.items():
            name = path.removeprefix(self._folder).lstrip("/")
            if name.endswith("-shm"):  # memory that processes share
                continue
            if chance is None:
                if file.made:
                    left[name] = file.synced
            elif (file.made or chance.random() < 0.5) and not (file.gone and chance.random() < 0.5):
                left[name] = _after(file.synced, _some(file.pending, chance))
        return left


def _some(pending: list[Call], chance: random.Random) -> list[Call]:
    share = chance.choice((0.0, 0.5, 0.9, 1.0))
    some = [call for call in pending if chance.random() < share]
    if some and chance.random() < 0.5:
        torn = some[-1]
        some[-1] = Call(torn.name, torn.path, torn.data[: chance.randrange(len(torn.data) + 1)], torn.at)
    return some


def _after(content: bytes, done: list[Call]) -> bytes:
    held = bytearray(content)
    for call in done:
        end = call.at + len(call.data)
        if call.name == "ftruncate":
            held = held[: call.at].ljust(call.at, b"\0")
        elif call.data:
            held = held.ljust(end, b"\0")
            held[call.at : end] = call.data
    return bytes(held)
