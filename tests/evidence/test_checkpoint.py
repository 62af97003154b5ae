"""Notes and checkpoints: published notes of others, and every way to spoil one."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.domain.errors import Refused
from coflex.evidence.checkpoint import (
    LOG,
    WITNESS,
    Checkpoint,
    NoteKey,
    NoteSigner,
    cosign,
    cosigned_at,
    note_text,
    parse_note,
    parse_text,
    sign_note,
    verify_note,
    with_lines,
)
from support import evidence
from support.evidence import ORIGIN, WITNESSES, book

# The example of Go's package golang.org/x/mod/sumdb/note, with its secret key, and the second key of its tests.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
# A tree of Go's checksum database, and its key, which comes with every Go.
GO_SUM_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_SUM = """go.sum database tree
65209736
5+uGFjx6xBZG8ip1+wi77v+grwbhhukIrxEUS8PXvRo=

— sum.golang.org Az3grnbssgK7ubgFX36gVETtNv0U23qxyAhAMai2QUfeGa3nB/akvkMdlUErfcZz7l/R3cVtYspg3dxXABkGZZKdsQ8=
"""
# A checkpoint of a staging log of Certificate Transparency, as others witnessed it.
ARCHE_KEY = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
REMORA_KEY = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
ARCHE = """arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
"""  # noqa: E501  as it was published


def refused(code: str, read: object, *given: object) -> str:
    with pytest.raises(Refused) as caught:
        read(*given)  # type: ignore[operator]
    assert [one.code for one in caught.value.findings] == [code]
    return caught.value.findings[0].message


# ---------------------------------------------------------------- others' notes


@pytest.mark.spec("CERT-01")
def test_the_example_of_go_comes_out_byte_by_byte() -> None:
    signer, key = NoteSigner.parse(GO_SECRET), NoteKey.parse(GO_KEY)
    assert signer.key == key and str(key) == GO_KEY and signer.secret == GO_SECRET and key.id.hex() == "c74f20a3"
    assert signer.line(GO_TEXT) == PETER
    note = parse_note(f"{GO_TEXT}\n{PETER}{ENOCH}")
    assert note.text == GO_TEXT
    assert verify_note(note, key) and verify_note(note, NoteKey.parse(ENOCH_KEY))
    assert not verify_note(parse_note(f"{GO_TEXT}\n{ENOCH}"), key)
    assert not verify_note(parse_note(f"{GO_TEXT.replace('answer', 'Answer')}\n{PETER}"), key)


@pytest.mark.spec("CERT-01")
def test_real_checkpoints_of_other_logs_and_their_witnesses_hold() -> None:
    assert verify_note(parse_note(GO_SUM), NoteKey.parse(GO_SUM_KEY))
    assert parse_note(GO_SUM).checkpoint.size == 65_209_736
    note, log, witness = parse_note(ARCHE), NoteKey.parse(ARCHE_KEY), NoteKey.parse(REMORA_KEY)
    assert (log.kind, witness.kind) == (LOG, WITNESS)
    assert note.checkpoint == Checkpoint(log.name, 1_432_088_532, note.checkpoint.root)
    assert note.checkpoint.root.hex().startswith("53b58cefd8ebcf28")
    assert verify_note(note, log) and cosigned_at(note, witness) == 1_779_573_024
    # Of a name that is there twice only the line of the key's id counts, and a witness's key is no log's.
    assert cosigned_at(note, log) is None
    grown = parse_note(ARCHE.replace("1432088532", "1432088533"))
    assert not verify_note(grown, log) and cosigned_at(grown, witness) is None


# ---------------------------------------------------------------- ours


def test_a_checkpoint_is_what_it_was_and_its_cosignature_what_the_standard_says() -> None:
    given = Checkpoint(ORIGIN, 12, book().root(12))
    note = sign_note(given, evidence.LOG)
    assert parse_note(note).checkpoint == given == parse_text(note_text(given))
    witness = WITNESSES[0]
    whole = with_lines(note, [cosign(note, witness, 1_800_000_007)])
    assert verify_note(parse_note(whole), evidence.LOG.key)
    assert cosigned_at(parse_note(whole), witness.key) == 1_800_000_007
    assert with_lines(whole, [cosign(note, witness, 1_800_000_007)]) == whole
    # The bytes that tlog-cosignature says are signed, checked with the other library.
    line = base64.b64decode(whole.splitlines()[-1].split(" ")[2])
    signed = f"cosignature/v1\ntime 1800000007\n{note_text(given)}".encode()
    assert line[:4] == witness.key.id and int.from_bytes(line[4:12], "big") == 1_800_000_007
    Ed25519PublicKey.from_public_bytes(witness.key.public).verify(line[12:], signed)


@settings(deadline=None)
@given(st.integers(0, 63), st.integers(0, 7))
def test_a_note_holds_with_no_bit_changed(at: int, bit: int) -> None:
    note = book().note(12, WITNESSES[:1])
    raw = bytearray(note.encode())
    place = at * len(raw) // 64
    raw[place] ^= 1 << bit
    try:
        spoiled = parse_note(bytes(raw))
    except Refused:
        return
    log, witness = verify_note(spoiled, evidence.LOG.key), cosigned_at(spoiled, WITNESSES[0].key)
    assert not log or witness is None
    if place < note.index("\n\n"):
        assert not log and witness is None


def test_a_cosignature_of_an_older_time_or_another_text_is_none() -> None:
    note = book().note(12)
    line = cosign(note, WITNESSES[0], 5)
    assert cosigned_at(parse_note(with_lines(book().note(11), [line])), WITNESSES[0].key) is None
    body = bytearray(base64.b64decode(line.split(" ")[2]))
    body[11] ^= 1
    late = f"— {WITNESSES[0].name} {base64.b64encode(bytes(body)).decode()}\n"
    assert cosigned_at(parse_note(with_lines(note, [late])), WITNESSES[0].key) is None
    # One line that holds does not make up for one of the same key that does not.
    assert cosigned_at(parse_note(with_lines(note, [line, late])), WITNESSES[0].key) is None
    two = with_lines(note, [line, cosign(note, WITNESSES[0], 9)])
    assert cosigned_at(parse_note(two), WITNESSES[0].key) == 9


@pytest.mark.parametrize(
    "note",
    [
        GO_TEXT,
        f"{GO_TEXT}\n",
        f"{GO_TEXT}\n{PETER}"[:-1],
        f"\x01{GO_TEXT}\n{PETER}",
        f"{GO_TEXT}\n{PETER}Unexpected line.\n",
        f"{GO_TEXT}\n— Bad Name {PETER.split(' ')[2]}",
        f"{GO_TEXT}\n— a+b {PETER.split(' ')[2]}",
        f"{GO_TEXT}\n— PeterNeumann x08goA==\n",
        f"{GO_TEXT}\n{PETER[:60]}!{PETER[60:]}",
        f"{GO_TEXT}\n{PETER.replace('=', '')}",
        f"{GO_TEXT}\n{PETER * 101}",
        f"\n\n{PETER}",
        "\ud800" + f"{GO_TEXT}\n{PETER}",
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    assert "give" in refused("bad_note", parse_note, note) or "leave" in refused("bad_note", parse_note, note)


def test_bytes_that_are_no_text_are_refused() -> None:
    refused("bad_note", parse_note, b"\xff" + f"{GO_TEXT}\n{PETER}".encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n",
        "log\n5\n",
        "\n5\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n",
        "log\n05\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n",
        "log\n-5\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n",
        "log\n+5\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n",
        "log\n\u0665\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n",
        "log\n9223372036854775808\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n",
        "log\n5\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Q==\n",
        "log\n5\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Rp=\n",
        "log\n5\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\nmore\n",
        "log\n5\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    refused("bad_checkpoint", parse_text, text)


def test_further_lines_of_other_logs_are_kept() -> None:
    given = Checkpoint("log", 5, bytes(32), ("more", "and more"))
    assert parse_text(note_text(given)) == given


@pytest.mark.parametrize("key", [GO_KEY, REMORA_KEY, GO_SECRET])
def test_a_key_with_a_character_wrong_is_refused_and_a_secret_one_not_repeated(key: str) -> None:
    parse = NoteSigner.parse if key == GO_SECRET else NoteKey.parse
    for at in range(len(key)):
        changed = key[:at] + ("B" if key[at] == "A" else "A") + key[at + 1 :]
        for spoiled in (changed, key[:at], key[at + 1 :]):
            message = refused("bad_key", parse, spoiled)
            assert len(spoiled) < 30 or spoiled[-20:] not in message


def test_a_secret_shows_in_no_text_by_itself() -> None:
    signer = NoteSigner.parse(GO_SECRET)
    assert repr(signer.seed) not in repr(signer) and GO_SECRET[-20:] not in str(signer)


def test_what_cannot_stand_in_a_checkpoint_is_an_error() -> None:
    good = Checkpoint("log", 5, bytes(32))
    wrong = {"origin": ["", "a\nb", "a\tb"], "size": [-1, 1 << 63], "root": [b"", bytes(31)], "extension": [("",)]}
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match="a checkpoint is"):
                note_text(replace(good, **{name: value}))
    with pytest.raises(ValueError, match="names have no space"):
        sign_note(good, NoteSigner("my log", bytes(32)))
    with pytest.raises(ValueError, match="a witness signs with a time"):
        WITNESSES[0].line(note_text(good))
    with pytest.raises(ValueError, match="a witness signs with a time"):
        evidence.LOG.line(note_text(good), 5)
