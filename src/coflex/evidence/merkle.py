"""The Merkle tree of a log: RFC 9162 section 2.1 with SHA-256 (the same tree as RFC 6962).

Leaves are numbered from 0. `CompactRange` grows the tree and keeps its right edge alone: at most 64 hashes.
Proofs are made from stored hashes, which a `Hashes` reader gives: tier 0 holds the hashes of the leaves, tier t the
roots of full subtrees of 256^t leaves, in order, as in the tiles of C2SP tlog-tiles. What lies between two tiers is
hashed anew, so a proof in a log of any size reads and hashes at most 256 hashes a tier and edge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
MAX_SIZE = (1 << 63) - 1
EMPTY_ROOT = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256


class Hashes(Protocol):
    """Reads stored hashes: `count` of them from number `first` of a tier, each 32 bytes, in order.

    Tier t has `size >> 8 t` hashes. A log that keeps its messages need not store tier 0: it can hash 256 messages anew.
    Tiers 1 and up are what `CompactRange.append_many` returns, 32 bytes for every 256 leaves.
    """

    def __call__(self, tier: int, first: int, count: int, /) -> Sequence[bytes]: ...


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf: SHA-256(0x00 || data), RFC 9162 section 2.1.1."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right), RFC 9162 section 2.1.1."""
    return _sha256(b"\x01" + left + right).digest()


class CompactRange:
    """A growing tree that remembers its right edge: the roots of its full subtrees, one for each bit of its size."""

    __slots__ = ("_edge", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._edge: list[bytes] = []
        """Highest subtree first; the last one is the smallest."""

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    def append(self, hashed: bytes) -> None:
        """Add one leaf by its hash; for many, and for the hashes to store, see `append_many`.

        Raises: ValueError for a hash that has not 32 bytes.
        """
        self.append_many((hashed,))

    def append_many(self, hashed: Sequence[bytes]) -> list[list[bytes]]:
        """Add leaves by their hashes, in order; returns the hashes that became final in tiers 1, 2, ...

        Item k of the answer continues tier k + 1, whose next number was `size >> 8 (k + 1)` before the call. The result
        is the same however a sequence of leaves is cut into calls.
        Raises: ValueError for a hash that has not 32 bytes; nothing is added then.
        """
        nodes = list(hashed)
        if nodes and set(map(len, nodes)) != {HASH_BYTES}:
            raise ValueError(f"every leaf hash has {HASH_BYTES} bytes")
        before, self._size = self._size, self._size + len(nodes)
        tiers: list[list[bytes]] = []
        kept: list[bytes] = []
        level = 0
        while nodes:
            if before >> level & 1:
                nodes.insert(0, self._edge.pop())
            if len(nodes) & 1:
                kept.append(nodes.pop())
            level += 1
            pairs = iter(nodes)
            nodes = [_sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            if nodes and level % TILE_HEIGHT == 0:
                tiers.append(nodes[:])
        self._edge.extend(reversed(kept))
        return tiers

    def root(self) -> bytes:
        """Root hash; SHA-256 of nothing for the empty tree."""
        return _folded(self._edge)

    def copy(self) -> CompactRange:
        """The same tree, to grow on its own: a log grows the copy, and takes it over when the leaves are on disk."""
        twin = CompactRange()
        twin._size, twin._edge = self._size, self._edge[:]
        return twin

    def edge(self) -> bytes:
        """Size (8 bytes, big-endian) and the right edge, highest subtree first: all that has to be stored."""
        return self._size.to_bytes(8, "big") + b"".join(self._edge)

    @classmethod
    def load(cls, edge: bytes) -> CompactRange:
        """The tree that `edge` was stored from. Who reads it from a disk compares its root with a signed checkpoint.

        Raises: ValueError where length and size do not agree.
        """
        tree = cls()
        tree._size = int.from_bytes(edge[:8], "big")
        tree._edge = [edge[at : at + HASH_BYTES] for at in range(8, len(edge), HASH_BYTES)]
        if len(edge) != 8 + HASH_BYTES * tree._size.bit_count():
            raise ValueError("these bytes are no stored edge of a tree: its size asks for another number of hashes")
        return tree

    @classmethod
    def read(cls, hashes: Hashes, size: int) -> CompactRange:
        """The tree of the first `size` leaves of a stored log."""
        tree = cls()
        tree._size, tree._edge = size, _peaks(hashes, 0, size)
        return tree


# ---------------------------------------------------------------- proofs made


def inclusion_proof(hashes: Hashes, index: int, size: int) -> list[bytes]:
    """Proof that leaf `index` is in the tree of the first `size` leaves: PATH of RFC 9162 section 2.1.3.1.

    Raises: ValueError for an index outside the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_root(hashes, middle, end))
            end = middle
        else:
            proof.append(_root(hashes, start, middle))
            start = middle
    return proof[::-1]


def consistency_proof(hashes: Hashes, old: int, new: int) -> list[bytes]:
    """Proof that the tree of the first `old` leaves begins that of the first `new`: PROOF of RFC 9162 section 2.1.4.1.

    Empty where `old` is 0 or equals `new`: there is nothing to prove. Raises: ValueError where `old` exceeds `new`.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves has no beginning of {old}")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    start, end = 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_root(hashes, middle, end))
            end = middle
        else:
            proof.append(_root(hashes, start, middle))
            start = middle
    if start:
        proof.append(_root(hashes, start, end))
    return proof[::-1]


# ---------------------------------------------------------------- proofs checked


def verify_inclusion(hashed: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof leads from this leaf hash at `index` to the root at `size`: RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size <= MAX_SIZE or not _hashes([hashed, root, *proof]):
        return False
    node, last, found = index, size - 1, hashed
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree at `new` only adds to the one at `old`: RFC 9162 section 2.1.4.2.

    The empty tree begins every tree, with an empty proof; equal sizes want equal roots and an empty proof.
    """
    if not 0 <= old <= new <= MAX_SIZE or not _hashes([old_root, new_root, *proof]):
        return False
    if old == 0 or old == new:
        expected = EMPTY_ROOT if old == 0 else new_root
        return not proof and old_root == expected and (new > 0 or new_root == EMPTY_ROOT)
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


# ---------------------------------------------------------------- helpers


def _split(width: int) -> int:
    """The largest power of two smaller than the width (RFC 9162 section 2.1.1)."""
    return 1 << (width - 1).bit_length() - 1


def _hashes(given: Iterable[bytes]) -> bool:
    return all(len(one) == HASH_BYTES for one in given)


def _folded(edge: Sequence[bytes]) -> bytes:
    """Root over full subtrees, highest first."""
    if not edge:
        return EMPTY_ROOT
    root = edge[-1]
    for left in edge[-2::-1]:
        root = node_hash(left, root)
    return root


def _root(hashes: Hashes, start: int, end: int) -> bytes:
    """Root of the leaves from `start` to `end`, where `start` is where the RFC splits a tree."""
    return _folded(_peaks(hashes, start, end))


def _peaks(hashes: Hashes, start: int, end: int) -> list[bytes]:
    """Roots of the full subtrees from `start` to `end`, highest first."""
    peaks = []
    while start < end:
        height = (end - start).bit_length() - 1
        peaks.append(_full(hashes, height, start >> height))
        start += 1 << height
    return peaks


def _full(hashes: Hashes, height: int, index: int) -> bytes:
    """Root of the full subtree of 2^height leaves with this number among its equals, from the tier below it."""
    tier, above = divmod(height, TILE_HEIGHT)
    nodes = list(hashes(tier, index << above, 1 << above))
    if len(nodes) != 1 << above or not _hashes(nodes):
        raise ValueError(f"the stored hashes of tier {tier} are not whole from number {index << above}")
    while len(nodes) > 1:
        pairs = iter(nodes)
        nodes = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=True)]
    return nodes[0]
