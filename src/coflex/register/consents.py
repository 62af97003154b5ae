"""What owners allow and set: consent with scope and end, and the availability of their units (REG-10, ACT-07)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from coflex.domain.quantity import Direction


class ConsentScope(StrEnum):
    """What an owner allows a provider: to offer the unit, to read its measurements, or both."""

    OFFER = "offer"
    MEASURE = "measure"


@dataclass(frozen=True, slots=True)
class Consent:
    """An owner's consent for a provider and a unit, in [starts, ends); `withdrawn`: from then on it does not hold."""

    id: str
    owner: str
    unit: str
    provider: str
    scope: tuple[ConsentScope, ...]
    starts: datetime
    ends: datetime
    withdrawn: datetime | None = None

    @property
    def until(self) -> datetime:
        """The first instant at which it does not hold any more."""
        return self.ends if self.withdrawn is None else min(self.ends, self.withdrawn)

    def holds(self, scope: ConsentScope, start: datetime, end: datetime) -> bool:
        """Whether it covers the whole of [start, end)."""
        return scope in self.scope and self.starts <= start and end <= self.until


def covered(
    consents: Iterable[Consent],
    owner: str,
    unit: str,
    provider: str,
    scope: ConsentScope,
    start: datetime,
    end: datetime,
) -> bool:
    """Whether consents of the owner to the provider for the unit together cover the whole of [start, end)."""
    mine = [
        one for one in consents if (one.owner, one.unit, one.provider) == (owner, unit, provider) and scope in one.scope
    ]
    reached = start
    for one in sorted(mine, key=lambda one: one.starts):
        if one.starts <= reached:
            reached = max(reached, one.until)
    return reached >= end


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which a unit gives at most this, in kW per direction."""

    starts: datetime
    ends: datetime
    up_kw: int
    down_kw: int


@dataclass(frozen=True, slots=True)
class Availability:
    """What an owner set for a unit: limits inside the windows, its registered power elsewhere. `id` is the unit's."""

    id: str
    owner: str
    windows: tuple[Window, ...]

    def limit_kw(self, direction: Direction, start: datetime, end: datetime) -> int | None:
        """The least that a window leaves in [start, end); None where none concerns it."""
        limits = [
            window.up_kw if direction is Direction.UP else window.down_kw
            for window in self.windows
            if window.starts < end and start < window.ends
        ]
        return min(limits, default=None)


RECORDS: dict[str, type[object]] = {"consent": Consent, "availability": Availability}
