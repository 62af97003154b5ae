"""Certificates: what holds, and every single thing that must not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.evidence import certificate, checkpoint, keys, merkle, message
from coflex.evidence.certificate import Certificate, Trust, cosigned, encode, parse, tlog_proof, verify
from support import evidence
from support.evidence import (
    AT,
    DEVICE,
    LOG,
    ORIGIN,
    POINT,
    SINCE,
    UNTIL,
    WITNESSES,
    Book,
    book,
    certified,
    measured,
    vouched,
    written,
)

TRUST = Trust(LOG.key.public, tuple(one.key for one in WITNESSES[:2]), None, (book().note(4), book().note()))


def codes(given: Certificate, trust: Trust = TRUST) -> list[str]:
    found = verify(given, trust)
    assert all(one.place and ("; " in one.message or one.message.endswith(".")) for one in found)
    assert found == sorted(found)
    return [one.code for one in found]


def of(log: Book, *indices: int, signers: tuple[str, ...] | None = None) -> Certificate:
    """Records of a log, with nothing else."""
    told = vouched() if signers is None else signers
    return certificate.certificate(log.note(), LOG.key, told, map(log.record, indices))


# ---------------------------------------------------------------- what holds


@pytest.mark.spec("CERT-01")
def test_a_certificate_holds_against_the_public_key_alone_and_survives_its_file() -> None:
    given = certified(kept=(4,))
    assert codes(given) == [] and codes(given, Trust()) == [] and codes(given, Trust(LOG.key.public)) == []
    assert parse(encode(given)) == [given]
    body = json.loads(encode(given))
    assert body["format"] == "coflex certificate v1" and body["log_fingerprint"] == LOG.key.fingerprint
    assert {one["fingerprint"] for one in body["signers"]} == {
        keys.fingerprint(DEVICE.public),
        keys.fingerprint(evidence.PLATFORM.public),
    }
    when = datetime.fromtimestamp(AT // 1000 + 7, UTC)
    assert cosigned(given) == cosigned(given, TRUST) == {one.name: when for one in WITNESSES[:2]}


def test_several_certificates_are_read_from_one_file() -> None:
    first, second = certified(), of(book(), 3)
    together = b"[" + encode(first) + b"," + encode(second) + b"]"
    lines = b"".join(msgspec.json.encode({**msgspec.to_builtins(one)}) + b"\n" for one in (first, second))
    assert parse(together) == parse(lines) == [first, second]


def test_a_record_is_also_a_proof_that_the_tools_of_others_read() -> None:
    given = certified()
    told = tlog_proof(given, given.records[1])
    head, _, note = told.partition("\n\n")
    title, index, *proof = head.split("\n")
    assert (title, index, note) == ("c2sp.org/tlog-proof@v1", "index 8", given.checkpoint)
    assert [json.loads(msgspec.json.encode(one)) for one in given.records[1].proof] == proof


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 13), st.data())
def test_any_record_at_any_size_holds_and_goes_on_from_any_kept_checkpoint(
    index: int, kept: int, data: st.DataObject
) -> None:
    log = book()
    size = data.draw(st.integers(index + 1, 13))
    now = Book(log.messages[:size])
    proofs = certificate.consistency(log.hashes, [kept], size)
    given = certificate.certificate(now.note(), LOG.key, vouched(), [now.record(index)], (), proofs)
    assert codes(given, Trust(LOG.key.public, kept=(log.note(kept), log.note(0)))) == []


# ---------------------------------------------------------------- what does not


def test_a_record_of_another_tree_place_or_message_is_refused() -> None:
    given, other = certified(), Book([measured(1), *book().messages])
    first = given.records[0]
    for record in (
        other.record(0),
        other.record(1),
        msgspec.structs.replace(first, index=1),
        msgspec.structs.replace(first, index=-1),
        msgspec.structs.replace(first, index=1 << 70),
        msgspec.structs.replace(first, proof=first.proof[1:]),
        msgspec.structs.replace(first, proof=[]),
        msgspec.structs.replace(first, message=book().messages[1]),
    ):
        assert codes(change(given, records=(record,)), Trust()) == ["not_in_log"]


# What follows where the log of the file is not the one that vouches for its signers.
FORSAKEN = ["bad_signer"] * 2 + ["unknown_signer"] * 3
SPOILED: dict[str, tuple[Callable[[Certificate], Certificate], list[str]]] = {
    "another root": (lambda c: with_note(c, lambda point: replace(point, root=bytes(32))), ["not_in_log"] * 3),
    "another size": (lambda c: with_note(c, lambda point: replace(point, size=99)), ["not_in_log"] * 3),
    "a note of another log": (
        lambda c: with_note(c, lambda point: replace(point, origin="coflex/milan/measurements")),
        ["wrong_log_signature"],
    ),
    "an unsigned change": (
        lambda c: change(c, checkpoint=c.checkpoint.replace("\n13\n", "\n14\n")),
        ["wrong_cosignature"] * 2 + ["wrong_log_signature"],
    ),
    "another log's key": (
        lambda c: change(c, log_key=str(replace(LOG, seed=bytes(32)).key), log_fingerprint=print_of(bytes(32))),
        ["wrong_log_signature", *FORSAKEN],
    ),
    "a witness's key as the log's": (
        lambda c: change(c, log_key=str(WITNESSES[0].key), log_fingerprint=WITNESSES[0].key.fingerprint),
        ["wrong_log_signature", *FORSAKEN],
    ),
    "a fingerprint": (lambda c: change(c, log_fingerprint="00" * 32), ["wrong_fingerprint"]),
    "a signer's fingerprint": (
        lambda c: change(c, signers=(msgspec.structs.replace(c.signers[0], fingerprint="00"), c.signers[1])),
        ["wrong_fingerprint", *["unknown_signer"] * 2],
    ),
    "no signers": (lambda c: change(c, signers=()), ["unknown_signer"] * 3),
    "a signer whom another vouches for": (
        lambda c: signed_by(c, vouched(log=replace(LOG, seed=bytes(32)))),
        FORSAKEN,
    ),
    "a signer of another log": (
        lambda c: signed_by(c, vouched(log=replace(LOG, name="coflex/milan/measurements"))),
        FORSAKEN,
    ),
    "a signer that this log vouches for in another": (
        lambda c: signed_by(c, (certificate.signer_note("coflex/milan/measurements", elsewhere(), LOG), *vouched())),
        ["bad_signer"],
    ),
    "a checkpoint as a signer": (
        lambda c: change(c, signers=(certificate.Signer(c.checkpoint, "00"), *c.signers)),
        ["bad_signer"],
    ),
    "a key valid later": (lambda c: signed_by(c, vouched(starts=UNTIL)), ["key_not_valid"] * 3),
    "a key valid before": (lambda c: signed_by(c, vouched(ends=SINCE + timedelta(1))), ["key_not_valid"] * 3),
    "a witness that did not sign": (
        lambda c: change(c, witness_keys=(*c.witness_keys, str(WITNESSES[2].key))),
        ["wrong_cosignature"],
    ),
    "a witness's key that is none": (lambda c: change(c, witness_keys=("me",)), ["bad_key"]),
    "a record twice": (lambda c: change(c, records=(*c.records, c.records[0])), ["same_record"]),
    "no record": (lambda c: change(c, records=()), ["no_record"]),
    "another value disclosed": (lambda c: disclosing(c, "name", b"b" * 32, "Anna"), ["wrong_disclosure"]),
    "a field that the document has not": (lambda c: disclosing(c, "age", b"b" * 32, "7"), ["wrong_disclosure"]),
    "a name that no field has": (lambda c: disclosing(c, "n" * 70_000, b"b" * 32, "Anna"), ["wrong_disclosure"]),
    "a short salt": (lambda c: disclosing(c, "name", b"", "Anna Bianchi"), ["wrong_disclosure"]),
    "a key that is none": (lambda c: change(c, log_key="me"), ["bad_key"]),
    "a note that is none": (lambda c: change(c, checkpoint="me"), ["bad_note"]),
    "a note that is no checkpoint": (lambda c: change(c, checkpoint=vouched()[0]), ["bad_checkpoint"]),
}


def change(given: Certificate, **fields: object) -> Certificate:
    return msgspec.structs.replace(given, **fields)


def with_note(given: Certificate, changed: Callable[[checkpoint.Checkpoint], checkpoint.Checkpoint]) -> Certificate:
    """The certificate with another checkpoint, signed by the log and without witnesses."""
    point = changed(checkpoint.parse_note(given.checkpoint).checkpoint)
    return change(given, checkpoint=checkpoint.sign_note(point, LOG), witness_keys=())


def signed_by(given: Certificate, notes: tuple[str, ...]) -> Certificate:
    told = (certificate.Signer(note, keys.fingerprint(certificate.parse_signer(note).public)) for note in notes)
    return change(given, signers=tuple(told))


def elsewhere() -> certificate.SignerKey:
    return certificate.SignerKey(certificate.POINT, POINT, DEVICE.public, SINCE)


def disclosing(given: Certificate, name: str, salt: bytes, value: str) -> Certificate:
    shown = msgspec.structs.replace(given.records[2], disclosed=(certificate.Disclosed(name, salt, value),))
    return change(given, records=(*given.records[:2], shown))


def print_of(seed: bytes) -> str:
    return keys.fingerprint(keys.public_of(seed))


@pytest.mark.spec("CERT-01")
@pytest.mark.parametrize("what", SPOILED)
def test_whatever_is_changed_is_found_and_named(what: str) -> None:
    spoil, expected = SPOILED[what]
    found = codes(spoil(certified()), Trust())
    assert sorted(found) == sorted(expected)


def test_the_file_with_any_one_thing_left_out_or_changed_holds_no_more() -> None:
    """Every text, number and list entry of the file, changed one by one: nothing of it is idle."""
    given = certified(kept=(4,))
    changed = 0
    for spoiled in each_changed(json.loads(encode(given))):
        changed += 1
        try:
            found = codes(parse(json.dumps(spoiled).encode())[0])
        except Refused as error:
            found = [one.code for one in error.findings]
        assert found, spoiled
    assert changed > 30


def each_changed(value: object) -> list[object]:
    if isinstance(value, dict):
        return [{**value, key: one} for key in value for one in each_changed(value[key])]
    if isinstance(value, list):
        return [[*value[:k], one, *value[k + 1 :]] for k in range(len(value)) for one in each_changed(value[k])]
    if isinstance(value, int):
        return [value + 1]
    middle = len(str(value)) // 2
    letter = str(value)[middle]
    return [str(value)[:middle] + ("B" if letter == "A" else "A") + str(value)[middle + 1 :]]


def test_a_message_that_its_signer_did_not_sign_is_refused_though_it_stands_in_the_log() -> None:
    stranger = keys.Signer(bytes([9]) * 32)
    forged = measured(1, stranger)
    replayed = message.decode(measured(2))
    moved = replace(replayed, sequence=3).encode()
    foreign = measured(4, DEVICE, POINT + 1)
    # The platform's key does not sign for points, even where their numbers agree.
    crossed = measured(5, evidence.PLATFORM, evidence.PARTY)
    log = Book([forged, moved, foreign, crossed, b"no message", measured(6)[:-1]])
    found = {one.place: one.code for one in verify(of(log, *range(6)), Trust())}
    assert found == {
        "record 0": "wrong_signature",
        "record 1": "wrong_signature",
        "record 2": "unknown_signer",
        "record 3": "unknown_signer",
        "record 4": "bad_message",
        "record 5": "bad_message",
    }


def test_a_key_holds_from_its_start_to_just_before_its_end() -> None:
    signed_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=message.decode(measured(1)).signed_at)
    tick = timedelta(milliseconds=1)
    for starts, ends, expected in (
        (signed_at, None, []),
        (signed_at, signed_at + tick, []),
        (signed_at + tick, None, ["key_not_valid"]),
        (signed_at - tick, signed_at, ["key_not_valid"]),
    ):
        assert codes(of(book(), 0, signers=vouched(starts, ends)), Trust()) == expected
    # After a change of keys the device has two, and each message needs the one of its time.
    key = certificate.SignerKey(certificate.POINT, POINT, keys.public_of(bytes(32)), SINCE, UNTIL)
    both = (*vouched(), certificate.signer_note(ORIGIN, key, LOG))
    assert codes(of(book(), 0, signers=both), Trust()) == []


def test_a_message_that_the_log_holds_twice_counts_once() -> None:
    log = Book([measured(1), measured(2), measured(1)])
    assert codes(of(log, 0, 1), Trust()) == []
    assert codes(of(log, 0, 1, 2), Trust()) == ["same_record"]


def test_a_disclosure_from_what_is_no_document_is_refused() -> None:
    shown = (certificate.Disclosed("name", bytes(32), "Anna"),)
    body = b'{"b":1, "a":2}'
    loose = message.seal(evidence.PLATFORM.sign, message.Kind.DOCUMENT, evidence.PARTY, 2, AT, body)
    log = Book([measured(1), loose])
    records = tuple(msgspec.structs.replace(log.record(k), disclosed=shown) for k in range(2))
    assert codes(change(of(log, 0), records=records), Trust()) == ["wrong_disclosure"] * 2


# ---------------------------------------------------------------- what the reader brings


def test_the_log_is_the_one_the_reader_knows() -> None:
    assert codes(certified(), Trust(keys.public_of(bytes(32)))) == ["other_log_key"]


def test_enough_of_the_readers_witnesses_have_seen_the_checkpoint() -> None:
    mine = tuple(one.key for one in WITNESSES)
    assert codes(certified(), Trust(None, mine)) == ["too_few_witnesses"]
    assert codes(certified(), Trust(None, mine, 2)) == []
    assert codes(certified(witnesses=1), Trust(None, mine, 2)) == ["too_few_witnesses"]
    # One key under two names is one witness.
    twice = (WITNESSES[0], checkpoint.NoteSigner("witness.example/again", WITNESSES[0].seed, checkpoint.WITNESS))
    note = book().note(None, twice)
    given = change(certified(), checkpoint=note, witness_keys=())
    assert codes(given, Trust(None, tuple(one.key for one in twice), 2)) == ["too_few_witnesses"]
    assert codes(given, Trust(None, (WITNESSES[0].key,))) == []


@pytest.mark.spec("CERT-01")
@pytest.mark.parametrize("kept", range(1, 13))
def test_a_log_that_was_rewritten_is_found_by_whoever_kept_a_checkpoint(kept: int) -> None:
    """A message of the past is exchanged for another one that is signed as well, and the log signs the new tree."""
    log = book()
    for at in range(kept):
        now = Book([*log.messages[:at], written(7, {"at": at}), *log.messages[at + 1 :]])
        proofs = certificate.consistency(now.hashes, [kept], len(now.messages))
        given = certificate.certificate(now.note(), LOG.key, vouched(), [now.record(at)], (), proofs)
        assert codes(given, Trust()) == []
        assert codes(given, Trust(kept=(log.note(kept),))) == ["rewritten"]
        without = change(given, consistency=())
        assert codes(without, Trust(kept=(log.note(kept),))) == ["no_consistency_proof"]
        assert codes(given, Trust(kept=(log.note(),))) == ["forked"]


def test_a_kept_checkpoint_of_another_log_or_none_at_all_is_said() -> None:
    given, log = certified(kept=(4,)), book()
    foreign = checkpoint.sign_note(checkpoint.Checkpoint("coflex/milan/x", 4, log.root(4)), LOG)
    unsigned = log.note(4).replace("\n4\n", "\n5\n")
    for kept, code in (
        (foreign, "other_log"),
        (unsigned, "other_log"),
        ("me", "bad_note"),
        (vouched()[0], "bad_checkpoint"),
    ):
        assert codes(given, Trust(kept=(kept,))) == [code]


def test_proofs_between_checkpoints_lead_either_way_and_are_needed_once() -> None:
    log = book()
    proofs = certificate.consistency(log.hashes, [0, 4, 4, 8, 13], 8)
    assert [(one.old, one.new) for one in proofs] == [(4, 8), (8, 13)]
    early = Book(log.messages[:8])
    given = certificate.certificate(early.note(), LOG.key, vouched(), [early.record(1)], (), proofs)
    assert codes(given, Trust(kept=(log.note(4), log.note(8), log.note(13)))) == []
    assert codes(given, Trust(kept=(log.note(12),))) == ["no_consistency_proof"]


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]x", b"me", b"{}", b"\xff", b'{"format":"coflex certificate v2"}', b"[{}]", b"null", b"[1]"],
)
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse(data)
    assert [one.code for one in caught.value.findings] == ["bad_certificate"]


def test_an_unknown_name_in_the_file_is_refused() -> None:
    body = {**json.loads(encode(certified())), "note": "trust me"}
    with pytest.raises(Refused, match="nothing was taken"):
        parse(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("at", "line"),
    [
        (0, "coflex signer v2"),
        (2, "meter 4711"),
        (2, "point 04711"),
        (2, "point"),
        (3, "zz"),
        (4, "2027-01-01T00:00:00"),
        (4, "yesterday"),
        (5, "never"),
    ],
)
def test_a_signers_note_with_another_line_is_refused(at: int, line: str) -> None:
    lines = vouched()[0].partition("\n\n")[0].split("\n")
    lines[at] = line
    text = "\n".join(lines) + "\n"
    with pytest.raises(Refused) as caught:
        certificate.parse_signer(f"{text}\n{LOG.line(text)}")
    assert [one.code for one in caught.value.findings] == ["bad_signer"]


def test_a_signers_note_says_what_it_was_told() -> None:
    for ends in (None, UNTIL):
        key = certificate.SignerKey(certificate.PARTY, 9, DEVICE.public, SINCE, ends)
        assert certificate.parse_signer(certificate.signer_note(ORIGIN, key, LOG)) == key


def test_a_leaf_is_the_whole_message_with_its_signature() -> None:
    told = measured(1)
    assert merkle.leaf_hash(told) == Book([told]).root(1)
    assert codes(of(Book([told]), 0), Trust()) == []
