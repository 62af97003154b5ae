"""A tenant's market: its settings, the life of its sessions, what waits for a second person (MKT-02, PLAT-07)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from coflex.domain.quantity import Direction
from coflex.register.outcomes import SessionOutcome


@dataclass(frozen=True, slots=True)
class Market:
    """The settings of a tenant, one record with the id "market".

    Sessions are held for every delivery day from `first_day` to `last_day`, after the design that is current when the
    day is announced: `design` names a `DesignText`. `case` names the grid and the profiles. The tenant's time is
    `starts + speed * (server time - since)`: with speed 1 and starts = since it is the server's own; other clocks are
    for sandboxes. `price_limit_eur_mwh`: the most that is paid for what netting adds to a system operator's requests.
    """

    id: str
    title: str
    zone: str
    design: str
    case: str
    first_day: date
    last_day: date
    since: datetime
    starts: datetime
    speed: int = 1
    sandbox: bool = False
    price_limit_eur_mwh: Decimal = Decimal(3000)


@dataclass(frozen=True, slots=True)
class DesignText:
    """The document of a market design, kept as it was when it came into use; a changed design has another id."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Reached:
    """A state of a session and the tenant's time at which it was reached; of a gate its own time, however late the
    server passed it. "retried" and "taken_back" tell when a step was asked for again."""

    state: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """A session of a delivery day, `id` as "2016-07-05.local-1". `state` is a `SessionState` of the market's engine.

    `opens`, `closes`: its gate, in the tenant's time. `offers`: how many it holds since it closed.
    `outcome`: id of the record that holds its result, empty before; `plan`: of the one that holds its plan.
    `alarm`: why computing failed, empty if not. `design`: the `DesignText` it is held after.
    `without`: offers that a rerun leaves out, `reason`: why there was a rerun. `withdrawn`: receipts of offers that
    were taken out of its book because their unit went to another provider.
    """

    id: str
    day: date
    session: str
    state: str
    opens: datetime
    closes: datetime
    reached: tuple[Reached, ...] = ()
    offers: int = 0
    outcome: str = ""
    alarm: str = ""
    plan: str = ""
    design: str = ""
    without: tuple[str, ...] = ()
    reason: str = ""
    withdrawn: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a system operator asks for in one quarter-hour, in kW, and the most it pays."""

    start: datetime
    direction: Direction
    quantity_kw: int
    price_limit_eur_mwh: Decimal


@dataclass(frozen=True, slots=True)
class SessionRequests:
    """The requests of a session's buyer, until it opens; `id` is the session's (MKT-04)."""

    id: str
    session: str
    buyer: str
    asked: tuple[Asked, ...]


class ProposalStatus(StrEnum):
    WAITING = "waiting"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A command that needs a second person: what, asked by whom, and what became of it. `version`: of the
    subject as it was then, by the number of the entry that wrote it; what has changed since is not changed by it."""

    id: str
    verb: str
    subject: str
    party: str
    body: str
    proposed_by: str
    proposed_at: datetime
    status: ProposalStatus
    decided_by: str = ""
    decided_at: datetime | None = None
    version: int | None = None


RECORDS: dict[str, type[object]] = {
    "market": Market,
    "design": DesignText,
    "session": SessionEntry,
    "session_requests": SessionRequests,
    "session_outcome": SessionOutcome,
    "proposal": Proposal,
}
