"""The page of a market day: one HTML file that loads nothing from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coflex.adapters.web.pages import charts
from coflex.reporting.drawing import plain

_PACKAGE = "coflex.adapters.web.pages"
_MOST_NEEDS = 25
_STATES = {
    "forecast": ("Forecast", "the day as foreseen, nothing bought"),
    "planned": ("Planned", "the forecast with everything bought"),
    "untouched": ("Untouched", "the day as it came, had nobody acted"),
    "actual": ("Actual", "the day as it came, with what was activated"),
}
_GROUPS = {
    "KPI-01": "Messages, demand response and participation",
    "KPI-02": "Prequalification, local limits and coordination",
    "KPI-03": "Violations, losses, cost and liquidity",
}
_NAMES = {"pv": "PV", "chp": "CHP", "ev_charging": "EV charging", "dso": "DSO", "tso": "TSO"}


def render(report: dict[str, Any]) -> str:
    """The whole page of a day's report.

    `report`: the outcome document of the day. Series in it are one value a quarter-hour of `report["axis"]`,
    which has 92, 96 or 100 labels. Energy in MWh, power in kW or MW as named, money in EUR as decimal strings.
    Guarantees: the same report in any order of its keys gives the same bytes; no address outside the page is
    loaded; every name is escaped. Raises jinja2.UndefinedError or KeyError where the report lacks a field.
    """
    axis = charts.DayAxis(tuple(report["axis"]))
    drawn = {
        "maps": _maps(report, axis),
        "sessions": _sessions(report, axis),
        "merit_orders": _merit_orders(report),
        "lights": {d: charts.light_matrix(axis, report["lights"], d) for d in report["lights"]["directions"]},
        "interface": _interface(report["interface"], axis),
        "forecast": _forecast(report["forecast"], axis),
        "ordered": _ordered(report["activation"], axis),
        "money": charts.money_bars(_by_balance(report["money"]["statements"])),
    }
    template = _environment().get_template("day.html.j2")
    page: str = template.render(
        r=report,
        drawn=drawn,
        sums=_sums(report),
        needs=_largest(report["needs"]),
        statements=_by_balance(report["money"]["statements"]),
        groups=_groups(report["kpis"]),
        states={name: _STATES[name] for name in _known_states(report)},
        kinds=charts.VIOLATIONS,
        clock=axis.clock,
        gate=_gate(axis, report["case"]["day"]),
        style=_asset("day.css"),
        script=_asset("day.js"),
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
    environment.filters.update(money=money, number=number, words=words, measure=measure)
    return environment


def _asset(name: str) -> Markup:
    return Markup(files(_PACKAGE).joinpath(name).read_text(encoding="utf-8"))


def money(amount: str | float) -> str:
    """An amount in EUR to the cent, narrow spaces between thousands: '-9120.5' becomes '\u22129\u202f120.50'."""
    return f"{Decimal(str(amount)):,.2f}".replace(",", "\u202f").replace("-", "\u2212")


def number(value: float | None, digits: int = 3) -> str:
    """A number people read: at most `digits` decimals, none beyond 10 000; a dash where there is none."""
    if value is None:
        return "\u2013"
    if value and abs(value) < 10.0**-digits:
        return f"{value:.1e}".replace("-", "\u2212")
    return plain(value, 0 if abs(value) >= 10_000 else digits)


def words(name: str) -> str:
    """A field's value as words: `red_light` becomes 'red light'; abbreviations keep their capitals."""
    return _NAMES.get(name, name.replace("_", " "))


def measure(value: float, kind: str) -> str:
    """A voltage in pu or a loading in percent, by the kind of violation."""
    return f"{value:.1%}".replace("%", "\u202f%") if kind == "loading" else f"{value:.4f} pu"


def _gate(axis: charts.DayAxis, day: str) -> Callable[[str], str]:
    """How a moment is written relative to the delivery day, as designs do: 'D-1 08:00'."""

    def gate(label: str) -> str:
        days = (date.fromisoformat(label[:10]) - date.fromisoformat(day)).days
        return f"D{days:+d} {axis.clock(label)}" if days else f"D {axis.clock(label)}"

    return gate


def _known_states(report: Mapping[str, Any]) -> list[str]:
    return [name for name in _STATES if name in report["grid"]["states"]]


def _maps(report: Mapping[str, Any], axis: charts.DayAxis) -> list[dict[str, Any]]:
    grid = report["grid"]
    places = charts.positions(grid["nodes"])
    quarters = [s["per_quarter"] for s in grid["states"].values()]
    stacks = (sum(at) for q in quarters for at in zip(*(q[kind] for kind, _ in charts.VIOLATIONS), strict=True))
    highest = max(stacks, default=0)
    return [
        {
            "id": name,
            "map": charts.grid_map(grid, name, places),
            "bars": charts.stacked_bars(
                axis,
                [(kind, grid["states"][name]["per_quarter"][kind]) for kind, _ in charts.VIOLATIONS],
                f"Violated elements per quarter-hour, state {name}",
                "elements",
                max(highest, 1),
            ),
        }
        for name in _known_states(report)
    ]


def _sessions(report: Mapping[str, Any], axis: charts.DayAxis) -> dict[str, Markup]:
    sessions = sorted(report["sessions"], key=lambda s: s["number"])
    return {
        "timeline": charts.timeline(axis, sessions, report["case"]["day"]),
        "energy": charts.session_bars(sessions),
    }


def _merit_orders(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    scope = {s["id"]: s["scope"] for s in report["sessions"]}
    return [
        {
            "order": order,
            "chart": charts.staircase(order, scope[order["session"]]),
            "offered_kw": sum(line["offered_kw"] for line in order["lines"]),
            "accepted_kw": sum(line["accepted_kw"] for line in order["lines"]),
        }
        for order in report["merit_orders"]
    ]


def _interface(interface: Mapping[str, Any], axis: charts.DayAxis) -> dict[str, Markup]:
    power = [(f"state-{name}", interface["p_mw"][name]) for name in _STATES if name in interface["p_mw"]]
    moved = [
        (style, [kw / 1000 for kw in interface[field]])
        for style, field in (("asked-line", "asked_kw"), ("local", "local_kw"), ("global", "bought_kw"))
    ]
    return {
        "power": charts.step_lines(axis, power, "Power at the interface with the transmission grid", "MW"),
        "moved": charts.step_lines(axis, moved, "Asked by the TSO, moved by local activations, bought", "MW"),
    }


def _forecast(forecast: Mapping[str, Any], axis: charts.DayAxis) -> list[dict[str, Any]]:
    return [
        {
            "name": item["name"],
            "chart": charts.step_lines(
                axis,
                [("state-forecast", item["forecast_mw"]), ("state-actual", item["actual_mw"])],
                f"Forecast and actual power of {item['name']}",
                "MW",
            ),
        }
        for item in forecast["series"]
    ]


def _ordered(activation: Mapping[str, Any], axis: charts.DayAxis) -> Markup:
    layers = [
        (style, [sign * kw / 1000 for kw in activation["ordered_kw"][buyer][direction]])
        for buyer, style in (("dso", "local"), ("tso", "global"))
        if buyer in activation["ordered_kw"]
        for direction, sign in (("up", 1), ("down", -1))
    ]
    return charts.stacked_bars(axis, layers, "Ordered power by buyer, up above and down below zero", "MW")


def _sums(report: Mapping[str, Any]) -> dict[str, Any]:
    sessions = report["sessions"]
    bought = {
        scope: {d: sum(s["definitive_mwh"][d] for s in sessions if s["scope"] == scope) for d in ("up", "down")}
        for scope in ("local", "global")
    }
    return {
        "violations": {name: sum(report["grid"]["states"][name]["total"].values()) for name in _known_states(report)},
        "bought": bought,
        "offers": sum(s["offers"] for s in sessions),
        "awards": sum(s["awards"] for s in sessions),
    }


def _largest(needs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(needs, key=lambda n: (-n["volume_kw"], n["t"], n["element"], n["direction"]))[:_MOST_NEEDS]


def _by_balance(statements: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(statements, key=lambda s: (Decimal(s["balance"]), s["party"]))


def _groups(kpis: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = sorted({kpi["group"] for kpi in kpis})
    return [
        {"id": group, "title": _GROUPS.get(group, group), "kpis": [k for k in kpis if k["group"] == group]}
        for group in found
    ]
