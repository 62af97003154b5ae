"""What a test asks for: the attributes of a product that can be shown by one, and how the test is set up (REG-07).

Sources: document F, 5.3.2 (90 % within 15 or 25 minutes, meters of class 1 % at one minute); document O, GBP1.1 (step
of frequency) and GBP2.3 (ramp and random set points); Regulation (EU) 2017/1485, article 154 and annex V, for the
values with which frequency containment begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coflex.domain.product import Product, QuantityKind
from coflex.domain.quantity import Direction
from coflex.domain.unit import Scope


class Service(StrEnum):
    """What the product is bought for."""

    CONGESTION_MANAGEMENT = "congestion_management"
    VOLTAGE_CONTROL = "voltage_control"
    FREQUENCY_CONTAINMENT = "frequency_containment"
    AUTOMATIC_RESTORATION = "automatic_restoration"
    MANUAL_RESTORATION = "manual_restoration"
    REPLACEMENT = "replacement"


class SignalKind(StrEnum):
    """How a test asks: one step; a ramp; random set points, one after the other; a step of frequency; or set points
    that change faster than the full activation time, as those of automatic restoration do."""

    STEP = "step"
    RAMP = "ramp"
    RANDOM = "random"
    FREQUENCY = "frequency"
    FOLLOWING = "following"


USUAL_SIGNAL = {
    Service.CONGESTION_MANAGEMENT: SignalKind.STEP,
    Service.VOLTAGE_CONTROL: SignalKind.STEP,
    Service.FREQUENCY_CONTAINMENT: SignalKind.FREQUENCY,
    Service.AUTOMATIC_RESTORATION: SignalKind.FOLLOWING,
    Service.MANUAL_RESTORATION: SignalKind.STEP,
    Service.REPLACEMENT: SignalKind.STEP,
}
USUAL_SERVICE = {Scope.LOCAL: Service.CONGESTION_MANAGEMENT, Scope.GLOBAL: Service.MANUAL_RESTORATION}
# A ramp is timed between a tenth and nine tenths of the change.
RAMP_FROM, RAMP_TO = 0.1, 0.9
QUARTER_S = 900


@dataclass(frozen=True, slots=True)
class Procedure:
    """How a product is tested, beyond what its attributes say.

    `signals`: which signals are sent, one test each, all to be passed. `ramp_s`: most seconds from a tenth to nine
    tenths of the change; None: that share of the full activation time. `valid_days`: how long a passed test counts.
    Frequency containment: full response at `full_mhz` of deviation, none inside `dead_band_mhz`, and a response that
    has begun `delay_s` after the deviation.
    """

    service: Service
    signals: tuple[SignalKind, ...]
    ramp_s: int | None = None
    valid_days: int = 1826
    full_mhz: float = 200.0
    dead_band_mhz: float = 10.0
    delay_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Requirements:
    """What one test of a product asks for. Times in seconds, powers in kW, `share` of 1, `accuracy_percent` the class
    of the meter. `within_s`: time to reach `share`. `deactivation_s` None: no time is asked for.
    `min_duration_s`: where the product names none, one delivery period, but no more than a quarter-hour. `months`,
    `weekdays`, `hours`: when it must be available; empty means all.
    """

    product: str
    service: Service
    signal: SignalKind
    kind: QuantityKind
    directions: tuple[Direction, ...]
    symmetric: bool
    divisible: bool
    min_quantity_kw: int
    tick_kw: int
    resolution_s: int
    share: float
    within_s: int
    full_activation_time_s: int
    ramp_s: float
    min_duration_s: int
    max_duration_s: int | None
    deactivation_s: int | None
    recovery_s: int
    interval_s: int
    accuracy_percent: float
    full_mhz: float
    dead_band_mhz: float
    delay_s: float
    months: tuple[int, ...] = ()
    weekdays: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()


def usual_procedure(product: Product) -> Procedure:
    """The test of a product for which no other was agreed: a step, of what its scope is usually bought for."""
    service = USUAL_SERVICE[product.scope]
    return Procedure(service, (USUAL_SIGNAL[service],))


def requirements(product: Product, procedure: Procedure, signal: SignalKind) -> Requirements:
    """What a test of the product by one of its procedure's signals asks for."""
    ramp = (RAMP_TO - RAMP_FROM) * product.full_activation_time_s
    return Requirements(
        product=product.id,
        service=procedure.service,
        signal=signal,
        kind=product.kind,
        directions=tuple(sorted(set(product.directions))),
        symmetric=product.symmetric,
        divisible=product.divisible,
        min_quantity_kw=product.min_quantity_kw,
        tick_kw=product.tick_kw,
        resolution_s=product.resolution_s,
        share=float(product.test_share),
        within_s=product.test_time_s,
        full_activation_time_s=product.full_activation_time_s,
        ramp_s=ramp if procedure.ramp_s is None else float(procedure.ramp_s),
        min_duration_s=product.min_duration_s or min(product.resolution_s, QUARTER_S),
        max_duration_s=product.max_duration_s,
        deactivation_s=product.deactivation_time_s,
        recovery_s=product.recovery_time_s,
        interval_s=product.test_interval_s,
        accuracy_percent=float(product.test_accuracy_percent),
        full_mhz=procedure.full_mhz,
        dead_band_mhz=procedure.dead_band_mhz,
        delay_s=procedure.delay_s,
        months=_some(product.months, 12),
        weekdays=_some(product.weekdays, 7),
        hours=_some(product.hours, 24),
    )


def _some(times: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Times of which there are `count`, sorted; empty for all of them."""
    return () if len(set(times)) == count else tuple(sorted(set(times)))
