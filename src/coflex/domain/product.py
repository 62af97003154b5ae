"""Products: what is traded."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from coflex.domain.quantity import Direction
from coflex.domain.unit import Scope


class QuantityKind(StrEnum):
    ACTIVE_ENERGY = "active_energy"
    ACTIVE_CAPACITY = "active_capacity"
    REACTIVE_ENERGY = "reactive_energy"
    REACTIVE_CAPACITY = "reactive_capacity"


@dataclass(frozen=True, slots=True)
class Product:
    """A product of the catalogue (document B, table 7).

    `tick_kw`: quantities are whole multiples of it. `price_cap_eur_mwh`: no offer above it, none below its negative.
    `tolerance`: share of the ordered energy by which delivery may miss it unpunished.
    `penalty_share`: share of the bid price that an undelivered MWh costs beyond not being paid.
    """

    id: str
    scope: Scope
    kind: QuantityKind
    directions: tuple[Direction, ...]
    resolution_s: int
    tick_kw: int
    min_quantity_kw: int
    full_activation_time_s: int
    price_cap_eur_mwh: Decimal
    divisible: bool
    symmetric: bool
    tolerance: Decimal
    penalty_share: Decimal
