"""Work that is computed outside the machine: what it is given and what it answers, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.domain.party import Party
from coflex.domain.product import Product
from coflex.domain.qualification import ProductLimit
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.register.outcomes import SessionOutcome, UnitLimit


class Work(StrEnum):
    """A session's plan, its clearing, or the check of units against the grid."""

    PLAN = "plan"
    CLEAR = "clear"
    GRID_CHECK = "grid_check"


@dataclass(frozen=True, slots=True)
class Register:
    """For a plan the register as it is when the job is made: approved parties, the units that may be offered and their
    groups. For a clearing the units and groups behind its offers, with their limits and those of the qualifications
    under which they were offered, as the gate found them."""

    parties: tuple[Party, ...] = ()
    points: tuple[ConnectionPoint, ...] = ()
    units: tuple[Unit, ...] = ()
    groups: tuple[Group, ...] = ()
    products: tuple[Product, ...] = ()
    limits: tuple[UnitLimit, ...] = ()
    product_limits: tuple[ProductLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work, with all that its answer depends on but the case's grid and profiles.

    `subject`: id of the record the answer is about. `design`: the design's document. `before`: plans and results of the
    day's sessions so far, in the order in which they were computed. `at`: the tenant's time of the gate, or of the
    request. `buyer`: the party for which the session buys. `without`: offers to leave out, each with the reason.
    `mode`, `only`: of a grid check, the mode and the units it is about.
    """

    tenant: str
    work: Work
    subject: str
    case: str
    zone: str
    day: date
    design: str
    at: datetime
    register: Register
    session: str = ""
    price_limit_eur_mwh: Decimal = Decimal(0)
    before: tuple[SessionOutcome, ...] = ()
    offers: tuple[Offer, ...] = ()
    without: tuple[tuple[str, str], ...] = ()
    requests: tuple[Request, ...] = ()
    buyer: str = ""
    mode: str = ""
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a job: the body of the command that brings it to the machine, or why there is none."""

    body: bytes = b""
    fault: str = ""
