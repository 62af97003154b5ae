"""A segment of the raw log: messages as they came, each commit ended by the checkpoint that covers it.

    messages ...              as evidence/message.py writes them; their first byte is 1
    0xC0 0x01 length count at the end of a commit: length of the note (uint16), messages of the commit (uint32), time of
    note                      the commit (int64, ms); then the signed checkpoint, UTF-8

The name of a segment is the number of its first leaf. What is behind the last whole commit was never synced and never
acknowledged. A sealed segment has two arrays beside it: where each leaf begins, and the leaves by signer and sequence.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coflex.adapters.measurements.files import put, sync_data, sync_folder, write_at
from coflex.evidence import message
from coflex.evidence.message import HEADER

COMMIT = Struct("<BBHIq")
COMMIT_KIND = 0xC0
_BLOCK = 1 << 14
_KEYS = np.dtype([("key", "<u8"), ("sequence", "<u8"), ("leaf", "<u4")])


class Commit(NamedTuple):
    """A commit as it stands in a segment: its messages and where each begins, its checkpoint, its time in ms, and
    where the next one begins."""

    messages: list[bytes]
    offsets: list[int]
    note: str
    at: int
    end: int


def commits(data: bytes) -> Iterator[Commit]:
    """The whole commits of a segment's bytes, up to the first place that is none."""
    at, size = 0, len(data)
    messages: list[bytes] = []
    offsets: list[int] = []
    while at + COMMIT.size <= size:
        if data[at] == message.FORMAT:
            past = at + message.SMALLEST + data[at + 2] + (data[at + 3] << 8)
            if past > size:
                return
            messages.append(data[at:past])
            offsets.append(at)
        else:
            kind, version, length, count, when = COMMIT.unpack_from(data, at)
            past = at + COMMIT.size + length
            if (kind, version) != (COMMIT_KIND, 1) or count != len(messages) or past > size:
                return
            try:
                note = data[at + COMMIT.size : past].decode()
            except UnicodeDecodeError:
                return
            yield Commit(messages, offsets, note, when, past)
            messages, offsets = [], []
        at = past


def key_of(signer: int, party: bool) -> int:
    """By which a signer's leaves are found."""
    return signer | party << 32


class Segment:
    """One file of the log, open for reading; for writing too until it is sealed.

    `first`: number of its first leaf. Leaves are counted from 0 within the segment.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.first = first
        self.path = folder / f"{first:020d}.log"
        self._file = -1
        self.bytes = 0
        self._offsets: Any = array("I")
        self._keys: Any = array("Q")
        self._sequences: Any = array("Q")
        self._sorted: NDArray[Any] | None = None

    @classmethod
    def create(cls, folder: Path, first: int) -> Segment:
        """A new, empty segment to write to."""
        made = cls(folder, first)
        made._file = os.open(made.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        sync_folder(folder)
        return made

    @classmethod
    def sealed(cls, folder: Path, first: int) -> Segment:
        """A sealed segment, its arrays read from beside it as they are needed."""
        made = cls(folder, first)
        made._file = os.open(made.path, os.O_RDONLY)
        made.bytes = os.fstat(made._file).st_size
        made._offsets = np.load(made.path.with_suffix(".offsets.npy"), mmap_mode="r")
        made._sorted = np.load(made.path.with_suffix(".keys.npy"), mmap_mode="r")
        return made

    @classmethod
    def ended(cls, folder: Path, first: int) -> Segment:
        """A segment that is not written to any more, for `data` alone."""
        made = cls(folder, first)
        made._file = os.open(made.path, os.O_RDONLY)
        made.bytes = os.fstat(made._file).st_size
        return made

    @classmethod
    def resume(cls, folder: Path, first: int) -> Segment:
        """A segment that was not sealed, to be filled with `know` and cut with `cut`."""
        made = cls(folder, first)
        made._file = os.open(made.path, os.O_RDWR)
        return made

    def __len__(self) -> int:
        return len(self._offsets)

    # ---- writing

    def write(self, raws: Sequence[bytes], note: str, at: int) -> None:
        """Add a commit and sync it. Raises OSError; what is on disk is not known then."""
        told = note.encode()
        data = b"".join((*raws, COMMIT.pack(COMMIT_KIND, 1, len(told), len(raws), at), told))
        write_at(self._file, data, self.bytes)
        sync_data(self._file)
        offsets, start = [], self.bytes
        for raw in raws:
            offsets.append(start)
            start += len(raw)
        self.know(raws, offsets, self.bytes + len(data))

    def know(self, raws: Sequence[bytes], offsets: Sequence[int], end: int) -> None:
        """Take note of a commit that is in the file, and where it ends."""
        keys, sequences = array("Q"), array("Q")
        for raw in raws:
            _, kind, _, signer, sequence, _ = HEADER.unpack_from(raw)
            keys.append(key_of(signer, kind in (2, 4)))
            sequences.append(sequence)
        # Sequences last: who reads meanwhile takes as many rows as there are of them.
        self._offsets.extend(offsets)
        self._keys.extend(keys)
        self._sequences.extend(sequences)
        self.bytes = end

    def cut(self) -> int:
        """Take away what follows the last known commit: how many bytes that was."""
        torn = os.fstat(self._file).st_size - self.bytes
        if torn:
            os.ftruncate(self._file, self.bytes)
            os.fsync(self._file)
        return torn

    def seal(self) -> None:
        """Write the arrays beside the file; it is not written to any more. Nothing happens when it was done before."""
        if self._sorted is not None:
            return
        rows = np.empty(len(self._keys), _KEYS)
        rows["key"], rows["sequence"], rows["leaf"] = self._keys, self._sequences, np.arange(len(rows))
        rows = rows[np.lexsort((rows["sequence"], rows["key"]))]
        offsets = np.array(self._offsets, np.uint32)
        put(self.path.with_suffix(".offsets.npy"), lambda file: np.save(file, offsets))
        put(self.path.with_suffix(".keys.npy"), lambda file: np.save(file, rows))
        self._offsets = np.load(self.path.with_suffix(".offsets.npy"), mmap_mode="r")
        self._sorted = np.load(self.path.with_suffix(".keys.npy"), mmap_mode="r")
        self._keys = self._sequences = array("Q")

    def is_sealed(self) -> bool:
        """Whether its arrays are beside it already."""
        return all(self.path.with_suffix(f".{name}.npy").exists() for name in ("offsets", "keys"))

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # ---- reading

    def read(self, leaf: int, count: int) -> list[bytes]:
        """So many messages from a leaf on, as far as there are."""
        count = min(count, len(self._offsets) - leaf)
        if count <= 0:
            return []
        start, last = int(self._offsets[leaf]), int(self._offsets[leaf + count - 1])
        data = os.pread(self._file, last - start + message.SMALLEST + message.MOST_BODY, start)
        told = []
        for i in range(leaf, leaf + count):
            at = int(self._offsets[i]) - start
            told.append(data[at : at + message.SMALLEST + data[at + 2] + (data[at + 3] << 8)])
        return told

    def find(self, key: int, sequence: int) -> int | None:
        """The leaf of a signer's message, None where it is not here."""
        keys, sequences = self._keys, self._sequences  # before the question: sealing empties them after it is true
        rows = self._sorted
        if rows is None:
            # From the end on: what is asked for came a moment ago, as a rule.
            for end in range(len(sequences), 0, -_BLOCK):
                some = slice(max(0, end - _BLOCK), end)
                there = np.flatnonzero((_array(sequences[some]) == sequence) & (_array(keys[some]) == key))
                if len(there):
                    return some.start + int(there[0])
            return None
        # Row by row: a search in one column of a file would read all of it.
        view = rows.view(np.ndarray)
        place = bisect_left(view, (key, sequence, 0), key=lambda row: row.item())
        if place < len(view) and view[place].item()[:2] == (key, sequence):
            return int(view[place]["leaf"])
        return None

    def of(self, keys: Sequence[int]) -> list[int]:
        """The leaves of these signers, ascending."""
        held, rows, wanted = self._keys, self._sorted, np.array(keys, np.uint64)
        if rows is None:
            return list(map(int, np.flatnonzero(np.isin(_array(held), wanted))))
        return sorted(map(int, rows["leaf"][np.isin(rows["key"], wanted)]))

    def data(self) -> bytes:
        """All bytes of the file as far as they are known to be whole."""
        return os.pread(self._file, self.bytes, 0) if self.bytes else b""


def _array(column: Any) -> NDArray[np.uint64]:
    """A copy made in one step: a view would keep the writer from adding to the column meanwhile."""
    return np.frombuffer(column.tobytes(), np.uint64)
