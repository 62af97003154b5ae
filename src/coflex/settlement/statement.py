"""Books and statements: double entry, rounded once a booking, balanced to the cent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from itertools import groupby
from operator import attrgetter

from coflex.domain.errors import CoflexError, Unbalanced
from coflex.domain.quantity import split_cents
from coflex.domain.statement import Cause, Posting, SettlementLine, Statement

_PARTIES = ("session", "buyer", "provider")
_booking_of = attrgetter(*_PARTIES)
_canonical = attrgetter(*_PARTIES, *(f.name for f in fields(SettlementLine) if f.name not in _PARTIES))


@dataclass(frozen=True, slots=True)
class LineCents:
    """What a line adds to each posting of its booking, in cents.

    `amount`: buyer to provider (negative: the reverse). `penalty`: provider to buyer. `fee`: buyer to platform.
    """

    booking: str
    amount: int
    penalty: int
    fee: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """The books of a run. `line_cents[i]` belongs to the i-th line given; the rest is in canonical order."""

    postings: tuple[Posting, ...]
    statements: tuple[Statement, ...]
    line_cents: tuple[LineCents, ...]


def book(lines: Sequence[SettlementLine], fee_share: Decimal, platform: str = "platform") -> Settlement:
    """Book the lines: one booking for each session, buyer and provider.

    The buyer pays, for it caused the activation: the amounts to the provider and, on top, `fee_share` of their
    size to the platform; penalties go the other way. Each booking's exact sums are rounded once, half to even,
    and its lines' cents are the largest remainder split of that, so they add to the posting.
    Guarantees: every booking adds to zero, hence paid = received + fees to the cent; any order of the lines gives
    the same postings and statements. Raises CoflexError on a fee share outside 0 to 1.
    """
    if not 0 <= fee_share <= 1:
        raise CoflexError(f"The fee share {fee_share} is no share.", "Give a number from 0 to 1.")
    order = sorted(range(len(lines)), key=lambda i: _canonical(lines[i]))
    cents: dict[int, LineCents] = {}
    postings: list[Posting] = []
    for _, run in groupby(order, key=lambda i: _booking_of(lines[i])):
        places = list(run)
        parts = _line_cents([lines[i] for i in places], fee_share)
        cents.update(zip(places, parts, strict=True))
        postings.extend(_postings(lines[places[0]], parts, platform))
    check_balance(postings)
    statements = _statements([lines[i] for i in order], postings, platform)
    return Settlement(tuple(postings), statements, tuple(cents[i] for i in range(len(lines))))


def check_balance(postings: Iterable[Posting]) -> None:
    """Raise Unbalanced, naming the booking, when the postings of one do not add to zero."""
    sums: dict[str, int] = defaultdict(int)
    for posting in postings:
        sums[posting.booking] += posting.cents
    for booking, rest in sorted(sums.items()):
        if rest:
            raise Unbalanced(f"The booking '{booking}' is off by {rest} cents.", "Book both sides of every amount.")


def _line_cents(lines: Sequence[SettlementLine], fee_share: Decimal) -> tuple[LineCents, ...]:
    """The cents of one booking's lines, in their order."""
    name = " | ".join(_booking_of(lines[0]))
    columns = zip(
        split_cents([line.amount_eur for line in lines]),
        split_cents([line.penalty_eur for line in lines]),
        split_cents([fee_share * abs(line.amount_eur) for line in lines]),
        strict=True,
    )
    return tuple(LineCents(name, amount, penalty, fee) for amount, penalty, fee in columns)


def _postings(line: SettlementLine, parts: Sequence[LineCents], platform: str) -> list[Posting]:
    """Both sides of one booking, from the debtor to the creditor; nothing is posted for zero."""
    moves = (
        (Cause.ACTIVATION, line.buyer, line.provider, sum(part.amount for part in parts)),
        (Cause.PENALTY, line.provider, line.buyer, sum(part.penalty for part in parts)),
        (Cause.FEE, line.buyer, platform, sum(part.fee for part in parts)),
    )
    return [
        Posting(parts[0].booking, account, cents, cause, line.session)
        for cause, debtor, creditor, owed in moves
        for account, cents in ((debtor, -owed), (creditor, owed))
        if owed
    ]


def _statements(lines: Sequence[SettlementLine], postings: Sequence[Posting], platform: str) -> tuple[Statement, ...]:
    """One statement a party, by name, its money from the postings alone.

    Penalties and fees are what the party bears: negative for the one who receives them. The platform's statement
    counts every line.
    """
    parties = sorted({party for line in lines for party in (line.buyer, line.provider, platform)})
    return tuple(
        _statement(
            party,
            [line for line in lines if party in (line.buyer, line.provider, platform)],
            [posting for posting in postings if posting.account == party],
        )
        for party in parties
    )


def _statement(party: str, lines: Sequence[SettlementLine], postings: Sequence[Posting]) -> Statement:
    paid = [posting.cents for posting in postings if posting.cause is Cause.ACTIVATION]
    return Statement(
        party=party,
        received_cents=sum(cents for cents in paid if cents > 0),
        paid_cents=-sum(cents for cents in paid if cents < 0),
        penalty_cents=-sum(posting.cents for posting in postings if posting.cause is Cause.PENALTY),
        fee_cents=-sum(posting.cents for posting in postings if posting.cause is Cause.FEE),
        lines=len(lines),
        ordered_kwh=sum((line.ordered_kwh for line in lines), Decimal(0)),
        delivered_kwh=sum((line.delivered_kwh for line in lines), Decimal(0)),
    )
