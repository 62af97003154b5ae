"""Workers of this machine and of a cluster, and the folder of results: all answers once, whatever goes wrong."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from coflex.adapters.workers import results
from coflex.adapters.workers.dask import DaskWorkers
from coflex.adapters.workers.local import LocalWorkers
from coflex.adapters.workers.results import ResultFolder
from coflex.domain.errors import CoflexError, GridFailure


def square_or_die(number: int) -> int:
    """Ends its process at 13, as the system ends one that wants too much memory."""
    if number == 13:
        os._exit(9)
    if number == 12:
        raise GridFailure("No solution.", "Look at the loads.")
    return number * number


def threads(_: int) -> tuple[str | None, int]:
    return os.environ.get("OPENBLAS_NUM_THREADS"), os.getpid()


def slowly(number: int) -> int:
    time.sleep(0 if number == 0 else 60)
    return number


# ---------------------------------------------------------------- processes


def test_every_job_gets_its_answer_once_and_an_error_stays_with_its_job() -> None:
    found = dict(LocalWorkers(2).run(square_or_die, [3, 12, 5, 0]))
    assert {at: answer for at, answer in found.items() if at != 1} == {0: 9, 2: 25, 3: 0}
    assert isinstance(found[1], GridFailure)
    assert found[1].remedy == "Look at the loads."


def test_a_process_that_dies_takes_only_its_own_job_with_it() -> None:
    answers = list(LocalWorkers(2).run(square_or_die, [1, 13, 2, 3, 13, 4]))
    assert sorted(at for at, _ in answers) == [0, 1, 2, 3, 4, 5]
    found = dict(answers)
    assert [found[at] for at in (0, 2, 3, 5)] == [1, 4, 9, 16]
    for at in (1, 4):
        answer = found[at]
        assert isinstance(answer, CoflexError)
        assert "ended without an answer" in answer.message


def test_processes_compute_with_one_thread_and_leave_the_settings_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    found = [answer for _, answer in LocalWorkers(1).run(threads, [0, 1])]
    assert {answer[0] for answer in found if isinstance(answer, tuple)} == {"1"}
    assert len({answer[1] for answer in found if isinstance(answer, tuple)} | {os.getpid()}) == 2
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"


def test_work_that_is_left_early_is_ended() -> None:
    before = set(active_children())
    begun = time.monotonic()
    work = LocalWorkers(2).run(slowly, [0, 1, 2, 3])
    assert next(work) == (0, 0)
    work.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 30
    assert set(active_children()) <= before


def test_within_one_with_the_same_process_does_all_and_is_ended_after() -> None:
    before = set(active_children())
    with LocalWorkers(1) as workers:
        first = dict(workers.run(threads, [0]))
        second = dict(workers.run(threads, [0, 1]))
        assert set(first.values()) == set(second.values())
    assert set(active_children()) <= before


def test_no_process_is_no_worker() -> None:
    with pytest.raises(CoflexError, match="one process at least"):
        LocalWorkers(0)
    assert list(LocalWorkers(3).run(square_or_die, [])) == []


# ---------------------------------------------------------------- the cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with one worker on this machine, ended by their ids."""
    pytest.importorskip("distributed", reason="needs the extra cluster")
    place = tmp_path_factory.mktemp("cluster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place}
    cli = [sys.executable, "-m"]
    port = address.rpartition(":")[2]
    scheduler = [*cli, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = [*cli, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    started = [subprocess.Popen(scheduler, **quiet), subprocess.Popen(worker, **quiet)]
    try:
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)


@pytest.mark.spec("PLAT-04")
def test_a_cluster_gives_what_the_processes_here_give(cluster: str) -> None:
    # Roots of squares, and of a number that has none: functions and numbers that no coflex is needed for.
    numbers = [4.0, 9.0, -1.0, 16.0]
    there = dict(DaskWorkers(cluster, 30.0).run(math.sqrt, numbers))
    here = dict(LocalWorkers(1).run(math.sqrt, numbers))
    for found in (there, here):
        assert {at: found[at] for at in (0, 1, 3)} == {0: 2.0, 1: 3.0, 3: 4.0}
        failed = found[2]
        assert isinstance(failed, CoflexError)
        assert "ValueError" in failed.message


def test_equal_jobs_are_done_each(cluster: str) -> None:
    assert dict(DaskWorkers(cluster, 30.0).run(math.sqrt, [4.0, 4.0])) == {0: 2.0, 1: 2.0}
    assert list(DaskWorkers(cluster, 30.0).run(math.sqrt, [])) == []


def test_a_scheduler_that_is_not_there_is_waited_for_no_longer_than_said() -> None:
    pytest.importorskip("distributed", reason="needs the extra cluster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(CoflexError, match="There is no Dask scheduler") as refused:
        list(DaskWorkers(f"tcp://127.0.0.1:{port}", 1.0).run(math.sqrt, [4.0]))
    assert time.monotonic() - begun < 15
    assert "dask scheduler" in refused.value.remedy


def test_without_the_package_the_remedy_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CoflexError, match="not installed") as refused:
        list(DaskWorkers("tcp://127.0.0.1:1").run(math.sqrt, [4.0]))
    assert "coflex[cluster]" in refused.value.remedy


# ---------------------------------------------------------------- results


KEY = "0123456789abcdef" * 4
FOUND = {"rows": [{"a": 0.1, "b": [1, None, "ü"]}]}


def test_a_result_is_found_again_by_its_key(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "runs")
    assert folder.read("one", KEY) == (None, "")
    folder.write("one", KEY, FOUND)
    assert folder.read("one", KEY) == (FOUND, "")
    assert folder.read("one", KEY[::-1]) == (None, "")
    assert [file.name for file in (tmp_path / "runs").iterdir()] == [f"one-{KEY[:16]}.json"]


def test_every_cut_of_a_file_is_seen(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    file = folder.write("one", KEY, FOUND)
    whole = file.read_bytes()
    for length in range(len(whole.rstrip())):
        file.write_bytes(whole[:length])
        found, fault = folder.read("one", KEY)
        assert found is None, length
        assert str(file) in fault


def test_a_number_that_was_changed_by_hand_is_seen(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    file = folder.write("one", KEY, FOUND)
    file.write_text(file.read_text().replace("0.1", "0.2"))
    assert folder.read("one", KEY) == (None, f"{file} was changed after it was written")


def test_the_beginning_of_a_key_is_not_the_key(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path)
    other = KEY[:16] + "f" * 48
    file = folder.write("one", other, FOUND)
    assert folder.read("one", KEY) == (None, f"{file} is the result of something else")


def test_a_write_that_is_interrupted_leaves_the_result_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ResultFolder(tmp_path)
    folder.write("one", KEY, FOUND)

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.write("one", KEY, {"rows": []})
    assert folder.read("one", KEY) == (FOUND, "")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_result_is_as_readable_as_other_files(tmp_path: Path) -> None:
    beside = tmp_path / "beside.json"
    beside.write_text("{}")
    file = ResultFolder(tmp_path).write("one", KEY, FOUND)
    assert file.stat().st_mode == beside.stat().st_mode
    assert json.loads(file.read_text())["result"] == FOUND
