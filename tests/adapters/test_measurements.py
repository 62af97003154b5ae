"""The log on disk and its tables: durable, provable, read back as it was, and any damage told."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflex.adapters.measurements import files
from coflex.adapters.measurements import intake as intakes
from coflex.adapters.measurements.certify import certificate
from coflex.adapters.measurements.check import here as here_checked
from coflex.adapters.measurements.files import InUse
from coflex.adapters.measurements.intake import Busy, Intake
from coflex.adapters.measurements.live import Live
from coflex.adapters.measurements.log import Log, LogBroken
from coflex.adapters.measurements.points import load
from coflex.adapters.measurements.segment import COMMIT, commits
from coflex.adapters.measurements.tables import SCHEMA, Tables
from coflex.domain.errors import CoflexError, NotFound, Refused
from coflex.evidence import certificate as form
from coflex.evidence import keys
from coflex.evidence.checkpoint import parse_note, verify_note
from coflex.evidence.merkle import CompactRange, leaf_hash, verify_consistency, verify_inclusion
from coflex.evidence.message import (
    HEADER,
    Acknowledgement,
    Hop,
    Kind,
    Quantity,
    SetPoint,
    Verdict,
    measurement,
    unsigned,
)
from coflex.metering.admission import Outcome, Part, Signer, Signers
from support.measuring import COUNT, NOW, ORIGIN, STEP, Device, signers

HOUR = 3_600_000


class World:
    """An ingest over a folder, without doors, at a time that a test sets."""

    def __init__(self, folder: Path, known: Signers, segment_bytes: int = 1 << 30) -> None:
        self.now = NOW + HOUR
        self.faults: list[BaseException] = []
        self.log = Log(folder, ORIGIN, segment_bytes)
        self.tables = Tables(folder / "tables", self.log)
        try:
            self.intake = Intake(self.log, self.tables, known, lambda: self.now, self.faults.append)
        except BaseException:
            self.log.close()
            raise

    def take(self, *raws: bytes, owners: frozenset[str] | None = None) -> Outcome:
        """Send a batch, at the time at which its last message was signed, or later."""
        self.now = max(self.now, *(HEADER.unpack_from(raw)[5] for raw in raws))
        return self.intake.submit([Part(b"".join(raws), owners)]).result(20).outcomes[0]

    def point(self) -> Any:
        return parse_note(self.log.note).checkpoint


@contextmanager
def world(folder: Path, known: Signers, segment_bytes: int = 1 << 30) -> Iterator[World]:
    made = World(folder, known, segment_bytes)
    try:
        yield made
    finally:
        made.intake.close()


def devices(count: int = 5) -> list[Device]:
    return [Device(point, NOW + HOUR - 10 * 60_000) for point in range(1, count + 1)]


def minutes(some: Sequence[Device], count: int) -> list[bytes]:
    return [device.next() for _ in range(count) for device in some]


# ---------------------------------------------------------------- certified and durable


@pytest.mark.spec("CERT-01")
def test_what_is_answered_is_in_the_log_under_a_checkpoint_with_proofs(tmp_path: Path) -> None:
    some = devices()
    raws = minutes(some, 6)
    with world(tmp_path, signers(some)) as here:
        older = here.log.note
        outcome = here.take(*raws[:13])
        assert (outcome.accepted, outcome.first, outcome.last) == (13, 0, 12)
        middle = here.point()
        assert here.take(*raws[13:]).first == 13
        last = here.point()
        assert verify_note(parse_note(here.log.note), here.log.key)
        assert (last.size, last.origin) == (30, ORIGIN)
        for leaf, raw in enumerate(raws):
            proof = here.log.inclusion(leaf, last.size)
            assert verify_inclusion(leaf_hash(raw), leaf, last.size, proof, last.root)
        proof = here.log.consistency(middle.size, last.size)
        assert verify_consistency(middle.size, last.size, middle.root, last.root, proof)
        assert parse_note(older).checkpoint.size == 0
    files = sorted((tmp_path / "raw").glob("*.log"))
    there = [raw for file in files for one in commits(file.read_bytes()) for raw in one.messages]
    assert there == raws


@pytest.mark.spec("CERT-01")
def test_a_certificate_of_a_message_holds_offline_and_breaks_with_any_byte(tmp_path: Path) -> None:
    some = devices(2)
    platform = Device(9, secret=bytes(range(32)))
    known = signers(some)
    known.put(platform.signer(party=True))
    with world(tmp_path, known) as here:
        here.take(*minutes(some, 2))
        small = here.log.size
        order = SetPoint(1, bytes(16), NOW, NOW + 1, 5_000, 2_000).encode()
        done = Acknowledgement(1, Hop.LIGHT_NODE, Verdict.TAKEN).encode()
        here.take(platform.seal(order, 1, here.now, kind=Kind.SET_POINT))
        answer = some[0].seal(done, 3, here.now, kind=Kind.ACKNOWLEDGEMENT)
        assert here.take(answer).accepted == 1
        made = certificate(here.log, known, [0, 4, 0, 5], older=[small])
        assert form.verify(made, form.Trust(log=here.log.key.public)) == []
        assert form.parse(form.encode(made)) == [made]
        changed = made.records[0].message[:30] + b"!" + made.records[0].message[31:]
        spoilt = form.Record(0, changed, made.records[0].proof)
        broken = form.certificate(made.checkpoint, here.log.key, [one.note for one in made.signers], [spoilt])
        assert {one.code for one in form.verify(broken)} == {"not_in_log", "wrong_signature"}
        with pytest.raises(NotFound):
            certificate(here.log, known, [6])
        # A key in the place of the one that signed: the message cannot be certified, rather than falsely so.
        known.put(Signer(1, Device(7).public))
        with pytest.raises(NotFound, match="point 1 signed is not registered"):
            certificate(here.log, known, [0])
        known.put(some[0].signer())
        assert form.verify(certificate(here.log, known, [0])) == []


def test_the_answer_waits_for_the_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails nobody gets a checkpoint, nothing more is taken, and the next start is as before."""
    some = devices(2)
    raws = minutes(some, 3)
    with world(tmp_path, signers(some)) as here:
        here.take(*raws[:2])
        before = here.log.note

        def fails(file: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr("coflex.adapters.measurements.segment.sync_data", fails)
            with pytest.raises(LogBroken):
                here.take(*raws[2:4])
        assert here.log.note == before
        assert not here.intake.ready
        with pytest.raises(LogBroken):
            here.take(*raws[4:])
    with world(tmp_path, signers(some)) as again:
        # The bytes had reached the file: whole and signed, they may stay; nobody was told so.
        outcome = again.take(*raws)
        assert outcome.accepted + outcome.duplicates == len(raws)
        assert again.log.size == len(raws)


def test_a_check_that_fails_leaves_nobody_without_an_answer(tmp_path: Path) -> None:
    """Neither those whose batches it took along, nor those behind."""
    some = devices(3)
    go = threading.Event()

    def verify(publics: Sequence[bytes], raws: Sequence[bytes]) -> Sequence[bool]:
        go.wait(20)
        if HEADER.unpack_from(raws[0])[3] == 2:
            raise MemoryError
        return here_checked(publics, raws)

    log = Log(tmp_path, ORIGIN)
    faults: list[BaseException] = []
    intake = Intake(log, Tables(tmp_path / "tables", log), signers(some), lambda: NOW + HOUR, faults.append, verify)
    try:
        with intake._wake:  # the writer looks when all are checked
            answers = [intake.submit([Part(device.next())]) for device in some]
            checked = [waiting.checked for waiting in intake._queue]
            go.set()
            wait(checked, 20)
        for answer in answers:
            with pytest.raises(LogBroken, match="MemoryError"):
                answer.result(20)
        assert [type(fault) for fault in faults] == [MemoryError]
    finally:
        intake.close()


def test_whoever_sends_old_messages_again_and_again_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking up ends when the time of a commit is spent; what comes then is asked to come again, and is told then."""
    (one,) = devices(1)
    with world(tmp_path, signers([one]), segment_bytes=1) as here:
        old = minutes([one], 12)
        for raw in old:
            here.take(raw)
        assert here.take(*old).duplicates == 12
        asked: list[float] = []

        def clock() -> float:
            """Each segment takes ten milliseconds."""
            asked.append(0.0)
            return len(asked) * 0.01

        for place in ("intake", "log"):
            monkeypatch.setattr(f"coflex.adapters.measurements.{place}.perf_counter", clock)
        monkeypatch.setattr(intakes, "MOST_LOOKING_S", 0.2)
        outcome = here.take(*old[:8][::-1], one.next())
        assert outcome.accepted == 1
        told = [refusal.code for refusal in outcome.refused]
        assert outcome.duplicates > 0 and told == ["not_now"] * (8 - outcome.duplicates) and told
        assert here.take(old[7 - outcome.duplicates]).duplicates == 1, "in the next commit"
        monkeypatch.setattr(intakes, "MOST_LOOKING_S", 0.03)
        assert here.take(old[0]).refused[0].code == "replayed", "too far back to be found by any"
        assert len(asked) < 100


def test_an_acknowledgement_of_no_set_point_is_none(tmp_path: Path) -> None:
    (one,) = devices(1)
    with world(tmp_path, signers([one])) as here:
        for number, sequence in enumerate((0, 1 << 63, (1 << 64) - 1, (1 << 63) - 1), start=1):
            body = Acknowledgement(sequence, Hop.LIGHT_NODE, Verdict.TAKEN).encode()
            outcome = here.take(one.seal(body, number, here.now + number, kind=Kind.ACKNOWLEDGEMENT))
            assert [refusal.code for refusal in outcome.refused] == ["bad_format"] * (number < 4)


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intakes, "MOST_WAITING", 900)
    some = devices(1)
    with world(tmp_path, signers(some)) as here:
        with here.intake._wake:  # nobody writes meanwhile
            futures = [here.intake.submit([Part(b"".join(minutes(some, 6)))])]
            with pytest.raises(Busy) as fault:
                here.intake.submit([Part(some[0].next())])
        assert fault.value.code == "UNAVAILABLE"
        assert futures[0].result(20).outcomes[0].accepted == 6
        some[0].last -= 1
        assert here.take(some[0].next()).accepted == 1
        assert here.intake.waiting == 0


def test_one_process_writes_to_a_folder(tmp_path: Path) -> None:
    with world(tmp_path, signers([])), pytest.raises(InUse):
        Log(tmp_path, ORIGIN)
    with pytest.raises(LogBroken, match="is of the log"):
        Log(tmp_path, "coflex/other/measurements")
    with world(tmp_path, signers([])):
        pass


def test_a_name_that_no_log_can_have_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        Log(tmp_path, "coflex/new rome/measurements")
    with world(tmp_path, signers([])) as here:
        assert here.log.key.name == ORIGIN


# ---------------------------------------------------------------- after a kill


@pytest.mark.spec("CERT-01")
def test_a_log_cut_at_any_byte_comes_back_to_its_last_whole_commit(tmp_path: Path) -> None:
    """A power cut: everything behind some byte is gone, or is something else."""
    some = devices(3)
    sizes, raws = [], minutes(some, 5)
    whole = tmp_path / "whole"
    with world(whole, signers(some)) as here:
        for at in range(0, 15, 3):
            here.take(*raws[at : at + 3])
            sizes.append(here.log._segments[-1].bytes)
    (whole / "checkpoint").unlink()
    rng = np.random.default_rng(4)
    cuts = sorted({0, *sizes, *(size - 1 for size in sizes), *rng.integers(0, sizes[-1], 25).tolist()})
    for cut in cuts:
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        file = next((copy / "raw").glob("*.log"))
        file.write_bytes(file.read_bytes()[:cut] + (bytes(20) if cut % 2 else b""))
        with world(copy, signers(some)) as here:
            kept = 3 * sum(size <= cut for size in sizes)
            assert here.log.size == kept
            assert file.stat().st_size == here.log._segments[-1].bytes
            outcome = here.take(*raws)
            assert (outcome.duplicates, outcome.accepted) == (kept, 15 - kept)
            assert outcome.gaps == outcome.refused == ()
        shutil.rmtree(copy)


def test_a_log_that_lost_or_changed_what_was_acknowledged_does_not_start(tmp_path: Path) -> None:
    some = devices(2)
    raws = minutes(some, 6)
    whole = tmp_path / "whole"
    with world(whole, signers(some)) as here:
        for at in range(0, 12, 4):
            here.take(*raws[at : at + 4])
    data = next((whole / "raw").glob("*.log")).read_bytes()
    ends = [one.end for one in commits(data)]
    first = ends[0]
    swapped = data[: len(raws[0])], data[len(raws[0]) : 2 * len(raws[0])]
    spoilt = {
        "cut off": data[: ends[1]],
        "a bit turned": data[:40] + bytes([data[40] ^ 1]) + data[41:],
        "two messages in another order": swapped[1] + swapped[0] + data[2 * len(raws[0]) :],
        "a commit left out": data[:first] + data[ends[1] :],
        "a message left out": data[len(raws[0]) :],
        "all of it": b"",
    }
    for what, changed in spoilt.items():
        copy = tmp_path / what.replace(" ", "-")
        shutil.copytree(whole, copy)
        next((copy / "raw").glob("*.log")).write_bytes(changed)
        with pytest.raises(LogBroken):
            World(copy, signers(some))
        assert next((copy / "raw").glob("*.log")).read_bytes() == changed, "nothing is cut off from such a log"
        with pytest.raises(LogBroken):
            World(copy, signers(some))


def test_a_log_under_another_key_does_not_start(tmp_path: Path) -> None:
    some = devices(1)
    with world(tmp_path, signers(some)) as here:
        here.take(*minutes(some, 1))
    (tmp_path / "log.key").unlink()
    with pytest.raises(LogBroken):
        World(tmp_path, signers(some))


@pytest.mark.parametrize("lose", ["nothing", "tables", "arrays", "states", "hashes behind the last state"])
def test_segments_are_sealed_and_a_start_needs_none_of_what_can_be_made_anew(tmp_path: Path, lose: str) -> None:
    some = devices(6)
    with world(tmp_path, signers(some), segment_bytes=20_000) as here:
        raws = []
        for _ in range(100):
            batch = [device.next(values=[device.last] * 2, step=1_000) for device in some]
            raws += batch
            assert here.take(*batch).accepted == 6
        assert here.faults == []
    assert len(list((tmp_path / "raw").glob("*.log"))) > 3
    files = sorted((tmp_path / "tables").glob("*.parquet"))
    assert len(files) == len(list((tmp_path / "raw").glob("*.log"))) - 1
    if lose == "tables":
        files[-1].unlink()
    elif lose == "arrays":
        # A kill before a segment was sealed: its state is then missing, too.
        last = sorted((tmp_path / "raw").glob("*.keys.npy"))[-1]
        last.unlink()
        sorted((tmp_path / "state").glob("*.npz"))[-1].unlink()
    elif lose == "states":
        for file in (tmp_path / "state").glob("*.npz"):
            file.unlink()
    elif lose == "hashes behind the last state":
        with (tmp_path / "tree" / "1").open("ab") as file:
            file.write(b"torn")
    with world(tmp_path, signers(some), segment_bytes=20_000) as again:
        assert again.log.size == len(raws)
        assert again.log.read(0, 10_000) == raws
        assert again.take(*raws[-12:]).duplicates == 12
        assert again.take(*raws[:6]).duplicates == 6, "older than what is remembered: the log is asked"
        assert again.take(some[0].message(2, values=[7, 7], step=1_000)).refused[0].code == "replayed"
        assert again.take(some[3].next(values=[0, 0], step=1_000)).accepted == 1
        point = again.point()
        for leaf in (0, 5, 255, 256, 299, 511, 599):
            proof = again.log.inclusion(leaf, point.size)
            assert verify_inclusion(leaf_hash(raws[leaf]), leaf, point.size, proof, point.root)
        assert again.log.find(3, 50) == 49 * 6 + 2
        assert again.log.find(3, 101) is None
        again.tables.read(1, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
        assert len(list((tmp_path / "tables").glob("*.parquet"))) == len(files)


@pytest.mark.parametrize("room", ["tables", "arrays", "states"])
def test_a_disk_that_is_full_for_a_moment_leaves_a_log_that_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    """Whatever of a segment could not be written: it is made up for before a state above it is kept."""
    (one,) = devices(1)
    ends = {"tables": ".parquet", "arrays": ".keys.npy", "states": ".npz"}
    full = [True]

    def put(path: Path, write: Any, mode: int = 0o644) -> None:
        if full and path.name.endswith(ends[room]):
            full.pop()
            raise OSError(28, "No space left on device")
        files.put(path, write, mode)

    for place in ("log", "segment", "tables"):
        monkeypatch.setattr(f"coflex.adapters.measurements.{place}.put", put)
    with world(tmp_path, signers([one]), segment_bytes=4_000) as here:
        raws = minutes([one], 60)
        for raw in raws:
            assert here.take(raw).accepted == 1
    assert [type(fault) for fault in here.faults] == [OSError]
    ended = sorted((tmp_path / "raw").glob("*.log"))[:-1]
    assert len(ended) > 3 and all(path.with_suffix(".keys.npy").exists() for path in ended)
    assert len(list((tmp_path / "tables").glob("*.parquet"))) == len(ended)
    with world(tmp_path, signers([one]), segment_bytes=4_000) as again:
        assert again.log.read(0, 100) == raws


def opened(folder: Path) -> Log:
    log = Log(folder, ORIGIN)
    log.recover(lambda state: None, lambda raws, at: None)
    return log


@pytest.mark.spec("CERT-01")
def test_hashes_of_the_tree_that_a_full_disk_took_in_part_are_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system may write fewer bytes than it was given and say no more than how many."""
    append, write, some = os.write, os.pwrite, devices(1)
    with world(tmp_path, signers(some)) as here:
        with monkeypatch.context() as short:
            short.setattr(os, "write", lambda file, data: append(file, bytes(data)[:10]))
            short.setattr(os, "pwrite", lambda file, data, at: write(file, bytes(data)[:10], at))
            here.take(*minutes(some, 260))
        here.take(*minutes(some, 300))
        last = here.point()
        proof = here.log.inclusion(10, last.size)
        leaf = leaf_hash(here.log.read(10, 1)[0])
        assert verify_inclusion(leaf, 10, last.size, proof, last.root)


def test_what_is_missing_below_a_kept_state_is_made_anew_from_the_segments(tmp_path: Path) -> None:
    raws = [unsigned(Kind.DOCUMENT, 1, number, NOW, b"{}") + bytes(64) for number in range(1, 70_001)]
    whole = tmp_path / "whole"
    log = opened(whole)
    for at in range(0, len(raws), 14_000):
        some = raws[at : at + 14_000]
        log.append(some, list(map(leaf_hash, some)), NOW)
        log.keep(*log.roll())
    hashes, root = [log.hashes(tier, 0, 1_000) for tier in (1, 2)], parse_note(log.note).checkpoint.root
    assert list(map(len, hashes)) == [273, 1]
    log.close()
    for lose in ("tree/1", "tree/2", "half of tree/1", "the folder tree", "arrays"):
        copy = tmp_path / lose.replace("/", "-")
        shutil.copytree(whole, copy)
        if lose == "arrays":
            for number, name in enumerate(("keys", "offsets", "keys")):
                sorted((copy / "raw").glob("*.log"))[number].with_suffix(f".{name}.npy").unlink()
        elif lose == "half of tree/1":
            os.truncate(copy / "tree" / "1", 32 * 100 + 7)
        elif lose == "the folder tree":
            shutil.rmtree(copy / "tree")
        else:
            (copy / lose).unlink()
        again = opened(copy)
        assert [again.hashes(tier, 0, 1_000) for tier in (1, 2)] == hashes
        for leaf in (0, 5_000, 69_999):
            assert again.read(leaf, 1) == [raws[leaf]]
            assert again.find(1, leaf + 1, True) == leaf
            assert verify_inclusion(leaf_hash(raws[leaf]), leaf, 70_000, again.inclusion(leaf, 70_000), root)
        assert again.unsealed() == []
        again.close()
    first = next(iter(sorted((whole / "raw").glob("*.log"))))
    first.write_bytes(first.read_bytes().replace(raws[10], raws[9]))
    shutil.rmtree(whole / "tree")
    with pytest.raises(LogBroken, match="not those of the kept state"):
        opened(whole)


def test_a_message_is_found_by_signer_and_sequence_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coflex.adapters.measurements.segment._BLOCK", 7)
    raws = [unsigned(Kind.DOCUMENT, 1 + leaf % 3, 1 + leaf // 3, NOW, b"{}") + bytes(64) for leaf in range(40)]
    log = opened(tmp_path)
    for ended in (False, True):
        if not ended:
            log.append(raws, list(map(leaf_hash, raws)), NOW)
        else:
            log.keep(*log.roll())
        assert [log.find(1 + leaf % 3, 1 + leaf // 3, True) for leaf in range(40)] == list(range(40))
        assert [log.find(*asked) for asked in ((1, 15, True), (0, 1, True), (4, 1, True), (1, 1, False))] == [None] * 4
    log.close()


def test_names_of_the_tree_are_on_the_disk_before_a_state_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = devices(1)
    done: list[str] = []

    def synced(folder: Path) -> None:
        done.append(folder.name)
        files.sync_folder(folder)

    def put(path: Path, write: Any, mode: int = 0o644) -> None:
        done.append(path.suffix)
        files.put(path, write, mode)

    monkeypatch.setattr("coflex.adapters.measurements.log.sync_folder", synced)
    monkeypatch.setattr("coflex.adapters.measurements.log.put", put)
    with world(tmp_path / "new", signers([one]), segment_bytes=3_000) as here:
        here.take(*minutes([one], 30))
    assert done == [".key", tmp_path.name, ".pub", "tree", ".npz"]


@pytest.mark.parametrize("spoil", ["empty", "half", "no zip", "a byte"])
def test_a_damaged_state_is_passed_over(tmp_path: Path, spoil: str) -> None:
    (one,) = devices(1)
    raws = []
    with world(tmp_path, signers([one]), segment_bytes=4_000) as here:
        for _ in range(60):
            raws.append(one.next())
            here.take(raws[-1])
    newest = sorted((tmp_path / "state").glob("*.npz"))[-1]
    data = newest.read_bytes()
    middle = len(data) // 2
    newest.write_bytes({
        "empty": b"", "half": data[:middle], "no zip": b"\x93NUMPY" + data[6:],
        "a byte": data[:60] + bytes([data[60] ^ 1]) + data[61:],
    }[spoil])  # fmt: skip
    with world(tmp_path, signers([one]), segment_bytes=4_000) as again:
        assert again.log.read(0, 100) == raws
        assert again.take(raws[3], raws[-1]).duplicates == 2


def test_an_old_segment_that_lost_messages_is_told(tmp_path: Path) -> None:
    (one,) = devices(1)
    with world(tmp_path, signers([one]), segment_bytes=4_000) as here:
        for raw in minutes([one], 60):
            here.take(raw)
    first = sorted((tmp_path / "raw").glob("*.log"))[0]
    data = first.read_bytes()
    first.write_bytes(data[: list(commits(data))[-2].end])
    first.with_suffix(".keys.npy").unlink()
    with pytest.raises(LogBroken, match="leaves up to the next segment"):
        World(tmp_path, signers([one]))
    first.unlink()
    with pytest.raises(LogBroken, match="are gone"):
        World(tmp_path, signers([one]))


@pytest.mark.spec("CERT-01")
@pytest.mark.parametrize("name", ["checkpoint", "cosigned"])
def test_a_log_that_is_not_the_one_of_a_checkpoint_beside_it_does_not_start(tmp_path: Path, name: str) -> None:
    """Shorter than it, or grown again behind a rollback to the same size and beyond."""
    (one,) = devices(1)
    whole = tmp_path / "whole"
    with world(whole, signers([one])) as here:
        for raw in minutes([one], 10):
            here.take(raw)
        note = here.log.note
    path = next((whole / "raw").glob("*.log"))
    path.write_bytes(path.read_bytes()[: list(commits(path.read_bytes()))[4].end])
    for file in (whole / "checkpoint", whole / "cosigned"):
        file.unlink(missing_ok=True)
    with world(whole, signers([one])) as here:
        one.last = 20
        for raw in minutes([one], 7):
            here.take(raw)
        own = here.log.note
    shorter = tmp_path / "shorter"
    shutil.copytree(whole, shorter)
    path = next((shorter / "raw").glob("*.log"))
    path.write_bytes(path.read_bytes()[: list(commits(path.read_bytes()))[7].end])
    for folder, told in ((shorter, "ends at size 8, and a checkpoint of size 10"), (whole, "have the root of")):
        (folder / "checkpoint").write_bytes(b"half of o")  # as a power cut leaves it
        (folder / name).write_text(note)
        with pytest.raises(LogBroken, match=told):
            World(folder, signers([one]))
    (whole / name).write_text(own)
    with world(whole, signers([one])) as again:
        assert again.log.size == 12


def test_a_public_key_that_a_kill_left_unwritten_is_written_by_the_next_start(tmp_path: Path) -> None:
    with world(tmp_path, signers([])) as here:
        key = str(here.log.key)
    (tmp_path / "log.pub").unlink()
    with world(tmp_path, signers([])):
        assert (tmp_path / "log.pub").read_text() == f"{key}\n"


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 11))
def test_the_tree_is_the_same_however_commits_and_starts_fall(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], restart: int
) -> None:
    some = devices(1)
    folder = tmp_path_factory.mktemp("log")
    expected = CompactRange()
    here = World(folder, signers(some), segment_bytes=8_000)
    for number, size in enumerate(groups):
        if number == restart:
            here.intake.close()
            here = World(folder, signers(some), segment_bytes=8_000)
        raws = [some[0].next(values=[1], step=100) for _ in range(size)]
        assert here.take(*raws).accepted == size
        expected.append_many(list(map(leaf_hash, raws)))
        assert (here.point().size, here.point().root) == (expected.size, expected.root())
    here.intake.close()


# ---------------------------------------------------------------- tables


def rows(found: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(found.column(name).to_pylist() for name in names), strict=True))


def test_readings_are_one_table_wherever_they_are_and_versions_stay(tmp_path: Path) -> None:
    """Sealed, not sealed, corrected later: as of any size of the log."""
    some = devices(3)
    begin = datetime.fromtimestamp(some[0].start / 1000, UTC)
    with world(tmp_path, signers(some), segment_bytes=4_000) as here:
        for _ in range(12):
            here.take(*minutes(some, 1))
        size = here.log.size
        corrected = some[1].message(
            13, first=some[1].start, at=here.now + 1, values=[None, *[-7] * (COUNT - 1)], revision=1, scale=1
        )
        assert here.take(corrected).accepted == 1
        while here.tables.missing():  # the thread beside is under way
            pass
        end = begin + timedelta(minutes=12)
        assert here.tables.files()
        newer = here.tables.newer()
        assert 0 < len(newer) < 36 * COUNT
        now, before = here.tables.read(1, begin, end), here.tables.read(1, begin, end, size=size)
        assert len(now) == len(before) == 36 * COUNT
        first = begin + timedelta(minutes=1)
        assert set(rows(here.tables.read(1, begin, first, [2], size), "value", "scale", "revision")) == {(201, 0, 0)}
        told = rows(here.tables.read(1, begin, first, [2]), "value", "scale", "revision")
        assert (told[0], set(told[1:])) == ((None, 1, 1), {(-7, 1, 1)})
        assert rows(here.tables.read(1, begin, begin + timedelta(seconds=8), [3, 1]), "point", "at", "leaf") == [
            (point, begin + timedelta(seconds=4 * i), point - 1) for point in (1, 3) for i in range(2)
        ]
        assert len(here.tables.read(3, begin, end)) == len(here.tables.read(1, begin, end, [])) == 0
        assert here.tables.read(1, begin, end).schema.names == SCHEMA.names
    with world(tmp_path, signers(some)) as again:
        assert again.tables.read(1, begin, end) == now


def test_a_row_takes_a_few_bytes(tmp_path: Path) -> None:
    """600 points, an hour of noise of some W: the size that 45 days of a city would have."""
    rng = np.random.default_rng(1)
    some = [Device(point, NOW) for point in range(600)]
    with world(tmp_path, signers([])) as here:
        raws = []
        for device in some:
            base = int(rng.integers(-3_000, 200))
            for sequence in range(1, 31):
                values = (base + rng.normal(0, 6, COUNT)).astype(int).tolist()
                body = measurement(NOW + sequence * 60_000, STEP, Quantity.ACTIVE_POWER_W, values)
                raws.append(unsigned(Kind.MEASUREMENT, device.point, sequence, NOW, body) + rng.bytes(64))
        here.log.append(raws, list(map(leaf_hash, raws)), NOW)
        file = here.tables.write(here.log._segments[-1])
    assert pq.read_metadata(file).num_rows == 600 * 30 * COUNT
    assert file.stat().st_size / (600 * 30 * COUNT) < 2.6
    assert set(pq.read_table(file)["step_ms"].to_pylist()) == {STEP}


# ---------------------------------------------------------------- live values


def test_live_values_are_for_whoever_may_see_them(tmp_path: Path) -> None:
    mine, other = Device(1, NOW, owner="mine"), Device(2, NOW, owner="other")
    with world(tmp_path, signers([mine, other])) as here:
        here.now = NOW + 60_000
        seen: list[Any] = []
        every: list[Any] = []
        end = here.intake.live.subscribe(seen.extend, frozenset({"mine"}))
        here.intake.live.subscribe(every.extend, points=[2])
        here.take(mine.next(values=[1, 2, None]), other.next(values=[None] * 3))
        here.take(other.next(values=[5], first=NOW + 12_000))
        live: Live = here.intake.live
        here.intake.submit([Part(mine.next(values=[4], scale=-1, first=NOW + 20_000))]).result(20)
        here.intake.close()
        assert [(one.point, one.at, one.value) for one in seen] == [(1, NOW + 4_000, 2.0), (1, NOW + 20_000, 0.4)]
        assert [(one.point, one.at, one.value, one.unit) for one in every] == [(2, NOW + 12_000, 5.0, "unit-2")]
        assert [one.point for one in live.last([1, 2, 3])] == [1, 2]
        assert [one.point for one in live.last([1, 2], frozenset({"other"}))] == [2]
        end()
        live.put([(0, 1, NOW + 1, 9.0)])
        assert live.last([1])[0].value == 0.4, "an older value changes nothing"


# ---------------------------------------------------------------- the table of points


def test_registered_keys_are_read_from_csv_and_parquet(tmp_path: Path) -> None:
    key = keys.public_of(bytes(32))
    text = "point,public_key,owner,unit,from,until,quantities,most_kw,kind\n"
    text += f"7,{key.hex()},anna,cu-7,2026-01-01T00:00:00Z,2027-01-01T00:00:00+01:00,1 5,11.5,point\n"
    text += f"7,{key.hex()},,,,,,,party\n"
    file = tmp_path / "points.csv"
    file.write_text(text)
    known = load(file)
    row = known.row(7)
    assert row is not None
    at = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    until = round(datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp() * 1000)
    assert known.validity(row, at) == (at, until, key)
    assert known.key(row, at - 1) is None
    assert (known.measures(row, 5), known.measures(row, 2), known.most_w(row)) == (True, False, 11_500.0)
    assert known.row(7, party=True) == 1
    other = tmp_path / "points.parquet"
    pq.write_table(pa.table({"point": pa.array([1, 2], pa.uint32()), "public_key": [key, key]}), other)
    assert len(load(other)) == 2


def test_every_fault_of_the_table_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    good = bytes(32).hex()
    file.write_text(
        f"point,public_key,from,kind\n1,{good},,\n2,abcd,,\nx,{good},,\n4,{good},2026-01-01,\n5,{good},,dog\n"
    )
    with pytest.raises(Refused) as fault:
        load(file)
    assert [(one.place, one.code) for one in fault.value.findings] == [
        ("points.csv, row 3", "bad_key"),
        ("points.csv, row 4", "bad_row"),
        ("points.csv, row 5", "bad_row"),
        ("points.csv, row 6", "bad_row"),
    ]
    file.write_text("point,colour\n1,red\n")
    with pytest.raises(Refused) as fault:
        load(file)
    assert sorted(one.code for one in fault.value.findings) == ["no_column", "unknown_column"]
    with pytest.raises(CoflexError):
        load(tmp_path / "none.csv")
    assert COMMIT.size == 16
