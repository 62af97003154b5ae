"""Whole days without the command line: every verb in its order, on a store in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coflex.adapters.store.memory import MemoryStore
from coflex.domain.offer import Offer
from coflex.domain.series import Series
from coflex.market.design import Design, load_design
from coflex.process.activate import activate
from coflex.process.clear import Cleared, clear
from coflex.process.day import Day
from coflex.process.measure import measure
from coflex.process.offer import collect
from coflex.process.plan import plan
from coflex.process.ports import Case, SessionCall, Store
from coflex.process.qualify import qualify
from coflex.process.register import register
from coflex.process.settle import Settled, settle
from coflex.simulation.devices import SimulatedDevices
from coflex.simulation.providers import SimulatedProviders, nominate
from coflex.simulation.tso import SimulatedTso

Arrange = Callable[[Sequence[Offer]], Sequence[Offer]]


class Arranged:
    """The simulated providers, whose parcels arrive in another arrangement."""

    def __init__(self, providers: SimulatedProviders, arrange: Arrange) -> None:
        self._providers, self._arrange = providers, arrange

    def offers(self, call: SessionCall) -> Sequence[Offer]:
        return self._arrange(self._providers.offers(call))


def nominations(day: Day) -> Callable[[Series], tuple]:
    def of(forecast: Series) -> tuple:
        made = nominate(forecast, day.units)
        return made.schedule, made.up_kw, made.down_kw

    return of


def cleared_day(case: Case, store: Store, arrange: Arrange = list, design: Design | None = None) -> list[Cleared]:
    """Register, qualify, and all sessions."""
    day = Day(case, design or load_design(case.settings.design))
    seed = case.settings.seed
    register(day, store, day.plans[0].opens)
    qualify(day, store, day.plans[0].opens)
    tso = SimulatedTso(case.settings.tso, seed, case.zone)
    providers = Arranged(SimulatedProviders(seed, case.zone), arrange)
    cleared = []
    for session in day.plans:
        plan(day, store, session, session.opens, nominations(day), tso)
        collect(day, store, session, providers)
        cleared.append(clear(day, store, session, session.closes))
    return cleared


def settled_day(case: Case, store: Store | None = None) -> tuple[Day, Store, Settled]:
    """A whole day, to the money."""
    store = store or MemoryStore(case.zone)
    cleared_day(case, store)
    day = Day(case, load_design(case.settings.design))
    activate(day, store)
    measure(day, store, SimulatedDevices(day.units, case.settings.devices, case.settings.seed, case.axis))
    return day, store, settle(day, store)
