"""Products: what is traded, and what a test of it asks."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from coflex.domain.quantity import Direction
from coflex.domain.unit import Scope


class QuantityKind(StrEnum):
    ACTIVE_ENERGY = "active_energy"
    ACTIVE_CAPACITY = "active_capacity"
    REACTIVE_ENERGY = "reactive_energy"
    REACTIVE_CAPACITY = "reactive_capacity"


class PricingRule(StrEnum):
    """What a selected offer is paid, in the words of market designs."""

    PAY_AS_BID = "pay_as_bid"
    PAY_AS_CLEAR = "pay_as_clear"
    MARGINAL = "marginal"
    NODAL = "nodal"


# Within which time a test must show the response, in seconds, where a product does not say.
TEST_WITHIN_S = {Scope.GLOBAL: 900, Scope.LOCAL: 1500}


@dataclass(frozen=True, slots=True)
class Product:
    """A product of the catalogue (document B, table 7).

    `tick_kw`: quantities are whole multiples of it. `price_cap_eur_mwh`: no offer above it, none below its negative.
    `tolerance`: share of the ordered energy by which delivery may miss it unpunished.
    `penalty_share`: share of the bid price that an undelivered MWh costs beyond not being paid. Both as the product is
    sold; it is settled by a rule that says the same.

    Location: `perimeters` in which units may be connected; empty means everywhere.
    Window, in the market's zone: `months` 1 to 12, `weekdays` 1 (Monday) to 7, `hours` 0 to 23; empty means all.
    `max_up_kw`, `max_down_kw`: most that one offer gives; None means no bound. Durations and times in seconds:
    `max_duration_s` None means no longest one, `deactivation_time_s` None means none is asked for.
    `measurement_interval_s`, `accuracy_percent`: of the meters that settle it (accuracy class 1 is one percent).

    What its test asks (product prequalification): `test_share` of the ordered power within `test_within_s` (None:
    15 minutes for a global product, 25 minutes for a local one), held on meters of `test_accuracy_percent` that
    measure every `test_interval_s`.
    """

    id: str
    scope: Scope
    kind: QuantityKind
    directions: tuple[Direction, ...]
    resolution_s: int
    tick_kw: int
    min_quantity_kw: int
    full_activation_time_s: int
    price_cap_eur_mwh: Decimal
    divisible: bool
    symmetric: bool
    tolerance: Decimal
    penalty_share: Decimal
    perimeters: tuple[str, ...] = ()
    months: tuple[int, ...] = ()
    weekdays: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    max_up_kw: int | None = None
    max_down_kw: int | None = None
    min_duration_s: int = 0
    max_duration_s: int | None = None
    recovery_time_s: int = 0
    deactivation_time_s: int | None = None
    measurement_interval_s: int = 900
    accuracy_percent: Decimal = Decimal(1)
    pricing: PricingRule = PricingRule.PAY_AS_BID
    test_share: Decimal = Decimal("0.9")
    test_within_s: int | None = None
    test_interval_s: int = 60
    test_accuracy_percent: Decimal = Decimal(1)

    @property
    def test_time_s(self) -> int:
        """Time in seconds within which a test must show `test_share` of the ordered power."""
        return TEST_WITHIN_S[self.scope] if self.test_within_s is None else self.test_within_s
