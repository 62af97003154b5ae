"""The dynamic traffic light: what the grid lets a perimeter do in one direction and quarter-hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from coflex.domain.quantity import Direction


class Colour(StrEnum):
    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class DynamicLight:
    """Colour and capability of a perimeter, direction and quarter-hour.

    `capability_kw` is safe for every split over the perimeter's units. Green: the whole registered potential
    fits; yellow: part of it; red: nothing. `reason` names the limiting element or the local activation.
    """

    session: str
    perimeter: str
    direction: Direction
    start: datetime
    colour: Colour
    potential_kw: int
    capability_kw: int
    reason: str
