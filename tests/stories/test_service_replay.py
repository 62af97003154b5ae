"""A day of the service, written to a store: what an auditor does with the store alone, on another machine."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from coflex.adapters.store.journal import SqlJournal
from coflex.service.replay import fingerprint
from coflex.service.verbs import VERBS
from coflex.simulation import demo
from support.markets import COMPUTED, Hand, World, play

STORE = "coflex.db"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, int]]:
    """A data folder with the demo's first sessions in it, the state it ended with, and its number of entries."""
    folder = tmp_path_factory.mktemp("data")
    journal: Any = SqlJournal(folder / STORE)
    world = World(VERBS, Hand(datetime(2026, 1, 1, tzinfo=UTC)), journal, demo.TENANT)
    for command in demo.seed(demo.demo_case(), speed=1000):
        world.sequencer.submit(command)
    play(world, COMPUTED, until=datetime(2016, 7, 5, 1, tzinfo=UTC))
    entries = journal.head().number
    state = fingerprint(world.machine)
    journal.close()
    yield folder, state, entries


def coflex(seed: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command in a process of its own with its own order of hashes; exit code and answer."""
    done = subprocess.run(
        [sys.executable, "-m", "coflex", *words, "--json"],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.spec("PLAT-05", "MKT-19")
@pytest.mark.parametrize("seed", ["1", "77"])
def test_the_journal_decided_anew_elsewhere_gives_the_same_state_and_the_same_clearings(
    day: tuple[Path, str, int], seed: str
) -> None:
    folder, state, entries = day
    code, answer = coflex(seed, "store", "replay", "--data", str(folder))
    assert (code, answer["differences"]) == (0, [])
    assert (answer["entries"], answer["state"]) == (entries, state)
    assert answer["computed"] >= 6, "plans, clearings and grid checks were computed anew"


@pytest.mark.spec("PLAT-05")
def test_a_store_that_nobody_touched_is_proved(day: tuple[Path, str, int]) -> None:
    code, answer = coflex("0", "store", "verify", "--data", str(day[0]))
    assert (code, answer["differences"], answer["entries"]) == (0, [], day[2])


@pytest.mark.spec("PLAT-05")
def test_a_byte_changed_in_a_result_is_named(day: tuple[Path, str, int], tmp_path: Path) -> None:
    changed = tmp_path / "data"
    shutil.copytree(day[0], changed)
    with sqlite3.connect(changed / STORE) as store:
        number, body = store.execute("SELECT number, body FROM entry WHERE verb = 'session.cleared'").fetchone()
        place = body.index(b"added") + 40
        body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        store.execute("UPDATE entry SET body = ? WHERE number = ?", (body, number))
    store.close()
    code, answer = coflex("0", "store", "verify", "--data", str(changed))
    assert code == 1
    assert any(f"entry {number}" in one for one in answer["differences"])
