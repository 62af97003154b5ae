"""A journal in a SQLite file whose disk fails or whose process is killed: what was acknowledged is there, whole."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from coflex.adapters.store.backup import verify
from coflex.adapters.store.journal_lock import InUse
from coflex.service.ports import StoreFull
from support.forked import Forked
from support.journals import Author, all_of, fresh, opened, scribe, sent
from support.postgres import left
from support.power import TRACE, Disk, calls

pytestmark = pytest.mark.spec("PLAT-05")

BATCHES, SIZE, PAGES = 5, 3, 20
SAMPLE = (1, 2, 4, 7)


# ---------------------------------------------------------------- failing writes and syncs, and kills, one by one


@dataclass(frozen=True)
class Run:
    """How a writer under strace went. `told`: all it told. `hit`: whether the fault came. `code`: it ended with."""

    told: list[Any]
    hit: bool
    code: int

    @property
    def acknowledged(self) -> int:
        return max((one for one in self.told if isinstance(one, int)), default=0)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A new journal, closed."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        pytest.skip("strace is left out: failing writes and syncs cannot be tried without it")
    place = tmp_path / "empty.db"
    opened(place).close()
    return place


def _under(strace: list[str], place: Path, batches: int = BATCHES, pages: int = PAGES) -> Run:
    """Let a process write under strace with these options."""
    log = place.with_suffix(".strace")
    with Forked(scribe, str(place), batches, SIZE, pages) as writer:
        assert writer.hear() == "ready"
        command = ["strace", "-p", str(writer.pid), "-o", str(log), *strace]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert tracer.stderr is not None
            if "attached" not in (said := tracer.stderr.readline()):
                pytest.skip(f"strace is left out: {said.strip()}")
            writer.signal(signal.SIGUSR1)
            told = _all(writer)
            code = writer.ended()
        finally:
            if tracer.poll() is None:
                tracer.terminate()
            tracer.wait(10)
            tracer.stderr.close()
    return Run(told, "INJECTED" in log.read_text() or code == -signal.SIGKILL, code)


def _all(writer: Forked) -> list[Any]:
    told = []
    while True:
        try:
            told.append(writer.hear())
        except EOFError:
            return told


def _faulty(empty: Path, call: str, what: str, number: int) -> tuple[Run, Path]:
    place = empty.with_name(f"{call}-{what.replace('=', '-')}-{number}.db")
    shutil.copy(empty, place)
    return _under(["-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}"], place), place


def _whole(place: Path, run: Run) -> None:
    """Everything acknowledged is there, nothing is there by half, the chain holds, and the journal goes on."""
    author = Author()
    author.several(BATCHES * SIZE)
    journal = opened(place)
    found = all_of(journal)
    assert len(found) >= run.acknowledged and len(found) % SIZE == 0, (run, len(found))
    assert found == sent(author.entries[: len(found)])
    assert verify(place).faults == ()
    rest = author.entries[len(found) :] or author.several(SIZE)
    journal.append(rest)
    assert journal.head().number == rest[-1].number
    journal.close()


def _never_again(run: Run) -> None:
    """After a fault that leaves doubt nothing more is acknowledged."""
    assert "trusted again" not in run.told
    if "broken" in run.told:
        assert run.told[-1] == "broken"


def _went_on(run: Run) -> None:
    """A disk that was full once is only full once."""
    assert "trusted again" not in run.told
    if "full" in run.told:
        assert run.told[-1] == "closed" and run.acknowledged == BATCHES * SIZE


EIO = [("fsync", "error=EIO"), ("fdatasync", "error=EIO"), ("pwrite64", "error=EIO"), ("ftruncate", "error=EIO")]
KILLS = [(call, "signal=SIGKILL") for call in ("fsync", "fdatasync", "pwrite64", "ftruncate", "unlink")]
FULL = [("pwrite64", "error=ENOSPC")]


@pytest.mark.parametrize(("call", "what"), [*EIO[1:3], KILLS[1], KILLS[2], *FULL])
def test_what_was_acknowledged_survives_a_sample_of_faults_of_the_disk(empty: Path, call: str, what: str) -> None:
    for number in SAMPLE:
        run, place = _faulty(empty, call, what, number)
        assert run.hit, (call, number, run)
        (_went_on if what == "error=ENOSPC" else _never_again)(run)
        _whole(place, run)


@pytest.mark.slow
@pytest.mark.parametrize(("call", "what"), [*EIO, *KILLS, *FULL])
def test_what_was_acknowledged_survives_every_fault_of_the_disk(empty: Path, call: str, what: str) -> None:
    number, outcomes = 1, set()
    while True:
        run, place = _faulty(empty, call, what, number)
        if not run.hit:
            break
        (_went_on if what == "error=ENOSPC" else _never_again)(run)
        _whole(place, run)
        outcomes |= {one for one in run.told if isinstance(one, str)}
        for path in place.parent.glob(place.stem + "*"):
            path.unlink()
        number += 1
    assert run.told[-1] == "closed"
    assert number > 5 or call in ("fsync", "ftruncate", "unlink")
    if (call, what) in (*FULL, *EIO[1:3]):
        assert outcomes & {"full", "broken"}


def test_a_sync_that_fails_once_ends_all_acknowledging(empty: Path) -> None:
    """The sync of the second batch: the one after the opening's."""
    calls = _under(["-e", "trace=fdatasync"], _copy(empty, "count.db"), batches=0)
    log = (empty.parent / "count.strace").read_text()
    assert calls.told == ["closed"]
    opening = len(re.findall(r"^\d* *fdatasync", log, re.M))
    run, place = _faulty(empty, "fdatasync", "error=EIO", opening + 3)
    assert run.told[-1] == "broken"
    _whole(place, run)


def test_an_append_syncs_once(empty: Path) -> None:
    counts = []
    for batches in (4, 24):
        place = _copy(empty, f"{batches}.db")
        assert _under(["-e", "trace=fsync,fdatasync"], place, batches, pages=100_000).told[-1] == "closed"
        counts.append(place.with_suffix(".strace").read_text().count("sync("))
    assert counts[1] - counts[0] == 20


def _copy(empty: Path, name: str) -> Path:
    return Path(shutil.copy(empty, empty.with_name(name)))


# ---------------------------------------------------------------- power cuts


def _cut_everywhere(empty: Path, tmp_path: Path, tries: int, step: int, seed: int) -> int:
    """Cut the power after every `step`-th call of a writer, in several ways; how many cuts there were."""
    folder = tmp_path / "disk"
    folder.mkdir()
    place = folder / "coflex.db"
    shutil.copy(empty, place)
    disk, chance, cuts, acknowledged = Disk(folder), random.Random(seed), 0, 0
    run = _under(TRACE, place, batches=8)
    assert run.told[-1] == "closed"
    told = iter(run.told)
    author = Author()
    author.several(8 * SIZE)
    for number, call in enumerate(calls(tmp_path.joinpath("disk", "coflex.strace").read_text())):
        if call.path.startswith("pipe:"):
            one = next(told)
            acknowledged = one if isinstance(one, int) else acknowledged
        disk.take(call)
        if number % step:
            continue
        for attempt in range(tries):
            left = disk.after_a_cut(None if attempt == 0 else chance)
            _holds_after_a_cut(tmp_path / f"cut-{number}-{attempt}", left, author, acknowledged)
            cuts += 1
    assert acknowledged == 8 * SIZE
    return cuts


def _holds_after_a_cut(folder: Path, left: dict[str, bytes], author: Author, acknowledged: int) -> None:
    folder.mkdir()
    for name, content in left.items():
        (folder / name).write_bytes(content)
    journal = opened(folder / "coflex.db")
    found = all_of(journal)
    journal.close()
    assert acknowledged <= len(found) and len(found) % SIZE == 0, folder.name
    assert found == sent(author.entries[: len(found)])
    assert verify(folder / "coflex.db").faults == ()
    shutil.rmtree(folder)


def test_what_was_acknowledged_survives_a_sample_of_power_cuts(empty: Path, tmp_path: Path) -> None:
    assert _cut_everywhere(empty, tmp_path, tries=2, step=13, seed=1) > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_what_was_acknowledged_survives_a_power_cut_at_any_moment(empty: Path, tmp_path: Path, seed: int) -> None:
    assert _cut_everywhere(empty, tmp_path, tries=4, step=1, seed=seed) > 300


# ---------------------------------------------------------------- no room


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 2 MB, where other users can get to as well."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small disk is left out: only root can mount one")
    folder = Path(tempfile.mkdtemp(prefix="coflex-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"a small disk is left out: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def test_a_full_disk_refuses_entries_and_takes_them_once_there_is_room(small_disk: Path) -> None:
    journal, author = opened(small_disk / "coflex.db"), Author()
    written = 0
    for _ in range(3):
        with pytest.raises(StoreFull, match=r"has no room.* Make room on its disk"):
            for _ in range(10_000):
                batch = author.several(20)
                journal.append(batch)
                written += 20
        assert journal.head().number == written
        assert journal.recover().number == written
        with pytest.raises(StoreFull):
            journal.append(batch)
        size = 2 * (1 + written // 500)
        subprocess.run(["mount", "-o", f"remount,size={size + 2}m", str(small_disk)], check=True)
        journal.append(batch)
        written += 20
    assert all_of(journal) == sent(author.entries)
    journal.close()
    assert verify(small_disk / "coflex.db").faults == ()


@pytest.fixture
def small_space(postgresql: str, small_disk: Path) -> Iterator[str]:
    """An empty journal in PostgreSQL whose entries lie on a disk of 2 MB."""
    engine = create_engine(fresh(postgresql), isolation_level="AUTOCOMMIT")
    opened(postgresql).close()
    with engine.connect() as connection:
        data = Path(str(connection.execute(text("SHOW data_directory")).scalar()))
        if not data.exists():
            pytest.skip("a small disk is left out: the server of PostgreSQL is on another machine")
        os.chown(small_disk, data.stat().st_uid, -1)
        name = f"coflex_small_{os.getpid()}"
        connection.execute(text(f"CREATE TABLESPACE {name} LOCATION '{small_disk}'"))
        connection.execute(text(f"ALTER TABLE entry SET TABLESPACE {name}"))
    engine.dispose()
    yield postgresql
    left(postgresql)
    with engine.connect() as connection:
        connection.execute(text("ALTER TABLE entry SET TABLESPACE pg_default"))
        connection.execute(text(f"DROP TABLESPACE {name}"))
    engine.dispose()


def test_a_full_disk_of_the_server_refuses_entries_and_takes_them_once_there_is_room(
    small_space: str, small_disk: Path
) -> None:
    journal, author = opened(small_space), Author()
    with pytest.raises(StoreFull, match=r"has no room.* No space left on device"):
        for _ in range(1_000):
            batch = author.several(100)
            journal.append(batch)
    written = batch[0].number - 1
    assert journal.head().number == written
    with pytest.raises(StoreFull):
        journal.append(batch)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    journal.append(batch)
    assert all_of(journal) == sent(author.entries)
    journal.close()


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    journal, author = opened(tmp_path / "coflex.db"), Author()
    journal.append(author.several(100))
    pages = journal._writer._ask("PRAGMA page_count").scalar()  # type: ignore[attr-defined]
    journal._writer._ask(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]
    batch = author.several(100)
    for _ in range(3):
        with pytest.raises(StoreFull):
            journal.append(batch)
        assert journal.head().number == 100
    journal._writer._ask("PRAGMA max_page_count = 100000")  # type: ignore[attr-defined]
    journal.append(batch)
    assert all_of(journal) == sent(author.entries)
    journal.close()


# ---------------------------------------------------------------- one writer


def hold(tell: Any, place: str) -> None:
    """Keep a journal open, and a child that lives longer."""
    journal = opened(place)
    journal.append(Author().several(2))
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    tell(child)
    time.sleep(30)


def test_a_second_server_is_refused_by_a_sentence_that_names_the_first(tmp_path: Path) -> None:
    place = tmp_path / "coflex.db"
    (tmp_path / "link.db").symlink_to(place)
    with Forked(hold, str(place)) as first:
        child = first.hear()
        try:
            for path in (place, tmp_path / "link.db"):
                with pytest.raises(InUse, match=rf"in use by another server \(process {first.pid}\)\. Let one server"):
                    opened(path)
            first.kill()
            journal = opened(place)  # the child of the one that was killed lives, and holds nothing
            assert journal.head().number == 2
            journal.close()
        finally:
            os.kill(child, signal.SIGKILL)
    assert not (tmp_path / "coflex.db.lock").exists()


def test_two_journals_of_one_process_are_two_writers(tmp_path: Path) -> None:
    first = opened(tmp_path / "coflex.db")
    with pytest.raises(InUse):
        opened(tmp_path / "coflex.db")
    first.append(Author().several(1))
    first.close()
    second = opened(tmp_path / "coflex.db")
    assert second.head().number == 1
    second.close()
