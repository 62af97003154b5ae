"""Books: charges rounded once a booking, both sides of every amount, and later runs that post differences alone.

A booking is all that one customer owes one seller for one cause, in one session and settlement period. Its exact sum is
rounded once, half to even, and its lines take the cents by the largest remainders. What rounding leaves of a purchase
that several customers share goes to the one account `rounding`: the seller's sum does not depend on how others divide
it, and equal shares pay the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Decimal, localcontext

from coflex.domain.errors import CoflexError, Unbalanced
from coflex.domain.quantity import CENT
from coflex.domain.statement import Account, Cause, Charge, Evidence, Line, Measure, Posting, Total
from coflex.settlement.charges import EXACT
from coflex.settlement.inputs import ROUNDING, ZERO


@dataclass(frozen=True, slots=True)
class Run:
    """What one run posts. `lines`, `postings` and `accounts` in canonical order."""

    period: str
    lines: tuple[Line, ...]
    postings: tuple[Posting, ...]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """The money of some lines in cents. `fees`: to the platform, less what it gives back of them; `rounding`: to the
    account of roundings; `paid`, `received`: by all parties for everything else, and `paid` the fees too. Paid =
    received + fees + rounding."""

    paid: int
    received: int
    fees: int
    rounding: int

    @property
    def difference(self) -> int:
        """Zero when every cent that was paid has arrived."""
        return self.paid - self.received - self.fees - self.rounding


def book(charges: Iterable[Charge], period: str) -> Run:
    """The first run over a period's charges: `correct` with nothing posted before."""
    return correct((), charges, period)


def correct(posted: Iterable[Line], charges: Iterable[Charge], period: str) -> Run:
    """The run that brings what was posted to what the charges say: lines for differences alone.

    posted: the lines of all earlier runs of the period. Each difference names the charge that it corrects.
    Guarantees: every booking adds to zero; what was posted and this run together post what one run over the charges
    would; the same charges again post nothing; any order of the inputs gives the same.
    Raises CoflexError when two charges have one id, or a line posted is of another period.
    """
    posted = list(posted)
    foreign = next((one.booking for one in posted if not one.booking.startswith(f"{period} | ")), None)
    if foreign is not None:
        raise CoflexError(f"The booking '{foreign}' is not of the period {period}.", "Correct each period by itself.")
    with localcontext(EXACT):
        wanted = _by_id(charges)
        wanted |= _by_id(_roundings(wanted.values()))
        before = _posted(posted)
        bookings = _booking_cents(before.values(), period)
        changes = _changes(before, wanted)
        targets = _sums(wanted.values(), period)
        lines: list[Line] = []
        for booking, members in sorted(_grouped(changes, period).items()):
            owed = _cents(targets.get(booking, ZERO)) - bookings.get(booking, 0)
            cents = spread(owed, [one.amount_eur for one in members])
            lines += (Line(one, part, booking) for one, part in zip(members, cents, strict=True))
    postings = _postings(lines)
    check_balance(postings)
    lines.sort(key=lambda one: (one.charge.start, one.charge.id))
    return Run(period, tuple(lines), postings, accounts(lines, period))


def accounts(lines: Iterable[Line], period: str) -> tuple[Account, ...]:
    """One account a party, by name; of any lines, of one run or of all runs of a period.

    Received and paid are counted by booking, so that lines of both signs in one booking are one movement.
    """
    moves: dict[str, dict[Cause, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    count: dict[str, int] = defaultdict(int)
    sums: dict[tuple[str, Cause, str, str], int] = defaultdict(int)
    for line in lines:
        charge = line.charge
        sums[line.booking, charge.cause, charge.seller, charge.customer] += line.cents
        for party in {charge.seller, charge.customer}:
            count[party] += 1
    for (_, cause, seller, customer), cents in sums.items():
        creditor, debtor = (seller, customer) if cents > 0 else (customer, seller)
        moves[creditor][cause][0] += abs(cents)
        moves[debtor][cause][1] += abs(cents)
    return tuple(
        Account(
            party, period, tuple(Total(cause, *moves[party][cause]) for cause in sorted(moves[party])), count[party]
        )
        for party in sorted(count)
    )


def balance(found: Iterable[Account], platform: str = "platform") -> Balance:
    """Paid against received, over all accounts."""
    paid = received = fees = rounding = 0
    for one in found:
        for total in one.totals:
            if one.party == ROUNDING:
                rounding += total.received_cents - total.paid_cents
            elif one.party == platform and total.cause is Cause.FEE:
                fees += total.received_cents - total.paid_cents
            else:
                paid += total.paid_cents
                received += total.received_cents
    return Balance(paid, received, fees, rounding)


def check_balance(postings: Iterable[Posting]) -> None:
    """Raise Unbalanced, naming the booking, when the postings of one do not add to zero."""
    sums: dict[str, int] = defaultdict(int)
    for posting in postings:
        sums[posting.booking] += posting.cents
    for booking, rest in sorted(sums.items()):
        if rest:
            raise Unbalanced(f"The booking '{booking}' is off by {rest} cents.", "Book both sides of every amount.")


def spread(cents: int, amounts: Sequence[Decimal]) -> tuple[int, ...]:
    """Lay a sum of cents on exact amounts: each is floored to the cent, and the cents that are left (or missing) go to
    the largest (smallest) remainders, ties to the earlier place. The parts add to the sum; amounts are not empty."""
    exact = [amount / CENT for amount in amounts]
    floors = [int(amount.to_integral_value(ROUND_FLOOR)) for amount in exact]
    each, left = divmod(cents - sum(floors), len(floors))
    ranked = sorted(range(len(floors)), key=lambda i: (floors[i] - exact[i], i))
    for place in range(len(floors)):
        floors[place] += each
    for place in ranked[:left]:
        floors[place] += 1
    return tuple(floors)


def booking_of(charge: Charge, period: str) -> str:
    """The name of the booking that a charge is part of."""
    parts = (
        period,
        charge.session,
        charge.cause,
        charge.seller,
        charge.customer,
        *(("joint",) if charge.joint else ()),
    )
    return " | ".join(parts)


def _by_id(charges: Iterable[Charge]) -> dict[str, Charge]:
    found: dict[str, Charge] = {}
    for charge in sorted(charges, key=lambda one: (one.start, one.id)):
        if charge.id in found:
            raise CoflexError(
                f"Two charges have the id {charge.id}.", "Give each delivery and award a name of its own."
            )
        found[charge.id] = charge
    return found


def _cents(amount: Decimal) -> int:
    """An exact amount in cents, half to even."""
    return int((amount / CENT).to_integral_value())


def _roundings(charges: Iterable[Charge]) -> list[Charge]:
    """What the seller of a shared purchase is still owed when each customer's part is rounded by itself."""
    parts: dict[tuple[str, Cause, str], dict[str, list[Charge]]] = {}
    for charge in charges:
        if charge.joint:
            key = charge.session, charge.cause, charge.seller
            parts.setdefault(key, {}).setdefault(charge.customer, []).append(charge)
    found = []
    for (session, cause, seller), customers in parts.items():
        exact = [sum((one.amount_eur for one in mine), ZERO) for mine in customers.values()]
        left = _cents(sum(exact, ZERO)) - sum(_cents(amount) for amount in exact)
        if left:
            first = min((one for mine in customers.values() for one in mine), key=lambda one: (one.start, one.id))
            found.append(_rounding(session, cause, seller, left, first))
    return found


def _rounding(session: str, cause: Cause, seller: str, cents: int, first: Charge) -> Charge:
    amount = cents * CENT
    return replace(
        first,
        id="|".join((ROUNDING, session, cause, seller)),
        cause=Cause.ROUNDING,
        seller=seller,
        customer=ROUNDING,
        unit="",
        quantity=amount,
        measure=Measure.EUR,
        price_eur=Decimal(1),
        amount_eur=amount,
        remark=f"what rounding each customer's part leaves of {seller}'s {cause} in {session}",
        evidence=Evidence(),
        joint=False,
    )


@dataclass(slots=True)
class _Posted:
    """What all earlier runs posted for one charge."""

    charge: Charge
    amount: Decimal
    quantity: Decimal
    cents: int
    runs: int


def _posted(lines: Iterable[Line]) -> dict[str, _Posted]:
    found: dict[str, _Posted] = {}
    for line in sorted(lines, key=lambda one: (one.charge.start, one.charge.root, len(one.charge.id), one.charge.id)):
        charge, root = line.charge, line.charge.root
        if root not in found:
            found[root] = _Posted(charge, ZERO, ZERO, 0, 0)
        mine = found[root]
        mine.amount += charge.amount_eur
        mine.quantity += charge.quantity
        mine.cents += line.cents
        mine.runs += 1
    return found


def _changes(before: Mapping[str, _Posted], wanted: Mapping[str, Charge]) -> list[Charge]:
    """New charges as they are, changed and vanished ones as differences."""
    changes = [charge for root, charge in wanted.items() if root not in before]
    for root, posted in before.items():
        charge = wanted.get(root)
        amount = charge.amount_eur if charge else ZERO
        if amount != posted.amount:
            changes.append(_difference(root, posted, charge, amount))
    return changes


def _difference(root: str, posted: _Posted, charge: Charge | None, amount: Decimal) -> Charge:
    now = charge.remark if charge else "no longer owed"
    quantity = (charge.quantity if charge else ZERO) - posted.quantity
    return replace(
        charge or posted.charge,
        id=f"{root}#{posted.runs}",
        quantity=quantity,
        amount_eur=amount - posted.amount,
        remark=f"{posted.amount.normalize():f} EUR becomes {amount.normalize():f} EUR: {now}",
        corrects=root,
    )


def _grouped(charges: Iterable[Charge], period: str) -> dict[str, list[Charge]]:
    found: dict[str, list[Charge]] = {}
    for charge in sorted(charges, key=lambda one: (one.start, one.id)):
        found.setdefault(booking_of(charge, period), []).append(charge)
    return found


def _sums(charges: Iterable[Charge], period: str) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for charge in charges:
        sums[booking_of(charge, period)] += charge.amount_eur
    return sums


def _booking_cents(posted: Iterable[_Posted], period: str) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for one in posted:
        sums[booking_of(one.charge, period)] += one.cents
    return sums


def _postings(lines: Iterable[Line]) -> tuple[Posting, ...]:
    """Both sides of each booking; nothing is posted for zero."""
    sums: dict[str, int] = defaultdict(int)
    charges: dict[str, Charge] = {}
    for line in lines:
        sums[line.booking] += line.cents
        charges[line.booking] = line.charge
    return tuple(
        Posting(booking, account, part, charges[booking].cause, charges[booking].session)
        for booking, cents in sorted(sums.items())
        if cents
        for account, part in ((charges[booking].customer, -cents), (charges[booking].seller, cents))
    )
