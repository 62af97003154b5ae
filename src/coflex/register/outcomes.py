"""What is kept of a computed step of a session: the rows it was given, added and took away, packed, to the bit.

A clearing writes thousands of rows of a few kinds. They are kept as one record a step: each kind as canonical JSON,
deflated (repeated names cost nothing) and written in base64, so that the journal carries them as text. Every zlib
inflates them to the same rows; which bytes they deflate to, only one build of zlib says alike. So a step that is
computed anew to the byte is computed with the build that packed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
import numpy as np

from coflex.domain.clearing import Award, Holding, MeritLine, Uncovered
from coflex.domain.light import DynamicLight
from coflex.domain.need import LocalNeed, Request
from coflex.domain.offer import Offer
from coflex.domain.party import Party
from coflex.domain.product import Product
from coflex.domain.qualification import ProductLimit
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.register.consents import Window
from coflex.register.packing import canonical, deflated, inflated

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Span:
    """The time [starts, ends)."""

    starts: datetime
    ends: datetime


@dataclass(frozen=True, slots=True)
class UnitLimit:
    """What a unit may be offered with: its grid prequalification in kW per direction, when its owner's consent holds,
    and the owner's own limits."""

    unit: str
    up_kw: int
    down_kw: int
    allowed: tuple[Span, ...]
    owner: tuple[Window, ...] = ()


# Kinds of rows by the name under which they are kept.
TABLES: Mapping[str, type[Any]] = {
    "award": Award,
    "connection_point": ConnectionPoint,
    "group": Group,
    "holding": Holding,
    "light": DynamicLight,
    "limit": UnitLimit,
    "merit_line": MeritLine,
    "need": LocalNeed,
    "offer": Offer,
    "party": Party,
    "product": Product,
    "product_limit": ProductLimit,
    "request": Request,
    "uncovered": Uncovered,
    "unit": Unit,
}
TABLE_OF: Mapping[type[Any], str] = {kind: name for name, kind in TABLES.items()}


class Step(StrEnum):
    """What is kept of a session: what it fixed at its gate (settled in the command that opened or closed it), and what
    is computed: its plan once it is open, its result once it is closed. After that, what was called from its list in
    the place of something that a limit or a failure took away."""

    GATE = "gate"
    PLAN = "plan"
    RESULT = "result"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one kind, `count` of them. `packed`: JSON list, deflated, in base64."""

    table: str
    count: int
    packed: str


@dataclass(frozen=True, slots=True)
class KeptSeries:
    """Named series. `packed`: float64, little-endian, one series after the other, deflated, in base64."""

    name: str
    names: tuple[str, ...]
    start: datetime
    count: int
    step_s: int
    packed: str


@dataclass(frozen=True, slots=True)
class KeptDocument:
    """A named document as JSON text, keys sorted."""

    name: str
    body: str


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """A computed step of a session; `id` is the session's with the step behind it, "2016-07-05.local-1.result".

    `given`: what it was computed from and is not kept elsewhere: the register and its limits for a plan that looks
    ahead, all offers for a result; of a gate that closed the units and groups behind its offers, their limits, and
    those of the qualifications under which they offer.
    `added`, `removed`: what it wrote, and what it took away of earlier steps of the day
    (preliminary awards and holdings of the same buyer). `left_out`: given offers that were not computed with, each with
    the reasons. `buyer`: the party for which it decides. `at`: the tenant's time of the step's gate.
    """

    id: str
    day: date
    session: str
    step: Step
    at: datetime
    buyer: str
    given: tuple[Rows, ...] = ()
    added: tuple[Rows, ...] = ()
    removed: tuple[Rows, ...] = ()
    documents: tuple[KeptDocument, ...] = ()
    series: tuple[KeptSeries, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def outcome_id(session: str, step: Step) -> str:
    """Id of the record that keeps a step of a session, from the id of its entry."""
    return f"{session}.{step.value}"


def call_id(session: str, number: int) -> str:
    """Id of the record that keeps what an entry called from a session's list, by the number of the entry."""
    return f"{session}.{Step.CALL.value}-{number:08d}"


def pack(records: Iterable[object]) -> tuple[Rows, ...]:
    """Rows of records, by kind, in the order given. Raises KeyError on a kind that has no table."""
    kinds: dict[str, list[object]] = {}
    for record in records:
        kinds.setdefault(TABLE_OF[type(record)], []).append(record)
    return tuple(Rows(name, len(kinds[name]), deflated(canonical(kinds[name]))) for name in sorted(kinds))


def unpack(rows: Iterable[Rows], kind: type[R]) -> tuple[R, ...]:
    """The records of one kind, in the order in which they were packed."""
    name = TABLE_OF[kind]
    packed = [one.packed for one in rows if one.table == name]
    return tuple(record for one in packed for record in msgspec.json.decode(inflated(one), type=list[kind]))  # type: ignore[valid-type]


def computed_with(result: SessionOutcome) -> tuple[Offer, ...]:
    """The offers of a result that were not left out."""
    out = {name for name, _ in result.left_out}
    return tuple(offer for offer in unpack(result.given, Offer) if offer.id not in out)


def keep_series(name: str, series: Series) -> KeptSeries:
    """Series as they are kept. Their periods are whole seconds."""
    axis = series.axis
    contents = np.ascontiguousarray(series.values, dtype="<f8").tobytes()
    return KeptSeries(name, series.names, axis.start, axis.count, axis.step // timedelta(seconds=1), deflated(contents))


def kept_series(kept: KeptSeries) -> Series:
    """Series as they were, to the bit."""
    values = np.frombuffer(inflated(kept.packed), dtype="<f8").astype(np.float64)
    axis = Axis(kept.start, kept.count, timedelta(seconds=kept.step_s))
    return Series(kept.names, axis, values.reshape(len(kept.names), kept.count))


def keep_document(name: str, body: Mapping[str, Any]) -> KeptDocument:
    return KeptDocument(name, canonical(body).decode())


def kept_document(kept: KeptDocument) -> dict[str, Any]:
    return dict(msgspec.json.decode(kept.body.encode()))
