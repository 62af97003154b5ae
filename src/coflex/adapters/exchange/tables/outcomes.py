"""The outcome of a day as a folder: CSV tables, JSON documents and one page; and offers that people write as a table.

    report.html   report.json   kpis.json   units.csv   offers.csv   awards.csv   merit_order.csv   ...

Everything is written aside first and moved into place file by file, so that no file is ever seen half-written.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from coflex.adapters.exchange.tables.records import read_records, write_records
from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction
from coflex.domain.time import QUARTER
from coflex.process.ports import Table

PAGE = "report.html"
# What all lines of an offer say alike.
_COMMON = (
    "provider",
    "product",
    "direction",
    "unit",
    "group",
    "min_quantity_kw",
    "block",
    "max_periods",
    "energy_limit_kwh",
    "exclusive",
    "local_only",
    "received_at",
)


@dataclass(frozen=True)
class OutcomeFolder:
    """Publishes into a folder. `render` draws the page from the report. Implements `coflex.process.ports.Publisher`."""

    folder: Path
    render: Callable[[dict[str, Any]], str]

    def publish(
        self,
        tables: Mapping[str, Table[Any]],
        documents: Mapping[str, dict[str, Any]],
        report: dict[str, Any],
        files: Mapping[str, bytes],
    ) -> Path:
        """Write `<name>.csv`, `<name>.json`, `report.json`, the page, and `files` by their names; returns the page.

        The same contents give the same bytes. When anything cannot be written, no file of the folder is touched.
        Raises CoflexError on a value that no table or JSON can hold.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".outcome-") as room:
            fresh = Path(room)
            for name, table in tables.items():
                write_records(fresh / f"{name}.csv", table.kind, table.rows)
            for name, body in (*documents.items(), ("report", report)):
                (fresh / f"{name}.json").write_text(_canonical(name, body), encoding="utf-8", newline="\n")
            for name, content in files.items():
                (fresh / name).write_bytes(content)
            (fresh / PAGE).write_text(self.render(report), encoding="utf-8", newline="\n")
            for file in sorted(fresh.iterdir()):
                os.replace(file, self.folder / file.name)
        return self.folder / PAGE


def _canonical(name: str, body: dict[str, Any]) -> str:
    try:
        return json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as fault:
        raise CoflexError(
            f"The document '{name}' is no JSON: {fault}.", "Give numbers, texts, lists, objects."
        ) from None


# ---------------------------------------------------------------- offers from outside


@dataclass(frozen=True, slots=True)
class OfferLine:
    """A time span [start, end) of one step of an offer, of constant quantity: what people fill in."""

    offer: str
    provider: str
    product: str
    direction: Direction
    unit: str | None
    group: str | None
    step: int
    start: datetime
    end: datetime
    quantity_kw: int
    price_eur_mwh: Decimal
    min_quantity_kw: int
    block: bool
    max_periods: int | None
    energy_limit_kwh: int | None
    exclusive: str | None
    local_only: bool
    received_at: datetime


def read_offers(path: Path, session: str) -> tuple[Offer, ...]:
    """The offers to a session in a CSV table with the columns of `OfferLine`, ranked by when they were received.

    A line is a span [start, end) of whole quarter-hours in which a step offers a constant quantity; lines of one
    offer agree on everything but step, span, quantity and price. Receipt numbers run from 1 in that rank, ties in
    the order of the file. Raises Refused with every fault of the file, each with its line. Whether the offers fit
    the register, the product and the session is for the intake to say.
    """
    lines, findings = read_records(path, OfferLine)
    placed = list(zip(_places(path, findings), lines, strict=True)) if lines else []
    faults = [*findings, *(fault for place, line in placed for fault in _line_faults(place, line))]
    by_offer: dict[str, list[tuple[str, OfferLine]]] = {}
    for place, line in placed:
        by_offer.setdefault(line.offer, []).append((place, line))
    for mine in by_offer.values():
        faults += [*_disagreements(mine), *_overlaps(mine)]
    refuse(f"The offers in {path.name}", faults)
    ranked = sorted(by_offer.values(), key=lambda mine: mine[0][1].received_at)
    return tuple(_offer(session, i, [line for _, line in mine]) for i, mine in enumerate(ranked, start=1))


def _places(path: Path, findings: Sequence[Finding]) -> list[str]:
    """Where each line that could be read stands: all lines but the header and those with a fault."""
    faulty = {finding.place.split(", column")[0] for finding in findings}
    reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
    places = []
    next(reader)
    try:
        for cells in reader:
            place = f"{path.name}, line {reader.line_num}"
            if cells and place not in faulty:
                places.append(place)
    except csv.Error:
        return places
    return places


def _line_faults(place: str, line: OfferLine) -> Iterator[Finding]:
    if line.end <= line.start:
        yield Finding(f"{place}, column end", "ends_before_start", "The end is not after the start; exchange them.")
    for name, instant in (("start", line.start), ("end", line.end)):
        if (instant - instant.replace(minute=0, second=0, microsecond=0)) % QUARTER != timedelta(0):
            message = f"{instant.isoformat()} is no quarter-hour; write minutes 00, 15, 30 or 45."
            yield Finding(f"{place}, column {name}", "off_quarter_hour", message)
    for name in ("quantity_kw", "min_quantity_kw", "max_periods", "energy_limit_kwh"):
        if (getattr(line, name) or 0) < 0:
            message = "The number is negative; the direction has a column of its own, so give its size."
            yield Finding(f"{place}, column {name}", "negative", message)
    if line.step < 1:
        yield Finding(f"{place}, column step", "step_number", "Steps are numbered 1, 2, ...; number this one so.")
    if (line.unit is None) == (line.group is None):
        message = "An offer is of a unit or of a group; fill exactly one of the two columns."
        yield Finding(f"{place}, column unit", "unit_or_group", message)


def _disagreements(mine: Sequence[tuple[str, OfferLine]]) -> Iterator[Finding]:
    """Lines that say of their offer something else than its first line."""
    first_place, first = mine[0]
    for place, line in mine[1:]:
        for name in _COMMON:
            if getattr(line, name) != getattr(first, name):
                where = first_place.rpartition(", ")[2]
                message = f"Offer {line.offer} has another {name} here than in {where}; make them alike."
                yield Finding(f"{place}, column {name}", "lines_disagree", message)


def _overlaps(mine: Sequence[tuple[str, OfferLine]]) -> Iterator[Finding]:
    """Spans of one step that share a quarter-hour with one that starts before."""
    reaching: dict[int, tuple[str, OfferLine]] = {}
    for place, line in sorted(mine, key=lambda entry: entry[1].start):
        before = reaching.get(line.step)
        if before and line.start < before[1].end:
            where = before[0].rpartition(", ")[2]
            message = f"Step {line.step} of offer {line.offer} overlaps its span in {where}; separate the two."
            yield Finding(f"{place}, column start", "spans_overlap", message)
        if before is None or line.end > before[1].end:
            reaching[line.step] = place, line


def _offer(session: str, receipt: int, lines: Sequence[OfferLine]) -> Offer:
    first = lines[0]
    return Offer(
        id=first.offer,
        receipt=receipt,
        session=session,
        steps=_steps(lines),
        **{name: getattr(first, name) for name in _COMMON},
    )


def _steps(lines: Sequence[OfferLine]) -> tuple[OfferStep, ...]:
    """Spans of one step and price that follow on each other are one step."""
    steps: list[OfferStep] = []
    for line in sorted(lines, key=lambda line: (line.step, line.start)):
        quantity = (line.quantity_kw,) * ((line.end - line.start) // QUARTER)
        if steps:
            last = steps[-1]
            end = last.start + len(last.quantity_kw) * QUARTER
            if (last.number, last.price_eur_mwh, end) == (line.step, line.price_eur_mwh, line.start):
                steps[-1] = OfferStep(last.number, last.start, last.price_eur_mwh, last.quantity_kw + quantity)
                continue
        steps.append(OfferStep(line.step, line.start, line.price_eur_mwh, quantity))
    return tuple(steps)
