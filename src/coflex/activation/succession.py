"""Succession: the next of the merit order list takes over what a limit or a failure took away (ACT-03).

Lines are asked in their order. Of a line only that is called which was offered and not bought, of units that are free
and qualified, in perimeters that are not barred and have room in their light. Whatever is not called has its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class Skipped(StrEnum):
    """Why a line, or a unit of it, was not called."""

    BOUND = "bound"  # a block, a least quantity, an exclusive group or a longest run: a part would break its terms
    BOUGHT = "bought"
    NOT_QUALIFIED = "not_qualified"
    NOT_FREE = "not_free"
    BARRED = "barred"
    NO_ROOM = "no_room"
    DEAR = "dear"
    REFUSED = "refused"  # the list says that the line cannot be bought at all


@dataclass(frozen=True, slots=True)
class Candidate:
    """A unit behind a line: what it has free in the quarter-hour, and the perimeter in which it is, empty for none.
    `why_not`: the reason for which it may not be called at all."""

    unit: str
    perimeter: str
    free_kw: int
    why_not: Skipped | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the list in one quarter-hour and direction: `left_kw` was offered and not bought."""

    rank: int
    offer: str
    step: int
    provider: str
    price_eur_mwh: Decimal
    left_kw: int
    units: tuple[Candidate, ...]
    why_not: Skipped | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What is called: `kw` of a unit, for a line."""

    offer: str
    step: int
    provider: str
    unit: str
    kw: int
    price_eur_mwh: Decimal


@dataclass(frozen=True, slots=True)
class Succession:
    """Calls in the order of the list; what is not covered, kW; (offer or unit, reason) of what was passed over."""

    calls: tuple[Call, ...]
    missing_kw: int
    skipped: tuple[tuple[str, Skipped], ...]


def succeed(
    missing_kw: int, lines: Sequence[Line], room_kw: Mapping[str, int], barred: Set[str] = frozenset()
) -> Succession:
    """Who takes over `missing_kw` in a quarter-hour and direction.

    `room_kw`: what the light of a perimeter still lets through; one without a light is not limited. `barred`:
    perimeters in which power was just taken away.

    Guarantees: the calls and what is missing add up to what was asked for; of no line more than it has left, of no unit
    more than it has free, of no perimeter more than its room; no unit twice; a line is called only after those before
    it gave all they can. The same lines in any order give the same.
    """
    left, room = missing_kw, dict(room_kw)
    used: set[str] = set()
    calls: list[Call] = []
    skipped: list[tuple[str, Skipped]] = []
    for line in sorted(lines, key=lambda one: (one.rank, one.offer, one.step)):
        if left <= 0:
            break
        if line.why_not is not None or line.left_kw <= 0:
            skipped.append((line.offer, line.why_not or Skipped.BOUGHT))
            continue
        of_line = min(left, line.left_kw)
        for unit in sorted(line.units, key=lambda one: (-one.free_kw, one.unit)):
            why, able = _able(unit, room, barred, used)
            if why is not None:
                skipped.append((unit.unit, why))
                continue
            kw = min(of_line, able)
            if kw <= 0:
                break
            calls.append(Call(line.offer, line.step, line.provider, unit.unit, kw, line.price_eur_mwh))
            used.add(unit.unit)
            of_line -= kw
            left -= kw
            if unit.perimeter in room:
                room[unit.perimeter] -= kw
    return Succession(tuple(calls), left, tuple(skipped))


def _able(unit: Candidate, room: Mapping[str, int], barred: Set[str], used: Set[str]) -> tuple[Skipped | None, int]:
    """Why a unit is passed over, or what it can take over."""
    if unit.why_not is not None:
        return unit.why_not, 0
    if unit.free_kw <= 0 or unit.unit in used:
        return Skipped.NOT_FREE, 0
    if unit.perimeter in barred:
        return Skipped.BARRED, 0
    able = min(unit.free_kw, room.get(unit.perimeter, unit.free_kw))
    return (Skipped.NO_ROOM, 0) if able <= 0 else (None, able)
