"""The page that compares market designs: one HTML text that loads nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coflex.domain.time import local_label
from coflex.market.coordination.outcome import Actor, Held, Message, Run
from coflex.market.design import Design
from coflex.reporting.coordination import charts
from coflex.reporting.coordination.charts import Layer
from coflex.reporting.coordination.definitions import DEFINITIONS, TITLES, Better, Definition
from coflex.reporting.coordination.kpis import Kpis
from coflex.reporting.coordination.table import COLUMNS, RULE, Column, ranked
from coflex.reporting.drawing import plain

_PACKAGE = "coflex.reporting.coordination"
_FOLDED = 24
ACTORS = {
    Actor.TSO: "TSO",
    Actor.DSO: "DSO",
    Actor.MARKET_OPERATOR: "market operator",
    Actor.SERVICE_PROVIDER: "service provider",
    Actor.BALANCE_RESPONSIBLE_PARTY: "balance responsible party",
}
COST = (
    ("dso", "DSO", "cost_dso_eur"),
    ("tso", "TSO", "cost_tso_eur"),
    ("brp", "balance responsible parties", "cost_brp_eur"),
    ("mending", "mending", "cost_mending_eur"),
)
LEFT = (
    ("dso", "distribution", "violations_left_distribution_count"),
    ("tso", "transmission", "violations_left_transmission_count"),
)
# What is drawn over a lever: title, unit, and the indicators whose sum it is.
OVER_LEVER = (
    ("Total cost of the system", "EUR", ("cost_total_eur",)),
    (
        "Violations left",
        "elements and quarter-hours",
        ("violations_left_distribution_count", "violations_left_transmission_count"),
    ),
    ("Efficiency of the coordinated market", "%", ("efficiency_pct",)),
    ("Counter-activations", "MWh", ("counter_activated_mwh",)),
)


@dataclass(frozen=True, slots=True)
class Point:
    """A setting of a lever and the indicators of every design there."""

    value: float | str
    rows: tuple[Kpis, ...]


@dataclass(frozen=True, slots=True)
class Varied:
    """A lever of the case that was varied: its name with its unit, and its settings in the order in which they are
    drawn. Numbers stand where they belong on the axis, words at even distance."""

    lever: str
    points: tuple[Point, ...]


def comparison_page(
    title: str,
    rows: Sequence[Kpis],
    runs: Sequence[Run],
    zone: ZoneInfo,
    designs: Mapping[str, Design] | None = None,
    varied: Varied | None = None,
) -> str:
    """The page of all designs on all cases.

    `rows`: indicators, one of each design and case. `runs`: the runs behind them, for sessions and messages; a row
    without its run gets no such tables. `designs` by id, for titles and sources. `zone` in which gates are told.
    Guarantee: the same bytes for any order of rows, runs and designs; nothing outside the page is loaded; every name is
    escaped.
    """
    by_key = {(run.design, run.case): run for run in runs}
    known = designs or {}
    cases = [
        _case(place, name, ranked(list(members)), by_key, known, zone)
        for place, (name, members) in enumerate(groupby(sorted(rows, key=_case_of), key=_case_of), 1)
    ]
    page: str = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            cases=cases,
            columns=COLUMNS,
            rule=RULE,
            cost=COST,
            left=LEFT,
            varied=_varied(varied) if varied else None,
            groups=[(key, name, [one for one in DEFINITIONS if one.group == key]) for key, name in TITLES.items()],
            style=Markup(files(_PACKAGE).joinpath("page.css").read_text(encoding="utf-8")),
        )
    )
    return page


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(value=value, cell=_cell)
    return environment


def value(given: Decimal | float | int | None, digits: int = 2) -> str:
    """A number people read: money to the cent, others with at most `digits` decimals, none beyond 10 000; a dash for
    None."""
    if given is None:
        return "\u2013"
    if isinstance(given, Decimal):
        return f"{given:,.2f}".replace(",", "\u202f").replace("-", "\u2212")
    return plain(float(given), 0 if abs(given) >= 10_000 else digits)


def _cell(row: Kpis, column: Column) -> str:
    found = column.value(row)
    return "\u2013" if found is None else charts.fixed(float(found), column.digits)


def _case_of(row: Kpis) -> str:
    return row.case


# ---------------------------------------------------------------- one case


def _case(
    place: int,
    name: str,
    rows: Sequence[Kpis],
    runs: Mapping[tuple[str, str], Run],
    designs: Mapping[str, Design],
    zone: ZoneInfo,
) -> dict[str, Any]:
    names = [row.design for row in rows]
    return {
        "anchor": f"case{place}",
        "name": name,
        "rows": rows,
        "before": sorted(
            {(row.violations_before_distribution_count, row.violations_before_transmission_count) for row in rows}
        ),
        "charts": {
            "cost": charts.stacked_rows(names, _layers(rows, COST), f"Cost by who bears it, case {name}", "EUR"),
            "left": charts.grouped_rows(names, _layers(rows, LEFT), f"Violations left, case {name}", "violations"),
            "efficiency": charts.grouped_rows(
                names,
                _layers(rows, (("good", "efficiency", "efficiency_pct"),)),
                f"Efficiency against the fully coupled market, case {name}",
                "%",
                1,
            ),
        },
        "heads": ["Indicator", "Unit", *(f">{design}" for design in names)],
        "groups": [
            (group, title, [_indicator(one, rows) for one in DEFINITIONS if one.group == group])
            for group, title in TITLES.items()
        ],
        "sections": [
            _section(f"case{place}-design{i}", row, runs.get((row.design, row.case)), designs.get(row.design), zone)
            for i, row in enumerate(rows, 1)
        ],
    }


def _layers(rows: Sequence[Kpis], named: Sequence[tuple[str, str, str]]) -> list[Layer]:
    return [Layer(style, name, tuple(_number(row, key) for row in rows)) for style, name, key in named]


def _number(row: Kpis, key: str) -> float | None:
    found = getattr(row, key)
    return None if found is None else float(found)


def _indicator(one: Definition, rows: Sequence[Kpis]) -> dict[str, Any]:
    """An indicator over all designs; `best` marks the best of them, none where all are alike."""
    found = [getattr(row, one.id) for row in rows]
    known = {x for x in found if x is not None}
    best = None
    if len(known) > 1 and one.better is not Better.NEITHER:
        best = min(known) if one.better is Better.LOWER else max(known)
    return {"definition": one, "cells": [(x, best is not None and x == best) for x in found]}


# ---------------------------------------------------------------- one design


def _section(anchor: str, row: Kpis, run: Run | None, design: Design | None, zone: ZoneInfo) -> dict[str, Any]:
    held = [] if run is None else [_held(one, zone) for one in sorted(run.held, key=lambda x: (x.closes, x.session))]
    messages = () if run is None else run.messages
    return {
        "anchor": anchor,
        "row": row,
        "design": design,
        "run": run is not None,
        "held": held,
        "folded": len(held) > _FOLDED,
        "uncovered": sum(len(one["uncovered"]) for one in held),
        "matrix": _matrix(messages),
        "kinds": _kinds(messages),
    }


def _held(one: Held, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "one": one,
        "closes": local_label(one.closes, zone).replace("T", " "),
        "uncovered": [
            (local_label(gap.start, zone).replace("T", " "), gap)
            for gap in sorted(one.uncovered, key=lambda gap: (gap.start, gap.what))
        ],
    }


def _matrix(messages: Sequence[Message]) -> dict[str, Any]:
    """Messages by who sends and who receives, of the actors that do either."""
    count: dict[tuple[Actor, Actor], int] = {}
    for one in messages:
        count[one.sender, one.receiver] = count.get((one.sender, one.receiver), 0) + one.count
    there = [actor for actor in Actor if any(actor in pair for pair in count)]
    lines = [(ACTORS[sender], [count.get((sender, receiver), 0) for receiver in there]) for sender in there]
    return {
        "heads": ["Sender", *(f">to {ACTORS[actor]}" for actor in there)],
        "lines": lines,
        "total": sum(count.values()),
    }


def _kinds(messages: Sequence[Message]) -> list[tuple[str, str, str, int]]:
    """Messages of all sessions together by sender, receiver and information."""
    count: dict[tuple[Actor, Actor, str], int] = {}
    for one in messages:
        key = (one.sender, one.receiver, one.information)
        count[key] = count.get(key, 0) + one.count
    order = list(Actor)
    keys = sorted(count, key=lambda key: (order.index(key[0]), order.index(key[1]), key[2]))
    return [(ACTORS[key[0]], ACTORS[key[1]], key[2], count[key]) for key in keys]


# ---------------------------------------------------------------- a lever


def _varied(varied: Varied) -> dict[str, Any]:
    names = sorted({row.design for point in varied.points for row in point.rows})
    ticks = [point.value if isinstance(point.value, str) else plain(point.value, 4) for point in varied.points]
    numbers = [float(p.value) for p in varied.points if not isinstance(p.value, str)]
    at = numbers if len(numbers) == len(ticks) else [float(i) for i in range(len(ticks))]
    drawn = []
    for title, unit, keys in OVER_LEVER:
        layers = [
            Layer(f"series{place % 8}", name, tuple(_at(point, name, keys) for point in varied.points))
            for place, name in enumerate(names)
        ]
        drawn.append(
            (title, unit, layers, charts.lines(at, ticks, layers, f"{title} over {varied.lever}", unit, varied.lever))
        )
    legend = [(f"series{place % 8} dash{place // 8}", name) for place, name in enumerate(names)]
    return {"lever": varied.lever, "heads": ["Design", *(f">{x}" for x in ticks)], "charts": drawn, "legend": legend}


def _at(point: Point, design: str, keys: Sequence[str]) -> float | None:
    """The sum of indicators of a design at a setting, the mean over cases where there are several."""
    found = [[_number(row, key) for key in keys] for row in point.rows if row.design == design]
    known = sorted(sum(x for x in values if x is not None) for values in found if None not in values)
    return sum(known) / len(known) if known else None
