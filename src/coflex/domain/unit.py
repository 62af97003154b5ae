"""Connection points, controllable units and the groups they offer in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Technology(StrEnum):
    PV = "pv"
    HYDRO = "hydro"
    CHP = "chp"
    BATTERY = "battery"
    EV_CHARGING = "ev_charging"
    HEAT_PUMP = "heat_pump"
    WATER_PUMP = "water_pump"
    INDUSTRIAL_LOAD = "industrial_load"
    POWER_PLANT = "power_plant"


class Level(StrEnum):
    """Voltage level of the operator at whose grid a point is connected."""

    DISTRIBUTION = "distribution"
    TRANSMISSION = "transmission"


class Scope(StrEnum):
    """Which needs a product or a group serves: the local grid's (DSO) or the system's (TSO)."""

    LOCAL = "local"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class ConnectionPoint:
    """A metering point where a customer meets the grid. `bus` is empty for a point outside the modelled grid."""

    id: str
    bus: str
    level: Level
    voltage_kv: float
    system_operator: str
    owner: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Unit:
    """A controllable unit (document B, table 6, and the usual timing attributes).

    Powers in kW, non-negative, per direction: `up_kw` more injection or less withdrawal, `down_kw` the reverse.
    Times in seconds. `element` is the load, generator or storage of the grid model that the unit is.
    `tan_phi`: reactive power that follows a change of active power, kvar per kW.
    `energy_up_kwh`, `energy_down_kwh`: the most it can give over a delivery day; None means no limit but power.
    """

    id: str
    category: str
    technology: Technology
    connection_point: str
    element: str
    provider: str
    owner: str
    balance_responsible_party: str
    up_kw: int
    down_kw: int
    tan_phi: float
    preparation_period_s: int
    ramping_period_s: int
    full_activation_time_s: int
    deactivation_period_s: int
    min_quantity_kw: int
    max_quantity_kw: int
    min_duration_s: int
    max_duration_s: int
    recovery_time_s: int
    energy_up_kwh: int | None = None
    energy_down_kwh: int | None = None

    @property
    def activation_period_s(self) -> int:
        """Time between the order and the full change of power: preparation and ramp."""
        return self.preparation_period_s + self.ramping_period_s


@dataclass(frozen=True, slots=True)
class Group:
    """A service providing group: units that qualify and offer one product together, inside one perimeter.

    `perimeter` is empty for units outside the distribution grid. An independent aggregator's group names the
    one balance responsible party of its units.
    """

    id: str
    provider: str
    scope: Scope
    product: str
    perimeter: str
    units: tuple[str, ...]
    balance_responsible_party: str
