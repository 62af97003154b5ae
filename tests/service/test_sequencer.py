"""The sequencer acknowledges what is on the disk and nothing else, whatever the store does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.adapters.store.journal import SqlJournal
from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.domain.errors import CoflexError, Conflict, KeyReused
from coflex.register.market import Market
from coflex.service import chain
from coflex.service import sequencer as module
from coflex.service.machine import CREATED, Context, Machine, Outcome, Verb, decode, encode
from coflex.service.ports import Command, Entry, Head, Note, StoreBroken, StoreFull, StoreLost
from coflex.service.sequencer import Receipt, Sequencer, Unavailable
from coflex.service.state import State

START = datetime(2026, 1, 1, tzinfo=UTC)


def _count(state: State, context: Context, form: int) -> Outcome:
    """Add to the speed of the market, which stands for a balance here; never below zero."""
    market = state.find(Market, "market")
    before = market.speed if market else 0
    if before + form < 0:
        raise Conflict("There is not so much.")
    after = Market("market", "", "UTC", "", "", date(2026, 1, 1), date(2026, 1, 1), START, START, before + form)
    return Outcome({"sum": before + form}, ((Market, "market", after),), (Note("counted", "", ("*",)),), CREATED)


VERBS = {"tenant.open": Verb("tenant.open", int, _count, public=True)}


def add(amount: int, key: str | None = None) -> Command:
    return Command("t", "tenant.open", "", "p", "p", "c", encode(amount), key)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        return self.at


def sequencer(journal: Any, clock: Callable[[], datetime] | None = None) -> Sequencer:
    return Sequencer(Machine(VERBS), journal, clock or Clock())


class Faulty(MemoryJournal):
    """A journal that does what the script says at each append: "ok", a fault before writing, or one after it."""

    def __init__(self, script: Sequence[tuple[str, type[CoflexError]] | str]) -> None:
        super().__init__()
        self.script = list(script)
        self.recoveries = 0

    def append(self, entries: Sequence[Entry]) -> None:
        step = self.script.pop(0) if self.script else "ok"
        if isinstance(step, tuple):
            when, fault = step
            if when == "after":
                super().append(entries)
            raise fault("The test says so.")
        super().append(entries)

    def recover(self) -> Head:
        self.recoveries += 1
        return self.head()


# ---------------------------------------------------------------- numbers, times, keys


def test_every_command_gets_the_next_number_and_continues_the_chain() -> None:
    journal = MemoryJournal()
    desk = sequencer(journal)
    assert [desk.submit(add(1)).number for _ in range(5)] == [1, 2, 3, 4, 5]
    assert list(chain.breaks(journal.entries())) == []
    assert desk.durable_number == 5


def test_a_refused_command_takes_no_number_and_leaves_no_trace() -> None:
    journal = MemoryJournal()
    desk = sequencer(journal)
    desk.submit(add(1))
    with pytest.raises(Conflict):
        desk.submit(add(-5))
    assert desk.submit(add(1)).number == 2
    assert len(journal.entries()) == 2


def test_a_clock_that_goes_back_does_not_take_the_sequencer_with_it() -> None:
    clock = Clock()
    desk = sequencer(MemoryJournal(), clock)
    clock.at = START + timedelta(hours=1)
    first = desk.submit(add(1)).at
    clock.at = START
    assert desk.submit(add(1)).at == first


def test_the_same_key_and_body_give_the_same_bytes_and_happen_once() -> None:
    journal = MemoryJournal()
    desk = sequencer(journal)
    first = desk.submit(add(3, "k"))
    again = desk.submit(add(3, "k"))
    assert (again.number, again.status, again.reply, again.again) == (1, first.status, first.reply, True)
    assert len(journal.entries()) == 1
    with pytest.raises(KeyReused):
        desk.submit(add(4, "k"))


def test_keys_are_known_after_a_restart() -> None:
    journal = MemoryJournal()
    first = sequencer(journal).submit(add(3, "k"))
    desk = sequencer(journal)
    again = desk.submit(add(3, "k"))
    assert again.reply == first.reply
    with pytest.raises(KeyReused):
        desk.submit(add(4, "k"))


# ---------------------------------------------------------------- what the store may do


@pytest.mark.spec("PLAT-05")
def test_a_full_disk_undoes_the_command_and_lets_the_next_one_try() -> None:
    desk = sequencer(Faulty(["ok", ("before", StoreFull), "ok"]))
    desk.submit(add(1))
    with pytest.raises(StoreFull):
        desk.submit(add(10, "k"))
    assert decode(desk.submit(add(1)).reply, dict) == {"sum": 2}
    assert decode(desk.submit(add(10, "k")).reply, dict) == {"sum": 12}  # the key was not used up


@pytest.mark.spec("PLAT-05")
def test_after_a_store_that_cannot_be_trusted_nothing_is_acknowledged_any_more() -> None:
    desk = sequencer(Faulty(["ok", ("before", StoreBroken)]))
    desk.submit(add(1))
    with pytest.raises(StoreBroken):
        desk.submit(add(1))
    with pytest.raises(Unavailable):
        desk.submit(add(1))
    assert not desk.ready
    assert desk.machine.tenants["t"].get(Market, "market").speed == 1


class Loop:
    """An event loop in a thread, as a server has it: commands are submitted on it, the writer has its own."""

    def __init__(self, journal: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.desk = Sequencer(
            Machine(VERBS), journal, lambda: datetime.now(UTC), deliver=self.loop.call_soon_threadsafe
        )

    def call(self, act: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(act, self.loop).result(timeout=20)

    async def acknowledged(self, command: Command) -> Receipt:
        receipt = self.desk.submit(command)
        future = self.loop.create_future()
        self.desk.when_durable(
            receipt.number, lambda fault: future.set_exception(fault) if fault else future.set_result(None)
        )
        await future
        return receipt

    async def all(self, commands: Sequence[Command]) -> list[Receipt | BaseException]:
        return await asyncio.gather(*map(self.acknowledged, commands), return_exceptions=True)

    def close(self) -> None:
        self.desk.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=5)


def test_one_sync_carries_many_commands() -> None:
    appends: list[int] = []

    class Slow(MemoryJournal):
        def append(self, entries: Sequence[Entry]) -> None:
            threading.Event().wait(0.02)
            appends.append(len(entries))
            super().append(entries)

    loop = Loop(Slow())
    receipts = loop.call(loop.all([add(1) for _ in range(500)]))
    loop.close()
    assert [receipt.number for receipt in receipts] == list(range(1, 501))
    assert sum(appends) == 500
    assert len(appends) < 20


@pytest.fixture(scope="module")
def impatient() -> Iterator[None]:
    """Pauses before a lost store is asked again that a property can wait for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_PAUSE", 1e-6)
        patch.setattr(module, "LONGEST_PAUSE", 1e-6)
        yield


OUTCOMES = st.sampled_from(["ok", "ok", ("before", StoreFull), ("before", StoreLost), ("after", StoreLost)])


@pytest.mark.spec("PLAT-05")
@pytest.mark.usefixtures("impatient")
@given(st.lists(OUTCOMES, max_size=12), st.lists(st.integers(-3, 5), min_size=1, max_size=30))
def test_whatever_the_store_does_each_command_happens_once_or_is_refused(script: list[Any], amounts: list[int]) -> None:
    journal = Faulty(script)
    loop = Loop(journal)
    answers = []
    for part in range(0, len(amounts), 4):
        answers += loop.call(loop.all([add(amount) for amount in amounts[part : part + 4]]))
    machine = loop.desk.machine
    loop.close()
    taken = [(answer.number, amount) for answer, amount in zip(answers, amounts, strict=True)
             if isinstance(answer, Receipt)]  # fmt: skip
    kept = [(entry.number, decode(entry.command.body, int)) for entry in journal.entries()]
    assert taken == kept, "what was acknowledged is what is there, in its order, once"
    assert list(chain.breaks(journal.entries())) == []
    total = sum(amount for _, amount in kept)
    there = machine.tenants["t"].find(Market, "market") if "t" in machine.tenants else None
    assert (there.speed if there else 0) == total, "the state in memory is the journal's"


def test_a_second_writer_stops_the_first_one() -> None:
    journal = Faulty([("before", StoreLost)])
    loop = Loop(journal)
    other = MemoryJournal()
    sequencer(other).submit(add(7))
    journal._entries.extend(other.entries())  # somebody else wrote while the link was down
    (answer,) = loop.call(loop.all([add(1)]))
    assert isinstance(answer, StoreBroken)
    assert not loop.desk.ready
    loop.close()


def test_readers_wait_for_what_they_have_seen() -> None:
    gate = threading.Event()

    class Held(MemoryJournal):
        def append(self, entries: Sequence[Entry]) -> None:
            gate.wait(5)
            super().append(entries)

    loop = Loop(Held())
    told: list[Exception | None] = []

    async def act() -> None:
        loop.desk.submit(add(1))
        loop.desk.when_durable(loop.desk.number, told.append)
        assert told == []
        gate.set()
        while not told:
            await asyncio.sleep(0.001)

    loop.call(act())
    loop.close()
    assert told == [None]


# ---------------------------------------------------------------- what must not stop the platform


def test_a_key_from_before_the_memory_of_keys_is_answered_as_then_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coflex.service.sequencer.KEYS", 2)
    desk = sequencer(SqlJournal(tmp_path / "store.db"))
    first = desk.submit(add(1, "old"))
    for name in "abcdef":
        desk.submit(add(1, name))
    with pytest.raises(CoflexError):
        desk.submit(add(1, "old"))  # the store knows the key
    assert desk.ready
    again = desk.submit(add(1, "old"))
    assert (again.number, again.reply, again.again) == (first.number, first.reply, True)
    with pytest.raises(KeyReused):
        desk.submit(add(2, "old"))
    assert decode(desk.submit(add(1, "new")).reply, dict) == {"sum": 8}
    desk.journal.close()


def test_a_verb_that_writes_what_no_journal_keeps_fails_alone() -> None:
    def twice(state: State, context: Context, form: int) -> Outcome:
        outcome = _count(state, context, form)
        return Outcome(outcome.reply, (*outcome.records, *outcome.records))

    def nobody(state: State, context: Context, form: int) -> Outcome:
        outcome = _count(state, context, form)
        return Outcome(outcome.reply, outcome.records, (Note("told", "", ("",)),))

    verbs = VERBS | {name: Verb(name, int, act, public=True) for name, act in (("twice", twice), ("nobody", nobody))}
    desk = Sequencer(Machine(verbs), MemoryJournal(), Clock())
    desk.submit(add(1))
    for name in ("twice", "nobody"):
        with pytest.raises(ValueError, match=r"twice|without an id"):
            desk.submit(replace(add(1), verb=name))
    assert decode(desk.submit(add(1)).reply, dict) == {"sum": 2}
    assert desk.durable_number == 2


def test_who_asks_again_for_what_is_durable_is_not_told_of_a_later_fault() -> None:
    desk = sequencer(Faulty(["ok", ("before", StoreFull)]))
    told: list[Exception | None] = []
    desk.submit(add(1, "k"))
    desk._waiters.append((1, 0, told.append))
    with pytest.raises(StoreFull):
        desk.submit(add(1))
    assert told == [None]


def test_a_gate_that_fails_holds_up_nobody_but_its_tenant() -> None:
    class Broken:
        """Two tenants' gates are due; the first one's fails."""

        def __init__(self) -> None:
            self.left = ["bad", "t"]

        def next_at(self) -> datetime | None:
            return START if self.left else None

        def due(self, at: datetime) -> Command | None:
            tenant = self.left[0]
            if tenant == "t":
                self.left = []
            return replace(add(5), tenant=tenant, verb="tenant.open" if tenant == "t" else "no.such", actor="clock")

        def put_aside(self, tenant: str) -> None:
            self.left.remove(tenant)

    desk = Sequencer(Machine(VERBS), MemoryJournal(), Clock(), Broken())
    assert decode(desk.submit(add(1)).reply, dict) == {"sum": 6}
    assert desk.ready
