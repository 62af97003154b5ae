"""A disk in memory that forgets what was not synced when its power is cut, as disks do, and can be copied and full."""

from __future__ import annotations

import errno
import random
from copy import deepcopy
from dataclasses import dataclass, field


@dataclass
class _File:
    synced: bytes = b""
    rest: bytes = b""  # written, not synced
    named: bool = False  # its name is sure


@dataclass
class CutDisk:
    """Implements `coflex.adapters.field.disk.Disk`. `room`: bytes that still fit; None for no end.

    After `cut` every file holds what was synced and any part of the rest, perhaps with zeros for bytes that never
    came; names that were not synced may be gone, and removed ones may be back.
    """

    files: dict[str, _File] = field(default_factory=dict)
    removed: dict[str, _File] = field(default_factory=dict)
    room: int | None = None
    sync_fails: bool = False

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        file = self.files[name]
        return file.synced + file.rest

    def append(self, name: str, data: bytes) -> None:
        file = self.files.setdefault(name, _File())
        if self.room is not None and len(data) > self.room:
            file.rest += data[: self.room]
            self.room = 0
            raise OSError(errno.ENOSPC, "no room")
        if self.room is not None:
            self.room -= len(data)
        file.rest += data

    def sync(self, name: str) -> None:
        if self.sync_fails:
            raise OSError(errno.EIO, "the disk fails")
        file = self.files[name]
        file.synced, file.rest = file.synced + file.rest, b""

    def sync_names(self) -> None:
        for file in self.files.values():
            file.named = True
        self.removed.clear()

    def remove(self, name: str) -> None:
        file = self.files.pop(name, None)
        if file is not None and file.named:
            self.removed[name] = file

    def close(self) -> None:
        """Nothing is open."""

    def copy(self) -> CutDisk:
        return deepcopy(self)

    def cut(self, chance: random.Random) -> None:
        """The power goes and comes back."""
        left = {}
        for name, file in (self.files | {n: f for n, f in self.removed.items() if chance.random() < 0.5}).items():
            if not file.named and chance.random() < 0.5:
                continue
            rest = file.rest[: chance.randint(0, len(file.rest))]
            if chance.random() < 0.3:
                rest += bytes(chance.randint(0, 40))
            left[name] = _File(file.synced + rest, b"", True)
        self.files, self.removed = left, {}
