"""What a baseline is given and what it answers, whatever its method.

Series are signed, injection positive, in kW, one value a quarter-hour of one local day.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Bools, Floats

Window = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Peers:
    """Other units that may stand for this one: `history[p, d, t]` and `today[p, t]` on the same days and quarters.

    `unaffected[p]`: neither called nor limited on the event day. kW, injection positive, NaN where not metered.
    """

    history: Floats
    today: Floats
    unaffected: Bools


@dataclass(frozen=True, eq=False)
class Weather:
    """Outdoor temperature in degrees Celsius: of the past days, shape (days, quarters), and of the event day."""

    history: Floats
    today: Floats


@dataclass(frozen=True, eq=False)
class Given:
    """All that a baseline of one unit on one day may be made of.

    event[t]: the quarters sold. notice: the quarter in which the order was known, <= 0 when before the day.
    history[d, t]: past days on the event day's quarters, ascending (see `alignment.align_history`), NaN where not
    metered. eligible[d]: days that may stand for the event day (see `eligibility.judge_days`). today[t]: the event day
    as far as it is metered, NaN beyond. nomination[t]: the schedule nominated last before gate closure;
    nominated_before: earlier nominations and what was metered then, of one shape. contracted_kw: the power of a
    drop-to contract. working[d], works_today: whether a day is a working day.
    """

    event: Bools
    notice: int
    history: Floats = field(default_factory=lambda: np.empty((0, 0)))
    eligible: Bools = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    today: Floats | None = None
    nomination: Floats | None = None
    nominated_before: tuple[Floats, Floats] | None = None
    contracted_kw: float | None = None
    peers: Peers | None = None
    weather: Weather | None = None
    working: Bools | None = None
    works_today: bool = True


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """A baseline with its evidence.

    `values[t]` in kW, injection positive; all NaN when not `enough`, so that nobody settles on a guess.
    `days`: rows of the history that were averaged, ascending. `adjustment`: kW added, or factor applied; None when
    none was made. `known_at`: number of quarters of the day that must be metered before it can be computed: the
    baseline is ex ante when that is no later than the event's first quarter, else ex post.
    `considered`: rows of the history whose readings had a say (those that were ranked, and those that a missing
    reading kept out). `read_today`: half-open windows of the event day that were read. `peers`: the units of a control
    group that were averaged. `note`: what could not be done and why, empty when nothing.
    """

    method: str
    values: Floats
    days: tuple[int, ...]
    adjustment: float | None
    enough: bool
    known_at: int
    considered: tuple[int, ...] = ()
    read_today: tuple[Window, ...] = ()
    peers: tuple[int, ...] = ()
    note: str = ""


def nothing(
    label: str, quarters: int, note: str, considered: tuple[int, ...] = (), known_at: int = 0
) -> BaselineResult:
    """A baseline that could not be made, and why."""
    return BaselineResult(label, np.full(quarters, np.nan), (), None, False, known_at, considered, note=note)


def bounds(event: Bools) -> Window:
    """First and last quarter of the event. Raises CoflexError on an event without a quarter."""
    quarters = np.flatnonzero(event)
    if not len(quarters):
        raise CoflexError("The event has no quarter-hour.", "Mark the quarter-hours that were sold.")
    return int(quarters[0]), int(quarters[-1])


def event_means(history: Floats, event: Bools) -> Floats:
    """Mean power in the event, over the last axis; one order of summation for one unit and for many."""
    means: Floats = np.ascontiguousarray(history[..., event], dtype=np.float64).mean(axis=-1)
    return means
