"""What the verbs of orders share: the instants and powers of their forms, and the order that a command names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from coflex.domain.errors import Conflict, Finding, Refused
from coflex.register.activations import ActivationOrder
from coflex.service.machine import Context
from coflex.service.reading import record, require
from coflex.service.state import State
from coflex.service.verbs.resource_forms import TEXT_LENGTH

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
# Set points say powers in W, with 32 bits.
Kw = Annotated[int, msgspec.Meta(ge=0, le=2_147_483)]


def mine(state: State, context: Context, field: str) -> ActivationOrder:
    """The order that a command names, where the caller may write a field of it. Raises NotFound, Forbidden, Conflict
    where it is over."""
    order = record(state, context, ActivationOrder, context.subject)
    require(state, context, order, (field,))
    if not order.live(context.now):
        raise Conflict(f"The order '{order.id}' is over.", "Order anew where something is left of what was bought.")
    return order


def text_faults(place: str, text: str) -> Iterator[Finding]:
    if len(text) > TEXT_LENGTH or not text.isprintable():
        yield Finding(place, "text", f"It has at most {TEXT_LENGTH} characters on one line; correct it.")


def utc(at: datetime, place: str) -> datetime:
    """An instant in UTC. Raises Refused where the calendar ends before it gets there."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        fault = Finding(place, "out_of_calendar", "The instant lies outside the calendar in UTC; correct it.")
        raise Refused("The request", [fault]) from None
