"""Register: parties, connection points, units, groups and products enter at one place (REG-02, REG-03, REG-05)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coflex.domain.errors import NotReady, refuse
from coflex.domain.party import Party, Role
from coflex.domain.register import check_register
from coflex.process.day import Day, told
from coflex.process.ports import Store


@dataclass(frozen=True, slots=True)
class Registered:
    """How many of each entered the register."""

    parties: int
    connection_points: int
    units: int
    groups: int
    products: int


def register(day: Day, store: Store, at: datetime) -> Registered:
    """Write the case's register; the register operator forwards each provider's units to the connecting operators.

    Raises Refused with every fault of the register at once, NotReady when there already is one; nothing is half-done.
    """
    case = day.case
    buses = {bus: day.network.node_perimeter[day.network.node_of(bus)] for bus in day.network.bus_names}
    refuse("The register", check_register(case.parties, case.points, case.units, case.groups, case.products, buses))
    keeper = day.party(Role.REGISTER_OPERATOR)
    operators = {point.id: point.system_operator for point in case.points}
    with store.transaction() as t:
        if t.all(Party):
            raise NotReady("The register is already filled.", "Start again with an empty store to register anew.")
        t.add([*case.parties, *case.points, *case.units, *case.groups, *case.products])
        t.put_document("case", {"id": case.settings.id, "title": case.settings.title, "design": day.design.id})
        for provider in sorted({unit.provider for unit in case.units}):
            mine = [unit for unit in case.units if unit.provider == provider]
            told(t, "registration", at, provider, [keeper], f"{len(mine)} units")
            concerned = sorted({operators[unit.connection_point] for unit in mine})
            told(t, "registration_forwarded", at, keeper, concerned, f"{len(mine)} units of {provider}")
    return Registered(len(case.parties), len(case.points), len(case.units), len(case.groups), len(case.products))
