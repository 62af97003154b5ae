"""What a study found, for people and for other programs: a table, a page, one JSON text, and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from coflex.domain.errors import Finding
from coflex.market.coordination.outcome import Final, Held, Message, Run
from coflex.market.design import Design
from coflex.reporting.coordination.kpis import Kpis
from coflex.reporting.coordination.page import Point, Varied, comparison_page
from coflex.reporting.coordination.table import cases_table, comparison_table
from coflex.simulation.plain import kept
from coflex.simulation.study import Compared, Document, Place, Result

FORMAT = 1
# Levers as the page names them.
_LEVERS = {
    "liquidity": "Liquidity (share of the sellers that offer)",
    "congestion": "Congestion (share of the case's own)",
    "forecast_error": "Forecast error (share of the case's own)",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A run that came to nothing: `refused` where the design asks for what the case has not, else `failed`."""

    status: str
    design: str
    case: str
    code: str
    message: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer of `compare`: where the page and the numbers are, how much was done and how much had been done before
    (`jobs`, `reused`), files that were broken, runs that came to nothing, and the table for a terminal."""

    page: Path
    results: Path
    table: str
    jobs: int
    reused: int
    runs: int
    broken: tuple[str, ...]
    troubles: tuple[Trouble, ...]

    @classmethod
    def of(cls, found: Compared, page: Path, results: Path) -> Comparison:
        done = len(found.of("done"))
        troubles = tuple(_trouble(found, row) for row in found.rows if row["status"] != "done")
        return cls(page, results, table(found), found.jobs, found.reused, done, found.broken, troubles)


def table(found: Compared) -> str:
    """Designs side by side at each setting of the lever; over several cases their means and deviations."""
    rows = [(place, kpis) for place, kpis, _ in _done(found)]
    seeds = {place.seed for place, _ in rows}
    if len(seeds) < 2:
        return comparison_table([kpis for _, kpis in rows])
    parts = []
    for levers in dict.fromkeys(place.levers for place, _ in rows):
        here = [kpis for place, kpis in rows if place.levers == levers]
        parts.append(_setting(found, levers) + cases_table(here))
    return "\n".join(parts)


def page(found: Compared, documents: Iterable[Document]) -> str:
    """The page: the same bytes for the same results."""
    rows = _done(found)
    runs = [_run(kpis, row) for _, kpis, row in rows]
    zone = ZoneInfo(rows[0][2]["zone"]) if rows else ZoneInfo("UTC")
    designs = {one.id: Design.model_validate_json(one.text) for one in documents}
    varied = None
    if found.vary is not None:
        values = dict.fromkeys(dict(place.levers)[found.vary] for place, _, _ in rows)
        points = [
            Point(value, tuple(kpis for place, kpis, _ in rows if dict(place.levers)[found.vary] == value))
            for value in sorted(values)
        ]
        varied = Varied(_LEVERS.get(found.vary, found.vary), tuple(points))
    case = found.rows[0]["case"]["name"] if found.rows else ""
    return comparison_page(f"Market designs compared on {case}", [k for _, k, _ in rows], runs, zone, designs, varied)


def as_text(found: Compared) -> str:
    """All indicators of all runs as one JSON text; where a run came to nothing, its error."""
    kept_of_row = ("design", "title", "case", "status", "kpis", "seconds", "error")
    rows = [{name: row[name] for name in kept_of_row if name in row} for row in found.rows]
    for row in rows:
        row["case"] = row["case"] | {"label": found.label(place_of(row))}
        if "error" in row:
            row["error"] = {name: value for name, value in row["error"].items() if name != "trace"}
    body = {"format": FORMAT, "coflex": found.edition, "vary": found.vary, "rows": rows}
    return json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def place_of(row: Result) -> Place:
    at = row["case"]
    return Place(at["name"], at["seed"], tuple(sorted(at["levers"].items())))


def _done(found: Compared) -> list[tuple[Place, Kpis, Result]]:
    """Every run that was brought to its end, its indicators under the name that the study gives to its place."""
    places = [(place_of(row), row) for row in found.of("done")]
    return [(at, replace(kept(Kpis, row["kpis"]), case=found.label(at)), row) for at, row in places]


def _run(kpis: Kpis, row: Result) -> Run:
    """What the page shows of a run: its sessions and messages. What was bought is summed in the results."""
    held = kept(tuple[Held, ...], row["sessions"])
    messages = kept(tuple[Message, ...], row["messages"])
    return Run(kpis.design, kpis.case, held, (), (), messages, kept(Final, row["final"]), kpis.ending, kpis.rounds)


def _setting(found: Compared, levers: Sequence[tuple[str, float]]) -> str:
    return f"{found.vary.replace('_', ' ')} {dict(levers)[found.vary]:g}. " if found.vary else ""


def _trouble(found: Compared, row: dict[str, Any]) -> Trouble:
    error = row["error"]
    findings = kept(tuple[Finding, ...], error["findings"])
    message = f"{error['message']} {error['remedy']}".strip()
    return Trouble(row["status"], row["design"], found.label(place_of(row)), error["code"], message, findings)
