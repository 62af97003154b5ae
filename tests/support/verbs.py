"""The verbs of the day one by one: a store as each verb finds it, and what a store holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from coflex.adapters.store.mapping import LAYOUTS
from coflex.adapters.store.memory import MemoryStore
from coflex.domain.errors import CoflexError, NotReady
from coflex.market.design import load_design
from coflex.process.activate import activate
from coflex.process.clear import clear
from coflex.process.day import Day
from coflex.process.measure import measure
from coflex.process.offer import collect
from coflex.process.plan import plan
from coflex.process.qualify import qualify
from coflex.process.register import register
from coflex.process.report import report
from coflex.process.settle import settle
from coflex.simulation.devices import SimulatedDevices
from coflex.simulation.providers import SimulatedProviders
from coflex.simulation.tso import SimulatedTso
from support.days import nominations
from support.small_case import small_case


@lru_cache(maxsize=1)
def small_day() -> Day:
    """The small case under its design."""
    case = small_case()
    return Day(case, load_design(case.settings.design))


class Kept:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, Any, Any]] = []
        self.files: dict[str, bytes] = {}

    def publish(self, tables: Any, documents: Any, report: Any, files: Any) -> Path:
        self.given.append((tables, documents, report))
        self.files |= files
        return Path("report.html")


def providers() -> SimulatedProviders:
    day = small_day()
    return SimulatedProviders(day.case.settings.seed, day.case.zone)


def _plan(store: MemoryStore, number: int = 0) -> Any:
    day, session = small_day(), small_day().plans[number]
    tso = SimulatedTso(day.case.settings.tso, day.case.settings.seed, day.case.zone)
    return plan(day, store, session, session.opens, nominations(day), tso)


def _offer(store: MemoryStore, number: int = 0) -> Any:
    return collect(small_day(), store, small_day().plans[number], providers())


def _clear(store: MemoryStore, number: int = 0) -> Any:
    session = small_day().plans[number]
    return clear(small_day(), store, session, session.closes)


def _measure(store: MemoryStore) -> Any:
    day = small_day()
    devices = SimulatedDevices(day.units, day.case.settings.devices, day.case.settings.seed, day.case.axis)
    return measure(day, store, devices)


# Every verb in its order; those of a session do the first one.
VERBS: dict[str, Callable[[MemoryStore], Any]] = {
    "register": lambda store: register(small_day(), store, small_day().plans[0].opens),
    "qualify": lambda store: qualify(small_day(), store, small_day().plans[0].opens),
    "plan": _plan,
    "offer": _offer,
    "clear": _clear,
    "activate": lambda store: activate(small_day(), store),
    "measure": _measure,
    "settle": lambda store: settle(small_day(), store),
    "report": lambda store: report(small_day(), store, Kept()),
}


def before(verb: str) -> MemoryStore:
    """A store of one's own, with all that comes before a verb; "after" when the day is over."""
    return _copy(_stages()[verb])


def everything(store: MemoryStore) -> dict[type[Any], tuple[Any, ...]]:
    """All records, documents, series and events of a store."""
    with store.transaction() as t:
        return {kind: t.all(kind) for kind in LAYOUTS}


def refusal(verb: str, stage: str, kind: type[CoflexError] = NotReady) -> CoflexError:
    """What a verb says when it comes at the stage of another one; it must refuse and leave the store as it was."""
    store = before(stage)
    held = everything(store)
    with pytest.raises(kind) as told:
        VERBS[verb](store)
    assert everything(store) == held
    return told.value


@lru_cache(maxsize=1)
def _stages() -> dict[str, MemoryStore]:
    """The store before each verb. Before `activate` all sessions are over, before that none but the first begins."""
    store, stages = MemoryStore(small_day().case.zone), {}
    for verb, act in VERBS.items():
        if verb == "activate":
            for number in range(1, len(small_day().plans)):
                for step in (_plan, _offer, _clear):
                    step(store, number)
        stages[verb] = _copy(store)
        act(store)
    stages["after"] = store
    return stages


def _copy(store: MemoryStore) -> MemoryStore:
    """Rows are frozen, so new dictionaries of the same rows make a store of its own."""
    twin = MemoryStore(small_day().case.zone)
    twin._tables = {kind: dict(rows) for kind, rows in store._tables.items()}
    return twin
