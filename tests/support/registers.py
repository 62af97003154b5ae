"""A register to be filled by commands: a machine, a journal in memory, a clock set by hand, and sound forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from coflex.adapters.store.journal_memory import MemoryJournal
from coflex.domain.party import Role
from coflex.service.machine import Machine, encode
from coflex.service.ports import Command, Note, Personal
from coflex.service.sequencer import Sequencer
from coflex.service.state import State
from coflex.service.verbs import consents, devices, parties, prequalification, products, resources
from support.watched import Asks

TENANT = "t"
START = datetime(2026, 7, 1, 12, tzinfo=UTC)
ROOMS = (parties, resources, products, consents, devices, prequalification)
VERBS = {verb.name: verb for room in ROOMS for verb in room.VERBS}


class Hand:
    """A clock that stands where it is set."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        return self.at


@dataclass
class World:
    """A tenant without anybody; `do` sends a command for a party and gives the reply."""

    clock: Hand = field(default_factory=Hand)
    journal: MemoryJournal = field(default_factory=MemoryJournal)

    def __post_init__(self) -> None:
        self.machine = Machine(VERBS, {TENANT: State(TENANT)})
        self.sequencer = Sequencer(self.machine, self.journal, self.clock)

    @property
    def state(self) -> State:
        return self.machine.state(TENANT)

    def do(
        self, verb: str, party: str, subject: str = "", *, actor: str = "user", private: tuple[Personal, ...] = (),
        expects: int | None = None, **form: Any,
    ) -> Any:  # fmt: skip
        command = Command(TENANT, verb, subject, party, party, actor, encode(form), expects=expects, private=private)
        return msgspec.json.decode(self.sequencer.submit(command).reply)

    def later(self, **time: float) -> None:
        self.clock.at += timedelta(**time)

    def who(self, party: str) -> Asks:
        return Asks(party, self.machine.roles(TENANT, party))

    @property
    def notes(self) -> tuple[Note, ...]:
        """Of the last entry."""
        return self.journal.entries()[-1].notes

    def party(self, id: str, *roles: Role, **form: Any) -> None:
        """Register and approve a party, as the platform itself."""
        self.do("party.register", id, roles=roles, **({"id": id, "name": id.upper()} | form))
        self.do("party.approve", "", id, actor="operator")


ROLES: Mapping[str, Role] = {
    "mo": Role.MARKET_OPERATOR,
    "fro": Role.REGISTER_OPERATOR,
    "dso": Role.DSO,
    "tso": Role.TSO,
    "sp-1": Role.SERVICE_PROVIDER,
    "sp-2": Role.SERVICE_PROVIDER,
    "brp-1": Role.BALANCE_RESPONSIBLE_PARTY,
    "brp-2": Role.BALANCE_RESPONSIBLE_PARTY,
    "own-1": Role.ASSET_OWNER,
    "own-2": Role.ASSET_OWNER,
}


def populated() -> World:
    """A tenant with parties, two products, and two perimeters of two buses each."""
    world = World()
    for name, role in ROLES.items():
        world.party(name, role)
    world.do("product.register", "dso", **product_form("local", "local"))
    world.do("product.register", "tso", **product_form("global", "global"))
    world.do("perimeter.set", "dso", "F01", name="F01", buses=["B1", "B2"])
    world.do("perimeter.set", "dso", "F02", name="F02", buses=["B3", "B4"])
    return world


def point_form(number: int, **changes: Any) -> dict[str, Any]:
    """The connection point p<number> at the bus B<number>."""
    return {
        "id": f"p{number}",
        "bus": f"B{number}",
        "level": "distribution",
        "voltage_kv": 20.0,
        "system_operator": "dso",
        "owner": "own-1",
        "latitude": 44.4,
        "longitude": 7.5,
        "impacted": ["tso"],
    } | changes


def unit_form(number: int, **changes: Any) -> dict[str, Any]:
    """The unit u<number>, a battery at the point p<number>."""
    return {
        "id": f"u{number}",
        "category": "storage",
        "technology": "battery",
        "connection_point": f"p{number}",
        "element": f"battery {number}",
        "owner": "own-1",
        "balance_responsible_party": "brp-1",
        "up_kw": 100,
        "down_kw": 80,
        "preparation_period_s": 60,
        "ramping_period_s": 120,
        "full_activation_time_s": 300,
        "deactivation_period_s": 60,
        "min_quantity_kw": 1,
        "max_quantity_kw": 100,
        "min_duration_s": 900,
        "max_duration_s": 7200,
        "recovery_time_s": 0,
    } | changes


def product_form(id: str, scope: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": id,
        "scope": scope,
        "kind": "active_energy",
        "directions": ["up", "down"],
        "resolution_s": 900,
        "tick_kw": 1,
        "min_quantity_kw": 1,
        "full_activation_time_s": 900,
        "price_cap_eur_mwh": "1000",
        "divisible": True,
        "symmetric": False,
        "tolerance": "0.1",
        "penalty_share": "0.5",
    } | changes


def add_unit(world: World, number: int, **changes: Any) -> None:
    """Register a unit with its point, and activate it with its owner's consent."""
    form = unit_form(number, **changes)
    provider, owner = form.pop("provider", "sp-1"), form["owner"]
    world.do("unit.register", provider, **form, point=point_form(number, owner=owner))
    world.do("consent.give", owner, unit=form["id"], provider=provider, scope=["offer"],
             ends=(world.clock.at + timedelta(days=365)).isoformat())  # fmt: skip
    world.do("unit.activate", provider, form["id"])


def group_form(id: str, *units: int, **changes: Any) -> dict[str, Any]:
    """A local group of units in F01."""
    return {
        "id": id,
        "scope": "local",
        "product": "local",
        "perimeter": "F01",
        "units": [f"u{number}" for number in units],
        "balance_responsible_party": "brp-1",
    } | changes
