"""Offers: the sell side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from coflex.domain.quantity import Direction


@dataclass(frozen=True, slots=True)
class OfferStep:
    """One price step of an offer over consecutive quarter-hours from `start`.

    `number`: 1, 2, ... in the order of price; steps of different numbers stack, those of the same number must
    not overlap in time. `quantity_kw[i]`: whole kW, non-negative, in the i-th quarter-hour from `start`.
    `price_eur_mwh`: what the provider is paid for each MWh in the offer's direction; negative means it pays.
    """

    number: int
    start: datetime
    price_eur_mwh: Decimal
    quantity_kw: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer of a unit or of a group for one product and direction in one session.

    Exactly one of `unit` and `group` is set. `receipt`: running number given at intake; it breaks ties.
    `min_quantity_kw`: nothing, or at least this much in a quarter-hour. `block`: all quarter-hours whole, or none.
    `max_periods`: the longest run of consecutive quarter-hours. `energy_limit_kwh`: most energy over the offer.
    `exclusive`: offers of one provider that share this label exclude each other.
    `local_only`: not to be forwarded to a later buyer.
    """

    id: str
    receipt: int
    received_at: datetime
    session: str
    provider: str
    product: str
    direction: Direction
    unit: str | None
    group: str | None
    steps: tuple[OfferStep, ...]
    min_quantity_kw: int = 0
    block: bool = False
    max_periods: int | None = None
    energy_limit_kwh: int | None = None
    exclusive: str | None = None
    valid_until: datetime | None = None
    local_only: bool = False
