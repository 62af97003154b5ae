"""From deliveries to charges: what each owes whom for one award and interval; exact, with the reason in words.

Mathematics: docs/mathematics/settlement.md. A unit is judged once against its whole order; the outcome is laid on what
was bought of it, the cheapest first, and each award's amounts on those who pay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal, localcontext
from fractions import Fraction

from coflex.domain.errors import refuse
from coflex.domain.statement import Cause, Charge, Measure
from coflex.settlement.allocation import fill
from coflex.settlement.document import Bearer, By, Payer, Rule, kept
from coflex.settlement.inputs import ZERO, Bought, Contract, Delivery, Held, Inputs, Purchase, faults
from coflex.settlement.judgement import Outcome, judge, limited_prefix, percent
from coflex.settlement.penalty import penalty_eur
from coflex.settlement.sharing import GRAIN, decimal, part, weights
from coflex.settlement.transfer import compensation

MILLIWATT_HOUR = Decimal("1e-6")  # kWh: the grain of energies that a payment curve yields
EXACT = Context(prec=60)
NO_LOG = "no record of readiness: not paid until one arrives"


@dataclass(frozen=True, slots=True)
class _Item:
    """An amount before it is laid on its payers."""

    cause: Cause
    award: str
    quantity: Decimal
    measure: Measure
    price: Decimal
    amount: Decimal
    remark: str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class _Award:
    """What one award earned: the energy or capacity payment net of claw-back, the penalty (never positive)."""

    award: str
    items: tuple[_Item, ...]
    paid_mwh: Decimal

    @property
    def net(self) -> Decimal:
        return sum((item.amount for item in self.items if item.cause is not Cause.PENALTY), ZERO)

    @property
    def penalty(self) -> Decimal:
        return sum((item.amount for item in self.items if item.cause is Cause.PENALTY), ZERO)


@dataclass(frozen=True, slots=True)
class Step:
    """One award's part of a delivery that was judged, kWh: of what stood as ordered, what was delivered, what is paid,
    and what is missing (or too much) beyond the tolerance."""

    bought: Bought
    price: Decimal
    ordered: Decimal
    delivered: Decimal
    paid: Decimal
    missed: Decimal


def settle(inputs: Inputs, rules: Mapping[str, Rule]) -> tuple[Charge, ...]:
    """The charges of a settlement period.

        activation    = p Q / 1000
        penalty       = -(penalty price) (F + G) / 1000
        availability  = C c h / 1000,  claw-back = -(1 - k) availability
        fee           = share |net| + price Q / 1000

    p, c: prices in EUR/MWh and EUR/MW/h; Q paid, F missing, G surplus energy in kWh; C capacity in kW; h hours; k the
    kept share. Energies that a curve yields are rounded to 1e-6 kWh, amounts to 1e-9 EUR, half to even.
    Guarantees: any order of the inputs gives the same charges in the same order; nothing else enters.
    Raises Refused with every fault of the inputs, CoflexError when a purchase cannot be shared.
    """
    refuse("Settlement inputs", faults(inputs, rules))
    purchases = {one.id: one for one in inputs.purchases}
    contracts: dict[tuple[str, str], list[Contract]] = {}
    for contract in sorted(inputs.contracts, key=lambda one: one.owner):
        contracts.setdefault((contract.unit, contract.provider), []).append(contract)
    charges: list[Charge] = []
    with localcontext(EXACT):
        for delivery in sorted(inputs.deliveries, key=lambda one: one.id):
            rule = rules[delivery.rule]
            owed = contracts.get((delivery.unit, delivery.provider), [])
            payers = _payers(delivery, rule, purchases.get(delivery.purchase))
            charges += _delivery(delivery, rule, payers, owed, inputs.platform)
    return tuple(sorted(charges, key=lambda one: (one.start, one.id)))


def judged(delivery: Delivery, rule: Rule) -> Outcome:
    """The judgement on a delivery's energy."""
    bought = sum((one.energy_kwh for one in delivery.bought), ZERO)
    unit = "kvarh" if rule.measure is Measure.MVARH else "kWh"
    prefix = limited_prefix(bought, delivery.ordered_kwh, unit) if delivery.limited else ""
    agreed = max((one.penalty_eur_mwh for one in delivery.bought if one.penalty_eur_mwh is not None), default=None)
    outcome = judge(rule.terms(agreed), delivery.ordered_kwh, delivery.response_kwh(rule), prefix)
    return replace(
        outcome,
        paid=outcome.paid.quantize(MILLIWATT_HOUR),
        deficient=outcome.deficient.quantize(MILLIWATT_HOUR),
        surplus=outcome.surplus.quantize(MILLIWATT_HOUR),
    )


def _delivery(
    delivery: Delivery, rule: Rule, payers: Mapping[str, Fraction], contracts: Sequence[Contract], platform: str
) -> Iterator[Charge]:
    """All charges of one delivery."""
    outcome = judged(delivery, rule)
    awards = [*_energy(delivery, rule, outcome), *_capacity(delivery, rule, outcome)]
    for award in awards:
        for item in award.items:
            yield from _shared(delivery, rule, item, delivery.provider, payers)
        for item in _fees(award, rule):
            bearers = payers if rule.fee.borne_by is Bearer.PAYER else {delivery.provider: Fraction(1)}
            yield from _shared(delivery, rule, item, platform, bearers)
        for contract in contracts:
            for item in _owner(award, contract, rule.measure):
                yield _charge(delivery, rule, item, contract.owner, delivery.provider, item.amount, False)
    moved = compensation(delivery, rule, outcome.delivered)
    if moved is not None:
        quantity, price, remark = moved
        amount = (quantity * price).quantize(GRAIN)
        item = _Item(Cause.COMPENSATION, "transfer", quantity, Measure.MWH, price, amount, remark)
        seller = delivery.supplier or delivery.unit_brp
        yield _charge(delivery, rule, item, seller, delivery.provider, amount, False)


def _payers(delivery: Delivery, rule: Rule, purchase: Purchase | None) -> dict[str, Fraction]:
    """Who pays, by name of the party, and which share."""
    payer = rule.payers[delivery.need]
    if payer is Payer.BUYER:
        return {delivery.buyer: Fraction(1)}
    if payer is not Payer.SHARED:
        return {delivery.roles[payer]: Fraction(1)}
    shares: dict[str, Fraction] = {}
    for role, share in weights(rule, delivery, purchase).items():
        party = delivery.roles[role]
        shares[party] = shares.get(party, Fraction(0)) + share
    return dict(sorted(shares.items()))


def steps(delivery: Delivery, rule: Rule, outcome: Outcome) -> tuple[Step, ...]:
    """The awards of a delivery in the order of their prices: the cheapest are ordered, delivered and paid first, the
    dearest missed. Each of the four energies adds to that of the delivery."""
    priced = [(one, one.price(rule.pricing) or ZERO) for one in delivery.bought]
    if not priced:
        return ()
    priced.sort(key=lambda pair: (pair[1], pair[0].award))
    ordered = fill(delivery.ordered_kwh, [one.energy_kwh for one, _ in priced])
    delivered, paid = fill(outcome.delivered, ordered), fill(outcome.paid, ordered)
    missed = fill(outcome.deficient + outcome.surplus, ordered[::-1])[::-1]
    columns = zip(priced, ordered, delivered, paid, missed, strict=True)
    return tuple(Step(one, price, *energies) for (one, price), *energies in columns)


def _energy(delivery: Delivery, rule: Rule, outcome: Outcome) -> Iterator[_Award]:
    """The energy of each award, paid and missed."""
    for one in steps(delivery, rule, outcome):
        yield _energy_award(one.bought, one.price, one.paid, one.missed, rule, outcome.remark)


def _energy_award(one: Bought, price: Decimal, due: Decimal, short: Decimal, rule: Rule, remark: str) -> _Award:
    mwh = due / 1000
    paid = _Item(Cause.ACTIVATION, one.award, mwh, rule.measure, price, (price * mwh).quantize(GRAIN), remark)
    owed = penalty_eur(rule.terms(one.penalty_eur_mwh), price, short).quantize(GRAIN)
    if not owed:
        return _Award(one.award, (paid,), mwh)
    rate = penalty_eur(rule.terms(one.penalty_eur_mwh), price, Decimal(1000))
    fined = _Item(Cause.PENALTY, one.award, short / 1000, rule.measure, -rate, -owed, remark)
    return _Award(one.award, (paid, fined), mwh)


def _capacity(delivery: Delivery, rule: Rule, outcome: Outcome) -> Iterator[_Award]:
    """The capacity of each award held ready, and what is taken back of its payment."""
    known = delivery.ordered_kwh > 0 and delivery.response_kwh(rule) is not None
    share = outcome.delivered / delivery.ordered_kwh if known else None
    for one in delivery.held:
        hours = Fraction(delivery.minutes, 60)
        quantity = decimal(Fraction(one.capacity_kw) * hours / 1000)
        full = decimal(Fraction(one.capacity_kw) * hours / 1000 * Fraction(one.price_eur_mw_h))
        says = f"{one.capacity_kw} kW held ready for {delivery.minutes} min"
        items = [_Item(Cause.AVAILABILITY, one.award, quantity, Measure.MW_H, one.price_eur_mw_h, full, says)]
        left, why = _kept(one, rule, share)
        taken = (full * (1 - left)).quantize(GRAIN)
        if taken:
            # of less than the grain of a quantity there is no price for each MW h
            rate = (-taken / quantity).quantize(GRAIN) if quantity else -taken
            items.append(_Item(Cause.CLAW_BACK, one.award, quantity, Measure.MW_H, rate, -taken, why))
        yield _Award(one.award, tuple(items), ZERO)


def _kept(one: Held, rule: Rule, delivered: Decimal | None) -> tuple[Decimal, str]:
    """The share of an availability payment that is kept, and why: the lowest of what the rule looks at."""
    part = rule.availability
    assert part is not None  # capacity under a rule that pays for none is refused before
    if one.ready_share is None and part.by_readiness and rule.delivered.by is By.AVAILABILITY:
        return ZERO, NO_LOG
    found = (
        (kept(part.by_readiness, one.ready_share), "ready", one.ready_share),
        (kept(part.by_delivery, delivered), "delivered", delivered),
        (kept(part.by_month, one.month_share), "delivered in the month", one.month_share),
    )
    left, word, share = min(found, key=lambda entry: entry[0])
    shown = Decimal(1) if share is None else share
    return left, f"{word} to {percent(shown, Decimal(1))} %: {percent(left, Decimal(1))} % of the payment kept"


def _fees(award: _Award, rule: Rule) -> Iterator[_Item]:
    """The platform's fee on one award."""
    base = abs(award.net)
    shares = (
        ("share", base, Measure.EUR, rule.fee.share, f"{_plain(100 * rule.fee.share)} % of {_plain(base)} EUR"),
        ("energy", award.paid_mwh, rule.measure, rule.fee.eur_mwh, f"{rule.fee.eur_mwh} EUR for each {rule.measure}"),
    )
    for tag, quantity, measure, price, remark in shares:
        amount = (quantity * price).quantize(GRAIN)
        if amount:
            yield _Item(Cause.FEE, award.award, quantity, measure, price, amount, remark, tag)


def _owner(award: _Award, contract: Contract, measure: Measure) -> Iterator[_Item]:
    """What the provider pays on to the owner of the unit, and the penalty that the owner bears."""
    told = _plain(100 * contract.share), _plain(100 * contract.penalty_share)
    shares = (
        ("share", award.net, Measure.EUR, contract.share, f"{told[0]} % of {_plain(award.net)} EUR paid"),
        ("energy", award.paid_mwh, measure, contract.eur_mwh, f"{contract.eur_mwh} EUR for each {measure} paid"),
        (
            "penalty",
            award.penalty,
            Measure.EUR,
            contract.penalty_share,
            f"bears {told[1]} % of {_plain(award.penalty)} EUR",
        ),
    )
    for tag, quantity, unit, price, remark in shares:
        amount = (quantity * price).quantize(GRAIN)
        if amount:
            yield _Item(Cause.OWNER, award.award, quantity, unit, price, amount, remark, tag)


def _shared(
    delivery: Delivery, rule: Rule, item: _Item, seller: str, payers: Mapping[str, Fraction]
) -> Iterator[Charge]:
    """An item as one charge for each who pays."""
    parts = part(item.amount, list(payers.values()))
    for (customer, share), amount in zip(payers.items(), parts, strict=True):
        whole = len(payers) == 1
        mine = item if whole else replace(item, quantity=decimal(Fraction(item.quantity) * share))
        yield _charge(delivery, rule, mine, seller, customer, amount, not whole)


def _charge(
    delivery: Delivery, rule: Rule, item: _Item, seller: str, customer: str, amount: Decimal, joint: bool
) -> Charge:
    what = "-".join((item.cause, *((item.tag,) if item.tag else ()), *(("joint",) if joint else ())))
    return Charge(
        id="|".join((delivery.session, delivery.id, item.award, what, seller, customer)),  # tells its booking too
        cause=item.cause,
        seller=seller,
        customer=customer,
        session=delivery.session,
        unit=delivery.unit,
        start=delivery.start,
        minutes=delivery.minutes,
        quantity=item.quantity,
        measure=item.measure,
        price_eur=item.price,
        amount_eur=amount,
        rule=rule.name,
        remark=item.remark,
        evidence=replace(delivery.evidence, award=item.award),
        joint=joint,
    )


def _plain(number: Decimal) -> str:
    """A number without zeros at its end."""
    return f"{number.normalize():f}"
