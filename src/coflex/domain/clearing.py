"""What a session decided: awards, the merit order list with its reasons, the ledger of who holds what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from coflex.domain.quantity import Direction


class Status(StrEnum):
    """`preliminary`: the same buyer's next session may change it. `definitive`: fixed."""

    PRELIMINARY = "preliminary"
    DEFINITIVE = "definitive"


class Reason(StrEnum):
    """Why a line of the merit order list was taken, limited or skipped."""

    ACCEPTED = "accepted"
    MARGINAL = "marginal"
    NO_NEED = "no_need"
    OUT_OF_MERIT = "out_of_merit"
    NO_EFFECT = "no_effect"
    RED_LIGHT = "red_light"
    YELLOW_LIGHT = "yellow_light"
    GRID_LIMIT = "grid_limit"
    HELD_ELSEWHERE = "held_elsewhere"
    ENERGY_LIMIT = "energy_limit"
    MIN_QUANTITY = "min_quantity"
    BLOCK_REFUSED = "block_refused"
    EXCLUSIVE = "exclusive"
    RUN_LENGTH = "run_length"
    PRICE_LIMIT = "price_limit"


def award_name(offer: str, step: int) -> str:
    """The name of what was bought from a price step of an offer.

    Charges take it into their own names, of which | and # separate the parts: here they are written as in addresses.
    """
    return f"{offer.replace('|', '%7C').replace('#', '%23')} step {step}"


@dataclass(frozen=True, slots=True)
class Award:
    """A quantity bought in one quarter-hour, from one price step of an offer."""

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
    bid_eur_mwh: Decimal
    price_eur_mwh: Decimal
    status: Status

    @property
    def name(self) -> str:
        """Its name among what was bought of a unit or group in the session and quarter-hour."""
        return award_name(self.offer, self.step)


@dataclass(frozen=True, slots=True)
class MeritLine:
    """One line of a merit order list: the block, what was accepted of it, and why not more."""

    session: str
    product: str
    direction: Direction
    start: datetime
    rank: int
    offer: str
    step: int
    provider: str
    location: str
    price_eur_mwh: Decimal
    offered_kw: int
    accepted_kw: int
    status: Status
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Holding:
    """Who holds a unit in a quarter-hour. At most one holding for each (unit, start), ever."""

    unit: str
    start: datetime
    session: str
    buyer: str
    direction: Direction
    quantity_kw: int
    offer: str
    status: Status


@dataclass(frozen=True, slots=True)
class Uncovered:
    """The part of a need or request that no admissible offer covers, and the rows that bind."""

    session: str
    start: datetime
    what: str
    amount: float
    unit: str
    binding: tuple[str, ...]
