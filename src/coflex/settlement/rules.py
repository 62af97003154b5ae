"""The terms of a rule: the few numbers by which a delivery is paid and a shortfall punished.

Mathematics, worked example and sources: docs/mathematics/settlement.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from itertools import pairwise

from coflex.domain.errors import Finding, refuse


class Response(StrEnum):
    """`metered`: what was metered is paid. `requested`: inside the tolerance, what was ordered is paid."""

    METERED = "metered"
    REQUESTED = "requested"


PaymentTable = tuple[tuple[Decimal, Decimal], ...]


@dataclass(frozen=True, slots=True)
class SettlementRule:
    """How one product is settled. All shares are of the ordered energy.

    `tolerance`: shortfall that goes unpunished. `penalty_share`: what an undelivered MWh costs, as a share of the
    size of the award's price; `penalty_eur_mwh`, where given, stands in its place as a fixed price.
    `payment`: points (delivered share, paid share), straight between them and flat outside; empty pays what is
    delivered. `cap`: most that is paid. `opposite_counts`: a move against the order adds to the shortfall.
    `two_sided`: what is delivered beyond the order and the tolerance is punished like a shortfall.
    Raises Refused with every fault.
    """

    response: Response
    tolerance: Decimal = Decimal(0)
    penalty_share: Decimal = Decimal(0)
    penalty_eur_mwh: Decimal | None = None
    payment: PaymentTable = ()
    cap: Decimal = Decimal(1)
    opposite_counts: bool = False
    two_sided: bool = False

    def __post_init__(self) -> None:
        refuse("Settlement rule", self._findings())

    def _findings(self) -> Iterator[Finding]:
        if not 0 <= self.tolerance < 1:
            yield Finding("rule: tolerance", "out_of_range", f"{self.tolerance} is no share; give 0 up to below 1.")
        if self.penalty_share < 0:
            yield Finding("rule: penalty_share", "negative", "A penalty is never paid out; give 0 or more.")
        if self.penalty_eur_mwh is not None and self.penalty_eur_mwh < 0:
            yield Finding("rule: penalty_eur_mwh", "negative", "A penalty is never paid out; give 0 or more.")
        if self.cap <= 0:
            yield Finding("rule: cap", "out_of_range", "Nothing could ever be paid; give a cap above 0.")
        if any(share < 0 or paid < 0 for share, paid in self.payment):
            yield Finding("rule: payment", "negative", "Shares are never negative; give points from (0, 0) up.")
        if any(b[0] <= a[0] or b[1] < a[1] for a, b in pairwise(self.payment)):
            yield Finding("rule: payment", "unordered", "More delivery must not pay less; order the points upwards.")

    def paid_kwh(self, ordered_kwh: Decimal, delivered_kwh: Decimal) -> Decimal:
        """Energy paid for a delivery, by the payment table up to the cap. Both unsigned, in the order's direction."""
        return min(self._tabled(ordered_kwh, delivered_kwh), self.cap * ordered_kwh)

    def _tabled(self, ordered: Decimal, delivered: Decimal) -> Decimal:
        if not self.payment:
            return delivered
        if delivered <= self.payment[0][0] * ordered:
            return self.payment[0][1] * ordered
        for (x0, y0), (x1, y1) in pairwise(self.payment):
            if delivered <= x1 * ordered:
                step = (delivered - x0 * ordered) * (y1 - y0) / (x1 - x0)
                # Cut off where every engine of a city cuts off, so that all give the same cents.
                return y0 * ordered + step.quantize(Decimal("1e-7"), ROUND_DOWN)
        return self.payment[-1][1] * ordered
