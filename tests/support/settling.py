"""Settlements for tests: random ones that any rule accepts, and charges worked out a second time with fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise, permutations
from typing import Any

from hypothesis import strategies as st

from coflex.domain.quantity import Direction
from coflex.domain.reading import Quality
from coflex.settlement.document import Need, Payer, Rule
from coflex.settlement.inputs import Bought, Contract, Delivery, Held, Inputs, Purchase
from coflex.settlement.shelf import load_rule, rules

D = Decimal
START = datetime(2026, 11, 2, 10, tzinfo=UTC)
RULES = {name: load_rule(name) for name in rules()}
ROLES = {Payer.DSO: "dso", Payer.TSO: "tso", Payer.BRP: "brp"}
PURCHASES = (
    Purchase("need", needs={Payer.DSO: D("1.5"), Payer.TSO: D(2), Payer.BRP: D("0.3")}),
    Purchase("game", costs={"dso": D(60), "tso": D(100), "dso+tso": D(120)}),
)


def delivery(name: str = "d1", rule: str = "local_congestion", **changes: Any) -> Delivery:
    """25 kWh up at 80 EUR/MWh, delivered as ordered, paid by the DSO."""
    plain = Delivery(
        id=name,
        rule=rule,
        unit="u1",
        provider="sp",
        buyer="dso",
        session="s1",
        need=Need.DSO_CONGESTION,
        start=START,
        minutes=15,
        direction=Direction.UP,
        ordered_kwh=D(25),
        bought=(Bought("a1", D(25), bid_eur_mwh=D(80)),),
        baseline_kwh=D(-40),
        measured_kwh=D(-15),
        roles=ROLES,
    )
    return replace(plain, **changes)


def settled_inputs(*deliveries: Delivery, **others: Any) -> Inputs:
    return Inputs("2026-11", deliveries, **others)


# ---------------------------------------------------------------- random ones


def decimals(low: int, high: int, places: int) -> st.SearchStrategy[Decimal]:
    """Decimals of so many places; drawn as whole numbers, which is several times faster than `st.decimals`."""
    return st.integers(low * 10**places, high * 10**places).map(lambda number: D(number).scaleb(-places))


energies = decimals(0, 500, 3)
signed = decimals(-800, 800, 3)
prices = decimals(-500, 500, 2)
shares = decimals(0, 1, 3)
maybe_shares = st.none() | shares


@st.composite
def deliveries(draw: st.DrawFn, name: str) -> Delivery:
    rule = RULES[draw(st.sampled_from(sorted(RULES)))]
    need = draw(st.sampled_from(sorted(rule.payers)))
    availability_alone = rule.id == "fcr"
    bought = () if availability_alone else tuple(
        Bought(f"a{i}", draw(energies), draw(prices), draw(prices), draw(prices), draw(decimals(0, 90, 2)))
        for i in range(draw(st.integers(1, 3)))
    )  # fmt: skip
    held = () if rule.availability is None else tuple(
        Held(f"c{i}", draw(energies), draw(prices), draw(maybe_shares), draw(st.none() | decimals(0, 2, 2)))
        for i in range(draw(st.integers(0, 2)))
    )  # fmt: skip
    whole = sum((one.energy_kwh for one in bought), D(0))
    limited = draw(st.booleans())
    brp = draw(st.sampled_from([("", ""), ("brp-a", "brp-b"), ("brp-a", "brp-a")]))
    return Delivery(
        id=name,
        rule=rule.id,
        unit=draw(st.sampled_from(["u1", "u2"])),
        provider=draw(st.sampled_from(["sp-1", "sp-2"])),
        buyer=draw(st.sampled_from(["dso", "tso"])),
        session=draw(st.sampled_from(["s1", "s2"])),
        need=need,
        start=START + draw(st.integers(0, 3)) * timedelta(minutes=15),
        minutes=draw(st.sampled_from([5, 15])),
        direction=draw(st.sampled_from(Direction)),
        ordered_kwh=(whole * draw(shares)).quantize(D("0.001")) if limited else whole,
        bought=bought,
        held=held,
        baseline_kwh=draw(st.none() | signed),
        measured_kwh=draw(st.none() | signed),
        limit_kwh=draw(signed),
        quality=draw(st.sampled_from(Quality)),
        limited=limited,
        roles=ROLES,
        purchase="game" if rule.id == "reactive_interface" else "need",
        unit_brp=brp[0],
        provider_brp=brp[1],
        supplier=draw(st.sampled_from(["", "supplier"])),
        reference_eur_mwh=draw(prices),
    )


@st.composite
def periods(draw: st.DrawFn, most: int = 5) -> Inputs:
    """A period of some deliveries under any of the rules, with owners' contracts for one of two units."""
    count = draw(st.integers(1, most))
    contracts = tuple(
        Contract("u1", provider, "owner", draw(shares), draw(decimals(0, 20, 2)), draw(shares))
        for provider in draw(st.sets(st.sampled_from(["sp-1", "sp-2"])))
    )
    return Inputs("2026-11", tuple(draw(deliveries(f"d{i}")) for i in range(count)), contracts, PURCHASES)


# ---------------------------------------------------------------- once more, with fractions

F = Fraction


def to_grain(value: Fraction, places: int) -> Fraction:
    return F(round(value * 10**places), 10**places)


def curve(points: Sequence[tuple[Decimal, Decimal]], x: Fraction) -> Fraction:
    """The lower envelope walk of a piecewise linear function, written without looking at the one in the code."""
    xs, ys = [F(a) for a, _ in points], [F(b) for _, b in points]
    if x <= xs[0] or len(xs) == 1:
        return ys[0]
    i = next((i for i, at in enumerate(xs) if x < at), len(xs))
    return ys[-1] if i == len(xs) else ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])


def in_turn(total: Fraction, sizes: Sequence[Fraction]) -> list[Fraction]:
    """What of a total falls on each interval of a line that the sizes are laid on; what exceeds the line falls on the
    last interval with a length."""
    edges = [sum(sizes[:i], F(0)) for i in range(len(sizes) + 1)]
    parts = [max(F(0), min(total, b) - a) for a, b in pairwise(edges)]
    long = [i for i, size in enumerate(sizes) if size > 0]
    parts[long[-1] if long else -1] += max(F(0), total - edges[-1])
    return parts


def second(one: Delivery, rule: Rule) -> dict[tuple[str, str], Fraction]:
    """Amounts of a delivery by award and cause, before they are shared: activation, penalty, availability, claw_back.
    Zeros are left out. Written from docs/mathematics/settlement.md."""
    sign, ordered = one.direction.sign, F(one.ordered_kwh)
    tau, penalty = F(rule.delivered.tolerance), rule.penalty
    known = one.quality is not Quality.MISSING and one.measured_kwh is not None
    if rule.delivered.by.value == "drop_to":
        response = ordered + min(F(0), sign * (F(one.measured_kwh) - F(one.limit_kwh))) if known else None
    else:
        known = known and one.baseline_kwh is not None
        response = sign * (F(one.measured_kwh) - F(one.baseline_kwh)) if known else None
    delivered = missing = surplus = paid = F(0)
    if response is not None and ordered:
        delivered = max(F(0), response)
        missing = max(F(0), ordered * (1 - tau) - (response if rule.delivered.opposite_counts else delivered))
        surplus = max(F(0), response - ordered * (1 + tau)) if penalty.sides.value == "two" else F(0)
        points = rule.payment.curve
        tabled = curve(points, delivered / ordered) * ordered if points else delivered
        paid = min(tabled, F(rule.payment.cap) * ordered)
        if rule.delivered.by.value == "requested" and not missing:
            paid = ordered
    paid, missing, surplus = (to_grain(value, 6) for value in (paid, missing, surplus))
    found: dict[tuple[str, str], Fraction] = {}
    _second_energy(one, rule, (paid, missing + surplus), found)
    _second_capacity(one, rule, delivered / ordered if response is not None and ordered else None, found)
    return {key: value for key, value in found.items() if value}


def _second_energy(
    one: Delivery, rule: Rule, energy: tuple[Fraction, Fraction], found: dict[tuple[str, str], Fraction]
) -> None:
    field = {"pay_as_bid": "bid_eur_mwh", "nodal": "nodal_eur_mwh"}.get(rule.pricing.value, "clearing_eur_mwh")
    ranked = sorted(one.bought, key=lambda bought: (getattr(bought, field), bought.award))
    if not ranked:
        return
    sizes = in_turn(F(one.ordered_kwh), [F(bought.energy_kwh) for bought in ranked])
    paid, missed = in_turn(energy[0], sizes), in_turn(energy[1], sizes[::-1])[::-1]
    for bought, due, short in zip(ranked, paid, missed, strict=True):
        price = F(getattr(bought, field))
        rate = {
            "none": F(0),
            "share": F(rule.penalty.share or 0) * abs(price),
            "fixed": F(rule.penalty.eur_mwh or 0),
            "agreed": F(bought.penalty_eur_mwh or 0),
        }[rule.penalty.kind.value]
        found[bought.award, "activation"] = to_grain(price * due / 1000, 9)
        found[bought.award, "penalty"] = -to_grain(rate * short / 1000, 9)


def _second_capacity(one: Delivery, rule: Rule, share: Fraction | None, found: dict[tuple[str, str], Fraction]) -> None:
    for held in one.held:
        part = rule.availability
        assert part is not None
        full = to_grain(F(held.capacity_kw) / 1000 * F(held.price_eur_mw_h) * F(one.minutes, 60), 9)
        looked = [
            (part.by_readiness, held.ready_share),
            (part.by_delivery, share),
            (part.by_month, held.month_share),
        ]
        keeps = [curve(points, F(at)) for points, at in looked if points and at is not None]
        keep = min([F(1), *keeps])
        if rule.delivered.by.value == "availability" and held.ready_share is None and part.by_readiness:
            keep = F(0)
        found[held.award, "availability"] = full
        found[held.award, "claw_back"] = -to_grain(full * (1 - keep), 9)


def shapley_by_orders(costs: dict[str, Decimal], players: Sequence[str]) -> dict[str, Fraction]:
    """The Shapley value as it is told: the mean over all orders of joining."""
    orders = list(permutations(players))
    values = dict.fromkeys(players, F(0))
    for order in orders:
        joined: list[str] = []
        for player in order:
            before = F(costs["+".join(sorted(joined))]) if joined else F(0)
            joined.append(player)
            values[player] += F(costs["+".join(sorted(joined))]) - before
    return {player: value / len(orders) for player, value in values.items()}
