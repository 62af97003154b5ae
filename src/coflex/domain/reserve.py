"""Reserve: capacity that is held ready for a price, and called for another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from coflex.domain.clearing import Status
from coflex.domain.offer import Offer
from coflex.domain.quantity import Direction


@dataclass(frozen=True, slots=True)
class CapacityOffer:
    """An offer to hold capacity ready.

    `offer` says what may be held, and at which price (EUR/MWh in its direction) it is used when called.
    `availability_eur_mw_h[i]`: what its i-th step is paid for each MW and hour held, called or not; not negative.
    The offer's terms bind what is held (a block is held whole or not at all), but `energy_limit_kwh`, which binds
    what is called; what is held can be called in any part.
    """

    offer: Offer
    availability_eur_mw_h: tuple[Decimal, ...]


@dataclass(frozen=True, slots=True)
class Reservation:
    """Capacity held in one quarter-hour, from one price step of a capacity offer; paid as bid."""

    session: str
    offer: str
    step: int
    provider: str
    buyer: str
    product: str
    unit: str | None
    group: str | None
    direction: Direction
    start: datetime
    quantity_kw: int
    availability_eur_mw_h: Decimal
    use_eur_mwh: Decimal
    status: Status
