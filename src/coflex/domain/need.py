"""Needs: what a buyer asks for, or what the grid model says must change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from coflex.domain.qualification import LimitKind
from coflex.domain.quantity import Direction


@dataclass(frozen=True, slots=True)
class Violation:
    """A limit that a grid state breaks in one quarter-hour.

    `value` and `bound` in pu (voltage) or as a share of the rating (loading); `excess` is how far beyond, positive.
    """

    start: datetime
    element: str
    kind: LimitKind
    value: float
    bound: float

    @property
    def excess(self) -> float:
        return self.bound - self.value if self.kind is LimitKind.VOLTAGE_LOW else self.value - self.bound


@dataclass(frozen=True, slots=True)
class ActingUnit:
    """A unit that acts on a need: the effect of one kW in the need's direction, in pu (or share of rating) per kW."""

    unit: str
    effect_per_kw: float


@dataclass(frozen=True, slots=True)
class LocalNeed:
    """A flexibility need of the local grid in one session: where, when, direction, volume, and who acts on it.

    `volume_kw`: the least power in `direction`, from the most effective units in order of effect, that removes
    the violation on the linearisation; `coverable`: whether the registered units suffice.
    """

    session: str
    start: datetime
    element: str
    kind: LimitKind
    perimeter: str
    direction: Direction
    value: float
    bound: float
    volume_kw: int
    coverable: bool
    acting: tuple[ActingUnit, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A buyer's request for a quantity of a product in one quarter-hour.

    `asked_kw`: what the buyer wants before netting; `netted_kw`: what local activations at the interface take
    off (concordant, negative) or put on (discordant, positive); `quantity_kw` is what the session clears.
    """

    session: str
    buyer: str
    product: str
    direction: Direction
    start: datetime
    asked_kw: int
    netted_kw: int
    price_limit_eur_mwh: Decimal

    @property
    def quantity_kw(self) -> int:
        return max(0, self.asked_kw + self.netted_kw)
