"""Perimeters, connection points, controllable units and service providing groups in the register (REG-02, REG-05)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from coflex.domain.unit import ConnectionPoint, Group, Unit


class UnitStatus(StrEnum):
    """new -> active <-> inactive -> terminated. Only active units are offered."""

    NEW = "new"
    ACTIVE = "active"
    INACTIVE = "inactive"
    TERMINATED = "terminated"


# From which states a unit or group comes into a state.
BEFORE: dict[UnitStatus, tuple[UnitStatus, ...]] = {
    UnitStatus.ACTIVE: (UnitStatus.NEW, UnitStatus.INACTIVE),
    UnitStatus.INACTIVE: (UnitStatus.ACTIVE,),
    UnitStatus.TERMINATED: (UnitStatus.NEW, UnitStatus.ACTIVE, UnitStatus.INACTIVE),
}

# A change of one of these is material: what was qualified was another unit.
MATERIAL = frozenset(
    {
        "technology", "connection_point", "element", "up_kw", "down_kw", "tan_phi", "preparation_period_s",
        "ramping_period_s", "full_activation_time_s", "deactivation_period_s", "min_quantity_kw", "max_quantity_kw",
        "min_duration_s", "max_duration_s", "recovery_time_s", "energy_up_kwh", "energy_down_kwh",
    }
)  # fmt: skip
# The same of the connection point: where in the grid the unit is.
MATERIAL_OF_POINT = frozenset({"bus", "level", "voltage_kv", "system_operator"})


@dataclass(frozen=True, slots=True)
class Perimeter:
    """A part of a system operator's grid inside which units may form a group: the buses in it.

    `name`: as groups and products write it; empty for the buses of the substation. A bus is in one perimeter.
    """

    id: str
    system_operator: str
    name: str
    buses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PointEntry:
    """A connection point. `impacted`: other system operators whose grids an activation here may affect.

    `registered_by`: the party that did, and that answers for it until others have units there. `ended`: since when it
    is gone.
    """

    id: str
    point: ConnectionPoint
    impacted: tuple[str, ...] = ()
    registered_by: str = ""
    ended: datetime | None = None

    @property
    def operators(self) -> tuple[str, ...]:
        """The system operators that answer for its units: the connecting one first."""
        return (self.point.system_operator, *self.impacted)


@dataclass(frozen=True, slots=True)
class UnitEntry:
    """A controllable unit. `changed_materially`: when its technical data last did; qualifications before it lapse."""

    id: str
    unit: Unit
    status: UnitStatus
    status_since: datetime
    changed_materially: datetime

    @property
    def live(self) -> bool:
        return self.status is not UnitStatus.TERMINATED


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """A service providing group. `changed_materially`: when its units last changed."""

    id: str
    group: Group
    status: UnitStatus
    status_since: datetime
    changed_materially: datetime

    @property
    def live(self) -> bool:
        return self.status is not UnitStatus.TERMINATED


RECORDS: dict[str, type[object]] = {
    "perimeter": Perimeter,
    "connection_point": PointEntry,
    "unit": UnitEntry,
    "group": GroupEntry,
}
