"""Findings and the error tree.

A *finding* is a fault of given data: a value, collected with all others, each with its place.
An *error* is a broken promise: an exception from the tree below, with a stable code.

    CoflexError              COFLEX
    ├── Refused              REFUSED        given data has faults; carries every finding
    ├── NotReady             NOT_READY      a step was asked for before the one it needs
    ├── OutsideAxis          OUTSIDE_AXIS   an instant that a time axis does not hold
    ├── GridFailure          GRID           a power flow that has no solution
    ├── SolverFailure        SOLVER         a program that the solver could not bring to an end
    ├── SoldTwice            SOLD_TWICE     a unit already held for a quarter-hour
    ├── Unbalanced           UNBALANCED     postings that do not add to zero
    ├── NotFound             NOT_FOUND      no such thing here, or none that the asking party may know of
    ├── Forbidden            FORBIDDEN      the party lacks the role, or the client the scope
    ├── Conflict             CONFLICT       the state of a thing does not allow the step
    ├── Outdated             OUTDATED       the thing was changed since the caller read it
    ├── KeyReused            KEY_REUSED     an idempotency key that belongs to another request
    └── GateClosed           GATE_CLOSED    an offer outside the time in which its session takes offers
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One fault of given data.

    place: where it stands, as a person would look it up ("offers.csv, line 7", "buses.csv: bus B12").
    code: stable, for machines ("unknown_unit"). message: one sentence with the next step.
    """

    place: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message} [{self.code}]"


class CoflexError(Exception):
    """Root of the tree. `remedy` is the next step in one sentence."""

    code = "COFLEX"

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class Refused(CoflexError):
    """Given data has faults; nothing of it was taken."""

    code = "REFUSED"

    def __init__(self, what: str, findings: Iterable[Finding]) -> None:
        self.findings = tuple(sorted(set(findings)))
        count = len(self.findings)
        super().__init__(
            f"{what}: {count} fault{'s' if count != 1 else ''}; nothing was taken.",
            "Correct the places listed and try again.",
        )


class NotReady(CoflexError):
    """A step was asked for before the one it needs."""

    code = "NOT_READY"


class OutsideAxis(CoflexError):
    """An instant that a time axis does not hold."""

    code = "OUTSIDE_AXIS"


class GridFailure(CoflexError):
    """A power flow that has no solution, or a grid that cannot be solved."""

    code = "GRID"


class SolverFailure(CoflexError):
    """A program that the solver could not bring to an end."""

    code = "SOLVER"


class SoldTwice(CoflexError):
    """A unit already held for a quarter-hour."""

    code = "SOLD_TWICE"


class Unbalanced(CoflexError):
    """Postings that do not add to zero."""

    code = "UNBALANCED"


class NotFound(CoflexError):
    """No such thing here, or none that the asking party may know of: the two are told alike."""

    code = "NOT_FOUND"


class Forbidden(CoflexError):
    """The party lacks the role, or the client the scope."""

    code = "FORBIDDEN"


class Conflict(CoflexError):
    """The state of a thing does not allow the step."""

    code = "CONFLICT"


class Outdated(CoflexError):
    """The thing was changed since the caller read it."""

    code = "OUTDATED"


class KeyReused(CoflexError):
    """An idempotency key that belongs to another request."""

    code = "KEY_REUSED"


class GateClosed(CoflexError):
    """An offer outside the time in which its session takes offers; the message names the gate."""

    code = "GATE_CLOSED"


def refuse(what: str, findings: Iterable[Finding]) -> None:
    """Raise Refused when there is any finding; say nothing otherwise."""
    collected = tuple(findings)
    if collected:
        raise Refused(what, collected)
