"""The life of a session: the states it goes through, and which step is due now.

Everything here is a pure function of the plans, the states and an instant, so a market day replays to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from coflex.domain.errors import NotReady
from coflex.market.design import Session, SessionPlan, Validation

# ---------------------------------------------------------------- states


class SessionState(StrEnum):
    """States of a session in the order in which it goes through them."""

    ANNOUNCED = "announced"
    OPEN = "open"
    CLOSED = "closed"
    CLEARED = "cleared"
    VALIDATED = "validated"
    DEFINITIVE = "definitive"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Action:
    """The next step of a session: the state it goes to, and the instant from which that is due."""

    session: str
    to: SessionState
    at: datetime


def life(session: Session) -> tuple[SessionState, ...]:
    """The states a session goes through: all of them, without `validated` where its design validates nothing."""
    skipped = SessionState.VALIDATED if session.validation is Validation.NONE else None
    return tuple(state for state in SessionState if state is not skipped)


def advance(session: Session, state: SessionState, to: SessionState) -> SessionState:
    """The state after a step. Raises NotReady unless `to` is the one that follows `state` in the session's life."""
    follows = _next(session, state)
    if follows is not to or follows is None:
        then = f"it can only become {follows.value} next" if follows else "nothing follows"
        raise NotReady(f"Session {session.id} is {state.value}, not ready to be {to.value}; {then}.")
    return to


def upcoming(plans: Sequence[SessionPlan], states: Mapping[str, SessionState]) -> Action | None:
    """The step that comes first of all, due or not; None when every session is published.

    A session opens and closes at its gate; what follows is due at once. At one instant the design's order
    decides, so a session is published before a later one clears. A session without a state is announced.
    """
    steps = []
    for place, plan in enumerate(plans):
        to = _next(plan.session, states.get(plan.id, SessionState.ANNOUNCED))
        if to is not None:
            at = plan.opens if to is SessionState.OPEN else plan.closes
            steps.append((at, place, Action(plan.id, to, at)))
    return min(steps, key=lambda step: step[:2])[2] if steps else None


def due(plans: Sequence[SessionPlan], states: Mapping[str, SessionState], at: datetime) -> Action | None:
    """The step to take now: the first of all steps whose instant has come by `at`, or None.

    Repeated until None, it gives the same steps in the same order however late or seldom it is asked.
    """
    action = upcoming(plans, states)
    return action if action is not None and action.at <= at else None


def _next(session: Session, state: SessionState) -> SessionState | None:
    order = tuple(SessionState)
    return next((to for to in life(session) if order.index(to) > order.index(state)), None)
