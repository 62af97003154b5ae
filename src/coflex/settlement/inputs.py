"""What a settlement is made of: deliveries, owners' contracts, shared purchases; and every fault of them at once.

Energies in kWh (reactive products kvarh), exact decimals; `baseline`, `measured` and `limit` signed with injection
positive; `ordered` and `energy` unsigned in the direction of the delivery. Capacity in kW.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from itertools import combinations

from coflex.domain.errors import Finding
from coflex.domain.product import PricingRule
from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.domain.statement import Evidence
from coflex.settlement.document import By, Compensation, Need, Payer, PenaltyKind, Rule, ShareBy

ZERO = Decimal(0)
MOST = Decimal(10) ** 15  # of any number of a delivery: exact amounts have an end
MOST_MINUTES = 366 * 24 * 60
SEPARATOR = "|"
ROUNDING = "rounding"  # the account of what rounding leaves of shared purchases
NO_EVIDENCE = Evidence()


@dataclass(frozen=True, slots=True)
class Bought:
    """One award's part of a delivery. `energy_kwh`: what was bought; prices in EUR/MWh, each where it is known.

    `bid_eur_mwh`: the offer's own price. `clearing_eur_mwh`: of the dearest or last mobilised offer.
    `nodal_eur_mwh`: the dual at the place. `penalty_eur_mwh`: the penalty price agreed with the award.
    """

    award: str
    energy_kwh: Decimal
    bid_eur_mwh: Decimal | None = None
    clearing_eur_mwh: Decimal | None = None
    nodal_eur_mwh: Decimal | None = None
    penalty_eur_mwh: Decimal | None = None

    def price(self, pricing: PricingRule) -> Decimal | None:
        """The price that a rule pays, None where the award does not carry it."""
        if pricing is PricingRule.PAY_AS_BID:
            return self.bid_eur_mwh
        return self.nodal_eur_mwh if pricing is PricingRule.NODAL else self.clearing_eur_mwh


@dataclass(frozen=True, slots=True)
class Held:
    """Capacity held ready. `ready_share`: the share of the interval in which it was ready, None where nobody knows.
    `month_share`: the delivered share of the month by which the rule scales the payment."""

    award: str
    capacity_kw: Decimal
    price_eur_mw_h: Decimal
    ready_share: Decimal | None = None
    month_share: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One unit's order (or readiness) in one interval under one rule, and what was metered.

    `roles`: who plays `dso`, `tso` and `brp` for it, as far as the rule needs them to pay. `limited`: the operator took
    part of the order back, so that `ordered_kwh` is less than what was bought. `limit_kwh`: the level that a drop-to
    product must not pass. `unit_brp`, `provider_brp`, `supplier`: who answers for the balance of the unit and of the
    provider, and who sells or buys the unit's energy (empty: its balance responsible party). `purchase`: the shared
    purchase it belongs to. `reference_eur_mwh`: the price at which transferred energy is compensated.
    """

    id: str
    rule: str
    unit: str
    provider: str
    buyer: str
    session: str
    need: Need
    start: datetime
    minutes: int
    direction: Direction
    ordered_kwh: Decimal = ZERO
    bought: tuple[Bought, ...] = ()
    held: tuple[Held, ...] = ()
    baseline_method: str = ""
    baseline_kwh: Decimal | None = None
    measured_kwh: Decimal | None = None
    limit_kwh: Decimal | None = None
    quality: Quality = Quality.MEASURED
    limited: bool = False
    roles: Mapping[Payer, str] = field(default_factory=dict)
    purchase: str = ""
    unit_brp: str = ""
    provider_brp: str = ""
    supplier: str = ""
    reference_eur_mwh: Decimal | None = None
    evidence: Evidence = NO_EVIDENCE

    def response_kwh(self, rule: Rule) -> Decimal | None:
        """The change in the direction of the order, signed; None where nothing is known of it.

        Drop-to: the order less what the level was passed by, and never more than the order.
        """
        if self.quality is Quality.MISSING or self.measured_kwh is None:
            return None
        if rule.delivered.by is By.DROP_TO:
            over = ZERO if self.limit_kwh is None else self.direction.sign * (self.measured_kwh - self.limit_kwh)
            return self.ordered_kwh + min(ZERO, over)
        return None if self.baseline_kwh is None else self.direction.sign * (self.measured_kwh - self.baseline_kwh)


@dataclass(frozen=True, slots=True)
class Contract:
    """What a provider pays on to the owner of a unit.

    `share`: of what the provider is paid for energy and capacity, after claw-back. `eur_mwh`: for each MWh paid.
    `penalty_share`: the part of penalties that the owner bears.
    """

    unit: str
    provider: str
    owner: str
    share: Decimal = ZERO
    eur_mwh: Decimal = ZERO
    penalty_share: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Purchase:
    """What several operators bought together.

    `needs`: what each needed of it, in any one unit. `costs`: for the Shapley value, what each and each group of them
    would have paid alone, and all together; groups are written with `+`, as `dso+tso`.
    """

    id: str
    needs: Mapping[Payer, Decimal] = field(default_factory=dict)
    costs: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a settlement period is settled from, next to the rules. `period`: its name, as 2026-11."""

    period: str
    deliveries: tuple[Delivery, ...]
    contracts: tuple[Contract, ...] = ()
    purchases: tuple[Purchase, ...] = ()
    platform: str = "platform"


def group_name(group: Iterable[Payer]) -> str:
    """A group of payers as `Purchase.costs` names it."""
    return "+".join(sorted(group))


def faults(inputs: Inputs, rules: Mapping[str, Rule]) -> Iterator[Finding]:
    """Every reason why the inputs cannot be settled."""
    purchases = {one.id: one for one in inputs.purchases}
    yield from _repeated("delivery", (one.id for one in inputs.deliveries))
    yield from _repeated("purchase", (one.id for one in inputs.purchases))
    yield from _repeated("contract of unit", (f"{one.unit} with {one.provider}" for one in inputs.contracts))
    for contract in inputs.contracts:
        yield from _contract_faults(contract)
    for delivery in inputs.deliveries:
        place = f"delivery {delivery.id}"
        rule = rules.get(delivery.rule)
        yield from _form_faults(delivery, place)
        if rule is None:
            known = ", ".join(sorted(rules)) or "none"
            yield Finding(place, "unknown_rule", f"There is no rule '{delivery.rule}'; known are {known}.")
        else:
            yield from _rule_faults(delivery, rule, place)
            yield from _payer_faults(delivery, rule, purchases.get(delivery.purchase), place)


def _repeated(what: str, names: Iterable[str]) -> Iterator[Finding]:
    for name, count in sorted(Counter(names).items()):
        if count > 1:
            yield Finding(f"{what} {name}", "repeated", f"It stands there {count} times; keep one.")


def _contract_faults(contract: Contract) -> Iterator[Finding]:
    place = f"contract of unit {contract.unit} with {contract.provider}"
    if not 0 <= contract.share <= 1 or not 0 <= contract.penalty_share <= 1:
        yield Finding(place, "out_of_range", "A share lies between 0 and 1; correct it.")
    if abs(contract.eur_mwh) > MOST:
        yield Finding(place, "out_of_range", f"'eur_mwh' is {contract.eur_mwh}; give at most {MOST:g}.")
    if contract.owner == contract.provider:
        yield Finding(place, "own_account", "The provider owns the unit itself; take the contract out.")


def _form_faults(delivery: Delivery, place: str) -> Iterator[Finding]:
    """What is wrong with a delivery whatever its rule."""
    for name in ("id", "unit", "provider", "buyer", "session"):
        value = getattr(delivery, name)
        if not value or SEPARATOR in value or "#" in value or not value.isprintable():
            yield Finding(place, "malformed", f"'{name}' is {value!r}; give a name on one line without '|' and '#'.")
    if ROUNDING in (delivery.provider, delivery.buyer, *delivery.roles.values()):
        yield Finding(place, "reserved", f"'{ROUNDING}' is an account of the books; give the party another name.")
    if delivery.start.tzinfo is None or delivery.start.utcoffset():
        yield Finding(place, "not_utc", "The start is no instant in UTC; write it with Z at its end.")
    if not 1 <= delivery.minutes <= MOST_MINUTES:
        yield Finding(place, "out_of_range", f"An interval lasts 1 to {MOST_MINUTES} minutes; correct 'minutes'.")
    yield from _number_faults(delivery, place)
    awards = [*(one.award for one in delivery.bought), *(one.award for one in delivery.held)]
    if len(set(awards)) < len(awards) or any(not one or SEPARATOR in one or "#" in one for one in awards):
        yield Finding(place, "awards", "Each award has a name of its own, without '|' and '#'; correct them.")


def _number_faults(delivery: Delivery, place: str) -> Iterator[Finding]:
    parts: tuple[Delivery | Bought | Held, ...] = (delivery, *delivery.bought, *delivery.held)
    for part in parts:
        for one in fields(part):
            value = getattr(part, one.name)
            if isinstance(value, Decimal) and not (value.is_finite() and abs(value) <= MOST):
                yield Finding(place, "no_number", f"'{one.name}' is {value}; give a number of at most {MOST:g}.")
                return
    if delivery.ordered_kwh < 0 or any(one.energy_kwh < 0 for one in delivery.bought):
        yield Finding(place, "negative", "Energies ordered and bought are unsigned; give 0 or more.")
    if any(one.capacity_kw < 0 for one in delivery.held):
        yield Finding(place, "negative", "Capacity is unsigned; give 0 or more.")
    if any(one.ready_share is not None and not 0 <= one.ready_share <= 1 for one in delivery.held):
        yield Finding(place, "out_of_range", "'ready_share' is a share; give 0 to 1.")
    bought = sum((one.energy_kwh for one in delivery.bought), ZERO)
    if delivery.ordered_kwh > bought:
        yield Finding(
            place, "beyond_awards", f"Ordered are {delivery.ordered_kwh} kWh, bought {bought}; order at most that."
        )


def _rule_faults(delivery: Delivery, rule: Rule, place: str) -> Iterator[Finding]:
    """What the rule needs and the delivery does not have."""
    if rule.delivered.by is By.AVAILABILITY and delivery.bought:
        yield Finding(place, "no_energy", f"The rule {rule.name} settles no energy; take the bought energy out.")
    if delivery.held and rule.availability is None:
        yield Finding(place, "no_availability", f"The rule {rule.name} pays for no capacity; take it out.")
    for one in delivery.bought:
        if one.price(rule.pricing) is None:
            yield Finding(place, "no_price", f"The award {one.award} has no price for {rule.pricing.value}; add it.")
        if rule.penalty.kind is PenaltyKind.AGREED and (one.penalty_eur_mwh is None or one.penalty_eur_mwh < 0):
            yield Finding(place, "no_price", f"The award {one.award} has no penalty price of 0 or more; add it.")
    if rule.delivered.by is By.DROP_TO and delivery.bought and delivery.limit_kwh is None:
        yield Finding(place, "no_limit", "A drop-to product needs the level that is not passed; add 'limit_kwh'.")
    if _transfers(delivery, rule) and rule.transfer is not None:
        missing = delivery.reference_eur_mwh is None and rule.transfer.compensation is Compensation.REFERENCE
        if missing:
            yield Finding(place, "no_price", "The transfer of energy has no price; add 'reference_eur_mwh'.")
    if bool(delivery.unit_brp) != bool(delivery.provider_brp):
        yield Finding(place, "half_transfer", "Give both 'unit_brp' and 'provider_brp', or neither.")


def _transfers(delivery: Delivery, rule: Rule) -> bool:
    """Whether energy changes hands between two balance responsible parties."""
    return rule.transfer is not None and bool(delivery.unit_brp) and delivery.unit_brp != delivery.provider_brp


def _payer_faults(delivery: Delivery, rule: Rule, purchase: Purchase | None, place: str) -> Iterator[Finding]:
    payer = rule.payers.get(delivery.need)
    if payer is None:
        covered = ", ".join(sorted(rule.payers))
        yield Finding(place, "no_payer", f"The rule {rule.name} covers {covered}, not '{delivery.need.value}'.")
    elif payer is Payer.SHARED:
        yield from _sharing_faults(delivery, rule, purchase, place)
    elif payer is not Payer.BUYER and not delivery.roles.get(payer):
        yield Finding(place, "no_payer", f"'{payer.value}' pays and is not named; add it to 'roles'.")
    elif delivery.provider == (delivery.buyer if payer is Payer.BUYER else delivery.roles[payer]):
        yield Finding(place, "own_account", "The provider would pay itself; name another payer.")


def _sharing_faults(delivery: Delivery, rule: Rule, purchase: Purchase | None, place: str) -> Iterator[Finding]:
    sharing = rule.sharing
    assert sharing is not None  # a rule without it is refused when it is read
    if sharing.by in (ShareBy.NEED, ShareBy.SHAPLEY) and purchase is None:
        yield Finding(place, "unknown_purchase", f"The purchase '{delivery.purchase}' is not given; add it.")
        return
    sharers = sharing_payers(rule, delivery, purchase)
    if not sharers:
        yield Finding(place, "no_payer", "Nobody shares this purchase; add those who do.")
    for one in sharers:
        if delivery.roles.get(one) == delivery.provider:
            yield Finding(place, "own_account", "The provider would pay itself; name another payer.")
        if not delivery.roles.get(one):
            yield Finding(place, "no_payer", f"'{one.value}' shares the purchase and is not named; add it to 'roles'.")
    if sharing.by is ShareBy.NEED and purchase is not None:
        needs = purchase.needs.values()
        if any(need < 0 for need in needs) or not any(needs):
            yield Finding(f"purchase {purchase.id}", "needs", "Needs are 0 or more, one of them above; correct them.")
    if sharing.by is ShareBy.SHAPLEY and purchase is not None:
        groups = groups_of(sharers)
        unknown = sorted(set(purchase.costs) - set(groups))
        if unknown:
            listed = ", ".join(unknown)
            message = (
                f"No group of payers is called {listed}; write them as {groups[-1]}, in the order of the alphabet."
            )
            yield Finding(f"purchase {purchase.id}", "costs", message)
        missing = [name for name in groups if name not in purchase.costs]
        if missing:
            listed = ", ".join(missing)
            yield Finding(f"purchase {purchase.id}", "costs", f"The cost alone of {listed} is missing; add it.")


def sharing_payers(rule: Rule, delivery: Delivery, purchase: Purchase | None) -> tuple[Payer, ...]:
    """Who shares the purchase, in the order of their names."""
    assert rule.sharing is not None
    by = rule.sharing.by
    if by is ShareBy.FIXED:
        return tuple(sorted(rule.sharing.shares))
    if by is ShareBy.NEED and purchase is not None:
        return tuple(sorted(purchase.needs))
    if by is ShareBy.SHAPLEY and purchase is not None:
        known = {str(one) for one in Payer}
        return tuple(sorted({Payer(one) for name in purchase.costs for one in name.split("+") if one in known}))
    return tuple(sorted(one for one in delivery.roles if delivery.roles[one]))


def groups_of(payers: tuple[Payer, ...]) -> tuple[str, ...]:
    """The names of all groups of payers but the empty one."""
    return tuple(group_name(one) for size in range(1, len(payers) + 1) for one in combinations(payers, size))
