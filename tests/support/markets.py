"""A running market without a server: a hand-set clock, a journal in memory, and what begins again after a crash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.adapters.store.memory import MemoryStore
from coflex.domain.unit import Unit
from coflex.process.answering import answer
from coflex.process.ports import Case
from coflex.register.access import ClientScope, User
from coflex.register.consents import Consent, ConsentScope
from coflex.register.market import Market
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.prequalification import (
    Basis,
    Grant,
    GridAnswer,
    GridPrequalification,
    GridStatus,
    ProductQualification,
    ProductStatus,
    grid_id,
    qualification_id,
)
from coflex.register.products import ProductEntry
from coflex.register.records import Record
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.register.work import Answer, Job
from coflex.service.engine import Compute, work_off
from coflex.service.gates import TenantGates, next_gate, server_instant
from coflex.service.machine import Context, Machine, Outcome, Verb, encode, now
from coflex.service.ports import Command, Entry
from coflex.service.replay import restore
from coflex.service.sequencer import Receipt, Sequencer
from coflex.service.state import State
from coflex.service.verbs import activations, offers, proposals, sessions, tenants
from coflex.service.verbs.tenants import OpenTenant
from coflex.simulation.demo import Counterparts, demo_case

TENANT = "t"
BEGIN = datetime(2016, 7, 4, 5, 30, 0, 271_828, tzinfo=UTC)
# No server passes a gate just in time.
LATE = timedelta(microseconds=314_159)


def table(*rooms: Any, extra: tuple[Verb, ...] = ()) -> dict[str, Verb]:
    """The verbs of the market, and of some rooms more."""
    found = {verb.name: verb for room in (tenants, sessions, offers, activations, *rooms) for verb in room.VERBS}
    found |= {verb.name: verb for verb in extra}
    return found | {verb.name: verb for verb in proposals.verbs(found)}


@dataclass
class Hand:
    """A server's clock that stands where it is set."""

    at: datetime = BEGIN

    def __call__(self) -> datetime:
        return self.at


@dataclass
class World:
    """One server, its journal and its clock. `restart` is what a crash leaves: the journal alone."""

    verbs: Mapping[str, Verb]
    clock: Hand = field(default_factory=Hand)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    tenant: str = TENANT

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.machine = Machine(self.verbs)
        restore(self.machine, self.journal)
        self.sequencer = Sequencer(self.machine, self.journal, self.clock, TenantGates(self.machine))

    @property
    def state(self) -> State:
        return self.machine.state(self.tenant)

    def do(
        self, verb: str, subject: str = "", form: object = None, party: str = "mo", actor: str = "operator", **more: Any
    ) -> Receipt:
        body = b"{}" if form is None else encode(form)
        return self.sequencer.submit(Command(self.tenant, verb, subject, party, party, actor, body, **more))

    def pass_time(self, by: timedelta) -> None:
        """Let the server's clock go on, or back, and pass the gates that are due."""
        self.clock.at += by
        self.sequencer.pass_gates()

    def entries(self, *verbs: str) -> list[Entry]:
        found = self.journal.entries(0, 1_000_000)
        return [entry for entry in found if not verbs or entry.command.verb in verbs]


def opened(
    verbs: Mapping[str, Verb],
    first: date = date(2016, 7, 5),
    last: date = date(2016, 7, 5),
    begin: datetime = BEGIN,
    **more: Any,
) -> World:
    """A world with a sandbox market."""
    world = World(verbs, Hand(begin))
    settings: dict[str, Any] = {"design": "beflexible_six", "zone": "Europe/Berlin", "sandbox": True, "case": "demo"}
    world.do("tenant.open", "", OpenTenant("Test", first_day=first, last_day=last, **settings | more))
    return world


# ---------------------------------------------------------------- a register, put in as it is

LONG_AGO, LONG_AHEAD = datetime(2016, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)


def records(case: Case) -> Iterator[Record]:
    """The register of a case, everything approved, consented to and qualified with its whole power; two persons of the
    market operator."""
    yield from (user("ann", "mo"), user("bob", "mo"))
    for party in case.parties:
        yield PartyEntry(party.id, party, PartyStatus.APPROVED, LONG_AGO)
    for product in case.products:
        yield ProductEntry(product.id, product, ("dso", "tso"))
    operators = {point.id: point.system_operator for point in case.points}
    for point in case.points:
        yield PointEntry(point.id, point)
    for unit in case.units:
        yield UnitEntry(unit.id, unit, UnitStatus.ACTIVE, LONG_AGO, LONG_AGO)
        yield consent(unit)
        yield prequalified(unit, operators[unit.connection_point])
    for group in case.groups:
        yield GroupEntry(group.id, group, UnitStatus.ACTIVE, LONG_AGO, LONG_AGO)
        grant = Grant(Basis.TEMPORARY, 10**6, 10**6, LONG_AGO, None, LONG_AGO)
        yield ProductQualification(
            qualification_id(group.id, group.product), group.id, group.product, group.provider, (), "", 0, 0,
            ProductStatus.PASSED, LONG_AGO, grant=grant,
        )  # fmt: skip


def user(name: str, party: str) -> User:
    return User(name, party, (ClientScope.WRITE,), f"login of {name}", "", LONG_AGO, LONG_AGO)


def consent(unit: Unit, starts: datetime = LONG_AGO, ends: datetime = LONG_AHEAD) -> Consent:
    return Consent(f"consent-{unit.id}", unit.owner, unit.id, unit.provider, (ConsentScope.OFFER,), starts, ends)


def prequalified(unit: Unit, operator: str) -> GridPrequalification:
    answered = GridAnswer(
        GridStatus.APPROVED, unit.up_kw, unit.down_kw, "", "study", (), operator, LONG_AGO, None, LONG_AGO
    )
    return GridPrequalification(
        grid_id(unit.id, operator), unit.id, operator, unit.provider, True, GridStatus.APPROVED, LONG_AGO,
        answer=answered,
    )  # fmt: skip


def putting(case: Case) -> Verb:
    """A verb that puts the register of a case in; its body names nothing."""

    def put(state: State, context: Context, form: int) -> Outcome:
        return Outcome(form, tuple((type(one), one.id, one) for one in records(case)))  # type: ignore[attr-defined]

    return Verb("test.put", int, put)


class Computed:
    """The engine's work done here; a job that was done before is answered as then."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.known: dict[bytes, Answer] = {}
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> Answer:
        self.jobs.append(job)
        key = encode(job)
        if key not in self.known:
            self.known[key] = answer(job, self.case, MemoryStore)
        return self.known[key]


# ---------------------------------------------------------------- a day that is played


def settle(world: World, compute: Compute, counterparts: Counterparts) -> None:
    """Let everybody do what is to be done at this instant."""
    while True:
        before = world.sequencer.number
        world.sequencer.pass_gates()
        for command in counterparts.commands(world.state, now(world.state, world.clock.at)):
            world.sequencer.submit(command)
        work_off(world.sequencer, compute)
        if world.sequencer.number == before:
            return


def play(world: World, compute: Compute, until: datetime | None = None) -> World:
    """Play the market from where it is, gate by gate; `until`: gates later than this are left."""
    counterparts = Counterparts(demo_case(), world.tenant)
    settle(world, compute, counterparts)
    while (gate := next_gate(world.state)) is not None and (until is None or gate.at <= until):
        at = server_instant(world.state.get(Market, "market"), gate.at)
        assert at is not None, "the clock stands"
        world.clock.at = max(world.clock.at, at + LATE)
        settle(world, compute, counterparts)
    return world


def after(world: World, number: int) -> World:
    """What a crash after an entry leaves: the journal up to it, at its instant."""
    journal = MemoryJournal()
    journal.append(world.entries()[:number])
    return World(world.verbs, Hand(world.entries()[number - 1].at), journal, world.tenant)


COMPUTED = Computed(demo_case())


@lru_cache(maxsize=1)
def demo_world() -> World:
    """The demo's first delivery day from its beginning to its end, on the server's own time. Only to be read."""
    world = opened(table(extra=(putting(demo_case()),)))
    world.do("test.put", "", 1)
    return play(world, COMPUTED)


@lru_cache(maxsize=1)
def demo_jobs() -> tuple[Job, ...]:
    """What was computed in that day, in order."""
    (put,) = demo_world().entries("test.put")
    world, computed = after(demo_world(), put.number), Computed(demo_case())
    computed.known = COMPUTED.known
    play(world, computed)
    return tuple(computed.jobs)
