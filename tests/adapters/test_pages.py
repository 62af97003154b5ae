"""The page of a market day: self-contained, deterministic, readable in words where nothing happened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, date
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.adapters.web.pages import charts
from coflex.adapters.web.pages.day import money, number, render
from coflex.domain.time import delivery_day, local_label

ZONE = ZoneInfo("Europe/Berlin")
SECTIONS = {
    "grid": "The grid in 4 states",
    "sessions": "The 2 sessions",
    "needs": "Needs of the local grid",
    "merit": "Merit order lists",
    "lights": "Traffic lights",
    "interface": "Interface with the transmission grid",
    "activation": "Activation",
    "money": "Money",
    "kpis": "Key performance indicators",
}
EMPTY_WORDS = (
    "No session was held.",
    "No need was found",
    "No session accepted a block.",
    "No activation had to be limited.",
    "Nothing had to be replaced.",
    "No unit missed two orders or more.",
    "Every order was followed.",
    "No party paid or received anything.",
    "Every line delivered what was ordered.",
    "Every light was green all day.",
    "Every unit was confirmed with its whole power.",
    "No indicator was computed.",
    "No series was forecast.",
    "The grid has no perimeter that carries a light.",
    "No message was exchanged.",
)


def _state(n: int, violations: int) -> dict[str, Any]:
    return {
        "node_low": [0.99, 0.94],
        "node_high": [1.0, 1.01],
        "branch_loading": [0.61],
        "node_violations": [0, violations],
        "branch_violations": [0],
        "per_quarter": {
            "voltage_low": [violations, *[0] * (n - 1)],
            "voltage_high": [0] * n,
            "loading": [0] * n,
        },
        "total": {"voltage_low": violations, "voltage_high": 0, "loading": 0},
        "worst": [],
    }


def _session(axis: list[str], number: int, scope: str) -> dict[str, Any]:
    n = len(axis)
    pair = {"up": 1.25, "down": 0.5}
    return {
        "id": f"{scope}-1",
        "number": number,
        "scope": scope,
        "buyer": "dso" if scope == "local" else "tso",
        "opens": axis[0],
        "closes": axis[4],
        "horizon": [8, n],
        "firm": [8, 24],
        "violations_foreseen": 3,
        "needs": 3,
        "requested_kw": None,
        "netted_kw": None,
        "offers": 4,
        "offered_mwh": pair,
        "awards": 2,
        "definitive_mwh": pair,
        "preliminary_mwh": pair,
        "cost_eur": "12.34",
        "uncovered": [
            {"start": axis[9], "what": "voltage_low B", "amount": 0.0012, "unit": "pu", "binding": ["bus B", "cu-1"]}
        ],
        "passes": 1,
        "gap": 0.0,
        "awarded_kw": {"up": [0] * n, "down": [0] * n},
        "reasons": {"accepted": 2, "red_light": 1},
        "models": [_model("ac", True, "certified: within 0.09% of any answer"), _model("conic", False, "loops", None)]
        if scope == "local"
        else [],
    }


def _model(name: str, chosen: bool, remark: str, value: float | None = 0.5) -> dict[str, Any]:
    numbers = ("cost_eur", "bought_mwh", "uncovered", "violated", "worst_voltage_pu", "worst_loading_share")
    return {"model": name, "chosen": chosen, "remark": remark, **dict.fromkeys(numbers, value)}


def _line(rank: int, accepted: int, reason: str) -> dict[str, Any]:
    return {
        "rank": rank,
        "offer": f"of-{rank}",
        "provider": "sp-1",
        "location": "F01",
        "price": "51.70",
        "offered_kw": 100,
        "accepted_kw": accepted,
        "reason": reason,
        "detail": "",
    }


def _statement(party: str, received: str, paid: str, balance: str) -> dict[str, Any]:
    return {
        "party": party,
        "name": party.upper(),
        "role": "service_provider",
        "received": received,
        "paid": paid,
        "penalty": "0.00",
        "fee": "0.00",
        "balance": balance,
        "lines": 3,
        "ordered_mwh": 1.5,
        "delivered_mwh": 1.4,
    }


def full(day: date = date(2016, 7, 5), title: str = "A day") -> dict[str, Any]:
    """A small report in which every section has something to say."""
    axis = [local_label(at, ZONE) for at in delivery_day(day, ZONE)]
    n = len(axis)
    node = {"lon": 11.0, "lat": 53.0, "perimeter": "", "vn_kv": 20.0, "v_min": 0.95, "v_max": 1.05}
    kw = {"up": [400] * n, "down": [400] * n}
    report = empty(day, title)
    report["grid"]["nodes"] = [{**node, "name": "A"}, {**node, "name": "B", "lon": 11.1, "perimeter": "F01"}]
    report["grid"]["branches"] = [
        {"name": "AB", "from": 0, "to": 1, "kind": "line", "perimeter": "F01", "loading_max": 1.0, "closed": True}
    ]
    states = {"forecast": 7, "planned": 0, "untouched": 9, "actual": 2}
    report["grid"]["states"] = {name: _state(n, count) for name, count in states.items()}
    report["sessions"] = [_session(axis, 1, "local"), _session(axis, 2, "global")]
    report["merit_orders"] = [
        {
            "session": "local-1",
            "product": "local-energy",
            "direction": "up",
            "start": axis[9],
            "t": 9,
            "asked_kw": 150,
            "lines": [_line(1, 100, "accepted"), _line(2, 50, "marginal"), _line(3, 0, "red_light")],
        }
    ]
    report["lights"] = {
        "perimeters": ["F01"],
        "directions": ["up", "down"],
        "colour": {"F01": {"up": "g" * n, "down": "y" * 5 + "r" * (n - 5)}},
        "capability_kw": {"F01": kw},
        "potential_kw": {"F01": kw},
        "reasons": [{"perimeter": "F01", "direction": "down", "t": 0, "colour": "yellow", "reason": "loading AB"}],
    }
    report["needs"] = [
        {
            "session": "local-1",
            "start": axis[9],
            "t": 9,
            "element": "B",
            "kind": "voltage_low",
            "perimeter": "F01",
            "direction": "up",
            "value": 0.94,
            "bound": 0.95,
            "volume_kw": 812.5,
            "coverable": False,
            "acting": [{"unit": "cu-1", "effect_per_kw": 1.9e-05}],
        }
    ]
    report["trail"] = {
        "unit": "cu-1", "provider": "fsp-1", "buyer": "dso", "start": axis[9],
        "steps": [
            {"step": "offer", "at": axis[1], "says": "up, from 50 EUR/MWh", "where": "offer-1"},
            {"step": "payment", "at": None, "says": "1.25 EUR from dso to fsp-1", "where": "a | b"},
        ],
        "log": {"origin": "coflex/case/measurements", "size": 12, "key": "coflex/case/measurements+ab+cd"},
        "certificate": "certificate.json",
    }  # fmt: skip
    report["money"]["statements"] = [_statement("tso", "0.00", "3000.50", "-3000.50")]
    report["money"]["balance"] = {"paid": "3000.50", "received": "2940.49", "fees": "60.01", "difference": "0.00"}
    report["messages"] = {"total": 1575, "by_kind": [{"kind": "set_points", "count": 1575}]}
    report["kpis"] = [
        {"id": "losses", "group": "KPI-03", "name": "Losses", "value": 6.0312, "unit": "MWh", "meaning": "Of the day."}
    ]
    return report


def empty(day: date = date(2016, 7, 5), title: str = "A day") -> dict[str, Any]:
    """A report of a day on which nothing happened and nobody took part."""
    axis = [local_label(at, ZONE) for at in delivery_day(day, ZONE)]
    zeros = [0] * len(axis)
    quiet = _state(len(axis), 0) | {k: [] for k in ("node_low", "node_high", "branch_loading")}
    quiet |= {"node_violations": [], "branch_violations": []}
    counts = ("buses", "branches", "units", "providers", "groups", "perimeters", "connection_points")
    return {
        "case": {
            "id": "case-1",
            "title": title,
            "grid": "g",
            "day": day.isoformat(),
            "zone": "Europe/Berlin",
            "seed": 1,
            "design": {"id": "d", "title": "Design", "source": {"document": "B", "section": "6.3"}},
            "load_scale": 1.0,
            "pv_scale": 1.0,
            "counts": dict.fromkeys(counts, 0),
            "technologies": [],
        },
        "axis": axis,
        "kpis": [],
        "grid": {"nodes": [], "branches": [], "states": {"forecast": quiet, "actual": quiet}},
        "static_lights": {"modes": {}, "examples": []},
        "sessions": [],
        "needs": [],
        "merit_orders": [],
        "lights": {
            "perimeters": [],
            "directions": ["up", "down"],
            "colour": {},
            "capability_kw": {},
            "potential_kw": {},
            "reasons": [],
        },
        "interface": {
            "p_mw": {"forecast": zeros, "actual": zeros},
            "losses_mwh": {"forecast": 0.0, "actual": 0.0},
            "asked_kw": zeros,
            "local_kw": zeros,
            "bought_kw": zeros,
            "concordant_mwh": 0.0,
            "discordant_mwh": 0.0,
        },
        "forecast": {"series": [], "accuracy": []},
        "activation": {
            "ordered_kw": {},
            "setpoints": 0,
            "limitations": [],
            "replacements": [],
            "missed": [],
            "failures": [],
        },
        "trail": None,
        "money": {
            "statements": [],
            "by_session": [],
            "by_provider_technology": [],
            "balance": {"paid": "0.00", "received": "0.00", "fees": "0.00", "difference": "0.00"},
            "worst_lines": [],
        },
        "messages": {"total": 0, "by_kind": []},
    }


class _Reader(HTMLParser):
    """Collects tags with their attributes, headings, data values, and whether every tag is closed in its turn."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return render(full())


@pytest.mark.parametrize("report", [full(), empty()], ids=["full", "empty"])
def test_the_page_is_well_formed_and_loads_nothing_from_outside(report: dict[str, Any]) -> None:
    text = render(report)
    reader = _Reader(text)
    assert reader.open == []
    for tag, attributes in reader.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert "@import" not in text
    assert re.search(r"https?:", text) is None
    assert re.search(r"url\((?!['\"]?data:)", text) is None


def test_the_content_security_policy_forbids_every_address(page: str) -> None:
    policies = [a["content"] for t, a in _Reader(page).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:",
    ]


def test_every_section_has_its_heading_in_order(page: str) -> None:
    reader = _Reader(page)
    sections = [a["id"] for t, a in reader.tags if t == "section"]
    assert [one for one in sections if one != "trail"] == list(SECTIONS)
    assert [h for h in reader.headings if h in SECTIONS.values()] == list(SECTIONS.values())


def test_one_award_is_followed_where_its_messages_were_logged() -> None:
    drawn, plain = _Reader(render(full())), _Reader(render(empty()))
    assert "Trail" in drawn.headings and "Trail" not in plain.headings


def test_drawings_and_table_heads_are_labelled_for_people_who_do_not_see_them(page: str) -> None:
    reader = _Reader(page)
    drawings = [a for t, a in reader.tags if t == "svg"]
    assert len(drawings) > 12
    assert all(a["role"] == "img" and a["aria-label"] for a in drawings)
    assert all(a.get("scope") in ("col", "row") for t, a in reader.tags if t == "th")
    assert ("html", {"lang": "en"}) in reader.tags


def test_a_day_on_which_nothing_happened_is_told_in_words() -> None:
    text = render(empty())
    assert [words for words in EMPTY_WORDS if words not in text] == []
    assert "no element left its bounds" in text


def test_names_that_look_like_programs_are_escaped_everywhere() -> None:
    attack = "<script>alert('x')</script>\"><img src=x>"
    report = full(title=attack)
    report["grid"]["nodes"][1]["name"] = report["grid"]["branches"][0]["name"] = attack
    report["needs"][0]["element"] = report["merit_orders"][0]["lines"][0]["provider"] = attack
    report["lights"]["reasons"][0]["reason"] = report["money"]["statements"][0]["name"] = attack
    report["money"]["statements"][0]["party"] = report["sessions"][0]["buyer"] = attack
    text = render(report)
    tags = [tag for tag, _ in _Reader(text).tags]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert text.count("&lt;script&gt;") >= 7


def test_the_same_report_gives_the_same_bytes_under_any_hash_seed_and_order_of_keys(tmp_path: Path, page: str) -> None:
    given_report = tmp_path / "report.json"
    given_report.write_text(json.dumps(full(), sort_keys=True), encoding="utf-8")
    program = (
        "import json, sys; from coflex.adapters.web.pages.day import render; "
        "sys.stdout.buffer.write(render(json.load(open(sys.argv[1], encoding='utf-8'))).encode())"
    )
    for seed in ("1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        told = subprocess.run(
            [sys.executable, "-c", program, str(given_report)], env=environment, capture_output=True, check=True
        )
        assert told.stdout == page.encode()


@pytest.mark.parametrize(("day", "count"), [("2016-03-27", 92), ("2016-07-05", 96), ("2016-10-30", 100)])
def test_days_of_every_length_are_drawn_to_their_last_quarter_hour(day: str, count: int) -> None:
    report = full(date.fromisoformat(day))
    text = render(report)
    assert f"{count} quarter-hours" in text
    assert len(re.findall('<rect [^>]*class="cell ', text)) == 2 * count
    axis = charts.DayAxis(tuple(report["axis"]))
    assert axis.x(count) == axis.right
    assert axis.instant(count).astimezone(UTC) == delivery_day(date.fromisoformat(day), ZONE).end
    assert ("(+01:00)" in text) == (count != 96)


@pytest.mark.spec("SET-06")
def test_the_money_on_the_page_is_the_money_of_the_report(page: str) -> None:
    balance = full()["money"]["balance"]
    values = [Decimal(a["value"] or "") for t, a in _Reader(page).tags if t == "data"]
    assert values == [Decimal(balance[k]) for k in ("paid", "received", "fees", "difference")]
    assert values[0] == values[1] + values[2]
    assert "3\u202f000.50 EUR" in page
    assert "\u22123\u202f000.50" in page


@pytest.mark.spec("KPI-01")
@pytest.mark.spec("KPI-03")
@pytest.mark.spec("MKT-01")
def test_grid_models_stand_beside_each_other_with_what_they_break_and_their_remarks(page: str) -> None:
    report = full()
    ac, conic = report["sessions"][0]["models"]
    text = render(report)
    assert "What each grid model answers, measured by the full power flow" in text
    assert f"{ac['model']}, chosen" in text and ac["remark"] in text
    assert re.search(
        rf">{conic['model']}</td>(<td class=\"n\">\u2013</td>){{6}}<td class=\"w\">{conic['remark']}</td>", text
    )
    for session in report["sessions"]:
        session["models"] = []
    assert "What each grid model answers" not in render(report)


def test_the_head_shows_violations_energy_and_messages_of_the_report(page: str) -> None:
    assert "<b>7 → 0 → 2</b>" in page
    assert "9 had nobody acted" in page
    assert page.count("<b>1.8 MWh</b>") == 2
    assert "<b>8 / 4</b>" in page
    assert "<b>1\u202f575</b>" in page
    assert '<td class="n">6.031</td><td class="nw">MWh</td>' in page


def test_a_violated_node_is_ringed_and_carries_its_count() -> None:
    grid = full()["grid"]
    drawing = charts.grid_map(grid, "untouched", charts.positions(grid["nodes"]))
    assert drawing.count('class="node violated"') == 1
    assert 'class="count">9</text>' in drawing
    assert 'class="node violated"' not in charts.grid_map(grid, "planned", charts.positions(grid["nodes"]))


def test_accepted_parts_are_filled_and_refused_ones_striped_by_reason() -> None:
    drawing = charts.staircase(full()["merit_orders"][0], "local")
    assert drawing.count('class="bar local"') == 2
    assert drawing.count('class="stripe by-price"') == 1
    assert drawing.count('class="stripe by-grid"') == 1
    assert drawing.count('class="asked"') == 1


def test_buses_at_one_position_are_spread_and_distances_keep_their_proportion() -> None:
    def node(lon: float, lat: float) -> dict[str, float]:
        return {"lon": lon, "lat": lat}

    together = charts.positions([node(11, 60), node(11, 60), node(12, 60)])
    assert len(set(together)) == 3
    (x0, y0), (x1, _), (_, y2) = charts.positions([node(11, 60), node(12, 60), node(11, 60.5)])
    assert (x1 - x0) / (y0 - y2) == pytest.approx(1.0, rel=0.02)  # cos 60 degrees is one half


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_a_scale_holds_every_value_between_its_ends(values: list[float]) -> None:
    made = charts.scale(values, 150.0, 20.0)
    slack = 1e-9 * max(1.0, *(abs(v) for v in [*values, 1.0]))
    assert all(made.low - slack <= v <= made.high + slack for v in [0.0, *values])
    assert 2 <= len(made.ticks) <= 7
    assert made.at(made.low) == pytest.approx(150.0)
    assert made.at(made.high) == pytest.approx(20.0)


@given(st.decimals(-(10**9), 10**9, places=2))
def test_money_keeps_every_cent(amount: Decimal) -> None:
    assert Decimal(money(str(amount)).replace("\u202f", "").replace("\u2212", "-")) == amount


def test_numbers_keep_small_values_and_drop_needless_digits() -> None:
    assert number(0.0000187, 6) == "0.000019"
    assert number(0.00000042) == "4.2e\u221207"
    assert number(12616.6) == "12\u202f617"
    assert number(1575.0) == "1\u202f575"
    assert number(None) == "\u2013"
