"""Activation: orders, set points, and what stops them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from coflex.domain.quantity import Direction


class Hop(StrEnum):
    """The way of an order: market, DSO platform, light node, energy management system of the customer."""

    MARKET = "market"
    DSO_PLATFORM = "dso_platform"
    LIGHT_NODE = "light_node"
    ENERGY_MANAGEMENT_SYSTEM = "energy_management_system"


@dataclass(frozen=True, slots=True)
class SetPoint:
    """The power a unit is to hold in a quarter-hour, signed, injection positive: baseline plus the change ordered.

    `ordered_kw`: unsigned change in `direction` that stands (after any limit). `awarded_kw`: what was bought.
    `acknowledged`: the last hop that confirmed it.
    """

    unit: str
    start: datetime
    buyer: str
    session: str
    direction: Direction
    awarded_kw: int
    ordered_kw: int
    baseline_kw: float
    power_kw: float
    acknowledged: Hop


@dataclass(frozen=True, slots=True)
class Limitation:
    """The DSO limits or ends a running activation because the state of the grid asks for it."""

    start: datetime
    unit: str
    buyer: str
    from_kw: int
    to_kw: int
    element: str
    value: float
    bound: float


@dataclass(frozen=True, slots=True)
class Replacement:
    """The TSO calls the next line of its list for what a limitation or a failure took away."""

    start: datetime
    session: str
    offer: str
    step: int
    unit: str
    direction: Direction
    quantity_kw: int
    price_eur_mwh: Decimal
    reason: str
