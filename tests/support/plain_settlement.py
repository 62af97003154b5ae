"""Orders settled one after another without any rounding, and booked by session, buyer and provider: plain arithmetic to
hold the settlement of a city against, whose numbers are exact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from coflex.domain.quantity import split_cents
from coflex.settlement.allocation import fill
from coflex.settlement.judgement import judge
from coflex.settlement.penalty import penalty_eur
from coflex.settlement.rules import SettlementRule

MOVES = ("activation", "penalty", "fee")
Booking = tuple[str, str, str]
"""Session, buyer, provider."""
Step = tuple[Decimal, Decimal]
"""What was bought, kWh, and its price, EUR/MWh."""


@dataclass(frozen=True)
class PlainLine:
    """One price step: energies in kWh, exact amounts in EUR in the order of `MOVES`, and their cents once booked."""

    ordered: Decimal
    delivered: Decimal
    paid: Decimal
    amounts: tuple[Decimal, Decimal, Decimal]


def plain_lines(
    rule: SettlementRule,
    fee: Decimal,
    ordered: Decimal,
    steps: Sequence[tuple[Decimal, Decimal]],
    response: Decimal | None,
) -> list[PlainLine]:
    """The lines of an order, by ascending price."""
    bought = sorted(steps, key=lambda step: (step[1], step[0]))
    outcome = judge(rule, ordered, response)
    parts = fill(ordered, [energy for energy, _ in bought])
    delivered, paid = fill(outcome.delivered, parts), fill(outcome.paid, parts)
    missed = fill(outcome.deficient + outcome.surplus, parts[::-1])[::-1]
    lines = []
    for (_, price), due, came, counts, short in zip(bought, parts, delivered, paid, missed, strict=True):
        amount = price * counts / 1000
        lines.append(PlainLine(due, came, counts, (amount, penalty_eur(rule, price, short), fee * abs(amount))))
    return lines


def plain_cents(lines: Sequence[tuple[Booking, PlainLine]]) -> list[tuple[int, ...]]:
    """The cents of each line: each booking's sums rounded once, its lines' cents by largest remainders."""
    members: dict[Booking, list[int]] = defaultdict(list)
    for i, (booking, _) in enumerate(lines):
        members[booking].append(i)
    cents: dict[int, tuple[int, ...]] = {}
    for places in members.values():
        columns = [split_cents([lines[i][1].amounts[k] for i in places]) for k in range(len(MOVES))]
        cents |= dict(zip(places, zip(*columns, strict=True), strict=True))
    return [cents[i] for i in range(len(lines))]


def plain_postings(lines: Sequence[tuple[Booking, PlainLine]], platform: str) -> set[tuple[str, str, str, str, int]]:
    """Both sides of every booking: name, account, cause, session, cents; nothing for zero."""
    sums: dict[tuple[Booking, int], int] = defaultdict(int)
    for (booking, _), parts in zip(lines, plain_cents(lines), strict=True):
        for k, part in enumerate(parts):
            sums[booking, k] += part
    found = set()
    for (booking, k), owed in sums.items():
        session, buyer, provider = booking
        debtor, creditor = ((buyer, provider), (provider, buyer), (buyer, platform))[k]
        for account, part in ((debtor, -owed), (creditor, owed)):
            found.add((" | ".join(booking), account, MOVES[k], session, part))
    return {one for one in found if one[-1]}
