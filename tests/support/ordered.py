"""A session of the transmission system operator that has a result, put in as it is, and everybody around it.

Eight units of 100 kW: cu-0001 to cu-0004 in the perimeter P-1, cu-0005 to cu-0008 in P-2; odd ones are sp-1's, even
ones sp-2's. Bought: 150 kW up of the group of sp-1 for an hour from BEGIN, held by cu-0001 and cu-0003. Not bought, in
their order: sp-2/a (P-1), sp-2/b (P-2), sp-2/c (P-2, a block), sp-1/d (P-2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.domain.clearing import Award, Holding, MeritLine, Reason, Status
from coflex.domain.light import Colour, DynamicLight
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction
from coflex.register.activations import ActivationOrder, SetPointEntry
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome, Step, outcome_id, pack
from coflex.register.resources import Perimeter, PointEntry, UnitEntry
from coflex.service.gates import TenantGates
from coflex.service.machine import Machine, encode
from coflex.service.ports import Command, Note
from coflex.service.sequencer import Sequencer
from coflex.service.state import State
from support.platform import DAY, TENANT, TEST_VERBS, Clock, open_tenant, put, register, set_clock
from support.watched import Asks

GLOBAL = f"{DAY}.global-1"
BEGIN = datetime(2016, 7, 4, 22, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
# Two hours before delivery: the session has its result.
PUBLISHED = BEGIN - timedelta(hours=2)
PERIODS = 4
UP = Direction.UP


def at(minutes: float) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


class Ordered:
    """The platform, on a clock that is set by hand; `do` gives the reply of a command."""

    def __init__(self, lights: tuple[int, int] = (400, 130)) -> None:
        self.clock, self.journal, self.machine = Clock(), MemoryJournal(), Machine(TEST_VERBS)
        self.sequencer = Sequencer(self.machine, self.journal, self.clock, TenantGates(self.machine))
        self.now = PUBLISHED
        for command in (open_tenant(), put(records()), set_clock(PUBLISHED)):
            self.sequencer.submit(command)
        entry = self.state.get(SessionEntry, GLOBAL)
        self.sequencer.submit(put(result(entry, lights)))
        self.sequencer.pass_gates()

    @property
    def state(self) -> State:
        return self.machine.state(TENANT)

    def do(self, verb: str, by: str = "", subject: str = "", /, *, actor: str = "user", **form: Any) -> Any:
        command = Command(TENANT, verb, subject, by, by, actor, encode(form))
        return msgspec.json.decode(self.sequencer.submit(command).reply)

    def to(self, minutes: float) -> None:
        """Set the clock to so many minutes after the delivery began, and pass what is due."""
        self.now = at(minutes)
        self.sequencer.submit(set_clock(self.now))
        self.sequencer.pass_gates()

    def who(self, party: str) -> Asks:
        return Asks(party, self.machine.roles(TENANT, party), tenant=TENANT)

    def notes(self, party: str, kind: str) -> list[dict[str, Any]]:
        """Bodies of the notes of a kind for a party, oldest first."""
        found = self.journal.feed(TENANT, party, (0, 0), 10_000)
        return [msgspec.json.decode(item.note.body) for item in found if item.note.kind == kind]

    def last_notes(self) -> tuple[Note, ...]:
        return self.journal.entries(0, 1_000_000)[-1].notes

    @property
    def order(self) -> ActivationOrder:
        """The order on what was bought."""
        return next(one for one in self.state.all(ActivationOrder) if one.offer == "sp-1/g" and not one.replaces)

    def successors(self) -> list[ActivationOrder]:
        return [one for one in self.state.all(ActivationOrder) if one.replaces]

    def gives(self, unit: str, minutes: float) -> int:
        """What a unit is told to give at a minute of the delivery, over all orders."""
        moment = at(minutes)
        return sum(
            piece.kw
            for one in self.state.all(SetPointEntry)
            if one.unit == unit
            for piece in one.profile
            if piece.starts <= moment < piece.ends
        )


def records() -> Iterator[Any]:
    """The register: units of 100 kW, in two perimeters."""
    yield Perimeter("per-1", "dso", "P-1", ("B1",))
    yield Perimeter("per-2", "dso", "P-2", ("B2",))
    for one in register(8, 2):
        if isinstance(one, PointEntry):
            bus = "B1" if int(one.id[-4:]) <= 4 else "B2"
            yield replace(one, point=replace(one.point, bus=bus))
        elif isinstance(one, UnitEntry):
            yield replace(one, unit=replace(one.unit, up_kw=100, down_kw=100, max_quantity_kw=100))
        else:
            yield one


def result(entry: SessionEntry, lights: tuple[int, int]) -> Iterator[Any]:
    """The plan and the result of the session."""
    day = {"day": entry.day, "session": entry.session, "at": PUBLISHED, "buyer": "tso"}
    quarters = [BEGIN + k * QUARTER for k in range(PERIODS)]
    shown = [
        DynamicLight("global-1", place, UP, start, Colour.YELLOW, 1000, kw, "line 1")
        for place, kw in zip(("P-1", "P-2"), lights, strict=True)
        for start in quarters
    ]
    plan_id, result_id = outcome_id(entry.id, Step.PLAN), outcome_id(entry.id, Step.RESULT)
    yield SessionOutcome(plan_id, step=Step.PLAN, added=pack(shown), **day)
    offers = [
        offer("sp-1/g", 1, "40", 150, group="sp-1-global"),
        offer("sp-2/a", 2, "50", 80, unit="cu-0002"),
        offer("sp-2/b", 3, "60", 100, unit="cu-0006"),
        offer("sp-2/c", 4, "70", 100, unit="cu-0008", block=True),
        offer("sp-1/d", 5, "80", 60, unit="cu-0007"),
    ]
    rows: list[Any] = []
    for start in quarters:
        rows.append(award(offers[0], start, 150))
        rows.append(line(offers[0], 1, start, 150, Reason.ACCEPTED))
        rows += [line(one, rank, start, 0, Reason.OUT_OF_MERIT) for rank, one in enumerate(offers[1:], 2)]
        for unit, kw in (("cu-0001", 100), ("cu-0003", 50)):
            rows.append(Holding(unit, start, "global-1", "tso", UP, kw, "sp-1/g", Status.DEFINITIVE))
    yield SessionOutcome(result_id, step=Step.RESULT, given=pack(offers), added=pack(rows), **day)
    yield replace(entry, state="published", plan=plan_id, outcome=result_id)


def offer(id: str, receipt: int, price: str, kw: int, **more: Any) -> Offer:
    step = OfferStep(1, BEGIN, Decimal(price), (kw,) * PERIODS)
    seller = {"unit": None, "group": None} | more
    return Offer(
        id=id, receipt=receipt, received_at=PUBLISHED, session="global-1", provider=id.partition("/")[0],
        product="global_energy", direction=UP, steps=(step,), **seller,
    )  # fmt: skip


def award(one: Offer, start: datetime, kw: int) -> Award:
    price = one.steps[0].price_eur_mwh
    return Award(
        "global-1", one.id, 1, one.provider, "tso", one.product, one.unit, one.group, one.direction, start, kw, price,
        price, Status.DEFINITIVE,
    )  # fmt: skip


def line(one: Offer, rank: int, start: datetime, accepted: int, reason: Reason) -> MeritLine:
    return MeritLine(
        "global-1", one.product, one.direction, start, rank, one.id, 1, one.provider, one.unit or one.group or "",
        one.steps[0].price_eur_mwh, one.steps[0].quantity_kw[0], accepted, Status.DEFINITIVE, reason, "",
    )  # fmt: skip
