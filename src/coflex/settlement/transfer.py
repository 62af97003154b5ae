"""Transfer of energy: an activation must not fall on the party that answers for the balance of the unit's customer.

Where the unit and its provider answer to different balance responsible parties, the volume of the activation is taken
out of the one perimeter and laid into the others, and the energy that changed hands is compensated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from coflex.domain.errors import Finding, refuse
from coflex.settlement.document import Compensation, Rule, Volume
from coflex.settlement.inputs import Delivery, Inputs
from coflex.settlement.judgement import judge

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What is added to the position of one party in one imbalance settlement period: kWh, injection positive."""

    start: datetime
    minutes: int
    party: str
    energy_kwh: Decimal


def transfers(delivery: Delivery, rule: Rule) -> bool:
    """Whether a delivery moves energy from one balance responsible party to another."""
    differ = bool(delivery.unit_brp) and delivery.unit_brp != delivery.provider_brp
    return rule.transfer is not None and bool(delivery.bought) and differ


def moved_kwh(delivery: Delivery, rule: Rule, delivered_kwh: Decimal) -> Decimal:
    """The energy that leaves the perimeter of the unit, unsigned."""
    by_order = rule.transfer is not None and rule.transfer.volume is Volume.ORDERED
    return delivery.ordered_kwh if by_order else delivered_kwh


def compensation(delivery: Delivery, rule: Rule, delivered_kwh: Decimal) -> tuple[Decimal, Decimal, str] | None:
    """What the provider owes the unit's supplier for transferred energy: MWh, EUR/MWh, and why; None for nothing.

    Up: the unit drew less (or injected more) than its supplier had bought for it, and the provider sold that on; the
    quantity is positive. Down: the reverse, and the supplier owes the provider.
    """
    transfer = rule.transfer
    if transfer is None or transfer.compensation is Compensation.NONE or not transfers(delivery, rule):
        return None
    given = transfer.eur_mwh if transfer.compensation is Compensation.FIXED else delivery.reference_eur_mwh
    price = given or ZERO
    quantity = delivery.direction.sign * moved_kwh(delivery, rule, delivered_kwh) / 1000
    if not quantity * price:
        return None
    return quantity, price, f"energy transferred between {delivery.unit_brp} and {delivery.provider_brp}"


def adjustments(inputs: Inputs, rules: Mapping[str, Rule], minutes: int = 15) -> tuple[Adjustment, ...]:
    """The corrections of balance responsible parties' positions, by imbalance settlement period and party.

    With s the sign of the direction, O the order and E the energy transferred: the unit's party -s E, the provider's
    party s (E - O), the buyer s O; so the provider's party answers for what was ordered and not delivered.
    Guarantees: the corrections of a period add to zero; parties with nothing are left out.
    Raises Refused when a delivery does not lie inside one settlement period of so many minutes.
    """
    refuse("Transfer of energy", _outside(inputs, rules, minutes))
    sums: dict[tuple[datetime, str], Decimal] = defaultdict(Decimal)
    for delivery in inputs.deliveries:
        rule = rules[delivery.rule]
        if not transfers(delivery, rule):
            continue
        outcome = judge(rule.terms(ZERO), delivery.ordered_kwh, delivery.response_kwh(rule))
        sign, ordered = delivery.direction.sign, delivery.ordered_kwh
        moved = moved_kwh(delivery, rule, outcome.delivered)
        start = _period(delivery.start, minutes)
        sums[start, delivery.unit_brp] -= sign * moved
        sums[start, delivery.provider_brp] += sign * (moved - ordered)
        sums[start, delivery.buyer] += sign * ordered
    return tuple(Adjustment(start, minutes, party, energy) for (start, party), energy in sorted(sums.items()) if energy)


def _period(start: datetime, minutes: int) -> datetime:
    """The start of the settlement period that an instant lies in; periods are counted from midnight UTC."""
    length = timedelta(minutes=minutes)
    return EPOCH + (start - EPOCH) // length * length


def _outside(inputs: Inputs, rules: Mapping[str, Rule], minutes: int) -> list[Finding]:
    return [
        Finding(
            f"delivery {one.id}",
            "not_in_one_period",
            f"It does not lie inside one settlement period of {minutes} min; divide it.",
        )
        for one in inputs.deliveries
        if transfers(one, rules[one.rule])
        and _period(one.start, minutes) != _period(one.start + timedelta(minutes=one.minutes - 1), minutes)
    ]
