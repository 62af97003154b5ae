"""Grid prequalification, product qualification, equivalences and scheduling units (REG-03, REG-04, REG-07 to REG-09).

What counts is decided by the timestamps of an answer or a grant; a status says how far a procedure has come. So a
renewal that is under way takes nothing from the answer that still stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from coflex.domain.qualification import StaticLight, StaticMode
from coflex.domain.quantity import Direction
from coflex.qualification.equivalence import Ruling
from coflex.qualification.requirements import Procedure, Requirements
from coflex.qualification.signals import Signal
from coflex.qualification.verdict import BaselinePoint, Judgement, Recording

# ---------------------------------------------------------------- grid prequalification


class GridStatus(StrEnum):
    """requested -> in_progress -> approved, conditionally_approved or not_approved; a new request begins again."""

    REQUESTED = "requested"
    IN_PROGRESS = "in_progress"
    APPROVED = "approved"
    CONDITIONALLY_APPROVED = "conditionally_approved"
    NOT_APPROVED = "not_approved"


@dataclass(frozen=True, slots=True)
class GridAnswer:
    """What a system operator's grid lets a unit do, in [valid_from, valid_until).

    `up_kw`, `down_kw`: the upper limit in each direction, the registered power where nothing limits it. `reason`: in
    words. `lights`: the proof by power flow, empty where the operator answered by itself and `proof` says on what.
    `answered_by`: a party, or "engine". `unit_as_of`: the material change of the unit that the answer knew; after a
    later one it does not hold.
    """

    status: GridStatus
    up_kw: int
    down_kw: int
    reason: str
    proof: str
    lights: tuple[StaticLight, ...]
    answered_by: str
    valid_from: datetime
    valid_until: datetime | None
    unit_as_of: datetime

    def holds(self, unit_as_of: datetime, now: datetime) -> bool:
        """Whether it is in force for a unit that was last changed materially at `unit_as_of`."""
        in_time = self.valid_from <= now and (self.valid_until is None or now < self.valid_until)
        return in_time and self.unit_as_of == unit_as_of

    def limit_kw(self, direction: Direction) -> int:
        return self.up_kw if direction is Direction.UP else self.down_kw


@dataclass(frozen=True, slots=True)
class GridPrequalification:
    """A unit before one system operator: the connecting one, or another whose grid it may affect.

    `id`: as `grid_id` makes it. `mode`: how the operator has it computed, None before it chose or where it answers by
    itself. `renew_until`: how long the computed answer is to hold. `answer`: the last one given.
    """

    id: str
    unit: str
    operator: str
    provider: str
    connecting: bool
    status: GridStatus
    status_since: datetime
    mode: StaticMode | None = None
    renew_until: datetime | None = None
    reason: str = ""
    answer: GridAnswer | None = None


def grid_id(unit: str, operator: str) -> str:
    """Id of the record of a unit before an operator."""
    return f"{unit}@{operator}"


# ---------------------------------------------------------------- product qualification


class ProductStatus(StrEnum):
    """requested -> testing -> passed or failed; a failed or passed one is requested again; passed -> revoked."""

    REQUESTED = "requested"
    TESTING = "testing"
    PASSED = "passed"
    FAILED = "failed"
    REVOKED = "revoked"


class Basis(StrEnum):
    """Why a group may offer a product: its own test, another product's by the table of equivalences, or for the time
    until it is tested."""

    TEST = "test"
    EQUIVALENCE = "equivalence"
    TEMPORARY = "temporary"


@dataclass(frozen=True, slots=True)
class Grant:
    """The qualification itself, in [valid_from, valid_until), for these quantities.

    `tests`: those passed. `group_as_of`: the material change of the group and its units that it knew. `asked`: what
    was shown, one for each signal; a product that asks for more than that by now is not covered. Equivalence:
    `source`, the qualification it stands on, `source_tests`, its tests, and the ruling on every attribute.
    """

    basis: Basis
    up_kw: int
    down_kw: int
    valid_from: datetime
    valid_until: datetime | None
    group_as_of: datetime
    asked: tuple[Requirements, ...] = ()
    tests: tuple[str, ...] = ()
    source: str = ""
    source_tests: tuple[str, ...] = ()
    rulings: tuple[Ruling, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProductQualification:
    """A group and a product. `id`: as `qualification_id` makes it.

    `testers`: operators of whom any may test: those that procure the product, or the connecting one where the table of
    equivalences lets the test count for others too (`tester_reason`). `attempt`: 1 at first; `tests`: those of this
    attempt. `correction`: what the provider did after a failed one.
    """

    id: str
    group: str
    product: str
    provider: str
    testers: tuple[str, ...]
    tester_reason: str
    up_kw: int
    down_kw: int
    status: ProductStatus
    status_since: datetime
    attempt: int = 1
    correction: str = ""
    tests: tuple[str, ...] = ()
    reason: str = ""
    grant: Grant | None = None


def qualification_id(group: str, product: str) -> str:
    """Id of the record of a group and a product."""
    return f"{group}@{product}"


@dataclass(frozen=True, slots=True)
class ProductProcedure:
    """How the operators that procure a product test it. `id` is the product's."""

    id: str
    procedure: Procedure
    set_by: str


class Subject(StrEnum):
    """Whose test it is."""

    GROUP = "group"
    SCHEDULING_UNIT = "scheduling_unit"


@dataclass(frozen=True, slots=True)
class ProductTest:
    """One test: what is sent from `starts` on, what is asked for, and, once the answer is there, the verdict.

    `subject`: of a product qualification or a scheduling unit, `subject_id` its id. `present`: other parties that take
    part. `baseline`: as nominated beforehand, empty where it is measured before the first order. `unit_as_of`: the
    material change of the units under test when it was set.
    """

    id: str
    subject: Subject
    subject_id: str
    product: str
    provider: str
    tester: str
    present: tuple[str, ...]
    attempt: int
    starts: datetime
    ends: datetime
    signal: Signal
    asked: Requirements
    baseline: tuple[BaselinePoint, ...]
    as_of: datetime
    judgement: Judgement | None = None
    judged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AnswerRecording:
    """The measured answer to a test. `id` is the test's."""

    id: str
    provider: str
    tester: str
    present: tuple[str, ...]
    recording: Recording
    sent_by: str
    sent_at: datetime


# ---------------------------------------------------------------- scheduling units


class SchedulingType(StrEnum):
    """What a scheduling unit is made of."""

    GENERATION = "generation"
    DEMAND = "demand"
    STORAGE = "storage"
    MIXED = "mixed"


class SchedulingStatus(StrEnum):
    """declared -> closed -> created -> test_requested -> testing -> tested -> registered -> agreed.

    declared: the intent is public and units are offered and asked for. closed: the acquisition is over, all confirm.
    created: all did. testing: the TSO has set the tests. tested: all were passed (failed: not; tests are requested
    anew). registered: the TSO confirmed. agreed: the agreement of TSO and BSP names it. withdrawn: given up before.
    """

    DECLARED = "declared"
    CLOSED = "closed"
    CREATED = "created"
    TEST_REQUESTED = "test_requested"
    TESTING = "testing"
    TESTED = "tested"
    FAILED = "failed"
    REGISTERED = "registered"
    AGREED = "agreed"
    WITHDRAWN = "withdrawn"


class Condition(StrEnum):
    """What the terms for balancing ask of a scheduling unit beside its tests (document O, PL-04)."""

    SCHEDULES = "schedules"
    SET_POINTS = "set_points"
    REAL_TIME_DATA = "real_time_data"
    COMMUNICATION = "communication"


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken: the status it led to, when, and by whom."""

    status: SchedulingStatus
    at: datetime
    party: str


@dataclass(frozen=True, slots=True)
class SchedulingUnit:
    """A scheduling unit from the public intent of a BSP to the agreement with the TSO.

    `products`: the balancing products it is for. `points`: connection points of its units, known once it is created.
    `providers`: of accepted units; `confirmed_by`: of them and the BSP, who did. `operators`: connecting DSOs;
    `ready`: which of them take part in the tests that were requested. `conditions`: what the BSP declared fulfilled.
    `tests`: of this attempt. `agreement`: id of the agreement.
    """

    id: str
    bsp: str
    tso: str
    type: SchedulingType
    products: tuple[str, ...]
    status: SchedulingStatus
    status_since: datetime
    note: str = ""
    providers: tuple[str, ...] = ()
    confirmed_by: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    up_kw: int = 0
    down_kw: int = 0
    attempt: int = 0
    tests: tuple[str, ...] = ()
    reason: str = ""
    agreement: str = ""
    steps: tuple[Taken, ...] = ()


class MemberStatus(StrEnum):
    """offered (by the provider) or asked (by the BSP) -> accepted or declined by the other; withdrawn."""

    OFFERED = "offered"
    ASKED = "asked"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class SchedulingMember:
    """A unit and a scheduling unit that it may become part of. `id`: as `member_id` makes it."""

    id: str
    scheduling_unit: str
    bsp: str
    unit: str
    provider: str
    status: MemberStatus
    status_since: datetime
    reason: str = ""


def member_id(scheduling_unit: str, unit: str) -> str:
    """Id of the record of a unit in a scheduling unit."""
    return f"{scheduling_unit}@{unit}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement between a TSO and a BSP; every scheduling unit that both agree on amends it.

    `id`: as `agreement_id` makes it. `reference`: of the signed document. `pending`: the scheduling unit and reference
    that one of the two, `proposed_by`, put forward and the other has not yet accepted. `version`: 0 before the first.
    """

    id: str
    tso: str
    bsp: str
    reference: str
    version: int
    since: datetime
    scheduling_units: tuple[str, ...] = ()
    pending: str = ""
    pending_reference: str = ""
    proposed_by: str = ""


def agreement_id(tso: str, bsp: str) -> str:
    """Id of the agreement of a TSO and a BSP."""
    return f"{tso}@{bsp}"


RECORDS: dict[str, type[object]] = {
    "grid_prequalification": GridPrequalification,
    "product_qualification": ProductQualification,
    "product_procedure": ProductProcedure,
    "product_test": ProductTest,
    "answer_recording": AnswerRecording,
    "scheduling_unit": SchedulingUnit,
    "scheduling_member": SchedulingMember,
    "agreement": Agreement,
}
