"""A settlement rule as a row of whole numbers, for settling many points at once."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from coflex.domain.errors import Finding, refuse
from coflex.settlement.columns import CURVE, GRAIN
from coflex.settlement.rules import Response, SettlementRule

TRANSFERS = ("delivered", "ordered", "none")
LARGEST = 10**7  # shares and prices of more than this would leave 64 bits


def rule_row(
    number: int, rule: SettlementRule, fee_share: Decimal = Decimal(0), transfer: str = "delivered"
) -> dict[str, object]:
    """The row of a rule in the table `RULES` of `coflex.settlement.columns`.

    `fee_share`: of an amount's size, to the platform. `transfer`: the energy that corrects the balance responsible
    party's position: what was delivered, what was ordered, or none. Raises Refused with everything in the rule that
    has no place there: shares of more than four decimals, prices of parts of a cent, a curve of more than six points.
    """
    place = f"rule {number}"
    refuse("Rule", _faults(place, rule, fee_share, transfer))
    points = list(rule.payment) + [rule.payment[-1] if rule.payment else (Decimal(0), Decimal(0))] * CURVE
    corners = {
        f"{axis}{place}": int(value * GRAIN)
        for place, corner in enumerate(points[:CURVE], start=1)
        for axis, value in zip("xy", corner, strict=True)
    }
    return {
        "rule": number,
        "requested": rule.response is Response.REQUESTED,
        "tolerance": int(rule.tolerance * GRAIN),
        "penalty_share": int(rule.penalty_share * GRAIN),
        "penalty_price": None if rule.penalty_eur_mwh is None else int(rule.penalty_eur_mwh * 100),
        "cap": int(rule.cap * GRAIN),
        "opposite_counts": rule.opposite_counts,
        "two_sided": rule.two_sided,
        "fee_share": int(fee_share * GRAIN),
        "transfer": transfer,
        "curve": len(rule.payment),
        **corners,
    }


def _faults(place: str, rule: SettlementRule, fee_share: Decimal, transfer: str) -> Iterator[Finding]:
    shares = {"tolerance": rule.tolerance, "penalty_share": rule.penalty_share, "cap": rule.cap, "fee_share": fee_share}
    for number, (delivered, paid) in enumerate(rule.payment, start=1):
        shares |= {f"payment {number}, delivered": delivered, f"payment {number}, paid": paid}
    for name, share in shares.items():
        if not _whole(share, GRAIN):
            said = f"{share} is no whole number of 10,000ths below {LARGEST // GRAIN}; round it to four decimals."
            yield Finding(f"{place}: {name}", "too_fine", said)
    if not 0 <= fee_share <= 1:
        yield Finding(f"{place}: fee_share", "out_of_range", f"{fee_share} is no share; give a number from 0 to 1.")
    if rule.penalty_eur_mwh is not None and not _whole(rule.penalty_eur_mwh, 100):
        said = f"{rule.penalty_eur_mwh} EUR/MWh is no whole number of cents below {LARGEST // 100}; round it."
        yield Finding(f"{place}: penalty_eur_mwh", "too_fine", said)
    if len(rule.payment) > CURVE:
        said = f"A curve has at most {CURVE} points and this one {len(rule.payment)}; leave some out."
        yield Finding(f"{place}: payment", "too_long", said)
    if transfer not in TRANSFERS:
        yield Finding(f"{place}: transfer", "unknown", f"'{transfer}' is none of {', '.join(TRANSFERS)}; choose one.")


def _whole(value: Decimal, parts: int) -> bool:
    return value * parts == int(value * parts) and abs(value * parts) < LARGEST
