"""What becomes of what a provider offered and reserved of a unit when the unit goes to another provider.

Offers that its gate has not settled are taken out of their book, those of groups with the unit too, and their provider
is told: from then on nobody can sell it but the new provider. What a gate has settled is sold by whoever offered it, so
until the result is there the unit does not go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from coflex.domain.errors import Conflict
from coflex.domain.offer import Offer
from coflex.market.engine import SessionState
from coflex.register.activations import Backup
from coflex.register.market import SessionEntry
from coflex.register.records import Record
from coflex.service.books import books
from coflex.service.gates import in_state
from coflex.service.machine import encode
from coflex.service.orders import in_use
from coflex.service.ports import Note
from coflex.service.rules import groups_of
from coflex.service.standing import at_gate
from coflex.service.state import State
from coflex.service.withheld import backups_of

Written = tuple[type[Record], str, Record | None]


def settling(state: State, unit: str) -> str:
    """The session whose gate settled that a unit may be bought, and whose result is not there yet; empty for none."""
    for entry in in_state(state, SessionState.CLOSED):
        if not entry.outcome and any(one.id == unit for one in at_gate(state, entry).units):
            return entry.id
    return ""


def take_out(state: State, unit: str) -> tuple[list[Written], list[Note], Callable[[], None]]:
    """Take the offers of a unit, and of groups with it, out of every open book: what is written, who is told, and what
    puts them back."""
    groups = {one.id for one in groups_of(state, unit)}
    writes: list[Written] = []
    notes: list[Note] = []
    undo: list[Callable[[], None]] = []
    for entry in in_state(state, SessionState.OPEN):
        gone = [one for one in books(state).offers(entry.id) if one.unit == unit or one.group in groups]
        if gone:
            undo.append(books(state).take_out(entry.id, gone))
            receipts = (*entry.withdrawn, *(one.receipt for one in gone))
            writes.append((SessionEntry, entry.id, replace(entry, withdrawn=receipts)))
            notes += _told(entry, unit, gone)

    def put_back() -> None:
        for one in undo:
            one()

    return writes, notes, put_back


def _told(entry: SessionEntry, unit: str, gone: list[Offer]) -> list[Note]:
    """A note to each provider about its own offers."""
    why = f"The unit {unit} went to another provider; offer what is left anew."
    providers = sorted({one.provider for one in gone})
    mine = {name: {one.id: why for one in gone if one.provider == name} for name in providers}
    return [Note("offers.withdrawn", entry.id, (name,), encode(of)) for name, of in mine.items()]


def release(state: State, unit: str, now: datetime) -> tuple[list[Written], list[Note]]:
    """Release what the provider of a unit reserved of it. Raises Conflict while an order uses it."""
    writes: list[Written] = []
    notes: list[Note] = []
    for one in backups_of(state, unit):
        if one.released is None and one.ends > now:
            if in_use(state, one, now):
                raise Conflict(f"An order uses the unit '{unit}' as a backup.", "Take it over once that order ends.")
            writes.append((Backup, one.id, replace(one, released=now)))
            notes.append(Note("backup.released", one.id, (one.provider, one.owner), encode({"unit": unit})))
    return writes, notes
