"""One contract for every store: in memory, in a SQLite file, and in PostgreSQL where a server and a driver are."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect

from coflex.adapters.store import MemoryStore, SqlStore
from coflex.adapters.store.mapping import KEYS, LAYOUTS
from coflex.adapters.store.tables import METADATA, VERSION, VERSION_TABLE
from coflex.domain import errors
from coflex.domain.clearing import Award, Holding, MeritLine, Reason, Status
from coflex.domain.errors import CoflexError, SoldTwice
from coflex.domain.need import Violation
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.party import Party, Role
from coflex.domain.product import Product
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality, Reading
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.process.ports import Event, Store
from support.postgres import cleared, emptied

ROME = ZoneInfo("Europe/Rome")
START = datetime(2016, 10, 30, 1, 15, tzinfo=UTC)  # 02:15 in Rome for the second time that night
QUARTER = timedelta(minutes=15)
AWARD = Award(
    "local-1", "o1", 1, "fsp", "dso", "p", None, "g1", Direction.UP, START, 40, Decimal("9.50"), Decimal("1E+1"),
    Status.DEFINITIVE,
)  # fmt: skip


# ---------------------------------------------------------------- the stores under contract


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """An empty place that several stores, or processes, can open."""
    return tmp_path / "coflex.db" if request.param == "sqlite" else emptied(request.getfixturevalue("postgresql"))


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore(ROME)
        return
    place = tmp_path / "coflex.db" if request.param == "sqlite" else cleared(request.getfixturevalue("postgresql"))
    opened = SqlStore(place, ROME)
    yield opened
    opened.close()


# ---------------------------------------------------------------- records of every type

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False).map(lambda number: number + 0.0),  # a zero of either sign comes back as zero
    bool: st.booleans(),
    Decimal: st.decimals(allow_nan=False),
    datetime: st.integers(-(2**32), 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
}
FINITE = {**SCALARS, float: SCALARS[float].filter(np.isfinite)}


def _values(hint: Any, scalars: dict[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Any value of a field, found from its hint without the code under test."""
    if hint in scalars:
        return scalars[hint]
    inside = getattr(hint, "__args__", ())
    if getattr(hint, "__origin__", None) is tuple:
        return st.lists(_values(inside[0], FINITE), max_size=3).map(tuple)
    if type(None) in inside:
        return st.none() | _values(inside[0], scalars)
    if hasattr(hint, "__members__"):
        return st.sampled_from(list(hint))
    return _records(hint, FINITE)


def _records(kind: type[Any], scalars: dict[Any, st.SearchStrategy[Any]] = SCALARS) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: _values(hints[field.name], scalars) for field in fields(kind)})


@cache
def _batches(kind: type[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(_records(kind), max_size=4, unique_by=lambda record: _key(record))


def _key(record: Any) -> tuple[Any, ...]:
    """The key by which records sort: None first, instants in time, everything else by its value."""
    values = [getattr(record, name) for name in (f.name for f in fields(record)) if name in KEYS[type(record)]]
    return tuple("" if value is None else str(value) if isinstance(value, Decimal) else value for value in values)


KINDS = [kind for kind in KEYS if kind is not Event]


@pytest.mark.spec("PLAT-04")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_records_of_every_type_come_back_exactly_and_in_the_order_of_their_keys(
    store: Store, kind: type[Any], data: st.DataObject
) -> None:
    records = data.draw(_batches(kind))
    with store.transaction() as work:
        work.remove(kind)
        work.add(records)
    with store.transaction() as work:
        read = work.all(kind)
    pairs = zip(read, sorted(records, key=_key), strict=True)
    assert [(kept, given) for kept, given in pairs if repr(kept) != repr(given)] == []


# ---------------------------------------------------------------- single facts of the contract


def holding(unit: str = "u1", start: datetime = START, session: str = "local-1") -> Holding:
    return Holding(unit, start, session, "dso", Direction.UP, 10, "o1", Status.PRELIMINARY)


def write(store: Store, *records: object) -> None:
    with store.transaction() as work:
        work.add(records)


def read(store: Store, kind: type[Any], **where: object) -> tuple[Any, ...]:
    with store.transaction() as work:
        return work.all(kind, **where)


def test_a_reading_that_is_missing_comes_back_as_not_a_number(store: Store) -> None:
    write(store, Reading("u1", START, float("nan"), Quality.MISSING), Reading("u2", START, 1.5, Quality.MEASURED))
    missing, measured = read(store, Reading)
    assert np.isnan(missing.power_kw)
    assert measured.power_kw == 1.5
    assert [r.unit for r in read(store, Reading, power_kw=(float("nan"), 7.0))] == ["u1"]


def test_every_digit_of_a_price_comes_back(store: Store) -> None:
    write(store, AWARD)
    (award,) = read(store, Award)
    assert (str(award.bid_eur_mwh), str(award.price_eur_mwh)) == ("9.50", "1E+1")
    assert (award.unit, award.group) == (None, "g1")


def test_local_instants_come_back_as_the_same_instants_in_utc(store: Store) -> None:
    repeated = datetime(2016, 10, 30, 2, 15, tzinfo=ROME)  # the hour that the clock shows twice
    write(store, holding(start=repeated), holding(start=repeated.replace(fold=1)))
    assert [h.start for h in read(store, Holding)] == [START - timedelta(hours=1), START]
    assert all(h.start.tzinfo is UTC for h in read(store, Holding))


def test_an_offer_keeps_its_steps_and_its_absent_limits(store: Store) -> None:
    step = OfferStep(1, START, Decimal("-3.10"), (5, 0, 7))
    offer = Offer("o", 1, START, "s", "fsp", "p", Direction.DOWN, "u", None, (step,), max_periods=4)
    write(store, offer)
    assert read(store, Offer) == (offer,)


def test_filters_mean_equality_and_a_list_means_one_of_these(store: Store) -> None:
    lines = [holding(f"u{i}", START + j * QUARTER, f"s{j}") for i in range(4) for j in range(3)]
    write(store, *reversed(lines))
    assert read(store, Holding) == tuple(lines)
    assert read(store, Holding, unit="u2") == tuple(h for h in lines if h.unit == "u2")
    assert read(store, Holding, unit=("u3", "u0"), session=["s1"]) == (lines[1], lines[10])
    assert read(store, Holding, start=START, direction=Direction.UP) == tuple(lines[::3])
    assert read(store, Holding, unit=()) == ()


def test_a_filter_on_none_finds_what_is_absent(store: Store) -> None:
    of_unit = replace(AWARD, unit="u1", group=None)
    write(store, AWARD, of_unit)
    assert read(store, Award, unit=None) == (AWARD,)
    assert read(store, Award, unit=("u1", None)) == (AWARD, of_unit)
    write(store, offer := Offer("o", 1, START, "s", "f", "p", Direction.UP, "u", None, ()))
    assert read(store, Offer, group=None, exclusive=None) == (offer,)
    assert read(store, Offer, group="g") == ()


def test_keys_sort_as_code_points_in_every_store(store: Store) -> None:
    names = ["Zebra", "a", "b-1", "b1", "a b", "ä", "é", "B", "\U0001d518", "\uffee", "10", "9", "_"]
    write(store, *(Party(name, name, (Role.OBSERVER,)) for name in names))
    assert [party.id for party in read(store, Party)] == sorted(names)


def test_remove_deletes_what_matches_and_says_how_many(store: Store) -> None:
    write(store, *(holding(f"u{i}", session=f"s{i % 2}") for i in range(5)))
    with store.transaction() as work:
        assert work.remove(Holding, session="s0") == 3
        assert work.remove(Holding, session="s0") == 0
    assert [h.unit for h in read(store, Holding)] == ["u1", "u3"]


@pytest.mark.spec("MKT-09")
def test_a_unit_held_for_a_quarter_hour_is_not_sold_again(store: Store) -> None:
    write(store, holding("u0"), holding("u1"))
    with pytest.raises(SoldTwice, match=r"'u1' .* 2016-10-30T02:15\+01:00"):
        write(store, holding("u2"), holding("u1", session="global-1"))
    assert read(store, Holding) == (holding("u0"), holding("u1"))


@pytest.mark.spec("MKT-09")
def test_one_batch_cannot_sell_a_unit_twice_either(store: Store) -> None:
    with pytest.raises(SoldTwice, match="'u1'"):
        write(store, holding("u1"), holding("u1", session="global-1"))
    assert read(store, Holding) == ()


def test_any_other_key_that_is_there_already_is_refused_by_name(store: Store) -> None:
    write(store, AWARD)
    sentence = r"^Award \(session local-1, .*, start 2016-10-30T02:15\+01:00\) is already there\. Remove it first"
    with pytest.raises(CoflexError, match=sentence):
        write(store, replace(AWARD, quantity_kw=3))
    assert read(store, Award) == (AWARD,)


def test_a_refused_batch_leaves_the_transaction_as_it_was(store: Store) -> None:
    with store.transaction() as work:
        work.add([holding("u1"), AWARD])
        with pytest.raises(CoflexError):
            work.add([holding("u2"), Party("p", "P", ()), AWARD])
        work.add([holding("u3")])
    assert read(store, Holding) == (holding("u1"), holding("u3"))
    assert read(store, Party) == ()


def test_an_exception_undoes_every_act_of_its_transaction(store: Store) -> None:
    series = Series(("a",), Axis(START, 2), np.array([[1.0, 2.0]]))
    with store.transaction() as work:
        work.add([holding("u1"), holding("u2")])
        work.put_document("d", {"n": 1})
        work.event("opened", START, "market", "fsp", "session local-1")
    with pytest.raises(ZeroDivisionError), store.transaction() as work:
        assert work.remove(Holding, unit="u1") == 1
        work.add([holding("u1", session="other"), holding("u3")])
        assert work.remove(Holding, unit=("u2", "u3")) == 2
        work.put_document("d", {"n": 2})
        work.put_series("s", series)
        work.event("closed", START, "market", "fsp", "session local-1")
        assert len(work.all(Event)) == 2
        raise ZeroDivisionError
    with store.transaction() as work:
        assert work.all(Holding) == (holding("u1"), holding("u2"))
        assert (work.document("d"), work.series("s")) == ({"n": 1}, None)
        work.event("closed", START, "market", "fsp", "again")
    assert [(e.number, e.detail) for e in read(store, Event)] == [(1, "session local-1"), (2, "again")]


def test_documents_are_replaced_and_come_back_equal(store: Store) -> None:
    body = {"z": [1, 2.5, None, True], "a": {"ü": "text"}, "price": "9.50"}
    with store.transaction() as work:
        assert work.document("rules") is None
        work.put_document("rules", {"old": 1})
        work.put_document("rules", body)
        assert work.document("rules") == body
        with pytest.raises(CoflexError, match="document 'rules' is no JSON"):
            work.put_document("rules", {"price": Decimal("9.50")})
    with store.transaction() as work:
        assert work.document("rules") == body


@pytest.mark.parametrize("day", ["2016-03-27", "2016-10-30"])
def test_series_come_back_to_the_bit(store: Store, day: str) -> None:
    axis = delivery_day(datetime.fromisoformat(day).date(), ROME)
    values = np.random.default_rng(7).normal(size=(3, len(axis)))
    values[0, :4] = [np.nan, -0.0, np.inf, 5e-324]
    with store.transaction() as work:
        assert work.series("baseline") is None
        work.put_series("baseline", Series(("a",), axis, values[:1] * 2))
        work.put_series("baseline", Series(("a", "b", "ç"), axis, np.asfortranarray(values)))
    with store.transaction() as work:
        kept = work.series("baseline")
    assert kept is not None
    assert (kept.names, kept.axis, kept.values.dtype) == (("a", "b", "ç"), axis, np.float64)
    assert kept.values.tobytes() == values.tobytes()


def test_series_without_names_or_periods_keep_their_shape(store: Store) -> None:
    with store.transaction() as work:
        work.put_series("none", Series((), Axis(START, 4), np.zeros((0, 4))))
        kept = work.series("none")
    assert kept is not None and kept.values.shape == (0, 4)


def test_events_are_numbered_in_the_order_in_which_they_are_told(store: Store) -> None:
    for turn in range(3):
        with store.transaction() as work:
            for message in ("order", "acknowledgement"):
                work.event(message, START + turn * QUARTER, "market", "fsp", f"{turn}")
            assert len(work.all(Event)) == 2 * turn + 2
    events = read(store, Event)
    assert [event.number for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.kind for event in read(store, Event, number=(1, 2, 3))] == ["order", "acknowledgement", "order"]


REFUSED: list[tuple[str, Callable[[Any], object]]] = [
    ("no table of Violation", lambda work: work.all(Violation)),
    ("no table of int", lambda work: work.add([7])),
    ("cannot be looked up by 'colour'", lambda work: work.all(Holding, colour="red")),
    ("cannot be looked up by 'price_eur_mwh'", lambda work: work.all(MeritLine, price_eur_mwh=Decimal(1))),
    ("Holding.direction cannot be 'sideways': no such value", lambda w: w.all(Holding, direction="sideways")),
    ("One look-up takes", lambda work: work.remove(Holding, unit=[f"u{i}" for i in range(30_001)])),
    ("Holding.start cannot be .*naive", lambda work: work.add([holding(start=datetime(2016, 1, 1))])),  # noqa: DTZ001
    ("whole seconds", lambda work: work.add([holding(start=START + timedelta(microseconds=1))])),
    ("Holding.unit cannot be None", lambda work: work.add([replace(holding(), unit=None)])),
    ("no zero character", lambda work: work.add([holding("u\0")])),
    ("Holding.unit cannot be", lambda work: work.add([holding("\ud800")])),
    ("64 bits", lambda work: work.add([replace(holding(), quantity_kw=2**63)])),
    ("Holding.quantity_kw cannot be 1.5", lambda work: work.add([replace(holding(), quantity_kw=1.5)])),
    ("Award.bid_eur_mwh cannot be 9.5", lambda work: work.add([replace(AWARD, bid_eur_mwh=9.5)])),
    ("in a key the empty text", lambda work: work.add([replace(AWARD, unit="")])),
    ("Event.at cannot be", lambda work: work.event("k", datetime(2016, 1, 1), "a", "b", "c")),  # noqa: DTZ001
    ("number is the store's", lambda work: work.add([Event(1, "k", START, "a", "b", "c")])),
    ("never taken back", lambda work: work.remove(Event)),
    ("Use whole seconds", lambda work: work.put_series(
        "s", Series((), Axis(START, 1, timedelta(milliseconds=1)), np.zeros((0, 1))))),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "act"), REFUSED, ids=[sentence for sentence, _ in REFUSED])
def test_what_cannot_be_kept_or_asked_is_refused_in_one_sentence(
    store: Store, sentence: str, act: Callable[[Any], object]
) -> None:
    with store.transaction() as work:
        work.add([holding("before")])
        with pytest.raises(CoflexError, match=sentence):
            act(work)
    assert read(store, Holding) == (holding("before"),)


def test_numbers_of_numpy_are_kept_as_plain_numbers(store: Store) -> None:
    write(store, replace(holding(), quantity_kw=np.int64(7)), Reading("u", START, np.float32(0.5), Quality.MEASURED))
    assert type(read(store, Holding)[0].quantity_kw) is int
    assert type(read(store, Reading)[0].power_kw) is float


def test_a_transaction_inside_a_transaction_is_refused_instead_of_waiting_for_itself(store: Store) -> None:
    with store.transaction() as work:
        with pytest.raises(CoflexError, match="already open"), store.transaction():
            raise AssertionError("it opened")
        work.add([holding()])
    assert read(store, Holding) == (holding(),)


def test_a_transaction_is_of_no_use_after_its_end(store: Store) -> None:
    with store.transaction() as work:
        work.add([holding()])
    for act in (lambda: work.add([holding("u2")]), lambda: work.all(Holding), lambda: work.document("d")):
        with pytest.raises(CoflexError, match="has ended"):
            act()


@pytest.mark.spec("MKT-09")
def test_threads_that_sell_the_same_units_at_once_sell_each_exactly_once(store: Store) -> None:
    refused: list[str] = []

    def sell(session: str) -> None:
        for number in range(10):
            try:
                write(store, holding(f"u{number}", session=session))
            except SoldTwice:
                refused.append(session)

    sellers = [threading.Thread(target=sell, args=(f"s{i}",)) for i in range(3)]
    for seller in sellers:
        seller.start()
    for seller in sellers:
        seller.join()
    assert len(read(store, Holding)) == 10
    assert len(refused) == 20


@pytest.mark.spec("PLAT-04")
def test_thirty_thousand_lines_are_written_and_read_within_a_second_and_a_half_each(tmp_path: Path) -> None:
    lines = [
        MeritLine(
            "global-1", "p", Direction.UP, START + (i % 96) * QUARTER, i // 96, f"offer-{i}", 1, "fsp", "bus",
            Decimal(i) / 7, 100, 50, Status.DEFINITIVE, Reason.GRID_LIMIT, "line 12 in the way",
        )
        for i in range(30_000)
    ]  # fmt: skip
    store = SqlStore(tmp_path / "coflex.db")
    began = time.process_time()
    write(store, *lines)
    written = time.process_time()
    kept = read(store, MeritLine)
    done = time.process_time()
    store.close()
    assert set(kept) == set(lines)
    assert written - began < 1.5
    assert done - written < 1.5


# ---------------------------------------------------------------- a file between processes

SELLER = """
import sys, time
from datetime import UTC, datetime
from coflex.adapters.store import SqlStore
from coflex.domain.clearing import Holding, Status
from coflex.domain.errors import SoldTwice
from coflex.domain.quantity import Direction

place, session, units = sys.argv[1], sys.argv[2], int(sys.argv[3])
store, sold = SqlStore(place), 0
for unit in range(units):
    held = Holding(f"u{unit}", datetime(2016, 10, 30, tzinfo=UTC), session, "dso", Direction.UP, 1, "o", Status.DEFINITIVE)
    try:
        with store.transaction() as work:
            work.add([held])
            work.event("sold", held.start, session, held.unit, "")
        sold += 1
    except SoldTwice:
        continue
print(sold)
"""  # noqa: E501

KILLED = """
import os, sys
from datetime import UTC, datetime
from coflex.adapters.store import SqlStore
from coflex.domain.reading import Quality, Reading

with SqlStore(sys.argv[1]).transaction() as work:
    work.add([Reading(f"u{i}", datetime(2016, 1, 1, tzinfo=UTC), 1.0, Quality.MEASURED) for i in range(20_000)])
    work.put_document("half", {"done": False})
    work.event("half", datetime(2016, 1, 1, tzinfo=UTC), "a", "b", "c")
    assert len(work.all(Reading)) == 20_000
    print("inside", flush=True)
    os._exit(9)
"""


def _start(program: str, *arguments: object) -> subprocess.Popen[str]:
    source = str(Path(errors.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.spec("MKT-09", "PLAT-04")
def test_processes_that_open_a_new_store_at_once_sell_each_unit_exactly_once(place: str | Path) -> None:
    sellers = [_start(SELLER, place, f"s{i}", 40) for i in range(2)]
    sold = [int(seller.communicate(timeout=60)[0]) for seller in sellers]
    assert [seller.returncode for seller in sellers] == [0, 0]
    store = SqlStore(place)
    assert sum(sold) == len(read(store, Holding)) == 40
    assert sorted((e.sender, e.receiver) for e in read(store, Event)) == sorted(
        (h.session, h.unit) for h in read(store, Holding)
    )
    assert [e.number for e in read(store, Event)] == list(range(1, 41))
    store.close()


@pytest.mark.spec("MKT-09")
def test_a_second_writer_waits_and_then_finds_the_unit_sold(place: str | Path) -> None:
    first, second = SqlStore(place, ROME), SqlStore(place, ROME)
    inside, told = threading.Event(), []

    def sell_later() -> None:
        inside.wait()
        try:
            write(second, holding("u1", session="global-1"))
        except SoldTwice as fault:
            told.append((time.monotonic(), str(fault)))

    seller = threading.Thread(target=sell_later)
    seller.start()
    with first.transaction() as work:
        work.add([holding("u1")])
        inside.set()
        time.sleep(0.3)
        assert told == []
        leaving = time.monotonic()
    seller.join()
    assert told[0][0] >= leaving and "'u1'" in told[0][1]
    assert read(second, Holding) == (holding("u1"),)
    first.close()
    second.close()


def test_a_writer_that_waits_too_long_is_told_who_is_in_the_way(place: str | Path) -> None:
    first, second = SqlStore(place), SqlStore(place, wait_s=0.1)
    with first.transaction(), pytest.raises(CoflexError, match=r"held by another process for more than 0\.1 s"):
        write(second, holding())
    write(second, holding())
    first.close()
    second.close()


def test_a_process_killed_inside_a_transaction_leaves_nothing(place: str | Path) -> None:
    before = SqlStore(place)
    write(before, holding())
    before.close()
    killed = _start(KILLED, place)
    assert killed.communicate(timeout=60)[0] == "inside\n"
    assert killed.returncode == 9
    store = SqlStore(place)
    assert (read(store, Reading), read(store, Event), read(store, Holding)) == ((), (), (holding(),))
    with store.transaction() as work:
        assert work.document("half") is None
    store.close()


# ---------------------------------------------------------------- the file and its versions


@pytest.mark.spec("PLAT-04")
def test_a_store_is_one_file_that_opens_again_where_it_was(tmp_path: Path) -> None:
    place = tmp_path / "coflex.db"
    store = SqlStore(str(place))
    write(store, AWARD)
    store.close()
    assert [p.name for p in tmp_path.iterdir()] == ["coflex.db"]
    again = SqlStore(f"sqlite:///{place}")
    assert read(again, Award) == (AWARD,)
    again.close()


def test_a_file_is_written_ahead_checked_and_safe_on_the_disk(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "coflex.db")
    with store.transaction() as work:
        ask = work._connection.exec_driver_sql
        found = [ask(f"PRAGMA {name}").scalar() for name in ("journal_mode", "foreign_keys", "synchronous")]
    store.close()
    assert found == ["wal", 1, 2]


def test_opening_a_new_store_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    SqlStore(tmp_path / "first.db").close()
    assert [record.name for record in caplog.records if record.name.startswith(("alembic", "sqlalchemy"))] == []


def test_the_migrated_tables_are_those_that_the_code_knows(place: str | Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    SqlStore(place).close()
    engine = create_engine(place if isinstance(place, str) else f"sqlite:///{place}")
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
        found = inspect(connection)
        for name, table in METADATA.tables.items():
            key = [column.name for column in table.primary_key.columns]
            assert found.get_pk_constraint(name)["constrained_columns"] == key, name
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", "coflex.adapters.store:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == VERSION


@pytest.mark.spec("MKT-09")
def test_the_last_wall_stands_in_the_database_itself(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "coflex.db")
    write(store, holding())
    store.close()
    with sqlite3.connect(tmp_path / "coflex.db") as raw, pytest.raises(sqlite3.IntegrityError):
        raw.execute("INSERT INTO holding SELECT unit, start, 'x', buyer, direction, offer, status, 1 FROM holding")
    raw.close()


def test_every_column_that_may_be_absent_says_so_and_no_other() -> None:
    for kind, layout in LAYOUTS.items():
        hints = get_type_hints(kind)
        for column in layout.columns:
            may_be_null = hints[column.name] is float or (type(None) in getattr(hints[column.name], "__args__", ()))
            assert column.codec.nullable == (may_be_null and not column.key), (kind, column.name)


@pytest.mark.parametrize("content", [b"name,kW\nu1,5\n" * 100, b"SQLite format 3\0" + b"rubbish" * 500])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "offers.csv"
    place.write_bytes(content)
    with pytest.raises(CoflexError, match=r"offers\.csv is no coflex store\. Give the path"):
        SqlStore(place)
    assert place.read_bytes() == content


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "other.db"
    with sqlite3.connect(place) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num TEXT)")
    raw.close()
    before = place.read_bytes()
    with pytest.raises(CoflexError, match=r"other\.db is no coflex store\. Give the path"):
        SqlStore(place)
    assert place.read_bytes() == before


def test_a_store_of_a_newer_coflex_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "coflex.db"
    SqlStore(place).close()
    with sqlite3.connect(place) as raw:
        raw.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0999'")
    raw.close()
    with pytest.raises(CoflexError, match=rf"has version 0999; .* up to {VERSION}\. Update coflex"):
        SqlStore(place)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("/nowhere/at/all/coflex.db", "cannot be opened: unable to open database file. Check the place"),
        ("mysql://root@localhost/coflex", "keeps no store in mysql"),
        ("://", "URL cannot be read"),
        ("sqlite://", "needs a file"),
        ("postgresql+nosuchdriver://u:secret@h/d", "driver of postgresql.nosuchdriver is not installed"),
    ],
)
def test_a_place_without_a_store_is_named_with_the_next_step(place: str, sentence: str) -> None:
    with pytest.raises(CoflexError, match=sentence) as refused:
        SqlStore(place)
    assert "secret" not in str(refused.value)


def test_a_full_disk_or_a_damaged_table_is_told_in_the_projects_own_error(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "coflex.db")
    with sqlite3.connect(tmp_path / "coflex.db") as raw:
        raw.execute("DROP TABLE party")
    raw.close()
    with pytest.raises(CoflexError, match="failed: no such table: party"):
        read(store, Party)
    store.close()


def test_a_value_that_someone_broke_is_named_when_it_is_read(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "coflex.db")
    write(store, holding())
    with sqlite3.connect(tmp_path / "coflex.db") as raw:
        raw.execute("UPDATE holding SET direction = 'sideways'")
    raw.close()
    with pytest.raises(CoflexError, match=r"Holding\.direction cannot be 'sideways'"):
        read(store, Holding)
    store.close()


def test_instants_of_any_zone_name_the_same_row(store: Store) -> None:
    write(store, holding())
    india = START.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert read(store, Holding, start=india) == (holding(),)
    with pytest.raises(SoldTwice):
        write(store, holding(start=india))


def test_products_keep_truth_values_as_truth_values(store: Store) -> None:
    from coflex.domain.product import QuantityKind
    from coflex.domain.unit import Scope

    product = Product(
        "p", Scope.LOCAL, QuantityKind.ACTIVE_ENERGY, (Direction.UP,), 900, 1, 1, 900, Decimal(400), True, False,
        Decimal("0.1"), Decimal("0.35"),
    )  # fmt: skip
    write(store, product)
    assert read(store, Product, divisible=True, symmetric=False)[0].divisible is True
    assert read(store, Product, symmetric=True) == ()
