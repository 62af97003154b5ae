"""The files of one folder, for what is to outlive a power cut: appended to, synced, removed, never changed in place."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """A folder. What `append` wrote is sure once `sync` of the file came back, its name once `sync_names` did."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def append(self, name: str, data: bytes) -> None:
        """Write at the end of the file, which is made when it is not there. Raises OSError."""
        ...

    def sync(self, name: str) -> None: ...

    def sync_names(self) -> None: ...

    def remove(self, name: str) -> None: ...

    def close(self) -> None: ...


class FolderDisk:
    """A folder of the machine. The file last appended to stays open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._name = ""
        self._file = -1

    def names(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._folder) if entry.is_file())

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def append(self, name: str, data: bytes) -> None:
        file, left = self._opened(name), memoryview(data)
        while left:
            left = left[os.write(file, left) :]

    def sync(self, name: str) -> None:
        os.fsync(self._opened(name))

    def sync_names(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self, name: str) -> None:
        if name == self._name:
            self.close()
        with suppress(FileNotFoundError):
            (self._folder / name).unlink()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._name = -1, ""

    def _opened(self, name: str) -> int:
        if name != self._name:
            self.close()
            self._file = os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._name = name
        return self._file


class NoDisk:
    """Files in memory, for devices that are simulated: nothing of it outlives the process."""

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}

    def names(self) -> list[str]:
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        return bytes(self._files[name])

    def append(self, name: str, data: bytes) -> None:
        self._files.setdefault(name, bytearray()).extend(data)

    def sync(self, name: str) -> None:
        """Memory needs none."""

    def sync_names(self) -> None:
        """Memory needs none."""

    def remove(self, name: str) -> None:
        self._files.pop(name, None)

    def close(self) -> None:
        """There is nothing to close."""


class FolderCopy(NoDisk):
    """A folder's files as they are now, in memory: to look at them while a device that runs keeps its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            with suppress(FileNotFoundError):  # removed since
                self.append(path.name, path.read_bytes())
