"""What is ordered of whom, what each unit is told, what stands by, and who regulates (ACT-01, ACT-03 to ACT-06).

An order is on one offer of one session, never above what was awarded there. A set point is a unit's share of an order;
it is what the field is sent and what an owner sees. A backup is a unit that its provider keeps from being sold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from coflex.activation.monitor import Alarm
from coflex.domain.activation import Acknowledgement, Notice, Piece
from coflex.domain.quantity import Direction


class OrderKind(StrEnum):
    """How an order came about: from a definitive result, from its buyer, or in the place of another."""

    SCHEDULED = "scheduled"
    DIRECT = "direct"
    SUCCESSION = "succession"


class OrderState(StrEnum):
    """ordered -> split -> (over by time), and from either stopped (by the buyer, or by the operators' limits) or
    withdrawn (its result was taken back before delivery)."""

    ORDERED = "ordered"
    SPLIT = "split"
    STOPPED = "stopped"
    WITHDRAWN = "withdrawn"


LIVE = frozenset({OrderState.ORDERED, OrderState.SPLIT})


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit gives at most `remaining_kw` in [starts, ends), whatever it was told; said by its provider at `at`."""

    unit: str
    starts: datetime
    ends: datetime
    remaining_kw: int
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ActivationOrder:
    """An order on an offer, in one direction. `session`: id of its `SessionEntry`.

    `awarded`: what was bought, the ceiling; `profile`: what is ordered; `lost`: what limits and failures took away for
    good; `missing`: of the profile, what no unit was found for. `split_by`: until then the provider splits, then the
    platform; `due`: when the clock looks at it next. `own_split`: whether the provider's split stands. `version`: grows
    with every change. `operators`: system operators of its units. `replaces`: the order in whose place it is.
    `price_eur_mwh`: of the line that took over; an order from awards has their prices.
    """

    id: str
    kind: OrderKind
    state: OrderState
    buyer: str
    provider: str
    product: str
    session: str
    offer: str
    direction: Direction
    unit: str | None
    group: str | None
    awarded: tuple[Piece, ...]
    profile: tuple[Piece, ...]
    ordered_at: datetime
    split_by: datetime
    operators: tuple[str, ...]
    due: datetime | None = None
    version: int = 1
    own_split: bool = False
    lost: tuple[Piece, ...] = ()
    missing: tuple[Piece, ...] = ()
    notices: tuple[Notice, ...] = ()
    failures: tuple[Failure, ...] = ()
    acknowledgements: tuple[Acknowledgement, ...] = ()
    replaces: str = ""
    price_eur_mwh: Decimal | None = None
    reason: str = ""

    @property
    def ends(self) -> datetime:
        """The first instant at which nothing of it is left to deliver."""
        return max((piece.ends for piece in (*self.awarded, *self.profile)), default=self.ordered_at)

    def live(self, at: datetime) -> bool:
        return self.state in LIVE and at < self.ends


class SetPointState(StrEnum):
    """`waiting`: to be signed and sent; `sent`: it left."""

    WAITING = "waiting"
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class SetPointEntry:
    """A unit's share of an order, `id` of both. `profile`: the change of its power, unsigned, in the order's direction.

    `version`: grows with every change; `since`: from when on this version differs from those before. `sequences`: of
    the signed messages that carried this version, `sent_at` when. `acknowledgements`: of this version, by light node
    and energy management system. `alarm`: what its unit does otherwise, from when on, and by how much it gives more
    than it was told in the direction of the order (below zero: less), where that is known. `told_until`: the latest
    end that a version had which was sent.
    """

    id: str
    order: str
    session: str
    unit: str
    owner: str
    provider: str
    buyer: str
    operators: tuple[str, ...]
    direction: Direction
    profile: tuple[Piece, ...]
    version: int
    since: datetime
    state: SetPointState = SetPointState.WAITING
    sequences: tuple[int, ...] = ()
    sent_at: datetime | None = None
    acknowledgements: tuple[Acknowledgement, ...] = ()
    alarm: Alarm = Alarm.NONE
    alarm_since: datetime | None = None
    deviation_kw: Decimal | None = None
    told_until: datetime | None = None

    @property
    def holds_until(self) -> datetime:
        """Until then a device may hold what this version or one before it said."""
        ends = self.profile[-1].ends if self.profile else self.since
        return ends if self.told_until is None else max(ends, self.told_until)


@dataclass(frozen=True, slots=True)
class Backup:
    """A unit that its provider keeps free in [starts, ends), whole quarter-hours: nobody buys it there. `released`:
    since when it may be sold again."""

    id: str
    provider: str
    owner: str
    unit: str
    starts: datetime
    ends: datetime
    reserved_at: datetime
    released: datetime | None = None

    def holds(self, start: datetime, end: datetime) -> bool:
        """Whether it covers the whole of [start, end)."""
        return self.released is None and self.starts <= start and end <= self.ends

    def touches(self, start: datetime, end: datetime) -> bool:
        return self.released is None and self.starts < end and start < self.ends


@dataclass(frozen=True, slots=True)
class SessionOrders:
    """How far the orders from a session's result are made; `id` is the session's. `offers`: that many of its offers, in
    the order of their ids, have theirs; `done` when all have."""

    id: str
    offers: int
    done: bool
    at: datetime


class RegulationState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Share:
    """A unit's part in a regulation: the most it gives each way in kW, and its factor beside those of the others."""

    unit: str
    up_kw: int
    down_kw: int
    factor: int


@dataclass(frozen=True, slots=True)
class Regulation:
    """A group, or a unit, follows its buyer's signal in [starts, ends), within `up_kw` and `down_kw` (ACT-05).

    `band`: id of the group or unit, which names the stream. `full_activation_s`: of the product. `offers`: whose awards
    hold the band.
    """

    id: str
    buyer: str
    provider: str
    product: str
    session: str
    offers: tuple[str, ...]
    band: str
    starts: datetime
    ends: datetime
    up_kw: int
    down_kw: int
    full_activation_s: int
    shares: tuple[Share, ...]
    operators: tuple[str, ...]
    state: RegulationState = RegulationState.RUNNING
    stopped_at: datetime | None = None

    def running(self, at: datetime) -> bool:
        return self.state is RegulationState.RUNNING and self.starts <= at < self.ends


RECORDS: dict[str, type[object]] = {
    "activation": ActivationOrder,
    "set_point": SetPointEntry,
    "backup": Backup,
    "session_orders": SessionOrders,
    "regulation": Regulation,
}
