"""The tree: published vectors, the definition of RFC 9162 written down naively, and what no proof may hide."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.evidence import merkle
from coflex.evidence.merkle import (
    CompactRange,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from support.evidence import tiers

# The vectors of Certificate Transparency's own tests: eight leaves, and the root after each.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): INCLUSION[1, 5][1:],
    (6, 7): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
SIZES = range(71)
DATA = [f"leaf {k}".encode() for k in range(1100)]
HASHED = [merkle.leaf_hash(one) for one in DATA]


# ---------------------------------------------------------------- RFC 9162, word for word, slow


def mth(data: Sequence[bytes]) -> bytes:
    """Merkle Tree Hash of a list of entries, section 2.1.1."""
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    k = split(len(data))
    return hashlib.sha256(b"\x01" + mth(data[:k]) + mth(data[k:])).digest()


def path(m: int, data: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D_n), section 2.1.3.1."""
    if len(data) == 1:
        return []
    k = split(len(data))
    return [*path(m, data[:k]), mth(data[k:])] if m < k else [*path(m - k, data[k:]), mth(data[:k])]


def subproof(m: int, data: Sequence[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF(m, D_n, b), section 2.1.4.1."""
    if m == len(data):
        return [] if whole else [mth(data)]
    k = split(len(data))
    if m <= k:
        return [*subproof(m, data[:k], whole), mth(data[k:])]
    return [*subproof(m - k, data[k:], False), mth(data[:k])]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def tree(hashed: Sequence[bytes]) -> CompactRange:
    grown = CompactRange()
    grown.append_many(hashed)
    return grown


# ---------------------------------------------------------------- vectors


@pytest.mark.spec("CERT-01")
def test_published_roots_and_proofs_come_out() -> None:
    hashed = [merkle.leaf_hash(bytes.fromhex(one)) for one in LEAVES]
    grown = CompactRange()
    assert grown.root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for one, root in zip(hashed, ROOTS, strict=True):
        grown.append(one)
        assert grown.root().hex() == root
    for (index, size), proof in INCLUSION.items():
        made = inclusion_proof(tiers(hashed), index, size)
        assert [one.hex() for one in made] == proof
        assert verify_inclusion(hashed[index], index, size, made, bytes.fromhex(ROOTS[size - 1]))
    for (old, new), proof in CONSISTENCY.items():
        made = consistency_proof(tiers(hashed), old, new)
        assert [one.hex() for one in made] == proof
        assert verify_consistency(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), made)


@pytest.mark.spec("CERT-01")
def test_every_size_up_to_seventy_is_as_the_standard_defines_it() -> None:
    roots = [mth(DATA[:size]) for size in SIZES]
    read = tiers(HASHED[: SIZES[-1]])
    for size in SIZES:
        assert tree(HASHED[:size]).root() == roots[size] == CompactRange.read(read, size).root()
        for index in range(size):
            proof = inclusion_proof(read, index, size)
            assert proof == path(index, DATA[:size])
            assert verify_inclusion(HASHED[index], index, size, proof, roots[size])
        for old in range(size + 1):
            proof = consistency_proof(read, old, size)
            assert proof == (subproof(old, DATA[:size], True) if old else [])
            assert verify_consistency(old, size, roots[old], roots[size], proof)


@pytest.mark.spec("CERT-01")
@pytest.mark.parametrize("size", [255, 256, 257, 511, 512, 513, 1024, 1100])
def test_trees_over_several_tiles_are_as_the_standard_defines_them(size: int) -> None:
    read, root = tiers(HASHED[:size]), mth(DATA[:size])
    assert tree(HASHED[:size]).root() == root
    for index in {0, 1, 127, 128, 254, 255, 256, 511, 512, size // 2, size - 2, size - 1} & set(range(size)):
        assert inclusion_proof(read, index, size) == path(index, DATA[:size])
        assert consistency_proof(read, index + 1, size) == subproof(index + 1, DATA[:size], True)


# ---------------------------------------------------------------- growing, storing


@settings(deadline=None)
@given(st.lists(st.integers(0, 400), max_size=8))
def test_a_tree_is_the_same_however_leaves_are_cut_into_calls_and_stored_in_between(cuts: list[int]) -> None:
    bounds = sorted({0, len(HASHED), *(min(one * 3, len(HASHED)) for one in cuts)})
    grown, stored = CompactRange(), [list(HASHED), [], []]
    for start, end in pairwise(bounds):
        for tier, fresh in enumerate(grown.append_many(HASHED[start:end]), 1):
            stored[tier] += fresh
        assert [len(one) for one in stored[1:]] == [end >> 8, end >> 16]
        grown = CompactRange.load(grown.edge())
    assert grown.edge() == tree(HASHED).edge() and grown.size == len(HASHED)
    assert stored[1] == [mth(DATA[k : k + 256]) for k in range(0, 1024, 256)]
    assert (
        CompactRange.read(lambda tier, first, count: stored[tier][first : first + count], 1100).root() == grown.root()
    )


def test_a_copy_grows_on_its_own() -> None:
    grown = tree(HASHED[:5])
    copied = grown.copy()
    copied.append(HASHED[5])
    assert (grown.size, grown.root()) == (5, mth(DATA[:5]))
    assert (copied.size, copied.root()) == (6, mth(DATA[:6]))


def test_what_is_no_hash_and_what_is_no_edge_is_refused() -> None:
    grown = tree(HASHED[:5])
    before = grown.edge()
    with pytest.raises(ValueError, match="32 bytes"):
        grown.append_many([HASHED[5], HASHED[6][:-1]])
    assert grown.edge() == before
    for broken in (b"", before[:-1], before + HASHED[0], b"\0" * 7 + b"\7" + before[8:]):
        with pytest.raises(ValueError, match="no stored edge"):
            CompactRange.load(broken)


def test_stored_hashes_that_are_not_whole_make_no_proof() -> None:
    with pytest.raises(ValueError, match="not whole"):
        inclusion_proof(lambda tier, first, count: HASHED[first : first + count - 1], 0, 8)
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(tiers(HASHED), 8, 8)
    with pytest.raises(ValueError, match="no beginning"):
        consistency_proof(tiers(HASHED), 9, 8)


def test_a_proof_reads_few_hashes_of_a_log_of_any_size() -> None:
    """A log of 14 million leaves: what a proof reads is bounded by its tiers, not its size."""
    size, read = 14_000_000, [0]

    def made_up(tier: int, first: int, count: int, /) -> Sequence[bytes]:
        assert first + count <= size >> 8 * tier
        read[0] += count
        return [hashlib.sha256(b"%d/%d" % (tier, number)).digest() for number in range(first, first + count)]

    inclusion_proof(made_up, 9_876_543, size)
    consistency_proof(made_up, 9_876_543, size)
    assert read[0] <= 2 * 2 * 3 * 256


# ---------------------------------------------------------------- what is refused

sizes = st.integers(1, 70)


@settings(deadline=None)
@given(st.data())
def test_a_proof_for_another_leaf_index_size_or_tree_is_refused(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(tiers(HASHED[:size]), index, size), mth(DATA[:size])
    other_size, other = data.draw(sizes), data.draw(st.integers(0, 70))
    told = (HASHED[other], other, other_size)
    if told != (HASHED[index], index, size):
        assert not verify_inclusion(*told, proof, mth(DATA[:other_size]))
    if other != index:
        assert not verify_inclusion(HASHED[other], index, size, proof, root)
        assert not verify_inclusion(HASHED[index], other, size, proof, root)
    assert not verify_inclusion(HASHED[index], index, size, proof, mth(DATA[1 : size + 1]))
    for wrong in spoiled(proof, data):
        assert not verify_inclusion(HASHED[index], index, size, wrong, root)


@settings(deadline=None)
@given(st.data())
def test_a_changed_consistency_proof_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 70))
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(tiers(HASHED[:new]), old, new)
    roots = mth(DATA[:old]), mth(DATA[:new])
    assert not verify_consistency(old, new, roots[1], roots[0], proof)
    assert not verify_consistency(new, old, roots[1], roots[0], proof)
    for wrong in spoiled(proof, data):
        assert not verify_consistency(old, new, *roots, wrong)
    other = data.draw(st.integers(1, 70))
    if other != old:
        assert not verify_consistency(other, new, mth(DATA[:other]), roots[1], proof)
        assert not verify_consistency(other, new, *roots, proof)
    if other != new:
        assert not verify_consistency(old, other, roots[0], mth(DATA[:other]), proof)


def spoiled(proof: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    """The proof with a hash too many, one short, one changed, two swapped."""
    extra = [[*proof, HASHED[0]], [HASHED[0], *proof], [*proof, b""]]
    if not proof:
        return extra
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    flipped = (int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big")
    swapped = [] if len(proof) == 1 else [[proof[1], proof[0], *proof[2:]]]
    cut = [proof[:at] + proof[at + 1 :], [*proof[:at], proof[at][:-1], *proof[at + 1 :]]]
    return [*extra, *cut, [*proof[:at], flipped, *proof[at + 1 :]], *swapped]


@pytest.mark.spec("CERT-01")
@settings(deadline=None)
@given(st.data())
def test_any_edit_removal_or_reorder_of_the_past_is_seen_by_whoever_kept_a_checkpoint(data: st.DataObject) -> None:
    """The log is rewritten before the size somebody kept, goes on, and proves as well as it can; every proof it can
    make from any of its trees, at any two sizes, is refused."""
    kept = data.draw(st.integers(1, 20))
    past, later = DATA[:kept], DATA[kept : kept + data.draw(st.integers(1, 12))]
    at = data.draw(st.integers(0, kept - 1))
    change = data.draw(st.sampled_from(["edit", "remove", "insert", "swap"]))
    rewritten = {
        "edit": [*past[:at], b"another", *past[at + 1 :]],
        "remove": [*past[:at], *past[at + 1 :]],
        "insert": [*past[:at], b"another", *past[at:]],
        "swap": [*past[: at // 2], past[at], *past[at // 2 + 1 : at], past[at // 2], *past[at + 1 :]],
    }[change]
    now = [*(rewritten if at // 2 != at or change != "swap" else [b"another", *past[1:]]), *later]
    hashed = [merkle.leaf_hash(one) for one in now]
    read, old_root = tiers(hashed), mth(past)
    for size in range(kept, len(now) + 1):
        root = tree(hashed[:size]).root()
        for old in range(1, size + 1):
            assert not verify_consistency(kept, size, old_root, root, consistency_proof(read, old, size))
    # The honest log's own proof does not help it either.
    honest = consistency_proof(tiers(HASHED[: kept + len(later)]), kept, kept + len(later))
    if len(now) == kept + len(later):
        assert not verify_consistency(kept, len(now), old_root, tree(hashed).root(), honest)


def test_the_empty_tree_begins_every_tree_and_only_as_itself() -> None:
    empty, root = mth([]), mth(DATA[:3])
    assert verify_consistency(0, 3, empty, root, []) and verify_consistency(0, 0, empty, empty, [])
    assert not verify_consistency(0, 3, root, root, [])
    assert not verify_consistency(0, 0, empty, root, [])
    assert not verify_consistency(0, 3, empty, root, [root])
    assert not verify_consistency(3, 3, root, empty, [])
    assert not verify_consistency(3, 3, root, root, [root])
    assert not verify_inclusion(HASHED[0], 0, 0, [], empty)
    assert not verify_inclusion(HASHED[0], -1, 1, [], HASHED[0])
    assert not verify_inclusion(HASHED[0], 0, 1 << 64, [HASHED[0]] * 64, root)


def test_an_inner_node_is_no_leaf() -> None:
    """The prefixes of RFC 9162 keep the two apart: two hashes, told to be an entry, are no leaf of the tree above."""
    forged = merkle.leaf_hash(HASHED[0] + HASHED[1])
    assert not verify_inclusion(forged, 0, 1, [], mth(DATA[:2]))


def test_bytes_cannot_be_moved_from_one_hash_to_the_next() -> None:
    """Lengths are checked: the same bytes cut elsewhere would hash to the same node."""
    left, right = HASHED[0], HASHED[1]
    root = mth(DATA[:2])
    assert verify_inclusion(left, 0, 2, [right], root)
    assert not verify_inclusion(left[:-1], 0, 2, [left[-1:] + right], root)
    assert not verify_inclusion(right[1:], 1, 2, [left + right[:1]], root)
    assert not verify_consistency(1, 2, left[:-1], root, [left[-1:] + right])
