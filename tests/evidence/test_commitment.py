"""Commitments: personal data proven field by field, and gone when it is erased."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.evidence import certificate, message
from coflex.evidence.commitment import COMMITMENTS, Opening, check, commit, commitments
from support.evidence import OPENINGS, book, certified

records = st.dictionaries(st.text(max_size=9), st.text(max_size=20), min_size=1, max_size=5)
salts = st.lists(st.binary(min_size=32, max_size=32), min_size=5, max_size=5, unique=True)


def test_a_commitment_is_the_digest_that_the_page_says() -> None:
    told = b"coflex commitment v1\n" + b"s" * 32 + b"\x00\x04" + b"name" + "Zoë".encode()
    assert Opening("name", b"s" * 32, "Zoë").commitment == hashlib.sha256(told).hexdigest()


@settings(deadline=None)
@given(records, salts, st.data())
def test_each_field_opens_alone_and_as_nothing_else(
    record: dict[str, str], drawn: list[bytes], data: st.DataObject
) -> None:
    openings = commit(record, drawn[: len(record)])
    document = {COMMITMENTS: commitments(openings)}
    one = data.draw(st.sampled_from(openings))
    assert check(document, [one], "here") == []
    assert check(document, openings, "here") == []
    for other in (
        Opening(one.name, one.salt, one.value + "x"),
        Opening(one.name + "x", one.salt, one.value),
        Opening(one.name, bytes(reversed(one.salt)), one.value + "\0"),
        *(Opening(one.name, each.salt, each.value) for each in openings if each != one),
    ):
        assert [fault.code for fault in check(document, [other], "here")] == ["wrong_disclosure"]


@settings(deadline=None)
@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_where_a_name_ends_and_a_value_begins_is_no_matter_of_taste(a: str, b: str, c: str, d: str) -> None:
    if (a, b) != (c, d):
        assert Opening(a, bytes(32), b).commitment != Opening(c, bytes(32), d).commitment


def test_salts_are_whole_and_never_shared() -> None:
    record = {"name": "Anna", "iban": "IT60"}
    for drawn in ([], [b"a" * 32], [b"a" * 32] * 2, [b"a" * 31, b"b" * 32], [b"a" * 32, b"b" * 32, b"c" * 32]):
        with pytest.raises(ValueError, match="a salt of its own"):
            commit(record, drawn)
    with pytest.raises(ValueError, match="32 bytes"):
        Opening("name", b"", "Anna").commitment  # noqa: B018  the error is what is asked for
    short = Opening("name", b"", "Anna")
    assert [fault.code for fault in check({COMMITMENTS: {"name": "x"}}, [short], "here")] == ["wrong_disclosure"]
    assert "Anna" not in repr(OPENINGS[0])


def test_nothing_is_committed_to_where_no_document_says_so() -> None:
    one = OPENINGS[0]
    for document in (None, [], {}, {COMMITMENTS: None}, {COMMITMENTS: {one.name: None}}, {"name": one.commitment}):
        assert [fault.code for fault in check(document, [one], "here")] == ["wrong_disclosure"]


@pytest.mark.spec("CERT-01")
def test_the_log_proves_as_before_when_a_persons_data_is_erased() -> None:
    """The log has the hashes alone: without the openings nothing of the person is in it, and all proofs hold."""
    log, given = book(), certified()
    assert certificate.verify(given) == []
    everything = b"".join(log.messages)
    assert b"Anna" not in everything and b"IT60" not in everything
    hidden = [log.record(9)]  # what is left to certify once salts and values are deleted
    erased = certificate.Certificate(
        given.checkpoint, given.log_key, given.log_fingerprint, tuple(hidden), given.signers
    )
    assert certificate.verify(erased) == []
    # Whoever guesses the value cannot confirm it: without the salt the digest is not that of the value.
    document = message.decode_document(message.decode(log.messages[9]).body)
    guess = Opening("name", bytes(32), "Anna Bianchi")
    assert check(document, [guess], "here") and check(document, [OPENINGS[1]], "here") == []
