"""The words of a settlement rule document: one class a part, one enum a choice. Unknown keys are refused.

What each key does to an amount is written out in docs/mathematics/settlement.md, and for people who write documents
in docs/settlement.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from coflex.domain.product import PricingRule
from coflex.domain.statement import Measure
from coflex.domain.unit import Scope
from coflex.settlement.rules import Response, SettlementRule

NAME = r"^[a-z0-9][a-z0-9_-]*$"
MOST = 10**9  # of any number: exact amounts have an end, and a price beyond it is a slip
Number = Annotated[Decimal, Field(ge=-MOST, le=MOST)]
Curve = tuple[tuple[Number, Number], ...]
Fault = tuple[str, str, str]
"""Path, code, message."""


class By(StrEnum):
    """What counts as delivered.

    `metered`: the measured change against the baseline (aFRR, local products). `requested`: inside the tolerance, what
    was ordered (mFRR). `availability`: capacity held ready; no energy is settled (FCR). `interface`: reactive energy
    measured at the interface between two grids. `drop_to`: a level that is not to be passed; no baseline.
    """

    METERED = "metered"
    REQUESTED = "requested"
    AVAILABILITY = "availability"
    INTERFACE = "interface"
    DROP_TO = "drop_to"


class Need(StrEnum):
    """Why a delivery was called for: the cause that says who pays. `shared`: one purchase serves several operators."""

    DSO_CONGESTION = "dso_congestion"
    DSO_VOLTAGE = "dso_voltage"
    TSO_CONGESTION = "tso_congestion"
    TSO_BALANCING = "tso_balancing"
    BRP_IMBALANCE = "brp_imbalance"
    SHARED = "shared"


class Payer(StrEnum):
    """Who pays: the party that bought, the one that plays this part for the delivery, or several by the sharing."""

    BUYER = "buyer"
    DSO = "dso"
    TSO = "tso"
    BRP = "brp"
    SHARED = "shared"


class PenaltyKind(StrEnum):
    """`none`; `share` of the size of the award's price; `fixed` price; `agreed`: the price that the award carries."""

    NONE = "none"
    SHARE = "share"
    FIXED = "fixed"
    AGREED = "agreed"


class Sides(StrEnum):
    """`one`: a shortfall is punished. `two`: delivery beyond the order is punished too."""

    ONE = "one"
    TWO = "two"


class ShareBy(StrEnum):
    """How several payers share one purchase: by what each needed, all the same, by fixed shares, or by the Shapley
    value of what each and each group would have paid alone."""

    NEED = "need"
    EQUAL = "equal"
    FIXED = "fixed"
    SHAPLEY = "shapley"


class Bearer(StrEnum):
    """Who bears the platform's fee."""

    PAYER = "payer"
    PROVIDER = "provider"


class Volume(StrEnum):
    """The energy that the transfer moves between balance responsible parties."""

    DELIVERED = "delivered"
    ORDERED = "ordered"


class Compensation(StrEnum):
    """The price at which transferred energy is compensated: none, fixed in the rule, or given with the delivery."""

    NONE = "none"
    FIXED = "fixed"
    REFERENCE = "reference"


class Part(BaseModel):
    """A part of a document."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def faults(self) -> Iterator[Fault]:
        """What is wrong between its keys; paths from this part."""
        return iter(())


class Source(Part):
    """Where the rule comes from: a document and a place in it."""

    document: str = Field(min_length=1)
    section: str = Field(min_length=1)


class Delivered(Part):
    """What counts as delivered. `tolerance`: share of the order by which delivery may miss it unpunished.
    `opposite_counts`: a move against the order adds to the shortfall."""

    by: By
    tolerance: Decimal = Field(default=Decimal(0), ge=0, lt=1)
    opposite_counts: bool = False


class Payment(Part):
    """What is paid of a delivery. `curve`: points (delivered share, paid share) of the order, straight between them,
    flat outside; empty pays what is delivered. `cap`: most that is paid, as a share of the order."""

    curve: Curve = ()
    cap: Number = Field(default=Decimal(1), gt=0)

    def faults(self) -> Iterator[Fault]:
        yield from _curve_faults("curve", self.curve, negative=False)


class Penalty(Part):
    """What a MWh missing beyond the tolerance costs the provider."""

    kind: PenaltyKind
    share: Number | None = Field(default=None, ge=0)
    eur_mwh: Number | None = Field(default=None, ge=0)
    sides: Sides = Sides.ONE

    def faults(self) -> Iterator[Fault]:
        yield from _wanted("share", self.share, self.kind is PenaltyKind.SHARE, self.kind)
        yield from _wanted("eur_mwh", self.eur_mwh, self.kind is PenaltyKind.FIXED, self.kind)


class Availability(Part):
    """The payment for capacity held ready, EUR per MW and hour, and what of it is kept.

    Each curve has points (share, kept share), straight between them and flat outside; empty keeps all. The lowest of
    the three counts, so that one failure is not punished twice; a kept share below 0 takes more than was paid.
    `by_readiness`: the share of the interval in which the capacity was ready. `by_delivery`: the delivered share of
    what was ordered in the interval. `by_month`: the delivered share of the month that the delivery names.
    """

    by_readiness: Curve = ()
    by_delivery: Curve = ()
    by_month: Curve = ()

    def faults(self) -> Iterator[Fault]:
        for name in ("by_readiness", "by_delivery", "by_month"):
            curve: Curve = getattr(self, name)
            yield from _curve_faults(name, curve, negative=True)
            if any(kept > 1 for _, kept in curve):
                yield name, "out_of_range", "More than all cannot be kept; give kept shares up to 1."


class Sharing(Part):
    """How the payers of a shared purchase divide it. `shares`: of each payer, with `by: fixed` alone."""

    by: ShareBy
    shares: dict[Payer, Decimal] = Field(default_factory=dict)

    def faults(self) -> Iterator[Fault]:
        fixed = self.by is ShareBy.FIXED
        if fixed and sum(self.shares.values(), Decimal(0)) != 1:
            yield "shares", "not_whole", "The shares do not add to 1; correct them."
        if any(share < 0 for share in self.shares.values()):
            yield "shares", "negative", "No payer has a share below 0; correct it."
        if not fixed and self.shares:
            yield "shares", "not_used", f"Sharing by {self.by.value} finds the shares itself; take them out."
        if {Payer.BUYER, Payer.SHARED} & set(self.shares):
            yield "shares", "not_offered", "Shares belong to dso, tso or brp; name these."


class Fee(Part):
    """The platform's fee: a share of the size of what is paid for energy and capacity, and a price for each MWh paid
    (of a reactive product for each Mvarh)."""

    share: Decimal = Field(default=Decimal(0), ge=0, le=1)
    eur_mwh: Number = Field(default=Decimal(0), ge=0)
    borne_by: Bearer = Bearer.PAYER


class Transfer(Part):
    """The correction between balance responsible parties (transfer of energy), where they differ.

    `volume`: the energy that leaves the perimeter of the unit's party. `compensation`: the price at which the provider
    pays the unit's supplier for energy that it sold on (up), and is paid for energy it laid on him (down).
    """

    volume: Volume = Volume.DELIVERED
    compensation: Compensation = Compensation.NONE
    eur_mwh: Number | None = None

    def faults(self) -> Iterator[Fault]:
        yield from _wanted("eur_mwh", self.eur_mwh, self.compensation is Compensation.FIXED, self.compensation)


class Rule(Part):
    """How one product is settled. All shares are of the ordered energy; prices in EUR/MWh (reactive: EUR/Mvarh)."""

    id: str = Field(pattern=NAME)
    version: int = Field(ge=1)
    title: str = Field(min_length=1)
    source: Source
    delivered: Delivered
    payment: Payment = Payment()
    pricing: PricingRule = PricingRule.PAY_AS_BID
    penalty: Penalty = Penalty(kind=PenaltyKind.NONE)
    availability: Availability | None = None
    payers: dict[Need, Payer] = Field(min_length=1)
    sharing: Sharing | None = None
    fee: Fee = Fee()
    transfer: Transfer | None = None

    @property
    def name(self) -> str:
        """Id and version, as charges tell them: mfrr@1."""
        return f"{self.id}@{self.version}"

    @property
    def measure(self) -> Measure:
        """What the energy of this product is counted in."""
        return Measure.MVARH if self.delivered.by is By.INTERFACE else Measure.MWH

    def terms(self, agreed_eur_mwh: Decimal | None = None) -> SettlementRule:
        """The numbers by which a delivery is judged; `agreed_eur_mwh`: the penalty price that the award carries."""
        penalty = self.penalty
        fixed = {PenaltyKind.FIXED: penalty.eur_mwh, PenaltyKind.AGREED: agreed_eur_mwh}.get(penalty.kind)
        return SettlementRule(
            response=Response.REQUESTED if self.delivered.by is By.REQUESTED else Response.METERED,
            tolerance=self.delivered.tolerance,
            penalty_share=penalty.share or Decimal(0),
            penalty_eur_mwh=fixed,
            payment=self.payment.curve,
            cap=self.payment.cap,
            opposite_counts=self.delivered.opposite_counts,
            two_sided=penalty.sides is Sides.TWO,
        )

    def faults(self) -> Iterator[Fault]:
        for name in type(self).model_fields:
            part = getattr(self, name)
            if isinstance(part, Part):
                yield from ((f"{name}.{path}", code, message) for path, code, message in part.faults())
        yield from self._between()

    def _between(self) -> Iterator[Fault]:
        """Faults between the parts."""
        shared = Payer.SHARED in self.payers.values()
        if shared and self.sharing is None:
            yield "payers", "no_sharing", "A shared purchase needs to know how; add the part 'sharing'."
        if self.sharing is not None and not shared:
            yield "sharing", "not_used", "Nothing is shared; give a need the payer 'shared', or take this out."
        for need, payer in self.payers.items():
            if (need is Need.SHARED) != (payer is Payer.SHARED):
                message = f"'{need.value}: {payer.value}' do not fit; 'shared' goes with 'shared'."
                yield f"payers.{need.value}", "not_offered", message
        if self.delivered.by is By.AVAILABILITY and self.availability is None:
            yield "delivered.by", "no_availability", "What is settled by availability pays for it; add 'availability'."
        if self.delivered.by is By.AVAILABILITY and self.transfer is not None:
            yield "transfer", "not_used", "No energy is settled, so none is transferred; take this out."
        if self.delivered.by is By.INTERFACE and self.transfer is not None:
            yield "transfer", "not_used", "Reactive energy is in no balance; take this out."


class ProductRules(Part):
    """Which rule settles which product, by ids: that of the product where it is named, else that of its scope."""

    version: int = Field(ge=1)
    scopes: dict[Scope, str]
    products: dict[str, str] = Field(default_factory=dict)

    def faults(self) -> Iterator[Fault]:
        for scope in Scope:
            if scope not in self.scopes:
                yield (
                    f"scopes.{scope.value}",
                    "missing_key",
                    f"Products of the scope '{scope.value}' have no rule; add it.",
                )


def kept(curve: Curve, share: Decimal | None) -> Decimal:
    """The value of a curve at a share: straight between its points, flat outside; all without a curve or a share."""
    if not curve or share is None:
        return Decimal(1)
    if share <= curve[0][0]:
        return curve[0][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if share <= x1:
            return y0 + (share - x0) * (y1 - y0) / (x1 - x0)
    return curve[-1][1]


def _curve_faults(name: str, curve: Curve, negative: bool) -> Iterator[Fault]:
    if any(x < 0 or (y < 0 and not negative) for x, y in curve):
        yield name, "negative", "Shares are never negative; give points from [0, 0] up."
    if any(b[0] <= a[0] or b[1] < a[1] for a, b in pairwise(curve)):
        yield name, "unordered", "More delivery must not pay less; order the points upwards."


def _wanted(name: str, value: object, wanted: bool, kind: StrEnum) -> Iterator[Fault]:
    if wanted and value is None:
        yield name, "missing_key", f"'{kind.value}' needs the key '{name}'; add it."
    if not wanted and value is not None:
        yield name, "not_used", f"'{kind.value}' does not use the key '{name}'; take it out."
