"""A journal in PostgreSQL whose link fails: every entry is there once or not at all, and the journal knows which."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from coflex.adapters.store.journal_lock import InUse
from coflex.service.ports import StoreBroken, StoreLost
from support.journals import Author, all_of, fresh, opened, sent
from support.link import Link
from support.postgres import with_driver

pytestmark = pytest.mark.spec("PLAT-05")

FAULTS = {
    "before": [3],
    "during": [3, 6],
    "after": [6],
    "silent before": [3],
    "silent after": [6],
}


@pytest.fixture(params=["pg8000", "psycopg"])
def server(request: pytest.FixtureRequest) -> str:
    """The URL of an empty journal; its server is asked directly."""
    return with_driver(fresh(request.getfixturevalue("postgresql")), request.param)


def _skip_silence(server: str, fault: str) -> None:
    if fault.startswith("silent") and "psycopg" in server:
        pytest.skip("psycopg waits for an answer as long as the other machine lives")


@pytest.fixture
def link(server: str) -> Iterator[Link]:
    with Link(server) as link:
        yield link


def _ask(url: str, question: str) -> object:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        answer = connection.execute(text(question))
        found = answer.scalar() if answer.returns_rows else None
    engine.dispose()
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_entries_of_a_commit_that_was_cut_are_there_once_or_not_at_all(link: Link, server: str, fault: str) -> None:
    _skip_silence(server, fault)
    journal, author = opened(link.url, wait_s=5.0, patience_s=1.0), Author()
    journal.append(author.several(3))
    link.fault = fault
    batch = author.several(3)
    with pytest.raises(StoreLost):
        journal.append(batch)
    with pytest.raises(StoreLost, match="is lost"):
        journal.append(batch)
    head = journal.recover()
    assert head.number in FAULTS[fault]
    assert head.digest == author.entries[head.number - 1].digest
    if head.number == 3:
        journal.append(batch)
    journal.append(author.several(2))
    assert all_of(journal) == sent(author.entries)
    journal.close()
    assert _ask(server, "SELECT count(*) FROM entry") == 8


@pytest.mark.parametrize("statement", [b"BEGIN", b"INSERT INTO"])
@pytest.mark.parametrize("fault", ["before", "during", "after", "silent before", "silent after"])
def test_before_the_commit_nothing_is_there(link: Link, server: str, fault: str, statement: bytes) -> None:
    _skip_silence(server, fault)
    journal, author = opened(link.url, wait_s=5.0, patience_s=1.0), Author()
    link.marker, link.fault = statement, fault
    with pytest.raises(StoreLost):
        journal.append(author.several(3))
    assert journal.recover().number == 0
    journal.append(author.entries)
    assert all_of(journal) == sent(author.entries)
    journal.close()


def _flap(link: Link, rounds: int, seed: int) -> None:
    """Write through a link that breaks after a random count of bytes, as the sequencer does."""
    chance, author = random.Random(seed), Author()
    journal = opened(link.url, wait_s=5.0, patience_s=2.0)
    head, waiting, lost = 0, author.several(5), 0
    for _ in range(rounds):
        link.budget = chance.randrange(1, 12_000)
        try:
            journal.append(waiting)
            head = waiting[-1].number
        except StoreLost:
            lost += 1
            while True:
                try:
                    found = journal.recover()
                    break
                except StoreLost:
                    continue
            assert found.number in (head, waiting[-1].number)
            assert found.number == 0 or found.digest == author.entries[found.number - 1].digest
            head = found.number
        if head == author.entries[-1].number:
            waiting = author.several(chance.randrange(1, 8))
    link.budget = None
    journal.recover()
    if head < author.entries[-1].number:
        journal.append(waiting)
    assert lost > rounds // 10
    assert all_of(journal) == sent(author.entries)
    journal.close()


def test_a_link_that_flaps_loses_and_doubles_nothing(link: Link) -> None:
    _flap(link, 15, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_link_that_flaps_for_long_loses_and_doubles_nothing(link: Link, seed: int) -> None:
    _flap(link, 100, seed)


def test_while_the_server_is_away_the_journal_says_so_and_comes_back(link: Link) -> None:
    journal, author = opened(link.url, patience_s=1.0), Author()
    journal.append(author.several(2))
    link.refuses = True
    link.cut()
    with pytest.raises(StoreLost):
        journal.append(author.several(1))
    for _ in range(2):
        with pytest.raises(StoreLost):
            journal.recover()
        with pytest.raises(StoreLost):
            journal.head()
        with pytest.raises(StoreLost):
            journal.entries()
    link.refuses = False
    assert journal.recover().number == 2
    journal.append(author.entries[2:])
    assert all_of(journal) == sent(author.entries)
    journal.close()


def test_a_session_ended_by_the_server_is_taken_up_again(server: str) -> None:
    journal, author = opened(server), Author()
    journal.append(author.several(1))
    end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    assert _ask(server, end) is True
    with pytest.raises(StoreLost):
        journal.append(author.several(1))
    assert journal.recover().number == 1
    journal.append(author.entries[1:])
    journal.close()


def test_a_server_that_takes_no_writes_is_waited_for(server: str) -> None:
    journal, author = opened(server), Author()
    name = make_url(server).database
    _ask(server, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        with pytest.raises(StoreLost, match="takes no writes now"):
            journal.recover()
    finally:
        engine = create_engine(server)
        with engine.connect() as connection:
            connection.execute(text("SET TRANSACTION READ WRITE"))
            connection.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
            connection.commit()
        engine.dispose()
    assert journal.recover().number == 0
    journal.append(author.several(1))
    journal.close()


def test_who_lost_the_lock_to_another_server_writes_nothing_any_more(link: Link, server: str) -> None:
    journal, author = opened(link.url), Author()
    journal.append(author.several(2))
    link.cut()
    other = opened(server, wait_s=5.0)
    third = author.several(1)
    other.append(third)
    with pytest.raises(StoreLost):
        journal.append(third)
    for _ in range(2):
        with pytest.raises(StoreBroken, match="in use by another server"):
            journal.recover()
    with pytest.raises(StoreBroken):
        journal.append(third)
    other.append(author.several(1))
    assert all_of(other) == sent(author.entries)
    other.close()
    journal.close()


def test_a_second_server_is_refused_by_a_sentence_that_names_the_first(server: str) -> None:
    first = opened(server)
    with pytest.raises(InUse, match=r"in use by another server \(session \d+ from .*\)\. Let one server write"):
        opened(server)
    first.append(Author().several(1))
    first.close()
    second = opened(server)
    assert second.head().number == 1
    second.close()


def test_a_server_that_starts_while_the_one_before_ends_waits_for_it(server: str) -> None:
    first = opened(server)
    ending = threading.Timer(0.4, first.close)
    ending.start()
    second = opened(server, wait_s=10.0)
    ending.join()
    second.append(Author().several(1))
    second.close()


def test_settings_of_the_server_do_not_weaken_a_commit(server: str) -> None:
    name = make_url(server).database
    _ask(server, f"ALTER DATABASE {name} SET synchronous_commit = off")
    _ask(server, f"ALTER DATABASE {name} SET statement_timeout = 900")
    try:
        journal = opened(server)
        connection = journal._writer._connection
        assert connection is not None
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        journal.close()
    finally:
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text(f"ALTER DATABASE {name} RESET ALL"))
        engine.dispose()
