"""The raw log on disk: segments, the Merkle tree over their messages, signed checkpoints, and proofs.

A commit is one write and one sync: the messages, and behind them the signed checkpoint that covers them. Nobody is
answered before. After a kill the log is read from the last kept state on: what follows the last whole commit is cut
off, the tree is computed anew and must have the root of every checkpoint on the way.

    raw/N.log                   segments, see segment.py; N is the number of the first leaf
    raw/N.offsets.npy, .keys.npy  of a sealed segment
    tree/1, tree/2, ...         roots of full subtrees of 256, 65 536, ... leaves, 32 bytes each; made anew if lost
    state/N.npz                 what admission knew at size N, where a segment begins, and the tree's right edge
    checkpoint                  the last note, for whoever looks into the folder; it may be a moment behind
    cosigned                    the newest one that all witnesses cosigned, see cosigning.py
    log.key                     the log's secret key, readable by its owner alone
"""

from __future__ import annotations

import os
import secrets
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coflex.adapters.measurements.files import Lock, put, sweep, sync_folder, write_at
from coflex.adapters.measurements.segment import Segment, commits, key_of
from coflex.domain.errors import CoflexError, Refused
from coflex.evidence.checkpoint import Checkpoint, NoteKey, NoteSigner, parse_note, sign_note, verify_note
from coflex.evidence.merkle import HASH_BYTES, TILE_WIDTH, CompactRange, consistency_proof, inclusion_proof, leaf_hash

SEGMENT_BYTES = 64 << 20
KEPT_STATES = 2
CHECKPOINT, COSIGNED = "checkpoint", "cosigned"
Columns = Mapping[str, NDArray[Any]]


class LogBroken(CoflexError):
    """The log on disk is not as it was acknowledged, or can be written no more."""

    code = "STORE_BROKEN"


class Log:
    """An open log; one process writes to it, and one thread of that.

    `origin`: its name in checkpoints. `segment_bytes`: a segment is ended when it has so many. Raises InUse, LogBroken,
    and Refused for a key that is none. `recover` is to be called before anything else.
    """

    def __init__(self, folder: Path, origin: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        for name in ("raw", "tree", "state"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.origin = folder, origin
        self._lock = Lock(folder)
        try:
            for name in ("raw", "state"):
                sweep(folder / name)
            self.signer = _signer(folder / "log.key", origin)
        except BaseException:
            self._lock.release()
            raise
        self._segment_bytes = segment_bytes
        self._tree = CompactRange()
        self._tiers: list[int] = []
        self._segments: list[Segment] = []
        self._firsts: list[int] = []
        self._guard = threading.Lock()
        self.note = ""
        self.torn = 0
        """Bytes that the last recovery cut off: of messages that nobody was answered about."""

    @property
    def size(self) -> int:
        """Leaves that are durable and covered by `note`."""
        return self._tree.size

    @property
    def key(self) -> NoteKey:
        return self.signer.key

    # ---------------------------------------------------------------- recovery

    def recover(self, restore: Callable[[Columns], None], replay: Callable[[Sequence[bytes], int], None]) -> None:
        """Bring the log to its last whole commit. `restore` gets the last kept state, where there is one; `replay`
        the messages of each commit after it and its time in ms. Raises LogBroken."""
        firsts = sorted(int(path.stem) for path in (self.folder / "raw").glob("*.log"))
        size = self._kept(firsts, restore)
        old = [first for first in firsts if first < size]
        if lost := min([*old, size]):
            raise LogBroken(f"Leaves 0 to {lost} of the log are gone.", "Bring the log back.")
        for first, end in pairwise([*old, size]):
            self._add(self._old(first, end))
        self._open_tiers()
        for first in firsts[len(old) :]:
            self._add(self._read(first, first == firsts[-1], replay))
        if len(old) == len(firsts):
            self._begin()
        self._compare()
        self.torn = self._segments[-1].cut()

    def _kept(self, firsts: Sequence[int], restore: Callable[[Columns], None]) -> int:
        """The newest kept state that can be read and that a segment begins at, or the beginning."""
        for path in sorted((self.folder / "state").glob("*.npz"), reverse=True):
            size = int(path.stem)
            try:
                with np.load(path, allow_pickle=False) as columns:
                    held = {name: columns[name] for name in columns.files}
                edge, note = held.pop("edge").tobytes(), held.pop("note").tobytes().decode()
                tree = CompactRange.load(edge)
            except Exception:  # damaged bytes of a compressed file fail in many ways
                continue
            if tree.size != size or not (size in firsts or all(first < size for first in firsts)):
                continue
            self._tree, self.note = tree, note
            self._check_note(note, path)
            restore(held)
            return size
        return 0

    def _add(self, segment: Segment) -> None:
        with self._guard:
            self._segments.append(segment)
            self._firsts.append(segment.first)

    def _old(self, first: int, end: int) -> Segment:
        """A segment below the kept state, with leaves up to `end`; its arrays are made anew where they are missing."""
        segment = Segment(self.folder / "raw", first)
        if segment.is_sealed():
            segment = Segment.sealed(self.folder / "raw", first)
        else:
            segment = Segment.resume(self.folder / "raw", first)
            for one in commits(segment.path.read_bytes()):
                segment.know(one.messages, one.offsets, one.end)
            if first + len(segment) == end:
                segment.seal()
        if first + len(segment) != end:
            raise LogBroken(
                f"{segment.path} has {len(segment)} of the {end - first} leaves up to the next segment.",
                "Bring the log back from a copy.",
            )
        return segment

    def _read(self, first: int, last: bool, replay: Callable[[Sequence[bytes], int], None]) -> Segment:
        segment = Segment.resume(self.folder / "raw", first)
        if first != self._tree.size:
            raise LogBroken(f"Leaves {self._tree.size} to {first} of the log are gone.", "Bring the log back.")
        every = list(commits(segment.path.read_bytes()))
        for number, one in enumerate(every):
            tree = self._tree.copy()
            tiers = tree.append_many(list(map(leaf_hash, one.messages)))
            if not self._is_of(one.note, tree):
                if last and not any(self._is_ours(later.note) for later in every[number + 1 :]):
                    break  # as a power cut leaves the last commit, of which some pages were written and others not
                raise LogBroken(
                    f"{segment.path} does not have the root of its checkpoint behind leaf {self._tree.size}: it was "
                    "changed or damaged.",
                    "Bring the log back from a copy, and compare checkpoints with a witness.",
                )
            self._store(tiers)
            self._tree, self.note = tree, one.note
            segment.know(one.messages, one.offsets, one.end)
            replay(one.messages, one.at)
        if not last and segment.path.stat().st_size > segment.bytes:
            raise LogBroken(f"{segment.path} is damaged behind byte {segment.bytes}.", "Bring it back from a copy.")
        return segment

    def _is_of(self, note: str, tree: CompactRange) -> bool:
        try:
            told = parse_note(note).checkpoint
        except Refused:
            return False
        return (told.origin, told.size, told.root) == (self.origin, tree.size, tree.root())

    def _is_ours(self, note: str) -> bool:
        try:
            return verify_note(parse_note(note), self.key)
        except Refused:
            return False

    def _check_note(self, note: str, path: Path) -> None:
        """The last note is ours, and of this tree."""
        if not (self._is_ours(note) and self._is_of(note, self._tree)):
            raise LogBroken(f"The checkpoint of {path} is not of this log.", "Bring log and key back together.")

    def _compare(self) -> None:
        """With the checkpoints written beside the log: they may be older, never newer, nor of another tree."""
        if not self.note:
            self._sign(self._tree)
        self._check_note(self.note, self.folder)
        for name in (CHECKPOINT, COSIGNED):
            try:
                told = parse_note((self.folder / name).read_bytes()).checkpoint
            except (OSError, Refused):  # the first is not synced: a power cut may have left none, or half of one
                continue
            if told.size > self.size:
                raise LogBroken(
                    f"The log ends at size {self.size}, and a checkpoint of size {told.size} was acknowledged.",
                    "Bring the log back from a copy; what is missing was certified.",
                )
            if told.root != self._root(told.size):
                raise LogBroken(
                    f"The log does not have the root of {self.folder / name} at size {told.size}: it is another one.",
                    "Bring the log back from a copy, and compare checkpoints with a witness.",
                )

    def _root(self, size: int) -> bytes:
        """Of the tree of the first leaves; empty where the stored hashes are not whole."""
        try:
            return CompactRange.read(self.hashes, size).root()
        except ValueError:
            return b""

    # ---------------------------------------------------------------- writing

    def append(self, raws: Sequence[bytes], leaves: Sequence[bytes], at: int) -> int:
        """Add messages, by their bytes and leaf hashes, in one durable commit at time `at`, ms; the first one's number.

        Raises LogBroken when the disk fails; nothing may be appended then any more.
        """
        tree, first = self._tree.copy(), self._tree.size
        tiers = tree.append_many(leaves)
        note = sign_note(Checkpoint(self.origin, tree.size, tree.root()), self.signer)
        try:
            self._segments[-1].write(raws, note, at)
            self._store(tiers)
            self._tell(note)
        except OSError as fault:
            raise LogBroken(
                f"The log cannot be written: {fault.strerror}.", "Make room or repair the disk, then start again."
            ) from fault
        self._tree, self.note = tree, note
        return first

    @property
    def full(self) -> bool:
        """Whether the segment should be ended."""
        return self._segments[-1].bytes >= self._segment_bytes

    def roll(self) -> tuple[Segment, dict[str, NDArray[Any]]]:
        """End the segment and begin the next one: the ended one, and what a kept state says of the tree."""
        ended = self._segments[-1]
        self._begin()
        edge = np.frombuffer(self._tree.edge(), np.uint8)
        return ended, {"edge": edge, "note": np.frombuffer(self.note.encode(), np.uint8)}

    def keep(self, ended: Segment, state: Columns) -> None:
        """Seal an ended segment and keep the state that was there at its end; may run beside the writer."""
        ended.seal()
        for number in range(1, len(self._tiers) + 1):
            with self._tier(number).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(self.folder / "tree")
        folder = self.folder / "state"
        put(folder / f"{ended.first + len(ended):020d}.npz", lambda file: np.savez(file, **state))  # type: ignore[arg-type]
        for old in sorted(folder.glob("*.npz"))[:-KEPT_STATES]:
            old.unlink()

    def unsealed(self) -> list[Segment]:
        """Ended segments that are not sealed, oldest first: after a kill."""
        return [one for one in self._segments[:-1] if not one.is_sealed()]

    def sealed(self) -> list[Segment]:
        """All ended segments, oldest first."""
        return self._segments[:-1]

    def close(self) -> None:
        for segment in self._segments:
            segment.close()
        for file in self._tiers:
            os.close(file)
        self._lock.release()

    def _begin(self) -> None:
        self._add(Segment.create(self.folder / "raw", self.size))

    def _sign(self, tree: CompactRange) -> None:
        self.note = sign_note(Checkpoint(self.origin, tree.size, tree.root()), self.signer)

    def _tell(self, note: str) -> None:
        """Beside the log, not synced: by then the log itself is."""
        beside = self.folder / f"{CHECKPOINT}.part"
        beside.write_text(note, encoding="utf-8")
        os.replace(beside, self.folder / CHECKPOINT)

    # ---------------------------------------------------------------- the tree's hashes

    def _tier(self, number: int) -> Path:
        return self.folder / "tree" / str(number)

    def _open_tiers(self) -> None:
        """Keep of the stored hashes what is certain at this size; what is missing of it is computed anew."""
        number = 1
        while self._tier(number).exists() or self.size >> 8 * number:
            certain = self.size >> 8 * number
            self._tiers.append(os.open(self._tier(number), os.O_RDWR | os.O_CREAT, 0o644))
            there = min(os.fstat(self._tiers[-1]).st_size // HASH_BYTES, certain)
            os.ftruncate(self._tiers[-1], there * HASH_BYTES)
            for at in range(there, certain):
                tree = CompactRange()
                tree.append_many(self.hashes(number - 1, at * TILE_WIDTH, TILE_WIDTH))
                write_at(self._tiers[-1], tree.root(), at * HASH_BYTES)
            number += 1
        if self._root(self.size) != self._tree.root():
            raise LogBroken(
                f"The hashes in {self.folder / 'tree'} or the segments are not those of the kept state.",
                "Move that folder away: it is made anew; if that does not help, bring the log back from a copy.",
            )

    def _store(self, tiers: Sequence[Sequence[bytes]]) -> None:
        """Add what became final with leaves that `size` does not count yet."""
        for number, nodes in enumerate(tiers, start=1):
            if number > len(self._tiers):
                self._tiers.append(os.open(self._tier(number), os.O_RDWR | os.O_CREAT, 0o644))
            write_at(self._tiers[number - 1], b"".join(nodes), (self.size >> 8 * number) * HASH_BYTES)

    def hashes(self, tier: int, first: int, count: int) -> list[bytes]:
        """Stored hashes, as `evidence.merkle` reads them; those of the leaves are computed from the messages."""
        if not tier:
            return list(map(leaf_hash, self.read(first, count)))
        data = os.pread(self._tiers[tier - 1], count * HASH_BYTES, first * HASH_BYTES)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    # ---------------------------------------------------------------- reading

    def read(self, first: int, count: int) -> list[bytes]:
        """So many messages from a leaf on, as far as there are."""
        told: list[bytes] = []
        with self._guard:
            place = bisect_right(self._firsts, first) - 1
            segments = self._segments[place:] if place >= 0 else []
        for segment in segments:
            if len(told) >= count:
                break
            told += segment.read(first + len(told) - segment.first, count - len(told))
        return told

    def find(self, signer: int, sequence: int, party: bool = False, until: float = inf) -> int | None:
        """The number of a signer's message, None where it is not in the log. The newest segments are asked first;
        raises TimeoutError when `until` (as `perf_counter` tells) comes before it is found."""
        with self._guard:
            segments = self._segments[::-1]
        for segment in segments:
            if perf_counter() > until:
                raise TimeoutError
            leaf = segment.find(key_of(signer, party), sequence)
            if leaf is not None:
                return segment.first + leaf
        return None

    def since(self, first: int) -> list[Segment]:
        """The segments that hold leaves from a number on."""
        with self._guard:
            return [one for one in self._segments if one.first + len(one) > first]

    def inclusion(self, leaf: int, size: int) -> list[bytes]:
        """Proof that a leaf is in the log at a size. Raises ValueError where it is not."""
        return inclusion_proof(self.hashes, leaf, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Proof that the log at `new` begins with the log at `old`. Raises ValueError where it does not."""
        return consistency_proof(self.hashes, old, new)


def _signer(path: Path, origin: str) -> NoteSigner:
    """The log's key, made at the first start. Raises Refused where the file holds none, LogBroken if another log's."""
    if not path.exists():
        made = NoteSigner(origin, secrets.token_bytes(32))
        NoteKey.parse(str(made.key))  # a name that cannot stand in a note is refused before anything is written
        put(path, lambda file: _write(file, made.secret.encode() + b"\n"), 0o600)
        with suppress(PermissionError):  # the name of a new folder; it may stand in one that is not to be read
            sync_folder(path.parent.parent)
    held = NoteSigner.parse(path.read_text(encoding="utf-8").strip())
    if held.name != origin:
        raise LogBroken(f"This folder is of the log {held.name}, not of {origin}.", "Give the log's own --origin.")
    public = path.with_suffix(".pub")
    if not public.exists():
        put(public, lambda file: _write(file, f"{held.key}\n".encode()))
    return held


def _write(file: Any, data: bytes) -> None:
    file.write(data)
