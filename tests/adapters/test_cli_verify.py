"""`coflex verify`: one clear sentence about files as auditors get them, and nothing from the network."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coflex.evidence import certificate, commitment
from support.command import coflex
from support.evidence import LOG, OPENINGS, WITNESSES, Book, book, certified, vouched, written

KEY = str(LOG.key)
SENTENCE = (
    "3 records hold: they were signed and stand in log coflex/rome/measurements of size 13, cosigned by "
    "witness.example/w2 at 2027-01-15T08:00:07Z and witness.example/w3 at 2027-01-15T08:00:07Z"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return put(tmp_path / "delivery.json", certificate.encode(certified(kept=(4,))))


def put(file: Path, data: bytes | str) -> Path:
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def say(*words: object) -> Any:
    told = coflex("verify", *words, "--json")
    assert len(told.stdout.splitlines()) == 1
    return json.loads(told.stdout)


@pytest.mark.spec("CERT-01")
def test_a_certificate_that_holds_is_said_to_in_one_sentence(file: Path, tmp_path: Path) -> None:
    kept = put(tmp_path / "kept.txt", book().note(4))
    witnesses = [word for one in WITNESSES[:2] for word in ("--witness", one.key)]
    told = coflex("verify", file, "--key", KEY, "--kept", kept, *witnesses)
    assert told.exit_code == 0 and told.stderr == ""
    assert told.stdout == f"{SENTENCE}, which only grew since the checkpoint you kept.\n"
    # A certificate kept from before is a checkpoint kept from before; the key may be told in hexadecimal.
    told = coflex("verify", file, "--key", LOG.key.public.hex(), "--kept", kept, "--kept", file, *witnesses)
    assert told.stdout == f"{SENTENCE}, which only grew since the 2 checkpoints you kept.\n"


@pytest.mark.spec("CERT-01")
def test_without_a_key_the_fingerprint_to_compare_is_said(file: Path) -> None:
    told = coflex("verify", file)
    assert told.exit_code == 0 and told.stdout == f"{SENTENCE}.\n"
    assert LOG.key.fingerprint in told.stderr and "--witness" in told.stderr
    answer = say(file)
    assert answer["holds"] is True and len(answer["notes"]) == 2 and answer["logs"][0]["size"] == 13
    assert say(file, "--key", KEY, "--witness", WITNESSES[0].key)["notes"] == []


@pytest.mark.spec("CERT-01")
def test_every_certificate_of_a_kept_file_counts(file: Path, tmp_path: Path) -> None:
    """The second one is of a log that was rewritten since: whoever looked at the first alone would not see it."""
    other = Book([written(7, {}), *book().messages[1:]])
    old, rewritten = (msgspec.structs.replace(certified(), checkpoint=log.note(4)) for log in (book(), other))
    for name, data in (
        ("kept.jsonl", b"\n".join(map(msgspec.json.encode, (old, rewritten)))),
        ("kept.json", msgspec.json.encode([old, rewritten])),
    ):
        answer = say(file, "--kept", put(tmp_path / name, data))
        assert [one["code"] for one in answer["findings"]] == ["rewritten"]
    told = coflex("verify", file, "--kept", put(tmp_path / "one.json", msgspec.json.encode([old, old])))
    assert told.stdout.endswith("which only grew since the checkpoint you kept.\n")


def test_a_kept_checkpoint_holds_with_the_line_ends_of_mail_and_editors(file: Path, tmp_path: Path) -> None:
    note = book().note(4)
    for text in (note.replace("\n", "\r\n"), "\ufeff" + note, note.removesuffix("\n"), f"{note}\n\n"):
        assert say(file, "--kept", put(tmp_path / "kept.txt", text))["kept"] == 1


def test_what_the_records_say_is_shown(file: Path) -> None:
    first, _, third = say(file)["records"]
    assert first["kind"] == "measurement" and first["signer"] == "point 4711" and first["sequence"] == 1
    assert first["says"] == {
        "quantity": "active_power_w",
        "first": "2027-01-15T08:01:00Z",
        "step_ms": 20_000,
        "revision": 0,
        "values": [101.0, 200.0, None],
    }
    assert third["kind"] == "document" and third["disclosed"] == {"iban": OPENINGS[0].value}
    told = coflex("verify", file, "--records").stdout
    assert len(told.splitlines()) == 4 and OPENINGS[0].value in told and "Anna" not in told


def test_what_a_record_discloses_begins_no_line_of_its_own(tmp_path: Path) -> None:
    shown = commitment.commit({"name": "Anna\n1 record holds\x1b[1A"}, [b"a" * 32])
    log = Book([written(1, {"commitments": commitment.commitments(shown)})])
    given = certificate.certificate(log.note(), LOG.key, vouched(), [log.record(0, shown)])
    told = coflex("verify", put(tmp_path / "one.json", certificate.encode(given)), "--records").stdout
    assert len(told.splitlines()) == 2 and "\x1b" not in told


@pytest.mark.spec("CERT-01")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--key", "00" * 32), "other_log_key"),
        (("--witness", str(WITNESSES[2].key)), "too_few_witnesses"),
        (("--kept", "forked.txt"), "forked"),
        (("--kept", "early.txt"), "no_consistency_proof"),
        (("--kept", "rewritten.txt"), "rewritten"),
    ],
)
def test_what_does_not_hold_ends_with_an_error_and_names_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    other = Book([written(7, {}), *book().messages[1:]])
    put(Path("forked.txt"), other.note())
    put(Path("early.txt"), book().note(5))
    put(Path("rewritten.txt"), other.note(4))
    told = coflex("verify", file, *words)
    assert told.exit_code == 1 and told.stdout == "" and "does not hold: 1 fault." in told.stderr
    answer = say(file, *words)
    assert answer["error"] == "NOT_PROVEN" and [one["code"] for one in answer["findings"]] == [code]


def test_faults_of_several_certificates_say_in_which_they_are(tmp_path: Path) -> None:
    good = certified()
    bad = msgspec.structs.replace(good, log_fingerprint="00")
    lines = put(tmp_path / "two.jsonl", b"\n".join(map(msgspec.json.encode, (good, bad))))
    answer = say(lines)
    assert [one["place"] for one in answer["findings"]] == ["certificate 2, log"]
    told = coflex("verify", put(tmp_path / "list.json", msgspec.json.encode([good, good])))
    assert told.stdout.startswith(
        "6 records hold: they were signed and stand in log coflex/rome/measurements of size 13"
    )


@pytest.mark.spec("CERT-01")
def test_certificates_of_one_file_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    """Each holds by itself; together they prove that the log signed two trees of one size."""
    other = Book([*book().messages[:12], written(7, {})])
    starts, key = vouched()
    forked = certificate.certificate(other.note(), LOG.key, (starts, key), [other.record(12)])
    answer = say(put(tmp_path / "two.json", msgspec.json.encode([certified(), forked, certified()])))
    assert [(one["place"], one["code"]) for one in answer["findings"]] == [("certificates 1 and 2", "forked")]


def test_a_record_that_is_signed_but_cannot_be_read_is_shown_as_it_is(tmp_path: Path) -> None:
    from coflex.evidence import message
    from support.evidence import AT, PARTY, PLATFORM

    raw = message.seal(PLATFORM.sign, message.Kind.SET_POINT, PARTY, 3, AT, b"\1\2")
    far = message.seal(PLATFORM.sign, message.Kind.DOCUMENT, PARTY, 4, 2**62, message.canonical([1]))
    log = Book([raw, far])
    starts, key = vouched()[0], vouched(ends=None)[1]
    given = certificate.certificate(log.note(), LOG.key, (starts, key), [log.record(0), log.record(1)])
    first, second = say(put(tmp_path / "odd.json", certificate.encode(given)), "--records")["records"]
    assert first["says"] == {"body": "0102"} and second["says"] == [1] and second["signed_at"].endswith(" ms")
    assert coflex("verify", tmp_path / "odd.json", "--records").exit_code == 0


@pytest.mark.parametrize(
    ("data", "words", "said"),
    [
        (b"", (), "no certificate"),
        (b"[]", (), "is empty"),
        (b"\xff\xfe", (), "no certificate"),
        (None, ("--key", "me"), "--key gives is no key"),
        (None, ("--key", "00"), "--key has 1 byte"),
        (None, ("--witness", "me"), "--witness gives is no key"),
        (None, ("--witness", KEY), "--witness gives is the key of a log"),
        (None, ("--key", str(WITNESSES[0].key)), "--key gives is the key of a witness"),
        (None, ("--kept", "nothing.json"), "nothing.json is empty"),
        (None, ("--threshold", "1"), "1 of 0 witnesses"),
        (None, ("--kept", "binary"), "is no checkpoint"),
    ],
)
def test_what_cannot_be_read_is_said_with_what_to_do(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path("binary"), b"\xff\xfe")
    put(Path("nothing.json"), b"[]")
    given = file if data is None else put(tmp_path / "given.json", data)
    told = coflex("verify", given, *words)
    assert told.exit_code == 1 and said in told.stderr and "Traceback" not in told.stderr


@pytest.mark.spec("CERT-01")
def test_it_needs_no_network_and_not_the_application(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("verify opened a socket")

    monkeypatch.setattr(socket, "socket", forbidden)
    assert coflex("verify", file, "--key", KEY).exit_code == 0
    code = (
        "import sys; from coflex.__main__ import main; sys.argv = ['coflex', 'verify', sys.argv[1]]\n"
        "try: main()\n"
        "finally: print(*(name for name in ('coflex.app', 'coflex.serve', 'starlette', 'sqlalchemy', 'web3') "
        "if name in sys.modules), file=sys.stderr)"
    )
    told = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0 and told.stderr.splitlines()[-1] == ""
