"""Signatures checked by processes of their own: the same verdicts as here, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflex.adapters.measurements import verifying
from coflex.adapters.measurements.check import check, here
from coflex.adapters.measurements.verifying import FEW, Verifiers
from support.measuring import NOW, Device, signers

DEVICES = 3
PUBLICS = [Device(point, NOW).public for point in range(DEVICES)]


@pytest.fixture(scope="module")
def verifiers() -> Iterator[Verifiers]:
    with Verifiers(2) as some:
        yield some


def asked(choices: list[tuple[int, int, int]]) -> tuple[list[bytes], list[bytes], list[bool]]:
    """Keys, messages and verdicts, from (who signs, whose key it is asked of, which byte is altered or -1)."""
    publics, raws, verdicts = [], [], []
    for signer, owner, altered in choices:
        raw = bytearray(Device(signer, NOW).next(step=1_000, values=[1, 2, 3]))
        if altered >= 0:
            # The length stands in bytes 2 and 3: altered there, it would be another message or none.
            raw[(4 + altered) % len(raw) if (4 + altered) % len(raw) not in (2, 3) else 4] ^= 1
        publics.append(PUBLICS[owner])
        raws.append(bytes(raw))
        verdicts.append(signer == owner and altered < 0)
    return publics, raws, verdicts


CHOICES = st.lists(
    st.tuples(st.integers(0, DEVICES - 1), st.integers(0, DEVICES - 1), st.one_of(st.just(-1), st.integers(0, 400))),
    max_size=4 * FEW,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=CHOICES)
def test_their_verdicts_are_those_of_this_thread(verifiers: Verifiers, choices: list[tuple[int, int, int]]) -> None:
    publics, raws, verdicts = asked(choices)
    assert list(verifiers(publics, raws)) == verdicts
    assert here(publics, raws) == verdicts


def test_a_batch_that_holds_all_kinds_of_faults_is_judged_alike(verifiers: Verifiers) -> None:
    known = signers([Device(point, NOW) for point in range(DEVICES)])
    good = [Device(point, NOW).next(step=1_000, values=[1]) for point in range(DEVICES) for _ in range(FEW)]
    altered = good[0][:-1] + bytes([good[0][-1] ^ 1])
    stranger = Device(99, NOW).next(step=1_000, values=[1])
    batches = [b"".join([*good, altered, stranger, good[1]]) + b"rest", b"", b"".join(good[:2]), stranger]
    told = check(batches, known, verifiers)
    assert told == check(batches, known)
    codes = [[one.code for one in messages] for messages in told]
    assert codes == [
        [""] * len(good) + ["wrong_signature", "unknown_point", "", "bad_format"], ["bad_format"], ["", ""],
        ["unknown_point"],
    ]  # fmt: skip


def test_a_killed_process_costs_no_verdict_and_another_one_takes_its_place() -> None:
    publics, raws, verdicts = asked([(0, 0, -1), (1, 0, -1), (2, 2, -1), (0, 0, 30)] * FEW)
    with Verifiers(1) as some:
        for _ in range(3):
            assert list(some(publics, raws)) == verdicts
            (pid,) = some.pids
            os.kill(pid, signal.SIGKILL)
            assert list(some(publics, raws)) == verdicts
            assert list(some(publics, raws)) == verdicts
            assert some.pids and some.pids != [pid]


@pytest.mark.parametrize("many", [FEW, 2_000])
def test_a_process_that_does_not_answer_is_waited_for_so_long_and_ended(
    monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Stopped before it reads: also where the batch is more than a pipe holds."""
    monkeypatch.setattr(verifying, "PATIENCE_S", 0.3)
    monkeypatch.setattr(verifying, "EACH_S", 0.0)
    (raw,) = asked([(0, 0, -1)])[1]
    with Verifiers(1) as some:
        (pid,) = some.pids
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        assert list(some([PUBLICS[0], PUBLICS[1]] * many, [raw, raw] * many)) == [True, False] * many
        assert 0.3 <= time.monotonic() - began < 10
        assert not _runs(pid)
        monkeypatch.setattr(verifying, "PATIENCE_S", 60.0)  # for the next one to begin, however slow the machine is
        assert list(some(PUBLICS[:1] * FEW, [raw] * FEW)) == [True] * FEW
        (other,) = some.pids
        assert other != pid
        os.kill(other, signal.SIGSTOP)
    assert not _runs(other)


def test_who_waits_for_a_process_while_they_are_closed_is_served_here_and_begins_none() -> None:
    publics, raws, verdicts = asked([(0, 0, -1), (0, 1, -1)] * FEW)
    told: list[list[bool]] = []
    some = Verifiers(1)
    helper = some._idle.get()  # as while it is asked
    begun = threading.Barrier(4)

    def ask() -> None:
        begun.wait()
        told.append(list(some(publics, raws)))

    waiting = [threading.Thread(target=ask) for _ in range(3)]
    for thread in waiting:
        thread.start()
    begun.wait()
    time.sleep(0.05)
    some.close()
    some._idle.put(helper)
    for thread in waiting:
        thread.join(20)
    assert told == [verdicts] * 3
    assert helper.process is None


def test_many_threads_ask_a_few_processes_while_these_are_killed() -> None:
    lots = [asked([(i % DEVICES, j % DEVICES, -1) for j in range(FEW + i)]) for i in range(6)]
    wrong: list[int] = []
    with Verifiers(2) as some:

        def ask(place: int) -> None:
            publics, raws, verdicts = lots[place]
            wrong.extend(place for _ in range(40) if list(some(publics, raws)) != verdicts)

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(lots))]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for pid in some.pids:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for thread in threads:
            thread.join()
    assert wrong == []


def test_none_is_left_when_they_are_closed_and_who_asks_then_is_served_here() -> None:
    publics, raws, verdicts = asked([(0, 0, -1), (0, 1, -1)] * FEW)
    some = Verifiers(2)
    pids = some.pids
    assert len(pids) == 2
    some.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(some(publics, raws)) == verdicts
    assert some.pids == []


def test_they_end_with_the_process_that_asks_however_it_ends() -> None:
    program = (
        "import time\nfrom coflex.adapters.measurements.verifying import Verifiers\n"
        "print(*Verifiers(2).pids, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdout is not None
        pids = [int(one) for one in asker.stdout.readline().split()]
        assert len(pids) == 2
        asker.kill()
    end = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """A process that ended and that nobody waited for is one no more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
