"""The care of a store: copies of a store that serves, back again into either database, upgrades, and proofs."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, create_engine, inspect, text

from coflex.adapters.store import SqlStore
from coflex.adapters.store import backup as care
from coflex.adapters.store.backup import backup, migrate, probe, restore, verify
from coflex.adapters.store.journal_lock import InUse
from coflex.adapters.store.tables import JOURNAL, METADATA, VERSION, VERSION_TABLE
from coflex.domain.errors import CoflexError
from coflex.domain.party import Party, Role
from coflex.domain.product import PricingRule, Product
from coflex.domain.reading import Quality, Reading
from coflex.domain.statement import SettlementLine
from coflex.service import chain
from coflex.service.ports import Change, Note, Personal
from support.journals import START, Author, all_of, fresh, opened, sent
from support.postgres import emptied, left

INFINITE = Reading("u1", START, float("inf"), Quality.MEASURED)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care, "WAIT_S", 0.3)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    return tmp_path / "coflex.db" if request.param == "sqlite" else fresh(request.getfixturevalue("postgresql"))


def _filled(place: str | Path) -> Author:
    """A journal with something in every table."""
    journal, author = opened(place), Author()
    journal.append(author.several(23))
    for number in range(3):
        data = f"person {number}".encode()
        author.next(
            "party.register",
            f"p{number}",
            body=b'{"personal_commitment":"%b"}' % sha256(b"salt" + data).hexdigest().encode(),
            changes=[Change("party", f"p{number}", b"{}"), Change("unit", "u", None if number == 1 else b"{}")],
            notes=[Note("party.registered", f"p{number}", ("dso", "*")), Note("told", "x", ()), Note("a", "b", ("c",))],
            private=[Personal(f"p{number}", b"salt", data)],
        )
    journal.append(author.entries[23:])
    journal.close()
    return author


def _rows(place: str | Path, tables: Sequence[Table] = METADATA.sorted_tables) -> dict[str, list[Any]]:
    """Everything in the tables of a store."""
    engine = create_engine(place if isinstance(place, str) else f"sqlite:///{place}")
    with engine.connect() as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key.columns))]
            for table in tables
        }
    engine.dispose()
    return found


# ---------------------------------------------------------------- copies


@pytest.mark.spec("PLAT-04")
def test_a_store_goes_from_a_file_to_a_server_and_back_and_is_the_same(postgresql: str, tmp_path: Path) -> None:
    author = _filled(tmp_path / "first.db")
    store = SqlStore(tmp_path / "first.db")
    with store.transaction() as work:
        work.add([Party("p", "P", (Role.DSO,)), INFINITE, Reading("u2", START, float("nan"), Quality.MISSING)])
        work.put_document("d", {"z": [1, None]})
    store.close()
    server = emptied(postgresql)
    backup(tmp_path / "first.db", tmp_path / "one.copy")
    restore(tmp_path / "one.copy", server)
    copied = backup(server, tmp_path / "two.copy")
    assert (copied.entries, copied.bytes) == (26, (tmp_path / "two.copy").stat().st_size)
    restore(tmp_path / "two.copy", tmp_path / "last.db")
    expected = _rows(tmp_path / "first.db")
    assert sum(map(len, expected.values())) > 80
    for place in (server, tmp_path / "one.copy", tmp_path / "two.copy", tmp_path / "last.db"):
        assert _rows(place) == expected
        assert verify(place).faults == ()
    journal = opened(tmp_path / "last.db")
    journal.append(author.several(2))
    assert all_of(journal) == sent(author.entries)
    journal.close()


def test_a_copy_of_a_store_that_serves_shows_one_instant(place: str | Path, tmp_path: Path) -> None:
    journal, author = opened(place), Author()
    journal.append(author.several(500))
    stop, heads = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            journal.append(author.several(5))

    writer = threading.Thread(target=write)
    writer.start()
    for number in range(3):
        copied = backup(place, tmp_path / f"{number}.copy")
        proof = verify(tmp_path / f"{number}.copy")
        assert proof.faults == () and proof.entries == copied.entries
        heads.append(proof.entries)
        assert verify(place).faults == ()
    stop.set()
    writer.join(30)
    assert heads == sorted(heads) and heads[0] >= 500 and all(head % 5 == 0 for head in heads)
    assert all_of(journal) == sent(author.entries)
    journal.close()


def test_a_copy_is_one_file_that_can_be_read_where_nothing_can_be_written(place: str | Path, tmp_path: Path) -> None:
    _filled(place)
    said: list[str] = []
    folder = tmp_path / "copies"
    folder.mkdir()
    backup(place, folder / "a.copy", said.append)
    assert said
    assert [path.name for path in folder.iterdir()] == ["a.copy"]
    assert (folder / "a.copy").read_bytes()[18:20] == b"\1\1"  # SQLite's mark of a file without a log
    folder.chmod(0o500)
    restore(folder / "a.copy", tmp_path / "again.db")
    folder.chmod(0o700)
    assert _rows(tmp_path / "again.db") == _rows(place)


def test_a_copy_never_takes_the_place_of_a_file(place: str | Path, tmp_path: Path) -> None:
    _filled(place)
    there = tmp_path / "there"
    there.write_text("mine")
    with pytest.raises(CoflexError, match="is there already"):
        backup(place, there)
    assert there.read_text() == "mine"
    with pytest.raises(CoflexError, match=r"cannot be written|unable to open"):
        backup(place, tmp_path / "nowhere" / "copy")


@pytest.mark.parametrize("content", [b"", b"name,kW\nu1,5\n" * 100, b"SQLite format 3\0" + b"rubbish" * 500])
def test_what_is_no_store_is_neither_copied_nor_restored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "offers.csv").write_bytes(content)
    for act in (
        lambda: backup(tmp_path / "offers.csv", tmp_path / "copy"),
        lambda: restore(tmp_path / "offers.csv", tmp_path / "new.db"),
        lambda: verify(tmp_path / "offers.csv"),
        lambda: verify(tmp_path / "missing.db"),
        lambda: restore(tmp_path / "missing.db", tmp_path / "new.db"),
        lambda: backup(tmp_path / "missing.db", tmp_path / "copy"),
    ):
        with pytest.raises(CoflexError, match="is no coflex store"):
            act()
    assert [path.name for path in tmp_path.iterdir()] == ["offers.csv"]
    assert (tmp_path / "offers.csv").read_bytes() == content


# ---------------------------------------------------------------- back again


def test_only_an_empty_place_is_restored_into(place: str | Path, tmp_path: Path) -> None:
    _filled(place)
    backup(place, tmp_path / "copy")
    expected = _rows(place)
    with pytest.raises(CoflexError, match=r"already\. Restore into an empty|tables already"):
        restore(tmp_path / "copy", place)
    assert _rows(place) == expected


def test_a_log_that_was_left_over_makes_a_place_not_empty(tmp_path: Path) -> None:
    _filled(tmp_path / "coflex.db")
    backup(tmp_path / "coflex.db", tmp_path / "copy")
    (tmp_path / "new.db-wal").write_bytes(b"old")
    with pytest.raises(CoflexError, match=r"new\.db-wal is there already"):
        restore(tmp_path / "copy", tmp_path / "new.db")


def test_a_store_is_replaced_when_asked_and_its_files_stay(place: str | Path, tmp_path: Path) -> None:
    author = _filled(place)
    backup(place, tmp_path / "copy")
    journal = opened(place)
    journal.append(author.several(4))
    later = all_of(journal)
    with pytest.raises(InUse, match=r"writes to|in use by another server"):
        restore(tmp_path / "copy", place, replace=True)
    assert all_of(journal) == later
    journal.close()
    restore(tmp_path / "copy", place, replace=True)
    journal = opened(place)
    assert all_of(journal) == later[:-4]
    journal.close()
    if isinstance(place, Path):
        assert verify(place.with_name("coflex.db.replaced")).entries == 30
        with pytest.raises(CoflexError, match="from another restore"):
            restore(tmp_path / "copy", place, replace=True)


def test_tables_of_somebody_else_are_never_dropped(postgresql: str, tmp_path: Path) -> None:
    _filled(tmp_path / "coflex.db")
    backup(tmp_path / "coflex.db", tmp_path / "copy")
    engine = create_engine(emptied(postgresql))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (x int)"))
    for replace in (False, True):
        with pytest.raises(CoflexError, match=r"tables already|is no coflex store"):
            restore(tmp_path / "copy", postgresql, replace=replace)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["theirs"]
    engine.dispose()
    emptied(postgresql)


def test_a_restore_that_fails_leaves_the_place_as_it_was(
    place: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(place)
    backup(place, tmp_path / "copy")
    expected = _rows(place)

    def fail(said: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path / "copy", place, replace=True, progress=fail)
    assert _rows(place) == expected
    assert not list(tmp_path.glob("*.part*")) + list(tmp_path.glob("*.replaced*"))


# ---------------------------------------------------------------- upgrades


OLD_PRODUCT = (
    "INSERT INTO product VALUES ('mfrr', 'local', 'active_energy', '[\"up\"]', '400', '0.1', '0.35', 900, 1, 1, 900, "
    "{yes}, {no})"
)
OLD_LINE = (
    "INSERT INTO settlement_line VALUES ('pv', 1467705600, 'local-1', '80', 'dso', 'sp', 'up', 'high 5 of 10', "
    "'delivered as ordered', '25', '-40', '-15', '25', '25', '2.00', '0')"
)


@pytest.fixture
def old(request: pytest.FixtureRequest, place: str | Path) -> Iterator[str | Path]:
    """A store as version 0001 left it, with data."""
    from alembic import command
    from alembic.config import Config

    if isinstance(place, str):
        emptied(place)
    engine = create_engine(place if isinstance(place, str) else f"sqlite:///{place}")
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
        config.set_main_option("script_location", "coflex.adapters.store:migrations")
        command.upgrade(config, "0001")
        yes, no = ("true", "false") if isinstance(place, str) else ("1", "0")
        connection.execute(text(OLD_PRODUCT.format(yes=yes, no=no)))
        connection.execute(text(OLD_LINE))
        connection.execute(text(f"INSERT INTO party VALUES ('dso', 'DSO', '[\"{Role.DSO.value}\"]')"))
    engine.dispose()
    yield place
    if isinstance(place, str):
        emptied(place)


def _old_data_is_there(place: str | Path) -> None:
    store = SqlStore(place)
    with store.transaction() as work:
        (product,) = work.all(Product)
        (party,) = work.all(Party)
        (line,) = work.all(SettlementLine)
    store.close()
    assert (line.award, line.rule, line.amount_eur) == ("at 80 EUR/MWh", "", Decimal("2.00"))
    assert (line.baseline_kwh, line.measured_kwh, line.remark) == (-40, -15, "delivered as ordered")
    assert party == Party("dso", "DSO", (Role.DSO,))
    said = [getattr(product, name) for name in Product.__dataclass_fields__]
    silent = Product(*said[:13])
    assert (product, product.id, product.pricing) == (silent, "mfrr", PricingRule.PAY_AS_BID)
    assert repr(product) == repr(silent)


@pytest.mark.parametrize("how", ["store", "journal", "migrate"])
def test_an_old_store_is_brought_up_with_its_data(old: str | Path, how: str) -> None:
    assert (probe(old).shape, probe(old).entries, probe(old).newest_shape) == ("0001", 0, VERSION)
    with pytest.raises(CoflexError, match=r"has version 0001; .* Migrate the store"):
        verify(old)
    if how == "migrate":
        changed = migrate(old)
        assert (changed.before, changed.after) == ("0001", VERSION)
        assert migrate(old).before == VERSION
    elif how == "journal":
        journal = opened(old)
        journal.append(Author().several(3))
        journal.close()
        assert probe(old).entries == 3
    _old_data_is_there(old)
    assert verify(old).faults == ()


def test_an_old_copy_is_brought_up_while_it_is_restored(postgresql: str, old: str | Path, tmp_path: Path) -> None:
    if isinstance(old, str):
        with pytest.raises(CoflexError, match="Migrate the store"):
            backup(old, tmp_path / "copy")
        return
    assert backup(old, tmp_path / "copy").entries == 0
    restore(tmp_path / "copy", tmp_path / "new.db")
    restore(tmp_path / "copy", emptied(postgresql))
    for place in (tmp_path / "new.db", postgresql):
        assert probe(place).shape == VERSION
        _old_data_is_there(place)


def test_a_store_is_not_migrated_under_a_server(place: str | Path) -> None:
    journal = opened(place)
    with pytest.raises(InUse):
        migrate(place)
    journal.close()
    assert migrate(place).before == VERSION


def test_a_look_at_a_store_tells_who_writes_to_it(place: str | Path) -> None:
    if isinstance(place, str):
        emptied(place)
    before = probe(place)
    assert (before.shape, before.entries, before.last_at, before.writer) == ("", 0, None, "")
    assert before.kind == ("SQLite" if isinstance(place, Path) else "PostgreSQL")
    assert all(part.isdigit() for part in before.version.split("."))
    assert not isinstance(place, Path) or not place.exists()
    journal, author = opened(place), Author()
    journal.append(author.several(3))
    seen = probe(place)
    assert (seen.shape, seen.entries, seen.last_at) == (VERSION, 3, author.entries[-1].at)
    assert seen.writer.startswith("process " if isinstance(place, Path) else "session ")
    journal.close()
    assert probe(place).writer == ""
    if isinstance(place, str):
        left(place)


# ---------------------------------------------------------------- proofs


def _flipped(value: Any) -> Iterator[Any]:
    """A value with one bit of each of its bytes turned, with a byte more, and a byte less."""
    if value is None:
        yield from ("x", b"x")
    elif isinstance(value, int):
        yield from (value ^ 1, value ^ (1 << 40), -value - 1, str(value), value + 0.5)
    elif isinstance(value, str):
        data = value.encode()
        yield from ((data[:i] + bytes([byte ^ 1]) + data[i + 1 :]).decode() for i, byte in enumerate(data))
        yield from (value + "x", value.encode(), None)
        if value:
            yield value[:-1]
    else:
        yield from (value[:i] + bytes([byte ^ 128]) + value[i + 1 :] for i, byte in enumerate(value))
        yield from (value + b"x", None)
        if value:
            yield value[:-1]


def _changes(place: Path, table: str) -> Iterator[tuple[str, Any, Any, Any]]:
    """(column, row, old, new) of every small change of every value in a few rows of a table."""
    with closing(sqlite3.connect(place)) as connection:
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()
        names = [one[1] for one in connection.execute(f"PRAGMA table_info({table})")]
    for row in (rows[0], rows[-1], rows[len(rows) // 2]):
        for name, value in zip(names, row, strict=True):
            for new in _flipped(value):
                yield name, dict(zip(names, row, strict=True)), value, new


def _tampered(place: Path, table: str, name: str, row: dict[str, Any], new: Any) -> bool:
    """Change a value in the file; whether the file takes it."""
    where = " AND ".join(f"{key} IS :{key}" for key in row)
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        try:
            done = connection.execute(f"UPDATE {table} SET {name} = :_new_ WHERE {where}", {**row, "_new_": new})
        except (sqlite3.IntegrityError, OverflowError):
            return False
        stored = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}", row).fetchone()[0]
        return done.rowcount == 1 and stored == 0


def _named(row: dict[str, Any], new: Any, column: str) -> set[str]:
    """Places that name what was changed: by what it was, or by what it is now."""
    now = {**row, column: new}
    if "salt" in row:
        return {f"personal data of '{one['subject']}' in '{one['tenant']}'" for one in (row, now)}
    return {f"entry {one['number']}" for one in (row, now)}


@pytest.mark.spec("REG-11")
@pytest.mark.parametrize("table", ["entry", "version", "note", "feed", "personal"])
def test_every_changed_byte_is_found_and_its_entry_is_named(tmp_path: Path, table: str) -> None:
    place = tmp_path / "coflex.db"
    _filled(place)
    changed = 0
    for column, row, old, new in _every(list(_changes(place, table)), 4):
        if not _tampered(place, table, column, row, new):
            continue
        faults = verify(place).faults
        told = {fault.place for fault in faults}
        assert told & _named(row, new, column), (column, old, new, faults)
        assert all(fault.message.endswith(".") for fault in faults)
        back = {**row, column: new}
        assert _tampered(place, table, column, back, old), (column, old, new)
        changed += 1
    assert changed > 15
    assert verify(place).faults == ()


def _every(changes: list[Any], step: int) -> list[Any]:
    """Of the changes of a long value every so many, of a short one all."""
    by_value: dict[Any, list[Any]] = {}
    for change in changes:
        by_value.setdefault((change[0], change[2]), []).append(change)
    return [one for several in by_value.values() for one in (several if len(several) < 12 else several[::step])]


GONE = [
    ("DELETE FROM entry WHERE number = 12", "entry 13", "Entry 12 is missing"),
    ("DELETE FROM version WHERE number = 10", "entry 10", "not what was acknowledged"),
    ("DELETE FROM note WHERE number = 10", "entry 10", "not what was acknowledged"),
    ("DELETE FROM feed WHERE number = 10", "entry 10", "is not in the feed of 'fsp'"),
    ("INSERT INTO feed VALUES ('north', 'spy', 10, 0)", "entry 10", "did not address to it"),
    ("INSERT INTO feed VALUES ('north', 'spy', 99, 0)", "entry 99", "has no entry"),
    ("INSERT INTO version VALUES ('north', 'unit', 'u', 10, 1, 1, x'00')", "entry 10", "not the entry's"),
    ("INSERT INTO version VALUES ('north', 'unit', 'u', 0, 0, 1, x'00')", "entry 0", "has no entry"),
    ("INSERT INTO note VALUES (99, 0, 'k', 's', 'a', x'00')", "entry 99", "has no entry"),
    ("UPDATE version SET id = 'u11' WHERE number = 10", "entry 10", "not what was acknowledged"),
    ("DELETE FROM entry", "entry 1", "has no entry"),
]  # fmt: skip


@pytest.mark.spec("REG-11")
@pytest.mark.parametrize(("act", "entry", "reason"), GONE)
def test_what_was_taken_away_or_slipped_in_is_found(place: str | Path, act: str, entry: str, reason: str) -> None:
    _filled(place)
    engine = create_engine(place if isinstance(place, str) else f"sqlite:///{place}")
    with engine.begin() as connection:
        connection.execute(text(act.replace("x'00'", r"'\x00'") if isinstance(place, str) else act))
    engine.dispose()
    faults = verify(place).faults
    assert any(fault.place == entry and reason in fault.message for fault in faults), faults


@pytest.mark.spec("REG-11")
def test_a_chain_written_anew_from_a_changed_entry_on_has_another_head(tmp_path: Path) -> None:
    """Who can write the whole file can write a sound one; the head that was noted elsewhere tells."""
    author = _filled(tmp_path / "coflex.db")
    noted = verify(tmp_path / "coflex.db").head
    assert noted == author.entries[-1].digest
    forger = Author()
    for entry in author.entries:
        command = entry.command if entry.number != 3 else forger.next(body=b"forged").command
        if entry.number != 3:
            forger.take(command, entry.status, entry.reply, entry.changes, entry.notes, entry.at - START)
    assert forger.entries[-1].digest != noted
    assert list(chain.breaks(forger.entries)) == []


@pytest.mark.spec("REG-11")
@pytest.mark.parametrize("step", [2503, pytest.param(311, marks=pytest.mark.slow)])
def test_bytes_flipped_in_the_file_itself_are_found_or_change_nothing(tmp_path: Path, step: int) -> None:
    place, broken = tmp_path / "coflex.db", tmp_path / "broken.db"
    _filled(place)
    data, found = place.read_bytes(), 0
    expected = _rows(place, JOURNAL)
    for position in range(0, len(data), step):
        broken.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        try:
            faults = verify(broken).faults
        except CoflexError:
            found += 1
            continue
        if faults:
            found += 1
            continue
        assert _rows(broken, JOURNAL) == expected, position
    assert found > 0
