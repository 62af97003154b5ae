"""`coflex witness`: a real process, cosigning over HTTP, that keeps its word over restarts and kills."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from coflex.adapters.cli import witness as door
from coflex.domain.errors import CoflexError, Conflict
from coflex.evidence import checkpoint, merkle, witness
from support.command import coflex
from support.evidence import LOG, ORIGIN, WITNESSES, Book, book, written

ME = WITNESSES[0]
NOW = 1_800_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "witness.key").write_text(f"{ME.secret}\n")
    (tmp_path / "logs.txt").write_text(f"# the logs of Rome\n\n{LOG.key}  # measurements\n")
    return tmp_path


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A witness on any free port of this machine."""
    words = ["--key", folder / "witness.key", "--logs", folder / "logs.txt", "--data", folder / "kept", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "coflex", "witness", "serve", *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    guard = threading.Timer(60, process.kill)
    guard.start()
    try:
        assert process.stdout
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found.group(), process
                break
        else:
            raise AssertionError("the witness did not start")
    finally:
        process.kill()
        process.wait(timeout=10)
        guard.cancel()


def asked(url: str, log: Book, size: int, known: int = 0) -> str:
    """The log's checkpoint of this size with the witness's cosignature."""

    def post(body: bytes) -> tuple[int, str]:
        answer = httpx.post(f"{url}/add-checkpoint", content=body, timeout=10)
        return answer.status_code, answer.text

    prove = lambda old: merkle.consistency_proof(log.hashes, old, size)  # noqa: E731  short, and used once
    return witness.obtain(log.note(size), known, prove, [ME.key], post)


@pytest.mark.slow
@pytest.mark.spec("CERT-01")
def test_a_witness_cosigns_what_grows_refuses_what_forks_and_remembers_over_a_kill(folder: Path) -> None:
    log = book()
    forked = Book([*log.messages[:8], written(7, {}), *log.messages[9:]])
    with serving(folder) as (url, process):
        for size in (4, 9):
            note = checkpoint.parse_note(asked(url, log, size))
            assert checkpoint.cosigned_at(note, ME.key) and checkpoint.verify_note(note, LOG.key)
        answer = httpx.post(f"{url}/add-checkpoint", content=witness.request(0, [], log.note(13)))
        assert (answer.status_code, answer.text, answer.headers["content-type"]) == (409, "9\n", "text/x.tlog.size")
        process.kill()
    with serving(folder) as (url, process):
        with pytest.raises(Conflict):
            asked(url, forked, 9)
        with pytest.raises(CoflexError, match="422"):
            asked(url, forked, 13)
        with pytest.raises(Conflict):
            asked(url, log, 4)
        assert checkpoint.cosigned_at(checkpoint.parse_note(asked(url, log, 13, 9)), ME.key)
        assert httpx.post(f"{url}/add-checkpoint", content=b"x" * 100_000).status_code == 413
        assert httpx.post(f"{url}/add-checkpoint", content=b"\xff").status_code == 400
        assert httpx.get(f"{url}/add-checkpoint").status_code == 405
        process.terminate()
        assert process.wait(timeout=20) == 0
    (proof,) = (folder / "kept" / "evidence").iterdir()
    first, second = proof.read_text().replace("\n\ncoflex/", "\n\0coflex/").split("\0")
    assert witness.Evidence(first, second).proves(LOG.key)
    assert {first, second} == {log.note(9), forked.note(9)}


def desk(folder: Path, told: list[str]) -> door.Desk:
    logs = door.read_logs(folder / "logs.txt")
    return door.Desk(door.read_key(folder / "witness.key"), logs, door.Kept(folder / "kept"), lambda: NOW, told.append)


@pytest.mark.spec("CERT-01")
def test_over_http_it_says_what_the_standard_says(folder: Path) -> None:
    log = book()

    async def talk() -> None:
        transport = httpx.ASGITransport(door.app(desk(folder, [])))
        async with httpx.AsyncClient(transport=transport, base_url="http://witness") as client:

            async def post(body: bytes) -> httpx.Response:
                return await client.post("/add-checkpoint", content=body)

            said = witness.talk(log.note(9), 4, lambda old: merkle.consistency_proof(log.hashes, old, 9), [ME.key])
            wanted = await post(next(said))
            assert (wanted.status_code, wanted.text, wanted.headers["content-type"]) == (409, "0\n", "text/x.tlog.size")
            given = await post(said.send((wanted.status_code, wanted.text)))
            with pytest.raises(StopIteration) as ended:
                said.send((given.status_code, given.text))
            assert checkpoint.cosigned_at(checkpoint.parse_note(ended.value.value), ME.key) == NOW
            foreign = checkpoint.NoteSigner("x", bytes(32))
            for body, status in (
                (witness.request(0, [], checkpoint.sign_note(checkpoint.Checkpoint("x", 1, bytes(32)), foreign)), 404),
                (witness.request(0, [], log.note(4).replace("\n4\n", "\n5\n")), 403),
                (witness.request(9, [], log.note()), 422),
                (b"\xff", 400),
                (b"x" * 100_000, 413),
            ):
                assert (await post(body)).status_code == status
            assert (await client.get("/add-checkpoint")).status_code == 405
            assert (await client.post("/")).status_code == 404

    asyncio.run(talk())


def test_what_it_cosigned_is_on_disk_before_it_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of writing, as the system sees them: contents synced, then the name, then the folder."""
    steps: list[str] = []
    sync, swap, log = os.fsync, Path.replace, book()

    def fsync(handle: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{handle}').resolve().suffix or 'folder'}")
        sync(handle)

    def replace(self: Path, target: Path) -> Path:
        steps.append(f"{self.suffix} to {target.suffix}")
        return swap(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    here = desk(folder, [])
    assert here.add_checkpoint(witness.request(0, [], log.note(4))).status == witness.OK
    assert steps == ["sync .new", ".new to .note", "sync folder"]
    # The same checkpoint again is cosigned again, and nothing needs to be written.
    assert here.add_checkpoint(witness.request(4, [], log.note(4))).status == witness.OK
    assert len(steps) == 3


def test_where_it_cannot_write_it_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, log = desk(folder, []), book()
    here.add_checkpoint(witness.request(0, [], log.note(4)))

    def full(_: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            here.add_checkpoint(witness.request(4, merkle.consistency_proof(log.hashes, 4, 9), log.note(9)))
    # What was half written does not count: the witness is where it was.
    assert here.add_checkpoint(witness.request(0, [], log.note(9))).body == "4\n"
    assert (
        here.add_checkpoint(witness.request(4, merkle.consistency_proof(log.hashes, 4, 9), log.note(9))).status == 200
    )


@pytest.mark.parametrize("spoilt", [b"", b"\xff", b"coflex/rome/measurements\n4\n"])
def test_a_witness_that_cannot_read_what_it_cosigned_does_not_start(folder: Path, spoilt: bytes) -> None:
    """Whoever took the file away to have peace would make the witness forget."""
    kept = door.Kept(folder / "kept")
    kept.keep(ORIGIN, book().note(4))
    (note,) = (folder / "kept").glob("*.note")
    note.write_bytes(spoilt)
    with pytest.raises(CoflexError, match="is damaged"):
        kept.last(ORIGIN)
    kept.close()
    words = ["--key", folder / "witness.key", "--logs", folder / "logs.txt", "--data", folder / "kept", "--port", "0"]
    told = coflex("witness", "serve", *words)
    assert told.exit_code == 1 and f"{note} is damaged" in told.stderr and "new key" in told.stderr


def test_of_many_at_once_none_rolls_it_back(folder: Path) -> None:
    """Everybody proves from size 1; one is cosigned, and the rest are told of it."""
    here, log, answers = desk(folder, []), book(), list[tuple[int, witness.Answer]]()
    here.add_checkpoint(witness.request(0, [], log.note(1)))
    start = threading.Barrier(12)

    def ask(size: int) -> None:
        body = witness.request(1, merkle.consistency_proof(log.hashes, 1, size), log.note(size))
        start.wait(10)
        answers.append((size, here.add_checkpoint(body)))

    threads = [threading.Thread(target=ask, args=(size,)) for size in range(2, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    (winner,) = [size for size, answer in answers if answer.status == witness.OK]
    assert {answer.body for size, answer in answers if size != winner} == {f"{winner}\n"}
    assert here.add_checkpoint(witness.request(0, [], log.note(13))).body == f"{winner}\n"


def test_misbehaviour_is_told_once_and_fills_no_disk(folder: Path) -> None:
    told: list[str] = []
    here, log = desk(folder, told), book()
    here.add_checkpoint(witness.request(0, [], log.note(9)))
    for k in range(5):
        other = checkpoint.sign_note(checkpoint.Checkpoint(ORIGIN, 9, bytes([k]) * 32), LOG)
        assert here.add_checkpoint(witness.request(9, [], other)).status == witness.CONFLICT
    assert len(told) == 1 and len(list((folder / "kept" / "evidence").iterdir())) == 1


def test_two_witnesses_do_not_share_a_folder(folder: Path) -> None:
    first = door.Kept(folder / "kept")
    with pytest.raises(Conflict, match="Another witness"):
        door.Kept(folder / "kept")
    first.close()
    door.Kept(folder / "kept").close()


# ---------------------------------------------------------------- keys and lists


def test_a_key_is_made_once_and_for_its_owners_eyes(tmp_path: Path) -> None:
    file = tmp_path / "my.key"
    told = coflex("witness", "key", "witness.example/mine", "--out", file)
    assert told.exit_code == 0
    signer = door.read_key(file)
    assert told.stdout == f"{signer.key}\n" and signer.kind == checkpoint.WITNESS
    assert file.stat().st_mode & 0o777 == 0o600
    again = coflex("witness", "key", "witness.example/mine", "--out", file)
    assert again.exit_code == 1 and door.read_key(file) == signer
    other = json.loads(coflex("witness", "key", "other", "--out", tmp_path / "other.key", "--json").stdout)
    assert other["key"] != str(signer.key) and len(other["fingerprint"]) == 64
    assert coflex("witness", "key", "no name", "--out", tmp_path / "none").exit_code == 1
    assert not (tmp_path / "none").exists()


def test_logs_are_read_with_their_keys_and_origins(tmp_path: Path) -> None:
    fresh = checkpoint.NoteSigner(ORIGIN, bytes(32)).key
    other = checkpoint.NoteSigner("key-of-milan", bytes(32)).key
    file = tmp_path / "logs.txt"
    file.write_text(f"{LOG.key}\n{fresh} # the next one\n{other} coflex/milan/measurements\n")
    assert door.read_logs(file) == {ORIGIN: [LOG.key, fresh], "coflex/milan/measurements": [other]}


@pytest.mark.parametrize("text", ["", "# nothing\n", "me\n", f"{ME.key}\n", f"{LOG.key}\nme\n"])
def test_a_list_of_logs_with_a_fault_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "logs.txt").write_text(text)
    with pytest.raises(CoflexError):
        door.read_logs(tmp_path / "logs.txt")
    (tmp_path / "logs.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CoflexError, match="UTF-8"):
        door.read_logs(tmp_path / "logs.txt")


@pytest.mark.parametrize("text", ["", "me", str(ME.key), LOG.secret])
def test_a_file_without_a_witnesss_secret_key_is_refused(folder: Path, text: str) -> None:
    (folder / "witness.key").write_text(text)
    words = ["--key", folder / "witness.key", "--logs", folder / "logs.txt", "--data", folder / "kept"]
    told = coflex("witness", "serve", *words)
    assert told.exit_code == 1 and "key" in told.stderr and (not text or text[-12:] not in told.stderr)
