"""Runs of a settlement period: what earlier ones posted, what another one would, and the records it makes (SET-05, 06).

A run keeps all that it was computed from, so that it can be computed again; later runs post differences alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from coflex.domain.errors import Conflict, NotReady
from coflex.domain.statement import Account, Line
from coflex.register.records import Record
from coflex.register.settlement import (
    InvoiceEntry,
    Kept,
    SettlementRun,
    StatementEntry,
    lines_in,
    packed,
    unpacked,
)
from coflex.service.deliveries import Prepared, prepare
from coflex.service.index import index
from coflex.service.machine import Context, encode
from coflex.service.ports import Note
from coflex.service.settling import Period
from coflex.service.state import State
from coflex.settlement.books import Run, balance, correct
from coflex.settlement.charges import settle
from coflex.settlement.inputs import Inputs
from coflex.settlement.invoice import Invoice

# Deliveries of one run: about a second of the machine's time, in which nobody's offer is taken.
MOST_DELIVERIES = 5_000


# ---------------------------------------------------------------- what was posted


def runs_of(state: State, period: str) -> tuple[SettlementRun, ...]:
    """The runs of a period, the first one first."""
    found = index(state, SettlementRun, "period", lambda one: (one.period,)).at(period)
    return tuple(sorted(found, key=lambda one: one.number))


def kept_by(state: State, run: SettlementRun) -> Prepared:
    """What a run was computed from."""
    kept = state.get(Kept, run.id)
    return Prepared(unpacked(kept.inputs, Inputs), unpacked(kept.rules, dict[str, str]), run.left_out)


def posted(state: State, period: str) -> list[Line]:
    """All that the runs of a period posted."""
    return [line for run in runs_of(state, period) for line in lines_in(state.find(Kept, run.id))]


def line_of(state: State, party: str, period: str, line: str) -> Line | None:
    """A party's line of a period by its id, or by the id of the charge that it corrects; the first one posted."""
    for run in runs_of(state, period):
        for one in lines_in(state.find(Kept, statement_id(run.id, party))):
            if line in (one.charge.id, one.charge.root):
                return one
    return None


def invoice_of(state: State, entry: InvoiceEntry) -> Invoice:
    """An invoice with every line."""
    # the first ones were kept under their number alone
    kept = state.find(Kept, kept_invoice(entry.id)) or state.get(Kept, entry.id)
    return unpacked(kept.invoice, Invoice)


def kept_invoice(number: str) -> str:
    """Under which id an invoice is kept: none that a run or a statement can have."""
    return f"invoice {number}"


def statement_id(run: str, party: str) -> str:
    return f"{run}.{party}"


# ---------------------------------------------------------------- what another run would post


@dataclass(frozen=True, slots=True)
class Proposed:
    """What a run over a period would settle and post."""

    period: Period
    number: int
    prepared: Prepared
    digest: str
    run: Run


def propose(state: State, period: Period) -> Proposed:
    """What a run would post now. Raises Refused with every fault of the inputs, Conflict where the period is too large
    or shares days with another one that is settled."""
    before = runs_of(state, period.name)
    _alone(state, period)
    prepared = prepare(state, period, kept_by(state, before[-1]) if before else None)
    count = len(prepared.inputs.deliveries)
    if count > MOST_DELIVERIES:
        raise Conflict(
            f"The period {period.name} has {count} deliveries, and one run settles at most {MOST_DELIVERIES}.",
            "Settle it day by day, as 2026-07-05; larger markets settle outside, by coflex settlement.",
        )
    return proposed(state, period, prepared)


def proposed(state: State, period: Period, prepared: Prepared) -> Proposed:
    """What a run on given inputs would post after those before it."""
    charges = settle(prepared.inputs, prepared.rules)
    run = correct(posted(state, period.name), charges, period.name)
    return Proposed(period, len(runs_of(state, period.name)) + 1, prepared, prepared.digest, run)


def _alone(state: State, period: Period) -> None:
    for one in state.all(SettlementRun):
        if one.period != period.name and one.first_day <= period.last and period.first <= one.last_day:
            raise Conflict(
                f"Days of {period.name} are settled in the period {one.period}.", "Settle each day in one period."
            )


def require_over(period: Period, context: Context) -> None:
    """Raises NotReady before a period is over."""
    if context.now < period.ends:
        raise NotReady(f"The period {period.name} ends at {period.ends.isoformat()}.", "Settle it after that.")


# ---------------------------------------------------------------- the records of a run

Written = tuple[type[Record], str, Record]


@dataclass(frozen=True, slots=True)
class Posted:
    """A run as it is kept, with its statements, and what everybody concerned is told."""

    run: SettlementRun
    records: tuple[Written, ...]
    notes: tuple[Note, ...]


def post(context: Context, one: Proposed, reason: str, dispute: str = "") -> Posted:
    """The records of a run."""
    made, prepared = one.run, one.prepared
    money = balance(made.accounts, prepared.inputs.platform)
    run = SettlementRun(
        id=f"{one.period.name}.{one.number}",
        period=one.period.name,
        number=one.number,
        first_day=one.period.first,
        last_day=one.period.last,
        at=context.now,
        by=context.actor,
        reason=reason,
        inputs=one.digest,
        deliveries=len(prepared.inputs.deliveries),
        unmetered=len(prepared.unmetered),
        lines=len(made.lines),
        corrected=sum(bool(line.charge.corrects) for line in made.lines),
        paid_cents=money.paid,
        received_cents=money.received,
        fee_cents=money.fees,
        rounding_cents=money.rounding,
        left_out=prepared.left_out,
        dispute=dispute,
    )
    documents = dict(sorted(prepared.documents.items()))
    kept = Kept(run.id, packed(prepared.inputs), packed(documents), packed(made.lines))
    records: list[Written] = [(SettlementRun, run.id, run), (Kept, kept.id, kept)]
    mine = _by_party(made.lines)
    for account in made.accounts:
        entry = _statement(run, account)
        records.append((StatementEntry, entry.id, entry))
        records.append((Kept, entry.id, Kept(entry.id, lines=packed(mine[account.party]))))
    return Posted(run, tuple(records), tuple(_told(run, account) for account in made.accounts))


def _by_party(lines: Sequence[Line]) -> Mapping[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        for party in sorted({line.charge.seller, line.charge.customer}):
            found.setdefault(party, []).append(line)
    return found


def _statement(run: SettlementRun, account: Account) -> StatementEntry:
    return StatementEntry(
        id=statement_id(run.id, account.party),
        run=run.id,
        period=run.period,
        party=account.party,
        at=run.at,
        totals=account.totals,
        balance_cents=account.balance_cents,
        lines=account.lines,
    )


def _told(run: SettlementRun, account: Account) -> Note:
    body: dict[str, Any] = {"period": run.period, "balance_cents": account.balance_cents}
    return Note("statement.issued", statement_id(run.id, account.party), (account.party,), encode(body))


# ---------------------------------------------------------------- what is to be billed


def unbilled_before(state: State, run: SettlementRun) -> str:
    """An earlier run of the period without invoices, by id; empty where there is none."""
    return next((one.id for one in runs_of(state, run.period) if one.number < run.number and one.billed is None), "")


def invoices_by(state: State, seller: str) -> tuple[InvoiceEntry, ...]:
    return index(state, InvoiceEntry, "seller", lambda one: (one.seller,)).at(seller)


def last_issued(state: State, seller: str) -> date | None:
    """The date of a seller's last invoice."""
    return max((one.issued for one in invoices_by(state, seller)), default=None)
