"""One contract for every journal: in memory, in a SQLite file, and in PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event

from coflex.adapters.store import bulk
from coflex.adapters.store.journal import SqlJournal
from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.adapters.store.journal_reader import JournalReader
from coflex.adapters.store.tables import ENTRY, METADATA
from coflex.domain.errors import CoflexError
from coflex.service.chain import FIRST
from coflex.service.ports import (
    Brief,
    Change,
    Entry,
    FeedItem,
    Head,
    Journal,
    KeysTaken,
    Note,
    Personal,
    StoreBroken,
    Version,
)
from coflex.service.sequencer import key_digest
from support.journals import SECOND, START, Author, all_of, cleared, fresh, kept, opened, sent
from support.postgres import with_driver


@pytest.fixture(params=["sqlite", "postgresql", "psycopg"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """An empty place in a database."""
    if request.param == "sqlite":
        return tmp_path / "coflex.db"
    url = fresh(request.getfixturevalue("postgresql"))
    return with_driver(url, "psycopg") if request.param == "psycopg" else url


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    place = tmp_path / "coflex.db" if request.param == "sqlite" else fresh(request.getfixturevalue("postgresql"))
    journal = opened(place)
    yield journal
    journal.close()


# ---------------------------------------------------------------- the port against a plain list


IDS = st.sampled_from(["1", "2", "ü", "a b", "Z", "\U0001d518", "\uffee"])
BODIES = st.binary(max_size=8)
READERS = st.lists(st.sampled_from(["p", "q", "r", "*"]), max_size=3).map(tuple)
CHANGES = st.lists(
    st.builds(Change, st.sampled_from(["unit", "product"]), IDS, st.none() | BODIES),
    max_size=3,
    unique_by=lambda change: (change.kind, change.id),
)
NOTES = st.lists(st.builds(Note, st.sampled_from(["told", "asked"]), IDS, READERS, BODIES), max_size=2)
PRIVATE = st.lists(st.builds(Personal, IDS, st.binary(min_size=1, max_size=4), st.none() | BODIES), max_size=2)
COMMANDS = st.fixed_dictionaries({
    "tenant": st.sampled_from(["north", "south"]),
    "verb": st.sampled_from(["unit.register", "offer.submit", "offer.withdraw"]),
    "subject": st.sampled_from(["", "s1", "s2"]),
    "party": st.sampled_from(["p", "q"]),
    "by": st.sampled_from(["p", "mo"]),
    "body": BODIES,
    "changes": CHANGES,
    "notes": NOTES,
    "private": PRIVATE,
    "reply": BODIES,
    "after": st.sampled_from([timedelta(0), timedelta(microseconds=1), SECOND]),
    "key": st.booleans(),
})  # fmt: skip
BATCHES = st.lists(st.lists(COMMANDS, min_size=1, max_size=5), max_size=6)


def _written(author: Author, commands: list[dict[str, Any]]) -> list[Entry]:
    made = []
    for told in commands:
        key = f"key {len(author.entries)}" if told["key"] else None
        made.append(author.next(**{**told, "key": key}))
    return made


def _versions(entries: list[Entry]) -> list[Version]:
    return [
        Version(entry.command.tenant, change.kind, change.id, entry.number, entry.at, change.body)
        for entry in entries
        for change in entry.changes
    ]


def _newest(versions: list[Version]) -> list[Version]:
    """Of every record its last version, unless that one says that it ended."""
    last = {(one.tenant, one.kind, one.id): one for one in versions}
    return [last[name] for name in sorted(last) if last[name].body is not None]


def _feed(entries: list[Entry], tenant: str, party: str) -> list[FeedItem]:
    return [
        FeedItem(entry.number, place, entry.at, note)
        for entry in entries
        if entry.command.tenant == tenant
        for place, note in enumerate(entry.notes)
        if {party, "*"} & set(note.audience)
    ]


def _brief(entry: Entry) -> Brief:
    command = entry.command
    return Brief(entry.number, entry.at, command.verb, command.party, command.body, entry.reply)


def _holds(journal: Journal, entries: list[Entry]) -> None:
    """Every question of the port is answered as from a plain list."""
    last = entries[-1] if entries else None
    assert journal.head() == (Head(last.number, last.at, last.digest) if last else Head(0, None, FIRST))
    assert journal.entries(0, len(entries) + 5) == sent(entries)
    assert journal.entries(2, 3) == sent(entries[2:5])
    versions = _versions(entries)
    assert list(journal.latest()) == _newest(versions)
    for tenant in ("north", "south"):
        for subject in ("", "s1"):
            verbs = ("offer.submit", "offer.withdraw")
            about = [e for e in entries if (e.command.tenant, e.command.subject) == (tenant, subject)]
            expected = [_brief(entry) for entry in sent(about) if entry.command.verb in verbs]
            assert list(journal.of_subject(tenant, verbs, subject)) == expected
        for at in {START, *(entry.at for entry in entries)}:
            then = [one for one in versions if (one.tenant, one.kind) == (tenant, "unit") and one.at <= at]
            assert journal.as_of(tenant, "unit", at) == _newest(then)
        for party in ("p", "r", "nobody"):
            feed = _feed(entries, tenant, party)
            assert journal.feed(tenant, party, (0, 0), 100) == [
                one for one in feed if (one.number, one.position) > (0, 0)
            ]
            for item in feed:
                place = (item.number, item.position)
                assert journal.feed(tenant, party, place, 2) == [f for f in feed if (f.number, f.position) > place][:2]
    for name in {(one.tenant, one.kind, one.id) for one in versions}:
        assert journal.history(*name) == [one for one in versions if (one.tenant, one.kind, one.id) == name]
    _keys_and_persons(journal, entries)


def _keys_and_persons(journal: Journal, entries: list[Entry]) -> None:
    keyed = [entry for entry in entries if entry.command.key is not None]
    scopes = [(e.command.tenant, e.command.by, str(e.command.key)) for e in keyed]
    assert journal.recent_keys(10_000) == scopes
    assert journal.recent_keys(2) == scopes[-2:]
    for e, scope in zip(keyed, scopes, strict=True):
        assert journal.key(*scope) == (*scope, e.number, key_digest(e.command), e.status, e.reply)
    told = {(e.command.tenant, one.subject): one for e in entries for one in e.command.private}
    for (tenant, subject), one in told.items():
        assert journal.personal(tenant, subject) == (None if one.body is None else one)
    assert journal.personal("north", "nobody") is None


@pytest.mark.spec("PLAT-04", "PLAT-05", "REG-11")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=BATCHES)
def test_every_question_is_answered_as_from_a_plain_list(journal: Journal, batches: list[list[dict[str, Any]]]) -> None:
    if isinstance(journal, MemoryJournal):
        journal = MemoryJournal()
    else:
        assert isinstance(journal, SqlJournal)
        place = journal._place.url.render_as_string(hide_password=False)
        cleared(place)
        journal.recover()
    author = Author()
    for commands in batches:
        journal.append(_written(author, commands))
    _holds(journal, author.entries)


@pytest.mark.spec("PLAT-05")
def test_what_was_written_is_there_when_it_is_opened_again(place: str | Path) -> None:
    author = Author()
    for batch in range(3):
        journal = opened(place)
        assert all_of(journal) == sent(author.entries)
        journal.append(author.several(100 + batch))
        journal.append([author.next(private=[Personal("ü", b"salt", b"data")])])
        if batch == 1:
            _keys_and_persons(journal, author.entries)
        journal.close()
    reader = JournalReader(place)
    assert all_of(reader) == sent(author.entries)  # type: ignore[arg-type]
    reader.close()


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 1024, 1025, 2000])
def test_batches_of_every_size_are_written_whole(journal: Journal, count: int) -> None:
    author = Author()
    journal.append(author.several(count, size=14))
    journal.append([])
    journal.append(author.several(1))
    assert all_of(journal) == sent(author.entries)
    assert journal.head().number == count + 1


def test_bodies_too_large_for_one_statement_go_in_several_of_one_transaction(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST_TEXT", 10_000)
    author = Author()
    journal.append(author.several(40, size=1400))
    journal.append([author.next(body=bytes(range(256)) * 200)])
    assert all_of(journal) == sent(author.entries)
    assert max(len(table.columns) for table in METADATA.tables.values()) * bulk.MOST_IN_A_STATEMENT < 32_766


def test_the_widest_texts_and_every_byte_come_back(journal: Journal) -> None:
    odd = "\u0001 ' \" \\ % $1 ? :name \u2028 \U0010ffff ß"
    author = Author()
    author.next(odd, odd, tenant=odd, party=odd, body=bytes(range(256)), key=odd, reply=b"")
    author.next(changes=[Change(odd, odd, b"\0\xff")], notes=[Note(odd, odd, (odd, "x"), b"\n")], tenant=odd)
    journal.append(author.entries)
    assert all_of(journal) == sent(author.entries)
    assert [item.note.kind for item in journal.feed(odd, odd, (0, 0), 9)] == [odd]
    assert journal.history(odd, odd, odd)[0].body == b"\0\xff"


# ---------------------------------------------------------------- what is refused


def test_entries_that_do_not_continue_are_refused_and_the_journal_goes_on(journal: Journal) -> None:
    author = Author()
    journal.append(author.several(3))
    ahead = author.several(2)
    for wrong in ([ahead[1]], [author.entries[2]], [ahead[0], author.entries[0]], [ahead[0], ahead[0]]):
        with pytest.raises(StoreBroken, match="does not follow entry"):
            journal.append(wrong)
    assert journal.head().number == 3
    journal.append(ahead)
    assert all_of(journal) == sent(author.entries)


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("zero character", {"subject": "u\0"}),
    ("zero character", {"key": "\0"}),
    ("zero character", {"changes": [Change("unit", "u\0", b"")]}),
    ("zero character", {"private": [Personal("\0", b"", b"")]}),
    ("writes a record twice", {"changes": [Change("unit", "u", b"1"), Change("unit", "u", b"2")]}),
    ("id of one line", {"notes": [Note("told", "u", ("a", ""))]}),
    ("id of one line", {"notes": [Note("told", "u", ("a\nb",))]}),
]


@pytest.mark.parametrize(("sentence", "told"), WRONG)
def test_what_no_table_can_give_back_is_refused_before_anything_is_written(
    journal: Journal, sentence: str, told: dict[str, Any]
) -> None:
    author = Author()
    good = author.next()
    wrong = author.next(**told)
    with pytest.raises(ValueError, match=sentence):
        journal.append([good, wrong])
    assert journal.head().number == 0
    journal.append([good])
    assert journal.head().number == 1


@pytest.mark.spec("PLAT-05")
def test_a_key_is_never_taken_twice_and_the_journal_names_it_and_goes_on(journal: Journal) -> None:
    author = Author()
    journal.append([author.next(key="k"), author.next(key="k", by="other"), author.next(key="k", tenant="south")])
    batch = [author.next(), author.next(key="new"), author.next(key="k"), author.next(key="k", tenant="south")]
    with pytest.raises(KeysTaken, match="used long ago") as fault:
        journal.append(batch)
    assert fault.value.keys == (("north", "dso", "k"), ("south", "dso", "k"))
    with pytest.raises(ValueError, match="the same key"):
        journal.append([batch[0], batch[1], replace(batch[1], number=6)])
    assert journal.entries(0) == sent(author.entries[:3])
    journal.append(batch[:2])
    assert journal.entries(0) == sent(author.entries[:5])


@pytest.mark.spec("PLAT-05")
def test_after_a_foreign_entry_nothing_is_acknowledged_any_more(place: str | Path) -> None:
    journal, author = opened(place), Author()
    journal.append(author.several(2))
    engine = create_engine(place if isinstance(place, str) else f"sqlite:///{place}")
    with engine.begin() as connection:
        row = {column.name: b"" if str(column.type) == "BLOB" else 3 for column in ENTRY.columns}
        texts = ("tenant", "verb", "subject", "party", "by_party", "actor", "key")
        connection.execute(ENTRY.insert(), {**row, **dict.fromkeys(texts, "x")})
    engine.dispose()
    entries = author.several(1)
    for _ in range(2):
        with pytest.raises(StoreBroken, match="has entries that this server did not write"):
            journal.append(entries)
    with pytest.raises(StoreBroken):
        journal.recover()
    journal.close()


# ---------------------------------------------------------------- feed, keys, personal data


def test_a_feed_read_in_pages_is_the_whole_feed_each_note_once(journal: Journal) -> None:
    author = Author()
    for number in range(40):
        audience = [("a",), ("*",), ("a", "*"), ("b",), ("b", "a", "a")][number % 5]
        author.next(notes=[Note("n", str(number), audience), Note("m", str(number), ("a",))][: 1 + number % 2])
    journal.append(author.entries)
    read: list[FeedItem] = []
    place = (0, -1)
    while page := journal.feed("north", "a", place, 7):
        read += page
        place = (page[-1].number, page[-1].position)
    assert read == _feed(author.entries, "north", "a")
    assert journal.feed("south", "a", (0, -1), 7) == []


def test_a_key_is_found_however_old(journal: Journal) -> None:
    author = Author()
    journal.append(author.several(30))
    seventh = author.entries[6]
    told = (7, key_digest(seventh.command), seventh.status, seventh.reply)
    assert journal.key("north", "fsp", "k7") == ("north", "fsp", "k7", *told)
    assert journal.key("north", "dso", "k7") is None
    assert journal.key("south", "fsp", "k7") is None


@pytest.mark.spec("REG-10")
def test_erased_personal_data_is_in_no_byte_of_the_store(tmp_path: Path) -> None:
    journal, author = opened(tmp_path / "coflex.db"), Author()
    secret, second = b"Erika Mustermann, Heidestrasse 17", b"Erika Gabler, Koeln"
    journal.append(author.several(300))
    journal.append([author.next(private=[Personal("erika", b"first salt", secret)])])
    journal.append([author.next(private=[Personal("erika", b"other salt", second)])])
    assert journal.personal("north", "erika") == Personal("erika", b"other salt", second)
    journal.append([author.next(private=[Personal("erika", b"", None)])])
    assert journal.personal("north", "erika") is None
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(found) > 100_000
    for gone in (secret, second, b"first salt", b"other salt"):
        assert gone not in found
    journal.close()


@pytest.mark.spec("REG-10")
def test_data_that_a_reader_keeps_in_the_log_is_erased_with_the_next_entry(tmp_path: Path) -> None:
    journal, author = opened(tmp_path / "coflex.db"), Author()
    journal.append([author.next(private=[Personal("erika", b"salt", b"Erika Mustermann")])])
    reader = JournalReader(tmp_path / "coflex.db")
    with reader._reading() as connection:
        connection.execute(ENTRY.select()).all()
        journal.append([author.next(private=[Personal("erika", b"", None)])])
    journal.append([author.next()])
    assert b"Mustermann" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    reader.close()
    journal.close()


# ---------------------------------------------------------------- threads, time and the log


def test_readers_of_other_threads_see_whole_batches_and_never_wait(journal: Journal) -> None:
    author, stop, seen, faults = Author(), threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            try:
                head = journal.head().number
                entries = journal.entries(max(0, head - 40), 100)
                assert head % 20 == 0 and entries[-1].number % 20 == 0 if entries else head == 0
                newest = list(journal.latest())
                assert len(newest) % 2 == 0
                seen.append(head)
            except BaseException as fault:
                faults.append(fault)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(25):
        journal.append(author.several(20))
        time.sleep(0.002)
    stop.set()
    for reader in readers:
        reader.join(30)
    assert faults == []
    assert len(seen) > 3
    assert all_of(journal) == sent(author.entries)


def test_many_entries_leave_a_short_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coflex.adapters.store import journal_writer

    monkeypatch.setattr(journal_writer, "MOST_PAGES_IN_LOG", 100)
    journal, author = opened(tmp_path / "coflex.db"), Author()
    for _ in range(60):
        journal.append(author.several(20))
    log = (tmp_path / "coflex.db-wal").stat().st_size
    assert log < 400 * 4096 < (tmp_path / "coflex.db").stat().st_size * 4
    assert all_of(journal) == sent(author.entries)
    journal.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coflex.db"]


def test_an_append_takes_few_statements(place: str | Path) -> None:
    journal, author = opened(place), Author()
    said: list[str] = []
    event.listen(
        journal._writer._engine, "before_cursor_execute", lambda c, cursor, text, *rest: said.append(text[:12])
    )
    journal.append(author.several(256))
    assert len(said) <= 6, said
    journal.close()


@pytest.mark.slow
@pytest.mark.spec("PLAT-05")
def test_a_restart_reads_a_hundred_thousand_entries_in_less_than_two_seconds(tmp_path: Path) -> None:
    journal, author = opened(tmp_path / "coflex.db"), Author()
    for _ in range(50):
        journal.append(author.several(2000))
    journal.close()
    author.entries.clear()

    def restart() -> float:
        began = time.process_time()
        journal = opened(tmp_path / "coflex.db")
        assert journal.head().number == 100_000
        assert sum(1 for _ in journal.latest()) == 10_000
        assert sum(1 for _ in journal.of_subject("north", ["offer.submit"], "session-1")) == 100_000
        assert len(journal.recent_keys(1_000_000)) == 100_000
        took = time.process_time() - began
        journal.close()
        return took

    assert min(restart() for _ in range(3)) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_entries_are_written_by_the_ten_thousand(place: str | Path, busy: bool) -> None:
    """Beside a thread that never rests, a switch between threads may take 5 ms: few statements, few switches."""
    journal, author, stop = opened(place), Author(), threading.Event()
    batches = [author.several(2000) for _ in range(5)]

    def spin() -> None:
        while not stop.is_set():
            pass

    other = threading.Thread(target=spin, daemon=True)
    if busy:
        other.start()
    began = time.perf_counter()
    for batch in batches:
        journal.append(batch)
    rate = 10_000 / (time.perf_counter() - began)
    stop.set()
    journal.close()
    assert rate > (3_000 if busy else 10_000)


def test_a_reader_refuses_what_is_no_store_of_this_version(tmp_path: Path) -> None:
    with pytest.raises(CoflexError, match="is no coflex store"):
        JournalReader(tmp_path / "nothing.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CoflexError, match="cannot be locked"):
        SqlJournal(tmp_path / "nowhere" / "coflex.db")
    with pytest.raises(CoflexError, match="keeps no store in mysql"):
        SqlJournal("mysql://root@localhost/coflex")


def test_the_memory_forgets_what_a_journal_does_not_keep() -> None:
    journal, author = MemoryJournal(), Author()
    journal.append([author.next(private=[Personal("x", b"s", b"b")])])
    (entry,) = journal.entries()
    assert entry == kept(author.entries[0])
    assert (entry.command.private, entry.command.form, entry.command.expects) == ((), None, None)
    assert replace(entry, digest=b"") != entry
