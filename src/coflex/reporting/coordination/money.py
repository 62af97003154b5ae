"""Who pays what in a run: exact fractions until the end, then rounded once, so that all parts add to the cent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import split_cents
from coflex.domain.reserve import Reservation
from coflex.domain.time import Axis
from coflex.market.coordination.outcome import Bought, Run
from coflex.market.coordination.world import World
from coflex.market.design import Buyer

PAYERS = (Buyer.DSO, Buyer.TSO, Buyer.BRP)
# Shares are computed with floating numbers: this much they may miss one.
_SLACK = 1e-6

Shares = tuple[Fraction, Fraction, Fraction]


@dataclass(frozen=True, slots=True)
class Costs:
    """EUR with cents. `energy`, `availability`: of DSO, TSO and balance responsible parties, as in `PAYERS`.
    `mending`: what changes ordered without a market cost. `energy_at_bids`: the energy of all three at bid prices,
    rounded once.

    Guarantee: the seven parts add to the rounded total of the exact amounts.
    """

    energy: tuple[Decimal, Decimal, Decimal]
    availability: tuple[Decimal, Decimal, Decimal]
    mending: Decimal
    energy_at_bids: Decimal

    def of(self, payer: Buyer) -> Decimal:
        """What one payer pays: energy and availability."""
        place = PAYERS.index(payer)
        return self.energy[place] + self.availability[place]

    @property
    def procurement(self) -> Decimal:
        return sum(self.energy, Decimal(0)) + sum(self.availability, Decimal(0))

    @property
    def total(self) -> Decimal:
        return self.procurement + self.mending

    @property
    def resource(self) -> Decimal:
        """The total at bid prices."""
        return self.energy_at_bids + sum(self.availability, Decimal(0)) + self.mending


def costs(run: Run, world: World) -> Costs:
    """What DSO, TSO and balance responsible parties pay for a run, and what mending adds.

    Raises CoflexError where shares of an award do not add to one.
    """
    energy, availability = [Fraction(0)] * 3, [Fraction(0)] * 3
    bids = Fraction(0)
    for one in run.bought:
        amount = paid(one, world.axis)
        bids += _energy(one, world.axis) * Fraction(one.award.bid_eur_mwh)
        for place, share in enumerate(shares_of(one)):
            if share:
                energy[place] += share * amount
    for kept in run.reserved:
        payers = payers_of(kept.buyer, world)
        for payer in payers:
            availability[PAYERS.index(payer)] += kept_for(kept, world.axis) / len(payers)
    exact = [*energy, *availability, Fraction(run.final.mended_eur)]
    parts = [Decimal(cents).scaleb(-2) for cents in split_cents([_decimal(amount) for amount in exact])]
    (at_bids,) = split_cents([_decimal(bids)])
    return Costs((parts[0], parts[1], parts[2]), (parts[3], parts[4], parts[5]), parts[6], Decimal(at_bids).scaleb(-2))


def shares_of(bought: Bought) -> Shares:
    """Shares of DSO, TSO and balance responsible parties, adding to one exactly: the largest takes what is missing.

    Raises CoflexError where a share is below zero or they miss one by more than floating numbers do.
    """
    given = (bought.share_dso, bought.share_tso, bought.share_brp)
    if min(given) < 0 or abs(sum(given) - 1) > _SLACK:
        raise CoflexError(
            f"The shares {given} of offer {bought.award.offer} do not add to one.",
            "Give each payer a share from 0 to 1; together they pay the whole award.",
        )
    return _exact(given)


@lru_cache(maxsize=65536)
def _exact(given: tuple[float, float, float]) -> Shares:
    exact = [Fraction(share) for share in given]
    largest = given.index(max(given))
    exact[largest] += 1 - sum(exact)
    return exact[0], exact[1], exact[2]


def payers_of(buyer: str, world: World) -> tuple[Buyer, ...]:
    """Which of the three a buyer's name stands for: `tso` and `dso` (also with what follows, or a grid's name) are
    operators, every other is a balance responsible party. Names joined by `+` buy together, in equal parts."""
    found = {_payer(name, world) for name in buyer.split("+")}
    return tuple(payer for payer in PAYERS if payer in found)


def _payer(name: str, world: World) -> Buyer:
    if name.lower().startswith(Buyer.TSO.value):
        return Buyer.TSO
    return Buyer.DSO if name.lower().startswith(Buyer.DSO.value) or name in world.grids else Buyer.BRP


def paid(bought: Bought, axis: Axis) -> Fraction:
    """EUR of an award at its paid price, exact."""
    return _energy(bought, axis) * Fraction(bought.award.price_eur_mwh)


def kept_for(kept: Reservation, axis: Axis) -> Fraction:
    """EUR of a reservation's availability in one quarter-hour, exact."""
    return Fraction(kept.quantity_kw, 1000) * hours_of(axis) * Fraction(kept.availability_eur_mw_h)


def hours_of(axis: Axis) -> Fraction:
    """Length of one period in hours, exact."""
    return Fraction(round(axis.step.total_seconds()), 3600)


def _energy(bought: Bought, axis: Axis) -> Fraction:
    return Fraction(bought.award.quantity_kw, 1000) * hours_of(axis)


def _decimal(amount: Fraction) -> Decimal:
    return Decimal(amount.numerator) / Decimal(amount.denominator)
