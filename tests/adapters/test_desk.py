"""What a crash could take back is told to nobody: neither by an answer nor by a refusal."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.problems import OutcomeUnknown
from coflex.domain.errors import Conflict, Forbidden, KeyReused
from coflex.service.machine import CREATED, Context, Machine, Outcome, Verb, encode
from coflex.service.ports import Command, Entry, StoreFull
from coflex.service.sequencer import Sequencer, Unavailable
from coflex.service.state import State


def _take(state: State, context: Context, form: bool) -> Outcome:
    """Take what is asked with a yes; refuse a no."""
    if not form:
        raise Conflict("It is taken already.")
    return Outcome({}, status=CREATED)


VERBS = {"tenant.open": Verb("tenant.open", bool, _take, public=True)}


def ask(form: bool, key: str) -> Command:
    return Command("t", "tenant.open", "", "p", "p", "c", encode(form), key)


async def nobody(*_: Any) -> Any:
    raise Forbidden("No request is made here.")


class Held(MemoryJournal):
    """A journal that writes nothing before it is let go, or has no room then."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.full = threading.Event(), False

    def append(self, entries: Sequence[Entry]) -> None:
        self.go.wait(10)
        if self.full:
            raise StoreFull("The test says so.")
        super().append(entries)


@pytest.fixture
def journal() -> Iterator[Held]:
    held = Held()
    yield held
    held.go.set()


def at_the_desk(journal: Held, act: Callable[[Desk], Coroutine[Any, Any, None]], patience: float = 10.0) -> None:
    async def run() -> None:
        machine = Machine(VERBS)
        loop = asyncio.get_running_loop()
        sequencer = Sequencer(machine, journal, lambda: datetime.now(UTC), deliver=loop.call_soon_threadsafe)
        try:
            await act(Desk(machine, sequencer, journal, lambda: datetime.now(UTC), nobody, patience))
        finally:
            journal.go.set()
            await asyncio.to_thread(sequencer.close)

    asyncio.run(run())


async def waits(task: asyncio.Task[Any]) -> bool:
    """Whether something still waits once everybody had a turn."""
    await asyncio.sleep(0.01)
    return not task.done()


@pytest.mark.spec("PLAT-05")
@pytest.mark.parametrize(("second", "fault"), [(ask(False, "one"), KeyReused), (ask(False, "two"), Conflict)])
def test_a_refusal_waits_until_what_it_rests_on_is_on_the_disk(
    journal: Held, second: Command, fault: type[Exception]
) -> None:
    async def act(desk: Desk) -> None:
        first = asyncio.ensure_future(desk.submit(ask(True, "one")))
        await asyncio.sleep(0)
        refused = asyncio.ensure_future(desk.submit(second))
        assert await waits(refused)
        journal.go.set()
        with pytest.raises(fault):
            await refused
        assert first.done(), "the command it rests on was acknowledged before"
        await first

    at_the_desk(journal, act)


@pytest.mark.spec("PLAT-05")
@pytest.mark.parametrize("second", [ask(False, "one"), ask(False, "two")])
def test_a_refusal_that_rests_on_what_was_undone_is_not_told(journal: Held, second: Command) -> None:
    async def act(desk: Desk) -> None:
        journal.full = True
        first = asyncio.ensure_future(desk.submit(ask(True, "one")))
        await asyncio.sleep(0)
        refused = asyncio.ensure_future(desk.submit(second))
        assert await waits(refused)
        journal.go.set()
        for told in (first, refused):
            with pytest.raises(StoreFull):
                await told

    at_the_desk(journal, act)


def test_a_refusal_without_anything_before_it_is_told_at_once_and_so_is_that_nothing_is_taken(journal: Held) -> None:
    async def act(desk: Desk) -> None:
        with pytest.raises(Conflict):
            await asyncio.wait_for(desk.submit(ask(False, "one")), 1)
        waiting = asyncio.ensure_future(desk.submit(ask(True, "two")))
        await asyncio.sleep(0)
        desk.sequencer.alarm = "The test says so."
        with pytest.raises(Unavailable):
            await asyncio.wait_for(desk.submit(ask(False, "three")), 1)
        desk.sequencer.alarm = ""
        journal.go.set()
        await waiting

    at_the_desk(journal, act)


def test_a_refusal_waits_no_longer_than_anybody(journal: Held) -> None:
    async def act(desk: Desk) -> None:
        waiting = asyncio.ensure_future(desk.submit(ask(True, "one")))
        await asyncio.sleep(0)
        with pytest.raises(OutcomeUnknown):
            await desk.submit(ask(False, "one"))
        with pytest.raises(OutcomeUnknown):
            await waiting

    at_the_desk(journal, act, patience=0.05)
