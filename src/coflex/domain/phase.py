"""Phases: what stands out in one of three, and what the local grid needs to be in balance again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from coflex.domain.quantity import Direction


class Phase(StrEnum):
    A = "a"
    B = "b"
    C = "c"


class PhaseLimit(StrEnum):
    """What a limit bounds in an unbalanced grid: a phase's voltage to neutral in pu, a phase's or the neutral's
    current as a share of the rating, or the voltage of negative sequence as a share of the positive one."""

    VOLTAGE_HIGH = "voltage_high"
    VOLTAGE_LOW = "voltage_low"
    LOADING = "loading"
    NEUTRAL = "neutral"
    UNBALANCE = "unbalance"


@dataclass(frozen=True, slots=True)
class PhaseViolation:
    """A limit that an unbalanced state breaks in one quarter-hour. `phase` is None where the limit is of all three
    (neutral, unbalance); `excess` is how far beyond, positive."""

    start: datetime
    element: str
    kind: PhaseLimit
    phase: Phase | None
    value: float
    bound: float

    @property
    def excess(self) -> float:
        return self.bound - self.value if self.kind is PhaseLimit.VOLTAGE_LOW else self.value - self.bound


@dataclass(frozen=True, slots=True)
class PhaseVolume:
    """Power that has to change at a bus in one phase; up is more injection."""

    phase: Phase
    direction: Direction
    volume_kw: int


@dataclass(frozen=True, slots=True)
class ActingPhaseUnit:
    """A unit that acts on a need: the direction in which it relieves, and by how much per kW (pu, or share of rating
    or of the positive sequence). `phase` is None for a unit on all three."""

    unit: str
    phase: Phase | None
    direction: Direction
    effect_per_kw: float


@dataclass(frozen=True, slots=True)
class PhaseNeed:
    """A need for phase balancing: at which bus, when, how much in which phase and direction, and who acts on it.

    `volumes`: changes at `bus` that together remove the violation, by power flow; nothing for a phase that need not
    change. `coverable`: whether the registered units remove it too. `phase` as of the violation.
    """

    session: str
    start: datetime
    element: str
    kind: PhaseLimit
    phase: Phase | None
    bus: str
    value: float
    bound: float
    volumes: tuple[PhaseVolume, ...]
    coverable: bool
    acting: tuple[ActingPhaseUnit, ...]
