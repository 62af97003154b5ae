"""What an owner and a provider keep back of a unit: the owner's windows, and the times in which it is a backup.

A backup is to a session what an owner's window of nothing is: nobody buys the unit there, alone or in a group.
"""

from __future__ import annotations

from coflex.register.activations import Backup
from coflex.register.consents import Availability, Window
from coflex.service.index import index
from coflex.service.state import State


def backups_of(state: State, unit: str) -> tuple[Backup, ...]:
    """Backups of a unit, released ones too, by id."""
    return index(state, Backup, "unit", lambda one: (one.unit,)).at(unit)


def windows(state: State, unit: str) -> tuple[Window, ...]:
    """Times in which a unit may be offered with at most this, in kW per direction; they may overlap."""
    owner = state.find(Availability, unit)
    own = owner.windows if owner is not None else ()
    kept = (Window(one.starts, one.ends, 0, 0) for one in backups_of(state, unit) if one.released is None)
    return (*own, *kept)
