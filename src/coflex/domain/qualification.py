"""What is qualified: a unit by the grid (the static traffic light, with its proof), a group for a product by test."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coflex.domain.quantity import Direction


class StaticMode(StrEnum):
    """`all_together`: every unit of the grid activated at once must be safe (the DSO takes no part in the
    offering). `one_by_one`: each unit alone must be safe (the DSO takes part in every session)."""

    ALL_TOGETHER = "all_together"
    ONE_BY_ONE = "one_by_one"


class Verdict(StrEnum):
    CONFIRMED = "confirmed"
    LIMITED = "limited"
    REJECTED = "rejected"


class LimitKind(StrEnum):
    """What a grid limit bounds: a voltage in pu, or a current as a share of its rating (1.0 = 100 %)."""

    VOLTAGE_HIGH = "voltage_high"
    VOLTAGE_LOW = "voltage_low"
    LOADING = "loading"


@dataclass(frozen=True, slots=True)
class StaticLight:
    """The answer for one unit, direction and mode.

    `limit_kw`: qualified power. `element`, `kind`, `value`, `bound`, `state`: the limiting element, and the
    value it reaches by power flow in the named reference state, against its bound. Where the unit is
    confirmed they name the element that came nearest.
    """

    unit: str
    direction: Direction
    mode: StaticMode
    verdict: Verdict
    registered_kw: int
    limit_kw: int
    element: str
    kind: LimitKind
    value: float
    bound: float
    state: str


@dataclass(frozen=True, slots=True)
class ProductLimit:
    """With how much a group is qualified for a product: what it and its `units` offer of it together, kW unsigned."""

    group: str
    product: str
    up_kw: int
    down_kw: int
    units: tuple[str, ...]

    def kw(self, direction: Direction) -> int:
        return self.up_kw if direction is Direction.UP else self.down_kw
