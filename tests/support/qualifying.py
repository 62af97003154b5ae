"""A tenant in which units, groups and scheduling units are qualified, command by command."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from coflex.domain.party import Party, Role
from coflex.domain.qualification import LimitKind, StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Direction
from coflex.domain.unit import ConnectionPoint, Group, Level, Scope, Technology, Unit
from coflex.qualification.verdict import Recording
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.prequalification import GridPrequalification, ProductQualification, ProductTest, grid_id
from coflex.register.products import ProductEntry
from coflex.register.records import KIND_OF
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.service.machine import Machine, Taken, encode
from coflex.service.ports import Command
from coflex.service.state import State
from coflex.service.verbs import prequalification, product_tests, scheduling
from support.tested import first_order, product

R = TypeVar("R")
START = datetime(2026, 1, 1, tzinfo=UTC)
VERBS = {verb.name: verb for room in (prequalification, product_tests, scheduling) for verb in room.VERBS}
PARTIES = {
    "tso": Role.TSO,
    "dso": Role.DSO,
    "dso-2": Role.DSO,
    "sp": Role.SERVICE_PROVIDER,
    "sp-2": Role.SERVICE_PROVIDER,
    "bsp": Role.SERVICE_PROVIDER,
    "mo": Role.MARKET_OPERATOR,
}


@dataclass
class Desk:
    """Everybody's desk: `now` is the tenant's time, moved by the test."""

    now: datetime = START + timedelta(days=1)
    machine: Machine = field(default_factory=lambda: Machine(VERBS))
    number: int = 100

    def __post_init__(self) -> None:
        self.machine.tenants["t"] = State("t")
        for name, role in PARTIES.items():
            contract = "contract-1" if name == "bsp" else None
            entry = PartyEntry(name, Party(name, name, (role,)), PartyStatus.APPROVED, START, tso_contract=contract)
            self.put(entry)

    @property
    def state(self) -> State:
        return self.machine.tenants["t"]

    def put(self, record: Any) -> None:
        self.number += 1
        self.state.put(KIND_OF[type(record)], record.id, record, self.number)

    def do(self, verb: str, party: str, subject: str = "", /, **form: Any) -> Any:
        """What a party is answered."""
        return json.loads(self.taken(verb, party, subject, **form).reply)

    def taken(self, verb: str, party: str, subject: str = "", /, **form: Any) -> Taken:
        self.number += 1
        actor = "engine" if party == "engine" else f"client-{party}"
        command = Command("t", verb, subject, party, party, actor, encode(form))
        return self.machine.apply(command, self.number, self.now)

    def later(self, **delta: float) -> None:
        self.now += timedelta(**delta)

    def the(self, kind: type[R], id: str) -> R:
        return self.state.get(kind, id)

    # ---------------------------------------------------------------- the register

    def unit(self, name: str, provider: str = "sp", operator: str = "dso", up: int = 500, down: int = 500) -> None:
        """A unit at a point of its own."""
        level = Level.TRANSMISSION if operator == "tso" else Level.DISTRIBUTION
        point = ConnectionPoint(f"pod-{name}", "", level, 20.0, operator, "owner", 41.9, 12.5)
        self.put(PointEntry(point.id, point))
        self.put(UnitEntry(name, _unit(name, point.id, provider, up, down), UnitStatus.ACTIVE, START, START))

    def impacts(self, unit: str, *operators: str) -> None:
        entry = self.the(PointEntry, f"pod-{unit}")
        self.put(replace(entry, impacted=operators))

    def changed(self, unit: str) -> None:
        """The unit is changed materially, now."""
        self.put(replace(self.the(UnitEntry, unit), changed_materially=self.now))

    def group(self, name: str, units: tuple[str, ...], scope: Scope = Scope.GLOBAL, provider: str = "sp") -> None:
        group = Group(name, provider, scope, "mfrr", "", units, "brp")
        self.put(GroupEntry(name, group, UnitStatus.ACTIVE, START, START))

    def product(self, name: str, operator: str = "tso", **more: Any) -> None:
        self.put(ProductEntry(name, replace(product(**more), id=name), (operator,)))

    # ---------------------------------------------------------------- the ways

    def approved(self, *units: str) -> None:
        """Every operator concerned approves units, in two steps."""
        for name in units:
            provider = self.the(UnitEntry, name).unit.provider
            self.do("grid_prequalification.request", provider, units=[name])
            for one in self.state.all(GridPrequalification):
                if one.unit == name:
                    self.do("grid_prequalification.answer", one.operator, one.id, status="approved", reason="strong",
                            proof="study 7")  # fmt: skip

    def requested(self, group: str = "g", product: str = "mfrr", up: int = 500, down: int = 0, **more: Any) -> str:
        """The id of a product qualification that its provider asked for."""
        provider = self.the(GroupEntry, group).group.provider
        reply = self.do("product_qualification.request", provider, group=group, product=product, up_kw=up,
                        down_kw=down, **more)  # fmt: skip
        return str(reply["id"])

    def tested(self, id: str, tau: float = 60.0, tester: str = "tso", **plan: Any) -> ProductTest:
        """A test is set, passes by with a first-order device as the answer, and is judged."""
        reply = self.do("product_test.set", tester, id, starts=self.now.isoformat(), **plan)
        return self.answered(reply["id"], tau)

    def answered(self, test_id: str, tau: float = 60.0, verb: str = "product_test.answer") -> ProductTest:
        test = self.the(ProductTest, test_id)
        self.now = max(self.now, test.ends)
        self.do(verb, test.provider, test.id, **columns(first_order(test.signal, tau, 60), test.starts))
        return self.the(ProductTest, test_id)

    def passed(self, group: str = "g", product: str = "mfrr", **more: Any) -> ProductQualification:
        id = self.requested(group, product, **more)
        record = self.the(ProductQualification, id)
        self.tested(id, tester=record.testers[0])
        return self.the(ProductQualification, id)


def columns(recording: Recording, starts: datetime) -> dict[str, Any]:
    """A recording as the form of an answer to a test that began at `starts`."""
    return {
        "at": [(starts + (at - recording.at[0])).isoformat() for at in recording.at],
        "kw": list(recording.kw),
        "interval_s": recording.interval_s,
        "accuracy_percent": recording.accuracy_percent,
    }


def light(
    unit: str, direction: Direction, limit: int, registered: int = 500, mode: StaticMode = StaticMode.ONE_BY_ONE
) -> dict[str, Any]:
    """A static light as the engine sends it."""
    verdict = Verdict.CONFIRMED if limit == registered else Verdict.LIMITED if limit else Verdict.REJECTED
    made = StaticLight(
        unit, direction, mode, verdict, registered, limit, "line 7", LimitKind.LOADING, 1.02, 1.0, "high withdrawal"
    )
    decoded: dict[str, Any] = json.loads(encode(made))
    return decoded


def grid(unit: str, operator: str = "dso") -> str:
    return grid_id(unit, operator)


def _unit(name: str, point: str, provider: str, up: int, down: int) -> Unit:
    return Unit(
        id=name,
        category="load",
        technology=Technology.INDUSTRIAL_LOAD,
        connection_point=point,
        element="",
        provider=provider,
        owner="owner",
        balance_responsible_party="brp",
        up_kw=up,
        down_kw=down,
        tan_phi=0.0,
        preparation_period_s=60,
        ramping_period_s=60,
        full_activation_time_s=300,
        deactivation_period_s=60,
        min_quantity_kw=1,
        max_quantity_kw=max(up, down),
        min_duration_s=900,
        max_duration_s=86_400,
        recovery_time_s=0,
    )
