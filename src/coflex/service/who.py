"""Who asks, once the door knows it: for reads, and to make commands from."""

from __future__ import annotations

from dataclasses import dataclass

from coflex.domain.party import Role
from coflex.register.access import ClientScope


@dataclass(frozen=True, slots=True)
class Who:
    """A known caller. `party`: for whom it asks; `by`: its own party, another one where an operator acts on behalf.
    `actor`: its client or user. `roles`: those of `party` that count now. `scopes`: what the client or user may.
    """

    tenant: str
    party: str
    by: str
    actor: str
    roles: frozenset[Role]
    scopes: frozenset[ClientScope]

    @property
    def on_behalf(self) -> bool:
        return self.party != self.by
